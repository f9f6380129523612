"""Rows of JSON files, tables and data sets to documents: conversations in their usual layouts, pairs, or plain text."""

import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Container, Iterable, Iterator
from itertools import chain, groupby, islice
from typing import Any

from frugal.corpora.documents import Document, Turn
from frugal.corpora.reading.text import WIKITEXT_TITLE, clean, documents_of
from frugal.errors import InputError

Record = dict[str, Any]
Said = str | list[Turn]  # what a row is about: a text, or a dialogue
EXPECTED = (
    "an OpenAssistant tree ('prompt' with 'replies'), an OpenAssistant message ('message_id', 'parent_id', 'text', "
    "'role'), a conversation ('messages' or 'conversations'), a pair ('prompt', 'instruction', 'question' or 'input', "
    "with 'response', 'completion', 'output' or 'answer'), or 'text'"
)
CONVERSATIONS = ("messages", "conversations", "conversation", "dialog", "dialogue", "turns", "chat")
MORE = ("input", "context")  # what an instruction or a question is about
ASKED = ("prompt", "instruction", "question", "query", "inputs", *MORE)
ANSWERED = ("response", "completion", "output", "answer", "chosen", "target", "targets")
SYSTEM = ("system", "system_prompt")
TEXTS = ("text", "content")
WHO = ("role", "from", "speaker", "author")
WHAT = ("content", "value", "text")
ROLES = {
    **dict.fromkeys(("user", "human", "prompter", "customer", "tool", "function", "observation"), "user"),
    **dict.fromkeys(("assistant", "gpt", "chatgpt", "bot", "model", "ai", "agent", "function_call"), "assistant"),
    **dict.fromkeys(("system", "developer"), "system"),
}
SHORTEST_TEXT = 20  # characters on average; a column of shorter values holds names or labels


def each_document(records: Iterable[Record | None], origin: str, *, guess: bool = False) -> Iterator[Document]:
    """Documents of rows, each recognised by its keys; the rows are gone through more than once, and never kept.

    Rows without text (null, an empty string, a conversation that nobody answered, a row that lacks keys which others
    have) are left out with a warning that counts them. With `guess`, the longest column of a table whose columns are of
    no known kind is its text, with a warning that names it.

    Raises:
        InputError: a row is of no known kind, or all hold nothing; `origin` names them in the message.

    Example:
        >>> rows = [{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!"}]}]
        >>> next(each_document(rows, "a file")).turns
        (Turn(speaker='user', text='Hi'), Turn(speaker='assistant', text='Hello!'))
    """
    if guess and not any(map(_reader, _rows(records, origin))):
        records = _with_guessed_text(list(_rows(records, origin)), origin)
    keys = {key for row in _rows(records, origin) if _reader(row) for key in row}
    rows = _rows(records, origin)
    if keys >= {"message_id", "parent_id", "text", "role"}:
        said: Iterator[Said] = (_read_tree(root) for root in _grown_trees([row for row in rows if row], origin))
    else:
        said = _each(rows, lambda row: _read(row, keys), origin)
    none = True
    for document in _documents(said, origin):
        none = False
        yield document
    if none:
        raise InputError(f"{origin}: holds no text; give at least one row with text in it")


def _rows(records: Iterable[Record | None], origin: str) -> Iterator[Record]:
    for row in records:
        if row is not None and not isinstance(row, dict):
            raise InputError(f"{origin}: its rows are {type(row).__name__} values; expected objects, each {EXPECTED}")
        yield {key.lower(): value for key, value in (row or {}).items()}


def _read(row: Record, keys: set[str]) -> Said:
    """What a row says: turns, or text; nothing where it lacks what rows of known kinds have, whose keys are given."""
    if read := _reader(row):
        return read(row)
    if row.keys() <= keys:
        return ""
    raise ValueError(f"found {', '.join(sorted(map(str, row)))}")


def _reader(row: Record) -> Callable[[Record], Said] | None:
    """How a row is read, by its keys; None where they are of no known kind."""
    if isinstance(row.get("prompt"), dict):
        return lambda row: _read_tree(row["prompt"])
    lists, strings = ({key for key, value in row.items() if isinstance(value, kind)} for kind in (list, str))
    if conversation := _key(CONVERSATIONS, lists):
        return lambda row: _turns([*_system(row), *_said(row[conversation])])
    asked, answered = _key(ASKED, row), _key(ANSWERED, row)
    if asked and answered:
        return lambda row: _read_pair(row, asked, answered)
    if text := _key(TEXTS, row) or _key(CONVERSATIONS, strings):
        return lambda row: _text(row[text])
    return None


def _with_guessed_text(rows: list[Record], origin: str) -> list[Record]:
    """The rows with their longest column of strings as "text", if that is longer than names and labels are."""
    lengths: Counter[str] = Counter()
    for row in rows:
        lengths.update({key: len(value) for key, value in row.items() if isinstance(value, str)})
    (longest, size), *_ = lengths.most_common(1) or [("", 0)]
    if size < SHORTEST_TEXT * len(rows):
        return rows
    warnings.warn(f"{origin}: its column {longest!r} is taken as the text; rename another one to 'text'", stacklevel=2)
    return [{"text": row.get(longest)} for row in rows]


def _key(known: Iterable[str], keys: Container[str]) -> str | None:
    return next((name for name in known if name in keys), None)


def _each(records: Iterable[Record], read: Any, origin: str) -> Iterator[Any]:
    """What `read` makes of each row, with the row's number where it cannot."""
    for number, record in enumerate(records, 1):
        try:
            yield read(record)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"{origin}: row {number} cannot be read ({error}); expected rows that are each {EXPECTED}"
            ) from error


def _documents(said: Iterator[Said], origin: str) -> Iterator[Document]:
    """Dialogues with at least two turns, and texts; but WikiText, whose rows are lines, is put together again."""
    first = list(islice(said, 4))
    lines = [text.removesuffix("\n") + "\n" for text in first if isinstance(text, str)]
    if len(lines) == len(first) and WIKITEXT_TITLE.match("".join(lines)):
        lines += [text.removesuffix("\n") + "\n" for text in map(str, said)]
        yield from documents_of("".join(lines), origin)
        return
    left_out = []
    for number, each in enumerate(chain(first, said), 1):
        if isinstance(each, str) and each.strip():
            yield Document(f"row {number}", each)
        elif isinstance(each, list) and len(each) > 1:
            yield Document.dialogue(each[0].text.partition("\n")[0], each)
        else:
            left_out.append(number)
    if left_out:
        rows = ", ".join(map(str, left_out[:3])) + (", ..." if len(left_out) > 3 else "")
        warnings.warn(f"{origin}: {len(left_out)} rows without text are left out (row {rows})", stacklevel=2)


def _text(value: object) -> str:
    """A value as clean text; nothing is no text, a number is its digits, and parts of a message are put together."""
    if value is None:
        return ""
    if isinstance(value, list):  # [{"type": "text", "text": ...}, ...]
        return "\n".join(
            filter(None, (_text(part.get("text")) if isinstance(part, dict) else _text(part) for part in value))
        )
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise TypeError(f"{type(value).__name__} where a text is expected")
    return clean(str(value))


def _read_pair(record: Record, asked: str, answered: str) -> list[Turn]:
    """A question and its answer, after a word of the system and earlier pairs; either may be a list of messages."""
    more = next((name for name in MORE if name in record and name != asked), None)
    said = [*_system(record), *_earlier(record.get("history"))]
    for role, name in (("user", asked), ("user", more), ("assistant", answered)):
        value = record.get(name) if name else None
        said += _said(value) if isinstance(value, list) and _are_messages(value) else [(role, _text(value))]
    return _turns(said)


def _earlier(history: Any) -> list[tuple[str, str]]:
    """What was said before: pairs, messages one by one, or a text."""
    if not isinstance(history, list):
        return [("user", _text(history))]
    return _said(chain.from_iterable(each if isinstance(each, list) else [each] for each in history))


def _system(record: Record) -> list[tuple[str, str]]:
    """What the system says where a column of its own has it."""
    said = record.get(_key(SYSTEM, record) or "")
    return [("system", _text(said))] if isinstance(said, str) else []


def _are_messages(values: list[Any]) -> bool:
    return all(isinstance(value, dict) and _key(WHO, value) for value in values)


def _said(messages: Iterable[Any]) -> list[tuple[str, str]]:
    """Who says what; in a list of texts, who speaks alternates."""
    said, messages = [], list(messages)
    roles = _roles(message[who] for message in messages if isinstance(message, dict) and (who := _key(WHO, message)))
    for number, message in enumerate(messages):
        if isinstance(message, str):
            said.append(("user" if number % 2 == 0 else "assistant", _text(message)))
        else:
            who, what = _key(WHO, message), _key(WHAT, message)
            if who is None:
                raise ValueError(f"a message with the keys {', '.join(message)}")
            said.append((roles[message[who]], _text(message[what]) if what else ""))
    return said


def _roles(names: Iterable[str]) -> dict[str, str]:
    """The role of each who speaks; two people by their own names are the user, who speaks first, and the assistant."""
    roles = {name: ROLES.get(name.lower(), "") for name in names}
    people = [name for name, role in roles.items() if not role]
    left = [role for role in ("user", "assistant") if role not in roles.values()]
    if len(people) not in (0, len(left)):
        raise ValueError(f"the role {people[0]!r}; known are {', '.join(ROLES)}, or the names of two who talk")
    return roles | dict(zip(people, left, strict=False))


def _turns(said: Iterable[tuple[str, str]]) -> list[Turn]:
    """Turns that say something, in turn; what the system says stands before what the user says first."""
    heard = [("user" if role == "system" else role, text.strip()) for role, text in said if text.strip()]
    return [
        Turn(role, "\n\n".join(text for _, text in group)) for role, group in groupby(heard, key=lambda turn: turn[0])
    ]


def _grown_trees(messages: list[Record], origin: str) -> list[Record]:
    """Root messages with their `replies` below them, out of a flat list of messages."""
    replies: dict[Any, list[Record]] = defaultdict(list)

    def grow(message: Record) -> None:
        if message["message_id"] is None:
            raise ValueError("its message_id is null")
        replies[message.get("parent_id")].append({**message, "replies": replies[message["message_id"]]})

    for _ in _each(messages, grow, origin):
        pass
    return replies[None]


def _read_tree(root: Record) -> list[Turn]:
    """One dialogue a tree, so that no text stands in two: from the root along each message's best-ranked reply."""
    path = [root]
    while replies := [reply for reply in path[-1].get("replies") or () if not reply.get("deleted")]:
        path.append(min(replies, key=_rank))
    roles = _roles(message["role"] for message in path)
    return _turns((roles[message["role"]], _text(message["text"])) for message in path)


def _rank(message: Record) -> float:
    rank = message.get("rank")
    return float("inf") if rank is None else rank

"""Rows of JSON files and data sets to documents: dialogue trees, prompt/response pairs, or plain text."""

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from frugal.corpora.documents import Document, Turn
from frugal.corpora.text import WIKITEXT_TITLE, documents_of
from frugal.errors import InputError

Record = dict[str, Any]
EXPECTED = (
    "an OpenAssistant tree ('prompt' with 'replies'), an OpenAssistant message ('message_id', 'parent_id', 'text', "
    "'role'), a pair ('prompt' and 'response', or 'instruction', 'input' and 'output'), or 'text'"
)


def documents_of_records(records: list[Record], origin: str) -> list[Document]:
    """Documents of rows of one kind, recognised by the first row's keys; rows without text are left out.

    Raises:
        InputError: the rows are of no known kind, or hold nothing; `origin` names them in the message.
    """
    first = records[0] if records else {}
    if not isinstance(first, dict):
        raise InputError(f"{origin}: its rows are {type(first).__name__} values; expected objects, each {EXPECTED}")
    try:
        documents = _documents(records, set(first), origin)
    except (AttributeError, KeyError, TypeError) as error:
        raise InputError(
            f"{origin}: a row differs from the first ({error}); give rows of one kind: {EXPECTED}"
        ) from error
    if not documents:
        raise InputError(f"{origin}: holds no text; give at least one row with text in it")
    return documents


def _documents(records: list[Record], keys: set[str], origin: str) -> list[Document]:
    if keys >= {"message_id", "parent_id", "text", "role"}:
        return _tree_dialogues(_grown_trees(records))
    if "prompt" in keys and isinstance(records[0]["prompt"], dict):
        return _tree_dialogues([record["prompt"] for record in records])
    if keys >= {"prompt", "response"}:
        return _pair_dialogues((record["prompt"], record["response"]) for record in records)
    if keys >= {"instruction", "output"}:
        return _pair_dialogues((_instruction(record), record["output"]) for record in records)
    if "text" in keys:
        return _texts([record["text"] for record in records], origin)
    found = ", ".join(sorted(keys)) or "no rows at all"
    raise InputError(f"{origin}: found {found}; expected rows that are each {EXPECTED}")


def _instruction(record: Record) -> str:
    return "\n\n".join(part for part in (record["instruction"], record.get("input")) if part)


def _pair_dialogues(pairs: Iterator[tuple[str, str]]) -> list[Document]:
    kept = ((prompt.strip(), response.strip()) for prompt, response in pairs)
    return [
        Document.dialogue(prompt.partition("\n")[0], [Turn("user", prompt), Turn("assistant", response)])
        for prompt, response in kept
        if prompt and response
    ]


def _grown_trees(messages: list[Record]) -> list[Record]:
    """Root messages with their `replies` below them, out of a flat list of messages."""
    replies = defaultdict(list)
    for message in messages:
        replies[message["parent_id"]].append(message)
    nodes = [{**message, "replies": replies[message["message_id"]]} for message in messages]
    grown = {node["message_id"]: node for node in nodes}
    for node in nodes:
        node["replies"] = [grown[reply["message_id"]] for reply in node["replies"]]
    return [node for node in nodes if node["parent_id"] is None]


def _tree_dialogues(roots: list[Record]) -> list[Document]:
    """One dialogue a tree, so that no text stands in two: from the root along each message's best-ranked reply."""
    dialogues = []
    for root in roots:
        turns = [Turn(_speaker(message), message["text"].strip()) for message in _best_path(root)]
        if len(turns) > 1:
            dialogues.append(Document.dialogue(turns[0].text.partition("\n")[0], turns))
    return dialogues


def _best_path(message: Record | None) -> Iterator[Record]:
    while message is not None:
        yield message
        replies = [reply for reply in message["replies"] if not reply.get("deleted")]
        message = min(replies, key=_rank, default=None)


def _rank(message: Record) -> float:
    rank = message.get("rank")
    return float("inf") if rank is None else rank


def _speaker(message: Record) -> str:
    return "user" if message["role"] == "prompter" else "assistant"


def _texts(texts: list[str], origin: str) -> list[Document]:
    """One document a row; but WikiText, whose rows are lines, is put together again."""
    lines = [text if text.endswith("\n") else text + "\n" for text in texts]
    if WIKITEXT_TITLE.match("".join(lines[:4])):
        return documents_of("".join(lines), origin)
    return [Document(f"row {number}", text) for number, text in enumerate(texts, 1) if text.strip()]

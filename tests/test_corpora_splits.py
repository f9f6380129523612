"""Splits: whole documents, each in one split, the same for the same seed, about 90 / 5 / 5."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from frugal.corpora import Document
from frugal.corpora.splits import split_documents
from frugal.errors import InputError


def documents_of_sizes(sizes: list[int]) -> list[Document]:
    return [Document(f"document {number}", "word " * size) for number, size in enumerate(sizes)]


def size(documents: tuple[Document, ...]) -> int:
    return sum(len(document.text) for document in documents)


@given(st.lists(st.integers(20, 400), min_size=3, max_size=60), st.integers(0, 2**32))
def test_each_document_is_whole_and_in_one_split(sizes: list[int], seed: int) -> None:
    documents = documents_of_sizes(sizes)
    splits = split_documents(documents, seed)
    everything = [*splits.train, *splits.valid, *splits.test]
    assert all(splits[:3])
    assert sorted(everything, key=documents.index) == documents


@given(st.lists(st.integers(20, 60), min_size=80, max_size=120), st.integers(0, 2**32))
def test_many_documents_are_split_as_near_to_90_5_5_as_whole_ones_can_be(sizes: list[int], seed: int) -> None:
    documents = documents_of_sizes(sizes)
    splits = split_documents(documents, seed)
    longest = max(len(document.text) for document in documents)
    for part in (splits.valid, splits.test):
        assert abs(20 * size(part) - size(tuple(documents))) <= 20 * longest / 2


def test_the_seed_decides_and_repeats() -> None:
    documents = documents_of_sizes([50] * 100)
    assert split_documents(documents, 3) == split_documents(documents, 3)
    assert split_documents(documents, 3) != split_documents(documents, 4)


def test_a_document_too_long_to_hold_out_stays_in_training() -> None:
    documents = documents_of_sizes([10_000] + [100] * 50)
    for seed in range(5):
        assert documents[0] in split_documents(documents, seed).train


def test_a_single_document_is_cut_in_order_between_paragraphs() -> None:
    paragraphs = [f"Paragraph {number} of the text.\n\n" for number in range(100)]
    text = "".join(paragraphs)
    splits = split_documents([Document("one", text)], seed=0)
    pieces = [splits.train[0].text, splits.valid[0].text, splits.test[0].text]
    assert splits.cut
    assert "".join(pieces) == text
    assert [piece.count("Paragraph") for piece in pieces] == [90, 5, 5]
    assert all(piece.startswith("Paragraph") for piece in pieces)


def test_a_single_document_without_paragraphs_is_cut_between_words() -> None:
    splits = split_documents([Document("one", "word " * 200)], seed=0)
    assert "".join(piece.text for split in splits[:3] for piece in split) == "word " * 200
    assert all(split[0].text.startswith("word") for split in splits[:3])


def test_of_two_documents_the_shorter_is_the_whole_test_text() -> None:
    longer, shorter = documents_of_sizes([300, 100])
    splits = split_documents([longer, shorter], seed=0)
    assert splits.test == (shorter,)
    assert splits.train[0].text + splits.valid[0].text == longer.text
    assert splits.cut


@pytest.mark.parametrize("texts", [["too short"], ["a", "b", "c"], []])
def test_too_short_a_text_is_refused(texts: list[str]) -> None:
    with pytest.raises(InputError, match="characters: at least 100"):
        split_documents([Document("", text) for text in texts], seed=0)


@pytest.mark.parametrize(
    "text", ["春天來了。" * 100, "年" * 500, "e\u0301" * 300], ids=["sentences", "letters", "marks"]
)
def test_a_text_without_spaces_is_cut_between_sentences_or_letters(text: str) -> None:
    parts = [part[0].text for part in split_documents([Document("one", text)], seed=0)[:3]]
    assert "".join(parts) == text
    assert [len(part) / len(text) for part in parts] == pytest.approx([0.9, 0.05, 0.05], abs=0.01)
    assert all(part[0] == text[0] for part in parts)


def test_a_text_too_short_to_cut_is_refused() -> None:
    with pytest.raises(InputError, match="cannot be cut into 3 texts: it is too short"):
        split_documents([Document("one", "x" + " " * 200)], seed=0)


def test_a_document_of_a_few_words_is_never_all_there_is_to_test_on() -> None:
    for count in (1, 2, 9):
        for seed in range(10):
            splits = split_documents(
                [*documents_of_sizes([1000 + n for n in range(count)]), Document("todo", "todo")], seed
            )
            assert min(len(splits.valid[0].text), len(splits.test[0].text)) > 40


def test_a_documents_chance_to_be_held_out_does_not_depend_on_its_length() -> None:
    documents = documents_of_sizes([20, 100] * 60)
    held_out = [document for seed in range(60) for document in split_documents(documents, seed).test]
    short = sum(len(document.text) == 100 for document in held_out)
    assert 0.4 < short / len(held_out) < 0.6


def test_which_of_a_few_long_documents_is_held_out_depends_on_the_seed() -> None:
    documents = documents_of_sizes([1000, 1100, 1200, 1300, 1400])
    assert len({split_documents(documents, seed).test for seed in range(30)}) == 5


def test_a_cut_leaves_each_part_half_of_its_share_at_least() -> None:
    paragraphs = ["word " * 200, "word " * 190, "the end"]
    for document in (Document("a", "\n\n".join(paragraphs)), Document("b", "\n\n".join(paragraphs[::-1]))):
        train, valid, test, cut = split_documents([document], seed=0)
        assert cut
        sizes = [sum(len(each.text) for each in part) for part in (train, valid, test)]
        assert min(sizes[1:]) >= 0.5 * 0.05 * len(document.text)

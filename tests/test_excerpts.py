import pytest
from hypothesis import given
from hypothesis import strategies as st

from frugal.corpora import Corpus, Document, excerpts, usage
from frugal.errors import InputError

documents_of_words = st.lists(st.text("ab \né猫😀", min_size=1, max_size=80), min_size=1, max_size=6).map(
    lambda texts: [Document(str(number), text) for number, text in enumerate(texts)]
)


@given(documents_of_words, st.integers(1, 300))
def test_excerpts_are_beginnings_that_fit(documents: list[Document], characters: int) -> None:
    chosen = {excerpt.title: excerpt.text for excerpt in excerpts(documents, characters)}
    assert sum(len(text.encode()) for text in chosen.values()) <= max(4, characters)
    wholes = [document for document in documents if document.title in chosen]
    assert list(chosen) == [whole.title for whole in wholes]
    for whole in wholes:
        assert chosen[whole.title]
        assert whole.text.startswith(chosen[whole.title])


@given(st.lists(st.integers(1, 300), min_size=1, max_size=40), st.integers(100, 3_000))
def test_of_many_documents_some_are_taken_and_none_is_cut_to_pieces(lengths: list[int], characters: int) -> None:
    documents = [Document(str(number), "a" * length) for number, length in enumerate(lengths)]
    chosen = {excerpt.title: len(excerpt.text) for excerpt in excerpts(documents, characters)}
    assert all(chosen.get(document.title, 100) >= min(100, len(document.text)) for document in documents)
    assert len(chosen) == len(documents) or sum(chosen.values()) > characters - 100 - len(chosen)


def test_the_documents_that_are_taken_are_not_the_first_ones() -> None:
    documents = [Document(str(number), "word " * 100) for number in range(1_000)]
    chosen = [int(document.title) for document in excerpts(documents, 10_000)]
    assert 400 < sum(chosen) / len(chosen) < 600
    assert chosen == [int(document.title) for document in excerpts(documents, 10_000)]


@given(documents_of_words)
def test_enough_room_keeps_everything(documents: list[Document]) -> None:
    assert excerpts(documents, sum(len(document.text.encode()) for document in documents) + 24) == tuple(documents)


def test_short_documents_leave_their_share_to_long_ones() -> None:
    documents = [Document("short", "a" * 10), Document("long", "b" * 500), Document("longer", "c" * 900)]
    assert [len(document.text) for document in excerpts(documents, 310)] == [10, 150, 150]


def test_an_excerpt_ends_between_two_words() -> None:
    assert excerpts([Document("tale", "once upon a time")], 12)[0].text == "once upon a"


def test_an_excerpt_has_at_least_a_character() -> None:
    assert [each.text for each in excerpts([Document("a", "猫猫")], 2)] == ["猫"]


def test_a_budget_is_about_as_long_in_every_script() -> None:
    assert len(excerpts([Document("cats", "猫" * 100)], 100)[0].text) == 33


def test_a_report_says_how_much_of_a_text_is_used() -> None:
    corpus = Corpus("tale", *[(Document("a", "word " * 1000), Document("b", "word " * 1000))] * 3, "", "", "")
    used = {"train": excerpts(corpus.train[:1], 2_000), "valid": corpus.valid}
    assert (
        usage(corpus, used) == "Of tale: 1,999 of 10,000 characters of train (1 of 2 documents), all 10,000 of valid."
    )


def test_room_for_less_than_a_character_is_refused() -> None:
    with pytest.raises(InputError, match="characters=0: must be at least 1"):
        excerpts([Document("a", "a"), Document("b", "b")], 0)
    with pytest.raises(InputError, match="no documents"):
        excerpts([], 100)

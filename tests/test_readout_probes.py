import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn.functional import one_hot

from frugal.corpora import CharTokenizer, Document
from frugal.errors import InputError
from frugal.readout.probes import Probe, copied_share
from frugal.readout.recall import RecallTask

ARTICLES = [Document(letter, " ".join(f"{letter}{n}" for n in range(90))) for letter in "abcdefghi"]


def a_shift(**changed: int) -> Probe:
    return Probe.topic_shift(CharTokenizer.ascii(), ARTICLES, **{"count": 40, "words": 5, "seed": 0, **changed})


def test_the_topic_to_be_named_is_that_after_the_shift() -> None:
    shift = a_shift()
    for text, tokens, said, label in zip(shift.texts, shift.tokens, shift.said, shift.labels, strict=True):
        first, second = text.split()[0][0], text.split()[5][0]
        assert second == "abcdefgh"[label] != first
        assert CharTokenizer.ascii().decode(tokens[1 : said + 1]).split()[-1][0] == first


def test_what_is_scored_comes_from_parts_of_articles_that_nothing_is_fitted_to() -> None:
    shift = a_shift()
    fitting, choosing, scoring = ({word for i in part for word in shift.texts[i].split()} for part in shift.parts)
    assert not (fitting | choosing) & scoring


def test_states_that_hold_the_topic_are_read_perfectly() -> None:
    shift = a_shift()
    pairs = zip(shift.tokens, shift.labels, strict=True)
    states = [one_hot(torch.tensor(label), 8).float().expand(len(tokens) - 1, 8) for tokens, label in pairs]
    assert shift.share_known(shift.known(states, shift.parts[2]), after=0) == 1.0


def test_a_single_text_is_cut_into_articles() -> None:
    book = [Document("book", " ".join(f"{letter}{n}" for letter in "abcdefgh" for n in range(30)))]
    shift = Probe.topic_shift(CharTokenizer.ascii(), book, count=16, words=5, seed=0)
    for text, label in zip(shift.texts, shift.labels, strict=True):
        assert {word[0] for word in text.split()[5:]} == {"abcdefgh"[label]}


@pytest.mark.parametrize("words", [5, 40])
def test_a_script_without_spaces_is_cut_between_characters(words: int) -> None:
    book = [Document("book", "".join(chr(0x4E00 + n) for n in range(8 * 20)))]
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        shift = Probe.topic_shift(CharTokenizer.learn([book[0].text]), book, count=16, words=words, seed=0)
    assert ["7 words of either article are taken, not 40" in str(each.message) for each in told] == [True] * (words > 7)
    assert {len(text) for text in shift.texts} == {2 * min(words, 7)}
    assert [(ord(text[-1]) - 0x4E00) // 20 for text in shift.texts] == list(shift.labels)


@pytest.mark.parametrize("length", [64, 100])
def test_the_shortest_text_with_a_shift(length: int) -> None:
    with pytest.warns(match="the text is short"):
        Probe.topic_shift(CharTokenizer("a "), [Document("a", "a " * length)], count=64, words=40, seed=0)
    with pytest.raises(InputError, match="a text of 64 words or more"):
        Probe.topic_shift(CharTokenizer("a "), [Document("a", "a " * 63)], count=64, words=40, seed=0)


@pytest.mark.parametrize(
    "wrong", [{"count": 8.0}, {"count": "8"}, {"count": 7}, {"words": 2.5}, {"words": 0}, {"seed": -1}]
)
@pytest.mark.parametrize("make", [Probe.topic_shift, RecallTask.make])
def test_settings_of_a_probe_are_whole_numbers(wrong: dict[str, Any], make: Callable[..., Probe]) -> None:
    words = "filler_words" if make == RecallTask.make else "words"
    given = {
        words if name == "words" else name: value
        for name, value in {"count": 8, "words": 3, "seed": 0, **wrong}.items()
    }
    (name,) = wrong
    with pytest.raises(InputError, match=f"{words if name == 'words' else name}=.*: must be a whole number"):
        make(CharTokenizer.ascii(), ARTICLES, **given)


@pytest.mark.parametrize("topics", [0, 1, 2.0])
def test_a_shift_needs_two_topics(topics: Any) -> None:
    with pytest.raises(InputError, match=f"topics={topics}: must be a whole number of at least 2"):
        a_shift(topics=topics)


def test_what_no_document_reaches_has_no_share() -> None:
    known = [torch.tensor([True, False, True]), torch.tensor([True])]
    assert [Probe.share_known(known, after) for after in (0, 1, 2)] == [0.75, 0.5, 1.0]
    for after in (3, 1000):
        with pytest.raises(InputError, match=f"after={after}: no document goes on for so long"):
            Probe.share_known(known, after)
    for wrong in (-1, 1.5):
        with pytest.raises(InputError, match=f"after={wrong}: must be a whole number"):
            Probe.share_known(known, wrong)  # type: ignore[arg-type]


def test_states_that_hold_the_last_two_tokens_copy_those_and_no_others() -> None:
    generator = torch.Generator().manual_seed(0)
    documents = [torch.randint(6, (200,), generator=generator) for _ in range(8)]
    states = [torch.cat([one_hot(t, 6), one_hot(t.roll(1), 6)], 1).float() for t in documents]
    found = copied_share(states, documents, (0, 1, 2))
    assert found[0] == found[1] == 1.0
    assert found[2] < 0.4


def test_a_delay_longer_than_all_documents_is_refused() -> None:
    with pytest.raises(InputError, match="delay=9"):
        copied_share([torch.ones(5, 2)] * 8, [torch.zeros(5, dtype=torch.int64)] * 8, [9])


@pytest.mark.parametrize("delays", [[], [3, -1]])
def test_delays_that_mean_nothing_are_refused(delays: list[int]) -> None:
    with pytest.raises(InputError, match=r"delays=.*: must be a (list of at least 1|whole number of at least 0)"):
        copied_share([torch.ones(5, 2)] * 8, [torch.zeros(5, dtype=torch.int64)] * 8, delays)

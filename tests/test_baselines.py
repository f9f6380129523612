import math
import shutil
import sys
from collections import Counter, defaultdict
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from frugal.baselines import Cache, NGram, compressed_bits_per_byte
from frugal.baselines.compression import COMPRESSORS
from frugal.corpora import CharTokenizer, Document
from frugal.errors import InputError, UnavailableError
from frugal.evaluate import evaluate
from models import TEXTS, Recurrent, characters, random_gpt2, set_everywhere


def kneser_ney(texts: list[str], order: int, alphabet: str) -> dict[str, dict[str, float]]:
    """Modified Kneser-Ney by dictionaries and loops, straight from the formula: history -> character -> probability."""
    size = len(set(alphabet)) + 2
    grams: list[Counter[str]] = [Counter() for _ in range(order + 1)]
    for text in texts:
        padded = "^" * (order - 1) + text
        for k in range(1, order + 1):
            grams[k].update(padded[i - k : i] for i in range(order, len(padded) + 1))
    counts: list[Counter[str]] = [Counter() for _ in range(order + 1)]
    counts[order] = grams[order]
    for k in range(1, order):
        counts[k].update(gram[1:] for gram in grams[k + 1])

    def discount(k: int) -> list[float]:
        n = [sum(c == i for c in counts[k].values()) for i in range(5)]
        if not all(n[1:]):
            return [0, 0.5, 0.5, 0.5]
        y = n[1] / (n[1] + 2 * n[2])
        bounds = [(0.01, 0.99), (0.01, 1.99), (0.01, 2.99)]
        return [0] + [min(max(i - (i + 1) * y * n[i + 1] / n[i], b[0]), b[1]) for i, b in enumerate(bounds, 1)]

    def probability(history: str, character: str) -> float:
        k = len(history) + 1
        lower = probability(history[1:], character) if history else 1 / size
        followers = {gram[-1]: c for gram, c in counts[k].items() if gram[:-1] == history}
        if not followers:
            return lower
        d, total = discount(k), sum(followers.values())
        own = followers.get(character, 0)
        taken = sum(d[min(c, 3)] for c in followers.values())
        return (own - d[min(own, 3)]) / total + taken / total * lower

    table: dict[str, dict[str, float]] = defaultdict(dict)
    for text in texts:
        padded = "^" * (order - 1) + text
        for i in range(order - 1, len(padded)):
            history = padded[i - order + 1 : i]
            for character in alphabet:
                table[history][character] = probability(history, character)
    return table


@given(texts=st.lists(st.text("abc", min_size=1, max_size=30), min_size=1, max_size=4), order=st.integers(1, 4))
@settings(max_examples=40)
def test_the_ngram_is_kneser_ney_by_loops(texts: list[str], order: int) -> None:
    tokenizer = CharTokenizer("abc")
    model = NGram(order, tokenizer).fit(texts)
    for history, expected in kneser_ney(texts, order, "abc").items():
        known = history.lstrip("^")
        tokens = torch.tensor(
            [[tokenizer.start_id] * max(1, len(history) - len(known)) + tokenizer.encode(known).tolist()]
        )
        given_probabilities = model.log_probabilities(tokens)[0, -1].exp()
        for character, probability in expected.items():
            assert given_probabilities[tokenizer.encode(character)].item() == pytest.approx(probability, rel=1e-4)


def test_a_longer_ngram_helps_on_text_like_its_training_text() -> None:
    texts = [text * 3 for text in TEXTS]
    bits = [evaluate(NGram(order, characters()).fit(texts), TEXTS).bits_per_byte for order in (1, 2, 4)]
    assert bits[0] > bits[1] > bits[2]


def test_a_saved_ngram_scores_as_before(tmp_path: Path) -> None:
    model = NGram(4, characters()).fit(TEXTS)
    model.save(tmp_path / "model")
    loaded = NGram.load(tmp_path / "model")
    assert evaluate(loaded, TEXTS).nats == evaluate(model, TEXTS).nats
    assert {path.name for path in (tmp_path / "model").iterdir()} >= {"model.safetensors", "config.json", "card.md"}


def test_an_ngram_of_nothing_is_refused() -> None:
    with pytest.raises(InputError, match="training text is empty"):
        NGram(3, characters()).fit([])
    with pytest.raises(InputError, match="order=0: must be a whole number of at least 1"):
        NGram(0, characters())


@pytest.mark.parametrize("text", ["the cat sat on the mat", Document("Cats", "the cat sat on the mat")])
def test_a_single_text_is_one_document(text: str | Document) -> None:
    alone, listed = (NGram(3, CharTokenizer.ascii()).fit(given) for given in (text, [text]))
    assert evaluate(alone, "the cat").nats == evaluate(listed, "the cat").nats


def test_an_ngram_that_has_counted_nothing_says_so(tmp_path: Path) -> None:
    model = NGram(3, CharTokenizer.ascii())
    for use in (lambda: evaluate(model, "abc"), lambda: model.save(tmp_path / "model")):
        with pytest.raises(InputError, match="call `fit` first"):
            use()


def test_an_ngram_of_hundreds_of_tokens_finds_nothing_impossible() -> None:
    model = NGram(300, CharTokenizer.ascii()).fit(["the cat sat on the mat. " * 10])
    assert math.isfinite(evaluate(model, "the cat sat on the dog").nats)


def test_an_unknown_compressor_is_refused() -> None:
    with pytest.raises(InputError, match="method='zip': must be one of gzip, lzma"):
        compressed_bits_per_byte([], [Document("", "text")], "zip")  # type: ignore[arg-type]


def test_a_cache_of_weight_zero_is_the_model_itself() -> None:
    model = Recurrent(characters())
    assert evaluate(Cache(model, weight=0), TEXTS).nats == pytest.approx(evaluate(model, TEXTS).nats)


def test_the_cache_is_its_formula() -> None:
    model, weight, theta = Recurrent(characters()), 0.4, 3.0
    cache = Cache(model, weight=weight, theta=theta)
    tokens = torch.tensor([[model.tokenizer.start_id, *model.tokenizer.encode(TEXTS[0])]])
    hidden = torch.nn.functional.normalize(model.hidden(tokens)[0], dim=-1)
    t = 20
    similar = torch.exp(theta * hidden[:t] @ hidden[t])
    expected = (1 - weight) * model.log_probabilities(tokens)[0, t].exp()
    for i in range(t):
        expected[tokens[0, i + 1]] += weight * similar[i] / similar.sum()
    torch.testing.assert_close(cache.log_probabilities(tokens)[0, t].exp(), expected, rtol=1e-4, atol=1e-6)


def test_the_cache_makes_a_repeated_text_cheaper() -> None:
    model = Recurrent(characters())
    repeated = TEXTS[0] * 4
    assert evaluate(Cache(model, weight=0.5, theta=50), repeated).nats < 0.8 * evaluate(model, repeated).nats


def test_tuning_finds_the_best_theta_and_weight_as_evaluation_measures_it() -> None:
    model, texts = Recurrent(characters()), [TEXTS[0] * 2, TEXTS[1] * 2]
    thetas = (0.0, 10.0, 40.0)
    tuned = Cache.tuned(model, texts, thetas=thetas)
    best = evaluate(tuned, texts).nats
    assert tuned.theta in thetas
    for theta in thetas:
        for weight in (0.0, 0.1, 0.3, 0.5, 0.7, 0.9):
            assert best <= evaluate(Cache(model, weight=weight, theta=theta), texts).nats + 1e-3


def test_tuning_reads_a_document_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Recurrent(characters())
    whole = Cache.tuned(model, TEXTS)
    set_everywhere(monkeypatch, "LOGITS_AT_ONCE", 8 * len(TEXTS[0]))  # two rows of the longest
    tuned = Cache.tuned(model, TEXTS)
    assert (tuned.theta, tuned.weight) == (whole.theta, pytest.approx(whole.weight, rel=1e-4))


def test_a_cache_that_knows_nothing_gets_no_weight() -> None:
    assert Cache.tuned(Recurrent(characters()), ["abcdefg"]).weight == pytest.approx(0, abs=1e-2)


def test_a_cache_compares_the_part_of_the_state_that_it_is_given() -> None:
    model, tokens = Recurrent(characters()), torch.tensor([[0, *characters().encode(TEXTS[0])]])
    same, other = (Cache(model, key=lambda h, c=c: h[..., c]) for c in (slice(None), slice(0, 4)))  # type: ignore[misc]
    expected = Cache(model).log_probabilities(tokens)
    assert torch.equal(same.log_probabilities(tokens), expected)
    assert not torch.allclose(other.log_probabilities(tokens), expected, atol=1e-3)


def test_a_cache_over_a_model_with_a_limited_context_is_refused() -> None:
    with pytest.raises(InputError, match="16 tokens at once"):
        Cache(random_gpt2())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("setting", "message"),
    [({"weight": 1.5}, "weight=1.5"), ({"theta": -1.0}, "theta=-1.0"), ({"theta": math.nan}, "theta=nan")],
)
def test_impossible_cache_settings_are_refused(setting: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Cache(Recurrent(characters()), **setting)


@pytest.mark.parametrize("method", COMPRESSORS)
def test_compressing_seen_text_costs_almost_nothing_and_other_text_what_it_says(method: str) -> None:
    if method == "ZPAQ" and shutil.which("zpaq") is None:
        pytest.skip("needs Debian's zpaq")
    train, other = [Document("a", TEXTS[0] * 20)], [Document("b", "".join(map(chr, range(33, 127))))]
    assert compressed_bits_per_byte(train, train, method) < 1.5
    assert compressed_bits_per_byte(train, other, method) > math.log2(94) - 1


def test_a_compressor_that_is_not_installed_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    train = [Document("a", TEXTS[0])]
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UnavailableError, match="needs the program zpaq"):
        compressed_bits_per_byte(train, train, "ZPAQ")
    monkeypatch.setitem(sys.modules, "pyppmd", None)
    with pytest.raises(UnavailableError, match="pip install pyppmd"):
        compressed_bits_per_byte(train, train, "PPMd")


def test_a_text_to_compress_is_not_empty() -> None:
    train = [Document("a", TEXTS[0])]
    with pytest.raises(InputError, match="test text is empty"):
        compressed_bits_per_byte(train, [])

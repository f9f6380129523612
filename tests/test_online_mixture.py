"""Online mixing: against a slow mixture of its own, what it learns, and experts that come and go."""

import numpy as np
import pytest
import torch
from torch import Tensor

from frugal.baselines import ContextMixing, NGram
from frugal.combine import OnlineMixture
from frugal.corpora import CharTokenizer, encode_documents
from frugal.errors import InputError
from frugal.evaluate import evaluate
from frugal.language_model import LanguageModel
from models import TEXTS, Table, characters, lstm

TEXT = "the cat sat on the mat. the dog sat on the log. a cat and a dog met on a mat. " * 4


def experts() -> dict[str, LanguageModel]:
    return {"bigram": NGram(2, characters()).fit(TEXTS[:1]), "5-gram": NGram(5, characters()).fit(TEXTS), "net": lstm()}


def slow_mixture(said: np.ndarray, tokens: list[int], start: int, rate: float) -> np.ndarray:
    """Log-probabilities [T, V] after each token, by recursion over halves of a padded vocabulary, in float64."""
    T, K, V = said.shape
    leaves = 1 << (V - 1).bit_length()
    by_node: dict[tuple[int, int], np.ndarray] = {}
    by_token: dict[int, np.ndarray] = {}

    def odds(row: np.ndarray, begin: int, end: int) -> np.ndarray:
        middle = (begin + end) // 2
        right, left = row[:, middle:end].sum(1), row[:, begin:middle].sum(1)
        p = np.clip(right / (right + left), 1e-7, 1 - 1e-7)
        return np.clip(np.log(p / (1 - p)), -12, 12)

    def chance(x: np.ndarray, begin: int, end: int, last: int) -> float:
        weights = by_node.setdefault((begin, end), np.full(K, 1 / K)) + by_token.setdefault(last, np.zeros(K))
        return float(np.clip(1 / (1 + np.exp(-weights @ x)), 1e-6, 1 - 1e-6))

    def spread(row: np.ndarray, begin: int, end: int, last: int, log_p: float, found: np.ndarray) -> None:
        if end - begin == 1:
            found[begin] = log_p
        elif (begin + end) // 2 >= V:
            spread(row, begin, (begin + end) // 2, last, log_p, found)
        else:
            p = chance(odds(row, begin, end), begin, end, last)
            spread(row, begin, (begin + end) // 2, last, log_p + np.log(1 - p), found)
            spread(row, (begin + end) // 2, end, last, log_p + np.log(p), found)

    rows = np.full((T, leaves), -np.inf)
    for t, last in enumerate(tokens):
        row = np.pad(np.exp(said[t].astype(np.float64)), ((0, 0), (0, leaves - V)))
        spread(row, 0, leaves, last, 0.0, rows[t])
        if t + 1 == T or tokens[t + 1] == start:
            continue
        begin, end, target = 0, leaves, tokens[t + 1]
        while end - begin > 1:
            middle = (begin + end) // 2
            if middle < V:
                x = odds(row, begin, end)
                step = rate * (float(target >= middle) - chance(x, begin, end, last)) * x
                by_node[begin, end] = by_node[begin, end] + step
                by_token[last] = by_token[last] + step
            begin, end = (middle, end) if target >= middle else (begin, middle)
    return rows[:, :V]


@pytest.mark.parametrize("rate", [0.0, 0.05])
def test_it_is_the_mixture_that_a_slow_program_computes(rate: float) -> None:
    mixture = OnlineMixture(experts(), rate=rate)
    tokens = torch.cat(encode_documents(mixture.tokenizer, TEXTS))[None]
    with torch.no_grad():
        said = torch.stack([each.log_probabilities(tokens)[0] for each in mixture.experts.values()], 1).numpy()
        given = mixture.log_probabilities(tokens)[0]
    expected = slow_mixture(said, tokens[0].tolist(), mixture.tokenizer.start_id, rate)
    torch.testing.assert_close(given, torch.from_numpy(expected).float(), rtol=0, atol=1e-3)


def test_equal_weights_over_two_tokens_are_the_geometric_mean() -> None:
    tables = [torch.tensor([[0.9, 0.1, 1e-9, 1e-9]] * 4), torch.tensor([[0.4, 0.6, 1e-9, 1e-9]] * 4)]
    mixture = OnlineMixture({str(i): Table(CharTokenizer("ab"), t.log()) for i, t in enumerate(tables)}, rate=0.0)
    mean = torch.tensor([(0.9 * 0.4) ** 0.5, (0.1 * 0.6) ** 0.5])
    given = mixture.log_probabilities(torch.tensor([[2]]))[0, 0, :2].exp()
    torch.testing.assert_close(given, mean / mean.sum(), atol=1e-4, rtol=0)


def test_it_learns_whom_to_believe() -> None:
    right, wrong = NGram(5, characters()).fit([TEXT]), NGram(5, characters()).fit([TEXT[::-1]])
    mixture = OnlineMixture({"right": right, "wrong": wrong}, rate=0.02)
    scores = evaluate(mixture, [TEXT, TEXT], carry=True)
    assert scores.documents[1].nats < scores.documents[0].nats
    learnt = mixture.fit([TEXT])
    assert (learnt.by_node[1] + learnt.by_token.mean(0)).argmax() == 0  # the root's weights


def test_together_they_predict_better_than_each_alone() -> None:
    held_out = ["the dog sat on a mat. a cat sat on the log. " * 3]
    made = experts()
    mixture = OnlineMixture(made, rate=0.02).fit([TEXT])
    best = min(evaluate(each, held_out).bits_per_byte for each in made.values())
    assert evaluate(mixture, held_out).bits_per_byte < best


def test_an_expert_that_comes_changes_nothing_until_something_is_learnt() -> None:
    mixture = OnlineMixture(experts(), rate=0.0)
    more = mixture.with_expert("unigram", NGram(1, characters()).fit(TEXTS))
    tokens = encode_documents(mixture.tokenizer, TEXTS[:1])[0][None]
    torch.testing.assert_close(more.log_probabilities(tokens), mixture.log_probabilities(tokens), rtol=0, atol=1e-5)
    assert more.without_expert("unigram").by_node == pytest.approx(mixture.by_node)


def test_experts_that_learn_go_on_learning_and_the_state_is_a_value() -> None:
    tokenizer = CharTokenizer.learn([TEXT])
    learning = ContextMixing(4, tokenizer, slots=2**12)
    mixture = OnlineMixture({"learns": learning, "static": NGram(3, tokenizer).fit(["the cat"])})
    tokens = encode_documents(tokenizer, [TEXT])[0][None]

    def nats(state: object) -> tuple[float, Tensor, object]:
        rows, after = mixture.advance(tokens, state)
        return -rows[0, :-1].gather(1, tokens[0, 1:, None]).sum().item(), rows, after

    first, rows, after = nats(mixture.start(1))
    second, _, _ = nats(after)
    again, same, _ = nats(mixture.start(1))
    assert second < 0.5 * first
    assert again == first
    assert torch.equal(rows, same)


def test_a_large_vocabulary_shares_weights_by_depth(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("frugal.combine.online.MOST_NODES", 4)
    mixture = OnlineMixture(experts())
    assert len(mixture.by_node) == (mixture.vocabulary_size - 1).bit_length()
    tokens = encode_documents(mixture.tokenizer, TEXTS[:1])[0][None]
    torch.testing.assert_close(mixture.log_probabilities(tokens).exp().sum(-1), torch.ones_like(tokens).float())


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda: OnlineMixture({}), "needs at least one model"),
        (lambda: OnlineMixture(experts(), rate=-1), "rate=-1"),
        (lambda: OnlineMixture({**experts(), "other": NGram(1, CharTokenizer("ab"))}), "same tokens"),
        (lambda: OnlineMixture(experts()).with_expert("net", lstm()), "is there already"),
        (lambda: OnlineMixture(experts()).without_expert("nobody"), "is not among"),
        (lambda: OnlineMixture(experts()).fit([""]), "no token to learn from"),
    ],
)
def test_what_cannot_be_mixed_is_refused(make: object, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        make()  # type: ignore[operator]

"""Models made of models: that they speak of the same tokens, and what is refused."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from frugal.baselines import Cache, NGram
from frugal.combine import Ensemble, Extrapolated, Guided, Mixture, OnlineMixture, Steered, Tempered
from frugal.corpora import CharTokenizer, encode_documents
from frugal.errors import InputError
from frugal.foundation import WindowedFoundation
from frugal.readout import OnlineResidual
from models import Uniform, random_gpt2


def model(alphabet: str, text: str = "abab") -> NGram:
    return NGram(2, CharTokenizer(alphabet)).fit([text])


@pytest.mark.parametrize("other", ["aü", "aéü"])
def test_models_whose_tokens_mean_other_characters_are_not_combined(other: str) -> None:
    with pytest.raises(InputError, match="do not have the same tokens"):
        Ensemble({"one": model("aé", "aé"), "two": model(other, "a")})
    with pytest.raises(InputError, match="one tokeniser"):
        Mixture(model("aé", "aé"), model(other, "a"))


def test_equal_tokenisers_need_not_be_one_object() -> None:
    one, other = model("ab"), model("ab", "bbaa")
    both = Ensemble({"one": one, "two": other}).log_probabilities(torch.tensor([[2, 0, 1]]))
    assert both.exp().sum(-1).allclose(torch.ones(1, 3))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda both: Ensemble(both.experts, {"one": math.inf, "two": 1.0}), "prior="),
        (lambda both: Ensemble(both.experts, {"one": math.nan, "two": 1.0}), "prior="),
        (lambda both: both.with_expert("one", model("ab")), "expert='one': is there already"),
        (lambda both: both.with_learned_prior("abab"), "documents is a text"),
        (lambda both: both.with_learned_prior([]), "hold no token"),
        (lambda both: both.with_learned_prior([""]), "hold no token"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_sentence(make, says: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InputError, match=says):
        make(Ensemble({"one": model("ab"), "two": model("ab", "bbaa")}))


class Sure(Uniform):
    """Never writes some of its tokens; all others are equally likely."""

    def __init__(self, tokenizer: CharTokenizer, never: list[int]) -> None:
        super().__init__(tokenizer)
        self.logits = torch.zeros(self.vocabulary_size)
        self.logits[never] = -torch.inf

    def log_probabilities(self, tokens: Tensor) -> Tensor:
        return self.logits.log_softmax(-1).expand(*tokens.shape, -1)

    def step(self, tokens: Tensor, state: None) -> tuple[Tensor, None]:
        return self.logits.log_softmax(-1).expand(len(tokens), -1), None


@pytest.mark.parametrize("memory", [0.5, 0.9, 1.0])
def test_an_expert_is_not_silenced_for_good_by_one_token_nor_are_all_of_them(memory: float) -> None:
    tokenizer = CharTokenizer("abcd")
    ensemble = Ensemble({"no d": Sure(tokenizer, [3, 4, 5]), "no c": Sure(tokenizer, [2, 4, 5])}, memory=memory)
    tokens = torch.tensor([[4, 3, *[2, 0] * 60, 5, *[0, 1] * 30]])  # d, which the first rules out; then c; then neither
    weights = ensemble.weights(tokens)[0]
    torch.testing.assert_close(weights.sum(1), torch.ones(len(weights)))
    assert weights[1, 1] > 0.999
    assert weights[100, 0] > 0.999
    found = ensemble.log_probabilities(tokens)
    assert not found.isnan().any()
    assert torch.equal(ensemble.advance(tokens, ensemble.start(1))[0], found)


def test_priors_of_any_size_are_shares() -> None:
    both = {"one": model("ab"), "two": model("ab", "bbaa")}
    for scale in (1e308, 1.0, 1e-300):
        assert Ensemble(both, {"one": scale, "two": scale / 4}).prior == pytest.approx({"one": 0.8, "two": 0.2})


@pytest.mark.parametrize("wrong", ["a text", None, 5, torch.nn.Linear(1, 1)])
def test_what_is_no_language_model_is_not_combined(wrong: Any) -> None:
    known = model("ab")
    for make in (
        lambda: Ensemble({"one": wrong}),
        lambda: OnlineMixture({"one": wrong}),
        lambda: Mixture(known, wrong),
        lambda: Extrapolated(wrong, known),
        lambda: Tempered(wrong, 0.5),
        lambda: Guided(wrong, "a guide"),
        lambda: Steered(wrong, "a guide"),
        lambda: Cache(wrong),
        lambda: OnlineResidual(wrong),
    ):
        with pytest.raises(InputError, match=f"a {type(wrong).__name__} is given: must be a language model"):
            make()
    for make in (lambda: Guided(known, wrong), lambda: Steered(random_gpt2(), wrong)):
        if not isinstance(wrong, str):
            with pytest.raises(InputError, match=r"guide=.*: must hold some text"):
                make()


def test_a_guide_is_read_whole_or_refused() -> None:
    gpt, guide = random_gpt2(), "the quick brown fox jumps over the lazy dog " * 9
    with pytest.raises(InputError, match=r"the guide has .* tokens: must have fewer than the model's context of 16"):
        Steered(gpt, guide)
    with pytest.raises(InputError, match=r"the guide has .* tokens: must have fewer than the model's context of 16"):
        Guided(gpt, guide)
    windowed = WindowedFoundation(gpt, context=8)
    [tokens] = encode_documents(gpt.tokenizer, [guide])
    torch.testing.assert_close(Steered(windowed, guide).mean, windowed.hidden(tokens[None])[0, 1:].mean(0))

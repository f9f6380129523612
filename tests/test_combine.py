"""Models made of models: that they speak of the same tokens, and what is refused."""

import math

import pytest
import torch

from frugal.baselines import NGram
from frugal.combine import Ensemble, Mixture
from frugal.corpora import CharTokenizer
from frugal.errors import InputError


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

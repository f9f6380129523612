"""Ensemble, cellular automaton and evolutionary search."""

from pathlib import Path

import numpy as np
import pytest
import torch

from frugal.baselines import NGram
from frugal.combine import Ensemble
from frugal.corpora import BytePairTokenizer, encode_documents
from frugal.errors import InputError
from frugal.evaluate import evaluate
from frugal.piecewise import START, Automaton, PiecewisePlan, Windows, preset, shape_at, train, trial_nats
from frugal.piecewise.mlp import MLPShape
from models import TEXTS, Uniform, characters, ensemble

OWN = [TEXTS[0], TEXTS[2]]


def sources(memory: float = 1.0) -> Ensemble:
    """An expert for each of two texts."""
    return Ensemble({text: NGram(4, characters()).fit([text]) for text in OWN}, memory=memory)


def test_with_one_expert_the_mixture_is_that_expert() -> None:
    expert = NGram(3, characters()).fit(TEXTS)
    tokens = expert.tokenizer.encode(TEXTS[0])[None]
    torch.testing.assert_close(Ensemble({"only": expert}).log_probabilities(tokens), expert.log_probabilities(tokens))


def test_with_full_memory_the_weights_are_bayes_rule() -> None:
    mixed = ensemble(memory=1)
    tokens = encode_documents(mixed.tokenizer, TEXTS[:1])[0][None, :20]
    said = torch.stack([expert.target_log_probabilities(tokens)[0] for expert in mixed.experts.values()])
    joint = said.sum(1).exp() * torch.tensor([*mixed.prior.values()])
    torch.testing.assert_close(mixed.weights(tokens)[0, -1], joint / joint.sum())
    # The chain rule: the mixture's probability of a text is the experts' mean, weighted by the prior.
    torch.testing.assert_close(mixed.target_log_probabilities(tokens).sum().exp(), joint.sum(), rtol=1e-3, atol=0)


def test_weights_move_to_the_expert_of_the_text_and_back() -> None:
    mixed = sources(memory=0.8)
    tokens = mixed.tokenizer.encode(OWN[0] + OWN[1])[None]
    weights = mixed.weights(tokens)[0]
    assert weights[len(OWN[0]) - 3, 0] > 0.9
    assert weights[-1, 1] > 0.9


def test_a_learned_prior_predicts_better_and_trains_no_expert() -> None:
    mixed = Ensemble({**sources().experts, "nothing": Uniform(characters())}, memory=0)
    learned = mixed.with_learned_prior([OWN[0]])
    assert learned.prior[OWN[0]] > 0.8
    assert evaluate(learned, OWN[0]).nats < evaluate(mixed, OWN[0]).nats
    assert learned.experts.items() == mixed.experts.items()


def test_experts_come_and_go_without_the_others_noticing() -> None:
    mixed = sources(memory=0)
    more = mixed.with_expert("nothing", Uniform(characters()))
    assert list(more.prior.values()) == pytest.approx([1 / 3] * 3)
    less = more.without_expert("nothing")
    tokens = mixed.tokenizer.encode(TEXTS[1])[None]
    torch.testing.assert_close(less.log_probabilities(tokens), mixed.log_probabilities(tokens))


def test_mixtures_that_cannot_be_are_refused() -> None:
    one = sources().experts
    with pytest.raises(InputError, match="at least one model"):
        Ensemble({})
    with pytest.raises(InputError, match="memory=2"):
        Ensemble(one, memory=2)
    with pytest.raises(InputError, match="positive weight for each"):
        Ensemble(one, {OWN[0]: 1.0})
    with pytest.raises(InputError, match="same tokens"):
        Ensemble({**one, "other": NGram(1, type(characters())("abc")).fit(["abc"])})
    with pytest.raises(InputError, match="expert='none'"):
        sources().without_expert("none")


@pytest.fixture(scope="module")
def automaton() -> Automaton:
    torch.manual_seed(0)
    made = Automaton(preset("no_hidden_layer", context_length=10, width=30), characters())
    windows = Windows.centred(made.tokenizer, TEXTS[:1], 10)
    train(made, windows, PiecewisePlan(epochs=80, learning_rate=0.01, batch_size=50), progress=False)
    return made


def test_a_learned_text_stays_and_a_wrong_character_heals(automaton: Automaton) -> None:
    text = TEXTS[0]
    assert automaton.run(text, 2) == [text] * 3
    healed = automaton.run(text[:20] + "g" + text[21:], 4)[-1]
    wrong = [a != b for a, b in zip(healed, text, strict=True)]
    assert sum(wrong) <= 1


def test_it_changes_a_character_only_by_its_neighbours(automaton: Automaton) -> None:
    text = TEXTS[1]
    other = text[:10] + "g" + text[11:]
    pairs = zip(automaton.run(text, 1)[1], automaton.run(other, 1)[1], strict=True)
    changed = np.flatnonzero([a != b for a, b in pairs])
    assert all(abs(place - 10) <= 5 and place != 10 for place in changed)


def test_an_automaton_comes_back_from_its_folder(automaton: Automaton, tmp_path: Path) -> None:
    automaton.save(tmp_path / "automaton")
    again = Automaton.load(tmp_path / "automaton")
    assert again.run("a dog sat", 3, top_k=3, seed=1) == automaton.run("a dog sat", 3, top_k=3, seed=1)


def test_an_automaton_reads_a_long_text_in_pieces(automaton: Automaton, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, read = automaton.run("the cat sat", 2), []
    monkeypatch.setattr("frugal.piecewise.automaton.CODES_AT_ONCE", 50)
    watch = automaton.network.register_forward_pre_hook(lambda _, given: read.append(given[0].numel()))
    assert automaton.run("the cat sat", 2) == whole
    watch.remove()
    assert max(read) <= 50


def test_an_automaton_needs_a_text_and_a_window() -> None:
    with pytest.raises(InputError, match="rounds=0"):
        Automaton(preset("small", context_length=4), characters()).run("a", 0)
    with pytest.raises(InputError, match=r"text=\['a'\]: must be a text"):
        Automaton(preset("small", context_length=4), characters()).run(["a"], 1)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="needs a window network"):
        Automaton(preset("mamba"), characters())
    with pytest.raises(InputError, match="one of characters; a BytePairTokenizer has pieces"):
        Automaton(preset("small"), BytePairTokenizer.train(["the cat"], 257))
    for settings in ({"rounds": 1.5}, {"rounds": 2, "top_k": 0}, {"rounds": 2, "seed": -1}):
        with pytest.raises(InputError, match="must be a whole number"):
            Automaton(preset("small", context_length=4), characters()).run("a", **settings)


def test_a_point_of_the_space_is_a_network_that_learns() -> None:
    shape = shape_at(START, MLPShape(context_length=4))
    assert shape == MLPShape(context_length=4, width=10, layers=1, kind="discontinuous", segments=8, output_segments=8)
    torch.manual_seed(0)
    tokenizer = characters()
    windows = Windows.sequence(tokenizer, TEXTS, 4)
    untrained, trained = (
        trial_nats(shape, tokenizer, windows, windows, PiecewisePlan(epochs=epochs, learning_rate=0.01))
        for epochs in (1, 12)
    )
    assert trained < untrained

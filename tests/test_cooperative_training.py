"""The trainers: what they log, resume and refuse; two readouts on one reservoir; the oracle's scores."""

import copy
import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from frugal.combine import Guided, Pair, Steered
from frugal.cooperative import (
    CooperativePlan,
    CooperativeTrainer,
    LikelihoodTrainer,
    LSTMLanguageModel,
    Oracle,
    ReinforceTrainer,
    ScheduledSamplingTrainer,
    SequencePlan,
    draw,
    world,
)
from frugal.errors import InputError, UnavailableError
from frugal.language_model import LanguageModel
from frugal.readout import EchoLanguageModel, ReservoirLanguageModel, SoftmaxReadout
from frugal.reservoir import Reservoir
from models import Recurrent, Uniform, characters, echo_model, set_everywhere

ORACLE = Oracle(4, 6, 8, seed=1)
DATA = ORACLE.sequences(300, seed=0)
HELD_OUT = ORACLE.sequences(50, seed=1)
PLAN = CooperativePlan(steps=6, batch_size=8, epochs=3)
TRAINERS = ["cooperative", "likelihood", "scheduled sampling", "reinforce"]


def trainer(kind: str, folder: Path | None = None, steps: int = 6) -> CooperativeTrainer | LikelihoodTrainer:
    generator, mediator = ORACLE.learner(8, seed=1), ORACLE.learner(12, seed=2)
    plan = replace(PLAN, steps=steps)
    if kind in ("cooperative", "reinforce"):
        cls = CooperativeTrainer if kind == "cooperative" else ReinforceTrainer
        return cls(generator, mediator, DATA, HELD_OUT, plan, folder=folder)
    other = LikelihoodTrainer if kind == "likelihood" else ScheduledSamplingTrainer
    return other(generator, DATA, HELD_OUT, plan, folder)  # type: ignore[return-value]


def weights(model: LanguageModel) -> Tensor:
    assert isinstance(model, LSTMLanguageModel)
    return torch.cat([values.flatten() for values in model.parameters()]).detach()


class Interrupted(Exception):
    pass


@pytest.mark.parametrize("kind", TRAINERS)
def test_a_training_that_was_interrupted_ends_as_if_it_had_not_been(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unbroken, first, second = trainer(kind), trainer(kind, tmp_path / "kept"), trainer(kind, tmp_path / "kept")
    expected = unbroken.train()
    step, taken = first.step, []

    def interrupted(done: float) -> dict[str, Tensor]:
        taken.append(done)
        if len(taken) == 6:
            raise Interrupted
        return step(done)

    monkeypatch.setattr(first, "step", interrupted)
    with pytest.raises(Interrupted):
        first.train()
    log = second.train()
    assert [line.step for line in log] == [2, 4, 6]
    assert torch.equal(weights(second.generator), weights(unbroken.generator))
    assert str([replace(line, seconds=0) for line in log]) == str([replace(line, seconds=0) for line in expected])


@pytest.mark.parametrize("kind", TRAINERS)
def test_every_trainer_learns_something(kind: str) -> None:
    training = trainer(kind, steps=60)
    before = -training.generator.target_log_probabilities(HELD_OUT).mean().item()
    log = training.train()
    assert log[-1].validation_nats < before - 0.1
    assert 0 < log[-1].entropy < math.log(4)
    assert set(log[-1].losses) == ({"generator", "mediator"} if kind in ("cooperative", "reinforce") else {"generator"})


def test_a_loss_moves_only_its_own_model() -> None:
    training = trainer("cooperative")
    losses = training.step(0.5)
    for name, other in (("generator", "mediator"), ("mediator", "generator")):
        grads = torch.autograd.grad(
            losses[name], list(training.parts[other].parameters()), allow_unused=True, retain_graph=True
        )
        assert all(grad is None for grad in grads)


def test_a_folder_of_another_or_a_damaged_training_is_refused(tmp_path: Path) -> None:
    trainer("cooperative", tmp_path / "kept").train()
    with pytest.raises(InputError, match="which differs in kind"):
        trainer("reinforce", tmp_path / "kept").train()
    with pytest.raises(InputError, match="which differs in steps:"):
        trainer("cooperative", tmp_path / "kept", steps=8).train()
    larger = CooperativeTrainer(ORACLE.learner(9), ORACLE.learner(12), DATA, HELD_OUT, PLAN, folder=tmp_path / "kept")
    with pytest.raises(InputError, match="which differs in generator, mediator:"):
        larger.train()
    (tmp_path / "kept" / "training.json").write_text("{")
    with pytest.raises(UnavailableError, match="no training that this version can resume"):
        trainer("cooperative", tmp_path / "kept").train()


OTHERS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "data": ({"data": ORACLE.sequences(300, seed=5)}, ["data"]),
    "fewer data": ({"data": DATA[:50]}, ["data"]),
    "held out": ({"held_out": HELD_OUT.flip(0)}, ["held_out"]),
    "entropy": ({"data_entropy": 2.0}, ["data_entropy"]),
    "special tokens": (
        {"mediator": LSTMLanguageModel(ORACLE.model.tokenizer, 12, special=True, seed=2)},
        ["mediator"],
    ),
    "mediator": ({"mediator": ORACLE.learner(12, seed=3)}, ["mediator"]),
}


@pytest.mark.parametrize("other", OTHERS)
def test_a_training_on_other_data_or_of_other_models_is_not_gone_on_with(other: str, tmp_path: Path) -> None:
    changes, names = OTHERS[other]

    def train(**changes: Any) -> list[int]:
        given = {"generator": ORACLE.learner(8, seed=1), "mediator": ORACLE.learner(12, seed=2), "data": DATA}
        given |= {"held_out": HELD_OUT, "plan": PLAN, "folder": tmp_path / "kept", "data_entropy": None} | changes
        return [score.step for score in CooperativeTrainer(**given).train()]

    assert train() == train(data=DATA.int(), held_out=HELD_OUT.clone()) == [2, 4, 6]
    with pytest.raises(InputError, match=f"holds another training, which differs in {', '.join(names)}:"):
        train(**changes)


def test_two_readouts_on_other_reservoirs_are_another_training(tmp_path: Path) -> None:
    tokenizer = ORACLE.model.tokenizer

    def train(seed: int) -> None:
        reservoir = Reservoir(6, 10, seed=seed)
        models = [ReservoirLanguageModel(tokenizer, reservoir, SoftmaxReadout(10, 6)) for _ in range(2)]
        CooperativeTrainer(*models, DATA, HELD_OUT, PLAN, folder=tmp_path / "kept").train()

    train(0)
    train(0)
    with pytest.raises(InputError, match="which differs in generator, mediator:"):
        train(1)


@pytest.mark.parametrize("kind", TRAINERS)
def test_a_model_that_is_none_says_so_at_the_first_step(kind: str) -> None:
    training = trainer(kind)
    assert isinstance(training.generator, LSTMLanguageModel)
    training.generator.output.bias.data[0] = math.nan
    with pytest.raises(InputError, match="the loss is nan at step 1"):
        training.train()


def test_weights_that_two_models_have_in_common_are_not_trained_by_both() -> None:
    tokenizer, readout = ORACLE.model.tokenizer, SoftmaxReadout(10, 6)
    models = [ReservoirLanguageModel(tokenizer, Reservoir(6, 10), readout) for _ in range(2)]
    with pytest.raises(InputError, match="have weights in common that are trained"):
        CooperativeTrainer(*models, DATA, HELD_OUT, PLAN)
    one, other = ORACLE.learner(8), ORACLE.learner(8, seed=1)
    other.embedding = one.embedding
    with pytest.raises(InputError, match="have weights in common that are trained"):
        CooperativeTrainer(one, other, DATA, HELD_OUT, PLAN)


def test_a_mediator_that_never_expects_what_the_generator_writes_is_refused() -> None:
    special = LSTMLanguageModel(ORACLE.model.tokenizer, 8)
    with pytest.raises(InputError, match=r"so that KL\(G \|\| M\) is infinite: build both with the same `special`"):
        CooperativeTrainer(special, ORACLE.learner(8), DATA, HELD_OUT, PLAN)
    CooperativeTrainer(ORACLE.learner(8), special, DATA, HELD_OUT, PLAN).train()  # the other way about it is finite


def test_data_changed_by_the_caller_afterwards_are_not_trained_on() -> None:
    data = DATA.clone()
    training = LikelihoodTrainer(ORACLE.learner(8), data, HELD_OUT, PLAN)
    data.zero_()
    assert torch.equal(training.data, DATA)


@pytest.mark.parametrize("built", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_models_that_training_changes_are_no_frozen_trunk_wherever_they_are_put_together(built: Any) -> None:
    generator = ORACLE.learner(8)
    mediator = copy.deepcopy(generator)
    with built():
        pair = Pair(generator, mediator)
    with torch.no_grad():
        generator.lstm.weight_ih_l0.add_(1)
        mediator.output.weight.add_(torch.linspace(-1, 1, 8))
        found = pair.scores(HELD_OUT)
        for model, scores in zip((generator, mediator), found, strict=True):
            torch.testing.assert_close(scores, model.log_probabilities(HELD_OUT))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, "steps=0: must be at least 1"),
        ({"batch_size": 1}, "batch_size=1: must be at least 2"),
        ({"learning_rate": 0.0}, "learning_rate=0.0: must be positive"),
        ({"learning_rate": 1.5}, "learning_rate=1.5: must lie between 0 and 1"),
        ({"mediator_rate": math.nan}, "mediator_rate=nan: must be finite"),
        ({"prefixes": "all"}, "prefixes='all': must be one of 'own', 'mixed'"),
        ({"steps": 9.5}, "steps=9.5: must be a whole number"),
        ({"prefix_term": "yes"}, "prefix_term='yes': must be True or False"),
        ({"prefix_term": True, "batch_size": 3}, "batch_size=3: must be at least 4"),
    ],
)
def test_a_plan_that_cannot_be_followed_is_refused(settings: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        CooperativePlan(**settings)  # type: ignore[arg-type]


def test_what_cannot_be_trained_on_or_together_is_refused() -> None:
    generator = ORACLE.learner(8)
    for data, message in (
        (DATA[0], "expected sequences \\[n, 1 \\+ T\\]"),
        (DATA[:, 1:], "must begin with the start token, 4"),
        (DATA + torch.tensor([0] + [9] * 6), "must lie in 0 to 5"),
        (DATA.double(), "data of type torch.float64: must be a tensor of whole numbers"),
        (DATA.numpy(), "data of type int64: must be a tensor of whole numbers"),
        (DATA.tolist(), "data of type list: must be a tensor of whole numbers"),
        (DATA[:, :-1], "data of 5 tokens, held_out of 6: must be of one length"),
    ):
        with pytest.raises(InputError, match=message):
            LikelihoodTrainer(generator, data, HELD_OUT, SequencePlan(epochs=1))
    with pytest.raises(InputError, match="one model"):
        CooperativeTrainer(generator, generator, DATA, HELD_OUT)
    with pytest.raises(InputError, match="differ in vocabulary"):
        CooperativeTrainer(generator, Oracle(5, 6, 8).learner(8), DATA, HELD_OUT)
    with pytest.raises(InputError, match="nothing to train"):
        CooperativeTrainer(generator, Uniform(generator.tokenizer), DATA, HELD_OUT)


def test_samples_follow_the_model() -> None:
    drawn = draw(ORACLE.model, 4000, 2, generator=torch.Generator().manual_seed(0))
    frequencies = torch.bincount(drawn.tokens[:, 1], minlength=6) / 4000
    expected = ORACLE.model.log_probabilities(torch.tensor([[4]]))[0, 0].exp()
    torch.testing.assert_close(frequencies, expected, rtol=0, atol=0.03)
    assert drawn.hidden is not None
    torch.testing.assert_close(drawn.hidden, ORACLE.model.hidden(drawn.tokens[:, :-1]), rtol=0, atol=1e-5)


def test_reinforce_learns_from_its_own_choices_alone() -> None:
    training = trainer("reinforce")
    scores = [torch.randn(8, 6, 6, generator=torch.Generator().manual_seed(seed)).log_softmax(-1) for seed in (0, 1)]
    log_g = scores[0].requires_grad_()
    training.generator_loss(log_g, scores[1], DATA[:8]).backward()
    assert (log_g.grad[:4].abs().sum((1, 2)) > 0).all()
    assert (log_g.grad[4:] == 0).all()


def echo_pair() -> tuple[EchoLanguageModel, EchoLanguageModel]:
    """Two readouts on one foundation and one reservoir."""
    generator = echo_model("residual", SoftmaxReadout(44, 273))
    return generator, generator.with_readout(SoftmaxReadout(44, 273, hidden=(8,), seed=3), "residual")


def test_two_readouts_share_their_states_and_other_models_do_not() -> None:
    generator, mediator = echo_pair()
    assert Pair(generator, mediator).shared
    assert not Pair(generator, echo_model("residual", SoftmaxReadout(44, 273), reset="window", context=4)).shared
    assert not Pair(ORACLE.learner(8, seed=0), ORACLE.learner(8, seed=0)).shared  # equal, but they will change


def test_sampling_with_a_shared_pair_updates_the_state_once(monkeypatch: pytest.MonkeyPatch) -> None:
    generator, mediator = echo_pair()
    pair, tokens = Pair(generator, mediator), torch.tensor([3, 5])
    expected = [model.step(tokens, model.start(2))[0].log_softmax(-1) for model in (generator, mediator)]
    updates = []
    step = generator.reservoir.run
    monkeypatch.setattr(generator.reservoir, "run", lambda *given: updates.append(1) or step(*given))
    log_g, log_m, _ = pair.advance(tokens[:, None], pair.start(2))
    assert len(updates) == 1
    torch.testing.assert_close((log_g[:, 0], log_m[:, 0]), tuple(expected), rtol=0, atol=1e-5)


def test_two_readouts_on_one_reservoir_are_trained_as_if_they_were_apart_and_saved(tmp_path: Path) -> None:
    tokens = torch.randint(1, 270, (40, 9), generator=torch.Generator().manual_seed(0))
    tokens[:, 0] = 0
    ends = []
    for shared in (True, False):
        generator, mediator = echo_pair()
        training = CooperativeTrainer(generator, mediator, tokens, tokens, replace(PLAN, steps=3))
        training.pair.shared = shared
        training.train()
        ends.append(torch.cat([generator.log_probabilities(tokens[:3]), mediator.log_probabilities(tokens[:3])]))
        if shared:
            generator.save(tmp_path / "generator")
    torch.testing.assert_close(*ends, rtol=0, atol=1e-4)
    again = EchoLanguageModel.load(tmp_path / "generator")
    torch.testing.assert_close(again.log_probabilities(tokens[:3]), ends[0][:3], rtol=0, atol=1e-5)


def test_the_oracle_gives_itself_a_perfect_score_and_an_untrained_model_a_bad_one() -> None:
    itself, other = ORACLE.compare(ORACLE.model, 500), ORACLE.compare(ORACLE.learner(8), 500)
    for perfect in (itself.jsd_step, itself.jsd, itself.log_ratio_sum):
        assert perfect == pytest.approx(0, abs=1e-6)
    assert itself.nll_oracle == pytest.approx(itself.entropy)
    assert itself.nll_test == itself.data_entropy
    assert 0.02 < other.jsd_step <= math.log(2)
    assert itself.jsd < other.jsd <= math.log(2)
    assert other.jsd < other.log_ratio_sum <= 6 * math.log(2)
    assert other.nll_test == pytest.approx(math.log(4), abs=0.1)


@pytest.mark.parametrize(("vocabulary", "length"), [(3, 4), (2, 3)])
def test_the_exact_divergence_counts_what_the_generator_writes_outside_the_oracles_world(
    vocabulary: int, length: int
) -> None:
    oracle = Oracle(vocabulary, length, 8)
    generator = LSTMLanguageModel(oracle.model.tokenizer, 8, scale=0.5, seed=1)
    tokens = torch.cartesian_prod(*[torch.arange(vocabulary + 2)] * length)  # with the document start and the unknown
    tokens = torch.cat([torch.full((len(tokens), 1), vocabulary), tokens], 1)
    with torch.no_grad():
        log_p, log_g = (world.log_probabilities(model, tokens) for model in (oracle.model, generator))
        scores = oracle.compare(generator, 300)
    inside = (tokens[:, 1:] < vocabulary).all(1)
    assert scores.exact
    assert scores.outside == pytest.approx(log_g[~inside].exp().sum().item(), abs=1e-5)
    assert scores.jsd == pytest.approx(world.jensen_shannon(log_p, log_g).item(), abs=1e-5)
    assert scores.nll_oracle == math.inf
    assert all(math.isfinite(value) for name, value in asdict(scores).items() if name != "nll_oracle")


def test_samples_tell_of_what_is_outside_a_world_too_large_to_list() -> None:
    oracle = Oracle(20, 9, 8)
    generator = LSTMLanguageModel(oracle.model.tokenizer, 8, seed=1)
    scores = oracle.compare(generator, 500)
    special = (draw(generator, 500, 9, generator=torch.Generator().manual_seed(1)).tokens[:, 1:] >= 20).any(1)
    assert not scores.exact
    assert scores.outside == pytest.approx(special.double().mean().item())
    assert oracle.compare(oracle.learner(8), 50).outside == 0


def test_where_the_world_cannot_be_listed_the_divergence_is_that_of_samples() -> None:
    listed, learner = ORACLE.compare(ORACLE.learner(8), 4000), ORACLE.learner(8)
    large = Oracle(4, 6, 8, seed=1)
    large.vocabulary = 40  # so that it believes itself too large; its model stays as it is
    sampled = large.compare(learner, 4000)
    assert (listed.exact, sampled.exact) == (True, False)
    assert sampled.jsd == pytest.approx(listed.jsd, abs=0.02)


def test_scores_of_a_few_sequences_at_a_time_are_those_of_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    learner = ORACLE.learner(8)
    whole = ORACLE.compare(learner, 20)
    set_everywhere(monkeypatch, "LOGITS_AT_ONCE", 1)
    assert asdict(ORACLE.compare(learner, 20)) == pytest.approx(asdict(whole), abs=1e-5)


def test_an_oracle_depends_on_its_seed_alone_and_never_draws_what_ends_a_sequence() -> None:
    assert torch.equal(Oracle(7, 5, 8, seed=3).sequences(20), Oracle(7, 5, 8, seed=3).sequences(20))
    assert not torch.equal(Oracle(7, 5, 8, seed=3).sequences(20), Oracle(7, 5, 8, seed=4).sequences(20))
    assert (DATA[:, 1:] < 4).all()


def test_steering_draws_states_towards_the_mean_state_of_the_guide() -> None:
    model, guide = Recurrent(characters()), "the the the the the the"
    tokens = torch.cat([torch.tensor([model.tokenizer.start_id]), model.tokenizer.encode(guide)])[None]
    states = model.hidden(tokens)
    for weight in (0.0, 0.3, 1.0):
        expected = model.head(states + weight * (states[:, 1:].mean(1, keepdim=True) - states)).log_softmax(-1)
        torch.testing.assert_close(Steered(model, guide, weight=weight).log_probabilities(tokens), expected)
    for bad, message in (({"weight": 2.0}, "weight=2.0"), ({"guide": " "}, "guide=' '")):
        with pytest.raises(InputError, match=message):
            Steered(model, **{"guide": guide, **bad})  # type: ignore[arg-type]


def test_a_cooperatively_trained_model_can_be_guided_by_a_text_too() -> None:
    guided = Guided(LSTMLanguageModel(characters(), 8, scale=0.5), "a cat", weight=0.5)
    assert draw(guided, 2, 5).tokens.shape == (2, 6)


def test_symbols_must_be_at_least_two() -> None:
    with pytest.raises(InputError, match="vocabulary=1"):
        world.symbols(1)


def test_scores_of_no_sequences_are_refused() -> None:
    with pytest.raises(InputError, match="count=0: must be a whole number of at least 1"):
        ORACLE.compare(ORACLE.model, 0)


@pytest.mark.parametrize("token", [ORACLE.model.tokenizer.unknown_id, ORACLE.model.tokenizer.start_id])
@pytest.mark.parametrize("part", ["data", "held_out"])
def test_data_with_a_token_that_the_generator_never_writes_are_refused(part: str, token: int) -> None:
    given = {"data": DATA.clone(), "held_out": HELD_OUT.clone()}
    given[part][3, 2] = token
    with pytest.raises(InputError, match=f"{part}: holds a token that the generator never writes"):
        LikelihoodTrainer(ORACLE.learner(8), **given, plan=SequencePlan(epochs=1))


def test_what_has_other_tokens_is_not_compared_with_an_oracle() -> None:
    for other in (Oracle(5, 6, hidden=8).learner(8), "a model"):
        with pytest.raises(InputError, match=r"has other tokens than this oracle|must be a language model"):
            ORACLE.compare(other, count=4)  # type: ignore[arg-type]


@pytest.mark.parametrize(("kind", "setting"), [(ScheduledSamplingTrainer, "most"), (ReinforceTrainer, "pretraining")])
def test_what_a_trainer_does_otherwise_is_another_training(kind: Any, setting: str, tmp_path: Path) -> None:
    plan = CooperativePlan(steps=4, epochs=2, batch_size=8)

    def trainer() -> Any:
        models = [ORACLE.learner(8), *([ORACLE.learner(8, seed=1)] if kind is ReinforceTrainer else [])]
        return kind(*models, DATA, HELD_OUT, plan, folder=tmp_path / "kept")

    trainer().train()
    other = trainer()
    setattr(other, setting, 0.9)
    with pytest.raises(InputError, match=f"holds another training, which differs in {setting}"):
        other.train()


def test_reinforce_has_no_use_for_the_prefix_term() -> None:
    with pytest.raises(InputError, match="prefix_term=True: rewards of whole samples hold all later costs already"):
        ReinforceTrainer(
            ORACLE.learner(8), ORACLE.learner(8, seed=1), DATA, HELD_OUT, CooperativePlan(prefix_term=True)
        )

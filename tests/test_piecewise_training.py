"""Recipes: learning by heart, schedules, early stopping, and what a score counts."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from frugal.corpora.tokenizers import encode_in_a_row
from frugal.errors import InputError
from frugal.generate import Sampling, generate
from frugal.piecewise import (
    PRESETS,
    Automaton,
    PiecewiseLM,
    PiecewisePlan,
    PiecewiseScore,
    Shape,
    Windows,
    memorised,
    preset,
    train,
)
from frugal.piecewise.convolutional import ConvolutionShape, DualConvolutionShape
from frugal.piecewise.mamba import MambaShape
from frugal.piecewise.mlp import MLPShape
from frugal.piecewise.training import Hits
from frugal.piecewise.transformer import TransformerShape
from frugal.training import fit
from models import TEXTS, TINY_CONVOLUTIONS, characters, piecewise

SMALLEST: dict[type[Shape], dict[str, Any]] = {
    MLPShape: {"context_length": 4, "width": 5},
    ConvolutionShape: {"context_length": 9, **TINY_CONVOLUTIONS},
    DualConvolutionShape: {"context_length": 4, "width": 4},
    TransformerShape: {"context_length": 4, "inner_width": 5, "output_width": 5},
    MambaShape: {"context_length": 4, "width": 4, "blocks": 1, "state": 2},
}
QUICK = PiecewisePlan(epochs=60, learning_rate=0.02, batch_size=20, schedule="constant")


def model(name: str = "no_hidden_layer", **changes: object) -> tuple[PiecewiseLM, Windows]:
    torch.manual_seed(0)
    made = PiecewiseLM(preset(name, **{"width": 20, "context_length": 6, **changes}), characters())
    return made, Windows.for_network(made.network, made.tokenizer, TEXTS[:1])


def trained(plan: PiecewisePlan, **changes: object) -> list[PiecewiseScore]:
    made, windows = model(**changes)
    return train(made, windows, plan, progress=False)


def test_a_text_is_learned_by_heart_and_recited() -> None:
    made, windows = model()
    scores = train(made, windows, QUICK, progress=False)
    known = memorised(made, windows)
    assert scores[-1].training_accuracy > 2 * scores[0].training_accuracy
    assert known.accuracy > 0.95
    assert known.nats < scores[0].training_loss / 4
    assert generate(made, "the cat", Sampling(max_tokens=10, temperature=0)) == TEXTS[0][7:17]


def test_what_is_known_by_heart_has_no_gradient_rather_than_a_denormal_one() -> None:
    known, unsure = torch.tensor([[0.0, -90.0], [0.0, -1.0]])  # exp(-90) is denormal
    table = nn.Embedding.from_pretrained(torch.stack([known, unsure]), freeze=False)
    Hits().loss(table, (torch.tensor([0, 1]), torch.tensor([0, 0]))).backward()
    assert table.weight.grad is not None
    assert (table.weight.grad != 0).tolist() == [[False, False], [True, True]]


@pytest.mark.parametrize("original", [False, True])
@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_trains_and_predicts_from_its_folder(name: str, original: bool, tmp_path: Path) -> None:
    made = piecewise(name, **SMALLEST[type(PRESETS[name])], original=original)
    windows = Windows.for_network(made.network, made.tokenizer, TEXTS[:1], 8)
    before = [weight.clone() for weight in made.network.parameters()]
    (score,) = train(made, windows, PiecewisePlan(epochs=1, batch_size=8), progress=False)
    assert score.training_loss > 0
    assert any(not torch.equal(*pair) for pair in zip(before, made.network.parameters(), strict=True))
    made.save(tmp_path / "model")
    likeliest = Sampling(max_tokens=3, temperature=0)
    goes_on = [generate(model, "the c", likeliest) for model in (made, PiecewiseLM.load(tmp_path / "model"))]
    assert goes_on[0] == goes_on[1]


def test_mamba_learns_from_runs() -> None:
    made, windows = model("mamba", width=8, blocks=1, state=4, context_length=12)
    scores = train(made, windows, replace(QUICK, epochs=100, optimizer="adam"), progress=False)
    assert scores[-1].training_loss < scores[0].training_loss / 2
    assert memorised(made, windows).accuracy == pytest.approx(scores[-1].training_accuracy, abs=0.1)


def test_deep_networks_get_adam_and_fewer_examples_and_shallow_ones_what_was_asked_for() -> None:
    window, run = model()[0].network, model("transformer", width=4, inner_width=4)[0].network
    assert QUICK.suited_to(window) == QUICK
    suited = replace(QUICK, batch_size=100).suited_to(run)
    assert suited == replace(QUICK, optimizer="adam", learning_rate=3e-3, batch_size=20)


def test_a_transformer_learns_from_all_prefixes_and_recites_from_a_short_prompt() -> None:
    made, windows = model("high_order_input_transformer", width=16, blocks=1, inner_width=16, output_width=16)
    plan = replace(QUICK, optimizer="adam", epochs=4, repeats=25, batch_size=10)
    train(made, windows, plan, progress=False)
    assert memorised(made, windows).accuracy > 0.8
    assert generate(made, "the", Sampling(max_tokens=4, temperature=0)) in TEXTS[0]


def test_a_plateau_lowers_the_learning_rate() -> None:
    noisy = replace(QUICK, optimizer="adam", learning_rate=3.0, schedule="plateau", plateau=0, epochs=8)
    rates = [score.learning_rate for score in trained(noisy)]
    assert rates[-1] < rates[0]


def test_an_exponential_schedule_lowers_it_every_epoch() -> None:
    rates = [score.learning_rate for score in trained(replace(QUICK, schedule="exponential", epochs=3))]
    assert rates == pytest.approx([0.02, 0.018, 0.0162])


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [("exponential", [1, 0.9, 0.81]), ("half cosine", [1, 0.75, 0.25]), ("constant", [1, 1, 1])],
)
def test_the_first_epoch_has_the_whole_rate_also_beside_validation(schedule: str, expected: list[float]) -> None:
    made, windows = model()
    plan = replace(QUICK, schedule=schedule, epochs=3)
    rates = [score.learning_rate for score in train(made, windows, plan, valid=windows, progress=False)]
    assert rates[1:] == pytest.approx([plan.learning_rate * part for part in expected])


def test_half_a_cosine_ends_with_steps_that_change_nothing() -> None:
    made, windows = model()
    plan = replace(QUICK, schedule="half cosine", epochs=1, batch_size=1)
    weight = next(iter(made.network.parameters()))
    before, moved = weight.detach().clone(), []
    weight.register_post_accumulate_grad_hook(lambda now: moved.append((now - before).abs().max().item()))
    train(made, windows, plan, progress=False)
    moved.append((weight - before).abs().max().item())
    assert moved[1] > 0
    assert abs(moved[-1] - moved[-2]) < 0.01 * moved[1]


def test_training_stops_when_the_loss_no_longer_falls() -> None:
    scores = trained(replace(QUICK, optimizer="adam", learning_rate=30.0, patience=2))
    best = min(scores, key=lambda score: score.training_loss).epoch
    assert scores[-1].epoch == best + 2 < 60


def test_the_weights_that_predict_held_out_text_best_are_kept() -> None:
    made, windows = model()
    valid = Windows.for_network(made.network, made.tokenizer, TEXTS[1:2])
    scores = train(made, windows, replace(QUICK, patience=5), valid=valid, progress=False)
    best = min(scores, key=lambda score: score.validation_nats)
    assert best.epoch == scores[-1].epoch - 5 < QUICK.epochs
    assert memorised(made, valid).nats == pytest.approx(best.validation_nats)
    assert memorised(made, windows).nats > scores[-1].training_loss


def test_a_budget_of_seconds_ends_the_training_after_a_step_at_least() -> None:
    assert len(trained(replace(QUICK, seconds=1e-9))) == 1


def test_the_same_seed_trains_the_same_network() -> None:
    brief = replace(QUICK, epochs=2, random_fraction=0.2)
    assert trained(brief)[-1].training_loss == trained(brief)[-1].training_loss


def test_repeats_and_accumulation_change_the_number_of_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = []

    def spy(*args: Any, **settings: Any) -> list[float]:
        steps.append(settings["steps"])
        return fit(*args, **settings)

    monkeypatch.setattr("frugal.piecewise.training.fit", spy)
    for plan in (QUICK, replace(QUICK, repeats=2), replace(QUICK, repeats=2, accumulate=3)):
        trained(replace(plan, epochs=1))
    assert steps == [3, 5, 1]  # of 46 characters in batches of 20


def test_samples_can_be_shown_after_each_epoch() -> None:
    made, windows = model()
    seen: list[str] = []
    train(
        made,
        windows,
        replace(QUICK, epochs=2),
        on_epoch=lambda score: seen.append(generate(made, "the", Sampling(max_tokens=4, temperature=0))),
        progress=False,
    )
    assert [len(text) > 0 for text in seen] == [True, True]


def test_second_order_steps_train_too() -> None:
    scores = trained(replace(QUICK, optimizer="adahessian", learning_rate=0.5, epochs=8))
    assert scores[-1].training_loss < scores[0].training_loss


def test_a_gradient_that_is_not_finite_is_said_by_the_usual_optimiser() -> None:
    """Sparse Lion moves by signs, of which what is no number has none."""
    made, windows = model()
    weight, before = next(made.network.parameters()), {}

    def spoilt(gradient: torch.Tensor) -> torch.Tensor:
        return gradient * torch.nan if before else gradient

    def first(score: PiecewiseScore) -> None:
        before.update({name: values.clone() for name, values in made.network.state_dict().items()})

    weight.register_hook(spoilt)
    with pytest.raises(InputError, match="the gradient is nan at step 1"):
        train(made, windows, QUICK, on_epoch=first, progress=False)
    assert all(torch.equal(values, before[name]) for name, values in made.network.state_dict().items())


def test_another_training_is_not_gone_on_with(tmp_path: Path) -> None:
    plan, tokenizer = replace(QUICK, epochs=1), characters()

    def go_on(text: str = TEXTS[0], held_out: str = TEXTS[1], degree: int = 3, length: int = 6) -> None:
        shape = preset("no_hidden_layer", width=20, context_length=length, nodes=degree)
        made = PiecewiseLM(shape, tokenizer)
        windows, valid = (Windows.for_network(made.network, tokenizer, [part]) for part in (text, held_out))
        train(made, windows, plan, valid=valid, folder=tmp_path / "kept", progress=False)

    go_on()
    go_on()
    for changes, names in (
        ({"text": TEXTS[2]}, "windows"),
        ({"held_out": TEXTS[2]}, "validation"),
        ({"degree": 2}, "shape"),
        ({"length": 5}, "shape, validation, windows"),
    ):
        with pytest.raises(InputError, match=f"holds another training, which differs in {names}:"):
            go_on(**changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": 0}, "epochs=0"),
        ({"schedule": "cosine"}, "schedule='cosine'"),
        ({"optimizer": "sgd"}, "optimizer='sgd': must be one of"),
        ({"accumulate": 0}, "accumulate=0"),
        ({"repeats": 1.5}, "repeats=1.5: must be a whole number"),
        ({"plateau": -1}, "plateau=-1"),
        ({"factor": 0.0}, "factor=0.0"),
        ({"gamma": 2.0}, "gamma=2.0"),
        ({"random_fraction": 1.5}, "random_fraction=1.5"),
        ({"weight_decay": -1.0}, "weight_decay=-1.0"),
        ({"clip": 0.0}, "clip=0.0"),
        ({"clip": 1.0, "optimizer": "adahessian"}, "clip=1.0: adahessian's curvature"),
    ],
)
def test_bad_recipes_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        PiecewisePlan(**settings)


@pytest.mark.parametrize("form", ["sequence", "centred", "flat"])
@pytest.mark.parametrize("name", ["no_hidden_layer", "mamba", "automaton"])
def test_windows_of_another_form_than_the_model_predicts_from_are_refused(name: str, form: str) -> None:
    net: PiecewiseLM | Automaton
    if name == "automaton":
        net = Automaton(preset("no_hidden_layer", width=8, context_length=6), characters())
    else:
        net = model(name, **({} if name == "no_hidden_layer" else SMALLEST[MambaShape]))[0]
    length = net.network.context_length
    windows = getattr(Windows, form)(characters(), TEXTS[:1], length)
    right = {"no_hidden_layer": "sequence", "mamba": "flat", "automaton": "centred"}[name]
    plan = replace(QUICK, epochs=1)
    if form == right:
        assert train(net, windows, plan, progress=False)[-1].epoch == 1
        return
    for use in (
        lambda: train(net, windows, plan, progress=False),
        lambda: train(net, getattr(Windows, right)(characters(), TEXTS[:1], length), plan, valid=windows),
        lambda: memorised(net, windows),
    ):
        with pytest.raises(InputError, match=r"windows: are of another form than this \w+ learns from; make them by"):
            use()


def test_windows_may_count_from_any_place() -> None:
    net = model("no_hidden_layer")[0]
    length = net.network.context_length
    tokens = encode_in_a_row(characters(), TEXTS[:1])
    at_the_front = Windows(tokens, torch.arange(len(tokens) - length), range(length), [length])
    at_the_end = Windows(tokens, torch.arange(length, len(tokens)), range(-length, 0), [0])
    assert memorised(net, at_the_front) == memorised(net, at_the_end)
    with pytest.raises(InputError, match="windows: are of another form"):
        memorised(net, Windows(tokens, torch.arange(len(tokens) - length - 1), range(length), [length + 1]))

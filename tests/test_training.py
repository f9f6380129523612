"""Seeds and the training loop."""

import math
import random
import time
from collections.abc import Iterator
from typing import Any, get_args

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

from frugal.errors import DivergedError, InputError
from frugal.training import OptimizerName, fit, make_optimizer, seed_everything, warm_up_and_decay

BATCHES = [torch.tensor([[1.0, 2.0]]), torch.tensor([[-1.0, 0.5]]), torch.tensor([[0.5, -2.0]])]


def square_error(model: nn.Module, batch: Tensor) -> Tensor:
    return (model(batch) - batch.sum()).square().mean()


def train(**settings: object) -> tuple[nn.Linear, list[float]]:
    torch.manual_seed(0)
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    return model, fit(model, square_error, BATCHES, optimizer, **settings)  # type: ignore[arg-type]


def test_a_seed_repeats_the_draws() -> None:
    def draws() -> tuple[float, float, float]:
        return random.random(), np.random.rand(), torch.rand(()).item()

    seed_everything(3)
    first = draws()
    assert draws() != first
    seed_everything(3)
    assert draws() == first


@pytest.mark.parametrize("seed", [-1, 2**32, 0.5, "1", None, True])
def test_a_seed_that_is_none_is_refused(seed: Any) -> None:
    with pytest.raises(InputError, match=f"seed={seed!r}: must"):
        seed_everything(seed)


def test_training_takes_as_many_steps_as_asked_and_learns() -> None:
    _, losses = train(steps=200)
    assert len(losses) == 200
    assert np.mean(losses[-20:]) < 0.01 * np.mean(losses[:20])


def test_the_same_seed_trains_the_same_model() -> None:
    assert torch.equal(train(steps=10)[0].weight, train(steps=10)[0].weight)


def test_a_budget_of_seconds_ends_the_training() -> None:
    _, losses = train(seconds=0.05)
    assert losses
    assert len(train(steps=10**9, seconds=0.01)[1]) < 10**9


def test_the_seconds_of_a_budget_are_those_of_the_processor() -> None:
    begun = time.process_time()

    def sleep(model: nn.Module, batch: Tensor) -> Tensor:
        time.sleep(0.02)
        return square_error(model, batch)

    model = nn.Linear(2, 1)
    losses = fit(model, sleep, BATCHES, torch.optim.SGD(model.parameters(), 0.1), steps=20, seconds=0.3, title="")
    assert len(losses) == 20 or time.process_time() - begun > 0.3


def test_the_gradient_is_clipped() -> None:
    torch.manual_seed(0)
    model = nn.Linear(2, 1)
    before = model.weight.detach().clone()
    fit(
        model,
        lambda model, batch: 1e6 * model(batch).sum(),
        BATCHES,
        torch.optim.SGD(model.parameters(), lr=1.0),
        steps=1,
        clip=0.5,
        schedule=lambda done: 1.0,
    )
    assert 0.3 < (model.weight - before).norm().item() <= 0.5


def test_the_learning_rate_rises_stays_and_falls_to_nothing() -> None:
    assert [warm_up_and_decay(done) for done in (0.0, 0.1, 0.5, 0.8, 1.0)] == pytest.approx([0, 1, 1, 1, 0])


def test_an_interrupt_reaches_the_caller() -> None:
    def interrupted(model: nn.Module, batch: Tensor) -> Tensor:
        raise KeyboardInterrupt

    model = nn.Linear(2, 1)
    with pytest.raises(KeyboardInterrupt):
        fit(model, interrupted, BATCHES, torch.optim.SGD(model.parameters()), steps=1)


@pytest.mark.parametrize("name", get_args(OptimizerName))
@pytest.mark.parametrize("clip", [None, 1.0])
@pytest.mark.parametrize("fault", ["loss", "gradient", "one entry", "input"])
def test_what_is_not_finite_is_said_at_its_step_and_the_step_is_not_taken(
    fault: str, clip: float | None, name: OptimizerName
) -> None:
    if name == "adahessian" and clip is not None:
        pytest.skip("it is not clipped")
    torch.manual_seed(0)
    model, seen = nn.Linear(2, 1), []
    batches = [batch.clone() for batch in BATCHES * 2]
    if fault == "input":
        batches[4][0, 1] = math.nan

    def loss(model: nn.Linear, batch: Tensor) -> Tensor:
        seen.append(model.weight.detach().clone())
        value = square_error(model, batch)
        if len(seen) == 5 and fault == "loss":
            value = value * math.inf
        if len(seen) == 5 and fault == "gradient":
            value = value + (value - value.detach()).abs().sqrt()  # adds nothing, with a gradient that is none
        if len(seen) == 5 and fault == "one entry":
            value = value + (model.weight[0, 1] - model.weight[0, 1].detach()).abs().sqrt()
        return value

    what = "gradient" if fault in ("gradient", "one entry") else "loss"
    with pytest.raises(InputError, match=rf"the {what} is (nan|inf) at step 5: check the inputs"):
        fit(model, loss, batches, make_optimizer(name, model.parameters(), 0.01), steps=40, clip=clip, title="")  # type: ignore[arg-type]
    assert len(seen) == 5
    assert torch.equal(model.weight, seen[-1])


@pytest.mark.parametrize("name", get_args(OptimizerName))
@pytest.mark.parametrize("clip", [None, 1.0])
def test_a_gradient_whose_squares_are_infinite_is_said(clip: float | None, name: OptimizerName) -> None:
    """Adam would divide by them, and clipping too: nothing would be learned from then on."""
    if name == "adahessian" and clip is not None:
        pytest.skip("it is not clipped")
    model = nn.Linear(1, 1)
    model.weight.register_hook(lambda gradient: gradient * 1e30)
    with pytest.raises(InputError, match="the gradient is inf at step 1"):
        fit(model, square_error, [torch.ones(1, 1)], make_optimizer(name, model.parameters(), 0.1), steps=3, clip=clip)


def test_training_without_a_budget_is_refused() -> None:
    for steps in (0, -1, 2.5, True, "3"):
        with pytest.raises(InputError, match=f"steps={steps!r}: must be a whole number of at least 1"):
            train(steps=steps)
    for seconds in (0, -1.0, math.nan, "60"):
        with pytest.raises(InputError, match=f"seconds={seconds!r}: .*must be positive"):
            train(seconds=seconds)
    with pytest.raises(InputError, match="needs a budget"):
        train()


@pytest.mark.parametrize("batches", [iter(BATCHES), []])
def test_batches_that_cannot_be_repeated_are_refused(batches: object) -> None:
    model = nn.Linear(2, 1)
    with pytest.raises(InputError, match="batches"):
        fit(model, square_error, batches, torch.optim.SGD(model.parameters()), steps=5)  # type: ignore[arg-type]


class Once(IterableDataset[Tensor]):
    """A data set over a generator."""

    def __init__(self, batches: int) -> None:
        self.batches = (BATCHES[0] for _ in range(batches))

    def __iter__(self) -> Iterator[Tensor]:
        return self.batches


@pytest.mark.parametrize("batches", [1, 2, 5, 6])
def test_batches_that_come_to_an_end_for_good_end_the_training(batches: int) -> None:
    model, data = nn.Linear(2, 1), DataLoader(Once(batches), batch_size=None)
    with pytest.raises(InputError, match="batches: can be gone through only once; give"):
        fit(model, square_error, data, torch.optim.SGD(model.parameters()), steps=6, title="")


@pytest.mark.parametrize("name", get_args(OptimizerName))
def test_an_optimizer_of_other_weights_than_those_trained_is_refused(name: OptimizerName) -> None:
    model, other = nn.Linear(2, 1), nn.Linear(2, 1)
    weights = [parameter.detach().clone() for parameter in other.parameters()]
    optimizer = make_optimizer(name, other.parameters(), 0.1)
    with pytest.raises(InputError, match="optimizer: none of its weights has a gradient at step 1; give"):
        fit(model, square_error, BATCHES, optimizer, steps=3, clip=None, title="")
    assert all(map(torch.equal, weights, other.parameters()))
    with pytest.raises(InputError, match="optimizer: none of its weights has a gradient at step 1; give"):
        fit(other.requires_grad_(False), square_error, BATCHES, optimizer, steps=3, clip=None, title="")
    some = make_optimizer(name, [*model.parameters(), *other.parameters()], 0.1)  # as where a part is not used
    assert len(fit(model, square_error, BATCHES, some, steps=3, clip=None, title="")) == 3


def test_a_learning_rate_beyond_numbers_does_not_end_in_silence() -> None:
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e38)
    with pytest.raises(DivergedError, match="a weight is not finite"):
        fit(model, square_error, [100 * BATCHES[0]], optimizer, steps=1, clip=None, schedule=lambda done: 1.0)


def test_accumulated_batches_make_one_step_of_their_mean() -> None:
    def step(batches: list[Tensor], accumulate: int) -> Tensor:
        torch.manual_seed(0)
        model = nn.Linear(2, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        fit(model, square_error, batches, optimizer, steps=1, accumulate=accumulate, clip=None)
        return model.weight

    def mean_error(model: nn.Module, batch: Tensor) -> Tensor:
        return torch.stack([square_error(model, part) for part in batch.split(1)]).mean()

    torch.manual_seed(0)
    model = nn.Linear(2, 1)
    fit(model, mean_error, [torch.cat(BATCHES)], torch.optim.SGD(model.parameters(), lr=0.1), steps=1, clip=None)
    torch.testing.assert_close(step(BATCHES, accumulate=3), model.weight)
    assert not torch.allclose(step(BATCHES, accumulate=1), model.weight)


def test_without_clipping_the_gradient_stays_as_it_is() -> None:
    model = nn.Linear(2, 1, bias=False)
    before = model.weight.detach().clone()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    batch = torch.tensor([[3.0, 4.0]])
    fit(model, lambda model, x: model(x).sum(), [batch], optimizer, steps=1, clip=None, schedule=lambda done: 1.0)
    torch.testing.assert_close(before - model.weight, batch)

"""Seeds and the training loop."""

import math
import random

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from frugal.errors import InputError
from frugal.training import fit, seed_everything, warm_up_and_decay

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


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_out_of_range_is_refused(seed: int) -> None:
    with pytest.raises(InputError, match=f"seed={seed}: must lie in 0"):
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


def test_a_loss_that_is_not_finite_ends_the_training() -> None:
    model = nn.Linear(2, 1)
    with pytest.raises(InputError, match="step 1; lower the learning rate"):
        fit(
            model,
            lambda model, batch: model(batch).sum() * math.inf,
            BATCHES,
            torch.optim.SGD(model.parameters()),
            steps=5,
        )


def test_training_without_a_budget_is_refused() -> None:
    with pytest.raises(InputError, match="steps=0: must be at least 1"):
        train(steps=0)
    with pytest.raises(InputError, match="needs a budget"):
        train()


@pytest.mark.parametrize("batches", [iter(BATCHES), []])
def test_batches_that_cannot_be_repeated_are_refused(batches: object) -> None:
    model = nn.Linear(2, 1)
    with pytest.raises(InputError, match="batches"):
        fit(model, square_error, batches, torch.optim.SGD(model.parameters()), steps=5)  # type: ignore[arg-type]


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

"""Optimisers: sparse Lion against its definition and against Lion, and each of them by name."""

import math
from typing import get_args

import pytest
import pytorch_optimizer
import torch
from torch import nn

from frugal.errors import InputError
from frugal.piecewise import PiecewisePolynomial
from frugal.training import fit
from frugal.training.optimizers import Lion, OptimizerName, SparseLion, make_optimizer


def steps_of(optimizer_of: object, gradients: list[torch.Tensor]) -> torch.Tensor:
    weight = nn.Parameter(torch.linspace(-1, 1, gradients[0].numel()))
    optimizer = optimizer_of([weight])  # type: ignore[operator]
    for gradient in gradients:
        weight.grad = gradient.clone()
        optimizer.step()
    return weight.detach()


def test_lion_is_that_of_pytorch_optimizer_and_sparse_lion_too_where_every_entry_has_a_gradient() -> None:
    torch.manual_seed(0)
    gradients = [torch.randn(20) for _ in range(6)]
    peer = steps_of(lambda p: pytorch_optimizer.Lion(p, 0.01, weight_decay=0.1), gradients)
    for kind in (Lion, SparseLion):
        torch.testing.assert_close(steps_of(lambda p, kind=kind: kind(p, 0.01, weight_decay=0.1), gradients), peer)


def test_lion_goes_on_moving_what_is_no_longer_touched() -> None:
    gradients = [torch.ones(2), torch.tensor([1.0, 0.0])]
    moved = torch.linspace(-1, 1, 2) - steps_of(lambda p: Lion(p, 0.1), gradients)
    torch.testing.assert_close(moved, torch.tensor([0.2, 0.2]))


def test_an_entry_sees_only_the_steps_that_touch_it() -> None:
    torch.manual_seed(0)
    gradients = [torch.randn(20) * (torch.rand(20) < 0.4) for _ in range(8)]
    ours = steps_of(lambda p: SparseLion(p, 0.01), gradients)
    for entry in range(20):
        own = [gradient[entry].view(1) for gradient in gradients if gradient[entry] != 0]
        weight = nn.Parameter(torch.linspace(-1, 1, 20)[entry].view(1))
        optimizer = SparseLion([weight], 0.01)
        for gradient in own:
            weight.grad = gradient
            optimizer.step()
        torch.testing.assert_close(ours[entry], weight.detach()[0])


def test_a_batch_moves_only_the_weights_it_touches() -> None:
    layer = PiecewisePolynomial(1, 3, nodes=2, segments=10)
    before = layer.weight.detach().clone()
    optimizer = SparseLion(layer.parameters(), 0.1)
    for x in (0.05, -0.75):  # in segments 5 and 1
        optimizer.zero_grad()
        layer(torch.tensor([[x]])).sum().backward()
        optimizer.step()
    moved = (layer.weight != before).all(dim=2)[0].nonzero().flatten().tolist()
    assert moved == [1, 2, 5, 6]


@pytest.mark.parametrize("name", get_args(OptimizerName))
def test_every_optimiser_fits_a_line(name: OptimizerName) -> None:
    torch.manual_seed(0)
    model = PiecewisePolynomial(1, 1, nodes=2, segments=2)
    x = torch.linspace(-1, 1, 32)[:, None]
    rate = {"adahessian": 0.5}.get(name, 0.03)
    losses = fit(
        model,
        lambda model, x: (model(x) - 0.5 * x).square().mean(),
        [x],
        make_optimizer(name, model.parameters(), rate),
        steps=100,
        clip=None if name == "adahessian" else 1.0,
        title="",
    )
    assert losses[-1] < 0.2 * losses[0]


def test_adahessian_says_what_it_cannot_take() -> None:
    model = nn.Linear(2, 1)
    optimizer = make_optimizer("adahessian", model.parameters(), 0.1)
    with pytest.raises(InputError, match=r"clip=1.0: the curvature is not clipped"):
        fit(model, lambda model, x: model(x).square().mean(), [torch.ones(1, 2)], optimizer, steps=1)
    with pytest.raises(InputError, match="the loss has no second derivative in some weights"):
        fit(model, lambda model, x: model(x).mean(), [torch.ones(1, 2)], optimizer, steps=1, clip=None)
    model.weight.grad, model.bias.grad = torch.ones(1, 2), torch.ones(1)
    with pytest.raises(InputError, match="the loss has no second derivative in some weights"):
        optimizer.step()


@pytest.mark.parametrize("name", get_args(OptimizerName))
@pytest.mark.parametrize(
    ("rates", "message"),
    [
        ((0.0,), "lr=0.0: must be positive"),
        ((-0.1,), "lr=-0.1: must be positive"),
        ((math.nan,), "lr=nan: must be positive"),
        ((math.inf,), "lr=inf: must be positive"),
        ((0.1, -1.0), "weight_decay=-1.0: must not be negative"),
        ((0.1, math.nan), "weight_decay=nan: must not be negative"),
    ],
)
def test_rates_that_are_none_are_refused_by_every_optimiser(
    name: OptimizerName, rates: tuple[float, ...], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        make_optimizer(name, [nn.Parameter(torch.zeros(1))], *rates)


def test_bad_settings_are_refused() -> None:
    weight = nn.Parameter(torch.zeros(1))
    with pytest.raises(InputError, match="lr=0"):
        SparseLion([weight], 0)
    with pytest.raises(InputError, match="weight_decay=-1"):
        Lion([weight], 0.1, weight_decay=-1)
    with pytest.raises(InputError, match="betas"):
        SparseLion([weight], betas=(1.0, 0.9))
    with pytest.raises(InputError, match="optimizer='sgd'"):
        make_optimizer("sgd", [weight], 0.1)  # type: ignore[arg-type]

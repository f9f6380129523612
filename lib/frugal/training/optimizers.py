"""Optimisers by name: Lion, and sparse Lion, which leaves alone what a batch does not touch."""

from collections.abc import Callable, Iterable
from typing import Any, Literal, get_args

import torch
from torch import nn
from torch.optim import Adam, AdamW, Optimizer

from frugal.errors import InputError, check_list, check_not_negative, check_number, check_positive

OptimizerName = Literal["adam", "adamw", "lion", "sparse_lion", "adahessian"]


class Lion(Optimizer):
    """Moves every weight by the learning rate, in the direction of the sign alone. With gradient g, momentum m:

        w <- w (1 - lr decay) - lr sign(beta_1 m + (1 - beta_1) g),    m <- beta_2 m + (1 - beta_2) g.

    Chen et al., "Symbolic discovery of optimization algorithms", 2023, algorithm 2.
    """

    sparse = False

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        lr: float = 1e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
    ) -> None:
        _check_rates(lr, weight_decay)
        check_list(check_number, 2, betas=betas)
        if len(betas) != 2 or not all(0 <= beta < 1 for beta in betas):
            raise InputError(f"betas={betas}: both must be at least 0 and below 1; (0.9, 0.99) is usual")
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Move each weight that has a gradient once; give what `closure` gives, if there is one."""
        value = None
        if closure is not None:
            with torch.enable_grad():
                value = closure()
        for group in self.param_groups:
            rate, (beta_1, beta_2) = group["lr"], group["betas"]
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                if weight not in self.state:
                    self.state[weight]["momentum"] = torch.zeros_like(weight)
                gradient, momentum = weight.grad, self.state[weight]["momentum"]
                # 1 or 0; quicker than a comparison
                touched = gradient.sign().abs_() if self.sparse else torch.ones_like(gradient)
                if group["weight_decay"]:
                    weight.mul_(1 - rate * group["weight_decay"] * touched)
                weight.addcmul_(momentum.lerp(gradient, 1 - beta_1).sign_(), touched, value=-rate)
                momentum.addcmul_(gradient - momentum, touched, value=1 - beta_2)
        return value


class SparseLion(Lion):
    """Lion on the entries whose gradient is not zero; weight and momentum of the others stay as they are.

    A plain Lion goes on moving an entry by the whole learning rate for as long as it remembers a gradient. Where a
    batch touches few of the weights, as in a piecewise layer, that is most of its motion.
    """

    sparse = True


def make_optimizer(
    name: OptimizerName, parameters: Iterable[nn.Parameter], learning_rate: float, weight_decay: float = 0.0
) -> Optimizer:
    """Return an optimiser by name.

    Raises:
        InputError: there is none of that name, or a rate is none.
    """
    _check_rates(learning_rate, weight_decay)
    match name:
        case "adam":
            return Adam(parameters, lr=learning_rate, weight_decay=weight_decay)
        case "adamw":
            return AdamW(parameters, lr=learning_rate, weight_decay=weight_decay)
        case "sparse_lion":
            return SparseLion(parameters, lr=learning_rate, weight_decay=weight_decay)
        case "lion":
            return Lion(parameters, lr=learning_rate, weight_decay=weight_decay)
        case "adahessian":
            from frugal.training.adahessian import AdaHessian  # here, because it takes seconds to import

            return AdaHessian(parameters, lr=learning_rate, weight_decay=weight_decay, eps=1e-4)
    raise InputError(f"optimizer={name!r}: must be one of {', '.join(get_args(OptimizerName))}")


def _check_rates(learning_rate: float, weight_decay: float) -> None:
    check_positive("typical values lie in 1e-5 to 1e-1", lr=learning_rate)
    check_not_negative("typical values lie in 0 to 0.1", weight_decay=weight_decay)

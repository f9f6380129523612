"""Weights to and from the library high-order-layers-torch (PyPI).

Its layers compute the same functions on edges of its default length, 2; on other lengths they do not.
"""

from collections.abc import Mapping

from torch import Tensor, nn

from frugal.piecewise.layers.convolution import BasisConvolution
from frugal.piecewise.layers.fully_connected import BasisLayer


def from_high_order_layers(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a state of that library under our names and in our layout, for `load_state_dict`.

    `w` [O, I, V] becomes `weight` [I, V, O], `conv.weight` becomes `weight`, the unused `result` is left out; all else,
    such as layer norms, is passed on as it is.

    >>> import torch
    >>> {name: tuple(value.shape) for name, value in from_high_order_layers({"0.w": torch.rand(6, 8, 5)}).items()}
    {'0.weight': (8, 5, 6)}
    """
    result = {}
    for name, value in state.items():
        prefix, _, last = name.rpartition(".")
        if last == "result":
            continue
        if last == "w":
            result[_join(prefix, "weight")] = value.permute(1, 2, 0).contiguous()
        elif name.endswith("conv.weight"):
            result[name.removesuffix("conv.weight") + "weight"] = value
        else:
            result[name] = value
    return result


def to_high_order_layers(module: nn.Module) -> dict[str, Tensor]:
    """Return the state of `module` under that library's names: the inverse of `from_high_order_layers`.

    The library's unused parameter `result` is not made up: load with strict=False where it has one.

    >>> from frugal.piecewise import PiecewisePolynomial
    >>> state = to_high_order_layers(PiecewisePolynomial(8, 6, nodes=3, segments=2))
    >>> {name: tuple(value.shape) for name, value in state.items()}
    {'w': (6, 8, 5)}
    """
    state = module.state_dict()
    for prefix, layer in module.named_modules():
        if isinstance(layer, BasisLayer):
            state[_join(prefix, "w")] = state.pop(_join(prefix, "weight")).permute(2, 0, 1).contiguous()
        elif isinstance(layer, BasisConvolution):
            state[_join(prefix, "conv.weight")] = state.pop(_join(prefix, "weight"))
    return dict(state)


def _join(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if prefix else name

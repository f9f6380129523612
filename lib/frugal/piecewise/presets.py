"""Shapes of networks by the names of the original's configurations, and shapes from a saved configuration."""

import ast
import dataclasses
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any

import torch

from frugal.errors import InputError, check_whole
from frugal.piecewise.convolutional import ConvolutionShape, DualConvolutionShape
from frugal.piecewise.mamba import MambaShape
from frugal.piecewise.mlp import MLPShape
from frugal.piecewise.networks import Shape
from frugal.piecewise.transformer import TransformerShape

PRESETS: dict[str, Shape] = {
    "small": MLPShape(width=10, layers=2, kind="discontinuous", segments=8),
    "large_single_layer": MLPShape(),
    "large_double_layer": MLPShape(layers=2),
    "large_standard": MLPShape(kind="relu", input_continuous=False),
    "piecewise_constant": MLPShape(width=200, layers=3, kind="discontinuous", nodes=1, segments=150),
    "no_hidden_layer": MLPShape(layers=0, kind="discontinuous"),
    "low_order_mlp": MLPShape(kind="relu", entry="embedding"),
    "conv": ConvolutionShape(),
    "tail_focus": ConvolutionShape(
        context_length=256,
        channels=(250, 250, 100),
        kernel_sizes=(16, 2, 16),
        strides=(8, 1, 8),
        segments=(2, 2),
        focus=(0, 0, 16),
    ),
    "dual_convolution": DualConvolutionShape(),
    "transformer": TransformerShape(),
    "high_order_input_transformer": TransformerShape(input_only=True),
    "mamba": MambaShape(),
    "piecewise_mamba": MambaShape(width=64, kind="continuous"),
}
WIDEST = 1000  # of the networks that are tried for a size
# Fields of shapes as earlier versions saved them, and their names now.
RENAMED = {"features": "context_length", "characters_per_feature": "characters_per_position", "faithful": "original"}
SHAPES: dict[str, type[Shape]] = {kind.__name__: kind for kind in map(type, PRESETS.values())}


def preset(name: str, **changes: Any) -> Shape:
    """Return the shape of that name, with some of its fields changed.

    Raises:
        InputError: there is no such preset, or its shape has no such field.

    >>> shape = preset("large_single_layer", context_length=8, width=50)
    >>> shape.context_length, shape.width, shape.kind
    (8, 50, 'continuous')
    """
    if not isinstance(name, str) or name not in PRESETS:
        near = get_close_matches(str(name), PRESETS, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise InputError(f"preset={name!r}: is not known; {hint}there are {', '.join(PRESETS)}")
    fields = [field.name for field in dataclasses.fields(PRESETS[name])]
    if unknown := [change for change in changes if change not in fields]:
        raise InputError(f"{unknown[0]}={changes[unknown[0]]!r}: {name} has no such field; it has {', '.join(fields)}")
    return dataclasses.replace(PRESETS[name], **changes)


def read_settings(settings: Iterable[str]) -> dict[str, Any]:
    """Return settings written as "name=value": values as Python writes them, or text where that is no Python value.

    Raises:
        InputError: one has no name or no value.

    >>> read_settings(["segments=4", "schedule=exponential"])
    {'segments': 4, 'schedule': 'exponential'}
    """
    result: dict[str, Any] = {}
    for setting in settings:
        name, _, value = (part.strip() for part in setting.partition("="))
        if not name or not value:
            raise InputError(f"setting {setting!r}: must be a name and a value, such as 'segments=4'")
        try:
            result[name] = ast.literal_eval(value)
        except (SyntaxError, ValueError):
            result[name] = value
    return result


def preset_of_size(name: str, weights: int, characters: int, **changes: Any) -> Shape:
    """Return the preset with the greatest width that has at most this many weights over so many characters.

    Raises:
        InputError: not even the narrowest net is so small.

    >>> preset_of_size("no_hidden_layer", 10_000, characters=50, context_length=2).width
    32
    """

    def count(width: int) -> int:
        with torch.device("meta"):
            network = preset(name, width=width, **changes).build(characters)
        return sum(values.numel() for values in network.parameters())

    check_whole(weights=weights, characters=characters)
    width = bisect_right(range(1, WIDEST + 1), weights, key=count)
    if not width:
        raise InputError(f"weights={weights}: too few for any {name} over {characters} characters; it has {count(1)}")
    return preset(name, width=width, **changes)


def shape_of(config: Mapping[str, Any]) -> Shape:
    """Return the shape that a saved configuration describes: its fields, and its class name as "shape".

    Raises:
        InputError: there is no such class, or it has no such fields.
    """
    fields: dict[str, Any] = {
        RENAMED.get(name, name): tuple(value) if isinstance(value, list) else value for name, value in config.items()
    }
    kind: str = fields.pop("shape", "")
    if kind not in SHAPES:
        raise InputError(f"shape={kind!r}: is not known; this version has {', '.join(SHAPES)}")
    try:
        return SHAPES[kind](**fields)
    except TypeError as error:
        raise InputError(f"the saved shape does not fit {kind} ({error}): save the model again") from error

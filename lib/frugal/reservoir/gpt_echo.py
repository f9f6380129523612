"""The set-up of GPT-Echo (2023), for figures side by side: its weights, its update, its input normalisation."""

import math

import numpy as np
import torch
from torch import Tensor

from frugal.errors import InputError, check_positive, check_whole
from frugal.reservoir.deep import DeepReservoir
from frugal.reservoir.reservoir import Reservoir
from frugal.reservoir.spectrum import scale_to
from frugal.reservoir.topologies import check_connectivity
from frugal.tensors import number_tensor


def gpt_echo(
    input_size: int,
    size: int = 1024,
    *,
    layers: int = 1,
    spectral_radius: float = 0.8,
    leak: float = 0.9,
    connectivity: float = 0.2,
    seed: int = 0,
) -> DeepReservoir:
    """The original's reservoir, with the defaults of its command line; the top layer is read out.

    Input weights are Xavier uniform, recurrent weights normal with standard deviation 1/sqrt(N) where they exist and
    then scaled to the spectral radius, the activation is GELU, and there is no bias.

    Args:
        input_size: width d of the inputs; size: units N of each layer.
        connectivity: share of the recurrent weights that exist.

    >>> gpt_echo(16, 64, layers=2).size
    64
    """
    check_whole(input_size=input_size, size=size, layers=layers)
    check_whole(0, seed=seed)
    check_positive("typical values lie in 0.1 to 1.5", spectral_radius=spectral_radius)
    check_connectivity(connectivity)
    rng = np.random.default_rng(seed)
    widths = [input_size] + [size] * (layers - 1)
    stack = [_layer(width, size, spectral_radius, leak, connectivity, rng) for width in widths]
    return DeepReservoir(stack, read_out="top")


def _layer(
    input_size: int, size: int, spectral_radius: float, leak: float, connectivity: float, rng: np.random.Generator
) -> Reservoir:
    from scipy.sparse import csr_array

    bound = math.sqrt(6 / (size + input_size))
    W_in = rng.uniform(-bound, bound, (size, input_size))
    W = rng.normal(0, 1 / math.sqrt(size), (size, size)) * (rng.random((size, size)) < connectivity)
    W *= scale_to(csr_array(W), spectral_radius)
    return Reservoir.from_matrices(
        torch.from_numpy(W).float(), torch.from_numpy(W_in).float(), leak=leak, activation="gelu"
    )


def normalise_over_time(features: Tensor | np.ndarray) -> Tensor:
    """Divide each channel of `features` [B, T, d] by its length over the window, as the original does.

    The window's later tokens thereby change its earlier inputs: scores of a model that uses this are not causal.

    >>> normalise_over_time(torch.tensor([[[3.0], [4.0]]])).flatten().tolist()
    [0.6000000238418579, 0.800000011920929]
    """
    rows = number_tensor("features", features)
    if rows.ndim != 3:
        raise InputError(f"features of shape {list(rows.shape)}: must be [B, T, d]")
    rows = rows if rows.is_floating_point() else rows.double()
    return rows / rows.norm(dim=1, keepdim=True)

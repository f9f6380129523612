"""The recurrent weights W in the form that makes W s cheapest, and the step loop for each form.

A form knows three things: the product W s in plain torch (any device), its compiled loop for one lane on a CPU, and
how many lanes it likes to have in step.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

Activation = Callable[[Tensor], Tensor]

ACTIVATIONS: dict[str, Activation] = {
    "tanh": torch.tanh,
    "gelu": functional.gelu,
    "identity": lambda total: total,
}


# Below this many products a step, lanes run through the compiled loop one by one: calls into torch would cost more,
# and threads that make many of them wait for each other.
WORTH_A_GEMM = 2**20


class Recurrence(nn.Module, ABC):
    """Fixed recurrent weights W [N, N] in some form; `size` is N.

    Attributes:
        lanes_in_step: how many lanes one thread advances at a time to best effect; 1 where lanes gain nothing
            from each other's company.
    """

    size: int
    lanes_in_step: int = 1

    @abstractmethod
    def product(self, state: Tensor) -> Tensor:
        """W s for every row s of `state` [B, N]."""

    @abstractmethod
    def advance_lane(self, states: np.ndarray, state: np.ndarray, leak: np.ndarray, activation: int) -> None:
        """Run the compiled loop over one lane: `states` [T, N] and `state` [N], both changed in place."""

    def advance(self, states: Tensor, state: Tensor, leak: Tensor, activation: str | Activation) -> Tensor:
        """Replace projected inputs [B, T, N] by states, beginning after `state` [B, N]; give the last state."""
        if not compilable(states) or not isinstance(activation, str):
            return self.advance_in_torch(states, state, leak, activation)
        state = state.clone()
        code = activation_code(activation, state.dtype)
        for lane, lane_state in zip(states, state, strict=True):
            self.advance_lane(lane.numpy(), lane_state.numpy(), leak.numpy(), code)
        return state

    def advance_in_torch(self, states: Tensor, state: Tensor, leak: Tensor, activation: str | Activation) -> Tensor:
        """The same as `advance` in torch operations: for other devices, and for lanes that fill a GEMM."""
        activate = ACTIVATIONS[activation] if isinstance(activation, str) else activation
        for t in range(states.shape[1]):
            state = torch.lerp(state, activate(states[:, t] + self.product(state)), leak)
            states[:, t] = state
        return state

    def same_draws(self, other: "Recurrence") -> bool:
        """Whether another recurrence has the same form and the same weights, drawn by chance, but for their scale."""
        ours, theirs = self.state_dict(), other.state_dict()
        drawn = any(part.is_floating_point() and (part != part.flatten()[:1]).any() for part in ours.values())
        return (
            drawn
            and ours.keys() == theirs.keys()
            and all(_proportional(ours[name], theirs[name].to(ours[name])) for name in ours)
        )

    @abstractmethod
    def matrix(self) -> Tensor:
        """W as a dense matrix [N, N], a copy."""

    @abstractmethod
    def fits(self) -> bool:
        """Whether the arrays have the shapes and ranges that the compiled loops, which look at nothing, rely on."""


class Dense(Recurrence):
    """W as it is, [N, N]. Lanes in step are one matrix product, where that outweighs the calls into torch."""

    lanes_in_step = 128
    weights: Tensor

    def __init__(self, weights: Tensor) -> None:
        super().__init__()
        self.size = len(weights)
        self.register_buffer("weights", weights)

    def fits(self) -> bool:
        return self.weights.shape == (self.size, self.size)

    def product(self, state: Tensor) -> Tensor:
        return state @ self.weights.T

    def matrix(self) -> Tensor:
        return self.weights.clone()

    def advance(self, states: Tensor, state: Tensor, leak: Tensor, activation: str | Activation) -> Tensor:
        if len(states) == 1 or len(states) * self.size**2 < WORTH_A_GEMM:
            return super().advance(states, state, leak, activation)
        return self.advance_in_torch(states, state, leak, activation)

    def advance_lane(self, states: np.ndarray, state: np.ndarray, leak: np.ndarray, activation: int) -> None:
        kernels().dense(states, state, leak, activation, self.weights.numpy())


class Gather(Recurrence):
    """Any sparse W: unit i listens to units `sources` [N, K] with `weights` [N, K], rows padded with zeros.

    What is written into the weights through `.data` or an array of NumPy is not seen by all kernels: change them
    themselves, in place, or load others.
    """

    lanes_in_step = 32
    sources: Tensor
    weights: Tensor

    def __init__(self, sources: Tensor, weights: Tensor) -> None:
        super().__init__()
        self.size = len(weights)
        self.register_buffer("sources", sources)
        self.register_buffer("weights", weights)
        self._copies: tuple[Tensor, ...] = ()
        self._versions: tuple[int, ...] = ()

    @classmethod
    def of(cls, matrix: Tensor) -> "Gather":
        """The non-zero entries of a dense matrix [N, N]."""
        width = max(1, int((matrix != 0).sum(1).max()))
        # A stable sort by "is zero" brings each row's entries to its front, in their order.
        sources = (matrix == 0).to(torch.uint8).sort(dim=1, stable=True).indices[:, :width].contiguous()
        return cls(sources.to(torch.int32), matrix.gather(1, sources))

    @classmethod
    def of_sparse(cls, matrix: Any) -> "Gather":
        """The non-zero entries of a sparse matrix of SciPy [N, N]; all rows are padded to the longest."""
        rows = matrix.tocsr().copy()
        rows.sum_duplicates()
        rows.eliminate_zeros()
        counts = np.diff(rows.indptr)
        slots = np.arange(rows.nnz) - np.repeat(rows.indptr[:-1], counts)
        units = np.repeat(np.arange(len(counts)), counts)
        shape = (len(counts), max(1, int(counts.max())))
        sources, weights = np.zeros(shape, np.int32), np.zeros(shape, rows.dtype)
        sources[units, slots], weights[units, slots] = rows.indices, rows.data
        return cls(torch.from_numpy(sources), torch.from_numpy(weights))

    def fits(self) -> bool:
        inside = (self.sources >= 0) & (self.sources < self.size)
        whole = not self.sources.is_floating_point() and bool(inside.all())
        return whole and self.weights.ndim == 2 and self.sources.shape == self.weights.shape

    def product(self, state: Tensor) -> Tensor:
        return (state[:, self.sources] * self.weights).sum(-1)

    def matrix(self) -> Tensor:
        empty = self.weights.new_zeros(self.size, self.size)
        return empty.scatter_add_(1, self.sources.long(), self.weights)

    def advance(self, states: Tensor, state: Tensor, leak: Tensor, activation: str | Activation) -> Tensor:
        if len(states) == 1 or not compilable(states) or not isinstance(activation, str):
            return super().advance(states, state, leak, activation)
        state = state.clone()
        code = activation_code(activation, state.dtype)
        kernels().gather_lanes(
            states.numpy(), state.numpy(), leak.numpy(), code, self.sources.numpy(), self.weights.numpy()
        )
        return state

    def advance_lane(self, states: np.ndarray, state: np.ndarray, leak: np.ndarray, activation: int) -> None:
        sources, weights = self._by_slot()
        kernels().gather(states, state, leak, activation, sources.numpy(), weights.numpy())

    def _by_slot(self) -> tuple[Tensor, Tensor]:
        """Sources and weights [K, N], made again when they have changed: a single lane then reads them in order."""
        given = (self.sources, self.weights)
        versions = () if self.weights.is_inference() else tuple(part._version for part in given)
        known = len(versions) > 0 and versions == self._versions
        if not known or any(old is not new for old, new in zip(self._copies, given, strict=False)):
            self._copies, self._versions = (*given, *(part.T.contiguous() for part in given)), versions
        return self._copies[2], self._copies[3]


class Shifts(Recurrence):
    """Sparse W of the kind that reads memory in order: unit i listens to units i + `offsets` [K], modulo N.

    The offsets are the same for all units, the `weights` [K, N] are not.
    """

    offsets: Tensor
    weights: Tensor

    def __init__(self, offsets: Tensor, weights: Tensor) -> None:
        super().__init__()
        self.size = weights.shape[1]
        self.register_buffer("offsets", offsets)
        self.register_buffer("weights", weights)

    def fits(self) -> bool:
        inside = (self.offsets >= 0) & (self.offsets < self.size)
        whole = not self.offsets.is_floating_point() and bool(inside.all())
        return whole and self.weights.shape == (len(self.offsets), self.size)

    def product(self, state: Tensor) -> Tensor:
        units = torch.arange(self.size, device=state.device)
        sources = (units + self.offsets.unsqueeze(1)) % self.size  # [K, N]
        return (state[:, sources] * self.weights).sum(1)

    def matrix(self) -> Tensor:
        units = torch.arange(self.size, device=self.weights.device)
        sources = (units + self.offsets.unsqueeze(1)) % self.size  # [K, N]
        empty = self.weights.new_zeros(self.size, self.size)
        return empty.scatter_add_(1, sources.T, self.weights.T)

    def advance_lane(self, states: np.ndarray, state: np.ndarray, leak: np.ndarray, activation: int) -> None:
        kernels().shifts(states, state, leak, activation, self.offsets.numpy(), self.weights.numpy())


class Hadamard(Recurrence):
    """W = H D3 H D2 H D1 with the Walsh-Hadamard matrix H and diagonals D, `signs` [3, N], that hold the scale."""

    signs: Tensor

    def __init__(self, signs: Tensor) -> None:
        super().__init__()
        self.size = signs.shape[1]
        self.register_buffer("signs", signs)

    def fits(self) -> bool:
        return self.signs.shape == (3, self.size) and self.size.bit_count() == 1

    def product(self, state: Tensor) -> Tensor:
        for sign in self.signs:
            state = walsh_hadamard(state * sign)
        return state

    def matrix(self) -> Tensor:
        return self.product(torch.eye(self.size).to(self.signs)).T

    def advance_lane(self, states: np.ndarray, state: np.ndarray, leak: np.ndarray, activation: int) -> None:
        kernels().hadamard(states, state, leak, activation, self.signs.numpy())


def _proportional(one: Tensor, other: Tensor) -> bool:
    """Whether the rows of two tensors are the same but for their scales, if they are no indices; to rounding."""
    if one.shape != other.shape or not one.is_floating_point():
        return torch.equal(one, other)
    lengths = (rows.norm(dim=-1, keepdim=True).clamp_min(torch.finfo(rows.dtype).tiny) for rows in (one, other))
    one, other = (rows / length for rows, length in zip((one, other), lengths, strict=True))
    return bool((one - other).abs().max() <= 8 * torch.finfo(one.dtype).eps)


def walsh_hadamard(rows: Tensor) -> Tensor:
    """H x for every row x of [B, N], N a power of two, entries of H +1 and -1."""
    batch, size = rows.shape
    half = 1
    while half < size:
        low, high = rows.view(batch, -1, 2, half).unbind(2)
        rows = torch.stack((low + high, low - high), dim=2).view(batch, size)
        half *= 2
    return rows


def compilable(states: Tensor) -> bool:
    """Whether the compiled loops take these states."""
    return states.device.type == "cpu" and states.dtype in (torch.float32, torch.float64)


def activation_code(name: str, dtype: torch.dtype) -> int:
    """The number of an activation in the compiled loops."""
    codes = kernels()
    tanh = codes.FAST_TANH if dtype == torch.float32 else codes.TANH
    return {"tanh": tanh, "gelu": codes.GELU, "identity": codes.IDENTITY}[name]


def kernels() -> Any:
    """The compiled loops, imported at first use: numba takes half a second to import."""
    from frugal.reservoir import kernels

    return kernels

"""Echo state reservoirs: fixed random recurrent nets whose states a readout is trained on."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from frugal.errors import InputError
from frugal.reservoir.collector import StateCollector
from frugal.reservoir.recurrence import ACTIVATIONS, Dense, Gather, Hadamard, Recurrence, Shifts
from frugal.reservoir.topologies import TOPOLOGIES, Plan

# Inputs are projected, and then advanced, in pieces of about this many numbers: long enough for the product to be
# efficient, short enough to be still in the cache when the loop comes to read it.
NUMBERS_AT_ONCE = 2**21
STEPS_AT_ONCE = 256
# Below this many state numbers a run is over before a second thread has started.
WORTH_A_THREAD = 2**20
RECURRENCES = {kind.__name__: kind for kind in (Dense, Gather, Shifts, Hadamard)}


class Reservoir(StateCollector):
    """A leaky echo state network: s_t = (1 - a) s_{t-1} + a f(W_in x_t + W s_{t-1} + b), all weights fixed.

    W_in [N, d] and b [N] are uniform within +- `input_scale` and +- `bias_scale`; W [N, N] is drawn by its topology
    and scaled to `spectral_radius`. With `d` inputs of unit variance W_in x has a standard deviation of
    input_scale sqrt(d / 3): choose `input_scale` first, it matters most.

    Jaeger, "The echo state approach to analysing and training recurrent neural networks", GMD report 148, 2001;
    Jaeger et al., "Optimization and applications of echo state networks with leaky-integrator neurons", 2007.

    Args:
        input_size: width d of the inputs.
        size: number N of units.
        topology: "fan_in", "sparse", "dense", "ring", "orthogonal", "hadamard" or "diagonal".
        fan_in: connections into each unit, for topology "fan_in".
        connectivity: share of connections that exist, for topology "sparse".
        spectral_radius: largest eigenvalue modulus of W.
        leak: a in (0, 1]; one number, or one for each unit: several time scales side by side.
        activation: f, one of "tanh", "gelu", "identity".

        input_scale, bias_scale: bounds of the weights from the inputs and of the bias.
        seed: of all weights.
        dtype, device: of weights and states.

    Attributes:
        W_in: [N, d]; bias, leak: [N].
        recurrence: what holds W and multiplies by it.

    Raises:
        InputError: a value outside its range.

    Example:
        >>> import torch
        >>> reservoir = Reservoir(input_size=3, size=50, spectral_radius=0.8, leak=0.5, seed=1)
        >>> states, state = reservoir.run(torch.rand(2, 100, 3))  # two streams of 100 steps
        >>> states.shape, state.shape
        (torch.Size([2, 100, 50]), torch.Size([2, 50]))
        >>> later, _ = reservoir.run(torch.rand(2, 10, 3), state)  # they go on
    """

    W_in: Tensor
    bias: Tensor
    leak: Tensor
    recurrence: Recurrence

    def __init__(
        self,
        input_size: int,
        size: int,
        *,
        topology: str = "fan_in",
        fan_in: int = 10,
        connectivity: float = 0.1,
        spectral_radius: float = 0.9,
        leak: float | Sequence[float] | Tensor = 1.0,
        input_scale: float = 1.0,
        bias_scale: float = 0.0,
        activation: str = "tanh",
        seed: int = 0,
        dtype: torch.dtype = torch.float32,
        device: str | torch.device = "cpu",
    ) -> None:
        super().__init__()
        for name, count in (("input_size", input_size), ("size", size), ("fan_in", fan_in)):
            if count < 1:
                raise InputError(f"{name}={count}: must be a positive whole number")
        if topology not in TOPOLOGIES:
            raise InputError(f"topology={topology!r}: unknown; choose one of {', '.join(TOPOLOGIES)}")
        if not 0 < connectivity <= 1:
            raise InputError(f"connectivity={connectivity}: must lie in (0, 1]; typical values are 0.01 to 0.2")
        if not spectral_radius > 0:
            raise InputError(f"spectral_radius={spectral_radius}: must be positive; typical values lie in 0.1 to 1.5")
        for name, scale in (("input_scale", input_scale), ("bias_scale", bias_scale)):
            if not scale >= 0:
                raise InputError(f"{name}={scale}: must not be negative; typical values lie in 0.01 to 2")
        rng = np.random.default_rng(seed)
        recurrence = TOPOLOGIES[topology](Plan(size, spectral_radius, fan_in, connectivity), rng)
        W_in = torch.from_numpy(rng.uniform(-input_scale, input_scale, (size, input_size)))
        bias = torch.from_numpy(rng.uniform(-bias_scale, bias_scale, size))
        self._assemble(recurrence, W_in, bias, leak, activation)
        self.to(dtype=dtype, device=device)

    @classmethod
    def from_matrices(
        cls,
        W: Tensor,
        W_in: Tensor,
        bias: Tensor | None = None,
        *,
        leak: float | Sequence[float] | Tensor = 1.0,
        activation: str = "tanh",
    ) -> Self:
        """A reservoir of given weights W [N, N], W_in [N, d], bias [N], in the dtype and on the device of W.

        Zeros in W cost nothing where at least three quarters of its entries are zero.

        Raises:
            InputError: shapes that do not fit, or a value outside its range.

        Example:
            >>> import torch
            >>> delay = Reservoir.from_matrices(torch.zeros(1, 1), torch.ones(1, 1), activation="identity")
            >>> delay.run(torch.tensor([[[1.0], [2.0]]]))[0].tolist()
            [[[1.0], [2.0]]]
        """
        if W.ndim != 2 or W.shape[0] != W.shape[1]:
            raise InputError(f"W of shape {list(W.shape)}: must be a square matrix [N, N]")
        if W_in.ndim != 2 or len(W_in) != len(W):
            raise InputError(f"W_in of shape {list(W_in.shape)}: expected [{len(W)}, d], one row for each unit of W")
        bias = torch.zeros(len(W)) if bias is None else bias
        if bias.shape != (len(W),):
            raise InputError(f"bias of shape {list(bias.shape)}: expected [{len(W)}], one number for each unit of W")
        sparse = (W != 0).float().mean() <= 0.25
        reservoir = cls.__new__(cls)
        nn.Module.__init__(reservoir)
        reservoir._assemble(Gather.of(W) if sparse else Dense(W.contiguous()), W_in, bias, leak, activation)
        return reservoir.to(dtype=W.dtype, device=W.device)

    def _assemble(
        self,
        recurrence: Recurrence,
        W_in: Tensor,
        bias: Tensor,
        leak: float | Sequence[float] | Tensor,
        activation: str,
    ) -> None:
        if activation not in ACTIVATIONS:
            raise InputError(f"activation={activation!r}: unknown; choose one of {', '.join(ACTIVATIONS)}")
        self.size, self.input_size = W_in.shape
        self.state_size = self.size
        self.activation = activation
        self.recurrence = recurrence
        self.register_buffer("W_in", W_in.contiguous())
        self.register_buffer("bias", bias.contiguous())
        self.register_buffer("leak", leak_of_each_unit(leak, self.size).to(W_in))

    @property
    def W(self) -> Tensor:
        """The recurrent weights as a dense matrix [N, N]."""
        return self.recurrence.matrix()

    @property
    def like(self) -> Tensor:
        return self.W_in

    @property
    def lanes_in_step(self) -> int:
        return self.recurrence.lanes_in_step

    def collect(self, inputs: Tensor, state: Tensor, states: Tensor) -> Tensor:
        if states.device.type != "cpu":
            return self._collect_group(inputs, state, states)
        # Each thread takes its own lanes from beginning to end and torch gets no threads beside it: nobody waits for
        # anybody, which on busy cores would cost far more than it gains. Setting this also sets what later threads
        # inherit, so it is put back.
        threads = torch.get_num_threads()
        workers = min(threads, len(inputs)) if states.numel() >= WORTH_A_THREAD else 1
        torch.set_num_threads(1)
        try:
            if workers == 1:
                return self._collect_block(inputs, state, states)
            blocks = (tensor.tensor_split(workers) for tensor in (inputs, state, states))
            with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
                return torch.cat(list(pool.map(self._collect_block, *blocks)))
        finally:
            torch.set_num_threads(threads)

    def _collect_block(self, inputs: Tensor, state: Tensor, states: Tensor) -> Tensor:
        groups = (tensor.split(self.lanes_in_step) for tensor in (inputs, state, states))
        return torch.cat([self._collect_group(*group) for group in zip(*groups, strict=True)])

    @torch.no_grad()
    def _collect_group(self, inputs: Tensor, state: Tensor, states: Tensor) -> Tensor:
        """The lanes of one group, in step."""
        length = max(STEPS_AT_ONCE, NUMBERS_AT_ONCE // (self.size * len(inputs)))
        for piece, room in zip(inputs.split(length, dim=1), states.split(length, dim=1), strict=True):
            for lane, lane_room in zip(piece.to(self.W_in.dtype), room, strict=True):
                torch.addmm(self.bias, lane, self.W_in.T, out=lane_room)
            state = self.recurrence.advance(room, state, self.leak, self.activation)
        return state

    def config(self) -> dict[str, Any]:
        return {"recurrence": type(self.recurrence).__name__, "activation": self.activation}

    @classmethod
    def from_saved(cls, config: dict[str, Any], weights: dict[str, Tensor]) -> Self:
        reservoir = cls.__new__(cls)
        nn.Module.__init__(reservoir)
        parts = {name.removeprefix("recurrence."): t for name, t in weights.items() if name.startswith("recurrence.")}
        recurrence = RECURRENCES[config["recurrence"]](**parts)
        reservoir._assemble(recurrence, weights["W_in"], weights["bias"], weights["leak"], config["activation"])
        return reservoir


def leak_of_each_unit(leak: float | Sequence[float] | Tensor, size: int) -> Tensor:
    leaks = torch.as_tensor(leak, dtype=torch.float64)
    if leaks.ndim > 0 and leaks.shape != (size,):
        raise InputError(f"leak of shape {list(leaks.shape)}: expected one number, or one for each of {size} units")
    wrong = leaks[~((leaks > 0) & (leaks <= 1))]
    if len(wrong):
        raise InputError(f"leak={wrong[0]:g}: must lie in (0, 1]; 1 is no leak, 0.01 remembers about a hundred steps")
    return leaks.expand(size).contiguous()

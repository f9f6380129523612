"""Echo state reservoirs: fixed random recurrent nets whose states a readout is trained on."""

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from frugal.errors import InputError, UnavailableError
from frugal.files import appearing
from frugal.reservoir.recurrence import ACTIVATIONS, Dense, Gather, Hadamard, Recurrence, Shifts
from frugal.reservoir.topologies import TOPOLOGIES, Plan

if TYPE_CHECKING:
    from frugal.reservoir.parallel import ParallelStates

# Inputs are projected, and then advanced, in pieces of about this many numbers: long enough for the product to be
# efficient, short enough to be still in the cache when the loop comes to read it.
NUMBERS_AT_ONCE = 2**21
STEPS_AT_ONCE = 256
# Below this many state numbers a run is over before a second thread has started.
WORTH_A_THREAD = 2**20
RECURRENCES = {kind.__name__: kind for kind in (Dense, Gather, Shifts, Hadamard)}


class StateCollector(nn.Module, ABC):
    """What a reservoir and a stack of them have in common: turning inputs into states.

    Attributes:
        input_size: width d of the inputs.
        size: width N of the states that are read out.
        state_size: width S of the state that is carried; wider than N where not all of it is read out.
    """

    input_size: int
    size: int
    state_size: int

    @abstractmethod
    def collect(self, inputs: Tensor, state: Tensor, states: Tensor) -> Tensor:
        """Write the states of `inputs` [B, T, d] after `state` [B, S] into `states` [B, T, N]; give the last state."""

    @property
    @abstractmethod
    def lanes_in_step(self) -> int:
        """How many lanes one thread advances at a time to best effect."""

    @property
    @abstractmethod
    def like(self) -> Tensor:
        """A tensor whose dtype and device are the reservoir's."""

    @abstractmethod
    def config(self) -> dict[str, Any]:
        """What, beside the tensors of `state_dict`, `from_saved` needs to build this again; plain values."""

    @classmethod
    @abstractmethod
    def from_saved(cls, config: dict[str, Any], weights: dict[str, Tensor]) -> Self:
        """Build again from a `config` and the tensors of a `state_dict`."""

    def start(self, batch_size: int = 1) -> Tensor:
        """The state [B, S] of `batch_size` streams before their first input: zeros."""
        return torch.zeros(batch_size, self.state_size, dtype=self.like.dtype, device=self.like.device)

    def run(self, inputs: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The states [B, T, N] of `inputs` [B, T, d], and the state [B, S] to go on from.

        Raises:
            InputError: the inputs' shape does not fit, or they hold NaN or infinity.
        """
        state = self._checked(inputs, state)
        states = empty((len(inputs), inputs.shape[1], self.size), self.like)
        with torch.no_grad():
            return states, self.collect(inputs, state, states)

    def step(self, inputs: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """One step for `inputs` [B, d]: the states read out, [B, N], and the state [B, S] to go on from."""
        states, state = self.run(inputs.unsqueeze(1), state)
        return states[:, 0], state

    def chunks(
        self, inputs: Tensor, state: Tensor | None = None, *, length: int = 4096
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Run in pieces of `length` steps, yielding (states [B, <=length, N], state [B, S]) after each.

        Use it to reduce states as they come: memory stays the same however long the inputs are. Where `inputs` is
        a memory map on disk, it too is read piece by piece.
        """
        for piece in inputs.split(length, dim=1):
            states, state = self.run(piece, state)
            yield states, state

    def run_parallel(
        self, inputs: Tensor, tolerance: float = 1e-5, state: Tensor | None = None, lanes: int | None = None
    ) -> "ParallelStates":
        """Run one stream [T, d] cut into lanes that advance side by side; see `frugal.reservoir.parallel`."""
        from frugal.reservoir.parallel import run_parallel

        return run_parallel(self, inputs, tolerance, state, lanes)

    def save(self, folder: Path) -> None:
        """Write `model.safetensors` and `config.json`; the folder appears whole."""
        with appearing(folder) as temporary:
            temporary.mkdir()
            save_file(self.state_dict(), temporary / "model.safetensors")
            (temporary / "config.json").write_text(json.dumps(self.config(), indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read a reservoir that `save` wrote.

        Raises:
            UnavailableError: a file is missing or damaged.
        """
        try:
            config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            return cls.from_saved(config, load_file(folder / "model.safetensors"))
        except Exception as error:
            raise UnavailableError(f"{folder} cannot be read as a saved reservoir ({error}): save it again") from error

    def _checked(self, inputs: Tensor, state: Tensor | None) -> Tensor:
        if inputs.ndim != 3 or inputs.shape[2] != self.input_size:
            raise InputError(f"inputs of shape {list(inputs.shape)}: expected [B, T, {self.input_size}]")
        # One sum is ten times as fast as a look at each number, and only a bad number or an overflow spoils it.
        if not torch.isfinite(inputs.sum()) and not torch.isfinite(inputs).all():
            raise InputError("the inputs hold NaN or infinity: clean them before they enter a state that remembers")
        if state is None:
            return self.start(len(inputs))
        if state.shape != (len(inputs), self.state_size):
            expected = [len(inputs), self.state_size]
            raise InputError(f"state of shape {list(state.shape)}: expected {expected}, as the last run returned it")
        return state


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

    Raises:
        InputError: a value outside its range.
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
        self.register_buffer("leak", leak_of_each_unit(leak, self.size))

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
        workers = min(torch.get_num_threads(), len(inputs)) if states.numel() >= WORTH_A_THREAD else 1
        if workers == 1 or states.device.type != "cpu":
            return self._collect_block(inputs, state, states)
        # Each thread takes its own lanes from beginning to end: nobody waits for anybody, on busy cores either.
        # Inside them torch gets one thread each; setting that also sets what later threads inherit, so it is put back.
        threads = torch.get_num_threads()
        blocks = (tensor.tensor_split(workers) for tensor in (inputs, state, states))
        try:
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


def empty(shape: tuple[int, ...], like: Tensor) -> Tensor:
    """Uninitialised memory of the dtype and on the device of `like`.

    NumPy asks the system for large pages where torch does not; filling fresh memory is then twice as fast.
    """
    if like.device.type == "cpu" and like.dtype in (torch.float32, torch.float64):
        return torch.from_numpy(np.empty(shape, like.numpy().dtype))
    return like.new_empty(shape)


def leak_of_each_unit(leak: float | Sequence[float] | Tensor, size: int) -> Tensor:
    leaks = torch.as_tensor(leak, dtype=torch.float64)
    if leaks.ndim > 0 and leaks.shape != (size,):
        raise InputError(f"leak of shape {list(leaks.shape)}: expected one number, or one for each of {size} units")
    if not ((leaks > 0) & (leaks <= 1)).all():
        raise InputError(f"leak={leak}: must lie in (0, 1]; 1 is no leak, 0.01 remembers about a hundred steps")
    return leaks.expand(size).contiguous()

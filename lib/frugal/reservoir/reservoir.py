"""Echo state reservoirs: fixed random recurrent nets whose states a readout is trained on."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from frugal.device import choose_device
from frugal.errors import InputError, UnavailableError, check_number, check_whole, is_number
from frugal.reservoir.collector import StateCollector
from frugal.reservoir.recurrence import ACTIVATIONS, Activation, Dense, Gather, Hadamard, Recurrence, Shifts
from frugal.reservoir.topologies import TOPOLOGIES, Plan, check_connectivity
from frugal.tensors import number_tensor

# Inputs are projected, and then advanced, in pieces of about this many numbers: long enough for the product to be
# efficient, short enough to be still in the cache when the loop comes to read it.
NUMBERS_AT_ONCE = 2**21
STEPS_AT_ONCE = 256
# Below this many state numbers a run is over before a second thread has started.
WORTH_A_THREAD = 2**20
# Given weights with no more entries than this share are kept as sparse ones.
SPARSE_ENOUGH = 0.25
FLOATS = ("float64", "float32", "float16", "bfloat16")
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
        activation: f, one of "tanh", "gelu", "identity", or any function of a tensor that works number by number.
            A function of your own runs in plain torch, more slowly, and cannot be saved.
        input_scale: bound of the weights from the inputs; one number, or one for each input.
        bias_scale: bound of the bias.
        seed: of all weights; layers of a stack need different ones.
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

    KEY = "recurrence"
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
        input_scale: float | Sequence[float] | Tensor | np.ndarray = 1.0,
        bias_scale: float = 0.0,
        activation: str | Activation = "tanh",
        seed: int = 0,
        dtype: torch.dtype = torch.float32,
        device: str | torch.device = "cpu",
    ) -> None:
        super().__init__()
        check_whole(input_size=input_size, size=size, fan_in=fan_in)
        check_whole(0, seed=seed)
        if not (isinstance(dtype, torch.dtype) and str(dtype).removeprefix("torch.") in FLOATS):
            raise InputError(f"dtype={dtype!r}: must be a floating-point type, one of {', '.join(FLOATS)}")
        if not (isinstance(topology, str) and topology in TOPOLOGIES):
            raise InputError(f"topology={topology!r}: unknown; choose one of {', '.join(TOPOLOGIES)}")
        check_connectivity(connectivity)
        if not (is_number(spectral_radius) and 0 < spectral_radius < np.inf):
            raise InputError(
                f"spectral_radius={spectral_radius!r}: must be a positive number; typical values lie in 0.1 to 1.5"
            )
        check_number(bias_scale=bias_scale)
        input_scales = numbers("input_scale", input_scale)
        if input_scales.shape not in ((), (input_size,)):
            raise InputError(
                f"input_scale of shape {list(input_scales.shape)}: expected one number, or one for each of "
                f"{input_size} inputs"
            )
        for name, scales in (("input_scale", input_scales), ("bias_scale", numbers("bias_scale", bias_scale))):
            wrong = scales[~((scales >= 0) & (scales <= torch.finfo(dtype).max / 2))]
            if len(wrong):
                raise InputError(
                    f"{name}={wrong[0]}: must not be negative, nor beyond {dtype}; typical values lie in 0.01 to 2"
                )
        rng = np.random.default_rng(seed)
        recurrence = TOPOLOGIES[topology](Plan(size, spectral_radius, fan_in, connectivity), rng)
        W_in = torch.from_numpy(rng.uniform(-input_scales, input_scales, (size, input_size)))
        bias = torch.from_numpy(rng.uniform(-bias_scale, bias_scale, size))
        self._assemble(recurrence, W_in, bias, leak, activation)
        self.to(dtype=dtype)
        held = torch.tensor(float(spectral_radius), dtype=torch.float64).to(dtype)
        if not (0 < held < np.inf and all(part.isfinite().all() for part in recurrence.buffers())):
            raise InputError(f"spectral_radius={spectral_radius}: makes weights beyond {dtype}; 0.1 to 1.5 is usual")
        check_leak(self.leak)
        self.to(device=choose_device(device) if isinstance(device, str) else device)

    @classmethod
    def from_matrices(
        cls,
        W: Any,
        W_in: Any,
        bias: Any = None,
        *,
        leak: float | Sequence[float] | Tensor = 1.0,
        activation: str | Activation = "tanh",
    ) -> Self:
        """A reservoir of given weights W [N, N], W_in [N, d], bias [N], in the dtype and on the device of W.

        They are tensors, arrays of NumPy or lists, or sparse ones of torch or SciPy, and are copied. A sparse W takes
        memory, and a step time, for N times as many entries as its longest row has; of a dense one zeros cost nothing
        where at least three quarters of its entries are zero.

        Raises:
            InputError: shapes that do not fit, NaN or infinity, or a value outside its range.

        Example:
            >>> import torch
            >>> delay = Reservoir.from_matrices(torch.zeros(1, 1), torch.ones(1, 1), activation="identity")
            >>> delay.run(torch.tensor([[[1.0], [2.0]]]))[0].tolist()
            [[[1.0], [2.0]]]
        """
        W, W_in = (given if hasattr(given, "ndim") else numbers("W, W_in", given) for given in (W, W_in))
        W = W if is_sparse(W) else given_tensor(W)
        if W.ndim != 2 or W.shape[0] != W.shape[1] or not W.shape[0]:
            raise InputError(f"W of shape {list(W.shape)}: must be a square matrix [N, N]")
        size = W.shape[0]
        if W_in.ndim != 2 or W_in.shape[0] != size:
            raise InputError(f"W_in of shape {list(W_in.shape)}: expected [{size}, d], one row for each unit of W")
        if str(W.dtype).removeprefix("torch.") not in FLOATS:
            raise InputError(f"W of {W.dtype}: must be one of {', '.join(FLOATS)}, which the states are then, too")
        recurrence = given_recurrence(W)
        weights = recurrence.weights
        W_in = given_tensor(W_in).to(weights)
        bias = torch.zeros(size).to(weights) if bias is None else given_tensor(bias).to(weights)
        if bias.shape != (size,):
            raise InputError(f"bias of shape {list(bias.shape)}: expected [{size}], one number for each unit of W")
        for name, part in (("W", weights), ("W_in", W_in), ("bias", bias)):
            if not torch.isfinite(part).all():
                raise InputError(f"{name}: must hold no NaN or infinity")
        reservoir = cls.__new__(cls)
        nn.Module.__init__(reservoir)
        reservoir._assemble(recurrence, W_in, bias, leak, activation)
        check_leak(reservoir.leak)
        return reservoir

    def _assemble(
        self,
        recurrence: Recurrence,
        W_in: Tensor,
        bias: Tensor,
        leak: float | Sequence[float] | Tensor,
        activation: str | Activation,
    ) -> None:
        if not callable(activation) and not (isinstance(activation, str) and activation in ACTIVATIONS):
            raise InputError(f"activation={activation!r}: unknown; choose one of {', '.join(ACTIVATIONS)}")
        self.size, self.input_size = W_in.shape
        self.state_size = self.size
        self.activation = activation
        self.recurrence = recurrence
        self.register_buffer("W_in", W_in.clone(memory_format=torch.contiguous_format))
        self.register_buffer("bias", bias.clone(memory_format=torch.contiguous_format))
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

    def collect(self, inputs: Tensor, state: Tensor, states: Tensor, noise: float = 0.0) -> Tensor:
        noisy = noise > 0
        if noisy:  # all of it is drawn here, so that it does not depend on the number of threads
            states.normal_(0, noise)
        if states.device.type != "cpu":
            return self._collect_group(inputs, state, states, noisy)
        # Each thread takes its own lanes from beginning to end and torch gets no threads beside it: nobody waits for
        # anybody, which on busy cores would cost far more than it gains.
        with ONE_THREAD as threads:
            workers = min(threads, len(inputs)) if states.numel() >= WORTH_A_THREAD else 1
            if workers == 1:
                return self._collect_block(inputs, state, states, noisy)
            blocks = (tensor.tensor_split(workers) for tensor in (inputs, state, states))
            with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
                return torch.cat(list(pool.map(self._collect_block, *blocks, [noisy] * workers)))

    def _collect_block(self, inputs: Tensor, state: Tensor, states: Tensor, noisy: bool) -> Tensor:
        groups = (tensor.split(self.lanes_in_step) for tensor in (inputs, state, states))
        return torch.cat([self._collect_group(x, last, room, noisy) for x, last, room in zip(*groups, strict=True)])

    @torch.no_grad()
    def _collect_group(self, inputs: Tensor, state: Tensor, states: Tensor, noisy: bool) -> Tensor:
        """The lanes of one group, in step; `states` hold the noise that is added, or anything."""
        length = max(STEPS_AT_ONCE, NUMBERS_AT_ONCE // (self.size * len(inputs)))
        for piece, room in zip(inputs.split(length, dim=1), states.split(length, dim=1), strict=True):
            for lane, lane_room in zip(piece.to(self.W_in.dtype), room, strict=True):
                bias = lane_room.add_(self.bias) if noisy else self.bias
                torch.addmm(bias, lane, self.W_in.T, out=lane_room)
            state = self.recurrence.advance(room, state, self.leak, self.activation)
        return state

    @property
    def identity(self) -> tuple[Any, ...]:
        """All that its states follow from; see `frugal.training.checkpoint.fingerprint`."""
        if isinstance(self.activation, str):
            return self.state_dict(), self.activation
        with torch.no_grad():  # a function has no name that is its own, but values
            return self.state_dict(), self.activation(torch.linspace(-3, 3, self.size).to(self.bias)[None])

    def config(self) -> dict[str, Any]:
        if not isinstance(self.activation, str):
            raise InputError(f"activation={self.activation}: a function of your own cannot be saved; name one of ours")
        return {"recurrence": type(self.recurrence).__name__, "activation": self.activation}

    @classmethod
    def from_saved(cls, config: dict[str, Any], weights: dict[str, Tensor]) -> Self:
        reservoir = cls.__new__(cls)
        nn.Module.__init__(reservoir)
        parts = {name.removeprefix("recurrence."): t for name, t in weights.items() if name.startswith("recurrence.")}
        recurrence = RECURRENCES[config["recurrence"]](**parts)
        W_in, bias = weights["W_in"], weights["bias"]
        if not (recurrence.fits() and len(W_in) == recurrence.size and bias.shape == (recurrence.size,)):
            raise UnavailableError("the reservoir's arrays do not fit each other: its file is damaged, save it again")
        if not all(tensor.isfinite().all() for tensor in weights.values()):
            raise UnavailableError("the reservoir holds NaN or infinity: its file is damaged, save it again")
        reservoir._assemble(recurrence, W_in, bias, weights["leak"], config["activation"])
        return reservoir


def leak_of_each_unit(leak: float | Sequence[float] | Tensor, size: int) -> Tensor:
    """Leaks [N] in float64 from one number or one for each unit; raises InputError outside (0, 1]."""
    leaks = torch.from_numpy(numbers("leak", leak))
    if leaks.ndim > 0 and leaks.shape != (size,):
        raise InputError(f"leak of shape {list(leaks.shape)}: expected one number, or one for each of {size} units")
    check_leak(leaks)
    return leaks.expand(size).clone()


def check_leak(leaks: Tensor) -> None:
    """Raise InputError unless all lie in (0, 1], in the precision in which they are used."""
    wrong = leaks[~((leaks > 0) & (leaks <= 1))]
    if len(wrong):
        raise InputError(
            f"leak={wrong[0]:g}: must lie in (0, 1], in {leaks.dtype} too; 1 is no leak, 0.01 remembers about a "
            "hundred steps"
        )


def numbers(name: str, given: Any) -> np.ndarray:
    """Numbers of any kind as float64, in an array [..] of their shape; raises InputError where they are none."""
    if isinstance(given, Tensor):
        given = given.detach().cpu()
        given = given.double() if given.is_floating_point() else given  # NumPy has no bfloat16
    try:
        found = np.asarray(given)
    except ValueError:  # lists of different lengths
        found = np.array(None)
    if found.dtype.kind not in "iuf":
        raise InputError(f"{name}={given!r}: must be numbers")
    return found.astype(np.float64)


def given_tensor(values: Any) -> Tensor:
    """A copy of a tensor, an array of NumPy or a sparse one of either kind as a dense tensor."""
    values = values.toarray() if hasattr(values, "toarray") else values
    values = values.to_dense() if isinstance(values, Tensor) else values
    return number_tensor("W, W_in, bias", values).detach().clone()


def is_sparse(matrix: Any) -> bool:
    """Whether a matrix is a sparse one of SciPy or torch."""
    return hasattr(matrix, "tocsr") or (isinstance(matrix, Tensor) and matrix.layout is not torch.strided)


def given_recurrence(W: Any) -> Dense | Gather:
    """Weights [N, N] in the form that makes them cheapest; a sparse one is copied."""
    if isinstance(W, Tensor) and is_sparse(W):
        from scipy.sparse import csr_array  # takes a while to import

        rows = W.detach().cpu().double().to_sparse_csr()
        matrix = csr_array((rows.values(), rows.col_indices(), rows.crow_indices()), tuple(rows.shape))
        return Gather.of_sparse(matrix).to(W.device, W.dtype)
    if hasattr(W, "tocsr"):
        return Gather.of_sparse(W)
    few = (W != 0).float().mean() <= SPARSE_ENOUGH
    return Gather.of(W) if few else Dense(W.contiguous())


class OneThread:
    """Sets torch to one thread while any run is in progress, whatever threads the runs overlap in.

    The setting is also what later threads inherit. So it is the first of overlapping runs that looks what it was,
    and each puts that back.
    """

    def __init__(self) -> None:
        self.lock, self.running, self.threads = Lock(), 0, 1

    def __enter__(self) -> int:
        """How many threads there were before."""
        with self.lock:
            if self.running == 0:
                self.threads = torch.get_num_threads()
            self.running += 1
            torch.set_num_threads(1)
            return self.threads

    def __exit__(self, *_: object) -> None:
        with self.lock:
            self.running -= 1
            torch.set_num_threads(self.threads)


ONE_THREAD = OneThread()

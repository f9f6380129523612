"""What every reservoir and every stack of them can do: run, step, run in pieces, save and load."""

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self, overload

import numpy as np
import torch
from torch import Tensor, nn

from frugal.errors import DivergedError, InputError, UnavailableError, check_not_negative, check_number, check_whole
from frugal.files import appearing, load_tensors, plain, save_tensors
from frugal.tensors import like_given, number_tensor


class StateCollector(nn.Module, ABC):
    """What a reservoir and a stack of them have in common: turning inputs into states.

    Attributes:
        input_size: width d of the inputs.
        size: width N of the states that are read out.
        state_size: width S of the state that is carried; wider than N where not all of it is read out.
    """

    KEY = ""  # of a saved configuration, by which its kind is known
    input_size: int
    size: int
    state_size: int

    @abstractmethod
    def collect(self, inputs: Tensor, state: Tensor, states: Tensor, noise: float = 0.0) -> Tensor:
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
        check_whole(0, batch_size=batch_size)
        return torch.zeros(batch_size, self.state_size, dtype=self.like.dtype, device=self.like.device)

    @overload
    def run(
        self, inputs: Tensor, state: Tensor | None = None, *, washout: int = 0, noise: float = 0.0
    ) -> tuple[Tensor, Tensor]: ...

    @overload
    def run(
        self, inputs: np.ndarray, state: np.ndarray | Tensor | None = None, *, washout: int = 0, noise: float = 0.0
    ) -> tuple[np.ndarray, np.ndarray]: ...

    @overload
    def run(
        self, inputs: Sequence[Any], state: np.ndarray | Tensor | None = None, *, washout: int = 0, noise: float = 0.0
    ) -> tuple[list[Any], Any]: ...

    def run(self, inputs: Any, state: Any = None, *, washout: int = 0, noise: float = 0.0) -> tuple[Any, Any]:
        """The states [B, T, N] of `inputs` [B, T, d], and the state [B, S] to go on from.

        Arrays of NumPy give arrays. A list of series [T_i, d], which may differ in length, gives a list of their
        states and one tensor or array of the last ones.

        Args:
            washout: first steps of every series whose states are left out: they depend on where it started.
            noise: standard deviation of what torch draws and adds to each unit's sum inside f, at every step: a readout
                fitted to such states is steadier in a closed loop (Jaeger, NIPS 2002).

        Raises:
            InputError: the inputs' shape does not fit, they hold NaN or infinity, one is shorter than the washout, or
                the noise is negative.
            DivergedError: the states grow beyond what their precision holds.

        >>> import numpy as np
        >>> from frugal.reservoir import Reservoir
        >>> states, last = Reservoir(2, 30).run([np.zeros((8, 2)), np.ones((5, 2))], washout=3)
        >>> [rows.shape for rows in states], last.shape
        ([(5, 30), (2, 30)], (2, 30))
        """
        if not isinstance(inputs, Sequence):
            states, last = self._run_batch(number_tensor("inputs", inputs), self._given_state(state), washout, noise)
            return like_given(states, inputs), like_given(last, inputs)
        series = [number_tensor("inputs", one) for one in inputs]
        wrong = [list(one.shape) for one in series if one.ndim != 2]
        if wrong:
            raise InputError(f"a series of shape {wrong[0]}: each of a list must be [T, {self.input_size}]")
        starts = self.start(len(series)) if state is None else number_tensor("state", state).to(self.like)
        if starts.ndim != 2 or len(starts) != len(series):
            expected = [len(series), self.state_size]
            raise InputError(f"state of shape {list(starts.shape)}: expected {expected}, a row for each of the list")
        lasts, found = starts.clone(), [self.like.new_empty(0)] * len(series)
        for length in sorted({len(one) for one in series}):  # those of one length go together
            chosen = [i for i, one in enumerate(series) if len(one) == length]
            batch = torch.stack([series[i] for i in chosen])
            states, lasts[chosen] = self._run_batch(batch, starts[chosen], washout, noise)
            for i, rows in zip(chosen, states, strict=True):
                found[i] = rows
        kind = inputs[0] if all(isinstance(one, np.ndarray) for one in inputs) and series else None
        return [like_given(rows, kind) for rows in found], like_given(lasts, kind)

    def _run_batch(self, inputs: Tensor, state: Tensor | None, washout: int, noise: float) -> tuple[Tensor, Tensor]:
        state = self._checked(inputs, state)
        check_number(noise=noise)
        check_not_negative("typical values lie in 1e-5 to 1e-2", noise=noise)
        check_whole(0, washout=washout)
        if washout > inputs.shape[1]:
            raise InputError(f"washout={washout}: must be 0 to the series' length, here {inputs.shape[1]} steps")
        states = empty((len(inputs), inputs.shape[1], self.size), self.like)
        if not len(inputs):
            return states[:, washout:], state.clone()
        with torch.no_grad():
            last = self.collect(inputs, state, states, noise)
            self.check_grown(last, state, inputs.shape[1])
        return states[:, washout:], last

    def run_into(self, states: Tensor, inputs: Tensor, state: Tensor) -> Tensor:
        """As `run`, which writes the states of `inputs` [B, T, d] into memory [B, T, N]; gives the last state."""
        state = self._checked(inputs, state)
        with torch.no_grad():
            last = self.collect(inputs, state, states)
            self.check_grown(last, state, inputs.shape[1])
        return last

    def check_grown(self, last: Tensor, before: Tensor, steps: int) -> None:
        """Raise DivergedError where the last state is no number any more, and the one before and the weights are."""
        if not math.isfinite(last.sum()) and not last.isfinite().all():  # the sum is cheap, and seldom overflows
            given = (before, *self.buffers())
            if all(values.isfinite().all() for values in given if values.is_floating_point()):
                raise DivergedError(
                    f"the states grow beyond {self.like.dtype} within {steps} steps: lower the spectral radius or the "
                    "input scale, or take an activation that is bounded, such as tanh"
                )

    @overload
    def step(self, inputs: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]: ...

    @overload
    def step(self, inputs: np.ndarray, state: np.ndarray | Tensor | None = None) -> tuple[np.ndarray, np.ndarray]: ...

    def step(self, inputs: Any, state: Any = None) -> tuple[Any, Any]:
        """One step for `inputs` [B, d]: the states read out, [B, N], and the state [B, S] to go on from."""
        x = number_tensor("inputs", inputs)
        if x.ndim != 2:
            raise InputError(f"inputs of shape {list(x.shape)}: expected [B, {self.input_size}] for one step")
        states, last = self._run_batch(x.unsqueeze(1), self._given_state(state), 0, 0.0)
        return like_given(states[:, 0], inputs), like_given(last, inputs)

    @overload
    def chunks(
        self, inputs: Tensor, state: Tensor | None = None, *, length: int = 4096
    ) -> Iterator[tuple[Tensor, Tensor]]: ...

    @overload
    def chunks(
        self, inputs: np.ndarray, state: np.ndarray | Tensor | None = None, *, length: int = 4096
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]: ...

    def chunks(self, inputs: Any, state: Any = None, *, length: int = 4096) -> Iterator[tuple[Any, Any]]:
        """Run in pieces of `length` steps, yielding (states [B, <=length, N], state [B, S]) after each.

        Use it to reduce states as they come: memory stays the same however long the inputs are. Where `inputs` is
        a memory map on disk, it too is read piece by piece.
        """
        check_whole(length=length)
        x, last = number_tensor("inputs", inputs), self._given_state(state)
        for piece in x.split(int(length), dim=1) if x.ndim == 3 else [x]:  # which `run` refuses
            states, last = self.run(piece, last)
            yield like_given(states, inputs), like_given(last, inputs)

    def save(self, folder: Path | str) -> None:
        """Write `model.safetensors` and `config.json`; the folder appears whole."""
        with appearing(folder) as temporary:
            temporary.mkdir()
            # A reservoir may stand in a stack twice; a file holds no memory that is shared.
            weights = {name: values.clone() for name, values in self.state_dict().items()}
            save_tensors(weights, temporary / "model.safetensors")
            (temporary / "config.json").write_text(
                json.dumps(self.config(), indent=2, default=plain) + "\n", encoding="utf-8"
            )

    @classmethod
    def load(cls, folder: Path | str) -> Self:
        """Read a reservoir that `save` wrote.

        Raises:
            InputError: the folder holds another kind of reservoir.
            UnavailableError: a file is missing or damaged.
        """
        try:
            config = json.loads(Path(folder, "config.json").read_text(encoding="utf-8"))
            if cls.KEY in config:
                return cls.from_saved(config, load_tensors(Path(folder, "model.safetensors")))
        except Exception as error:
            raise UnavailableError(f"{folder} cannot be read as a saved reservoir ({error}): save it again") from error
        raise InputError(f"{folder} holds no {cls.__name__}: load it as the Reservoir or DeepReservoir that it was")

    def _given_state(self, state: Any) -> Tensor | None:
        return None if state is None else number_tensor("state", state)

    def _checked(self, inputs: Tensor, state: Tensor | None) -> Tensor:
        if inputs.ndim != 3 or inputs.shape[2] != self.input_size:
            raise InputError(f"inputs of shape {list(inputs.shape)}: expected [B, T, {self.input_size}]")
        dtype, numbers = self.like.dtype, inputs if inputs.is_floating_point() else inputs.to(torch.float32)
        # One number for all is ten times as fast as a look at each, and only a bad number or an overflow spoils it.
        if numbers.numel():
            whole = numbers.sum() if numbers.dtype == dtype else torch.linalg.vector_norm(numbers, torch.inf)
            if not torch.isfinite(whole.to(dtype)) and not torch.isfinite(numbers.to(dtype)).all():
                raise InputError(
                    f"the inputs hold NaN or infinity, or numbers beyond {dtype}: clean them before they enter a state "
                    "that remembers"
                )
        if state is None:
            return self.start(len(inputs))
        if state.shape != (len(inputs), self.state_size):
            expected = [len(inputs), self.state_size]
            raise InputError(f"state of shape {list(state.shape)}: expected {expected}, as the last run returned it")
        return state.to(self.like.dtype)


def one_stream(inputs: Any) -> Tensor:
    """Inputs [T, d] of one stream; raises InputError where they are something else."""
    stream = number_tensor("inputs", inputs)
    if stream.ndim != 2:
        raise InputError(f"inputs of shape {list(stream.shape)}: expected one stream, [T, d]")
    return stream


def empty(shape: tuple[int, ...], like: Tensor) -> Tensor:
    """Uninitialised memory of the dtype and on the device of `like`.

    NumPy asks the system for large pages where torch does not; filling fresh memory is then twice as fast.
    """
    if like.device.type == "cpu" and like.dtype in (torch.float32, torch.float64):
        return torch.from_numpy(np.empty(shape, like.numpy().dtype))
    return like.new_empty(shape)

"""What every reservoir and every stack of them can do: run, step, run in pieces, save and load."""

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from frugal.errors import InputError, UnavailableError
from frugal.files import appearing


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
        return state.to(self.like.dtype)


def empty(shape: tuple[int, ...], like: Tensor) -> Tensor:
    """Uninitialised memory of the dtype and on the device of `like`.

    NumPy asks the system for large pages where torch does not; filling fresh memory is then twice as fast.
    """
    if like.device.type == "cpu" and like.dtype in (torch.float32, torch.float64):
        return torch.from_numpy(np.empty(shape, like.numpy().dtype))
    return like.new_empty(shape)

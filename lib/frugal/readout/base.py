"""What every readout is: a trained map from states to scores of the next token."""

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from torch import Tensor, nn

from frugal.errors import InputError, check_whole
from frugal.tensors import number_tensor


class Readout(nn.Module, ABC):
    """Maps inputs [.., D] to outputs [.., K].

    Attributes:
        input_size: D.
        output_size: K: the vocabulary's size or, for a tied readout, the foundation's hidden size.
        tied: the outputs are hidden states for the foundation's own head, not logits.
    """

    tied = False

    def __init__(self, input_size: int, output_size: int) -> None:
        super().__init__()
        check_whole(input_size=input_size, output_size=output_size)
        self.input_size, self.output_size = input_size, output_size

    def given_rows(self, inputs: Tensor | np.ndarray) -> Tensor:
        """Inputs [.., D], of any kind of number.

        Raises:
            InputError: no numbers, or not as many in a row as the readout takes.
        """
        rows = number_tensor("inputs", inputs)
        if rows.ndim == 0 or rows.shape[-1] != self.input_size:
            raise InputError(f"inputs of shape {tuple(rows.shape)}: must be [.., {self.input_size}]")
        return rows

    @abstractmethod
    def forward(self, inputs: Tensor) -> Tensor:
        """Outputs [.., K]."""

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """The constructor's arguments, as plain values: with the weights they make the readout again."""


def part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin with `prefix`, under the rest of their names."""
    return {name.removeprefix(prefix): values for name, values in tensors.items() if name.startswith(prefix)}

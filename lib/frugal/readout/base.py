"""What every readout is: a trained map from states to scores of the next token."""

from abc import ABC, abstractmethod
from typing import Any

from torch import Tensor, nn

from frugal.errors import check_whole


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

    @abstractmethod
    def forward(self, inputs: Tensor) -> Tensor:
        """Outputs [.., K]."""

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """The constructor's arguments, as plain values: with the weights they make the readout again."""


def part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin with `prefix`, under the rest of their names."""
    return {name.removeprefix(prefix): values for name, values in tensors.items() if name.startswith(prefix)}

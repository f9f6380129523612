"""What all models that are made of experts have in common, however they mix them."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from frugal.combine.pair import same_tokens
from frugal.errors import InputError
from frugal.language_model import AdvancingModel, LanguageModel, check_model


class Experts(AdvancingModel):
    """Models with the same tokens, by name.

    Raises:
        InputError: there are none, or they do not have the same tokens.
    """

    def __init__(self, experts: Mapping[str, LanguageModel]) -> None:
        if not (isinstance(experts, Mapping) and experts):
            raise InputError(f"experts={experts!r}: a mixture needs at least one model, by name")
        if wrong := [name for name in experts if not isinstance(name, str)]:
            raise InputError(f"experts: {wrong[0]!r} is no name; give each model one, as text")
        for expert in experts.values():
            check_model(expert)
        first, *others = experts.values()
        if any(not same_tokens(first, other) for other in others):
            raise InputError("experts: do not have the same tokens on one device; give all of them one tokeniser")
        self.experts = dict(experts)
        self.tokenizer, self.vocabulary_size, self.device = first.tokenizer, first.vocabulary_size, first.device
        self.context_length = min((e.context_length for e in experts.values() if e.context_length), default=None)

    def experts_with(self, name: str, expert: LanguageModel) -> dict[str, LanguageModel]:
        """The experts and one more."""
        if name in self.experts:
            raise InputError(f"expert={name!r}: is there already; take another name, or `without_expert` first")
        return {**self.experts, name: expert}

    def experts_without(self, name: str) -> dict[str, LanguageModel]:
        """The experts but one."""
        if name not in self.experts:
            raise InputError(f"expert={name!r}: is not among {', '.join(self.experts)}")
        return {other: expert for other, expert in self.experts.items() if other != name}

    def experts_start(self, batch_size: int) -> list[Any]:
        """Their states before any token."""
        return [expert.start(batch_size) for expert in self.experts.values()]

    def experts_advance(self, tokens: Tensor, states: Sequence[Any]) -> tuple[Tensor, list[Any]]:
        """What they expect after each of the tokens [B, T], as log-probabilities [B, T, K, V], and their new states."""
        pairs = zip(self.experts.values(), states, strict=True)
        rows, after = zip(*(expert.advance(tokens, before) for expert, before in pairs), strict=True)
        return torch.stack(rows, dim=2), [*after]

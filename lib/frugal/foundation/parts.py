"""What transformers models of all families are taken apart into: head, cache."""

import copy
import inspect
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:  # the functions that need transformers import it: that takes seconds
    from transformers import PreTrainedModel

# What models call the state that streams go on from: keys and values, Mamba's states, RWKV's.
CACHE_NAMES = ("past_key_values", "cache_params", "state")


def transformer_of(model: "PreTrainedModel") -> nn.Module:
    """The part that turns tokens into hidden states."""
    from transformers import PreTrainedModel

    if model.base_model is not model:
        return model.base_model
    # Llama 4 calls it otherwise than it says.
    return next((part for part in model.children() if isinstance(part, PreTrainedModel)), model)


class Head(nn.Module):
    """What a model makes of its last hidden states: logits, scaled or capped or whatever its family does.

    It is the model itself with something in the transformer's place that hands the hidden states on; the weights are
    shared.
    """

    def __init__(self, model: "PreTrainedModel") -> None:
        super().__init__()
        transformer = transformer_of(model)
        self.model = copy.copy(model)
        self.model._modules = {
            name: HandsOn(transformer) if part is transformer else part for name, part in model._modules.items()
        }

    def forward(self, hidden: Tensor) -> Tensor:
        """Logits [.., V] of hidden states [.., d]."""
        rows = hidden.reshape(1, -1, hidden.shape[-1])
        return self.model(inputs_embeds=rows, use_cache=False).logits.reshape(*hidden.shape[:-1], -1)


class HandsOn(nn.Module):
    """Stands for a transformer, or for the decoder in it, that has computed its last hidden states already."""

    def __init__(self, transformer: nn.Module) -> None:
        super().__init__()
        self.settings = vars(transformer)  # such as the factor that some heads look up there

    @property
    def decoder(self) -> "HandsOn":
        return self

    def __getattr__(self, name: str) -> Any:
        settings = self.__dict__["settings"]
        return settings[name] if name in settings else super().__getattr__(name)

    def forward(self, *inputs: Any, **named: Any) -> "Handed":
        [hidden] = (x for x in (*inputs, *named.values()) if isinstance(x, Tensor) and x.is_floating_point())
        return Handed([hidden])


class Handed(tuple):
    """A transformer's output that holds the last hidden states alone."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self[0] if name == "last_hidden_state" else None


def cache_name(base: nn.Module) -> str | None:
    """What `base` calls its cache; None where it has none."""
    parameters = inspect.signature(base.forward).parameters
    return next((name for name in CACHE_NAMES if name in parameters), None)


def copied_cache(cache: Any) -> Any:
    """A cache that can be written to while the old one stays valid.

    Keys and values are concatenated to new tensors, so that the copy may share them; states are overwritten.
    """
    from transformers import DynamicCache
    from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

    if type(cache) is not DynamicCache:
        return copy.deepcopy(cache)
    twin = copy.copy(cache)
    concatenates = (DynamicLayer, DynamicSlidingWindowLayer)
    twin.layers = [copy.copy(x) if type(x) in concatenates else copy.deepcopy(x) for x in cache.layers]
    return twin


def alike(one: Tensor, other: Tensor) -> bool:
    """Whether two ways to the same numbers differ by rounding only."""
    allowed = 1e-4 if other.dtype == torch.float32 else 0.1
    one, other = one.float(), other.float()
    return bool(torch.linalg.vector_norm(one - other) <= allowed * torch.linalg.vector_norm(other))

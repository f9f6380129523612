"""The state of a training on disk: numbers in JSON, tensors in safetensors, and no pickle."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from frugal.errors import InputError, UnavailableError
from frugal.files import appearing, load_tensors, save_tensors


@dataclass(frozen=True)
class Identity:
    """What makes a training the same training: its kind, its plan, and fingerprints of what else it was given."""

    training: str
    plan: dict[str, Any]
    given: dict[str, str]

    @classmethod
    def of(cls, title: str, plan: Any, given: Mapping[str, Any]) -> Self:
        return cls(
            title, json.loads(json.dumps(asdict(plan))), {name: fingerprint(value) for name, value in given.items()}
        )

    def differences(self, other: "Identity") -> list[str]:
        """Names of what is not the same in another."""
        found = [] if self.training == other.training else [f"kind ({other.training})"]
        for one, two in ((self.plan, other.plan), (self.given, other.given)):
            found += sorted(name for name in one.keys() | two.keys() if one.get(name) != two.get(name))
        return found


def fingerprint(value: Any) -> str:
    """A digest of numbers, texts, tensors, arrays, modules, dataclasses, and of what has an `identity` made of them.

    Sequences and dictionaries of such may be nested. A module's is of its class and its tensors.

    >>> fingerprint([1, torch.zeros(2)]) == fingerprint([1, torch.zeros(2)])
    True
    >>> fingerprint([1, torch.zeros(2)]) == fingerprint([1, torch.ones(2)])
    False
    """
    digest = hashlib.sha256()
    for part in _parts(value):
        digest.update(len(part).to_bytes(8, "big"))  # so that where one part ends can be told
        digest.update(part)
    return digest.hexdigest()


def _parts(value: Any) -> Iterator[bytes | memoryview]:
    if hasattr(value, "identity"):
        yield type(value).__qualname__.encode()
        yield from _parts(value.identity)
    elif isinstance(value, Tensor):
        yield f"{value.dtype} {list(value.shape)}".encode()
        yield value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data
    elif isinstance(value, np.ndarray):
        yield from _parts(torch.from_numpy(np.ascontiguousarray(value)))
    elif isinstance(value, nn.Module):
        yield type(value).__qualname__.encode()
        yield from _parts(value.state_dict())
    elif is_dataclass(value) and not isinstance(value, type):
        yield type(value).__qualname__.encode()
        yield from _parts(vars(value))
    elif isinstance(value, Mapping):
        yield f"{len(value)} pairs".encode()
        for pair in value.items():
            yield from _parts(pair)
    elif isinstance(value, (list, tuple)):
        yield f"{len(value)} values".encode()
        for part in value:
            yield from _parts(part)
    elif value is None or isinstance(value, (bool, int, float, str, bytes)):
        yield repr(value).encode()
    else:
        raise TypeError(f"a {type(value).__name__} has no fingerprint: give it an `identity`")


def keep(
    folder: Path,
    identity: Identity,
    network: nn.Module,
    optimizer: Optimizer,
    scores: Sequence[Any],
    best: dict[str, Tensor] | None,
) -> None:
    """Write a training's state, its scores being dataclasses; the folder appears whole."""
    tensors: dict[str, Tensor] = {}
    state = {"network": network.state_dict(), "best": best, "optimizer": optimizer.state_dict()}
    kept = {
        **asdict(identity),
        "scores": [asdict(score) for score in scores],
        "state": _without_tensors(state, tensors, "state"),
    }
    with appearing(folder) as temporary:
        temporary.mkdir()
        save_tensors(tensors, temporary / "training.safetensors")
        (temporary / "training.json").write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")


def resume(
    folder: Path, identity: Identity, network: nn.Module, optimizer: Optimizer
) -> tuple[list[dict[str, Any]], dict[str, Tensor] | None]:
    """Put network and optimiser back as `keep` found them; the fields of the scores, and the best weights.

    Raises:
        InputError: another training was kept there.
        UnavailableError: the folder is damaged, or of an earlier version.
    """
    try:
        kept = json.loads((folder / "training.json").read_text(encoding="utf-8"))
        found = Identity(kept["training"], kept["plan"], kept["given"])
        state = _with_tensors(kept["state"], load_tensors(folder / "training.safetensors"))
    except Exception as error:
        raise UnavailableError(
            f"{folder} holds no training that this version can resume ({error}): remove it to start again"
        ) from error
    if differences := identity.differences(found):
        raise InputError(
            f"{folder} holds another training, which differs in {', '.join(differences)}: remove it, or train as it did"
        )
    try:
        network.load_state_dict(state["network"])
    except RuntimeError as error:
        raise InputError(f"{folder} holds the training of another model: remove it or give another folder") from error
    optimizer.load_state_dict(state["optimizer"])
    return kept["scores"], state["best"]


def _without_tensors(value: Any, tensors: dict[str, Tensor], name: str) -> Any:
    """Nested dictionaries and lists for JSON; their tensors are moved to `tensors`, and their names stand for them."""
    if isinstance(value, Tensor):
        tensors[name] = value.detach().clone(memory_format=torch.contiguous_format)
        return {"tensor": name}
    if isinstance(value, dict):  # as pairs, since JSON would make strings of keys that are numbers
        return {"pairs": [[key, _without_tensors(part, tensors, f"{name}.{key}")] for key, part in value.items()]}
    if isinstance(value, (list, tuple)):
        return [_without_tensors(part, tensors, f"{name}.{place}") for place, part in enumerate(value)]
    return value


def _with_tensors(value: Any, tensors: dict[str, Tensor]) -> Any:
    """What `_without_tensors` was given."""
    if isinstance(value, list):
        return [_with_tensors(part, tensors) for part in value]
    if not isinstance(value, dict):
        return value
    return tensors[value["tensor"]] if "tensor" in value else {k: _with_tensors(v, tensors) for k, v in value["pairs"]}

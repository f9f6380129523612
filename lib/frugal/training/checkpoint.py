"""The state of a training on disk: numbers in JSON, tensors in safetensors, and no pickle."""

import hashlib
import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, is_dataclass
from numbers import Real
from pathlib import Path
from typing import Any, Self, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from frugal.errors import InputError, UnavailableError
from frugal.files import CHECKSUM, appearing, load_tensors, plain, save_tensors

Score = TypeVar("Score")
CONTENT = {"training", "plan", "given", "start", "scores", "state"}


@dataclass(frozen=True)
class Identity:
    """What makes a training the same training: its kind, its plan, and fingerprints of what else it was given."""

    training: str
    plan: dict[str, Any]
    given: dict[str, str]
    start: str | None  # of the weights that it began with, which may differ; earlier versions did not tell

    @classmethod
    def of(cls, title: str, plan: Any, given: Mapping[str, Any], network: nn.Module) -> Self:
        return cls(
            title,
            json.loads(json.dumps(asdict(plan), default=plain)),
            {name: fingerprint(value) for name, value in given.items()},
            fingerprint(network.state_dict()),
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
    elif isinstance(value, np.generic):
        yield from _parts(value.item())
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
    """Write a training's state, its scores being dataclasses; the folder appears whole, with checksums."""
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
        kept[CHECKSUM] = _checksum_of(kept)
        (temporary / "training.json").write_text(json.dumps(kept, indent=1, default=plain) + "\n", encoding="utf-8")


def resume(
    folder: Path, identity: Identity, network: nn.Module, optimizer: Optimizer, kind: type[Score], keep_best: bool
) -> tuple[Identity, list[Score], dict[str, Tensor] | None]:
    """Put network and optimiser back as `keep` found them; its identity, the scores, of this kind, the best weights.

    Weights of the network that are neither those of the start nor kept ones are replaced with a warning.

    Raises:
        InputError: another training was kept there; the network is as it was.
        UnavailableError: the folder is damaged, or of an earlier version.
    """
    try:
        kept = json.loads((folder / "training.json").read_text(encoding="utf-8"))
        written = kept.pop(CHECKSUM, None)  # earlier versions wrote none
        if written not in (None, _checksum_of(kept)) or kept.keys() | {"start"} != CONTENT:
            raise ValueError("training.json is not as it was written")
        tensors = load_tensors(folder / "training.safetensors")
        state = _with_tensors(kept["state"], tensors, "state")
        if tensors:
            raise ValueError("training.safetensors is of another training.json")
        known = Identity(kept["training"], kept["plan"], kept["given"], kept.get("start"))
        if differences := identity.differences(known):
            raise InputError(
                f"{folder} holds another training, which differs in {', '.join(differences)}: remove it, or train as "
                "it did"
            )
        scores = [_score(kind, values) for values in kept["scores"]]
        if not scores:
            raise ValueError("it has no scores")
        if (state["best"] is not None) != keep_best:
            raise InputError(f"{folder} holds a training {'without' if keep_best else 'with'} validation: remove it")
        if not all(_like(network, weights) for weights in (state["network"], state["best"] or state["network"])):
            raise InputError(f"{folder} holds the training of another model: remove it or give another folder")
        settings = _settings(optimizer)
        optimizer.load_state_dict(state["optimizer"])
        if written is None and _settings(optimizer) != settings:
            raise ValueError("the optimizer has other settings")
    except InputError:
        raise
    except Exception as error:
        raise UnavailableError(
            f"{folder} holds no training that this version can resume ({error}): remove it to start again"
        ) from error
    usual = (known.start, *map(fingerprint, (state["network"], state["best"])))
    if known.start is not None and identity.start not in usual:
        warnings.warn(f"{folder}: goes on with the weights that are kept there; other ones were given", stacklevel=4)
    network.load_state_dict(state["network"])
    return known, scores, state["best"]


def _score(kind: type[Score], values: dict[str, Any]) -> Score:
    """A score of its kept values: all that it has, numbers where they are numbers."""
    for field in fields(kind):  # type: ignore[arg-type]  # a dataclass
        if isinstance(field.default, Real) and not isinstance(values[field.name], Real):
            raise TypeError(f"{field.name} is no number")
    return kind(**values)


def _like(network: nn.Module, weights: dict[str, Tensor]) -> bool:
    """Whether weights have the names and shapes of a network's."""
    own = network.state_dict()
    return own.keys() == weights.keys() and all(own[name].shape == weights[name].shape for name in own)


def _settings(optimizer: Optimizer) -> str:
    return json.dumps(_without_tensors(optimizer.state_dict()["param_groups"], {}, "groups"), default=plain)


def _checksum_of(kept: dict[str, Any]) -> str:
    """The SHA-256 of values that JSON can hold, the same when they have been written and read."""
    return hashlib.sha256(json.dumps(kept, default=plain).encode()).hexdigest()


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


def _with_tensors(value: Any, tensors: dict[str, Tensor], name: str) -> Any:
    """What `_without_tensors` was given; each tensor is taken out of `tensors`, and has the name of its place."""
    if isinstance(value, list):
        return [_with_tensors(part, tensors, f"{name}.{place}") for place, part in enumerate(value)]
    if not isinstance(value, dict):
        return value
    if "tensor" in value:
        if value["tensor"] != name:
            raise ValueError(f"{name} is not as it was written")
        return tensors.pop(name)
    return {key: _with_tensors(part, tensors, f"{name}.{key}") for key, part in value["pairs"]}

"""The foundation of a saved model: a packaged one is named, any other is saved along."""

from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from frugal.device import DType
from frugal.errors import InputError, UnavailableError
from frugal.files import appearing
from frugal.foundation.loading import PACKAGED, load_foundation
from frugal.foundation.model import Foundation
from frugal.language_model import HasTokenizer, save_model

NAME, FINGERPRINT = "foundation", "foundation_fingerprint"


class OnFoundation(HasTokenizer, Protocol):
    """A model that is made on a foundation."""

    foundation: Foundation


def save_on_foundation(
    folder: Path | str, model: OnFoundation, weights: dict[str, Tensor], config: dict[str, Any], card: str
) -> None:
    """As `save_model`, with what `saved_foundation` needs to find the foundation again."""
    foundation = model.foundation
    with appearing(folder) as temporary:
        entries = {NAME: foundation.name, FINGERPRINT: foundation.fingerprint}
        save_model(temporary, model, weights, {**config, **entries}, card)
        if foundation.name not in PACKAGED:
            foundation.save(temporary / "foundation")


def saved_foundation(
    folder: Path | str, config: dict[str, Any], given: Foundation | None, device: str, dtype: DType = "auto"
) -> Foundation:
    """The foundation of the model in `folder`.

    Args:
        folder: where the model was saved.
        config: what its `config.json` holds; the foundation's entries are taken out.
        given: the foundation, if it is loaded already: several models can share it.
        device, dtype: where to load it and to compute in what, if none is given.

    Raises:
        InputError: the foundation is not the one that the model was trained on.
        UnavailableError: it can neither be found nor fetched.
    """
    name, fingerprint = config.pop(NAME), config.pop(FINGERPRINT, None)
    if given is None:
        along = Path(folder, "foundation")
        given = load_foundation(along if along.is_dir() else name, device=device, dtype=dtype)
    if fingerprint is not None and not _is_of(fingerprint, given):
        raise InputError(
            f"{folder} was trained on another foundation ({name}) than {given.name}: what it learned means nothing "
            "there; load it with its own"
        )
    return given


def _is_of(fingerprint: str, foundation: Foundation) -> bool:
    """Whether a saved fingerprint is the foundation's; earlier versions took it of the body, as computed with."""
    if fingerprint in (foundation.fingerprint, foundation.body_fingerprint, foundation.exact_fingerprint):
        return True
    try:
        stored = load_foundation(foundation.name, dtype="float32")
    except (InputError, UnavailableError):  # it was not loaded by its name
        return False
    return fingerprint == stored.exact_fingerprint

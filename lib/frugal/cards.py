"""The cards of the models that are kept, each in data/models/NAME: what it was trained on and what it scored.

What is known of a kept model without loading it enters here, so that a list of all takes no PyTorch.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any, get_type_hints

from frugal.errors import InputError, UnavailableError
from frugal.files import data_folder

ABOUT = "about.json"


@dataclass(frozen=True, kw_only=True)
class Kept:
    """A kept model's card, for programs; `card.md` beside it is for people.

    Attributes:
        name: it is data/models/NAME.
        family: of `FAMILIES`, or what a notebook calls it.
        text: what it learnt, by name; characters: how many of it.
        settings: of the family, as `asked_on` gives them.
        foundation: the GPT that it stands on, or nothing.
        epochs: that were trained, all trainings of it together.
        bits_per_byte, accuracy: on held-out text; test: what text that is.
        improved: whether training made it better on the validation text.
        seconds: of processor time that its trainings took.
        when: it was kept.
        command: that trained it.

    >>> Kept(name="poems", family="ngram", text="poems.txt", settings={"order": 5}).row["size"]
    5
    """

    name: str
    family: str
    text: str
    characters: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)
    foundation: str = ""
    epochs: int = 0
    test: str = ""
    bits_per_byte: float | None = None
    accuracy: float | None = None
    improved: bool | None = None
    seconds: float | None = None
    when: str = ""
    command: str = ""

    @property
    def folder(self) -> Path:
        return kept_folder(self.name)

    @property
    def row(self) -> dict[str, Any]:
        """A line of the table of all kept models."""
        sizes = [self.settings.get(name) for name in ("reservoir_size", "memory_size", "width", "experts", "order")]
        return {
            "model": self.name,
            "data set": ", ".join(PurePath(text).name or text for text in self.text.split(", ")),
            "family": self.family,
            "foundation": self.foundation or None,
            "size": next((size for size in sizes if size is not None), None),
            "context": self.settings.get("context_length"),
            "epochs": self.epochs,
            "accuracy": self.accuracy,
            "bits per byte": self.bits_per_byte,
        }


def kept_folder(name: str) -> Path:
    """Where the model of that name is kept, whether there is one or not.

    Raises:
        InputError: the name is a path, or that of a packaged foundation.

    >>> kept_folder("poems").name
    'poems'
    """
    from frugal.foundation.loading import PACKAGED

    if not name or name in PACKAGED or name.startswith(".") or PurePath(name).name != name or not name.isprintable():
        raise InputError(f"save={name!r}: must be a plain name, such as 'poems', and none of {', '.join(PACKAGED)}")
    return data_folder() / "models" / name


def is_kept(name: str) -> bool:
    """Whether a model of that name is kept.

    >>> is_kept("poems")
    False
    """
    return (kept_folder(name) / ABOUT).is_file()


def kept_about(name: str) -> Kept:
    """The card of a kept model, without the model.

    Raises:
        InputError: no model of that name is kept.
        UnavailableError: the card is damaged.

    >>> kept_about("poems")
    Traceback (most recent call last):
    frugal.errors.InputError: 'poems': no model of that name is kept; there are: none yet
    """
    if not is_kept(name):
        known = ", ".join(each.name for each in kept_models()) or "none yet"
        raise InputError(f"{name!r}: no model of that name is kept; there are: {known}")
    return _read(kept_folder(name))


def kept_models() -> list[Kept]:
    """The cards of all kept models, the newest first; what cannot be read as one is left out."""
    found = []
    for path in (data_folder() / "models").glob(f"*/{ABOUT}"):
        try:
            found.append(_read(path.parent))
        except UnavailableError:
            continue
    return sorted(found, key=lambda each: each.when, reverse=True)


def _read(folder: Path) -> Kept:
    try:
        entries = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        for name, kind in get_type_hints(Kept).items():
            value = entries.get(name, getattr(Kept, name, ""))
            value = float(value) if type(value) is int and isinstance(0.0, kind) else value
            if name != "settings" and not isinstance(value, kind):
                raise TypeError(f"{name} is {value!r}")
        return Kept(**{**entries, "name": folder.name, "settings": dict(entries.get("settings", {}))})
    except (OSError, ValueError, TypeError) as error:
        raise UnavailableError(f"{folder / ABOUT} cannot be read ({error}): train the model again") from error

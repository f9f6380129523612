"""Models that are kept, all in one place: data/models/NAME, with what each was trained on and what it scored."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path, PurePath
from typing import Any, get_type_hints

from frugal.corpora import Document
from frugal.corpora.disk import LARGE, on_disk
from frugal.errors import InputError, UnavailableError
from frugal.files import appearing, data_folder
from frugal.foundation.loading import PACKAGED
from frugal.language_model import LanguageModel, load_model

ABOUT, TEXT = "about.json", "learnt.jsonl"


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
            "data set": PurePath(self.text).name or self.text,
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
    if not name or name in PACKAGED or name.startswith(".") or PurePath(name).name != name or not name.isprintable():
        raise InputError(f"save={name!r}: must be a plain name, such as 'poems', and none of {', '.join(PACKAGED)}")
    return data_folder() / "models" / name


def name_for(save: str, family: str, *, resume: bool = False) -> str:
    """The name that a training keeps its model under: the one that is given, else FAMILY-latest, which is replaced.

    Raises:
        InputError: a model of the given name is kept, and the training does not go on with it; one that it is to go on
            with is not there, or of another family; or it is no name.

    >>> name_for("", "ngram")
    'ngram-latest'
    """
    name = save or f"{family}-latest"
    if resume:
        kept = kept_about(name).family
        if kept != family:
            raise InputError(f"family={family!r}: {name} is of the family {kept}; a training goes on in the same one")
    elif save and (kept_folder(name) / ABOUT).is_file():
        raise InputError(f"save={name!r}: is kept already; --resume goes on with it, another name keeps both")
    elif save and kept_folder(name).exists():
        raise InputError(f"save={name!r}: {kept_folder(name)} holds something else; take another name")
    return name


def keep_model(
    model: LanguageModel,
    about: Kept,
    *,
    notes: str = "",
    learnt: Sequence[Document] = (),
    beside: Mapping[str, Any] | None = None,
) -> Path:
    """Keep a model under `about.name`, in the place of one that is there; the folder appears whole.

    Args:
        model: anything with something to save.
        about: its card for programs.
        notes: what its card says to people, in Markdown.
        learnt: all text that it learnt, for a training that goes on.
        beside: what is to be kept beside it, by name: anything with `save`.

    Example:
        >>> from frugal.baselines import NGram
        >>> from frugal.corpora import CharTokenizer
        >>> model = NGram(3, CharTokenizer("ab")).fit(["abab"])
        >>> keep_model(model, Kept(name="letters", family="ngram", text="abab")).name
        'letters'
    """
    folder = about.folder
    entries = {**vars(about), "when": datetime.now(UTC).isoformat(timespec="seconds")}
    with appearing(folder) as temporary:
        model.save(temporary)
        for name, part in ({} if beside is None else beside).items():
            part.save(temporary / name)
        if learnt:
            with (temporary / TEXT).open("w", encoding="utf-8") as file:
                for each in learnt:
                    file.write(json.dumps({"title": each.title, "text": each.text}, ensure_ascii=False) + "\n")
        (temporary / ABOUT).write_text(json.dumps(entries, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        card = (temporary / "card.md").read_text(encoding="utf-8")
        (temporary / "card.md").write_text(f"{card.rstrip()}\n\n{notes}".rstrip() + "\n", encoding="utf-8")
    return folder


def kept_model(name: str, *, device: str = "cpu") -> tuple[LanguageModel, Kept, tuple[Document, ...]]:
    """A kept model, its card, and the text that was kept with it.

    Raises:
        InputError: no model of that name is kept.
        UnavailableError: a file of it is damaged.

    Example:
        >>> from frugal.baselines import NGram
        >>> from frugal.corpora import CharTokenizer
        >>> model = NGram(3, CharTokenizer("ab")).fit(["abab"])
        >>> folder = keep_model(model, Kept(name="letters", family="ngram", text="abab"))
        >>> kept_model("letters")[1].family
        'ngram'
    """
    about = kept_about(name)
    folder = about.folder
    learnt: Iterable[Document] = ()
    if (text := folder / TEXT).is_file():
        try:
            size = text.stat().st_size
            learnt = on_disk(_learnt(text), name, size) if size > LARGE else list(_learnt(text))
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise UnavailableError(f"{text} cannot be read ({error}): train the model again") from error
    return load_model(folder, device=device), about, tuple(learnt)


def kept_about(name: str) -> Kept:
    """The card of a kept model, without the model.

    Raises:
        InputError: no model of that name is kept.
        UnavailableError: the card is damaged.
    """
    folder = kept_folder(name)
    if not (folder / ABOUT).is_file():
        known = ", ".join(each.name for each in kept_models()) or "none yet"
        raise InputError(f"{name!r}: no model of that name is kept; there are: {known}")
    return _read(folder)


def kept_models() -> list[Kept]:
    """The cards of all kept models, the newest first; what cannot be read as one is left out."""
    found = []
    for path in (data_folder() / "models").glob(f"*/{ABOUT}"):
        try:
            found.append(_read(path.parent))
        except UnavailableError:
            continue
    return sorted(found, key=lambda each: each.when, reverse=True)


def _learnt(file: Path) -> Iterator[Document]:
    with file.open(encoding="utf-8") as lines:
        for row in map(json.loads, lines):
            yield Document(row["title"], row["text"])


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

"""Keeping models, all in one place: data/models/NAME, with their cards and the text that they learnt."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from frugal.cards import ABOUT, Kept, is_kept, kept_about, kept_folder
from frugal.corpora import Document
from frugal.corpora.disk import LARGE, on_disk
from frugal.device import DType
from frugal.errors import InputError, UnavailableError
from frugal.evaluate import Scores
from frugal.families.family import FAMILIES
from frugal.files import appearing
from frugal.language_model import LanguageModel, load_model

TEXT = "learnt.jsonl"


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
        if kept not in FAMILIES:
            raise InputError(
                f"save={name!r}: is of a notebook ({kept}), and no training goes on with it; it can be scored, "
                "continue texts and chat"
            )
        if kept != family:
            raise InputError(f"family={family!r}: {name} is of the family {kept}; a training goes on in the same one")
    elif save and is_kept(name):
        raise InputError(f"save={name!r}: is kept already; --resume goes on with it, another name keeps both")
    elif save and kept_folder(name).exists():
        raise InputError(f"save={name!r}: {kept_folder(name)} holds something else; take another name")
    return name


def keep_model(
    model: LanguageModel,
    about: Kept,
    *,
    scores: Scores | None = None,
    notes: str = "",
    learnt: Sequence[Document] = (),
    beside: Mapping[str, Any] | None = None,
) -> Path:
    """Keep a model under `about.name`, in the place of one that is there; the folder appears whole.

    Args:
        model: anything with something to save.
        about: its card for programs.
        scores: of the model on held-out text, which the card then has.
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
    if scores is not None:
        about = replace(about, bits_per_byte=scores.bits_per_byte, accuracy=scores.accuracy)
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


def kept_model(
    name: str, *, device: str = "cpu", dtype: DType = "auto"
) -> tuple[LanguageModel, Kept, tuple[Document, ...]]:
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
    return load_model(folder, device=device, dtype=dtype), about, tuple(learnt)


def _learnt(file: Path) -> Iterator[Document]:
    with file.open(encoding="utf-8") as lines:
        for row in map(json.loads, lines):
            yield Document(row["title"], row["text"])

"""One name, one corpus: from the catalogue, a file, a folder, Project Gutenberg or the Hugging Face hub."""

import errno
import os
import warnings
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import NamedTuple

from frugal.corpora.catalogue import read_catalogue, read_entry
from frugal.corpora.copies import near_copies, without_copies
from frugal.corpora.documents import Corpus, Document
from frugal.corpora.gutenberg import read_books
from frugal.corpora.hub import read_dataset
from frugal.corpora.reading import own_splits, read_parts
from frugal.corpora.splits import Splits, split_documents, split_groups, split_in_two
from frugal.errors import InputError
from frugal.files import data_folder

LONGEST_NAME = 80  # characters of a name that a message repeats


class _Source(NamedTuple):
    """What a name stands for: documents in parts, "all" being the one part of a text without splits of its own."""

    name: str
    parts: Mapping[str, Sequence[Document]]
    description: str
    licence: str
    source: str

    @property
    def documents(self) -> list[Document]:
        return [document for documents in self.parts.values() for document in documents]


def load_corpus(name: str | Path = "topics", *, valid: str | Path = "", seed: int = 0) -> Corpus:
    """Load a text, fetching it where it is not here yet, and split it by document.

    Args:
        name: one of
            - a name of the catalogue: `topics` and `emoji` (need no download), `wikipedia`, `grimm`, `chitchat`;
            - a file or folder: text, WikiText (`= Title =` articles), pages, books, or rows (JSON, CSV, Parquet) with
              OpenAssistant trees, conversations (`messages`, `conversations`), pairs such as prompt/response, or
              `text`; `~` and `$VARIABLES` stand for what they do in a shell;
            - `gutenberg:84` or `gutenberg:84,50133`: books of Project Gutenberg by number;
            - `hf:OWNER/NAME` or `hf:OWNER/NAME/CONFIG`: a Hugging Face data set (extra `hub`).
        valid: another text to validate and test on, by any of these names: all of the first is then for training, the
            first half of the other to validate on, and its second half to test on.
        seed: chooses the documents held out. Data sets and folders that come with train, validation and test
            splits, or with train and one of the others, keep theirs. Of validation and test, a missing one is half
            of the other.

    Identical documents are one document, counted in a warning; across a text's own splits, training gives them up.
    Near copies stand in one part together; those across a text's own splits stay there. Warnings count either.

    Raises:
        InputError: nothing has this name, or what has it is no usable text.
        UnavailableError: it would have to be fetched and cannot be.

    Example:
        >>> corpus = load_corpus("topics")
        >>> len(corpus.train) > len(corpus.test) > 0
        True
        >>> Path("book.txt").write_text("One paragraph.\\n\\n" * 20)
        320
        >>> load_corpus("book.txt").cut  # a single document is cut into the three splits
        True
    """
    name, valid = str(name), str(valid)
    source = _read(name)
    if valid:
        source = _in_two(source, _read(valid))
    if "train" in source.parts and {"valid", "test"} & set(source.parts):
        return _as_split(source, missing_is_told=not valid)
    (once,) = without_copies(source.documents)
    _say_copies(source.name, len(source.documents) - len(once))
    # The catalogue's texts are known, and their splits are those of the results that the README has.
    parts = split_documents(once, seed) if name in read_catalogue() else _split_near_copies(source.name, once, seed)
    return Corpus(source.name, *parts[:3], source.description, source.licence, source.source, parts.cut)


def _read(name: str) -> _Source:
    kind, _, rest = name.partition(":")
    if kind == "gutenberg":
        books = read_books(rest, data_folder() / "texts" / "gutenberg")
        return _Source(name, {"all": books}, "Books of Project Gutenberg", "public domain in the USA", "gutenberg.org")
    if kind == "hf":
        about = ("A Hugging Face data set", "see its page on the hub", f"https://huggingface.co/datasets/{rest}")
        splits = read_dataset(rest)
        whole = [document for documents in splits.values() for document in documents]
        return _Source(name, own_splits(splits, name) or {"all": whole}, *about)
    if entry := read_catalogue().get(name):
        return _Source(
            name, {"all": without_copies(read_entry(entry))[0]}, entry.description, entry.licence, entry.source
        )
    path = Path(os.path.expandvars(name)).expanduser()
    if name and _exists(path):
        return _Source(path.name, read_parts(path), "Your own text", "your own to know", str(path))
    known = list(read_catalogue())
    near = get_close_matches(name, known, n=1)
    shown = name if len(name) <= LONGEST_NAME else name[:LONGEST_NAME] + "..."
    raise InputError(
        f"corpus={shown!r}: is no known text and no file; {f'did you mean {near[0]!r}? ' if near else ''}"
        f"give one of {', '.join(known)}, a path, gutenberg:NUMBER or hf:OWNER/NAME"
    )


def _in_two(learn: _Source, judge: _Source) -> _Source:
    """One text for training, and another to validate and test on."""
    given = {part: judge.parts[part] for part in ("valid", "test") if part in judge.parts}
    parts = {"train": learn.parts.get("train", learn.documents), **(given or {"valid": judge.documents})}
    name, source = f"{learn.name} and {judge.name}", f"{learn.source} and {judge.source}"
    return learn._replace(name=name, parts=parts, source=source)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError as error:
        if error.errno in (errno.ENAMETOOLONG, errno.EINVAL):  # a text, perhaps, and no name
            return False
        raise InputError(f"{path}: cannot be looked at ({error.strerror}); check its permissions") from error


def _as_split(source: _Source, missing_is_told: bool) -> Corpus:
    name, splits = source.name, source.parts
    given = [part for part in ("test", "valid", "train") if part in splits]  # of copies, the one in the first is kept
    kept = dict(zip(given, without_copies(*(splits[part] for part in given)), strict=True))
    _say_copies(name, sum(len(splits[part]) - len(kept[part]) for part in given))
    for part in given:
        if not kept[part]:
            raise InputError(f"{name}: all of its {part} part stands in another part too; give a part of its own")
    _say_near(name, kept)
    cut = False
    for missing, other in (("valid", "test"), ("test", "valid")):
        if missing not in splits:
            kept["valid"], kept["test"], cut = split_in_two(kept[other])
            if missing_is_told:  # of a text given to validate on, half is what was asked for
                warnings.warn(f"{name}: has no {missing} part; half of its {other} part serves as one", stacklevel=2)
    parts = (kept["train"], kept["valid"], kept["test"])
    return Corpus(name, *parts, source.description, source.licence, source.source, cut)


def _split_near_copies(name: str, documents: Sequence[Document], seed: int) -> Splits:
    """Splits in which near copies stand in one part together, with a warning that counts them.

    Where most of a text is alike, as in a heap of forms, that is its nature, and its documents are split as they are.
    """
    groups = near_copies(documents)
    near, largest = sum(len(group) for group in groups if len(group) > 1), max(map(len, groups))
    if largest > 2 and largest > len(documents) / 2:
        told = f"{largest} documents are near copies of one another and stand in all parts: scores will be too good"
        parts = split_documents(documents, seed)
    else:
        parts = split_groups(groups, seed)
        done = "only the longest of each is kept" if parts.cut else "they stand in one part together"
        told = f"{near} documents are near copies of one another; {done}"
    if near:
        warnings.warn(f"{name}: {told}", stacklevel=2)
    return parts


def _say_near(name: str, parts: Mapping[str, Sequence[Document]]) -> None:
    """Warn of documents to train on that are near copies of held-out ones: parts that a text comes with stay."""
    held_out = {id(document) for part in parts if part != "train" for document in parts[part]}
    groups = near_copies([document for documents in parts.values() for document in documents])
    known = [[id(document) in held_out for document in group] for group in groups]
    if near := sum(sum(group) for group in known if not all(group)):
        warnings.warn(f"{name}: {near} held-out documents are near copies of ones to train on", stacklevel=2)


def _say_copies(name: str, copies: int) -> None:
    if copies:
        warnings.warn(f"{name}: {copies} documents are copies of others and are left out", stacklevel=2)

"""One name, one corpus: from the catalogue, a file, a folder, Project Gutenberg or the Hugging Face hub."""

import errno
import os
import warnings
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path

from frugal.corpora.catalogue import read_catalogue, read_entry
from frugal.corpora.documents import Corpus, Document
from frugal.corpora.gutenberg import read_books
from frugal.corpora.hub import read_dataset
from frugal.corpora.local import SPLITS, own_splits, read_file, read_folder
from frugal.corpora.splits import split_documents, split_in_two
from frugal.errors import InputError
from frugal.files import data_folder

LONGEST_NAME = 80  # characters of a name that a message repeats


def load_corpus(name: str = "topics", *, seed: int = 0) -> Corpus:
    """Load a text, fetching it where it is not here yet, and split it by document.

    Args:
        name: one of
            - a name of the catalogue: `topics` and `emoji` (need no download), `wikipedia`, `grimm`, `chitchat`;
            - a file or folder: text, WikiText (`= Title =` articles), or JSON and JSON lines with OpenAssistant
              trees, conversations (`messages`, `conversations`), pairs such as prompt/response, or `text`;
              `~` and `$VARIABLES` stand for what they do in a shell;
            - `gutenberg:84` or `gutenberg:84,50133`: books of Project Gutenberg by number;
            - `hf:OWNER/NAME` or `hf:OWNER/NAME/CONFIG`: a Hugging Face data set (extra `hub`).
        seed: chooses the documents held out. Data sets and folders that come with train, validation and test
            splits, or with train and one of the others, keep theirs. Of validation and test, a missing one is half
            of the other.

    Identical documents are one document, counted in a warning; across a text's own splits, training gives them up.

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
    kind, _, rest = name.partition(":")
    if kind == "gutenberg":
        books = read_books(rest, data_folder() / "texts" / "gutenberg")
        return _split(name, books, seed, "Books of Project Gutenberg", "public domain in the USA", "gutenberg.org")
    if kind == "hf":
        return _from_hub(name, rest, seed)
    if entry := read_catalogue().get(name):
        (once,) = _without_copies(read_entry(entry))
        return _split(name, once, seed, entry.description, entry.licence, entry.source)
    path = Path(os.path.expandvars(name)).expanduser()
    if name and _exists(path):
        return _from_disk(path, seed)
    known = list(read_catalogue())
    near = get_close_matches(name, known, n=1)
    shown = name if len(name) <= LONGEST_NAME else name[:LONGEST_NAME] + "..."
    raise InputError(
        f"corpus={shown!r}: is no known text and no file; {f'did you mean {near[0]!r}? ' if near else ''}"
        f"give one of {', '.join(known)}, a path, gutenberg:NUMBER or hf:OWNER/NAME"
    )


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError as error:
        if error.errno in (errno.ENAMETOOLONG, errno.EINVAL):  # a text, perhaps, and no name
            return False
        raise InputError(f"{path}: cannot be looked at ({error.strerror}); check its permissions") from error
    except ValueError:  # a character that no name can have
        return False


def _from_disk(path: Path, seed: int) -> Corpus:
    about = ("Your own text", "your own to know", str(path))
    if path.is_file():
        return _split(path.name, read_file(path), seed, *about)
    files = read_folder(path)
    if splits := own_splits(files, path):
        return _as_split(path.name, splits, *about)
    documents = [document for documents in files.values() for document in documents]
    return _split(path.name, documents, seed, *about)


def _from_hub(name: str, dataset: str, seed: int) -> Corpus:
    about = ("A Hugging Face data set", "see its page on the hub", f"https://huggingface.co/datasets/{dataset}")
    found = read_dataset(dataset)
    splits = {SPLITS.get(split.lower(), split): documents for split, documents in found.items()}
    if "train" in splits and {"valid", "test"} & set(splits):
        return _as_split(name, splits, *about)
    return _split(name, [document for documents in found.values() for document in documents], seed, *about)


def _split(name: str, documents: Sequence[Document], seed: int, description: str, licence: str, source: str) -> Corpus:
    (once,) = _without_copies(documents)
    _say_copies(name, len(documents) - len(once))
    train, valid, test, cut = split_documents(once, seed)
    return Corpus(name, train, valid, test, description, licence, source, cut)


def _as_split(
    name: str, splits: Mapping[str, Sequence[Document]], description: str, licence: str, source: str
) -> Corpus:
    given = [part for part in ("test", "valid", "train") if part in splits]  # of copies, the one in the first is kept
    kept = dict(zip(given, _without_copies(*(splits[part] for part in given)), strict=True))
    _say_copies(name, sum(len(splits[part]) - len(kept[part]) for part in given))
    for part in given:
        if not kept[part]:
            raise InputError(f"{name}: all of its {part} part stands in another part too; give a part of its own")
    cut = False
    for missing, other in (("valid", "test"), ("test", "valid")):
        if missing not in splits:
            kept["valid"], kept["test"], cut = split_in_two(kept[other])
            warnings.warn(f"{name}: has no {missing} part; half of its {other} part serves as one", stacklevel=2)
    return Corpus(name, kept["train"], kept["valid"], kept["test"], description, licence, source, cut)


def _without_copies(*parts: Sequence[Document]) -> list[tuple[Document, ...]]:
    """The parts without documents whose text stands in an earlier place."""
    seen: set[str] = set()
    kept = []
    for part in parts:
        once = {document.text: document for document in reversed(part) if document.text not in seen}
        kept.append(tuple(document for document in part if once.get(document.text) is document))
        seen.update(once)
    return kept


def _say_copies(name: str, copies: int) -> None:
    if copies:
        warnings.warn(f"{name}: {copies} documents are copies of others and are left out", stacklevel=2)

"""One name, one corpus: from the catalogue, a file, a folder, Project Gutenberg or the Hugging Face hub."""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path

from frugal.corpora.catalogue import read_catalogue, read_entry
from frugal.corpora.documents import Corpus, Document
from frugal.corpora.gutenberg import read_books
from frugal.corpora.hub import read_dataset
from frugal.corpora.local import own_splits, read_file, read_folder
from frugal.corpora.splits import split_documents
from frugal.errors import InputError
from frugal.files import data_folder


def load_corpus(name: str = "topics", *, seed: int = 0) -> Corpus:
    """Load a text, fetching it where it is not here yet, and split it by document.

    Args:
        name: one of
            - a name of the catalogue: `topics` and `emoji` (need no download), `wikipedia`, `grimm`, `chitchat`;
            - a file or folder: text, WikiText (`= Title =` articles), or JSON and JSON lines with OpenAssistant
              trees, prompt/response or instruction/input/output pairs, or `text`;
            - `gutenberg:84` or `gutenberg:84,50133`: books of Project Gutenberg by number;
            - `hf:OWNER/NAME` or `hf:OWNER/NAME/CONFIG`: a Hugging Face data set (extra `hub`).
        seed: chooses the documents held out. Data sets and folders that come with train, validation and test
            splits keep theirs.

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
        return _split(name, read_entry(entry), seed, entry.description, entry.licence, entry.source)
    if name and Path(name).exists():
        return _from_disk(Path(name), seed)
    known = list(read_catalogue())
    near = get_close_matches(name, known, n=1)
    raise InputError(
        f"corpus={name!r}: is no known text and no file; {f'did you mean {near[0]!r}? ' if near else ''}"
        f"give one of {', '.join(known)}, a path, gutenberg:NUMBER or hf:OWNER/NAME"
    )


def _from_disk(path: Path, seed: int) -> Corpus:
    about = ("Your own text", "your own to know", str(path))
    if path.is_file():
        return _split(path.name, read_file(path), seed, *about)
    files = read_folder(path)
    if splits := own_splits(files):
        return _as_split(path.name, splits, *about)
    documents = [document for documents in files.values() for document in documents]
    return _split(path.name, documents, seed, *about)


def _from_hub(name: str, dataset: str, seed: int) -> Corpus:
    about = ("A Hugging Face data set", "see its page on the hub", f"https://huggingface.co/datasets/{dataset}")
    splits = read_dataset(dataset)
    if {"train", "validation", "test"} <= set(splits):
        return _as_split(name, {**splits, "valid": splits["validation"]}, *about)
    return _split(name, [document for documents in splits.values() for document in documents], seed, *about)


def _split(name: str, documents: Sequence[Document], seed: int, description: str, licence: str, source: str) -> Corpus:
    train, valid, test, cut = split_documents(documents, seed)
    return Corpus(name, train, valid, test, description, licence, source, cut)


def _as_split(
    name: str, splits: Mapping[str, Sequence[Document]], description: str, licence: str, source: str
) -> Corpus:
    train, valid, test = (tuple(splits[split]) for split in ("train", "valid", "test"))
    return Corpus(name, train, valid, test, description, licence, source)

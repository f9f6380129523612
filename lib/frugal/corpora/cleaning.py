"""From the catalogue's files to documents: what is kept of each, and what is left out."""

import bz2
import csv
import io
import json
import re
from collections.abc import Iterator
from itertools import groupby
from typing import Any
from xml.etree import ElementTree

from tqdm.auto import tqdm

from frugal.corpora.documents import Document, Turn

# Sections that end an article's prose.
APPENDIX = re.compile(r"^==\s*(References|See also|External links)\s*==", re.IGNORECASE | re.MULTILINE)
# What templates leave behind once they are gone, as in "Alpha ({{IPA|...}}; {{lang|grc|...}}), the first".
LEFT_BEHIND = [(r" *\([\s,;:]*\)", ""), (r"\(\s*[,;:]\s*", "("), (r" +(?=[,.;:)])", ""), (r" {2,}", " ")]
PROSE_LENGTH = 80  # characters; shorter lines are captions, list items and headings
CLOSING = "\"')\N{RIGHT DOUBLE QUOTATION MARK}\N{RIGHT SINGLE QUOTATION MARK}"  # may follow a full stop
UNPARSED = re.compile(r"\||\{\{|''|</?ref", re.IGNORECASE)

# Messages that name a way to reach somebody, or are coarse; a dialogue with one is left out.
PRIVATE = re.compile(r"@\w+\.\w|https?://|www\.|\(\d{3}\) ?\d{3}-\d{4}|\b\d{3}[-. ]\d{3}[-. ]\d{4}\b")
COARSE = re.compile(r"\b(fuck|shit|bitch|cunt|whore)", re.IGNORECASE)


def clean_topics(topics: dict[str, str]) -> list[Document]:
    """Python's help topics, but those of which more than half stands in a longer one, as most statements do."""
    paragraphs = {title: text.split("\n\n") for title, text in topics.items()}
    kept: dict[str, set[str]] = {}
    for title in sorted(topics, key=lambda title: len(topics[title]), reverse=True):
        again = max((sum(len(p) for p in paragraphs[title] if p in longer) for longer in kept.values()), default=0)
        if again <= len(topics[title]) / 2:
            kept[title] = set(paragraphs[title])
    return [Document(title, text) for title, text in topics.items() if title in kept]


def clean_grimm(raw: bytes) -> list[Document]:
    """A table with three header lines, one tale a row; two spaces stand where the book has a new paragraph."""
    rows = csv.reader(io.StringIO(raw.decode("utf-8")), delimiter="\t")
    columns, _, _, *tales = filter(None, rows)
    title, content = columns.index("Title"), columns.index("Content")
    return [Document(tale[title].strip(), re.sub(r"\s{2,}", "\n\n", tale[content].strip())) for tale in tales]


def clean_chitchat(raw: bytes) -> list[Document]:
    """Conversations of at least two turns; who speaks first is the user. Private and coarse ones are left out."""
    documents = []
    for conversation in json.loads(raw).values():
        messages = [message for turn in conversation["messages"] for message in turn]
        said = "\n".join(message["text"] for message in messages)
        turns = list(_joined_turns(messages))
        if len(turns) > 1 and not PRIVATE.search(said) and not COARSE.search(said):
            documents.append(Document.dialogue(conversation.get("prompt", "Small talk"), turns))
    return documents


def _joined_turns(messages: list[dict[str, str]]) -> Iterator[Turn]:
    """One turn for all that somebody says before the other answers."""
    said = [message for message in messages if message["text"].strip()]
    for sender, group in groupby(said, key=lambda message: message["sender"]):
        speaker = "user" if sender == said[0]["sender"] else "assistant"
        yield Turn(speaker, " ".join(" ".join(message["text"].split()) for message in group))


def clean_wikipedia(raw: bytes) -> list[Document]:
    """The articles of a compressed MediaWiki export that have prose; redirects and other pages are left out."""
    root = ElementTree.fromstring(bz2.decompress(raw))
    space = {"": root.tag.partition("}")[0].strip("{")}
    pages = [
        page
        for page in root.findall("page", space)
        if page.findtext("ns", namespaces=space) == "0" and page.find("redirect", space) is None
    ]
    documents = []
    for page in tqdm(pages, desc="Cleaning articles", unit="article"):
        title = page.findtext("title", "", space)
        text = clean_article(page.findtext("revision/text", "", space))
        if text:
            documents.append(Document(title, text))
    return documents


def clean_article(markup: str) -> str:
    """The prose paragraphs of one article in wiki markup, a blank line between them.

    Left out: everything from the first of the sections References, See also and External links; comments,
    footnotes, tables, galleries, templates, pictures; lines under 80 characters, those not ending in a full
    stop, and those with markup that could not be parsed.
    """
    import mwparserfromhell

    appendix = APPENDIX.search(markup)
    code = mwparserfromhell.parse(markup[: appendix.start()] if appendix else markup)
    for node in code.filter(recursive=False, matches=_is_apart):
        code.remove(node)
    text = code.strip_code().replace("\N{NO-BREAK SPACE}", " ")
    return "\n\n".join(line for line in map(_tidy, text.splitlines()) if _is_prose(line))


def _tidy(line: str) -> str:
    for pattern, replacement in LEFT_BEHIND:
        line = re.sub(pattern, replacement, line)
    return line.strip()


def _is_prose(line: str) -> bool:
    return len(line) >= PROSE_LENGTH and line.rstrip(CLOSING).endswith(".") and not UNPARSED.search(line)


def _is_apart(node: Any) -> bool:
    from mwparserfromhell.nodes import Comment, Tag, Template, Wikilink

    if isinstance(node, Tag):
        return str(node.tag).strip().lower() in {"ref", "table", "gallery"}
    if isinstance(node, Wikilink):
        return str(node.title).strip().lower().startswith(("file:", "image:", "category:"))
    return isinstance(node, Comment | Template)

"""Bytes of unknown origin to clean text, and the plain-text layouts that are recognised."""

import codecs
import contextlib
import re
import warnings

from frugal.corpora.documents import Document
from frugal.errors import InputError

BYTE_ORDER_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",  # before UTF-16, whose mark is the beginning of this one
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}

# Project Gutenberg, https://www.gutenberg.org: the markers have varied over the years.
GUTENBERG_START = re.compile(
    r"^\*\*\* ?START OF (?:THE|THIS) PROJECT GUTENBERG EBOOK[^*]*\*\*\*|^\*END\*? ?THE SMALL PRINT!.*\*END\*.*$",
    re.IGNORECASE | re.MULTILINE,
)
GUTENBERG_END = re.compile(
    r"^(?:\*\*\* ?END OF (?:THE|THIS) PROJECT GUTENBERG EBOOK|End of (?:the )?Project Gutenberg)",
    re.IGNORECASE | re.MULTILINE,
)
GUTENBERG_ENCODING = re.compile(rb"Character set encoding: *([\w-]+)")
GUTENBERG_CREDITS = re.compile(r"\s*(?:Produced|E-text prepared|Transcribed) by\b.*?\n\s*\n", re.IGNORECASE | re.DOTALL)

# A WikiText article begins with its title between blank lines; sections have more equals signs.
WIKITEXT_TITLE = re.compile(r"(?:\A(?:[ \t]*\n)?|(?<=\n)[ \t]*\n) ?= ([^=\s](?:.*[^=\s])?) = *\n(?=[ \t]*\n)")


def decode(raw: bytes, origin: str) -> str:
    r"""Text of `raw` with `\n` line ends: as its byte order mark says, else UTF-8, else a guess.

    The guess is what a Project Gutenberg header declares, or else what charset-normalizer finds, with a warning.

    Raises:
        InputError: there is no text in it; `origin` names it in the message.
    """
    text = _decode(raw, origin).replace("\r\n", "\n").replace("\r", "\n")
    if not text.strip():
        raise InputError(f"{origin}: is empty; give a file with text in it")
    return text


def _decode(raw: bytes, origin: str) -> str:
    marked = next((encoding for mark, encoding in BYTE_ORDER_MARKS.items() if raw.startswith(mark)), "utf-8")
    try:
        text = raw.decode(marked)
    except UnicodeDecodeError:
        return _guess(raw, origin)
    if "\0" in text:
        raise InputError(f"{origin}: is a binary file; give a text file, best in UTF-8")
    return text


def _guess(raw: bytes, origin: str) -> str:
    from charset_normalizer import from_bytes

    if declared := GUTENBERG_ENCODING.search(raw):
        with contextlib.suppress(LookupError, UnicodeDecodeError):
            return raw.decode(declared[1].decode("ascii"))
    best = None if b"\0" in raw else from_bytes(raw).best()
    if best is None:
        raise InputError(f"{origin}: is a binary file, or text in no known encoding; give a text file, best in UTF-8")
    warnings.warn(f"{origin} is not UTF-8: read as {best.encoding}, a guess", stacklevel=2)
    return str(best)


def strip_gutenberg(text: str) -> str:
    """The book alone, without Project Gutenberg's header, credits and footer; other text comes back as it is."""
    start = GUTENBERG_START.search(text)
    if not start:
        return text
    book = text[start.end() :]
    end = GUTENBERG_END.search(book)
    book = book[: end.start()] if end else book
    credits = GUTENBERG_CREDITS.match(book)
    return (book[credits.end() :] if credits else book).strip() + "\n"


def documents_of(text: str, title: str) -> list[Document]:
    """WikiText's articles where the text begins with one, else one document without Gutenberg's wrapping.

    WikiText's lines stay as they are, titles included, so that token counts agree with published ones.
    """
    if not WIKITEXT_TITLE.match(text):
        return [Document(title, strip_gutenberg(text))]
    titles = list(WIKITEXT_TITLE.finditer(text))
    ends = [*(match.start() for match in titles[1:]), len(text)]
    return [Document(match[1], text[match.start() : end]) for match, end in zip(titles, ends, strict=True)]

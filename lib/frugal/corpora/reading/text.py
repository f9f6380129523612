"""Bytes of unknown origin to clean text, and the plain-text layouts that are recognised."""

import codecs
import contextlib
import re
import warnings
from collections.abc import Iterator

from frugal.corpora.documents import Document
from frugal.errors import InputError

BYTE_ORDER_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",  # before UTF-16, whose mark is the beginning of this one
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}

# Project Gutenberg, https://www.gutenberg.org: the markers have varied over the years and languages.
GUTENBERG_START = re.compile(
    r"^\*\*\* ?START OF (?:THE|THIS) PROJECT GUTENBERG E(?:BOOK|TEXT).*(?:\n.+)??\*\*\* *$"
    r"|^\*END\*? ?THE SMALL PRINT!.*\*END\*.*$|^\*SMALL PRINT!.*\*END\*.*$",
    re.IGNORECASE | re.MULTILINE,
)
GUTENBERG_END = re.compile(
    r"^(?:\*\*\* ?END OF (?:THE|THIS) PROJECT GUTENBERG E(?:BOOK|TEXT).*"
    r"|(?:End of (?:the |this )?|Ende (?:dieses|des) |Fin (?:du |de |de la )?|Fine (?:del |di )?|Einde van )"
    r"(?:Project|Projekt|Projet|Proyecto|Progetto) Gutenberg\b.*)",
    re.IGNORECASE | re.MULTILINE,
)
GUTENBERG_CREDITS = re.compile(
    r"\s*\[?(?:(?:This )?(?:Project Gutenberg )?(?:(?:e-?(?:text|book)|file|HTML version) )?(?:was |is )?"
    r"(?:produced|prepared|transcribed|scanned|digiti[sz]ed|typed|created)(?: and [\w ]+?)?,? (?:by|from)\b"
    r"|HTML version by\b|The Project Gutenberg E(?:text|book) of\b).*?\n\s*\n",
    re.IGNORECASE | re.DOTALL,
)
START_NEAR, HEADER = 500, 2_000  # characters
GUTENBERG_RULE = re.compile(r"\s*\*\*\* *\n")

WESTERN = "windows-1252"
LATIN = {WESTERN, "iso-8859-1", "iso-8859-15"}
# Central European, Turkish and Baltic single bytes, and encodings of several bytes a character.
NEVER_WESTERN = re.compile(
    r"windows-125[047]|iso-8859-(?:2|3|4|9|10|13|14|16)$|.*(?:jis|932|949|euc|big5|gb|johab|2022|utf)"
)
DECLARED = re.compile(
    rb"""Character set encoding: *([\w-]+)|^<\?xml[^>]*encoding=["']([\w-]+)|<meta[^>]*charset=["']?([\w-]+)""",
    re.IGNORECASE,
)
# What browsers read where these are declared, https://encoding.spec.whatwg.org/#names-and-labels
DECLARED_AS = {
    "iso8859-1": WESTERN,
    "iso8859-9": "windows-1254",
    **dict.fromkeys(("iso8859-11", "tis-620"), "cp874"),
    **dict.fromkeys(("gb2312", "gbk"), "gb18030"),
    "shift_jis": "cp932",
    "euc_kr": "cp949",
    "big5": "big5hkscs",
}
# Punctuation, kana, Chinese characters, Korean syllables.
EAST_ASIAN = re.compile(r"[\s\u3000-\u30ff\u4e00-\u9fff\uac00-\ud7a3\uff01-\uff5e]")
KANA = re.compile(r"[\u3000-\u30ff]")  # with the punctuation of all three scripts
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
SURROGATE = re.compile(r"[\ud800-\udfff]")
STRAY = 0.001  # share of NUL characters that a text may have; in UTF-16 and binary files there are more
DETECTED_BYTES = 1_000_000  # of the lines that are not ASCII

# A WikiText article begins with its title between blank lines; sections have more equals signs.
WIKITEXT_TITLE = re.compile(r"(?:\A(?:[ \t]*\n)?|(?<=\n)[ \t]*\n) ?= ([^=\s](?:.*[^=\s])?) = *\n(?=[ \t]*\n)")


def decode(raw: bytes, origin: str) -> str:
    r"""Text of `raw` with `\n` line ends: as its byte order mark says, else UTF-8, else a guess, with a warning.

    Where a few bytes are damaged, each damaged place becomes U+FFFD. Else a declared encoding is believed, as browsers
    do (Project Gutenberg, XML, HTML). Else chardet decides, but Western text with single accents is Windows-1252.

    Raises:
        InputError: there is no text in it; `origin` names it in the message.

    Example:
        >>> decode("Größe\r\n".encode("utf-16"), "a file")
        'Größe\n'
    """
    text = clean(_decode(raw, origin))
    if not text.strip():
        raise InputError(f"{origin}: is empty; give a file with text in it")
    return text


def clean(text: str) -> str:
    r"""Text with `\n` line ends, without byte order marks, and with U+FFFD for halves of surrogate pairs."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\N{ZERO WIDTH NO-BREAK SPACE}", "")
    return SURROGATE.sub(REPLACEMENT, text)


def encoding_of(beginning: bytes) -> str | None:
    """UTF-8, damaged in a few places or not, or what a byte order mark says; None where the beginning is neither.

    Example:
        >>> encoding_of("Größe".encode()), encoding_of("Größe".encode("latin-1"))
        ('utf-8', None)
    """
    encoding = _marked(beginning)
    try:
        text = codecs.getincrementaldecoder(encoding)().decode(beginning)  # its last character may be cut
    except UnicodeDecodeError:
        return encoding if _mended(beginning, encoding) else None
    return None if "\0" in text else encoding


def _marked(raw: bytes) -> str:
    return next((encoding for mark, encoding in BYTE_ORDER_MARKS.items() if raw.startswith(mark)), "utf-8")


def _decode(raw: bytes, origin: str) -> str:
    encoding = _marked(raw)
    try:
        text = raw.decode(encoding)
    except UnicodeDecodeError as error:
        mended = _mended(raw, encoding)
        if mended is None:
            return _guess(raw, origin)
        name, count = encoding.upper().removesuffix("-SIG"), mended.count(REPLACEMENT)
        warnings.warn(f"{origin}: is {name} with {count} damaged places, the first at byte {error.start}", stacklevel=2)
        return mended
    if 0 < text.count("\0") <= STRAY * len(text):
        warnings.warn(f"{origin}: holds {text.count(chr(0))} NUL characters, which are left out", stacklevel=2)
        text = text.replace("\0", "")
    return _guess(raw, origin) if "\0" in text or "\x1b$" in text else text  # UTF-16 without a mark, ISO 2022


def _mended(raw: bytes, encoding: str) -> str | None:
    """The text, if nearly all of it is in this encoding; its end may be cut.

    Of UTF-8 without a mark, only what is not ASCII counts: by chance, few bytes of another encoding are UTF-8.
    """
    text = raw.decode("utf-8-sig" if encoding == "utf-8" else encoding, errors="replace")
    damaged = text.count(REPLACEMENT)
    if encoding == "utf-8":
        return text if len(text) - damaged - sum(map(str.isascii, text)) > 20 * damaged else None
    return text if len(text) - damaged > 20 * (damaged - 1) and "\0" not in text else None


def _guess(raw: bytes, origin: str) -> str:
    import chardet

    if (text := _as_declared(raw, origin)) is not None:
        return text
    for tried in ("utf-16-le", "utf-16-be"):  # without a mark and without one ASCII character
        with contextlib.suppress(UnicodeDecodeError):
            if _is_east_asian(text := raw.decode(tried)):
                warnings.warn(f"{origin}: is not UTF-8; read as {tried}, a guess", stacklevel=2)
                return text
    lines = raw if b"\0" in raw else b"\n".join(line for line in raw.splitlines() if not line.isascii()) or raw
    found = chardet.detect(lines[:DETECTED_BYTES], max_bytes=DETECTED_BYTES)
    encoding, sure = (found["encoding"] or "").lower(), found["confidence"]
    if encoding in LATIN or (not NEVER_WESTERN.match(encoding) and _has_single_accents(lines)):
        encoding = WESTERN
    for tried in (encoding, "iso-8859-1") if encoding == WESTERN else (encoding,):
        with contextlib.suppress(LookupError, UnicodeDecodeError):
            text = raw.decode(tried)
            if "\0" not in text:
                warnings.warn(
                    f"{origin}: is not UTF-8; read as {tried}, a guess (chardet's confidence in {encoding}: "
                    f"{sure:.2f}); convert it to UTF-8 if letters are wrong",
                    stacklevel=2,
                )
                return text
    raise InputError(f"{origin}: is a binary file, or text in no known encoding; give a text file, best in UTF-8")


def _as_declared(raw: bytes, origin: str) -> str | None:
    """The text in the encoding that it declares, or in what browsers take for that; None if it does not fit."""
    if not (found := DECLARED.search(raw, 0, 10_000)):
        return None
    declared = found[found.lastindex or 1].decode("ascii")
    with contextlib.suppress(LookupError):
        name = codecs.lookup(declared).name
        for tried in () if name.startswith(("utf-16", "utf-32")) else (DECLARED_AS.get(name, name), name):
            with contextlib.suppress(UnicodeDecodeError):
                text = raw.decode(tried)
                warnings.warn(f"{origin}: is not UTF-8; read as {tried}, as it declares {declared}", stacklevel=2)
                return text
    return None


def _is_east_asian(text: str) -> bool:
    """Whether nearly all are Chinese, Japanese or Korean characters, and some of them punctuation or kana.

    Bytes of another encoding that are taken for UTF-16 give the first by chance, but hardly the second.
    """
    return len(EAST_ASIAN.findall(text)) > 0.9 * len(text) and len(KANA.findall(text)) > 0.02 * len(text)


def _has_single_accents(raw: bytes) -> bool:
    """Whether bytes beyond ASCII stand alone between ASCII letters: accents do, letters of other scripts do not."""
    if b"\0" in raw:
        return False
    beyond = re.findall(rb"[\xc0-\xff]+", raw)
    alone = sum(len(run) == 1 for run in beyond)
    return alone > 0 and alone >= 0.8 * len(beyond) and len(re.findall(rb"[A-Za-z]", raw)) > 2 * len(beyond)


def strip_gutenberg(text: str) -> str:
    """The first book alone, without Project Gutenberg's header, credits and footer; other text comes back as it is."""
    return next(_books(text), text)


def _books(text: str) -> Iterator[str]:
    """Each book between its header and its footer: several files may stand one after another. None in other text.

    A header stands near the beginning, or after the name of the project. After a footer without a header nothing
    stands, or the name of the project: a text that quotes such lines is the user's own.
    """
    position = 0
    while True:
        start = GUTENBERG_START.search(text, position)
        if start and start.start() - position > START_NEAR and not _names_the_project(text[position : start.start()]):
            start = None
        end = GUTENBERG_END.search(text, start.end() if start else position)
        if not start and (position or not end or not _ends_there(text[end.end() :])):
            return
        book = text[start.end() if start else 0 : end.start() if end else len(text)]
        while credits := GUTENBERG_CREDITS.match(book) or GUTENBERG_RULE.match(book):
            book = book[credits.end() :]
        yield book.strip() + "\n"
        if not end:
            return
        position = end.end()


def _ends_there(rest: str) -> bool:
    return not rest.strip() or _names_the_project(rest)


def _names_the_project(text: str) -> bool:
    return "project gutenberg" in text[:HEADER].lower()


def documents_of(text: str, title: str) -> list[Document]:
    """WikiText's articles where the text begins with one, else Gutenberg's books without wrapping, else one document.

    WikiText's lines stay as they are, titles included, so that token counts agree with published ones.
    """
    if not WIKITEXT_TITLE.match(text):
        books = list(_books(text)) or [text]
        if len(books) == 1:
            return [Document(title, books[0])]
        return [Document(f"{title}, {number}", book) for number, book in enumerate(books, 1)]
    titles = list(WIKITEXT_TITLE.finditer(text))
    ends = [*(match.start() for match in titles[1:]), len(text)]
    return [Document(match[1], text[match.start() : end]) for match, end in zip(titles, ends, strict=True)]

"""What files hold beside plain text: rows of JSON and tables, and the text of pages, books and word processors.

A format enters here if a few lines read it by the standard library or by what the project needs anyway.
"""

import csv
import gzip
import io
import json
import lzma
import re
import warnings
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.util import find_spec
from itertools import islice
from pathlib import PurePath
from typing import Any
from urllib.parse import unquote
from xml.etree import ElementTree

from frugal.corpora.disk import LARGE, on_disk
from frugal.corpora.documents import Document
from frugal.corpora.reading.records import CONVERSATIONS, each_document
from frugal.corpora.reading.text import clean, decode, documents_of
from frugal.errors import InputError, UnavailableError

TEXT_ENDINGS = (".txt", ".text", ".md", ".rst", ".tokens", ".raw")
JSON = (".json", ".jsonl", ".ndjson")
CONVERT = {  # what is not read, and what to do
    ".pdf": "run pdftotext FILE",
    ".doc": "save it as .docx",
    ".odt": "save it as .docx",
    ".rtf": "save it as .docx",
    ".mobi": "convert it to .epub",
    ".azw3": "convert it to .epub",
    ".tar": "unpack it into a folder",
    ".tgz": "unpack it into a folder",
    ".7z": "unpack it into a folder",
    ".zst": "unpack it into a folder",
}
NO_TEXTS = {"__pycache__", "node_modules", "__MACOSX"}  # folders; what is hidden is no text either
ABOUT = {"readme", "license", "licence", "copying", "changelog"}  # files about the others
LONGEST_HEADING = 60  # characters; a first line of a table with a longer cell is a row like the others
DAMAGED: tuple[type[Exception], ...] = (  # what the readers below raise
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, OSError, EOFError, ElementTree.ParseError,
    RuntimeError, KeyError, IndexError,  # an archive with a password, or without a part that it should have
)  # fmt: skip
NO_PROSE = ("script", "style", "head", "template", "noscript")
PARAGRAPHS = (
    "p", "div", "h1", "h2", "h3", "h4", "h5", "h6", "pre", "blockquote", "table", "caption", "ul", "ol", "dl", "hr",
    "section", "article", "main", "header", "footer", "nav", "aside", "address", "figure", "figcaption", "details",
    "summary", "form",
)  # fmt: skip
LINES = ("br", "li", "tr", "dt", "dd", "option")
CELLS = ("td", "th")
# Of a word processor's parts: what is no text, or the same text again, and what stands for a character.
NO_WORDS = ("pPr", "rPr", "moveFrom", "Fallback")
CHARACTERS = {"tab": "\t", "br": "\n", "cr": "\n", "noBreakHyphen": "-"}


def documents_in(raw: bytes, path: PurePath, origin: str) -> list[Document]:
    """Documents of a file's bytes, by its ending; what has no known one is text.

    Raises:
        InputError: there is no text in it, or it is damaged; `origin` names it in the message.
        UnavailableError: it needs a package that is not installed.
    """
    ending = path.suffix.lower()
    if ending in CONVERT:
        raise InputError(f"{origin}: {ending[1:].upper()} files are not read; {CONVERT[ending]} first")
    read = READERS.get(ending)
    if read is None:
        return documents_of(decode(raw, origin), path.stem)
    try:
        return read(raw, path, origin)
    except UnavailableError:  # an OSError too
        raise
    except DAMAGED as error:
        raise InputError(f"{origin}: is no {ending[1:].upper()} file, or a damaged one ({error})") from error


def _read_json(raw: bytes, path: PurePath, origin: str) -> list[Document]:
    records = _json(decode(raw, origin), path, origin)
    if isinstance(records, dict):
        records = _rows(records) if path.suffix.lower() == ".json" else [records]  # lines, of which there is one
    if not isinstance(records, list):
        raise InputError(f"{origin}: holds one {type(records).__name__}; expected a list of objects")
    return list(each_document(records, origin))


def _json(text: str, path: PurePath, origin: str) -> Any:
    """One value, or a list of one value a line: which of the two, the content says and not the file's name."""
    lines = [line for line in text.split("\n") if line.strip()]
    try:
        try:
            return json.loads(text)
        except json.JSONDecodeError as error:
            if len(lines) < 2 or (path.suffix.lower() == ".json" and not _is_json(lines[0])):
                raise error
            return [json.loads(line) for line in lines]
    except json.JSONDecodeError as error:
        raise InputError(f"{origin}: is not valid {path.suffix[1:].upper()} ({error}); mend that place") from error
    except RecursionError as error:
        raise InputError(f"{origin}: is nested too deep to be rows of text; expected a list of objects") from error


def _is_json(line: str) -> bool:
    try:
        json.loads(line)
    except json.JSONDecodeError:
        return False
    return True


def _rows(value: dict[str, Any]) -> Any:
    """The rows of one object: one conversation, a list under some name, or columns as lists or by number."""
    if any(isinstance(value.get(name), list) for name in CONVERSATIONS):
        return [value]
    lists = [each for each in value.values() if isinstance(each, list)]
    if len(lists) == 1 and any(isinstance(row, dict) for row in lists[0]):  # {"data": [{...}, ...]}
        return lists[0]
    columns = [list(each.values()) if isinstance(each, dict) else each for each in value.values()]
    if columns and all(isinstance(each, list) and len(each) == len(columns[0]) for each in columns):
        return [dict(zip(value, row, strict=True)) for row in zip(*columns, strict=True)]
    return value


def _read_table(raw: bytes, path: PurePath, origin: str) -> list[Document]:
    """A table with a line of headings, unless a cell of that line is as long as a text."""
    text = decode(raw, origin)
    delimiter = "\t" if path.suffix.lower() == ".tsv" else max(",;\t|", key=text.partition("\n")[0].count)
    lines = [line for line in _lines(text, delimiter, origin) if any(cell.strip() for cell in line)]
    names = [cell.strip() for cell in lines[0]]
    if max(map(len, names)) > LONGEST_HEADING or len(set(names)) < len(names):
        names = [f"column {number}" for number in range(1, len(names) + 1)]
    else:
        lines = lines[1:]
    if len(names) == 1:  # what would part its cells is a part of its text
        lines = [[delimiter.join(line)] for line in lines]
    for number, line in enumerate(lines, 1):
        if any(map(str.strip, line[len(names) :])):
            raise InputError(
                f"{origin}: row {number} has {len(line)} cells, of {len(names)} columns; put quotes around a text that "
                f"holds {delimiter!r}"
            )
    rows = [dict(zip(names, line, strict=False)) for line in lines]
    return list(each_document(rows, origin, guess=True))


def _lines(text: str, delimiter: str, origin: str) -> list[list[str]]:
    """The cells of each line; where quotes do not pair in a table with tabs, they are characters like others."""
    before = csv.field_size_limit(len(text) + 1)
    try:
        lines = csv.reader(io.StringIO(text), delimiter=delimiter, strict=True)
        return list(lines)
    except csv.Error as error:
        if delimiter == "\t":
            return list(csv.reader(io.StringIO(text), delimiter=delimiter, quoting=csv.QUOTE_NONE))
        raise InputError(
            f"{origin}: is no table (line {lines.line_num}: {error}); mend that place, or name the file .txt"
        ) from error
    finally:
        csv.field_size_limit(before)


def _read_parquet(raw: bytes, path: PurePath, origin: str) -> list[Document]:
    if find_spec("pyarrow") is None:
        raise UnavailableError(
            f"{origin}: needs the package pyarrow; run pip install -e '.[hub]', or save it as .jsonl"
        )
    from pyarrow import ArrowInvalid, BufferReader, parquet

    try:
        rows = parquet.read_table(BufferReader(raw)).to_pylist()
    except (ArrowInvalid, OSError) as error:
        raise InputError(f"{origin}: is no PARQUET file, or a damaged one ({error})") from error
    return list(each_document(rows, origin, guess=True))


def _read_page(raw: bytes, path: PurePath, origin: str) -> list[Document]:
    return _whole(_page(decode(raw, origin)), path, origin)


def _page(html: str) -> str:
    """A page's text, a blank line between paragraphs; no scripts, no title of the window."""
    from bs4 import BeautifulSoup

    page = BeautifulSoup(html, "html.parser")
    for part in page(NO_PROSE):
        part.decompose()
    for part in page([*LINES, *CELLS]):
        part.insert_before("\n" if part.name in LINES else " ")
    for part in page(PARAGRAPHS):
        part.insert_before("\n\n")
        part.insert_after("\n\n")
    lines = "\n".join(" ".join(line.split()) for line in page.get_text().splitlines())
    return re.sub(r"\n{3,}", "\n\n", lines).strip() + "\n"


def _read_epub(raw: bytes, path: PurePath, origin: str) -> list[Document]:
    """The book's pages in its own order, as one document."""
    with zipfile.ZipFile(io.BytesIO(raw)) as book:
        container = ElementTree.fromstring(book.read("META-INF/container.xml"))
        roots = [root.attrib["full-path"] for root in container.iter() if root.tag.endswith("rootfile")]
        place = PurePath(roots[0])
        package = ElementTree.fromstring(book.read(str(place)))
        pages = {item.attrib["id"]: item.attrib["href"] for item in package.iter() if item.tag.endswith("}item")}
        order = [pages[item.attrib["idref"]] for item in package.iter() if item.tag.endswith("}itemref")]
        texts = [_page(book.read(str(place.parent / unquote(page))).decode("utf-8", "replace")) for page in order]
    return _whole("\n\n".join(filter(str.strip, texts)), path, origin)


def _read_docx(raw: bytes, path: PurePath, origin: str) -> list[Document]:
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        root = ElementTree.fromstring(archive.read("word/document.xml"))
    paragraphs = [
        "".join(map(_said, _below(paragraph, *NO_WORDS, "p")))  # a text box within one has paragraphs of its own
        for paragraph in _below(root, *NO_WORDS)
        if _name(paragraph) == "p"
    ]
    return _whole("\n\n".join(filter(str.strip, paragraphs)) + "\n", path, origin)


def _below(part: ElementTree.Element, *left_out: str) -> Iterator[ElementTree.Element]:
    """All parts within this one, in order, but those of these names and what is in them."""
    for child in part:
        if _name(child) not in left_out:
            yield child
            yield from _below(child, *left_out)


def _said(part: ElementTree.Element) -> str:
    return part.text or "" if _name(part) == "t" else CHARACTERS.get(_name(part), "")


def _name(part: ElementTree.Element) -> str:
    return part.tag.rpartition("}")[2]


def _read_notebook(raw: bytes, path: PurePath, origin: str) -> list[Document]:
    """What stands in the cells of a Jupyter notebook; no outputs."""
    notebook = _json(decode(raw, origin), path, origin)
    try:
        texts = ["".join(cell.get("source", "")).strip() for cell in notebook.get("cells", [])]
    except (AttributeError, TypeError) as error:
        raise InputError(f"{origin}: is no notebook: a cell of it is no object with a source of text") from error
    return _whole("\n\n".join(filter(None, texts)) + "\n", path, origin)


def _read_gzip(raw: bytes, path: PurePath, origin: str) -> list[Document]:
    return documents_in(gzip.decompress(raw), path.with_suffix(""), origin)


def _read_zip(raw: bytes, path: PurePath, origin: str) -> list[Document]:
    return [document for documents in read_archive(raw, origin).values() for document in documents]


def read_archive(raw: bytes, origin: str) -> dict[PurePath, list[Document]]:
    """Documents of each file of a zip archive, by its path in there; see `documents_of_files`.

    Raises:
        InputError: it is no archive, or nothing of use is in there.
    """
    try:
        archive = zipfile.ZipFile(io.BytesIO(raw))
    except DAMAGED as error:
        raise InputError(f"{origin}: is no ZIP file, or a damaged one ({error})") from error
    files = {PurePath(file.filename): file for file in archive.infolist() if not file.is_dir()}

    def read(path: PurePath) -> list[Document]:
        try:
            raw = archive.read(files[path])
        except DAMAGED as error:
            raise InputError(f"{origin}: {path}: cannot be unpacked ({error})") from error
        return documents_in(raw, path, f"{origin}: {path}")

    return documents_of_files({path: file.file_size for path, file in files.items()}, read, origin)


def documents_of_files(
    sizes: Mapping[PurePath, int],
    read: Callable[[PurePath], list[Document]],
    origin: str,
    locked: Iterable[InputError] = (),
) -> dict[PurePath, list[Document]]:
    """Documents of each file of a known kind in a folder or an archive, in the order of their paths.

    Hidden files and folders are left out in silence. Files of other kinds, files that hold no usable text, and files
    about the others, such as a README, are left out with a warning that counts and names them.

    Args:
        sizes: the paths of the files, and how many bytes they have.
        read: gives the documents of one of them.
        origin: of the folder or archive, for messages.
        locked: why some of them cannot be read, where that is known before.

    Raises:
        InputError: nothing of use is in there.
    """
    seen = sorted(path for path in sizes if not is_hidden(path))
    chosen = [path for path in seen if path.suffix.lower() in ENDINGS]
    if len(chosen) > 1:
        chosen = [path for path in chosen if path.name.lower().partition(".")[0] not in ABOUT] or chosen
    counts: dict[PurePath, int] = {}
    unusable: list[Exception] = [*locked]

    def each() -> Iterator[Document]:
        for path in chosen:
            try:
                documents = read(path)
            except (InputError, UnavailableError) as error:
                unusable.append(error)
            else:
                counts[path] = len(documents)
                yield from documents

    size = sum(sizes[path] for path in chosen)
    documents = iter(on_disk(each(), PurePath(origin).name, size) if size > LARGE else list(each()))
    found = {path: list(islice(documents, count)) for path, count in counts.items()}
    if not found and unusable:
        raise unusable[0]
    if not found:
        raise InputError(f"{origin}: has no file ending in {', '.join(ENDINGS)}; put text files there")
    if others := [path for path in seen if path not in found]:
        kinds = Counter(path.suffix.lower() or "no ending" for path in others)
        named = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
        reasons = f"; {unusable[0]}" if unusable else ""
        warnings.warn(f"{origin}: {len(others)} files are left out ({named}){reasons}", stacklevel=2)
    return found


def is_hidden(path: PurePath) -> bool:
    """Whether a file or folder is hidden, or in a folder that is, or holds what programs put beside texts."""
    return any(part.startswith(".") or part in NO_TEXTS for part in path.parts)


def _whole(text: str, path: PurePath, origin: str) -> list[Document]:
    if not text.strip():
        raise InputError(f"{origin}: holds no text; give a file with text in it")
    return [Document(path.stem, clean(text))]


READERS: dict[str, Callable[[bytes, PurePath, str], list[Document]]] = {
    **dict.fromkeys(JSON, _read_json),
    **dict.fromkeys((".csv", ".tsv"), _read_table),
    ".parquet": _read_parquet,
    **dict.fromkeys((".html", ".htm", ".xhtml"), _read_page),
    ".epub": _read_epub,
    ".docx": _read_docx,
    ".ipynb": _read_notebook,
    ".gz": _read_gzip,
    ".zip": _read_zip,
}
ENDINGS = (*TEXT_ENDINGS, *READERS)

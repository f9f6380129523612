"""From the bytes of files to documents: encodings, plain-text layouts, rows, formats, folders.

What reads a format or a layout of rows enters here. It knows nothing of names of texts, of splits or of tokens.
"""

from frugal.corpora.reading.files import own_splits, read_file, read_folder, read_parts
from frugal.corpora.reading.records import each_document
from frugal.corpora.reading.text import decode, strip_gutenberg

__all__ = [
    "decode",
    "each_document",
    "own_splits",
    "read_file",
    "read_folder",
    "read_parts",
    "strip_gutenberg",
]

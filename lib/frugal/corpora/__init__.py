"""Text in: the catalogue, fetching, cleaning, splits by document, tokenisers, windows.

What turns a name or a file into documents, and documents into tokens, enters here. It knows nothing of models.
"""

from frugal.corpora.catalogue import CatalogueEntry, read_catalogue
from frugal.corpora.documents import TURN_MARKERS, Corpus, Document, Turn, dialogue_text, separate, text_of
from frugal.corpora.excerpts import excerpts, portions, usage, words_and_space
from frugal.corpora.fetching import fetch_package_member
from frugal.corpora.loading import load_corpus
from frugal.corpora.tokenizers import (
    BytePairTokenizer,
    CharTokenizer,
    Tokenizer,
    encode_documents,
    encode_each,
    encode_in_a_row,
    letters_or_bytes,
    load_tokenizer,
)
from frugal.corpora.windows import Blocks, Window, strided_windows

__all__ = [
    "TURN_MARKERS",
    "Blocks",
    "BytePairTokenizer",
    "CatalogueEntry",
    "CharTokenizer",
    "Corpus",
    "Document",
    "Tokenizer",
    "Turn",
    "Window",
    "dialogue_text",
    "encode_documents",
    "encode_each",
    "encode_in_a_row",
    "excerpts",
    "fetch_package_member",
    "letters_or_bytes",
    "load_corpus",
    "load_tokenizer",
    "portions",
    "read_catalogue",
    "separate",
    "strided_windows",
    "text_of",
    "usage",
    "words_and_space",
]

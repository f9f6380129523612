"""Text in: the catalogue, fetching, cleaning, splits by document, tokenisers, windows."""

from frugal.corpora.documents import Corpus, Document, Turn
from frugal.corpora.tokenizers import BytePairTokenizer, CharTokenizer, Tokenizer, encode_documents, load_tokenizer
from frugal.corpora.windows import Blocks, Window, strided_windows

__all__ = [
    "Blocks",
    "BytePairTokenizer",
    "CharTokenizer",
    "Corpus",
    "Document",
    "Tokenizer",
    "Turn",
    "Window",
    "encode_documents",
    "load_tokenizer",
    "strided_windows",
]

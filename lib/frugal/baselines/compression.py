"""General-purpose compressors as language models: what is repetition worth?"""

import gzip
import lzma
from collections.abc import Iterable
from typing import Literal

from frugal.corpora import Document
from frugal.errors import InputError


def compressed_bits_per_byte(
    train: Iterable[Document], test: Iterable[Document], method: Literal["gzip", "lzma"] = "lzma"
) -> float:
    """Bits that each byte of `test` adds to the compressed `train`: (|C(train + test)| - |C(train)|) / |test|.

    The training text is the dictionary (gzip looks back 32 KiB only, lzma over all of it), so the figure stands
    beside the bits per byte of a model trained on the same text.

    Raises:
        InputError: `test` is empty, or an unknown method.

    >>> train, other = Document("", "the cat sat on the mat"), Document("", "quick zebras jump over a fox")
    >>> compressed_bits_per_byte([train], [train]) < compressed_bits_per_byte([train], [other])
    True
    """
    methods = {"gzip": lambda data: gzip.compress(data, 9), "lzma": lambda data: lzma.compress(data, preset=9)}
    if method not in methods:
        raise InputError(f"method={method!r}: must be one of {', '.join(methods)}")
    compress = methods[method]
    seen = "\n\n".join(document.text for document in train).encode()
    new = "\n\n".join(document.text for document in test).encode()
    if not new:
        raise InputError("nothing to compress: the test text is empty; give some text")
    return 8 * (len(compress(seen + new)) - len(compress(seen))) / len(new)

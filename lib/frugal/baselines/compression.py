"""General-purpose compressors as language models: what is repetition worth?"""

import gzip
import lzma
import shutil
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path
from tempfile import TemporaryDirectory

from frugal.corpora import Document
from frugal.errors import InputError, UnavailableError


def compressed_bits_per_byte(train: Iterable[Document], test: Iterable[Document], method: str = "lzma") -> float:
    """Bits that each byte of `test` adds to the compressed `train`: (|C(train + test)| - |C(train)|) / |test|.

    The training text is the dictionary (gzip looks back 32 KiB only, the others over all of it), so the figure stands
    beside the bits per byte of a model trained on the same text that goes on learning while it reads.

    Args:
        train, test: documents.
        method: "gzip", "lzma", "PPMd" (contexts of up to 8 bytes; the package pyppmd) or "ZPAQ" (context mixing at its
            strongest; the program zpaq).

    Raises:
        InputError: `test` is empty, or an unknown method.
        UnavailableError: the method's package or program is not installed.

    >>> train, other = Document("", "the cat sat on the mat"), Document("", "quick zebras jump over a fox")
    >>> compressed_bits_per_byte([train], [train]) < compressed_bits_per_byte([train], [other])
    True
    """
    if method not in COMPRESSORS:
        raise InputError(f"method={method!r}: must be one of {', '.join(COMPRESSORS)}")
    size = COMPRESSORS[method]
    seen = "\n\n".join(document.text for document in train).encode()
    new = "\n\n".join(document.text for document in test).encode()
    if not new:
        raise InputError("nothing to compress: the test text is empty; give some text")
    return 8 * (size(seen + new) - size(seen)) / len(new)


def _ppmd(data: bytes) -> int:
    try:
        import pyppmd
    except ImportError as error:
        raise UnavailableError("PPMd needs the package pyppmd: pip install pyppmd") from error
    return len(pyppmd.compress(data, max_order=8, mem_size=1 << 30))


def _zpaq(data: bytes) -> int:
    if shutil.which("zpaq") is None:
        raise UnavailableError("ZPAQ needs the program zpaq (Debian: apt install zpaq)")
    with TemporaryDirectory() as folder:
        Path(folder, "data").write_bytes(data)
        command = ["zpaq", "add", "archive.zpaq", "data", "-method", "5", "-threads", "1"]
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
        return Path(folder, "archive.zpaq").stat().st_size


COMPRESSORS: dict[str, Callable[[bytes], int]] = {
    "gzip": lambda data: len(gzip.compress(data, 9)),
    "lzma": lambda data: len(lzma.compress(data, preset=9)),
    "PPMd": _ppmd,
    "ZPAQ": _zpaq,
}

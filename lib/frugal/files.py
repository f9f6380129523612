"""Where things are kept, and how files appear: whole or not at all."""

import contextlib
import ctypes
import errno
import glob
import hashlib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # what needs torch imports it: that takes seconds
    from torch import Tensor

CHECKSUM = "sha256"  # of what a file holds, in its own notes
AT_FDCWD, EXCHANGE = -100, 2  # of renameat2; macOS's renamex_np has the same number for it
CANNOT_EXCHANGE = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP)  # an old kernel, or a file system that has no way
A_DAY = 24 * 60 * 60  # seconds
CHECKOUT = Path(__file__).resolve().parents[2]


def data_folder() -> Path:
    """Texts, weights and features are cached here: `data/` of the checkout, or `$FRUGAL_DATA`.

    Example:
        >>> data_folder().name
        'data'
    """
    return Path(os.environ.get("FRUGAL_DATA", CHECKOUT / "data")).resolve()


def reports_folder() -> Path:
    """Executed notebooks and their reports go here: `reports/`, or `$FRUGAL_REPORTS`."""
    return Path(os.environ.get("FRUGAL_REPORTS", CHECKOUT / "reports")).resolve()


@contextlib.contextmanager
def appearing(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path beside `path`, for a file or a folder that replaces `path` on success.

    A reader sees the old content or the new one, never half of it; after an error nothing is left behind. Only where
    the file system cannot exchange two folders, an old one is gone for a moment; killed then, the next use of `path`
    finds it again. What a kill leaves beside `path` goes at its next use after a day.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    put_back(path)
    clear_away(path)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        temporary = Path(folder) / path.name
        yield temporary
        if temporary.is_dir() and path.is_dir():  # no system replaces a folder, but most exchange two
            if _exchanged(temporary, path):
                return
            path.rename(Path(folder) / "replaced")
        try:
            os.replace(temporary, path)
        except BaseException:
            put_back(path)
            raise


def put_back(path: Path) -> None:
    """Find a folder again whose replacement was killed halfway, if it was."""
    if not path.exists():
        for old in path.parent.glob(f".{glob.escape(path.name)}.*/replaced"):
            old.rename(path)
            return


def clear_away(path: Path) -> None:
    """Remove the temporary folders of `path` that nobody has written to for a day: their writers were killed."""
    for folder in path.parent.glob(f".{glob.escape(path.name)}.????????"):
        with contextlib.suppress(OSError):  # another process removes it too
            ours = {each.name for each in folder.iterdir()} <= {path.name, "replaced"}
            if ours and time.time() - max(each.stat().st_mtime for each in (folder, *folder.rglob("*"))) > A_DAY:
                shutil.rmtree(folder)


def _exchanged(one: Path, other: Path) -> bool:
    """Give each path the other's content in one step; False where that cannot be done."""
    names = os.fsencode(one), os.fsencode(other)
    if sys.platform == "linux":
        done = ctypes.CDLL(None, use_errno=True).renameat2(AT_FDCWD, names[0], AT_FDCWD, names[1], EXCHANGE)
    elif sys.platform == "darwin":
        done = ctypes.CDLL(None, use_errno=True).renamex_np(*names, EXCHANGE)
    else:
        return False
    if done and ctypes.get_errno() not in CANNOT_EXCHANGE:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(other))
    return done == 0


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8 so that it appears at once."""
    with appearing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def plain(value: Any) -> Any:
    """A number of NumPy as Python's: what `json.dumps` takes as its `default`.

    >>> import json, numpy
    >>> json.dumps({"size": numpy.int64(3)}, default=plain)
    '{"size": 3}'
    """
    import numpy as np

    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"a {type(value).__name__} cannot be written as JSON")


def checksum(path: Path) -> str:
    """The SHA-256 of a file's content: kept beside it, it tells whether the file is still what was written."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def save_tensors(tensors: "dict[str, Tensor]", path: Path) -> None:
    """Write tensors as safetensors, which holds no code, with a checksum that `load_tensors` looks at."""
    from safetensors.torch import save_file

    whole = {name: tensor.contiguous() for name, tensor in tensors.items()}
    save_file(whole, path, {CHECKSUM: _checksum_of(whole)})


def load_tensors(path: Path) -> "dict[str, Tensor]":
    """Read a file of safetensors.

    Raises:
        Exception: it is missing or damaged. That one bit was changed is noticed where `save_tensors` wrote it.
    """
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # it is no dictionary
        written = (file.metadata() or {}).get(CHECKSUM)
    if written not in (None, _checksum_of(tensors)):
        raise ValueError(f"{path.name} is not as it was written")
    return tensors


def has_checksum(path: Path) -> bool:
    """Whether `save_tensors` wrote a checksum into this file; earlier versions did not."""
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        return CHECKSUM in (file.metadata() or {})


def _checksum_of(tensors: "dict[str, Tensor]") -> str:
    import torch

    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()

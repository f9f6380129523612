"""One process makes a cached thing; the others wait for it."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import filelock


@contextlib.contextmanager
def only_one_makes(path: Path) -> Iterator[None]:
    """Hold the lock of `path`, so that parallel runs that need the same model or features share one's work."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(path.with_name(f".{path.name}.lock"))
    try:
        lock.acquire(blocking=False)
    except filelock.Timeout:
        print(f"another process is making {path.name}: waiting for it", flush=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()

"""Where things are kept, and how files appear: whole or not at all."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

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
def appearing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`, for a file or a folder that replaces `path` on success.

    A reader sees the old content or the new one, never half of it; after an error nothing is left behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        temporary = Path(folder) / path.name
        yield temporary
        if temporary.is_dir() and path.is_dir():
            # A folder cannot be replaced in one step: move the old one aside, where the clean-up takes it.
            path.rename(Path(folder) / "replaced")
        os.replace(temporary, path)


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8 so that it appears at once."""
    with appearing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")

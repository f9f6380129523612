"""Data sets of the Hugging Face hub by name; needs the optional package `datasets`."""

from importlib.util import find_spec
from typing import Any

from frugal.corpora.disk import LARGE, on_disk
from frugal.corpora.documents import Document
from frugal.corpora.fetching import INSTEAD
from frugal.corpora.reading import each_document
from frugal.errors import InputError, UnavailableError

TIMEOUT = 2  # seconds for the first answer; without it an unreachable hub is tried for half a minute


def read_dataset(name: str) -> dict[str, list[Document]]:
    """Documents of each split of `OWNER/NAME`, `OWNER/NAME/CONFIG` or `NAME`; downloads it unless it is cached.

    With HF_HUB_OFFLINE=1 set before the start, the hub's own cache is used and nothing is asked of the network.

    Raises:
        InputError: the hub has no such data set or configuration, or its columns are of no known kind.
        UnavailableError: `datasets` is not installed, or the hub cannot be reached.
    """
    owner_and_name, config = _parse(name)
    if find_spec("datasets") is None:
        raise UnavailableError(f"hf:{name}: needs the package datasets; run pip install -e '.[hub]', or {INSTEAD}")
    _check_reachable(owner_and_name)
    import datasets

    try:
        splits = datasets.load_dataset(owner_and_name, config)
    except (ValueError, datasets.exceptions.DatasetNotFoundError) as error:
        raise InputError(
            f"hf:{name}: cannot be loaded ({_first_line(error)}); check its name and configuration"
        ) from error
    except OSError as error:
        raise UnavailableError(f"hf:{name}: is not in the cache and the hub cannot be reached; {INSTEAD}") from error
    return {split: _documents(rows, f"hf:{name}") for split, rows in splits.items()}


def _documents(rows: Any, origin: str) -> list[Document]:
    """Of a split, which lies memory-mapped in the hub's cache; where it is large, its documents lie on disk too."""
    found = each_document(rows, origin, guess=True)
    return on_disk(found, origin, rows.data.nbytes) if rows.data.nbytes > LARGE else list(found)


def _parse(name: str) -> tuple[str, str | None]:
    owner_and_name, config = name.split("/")[:2], name.split("/")[2:]
    if not all(owner_and_name) or len(config) > 1:
        raise InputError(f"hf:{name}: is no data set name; give hf:OWNER/NAME or hf:OWNER/NAME/CONFIG")
    return "/".join(owner_and_name), config[0] if config else None


def _check_reachable(name: str) -> None:
    """One quick question to the hub before `datasets` starts its long row of retries."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import OfflineModeIsEnabled, RepositoryNotFoundError

    try:
        HfApi().dataset_info(name, timeout=TIMEOUT)
    except OfflineModeIsEnabled:
        return  # datasets then reads its cache, and asks nothing
    except RepositoryNotFoundError as error:
        raise InputError(f"hf:{name}: the hub has no such data set, or it needs a login; check the name") from error
    except Exception as error:  # whatever the hub's http library raises, which has changed with its versions
        raise UnavailableError(
            f"hf:{name}: the hub cannot be reached ({_first_line(error)}); go online and repeat, set HF_HUB_OFFLINE=1 "
            f"to use what was downloaded before, or {INSTEAD}"
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]

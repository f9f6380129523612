"""Ridge statistics of a corpus too large for one machine: workers collect shards of it, here they are added up.

A shard is a few documents. Each document starts from the reset state, so that it does not matter who reads it, or when,
or how often it was tried: the sums are those of one pass over everything, up to rounding.
"""

import hashlib
import json
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, wait
from functools import reduce
from itertools import accumulate, groupby
from operator import itemgetter
from pathlib import Path

from filelock import FileLock, Timeout
from tqdm.auto import tqdm

from frugal.corpora import Document
from frugal.errors import InputError, UnavailableError
from frugal.files import write_text
from frugal.lab.run.identity import library_hash
from frugal.lab.sweep.pool import Pool, Site, worker_pool
from frugal.readout import EchoLanguageModel
from frugal.ridge import RidgeStatistics

ATTEMPTS = 3  # at a shard, whose worker may be killed
POLL_SECONDS = 1.0


def collect_shards(
    model: EchoLanguageModel,
    documents: Sequence[Document | str],
    folder: Path,
    *,
    shards: int,
    site: Site | None = None,
) -> RidgeStatistics:
    """What `RidgeStatistics.collect(model.rows(documents), model.vocabulary_size)` gives, by many workers.

    Args:
        model: foundation and reservoir; workers load it from `folder`. A readout is of no concern.
        documents: each goes to one shard as a whole.
        folder: on a disk that all workers see. It keeps each shard's sums, 8 V D bytes for a vocabulary of V and hidden
            states of width D: called again, also after whatever kind of death, only what is missing is computed.
        shards: at most how many; a few per worker even out their loads.
        site: where the workers are; by default one per core of this machine.

    Raises:
        InputError: an echo that is never reset ties documents together; no documents or shards; `folder` is in use.
        UnavailableError: a shard failed repeatedly, or the workers cannot be reached any more.
    """
    if model.encoder.reset == "never":
        raise InputError("reset='never': the echo ties the documents together; use reset='document'")
    if shards < 1 or not documents:
        raise InputError(f"shards={shards} of {len(documents)} documents: must both be positive")
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / ".lock", timeout=0):
            model.save(folder / "model")
            paths = [_write_shard(folder, texts) for texts in cut(documents, shards)]
            missing = [path for path in paths if not path.with_suffix(".safetensors").exists()]
            if missing:
                with worker_pool(Site() if site is None else site, folder / "workers") as pool:
                    _collect(pool, folder / "model", missing, initial=len(paths) - len(missing))
            sums = (RidgeStatistics.load(path.with_suffix(".safetensors")) for path in paths)
            return reduce(RidgeStatistics.merge, sums)
    except Timeout:
        raise InputError(f"{folder}: another process collects shards there; wait for it or stop it") from None


def collect_shard(model: str, shard: str) -> None:
    """What a worker does: read a shard's documents, write its sums beside them."""
    echo, path = EchoLanguageModel.load(Path(model)), Path(shard)
    rows = echo.rows(json.loads(path.read_text(encoding="utf-8")))
    RidgeStatistics.collect(rows, echo.vocabulary_size).save(path.with_suffix(".safetensors"))


def cut(documents: Sequence[Document | str], shards: int) -> list[list[str]]:
    """Texts of consecutive documents in at most so many parts of about equal length."""
    texts = [document if isinstance(document, str) else document.text for document in documents]
    ends = list(accumulate(len(text) + 1 for text in texts))
    middles = (end - (len(text) + 1) / 2 for end, text in zip(ends, texts, strict=True))
    parts = [int(middle * shards / ends[-1]) for middle in middles]
    return [[text for _, text in part] for _, part in groupby(zip(parts, texts, strict=True), itemgetter(0))]


def _write_shard(folder: Path, texts: list[str]) -> Path:
    """Write a shard's documents to a file that is named by all that decides its sums."""
    identity = hashlib.sha256(library_hash().encode())
    for name in ("config.json", "model.safetensors"):
        identity.update((folder / "model" / name).read_bytes())
    text = json.dumps(texts)
    identity.update(text.encode())
    path = folder / f"{identity.hexdigest()[:16]}.json"
    write_text(path, text)
    return path


def _collect(pool: Pool, model: Path, paths: list[Path], initial: int) -> None:
    """Have all shards collected; what is lost is tried again."""
    waiting = {pool.submit(collect_shard, str(model), str(path)): (path, 1) for path in paths}
    with tqdm(total=initial + len(paths), initial=initial, unit=" shards", disable=None) as bar:
        while waiting:
            if not pool.reachable():
                raise UnavailableError("the workers cannot be reached any more: start again, it goes on")
            for future in wait(waiting, timeout=POLL_SECONDS, return_when=FIRST_COMPLETED).done:
                path, attempts = waiting.pop(future)
                error = future.exception()
                if error is None:
                    bar.update()
                elif attempts < ATTEMPTS:
                    waiting[pool.submit(collect_shard, str(model), str(path))] = (path, attempts + 1)
                else:
                    raise UnavailableError(f"{path} was tried {attempts} times; the last time: {error}") from error

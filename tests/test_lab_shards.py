"""Ridge statistics collected shard by shard, by workers that may die, are those of one pass."""

from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock
from hypothesis import given
from hypothesis import strategies as st

from frugal.errors import InputError, UnavailableError
from frugal.lab.sweep import shards
from frugal.lab.sweep.pool import Pool, Site
from frugal.lab.sweep.shards import collect_shards, cut
from frugal.readout import RidgeReadout
from frugal.ridge import RidgeStatistics
from models import TEXTS, echo_model

DOCUMENTS = [text[begin : begin + 20] for text in TEXTS for begin in range(0, len(text), 20)]


class Workers:
    """Stands for the pool: does a call at once, after `deaths` that do nothing."""

    def __init__(self, deaths: int = 0) -> None:
        self.deaths, self.calls = deaths, 0

    def __call__(self, function: Any, *arguments: Any) -> "Future[Any]":
        self.calls += 1
        future = Future[Any]()
        if self.deaths:
            self.deaths -= 1
            future.set_exception(RuntimeError("the worker died"))
        else:
            future.set_result(function(*arguments))
        return future


@pytest.fixture
def workers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Workers:
    monkeypatch.setenv("FRUGAL_DATA", str(tmp_path / "data"))
    workers = Workers()

    class Context:
        def __init__(self, *_: Any) -> None: ...

        def __enter__(self) -> Pool:
            return Pool(workers, 2, lambda: True)

        def __exit__(self, *_: object) -> None: ...

    monkeypatch.setattr(shards, "worker_pool", Context)
    return workers


def assert_same(some: RidgeStatistics, others: RidgeStatistics) -> None:
    """Equal up to a hundred steps of float32, the features' own: batches of other shapes may round them otherwise."""
    pairs = [(getattr(some, name), getattr(others, name)) for name in ("mean", "covariance", "target_sums")]
    pairs += [tuple(each.about(others.mean, others.target_mean).cross(slice(None)) for each in (some, others))]
    for found, expected in pairs:
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))
    assert some.count == others.count


def test_the_sum_of_shards_is_that_of_one_pass_and_fits_the_same_readout(tmp_path: Path, workers: Workers) -> None:
    model = echo_model(context=6)
    merged = collect_shards(model, DOCUMENTS, tmp_path / "shards", shards=3)
    whole = RidgeStatistics.collect(model.rows(DOCUMENTS), model.vocabulary_size)
    assert workers.calls == 3
    assert_same(merged, whole)
    # A penalty as large as the inputs' mean eigenvalue, so that solving does not make rounding larger.
    found, expected = (RidgeReadout.fit(statistics, alphas=[1.0]).weight for statistics in (merged, whole))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4 * float(expected.abs().max()))


def test_what_is_there_is_not_collected_again(tmp_path: Path, workers: Workers) -> None:
    model = echo_model(context=6)
    first = collect_shards(model, DOCUMENTS, tmp_path / "shards", shards=3)
    next((tmp_path / "shards").glob("*.safetensors")).unlink()
    assert_same(first, collect_shards(model, DOCUMENTS, tmp_path / "shards", shards=3))
    assert workers.calls == 4


def test_another_reservoir_has_shards_of_its_own(tmp_path: Path, workers: Workers) -> None:
    for context in (6, 7):
        collect_shards(echo_model(context=context), DOCUMENTS, tmp_path / "shards", shards=2)
    assert workers.calls == 4


def test_a_shard_whose_worker_dies_is_tried_again_but_not_for_ever(tmp_path: Path, workers: Workers) -> None:
    workers.deaths = 2
    collect_shards(echo_model(context=6), DOCUMENTS, tmp_path / "shards", shards=1)
    workers.deaths = 9
    with pytest.raises(UnavailableError, match="tried 3 times; the last time: the worker died"):
        collect_shards(echo_model(context=6), DOCUMENTS[:2], tmp_path / "shards", shards=1)


def test_workers_of_their_own_processes_collect_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FRUGAL_DATA", str(tmp_path / "data"))
    model = echo_model(context=6)
    merged = collect_shards(model, DOCUMENTS, tmp_path / "shards", shards=2, site=Site(workers=1))
    assert_same(merged, RidgeStatistics.collect(model.rows(DOCUMENTS), model.vocabulary_size))


def test_what_cannot_be_cut_or_shared_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="ties the documents together"):
        collect_shards(echo_model(reset="never"), DOCUMENTS, tmp_path, shards=2)
    with pytest.raises(InputError, match="shards=0"):
        collect_shards(echo_model(), DOCUMENTS, tmp_path, shards=0)
    with FileLock(tmp_path / ".lock"), pytest.raises(InputError, match="another process"):
        collect_shards(echo_model(), DOCUMENTS, tmp_path, shards=2)


@given(st.lists(st.text(max_size=30), min_size=1, max_size=40), st.integers(1, 10))
def test_cutting_keeps_every_document_in_its_order(documents: list[str], count: int) -> None:
    parts = cut(documents, count)
    assert [text for part in parts for text in part] == documents
    assert len(parts) <= count


def test_parts_are_about_equally_long() -> None:
    lengths = [sum(map(len, part)) for part in cut(["a" * (1 + n % 7) for n in range(200)], 8)]
    assert len(lengths) == 8
    assert max(lengths) - min(lengths) <= 14

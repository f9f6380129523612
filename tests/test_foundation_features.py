"""The feature cache: what is computed, kept, resumed and refused."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from torch import Tensor

from frugal.corpora import BytePairTokenizer, strided_windows
from frugal.errors import InputError, UnavailableError
from frugal.foundation import Foundation, features


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FRUGAL_DATA", str(tmp_path))
    return tmp_path


@pytest.fixture
def model() -> Foundation:
    return tiny_model(seed=0)


def tiny_model(seed: int) -> Foundation:
    torch.manual_seed(seed)
    config = transformers.GPT2Config(
        vocab_size=300, n_embd=16, n_layer=1, n_head=2, n_positions=32, bos_token_id=0, eos_token_id=0
    )
    return Foundation(transformers.GPT2LMHeadModel(config), BytePairTokenizer.train(["some text"], 300), name="tiny")


def some_tokens(length: int) -> Tensor:
    return torch.randint(0, 300, (length,), generator=torch.Generator().manual_seed(length))


def cached_file(data: Path, name: str) -> Path:
    (path,) = (data / "features").glob(f"*/{name}")
    return path


class CountedCalls:
    """Counts the windows that the model encodes, and may interrupt after some calls."""

    def __init__(self, model: Foundation, monkeypatch: pytest.MonkeyPatch, interrupt_after: int | None = None) -> None:
        self.windows = self.calls = 0
        self.hidden, self.limit = model.hidden, interrupt_after
        monkeypatch.setattr(model, "hidden", self)

    def __call__(self, tokens: Tensor) -> Tensor:
        if self.calls == self.limit:
            raise KeyboardInterrupt
        self.calls += 1
        self.windows += len(tokens)
        return self.hidden(tokens)


@pytest.mark.parametrize("stride", [1, 5, 8])
def test_each_row_is_the_hidden_state_in_its_window(model: Foundation, stride: int) -> None:
    tokens = some_tokens(29)
    rows = model.features(tokens, context=8, stride=stride, batch_size=3)
    assert isinstance(rows, np.ndarray)
    assert rows.shape == (29, 16)
    assert rows.dtype == np.float16
    for begin, end, keep in strided_windows(29, 8, stride):
        expected = model.hidden(tokens[None, begin:end])[0, keep - begin :]
        np.testing.assert_allclose(rows[keep:end], expected, atol=2e-3, rtol=2e-3)


def test_documents_do_not_see_each_other(model: Foundation) -> None:
    documents = [some_tokens(length) for length in (11, 0, 1, 8)]
    together = model.features(documents, context=8)
    assert [len(rows) for rows in together] == [11, 0, 1, 8]
    for document, rows in zip(documents, together, strict=True):
        if len(document):
            np.testing.assert_allclose(rows, model.features(document, context=8), atol=2e-3)


def test_the_heads_logits_follow_from_the_features(model: Foundation) -> None:
    tokens = some_tokens(8)
    logits = model.logits(model.features(tokens, context=8))
    torch.testing.assert_close(logits, model.model(tokens[None]).logits[0], atol=5e-3, rtol=5e-3)


def test_the_second_time_nothing_is_computed(model: Foundation, monkeypatch: pytest.MonkeyPatch) -> None:
    first = model.features(some_tokens(20), context=8)
    counted = CountedCalls(model, monkeypatch)
    assert np.array_equal(first, model.features(some_tokens(20), context=8, batch_size=2))
    assert counted.windows == 0


def test_what_changes_the_features_changes_the_key(model: Foundation, data: Path) -> None:
    model.features(some_tokens(20), context=8)
    model.features(some_tokens(21), context=8)
    model.features(some_tokens(20), context=16)
    model.features(some_tokens(20), context=8, stride=4)
    model.features([some_tokens(20)[:10], some_tokens(20)[10:]], context=8)
    tiny_model(seed=1).features(some_tokens(20), context=8)
    assert len(list((data / "features").glob("*/features.npy"))) == 6


@pytest.mark.parametrize("after", [0, 1, 3])
def test_an_interrupted_run_goes_on_and_gives_the_same(
    model: Foundation, after: int, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    documents = [some_tokens(length) for length in (30, 19, 8)]
    with monkeypatch.context() as patch:
        CountedCalls(model, patch, interrupt_after=after)
        with pytest.raises(KeyboardInterrupt):
            model.features(documents, context=8, batch_size=2)
    with monkeypatch.context() as patch:
        counted = CountedCalls(model, patch)
        resumed = model.features(documents, context=8, batch_size=2)
    assert counted.windows == 8 - 2 * after  # 4 + 3 + 1 windows
    monkeypatch.setenv("FRUGAL_DATA", str(data / "elsewhere"))
    uninterrupted = model.features(documents, context=8, batch_size=2)
    assert all(np.array_equal(a, b) for a, b in zip(resumed, uninterrupted, strict=True))


def test_runs_at_the_same_time_share_one_computation(model: Foundation, monkeypatch: pytest.MonkeyPatch) -> None:
    counted = CountedCalls(model, monkeypatch)
    computing = threading.Event()

    def slowly(tokens: Tensor) -> Tensor:
        computing.set()
        time.sleep(0.05)
        return counted(tokens)

    monkeypatch.setattr(model, "hidden", slowly)
    with ThreadPoolExecutor() as pool:
        first = pool.submit(model.features, some_tokens(32), context=8)
        computing.wait()
        second = pool.submit(model.features, some_tokens(32), context=8)
        assert np.array_equal(first.result(), second.result())  # type: ignore[arg-type]
    assert counted.windows == 4


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-64])


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-64] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("features.npy", truncate),
        ("features.npy", flip_a_bit),
        ("features.npy", Path.unlink),
        ("progress.json", lambda path: path.write_text("[")),
        ("progress.json", lambda path: path.write_text("[]")),
    ],
)
def test_damage_is_noticed_and_repaired(model: Foundation, data: Path, name: str, damage) -> None:  # type: ignore[no-untyped-def]
    intact = np.array(model.features(some_tokens(20), context=8))
    damage(cached_file(data, name))
    with pytest.warns(UserWarning, match="damaged"):
        repaired = model.features(some_tokens(20), context=8)
    assert np.array_equal(repaired, intact)


def test_states_that_float16_cannot_hold_are_refused(model: Foundation) -> None:
    model.model.transformer.ln_f.weight.data *= 1e6
    with pytest.raises(InputError, match="float16 ends at 65504"):
        model.features(some_tokens(8))


def test_a_full_disk_is_said_before_the_work(model: Foundation, monkeypatch: pytest.MonkeyPatch) -> None:
    counted = CountedCalls(model, monkeypatch)
    usage = type(features.shutil.disk_usage("."))(total=1000, used=990, free=10)
    monkeypatch.setattr(features.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(UnavailableError, match="make room"):
        model.features(some_tokens(8))
    assert counted.calls == 0


@pytest.mark.parametrize(
    ("tokens", "settings", "complaint"),
    [
        (torch.tensor([], dtype=torch.int64), {}, "at least one token"),
        (torch.tensor([300]), {}, "0 to 299"),
        (torch.tensor([1]), {"context": 33}, "context=33"),
        (torch.tensor([1]), {"context": 8, "stride": 9}, "stride=9"),
        (torch.tensor([1]), {"batch_size": 0}, "batch_size=0"),
    ],
)
def test_bad_requests_are_one_sentence(
    model: Foundation, tokens: Tensor, settings: dict[str, int], complaint: str
) -> None:
    with pytest.raises(InputError, match=complaint):
        model.features(tokens, **{"context": 8, **settings})

"""A memory on disk: what a kill, an interrupt, a full disk, a fork and damage leave, and who may write."""

import contextlib
import hashlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from frugal.cooperative import LSTMLanguageModel
from frugal.corpora import CharTokenizer
from frugal.errors import InputError, UnavailableError
from frugal.evaluate import evaluate
from frugal.language_model import load_model
from frugal.memory import AssociativeMemory, Datastore, MemoryGPT, NearestNeighbourLM
from frugal.memory.store import Text
from models import memory_gpt

DIM = 3
CAMPAIGN = Path(__file__).parents[1] / "benchmarks" / "memory_campaign.py"


def vectors(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, DIM)).astype(np.float32)


def state_of(memory: AssociativeMemory) -> tuple[Any, ...]:
    """The clock, the texts, and all that the entries hold."""
    columns = memory._table.rows()
    order = np.argsort(columns["ids"])
    texts = {number: (text.tokens.tolist(), *text[1:]) for number, text in memory.texts.items()}
    return memory.clock, texts, memory._table.age, {name: columns[name][order].tolist() for name in sorted(columns)}


def some_memory(**settings: Any) -> AssociativeMemory:
    return AssociativeMemory(DIM, 9, **({"eviction": "strength", "seed": 4} | settings))


def attached(folder: Path, **settings: Any) -> AssociativeMemory:
    memory = some_memory(**settings)
    memory.attach(folder)
    return memory


def operations(memory: AssociativeMemory) -> list[Callable[[], Any]]:
    """Every verb that changes something, with a full memory and with finding."""
    text = Text(np.arange(4), "a cup of tea", "Tea", "2026-01-01")
    return [
        lambda: memory.add(vectors(5), np.arange(5), namespaces=3, positions=np.arange(5)),
        lambda: memory.search(vectors(2), 2),
        lambda: memory.add(vectors(4, seed=1), np.arange(4), text=text),
        lambda: memory.update([3, 5], vectors(2, seed=2)),
        lambda: memory.remove([2]),
        lambda: memory.add(vectors(4, seed=1), np.arange(4), text=text),
        lambda: memory.age(0.3),
        lambda: memory.add(vectors(3, seed=3), np.arange(3)),
        lambda: memory.search(vectors(2), 2),
        lambda: memory.remove_texts([0]),
        lambda: memory.forget(0.4),
        lambda: memory.collect_garbage(0.1),
        lambda: memory.refresh(),
        lambda: memory.add(vectors(2), np.array([[0.5], [1.5]])),
    ]


def test_after_each_operation_the_file_holds_what_the_memory_holds(tmp_path: Path) -> None:
    memory, plain = attached(tmp_path), some_memory()
    for operation, same in zip(operations(memory), operations(plain), strict=True):
        operation()
        same()
        assert state_of(AssociativeMemory.load(tmp_path)) == state_of(memory) == state_of(plain)
    memory.close()
    with AssociativeMemory.open(tmp_path) as reopened:
        assert reopened.config == memory.config
        assert state_of(reopened) == state_of(memory)


def test_anyone_can_read_the_file(tmp_path: Path) -> None:
    with attached(tmp_path) as memory:
        memory.add(vectors(2), np.array([7, 8]), text=Text(np.arange(3), "a cup of tea", "Tea"))
    with sqlite3.connect(tmp_path / "memory.sqlite") as connection:
        assert connection.execute("SELECT value, text FROM entries").fetchall() == [(7, 0), (8, 0)]
        assert connection.execute("SELECT title, text FROM texts").fetchall() == [("Tea", "a cup of tea")]
    connection.close()


def test_a_texts_number_is_never_given_twice(tmp_path: Path) -> None:
    text = Text(np.arange(3))
    with attached(tmp_path) as memory:
        memory.add(vectors(2), text=text)
        memory.remove_texts([0])
    with AssociativeMemory.open(tmp_path) as memory:
        memory.add(vectors(2), text=text)
        assert list(memory.texts) == [1]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_kills_and_interrupts_lose_nothing(tmp_path: Path) -> None:
    """A short version of the campaign in benchmarks/."""
    command = [sys.executable, str(CAMPAIGN), "--rounds", "2", "--kinds", "flat", "graph", "--folder", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONHASHSEED": "0"})
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["lost"] for row in rows] == [0, 0, 0, 0]


@pytest.fixture
def interruptible() -> Iterator[None]:
    """SIGINT interrupts, also where the tests were started with it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_within_a_change_waits_for_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = attached(tmp_path)
    append = memory._table.append

    def interrupted(rows: Any) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        append(rows)

    monkeypatch.setattr(memory._table, "append", interrupted)
    with pytest.raises(KeyboardInterrupt):
        memory.add(vectors(2), np.arange(2))
    assert len(memory) == 2
    assert state_of(AssociativeMemory.load(tmp_path)) == state_of(memory)
    memory.close()


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_while_an_index_changes_leaves_a_right_index(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = AssociativeMemory(DIM, 100, index="graph")
    memory.add(vectors(50))
    memory.search(vectors(1), 1)
    with monkeypatch.context() as patch:
        patch.setattr(memory._searcher._index, "add", lambda *_: os.kill(os.getpid(), signal.SIGINT))
        with pytest.raises(KeyboardInterrupt):
            memory.add(vectors(10, seed=1))
    found, distances = memory.search(memory.all_embeddings(), 1)
    assert found[:, 0].tolist() == memory.ids().tolist()
    assert (distances == 0).all()


def test_a_full_disk_changes_nothing_and_stops_no_search(tmp_path: Path) -> None:
    memory = attached(tmp_path, eviction="lru")
    memory.add(vectors(3), np.arange(3))
    connection = memory._database._connection  # type: ignore[union-attr]
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    connection.execute(f"PRAGMA max_page_count = {pages}")
    before = state_of(memory)
    with pytest.raises(UnavailableError, match="full: nothing was changed"):
        memory.add(vectors(1, seed=1), np.arange(1), text=Text(np.arange(100_000)))
    assert state_of(memory) == before
    assert memory.search(vectors(1), 1)[0].tolist() == [[0]]
    connection.execute(f"PRAGMA max_page_count = {pages + 1000}")
    memory.add(vectors(1, seed=1), np.arange(1), text=Text(np.arange(100_000)))
    memory.close()
    assert state_of(AssociativeMemory.load(tmp_path)) == state_of(memory)


@pytest.mark.parametrize("way", ["moved", "deleted"])
def test_a_folder_that_is_gone_is_noticed(way: str, tmp_path: Path) -> None:
    memory = attached(tmp_path / "here")
    memory.add(vectors(2), np.arange(2))
    if way == "moved":
        (tmp_path / "here").rename(tmp_path / "there")
    else:
        (tmp_path / "here" / "memory.sqlite").unlink()
    before = state_of(memory)
    with pytest.raises(UnavailableError, match="moved or deleted"):
        memory.add(vectors(1), np.arange(1))
    with pytest.raises(UnavailableError, match="moved or deleted"):
        memory.checkpoint()
    assert state_of(memory) == before
    memory.close()
    memory.save(tmp_path / "elsewhere")
    assert state_of(AssociativeMemory.load(tmp_path / "elsewhere")) == before


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("eviction", ["lru", "least_hit", "strength"])
def test_what_searches_found_outlives_a_kill(eviction: str, tmp_path: Path) -> None:
    memory = attached(tmp_path, eviction=eviction)
    memory.add(vectors(9), np.arange(9))
    memory.close()
    child = os.fork()
    if child == 0:
        with AssociativeMemory.open(tmp_path) as killed:
            killed.search(vectors(9)[:4], 1)
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    with AssociativeMemory.open(tmp_path) as again:
        again.add(vectors(5, seed=1), np.arange(5))
        assert again.ids()[:4].tolist() == [0, 1, 2, 3]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_cannot_harm_its_parents_memory(tmp_path: Path) -> None:
    memory = attached(tmp_path)
    memory.add(vectors(3), np.arange(3))
    child = os.fork()
    if child == 0:
        refused = False
        try:
            memory.add(vectors(3), np.arange(3))
        except UnavailableError as error:
            refused = "forked" in str(error)
        memory.close()
        del memory
        os._exit(0 if refused else 1)
    assert os.waitpid(child, 0)[1] == 0
    memory.add(vectors(3), np.arange(3))
    with pytest.raises(UnavailableError, match="another memory writes here"):
        AssociativeMemory.open(tmp_path)
    assert len(AssociativeMemory.load(tmp_path)) == 6
    memory.close()


def test_one_writes_and_others_read(tmp_path: Path) -> None:
    def write() -> None:
        for seed in range(30):
            memory.add(vectors(1, seed), np.arange(1))

    memory = attached(tmp_path)
    with pytest.raises(UnavailableError, match="another memory writes here"):
        AssociativeMemory.open(tmp_path)
    with pytest.raises(UnavailableError, match="another memory writes here"):
        some_memory().save(tmp_path)
    writer = threading.Thread(target=write)
    writer.start()
    clocks = [AssociativeMemory.load(tmp_path).clock]
    while writer.is_alive():
        clocks.append(AssociativeMemory.load(tmp_path).clock)
    writer.join()
    memory.close()
    assert clocks == sorted(clocks)
    assert AssociativeMemory.load(tmp_path).clock == 30


def test_a_damaged_row_is_named_and_what_is_whole_is_kept(tmp_path: Path) -> None:
    with attached(tmp_path) as memory:
        memory.add(vectors(3), np.arange(3), text=Text(np.arange(3), "kept"))
        memory.add(vectors(3, seed=1), np.arange(3), text=Text(np.arange(3), "spoilt"))
    change_file(tmp_path, "UPDATE entries SET value = 5 WHERE id = 1")
    change_file(tmp_path, "UPDATE entries SET vector = zeroblob(4) WHERE id = 4")
    change_file(tmp_path, "UPDATE texts SET text = 'spoiled' WHERE number = 1")
    for reading in (AssociativeMemory.load, AssociativeMemory.open):
        with pytest.raises(UnavailableError, match="entries 1, 4; texts 1; restore"):
            reading(tmp_path)
    assert AssociativeMemory.repair(tmp_path) == ["entries 1, 4", "texts 1"]
    with AssociativeMemory.open(tmp_path) as repaired:
        assert repaired.ids().tolist() == [0, 2, 3, 5]
        assert repaired.clock == memory.clock
        assert [text.text for text in repaired.texts.values()] == ["kept"]


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE settings SET value = '{'",
        "UPDATE settings SET value = '3'",
        "DELETE FROM settings WHERE name = 'format'",
        "DELETE FROM settings WHERE name = 'config'",
        """UPDATE settings SET value = '{"dim": 4}' WHERE name = 'config'""",
        """UPDATE settings SET value = '["<zz", []]' WHERE name = 'values'""",
        "DROP TABLE clock",
        "DROP TABLE entries",
        "ALTER TABLE entries ADD COLUMN more",
    ],
)
def test_damaged_settings_and_tables_are_said_in_one_sentence(statement: str, tmp_path: Path) -> None:
    with attached(tmp_path) as memory:
        memory.add(vectors(3), np.arange(3))
    change_file(tmp_path, statement)
    for reading in (AssociativeMemory.load, AssociativeMemory.open, AssociativeMemory.repair):
        with pytest.raises(UnavailableError, match=r"memory.sqlite( is damaged| has format|: no such table)"):
            reading(tmp_path)


@pytest.mark.parametrize(
    "statement",
    ["DELETE FROM clock", "UPDATE clock SET clock = 'x'", "UPDATE clock SET clock = 2", "UPDATE clock SET age = 1e300",
     "UPDATE clock SET next_text = 0", "INSERT INTO clock VALUES (9, 9, 0.0, 9)"],
)  # fmt: skip
def test_a_damaged_clock_is_named_and_a_repaired_one_gives_no_number_again(statement: str, tmp_path: Path) -> None:
    with attached(tmp_path) as memory:
        memory.add(vectors(3), np.arange(3), text=Text(np.arange(3), "kept"))
    change_file(tmp_path, statement)
    with pytest.raises(UnavailableError, match="damaged: the clock; restore"):
        AssociativeMemory.load(tmp_path)
    assert AssociativeMemory.repair(tmp_path) == ["the clock"]
    with AssociativeMemory.open(tmp_path) as repaired:
        assert repaired.add(vectors(1, seed=1), np.arange(1)).tolist() == [3]
        assert repaired.next_text == 1


@pytest.mark.parametrize("row", ["(1, 'x', 1, 1)", "(1, NULL, 1, 1)", "(1, 1, 1, 1e999)", "(77, 1, 1, 1)"])
def test_damaged_uses_are_taken_for_none(row: str, tmp_path: Path) -> None:
    with attached(tmp_path) as memory:
        memory.add(vectors(3), np.arange(3))
    change_file(tmp_path, f"INSERT INTO uses VALUES {row}")
    assert state_of(AssociativeMemory.load(tmp_path)) == state_of(memory)


def test_a_memory_whose_file_fails_lets_its_folder_go_all_the_same(tmp_path: Path) -> None:
    memory = AssociativeMemory(DIM, 100, index="graph", eviction="lru")
    memory.attach(tmp_path)
    memory.add(vectors(9))
    memory.search(vectors(1), 2)
    assert memory._database is not None
    memory._database._connection.close()  # from here on SQLite refuses everything
    with pytest.raises(UnavailableError, match="nothing was changed"):
        memory.add(vectors(9))
    memory.close()
    with AssociativeMemory.open(tmp_path) as again:
        assert len(again) == len(memory) == 9


def change_file(folder: Path, statement: str) -> None:
    """Do with the file what no memory does."""
    with contextlib.closing(sqlite3.connect(folder / "memory.sqlite")) as connection, connection:
        connection.execute(statement)


def test_flipped_bytes_never_pass_in_silence(tmp_path: Path) -> None:
    with attached(tmp_path) as memory:
        memory.add(vectors(9), np.arange(9), text=Text(np.arange(3), "kept"))
    path = tmp_path / "memory.sqlite"
    whole, expected = path.read_bytes(), state_of(memory)
    for at in range(0, len(whole), len(whole) // 60):
        flipped = bytearray(whole)
        flipped[at] ^= 0x44
        path.write_bytes(flipped)
        try:
            found = state_of(AssociativeMemory.load(tmp_path))
        except UnavailableError:
            continue
        assert found == expected, f"byte {at}"  # one that holds nothing


def test_of_a_damaged_or_missing_log_an_earlier_state_is_read_or_none(tmp_path: Path) -> None:
    memory = attached(tmp_path / "open")
    states = [state_of(memory)]
    for operation in operations(memory):
        operation()
        states.append(state_of(memory))
    whole, log = ((tmp_path / "open" / f"memory.sqlite{end}").read_bytes() for end in ("", "-wal"))
    memory.close()
    (tmp_path / "memory.sqlite").write_bytes(whole)
    for at in range(0, len(log), len(log) // 20):
        for damaged in (log[:at], log[:at] + bytes([log[at] ^ 0x44]) + log[at + 1 :]):
            (tmp_path / "memory.sqlite-wal").write_bytes(damaged)
            with contextlib.suppress(UnavailableError):
                assert state_of(AssociativeMemory.load(tmp_path)) in states
    (tmp_path / "memory.sqlite-wal").write_bytes(log)
    assert state_of(AssociativeMemory.load(tmp_path)) == states[-1]


@pytest.mark.parametrize("content", [b"", b"x", b"SQLite format 3\0" * 100])
def test_a_file_that_is_no_memory_is_refused_in_one_sentence(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "memory.sqlite").write_bytes(content)
    for reading in (AssociativeMemory.load, AssociativeMemory.open):
        with pytest.raises(UnavailableError, match=r"damaged|holds no memory"):
            reading(tmp_path)


@pytest.mark.parametrize("kind", ["ivf", "graph"])
def test_an_index_comes_back_with_its_memory(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = AssociativeMemory(DIM, 1_000, index=kind, num_clusters=2)
    memory.attach(tmp_path)
    memory.add(vectors(100))
    memory.search(vectors(1), 1)  # builds the index
    memory.remove(np.arange(10))
    memory.close()
    with monkeypatch.context() as patch:
        patch.delattr("frugal.memory.store.search.build")  # it is not built again
        again = AssociativeMemory.load(tmp_path)
        for mine, its in zip(again.search(vectors(9, seed=3)), memory.search(vectors(9, seed=3)), strict=True):
            assert np.array_equal(mine, its)
    path = tmp_path / "index.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.warns(UserWarning, match="damaged"):
        again = AssociativeMemory.load(tmp_path)
    assert (again.search(again.all_embeddings(), 1)[0][:, 0] == again.ids()).all()


def test_saving_replaces_what_was_saved_and_attaching_does_not(tmp_path: Path) -> None:
    first, second = some_memory(), some_memory()
    first.add(vectors(3), np.arange(3))
    second.add(vectors(2), np.arange(2))
    first.save(tmp_path)
    second.save(tmp_path)
    assert state_of(AssociativeMemory.load(tmp_path)) == state_of(second)
    with pytest.raises(InputError, match="holds a memory"):
        first.attach(tmp_path)
    for reading in (AssociativeMemory.load, AssociativeMemory.open):
        with pytest.raises(UnavailableError, match="holds no memory"):
            reading(tmp_path / "elsewhere")
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("metric", ["l2", "cosine"])
def test_ageing_and_reopening_change_no_answer(metric: str, tmp_path: Path) -> None:
    memory = attached(tmp_path, metric=metric, eviction="fifo")
    memory.add(vectors(4), np.arange(4))
    before = memory.search(vectors(2, seed=5), 3)
    for _ in range(20):
        memory.age(0.9)
    memory.add(vectors(4, seed=1), np.arange(4))
    aged = memory.search(vectors(2, seed=5), 3)
    memory.close()
    again = AssociativeMemory.load(tmp_path)
    for mine, its in zip(again.search(vectors(2, seed=5), 3), aged, strict=True):
        assert np.array_equal(mine, its)
    np.testing.assert_allclose(again.get([0]), vectors(4)[:1] * 0.9**20, rtol=1e-6)
    if metric == "cosine":
        for mine, its in zip(again.search(vectors(2, seed=5), 3, ids=np.arange(4)), before, strict=True):
            assert np.array_equal(mine, its)


@pytest.mark.parametrize("index", ["exact", "flat", "ivf", "graph"])
def test_the_cosine_distance_of_the_same_direction_is_nothing(index: str) -> None:
    memory = AssociativeMemory(64, 500, metric="cosine", index=index, num_clusters=4)
    rows = np.random.default_rng(0).standard_normal((500, 64)).astype(np.float32)
    memory.add(rows)
    for factor in (1, 3, 1e-6):
        found, distances = memory.search(rows * np.float32(factor), 2)
        assert found[:, 0].tolist() == list(range(500))
        assert (distances[:, 0] == 0).all()
        assert (distances[:, 1] > 0).all()


@pytest.mark.parametrize("index", ["exact", "flat", "ivf", "graph"])
def test_the_same_direction_is_found_among_many_that_are_nearly_the_same(index: str) -> None:
    rng = np.random.default_rng(0)
    one = rng.standard_normal((1, 64)).astype(np.float32)
    for size in (1e-3, 1e-4, 1e-5):
        rows = one + np.float32(size) * rng.standard_normal((1000, 64)).astype(np.float32)
        rows[777] = one
        memory = AssociativeMemory(64, 1000, metric="cosine", index=index, num_clusters=4, nprobe=4)
        memory.add(rows)
        found, distances = memory.search(one, 3)
        assert found[0, 0] == 777
        assert distances[0, 0] == 0
        assert (np.diff(distances[0]) > 0).all()


@pytest.mark.parametrize("index", ["ivf", "graph"])
def test_cosine_distances_are_right_by_an_index_also_where_they_are_small(index: str) -> None:
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((400, 64)).astype(np.float32)
    memory = AssociativeMemory(64, 400, metric="cosine", index=index, num_clusters=2, nprobe=2)
    memory.add(rows)
    exact = rows.astype(np.float64) / np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
    for size in (1e-3, 1e-2, 1e-1, 1):
        queries = rows[:50] + np.float32(size) * rng.standard_normal((50, 64)).astype(np.float32)
        found, distances = memory.search(queries, 3)
        units = queries.astype(np.float64) / np.linalg.norm(queries.astype(np.float64), axis=1, keepdims=True)
        right = np.square(units[:, None] - exact[found]).sum(2) / 2
        # A unit vector of float32 is off by some 1e-8 itself.
        np.testing.assert_allclose(np.sqrt(distances), np.sqrt(right), rtol=1e-5, atol=1e-7)


@pytest.fixture
def earlier(tmp_path: Path) -> Path:
    """A folder with a store and a datastore as an earlier version wrote them."""
    with zipfile.ZipFile(Path(__file__).with_name("memory_of_an_earlier_version.zip")) as kept:
        kept.extractall(tmp_path)
    return tmp_path


def test_a_store_of_an_earlier_version_opens_as_its_journal_left_it(earlier: Path) -> None:
    for _ in range(2):  # read from the earlier files, and then from today's
        with AssociativeMemory.open(earlier / "store") as memory:
            ids, distances = memory.search(torch.tensor([[4.0, 4.0], [6.0, 7.0], [8.0, 9.0]]), 1)
            assert (ids.squeeze(1).tolist(), distances.sum()) == ([2, 3, 4], 0)
            assert memory.values(ids.squeeze(1)).tolist() == [12, 13, 20]
            assert len(memory) == 3


def test_a_datastore_of_an_earlier_version_is_loaded_with_its_texts(earlier: Path) -> None:
    datastore = Datastore.load(earlier / "datastore")
    assert [text.tolist() for text in datastore.texts.values()] == [[0, 5, 6], [0, 9]]
    found = datastore.search(torch.tensor([[0.0, 1.0], [1.0, 1.0]]), 1)
    assert found.tokens.tolist() == [[6], [9]]
    assert datastore.place(int(found.ids[1, 0])) == (1, 1)
    with pytest.raises(InputError, match="saved by an earlier version: `load` it"):
        Datastore.open(earlier / "datastore", dim=2, capacity=9)


def test_entries_of_an_earlier_version_whose_text_is_not_there_are_left_out_and_said(earlier: Path) -> None:
    texts = earlier / "datastore" / "texts.safetensors"
    save_file({"1": load_file(texts)["1"]}, texts)
    with pytest.warns(UserWarning, match="2 entries of texts that are not there are left out"):
        datastore = Datastore.load(earlier / "datastore")
    assert (len(datastore), list(datastore.texts)) == (1, [1])
    assert datastore.add(torch.tensor([0, 3]), torch.eye(2)[:1]) == 2
    texts.write_bytes(b"")
    with pytest.raises(UnavailableError, match=r"texts.safetensors is damaged"):
        Datastore.load(earlier / "datastore")


def test_how_entries_of_an_earlier_version_were_used_is_kept(earlier: Path) -> None:
    snapshot = earlier / "datastore" / "memory" / "snapshot-000000"
    columns = load_file(snapshot / "entries.safetensors")
    used = {"hits": np.array([4, 0, 2]), "used": np.array([3, 1, 2]), "strength": np.array([2.5, 1, 1.5], np.float32)}
    save_file(columns | used, snapshot / "entries.safetensors")
    manifest = json.loads((snapshot / "manifest.json").read_text())
    manifest["sha256"] = hashlib.sha256((snapshot / "entries.safetensors").read_bytes()).hexdigest()
    (snapshot / "manifest.json").write_text(json.dumps(manifest))
    checksum = hashlib.sha256((snapshot / "manifest.json").read_bytes()).hexdigest()
    (snapshot.parent / "CURRENT").write_text(f"0 {checksum}")
    Datastore.load(earlier / "datastore").save(earlier / "today")
    rows = AssociativeMemory.load(earlier / "today" / "memory")._table.rows()
    assert {name: rows[name].tolist() for name in used} == {name: column.tolist() for name, column in used.items()}


def test_a_nearest_neighbour_model_of_an_earlier_version_is_loaded(earlier: Path) -> None:
    today = NearestNeighbourLM(LSTMLanguageModel(CharTokenizer.ascii(), 2))
    today.save(earlier / "model")
    shutil.rmtree(earlier / "model" / "memory")
    shutil.copytree(earlier / "datastore", earlier / "model", dirs_exist_ok=True)
    loaded = load_model(earlier / "model")
    assert isinstance(loaded, NearestNeighbourLM)
    assert [text.tolist() for text in loaded.memory.texts.values()] == [[0, 5, 6], [0, 9]]
    assert evaluate(loaded, "a text").nats != evaluate(today, "a text").nats


def test_a_memory_gpt_of_an_earlier_version_is_loaded(earlier: Path) -> None:
    memory_gpt(memory_dim=2, read="knn").save(earlier / "model")
    shutil.rmtree(earlier / "model" / "memory")
    shutil.copytree(earlier / "datastore", earlier / "model", dirs_exist_ok=True)
    assert [text.tolist() for text in MemoryGPT.load(earlier / "model").memory.texts.values()] == [[0, 5, 6], [0, 9]]

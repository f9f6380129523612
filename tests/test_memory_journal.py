"""A memory on disk: what a kill leaves, what damage does, who may write."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import frugal.memory.store.folder
from frugal.errors import InputError, UnavailableError
from frugal.memory import AssociativeMemory

DIM = 3
State = tuple[int, dict[int, tuple[Any, ...]]]


def vectors(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, DIM)).astype(np.float32)


def state_of(memory: AssociativeMemory) -> State:
    """The clock, and all that the entries hold."""
    columns = memory._table.rows()
    rows = {name: columns[name].tolist() for name in sorted(columns)}
    return memory.clock, {entry: tuple(rows[name][i] for name in rows) for i, entry in enumerate(rows["ids"])}


def operations(memory: AssociativeMemory) -> list[Callable[[], Any]]:
    """Every verb that changes something; with a full memory, merging, and finding."""
    return [
        lambda: memory.add(vectors(5), np.arange(5), namespaces=3, positions=np.arange(5)),
        lambda: memory.search(vectors(2), 2),
        lambda: memory.add(vectors(4, seed=1), np.arange(4)),
        lambda: memory.update([1, 3], vectors(2, seed=2)),
        lambda: memory.remove([2]),
        lambda: memory.add(vectors(4, seed=1), np.arange(4)),
        lambda: memory.add(vectors(4, seed=3), np.arange(4)),
        lambda: memory.age(0.5),
        lambda: memory.search(vectors(2), 2),
        lambda: memory.forget(0.4),
        lambda: memory.collect_garbage(0.5),
        lambda: memory.refresh(),
        lambda: memory.add(vectors(2), np.arange(2)),
    ]


def some_memory() -> AssociativeMemory:
    return AssociativeMemory(DIM, 9, eviction="strength", merge_distance=1e-4, seed=4)


def attached(folder: Path) -> AssociativeMemory:
    memory = some_memory()
    memory.attach(folder)
    return memory


def journal_in(folder: Path) -> Path:
    return next(folder.glob("journal-*"))


def test_what_is_attached_is_what_comes_back(tmp_path: Path) -> None:
    with attached(tmp_path) as memory:
        for operation in operations(memory):
            operation()
        memory.search(vectors(2), 2)  # the use of entries, too
    reopened = AssociativeMemory.open(tmp_path)
    assert state_of(reopened) == state_of(memory)
    assert reopened.config == memory.config
    reopened.checkpoint()
    reopened.add(vectors(1, seed=9), np.array([0]))
    assert state_of(AssociativeMemory.load(tmp_path)) == state_of(reopened)
    reopened.close()


def test_a_journal_cut_at_any_byte_leaves_the_operations_before(tmp_path: Path) -> None:
    memory, plain = attached(tmp_path), some_memory()
    ends, states = [0], [state_of(plain)]
    for operation, same in zip(operations(memory), operations(plain), strict=True):
        operation()
        same()
        if (size := journal_in(tmp_path).stat().st_size) > ends[-1]:  # a search writes nothing by itself
            ends.append(size)
            states.append(state_of(plain))
    memory.close()
    whole = journal_in(tmp_path).read_bytes()
    assert len(states) > 10
    for cut in range(0, len(whole) + 1, 31):
        journal_in(tmp_path).write_bytes(whole[:cut])
        complete = sum(end <= cut for end in ends) - 1
        assert state_of(AssociativeMemory.load(tmp_path)) == states[complete]
    for complete, end in enumerate(ends):
        for cut in (end - 1, end, end + 1):
            if 0 <= cut <= len(whole):
                journal_in(tmp_path).write_bytes(whole[:cut])
                expected = complete - (cut < end)
                with AssociativeMemory.open(tmp_path) as reopened:
                    assert state_of(reopened) == states[expected]
                    reopened.add(vectors(1), np.array([7]))
                assert state_of(AssociativeMemory.load(tmp_path)) == state_of(reopened), "it goes on where it was cut"


def test_a_flipped_byte_is_named_wherever_it_is(tmp_path: Path) -> None:
    with attached(tmp_path) as memory:
        for operation in operations(memory)[:6]:
            operation()
        memory.checkpoint()
        memory.add(vectors(3, seed=5), np.arange(3))
        memory.add(vectors(3, seed=6), np.arange(3))
    kept = [tmp_path / "CURRENT", journal_in(tmp_path), *next(tmp_path.glob("snapshot-*")).iterdir()]
    assert len(kept) == 4
    for path in kept:
        whole = path.read_bytes()
        for at in range(0, len(whole), max(1, len(whole) // 60)):
            flipped = bytearray(whole)
            flipped[at] ^= 0x04
            path.write_bytes(flipped)
            with pytest.raises(UnavailableError, match=r"damaged|missing"):
                AssociativeMemory.load(tmp_path)
        path.write_bytes(whole)
    assert state_of(AssociativeMemory.load(tmp_path)) == state_of(memory)


def indexed(folder: Path, kind: str) -> AssociativeMemory:
    """A memory whose snapshot has an index, and whose journal goes on from there."""
    memory = AssociativeMemory(DIM, 1_000, index=kind, num_clusters=2)
    memory.add(vectors(100))
    memory.remove(np.arange(10))
    memory.search(vectors(1), 1)  # builds the index
    memory.attach(folder)
    memory.add(vectors(20, seed=1))
    memory.update([20, 105], vectors(2, seed=2))
    memory.remove([30, 110])
    memory.close()
    return memory


@pytest.mark.parametrize("kind", ["ivf", "graph"])
def test_an_index_comes_back_with_its_memory(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = indexed(tmp_path, kind)
    monkeypatch.delattr("frugal.memory.store.search.build")  # it is not built again
    again = AssociativeMemory.load(tmp_path)
    for mine, its in zip(again.search(vectors(9, seed=3)), memory.search(vectors(9, seed=3)), strict=True):
        assert np.array_equal(mine, its)
    again.remove(again.ids()[::9])
    assert (again.search(again.all_embeddings(), 1)[0][:, 0] == again.ids()).all()


def test_a_damaged_index_is_built_again(tmp_path: Path) -> None:
    memory = indexed(tmp_path, "ivf")
    path = next(tmp_path.glob("snapshot-*/index*"))
    for damaged in (path.read_bytes()[:-1] + b"?", b""):
        path.write_bytes(damaged)
        with pytest.warns(UserWarning, match="damaged"):
            again = AssociativeMemory.load(tmp_path)
        assert state_of(again) == state_of(memory)
        assert (again.search(again.all_embeddings(), 1)[0][:, 0] == again.ids()).all()


def test_a_truncated_or_missing_snapshot_is_named(tmp_path: Path) -> None:
    attached(tmp_path).close()
    entries = next(tmp_path.glob("snapshot-*/entries*"))
    entries.write_bytes(entries.read_bytes()[:-1])
    with pytest.raises(UnavailableError, match=r"entries.* is damaged"):
        AssociativeMemory.load(tmp_path)
    entries.unlink()
    with pytest.raises(UnavailableError, match=r"entries.* is missing"):
        AssociativeMemory.load(tmp_path)


@pytest.mark.parametrize("step", ["safetensors", "manifest", "journal", "pointer", "clean-up"])
def test_a_snapshot_that_is_interrupted_leaves_the_state_before_or_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """What a kill leaves between two steps: everything that the steps before have written."""

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    with attached(tmp_path) as memory:
        memory.add(vectors(5), np.arange(5))
        expected = state_of(memory)
        target = {"safetensors": "save_file", "manifest": "write_text", "journal": "_sync", "pointer": "appearing"}
        with monkeypatch.context() as patch:
            if step == "pointer":
                appearing = frugal.memory.store.folder.appearing
                patch.setattr(
                    frugal.memory.store.folder,
                    "appearing",
                    lambda path: stop() if path.name == "CURRENT" else appearing(path),
                )
            else:
                patch.setattr(frugal.memory.store.folder, target.get(step, "_remove_other_generations"), stop)
            with pytest.raises(KeyboardInterrupt):
                memory.checkpoint()
        assert state_of(AssociativeMemory.load(tmp_path)) == expected
    with AssociativeMemory.open(tmp_path) as reopened:
        assert state_of(reopened) == expected
        reopened.checkpoint()
    assert len(list(tmp_path.glob("snapshot-*"))) == len(list(tmp_path.glob("journal-*"))) == 1


# Writers that are forked, so that each takes no time to start, and killed; the parent looks at what they leave.
KILLS = """
import os, random, signal, sys, time
import numpy as np
import frugal.memory.store.folder
from frugal.memory import AssociativeMemory

frugal.memory.store.folder.LONG_JOURNAL = 20_000
folder, kills = sys.argv[1], int(sys.argv[2])
chance = random.Random(0)

def contents(memory):
    ids = memory.ids()
    return hash((memory.clock, ids.tobytes(), memory.all_embeddings().tobytes(), memory.positions(ids).tobytes()))

def act(memory, rng):
    ids = memory.ids()
    verb = rng.integers(4)
    if verb == 0 or len(ids) == 0:
        memory.add(rng.standard_normal((int(rng.integers(1, 40)), 3)).astype(np.float32))
    elif verb == 1:
        memory.update(ids[::3], rng.standard_normal((len(ids[::3]), 3)).astype(np.float32))
    elif verb == 2:
        memory.remove(ids[::9])
    else:
        memory.forget(0.1)

def write(pipe, seed):
    memory, ahead = AssociativeMemory.open(folder), AssociativeMemory.load(folder)
    for step in range(10**9):
        act(ahead, np.random.default_rng([seed, step]))
        os.write(pipe, b"%d\\n" % contents(ahead))  # what this operation will make of it
        act(memory, np.random.default_rng([seed, step]))
        os.write(pipe, b"done\\n")

memory = AssociativeMemory(3, 200)
memory.attach(folder)
memory.close()
state, acknowledged = contents(memory), 0
for kill in range(kills):
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            write(writing, kill)
        finally:
            os._exit(1)
    os.close(writing)
    time.sleep(0.02 + 0.1 * chance.random())
    os.kill(child, signal.SIGKILL)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL, "the writer ended by itself"
    with os.fdopen(reading) as pipe:
        said = pipe.read().split()
    announced = [int(word) for word in said if word != "done"]
    done = said.count("done")
    acknowledged += done
    allowed = {announced[done - 1] if done else state, *announced[done:]}
    memory = AssociativeMemory.load(folder)
    state = contents(memory)
    assert state in allowed, (kill, said)
    found = memory.search(memory.all_embeddings(), 1)[0][:, 0] if len(memory) else memory.ids()
    assert found.tolist() == memory.ids().tolist()
print(acknowledged)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_writer_that_is_killed_loses_nothing_that_it_had_finished(tmp_path: Path) -> None:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0"}
    command = [sys.executable, "-c", KILLS, str(tmp_path / "memory"), os.environ.get("MEMORY_KILLS", "6")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 0


def test_one_writes_and_others_read(tmp_path: Path) -> None:
    with attached(tmp_path) as memory:
        memory.add(vectors(3), np.arange(3))
        reader = AssociativeMemory.load(tmp_path)
        assert state_of(reader) == state_of(memory)
        with pytest.raises(UnavailableError, match="another memory writes here"):
            AssociativeMemory.open(tmp_path)
        with pytest.raises(UnavailableError, match="another memory writes here"):
            some_memory().save(tmp_path)
        memory.add(vectors(1), np.arange(1))
        assert len(reader) == 3
    AssociativeMemory.open(tmp_path).close()


def test_readers_keep_up_with_a_writer_that_makes_snapshots(tmp_path: Path) -> None:
    def write() -> None:
        for count in range(30):
            memory.add(vectors(1, seed=count), np.arange(1))
            memory.checkpoint()

    memory = attached(tmp_path)
    writer = threading.Thread(target=write)
    writer.start()
    clocks = []
    while writer.is_alive():
        clocks.append(AssociativeMemory.load(tmp_path).clock)
    writer.join()
    memory.close()
    assert clocks == sorted(clocks)
    assert AssociativeMemory.load(tmp_path).clock == 30


def test_a_long_journal_becomes_a_snapshot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frugal.memory.store.folder, "LONG_JOURNAL", 2000)
    with attached(tmp_path) as memory:
        for seed in range(40):
            memory.add(vectors(4, seed), np.arange(4))
            assert journal_in(tmp_path).stat().st_size < 3000
    assert state_of(AssociativeMemory.load(tmp_path)) == state_of(memory)


def test_a_full_disk_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def half(file: int, buffers: list[memoryview]) -> int:
        os.write(file, buffers[0][: len(buffers[0]) // 2])
        raise OSError(28, "No space left on device")

    with attached(tmp_path) as memory:
        memory.add(vectors(3), np.arange(3))
        before = state_of(memory)
        with monkeypatch.context() as patch:
            patch.setattr(os, "writev", half)
            with pytest.raises(UnavailableError, match="full: nothing was changed"):
                memory.add(vectors(2, seed=1), np.arange(2))
        assert state_of(memory) == before
        memory.add(vectors(2, seed=1), np.arange(2))
    assert state_of(AssociativeMemory.load(tmp_path)) == state_of(memory)


def test_saving_replaces_what_was_saved_and_attaching_does_not(tmp_path: Path) -> None:
    first, second = some_memory(), some_memory()
    first.add(vectors(3), np.arange(3))
    second.add(vectors(2), np.arange(2))
    first.save(tmp_path)
    second.save(tmp_path)
    assert state_of(AssociativeMemory.load(tmp_path)) == state_of(second)
    with pytest.raises(InputError, match="holds a memory"):
        first.attach(tmp_path)
    with pytest.raises(UnavailableError, match="holds no memory"):
        AssociativeMemory.load(tmp_path / "elsewhere")
    with pytest.raises(UnavailableError, match="holds no memory"):
        AssociativeMemory.open(tmp_path / "elsewhere")
    assert not (tmp_path / "elsewhere").exists()

"""The vector store against a dictionary and brute force: identities, contents, searches, eviction, refusals."""

import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import frugal.memory.store.index
import frugal.memory.store.search
from frugal.errors import InputError
from frugal.memory import AssociativeMemory
from frugal.memory.store.settings import Settings

DIM = 4
KINDS = ("exact", "flat", "ivf", "compressed", "graph", "auto")
METRICS = ("l2", "inner_product", "cosine")
POLICIES = ("fifo", "lru", "least_hit", "strength")


@pytest.fixture(scope="module", autouse=True)
def indexes_from_a_few_entries_on() -> Any:
    """So that a test's few entries are enough for clusters, codes, and for "auto" to decide."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(frugal.memory.store.index, "POINTS_PER_CLUSTER", 2)
        patch.setattr(frugal.memory.store.index, "CODES", 16)
        patch.setattr(frugal.memory.store.search, "SMALL_NAMESPACE", 5)
        patch.setattr(frugal.memory.store.search, "AUTO_FROM", 40)
        patch.setattr(frugal.memory.store.search, "AUTO_SAMPLES", 16)
        yield


def vectors(rng: np.random.Generator, count: int, dim: int = DIM) -> np.ndarray:
    return rng.standard_normal((count, dim)).astype(np.float32)


@dataclass
class Entry:
    vector: np.ndarray
    value: int
    namespace: int
    position: int


class Oracle:
    """A memory beside a dictionary that says what must be in it."""

    def __init__(self, memory: AssociativeMemory, seed: int) -> None:
        self.memory, self.rng = memory, np.random.default_rng(seed)
        self.entries: dict[int, Entry] = {}

    def some_ids(self) -> np.ndarray:
        return self.rng.choice(sorted(self.entries), self.rng.integers(0, len(self.entries) // 2 + 1), replace=False)

    def add(self) -> None:
        count, clock = int(self.rng.integers(0, 40)), self.memory.clock
        rows, values = vectors(self.rng, count), self.rng.integers(0, 9, count)
        namespaces = self.rng.integers(0, 3, count)
        positions = np.arange(clock, clock + count) if self.rng.random() < 0.5 else self.rng.integers(0, 99, count)
        ids = self.memory.add(rows, values, namespaces=namespaces, positions=positions)
        assert ids.tolist() == list(range(clock, clock + count)), "ids are never given again"
        added = map(Entry, rows, values.tolist(), namespaces.tolist(), positions.tolist())
        self.entries |= dict(zip(ids.tolist(), added, strict=True))
        left = self.memory.ids().tolist()
        assert len(left) == min(len(self.entries), self.memory.capacity)
        if self.memory.eviction == "fifo":
            assert left == sorted(self.entries)[-self.memory.capacity :]
        self.entries = {entry: self.entries[entry] for entry in left}

    def remove(self) -> None:
        ids = self.some_ids()
        self.memory.remove(ids)
        self.entries = {entry: held for entry, held in self.entries.items() if entry not in ids}

    def update(self) -> None:
        ids, clock = self.some_ids(), self.memory.clock
        rows = vectors(self.rng, len(ids))
        self.memory.update(ids, rows)
        for entry, row, position in zip(ids.tolist(), rows, range(clock, clock + len(ids)), strict=True):
            self.entries[entry].vector, self.entries[entry].position = row, position

    def forget(self) -> None:
        gone = self.memory.forget(0.3)
        assert len(gone) == int(0.3 * len(self.entries))
        for entry in gone.tolist():
            del self.entries[entry]

    def age(self) -> None:
        self.memory.age(0.5)  # exact in float32
        for held in self.entries.values():
            held.vector = held.vector * np.float32(0.5)

    def reopen(self) -> None:
        folder = self.memory._database.folder if self.memory._database is not None else None
        if folder is not None:
            self.memory.close()
            self.memory = AssociativeMemory.open(folder)

    def collect_garbage(self) -> None:
        gone = self.memory.collect_garbage(1.0).tolist()
        assert gone == sorted(e for e, held in self.entries.items() if np.linalg.norm(held.vector) < 1)
        for entry in gone:
            del self.entries[entry]

    def search(self) -> None:
        queries, k = vectors(self.rng, 3), int(self.rng.integers(1, 12))
        namespaces = None if self.rng.random() < 0.5 else self.rng.integers(0, 4, 3)
        before = None if self.rng.random() < 0.5 else self.rng.integers(0, self.memory.clock + 40, 3)
        since = None if self.rng.random() < 0.7 else int(self.rng.integers(0, self.memory.clock + 1))
        value = None if self.rng.random() < 0.7 else int(self.rng.integers(0, 9))
        ids = None if self.rng.random() < 0.7 else self.some_ids()
        subset = {"namespaces": namespaces, "before": before, "since": since, "value": value, "ids": ids}
        found, distances = self.memory.search(queries, k, **subset)
        for row, query in enumerate(queries):
            seen = {
                entry: distance(self.memory.metric, held.vector, query)
                for entry, held in self.entries.items()
                if (namespaces is None or held.namespace == namespaces[row])
                and (before is None or held.position < before[row])
                and (since is None or held.position >= since)
                and (value is None or held.value == value)
                and (ids is None or entry in ids)
            }
            count = min(k, len(seen))
            assert (found[row, count:] == -1).all()
            assert np.isinf(distances[row, count:]).all()
            got = found[row, :count].tolist()
            assert set(got) <= set(seen), "only live entries of the namespace, written before"
            assert len(set(got)) == count
            np.testing.assert_allclose(distances[row, :count], [seen[entry] for entry in got], atol=1e-4)
            if self.memory.index_in_use in ("exact", "flat"):
                np.testing.assert_allclose(distances[row, :count], sorted(seen.values())[:count], atol=1e-4)

    def check(self) -> None:
        ids = sorted(self.entries)
        assert self.memory.ids().tolist() == ids
        assert len(self.memory) == len(ids)
        if ids:
            held = [self.entries[entry] for entry in ids]
            np.testing.assert_array_equal(self.memory.all_embeddings(), [entry.vector for entry in held])
            assert self.memory.values(ids).tolist() == [entry.value for entry in held]
            assert self.memory.positions(ids).tolist() == [entry.position for entry in held]
            assert self.memory.namespaces(ids).tolist() == [entry.namespace for entry in held]


def distance(metric: str, vector: np.ndarray, query: np.ndarray) -> float:
    if metric == "l2":
        return float(((vector - query) ** 2).sum())
    if metric == "inner_product":
        return -float(vector @ query)
    return 1 - float(vector @ query) / float(np.linalg.norm(vector) * np.linalg.norm(query))


OPERATIONS: tuple[Callable[[Oracle], None], ...] = (
    *(Oracle.add, Oracle.add, Oracle.remove, Oracle.update, Oracle.search, Oracle.search),
    *(Oracle.forget, Oracle.age, Oracle.collect_garbage, Oracle.reopen),
)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=25)
@given(
    operations=st.lists(st.sampled_from(OPERATIONS), min_size=5, max_size=20),
    metric=st.sampled_from(METRICS),
    eviction=st.sampled_from(POLICIES),
    capacity=st.integers(10, 120),
    seed=st.integers(0, 1000),
    on_disk=st.booleans(),
)
def test_a_memory_behaves_like_a_dictionary(
    kind: str,
    operations: list[Callable[[Oracle], None]],
    metric: str,
    eviction: str,
    capacity: int,
    seed: int,
    on_disk: bool,
) -> None:
    memory = AssociativeMemory(
        DIM, capacity, index=kind, metric=metric, eviction=eviction, num_clusters=4, m=2, nprobe=2, seed=seed
    )
    with tempfile.TemporaryDirectory() as folder:
        if on_disk:
            memory.attach(folder)
        oracle = Oracle(memory, seed)
        oracle.add()
        for operation in operations:
            operation(oracle)
            oracle.check()
        oracle.search()
        oracle.memory.close()


@pytest.mark.parametrize("metric", METRICS)
def test_a_memory_that_was_never_written_to_takes_part_in_everything(metric: str) -> None:
    memory = AssociativeMemory(DIM, 10, metric=metric)
    nothing = np.empty(0, np.int64)
    memory.add(np.empty((0, DIM), np.float32))
    memory.update(nothing, np.empty((0, DIM), np.float32))
    memory.remove(nothing)
    memory.age(0.9)
    assert len(memory.forget(0.5)) == len(memory.collect_garbage(1.0)) == len(memory) == 0
    assert memory.search(np.ones((2, DIM), np.float32), 3)[0].tolist() == [[-1] * 3] * 2


@pytest.mark.parametrize("kind", KINDS)
def test_each_entry_finds_itself_after_the_memory_has_overflowed(kind: str) -> None:
    rng = np.random.default_rng(0)
    memory = AssociativeMemory(16, 100, index=kind, num_clusters=4)
    for _ in range(7):
        memory.add(vectors(rng, 60, 16))
        memory.search(vectors(rng, 2, 16))
    found, distances = memory.search(memory.all_embeddings(), 1)
    assert found[:, 0].tolist() == memory.ids().tolist()
    assert (distances == 0).all()


@pytest.mark.parametrize("kind", ["exact", "flat"])
def test_exact_search_is_exact_where_vectors_are_long_and_their_differences_short(kind: str) -> None:
    rng = np.random.default_rng(0)
    rows = 1000 + 0.01 * vectors(rng, 500)
    memory = AssociativeMemory(DIM, 500, index=kind)
    memory.add(rows)
    found, _ = memory.search(rows[:50], 5)
    squares = ((rows[:50, None].astype(np.float64) - rows[None]) ** 2).sum(-1)
    assert (found == np.argsort(squares, axis=1, kind="stable")[:, :5]).all()


def test_a_list_index_finds_what_faiss_finds_in_the_same_lists() -> None:
    import faiss

    rng = np.random.default_rng(0)
    rows, queries = vectors(rng, 400, 8), vectors(rng, 20, 8)
    memory = AssociativeMemory(8, 400, index="ivf", num_clusters=8, nprobe=3, seed=5)
    memory.add(rows)
    quantizer = faiss.IndexFlatL2(8)
    peer = faiss.IndexIVFFlat(quantizer, 8, 8)
    peer.cp.seed, peer.nprobe = 5, 3
    peer.train(rows)
    peer.add(rows)
    assert (memory.search(queries, 5)[0] == peer.search(queries, 5)[1]).all()


def test_recall_counts_what_an_index_misses() -> None:
    rng = np.random.default_rng(0)
    memory = AssociativeMemory(16, 600, index="ivf", num_clusters=32, nprobe=1)
    memory.add(vectors(rng, 600, 16))
    queries = vectors(rng, 50, 16)
    exact = AssociativeMemory(16, 600, index="exact")
    exact.add(memory.all_embeddings())
    pairs = zip(memory.search(queries)[0], exact.search(queries)[0], strict=True)
    share = np.mean([len(set(found) & set(right)) / 10 for found, right in pairs])
    assert share < 1
    assert memory.recall(queries) == pytest.approx(share)
    assert exact.recall(queries) == 1


def test_auto_takes_lists_once_they_find_enough() -> None:
    rng = np.random.default_rng(0)
    memory = AssociativeMemory(DIM, 1000, index="auto")
    memory.add(vectors(rng, 30))
    assert memory.index_in_use == "flat"
    centres = 20 * vectors(rng, 40)
    memory.add((centres[:, None] + 0.1 * vectors(rng, 20)).reshape(-1, DIM))
    assert memory.index_in_use.startswith("ivf")
    assert memory.recall() >= 0.9


def test_the_recall_that_auto_states_is_that_of_queries_it_was_not_built_from() -> None:
    """Spread-out data, of which an entry that is in the lists finds itself far oftener than its neighbours."""
    rng = np.random.default_rng(0)
    memory = AssociativeMemory(DIM, 3000, index="auto")
    memory.add(vectors(rng, 3000))
    stated = float(re.search(r"recall (0\.\d+) for vectors", memory.index_in_use)[1])  # type: ignore[index]
    assert stated == pytest.approx(memory.recall(vectors(rng, 200)), abs=0.03)


def test_a_graph_is_built_again_when_a_quarter_is_dead() -> None:
    memory = AssociativeMemory(DIM, 100, index="graph")
    ids = memory.add(vectors(np.random.default_rng(0), 100))
    memory.search(np.ones((1, DIM), np.float32))
    graph = memory._searcher._index
    memory.remove(ids[:20])
    memory.search(np.ones((1, DIM), np.float32))
    assert memory._searcher._index is graph
    memory.remove(ids[20:30])
    memory.search(np.ones((1, DIM), np.float32))
    assert memory._searcher._index is not graph


def test_an_index_out_of_step_is_built_again() -> None:
    memory = AssociativeMemory(DIM, 100, index="ivf", num_clusters=2)
    ids = memory.add(vectors(np.random.default_rng(0), 50))
    memory.search(np.ones((1, DIM), np.float32))
    memory._searcher._index.remove(ids[:1])  # behind the memory's back
    with pytest.warns(UserWarning, match="building it again"):
        memory.remove(ids[:2])
    assert set(memory.search(np.ones((1, DIM), np.float32), 50)[0][0]) == {-1, *ids[2:].tolist()}


def test_what_was_found_stays_and_what_was_not_goes() -> None:
    rng = np.random.default_rng(0)
    rows = vectors(rng, 20)
    for eviction in ("lru", "least_hit", "strength"):
        memory = AssociativeMemory(DIM, 20, eviction=eviction)
        ids = memory.add(rows)
        memory.search(rows[:5], 1)
        memory.add(vectors(rng, 15))
        assert memory.ids()[:5].tolist() == ids[:5].tolist()
        quiet = AssociativeMemory(DIM, 20, eviction=eviction)
        quiet.add(rows)
        quiet.search(rows[:5], 1, count_hits=False)
        quiet.add(vectors(rng, 15))
        assert quiet.ids()[:5].tolist() == ids[15:].tolist()


def test_strength_fades() -> None:
    rng = np.random.default_rng(0)
    rows = vectors(rng, 20)
    memory = AssociativeMemory(DIM, 20, eviction="strength")
    ids = memory.add(rows)
    memory.search(rows[:1], 1)
    for _ in range(10):
        memory.add(vectors(rng, 10))
    assert ids[0] not in memory.ids()


def test_a_chunk_written_at_once_is_seen_by_what_comes_after_only() -> None:
    memory = AssociativeMemory(2, 10)
    rows = np.ones((4, 2), np.float32)
    memory.add(rows, positions=[3, 4, 5, 6])
    found, _ = memory.search(rows, 4, before=[3, 4, 5, 6])
    assert (found >= 0).sum(1).tolist() == [0, 1, 2, 3]


def test_the_callers_kind_comes_back() -> None:
    memory = AssociativeMemory(2, 10)
    assert isinstance(memory.add(np.ones((3, 2), np.float16)), np.ndarray)
    ids = memory.add(torch.ones(3, 2, dtype=torch.bfloat16, requires_grad=True))
    found, distances = memory.search(torch.ones(1, 2), 2)
    assert all(isinstance(given, torch.Tensor) for given in (ids, found, distances, memory.get(ids)))
    assert memory[0].tolist() == [1, 1]


def test_what_is_added_is_copied() -> None:
    memory, rows = AssociativeMemory(2, 10), np.ones((1, 2), np.float32)
    memory.add(rows)
    rows[:] = 5
    memory.get([0])[:] = 5
    assert memory[0].tolist() == [1, 1]


def test_more_than_the_capacity_at_once_leaves_the_last() -> None:
    memory = AssociativeMemory(2, 3)
    assert memory.add(np.ones((5, 2), np.float32)).tolist() == [0, 1, 2, 3, 4]
    assert memory.ids().tolist() == [2, 3, 4]
    memory.refresh()
    assert len(memory) == 0
    assert memory.add(np.ones((1, 2), np.float32)).tolist() == [5]


def test_an_emptied_memory_may_hold_other_values() -> None:
    memory, row = AssociativeMemory(2, 3), np.ones((1, 2), np.float32)
    memory.add(row, np.array([7]))
    memory.refresh()
    entry = memory.add(row, np.array([[0.5, 0.25]]))
    assert memory.values(entry).tolist() == [[0.5, 0.25]]
    memory.refresh()
    entry = memory.add(row)
    with pytest.raises(InputError, match="holds no values"):
        memory.values(entry)


def test_forgetting_follows_the_seed() -> None:
    def forgotten(seed: int) -> list[int]:
        memory = AssociativeMemory(2, 100, seed=seed)
        memory.add(np.ones((100, 2), np.float32))
        return memory.forget(0.1).tolist()

    assert forgotten(1) == forgotten(1) != forgotten(2)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (np.array([[1, np.nan]], np.float32), "row 0 holds a number that is not finite"),
        (np.array([[0, 0], [np.inf, 1]], np.float32), "row 1 holds a number that is not finite"),
        (np.array([[1e30, 1]], np.float32), "above 1e18"),
        (np.ones((1, 3), np.float32), r"shape \[1, 3\]: expected \[n, 2\]"),
        (np.ones(2, np.float32), r"shape \[2\]"),
        (np.ones((1, 2)), "float64: expected float32"),
        (torch.ones(1, 2, dtype=torch.int64), "int64: expected float32"),
        ("text", "numpy|NumPy|float32"),
    ],
)
def test_unusable_vectors_are_refused_before_anything_changes(rows: Any, message: str) -> None:
    memory = AssociativeMemory(2, 10)
    memory.add(np.ones((2, 2), np.float32))
    for verb in (memory.add, memory.search, lambda given: memory.update([0], given)):
        with pytest.raises(InputError, match=message):
            verb(rows)
    assert memory.clock == len(memory) == 2
    assert (memory.all_embeddings() == 1).all()


def test_other_unusable_input_is_refused_before_anything_changes() -> None:
    memory, row = AssociativeMemory(2, 10, metric="cosine"), np.ones((1, 2), np.float32)
    memory.add(row, np.array([[1, 2]]))
    refused: list[tuple[str, Callable[[], Any]]] = [
        ("values go with every entry", lambda: memory.add(row)),
        ("this memory's have dtype int64", lambda: memory.add(row, np.array([[1.0, 2.0]]))),
        ("one for each vector", lambda: memory.add(row, np.array([[1, 2]] * 2))),
        ("no direction", lambda: memory.add(0 * row, np.array([[1, 2]]))),
        ("namespaces of shape", lambda: memory.add(row, np.array([[1, 2]]), namespaces=[1, 2])),
        ("whole numbers", lambda: memory.add(row, np.array([[1, 2]]), positions=np.array([0.5]))),
        ("below 2\\^63", lambda: memory.add(row, np.array([[1, 2]]), namespaces=np.array([2**63], np.uint64))),
        ("value of shape", lambda: memory.search(row, 1, value=1)),
        ("text 3: there is none", lambda: memory.remove_texts([3])),
        ("id 7: no entry has it", lambda: memory.remove([0, 7])),
        ("id 7: no entry has it", lambda: memory.get([7])),
        ("each id once", lambda: memory.update([0, 0], np.ones((2, 2), np.float32))),
        ("k=0", lambda: memory.search(row, 0)),
        ("k=2.5", lambda: memory.search(row, 2.5)),
        ("k=True", lambda: memory.search(row, True)),
        ("since of type float", lambda: memory.search(row, 1, since=2.5)),
        ("since of dtype", lambda: memory.search(row, 1, since="now")),
        (r"since of shape \[2\]", lambda: memory.search(row, 1, since=[0, 1])),
        ("decay=2", lambda: memory.age(2)),
        ("fraction=2", lambda: memory.forget(2)),
        ("threshold=-1", lambda: memory.collect_garbage(-1)),
    ]
    for message, call in refused:
        with pytest.raises(InputError, match=message):
            call()
    assert memory.clock == len(memory) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dim": 0}, "dim=0: must be a whole number of at least 1"),
        ({"capacity": 1.5}, "capacity=1.5: must be a whole number"),
        ({"index": "tree"}, "index='tree': unknown; choose one of auto, exact"),
        ({"metric": "l1"}, "metric='l1': unknown"),
        ({"eviction": "mru"}, "eviction='mru': unknown"),
        ({"index": "compressed", "m": 3}, "m=3: must divide dim=4"),
        ({"device": "tpu"}, "device='tpu': must be"),
        ({"seed": -1}, "seed=-1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        AssociativeMemory(**{"dim": 4, "capacity": 10} | arguments)


def test_an_index_of_faiss_is_refused_elsewhere_than_on_the_processor() -> None:
    config = AssociativeMemory(4, 10, index="ivf").config
    with pytest.raises(InputError, match="only exact search runs there"):
        Settings(**config, device="cuda")

"""The memory beside plain FAISS indexes of the same types and beside the memory of memorizing-transformers-pytorch.

    python benchmarks/memory.py            10^3 to 10^6 entries of width 64 (graphs: to 10^5);
                                           then 10^5 entries of widths 64 and 768, side by side with FAISS
    python benchmarks/memory.py --beside   the latter alone, without the pairs that are measured already
    python benchmarks/memory.py --small    a few seconds, to see that it works

Rates are vectors per CPU second, in calls of 1,024 (searches: 256 queries, 10 neighbours), each measurement in a
process of its own with one thread. Our memory is attached to a folder: each change is a transaction of its file. "add"
includes training and building the index, for all. The vectors lie around n / 100 centres. The peer has no removal; it
is left out where it is not installed, or give the folder it was installed into with --peer.

Width 768 is that of a GPT's hidden states. Side by side, "open" is the seconds that it takes to open the closed memory
again, and searches by FAISS and by the memory are measured in turn, in one process; "share" is the median of FAISS's
time over ours. Results go to benchmarks/results/memory.json.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

RESULTS = Path(__file__).parent / "results" / "memory.json"
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
DIM, WIDE, CALL, QUERIES, K = 64, 768, 1024, 256, 10
TURNS = 15
BESIDE = 100_000  # entries
NPROBE, EF_CONSTRUCTION, EF_SEARCH, CODE_BYTES = 16, 100, 64, 8
SMALLEST = {"ivf": 1_000, "compressed": 10_000}
LARGEST = {"graph": 100_000, "peer": 10_000}
ONCE_FROM = 100_000  # entries: such cases are measured once
RATES = ("add", "remove", "update", "search")
PEER = "memorizing_transformers_pytorch"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="10^3 and 10^4 entries, measured once; nothing is kept")
    parser.add_argument("--beside", action="store_true", help="side by side with FAISS alone; goes on where it was")
    parser.add_argument("--repeats", type=int, default=3, help="of each case below 10^5 entries; medians are shown")
    parser.add_argument("--peer", type=Path, help=f"a folder with {PEER} and what it needs")
    parser.add_argument("--case", help=argparse.SUPPRESS)  # a measuring process
    arguments = parser.parse_args()
    if arguments.peer:
        sys.path.append(str(arguments.peer))
    if arguments.case:
        print(json.dumps(measure(**json.loads(arguments.case))))
        return
    results = json.loads(RESULTS.read_text()) if arguments.beside and RESULTS.is_file() else {}
    if not arguments.beside:
        results |= rates_and_look_ups(arguments)
    measured = results.setdefault("beside", [])
    for dim, kind, metric in product((DIM, WIDE), ("flat", "ivf", "graph"), ("l2", "cosine")):
        one = {"beside": kind, "metric": metric, "dim": dim, "size": 2_000 if arguments.small else BESIDE}
        if any(one.items() <= known.items() for known in measured):
            continue
        measured.append(one | run(one, None))
        print(measured[-1], flush=True)
        if not arguments.small:
            RESULTS.write_text(json.dumps(results, indent=2) + "\n")


def rates_and_look_ups(arguments: argparse.Namespace) -> dict[str, Any]:
    sizes, repeats = ([1_000, 10_000], 1) if arguments.small else ([10**e for e in (3, 4, 5, 6)], arguments.repeats)
    has_peer = find_spec(PEER) is not None
    if not has_peer:
        print(f"{PEER} is not installed: left out (pip install --no-deps {PEER} einops einops-exts joblib)")
    kinds = {"flat": ("faiss", "frugal"), "ivf": ("faiss", "frugal"), "compressed": ("faiss", "frugal")}
    kinds |= {"graph": ("faiss", "frugal"), "peer": ("peer",) if has_peer else ()}
    cases = [
        {"library": library, "kind": kind, "size": size}
        for kind, libraries in kinds.items()
        for size in sizes
        if SMALLEST.get(kind, 0) <= size <= LARGEST.get(kind, size)
        for library in libraries
    ]
    table = []
    for one in cases:
        measured = [run(one, arguments.peer) for _ in range(1 if one["size"] >= ONCE_FROM else repeats)]
        table.append(one | {name: middle([m[name] for m in measured]) for name in measured[0]})
        print(line(table[-1]), flush=True)
    lookups = [{"self-look-up": kind} for kind in ("exact", "flat", "ivf", "compressed", "graph", "auto")]
    lookups += [{"self-look-up": "peer"}] if has_peer else []
    found = {one["self-look-up"]: run(one, arguments.peer)["found"] for one in lookups}
    print("entries that find themselves after the capacity was exceeded:", found)
    return {"rates": table, "self_look_up": found}


def run(one: dict[str, Any], peer: Path | None) -> dict[str, Any]:
    """Measure one case in a process of its own."""
    command = [sys.executable, __file__, "--case", json.dumps(one), *(["--peer", str(peer)] if peer else [])]
    done = subprocess.run(command, env=os.environ | ONE_THREAD, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def middle(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None


def line(row: dict[str, Any]) -> str:
    rates = "".join(f"{name:>9} " + (f"{row[name]:>12,.0f}" if row[name] else f"{'-':>12}") for name in RATES)
    return f"{row['kind']:11}{row['size']:>10,}  {row['library']:7}{rates}   recall {row['recall']:.3f}"


def measure(**case: Any) -> dict[str, Any]:
    if "self-look-up" in case:
        return {"found": self_look_up(case["self-look-up"])}
    if "beside" in case:
        return rates_beside(case["beside"], case["metric"], case["dim"], case["size"])
    return {"faiss": faiss_rates, "frugal": our_rates, "peer": peer_rates}[case["library"]](case["kind"], case["size"])


def some_vectors(count: int, seed: int, centres: int, dim: int = DIM) -> Any:
    """Around centres that are the same for every seed; of unit length, since the peer's inner product wants that."""
    import numpy as np

    middles = np.random.default_rng(0).standard_normal((centres, dim), dtype=np.float32)
    rng = np.random.default_rng(seed)
    rows = middles[rng.integers(centres, size=count)] + 0.5 * rng.standard_normal((count, dim), dtype=np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def rate(count: int, work: Callable[[], Any]) -> float:
    start = time.process_time()
    work()
    return count / (time.process_time() - start)


def search_rate(queries: Any, search: Callable[[Any], Any]) -> float:
    """Once to get warm, then as often as takes a fifth of a second."""
    search(queries)
    times, start = 0, time.process_time()
    while (spent := time.process_time() - start) < 0.2:
        search(queries)
        times += 1
    return times * len(queries) / spent


def recall(found: Any, rows: Any, queries: Any) -> float:
    """The share of true neighbours among what was found; ids are row numbers."""
    import faiss

    true = faiss.knn(queries, rows, K)[1]
    return sum(len(set(a) & set(b)) for a, b in zip(found, true, strict=True)) / true.size


def clusters(size: int) -> int:
    return max(1, min(int(4 * size**0.5), size // 39, 1024))


def faiss_rates(kind: str, size: int) -> dict[str, float | None]:
    """A plain index, filled and changed as FAISS's documentation says."""
    import faiss
    import numpy as np

    faiss.omp_set_num_threads(1)
    rows, queries = some_vectors(size, 1, size // 100), some_vectors(QUERIES, 2, size // 100)
    ids, changed = np.arange(size), some_ids(size)
    quantizer = faiss.IndexFlatL2(DIM)
    index: Any = {
        "flat": lambda: faiss.IndexIDMap2(faiss.IndexFlatL2(DIM)),
        "ivf": lambda: faiss.IndexIVFFlat(quantizer, DIM, clusters(size)),
        "compressed": lambda: faiss.IndexIVFPQ(quantizer, DIM, clusters(size), CODE_BYTES, 8),
        "graph": lambda: faiss.IndexHNSWFlat(DIM, 32),
    }[kind]()

    def fill() -> None:
        if kind in ("ivf", "compressed"):
            index.train(rows)
            index.set_direct_map_type(faiss.DirectMap.Hashtable)
        for begin in range(0, size, CALL):
            piece = slice(begin, begin + CALL)
            index.add(rows[piece]) if kind == "graph" else index.add_with_ids(rows[piece], ids[piece])

    if kind in ("ivf", "compressed"):
        index.nprobe = NPROBE
    if kind == "graph":
        index.hnsw.efConstruction, index.hnsw.efSearch = EF_CONSTRUCTION, EF_SEARCH
    rates: dict[str, float | None] = {"add": rate(size, fill)}
    rates["search"] = search_rate(queries, lambda q: index.search(q, K))
    rates["recall"] = recall(index.search(queries, K)[1], rows, queries)
    rates["remove"] = rates["update"] = None
    if kind != "graph":  # which cannot

        def update(which: Any) -> None:
            index.remove_ids(which)
            index.add_with_ids(rows[which], which)

        rates["update"] = change_rate(changed, update)
        rates["remove"] = change_rate(changed, index.remove_ids)
    return rates


def our_rates(kind: str, size: int) -> dict[str, float | None]:
    """The memory, attached to a folder."""
    import faiss
    import torch

    from frugal.memory import AssociativeMemory

    faiss.omp_set_num_threads(1)
    torch.set_num_threads(1)
    rows, queries = some_vectors(size, 1, size // 100), some_vectors(QUERIES, 2, size // 100)
    changed = some_ids(size)
    options: dict[str, Any] = {"num_clusters": clusters(size), "nprobe": NPROBE, "m": CODE_BYTES}
    options |= {"ef_construction": EF_CONSTRUCTION, "ef_search": EF_SEARCH}
    memory = AssociativeMemory(DIM, size, index=kind, **options)
    AssociativeMemory(DIM, size, index="flat").add(rows[:100])  # to get warm

    def fill() -> None:
        for begin in range(0, size, CALL):
            memory.add(rows[begin : begin + CALL])
        assert memory.index_in_use  # builds the index

    with tempfile.TemporaryDirectory() as folder:
        memory.attach(Path(folder) / "memory")
        rates: dict[str, float | None] = {"add": rate(size, fill)}
        rates["search"] = search_rate(queries, lambda q: memory.search(q, K))
        rates["recall"] = recall(memory.search(queries, K)[0], rows, queries)
        rates["update"] = change_rate(changed, lambda which: memory.update(which, rows[which]))
        rates["remove"] = change_rate(changed, memory.remove)
        memory.close()
    return rates


def rates_beside(kind: str, metric: str, dim: int, size: int) -> dict[str, float]:
    """The memory on disk, and a plain index of the same settings beside it."""
    import faiss
    import torch

    from frugal.memory import AssociativeMemory

    faiss.omp_set_num_threads(1)
    torch.set_num_threads(1)
    rows, queries = (some_vectors(n, seed, size // 100, dim) for n, seed in ((size, 1), (QUERIES, 2)))
    measure = faiss.METRIC_L2 if metric == "l2" else faiss.METRIC_INNER_PRODUCT
    quantizer = faiss.IndexFlat(dim, measure)
    index: Any = {
        "flat": lambda: faiss.IndexFlat(dim, measure),
        "ivf": lambda: faiss.IndexIVFFlat(quantizer, dim, clusters(size), measure),
        "graph": lambda: faiss.IndexHNSWFlat(dim, 32, measure),
    }[kind]()
    if kind == "ivf":
        index.nprobe = NPROBE
        index.train(rows)
    if kind == "graph":
        index.hnsw.efConstruction, index.hnsw.efSearch = EF_CONSTRUCTION, EF_SEARCH
    index.add(rows)
    options: dict[str, Any] = {"num_clusters": clusters(size), "nprobe": NPROBE}
    options |= {"ef_construction": EF_CONSTRUCTION, "ef_search": EF_SEARCH}
    memory = AssociativeMemory(dim, size, index=kind, metric=metric, **options)

    def fill() -> None:
        for begin in range(0, size, CALL):
            memory.add(rows[begin : begin + CALL])

    with tempfile.TemporaryDirectory() as folder:
        memory.attach(folder)
        added = rate(size, fill)  # the index is built by the first search
        memory.search(queries, K)
        memory.close()
        again: list[AssociativeMemory] = []
        opened = 1 / rate(1, lambda: again.append(AssociativeMemory.open(folder)))
        again[0].close()
        found: dict[str, list[float]] = {"faiss": [], "frugal": []}
        for _ in range(TURNS):
            found["faiss"].append(search_rate(queries, lambda q: index.search(q, K)))
            found["frugal"].append(search_rate(queries, lambda q: memory.search(q, K)))
    share = median(ours / its for ours, its in zip(found["frugal"], found["faiss"], strict=True))
    return {"add": added, "open": opened} | {name: median(rates) for name, rates in found.items()} | {"share": share}


def some_ids(size: int) -> Any:
    """Six calls' worth of different ids; the first call is to get warm."""
    import numpy as np

    return np.random.default_rng(3).permutation(size)[: 6 * min(CALL, size // 10)].reshape(6, -1)


def change_rate(ids: Any, change: Callable[[Any], Any]) -> float:
    change(ids[0])
    return rate(ids[1:].size, lambda: [change(call) for call in ids[1:]])


def peer_memory(capacity: int, dim: int, folder: str) -> Any:
    from memorizing_transformers_pytorch.knn_memory import KNNMemory

    return KNNMemory(dim, capacity, memmap_filename=str(Path(folder) / "peer"), multiprocessing=False)


def peer_rates(kind: str, size: int) -> dict[str, float | None]:
    """Keys are the vectors, values the same."""
    import faiss
    import torch

    faiss.omp_set_num_threads(1)
    torch.set_num_threads(1)
    rows = torch.from_numpy(some_vectors(size, 1, size // 100))
    queries = torch.from_numpy(some_vectors(QUERIES, 2, size // 100))
    pairs = torch.stack((rows, rows), dim=1)[None]  # [1, n, 2, d]
    with tempfile.TemporaryDirectory() as folder:
        memory = peer_memory(size, DIM, folder)
        rates: dict[str, float | None] = {
            "add": rate(size, lambda: [memory.add(piece) for piece in pairs.split(CALL, dim=1)]),
            "search": search_rate(queries[None], lambda q: memory.search(q, K)) * QUERIES,
        }
        found = memory.search(queries[None], K)[0][0, :, :, 0]  # the keys [Q, k, d] themselves
        ids = torch.cdist(found, rows[None].expand(QUERIES, -1, -1)).argmin(-1)
        return rates | {"remove": None, "update": None, "recall": recall(ids.tolist(), rows.numpy(), queries.numpy())}


def self_look_up(kind: str, capacity: int = 1_000, call: int = 300, calls: int = 10, dim: int = 16) -> float:
    """The share of what was written last that a search for it finds, with its own value, after an overflow."""
    import numpy as np
    import torch

    from frugal.memory import AssociativeMemory

    rows = np.random.default_rng(0).standard_normal((calls, call, dim), dtype=np.float32)
    rows /= np.linalg.norm(rows, axis=-1, keepdims=True)
    last = rows[-1]
    if kind == "peer":
        with tempfile.TemporaryDirectory() as folder:
            peer = peer_memory(capacity, dim, folder)
            for piece in torch.from_numpy(rows):
                peer.add(torch.stack((piece, piece), dim=1)[None])
            found = peer.search(torch.from_numpy(last)[None], 1)[0][0, :, 0, 1].numpy()
        return float((found == last).all(1).mean())
    memory = AssociativeMemory(dim, capacity, index=kind)
    for piece in rows:
        memory.add(piece, piece)
        memory.search(piece[:1], 1)
    return float((memory.values(memory.search(last, 1)[0])[:, 0] == last).all(1).mean())


if __name__ == "__main__":
    main()

"""Kills and interrupts of a memory that is being written to: what was acknowledged has to be there, and nothing half.

    python benchmarks/memory_campaign.py                500 rounds of each, over all index types
    python benchmarks/memory_campaign.py --rounds 4     to see that it works

Each round forks a writer that goes on from the folder of the round before. In a round of "kill" it gets SIGKILL at a
random moment. In a round of "interrupt" it gets one SIGINT during or after each of four operations, and then compares
its memory with its file. A second memory, without a folder, says what each operation makes of the first. Prints a JSON
object for each index type and way; results of the whole campaign go to benchmarks/results/memory_campaign.json, with
the machine and the commit.
"""

import argparse
import contextlib
import json
import os
import random
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import faiss  # noqa: F401  # so that forked writers have it
import numpy as np

from frugal.lab.run.provenance import provenance
from frugal.memory import AssociativeMemory
from frugal.memory.store import Text

RESULTS = Path(__file__).parent / "results" / "memory_campaign.json"
KINDS = ("exact", "flat", "ivf", "compressed", "graph", "auto")
DIM, CAPACITY = 8, 3_000
STRIKES = 4  # interrupts a round
SETTINGS: dict[str, Any] = {"num_clusters": 2, "m": 2, "nprobe": 2}


def contents(memory: AssociativeMemory) -> int:
    ids = memory.ids()
    texts = tuple((number, text.tokens.tobytes(), text.text) for number, text in memory.texts.items())
    return hash(
        (memory.clock, texts, ids.tobytes(), memory.all_embeddings().tobytes(), memory.positions(ids).tobytes())
    )


def act(memory: AssociativeMemory, rng: np.random.Generator) -> None:
    ids, verb = memory.ids(), rng.integers(6)
    rows = rng.standard_normal((int(rng.integers(1, 400)), DIM)).astype(np.float32)
    if verb <= 1 or len(ids) == 0:
        memory.add(rows, text=Text(rng.integers(0, 9, 5), "words") if verb else None)
    elif verb == 2:
        memory.update(ids[:: len(ids) // len(rows) + 1], rows[: len(ids[:: len(ids) // len(rows) + 1])])
    elif verb == 3:
        memory.remove(ids[::9])
    elif verb == 4 and memory.texts:
        memory.remove_texts([min(memory.texts)])
    else:
        memory.age(0.5)
    memory.search(rows[:2], 2)  # builds the index


def in_order(memory: AssociativeMemory, folder: Path) -> bool:
    """Whether file and memory agree and each entry finds itself, or one as near."""
    if contents(AssociativeMemory.load(folder)) != contents(memory):
        return False
    if len(memory) == 0:
        return True
    sample = memory.ids()[:: max(1, len(memory) // 50)]
    found, distances = memory.search(memory.get(sample), 1)
    return set(found[:, 0].tolist()) <= set(memory.ids().tolist()) and bool((distances[:, 0] < 1e3).all())


def write(folder: Path, pipe: int, seed: int) -> None:
    """Act for ever; say before each operation what it makes of the memory, and afterwards that it is done."""
    memory, ahead = AssociativeMemory.open(folder), AssociativeMemory.load(folder)
    for step in range(10**9):
        act(ahead, np.random.default_rng([seed, step]))
        os.write(pipe, b"%d\n" % contents(ahead))
        act(memory, np.random.default_rng([seed, step]))
        os.write(pipe, b"done\n")


def interrupted(folder: Path, pipe: int, seed: int) -> None:
    """Say how long an operation takes and act; once interrupted, the memory has to be as before it or as after it."""
    memory, strikes = AssociativeMemory.open(folder), list[int]()

    def strike(*_: Any) -> None:
        strikes.append(1)
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, strike)
    for step in range(STRIKES):
        ahead = AssociativeMemory.load(folder)
        allowed, began, hit, swallowed = {contents(ahead)}, time.perf_counter(), False, False
        act(ahead, np.random.default_rng([seed, step]))
        seconds = time.perf_counter() - began
        allowed.add(contents(ahead))
        try:
            os.write(pipe, b"%f\n" % seconds)
            hit = True
            act(memory, np.random.default_rng([seed, step]))
            hit, swallowed = False, len(strikes) > step
            while len(strikes) == step:
                time.sleep(0.001)
        except KeyboardInterrupt:
            pass
        right = not swallowed and contents(memory) in allowed and len(np.unique(memory.ids())) == len(memory)
        os.write(pipe, b"right\n" if right and in_order(memory, folder) else b"wrong\n")
        os.write(pipe, b"hit\n" if hit else b"late\n")
    memory.close()


@contextlib.contextmanager
def forked(work: Callable[[Path, int, int], None], folder: Path, seed: int) -> Iterator[tuple[int, IO[str]]]:
    """A process that does `work`, and what it says; it is waited for."""
    reading, writing = os.pipe()
    process = os.fork()
    if process == 0:
        os.close(reading)
        try:
            work(folder, writing, seed)
            os._exit(0)
        except BaseException as error:
            os.write(writing, f"failed {error!r}\n".encode())
            os._exit(1)
    os.close(writing)
    with os.fdopen(reading) as said:
        yield process, said
    os.waitpid(process, 0)


def kill_rounds(folder: Path, rounds: int, chance: random.Random) -> dict[str, int]:
    state, acknowledged, lost = contents(AssociativeMemory.load(folder)), 0, 0
    for number in range(rounds):
        with forked(write, folder, number) as (process, pipe):
            time.sleep(0.05 + 0.45 * chance.random())
            os.kill(process, signal.SIGKILL)
            said = pipe.read().splitlines()
        announced = [int(line) for line in said if line.lstrip("-").isdigit()]
        done = said.count("done")
        acknowledged += done
        allowed = {announced[done - 1] if done else state, *announced[done:]}
        memory = AssociativeMemory.load(folder)
        state = contents(memory)
        lost += state not in allowed or not in_order(memory, folder) or any(line.startswith("failed") for line in said)
    return {"rounds": rounds, "acknowledged": acknowledged, "lost": lost}


def interrupt_rounds(folder: Path, rounds: int, chance: random.Random) -> dict[str, int]:
    said = Counter[str]()
    for number in range(rounds):
        with forked(interrupted, folder, number) as (process, pipe):
            for line in pipe:
                word = line.split()[0]
                if word.replace(".", "").isdigit():
                    time.sleep(2 * chance.random() * float(word))
                    os.kill(process, signal.SIGINT)
                else:
                    said[word] += 1
        said["wrong"] += not in_order(AssociativeMemory.load(folder), folder)
    return {
        "rounds": rounds, "interrupts": said["right"] + said["wrong"], "within an operation": said["hit"],
        "lost": said["wrong"] + said["failed"],
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=500, help="of each way, shared by the index types")
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=KINDS)
    parser.add_argument("--folder", type=Path, help="where the memories lie; by default a temporary one")
    arguments = parser.parse_args()
    results = []
    with tempfile.TemporaryDirectory(dir=arguments.folder) as place:
        for number, kind in enumerate(arguments.kinds):
            rounds = arguments.rounds // len(arguments.kinds) + (number < arguments.rounds % len(arguments.kinds))
            for way, campaign in (("kill", kill_rounds), ("interrupt", interrupt_rounds)):
                folder = Path(place) / f"{kind}-{way}"
                memory = AssociativeMemory(DIM, CAPACITY, index=kind, eviction="lru", **SETTINGS)
                memory.save(folder)
                found = {"index": kind, "way": way} | campaign(folder, rounds, random.Random(number))
                results.append(found)
                print(json.dumps(found), flush=True)
    if arguments.folder is None:
        where = {"command": "python benchmarks/memory_campaign.py", **provenance()}
        RESULTS.write_text(json.dumps(where | {"rounds": results}, indent=2) + "\n")
    raise SystemExit(any(row["lost"] for row in results))


if __name__ == "__main__":
    main()

"""Kills and interrupts of a memory that is being written to: what was acknowledged has to be there, and nothing half.

    python benchmarks/memory_campaign.py                500 rounds of each, over all index types
    python benchmarks/memory_campaign.py --rounds 4     to see that it works

Each round forks a writer that goes on from the folder of the round before. In a round of "kill" it gets SIGKILL at a
random moment. In a round of "interrupt" it gets SIGINT at random moments, goes on after each, and compares its memory
with its file. A second memory without a folder says what each operation makes of the first. Prints one JSON object for
each index type and way; results of the whole campaign go to benchmarks/results/memory_campaign.json.
"""

import argparse
import json
import os
import random
import signal
import tempfile
import time
from pathlib import Path
from typing import Any

import faiss  # noqa: F401  # so that forked writers have it
import numpy as np

from frugal.memory import AssociativeMemory
from frugal.memory.store import Text

RESULTS = Path(__file__).parent / "results" / "memory_campaign.json"
KINDS = ("exact", "flat", "ivf", "compressed", "graph", "auto")
DIM, CAPACITY = 8, 3_000
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


def once(*_: Any) -> None:
    """Interrupt, and take no more while the memory is looked at."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    raise KeyboardInterrupt


def interrupted(folder: Path, pipe: int, seed: int) -> None:
    """Act for a while; after each interrupt the memory has to be as before the operation or as after it."""
    memory = AssociativeMemory.open(folder)
    until, step = time.monotonic() + 0.5, 0
    while time.monotonic() < until:
        ahead, hit, step = AssociativeMemory.load(folder), False, step + 1
        allowed = {contents(ahead)}
        act(ahead, np.random.default_rng([seed, step]))
        allowed.add(contents(ahead))
        try:
            signal.signal(signal.SIGINT, once)
            act(memory, np.random.default_rng([seed, step]))
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        except KeyboardInterrupt:
            hit = True
        right = contents(memory) in allowed and len(np.unique(memory.ids())) == len(memory)
        if hit or not right:
            os.write(pipe, b"right\n" if right and in_order(memory, folder) else b"wrong\n")
    memory.close()


def child(work: Any, folder: Path, seed: int, strike: Any) -> list[str]:
    """Run `work` in a fork, strike it, and give what it has said."""
    reading, writing = os.pipe()
    process = os.fork()
    if process == 0:
        os.close(reading)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            work(folder, writing, seed)
            os._exit(0)
        except BaseException as error:
            os.write(writing, f"failed {error!r}\n".replace(" ", "_").encode())
            os._exit(1)
    os.close(writing)
    strike(process)
    with os.fdopen(reading) as pipe:
        said = pipe.read().split()
    os.waitpid(process, 0)
    return said


def kill_rounds(folder: Path, rounds: int, chance: random.Random) -> dict[str, int]:
    state, acknowledged, lost = contents(AssociativeMemory.load(folder)), 0, 0

    def strike(process: int) -> None:
        time.sleep(0.05 + 0.25 * chance.random())
        os.kill(process, signal.SIGKILL)

    for number in range(rounds):
        said = child(write, folder, number, strike)
        announced = [int(word) for word in said if word.lstrip("-").isdigit()]
        done = said.count("done")
        acknowledged += done
        allowed = {announced[done - 1] if done else state, *announced[done:]}
        memory = AssociativeMemory.load(folder)
        state = contents(memory)
        lost += state not in allowed or not in_order(memory, folder) or any(word.startswith("failed") for word in said)
    return {"rounds": rounds, "acknowledged": acknowledged, "lost": lost}


def interrupt_rounds(folder: Path, rounds: int, chance: random.Random) -> dict[str, int]:
    struck, lost = 0, 0

    def strike(process: int) -> None:
        time.sleep(0.15)
        for _ in range(8):
            time.sleep(0.04 * chance.random())
            try:
                os.kill(process, signal.SIGINT)
            except ProcessLookupError:
                return

    for number in range(rounds):
        said = child(interrupted, folder, number, strike)
        struck += said.count("right") + said.count("wrong")
        lost += said.count("wrong") + any(word.startswith("failed") and "Keyboard" not in word for word in said)
        memory = AssociativeMemory.load(folder)
        lost += not in_order(memory, folder)
    return {"rounds": rounds, "interrupts": struck, "lost": lost}


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
        RESULTS.write_text(json.dumps(results, indent=2) + "\n")
    raise SystemExit(any(row["lost"] for row in results))


if __name__ == "__main__":
    main()

"""Sweeps whose processes are killed with `kill -9` at random: is any run lost, counted twice, or reported done wrongly?

    python benchmarks/sweep_kills.py --kills 60 --seed 0    about 20 minutes on two busy cores
    python benchmarks/sweep_kills.py --kills 5              to see that it works; nothing is written

A small notebook is swept over a grid four times, in turn on three worker pools and on this machine alone. Each pool is
in a network namespace with an address of its own, from which only the driver's address can be reached. During each
sweep a quarter of the kills hit drivers, pools (Parsl's managers), workers, kernels and Parsl's interchange; a driver
that ended is started again at once, beside whatever the old one left running. Then the sweep runs to its end. Its table
must be that of a sweep without kills. Everything happens inside namespaces of its own (`unshare` of util-linux and `ip`
of iproute2, Linux), so that no process escapes the count. Results go to benchmarks/results/sweep_kills.json; the exit
code is 1 if anything was wrong.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import yaml
from nbformat import write
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from frugal.files import write_text
from frugal.lab.pages.notebooks import read_notebook
from frugal.lab.pages.records import read_records

RESULTS = Path(__file__).parent / "results" / "sweep_kills.json"
KINDS = ("driver", "pool", "worker", "kernel", "interchange")
POOLS, ROUNDS = 3, 4
GRID: dict[str, list[float]] = {"x": [0.0, 1.0, 2.0, 3.0, 4.0, 5.0], "n": [1, 2, 3, 4]}
PARAMETERS = "x: float = 0.0  # where\nn: int = 1  # how many\nseconds: float = 1.0  # that it takes"
CODE = """\
import time
from frugal.lab import record, report_progress
for step in range(5):
    time.sleep(seconds / 5)
    report_progress(step, x / (step + 1))
record(loss=10 * x + n)"""
# A block of workers moves into the namespace that its number says before it does anything else.
MOVE = """\
if [ -z "$POOL" ]; then
    BLOCK=${0##*block-}
    export POOL=$((${BLOCK%%.*} % POOLS))
    exec ip netns exec pool$POOL bash "$0"
fi"""
# Users, networks, mounts and processes of its own, all of which end with it.
UNSHARE = ["unshare", "-rnmpf", "--kill-child", "--mount-proc"]
REAPER = ["bash", "-c", '"$@"; exit $?', "bash"]  # as the first process of its namespace it reaps the others


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if not arguments.inside:
        raise SystemExit(subprocess.call([*UNSHARE, *REAPER, sys.executable, *sys.argv, "--inside"]))
    make_networks()
    with tempfile.TemporaryDirectory() as folder:
        found = battery(Path(folder), arguments.kills, random.Random(arguments.seed))
    found = {"seed": arguments.seed, **found}
    print(json.dumps(found, indent=2))
    if arguments.kills >= 50:
        write_text(RESULTS, json.dumps(found, indent=2) + "\n")
    raise SystemExit(1 if found["faults"] else 0)


def make_networks() -> None:
    """One network namespace per pool, all on one bridge; the driver is 10.77.0.1, the pools 10.77.0.10 onwards."""
    commands = ["ip link set lo up", "mount -t tmpfs none /run", "mkdir /run/netns", "ip link add br0 type bridge"]
    commands += ["ip addr add 10.77.0.1/24 dev br0", "ip link set br0 up"]
    for i in range(POOLS):
        commands += [f"ip netns add pool{i}", f"ip link add v{i} type veth peer name eth0 netns pool{i}"]
        commands += [f"ip link set v{i} master br0 up", f"ip -n pool{i} link set lo up"]
        commands += [f"ip -n pool{i} addr add 10.77.0.{10 + i}/24 dev eth0", f"ip -n pool{i} link set eth0 up"]
    for command in commands:
        subprocess.run(command.split(), check=True)


def battery(folder: Path, kills: int, rng: random.Random) -> dict[str, Any]:
    """Sweep after sweep until the kills are used up; gives counts and whatever was wrong."""
    begun = time.monotonic()
    make_sweep(folder)
    undisturbed = Round(folder, "undisturbed", "local")
    undisturbed.finish()
    expected = undisturbed.table()
    deck: list[str] = []
    rounds, left = [undisturbed], kills
    while left > 0:
        each = Round(folder, f"round{len(rounds)}", "pools" if len(rounds) % 2 else "local")
        rounds.append(each)
        while left > 0 and each.kills.total() < kills / ROUNDS and each.goes_on():
            deck = deck or rng.sample(KINDS, len(KINDS))
            each.wait(rng.uniform(1, 8))
            if each.kill(deck[-1], rng):
                deck.pop()
                left -= 1
            else:
                rng.shuffle(deck)
        each.finish()
        if each.table() != expected:
            each.faults.append("its table is not that of the undisturbed sweep")
        print(each.name, each.site, dict(each.kills), f"{each.starts} starts", each.faults, flush=True)
    orphans = seconds_until_alone(limit=90)
    faults = [f"{each.name}: {fault}" for each in rounds for fault in each.faults]
    faults += ["processes were left running"] if orphans is None else []
    return {
        "kills": dict(sum((each.kills for each in rounds), Counter())),
        "busy_workers_killed": sum(each.busy for each in rounds),
        "sweeps": {site: sum(each.site == site for each in rounds[1:]) for site in ("local", "pools")},
        "points_per_sweep": len(expected),
        "driver_starts": sum(each.starts for each in rounds[1:]),
        "seconds_outliving_a_driver": max((each.longest for each in rounds), default=0.0),
        "seconds": round(time.monotonic() - begun),
        "faults": faults,
    }


def make_sweep(folder: Path) -> None:
    cells = [new_markdown_cell("# Toy"), new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]})]
    write(new_notebook(cells=[*cells, new_code_cell(CODE)]), folder / "toy.ipynb")
    sweep = {"notebook": "toy.ipynb", "search": GRID, "objective": {"record": "loss", "direction": "minimise"}}
    (folder / "toy.yaml").write_text(yaml.safe_dump(sweep))
    blocks = {"init_blocks": POOLS, "min_blocks": POOLS, "max_blocks": POOLS}
    site = {
        "options": {**blocks, "worker_init": MOVE.replace("POOLS", str(POOLS))},
        "workers": 1,
        "address": "10.77.0.1",
    }
    (folder / "pools.yaml").write_text(yaml.safe_dump(site))


class Round:
    """One sweep in a reports folder of its own, and what was seen of it."""

    def __init__(self, folder: Path, name: str, site: str) -> None:
        self.folder, self.name, self.site = folder, name, site
        self.root = folder / name / "sweeps" / "toy"
        self.kills, self.faults, self.busy, self.starts = Counter[str](), list[str](), 0, 0
        self.done: dict[str, int] = {}  # inode of a finished run's status: it must not change any more
        self.left_over: dict[psutil.Process, float] = {}  # when its driver died
        self.longest = 0.0
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-c", "from frugal.lab.live.cli import main; main()", "sweep", "toy.yaml"]
        command += ["--reports", self.name, *(["--site", "pools.yaml"] if self.site == "pools" else ["--workers", "2"])]
        for process in others():
            self.left_over.setdefault(process, time.monotonic())
        with open(self.folder / f"{self.name}.log", "a") as log:
            self.driver = subprocess.Popen(command, cwd=self.folder, stdout=log, stderr=log)
        self.starts += 1

    def goes_on(self) -> bool:
        """Whether there is something left to kill; a driver that ended is started again."""
        if self.driver.poll() not in (None, 0):
            self.start()
        return self.driver.returncode is None

    def wait(self, seconds: float) -> None:
        """Let the sweep go on for a while, or until the driver ends, and look at what it says."""
        until = time.monotonic() + seconds
        while time.monotonic() < until and self.driver.poll() is None:
            time.sleep(0.2)
            self.look()

    def kill(self, kind: str, rng: random.Random) -> bool:
        """Kill a process of this kind; whether there was one."""
        found = [process for process in others() if kind_of(process, self.driver.pid) == kind]
        if not found or self.driver.poll() is not None:
            return False
        process = rng.choice(sorted(found, key=lambda each: each.pid))
        try:
            busy = kind == "worker" and bool(process.children())
            process.kill()
        except psutil.NoSuchProcess:
            return False
        if kind in ("driver", "interchange"):
            self.ends(300)  # the driver must notice that it cannot reach its workers
        self.kills[kind] += 1
        self.busy += busy
        print(f"{time.strftime('%X')} {self.name}: killed {kind}, {len(self.done)} runs finished", flush=True)
        return True

    def ends(self, limit: float) -> bool:
        """Wait for the driver's end; one that does not come is a fault, and is brought about."""
        until = time.monotonic() + limit
        while self.driver.poll() is None and time.monotonic() < until:
            self.wait(1)
        if self.driver.poll() is None:
            self.faults.append(f"the driver hung for {limit:.0f} s")
            self.driver.kill()
        return self.driver.wait() == 0

    def finish(self) -> None:
        """Undisturbed to the end: started again until every point is complete, and then once more."""
        for _ in range(20):
            if self.ends(900) and {row[2] for row in self.table()} == {"complete"}:
                break
            self.start()
        if seconds_until_alone(limit=90) is None:
            self.faults.append(f"left running: {[each.name() for each in others()]}")
        self.start()
        if not self.ends(300):
            self.faults.append("the last start failed")
        self.look()
        self.check()

    def look(self) -> None:
        """What is finished is whole, right and never done again; what a dead driver left ends by itself."""
        for path in self.root.glob("[0-9a-f]*/status.json"):
            try:
                status, inode = json.loads(path.read_text()), path.stat().st_ino
            except FileNotFoundError:
                continue  # replaced between the listing and the reading
            if status["status"] in ("killed", "interrupted") or self.done.get(path.parent.name) == inode:
                continue
            if path.parent.name in self.done:
                self.faults.append(f"a finished run was done again: {path.parent.name}")
            self.done[path.parent.name] = inode
            if status["status"] != "done":
                self.faults.append(f"a run is {status['status']}: {status['error']}")
            elif not is_right(path.parent, status["parameters"]):
                self.faults.append(f"reported done without the right record: {path.parent.name}")
        for process, since in list(self.left_over.items()):
            if process.is_running():
                self.longest = max(self.longest, round(time.monotonic() - since, 1))
            else:
                del self.left_over[process]

    def table(self) -> list[Any]:
        """Values, objective and state of each point, in order of the values."""
        rows = json.loads((self.root / "sweep.json").read_text())["points"]
        return sorted((row["values"]["x"], row["values"]["n"], row["state"], row["value"]) for row in rows)

    def check(self) -> None:
        rows = json.loads((self.root / "sweep.json").read_text())["points"]
        folders = [name for row in rows for name in row["runs"]]
        if [row[:2] for row in self.table()] != sorted((x, n) for x in GRID["x"] for n in GRID["n"]):
            self.faults.append("a point is missing or counted twice")
        if sorted(folders) != sorted(self.done):
            self.faults.append("the table and the run folders do not agree")
        if left := [path.name for path in self.root.iterdir() if path.is_dir() and path.name.startswith(".")]:
            self.faults.append(f"temporary folders were left: {left}")


def is_right(folder: Path, parameters: dict[str, Any]) -> bool:
    """Whether an executed notebook holds the record that its parameters must lead to, and has a report."""
    records = read_records(read_notebook(folder / "notebook.ipynb"))
    return records == {"loss": 10 * parameters["x"] + parameters["n"]} and (folder / "report.html").stat().st_size > 0


def others() -> Iterator[psutil.Process]:
    """The processes of this namespace but its first, this one, and the dead."""
    for process in psutil.process_iter(["status"]):
        if process.pid not in (1, os.getpid()) and process.info["status"] not in (None, psutil.STATUS_ZOMBIE):
            yield process


def kind_of(process: psutil.Process, driver: int) -> str | None:
    if process.pid == driver:
        return "driver"
    try:
        command, parent = " ".join(process.cmdline()), process.parent()
        if "ipykernel_launcher" in command or "multiprocessing.forkserver" in command:
            return "kernel"
        if "process_worker_pool.py" in command and "bash" not in command:
            return "pool"
        if "spawn_main" in command and parent is not None and "process_worker_pool.py" in " ".join(parent.cmdline()):
            return "worker" if process != helper_of(parent) else None
        return "interchange" if "interchange" in command else None
    except psutil.Error:  # it ended just now
        return None


def helper_of(pool: psutil.Process) -> psutil.Process:
    """The process that a pool starts before its workers, which share a table that it keeps."""
    children = [each for each in pool.children() if "spawn_main" in " ".join(each.cmdline())]
    return min(children, key=psutil.Process.create_time)


def seconds_until_alone(limit: float) -> float | None:
    """Until no other process is left; None if some stay."""
    begun = time.monotonic()
    while time.monotonic() - begun < limit:
        if not list(others()):
            return time.monotonic() - begun
        time.sleep(0.5)
    return None


if __name__ == "__main__":
    main()

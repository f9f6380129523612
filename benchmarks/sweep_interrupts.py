"""Ctrl-C in the terminal of a sweep, again and again: does it end at once, with exit code 130 and nothing left?

    python benchmarks/sweep_interrupts.py --times 20 --seed 0    about 10 minutes on two idle cores
    python benchmarks/sweep_interrupts.py --times 2              to see that it works; nothing is written

The small sweep of sweep_kills.py is started in a pseudo-terminal, whose Ctrl-C reaches all processes of its foreground
group, at a random moment: in turn while it begins, while its workers start, and while runs go on. It is started again
each time, and at the end it runs undisturbed: its table must be whole. Results go to
benchmarks/results/sweep_interrupts.json; the exit code is 1 if an interrupt took longer than two seconds or anything
was wrong.
"""

import argparse
import contextlib
import json
import os
import pty
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import psutil
from sweep_kills import GRID, make_sweep

from frugal.files import write_text
from frugal.lab.run.provenance import provenance

RESULTS = Path(__file__).parent / "results" / "sweep_interrupts.json"
COMMAND = ["-m", "frugal", "sweep", "toy.yaml", "--reports", "reports"]
MARK = "FRUGAL_INTERRUPTED"  # in the environment of all that a sweep starts
LIMIT, PATIENCE = 2.0, 300.0  # seconds
# What has to be there, besides the sweep itself, before the moment is drawn: a word of a process's command.
PHASES = {"it begins": None, "its workers start": "switchboard", "runs go on": "forkserver"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as folder:
        make_sweep(Path(folder))
        rows = []
        for number in range(arguments.times):
            rows.append(interrupted(Path(folder), list(PHASES)[number % len(PHASES)], rng))
            print(json.dumps(rows[-1]), flush=True)
        faults = faults_of(rows) + faults_of_table(Path(folder))
    about = {key: value for key, value in provenance().items() if key in ("commit", "clean", "machine")}
    found = {"seed": arguments.seed, **about, "interrupts": rows, "faults": faults}
    print(faults or "no fault")
    if arguments.times >= 20:
        write_text(RESULTS, json.dumps(found, indent=2) + "\n")
    raise SystemExit(1 if faults else 0)


def interrupted(folder: Path, phase: str, rng: random.Random) -> dict[str, Any]:
    """Start the sweep in a terminal, press Ctrl-C at a moment in this phase, and see what comes of it."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(folder)
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # as a job in a shell's background this script ignores it
        os.environ[MARK] = str(folder)
        os.execv(sys.executable, [sys.executable, *COMMAND])
    reader = threading.Thread(target=drain, args=(terminal,), daemon=True)
    reader.start()
    wait_for(PHASES[phase], folder)
    time.sleep(rng.uniform(0, 5))
    seen = {"while": phase, "processes": len(family(folder)), "load": round(os.getloadavg()[0], 1)}
    begun = time.monotonic()
    os.write(terminal, b"\x03")
    code = ending(pid, begun + PATIENCE)
    seconds = round(time.monotonic() - begun, 2)
    left = [each.name() for each in family(folder)]
    os.close(terminal)
    return {**seen, "seconds": seconds, "code": code, "left": left}


def wait_for(word: str | None, folder: Path) -> None:
    """Until a process of the sweep has this word in its command."""
    deadline = time.monotonic() + PATIENCE
    while word and time.monotonic() < deadline:
        for process in family(folder):
            with contextlib.suppress(psutil.Error):
                if word in " ".join(process.cmdline()):
                    return
        time.sleep(0.2)


def drain(terminal: int) -> None:
    """Read what the terminal shows, so that nobody waits for room in it."""
    try:
        while os.read(terminal, 65536):
            pass
    except OSError:  # its other end is closed
        return


def ending(pid: int, deadline: float) -> int | None:
    """The exit code as a shell tells it; None for a process that had to be killed after all."""
    while time.monotonic() < deadline:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            code = os.waitstatus_to_exitcode(status)
            return 128 - code if code < 0 else code
        time.sleep(0.01)
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    return None


def family(folder: Path) -> list[psutil.Process]:
    """All living processes that a sweep in this folder started, and itself."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.status() != psutil.STATUS_ZOMBIE and process.environ().get(MARK) == str(folder):
                found.append(process)
        except psutil.Error:
            continue
    return found


def faults_of(rows: list[dict[str, Any]]) -> list[str]:
    faults = [f"exit code {row['code']}" for row in rows if row["code"] != 130]
    faults += [f"{row['seconds']} s" for row in rows if row["seconds"] > LIMIT]
    return faults + [f"left running: {row['left']}" for row in rows if row["left"]]


def faults_of_table(folder: Path) -> list[str]:
    """Run the sweep to its end: every point is there once, with the value that it must have."""
    subprocess.run([sys.executable, *COMMAND], cwd=folder, check=True)
    rows = json.loads((folder / "reports" / "sweeps" / "toy" / "sweep.json").read_text())["points"]
    found = sorted((row["values"]["x"], row["values"]["n"], row["value"]) for row in rows)
    expected = sorted((x, n, 10 * x + n) for x in GRID["x"] for n in GRID["n"])
    return [] if found == expected else ["the table is not that of an undisturbed sweep"]


if __name__ == "__main__":
    main()

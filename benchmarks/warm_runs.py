"""What a run costs before its notebook does anything: papermill, a fresh kernel, and a kernel that is forked warm.

    python benchmarks/warm_runs.py            seven runs of each kind, about three minutes of one core
    python benchmarks/warm_runs.py --runs 1   half a minute, nothing written

Processor and wall seconds per run from the parameters to the notebook, and for ours the report, in a process that has
done a run before; medians. For warm runs the first, which starts the fork server, is given by itself. One thread.
Results go to benchmarks/results/warm_runs.json.
"""

import argparse
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import nbformat
import papermill
import psutil
from nbformat.v4 import new_code_cell, new_notebook

from frugal.files import write_text
from frugal.lab.run.execution import carry_out, plan_run
from frugal.lab.run.provenance import machine, versions

RESULTS = Path(__file__).parent / "results" / "warm_runs.json"
NOTEBOOKS = {
    "empty": "pass",
    "transformers, torch and frugal": (
        "import torch\nfrom transformers import AutoModelForCausalLM, AutoTokenizer, GPT2LMHeadModel\n"
        "from frugal.foundation import load_foundation\nfrom frugal.readout import EchoLanguageModel"
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=7)
    runs = parser.parse_args().runs
    os.environ["OMP_NUM_THREADS"] = "1"
    table = []
    with TemporaryDirectory() as folder:
        for name, code in NOTEBOOKS.items():
            table += compare(name, write_notebook(Path(folder) / f"{name}.ipynb", code), runs)
    if runs > 1:
        about = {"versions": versions(), "machine": machine(), "runs": runs, "rows": table}
        write_text(RESULTS, json.dumps(about, indent=2) + "\n")


def write_notebook(path: Path, code: str) -> Path:
    parameters = new_code_cell("n: int = 0  # a number", metadata={"tags": ["parameters"]})
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(new_notebook(cells=[parameters, new_code_cell(code)], metadata={"kernelspec": kernel}), path)
    return path


def compare(name: str, path: Path, runs: int) -> list[dict[str, Any]]:
    """A row per way to run the notebook."""
    ways: dict[str, Callable[[], object]] = {
        "papermill": lambda: papermill.execute_notebook(
            path, path.with_name("papermill.ipynb"), {"n": 1}, progress_bar=False
        ),
        "cold": lambda: done(path, warm=False),
        "warm": lambda: done(path, warm=True),
    }
    rows = []
    for way, run in ways.items():
        first, *others = [cost(run) for _ in range(runs + 1)]
        row = {"notebook": name, "way": way, "first": first}
        row |= {unit: median(each[unit] for each in others) for unit in first}
        rows.append(row)
        ratio = rows[0]["processor seconds"] / row["processor seconds"]
        print(f"{name}, {way}: {row['processor seconds']:.3f} CPU-s, 1/{ratio:.1f} of papermill's", flush=True)
    return rows


def done(path: Path, warm: bool) -> None:
    result = carry_out(plan_run(path, {"n": 1}), reports=path.parent, warm=warm)
    assert result.status == "done", result.error


def cost(run: Callable[[], object]) -> dict[str, float]:
    """Seconds of this process, of its children that have ended, and of all that its fork server and its kernels use."""
    begun, before = time.monotonic(), processor_seconds()
    run()
    time.sleep(0.5)  # for the kernel to be reaped
    return {"processor seconds": processor_seconds() - before, "wall seconds": time.monotonic() - begun - 0.5}


def processor_seconds() -> float:
    processes = [psutil.Process(), *psutil.Process().children()]
    return sum(sum(process.cpu_times()[:4]) for process in processes)


if __name__ == "__main__":
    main()

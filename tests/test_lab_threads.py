"""A run computes with one thread unless somebody asks for more, and says with how many."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from bs4 import BeautifulSoup

from frugal.lab.run.threads import kernel_environment
from frugal.lab.sweep.pool import Site, _provider
from made_notebooks import make_notebook

COUNT = """\
import faiss, numba, torch
print({torch.get_num_threads(), numba.get_num_threads(), faiss.omp_get_max_threads()})"""


def frugal_run(tmp_path: Path, *words: str, **variables: str) -> tuple[str, dict[str, Any], str]:
    """What the notebook printed, what is known of the run, and its report's text."""
    path = make_notebook(tmp_path / "a.ipynb", COUNT)
    environment = {name: value for name, value in os.environ.items() if "NUM_THREADS" not in name}
    command = [sys.executable, "-c", "from frugal.lab.live.cli import main; main()", "run", path, *words]
    command += ["--reports", tmp_path]
    done = subprocess.run(command, env=environment | variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (folder,) = tmp_path.glob("runs/a/*")
    cells = json.loads((folder / "notebook.ipynb").read_text())["cells"]
    text = "".join(part for cell in cells for output in cell.get("outputs", []) for part in output.get("text", []))
    report = BeautifulSoup((folder / "report.html").read_text(), "html.parser").get_text()
    return text.strip(), json.loads((folder / "status.json").read_text()), report


@pytest.mark.parametrize(
    ("words", "variables", "threads"),
    [((), {}, "1"), (("--threads", "2"), {"OMP_NUM_THREADS": "1"}, "2")],
)
def test_every_library_computes_with_as_many_threads_as_the_run_says(
    tmp_path: Path, words: tuple[str, ...], variables: dict[str, str], threads: str
) -> None:
    printed, about, report = frugal_run(tmp_path, *words, **variables)
    assert printed == f"{{{threads}}}"
    assert about["machine"]["threads"] == threads
    assert f"threads: {threads}" in report
    assert ("--threads 2" in about["command"]) == (threads == "2")


def test_what_the_user_has_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv("NUMBA_NUM_THREADS", "3")
    assert kernel_environment() == {**os.environ, "OMP_NUM_THREADS": "1"}
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert kernel_environment() == {**os.environ}


def test_a_sweeps_workers_compute_with_one_thread_or_as_many_as_the_driver_was_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert "OMP_NUM_THREADS=1;" in _provider(Site()).worker_init
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert "OMP_NUM_THREADS=2;" in _provider(Site()).worker_init

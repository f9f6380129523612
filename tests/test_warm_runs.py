"""A kernel forked from a process that has done the imports is like one that does them itself."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import nbformat
import psutil
import pytest
from nbconvert.preprocessors import CoalesceStreamsPreprocessor

from frugal.lab.run import engine, warm
from frugal.lab.run.execution import RunResult, carry_out, plan_run
from made_notebooks import make_notebook
from test_lab_run import cell_statuses, printed, status, strike_once_there


@pytest.fixture(autouse=True)
def _one_fork_server_for_several_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warm, "surroundings", dict)  # pytest names the test in a variable of the environment


def run(
    path: Path, *, warm: bool = True, timeout: float | None = None, given: dict[str, Any] | None = None
) -> RunResult:
    return carry_out(plan_run(path, given), timeout, path.parent / "reports", warm=warm)


def told(result: RunResult) -> list[str]:
    """All that a run's notebook says, but for times, names drawn at random and process numbers."""
    read = nbformat.read(result.notebook, as_version=4)
    # A busy machine cuts what a cell prints into several outputs.
    notebook = json.loads(nbformat.writes(CoalesceStreamsPreprocessor().preprocess(read, {})[0]))
    volatile = {
        "started",
        "seconds",
        "peak_memory_mb",
        "start_time",
        "end_time",
        "duration",
        "id",
        "commit",
        "clean",
        "layout",
        "model_id",
    }

    def without(value: Any) -> Any:
        if isinstance(value, dict):
            value = {key: each for key, each in value.items() if not key.startswith(("iopub.", "shell."))}
            return {key: None if key in volatile else without(each) for key, each in value.items()}
        if isinstance(value, list):
            return [without(each) for each in value]
        return re.sub(r"ipykernel_\d+|0x[0-9a-f]+", "", value) if isinstance(value, str) else value

    notebook["metadata"].pop("widgets", None)
    return json.dumps(without(notebook), indent=1).splitlines()


IMPORTS = """\
import logging, os, random, sys, warnings
import noisy
import numpy as np
from matplotlib import pyplot as plt
from tqdm.auto import tqdm
from frugal.lab import record, show"""
CELLS = [
    "noisy.log.warning('the logger has kept a stream'); print('a'); print('b', file=sys.stderr); os.system('echo c')",
    "random.seed(n); np.random.seed(n)\nprint(random.random(), np.random.rand(), np.random.default_rng(n).random())",
    "figure, axis = plt.subplots(figsize=(2, 1)); axis.plot([1, 2]); plt.show()",
    "plt.plot([n, 2]);",
    "show(figure, 'A caption', 'alt'); record(loss=0.25, rows=[{'a': 1}])",
    "print(__name__, len(sys.argv), sys.argv[0], sys.path, os.getcwd(), sorted(globals()))",
    "print(sorted(set(os.environ) - {'JPY_PARENT_PID'}), tqdm, plt.get_backend(), os.getpgrp() == os.getpid())",
    "for _ in tqdm(range(3)): pass",
    "warnings.warn('careful')\nget_ipython().run_line_magic('who', '')\nIn[-1]",
    "import signal, threading\nprint([signal.getsignal(each) for each in (2, 15, 17)], threading.active_count())",
    "def f():\n    return noisy.fails()\nf()",
]


def test_a_warm_run_tells_what_a_cold_one_tells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    module = "import logging, sys\nlog = logging.getLogger('noisy')\nlog.addHandler(logging.StreamHandler(sys.stderr))"
    (tmp_path / "noisy.py").write_text(module + "\ndef fails():\n    raise ValueError('no')\n")
    path = make_notebook(tmp_path / "a.ipynb", IMPORTS, *CELLS)
    cold, forked = run(path, warm=False, given={"n": 2}), run(path, given={"n": 2})
    assert warm.server_for(plan_run(path).notebook) is not None
    assert "no" in str(cold.error)
    assert told(forked) == told(cold)


STRAY = """\
import os, random
import numpy as np
before = (np.random.rand(), random.random(), sorted(vars(random)), os.environ.get('STRAY'), os.getcwd())
print(before)
random.stray = np.random = 1
os.environ['STRAY'] = 'x'
os.chdir('/')"""


def test_a_run_leaves_nothing_to_the_next(tmp_path: Path):
    path = make_notebook(tmp_path / "a.ipynb", STRAY)
    first, second = printed(run(path)), printed(run(path))
    assert first.split()[2:] == second.split()[2:]
    assert not set(first.split()[:2]) & set(second.split()[:2])


def test_a_dead_kernel_is_no_success(tmp_path: Path):
    path = make_notebook(tmp_path / "a.ipynb", "print('before')", "import os; os._exit(7)", "print('after')")
    result = run(path)
    assert status(result)["error"] == "stopped in cell [3]: the kernel ended by itself with exit code 7"
    assert (result.status, cell_statuses(result)) == ("killed", ["completed", "failed", "pending"])
    assert printed(result) == "before\n"


def test_a_kernel_killed_from_outside_is_named_so(tmp_path: Path):
    result = run(make_notebook(tmp_path / "a.ipynb", "import os; os.kill(os.getpid(), 9)"))
    assert "the kernel was ended by SIGKILL, most often for want of memory" in status(result)["error"]
    assert result.status == "killed"


def test_a_run_whose_fork_server_is_killed_ends_and_the_next_one_finds_another(tmp_path: Path):
    path = make_notebook(
        tmp_path / "a.ipynb", "import os, time\nif n == 1:\n    os.kill(os.getppid(), 9)\n    time.sleep(600)"
    )
    kill = run(path, given={"n": 1})
    assert (kill.status, "SIGKILL" in str(kill.error)) == ("killed", True)
    assert run(path).status == "done"


def test_the_time_limit_ends_a_run_and_what_it_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    strike_once_there(tmp_path / "busy", monkeypatch)
    monkeypatch.setattr(engine, "GRACE_SECONDS", 3.0)
    start = "import subprocess, time; print(subprocess.Popen(['sleep', '600']).pid)"
    loop = "while True:\n    try:\n        time.sleep(60)\n    except KeyboardInterrupt:\n        print('no')"
    path = make_notebook(tmp_path / "a.ipynb", start, f"open('{tmp_path}/busy', 'w').close()\n{loop}")
    result = run(path, timeout=10)
    assert (status(result)["status"], cell_statuses(result)) == ("timeout", ["completed", "failed"])
    sleeper, answer = printed(result).split()
    assert answer == "no"
    assert not running(int(sleeper))


def test_sys_exit_is_no_success(tmp_path: Path):
    result = run(make_notebook(tmp_path / "a.ipynb", "import sys; sys.exit(0)", "print('after')"))
    assert status(result)["error"] == "stopped in cell [2] by sys.exit(0): the cells after it did not run"


def running(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def test_nothing_outlives_a_worker_that_is_killed(tmp_path: Path):
    cell = "import os, time; open('pids', 'w').write(f'{os.getpid()} {os.getppid()}'); os.rename('pids', 'all')"
    path = make_notebook(tmp_path / "a.ipynb", cell, "time.sleep(600)")
    code = "import sys; from test_warm_runs import *; run(Path(sys.argv[1]))"
    worker = subprocess.Popen([sys.executable, "-c", code, path], cwd=tmp_path, env=with_tests_on_path())
    while not (tmp_path / "all").exists():
        assert worker.poll() is None
        time.sleep(0.1)
    worker.kill()
    worker.wait()
    deadline = time.monotonic() + 300
    while any(running(int(pid)) for pid in (tmp_path / "all").read_text().split()):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def with_tests_on_path() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        ("print('hello')", "the imports print something"),
        ("import os; os.system('echo hello')", "the imports print something"),
        ("import missing_module", "the imports failed: ModuleNotFoundError"),
        ("import threading, time; threading.Thread(target=time.sleep, args=(60,), daemon=True).start()", "threads"),
    ],
)
def test_where_a_fork_might_differ_the_run_is_cold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code, problem):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "peculiar.py").write_text(code)
    assert problem in str(warm.ForkServer(["import peculiar"]).problem)


@pytest.mark.parametrize(
    ("cells", "imports"),
    [
        (
            ["'text'\nimport a, b as c\nfrom d import e", "import f"],
            ["import a, b as c", "from d import e", "import f"],
        ),
        (["import a\nx = a.b\nimport c"], ["import a"]),
        (["import os", "os.environ['X'] = '1'", "import a"], ["import os"]),
        (["%matplotlib inline\nimport a"], []),
        (["if True:\n    import a"], []),
    ],
)
def test_only_imports_before_all_other_code_are_done_ahead(tmp_path: Path, cells: list[str], imports: list[str]):
    notebook = nbformat.read(make_notebook(tmp_path / "a.ipynb", *cells), as_version=4)
    assert warm.first_imports(notebook) == imports

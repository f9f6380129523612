"""A run ends, says truthfully how, and keeps what it has."""

import asyncio
import json
import math
import os
import sys
import time
from pathlib import Path
from queue import Empty
from typing import Any

import nbformat
import psutil
import pytest
from jupyter_client.channels import AsyncZMQSocketChannel
from jupyter_client.kernelspec import KernelSpec

from frugal.errors import InputError
from frugal.lab.pages.records import read_records
from frugal.lab.run import engine
from frugal.lab.run.execution import RunResult, carry_out, plan_run
from made_notebooks import make_notebook


def run(path: Path, given: Any = None, profile: str = "default", timeout: float | None = None) -> RunResult:
    return carry_out(plan_run(path, given, profile), timeout, path.parent / "reports")


def cell_statuses(result: RunResult) -> list[str]:
    """What the notebook's file says of its code cells, without the parameters cell."""
    notebook = nbformat.read(result.notebook, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return [cell.metadata.papermill.status for cell in code[1:]]


def printed(result: RunResult) -> str:
    notebook = nbformat.read(result.notebook, as_version=4)
    return "".join(output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", []))


def status(result: RunResult) -> dict[str, Any]:
    """What the status file says, after checking that the notebook says the same."""
    about = json.loads((result.folder / "status.json").read_text())
    assert nbformat.read(result.notebook, as_version=4).metadata.frugal.run == about
    assert (about["status"], about["error"]) == (result.status, result.error)
    return about


@pytest.fixture
def no_kernel(monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object, **__: object) -> None:
        pytest.fail("a kernel was started")

    monkeypatch.setattr(engine.FrugalEngine, "execute_notebook", refuse)


@pytest.mark.usefixtures("no_kernel")
@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"given": {"nam": "a"}}, r"a\.ipynb: nam: unknown parameter; did you mean name\?"),
        ({"given": {"n": "1e3"}}, r"a\.ipynb: n='1e3': must be int"),
        ({"profile": "quick"}, r"a\.ipynb: profile='quick': must be one of"),
    ],
)
def test_a_wrong_request_is_refused_before_a_kernel_starts(tmp_path: Path, settings: dict[str, Any], complaint: str):
    path = make_notebook(tmp_path / "a.ipynb")
    with pytest.raises(InputError, match=complaint):
        run(path, **settings)
    assert [each.name for each in tmp_path.iterdir()] == ["a.ipynb"]


def test_a_run_tells_what_it_was_and_where_it_comes_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)  # a path given as a parameter is meant from here
    path = make_notebook(
        tmp_path / "a.ipynb",
        "import os, sys\nfrom frugal.lab import record\nprint(n, name, os.getcwd(), sys.executable)",
        "record(loss=0.5, curve=[{'z': 1, 'a': 2}])",
    )
    result = run(path, given={"name": "it's"}, profile="smoke")
    about = status(result)
    assert about["status"] == "done"
    assert printed(result).split() == ["1", "it's", str(here), os.sys.executable]
    assert about["parameters"] == {"n": 1, "name": "it's", "seed": 0}
    assert about["changed"] == ["n", "name"]
    assert (about["title"], about["notebook"], about["profile"], about["seed"]) == ("A title", "a", "smoke", 0)
    assert about["command"] == f"frugal run {path} -p name 'it'\"'\"'s' --profile smoke"
    assert about["peak_memory_mb"] > 10
    assert about["seconds"] == result.seconds > 0
    assert {"python", "frugal", "torch", "transformers"} <= about["versions"].keys()
    assert {"processor", "cores", "memory_gb", "system", "threads"} <= about["machine"].keys()
    assert read_records(result.notebook) == {"loss": 0.5, "curve": [{"z": 1, "a": 2}]}
    assert "A title" in result.report.read_text()
    assert sorted(each.name for each in result.folder.iterdir()) == ["notebook.ipynb", "report.html", "status.json"]
    assert nbformat.read(path, as_version=4).cells[2].outputs == []


def test_a_failing_cell_keeps_what_came_before_it(tmp_path: Path):
    path = make_notebook(tmp_path / "a.ipynb", "print('before')", "raise ValueError('no\\nway')", "print('after')")
    result = run(path)
    assert status(result)["error"] == "stopped in cell [3]: ValueError: no way"
    assert result.status == "failed"
    assert cell_statuses(result) == ["completed", "failed", "pending"]
    assert printed(result) == "before\n"
    assert "no\nway" in result.report.read_text()


def test_a_dead_kernel_is_no_success(tmp_path: Path):
    path = make_notebook(tmp_path / "a.ipynb", "print('before')", "import os; os._exit(7)", "print('after')")
    result = run(path)
    assert status(result)["error"] == "stopped in cell [3]: the kernel ended by itself with exit code 7"
    assert result.status == "killed"
    assert cell_statuses(result) == ["completed", "failed", "pending"]
    assert printed(result) == "before\n"


def test_a_kernel_killed_from_outside_is_named_so(tmp_path: Path):
    result = run(make_notebook(tmp_path / "a.ipynb", "import os; os.kill(os.getpid(), 9)"))
    assert "the kernel was ended by SIGKILL, most often for want of memory" in status(result)["error"]
    assert result.status == "killed"


def test_a_kernel_killed_while_it_starts_is_no_failure_of_the_notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    spec = KernelSpec(argv=["sh", "-c", "kill -9 $$"])
    monkeypatch.setattr(engine.ThisInterpreter, "kernel_spec", property(lambda _: spec))
    result = run(make_notebook(tmp_path / "a.ipynb", "1"))
    assert status(result)["error"].startswith("stopped before the first cell: ")
    assert result.status == "killed"


def test_sys_exit_is_no_success(tmp_path: Path):
    result = run(make_notebook(tmp_path / "a.ipynb", "import sys; sys.exit(0)", "print('after')"))
    assert status(result)["error"] == "stopped in cell [2] by sys.exit(0): the cells after it did not run"
    assert result.status == "failed"
    assert cell_statuses(result) == ["failed", "pending"]


def test_exit_is_no_success_either(tmp_path: Path):
    result = run(make_notebook(tmp_path / "a.ipynb", "exit()", "print('after')"))
    assert status(result)["error"] == "stopped in cell [2] by sys.exit(): the cells after it did not run"
    assert cell_statuses(result) == ["failed", "pending"]


def test_a_failing_cell_of_the_shell_fails_and_a_failing_line_does_not(tmp_path: Path):
    result = run(make_notebook(tmp_path / "a.ipynb", "!exit 3", "print(_exit_code)", "%%bash\nexit 3"))
    assert "CalledProcessError" in status(result)["error"]
    assert cell_statuses(result) == ["completed", "completed", "failed"]
    assert printed(result) == "3\n"


def test_asking_for_input_is_refused_at_once(tmp_path: Path):
    result = run(make_notebook(tmp_path / "a.ipynb", "input('name?')"))
    assert "StdinNotImplementedError" in status(result)["error"]


def test_what_a_run_holds_is_its_users_alone(tmp_path: Path):
    result = run(make_notebook(tmp_path / "a.ipynb"))
    assert result.folder.stat().st_mode & 0o777 == 0o700


def test_a_run_says_what_it_is_doing(tmp_path: Path):
    look = f"""
import json, time
from pathlib import Path
print("epoch 3")
deadline = time.monotonic() + 60
while time.monotonic() < deadline:
    (path,) = Path("{tmp_path}").glob("reports/runs/a/*/status.json")
    doing = json.loads(path.read_text()).get("doing", {{}})
    if doing.get("line"):
        break
    time.sleep(0.1)
assert doing == {{"cell": 3, "cells": 3, "section": "Second part", "line": "epoch 3"}}, doing"""
    path = make_notebook(tmp_path / "a.ipynb", "1", look)
    notebook = nbformat.read(path, as_version=4)
    notebook.cells.insert(3, nbformat.v4.new_markdown_cell("## Second *part*"))
    nbformat.write(notebook, path)
    result = run(path)
    assert (result.status, result.error) == ("done", None)


def test_the_time_limit_holds_for_the_whole_run_and_shows_where_it_struck(tmp_path: Path):
    start = run(make_notebook(tmp_path / "empty.ipynb")).seconds  # on a busy machine most of a short limit
    path = make_notebook(tmp_path / "a.ipynb", *["import time; time.sleep(2)"] * 300)
    limit = round(2 * start + 3) / 60
    result = run(path, timeout=limit)
    assert f"the run took longer than its {limit:.3g} minutes" in status(result)["error"]
    assert result.status == "timeout"
    statuses = cell_statuses(result)
    assert statuses.count("failed") == 1
    assert statuses[-1] == "pending"
    assert f"the run took longer than its {limit:.3g} minutes" in result.report.read_text()


def strike_once_there(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the time limit strike when a notebook makes this file, however long a busy machine takes until then."""
    struck = list[float]()

    def deadline(_: engine.KernelWatch) -> float:
        if not struck and path.exists():
            struck.append(time.monotonic())
        return struck[0] if struck else math.inf

    monkeypatch.setattr(engine.KernelWatch, "deadline", property(deadline, lambda *_: None), raising=False)


def test_a_cell_that_ignores_the_interrupt_is_killed_at_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    strike_once_there(tmp_path / "busy", monkeypatch)
    monkeypatch.setattr(engine, "GRACE_SECONDS", 1.0)
    loop = "while True:\n    try:\n        time.sleep(60)\n    except KeyboardInterrupt:\n        pass"
    path = make_notebook(tmp_path / "a.ipynb", f"import time\nopen('{tmp_path}/busy', 'w').close()\n{loop}")
    result = run(path, timeout=10)
    assert status(result)["status"] == "timeout"
    assert cell_statuses(result) == ["failed"]


def test_a_run_over_its_limit_is_a_timeout_also_where_a_cell_swallows_the_interrupt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    strike_once_there(tmp_path / "busy", monkeypatch)
    wait = "try:\n    time.sleep(60)\nexcept KeyboardInterrupt:\n    pass"
    path = make_notebook(tmp_path / "a.ipynb", f"import time\nopen('{tmp_path}/busy', 'w').close()\n{wait}", "print(1)")
    result = run(path, timeout=10)
    assert status(result)["status"] == "timeout"
    assert cell_statuses(result) == ["failed", "pending"]


def naming(kernel: str, path: Path) -> Path:
    """The notebook, which names this kernel."""
    notebook = nbformat.read(path, as_version=4)
    notebook.metadata.kernelspec = {"name": kernel, "display_name": kernel, "language": "python"}
    nbformat.write(notebook, path)
    return path


@pytest.fixture
def another_kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One more kernel of IPython that is installed, called "another"."""
    folder = tmp_path / "jupyter" / "kernels" / "another"
    folder.mkdir(parents=True)
    command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    spec = {"argv": command, "display_name": "Another", "language": "python"}
    (folder / "kernel.json").write_text(json.dumps(spec))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))


@pytest.mark.parametrize("kernel", ["python3", "another"])
@pytest.mark.usefixtures("another_kernel")
def test_fast_output_arrives_whole(tmp_path: Path, kernel: str):
    code = """\
import sys
from zmq import SNDHWM
from frugal.lab import record
for i in range(3000):
    if i % 500 == 0:
        record(**{f"step_{i}": i})
    sys.stdout.write("0" * 50)
    sys.stdout.flush()
record(limit=get_ipython().kernel.iopub_thread.socket.getsockopt(SNDHWM))"""
    result = run(naming(kernel, make_notebook(tmp_path / "a.ipynb", code)))
    assert (result.status, printed(result).count("0")) == ("done", 150_000)
    assert read_records(result.notebook) == {f"step_{i}": i for i in range(0, 3000, 500)} | {"limit": 0}


def test_an_output_that_no_notebook_can_hold_is_kept_as_text(tmp_path: Path):
    code = "display({'application/x-plot': {'a': 1}, 'image/png': None, 'text/plain': 'a plot'}, raw=True)\nprint('on')"
    result = run(make_notebook(tmp_path / "a.ipynb", code))
    assert (result.status, printed(result)) == ("done", "on\n")
    cells = nbformat.read(result.notebook, as_version=4).cells
    [shown] = [each for cell in cells for each in cell.get("outputs", []) if each.output_type == "display_data"]
    assert shown.data == {"application/x-plot": '{"a": 1}', "text/plain": "a plot"}


@pytest.mark.usefixtures("no_kernel")
def test_a_kernel_that_is_not_installed_is_refused_by_name(tmp_path: Path):
    path = naming("none-such", make_notebook(tmp_path / "a.ipynb", "print(1)"))
    with pytest.raises(InputError, match=r"kernel 'none-such' .python. is not installed; there are: .*python3"):
        run(path)


def test_what_a_notebook_left_running_is_ended(tmp_path: Path):
    path = make_notebook(tmp_path / "a.ipynb", "import subprocess; print(subprocess.Popen(['sleep', '600']).pid)")
    result = run(path)
    assert result.status == "done"
    pid = int(printed(result))
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_values_of_an_earlier_run_do_not_linger(tmp_path: Path):
    path = make_notebook(tmp_path / "a.ipynb", "print(n)")
    earlier = run(path, given={"n": 5})
    assert printed(run(earlier.notebook)) == "3\n"


def test_the_notebook_on_disk_is_whole_at_every_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    # The notebook reads its own executed file while it runs: each save replaces the file.
    look = """
import glob, json
for _ in range(100):
    about = json.load(open(glob.glob('reports/runs/a/*/notebook.ipynb')[0]))['metadata']['frugal']['run']
    assert about['status'] == 'running'"""
    result = run(make_notebook(tmp_path / "a.ipynb", "print('many\\n' * 40_000)", *[look] * 3))
    assert result.status == "done", result.error


def test_output_widgets_do_not_hang_a_run(tmp_path: Path):
    cell = """
import ipywidgets
from IPython.display import display
output = ipywidgets.Output()
display(output)
for i in range(20):
    with output:
        print(i)
    output.clear_output()
ipywidgets.interact(lambda a: print(a), a=(0, 5));"""
    path = make_notebook(tmp_path / "a.ipynb", *[cell] * 3)
    assert [run(path, timeout=1).status for _ in range(3)] == ["done"] * 3


def test_the_channel_never_waits_without_limit(monkeypatch: pytest.MonkeyPatch):
    waits = []

    async def get_msg(_: object, timeout: float | None) -> str:
        waits.append(timeout)
        if len(waits) < 4:
            raise Empty
        return "reply"

    monkeypatch.setattr(AsyncZMQSocketChannel, "get_msg", get_msg)
    channel = engine.PollingChannel.__new__(engine.PollingChannel)
    assert asyncio.run(channel.get_msg(timeout=None)) == "reply"
    assert waits == [engine.POLL_SECONDS] * 4


def test_the_channel_gives_up_at_its_limit(monkeypatch: pytest.MonkeyPatch):
    async def get_msg(_: object, timeout: float) -> None:
        await asyncio.sleep(timeout)
        raise Empty

    monkeypatch.setattr(AsyncZMQSocketChannel, "get_msg", get_msg)
    monkeypatch.setattr(engine, "POLL_SECONDS", 0.01)
    channel = engine.PollingChannel.__new__(engine.PollingChannel)
    begun = time.monotonic()
    with pytest.raises(Empty):
        asyncio.run(channel.get_msg(timeout=0.05))
    assert time.monotonic() - begun >= 0.05

"""The `frugal` command as a user meets it: words and exit codes."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nbformat
import pandas
import pytest
from click.testing import CliRunner, Result

from executed_notebooks import code, recorded, save
from executed_notebooks import notebook as executed
from frugal.errors import InputError
from frugal.lab.live import cli
from frugal.lab.live.memory import opened
from frugal.lab.live.models import NOTEBOOK
from frugal.lab.run.execution import plan_run
from frugal.lab.run.identity import named_paths
from frugal.memory import NearestNeighbourLM
from made_notebooks import make_notebook
from models import Recurrent, characters


def frugal(*words: object) -> Result:
    return CliRunner().invoke(cli.main, [str(word) for word in words])


@pytest.fixture(autouse=True)
def signals_restored():
    handler = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, handler)


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("run", "{}/none.ipynb"), "no such notebook"),
        (("run", "{}/empty.ipynb"), "is empty"),
        (("run", "{}/a.ipynb", "-p", "nam", "3"), "did you mean name?"),
        (("run", "{}/a.ipynb", "-p", "n", "1e3"), "n='1e3': must be int"),
        (("run", "{}/a.ipynb", "-f", "{}/none.yaml"), "cannot be read as YAML"),
        (("run", "{}/bare.ipynb", "-p", "n", "3"), "bare.ipynb: n: unknown parameter; The notebook has: none"),
    ],
)
def test_bad_input_gives_one_sentence(tmp_path: Path, words: tuple[str, ...], complaint: str):
    make_notebook(tmp_path / "a.ipynb")
    (tmp_path / "empty.ipynb").touch()
    nbformat.write(nbformat.v4.new_notebook(), tmp_path / "bare.ipynb")
    result = frugal(*[word.format(tmp_path) for word in words], *(["--reports", tmp_path] * (words[0] == "run")))
    assert result.exit_code == 2
    assert result.stderr.startswith("frugal: error: ")
    assert complaint in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("number", "advice"), [(errno.ENOSPC, "make room"), (errno.EROFS, "that can be written to with --reports")]
)
def test_a_disk_that_takes_nothing_is_named_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, advice: str
):
    def refuse(_reports: Path) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(cli, "rebuild_index", refuse)
    result = frugal("index", "--reports", tmp_path)
    assert result.exit_code == 2
    assert os.strerror(number) in result.output
    assert advice in result.output


@pytest.mark.parametrize(
    "words", [("run",), ("run", "a", "-p", "n"), ("run", "a", "--profile", "quick"), ("run", "a", "--timeout", "0")]
)
def test_a_wrong_use_is_explained(words: tuple[str, ...]):
    result = frugal(*words)
    assert result.exit_code == 2
    assert "Error: " in result.stderr


def test_parameters_are_shown(tmp_path: Path):
    result = frugal("parameters", make_notebook(tmp_path / "a.ipynb"))
    assert result.exit_code == 0
    assert "how many" in result.stdout


def test_the_command_line_wins_over_the_file_and_that_over_the_profile(tmp_path: Path):
    path = make_notebook(tmp_path / "a.ipynb", "print(n)")
    (tmp_path / "values.yaml").write_text("n: 20\nname: 007\nseed: 4\n")
    result = frugal(
        "run", path, "--profile", "smoke", "-f", tmp_path / "values.yaml", "-p", "seed", "5", "--reports", tmp_path
    )
    assert result.exit_code == 0, result.output
    (status,) = tmp_path.glob("runs/a/*/status.json")
    assert json.loads(status.read_text())["parameters"] == {"n": 20, "name": "007", "seed": 5}


def test_a_failed_run_is_reported_and_the_others_still_run(tmp_path: Path):
    bad = make_notebook(tmp_path / "bad.ipynb", "1 / 0")
    good = make_notebook(tmp_path / "good.ipynb", "1 / 1")
    result = frugal("run", bad, good, "--reports", tmp_path / "reports")
    assert result.exit_code == 1
    assert "bad: failed" in result.stdout
    assert "good: done" in result.stdout
    assert "ZeroDivisionError" in result.stderr
    assert len(list(tmp_path.glob("reports/runs/*/*/report.html"))) == 2
    index = (tmp_path / "reports" / "index.html").read_text()
    assert "runs/bad/" in index
    assert "runs/good/" in index


MEET = """
import time
from pathlib import Path
Path("{here}").touch()
deadline = time.monotonic() + 120
while not Path("{there}").exists():
    assert time.monotonic() < deadline, "the other one did not come"
    time.sleep(0.05)"""


def test_runs_go_side_by_side_and_what_brings_them_together_comes_last(tmp_path: Path):
    one = make_notebook(tmp_path / "one.ipynb", MEET.format(here=tmp_path / "1", there=tmp_path / "2"))
    two = make_notebook(tmp_path / "two.ipynb", MEET.format(here=tmp_path / "2", there=tmp_path / "1"))
    look = f"assert len(latest_records(Path('{tmp_path}'))) == 2"
    last = make_notebook(
        tmp_path / "all.ipynb", "from pathlib import Path\nfrom frugal.lab import latest_records", look
    )
    result = frugal("run", last, one, two, "--jobs", 2, "--reports", tmp_path)
    assert result.exit_code == 0, result.output
    assert [line.split(":")[0] for line in result.stdout.splitlines() if ": done" in line][-1] == "all"


def test_a_resumed_start_runs_only_what_is_not_done_with_this_code_and_these_texts(tmp_path: Path):
    text = tmp_path / "text.txt"
    text.write_text("one")
    good = make_notebook(tmp_path / "good.ipynb")
    flag = tmp_path / "flag"
    bad = make_notebook(tmp_path / "bad.ipynb", f"from pathlib import Path\nassert Path('{flag}').exists()")

    def started() -> list[str]:
        frugal("run", good, bad, "-p", "name", text, "--resume", "--reports", tmp_path)
        folders = {path.parent for path in tmp_path.glob("runs/*/*/status.json")}
        new = sorted(folder.parent.name for folder in folders - seen)
        seen.update(folders)
        return new

    seen: set[Path] = set()
    assert started() == ["bad", "good"]
    flag.touch()
    assert started() == ["bad"]
    assert started() == []
    text.write_text("two")
    assert started() == ["bad", "good"]


def test_an_empty_text_and_a_long_sentence_name_no_folder_that_could_have_changed():
    assert named_paths({"text": "", "texts": ["", "a" * 5000], "here": "."}) == [Path(".")]


def test_a_run_whose_process_is_killed_is_no_success_and_the_others_go_on(tmp_path: Path):
    kill = "import os, psutil, signal\npsutil.Process(os.getppid()).kill()\nimport time; time.sleep(600)"
    bad = make_notebook(tmp_path / "bad.ipynb", kill)
    good = make_notebook(tmp_path / "good.ipynb")
    result = frugal("run", bad, good, "--reports", tmp_path)
    assert (result.exit_code, "bad: killed" in result.stdout, "good: done" in result.stdout) == (1, True, True)
    (folder,) = tmp_path.glob("runs/bad/*")
    assert json.loads((folder / "status.json").read_text())["status"] == "killed"
    assert "ended with exit code -9" in (folder / "report.html").read_text()


def test_a_given_value_that_a_later_cell_sets_again_is_said(tmp_path: Path):
    path = make_notebook(tmp_path / "a.ipynb", "n = 7")
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[-1].metadata.tags = ["parameters"]
    nbformat.write(notebook, path)
    result = frugal("run", path, "-p", "n", "5", "--reports", tmp_path)
    assert "n: a later cell tagged parameters sets it again" in result.stderr
    (report,) = tmp_path.glob("runs/a/*/report.html")
    assert "set again by a later cell" in report.read_text()


def test_the_train_command_learns_as_much_text_as_suits_the_family():
    [profile] = [option.default for option in cli.main.commands["train"].params if option.name == "profile"]
    assert plan_run(NOTEBOOK, profile=profile).values["characters"] is None


def test_what_runs_recorded_is_one_table(tmp_path: Path):
    recording = [recorded(loss=0.123456789, scores=[{"model": "a", "bits": 1.5}])]
    for name, run in (("01_echo/a", None), ("01_echo/b", {"parameters": {"units": 9}}), ("02_memory/a", None)):
        save(executed(code(outputs=recording), run=run), tmp_path / "runs" / name / "notebook.ipynb")
    assert frugal("results", "01", "--csv", tmp_path / "all.csv", "--reports", tmp_path).exit_code == 0
    table = pandas.read_csv(tmp_path / "all.csv")
    assert list(table["run"]) == ["runs/01_echo/a", "runs/01_echo/b"]
    assert list(table["parameters.units"]) == [500, 9]
    assert list(table["results.loss"]) == [0.123456789] * 2
    assert json.loads(table["results.scores"][0]) == [{"model": "a", "bits": 1.5}]
    shown = frugal("results", "01", "--reports", tmp_path).output.splitlines()
    assert [line.split()[-2:] for line in shown] == [["units", "loss"], ["500", "0.1235"], ["9", "0.1235"]]
    assert "there are no runs of a notebook or sweep called 03" in frugal("results", "03", "--reports", tmp_path).stderr


def test_the_index_is_rebuilt_from_the_notebooks(tmp_path: Path):
    assert frugal("run", make_notebook(tmp_path / "a.ipynb"), "--reports", tmp_path).exit_code == 0
    page = (tmp_path / "index.html").read_text()
    (tmp_path / "index.html").unlink()
    assert frugal("index", "--reports", tmp_path).exit_code == 0
    assert (tmp_path / "index.html").read_text() == page


def test_a_notebook_is_found_by_the_beginning_of_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cli, "CHECKOUT", tmp_path)
    (tmp_path / "notebooks").mkdir()
    for name in ("01_text", "02_echo", "02_more"):
        make_notebook(tmp_path / "notebooks" / f"{name}.ipynb")
    assert cli.find_notebook("01").name == "01_text.ipynb"
    assert "02: begins the names of several notebooks: 02_echo, 02_more" in frugal("parameters", "02").stderr
    assert "03: no such notebook; notebooks/ holds: 01_text, 02_echo, 02_more" in frugal("parameters", "03").stderr


def heeding_interrupts() -> None:
    """Let a child heed Ctrl-C, which jobs in a shell's background, such as these tests may be, ignore and pass on."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_keeps_what_it_has_and_ends_its_kernel(tmp_path: Path, number: signal.Signals):
    path = make_notebook(
        tmp_path / "a.ipynb",
        "import os, pathlib\npathlib.Path('pid').write_text(str(os.getpid()))",
        "import time\npathlib.Path('busy').touch()\ntime.sleep(600)",
        "print('after')",
    )
    command = [sys.executable, "-c", "from frugal.lab.live.cli import main; main()", "run", path, "--reports", tmp_path]
    process = subprocess.Popen(
        list(map(str, command)),
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heeding_interrupts,
    )
    while process.poll() is None and not (tmp_path / "busy").exists():
        time.sleep(0.05)
    process.send_signal(number)
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert "a: interrupted" in output
    (folder,) = tmp_path.glob("runs/a/*")
    about = json.loads((folder / "status.json").read_text())
    assert (about["status"], about["error"]) == ("interrupted", "interrupted in cell [3]")
    cells = nbformat.read(folder / "notebook.ipynb", as_version=4).cells
    assert [cell.metadata.papermill.status for cell in cells[2:]] == ["completed", "failed", "pending"]
    assert (folder / "report.html").exists()
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_a_memory_is_filled_searched_and_emptied_over_several_commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def opened(folder: Path, *_: str) -> NearestNeighbourLM:
        return NearestNeighbourLM.open(folder, Recurrent(characters()))

    monkeypatch.setattr("frugal.lab.live.memory.opened", opened)
    (tmp_path / "tea.txt").write_text("a cup of tea, and one more cup of tea")
    folder = ("--folder", tmp_path / "memory")
    assert "text 0" in frugal("memory", "add", tmp_path / "tea.txt", *folder).output
    assert "1 texts, 37 of at most" in frugal("memory", "list", *folder).output
    assert "text 0:" in frugal("memory", "search", "a cup of t", *folder).output
    assert "nothing is damaged" in frugal("memory", "repair", *folder).output
    assert "37 entries forgotten, 0 left" in frugal("memory", "forget", 0, *folder).output
    again = frugal("memory", "forget", 0, *folder)
    assert (again.exit_code, "there is none of this number" in again.output) == (2, True)


def test_the_model_of_a_memory_is_noted_before_the_memory_exists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("frugal.foundation.load_foundation", lambda *_, **__: SimpleNamespace(context_length=8))
    monkeypatch.setattr("frugal.foundation.WindowedFoundation", lambda *_: Recurrent(characters()))
    open_memory, before = NearestNeighbourLM.open, [KeyboardInterrupt]

    def interrupted(*given: Any, **settings: Any) -> NearestNeighbourLM:
        for error in before:
            raise error
        open_memory(*given, **settings).memory.close()
        raise KeyboardInterrupt

    monkeypatch.setattr(NearestNeighbourLM, "open", interrupted)
    for model in ("one", "another"):  # interrupted before the memory is there, and after
        with pytest.raises(KeyboardInterrupt):
            opened(tmp_path, model, "cpu")
        before.clear()
    with pytest.raises(InputError, match="are hidden states of another"):
        opened(tmp_path, "one", "cpu")


def test_ctrl_c_while_a_command_is_imported_ends_it_even_within_a_callback():
    lost = """
import os, signal, sys
from frugal.interrupts import ends_at_once
signal.signal(signal.SIGINT, signal.default_int_handler)

class Callback:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)

with ends_at_once():
    Callback()
print("goes on")"""
    ended = subprocess.run([sys.executable, "-c", lost], capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (130, "")

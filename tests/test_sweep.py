"""A sweep runs what it should, once, and finds its way back after anything that kills it."""

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import nbformat
import psutil
import pytest
from filelock import FileLock
from nbformat.v4 import new_code_cell, new_notebook, new_output

from frugal.errors import InputError, UnavailableError
from frugal.lab.pages.records import bundle
from frugal.lab.run.execution import RunResult, carry_out, plan_run
from frugal.lab.run.progress import FOLDER_VARIABLE, STOP, RunStopped, read_progress, report_progress
from frugal.lab.sweep import Site, Sweep, best_point, read_site, read_sweep, run_sweep
from frugal.lab.sweep.driver import Driver
from frugal.lab.sweep.pool import LOCAL, Pool, Submit, worker_pool
from frugal.lab.sweep.runs import give_up, make_point
from frugal.lab.sweep.worker import execute_run
from made_notebooks import make_notebook

PARAMETERS = """\
x: float = 0.5  # where [smoke: 0.1]
n: int = 3  # how many
kinds: list[str] = ["a"]  # some
text: str = ""  # a file
seed: int = 0  # of the random numbers"""
GRID = """
notebook: toy.ipynb
search:
  x: [0.0, 1.0, 2.0]
  n: [1, 2]
objective: {record: loss, direction: minimise}
"""


# A run with a large x goes on until it is stopped, or for a minute.
REPORTING = """\
import time
from frugal.lab import record, report_progress
for step in range(3 if x < 1 else 120):
    report_progress(step, x)
    time.sleep(0 if x < 1 else 0.5)
record(loss=x)"""


def a_sweep(folder: Path, text: str = GRID) -> Sweep:
    path = folder / "toy.ipynb"
    if not path.exists():
        make_notebook(path, "from frugal.lab import record\nrecord(loss=x + n)", parameters=PARAMETERS)
    (folder / "toy.yaml").write_text(text)
    return read_sweep(folder / "toy.yaml", lambda name: folder / name)


class Worker:
    """Stands for the pool: makes a run's folder at once, with what `outcomes` says for its turn, else "done".

    `losses` are recorded where x has these values, in place of a sum.
    """

    def __init__(self, *outcomes: str, losses: dict[float, Any] | None = None) -> None:
        self.outcomes, self.given, self.losses = list(outcomes), list[dict[str, Any]](), losses or {}

    def __call__(self, function: object, path: str, given: dict[str, Any], *_: Any) -> "Future[str]":
        folder, future = Path(_[-2]), Future[str]()
        self.given.append(given)
        outcome = self.outcomes.pop(0) if self.outcomes else "done"
        if outcome == "lost":
            future.set_exception(RuntimeError("the worker died"))
            return future
        folder.mkdir(parents=True, exist_ok=True)
        values = {"n": 3, "kinds": ["a"], "text": "", "seed": 0, **given}
        (folder / "status.json").write_text(json.dumps({"status": outcome, "parameters": values}))
        output = new_output(
            "display_data", bundle({"loss": self.losses.get(given["x"], given["x"] + values["n"] + values["seed"])})
        )
        nbformat.write(new_notebook(cells=[new_code_cell(outputs=[output])]), folder / "notebook.ipynb")
        future.set_result(outcome)
        return future


def finished(sweep: Sweep, root: Path, worker: Submit) -> Driver:
    driver = Driver(sweep, root)
    driver.carry_out(Pool(worker, 1, lambda: True))
    return driver


def table(root: Path) -> list[dict[str, Any]]:
    return json.loads((root / "sweep.json").read_text())["points"]


def test_a_grid_is_run_once_and_never_again(tmp_path: Path) -> None:
    worker = Worker()
    finished(a_sweep(tmp_path), tmp_path, worker)
    assert sorted((given["x"], given["n"]) for given in worker.given) == [
        (x, n) for x in (0.0, 1.0, 2.0) for n in (1, 2)
    ]
    assert {(row["value"], row["state"]) for row in table(tmp_path)} >= {(1.0, "complete"), (4.0, "complete")}
    assert not Driver(a_sweep(tmp_path), tmp_path).more()


def test_a_sweep_goes_on_with_what_is_left(tmp_path: Path) -> None:
    first = Worker()
    driver = Driver(a_sweep(tmp_path), tmp_path)
    driver.begin(first)
    second = finished(a_sweep(tmp_path), tmp_path, again := Worker())
    assert (len(first.given), len(again.given), len(second.finished)) == (1, 5, 6)


def test_a_run_that_was_killed_is_tried_again_and_one_that_failed_is_not(tmp_path: Path) -> None:
    worker = Worker("lost", "failed", "killed")
    finished(a_sweep(tmp_path), tmp_path, worker)
    assert len(worker.given) == 8
    states = [row["state"] for row in table(tmp_path)]
    assert (states.count("complete"), states.count("fail")) == (5, 1)


def test_a_run_that_is_always_killed_ends_as_a_failure_that_the_next_start_tries_again(tmp_path: Path) -> None:
    text = GRID.replace("[0.0, 1.0, 2.0]", "[0.0]").replace("[1, 2]", "[1]")
    worker = Worker(*["lost"] * 3)
    finished(a_sweep(tmp_path, text), tmp_path, worker)
    assert ([row["state"] for row in table(tmp_path)], len(worker.given)) == (["fail"], 3)
    finished(a_sweep(tmp_path, text), tmp_path, Worker())
    assert [row["state"] for row in table(tmp_path)] == ["complete"]


def test_a_run_that_was_finished_when_its_worker_was_lost_is_not_run_again(tmp_path: Path) -> None:
    worker = Worker()

    def lost_at_the_end(*call: Any) -> "Future[str]":
        worker(*call)
        future = Future[str]()
        future.set_exception(RuntimeError("the worker died"))
        return future

    finished(a_sweep(tmp_path), tmp_path, lost_at_the_end)
    assert ([row["state"] for row in table(tmp_path)], len(worker.given)) == (["complete"] * 6, 6)


def test_an_attempt_that_was_given_up_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_point(a_sweep(tmp_path), {"x": 0.0, "n": 1}, tmp_path / "root").runs[0]

    def carry_out(*_: Any, folder: Path, **__: Any) -> RunResult:
        give_up(run.attempts)
        folder.mkdir(parents=True)  # as writing a file into it does
        (folder / "status.json").write_text('{"status": "done"}')
        return RunResult(folder, "done", None, 0.0)

    monkeypatch.setattr("frugal.lab.run.execution.carry_out", carry_out)
    monkeypatch.setenv(FOLDER_VARIABLE, "")
    with pytest.raises(UnavailableError, match="given up"):
        execute_run(str(run.plan.path), run.plan.given, "default", None, False, str(run.folder), str(run.progress))
    assert list((tmp_path / "root").iterdir()) == []


def test_what_stands_between_driver_and_workers_ends_with_the_driver() -> None:
    watching = "import sys, time; from frugal.lab.sweep.switchboard import end_with; end_with(int(sys.argv[1]))"
    child = f"{watching}; print('watches', flush=True); time.sleep(120); print('outlived it', flush=True)"
    driver = "import os, subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1], str(os.getpid())])"
    with subprocess.Popen([sys.executable, "-c", driver, child], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "watches\n"
        process.kill()
        assert process.stdout.read() == ""  # ends when nobody can write any more


@pytest.mark.parametrize("victim", ["driver", "pool"])
def test_what_a_local_pool_has_started_ends_with_it_and_with_the_driver(victim: str) -> None:
    with subprocess.Popen(["sleep", "60"]) as driver:
        script = f"{LOCAL.format(driver=driver.pid)}\n(sleep 60; echo outlived) & sleep 60 & echo $!; wait $!"
        block = subprocess.Popen(["bash", "-c", script], stdout=subprocess.PIPE, text=True, start_new_session=True)
        assert block.stdout is not None
        pool = int(block.stdout.readline())
        os.kill({"driver": driver.pid, "pool": pool}[victim], signal.SIGKILL)
        if victim == "driver":
            driver.wait()
        assert block.communicate()[0] == ""  # ends when nobody can write any more
        driver.kill()


def test_a_sweep_ends_when_its_workers_are_gone(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match="start the sweep again"):
        Driver(a_sweep(tmp_path), tmp_path).carry_out(Pool(Worker(), 1, lambda: False))


def test_a_points_value_is_the_mean_over_its_seeds(tmp_path: Path) -> None:
    finished(a_sweep(tmp_path, GRID + "seeds: 3\nseed: 5"), tmp_path, worker := Worker())
    assert {given["seed"] for given in worker.given} == {5, 6, 7}
    assert min(row["value"] for row in table(tmp_path)) == 1 + 6


@pytest.mark.parametrize("sampler", ["random", "tpe", "cmaes"])
def test_samplers_stay_in_range_and_within_the_budget(tmp_path: Path, sampler: str) -> None:
    text = GRID.replace("[0.0, 1.0, 2.0]", "{low: 0.1, high: 10, log: true}") + f"sampler: {sampler}\nruns: 7"
    finished(a_sweep(tmp_path, text.replace("[1, 2]", "{low: 1, high: 9}")), tmp_path, worker := Worker())
    assert len(worker.given) == 7
    assert all(0.1 <= given["x"] <= 10 and 1 <= given["n"] <= 9 for given in worker.given)
    assert len({given["x"] for given in worker.given}) > 1


def test_lists_can_be_choices(tmp_path: Path) -> None:
    text = GRID.replace("n: [1, 2]", "kinds: [[a], [a, b]]")
    finished(a_sweep(tmp_path, text), tmp_path, worker := Worker())
    assert sorted(map(len, (given["kinds"] for given in worker.given))) == [1, 1, 1, 2, 2, 2]
    assert not Driver(a_sweep(tmp_path, text), tmp_path).more()


def test_a_run_without_prospects_is_asked_to_stop(tmp_path: Path) -> None:
    text = GRID.replace("[0.0, 1.0, 2.0]", "{low: 0.0, high: 1.0}") + "sampler: random\nruns: 9\npruner: halving"
    make_notebook(tmp_path / "toy.ipynb", REPORTING, parameters=PARAMETERS)
    driver = Driver(a_sweep(tmp_path, text), tmp_path)
    driver.study.pruner = type("All", (), {"prune": lambda *_: True})()
    waiting: Future[str] = Future()
    driver.begin(lambda *_: waiting)
    (run,) = driver.pending[0].point.runs
    (run.progress / "progress.jsonl").write_text('{"step": 0, "value": 9.0}\n{"step": 1, "va')
    driver.look_at(driver.pending[0], lambda *_: waiting)
    assert (run.progress / STOP).exists()


def test_a_run_that_was_stopped_early_is_pruned_and_neither_failed_nor_run_again(tmp_path: Path) -> None:
    driver = finished(a_sweep(tmp_path), tmp_path, Worker("stopped"))
    states = [row["state"] for row in table(tmp_path)]
    assert (states.count("pruned"), states.count("complete")) == (1, 5)
    assert driver.summary().startswith("5 done, 0 failed")
    assert not Driver(a_sweep(tmp_path), tmp_path).more()


def test_progress_is_reported_inside_sweeps_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report_progress(0, 1.5)
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    report_progress(1, 2.5)
    for value in ("low", 10**400, -(10**400)):
        with pytest.raises(InputError, match="must be a number"):
            report_progress(1, value)  # type: ignore[arg-type]
    assert read_progress(tmp_path) == [(1, 2.5)]
    (tmp_path / STOP).touch()
    with pytest.raises(RunStopped, match="after step 2"):
        report_progress(2, 3.5)


def test_a_stopped_run_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    (tmp_path / STOP).touch()
    path = make_notebook(tmp_path / "a.ipynb", "from frugal.lab import report_progress\nreport_progress(4, 0.1)")
    result = carry_out(plan_run(path), reports=tmp_path)
    assert result.status == "stopped"
    assert "other runs of the sweep did better" in str(result.error)


def test_a_runs_identity_is_all_that_decides_its_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep, file = a_sweep(tmp_path, GRID.replace("n: [1, 2]", f"text: [{tmp_path / 'a.txt'}]")), tmp_path / "a.txt"
    values = {"x": 0.0, "text": str(file)}

    def identity() -> str:
        return make_point(sweep, values, tmp_path).runs[0].plan.identity

    first = identity()
    assert identity() == first
    file.write_text("some text")
    second = identity()
    monkeypatch.setattr("frugal.lab.run.identity.library_hash", lambda: "other code")
    third = identity()
    values["x"] = 1.0
    assert len({first, second, third, identity()}) == 4


def test_a_second_driver_is_refused(tmp_path: Path) -> None:
    (tmp_path / "sweeps" / "toy").mkdir(parents=True)
    with FileLock(tmp_path / "sweeps" / "toy" / ".lock"), pytest.raises(InputError, match="has this sweep in hand"):
        run_sweep(a_sweep(tmp_path), tmp_path, Site())


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (("notebook: toy.ipynb", "[1, 2]"), "cannot be read as YAML"),
        (("notebook: toy.ipynb", ""), "notebook: is missing"),
        (("x:", "y:"), "y: unknown parameter"),
        (("1.0", "one"), "x='one': must be float"),
        (("[1, 2]", "{low: 1}"), "search.n: must be a list of choices, or low and high"),
        (("[1, 2]", "{low: 5, high: 1}"), "search.n:"),
        (("[1, 2]", "{low: 1, high: 2, log: true}"), "a grid needs choices or ranges with a step"),
        (("n: [1, 2]", "kinds: {low: 1, high: 2}"), "kinds"),
        (("minimise", "smaller"), "direction='smaller': must be one of 'minimise', 'maximise'"),
        (("record: loss, ", ""), "objective: needs record and direction"),
        (("record: loss, ", "record: loss, where: best, "), "where='best': must be values by their names"),
        (("objective", "sampler: magic\nobjective"), "sampler='magic': must be one of 'grid'"),
        (("objective", "sampler: tpe\nobjective"), "sampler=tpe: needs a budget"),
        (("objective", "runs: 0\nobjective"), "runs=0: must be positive"),
        (("objective", "runs: many\nobjective"), "runs='many': must be a whole number"),
        (("notebook: toy.ipynb", "notebook: 11"), "notebook=11: must be text, and a number stands in quotes"),
        (("objective", "seeds: 2\npruner: median\nobjective"), "needs one seed per point"),
        (("objective", "pruner: median\nobjective"), "toy.ipynb never calls report_progress"),
        (("objective", "colour: red\nobjective"), "colour: unknown entry"),
    ],
)
def test_a_wrong_definition_is_refused_before_anything_runs(
    tmp_path: Path, change: tuple[str, str], complaint: str
) -> None:
    with pytest.raises(InputError, match=complaint.replace("[", r"\[")):
        a_sweep(tmp_path, GRID.replace(*change))


def test_an_objective_can_be_a_cell_of_a_table(tmp_path: Path) -> None:
    where = '{record: scores, column: bits per byte, where: {model: "b"}, direction: minimise}'
    objective = a_sweep(tmp_path, GRID.replace("{record: loss, direction: minimise}", where)).objective
    rows = [{"model": "a", "bits per byte": 3.0}, {"model": "b", "bits per byte": 2.0}]
    assert objective.read({"scores": rows}) == 2.0
    with pytest.raises(InputError, match="recorded no scores"):
        objective.read({"scores": rows[:1]})


def test_a_run_that_recorded_no_objective_is_a_failure_that_names_what_it_did_record(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    finished(a_sweep(tmp_path, GRID.replace("record: loss", "record: gain")), tmp_path, Worker())
    assert {row["state"] for row in table(tmp_path)} == {"fail"}
    assert best_point(tmp_path) is None
    assert capsys.readouterr().err.count("x=0.0, n=1 failed: the run recorded no gain; it recorded loss") == 1


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 10**400, "high", True, [{"a": 1}]])
def test_an_objective_that_is_no_finite_number_fails_its_point_and_no_other(tmp_path: Path, value: Any) -> None:
    worker = Worker(losses={1.0: value})
    finished(a_sweep(tmp_path), tmp_path, worker)
    again = Driver(a_sweep(tmp_path), tmp_path)
    again.write()
    assert (len(worker.given), again.more()) == (6, False)
    failed = [row for row in table(tmp_path) if row["state"] == "fail"]
    assert [row["values"]["x"] for row in failed] == [1.0, 1.0]
    assert all("no finite number" in row["reason"] and row["value"] is None for row in failed)
    best = best_point(tmp_path)
    assert best is not None
    assert best["value"] == min(row["value"] for row in table(tmp_path) if row["state"] == "complete")


def test_what_driver_and_workers_send_each_other_is_encrypted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def made(**settings: Any) -> None:
        assert settings["encrypted"] is True
        raise InterruptedError

    monkeypatch.setattr("parsl.executors.HighThroughputExecutor", made)
    with pytest.raises(InterruptedError), worker_pool(Site(), tmp_path):
        pass


def test_ctrl_c_ends_a_sweep_and_all_that_it_started(tmp_path: Path) -> None:
    make_notebook(tmp_path / "toy.ipynb", f"open('begun', 'w').close()\n{REPORTING}", parameters=PARAMETERS)
    (tmp_path / "toy.yaml").write_text(GRID.replace("toy.ipynb", str(tmp_path / "toy.ipynb")).replace("[0.0, ", "["))
    command = [sys.executable, "-c", "from frugal.lab.live.cli import main; main()", "sweep", tmp_path / "toy.yaml"]
    command += ["--reports", str(tmp_path), "--workers", "1"]
    hear = "import os, signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
    hear += "os.execv(sys.argv[1], sys.argv[1:])"
    mark = {"FRUGAL_MARK": str(tmp_path)}
    sweep = subprocess.Popen(
        [sys.executable, "-c", hear, *command], cwd=tmp_path, env={**os.environ, **mark}, start_new_session=True
    )
    deadline = time.monotonic() + 300
    while not (tmp_path / "begun").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    os.killpg(sweep.pid, signal.SIGINT)
    assert sweep.wait(timeout=60) == 130
    assert [
        process.cmdline() for process in psutil.process_iter() if mark.items() <= environment(process).items()
    ] == []


def environment(process: psutil.Process) -> dict[str, str]:
    try:
        return process.environ() if process.status() != psutil.STATUS_ZOMBIE else {}
    except psutil.Error:
        return {}


@pytest.mark.parametrize(
    "text", ["provider: MagicProvider", "provider: SlurmProvider\noptions: {colour: red}", "workers: many", "x: 1", "["]
)
def test_a_wrong_site_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "site.yaml").write_text(text)
    with pytest.raises(InputError):
        read_site(tmp_path / "site.yaml")


def test_a_run_that_reports_less_than_others_is_pruned(tmp_path: Path) -> None:
    make_notebook(tmp_path / "toy.ipynb", REPORTING, parameters=PARAMETERS)
    text = GRID.replace("toy.ipynb", str(tmp_path / "toy.ipynb")).replace("  n: [1, 2]\n", "")
    good = [0.0, 0.1, 0.2, 0.3, 0.4]  # the median is of five at least
    (tmp_path / "toy.yaml").write_text(text.replace("[0.0, 1.0, 2.0]", f"{[*good, 9.0]}") + "pruner: median")
    command = [sys.executable, "-c", "from frugal.lab.live.cli import main; main()", "sweep", tmp_path / "toy.yaml"]
    command += ["--reports", str(tmp_path), "--workers", "1"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    root = tmp_path / "sweeps" / "toy"
    outcomes = {row["values"]["x"]: row for row in table(root)}
    assert [outcomes[x]["state"] for x in good] == ["complete"] * 5
    assert (outcomes[9.0]["state"], outcomes[9.0]["value"]) == ("pruned", None)
    status = json.loads((root / outcomes[9.0]["runs"][0] / "status.json").read_text())
    assert "other runs of the sweep did better" in status["error"]


def test_a_sweep_on_two_pools_at_another_address_ends_in_a_report(tmp_path: Path) -> None:
    a_sweep(tmp_path, GRID.replace("[0.0, 1.0, 2.0]", "[0.0]").replace("toy.ipynb", str(tmp_path / "toy.ipynb")))
    address = "127.0.0.2" if sys.platform == "linux" else "127.0.0.1"
    two_pools = "{init_blocks: 2, min_blocks: 2, max_blocks: 2}"
    (tmp_path / "site.yaml").write_text(f"options: {two_pools}\nworkers: 1\naddress: {address}")
    command = [
        sys.executable,
        "-c",
        "from frugal.lab.live.cli import main; main()",
        "sweep",
        str(tmp_path / "toy.yaml"),
    ]
    command += ["--reports", str(tmp_path / "reports"), "--site", str(tmp_path / "site.yaml")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=1200, env={**os.environ})
    assert done.returncode == 0, done.stderr
    root = tmp_path / "reports" / "sweeps" / "toy"
    assert [row["state"] for row in table(root)] == ["complete"] * 2
    assert all((root / row["runs"][0] / "report.html").exists() for row in table(root))
    assert "What the sweep toy found" in (root / "report" / "report.html").read_text()
    assert "sweeps/toy/report/report.html" in (tmp_path / "reports" / "index.html").read_text()

"""What holds for all tests: how they are shared among processes, and the line that says how far they are."""

import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

# How long an example takes says much about what else a machine is doing and nothing about the code.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

# Files whose tests share more than a file's tests do: one browser at a time, one range of ports for pools of workers.
TOGETHER = {
    "tests/test_browser.py": "browser",
    "tests/test_jupyterlab.py": "browser",
    "tests/test_sweep.py": "pools",
    "tests/test_lab_shards.py": "pools",
}
# Long ones come first, so that no process is left with one of them in the end; and what makes the GPTs that notebooks
# wait for before those.
FIRST = [
    *("tests/test_sweep.py", "tests/test_lab_shards.py", "tests/test_foundation_packaged.py"),
    *("tests/test_lab_threads.py", "tests/test_cli.py", "tests/test_notebooks.py", "tests/test_notebooks_on_texts.py"),
    *("tests/test_warm_runs.py", "tests/test_lab_run.py", "tests/test_families.py", "tests/test_device_of_models.py"),
    *("tests/test_jupyterlab.py", "tests/test_browser.py", "tests/test_chat.py"),
]
APART = ("tests/test_notebooks.py", "tests/test_notebooks_on_texts.py")  # each test takes long and shares nothing
KNOWN = "frugal/seconds"  # of each test, from earlier runs
SECONDS_BETWEEN_LINES = 30


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Under `-n`, a file's tests go to one process, for they share models, servers and kernels."""
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return nodeid if file in APART else TOGETHER.get(file, file)

    config.option.loadscopereorder = False  # scopes of one long test would come last
    return ByFile(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    files = {file: place for place, file in enumerate(FIRST)}
    items.sort(key=lambda item: files.get(item.nodeid.partition("::")[0], len(FIRST)))


class Progress:
    """Tests done of how many, the time so far and the time left, instead of a dot for each test.

    On a terminal one line changes in place; elsewhere a new line is written now and then. What is left is estimated
    from what the tests took in earlier runs; tests that are new count as the mean of the others.
    """

    def __init__(self, config: pytest.Config) -> None:
        self.terminal = config.get_terminal_writer()
        self.cache = getattr(config, "cache", None)  # none under `-p no:cacheprovider`
        self.known: dict[str, float] = self.cache.get(KNOWN, {}) if self.cache else {}
        self.left: dict[str, float] = {}
        self.seconds: dict[str, float] = {}
        self.total, self.begun, self.written = 0, time.monotonic(), 0.0
        self.running = True

    def expect(self, nodeids: list[str]) -> None:
        usual = sum(self.known.values()) / len(self.known) if self.known else 1.0
        self.left = {nodeid: self.known.get(nodeid, usual) for nodeid in nodeids}
        self.total, self.begun, self.work = len(nodeids), time.monotonic(), sum(self.left.values())

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        if session.items:  # none where other processes run them
            self.expect([item.nodeid for item in session.items])

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, node: Any, ids: list[str]) -> None:
        if not self.total:
            self.expect(ids)

    @pytest.hookimpl(wrapper=True)
    def pytest_report_teststatus(self) -> Generator[None, tuple[str, str, Any], tuple[str, str, Any]]:
        category, letter, word = yield
        return (category, "", "") if self.running else (category, letter, word)  # the summary wants the words

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.seconds[report.nodeid] = self.seconds.get(report.nodeid, 0.0) + report.duration
        if report.failed:
            self.write(f"FAILED {report.nodeid} ({report.when})\n")
        if report.when == "teardown":
            self.left.pop(report.nodeid, None)
            now = time.monotonic()
            if now - self.written > (0.2 if self.terminal.hasmarkup else SECONDS_BETWEEN_LINES) or not self.left:
                self.written = now
                self.write(self.line(now - self.begun) + ("" if self.terminal.hasmarkup and self.left else "\n"))

    def line(self, elapsed: float) -> str:
        left = sum(self.left.values())
        told = 0 < left < 0.95 * self.work  # of the first few tests one learns little
        remaining = f", about {minutes(elapsed * left / (self.work - left))} left" if told else ""
        return f"{self.total - len(self.left)} of {self.total} tests, {minutes(elapsed)}{remaining}"

    def write(self, text: str) -> None:
        self.terminal.write("\r\x1b[K" + text if self.terminal.hasmarkup else text, flush=True)

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self) -> None:
        self.running = False
        if self.cache:
            self.cache.set(KNOWN, {**self.known, **self.seconds})


def minutes(seconds: float) -> str:
    whole = round(seconds)
    return f"{whole // 60}:{whole % 60:02}"


@pytest.hookimpl(trylast=True)  # once there is a terminal
def pytest_configure(config: pytest.Config) -> None:
    # A process that runs tests for another has nothing to say, and with -v each test has a line of its own.
    if not hasattr(config, "workerinput") and config.get_verbosity() <= 0 and not config.option.collectonly:
        config.pluginmanager.register(Progress(config))


@pytest.fixture
def own_data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep features of models that a test makes up away from those that are worth keeping."""
    monkeypatch.setenv("FRUGAL_DATA", str(tmp_path / "data"))

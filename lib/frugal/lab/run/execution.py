"""Run a notebook and keep everything that a reader needs to judge the result.

A run's folder holds `notebook.ipynb` (executed, with its provenance in the metadata), `report.html` and
`status.json`. Each is replaced whole, and a run that fails keeps what it has.
"""

import json
import secrets
import shlex
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, TextIO

from frugal.errors import InputError
from frugal.files import CHECKOUT, reports_folder, write_text
from frugal.lab.pages.notebooks import read_notebook, title_and_text
from frugal.lab.run.identity import identity
from frugal.lab.run.parameters import Parameter, check, profile_values, read_parameters, set_again
from frugal.lab.run.progress import RunStopped
from frugal.lab.run.provenance import provenance
from frugal.lab.run.threads import OPENMP, kernel_environment

if TYPE_CHECKING:
    from nbformat import NotebookNode

OWN_KERNEL = "python3"  # this interpreter, as every installation of IPython names its own
# Left by an earlier run, these would contradict the parameters and the outcome of this one.
TAGS_OF_EARLIER_RUNS = {"injected-parameters", "papermill-error-cell-tag"}


@dataclass(frozen=True)
class RunResult:
    """Outcome of a run: done, failed, timeout, killed, interrupted or stopped by its sweep; `error` is one sentence."""

    folder: Path
    status: str
    error: str | None
    seconds: float

    @property
    def notebook(self) -> Path:
        return self.folder / "notebook.ipynb"

    @property
    def report(self) -> Path:
        return self.folder / "report.html"


@dataclass(frozen=True)
class Plan:
    """A checked request to run a notebook: `given` holds what differs from the parameters cell on purpose."""

    path: Path
    notebook: "NotebookNode"
    parameters: list[Parameter]
    profile: str
    given: dict[str, Any]

    @property
    def values(self) -> dict[str, Any]:
        """All parameters, as the run has them."""
        return {**{each.name: each.default for each in self.parameters}, **self.given}

    def uses(self, function: str) -> bool:
        """Whether a code cell names a function."""
        return any(function in cell.source for cell in self.notebook.cells if cell.cell_type == "code")

    @property
    def identity(self) -> str:
        """What decides the run's result; see `frugal.lab.run.identity`."""
        return identity(self.notebook, self.values)


def plan_run(path: Path, given: dict[str, Any] | None = None, profile: str = "default") -> Plan:
    """Check everything that can be checked before a kernel starts.

    Args:
        path: the notebook.
        given: parameters by name; text is read by the declared type. They have precedence over the profile's.
        profile: `smoke`, `default` or `full`.

    Raises:
        InputError: the notebook, a parameter's name or value, or the profile is not right.
    """
    notebook = read_notebook(path)
    try:
        kernel_name(notebook)
        parameters = read_parameters(notebook)
        values = {**profile_values(parameters, profile), **check(parameters, {} if given is None else given)}
    except InputError as error:
        raise InputError(f"{path.name}: {error}") from error
    return Plan(path, notebook, parameters, profile, values)


def carry_out(
    plan: Plan,
    timeout: float | None = None,
    reports: Path | None = None,
    *,
    folder: Path | None = None,
    warm: bool = False,
    printing: TextIO | None = None,
) -> RunResult:
    """Run what was planned in a kernel of its own, in the current folder as papermill does, and write its report.

    So a path given as a parameter means what it means to whoever gives it.

    Args:
        plan: from `plan_run`.
        timeout: minutes that the whole run may take.
        reports: folder for the run's own folder; `reports/` by default.
        folder: takes the place of one of its own.
        warm: whether the kernel may be forked from a process that did the notebook's imports for an earlier run.
        printing: where what the cells print appears at once, besides in the notebook.
    """
    started = datetime.now(UTC)
    notebook = with_parameters(plan)
    about = describe(plan, timeout, started)
    notebook.metadata["frugal"] = {"run": about}
    folder = new_folder(plan, reports_folder() if reports is None else reports) if folder is None else folder
    folder.mkdir(parents=True, mode=0o700)  # what a run holds is its user's alone
    write_status(folder, about)

    begun = monotonic()
    status, error = execute(plan, notebook, folder, about, timeout, warm, printing)
    about.update(
        status=status,
        error=error,
        seconds=round(monotonic() - begun, 1),
        peak_memory_mb=notebook.metadata.papermill.get("peak_memory_mb"),
    )
    keep(folder, notebook, about)
    return RunResult(folder, status, error, about["seconds"])


def new_folder(plan: Plan, reports: Path) -> Path:
    """Where a run that starts now goes; folders of a notebook in alphabetical order are in order of their time."""
    return reports / "runs" / plan.path.stem / f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


def with_parameters(plan: Plan) -> "NotebookNode":
    """A copy of the planned notebook with the given parameters injected after its parameters cell."""
    from papermill.iorw import load_notebook_node
    from papermill.parameterize import parameterize_notebook

    notebook = load_notebook_node(plan.notebook)
    notebook.cells = [cell for cell in notebook.cells if not TAGS_OF_EARLIER_RUNS.intersection(cell.metadata.tags)]
    notebook.metadata.pop("widgets", None)
    notebook.metadata.setdefault("language_info", {"name": "python"})  # papermill notes it only after the last cell
    if not plan.given:
        return notebook
    return parameterize_notebook(notebook, plan.given, kernel_name=OWN_KERNEL, language="python")


def kernel_name(notebook: "NotebookNode") -> str:
    """The kernel that runs a notebook: the one that it names, this interpreter where it names none."""
    spec = notebook.metadata.get("kernelspec", {})
    name = str(spec.get("name") or OWN_KERNEL)
    language = str(spec.get("language") or notebook.metadata.get("language_info", {}).get("name") or "python")
    if name in (OWN_KERNEL, "python") and language.lower() in ("python", "ipython"):
        return OWN_KERNEL
    from jupyter_client.kernelspec import KernelSpecManager

    installed = KernelSpecManager().find_kernel_specs()
    if name not in installed:
        known = ", ".join(sorted({OWN_KERNEL, *installed}))
        raise InputError(f"kernel {name!r} ({language}) is not installed; there are: {known}")
    return name


def describe(plan: Plan, timeout: float | None, started: datetime) -> dict[str, Any]:
    """The run's entry in the notebook's metadata, as it stands before the first cell."""
    defaults, values = {parameter.name: parameter.default for parameter in plan.parameters}, plan.values
    return {
        "notebook": plan.path.stem,
        "identity": plan.identity,
        "title": title_and_text(plan.notebook)[0],
        "profile": plan.profile,
        "parameters": values,
        "set_again": set_again(plan.notebook, plan.given),
        "changed": [name for name in values if values[name] != defaults[name]],
        "seed": values.get("seed"),
        "status": "running",
        "error": None,
        "started": started.isoformat(timespec="seconds"),
        "seconds": None,
        "peak_memory_mb": None,
        "command": command(plan, timeout),
        **provenance(),
    }


def command(plan: Plan, timeout: float | None) -> str:
    """The command that repeats the run, from the top of the checkout."""
    path = plan.path.resolve()
    words = ["frugal", "run", str(path.relative_to(CHECKOUT) if path.is_relative_to(CHECKOUT) else plan.path)]
    set_by_profile = profile_values(plan.parameters, plan.profile)
    for name, value in plan.given.items():
        if name not in set_by_profile or value != set_by_profile[name]:
            words += ["-p", name, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)]
    if plan.profile != "default":
        words += ["--profile", plan.profile]
    if timeout is not None:
        words += ["--timeout", f"{timeout:g}"]
    threads = kernel_environment()[OPENMP]
    if threads != "1":
        words += ["--threads", threads]
    return shlex.join(words)


def execute(
    plan: Plan,
    notebook: "NotebookNode",
    folder: Path,
    about: dict[str, Any],
    timeout: float | None,
    warm: bool,
    printing: TextIO | None,
) -> tuple[str, str | None]:
    """Run the cells, changing the notebook in place; give the status and what went wrong."""
    from frugal.lab.run.engine import FrugalEngine, RunTimeoutError

    try:
        FrugalEngine.execute_notebook(
            notebook,
            kernel_name(notebook),
            output_path=str(folder / "notebook.ipynb"),
            progress_bar=False,
            stdout_file=printing,
            run_timeout=None if timeout is None else timeout * 60,
            warm=warm,
            tell=lambda doing: write_status(folder, {**about, "doing": doing}),
            resources={"metadata": {"path": str(Path.cwd())}},
        )
    except RunTimeoutError:
        return "timeout", f"stopped {place(notebook)}: the run took longer than its {timeout:.3g} minutes"
    except RuntimeError as error:  # the kernel died, perhaps while it started
        return "killed", f"stopped {place(notebook)}: {error}"
    except KeyboardInterrupt:
        return "interrupted", f"interrupted {place(notebook)}"
    except OSError as error:
        return "failed", f"stopped {place(notebook)}: {error}"
    failure = cell_failure(notebook)
    if failure is None:
        return "done", None
    return "stopped" if f": {RunStopped.__name__}: " in failure else "failed", failure


def failed_cell(notebook: "NotebookNode") -> "NotebookNode | None":
    return next((cell for cell in notebook.cells if cell.metadata.papermill["status"] == "failed"), None)


def place(notebook: "NotebookNode") -> str:
    """Where a run stopped, for a sentence."""
    cell = failed_cell(notebook)
    if cell is None:
        return "before the first cell"
    counts = [each.execution_count or 0 for each in notebook.cells if each.cell_type == "code"]
    return f"in cell [{cell.get('execution_count') or max(counts) + 1}]"


def cell_failure(notebook: "NotebookNode") -> str | None:
    """One sentence about the cell that failed, if one did."""
    cell = failed_cell(notebook)
    if cell is None:
        return None
    errors = [output for output in cell.outputs if output.output_type == "error"]
    if not errors:
        return f"stopped {place(notebook)} without a message"
    name, message = errors[-1].ename, " ".join(errors[-1].evalue.split())[:300]
    if name == "SystemExit":
        return f"stopped {place(notebook)} by sys.exit({message}): the cells after it did not run"
    return f"stopped {place(notebook)}: {name}: {message}"


def keep(folder: Path, notebook: "NotebookNode", about: dict[str, Any]) -> None:
    """Write the run's final notebook, status and report."""
    import nbformat

    from frugal.lab.pages.report import write_report

    notebook.metadata["frugal"] = {"run": about}
    path = folder / "notebook.ipynb"
    write_text(path, nbformat.writes(notebook))
    write_status(folder, about)
    write_report(path, folder / "report.html")


def write_status(folder: Path, about: dict[str, Any]) -> None:
    write_text(folder / "status.json", json.dumps(about, indent=2, ensure_ascii=False) + "\n")

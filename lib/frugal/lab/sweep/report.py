"""The report of a sweep, built by a notebook like any other."""

import shutil
from pathlib import Path

from frugal.errors import UnavailableError
from frugal.lab.run.execution import carry_out, plan_run

NOTEBOOK = Path(__file__).with_name("sweep_report.ipynb")


def write_sweep_report(folder: Path) -> Path:
    """Run the report's notebook on a sweep's folder; gives the page.

    Raises:
        UnavailableError: the notebook failed.
    """
    place = folder / "report"
    shutil.rmtree(place, ignore_errors=True)
    plan = plan_run(NOTEBOOK, {"folder": str(folder)})
    plan.notebook.cells[0].source = plan.notebook.cells[0].source.replace("the sweep", f"the sweep {folder.name}", 1)
    result = carry_out(plan, folder=place)
    if result.status != "done":
        raise UnavailableError(f"the sweep's report is not whole: {result.error}; see {result.report}")
    return result.report

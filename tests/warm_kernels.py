"""Notebooks run in kernels that are forked from one process, which has done what all of them import."""

from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from frugal.lab.pages.notebooks import read_notebook
from frugal.lab.run import warm
from frugal.lab.run.execution import RunResult, carry_out, plan_run

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
MINUTES = 10  # for a run that takes one on two idle cores, so that a busy machine is no failure
OF_A_GPT = "from transformers import GPT2LMHeadModel, LlamaForCausalLM"  # imported by the first of each kind


def run_warm(path: Path, given: dict[str, Any], reports: Path) -> RunResult:
    """Run one of the project's notebooks at its smallest size."""
    imports = dict.fromkeys(chain.from_iterable(warm.first_imports(read_notebook(each)) for each in NOTEBOOKS))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(warm, "surroundings", dict)  # pytest names the test in a variable of the environment
        patch.setattr(warm, "first_imports", lambda _: [*imports, OF_A_GPT])
        return carry_out(plan_run(path, given, "smoke"), MINUTES, reports, warm=True)

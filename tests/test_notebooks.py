"""Every notebook as it is used: run at its smallest size, read as a report, started by plain papermill."""

import ast
import os
import re
import shutil
import subprocess
import sys
from dataclasses import fields as fields_of
from datetime import UTC, datetime
from pathlib import Path

import nbformat
import pytest
import torch
from bs4 import BeautifulSoup

from frugal.cards import kept_about, kept_models
from frugal.evaluate import evaluate
from frugal.files import data_folder
from frugal.generate import ChatSession, Sampling, generate
from frugal.lab import read_records
from frugal.lab.pages.notebooks import read_notebook
from frugal.lab.run.parameters import Parameter, ParameterType, read_parameters
from frugal.language_model import load_model
from frugal.piecewise.presets import PRESETS
from models import memory_gpt, piecewise
from warm_kernels import NOTEBOOKS, run_warm

KEEPING = ("03", "04", "06", "08", "10", "11")  # notebooks that train models and keep their best

on_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def saves(parameter: Parameter) -> bool:
    """Whether a notebook keeps models under the name that the parameter gives."""
    return parameter.name in ("saved", "chatbot") and parameter.type == ParameterType(str)


def check_kept(folder: Path) -> None:
    """A model that a notebook kept is loaded, scored, sampled and chatted with by what is the same for all."""
    model = load_model(folder)
    assert evaluate(model, "The king of the land.").bits_per_byte > 0
    assert generate(model, "The king", Sampling(max_tokens=4, seed=0)) is not None
    session = ChatSession(model, sampling=Sampling(max_tokens=4, seed=0), markers=True)
    "".join(session.reply("Hello."))
    assert len(session.turns) == 2


@every_notebook
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=on_cuda)])
def test_it_runs_at_smoke_and_its_report_can_be_read(path: Path, device: str, tmp_path: Path) -> None:
    parameters = read_parameters(read_notebook(path))
    name = f"of-a-test-{os.getpid()}"
    given = {each.name: name for each in parameters if saves(each)}
    given["device"] = device
    brought = {}
    if path.stem.startswith("09"):  # one by its folder, one by the name that it is kept under
        brought = {str(tmp_path / "my memory"): memory_gpt(), f"{name}-piecewise": piecewise("small")}
        given["saved"] = [*brought]
    for place, model in brought.items():
        model.save(data_folder() / "models" / place)
    began = datetime.now(UTC).isoformat(timespec="seconds")
    try:
        result = run_warm(path, given, tmp_path)
        assert (result.status, result.error) == ("done", None)
        kept = [each for each in kept_models() if each.name.startswith(name)]
        assert bool(kept) == ("saved" in given and not brought)
        commands = set(re.findall(r"frugal (?:chat|generate|score) ([\w-]+-latest)", result.notebook.read_text()))
        assert bool(commands) == path.stem.startswith(KEEPING)
        for latest in map(kept_about, commands):
            assert latest.when >= began
            kept.append(latest)
        for each in kept:
            check_kept(each.folder)
    finally:
        for folder in data_folder().glob(f"*/{name}*"):
            shutil.rmtree(folder)
    records = read_records(result.notebook)
    table = {row["model"]: row for row in records.get("scoreboard", [])}
    rows = {place: table[Path(place).name] for place in brought}
    assert all(place.endswith(row["family"]) and row["weights trained"] > 0 for place, row in rows.items())
    assert records["device"] == device
    assert records["dtype"] in ("torch.float32", "torch.bfloat16")
    page = BeautifulSoup(result.report.read_text(encoding="utf-8"), "html.parser")
    figures = page.select("main figure img")
    assert figures
    assert all(len(figure["alt"].split()) > 5 and figure["src"].startswith("data:image/") for figure in figures)
    assert not page.select("script[src], link[href^=http], img[src^=http], iframe")


@every_notebook
def test_every_parameter_says_what_it_is(path: Path) -> None:
    parameters = read_parameters(read_notebook(path))
    assert parameters
    assert [parameter.name for parameter in parameters if not parameter.help] == []


@every_notebook
def test_its_cells_are_small_and_carry_no_outputs(path: Path) -> None:
    code = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    assert max(len(cell.source.splitlines()) for cell in code) <= 30
    assert sum(len(cell.source.splitlines()) for cell in code) <= 300
    assert not any(cell.outputs or cell.execution_count for cell in code)


SLOW_IMPORTS = ["datasets", "faiss", "IPython", "lightgbm", "numba", "optuna"]
SLOW_IMPORTS += ["pandas", "parsl", "scipy", "sklearn", "sympy", "transformers"]


def test_what_takes_seconds_to_import_is_imported_where_it_is_used() -> None:
    cells = [cell.source for path in NOTEBOOKS for cell in read_notebook(path).cells if cell.cell_type == "code"]
    imports = [
        node for source in cells for node in ast.parse(source).body if isinstance(node, ast.Import | ast.ImportFrom)
    ]
    told = f"import sys\nprint([name for name in {SLOW_IMPORTS} if name in sys.modules])"
    code = "\n".join([*dict.fromkeys(map(ast.unparse, imports)), told])
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"


def test_plain_papermill_runs_one_from_another_folder(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "papermill", NOTEBOOKS[0], "out.ipynb", "-p", "new_tokens", "3"]
    command += ["-p", "trial_tokens", "128"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, env={**os.environ, "FRUGAL_REPORTS": "."})
    assert read_records(tmp_path / "out.ipynb")["cores"] >= 1


def test_a_preset_is_what_it_says_unless_its_size_is_asked_for() -> None:
    [path] = [path for path in NOTEBOOKS if path.stem.startswith("08")]
    fields = {field.name for shape in PRESETS.values() for field in fields_of(shape)}
    for parameter in read_parameters(read_notebook(path)):
        if parameter.name in fields - {"original"}:
            assert (parameter.default, parameter.profiles) == (None, {})

"""The tables for those who come from another project name parameters that are there."""

import re
import shlex
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from frugal.families import asked, read_texts
from frugal.lab.live import cli
from frugal.lab.pages.notebooks import read_notebook
from frugal.lab.run.parameters import read_parameters
from frugal.piecewise import read_settings
from models import random_gpt2

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs" / "coming_from"
LIBRARIES = ("reservoirpy",)  # these have code of their own to compare with, not notebooks
PAGES = sorted(page for page in FOLDER.glob("*.md") if page.stem not in LIBRARIES)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_parameters_named_are_those_of_the_notebooks_named(page: Path) -> None:
    rows = re.findall(r"^\| (.+) \| (.+) \| ([\d, ]+) \|$", page.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(rows) > 10
    for flag, here, notebooks in rows:
        for number in notebooks.split(", "):
            (path,) = (ROOT / "notebooks").glob(f"{number}_*.ipynb")
            known = {parameter.name for parameter in read_parameters(read_notebook(path))}
            assert set(re.findall(r"`(\w+)`", here.partition(":")[0])) <= known, (flag, number)


def test_the_ten_lines_of_both_libraries_make_the_same_error() -> None:
    pytest.importorskip("reservoirpy.nodes", reason="reservoirpy is not installed: nothing to compare with")
    errors = []
    for code in re.findall(r"```python\n(.+?)```", (FOLDER / "reservoirpy.md").read_text(encoding="utf-8"), re.DOTALL):
        assert len([line for line in code.splitlines() if line]) <= 10
        names: dict[str, float] = {}
        exec(code, names)
        errors.append(names["error"])
    assert len(errors) == 4
    assert errors[::2] == pytest.approx(errors[1::2], rel=1e-3)
    assert max(errors) < 0.01


def commands() -> list[tuple[str, list[str]]]:
    """All `frugal` lines of the pages, as (page, words)."""
    found = []
    for page in PAGES:
        for block in re.findall(r"```sh\n(.+?)```", page.read_text(encoding="utf-8"), re.DOTALL):
            found += [(page.stem, shlex.split(line)[1:]) for line in block.splitlines() if line.startswith("frugal ")]
    return found


TRAININGS = [words for _, words in commands() if words[0] == "train" and "--resume" not in words]


ALWAYS_SMALL = {
    "echo": {"foundation", "context_length", "reservoir_size", "hidden"},
    "memory": {"foundation", "context_length", "memory_dim"},
    "neighbours": {"foundation", "context_length"},
    "piecewise": {"epochs", "examples", "batch_size"},
    "reservoir": {"reservoir_size", "fan_in", "vocabulary", "epochs"},
    "trees": set(),
}


def test_every_page_has_commands_and_the_command_line_takes_them() -> None:
    assert {page for page, _ in commands()} == {page.stem for page in PAGES}
    for _, [name, *words] in commands():
        command = cli.main.commands[name]
        with command.make_context(name, list(words)) as context:
            assert context.params


@pytest.fixture(scope="module")
def gpt_folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("foundation") / "gpt"
    random_gpt2().save(folder, "# Random")
    return str(folder)


@pytest.mark.parametrize("words", TRAININGS, ids=lambda words: words[words.index("--save") + 1])
def test_what_a_command_asks_for_is_trained_at_a_small_size(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gpt_folder: str
) -> None:
    monkeypatch.setenv("FRUGAL_DATA", str(tmp_path / "data"))
    planned: list[Any] = []

    def keep_plan(plan: Any, *_: Any, **__: Any) -> Any:
        planned.append(plan)
        raise SystemExit(0)

    monkeypatch.setattr("frugal.lab.run.execution.carry_out", keep_plan)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("frugal.families.family.check_foundation", lambda name: None)  # of the hub, without a network
    texts_named = [name for option, name in pairwise(words) if option in ("--train", "--valid", "--test")]
    texts_named += [word.partition("=")[2] for word in words if word.startswith("negative_text=")]
    for number, name in enumerate(texts_named):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text("".join(f"line {n} of text {number}.\n" for n in range(20)), encoding="utf-8")
    assert CliRunner().invoke(cli.main, words).exit_code == 0
    given = planned[0].given
    settings = read_settings(given["settings"])
    settings |= {name: given[name] for name in ("epochs", "learning_rate", "method") if name in given}
    small = {"foundation": gpt_folder, "context_length": 6, "reservoir_size": 0, "memory_dim": 24, "hidden": [8]}
    small |= {"width": 8, "segments": 3, "epochs": 1, "rounds": 2, "negative_text": str(tmp_path / "text.txt")}
    if given["family"] == "reservoir":
        small |= {"reservoir_size": 16, "fan_in": 4, "vocabulary": 260}
    if given["family"] == "piecewise":
        small = {name: small[name] for name in ("width", "segments", "epochs")} | {"examples": 40, "batch_size": 40}
    changed = {
        name: value for name, value in small.items() if name in settings or name in ALWAYS_SMALL[given["family"]]
    }
    (tmp_path / "text.txt").write_text("the cat sat on the mat. a dog met the cat.\n" * 12, encoding="utf-8")
    texts = read_texts(str(tmp_path / "text.txt"), held_out_characters=40)
    family, plan = asked(given["family"], settings | changed)
    assert family.train(family.build(texts), texts, plan).verdict

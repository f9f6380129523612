"""The examples in docstrings run, and everything that a notebook uses has one."""

import ast
import doctest
import importlib
import inspect
from pathlib import Path

import pytest

from frugal.lab.pages.notebooks import read_notebook

ROOT = Path(__file__).parents[1]
LIBRARY = ROOT / "lib"
WITH_EXAMPLES = sorted(path for path in LIBRARY.rglob("*.py") if ">>> " in path.read_text(encoding="utf-8"))


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(LIBRARY).with_suffix("").parts).removesuffix(".__init__")


def imported(code: str) -> set[str]:
    """Dotted names that the code imports from the library, and those of the attributes it takes of what it imports."""
    tree, names = ast.parse(code), dict[str, str]()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and str(node.module).partition(".")[0] == "frugal":
            names |= {item.asname or item.name: f"{node.module}.{item.name}" for item in node.names}
        if isinstance(node, ast.Import):
            names |= {item.asname: item.name for item in node.names if item.asname and item.name.startswith("frugal.")}
    attributes = {
        f"{names[node.value.id]}.{node.attr}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in names
    }
    return {*names.values(), *attributes}


def resolved(name: str) -> object:
    """What a dotted name of the library means: what a module has of that name, else the module of that name."""
    owner, _, last = name.rpartition(".")
    value = getattr(resolved(owner), last, None) if owner else None
    return importlib.import_module(name) if value is None else value


def has_example(value: object) -> bool:
    """Whether the docstring of a function or class, or of one of a class's methods, holds an example."""
    return any(found.examples for found in doctest.DocTestFinder().find(value, name=""))


@pytest.mark.parametrize("path", WITH_EXAMPLES, ids=module_name)
def test_the_examples_run(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What they write goes to a folder of its own, and nothing that was kept before can help them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FRUGAL_DATA", str(tmp_path / "data"))
    monkeypatch.setattr("frugal.foundation.loading.PACKAGED", ())  # which would be fetched, or trained for a minute
    result = doctest.testmod(importlib.import_module(module_name(path)), optionflags=doctest.ELLIPSIS)
    assert result.attempted
    assert not result.failed, (
        f"{result.failed} of {result.attempted} lines of the examples; the output above says which"
    )


def test_every_name_that_a_notebook_uses_exists_and_has_an_example() -> None:
    without = set()
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        cells = [cell.source for cell in read_notebook(path).cells if cell.cell_type == "code"]
        for name in imported("\n".join(cells)):
            try:
                value = resolved(name)
            except ImportError:
                without.add(f"{name}, which does not exist")
                continue
            if (inspect.isclass(value) or inspect.isfunction(value)) and not has_example(value):
                without.add(f"{value.__module__}.{value.__qualname__}")
    assert not without, "\n".join(sorted(without))

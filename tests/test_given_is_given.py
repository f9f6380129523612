"""An argument that is empty, zero or False is not missing: only None is."""

import ast
from pathlib import Path

import pytest

LIBRARY = Path(__file__).parents[1] / "lib" / "frugal"


def replaced_for_being_empty(source: str) -> list[str]:
    """Every `argument or ...` of an argument that can be None, as "line: code"."""
    found = []
    for function in ast.walk(ast.parse(source)):
        if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        arguments = (*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs)
        optional = {a.arg for a in arguments if a.annotation is not None and "None" in ast.unparse(a.annotation)}
        for node in ast.walk(function):
            if isinstance(node, ast.BoolOp) and isinstance(node.op, ast.Or):
                first = node.values[0]
                if isinstance(first, ast.Name) and first.id in optional:
                    found.append(f"{node.lineno}: {ast.unparse(node)}")
    return found


def test_such_a_line_is_found() -> None:
    source = "def f(memory: Memory | None = None, name: str = ''):\n    memory = memory or Memory()\n    name or memory"
    assert replaced_for_being_empty(source) == ["2: memory or Memory()"]


@pytest.mark.parametrize("path", sorted(LIBRARY.rglob("*.py")), ids=lambda path: str(path.relative_to(LIBRARY)))
def test_only_none_stands_for_a_default(path: Path) -> None:
    assert replaced_for_being_empty(path.read_text(encoding="utf-8")) == []

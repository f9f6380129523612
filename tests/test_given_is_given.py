"""An argument that is empty, zero or False is not missing: only None is."""

import ast
from pathlib import Path

import pytest

LIBRARY = Path(__file__).parents[1] / "lib" / "frugal"


def replaced_for_being_empty(source: str) -> list[str]:
    """Every `argument or ...` and `... if argument else ...` of an argument that can be None, as "line: code"."""
    found = []
    for function in ast.walk(ast.parse(source)):
        if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        arguments = (*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs)
        optional = {a.arg for a in arguments if a.annotation is not None and "None" in ast.unparse(a.annotation)}
        for node in ast.walk(function):
            match node:
                case (
                    ast.BoolOp(ast.Or(), [ast.Name(name), *_])
                    | ast.IfExp(ast.Name(name))
                    | ast.IfExp(ast.UnaryOp(ast.Not(), ast.Name(name)))
                ) if name in optional:
                    found.append(f"{node.lineno}: {ast.unparse(node)}")
    return found


def test_such_a_line_is_found() -> None:
    lines = ("def f(memory: Memory | None = None, name: str = ''):", "memory = memory or Memory()", "name or memory")
    lines += ("memory = memory if memory else Memory()", "memory = Memory() if not memory else memory")
    found = ["2: memory or Memory()", "4: memory if memory else Memory()", "5: Memory() if not memory else memory"]
    assert replaced_for_being_empty("\n    ".join(lines)) == found


@pytest.mark.parametrize("path", sorted(LIBRARY.rglob("*.py")), ids=lambda path: str(path.relative_to(LIBRARY)))
def test_only_none_stands_for_a_default(path: Path) -> None:
    assert replaced_for_being_empty(path.read_text(encoding="utf-8")) == []

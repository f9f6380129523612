"""What a notebook's parameters cell may hold, and what may be given for it."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nbformat.v4 import new_code_cell, new_notebook

from frugal.errors import InputError
from frugal.lab.pages.notebooks import read_notebook
from frugal.lab.run.parameters import (
    ParameterType,
    check,
    parse_parameters,
    profile_values,
    read_parameters,
    read_values_file,
    set_again,
    tabulate,
)
from made_notebooks import make_notebook

CELL = """\
# The reservoir
units: int = 500  # reservoir units [smoke: 50, full: 5_000]
leak: float = 0.3  # leak rate, 0 to 1
text: str = "pydoc"  # corpus; see the catalogue [smoke: 'tiny, or less', full: "all # of it"]
orders: list[int] = [1, 2]  # of the n-grams [smoke: [1], full: [1, 2, 3]]
device: str | None = None  # where it runs
plot: bool = True
"""


def test_types_defaults_help_and_profiles_are_read():
    parameters = {each.name: each for each in parse_parameters(CELL)}
    assert {name: str(each.type) for name, each in parameters.items()} == {
        "units": "int",
        "leak": "float",
        "text": "str",
        "orders": "list[int]",
        "device": "str | None",
        "plot": "bool",
    }
    assert parameters["units"].default == 500
    assert parameters["units"].help == "reservoir units"
    assert parameters["units"].profiles == {"smoke": 50, "full": 5000}
    assert parameters["text"].profiles == {"smoke": "tiny, or less", "full": "all # of it"}
    assert parameters["orders"].profiles == {"smoke": [1], "full": [1, 2, 3]}
    assert parameters["leak"].help == "leak rate, 0 to 1"
    assert parameters["plot"].help == ""


def test_a_default_may_span_lines():
    (parameter,) = parse_parameters("sizes: list[int] = [\n    1,  # small\n    2,\n]  # sizes [smoke: [1]]")
    assert (parameter.default, parameter.help, parameter.profiles) == ([1, 2], "sizes", {"smoke": [1]})


def test_a_bracket_with_a_range_is_no_profile():
    (parameter,) = parse_parameters("leak: float = 0.3  # leak rate [0, 1]")
    assert (parameter.help, parameter.profiles) == ("leak rate [0, 1]", {})


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        ("n: int", "`n: int` is not of the form"),
        ("n: int = 1 +", "line 1: not Python"),
        ("n: dict = {}", "`n: dict`: the type must be one of int, float"),
        ("n: int | str = 3", "the type must be one of"),
        ("n: int = len('abc')", "must be a plain literal"),
        ("n: int = '3'", "n='3': must be int"),
        ("n: int = 3  # n [smoke: 1.5]", "n [smoke]=1.5: must be int"),
        ("n: int = 3  # n [quick: 1]", "'quick' is no profile"),
        ("n: int = 3\nn: int = 4", "`n` is assigned twice"),
    ],
)
def test_a_line_that_cannot_be_checked_is_refused(source: str, complaint: str):
    with pytest.raises(InputError, match=re.escape(complaint)):
        parse_parameters(source)


def test_parameters_are_those_of_the_first_tagged_cell_if_there_is_one():
    cells = [new_code_cell(f"{name}: int = 3", metadata={"tags": ["parameters"]}) for name in "ab"]
    assert read_parameters(new_notebook(cells=[new_code_cell("n: int = 3")])) == []
    assert [each.name for each in read_parameters(new_notebook(cells=cells))] == ["a"]


def test_plain_assignments_take_their_type_from_the_value():
    source = "import os\n%matplotlib inline\nn = 1  # how many\nname = 'a'\nsizes = [1, 2]\nhere = os.getcwd()\nof = {}"
    parameters = parse_parameters(source)
    types = {each.name: str(each.type) for each in parameters}
    assert types == {"n": "int", "name": "str", "sizes": "list[int]", "here": "anything", "of": "anything"}
    given = {"n": "0", "name": "07", "here": "there", "of": "{a: 1}"}
    assert check(parameters, given) == {"n": 0, "name": "07", "here": "there", "of": {"a": 1}}
    with pytest.raises(InputError, match="n='x': must be int"):
        check(parameters, {"n": "x"})


def test_an_unknown_name_is_refused_with_the_nearest_and_all_names():
    with pytest.raises(InputError, match=r"unit: unknown parameter; did you mean units\? .*: units, leak, text"):
        check(parse_parameters(CELL), {"unit": "3"})


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("text", "007", "007"),
        ("text", "None", "None"),
        ("device", "None", None),
        ("device", "cuda", "cuda"),
        ("units", "1_000", 1000),
        ("leak", "1", 1.0),
        ("leak", "1e-3", 0.001),
        ("plot", "false", False),
        ("orders", "[3, 4]", [3, 4]),
    ],
)
def test_text_is_read_by_the_declared_type(name: str, text: str, value: object):
    (read,) = check(parse_parameters(CELL), {name: text}).values()
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("units", "1e3"),
        ("units", "3.0"),
        ("units", 3.0),
        ("units", True),
        ("units", None),
        ("units", [3]),
        ("leak", "high"),
        ("leak", "nan"),
        ("leak", float("inf")),
        ("plot", "1"),
        ("plot", 1),
        ("text", 7),
        ("orders", "3"),
        ("orders", "[3"),
        ("orders", ["1e3"]),
        ("orders", [[3]]),
    ],
)
def test_a_value_of_another_type_is_refused(name: str, value: object):
    with pytest.raises(InputError, match=rf"{name}.*must be"):
        check(parse_parameters(CELL), {name: value})


SCALARS = {
    "int": st.integers(),
    "float": st.floats(allow_nan=False, allow_infinity=False),
    "bool": st.booleans(),
    "str": st.text().filter(lambda text: text.lower() not in ("none", "null")),
}


@given(st.sampled_from(sorted(SCALARS)).flatmap(lambda kind: st.tuples(st.just(kind), SCALARS[kind])))
def test_a_value_written_as_text_comes_back(case: tuple[str, object]):
    kind, value = case
    for annotation in (kind, f"{kind} | None"):
        parameters = parse_parameters(f"x: {annotation} = {value!r}")
        assert parameters[0].default == value
        assert check(parameters, {"x": str(value)}) == {"x": value}


COUNTS = """\
units: int = 500  # units [smoke: 50]
seed: int = 0  # of all draws
shift: int = -3  # steps
orders: list[int] = [1, 2]  # of the n-grams
delays: list[int] = [0, 4]  # steps
more: list[str] = []  # texts
width: int | None = None  # of the net
"""


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        ("units", "0", "units=0: must be at least 1"),
        ("seed", "-1", "seed=-1: must be at least 0"),
        ("orders", "[2, 0]", r"orders=\[2, 0\]: must be at least 1"),
        ("orders", "[]", r"orders=\[\]: must hold at least one value"),
        ("delays", "[-1]", r"delays=\[-1\]: must be at least 0"),
    ],
)
def test_less_than_a_notebook_counts_with_is_refused(name: str, text: str, complaint: str):
    with pytest.raises(InputError, match=complaint):
        check(parse_parameters(COUNTS), {name: text})


def test_what_a_notebook_may_count_with_is_taken():
    given = {"units": 1, "seed": 0, "shift": -9, "delays": [0], "more": [], "width": -1}
    assert check(parse_parameters(COUNTS), given) == given


def test_profiles_set_only_what_they_name():
    parameters = parse_parameters(CELL)
    assert profile_values(parameters, "default") == {}
    assert profile_values(parameters, "smoke") == {"units": 50, "text": "tiny, or less", "orders": [1]}
    with pytest.raises(InputError, match="profile='quick': must be one of smoke, default, full"):
        profile_values(parameters, "quick")


def test_a_values_file_is_read_by_the_declared_types(tmp_path: Path):
    path = tmp_path / "values.yaml"
    path.write_text("text: 007\nleak: 1e-3\norders: [1, 2]\ndevice: null\nplot: true\n")
    values = check(parse_parameters(CELL), read_values_file(path))
    assert values == {"text": "007", "leak": 0.001, "orders": [1, 2], "device": None, "plot": True}


@pytest.mark.parametrize("text", ["- 1\n- 2\n", "just text", "a: [1\n", ""])
def test_a_values_file_without_names_is_refused(tmp_path: Path, text: str):
    path = tmp_path / "values.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match="one `name: value` per line"):
        read_values_file(path)


@pytest.mark.parametrize("text", ["", "  \n", '{"cells": [', "{}", "[1]", '{"cells": 3, "nbformat": 4}', "\x00"])
def test_a_file_that_is_no_notebook_is_refused(tmp_path: Path, text: str):
    path = tmp_path / "a.ipynb"
    path.write_text(text)
    with pytest.raises(InputError, match=r"a\.ipynb: (is empty|is not a valid notebook)"):
        read_notebook(path)


def test_a_missing_notebook_is_refused(tmp_path: Path):
    with pytest.raises(InputError, match="cannot be read"):
        read_notebook(tmp_path / "none.ipynb")


def test_the_table_lines_up(tmp_path: Path):
    lines = tabulate(read_parameters(read_notebook(make_notebook(tmp_path / "a.ipynb")))).splitlines()
    assert lines[0].split("  ")[0] == "name"
    at = lines[0].index("what it is")
    assert [line[at:] for line in lines[1:]] == ["how many", "what to call it", "of the random numbers"]


def test_a_type_says_what_it_is():
    assert str(ParameterType(float, many=True, optional=True)) == "list[float] | None"


def test_what_a_later_tagged_cell_sets_again_is_known():
    sources = ("a = 1\nb = 2", "b = 3\nc = 4", "import os")
    cells = [new_code_cell(source, metadata={"tags": ["parameters"]}) for source in sources]
    assert set_again(new_notebook(cells=cells), ["a", "b"]) == ["b"]

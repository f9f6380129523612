"""What is recorded in a notebook can be read back from its file."""

import json
import math
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nbformat.v4 import new_code_cell, new_notebook, new_output

from frugal.errors import InputError
from frugal.lab.pages.records import MIME_TYPE, MOST_ROWS, as_html, bundle, read_records, record, to_result


def executed(*records: dict[str, Any]) -> nbformat.NotebookNode:
    """A notebook that recorded these values, one cell for each, after being saved and read again."""
    cells = [
        new_code_cell(
            outputs=[
                new_output("stream", text="training\n"),
                new_output(
                    "display_data", data=bundle({name: to_result(name, value) for name, value in values.items()})
                ),
            ]
        )
        for values in records
    ]
    return nbformat.reads(nbformat.writes(new_notebook(cells=cells)), as_version=4)


SCALARS = st.one_of(st.booleans(), st.integers(), st.floats(), st.text(st.characters(exclude_categories=["Cs"])))
NAMES = st.text(st.characters(categories=["L"]), min_size=1)
TABLES = st.lists(NAMES, min_size=1, max_size=3, unique=True).flatmap(
    lambda keys: st.lists(
        st.tuples(*[SCALARS | st.none()] * len(keys)).map(lambda row: dict(zip(keys, row, strict=True))), max_size=4
    )
)


@settings(max_examples=50)
@given(st.dictionaries(NAMES, SCALARS | TABLES, max_size=4))
def test_what_was_recorded_is_read_back(values: dict[str, Any]):
    found = read_records(executed(values))
    assert repr(found) == repr(values)  # as text: NaN does not equal itself, and the order is kept too


@given(st.dictionaries(NAMES, SCALARS | TABLES, max_size=4))
def test_the_stored_form_is_strict_json(values: dict[str, Any]):
    stored = bundle({name: to_result(name, value) for name, value in values.items()})
    json.dumps(stored, allow_nan=False)


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (np.float32(0.5), 0.5),
        (np.float64(0.5), 0.5),
        (np.int64(3), 3),
        (np.bool_(True), True),
        (np.array(2.0), 2.0),
        (np.str_("a"), "a"),
        (torch.tensor(0.5, dtype=torch.bfloat16), 0.5),
        (torch.tensor(3), 3),
        (torch.tensor(True), True),
    ],
)
def test_numpy_and_torch_scalars_become_plain(value: Any, plain: Any):
    result = to_result("x", value)
    assert result == plain
    assert type(result) is type(plain)


def test_a_dictionary_of_columns_becomes_rows():
    assert to_result("curve", {"context": [1, 2], "bits": [np.float32(2), None]}) == [
        {"context": 1, "bits": 2.0},
        {"context": 2, "bits": None},
    ]


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        (None, "cannot record a NoneType"),
        (1j, "cannot record a complex"),
        (np.zeros(3), "cannot record a ndarray"),
        (torch.zeros(1), "cannot record a Tensor"),
        ([1, 2], "a list of dictionaries with the same strings as keys"),
        ([{"a": 1}, {"b": 1}], "the same strings as keys"),
        ([{1: 2}], "the same strings as keys"),
        ([{"a": [1]}], r"x\['a'\]: cannot record a list"),
        ({"a": 1}, "one list per column"),
        ({"a": [1], "b": [1, 2]}, "the same length"),
        ([{"a": 1}] * (MOST_ROWS + 1), "501 rows, at most 500"),
    ],
)
def test_what_is_no_small_result_is_refused_at_once(value: Any, complaint: str):
    with pytest.raises(InputError, match=complaint):
        record(x=value)


def test_the_later_of_two_records_counts():
    assert read_records(executed({"loss": 2.0, "seed": 1}, {"loss": 1.0})) == {"loss": 1.0, "seed": 1}


def test_a_notebook_without_records_gives_none(tmp_path: Path):
    path = tmp_path / "plain.ipynb"
    nbformat.write(new_notebook(cells=[new_code_cell("1")]), path)
    assert read_records(path) == {}


def test_names_and_values_are_text_in_the_html():
    page = as_html({"<b>": "<script>", "t": [{"<i>": "&"}]})
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert "<i>" not in page


def test_outside_a_notebook_the_results_are_printed(capsys: pytest.CaptureFixture[str]):
    record(loss=1 / 3, name="echo", curve=[{"context": 1, "bits": math.inf}])
    assert capsys.readouterr().out == "loss = 0.3333\nname = echo\ncurve:\n  context=1, bits=inf\n"


def test_the_output_reads_in_any_viewer():
    data = bundle({"loss": 0.25})
    assert data["text/plain"] == "loss = 0.25"
    assert "<caption>" in data["text/html"]
    assert data[MIME_TYPE] == [{"name": "loss", "value": 0.25}]

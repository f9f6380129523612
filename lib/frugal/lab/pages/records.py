"""Results recorded inside a notebook, so that they can be read back from the executed file without running it."""

import html
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from frugal.errors import InputError
from frugal.lab.pages.notebooks import read_notebook

if TYPE_CHECKING:
    from nbformat import NotebookNode

MIME_TYPE = "application/vnd.frugal.record+json"
MOST_ROWS = 500

Scalar = str | int | float | bool
Row = dict[str, Scalar | None]
Result = Scalar | list[Row]


def record(**values: Any) -> None:
    """Record results of this notebook under their names; a later record of the same name replaces the earlier.

    Args:
        values: numbers, strings, booleans (also as numpy or torch scalars), or small tables: a list of
            dictionaries with the same keys, or a dictionary of equally long lists. A missing cell is None.

    Raises:
        InputError: a value is of another type, or a table is ragged or has more than 500 rows.

    Example:
        >>> record(bits_per_byte=1.25, tokens=1000)
        bits_per_byte = 1.25
        tokens = 1000
    """
    results = {name: to_result(name, value) for name, value in values.items()}
    from IPython.core.getipython import get_ipython

    if get_ipython() is None:
        print(as_text(results))
        return
    from IPython.display import display

    display(bundle(results), raw=True)


def bundle(results: dict[str, Result]) -> dict[str, Any]:
    """The output that holds the results: once for programs, and twice for readers."""
    stored = [{"name": name, "value": to_json(result)} for name, result in results.items()]
    return {MIME_TYPE: stored, "text/html": as_html(results), "text/plain": as_text(results)}


def read_records(notebook: "Path | NotebookNode") -> dict[str, Result]:
    """All results recorded in an executed notebook; tables come back as a list of dictionaries.

    Raises:
        InputError: the file cannot be read as a notebook.
    """
    if isinstance(notebook, Path):
        notebook = read_notebook(notebook)
    results: dict[str, Result] = {}
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            stored = output.get("data", {}).get(MIME_TYPE, [])
            results.update({entry["name"]: from_json(entry["value"]) for entry in stored})
    return results


def to_result(name: str, value: Any) -> Result:
    if isinstance(value, dict):
        value = to_rows(name, value)
    if not isinstance(value, list):
        return to_scalar(name, value)
    if len(value) > MOST_ROWS:
        raise InputError(
            f"{name}: has {len(value)} rows, at most {MOST_ROWS} can be recorded; save larger data to a file"
        )
    for row in value:
        if not isinstance(row, dict) or row.keys() != value[0].keys() or not all(isinstance(key, str) for key in row):
            raise InputError(f"{name}: a table is a list of dictionaries with the same strings as keys")
    return [
        {key: None if cell is None else to_scalar(f"{name}[{key!r}]", cell) for key, cell in row.items()}
        for row in value
    ]


def to_rows(name: str, columns: dict[str, Any]) -> list[dict[str, Any]]:
    if not all(isinstance(column, list) for column in columns.values()):
        raise InputError(f"{name}: a dictionary must hold one list per column; record single values by their own names")
    if len({len(column) for column in columns.values()}) > 1:
        raise InputError(f"{name}: its columns must have the same length")
    return [dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)]


def to_scalar(name: str, value: Any) -> Scalar:
    """A plain number, string or boolean."""
    if getattr(value, "shape", None) == () and hasattr(value, "item"):  # a numpy or torch scalar
        value = value.item()
    if isinstance(value, bool):
        return value
    for kind in (str, int, float):
        if isinstance(value, kind):
            return kind(value)
    raise InputError(
        f"{name}: cannot record a {type(value).__name__}; expected a number, string, boolean, "
        "list of dictionaries or dictionary of lists"
    )


def to_json(result: Result | None) -> Any:
    """The stored form of a result.

    A notebook file does not keep the order of names in an object, so a table is stored by columns and rows.
    JSON has no NaN and no infinity: they are stored as {"float": "nan"}.
    """
    if isinstance(result, list):
        columns = list(result[0]) if len(result) else []
        return {"columns": columns, "rows": [[to_json(row[column]) for column in columns] for row in result]}
    if isinstance(result, float) and not math.isfinite(result):
        return {"float": str(result)}
    return result


def from_json(stored: Any) -> Any:
    if not isinstance(stored, dict):
        return stored
    if "float" in stored:
        return float(stored["float"])
    return [dict(zip(stored["columns"], map(from_json, row), strict=True)) for row in stored["rows"]]


def shown(value: Scalar | None) -> str:
    """A value for reading: floats to four significant digits."""
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def as_text(results: dict[str, Result]) -> str:
    lines = []
    for name, result in results.items():
        if isinstance(result, list):
            lines.append(f"{name}:")
            lines += ["  " + ", ".join(f"{key}={shown(cell)}" for key, cell in row.items()) for row in result]
        else:
            lines.append(f"{name} = {shown(result)}")
    return "\n".join(lines)


def as_html(results: dict[str, Result]) -> str:
    tables = [html_table(name, result) for name, result in results.items() if isinstance(result, list)]
    scalars = {name: result for name, result in results.items() if not isinstance(result, list)}
    if scalars:
        rows = [
            f'<tr><th scope="row">{html.escape(name)}</th>{html_cell(value)}</tr>' for name, value in scalars.items()
        ]
        tables.insert(0, f"<table><caption>Results</caption><tbody>{''.join(rows)}</tbody></table>")
    return f'<div class="frugal-record">{"".join(tables)}</div>'


def html_table(name: str, rows: list[Row]) -> str:
    head = "".join(f'<th scope="col">{html.escape(key)}</th>' for key in (rows[0] if rows else {}))
    body = "".join(f"<tr>{''.join(map(html_cell, row.values()))}</tr>" for row in rows)
    return f"<table><caption>{html.escape(name)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def html_cell(value: Scalar | None) -> str:
    words = shown(value)
    # Whoever copies the table gets all digits.
    whole = f' data-value="{value!r}"' if isinstance(value, float) and words != repr(value) else ""
    return f"<td{whole}>{html.escape(words)}</td>"

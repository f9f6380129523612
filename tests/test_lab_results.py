"""Tables of what runs recorded."""

from frugal.lab.pages.results import as_columns


def test_a_text_of_many_lines_stays_in_its_row_of_the_terminals_table() -> None:
    rows = [{"run": "one", "status": "done", "results.sample": "two\nlines, the second of them " + "long " * 20}]
    [_, cells] = as_columns(rows)
    assert "\n" not in cells[2]
    assert cells[2].startswith("two lines, the second")
    assert len(cells[2]) < 50

"""The gallery: finished runs as Markdown that is read where the repository is browsed."""

from pathlib import Path

import pytest

from executed_notebooks import code, display, figure, notebook, recorded, save, stream, text
from frugal.errors import InputError
from frugal.lab.pages.gallery import write_gallery
from frugal.lab.pages.minutes import write_minutes
from frugal.lab.pages.outputs import WIDGET

STORY = "# Echo nets\n\nA net learns. See [next](02_memory.ipynb) and [last](09_other.ipynb). $x^2$"


def add_run(reports: Path, stem: str, name: str, *cells: dict, profile: str = "default", status: str = "done") -> None:
    executed = notebook(*(cells or [text(STORY)]), run={"profile": profile, "status": status})
    save(executed, reports / "runs" / stem / name / "notebook.ipynb")


def test_only_the_newest_finished_default_run_of_a_notebook_is_shown(tmp_path: Path) -> None:
    for name, kind in {"1": {}, "2": {}, "3": {"profile": "smoke"}, "4": {"status": "failed"}}.items():
        add_run(tmp_path, "01_echo", name, text(f"# Run {name}"), **kind)
    add_run(tmp_path, "02_memory", "1", profile="smoke")
    gallery = write_gallery(tmp_path, tmp_path / "gallery").parent
    assert sorted(path.name for path in gallery.glob("*.md")) == ["01_echo.md", "README.md"]
    assert "## [Run 2](01_echo.md)" in (gallery / "README.md").read_text()


def test_a_page_holds_text_figures_results_and_where_they_come_from(tmp_path: Path) -> None:
    outputs = [stream("printed"), stream("a warning", "stderr"), figure("A line rises."), recorded(bits_per_byte=1.05)]
    outputs.append(display(**{WIDGET: {"model_id": "1"}, "text/plain": "epoch 1: 0%| | 0/8"}))
    add_run(tmp_path, "01_echo", "1", text(STORY), code("secret = 1", outputs=outputs))
    gallery = write_gallery(tmp_path, tmp_path / "gallery").parent
    page = (gallery / "01_echo.md").read_text()
    assert page.startswith("# Echo nets\n")
    for part in ("A net learns.", "$x^2$", "```text\nprinted\n```", "A line rises.", "1.05", "Commit: 0123456789ab"):
        assert part in page
    for part in ("a warning", "epoch 1", "secret"):
        assert part not in page
    assert 'src="figures/01_echo-1.svg"' in page
    assert (gallery / "figures" / "01_echo-1.svg").read_text().rstrip().endswith("</svg>")


def test_a_block_of_html_has_no_empty_line_which_would_end_it(tmp_path: Path) -> None:
    add_run(tmp_path, "01_echo", "1", text(STORY), code(outputs=[recorded(answer="one\n\n \ntwo")]))
    page = (write_gallery(tmp_path, tmp_path / "gallery").parent / "01_echo.md").read_text()
    assert "one\ntwo" in page


def test_links_between_notebooks_lead_to_pages_where_there_are_such(tmp_path: Path) -> None:
    add_run(tmp_path, "01_echo", "1")
    add_run(tmp_path, "02_memory", "1")
    page = (write_gallery(tmp_path, tmp_path / "gallery").parent / "01_echo.md").read_text()
    assert "[next](02_memory.md)" in page
    assert "[last](../../notebooks/09_other.ipynb)" in page


def test_a_gallery_of_nothing_is_refused_and_leaves_the_old_one(tmp_path: Path) -> None:
    add_run(tmp_path, "01_echo", "1", profile="smoke")
    (tmp_path / "gallery").mkdir()
    with pytest.raises(InputError, match="no finished run at profile default"):
        write_gallery(tmp_path, tmp_path / "gallery")
    assert (tmp_path / "gallery").exists()


README = """| notebook | minutes |
| --- | --- |
| [01 Echo](notebooks/01_echo.ipynb) | 7 |
| [02 Memory](notebooks/02_memory.ipynb) | 9 |

Minutes are those of long ago.
"""


def test_the_minutes_of_a_run_and_its_machine_are_written_into_the_table(tmp_path: Path) -> None:
    add_run(tmp_path, "01_echo", "1")
    readme = tmp_path / "README.md"
    readme.write_text(README)
    assert write_minutes(tmp_path, readme) == ["01_echo"]
    row, other, _, sentence = readme.read_text().splitlines()[2:]
    assert (row, other) == (
        "| [01 Echo](notebooks/01_echo.ipynb) | 2.2 |",
        "| [02 Memory](notebooks/02_memory.ipynb) | 9 |",
    )
    assert "`default` profile on Some CPU, 2 cores, 7.8 GB, threads: 1" in sentence


def test_the_readme_has_a_row_and_a_sentence_for_the_minutes(tmp_path: Path) -> None:
    add_run(tmp_path, "01_text_and_foundation", "1")
    readme = tmp_path / "README.md"
    readme.write_text((Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8"), encoding="utf-8")
    assert write_minutes(tmp_path, readme) == ["01_text_and_foundation"]

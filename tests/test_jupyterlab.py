"""Notebooks in a running JupyterLab, looked at and operated with a real browser.

The normal tests open a small notebook; `make test-lab` opens the project's own, which takes minutes each.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import nbformat
import pytest
from nbformat import v4
from playwright.sync_api import Browser, Page

from browser import CHROMIUM, chromium, errors, jupyter_lab, lay_out, run_all, shut_down
from executed_notebooks import save
from frugal.lab.run.execution import plan_run, with_parameters

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's chromium")

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
MINUTES = 10  # for a run that takes one on two idle cores, so that a busy machine is no failure
ANOTHER_IMAGE = """([place, before]) => {
  const image = place.querySelector('img');  // none where the figure's function raised an error
  return image !== null && image.src !== before && image.complete && image.naturalWidth > 0;
}"""

CELLS = [
    """
import matplotlib.pyplot as plt
from frugal.lab import explore, show

def draw(points=3, dense=False):
    figure, axes = plt.subplots()
    axes.plot(range(points))
    if points == 20:
        raise ValueError("twenty is too many")
    return figure, f"A line of {points} points.", f"A line with {points} points."

show(*draw())
""",
    "explore(draw, points=(2, 20), dense=bool)",
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small notebook for these tests, and the project's own at their smallest."""
    folder = tmp_path_factory.mktemp("lab")
    kernel = {"name": "python3", "display_name": "Python 3"}  # without it JupyterLab asks
    cells = [v4.new_code_cell(source) for source in CELLS]
    save(v4.new_notebook(cells=cells, metadata={"kernelspec": kernel}), folder / "small.ipynb")
    for path in NOTEBOOKS:
        nbformat.write(with_parameters(plan_run(path, profile="smoke")), folder / path.name)
    return folder


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    with jupyter_lab(folder) as address:
        yield address


@pytest.fixture
def run(browser: Browser, folder: Path, address: str) -> Iterator[Callable[[str], Page]]:
    """Open a notebook in JupyterLab and run it; its kernel ends with the test."""
    lay_out(folder)
    page = browser.new_page(viewport={"width": 1280, "height": 1400})

    def run(name: str) -> Page:
        run_all(page, address, name, MINUTES)
        return page

    yield run
    shut_down(page)
    page.close()


def test_figures_follow_their_sliders_and_show_errors(run: Callable[[str], Page]) -> None:
    page = run("small.ipynb")
    page.locator(".jp-OutputArea-output figcaption", has_text="A line of 3 points.").first.wait_for()
    live = page.locator(".jupyter-widgets").first
    before = live.locator("img").get_attribute("src")
    live.locator(".noUi-handle").focus()
    page.keyboard.press("ArrowRight")
    live.locator("figcaption", has_text="A line of 4 points.").wait_for()
    assert live.locator("img").get_attribute("src") != before
    page.keyboard.press("End")
    live.locator("text=ValueError: twenty is too many").wait_for()


@pytest.mark.every_notebook_in_lab
@pytest.mark.parametrize("name", [path.name for path in NOTEBOOKS])
def test_a_notebook_runs_beside_its_contents_and_its_figures_follow_their_sliders(
    run: Callable[[str], Page], name: str
) -> None:
    page = run(name)
    assert errors(page) == []
    assert page.locator(".jp-TableOfContents-content").inner_text().count("\n") > 3
    for live in page.locator(".jupyter-widgets.widget-vbox", has=page.locator("figure")).all():
        slider, before = live.locator(".noUi-handle").first, live.locator("img").get_attribute("src")
        at_the_end = slider.get_attribute("aria-valuenow") == slider.get_attribute("aria-valuemax")
        slider.press("Home" if at_the_end else "End")
        page.wait_for_function(ANOTHER_IMAGE, arg=[live.element_handle(), before])

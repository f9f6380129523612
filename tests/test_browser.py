"""Reports and index in a real browser."""

import contextlib
import re
from pathlib import Path

import pytest

from browser import CHROMIUM, chromium
from executed_notebooks import code, display, error, figure, notebook, recorded, save, stream, text
from frugal.lab.pages.index import write_index
from frugal.lab.pages.report import write_report

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's chromium")

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
STORY = """# Echo state networks: how much does a **frozen** state know?

A fixed random network remembers some 40 tokens. It is not trained.

$$\\begin{aligned}
s_t &= (1 - \\alpha)\\, s_{t-1} + \\alpha \\tanh(W_\\text{in} x_t + W s_{t-1}) \\\\ y &= W s \\end{aligned}$$

| profile | minutes | what it does, in a sentence that does not end so soon |
| --- | --- | --- |
| smoke | 0.5 | a `very_long_name_that_cannot_be_broken_into_pieces_whatever_the_width` |

![A picture elsewhere](http://127.0.0.1:9/picture.png)

## Results

> Quoted.

Solved for the data: $P(v|s) = [M(v|s) - (1-\\alpha(s)) G(v|s) - (1-\\beta(s)) H(v|s)] / \\alpha(s)$, in one line.

### In numbers
"""
# What a stock report would fetch.
NOSY = '<img src="http://127.0.0.1:9/a.png" alt="gone"><script src="http://127.0.0.1:9/a.js"></script>'
ROWS = [{f"measure {at}": 1.5 for at in range(9)}, {f"measure {at}": 2.25 for at in range(9)}]


@pytest.fixture(scope="module")
def browser():
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """The addresses of a report of a good run, one of a failed run, and their index."""
    reports = tmp_path_factory.mktemp("reports")
    cells = [
        text(STORY),
        code("import numpy as np\n\n\n@timed\ndef f(x: float) -> str:\n    return 'words' * 3  # why " + "x" * 200),
        code(outputs=[figure(), recorded(bits_per_byte=1.0512345678, models=ROWS), display(text_html=NOSY)]),
        code(outputs=[recorded(perplexity=9.5)]),
        code(outputs=[stream("out " * 100), stream("a warning " * 50, "stderr")]),
    ]
    runs = {
        "good": notebook(*cells),
        "failed": notebook(*cells, code(outputs=[error()]), run={"status": "failed", "error": "stopped: ValueError"}),
    }
    for name, executed in runs.items():
        path = save(executed, reports / "runs" / "01_echo" / name / "notebook.ipynb")
        write_report(path, path.with_name("report.html"))
    damaged = reports / "runs" / "02_memory" / "a" / "notebook.ipynb"
    damaged.parent.mkdir(parents=True)
    damaged.write_text("{")
    addresses = {name: reports / "runs" / "01_echo" / name / "report.html" for name in runs}
    addresses["index"] = write_index(reports)
    return {name: path.as_uri() for name, path in addresses.items()}


@pytest.fixture
def open_page(browser, pages):
    """Open one of the pages at a width in a colour scheme; all are closed at the end."""
    opened = []

    def open_page(name, width=1280, scheme="light"):
        page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        opened.append(page)
        page.requests = []
        page.on("request", lambda request: page.requests.append(request))
        page.goto(pages[name])
        return page

    yield open_page
    for page in opened:
        page.close()


def unfold(page):
    page.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true; })")


@pytest.mark.parametrize("name", ["good", "failed", "index"])
def test_a_page_makes_no_request(open_page, name):
    page = open_page(name)
    unfold(page)
    page.wait_for_timeout(200)
    sent = [request.url for request in page.requests if request.failure != "csp"]  # those the page itself forbids
    assert [url for url in sent if not url.startswith(("file:", "data:"))] == []


@pytest.mark.parametrize("name", ["good", "index"])
def test_images_are_drawn_and_described(open_page, name):
    page = open_page(name)
    unfold(page)
    figures = page.locator("img[src^='data:']")
    assert figures.count()
    assert figures.evaluate_all("images => images.every((image) => image.complete && image.naturalWidth > 0)")
    assert page.locator("img:not([alt]), img[alt='']").count() == 0


@pytest.mark.parametrize("width", [320, 390, 800, 1280])
@pytest.mark.parametrize("name", ["good", "failed", "index"])
def test_no_page_scrolls_sideways(open_page, name, width):
    page = open_page(name, width)
    unfold(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_the_text_and_formulas_of_each_notebook_fit_a_telephone(browser, tmp_path):
    with contextlib.closing(browser.new_page(viewport={"width": 390, "height": 844})) as page:
        for path in sorted(NOTEBOOKS.glob("*.ipynb")):
            write_report(path, tmp_path / "report.html")
            page.goto((tmp_path / "report.html").as_uri())
            unfold(page)
            assert page.evaluate("document.documentElement.scrollWidth") <= 390, path.name


@pytest.mark.parametrize(
    ("name", "width", "scheme"),
    [("good", 390, "light"), ("failed", 1280, "dark"), ("index", 390, "dark"), ("index", 1280, "light")],
)
def test_axe_finds_nothing(open_page, name, width, scheme):
    from axe_playwright_python.sync_playwright import Axe

    page = open_page(name, width, scheme)
    unfold(page)
    found = Axe().run(page).response["violations"]
    assert [(each["id"], each["impact"], each["nodes"][0]["html"]) for each in found] == []


def test_the_page_and_its_figures_turn_dark_together(open_page):
    page = open_page("good", scheme="dark")
    corner = """async (image) => {
        const canvas = document.createElement('canvas');
        canvas.getContext('2d').drawImage(image, 0, 0);
        return [...canvas.getContext('2d').getImageData(1, 1, 1, 1).data.slice(0, 3)];
    }"""
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert page.locator("figure img").first.evaluate(corner) == [int(part) for part in re.findall(r"\d+", background)]
    assert background != "rgb(254, 254, 254)"


def test_contents_lead_to_their_sections(open_page):
    page = open_page("good")
    page.get_by_role("link", name="In numbers", exact=True).click()
    assert page.url.endswith("#in-numbers")
    assert page.locator("#in-numbers").is_visible()


def test_code_unfolds_by_keyboard(open_page):
    page = open_page("good")
    block = page.locator("details.code").first
    assert not block.locator(".highlight").is_visible()
    block.locator("summary").focus()
    page.keyboard.press("Enter")
    assert block.locator(".highlight").is_visible()


def test_all_code_unfolds_at_once(open_page):
    page = open_page("good")
    page.get_by_role("button", name="Show all code").click()
    assert page.locator("details.code:not([open])").count() == 0
    page.get_by_role("button", name="Hide all code").click()
    assert page.locator("details.code[open]").count() == 0


def test_the_error_leads_to_the_failed_cell(open_page):
    page = open_page("failed")
    page.get_by_role("link", name="To the cell that failed").click()
    assert page.locator("#failed .error").is_visible()


def test_index_and_report_link_to_each_other(open_page):
    page = open_page("index")
    page.locator("h2 a").first.click()
    page.wait_for_url("**/report.html")
    page.get_by_role("link", name="All reports").click()
    page.wait_for_url("**/index.html")


def test_the_index_is_filtered_by_any_word_of_a_run(open_page):
    page = open_page("index")
    page.get_by_label("Filter").fill("no such word")
    page.get_by_label("Filter").press("Enter")  # sends no form
    assert page.locator("article.run:visible").count() == 0
    assert page.locator("#count").inner_text() == "0 of 1 notebooks"
    page.get_by_label("Filter").fill("echo")
    assert page.locator("article.run:visible").count() == 1


def test_two_runs_are_compared_by_keyboard(open_page):
    page = open_page("index")
    unfold(page)
    for pick in page.locator(".pick").all():
        pick.focus()
        page.keyboard.press("Space")
    table = page.locator("#comparison table")
    assert table.locator("thead a").count() == 2
    assert table.locator("tr", has_text="bits_per_byte").locator("td").all_inner_texts() == ["1.051", "1.051"]
    assert table.locator("tr", has_text="first figure").locator("img").count() == 2


def test_a_column_of_earlier_runs_is_sorted_by_its_name(open_page):
    page = open_page("index")
    unfold(page)
    page.locator(".earlier").get_by_role("button", name="Status").click()
    assert page.locator(".earlier th[aria-sort=ascending]").inner_text() == "Status"


def test_numbers_and_durations_of_earlier_runs_are_sorted_by_size(browser, tmp_path):
    for name, seconds in (("a", 1.0), ("b", 95.0), ("c", 9.0), ("d", 4000.0)):
        run = {"seconds": seconds, "started": f"2025-03-14T12:0{seconds % 7:.0f}:00+00:00"}
        save(notebook(text("# Echo"), run=run), tmp_path / "runs" / "01_echo" / name / "notebook.ipynb")
    newest = notebook(text("# Echo"), run={"started": "2026-03-14T12:00:00+00:00"})
    save(newest, tmp_path / "runs" / "01_echo" / "e" / "notebook.ipynb")
    with contextlib.closing(browser.new_page()) as page:
        page.goto(write_index(tmp_path).as_uri())
        unfold(page)
        page.locator(".earlier").get_by_role("button", name="Took").click()
        took = page.locator(".earlier tbody tr td:nth-child(5)").all_inner_texts()
    assert took == ["1.0 s", "9.0 s", "1 min 35 s", "1 h 6 min"]


def test_the_index_loads_itself_again_while_runs_go_on(browser, tmp_path):
    address = write_index(tmp_path, waiting=["01_echo"]).as_uri()
    with contextlib.closing(browser.new_page()) as page:
        page.clock.install()
        page.goto(address)
        assert "waiting: 01_echo" in page.locator("#live").inner_text()
        write_index(tmp_path)
        page.clock.fast_forward(6_000)
        page.locator("#live").wait_for(state="detached")


def test_a_table_is_saved_as_csv_with_all_digits(open_page):
    page = open_page("good")
    with page.expect_download() as download:
        page.get_by_role("button", name="Save as CSV: Results").first.click()
    assert download.value.suggested_filename == "Results.csv"
    assert Path(download.value.path()).read_text() == "bits_per_byte,1.0512345678\n"


def test_on_paper_there_is_no_navigation_and_no_dark_page(open_page):
    page = open_page("good", scheme="dark")
    page.emulate_media(media="print", color_scheme="dark")
    assert not page.locator("nav").is_visible()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(254, 254, 254)"

import json
import re
from base64 import b64encode
from hashlib import sha256

import nbformat
import pytest
from bs4 import BeautifulSoup
from hypothesis import given
from hypothesis import strategies as st
from nbformat import v4

from executed_notebooks import RUN, code, display, error, figure, notebook, recorded, save, stream, text
from frugal.errors import InputError
from frugal.lab.pages import outputs
from frugal.lab.pages.report import exporter, formula, readable_tables, report, write_report

STATES = "application/vnd.jupyter.widget-state+json"
WIDGET = "application/vnd.jupyter.widget-view+json"
PAGE = "<h1>&amp;<script>alert(1)</script>"


def page(*cells, **options):
    return BeautifulSoup(report(notebook(*cells, **options), "the file's name"), "html.parser")


def body(*cells, **options):
    return page(*cells, **options).find("main").get_text(" ")


def test_the_header_says_what_was_run_and_how_it_went():
    soup = page(text("# Echo\n\nThe story."))
    header = soup.find("header").get_text(" ", strip=True)
    assert soup.title.string == soup.h1.string == "Echo"
    for words in ("done", "smoke profile", "2025-03-14 12:03 UTC", "took 2 min 14 s"):
        assert words in header
    assert len(soup.find_all("h1")) == 1
    assert soup.find("a", href="../../../index.html")


def test_parameters_that_differ_from_their_defaults_are_marked():
    values = {div.dt.string: div.dd.get_text() for div in page(text("# Echo")).select(".parameters dl > div")}
    assert values == {"leak": "0.3", "units": "500 changed", "text": "tales"}


def test_provenance_is_given_in_words():
    provenance = page(text("# Echo")).select_one(".provenance").get_text(" ", strip=True)
    for words in (
        "0123456789ab, with uncommitted changes",
        "1.2 GB",
        "Some CPU, 2 cores, 7.8 GB memory, threads: 1, Linux",
        "python 3.11.9, torch 2.13.0",
        RUN["command"],
    ):
        assert words in provenance


def test_a_failed_run_shows_its_error_first_and_leads_to_the_cell():
    soup = page(
        text("# Echo"),
        code("fine"),
        code("1 / 0", [error("ZeroDivisionError", "division by zero")]),
        run={"status": "failed", "error": "stopped in cell [2]: ZeroDivisionError: division by zero"},
    )
    assert "stopped in cell [2]" in soup.select_one("header .failure").get_text()
    assert soup.find("a", href="#failed")
    cell = soup.find(id="failed")
    assert cell.details.has_attr("open")
    assert "\x1b" not in cell.get_text()
    assert "ZeroDivisionError: division by zero" in cell.get_text()


def test_a_run_killed_outside_a_cell_shows_its_error_without_a_link():
    soup = page(text("# Echo"), run={"status": "killed", "error": "the kernel died"})
    assert "the kernel died" in soup.find("header").get_text()
    assert not soup.find("a", href="#failed")


def test_a_papermill_notebook_shows_what_papermill_recorded():
    times = {"start_time": "2025-03-14T12:03:05+00:00", "duration": 3.2, "exception": None}
    soup = page(text("No title."), run={}, papermill={"parameters": {"units": 50}, **times})
    header = soup.find("header").get_text(" ")
    assert "outcome not recorded" in header  # papermill also says so of killed runs
    assert "took 3.2 s" in header
    assert "50 changed" in soup.select_one(".parameters").get_text()
    assert soup.h1.string == "the file's name"


def test_a_notebook_run_by_hand_has_a_report_too():
    soup = page(text("# By hand"), code("1", [error()]), run={})
    assert "failed" in soup.select_one(".status").get_text()
    assert "ValueError: no such thing" in soup.find("header").get_text()


def test_an_error_that_a_cell_was_meant_to_raise_is_no_failure():
    soup = page(code("1 / 0", [error()], tags=["raises-exception"]), run={})
    assert soup.select_one(".status").get_text() == "outcome not recorded"


def test_papermills_own_banners_are_left_out():
    banner = text("An Exception was encountered")
    banner.metadata["tags"] = ["papermill-error-cell-tag"]
    soup = page(banner, text("# Echo\n\nThe story."))
    assert soup.h1.string == "Echo"
    assert "Exception" not in soup.get_text()


def test_what_comes_from_metadata_is_escaped():
    run = dict.fromkeys(("profile", "error", "command", "commit", "seed"), PAGE)
    run |= {"parameters": {PAGE: PAGE}, "changed": [PAGE], "versions": {PAGE: PAGE}, "machine": {"processor": PAGE}}
    soup = page(text(f"# {PAGE}"), code(PAGE, [stream(PAGE), display(text_plain=PAGE)]), run=run)
    assert "alert(1)" not in "".join(script.get_text() for script in soup.find_all("script"))


def test_formulas_become_mathml_but_not_in_code():
    soup = page(text("# Echo\n\nInline $s_t$ and `$HOME`.\n\n$$x^2$$\n\n```python\nf'${x}$ and ${y}$'\n```\n"))
    assert [formula.get("display") for formula in soup.find_all("math")] == ["inline", "block"]
    assert soup.code.string == "$HOME"
    assert "f'${x}$ and ${y}$'" in soup.pre.get_text()


def test_aligned_equations_are_laid_out_in_columns():
    soup = BeautifulSoup(formula(r"\begin{aligned} a &= b \\ c &= d \end{aligned}", display=True), "html.parser")
    assert len(soup.find_all("mtr")) == 2
    assert "&" not in soup.get_text()


def test_a_formula_that_cannot_be_converted_stays_readable():
    assert r"\nosuchcommand x" in formula(r"\nosuchcommand x", display=False)
    assert r"\frac{" in formula(r"\frac{", display=True)


@given(st.lists(st.sampled_from([*"abx12 {}\\_^&<>$'\"", r"\frac", r"\sum", r"\left("]), max_size=20).map("".join))
def test_no_formula_breaks_the_page(latex):
    soup = BeautifulSoup(formula(latex, display=False), "html.parser")
    assert {tag.name for tag in soup.find_all(recursive=False)} <= {"math", "code", "span"}


def test_code_is_folded_and_highlighted():
    soup = page(code("import numpy as np"))
    assert not soup.select_one("details.code").has_attr("open")
    assert soup.select_one("details.code .kn").string == "import"


def test_a_long_line_of_digits_is_kept_and_costs_no_time():
    assert "7" * 300_000 in body(code(outputs=[stream("7" * 300_000 + "\n", "stdout")]))


def test_progress_bars_are_left_out_and_warnings_are_folded():
    bar = "\rfeatures:   0%|          | 0/30 [00:00<?, ?it/s]"
    words = body(
        code(outputs=[stream(bar, "stderr"), stream(bar.replace("0%", "100%") + "\n", "stderr")]),
        code(outputs=[stream("\r123it [00:05, 24.6it/s]", "stderr"), stream("a warning\n", "stderr")]),
    )
    assert "%|" not in words
    assert "it/s" not in words
    assert "a warning" in words


def test_tags_keep_cells_code_and_outputs_from_readers_but_no_error():
    def cell(tag, *outputs):
        return code(f"code_{tag}", [stream(f"printed_{tag}\n"), *outputs], tags=[f"{tag}"])

    words = body(cell("remove-cell"), cell("remove-input"), cell("remove-output"), cell("hide-input"))
    found = [tag for tag in ("cell", "input", "output") if f"printed_remove-{tag}" in words]
    assert (found, "code_remove" in words, "code_hide" in words) == (["input"], True, True)
    assert "code_remove - input" not in " ".join(words.replace("-", " - ").split())
    assert "no such thing" in body(cell("remove-cell", error()))


def test_a_progress_bar_that_stopped_before_its_end_is_shown():
    assert "half:  40%" in body(
        code(outputs=[stream("half:  40%|████      | 4/10 [00:01<00:01,  4.00it/s]", "stderr")])
    )
    assert "40%" not in body(code(outputs=[stream("half: 100%|██████████| 4/4 [00:01<00:00,  4.00it/s]", "stderr")]))


def widget(states, number="a"):
    """The page's text for a notebook that shows a widget, given the states of all of them."""
    kept = {name: {"model_name": kind, "state": state} for name, (kind, state) in states.items()}
    shown = v4.new_output("display_data", data={WIDGET: {"model_id": number}, "text/plain": "Widget()"})
    return page(code(outputs=[shown]), widgets={STATES: {"state": kept}}).find("main")


def test_widgets_stand_as_they_last_were():
    captured = [{"output_type": "stream", "name": "stdout", "text": "captured words"}]
    states = {
        "a": ("VBoxModel", {"children": ["IPY_MODEL_b", "IPY_MODEL_c", "IPY_MODEL_d", "IPY_MODEL_e", "IPY_MODEL_f"]}),
        "b": ("HTMLModel", {"value": "<b>bold</b><script>alert(1)</script>"}),
        "c": ("IntSliderModel", {"value": 3, "description": "power <"}),
        "d": ("DropdownModel", {"_options_labels": ["x", "y"], "index": 1}),
        "e": ("OutputModel", {"outputs": captured}),
        "f": ("FloatProgressModel", {"value": 4.0, "max": 10.0}),
    }
    shown = widget(states)
    words = shown.get_text(" ", strip=True)
    assert all(each in words for each in ("bold", "power <: 3", "captured words"))
    assert shown.select_one(".widget").find("progress")["value"] == "4.0"
    assert shown.find("script") is None
    assert "A control stood here" in widget({}).get_text()


def test_carriage_returns_leave_the_last_line():
    words = body(code(outputs=[stream("epoch 1\repoch"), stream(" 2\n")]))
    assert "epoch 2" in words
    assert "epoch 1" not in words


def test_a_control_is_replaced_by_the_figure_beside_it_or_by_a_sentence():
    model = {"model_id": "1", "version_major": 2, "version_minor": 0}
    beside = display(text_html="<p>static</p>")
    beside.data[WIDGET] = model
    alone = display(text_plain="IntSlider(value=0)")
    alone.data[WIDGET] = model
    bar = display(text_plain="  0%|          | 0/3 [00:00<?, ?it/s]")
    bar.data[WIDGET] = model
    words = body(code(outputs=[beside]), code(outputs=[alone, bar]))
    assert "static" in words
    assert words.count("A control stood here") == 1
    assert "IntSlider" not in words


def test_figures_have_captions_and_every_image_has_an_alt_text():
    png = display(image_png="iVBORw0KGgo=")
    soup = page(code(outputs=[figure("A line rises.", "One rising line."), png]))
    assert soup.figcaption.string == "A line rises."
    assert [image["alt"] for image in soup.find_all("img")] == ["One rising line.", "Figure without a description"]


def test_tables_have_scopes_and_right_aligned_numbers():
    rows = [
        {"model": "GPT", "bits per byte": 1.054, "note": None},
        {"model": "5-gram", "bits per byte": 2.1, "note": None},
    ]
    table = page(code(outputs=[recorded(models=rows)])).table
    assert [cell["scope"] for cell in table.thead.find_all("th")] == ["col"] * 3
    assert [cell.get_text() for cell in table.find_all(class_="number")] == ["bits per byte", "1.054", "2.1"]


@given(st.lists(st.one_of(st.integers(), st.floats()), min_size=1, max_size=3))
def test_any_column_of_numbers_is_right_aligned(numbers):
    cells = "".join(f"<tr><td>{number:.4g}</td></tr>" for number in numbers)
    assert readable_tables(f"<table>{cells}</table>").count('class="number"') == len(numbers)


def test_a_column_of_long_words_has_room_for_them_and_one_of_short_words_needs_none():
    rows = "<tr><td>a</td><td>2x32, 512 tokens, rate 0.005, 5000 examples</td></tr>"
    table = readable_tables(f"<table><thead><tr><th>model</th><th>setting</th></tr></thead>{rows}</table>")
    assert [cell.get("class") for cell in BeautifulSoup(table, "html.parser").find_all("td")] == [None, ["words"]]


def test_contents_lead_to_every_section_also_of_the_same_name():
    soup = page(text("# Echo\n\n## Results\n\n## Results\n\n### `leak` and $s$\n\n#### Too deep"))
    links = [link["href"] for link in soup.select("nav.contents a")]
    assert links == ["#run-parameters", "#results", "#results-2", "#leak-and-s", "#run-provenance"]
    assert all(soup.find(id=link[1:]) for link in links)


def test_pictures_from_elsewhere_become_links():
    soup = page(text("![A map](https://example.org/map.png)"))
    assert not soup.find_all("img")
    assert soup.find("a", href="https://example.org/map.png").string == "A map"


def test_a_picture_that_is_missing_is_named_in_its_place():
    said = body(text("![A map](attachment:gone%20now.png)\n\nMore."))
    assert "picture missing: A map" in said
    assert "More." in said


ATTACHED = '<img src="attachment:a%20map.png" alt="A map" width="300">'


@pytest.mark.parametrize("source", ["![A map](attachment:a%20map.png)", ATTACHED, f"In a line {ATTACHED}"])
def test_an_attached_picture_stands_in_its_place_however_it_is_written(source):
    cell = text(source)
    cell.attachments = {"a map.png": {"image/png": "iVBORw0K"}}
    (picture,) = page(cell).find_all("img")
    assert (picture["src"], picture["alt"]) == ("data:image/png;base64,iVBORw0K", "A map")
    assert picture.get("width", "300") == "300"


@pytest.mark.parametrize(
    "html", ['<img src="plot.png">', "In a line <IMG src='plot.png'>", '<video src="plot.png"></video>']
)
def test_what_a_page_cannot_load_is_named_where_it_stood(html):
    for cell in (text(f"# T\n\n{html}"), code(outputs=[display(text_html=html)])):
        soup = page(cell)
        assert not soup.find_all(["img", "video"])
        assert soup.find("a", href="plot.png").string == "plot.png"


def test_a_picture_within_a_link_leaves_the_link():
    soup = page(text("# T\n\n[![Open](https://example.org/badge.svg)](https://example.org/)"))
    assert soup.find("a", href="https://example.org/").get_text() == "Open"


@pytest.mark.parametrize(
    "html",
    [
        "<script>document.title = 'x'</script>",
        "<iframe srcdoc='<p>x</p>'></iframe>",
        "<base href='https://example.org/'>",
        "<meta http-equiv='refresh' content='0; url=https://example.org/'>",
        "<form action='https://example.org/'><input name='a'></form>",
        "<svg/onload=alert(1)></svg>",
        "<img src=x onerror='alert(1)'>",
        "<a href=' java&#115;cript:alert(1)' target='_top'>x</a>",
    ],
)
def test_nothing_in_texts_and_outputs_acts(html):
    output = display(text_html=f"{html}<p>kept</p>")
    soup = page(text(f"# T\n\n## H {html}\n\n{html}\n\nstays"), code(outputs=[output]))
    (own,) = soup.find_all("script")
    digest = b64encode(sha256(own.string.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'; form-action 'none'; base-uri 'none'" in str(soup.head)
    assert len(soup.head.find_all("meta")) == 3
    assert not soup.find_all(["iframe", "base", "form"]) + soup.body.find_all("meta")
    assert not [
        name for each in soup.find_all(True) for name in each.attrs if name.startswith("on") or name == "target"
    ]
    assert not soup.find_all(href=re.compile("script:"))
    assert "kept" in soup.get_text()
    assert "stays" in soup.get_text()


def test_what_an_output_loses_is_said_where_it_stood():
    output = display(application_javascript="x()", text_plain="<object>")
    assert "A script stood here" in body(code(outputs=[output]))
    assert "A form stood here" in body(code(outputs=[display(text_html="<form><input></form>")]))
    answers = body(code(outputs=[display(text_html="<p onclick='x()'>1</p><p onclick='x()'>2</p>")]))
    assert answers.count("A control that answers to the mouse or keyboard stood here") == 1


@pytest.mark.parametrize(
    "output",
    [
        stream,
        lambda words: error("E", words),
        lambda words: display(text_plain=words),
        lambda words: display(text_markdown=words),
    ],
    ids=["stream", "error", "plain", "markdown"],
)
def test_a_long_output_shows_its_beginning_and_end_and_how_much_is_left_out(output, monkeypatch):
    monkeypatch.setattr(outputs, "LONGEST_TEXT", 50_000)
    monkeypatch.setattr(outputs, "END_SHOWN", 10_000)
    lines = [f"line {i}" for i in range(10_000)]
    said = body(code(outputs=[output("\n".join(lines))]))
    assert len(said) < 60_000
    assert "line 0\n" in said
    assert "line 9999" in said
    left = int(re.search(r"([\d,]+) lines, [\d,]+ characters, left out", said)[1].replace(",", ""))
    assert abs(left + said.count("line ") - len(lines)) <= 3


def test_a_report_that_cannot_be_made_as_usual_is_made_plainer(tmp_path, monkeypatch):
    def fail(*_):
        raise RuntimeError("no tables today")

    monkeypatch.setattr("frugal.lab.pages.report.readable_tables", lambda html: fail() if "<table" in html else html)
    output = display(text_html="<table></table>", text_plain="in words")
    nbformat.write(notebook(text("# Echo\n\nSome text."), code(outputs=[output])), tmp_path / "a.ipynb")
    write_report(tmp_path / "a.ipynb", tmp_path / "a.html")
    said = BeautifulSoup((tmp_path / "a.html").read_text(), "html.parser").get_text()
    assert all(words in said for words in ("could not be made as usual", "no tables today", "Some text.", "in words"))


def test_the_page_forbids_requests_and_is_small():
    html = report(notebook(text("# Echo\n\n## One\n\n$x$"), code()), "echo")
    assert "default-src 'none'" in html
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", html)
    assert len(html) < 40_000


def test_a_file_that_is_no_notebook_is_refused(tmp_path):
    path = tmp_path / "notebook.ipynb"
    path.write_text("{")
    with pytest.raises(InputError):
        write_report(path, tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()


OF_FORMAT_3 = {
    "nbformat": 3,
    "nbformat_minor": 0,
    "metadata": {"name": ""},
    "worksheets": [{"cells": [{"cell_type": "heading", "level": 1, "source": ["Old"]}], "metadata": {}}],
}
OF_ONE_ID = notebook(text("# Old"), text("more"))
OF_ONE_ID.cells[0].id = OF_ONE_ID.cells[1].id


@pytest.mark.parametrize("content", [OF_FORMAT_3, OF_ONE_ID], ids=["format 3", "two cells with one id"])
def test_what_can_be_mended_of_a_notebook_is_mended_without_a_word(content, tmp_path, recwarn):
    path = tmp_path / "notebook.ipynb"
    path.write_text(json.dumps(content))
    write_report(path, tmp_path / "report.html")
    assert "<title>Old" in (tmp_path / "report.html").read_text()
    assert not recwarn.list


def test_a_report_is_written_from_the_notebook_alone(tmp_path):
    path = save(notebook(text("# Echo"), code(outputs=[figure()])), tmp_path / "notebook.ipynb")
    write_report(path, tmp_path / "elsewhere" / "report.html")
    assert "One rising line." in (tmp_path / "elsewhere" / "report.html").read_text()


def test_pages_made_one_after_another_do_not_mix():
    first, second = notebook(text("# One\n\n## Part"), run={"status": "failed"}), notebook(text("# Two"), run={})
    report(first, "a")
    later = report(second, "b")
    exporter.cache_clear()
    assert report(second, "b") == later

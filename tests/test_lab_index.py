import json
import os
from urllib.parse import unquote

import pytest
from bs4 import BeautifulSoup

from executed_notebooks import RUN, code, figure, notebook, recorded, save, text
from frugal.lab.pages.index import write_index


@pytest.fixture
def add_run(tmp_path):
    """Save the executed notebook of a run, and a report beside it."""

    def add(stem="01_echo", name="a", *cells, report=True, **run):
        path = tmp_path / "runs" / stem / name / "notebook.ipynb"
        save(notebook(*(cells or [text(f"# Title of {stem}\n\nOne sentence. Another.")]), run=run), path)
        if report:
            (path.parent / "report.html").write_text("report")
        return path

    return add


@pytest.fixture
def index(tmp_path):
    return lambda: BeautifulSoup(write_index(tmp_path).read_text(), "html.parser")


def test_an_empty_folder_is_said_to_be_empty(index):
    assert "There are no runs yet" in index().get_text()


def test_the_newest_run_of_each_notebook_stands_first_and_older_ones_below_it(add_run, index):
    add_run("01_echo", "a", started="2025-03-01T00:00:00Z")
    add_run("01_echo", "b", started="2025-03-03T00:00:00Z")
    add_run("02_memory", "a", started="2025-03-02T00:00:00Z")
    soup = index()
    assert [link["href"] for link in soup.select("h2 a")] == [
        "runs/01_echo/b/report.html",
        "runs/02_memory/a/report.html",
    ]
    assert [link["href"] for link in soup.select(".earlier a")] == ["runs/01_echo/a/report.html"]


def test_a_run_is_told_by_title_sentence_status_changes_and_results(add_run, index):
    cells = [
        text("# **Echo** nets\n\nA [net](x) learns. More."),
        code(outputs=[recorded(bpb=1.0537, table=[{"a": 1}])]),
    ]
    add_run("01_echo", "a", *cells, status="timeout", error="took too long")
    words = index().article.get_text(" ", strip=True)
    for part in (
        "Echo nets",
        "A net learns.",
        "stopped at its time limit",
        "took too long",
        "units = 500",
        "bpb 1.054",
    ):
        assert part in words
    assert "More." not in words
    assert "table" not in words


def test_the_first_figure_is_the_thumbnail(add_run, index):
    add_run(
        "01_echo", "a", text("# Echo"), code(outputs=[figure(alt="The first.")]), code(outputs=[figure(alt="Next.")])
    )
    assert [image["alt"] for image in index().find_all("img")] == ["The first."]


def test_kept_models_stand_in_a_table(add_run, index, tmp_path, monkeypatch):
    monkeypatch.setenv("FRUGAL_DATA", str(tmp_path / "data"))
    add_run("11_train")
    assert index().find(id="models") is None
    for name, accuracy in {"poems": 0.61284, "<tales>": None}.items():
        folder = tmp_path / "data" / "models" / name
        folder.mkdir(parents=True)
        about = {"family": "ngram", "text": "texts/all.txt", "accuracy": accuracy, "when": name}
        (folder / "about.json").write_text(json.dumps(about))
    head, *rows = [[cell.get_text() for cell in row.find_all(["th", "td"])] for row in index().select("#models tr")]
    assert [row[:3] for row in rows] == [["poems", "all.txt", "ngram"], ["<tales>", "all.txt", "ngram"]]
    assert [row[head.index("accuracy")] for row in rows] == ["0.6128", ""]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"nbformat": 4}'])
def test_a_damaged_notebook_is_listed_and_hides_no_other(tmp_path, add_run, index, content):
    add_run("01_echo", "good")
    add_run("01_echo", "bad")
    (tmp_path / "runs/01_echo/bad/notebook.ipynb").write_text(content)
    soup = index()
    assert [link["href"] for link in soup.select("article a")] == ["runs/01_echo/good/report.html"]
    assert "runs/01_echo/bad" in soup.find(id="unreadable").parent.get_text()


@pytest.mark.parametrize("run", [{"parameters": "none"}, {"machine": "a computer"}, {"started": 5, "seconds": "x"}])
def test_a_run_with_odd_metadata_is_listed_all_the_same(add_run, index, run):
    add_run("01_echo", "a", **run)
    assert "runs/01_echo/a" in str(index().main)


def test_a_run_of_plain_papermill_is_listed(tmp_path, index):
    path = tmp_path / "runs" / "01_echo" / "a" / "notebook.ipynb"
    save(notebook(text("Just text."), run={}, papermill={"parameters": {"units": 50}}), path)
    words = index().article.get_text(" ", strip=True)
    assert "01_echo" in words
    assert "outcome not recorded" in words
    assert "units = 50" in words


def test_every_link_leads_to_a_file(tmp_path, add_run, index):
    add_run("a notebook #1?", "x")
    add_run("02_memory", "without a report", report=False)
    links = [link["href"] for link in index().select("main a")]
    assert links
    assert all((tmp_path / unquote(link)).exists() for link in links)


def test_what_comes_from_notebooks_is_escaped(add_run, index):
    evil = "<script>alert(1)</script>"
    add_run(
        "01_echo", "a", text(f"# {evil}\n\n{evil}"), profile=evil, parameters={evil: evil}, changed=[evil], error=evil
    )
    assert all("alert(1)</script>" not in str(script) for script in index().find_all("script"))
    assert [script.get("type") for script in index().find_all("script")] == ["application/json", None]


def test_what_goes_on_and_what_waits_stands_first_and_a_silent_run_is_called_lost(tmp_path, add_run, index):
    path = add_run("01_echo", "a", text("# Echo"), status="running")
    status = {**RUN, "status": "running", "doing": {"cell": 3, "cells": 9, "section": "Results", "line": "epoch 4"}}
    (path.parent / "status.json").write_text(json.dumps(status))
    page = BeautifulSoup(write_index(tmp_path, waiting=["02_memory"]).read_text(), "html.parser")
    words = page.find(id="live").get_text(" ", strip=True)
    assert all(each in words for each in ("cell 3 of 9, Results", "epoch 4", "waiting: 02_memory"))
    assert not page.find("article")
    os.utime(path.parent / "status.json", (0, 0))
    page = index()
    assert not page.find(id="live")
    assert "ended without a word" in page.article.get_text()

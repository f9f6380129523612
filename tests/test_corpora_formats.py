"""Files beside plain text: tables, pages, books, word processors, notebooks, archives; rows as people export them."""

import gzip
import io
import json
import zipfile
from pathlib import Path, PurePath
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from frugal.corpora import Document, load_corpus
from frugal.corpora.reading.formats import CELLS, CONVERT, LINES, PARAGRAPHS, READERS, documents_in
from frugal.corpora.reading.records import CONVERSATIONS, each_document
from frugal.errors import InputError, UnavailableError

LONG = "A sentence that is long enough to be a text."
WORDS = "<w:p><w:r><w:t>{}</w:t></w:r></w:p>"
DOCX = '<w:document xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"><w:body>{}</w:body></w:document>'
CONTAINER = '<container xmlns="c"><rootfiles><rootfile full-path="OEBPS/book.opf"/></rootfiles></container>'
PACKAGE = """<package xmlns="o"><manifest><item id="b" href="second%20page.xhtml"/><item id="a" href="first.xhtml"/>
</manifest><spine><itemref idref="a"/><itemref idref="b"/></spine></package>"""


def texts(raw: bytes | str, name: str) -> list[str]:
    raw = raw.encode() if isinstance(raw, str) else raw
    return [document.text for document in documents_in(raw, PurePath(name), name)]


def zipped(files: dict[str, str | bytes]) -> bytes:
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return raw.getvalue()


# Tables


@pytest.mark.parametrize(("name", "delimiter"), [("a.csv", ","), ("a.csv", ";"), ("a.TSV", "\t")])
def test_a_tables_text_column_is_known_by_its_name(name: str, delimiter: str) -> None:
    lines = [["id", "text"], ["1", '"one, two;\nthree"'], ["2", "four"], ["3", ""]]
    with pytest.warns(match=r"1 rows without text are left out \(row 3\)"):
        assert texts("\r\n".join(map(delimiter.join, lines)), name) == ["one, two;\nthree", "four"]


def test_a_table_of_questions_and_answers_holds_dialogues() -> None:
    (document,) = documents_in(b"question,answer\nWho?,Me.\n", PurePath("a.csv"), "a.csv")
    assert [turn.text for turn in document.turns] == ["Who?", "Me."]


def test_the_longest_column_is_guessed_to_be_the_text_and_named() -> None:
    with pytest.warns(match="column 'review' is taken as the text"):
        assert texts(f"stars,review\n5,{LONG}\n4,{LONG}\n", "a.csv") == [LONG, LONG]


def test_a_table_without_headings_loses_no_row() -> None:
    text = LONG * 2
    with pytest.warns(match="column 'column 2' is taken"):
        assert texts(f"1,{text}\n2,{text}!\n", "a.csv") == [text, text + "!"]


def test_a_table_of_labels_is_refused() -> None:
    with pytest.raises(InputError, match=r"row 1 cannot be read \(found name, stars\)"):
        texts("name,stars\nAnna,5\n", "a.csv")


@pytest.mark.parametrize("name", ["a.csv", "a.tsv"])
def test_a_table_of_one_column_keeps_all_of_its_texts(name: str) -> None:
    assert texts("text\nHello, world\nHello; you\tand, you\n", name) == ["Hello, world", "Hello; you\tand, you"]


@pytest.mark.parametrize("columns", ["id,text", "text,id"])
def test_a_row_with_more_cells_than_columns_is_refused_by_its_number(columns: str) -> None:
    with pytest.raises(InputError, match="row 2 has 3 cells, of 2 columns; put quotes"):
        texts(f"{columns}\n1,Hello,\n1,Hello, world\n", "a.csv")


@pytest.mark.parametrize("second", ["other", '"other'])
def test_a_quote_at_the_beginning_of_a_cell_swallows_no_rows(second: str) -> None:
    rows = ['"Hi," she said', second, 'yes" he said']
    table = "".join(f"{number}\t{row}\n" for number, row in enumerate(rows))
    assert texts("id\ttext\n" + table, "a.tsv") == rows
    with pytest.raises(InputError, match=r"is no table \(line 2: "):
        texts("id,text\n" + table.replace("\t", ","), "a.csv")


def test_a_parquet_file_is_a_table() -> None:
    arrow = pytest.importorskip("pyarrow", reason="the optional package datasets is not installed")
    import pyarrow.parquet

    raw = io.BytesIO()
    pyarrow.parquet.write_table(arrow.table({"label": [1, 2], "body": [LONG, LONG + "!"]}), raw)
    with pytest.warns(match="column 'body' is taken"):
        assert texts(raw.getvalue(), "a.parquet") == [LONG, LONG + "!"]


def test_a_parquet_file_needs_a_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("frugal.corpora.reading.formats.find_spec", lambda _: None)
    with pytest.raises(UnavailableError, match=r"^a\.parquet: needs the package pyarrow"):
        texts(b"PAR1", "a.parquet")


# Rows


@pytest.mark.parametrize(
    "value",
    [
        {"text": [LONG, "two"], "label": [1, 0]},
        {"text": {"0": LONG, "1": "two"}, "label": {"0": 1, "1": 0}},
        {"version": 2, "data": [{"text": LONG}, {"text": "two"}]},
        [None, {"text": LONG}, {}, {"label": 1}, {"label": 0, "text": "two"}, {"text": None}],
    ],
    ids=["columns", "numbered columns", "named list", "null rows"],
)
def test_rows_are_found_as_programs_write_them(value: Any) -> None:
    assert texts(json.dumps(value), "a.json") == [LONG, "two"]


def test_one_conversation_alone_is_one_row() -> None:
    talk = {"messages": [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Me."}]}
    assert [d.turns[1].text for d in documents_in(json.dumps(talk).encode(), PurePath("a.json"), "a")] == ["Me."]


ASKED, SAID = {"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Me."}


@pytest.mark.parametrize(
    "row",
    [
        {"input": "Who?", "output": "Me."},
        {"inputs": "Who?", "targets": "Me."},
        {"Question": "Who?", "ANSWER": "Me."},
        {"context": "Who?", "response": "Me."},
        {"prompt": [ASKED], "completion": [SAID]},
        {"prompt": "Who?", "chosen": [SAID], "rejected": [ASKED]},
        {"chat": [{"author": "human", "text": "Who?"}, {"author": "AI", "text": "Me."}]},
    ],
)
def test_a_question_and_its_answer_are_known_by_many_names(row: dict[str, Any]) -> None:
    assert next(each_document([row], "a file")).turns == (("user", "Who?"), ("assistant", "Me."))


@pytest.mark.parametrize("rest", [{"instruction": "Who?", "output": "Me."}, {"conversations": [ASKED, SAID]}])
def test_what_a_column_has_the_system_say_goes_before_the_first_question(rest: dict[str, Any]) -> None:
    (document,) = each_document([{"system": "Be brief.", **rest}], "a file")
    assert document.turns == (("user", "Be brief.\n\nWho?"), ("assistant", "Me."))


@pytest.mark.parametrize(
    "history", [[["Hi", "Ho"]], ["Hi", "Ho"], [{"role": "user", "content": "Hi"}, {"role": "bot", "content": "Ho"}]]
)
def test_earlier_questions_and_answers_of_a_pair_go_before_it(history: list[Any]) -> None:
    (document,) = each_document([{"instruction": "Who?", "output": "Me.", "history": history}], "a file")
    assert [turn.text for turn in document.turns] == ["Hi", "Ho", "Who?", "Me."]


@pytest.mark.parametrize("name", CONVERSATIONS)
@pytest.mark.parametrize("value", [LONG, None, 3])
def test_only_a_list_is_a_conversation(name: str, value: Any) -> None:
    rows = [{name: value, "text": "one"}, *([{name: value, "summary": "two"}] if value == LONG else [])]
    assert [document.text for document in each_document(rows, "a file")] == ["one", LONG][: len(rows)]
    pair = {name: value, "prompt": "Who?", "response": "Me.", "history": "Earlier."}
    assert next(each_document([pair], "a file")).turns == (("user", "Earlier.\n\nWho?"), ("assistant", "Me."))


def test_rows_of_several_kinds_are_each_read_as_what_they_are() -> None:
    rows: list[Any] = [{"text": "one"}, {"prompt": "Who?", "response": "Me."}, {"dialog": ["Hi", "Ho"]}]
    assert [len(document.turns) for document in each_document(rows, "a file")] == [0, 2, 2]


# Pages, books, word processors, notebooks


def test_a_page_is_its_paragraphs() -> None:
    page = "<html><head><title>T</title><style>p {}</style></head><body><h1>Of cats</h1><p>One <b>cat</b>.</p>"
    page += "<script>alert()</script><p>A line<br>and another.</p><ul><li>x</li><li>y</li></ul></body></html>"
    assert texts(page, "a.html") == ["Of cats\n\nOne cat.\n\nA line\nand another.\n\nx\ny\n"]


@pytest.mark.parametrize("name", [*PARAGRAPHS, *LINES, *CELLS])
def test_no_part_of_a_page_runs_into_the_next(name: str) -> None:
    page = f"one<{name}>two</{name}>" + (f"<{name}>three</{name}>" if name not in PARAGRAPHS else "three")
    if name in ("br", "hr"):
        page = f"one<{name}>two<{name}>three"
    (text,) = texts(page, "a.html")
    assert text.split() == ["one", "two", "three"]


def test_a_page_is_read_in_the_encoding_that_it_declares() -> None:
    assert texts('<meta charset="iso-8859-2"><p>łąka</p>'.encode("iso-8859-2"), "a.htm") == ["łąka\n"]


def test_a_book_has_its_pages_in_its_own_order() -> None:
    pages = {"OEBPS/first.xhtml": "<p>One.</p>", "OEBPS/second page.xhtml": "<p>Two: é.</p>"}
    book = zipped({"META-INF/container.xml": CONTAINER, "OEBPS/book.opf": PACKAGE, **pages})
    (document,) = documents_in(book, PurePath("tale.epub"), "tale.epub")
    assert document == Document("tale", "One.\n\n\nTwo: é.\n")


def test_a_word_processors_paragraphs_are_paragraphs() -> None:
    document = zipped(
        {"word/document.xml": DOCX.format(WORDS.format("One.") + WORDS.format("") + WORDS.format("Two: é."))}
    )
    assert texts(document, "a.docx") == ["One.\n\nTwo: é.\n"]


def test_breaks_and_text_boxes_of_a_word_processor_stand_where_they_stood_and_once() -> None:
    box = "<w:txbxContent>" + WORDS.format("box") + "</w:txbxContent>"
    both = f"<m:AlternateContent><m:Choice>{box}</m:Choice><m:Fallback>{box}</m:Fallback></m:AlternateContent>"
    parts = f"<w:pPr><w:tabs><w:tab/></w:tabs></w:pPr><w:r><w:t>one</w:t><w:br/><w:t>two</w:t>{both}<w:tab/></w:r>"
    body = f"<w:p>{parts}<w:r><w:t>three</w:t></w:r></w:p>".replace("m:", "w:")
    assert texts(zipped({"word/document.xml": DOCX.format(body)}), "a.docx") == ["one\ntwo\tthree\n\nbox\n"]


@pytest.mark.parametrize("cells", [3, [None], [3], [{"source": None}], [{"source": [None]}]])
def test_an_odd_notebook_gets_one_sentence(cells: Any) -> None:
    with pytest.raises(InputError, match=r"^a\.ipynb: is no notebook"):
        texts(json.dumps({"cells": cells}), "a.ipynb")
    with pytest.raises(InputError, match=r"^a\.ipynb: is no notebook"):
        texts(json.dumps([cells]), "a.ipynb")


def test_a_notebook_is_what_its_cells_say() -> None:
    cells = [{"source": ["# One\n", "two"], "outputs": [{"text": "no"}]}, {"source": "three"}, {"source": ""}]
    assert texts(json.dumps({"cells": cells}), "a.ipynb") == ["# One\ntwo\n\nthree\n"]


# Archives


def test_a_packed_file_is_read_as_what_it_was() -> None:
    assert texts(gzip.compress(b'{"text": "one"}\n{"text": "two"}\n'), "rows.jsonl.gz") == ["one", "two"]
    assert texts(gzip.compress(b"a story"), "story.gz") == ["a story"]


def test_an_archive_holds_the_documents_of_its_files() -> None:
    files = {"b/two.html": "<p>two</p>", "a/one.txt": "one", "a/picture.png": b"\x89PNG", "README.md": "x"}
    with pytest.warns(match=r"a\.zip: 2 files are left out \(1 \.md, 1 \.png\)"):
        assert texts(zipped(files), "a.zip") == ["one", "two\n"]


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_damaged_file_of_an_archive_costs_that_file(method: int) -> None:
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w", method) as archive:
        archive.writestr("one.txt", "one")
        archive.writestr("two.txt", LONG)
        begin = archive.getinfo("two.txt").header_offset + len("two.txt") + 30 + 9 * (method == zipfile.ZIP_LZMA)
        raw.seek(begin)
        raw.write(b"\xff" * 4)
        raw.seek(0, io.SEEK_END)
    with pytest.warns(match=r"1 files are left out \(1 \.txt\); a\.zip: two\.txt: cannot be unpacked \("):
        assert texts(raw.getvalue(), "a.zip") == ["one"]


def test_an_archive_without_texts_is_refused() -> None:
    with pytest.raises(InputError, match=r"a\.zip: has no file ending in \.txt"):
        texts(zipped({"picture.png": b"\x89PNG"}), "a.zip")


# What cannot be read


@pytest.mark.parametrize("ending", sorted({*READERS} - {".csv", ".tsv", ".html", ".htm", ".xhtml"}))
@given(raw=st.binary(max_size=40).map(lambda raw: b"PK\x03\x04" + raw))
def test_damaged_files_get_one_sentence(ending: str, raw: bytes) -> None:
    with pytest.raises(InputError, match=r"^a file") as caught:
        documents_in(raw, PurePath(f"a{ending}"), "a file")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("ending", sorted(CONVERT))
def test_a_format_that_is_not_read_says_what_to_do(ending: str) -> None:
    with pytest.raises(InputError, match=f"{ending[1:].upper()} files are not read; .* first"):
        documents_in(b"%PDF", PurePath(f"a{ending.upper()}"), "a file")


@pytest.mark.parametrize("name", ["page.html", "notebook.ipynb", "letter.docx"])
def test_a_file_without_text_is_refused(name: str) -> None:
    raw = {
        "page.html": b"<p> </p>",
        "notebook.ipynb": b"{}",
        "letter.docx": zipped({"word/document.xml": DOCX.format("")}),
    }
    with pytest.raises(InputError, match="holds no text"):
        documents_in(raw[name], PurePath(name), name)


def test_a_folder_reads_all_kinds_and_leaves_out_what_it_cannot(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text(f"<p>{LONG * 9}</p>", encoding="utf-8")
    (tmp_path / "b.csv").write_text(f"text\n{LONG * 8}\n", encoding="utf-8")
    (tmp_path / "c.csv").write_text("name\nAnna\n", encoding="utf-8")
    (tmp_path / "d.pdf").write_bytes(b"%PDF")
    with pytest.warns(match=r"2 files are left out \(1 \.csv, 1 \.pdf\)"):
        corpus = load_corpus(str(tmp_path))
    assert sum(map(len, (corpus.train, corpus.valid, corpus.test))) >= 2

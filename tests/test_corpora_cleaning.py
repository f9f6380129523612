"""Cleaning rules, each on a small text written for the test."""

import bz2
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from frugal.corpora import Turn
from frugal.corpora.cleaning import clean_article, clean_chitchat, clean_grimm, clean_wikipedia
from frugal.corpora.reading.text import decode, documents_of, strip_gutenberg
from frugal.errors import InputError

SHARED = Path(__file__).parents[2] / "shared" / "data"
PROSE = "A paragraph that is long enough to count as prose, because it has more than eighty characters in it."


@pytest.mark.parametrize(
    ("markup", "cleaned"),
    [
        (f"{PROSE}\n\nToo short.\n\n{PROSE}", f"{PROSE}\n\n{PROSE}"),
        (f"{PROSE[:-1]}\n\n{PROSE}", PROSE),
        (f"{PROSE}\n\n== See also ==\n{PROSE}", PROSE),
        (f"{PROSE}\n\n==REFERENCES==\n{PROSE}", PROSE),
        (f"{PROSE}\n\n=== External links to others ===\n{PROSE}", f"{PROSE}\n\n{PROSE}"),
        (f"{PROSE}<!-- a remark -->", PROSE),
        (f'{PROSE}<ref name="a">{PROSE}</ref>', PROSE),
        ("{{Infobox|name=" + PROSE + "}}\n" + PROSE, PROSE),
        ("{|\n| " + PROSE + "\n|}\n" + PROSE, PROSE),
        (f"<gallery>\n{PROSE}\n</gallery>\n{PROSE}", PROSE),
        (f"[[File:a.jpg|thumb|{PROSE}]]\n{PROSE}", PROSE),
        (f"[[Category:Texts]]\n{PROSE}", PROSE),
        (PROSE.replace("paragraph", "'''[[Paragraph (text)|paragraph]]'''"), PROSE),
        (PROSE.replace(", because", " ({{lang|la|quia}}), because"), PROSE),
        (PROSE.replace("prose,", "prose {{which}},").replace(" ", "&nbsp;", 1), PROSE),
        (f"{PROSE}\n\n{PROSE[:-1]} | and this.", PROSE),
        ('He said: "' + PROSE + '"', 'He said: "' + PROSE + '"'),
    ],
)
def test_an_article_is_reduced_to_its_prose(markup: str, cleaned: str) -> None:
    assert clean_article(markup) == cleaned


def test_redirects_other_pages_and_articles_without_prose_are_left_out() -> None:
    pages = [
        ("Kept", "0", "", PROSE),
        ("Redirect", "0", "<redirect title='Kept'/>", PROSE),
        ("Wikipedia:Rules", "4", "", PROSE),
        ("List", "0", "", "* one\n* two"),
    ]
    export = "".join(
        f"<page><title>{title}</title><ns>{space}</ns>{redirect}<revision><text>{text}</text></revision></page>"
        for title, space, redirect, text in pages
    )
    raw = f'<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.10/">{export}</mediawiki>'
    documents = clean_wikipedia(bz2.compress(raw.encode()))
    assert [(document.title, document.text) for document in documents] == [("Kept", PROSE)]


def test_grimm_has_three_header_lines_and_two_spaces_for_a_paragraph() -> None:
    header = "Topic\tTitle\tContent\r\ndiscrete\tstring\tstring\r\nclass\t\t\r\n\r\n"
    table = header + "Magic\tThe Fox\tOnce.  Then it\u2019s over.\r\n"
    documents = clean_grimm(table.encode())
    assert [(document.title, document.text) for document in documents] == [("The Fox", "Once.\n\nThen it\u2019s over.")]


def conversation(*messages: tuple[str, str]) -> dict[str, object]:
    return {"prompt": "A prompt", "messages": [[{"sender": sender, "text": text}] for sender, text in messages]}


def test_chit_chat_joins_what_one_says_and_marks_who_speaks() -> None:
    raw = json.dumps(
        {"1": conversation(("b", "Hello"), ("b", " how \n are you?"), ("a", " "), ("a", "Fine"), ("b", "OK"))}
    )
    (document,) = clean_chitchat(raw.encode())
    assert document.turns == (Turn("user", "Hello how are you?"), Turn("assistant", "Fine"), Turn("user", "OK"))
    assert document.text == "<|user|>Hello how are you?\n<|assistant|>Fine\n<|user|>OK\n"


@pytest.mark.parametrize(
    "message",
    [
        "write to me@example.org",
        "see https://example.org",
        "call (555) 123-4567",
        "call 555-123-4567",
        "Bullshit? Shitty!",
    ],
)
def test_private_and_coarse_conversations_are_left_out(message: str) -> None:
    raw = json.dumps({"1": conversation(("a", "Hi"), ("b", message)), "2": conversation(("a", "Hi"), ("b", "Hello"))})
    assert [document.turns[1].text for document in clean_chitchat(raw.encode())] == ["Hello"]


def test_a_conversation_nobody_answered_is_left_out() -> None:
    assert clean_chitchat(json.dumps({"1": conversation(("a", "Hi"), ("a", "Anyone?"))}).encode()) == []


START, END = "*** START OF THE PROJECT GUTENBERG EBOOK A ***", "*** END OF THE PROJECT GUTENBERG EBOOK A ***"


@pytest.mark.parametrize(
    "start",
    [
        "*** START OF THE PROJECT GUTENBERG EBOOK A BOOK ***",
        "***START OF THIS PROJECT GUTENBERG EBOOK A LONG\nBOOK***",
        "*** START OF THIS PROJECT GUTENBERG ETEXT M*A*S*H ***\n\nThe Project Gutenberg Etext of A Book\nby A\n\n***",
        "*END*THE SMALL PRINT! FOR PUBLIC DOMAIN EBOOKS*Ver.04.29.93*END*",
        "*SMALL PRINT! Ver.06.28.92* A Book *END*",
    ],
)
@pytest.mark.parametrize(
    "end",
    [
        "*** END OF THE PROJECT GUTENBERG EBOOK A BOOK ***",
        "End of the Project Gutenberg EBook of A Book\n\n***",
        "End of this Project Gutenberg Etext of A Book",
        "Ende dieses Projekt Gutenberg Etextes A Book",
        "Ende des Project Gutenberg EBooks A Book",
        "Fin de Project Gutenberg's A Book, par Somebody",
        "Fine del Progetto Gutenberg A Book",
    ],
)
def test_gutenbergs_wrapping_is_stripped(start: str, end: str) -> None:
    wrapped = (
        f"Title: A Book\n\n{start}\n\nProduced by Somebody and\nothers\n\n\nThe book.\n\nIts end.\n\n\n{end}\nLicence\n"
    )
    assert strip_gutenberg(wrapped) == "The book.\n\nIts end.\n"


@pytest.mark.parametrize(
    "credit",
    [
        "Etext prepared by Somebody, a@b",
        "This etext was typed by Somebody",
        "This Etext prepared by Somebody",
        "This file was produced from images of a library",
        "Transcribed from the 1897 edition by Somebody",
        "[This eBook was produced by Somebody]",
        "Scanned and proofed by Somebody",
        "Digitised by Somebody and\nothers",
        "HTML version by Somebody",
    ],
)
def test_credits_before_a_book_go(credit: str) -> None:
    assert strip_gutenberg(f"{START}\n\n{credit}\n\nThe book.\n\n{END}\n") == "The book.\n"


def test_a_footer_alone_goes_and_a_quoted_one_within_a_text_stays() -> None:
    footer = "\nEnd of the Project Gutenberg EBook of A Book, by A. U. Thor\n"
    assert strip_gutenberg("The book.\n" + footer) == "The book.\n"
    quoted = "A note on a footer:\n" + footer + "A sentence of mine.\n" * 2000
    assert strip_gutenberg(quoted) == quoted


@pytest.mark.parametrize("licence", ["", "Project Gutenberg's licence\n" * 200, "New editions\nProject Gutenberg\n"])
def test_books_one_after_another_are_documents(licence: str) -> None:
    wrapped = [f"The Project Gutenberg eBook of {book}\n\n{START}\n\n{book}\n\n{END}\n{licence}" for book in "ABC"]
    found = documents_of("\n".join(wrapped), "three")
    assert [(document.title, document.text) for document in found] == [
        ("three, 1", "A\n"), ("three, 2", "B\n"), ("three, 3", "C\n"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        "A word of mine. " * 100 + f"\n{START}\nis how a file begins, and\n{END}\nhow it ends.\nMy last words.\n",
        "A word of mine. " * 100 + f"\n{START}\nis how a file begins.\n",
        f"Files end with\n{END}\nand that is all I know.\n",
    ],
    ids=["both", "start", "end"],
)
def test_a_text_that_quotes_gutenbergs_markers_stays(text: str) -> None:
    (document,) = documents_of(text, "notes")
    assert document.text == text


def test_a_text_without_gutenbergs_markers_stays_as_it_is() -> None:
    text = " Title: none\n\nProduced by nobody.\n"
    assert strip_gutenberg(text) == text


@pytest.mark.skipif(not SHARED.exists(), reason="the shared books are not here")
def test_real_books_lose_their_wrapping() -> None:
    for name, beginning, end in [
        ("frankenstein.txt", "Frankenstein;", "darkness and distance.\n"),
        ("the_raven.txt", "[Illustration]", "the author of “The Raven.”\n"),
    ]:
        path = SHARED / "language-interpolation-books" / name
        (book,) = documents_of(decode(path.read_bytes(), name), name)
        assert book.text.startswith(beginning)
        assert book.text.endswith(end)
        assert "gutenberg.org" not in book.text


WIKITEXT = (
    " \n = One = \n \n Text of one . \n = = Section = = \n \n More . \n \n = Two ( a = b ) = \n \n Text of two . \n"
)


def test_wikitext_articles_become_documents_that_lose_nothing() -> None:
    documents = documents_of(WIKITEXT, "file")
    assert [document.title for document in documents] == ["One", "Two ( a = b )"]
    assert "".join(document.text for document in documents) == WIKITEXT


def test_wikitext_titles_stand_between_blank_lines() -> None:
    text = "= One =\n\n x = y and\n = z =\n\n== Section ==\n\n = no title = here\n\n"
    assert [document.title for document in documents_of(text, "file")] == ["One"]


@pytest.mark.skipif(not SHARED.exists(), reason="the shared WikiText-2 is not here")
@pytest.mark.parametrize("name", ["valid.txt", "test.txt"])
def test_the_real_wikitext_has_sixty_articles(name: str) -> None:
    text = (SHARED / "wikitext-2" / name).read_text(encoding="utf-8")
    documents = documents_of(text, name)
    assert len(documents) == 60
    assert "".join(document.text for document in documents) == text


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_unicode_files_read_with_or_without_a_mark_and_with_any_line_ends(encoding: str) -> None:
    assert decode("Grüße\r\nzwei\rdrei\n".encode(encoding), "a file") == "Grüße\nzwei\ndrei\n"


def test_a_stray_nul_is_left_out() -> None:
    with pytest.warns(match="holds 1 NUL characters"):
        assert decode(b"one two " * 200 + b"\0three", "a file") == "one two " * 200 + "three"


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("text", ["天地玄黃。宇宙洪荒。", "これは日本語の文章です。"])  # not one ASCII character
def test_utf16_without_a_mark_is_known_in_any_script(text: str, encoding: str) -> None:
    with pytest.warns(match=f"read as {encoding}, a guess"):
        assert decode((text * 40).encode(encoding), "a file") == text * 40


def test_another_encoding_is_guessed_with_a_warning() -> None:
    text = "Der Käse schmeckt über alle Maßen gut, und die Bäume blühen schön im Frühling. " * 5
    with pytest.warns(UserWarning, match="is not UTF-8"):
        assert decode(text.encode("cp1252"), "a file") == text


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("Mañana la niña pequeña comerá castañas en la montaña, señor. ", "latin-1"),
        ("Perché però la città è così lontana? Andrò là più tardi, e non partì. ", "latin-1"),
        ("Un œuvre à 5 € — « très » bien faite, dit-il à son élève étonné. ", "cp1252"),
        ("\N{LEFT DOUBLE QUOTATION MARK}Größe\N{RIGHT DOUBLE QUOTATION MARK}: über 5 € für Müllers Söhne. ", "cp1252"),
        ("Příliš žluťoučký kůň úpěl ďábelské ódy a šel domů. ", "cp1250"),
        ("Съешь же ещё этих мягких французских булок да выпей чаю. ", "koi8-r"),
        ("Широкая электрификация южных губерний даст мощный толчок. ", "cp1251"),
        ("色は匂へど散りぬるを、我が世誰ぞ常ならむ。", "shift_jis"),
        ("天地玄黃宇宙洪荒日月盈昃辰宿列張。", "big5"),
        ("Ein Text ohne Marke. ", "utf-16-le"),
        ("Noch ein Text, größer. ", "utf-32-be"),
    ],
    ids=lambda value: value if len(value) < 10 else value[:6],
)
def test_letters_are_right_whatever_the_encoding(text: str, encoding: str) -> None:
    with pytest.warns(UserWarning, match="is not UTF-8; read as"):
        assert decode((text * 20).encode(encoding), "a file") == text * 20


@pytest.mark.parametrize("damage", [lambda raw: raw[:100] + b"\xff" + raw[100:], lambda raw: raw[:-1]])
def test_a_damaged_byte_of_utf8_costs_that_byte(damage: Callable[[bytes], bytes]) -> None:
    text = "Der jüngste hieß Jörg und ging über die Brücke zur Mühle" * 20 + "ü"
    with pytest.warns(UserWarning, match="UTF-8 with 1 damaged places, the first at byte"):
        read = decode(damage(text.encode()), "a file")
    assert read.count("\N{REPLACEMENT CHARACTER}") == 1
    assert abs(len(read) - len(text)) <= 1


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
@pytest.mark.parametrize("cut", [1, 3])
def test_a_marked_text_whose_last_character_is_cut_loses_that_alone(encoding: str, cut: int) -> None:
    raw = "\ufeffgrün 😀".encode(encoding)[:-cut]
    with pytest.warns(UserWarning, match=f"{encoding[:6].upper()} with 1 damaged places"):
        assert decode(raw, "a file") == "grün \N{REPLACEMENT CHARACTER}"


@pytest.mark.parametrize(
    ("declared", "read_as", "text"),
    [
        ("ISO-8859-1", "windows-1252", "“à la carte” — 5 €"),
        ("latin1", "iso8859-1", "à la carte\x81"),  # of no other encoding
        ("ISO-8859-9", "windows-1254", "“ğş”"),
        ("tis-620", "cp874", "“ไทย”"),
        ("gb2312", "gb18030", "镕€"),
        ("Shift_JIS", "cp932", "①髙"),
        ("euc-kr", "cp949", "똠"),
        ("Big5", "big5hkscs", "嘅"),
        ("iso-8859-2", "iso8859-2", "łąka"),
    ],
)
def test_a_declared_encoding_is_read_as_browsers_do_and_named(declared: str, read_as: str, text: str) -> None:
    text = f"Character set encoding: {declared}\n\n{text}"
    with pytest.warns(UserWarning, match=f"is not UTF-8; read as {read_as}, as it declares {declared}"):
        assert decode(text.encode("latin-1" if "8859-1" in read_as else read_as), "a book") == text


def test_a_declared_encoding_that_cannot_be_is_not_believed() -> None:
    page = "<meta charset=utf-16><p>Größe, schöne Vögel und Brücken</p>"
    with pytest.warns(UserWarning, match="a guess"):
        assert decode(page.encode("latin-1"), "a page") == page


@pytest.mark.parametrize(
    ("raw", "message"),
    [(b"", "is empty"), (b" \n", "is empty"), (b"ab\0cd", "binary"), (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\xff", "binary")],
)
def test_files_without_text_are_refused(raw: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message):
        decode(raw, "a file")

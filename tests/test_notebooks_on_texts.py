"""Every notebook that reads a text, on small texts of the kinds that people have.

The normal tests run a few pairs; `make test-texts` runs all, which takes half an hour.
"""

import json
import random
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

import warm_kernels
from frugal.lab.pages.notebooks import read_notebook
from frugal.lab.run.parameters import read_parameters
from warm_kernels import run_warm

NOTEBOOKS = {path.stem[:2]: path for path in warm_kernels.NOTEBOOKS}
READERS = ("01", "02", "03", "04", "05", "06", "08", "09", "10", "11")
SMALLER = {"foundation": "tiny-gpt2", "tokens": 100, "digits_epochs": 1, "recipe_seconds": 0.02, "search_trials": 2}
SMALLER |= {"contexts": [8, 512], "longer_context": 512, "long_context": 512}  # more than this foundation takes

ENGLISH = "the old king went into a forest and saw golden bird said not his daughter castle horse came back three days"
GERMAN = "der alte König ging über die Brücke und sah schöne Vögel sagte nicht für seine Tochter größer Bäume drei Tage"
RUSSIAN = "старый король пошёл в лес и увидел золотую птицу сказал дочь замок конь вернулся назад три дня"
CHINESE = "".join(chr(0x4E00 + 5 * number) for number in range(600))  # more letters than an alphabet is made of


def prose(words: str, sentences: int, seed: int, *, between: str = " ", end: str = ". ") -> str:
    """Paragraphs of sentences made of these words, or of these letters if nothing stands between them."""
    draw = random.Random(seed)
    given = words.split() if between else list(words)
    said = [between.join(draw.choices(given, k=draw.randint(5, 12))) + end for _ in range(sentences)]
    return "\n\n".join("".join(said[at : at + 6]).strip() for at in range(0, sentences, 6)) + "\n"


def one_file(folder: Path) -> Path:
    return written(folder / "notes.txt", prose(ENGLISH, 150, 0))


def two_files(folder: Path) -> Path:
    """A folder; notebooks with two parameters for it get its two files."""
    written(folder / "two" / "valid.txt", prose(ENGLISH, 60, 1))
    return written(folder / "two" / "train.txt", prose(ENGLISH, 150, 0)).parent


def one_book(folder: Path) -> Path:
    chapters = [f"CHAPTER {number}\n\n{prose(ENGLISH, 200, number)}" for number in range(1, 13)]
    return written(folder / "book.txt", "\n\n\n".join(chapters))


def ten_short_documents(folder: Path) -> Path:
    for number in range(10):
        written(folder / "ten" / f"{number}.txt", prose(ENGLISH, 5, number))
    return folder / "ten"


def twenty_dialogues(folder: Path) -> Path:
    rows = [{"prompt": prose(ENGLISH, 1, n), "response": prose(ENGLISH, 2, 100 + n)} for n in range(20)]
    return written(folder / "talks.jsonl", "".join(json.dumps(row) + "\n" for row in rows))


def thousands_of_dialogues(folder: Path) -> Path:
    rows = [{"prompt": prose(ENGLISH, 1, n), "response": prose(ENGLISH, 1, 5_000 + n)} for n in range(3_000)]
    return written(folder / "many.jsonl", "".join(json.dumps(row) + "\n" for row in rows))


def no_spaces(folder: Path) -> Path:
    return written(folder / "chinese.txt", prose(CHINESE, 150, 0, between="", end="。"))


def no_ascii_letter(folder: Path) -> Path:
    return written(folder / "russian.txt", prose(RUSSIAN, 150, 0))


def western_bytes(folder: Path) -> Path:
    return written(folder / "german.txt", prose(GERMAN, 150, 0), "windows-1252")


def written(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding=encoding)
    return path


TEXTS = (
    one_file,
    two_files,
    one_book,
    ten_short_documents,
    twenty_dialogues,
    thousands_of_dialogues,
    no_spaces,
    no_ascii_letter,
    western_bytes,
)
ALWAYS = {("03", two_files), ("08", no_spaces), ("10", twenty_dialogues)}
PAIRS = [
    pytest.param(
        number,
        make,
        id=f"{number}-{make.__name__}",
        marks=[] if (number, make) in ALWAYS else [pytest.mark.every_text],
    )
    for number in READERS
    for make in TEXTS
]


def reading(number: str, text: Path, home: Path) -> Mapping[str, Any]:
    """The notebook's parameters that make it small and read this text; what it saves goes to `home`."""
    known = {parameter.name for parameter in read_parameters(read_notebook(NOTEBOOKS[number]))}
    given: dict[str, Any] = {name: value for name, value in SMALLER.items() if name in known}
    given |= {name: str(home / name) for name in ("chatbot",) if name in known}
    if "valid_text" in known and text.name == "two":
        return given | {"train_text": str(text / "train.txt"), "valid_text": str(text / "valid.txt")}
    name = next(name for name in ("text", "train_text", "texts") if name in known)
    return given | {name: [str(text)] if name == "texts" else str(text)}


@pytest.mark.parametrize(("number", "make"), PAIRS)
def test_a_notebook_runs_to_its_end_on_a_small_text(number: str, make: Callable[[Path], Path], tmp_path: Path) -> None:
    given = reading(number, make(tmp_path), tmp_path)
    result = run_warm(NOTEBOOKS[number], given, tmp_path / "reports")
    assert (result.status, result.error) == ("done", None)


@pytest.mark.parametrize("number", READERS)
def test_a_text_is_read_before_anything_is_computed(number: str) -> None:
    code = [cell.source for cell in read_notebook(NOTEBOOKS[number]).cells if cell.cell_type == "code"]
    reads = next(place for place, source in enumerate(code) if re.search(r"\b(load_corpus|read_texts)\(", source))
    assert not re.search(r"\b(record|show|fit|train|evaluate)\(", "\n".join(code[:reads]))

"""`frugal memory`: texts that are remembered in a folder, over days, and searched."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from frugal.errors import InputError
from frugal.files import data_folder, write_text
from frugal.lab.live.options import device_option

if TYPE_CHECKING:
    from frugal.memory import NearestNeighbourLM

CONTEXT = 512
CAPACITY = 1_000_000
folder_option = click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=lambda: data_folder() / "memory",
    help="Where it is kept [default: data/memory].",
)
model_option = click.option(
    "--model", default="smollm2", show_default=True, help="GPT whose hidden states are the keys; always the same."
)


@click.group()
def memory() -> None:
    """Remember texts in a folder, find what was read in similar contexts, and forget.

    The folder's memory.sqlite can be opened with any SQLite program. A notebook reads it by the parameter
    memory_folder of 06.
    """


@memory.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True, dir_okay=False))
@folder_option
@model_option
@device_option
def add(files: tuple[Path, ...], folder: Path, model: str, device: str) -> None:
    """Remember each of the documents in FILE..., which may have any format that notebooks read."""
    from frugal.corpora.reading import read_file

    documents = [document for path in files for document in read_file(path)]
    lm = opened(folder, model, device)
    with lm.memory:
        for document in documents:
            number = lm.remember(document)
            click.echo(f"text {number}: {document.title or document.text[:40]!r}, {len(lm.memory)} entries in all")


@memory.command()
@click.argument("text")
@click.option("-k", "count", type=click.IntRange(min=1), default=5, show_default=True, help="Entries shown.")
@folder_option
@model_option
@device_option
def search(text: str, count: int, folder: Path, model: str, device: str) -> None:
    """Show what followed in the contexts most similar to TEXT."""
    from frugal.corpora import encode_documents

    lm = opened(folder, model, device)
    with lm.memory:
        tokens = encode_documents(lm.tokenizer, [text])[0].to(lm.device)
        found = lm.memory.search(lm.keys(lm.model.hidden(tokens[None])[0, -1:]), count)
        for entry, cosine in zip(found.ids[0].tolist(), found.similarity[0].tolist(), strict=True):
            if entry >= 0:
                before, token = lm.memory.text_at(entry, lm.tokenizer)
                click.echo(f"{cosine:.3f}  text {lm.memory.place(entry).text}: {before!r} then {token!r}")


@memory.command()
@click.argument("numbers", nargs=-1, required=True, type=int, metavar="NUMBER...")
@folder_option
def forget(numbers: tuple[int, ...], folder: Path) -> None:
    """Forget the texts with these numbers, as `list` shows them."""
    from frugal.memory import AssociativeMemory

    with AssociativeMemory.open(folder) as store:
        click.echo(f"{len(store.remove_texts(numbers))} entries forgotten, {len(store)} left")


@memory.command("list")
@folder_option
def list_texts(folder: Path) -> None:
    """List the texts that are remembered."""
    from frugal.memory import AssociativeMemory

    store = AssociativeMemory.load(folder)
    for number, text in store.texts.items():
        click.echo(f"{number:>6}  {text.added}  {len(text.tokens):>8} tokens  {text.title or text.text[:40]!r}")
    click.echo(f"{len(store.texts)} texts, {len(store)} of at most {store.capacity} entries")


@memory.command()
@folder_option
def repair(folder: Path) -> None:
    """Keep what is whole of a damaged memory; the damaged file stays as damaged.sqlite."""
    from frugal.memory import AssociativeMemory

    damage = AssociativeMemory.repair(folder)
    click.echo(f"left out: {'; '.join(damage)}" if damage else "nothing is damaged")


def opened(folder: Path, model: str, device: str) -> "NearestNeighbourLM":
    """The memory in a folder with the model that its keys are from; a new one notes which model that is."""
    from frugal.foundation import WindowedFoundation, load_foundation
    from frugal.memory import NearestNeighbourLM
    from frugal.memory.store.database import NAME

    note = folder / "model.txt"
    known = note.read_text(encoding="utf-8").strip() if note.is_file() and (folder / NAME).is_file() else model
    if known != model:
        raise InputError(f"--model {model}: the keys in {folder} are hidden states of {known}; give --model {known}")
    gpt = load_foundation(model, device=device)
    windows = WindowedFoundation(gpt, min(CONTEXT, gpt.context_length))
    write_text(note, f"{model}\n")  # first: where there is a memory, there is its note, wherever this is interrupted
    return NearestNeighbourLM.open(folder, windows, capacity=CAPACITY)

"""Conversations in the terminal: `frugal chat`."""

import contextlib
import dataclasses
import inspect
import json
import re
import sys
from functools import cache
from io import TextIOWrapper
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import click

from frugal.cards import kept_models
from frugal.errors import FrugalError, InputError
from frugal.files import data_folder
from frugal.generate import CHAT_SAMPLING, ChatSession, Sampling
from frugal.language_model import LanguageModel, load_model

PROMPT = "> "
HELP = """/reset              forget the conversation
/save FOLDER        save the conversation
/load FOLDER        go on with a saved conversation
/set                show the settings
/set NAME VALUE     change one, such as /set temperature 0.7; "none" sets it back
/help               show this
/quit               leave, as do Ctrl-C and Ctrl-D here; Ctrl-C during an answer stops the answer"""


def _kind(hint: Any) -> tuple[type, bool]:
    """Of a field of `Sampling`: the type of a value, and whether there may be several."""
    return (get_args(hint) or (hint,))[0], get_origin(hint) is tuple


KINDS = {name: _kind(hint) for name, hint in get_type_hints(Sampling).items()}


@cache
def sampling_options() -> list[click.Option]:
    """The fields of `Sampling` as options of a command, with what its docstring says of them."""
    about = dict(re.findall(r"^    (\w+): (.+(?:\n {8}.+)*)", inspect.getdoc(Sampling) or "", re.MULTILINE))
    options = []
    for name, (kind, many) in KINDS.items():
        usual = getattr(CHAT_SAMPLING, name)
        shown = False if usual is None or many else str(usual)
        words = " ".join(about[name].split())
        words = words[0].upper() + words[1:]
        option = f"--{name.replace('_', '-')}"
        options.append(click.Option([option], type=kind, multiple=many, help=words, show_default=shown))
    return options


def model_called(name: str, device: str = "cpu") -> LanguageModel:
    """A model by the name that it is kept under, packaged name, hub id, Hugging Face folder, or saved model's folder.

    Raises:
        InputError: there is no such model.
        UnavailableError: the model cannot be fetched, or its files are damaged.

    Example:
        >>> from frugal.baselines import NGram
        >>> from frugal.corpora import CharTokenizer
        >>> NGram(2, CharTokenizer("ab")).fit(["abab"]).save("bigram")
        >>> model_called("bigram").order
        2
    """
    for folder in (Path(name), data_folder() / "models" / name):
        if _saved_here(folder) or (folder / "about.json").is_file():
            return load_model(folder, device=device)
        if below := sorted(path.name for path in folder.glob("*") if _saved_here(path)):
            named = ", ".join(f"{name}/{each}" for each in below)
            raise InputError(f"{name} holds no model, but folders with one: give {named}")
    from frugal.foundation import load_foundation

    try:
        return load_foundation(name, device=device)
    except FrugalError as error:
        if Path(name).exists():
            raise
        kept = ", ".join(each.name for each in kept_models()) or "none yet"
        raise type(error)(f"{error}; kept models: {kept}") from error


def converse(session: ChatSession, save_to: Path | None = None) -> None:
    """Talk until the end of the input; a conversation to be saved is saved after each answer."""
    terminal = sys.stdin.isatty()
    if terminal:
        with contextlib.suppress(ImportError):  # it lets the user edit a line and recall earlier ones
            import readline  # noqa: F401
        click.echo("/help lists the commands")
    elif isinstance(sys.stdin, TextIOWrapper):
        sys.stdin.reconfigure(errors="replace")
    while True:
        try:
            line = input(PROMPT if terminal else "").strip()
        except (EOFError, KeyboardInterrupt):
            if terminal:
                click.echo()
            return
        if line == "/quit":
            return
        try:
            if line.startswith("/"):
                session = obey(line, session)
            elif line:
                answer(session, line)
                if save_to is not None:
                    session.save(save_to)
        except (FrugalError, OSError) as error:
            click.echo(f"frugal: error: {error}", err=True)


def answer(session: ChatSession, text: str) -> None:
    """Show the answer as it comes; Ctrl-C stops it."""
    try:
        for piece in session.reply(text):
            click.echo(piece, nl=False)
    except KeyboardInterrupt:
        click.echo(" [stopped]", nl=False)
    click.echo()


def obey(line: str, session: ChatSession) -> ChatSession:
    """Carry out a command; the session to go on with."""
    match line.split(maxsplit=2):
        case ["/help"]:
            click.echo(HELP)
        case ["/reset"]:
            session.reset()
        case ["/save", *words] if words:
            folder = _folder(words)
            session.save(folder)
            click.echo(f"saved to {folder}", err=True)
        case ["/load", *words] if words:
            session = ChatSession.load(_folder(words), session.model)
            click.echo(f"going on after {len(session.turns)} turns", err=True)
        case ["/set"]:
            for name, value in dataclasses.asdict(session.sampling).items():
                click.echo(f"{name} {json.dumps(value, ensure_ascii=False)}")
        case ["/set", name, value]:
            session.sampling = changed(session.sampling, name, value)
        case _:
            raise InputError(f"{line}: is no command; /help lists them all")
    return session


def changed(sampling: Sampling, name: str, value: str) -> Sampling:
    """The settings with one of them set from text."""
    if name not in KINDS:
        raise InputError(f"{name}: is no setting; there are {', '.join(KINDS)}")
    if value == "none":
        return dataclasses.replace(sampling, **{name: getattr(CHAT_SAMPLING, name)})
    kind, many = KINDS[name]
    try:
        read = kind(value)
    except ValueError as error:
        raise InputError(f"{name}={value!r}: must be {'an integer' if kind is int else 'a number'}") from error
    setting: dict[str, Any] = {name: (read,) if many else read}
    return dataclasses.replace(sampling, **setting)


def _folder(words: list[str]) -> Path:
    return Path(" ".join(words)).expanduser()


def _saved_here(folder: Path) -> bool:
    """Whether a model of this library was saved to the folder: its config.json names a class."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and "class" in config

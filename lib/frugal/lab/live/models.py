"""Models on the command line: `frugal train`, `score`, `generate`, `models`."""

import json
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import click

from frugal.errors import InputError
from frugal.files import CHECKOUT
from frugal.lab.live.options import device_option, reports_option, threads_option
from frugal.lab.pages.records import shown
from frugal.lab.run.parameters import aligned

NOTEBOOK = CHECKOUT / "notebooks" / "11_train.ipynb"


class WithSampling(click.Command):
    """Takes the fields of `Sampling` as options, looked up when they are needed, since that imports PyTorch."""

    def get_params(self, context: click.Context) -> list[click.Parameter]:
        from frugal.lab.live.terminal import sampling_options

        return [*super().get_params(context), *sampling_options()]


def once(context: click.Context, parameter: click.Parameter, given: tuple[str, ...]) -> str | None:
    """The value of an option that may be given once; click would take the last of several and say nothing."""
    if len(given) > 1:
        raise InputError(f"{parameter.opts[0]} is given {len(given)} times: give it once; a folder may hold many files")
    return given[0] if given else None


text_option = partial(click.option, metavar="TEXT", multiple=True, callback=once)


class WithFamilies(click.Command):
    """Takes a family first, and lists the settings of all; looked up when they are needed, which imports PyTorch."""

    def get_params(self, context: click.Context) -> list[click.Parameter]:
        from frugal.families import FAMILIES

        return [click.Argument(["family"], type=click.Choice(list(FAMILIES))), *super().get_params(context)]

    def format_epilog(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        from frugal.families import FAMILIES, settings_table

        for family in FAMILIES:
            with formatter.section(f"Settings of {family}"):
                rows = [(f"{row['name']}={row['unless set']}", row["what it is"]) for row in settings_table(family)]
                formatter.write_dl(rows)


@click.command(cls=WithFamilies)
@click.argument("settings", nargs=-1, metavar="[NAME=VALUE]...")
@text_option("--train", "train_text", help="Learnt from: a file, a folder, or a known text's name [default: grimm].")
@text_option("--valid", "valid_text", help="Stops the training [default: held out from the first].")
@text_option("--test", "test_text", help="Scored in the end [default: held out, or half of --valid].")
@click.option("--save", metavar="NAME", help="Keep the model as data/models/NAME [default: FAMILY-latest].")
@click.option("--resume", is_flag=True, help="Go on with the model that --save names.")
@device_option
@click.option("--profile", type=click.Choice(("smoke", "full")), default="full", help="smoke: a trial in seconds.")
@threads_option
@reports_option
def train(
    family: str,
    settings: tuple[str, ...],
    resume: bool,
    profile: str,
    reports: Path,
    **named: str | None,
) -> None:
    """Train one model of a FAMILY on your text, and keep it.

    \b
    frugal train echo --train train.txt --valid valid.txt --save mine epochs=5 reservoir_size=1024
    frugal train piecewise --train book.txt network=no_hidden_layer learning_rate=1e-4
    frugal train echo --train more.txt --save mine --resume learning_rate=1e-4

    It runs notebook 11, whose report stands in the index, and shows an epoch a line.
    """
    from frugal.cards import is_kept, kept_about
    from frugal.families import FAMILIES, asked, name_for, read_texts
    from frugal.lab.run.execution import carry_out, plan_run
    from frugal.piecewise import read_settings

    given: dict[str, Any] = {"family": family, "resume": resume}
    given |= {name: value for name, value in named.items() if value is not None}
    parameters = {parameter.name for parameter in plan_run(NOTEBOOK).parameters}
    own = ("method", "characters", "epochs", "learning_rate")
    rest, named_already = [], set[str]()
    for setting in settings:
        name, equals, value = (part.strip() for part in setting.partition("="))
        if name in named_already:
            raise InputError(f"{name} is given twice: give it once")
        named_already.add(name)
        of_family = name in own and value == "None"  # of the notebook, None says that the family decides
        if equals and not of_family and name in parameters - {"settings", *given}:
            given[name] = value
        else:
            rest.append(setting)
    plan = plan_run(NOTEBOOK, {**given, "settings": rest}, profile)
    # What is wrong is refused before anything starts.
    name = name_for(plan.given.get("save", ""), family, resume=resume)
    of_notebook = {setting: plan.given[setting] for setting in own if plan.given.get(setting) is not None}
    if hasattr(FAMILIES[family], "foundation") and ("foundation" in given or not resume):
        of_notebook["foundation"] = plan.values["foundation"]
    chosen, _ = asked(family, of_notebook | read_settings(rest), kept_about(name).settings if resume else None)
    chosen.check()
    read_texts(*(plan.values[f"{part}_text"] for part in ("train", "valid", "test")))
    result = carry_out(plan, None, reports, printing=sys.stdout)
    click.echo(f"{result.status} in {result.seconds:.0f} s: {result.report}", err=True)
    if result.error and result.status != "interrupted":
        click.echo(f"frugal: error: {result.error}", err=True)
    from frugal.lab.pages.index import write_index

    write_index(reports)
    if result.status == "interrupted":
        if is_kept(name):
            click.echo(f"frugal: {name} has the best epoch so far; --resume goes on with it", err=True)
        raise KeyboardInterrupt
    raise SystemExit(0 if result.status == "done" else 1)


@click.command()
@click.argument("models", nargs=-1, required=True, metavar="MODEL...")
@click.argument("text")
@click.option("--context", type=click.IntRange(min=1), help="Most tokens to look back on [default: the model's own].")
@device_option
@click.option("--json", "as_json", is_flag=True, help="Write JSON, one object for each model.")
@click.option("--csv", "as_csv", is_flag=True, help="Write CSV, one line for each model.")
def score(models: tuple[str, ...], text: str, context: int | None, device: str, as_json: bool, as_csv: bool) -> None:
    """Score kept models, or foundations, on a TEXT: a file, a folder, or a known text's name; all of it is read.

    Perplexity, accuracy and F1, the mean over tokens, are of the model's own tokeniser; bits per byte can be compared.
    Of a memory GPT, retrieval F1 is that of its decision to read where an entry holds the next token.
    """
    from frugal.evaluate import evaluate
    from frugal.families import whole_text
    from frugal.lab.live.terminal import model_called
    from frugal.lab.pages.results import csv_text
    from frugal.memory import MemoryGPT, measure

    if as_json and as_csv:
        raise InputError("--json and --csv: take one of them")
    documents, rows = whole_text(text), []
    for name in models:
        model = model_called(name, device)
        found = evaluate(model, documents, context=context, stride=None if context is None else (context + 1) // 2)
        row = {
            "model": name,
            "bits_per_byte": found.bits_per_byte,
            "perplexity": found.perplexity,
            "accuracy": found.accuracy,
            "f1": found.f1,
            "retrieval_f1": measure(model, documents).retrieval_f1 if isinstance(model, MemoryGPT) else None,
            "tokens": found.tokens,
            "bytes": found.bytes,
            "seconds": round(found.seconds, 1),
        }
        rows.append(row)
        if not (as_json or as_csv):
            words = [f"{key} {value:.4g}" for key, value in list(row.items())[1:6] if value is not None]
            click.echo(f"{name}: {', '.join(words).replace('_', ' ')}")
    if as_json:
        click.echo(json.dumps(rows, indent=1))
    elif as_csv:
        click.echo(csv_text(rows, list(rows[0])), nl=False)


@click.command(cls=WithSampling)
@click.argument("model")
@click.option("--prompt", metavar="TEXT", default="", help="What is continued [default: a new text begins].")
@device_option
def generate(model: str, prompt: str, device: str, **sampling: Any) -> None:
    """Continue a text with a kept MODEL or a foundation, as it comes; Ctrl-C stops it."""
    from frugal.generate import CHAT_SAMPLING, stream
    from frugal.lab.live.terminal import model_called

    chosen = replace(CHAT_SAMPLING, **{name: value for name, value in sampling.items() if value not in (None, ())})
    speaker = model_called(model, device)
    click.echo(prompt, nl=False)
    for piece in stream(speaker, prompt, chosen):
        click.echo(piece, nl=False)
    click.echo()


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Write JSON, one object for each model.")
def models(as_json: bool) -> None:
    """List the models that are kept: what each was trained on, its sizes, and how well it did.

    Each can be scored, continue texts and chat; a training goes on with those of the families of `frugal train`.
    """
    from frugal.cards import kept_models

    rows = [kept.row for kept in kept_models()]
    if as_json:
        named = [{title.replace(" ", "_"): value for title, value in row.items()} for row in rows]
        click.echo(json.dumps(named, indent=1))
    elif not rows:
        click.echo("none yet: frugal train echo --train FILE --save NAME", err=True)
    else:
        click.echo(aligned([list(rows[0]), *([shown(value) for value in row.values()] for row in rows)]))

"""How fast a net without hidden layers memorises a short book: the original's claim of about 95 % on one.

    .venv/bin/python benchmarks/dunwich.py the_dunwich_horror.txt

The book is H. P. Lovecraft's "The Dunwich Horror" (1929, about 100,000 characters), which is not part of the
repository; where no file is given, nothing is measured. Any other text does as well. The recipe is the
original's: width 250, discontinuous, 16 characters, batches of 1,000, sparse Lion at 1e-4, 100 epochs. Accuracy and
loss are of the whole book after the last epoch, with the best that any net of this context can reach. Results:
benchmarks/results/dunwich.json.
"""

import json
import time
from pathlib import Path

import click
import torch

from frugal.corpora import CharTokenizer
from frugal.device import processor
from frugal.files import write_text
from frugal.piecewise import PiecewiseLM, PiecewisePlan, PiecewiseScore, Windows, bayes_limit, memorised, preset, train
from frugal.training import seed_everything

PLAN = PiecewisePlan(epochs=100, learning_rate=1e-4, plateau=15)
RESULTS = Path(__file__).parent / "results" / "dunwich.json"


def learned(text: str, seed: int) -> dict[str, float]:
    """Train a new net on the text; return what it knows of it and the seconds that took."""
    seed_everything(seed)
    model = PiecewiseLM(preset("no_hidden_layer"), CharTokenizer.ascii())
    windows = Windows.for_network(model.network, model.tokenizer, [text])
    wall, cpu = time.perf_counter(), time.process_time()
    train(model, windows, PLAN, on_epoch=told, progress=False)
    seconds = {"wall_seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - cpu}
    return {**memorised(model, windows)._asdict(), **seconds}


def told(score: PiecewiseScore) -> None:
    if score.epoch % 5 == 0:
        click.echo(
            f"epoch {score.epoch:3}: accuracy {score.training_accuracy:.4f}, {score.training_loss:.3f} nats", err=True
        )


@click.command()
@click.argument("book", type=click.Path(path_type=Path), required=False)
@click.option("--threads", default=2, show_default=True, help="Cores to use.")
@click.option("--seed", default=0, show_default=True)
def main(book: Path | None, threads: int, seed: int) -> None:
    """Train a net, print how much of BOOK it knows and in what time, and write it as JSON."""
    if book is None or not book.is_file():
        click.echo("dunwich: name a file that holds the book; nothing was measured")
        return
    torch.set_num_threads(threads)
    text = book.read_bytes().decode("ascii", "ignore")
    best = bayes_limit(Windows.sequence(CharTokenizer.ascii(), [text], preset("no_hidden_layer").context_length))
    click.echo(f"{len(text):,} characters; Bayes limit {best.accuracy:.4f}, {best.nats:.4f} nats")
    found = learned(text, seed)
    click.echo(
        "accuracy {accuracy:.4f}, {nats:.4f} nats, {wall_seconds:.0f} s, {cpu_seconds:.0f} CPU-s".format(**found)
    )
    machine = {"threads": threads, "processor": processor(), "torch": torch.__version__}
    result = {"machine": machine, "characters": len(text), "bayes_limit": best._asdict(), **found}
    write_text(RESULTS, json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()

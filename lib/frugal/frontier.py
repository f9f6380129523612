"""How much of a language model for how little: models trained from nothing, measured over text, time and size.

A `Point` is one model, trained on so many characters in so many processor seconds, and scored on held-out texts; kept
points are drawn without training again. What makes, fits or compares points enters here; how a model works does not.
"""

import json
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from frugal.baselines import ContextMixing, NGram, SmallTransformer, TransformerPlan, compressed_bits_per_byte
from frugal.corpora import BytePairTokenizer, CharTokenizer, Document, Tokenizer
from frugal.device import choose_device
from frugal.errors import InputError, UnavailableError
from frugal.evaluate import Scores, bootstrap_interval, evaluate
from frugal.language_model import LanguageModel
from frugal.piecewise import PiecewiseLM, PiecewisePlan, Windows, preset_of_size, train
from frugal.readout import ReadoutPlan, ReservoirLanguageModel, SoftmaxReadout, train_readout
from frugal.readout.reservoir_model import TO_WHITEN
from frugal.reservoir import Reservoir
from frugal.training import seed_everything

Documents = Sequence[Document]
MOST_EPOCHS = 20  # over a short text; later ones only overfit
EXAMPLES = 500_000  # that a net or a readout learns from at least, in so many epochs as that takes


@dataclass(frozen=True)
class Point:
    """One model on one amount of text.

    Attributes:
        model: the name of its recipe.
        characters: of training text.
        budget: nominal processor seconds of training; 0 where the recipe takes what it needs.
        seed: of what the model draws.
        setting: what validation text chose.
        seconds: processor seconds that training took, the search for settings left out.
        search_seconds: those of all settings that were tried.
        parameters: numbers that training set; of counts, those that are not zero.
        documents: by held-out text and protocol, nats and bytes of each document. The protocol "static" reads every
            document from the beginning and learns nothing; "adapting" carries the state on, and what a model learns.
        scoring: processor seconds per million bytes, by held-out text and protocol.

    >>> point = Point("n-gram", 1000, 0, 0, "", 1.0, 0.0, 10, {"tales": {"static": [(math.log(2) * 4, 2)]}}, {})
    >>> point.bits_per_byte("tales")
    2.0
    """

    model: str
    characters: int
    budget: float
    seed: int
    setting: str
    seconds: float
    search_seconds: float
    parameters: int
    documents: dict[str, dict[str, list[tuple[float, int]]]]
    scoring: dict[str, dict[str, float]]

    def bits_per_byte(self, text: str, protocol: str = "static") -> float:
        """Of a held-out text; NaN where this protocol was not measured."""
        sums = np.array(self.documents[text].get(protocol, [(math.nan, 1)])).sum(0)
        return float(sums[0] / (math.log(2) * sums[1]))

    def interval(self, text: str, protocol: str = "static", *, samples: int = 2000) -> tuple[float, float]:
        """Where the bits per byte lie in 95 of 100 draws of the documents, with replacement."""
        nats, size = np.array(self.documents[text][protocol]).T
        return bootstrap_interval(nats, size, samples=samples)


class Made(NamedTuple):
    """A trained model, its form that learns while it reads if it has one, and what it cost."""

    model: LanguageModel
    adapting: LanguageModel | None
    setting: str
    parameters: int
    seconds: float
    search_seconds: float


def make_ngram(train: Documents, valid: Documents, budget: float, seed: int, device: str) -> Made:
    """Kneser-Ney over characters, of the order that validation chooses."""
    tokenizer, tried = _tokenizer(train), {}
    for order in (5, 6, 8, 10):
        begun = time.process_time()
        model = NGram(order, tokenizer).fit(train)
        tried[order] = (evaluate(model, valid).bits_per_byte, time.process_time() - begun, model)
    best = min(tried, key=lambda order: tried[order][0])
    model = tried[best][2]
    counts = sum(len(level.keys) for level in model.levels)
    return Made(model, None, f"order {best}", counts, tried[best][1], sum(each[1] for each in tried.values()))


def make_context_mixing(train: Documents, valid: Documents, budget: float, seed: int, device: str) -> Made:
    """Orders 0 to 8 and words, over characters; frozen for the static score."""
    size = _length(train)
    slots = 1 << min(25, max(20, (16 * size).bit_length()))
    tokenizer = _tokenizer(train)
    ContextMixing(1, tokenizer, slots=4).fit(train[:1])  # its loops are compiled once on a machine
    begun = time.process_time()
    model = ContextMixing(9, tokenizer, slots=slots).fit(train)
    return Made(
        model.frozen(), model, f"orders 0 to 8, {slots} slots", model.parameter_count, time.process_time() - begun, 0.0
    )


def make_echo(train: Documents, valid: Documents, budget: float, seed: int, device: str) -> Made:
    """A quick reservoir that reads byte pairs, and a readout with a hidden layer."""
    reservoir_of = partial(quick_reservoir, seed=seed, device=device)
    return train_echo(reservoir_of, train, valid, seed, hidden=(128,), vocabulary=1000)


def quick_reservoir(inputs: int, *, seed: int, device: str = "cpu") -> Reservoir:
    """512 units without slow ones, driven hard, which forget quickly."""
    place = choose_device(device)
    return Reservoir(inputs, 512, fan_in=10, spectral_radius=0.6, input_scale=2.0, seed=seed, device=place)


def train_echo(
    reservoir_of: Callable[[int], Reservoir],
    train: Documents,
    valid: Documents,
    seed: int,
    *,
    hidden: Sequence[int] = (),
    vocabulary: int | None = None,
    learning_rate: float = 2e-3,
) -> Made:
    """A readout of the whitened states of a reservoir that reads characters, or byte pairs of a vocabulary.

    Args:
        reservoir_of: makes the reservoir for so many inputs, one for each token.
        train, valid: what the readout learns from, and what its epoch is chosen by.
        seed: of the readout and of the order of the examples.
        hidden: sizes of the readout's hidden layers; none for a softmax alone.
        vocabulary: byte pairs that are learned from the training text; None for characters.
        learning_rate: the highest; `benchmarks/echo_from_nothing.py` chose it on validation text.
    """
    begun = time.process_time()
    tokenizer = _tokenizer(train, vocabulary)
    reservoir = reservoir_of(tokenizer.vocabulary_size)
    readout = SoftmaxReadout(reservoir.size, tokenizer.vocabulary_size, hidden=hidden, seed=seed)
    model = ReservoirLanguageModel(tokenizer, reservoir, readout)
    rows, held_out = model.rows(train), model.rows(valid)
    model.whiten(rows.tokens[None, :TO_WHITEN].long())
    epochs = _epochs(rows.count)
    plan = ReadoutPlan(epochs=epochs, learning_rate=learning_rate, batch_size=256, patience=3, seed=seed)
    scores = train_readout(model, rows, held_out, plan)
    weights = sum(weight.numel() for weight in readout.parameters())
    setting = f"{reservoir.size} units, {scores[-1].epoch} epochs"
    return Made(model, None, setting, weights, time.process_time() - begun, 0.0)


def make_net(
    name: str,
    train_text: Documents,
    valid: Documents,
    seed: int,
    device: str,
    *,
    weights: int = 60_000,
    context_length: int = 12,
    vocabulary: int | None = None,
    examples: int = EXAMPLES,
    learning_rate: float = 8e-3,
) -> Made:
    """A net that sees so many characters or byte pairs, trained as the readout of an echo is; see `train_echo`.

    Args:
        name: of its preset.
        weights: how many, about.
        context_length: tokens that it sees.
        examples: that it learns from at least, in whole epochs.
    """
    begun = time.process_time()
    tokenizer = _tokenizer(train_text, vocabulary)
    shape = preset_of_size(name, weights, tokenizer.vocabulary_size, context_length=context_length)
    model = PiecewiseLM(shape, tokenizer, device=device)
    windows, held_out = (Windows.for_network(model.network, tokenizer, part) for part in (train_text, valid))
    plan = PiecewisePlan(
        epochs=_epochs(len(windows), examples),
        batch_size=256,
        optimizer="adamw",
        learning_rate=learning_rate,
        schedule="half cosine",
        weight_decay=0.01,
        patience=3,
        seed=seed,
    )
    scores = train(model, windows, plan, valid=held_out, progress=False)
    setting = f"{name}, {scores[-1].epoch} epochs"
    return Made(model, None, setting, model.parameter_count, time.process_time() - begun, 0.0)


def _tokenizer(train: Documents, vocabulary: int | None = None) -> Tokenizer:
    """Of the text's characters, or of byte pairs where a vocabulary is given."""
    texts = [document.text for document in train]
    return CharTokenizer.learn(texts) if vocabulary is None else BytePairTokenizer.train(texts, vocabulary)


def _epochs(length: int, examples: int = EXAMPLES) -> int:
    """At least two, so that a text is seen again."""
    return min(MOST_EPOCHS, max(2, math.ceil(examples / length)))


# Windows of 64 tokens that a size (blocks x width) learns from in a second on the machine of the kept results.
EXAMPLES_A_SECOND = {"2x32": 1000, "2x64": 600, "4x64": 330, "4x128": 140}
CONTEXT = 64


def make_transformer(train: Documents, valid: Documents, budget: float, seed: int, device: str) -> Made:
    """A transformer from nothing over byte pairs, of the size, vocabulary and rate that validation chooses.

    The budget in processor seconds is turned into a number of examples, so that a seed reproduces the training.
    """
    trials = []
    for vocabulary, size, rate in candidates(budget):
        begun = time.process_time()
        tokenizer = _tokenizer(train, vocabulary)
        blocks, width = map(int, size.split("x"))
        model = SmallTransformer(tokenizer, blocks=blocks, width=width, context=CONTEXT, seed=seed, device=device)
        examples = max(1, round(budget * EXAMPLES_A_SECOND[size]))
        plan = TransformerPlan(examples=examples, epochs=4, learning_rate=rate, batch_size=16, seed=seed)
        model.fit(train, plan, valid=valid, progress=False)
        seconds = time.process_time() - begun
        setting = f"{size}, {vocabulary} tokens, rate {rate}, {examples} examples"
        trials.append((evaluate(model, valid).bits_per_byte, seconds, setting, model))
    _, seconds, setting, model = min(trials, key=lambda trial: trial[0])
    return Made(model, None, setting, model.parameter_count, seconds, sum(trial[1] for trial in trials))


def candidates(budget: float) -> list[tuple[int, str, float]]:
    """Vocabulary, size and learning rate that are tried with a budget; fewer where a trial takes long."""
    if budget < 20:
        return [(512, "2x32", 5e-3), (1024, "2x32", 5e-3), (1024, "2x64", 5e-3), (2048, "2x64", 5e-3)]
    return [(1024, "2x64", 5e-3), (2048, "4x64", 3e-3)]


RECIPES: dict[str, Callable[[Documents, Documents, float, int, str], Made]] = {
    "n-gram": make_ngram,
    "context mixing": make_context_mixing,
    "echo": make_echo,
    "piecewise net": lambda train, valid, _, seed, device: make_net("large_single_layer", train, valid, seed, device),
    "plain net": lambda train, valid, _, seed, device: make_net("low_order_mlp", train, valid, seed, device),
    "transformer": make_transformer,
}
COMPRESSORS = ("lzma", "PPMd", "ZPAQ")  # adapting only: a compressor learns from what it has just coded
FAMILIES = {"echo": "echo", "piecewise net": "piecewise"}  # all others are baselines


def measure(
    model: str,
    train: Documents,
    valid: Documents,
    held_out: Mapping[str, Documents],
    *,
    budget: float = 0,
    seed: int = 0,
    device: str = "cpu",
) -> Point:
    """Train a model by its recipe and score it on held-out texts, one by one and, where it can learn, adapting.

    Args:
        model: a name of `RECIPES` or `COMPRESSORS`.
        train, valid: what it learns from, and what its settings are chosen by.
        held_out: texts by name.
        budget: processor seconds, for recipes that have a budget.
        seed: of all that is drawn.
        device: "cpu", "cuda", "mps" or "auto"; counts stay on the processor.

    Raises:
        InputError: there is no such recipe, or a transformer has no budget.
        UnavailableError: a compressor is not installed.

    Example:
        >>> text = [Document("a", "the cat sat on the mat. " * 20)]
        >>> point = measure("n-gram", text, text, {"same": text})
        >>> point.bits_per_byte("same") < 1
        True
    """
    if model not in (*RECIPES, *COMPRESSORS):
        raise InputError(f"model={model!r}: must be one of {', '.join((*RECIPES, *COMPRESSORS))}")
    if model == "transformer" and not budget > 0:
        raise InputError(f"budget={budget}: a transformer needs processor seconds to train; 10 to 100 are usual")
    if model in COMPRESSORS:
        return _compressed(model, train, held_out)
    seed_everything(seed)
    made = RECIPES[model](train, valid, budget, seed, device)
    documents: dict[str, dict[str, list[tuple[float, int]]]] = {}
    scoring: dict[str, dict[str, float]] = {}
    for name, text in held_out.items():
        found = {"static": evaluate(made.model, text)}
        if made.adapting is not None:
            found["adapting"] = evaluate(made.adapting, text, carry=True)
        documents[name] = {protocol: _by_document(scores) for protocol, scores in found.items()}
        scoring[name] = {protocol: 1e6 * scores.seconds / scores.bytes for protocol, scores in found.items()}
    characters = _length(train)
    costs = (made.setting, made.seconds, made.search_seconds, made.parameters)
    return Point(model, characters, budget, seed, *costs, documents, scoring)


def read_points(file: Path | str) -> list[Point]:
    """The points that a measurement kept.

    Raises:
        UnavailableError: the file is missing or damaged.

    >>> characters = Path("points.json").write_text(as_json([], {"machine": "mine"}))
    >>> read_points("points.json")
    []
    """
    try:
        kept = json.loads(Path(file).read_text(encoding="utf-8"))
        return [Point(**values) for values in kept["points"]]
    except Exception as error:
        raise UnavailableError(f"{file} holds no points of the frontier ({error}): measure them again") from error


def as_json(points: Iterable[Point], about: dict[str, str]) -> str:
    """Points as text, after what they came from: commit, machine, command.

    >>> json.loads(as_json([], {"machine": "mine"}))
    {'machine': 'mine', 'points': []}
    """
    return json.dumps({**about, "points": [asdict(point) for point in points]}, indent=1) + "\n"


class PowerLaw(NamedTuple):
    """y = scale x^-exponent, with a 95 % interval of the exponent; NaN where there are too few points for one."""

    scale: float
    exponent: float
    low: float
    high: float

    def at(self, x: float) -> float:
        return self.scale * x**-self.exponent


def power_law(x: Sequence[float], y: Sequence[float]) -> PowerLaw:
    """The power law of least squares in the logarithms; the interval is Student's.

    Raises:
        InputError: fewer than two different x, or a value that is not positive.

    >>> law = power_law([1, 10, 100], [4, 2, 1])
    >>> round(law.exponent, 3), round(law.at(1000), 2)
    (0.301, 0.5)
    """
    if len(x) != len(y) or len(set(x)) < 2 or min(*x, *y) <= 0:
        raise InputError(f"power_law: needs two different x and positive values; there are x={list(x)}, y={list(y)}")
    u, v = np.log(x), np.log(y)
    slope, start = np.polyfit(u, v, 1)
    error = math.nan
    if len(x) > 2:
        from scipy.stats import t

        rest = ((v - start - slope * u) ** 2).sum() / (len(x) - 2)
        error = float(t.ppf(0.975, len(x) - 2) * math.sqrt(rest / ((u - u.mean()) ** 2).sum()))
    return PowerLaw(float(np.exp(start)), -float(slope), -float(slope) - error, -float(slope) + error)


def crossing(first: PowerLaw, second: PowerLaw) -> float | None:
    """Where the second law, falling faster, gets below the first; None where it never does.

    >>> crossing(PowerLaw(2, 0.1, 0, 0), PowerLaw(4, 0.2, 0, 0))
    1024.0
    """
    if second.exponent <= first.exponent:
        return None
    return round((second.scale / first.scale) ** (1 / (second.exponent - first.exponent)), 10)


def best(points: Iterable[Point], text: str, *, characters: float, seconds: float, protocol: str = "static") -> Point:
    """The measured language model of lowest bits per byte that needs no more text and no more time.

    Raises:
        InputError: none does with so little.

    >>> made = ({"t": {"static": [(nats, 1)]}} for nats in (2.0, 1.0))
    >>> points = [Point("n-gram", 1000, 0, 0, "", s, 0.0, 1, nats, {}) for s, nats in zip((1.0, 60.0), made)]
    >>> best(points, "t", characters=1000, seconds=10).seconds
    1.0
    """
    within = [
        point
        for point in points
        if point.model not in COMPRESSORS
        and point.characters <= 1.1 * characters
        and point.seconds <= seconds
        and not math.isnan(point.bits_per_byte(text, protocol))
    ]
    if not within:
        raise InputError(f"characters={characters}, seconds={seconds}: no measured model needs so little; give more")
    return min(within, key=lambda point: point.bits_per_byte(text, protocol))


def _compressed(method: str, train: Documents, held_out: Mapping[str, Documents]) -> Point:
    """What each held-out text, as one document, adds to the compressed training text."""
    begun = time.perf_counter()  # a program's processor time is not ours
    documents: dict[str, dict[str, list[tuple[float, int]]]] = {}
    for name, text in held_out.items():
        size = sum(len(document.text.encode()) for document in text)
        nats = math.log(2) * size * compressed_bits_per_byte(train, text, method)
        documents[name] = {"adapting": [(nats, size)]}
    seconds = (time.perf_counter() - begun) / (2 * len(held_out))
    return Point(method, _length(train), 0, 0, "", seconds, 0.0, 0, documents, {})


def _length(documents: Documents) -> int:
    return sum(len(document.text) for document in documents)


def _by_document(scores: Scores) -> list[tuple[float, int]]:
    return [(document.nats, document.bytes) for document in scores.documents]

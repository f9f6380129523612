"""Every number that a public constructor or function takes as a setting: what is no such number is refused at once."""

import inspect
import math
import re
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from frugal import baselines, combine, cooperative, forward_forward, memory, piecewise, readout, reservoir, training
from frugal.errors import InputError
from frugal.forward_forward import ImagePlan
from frugal.generate import Sampling
from frugal.memory.store import AssociativeMemory
from frugal.piecewise.convolutional import ConvolutionShape, DualConvolutionShape
from frugal.piecewise.mamba import MambaShape
from frugal.piecewise.mlp import MLPShape
from frugal.piecewise.transformer import TransformerShape
from frugal.readout import probes
from frugal.reservoir import diagnostics, tasks
from frugal.ridge import LinearMap, RidgePath, RidgeStatistics
from models import TEXTS, characters, echo_model, lstm, memory_gpt, random_gpt2

NUMBER = re.compile(r"(?:int|float)( \| None)?")  # of one setting, which may be left out by None
LIST = r"collections.abc.Sequence\[(?:int|float)\]|tuple\[(?:int|float), (?:int|float|\.\.\.)\]"
NUMBERS = re.compile(rf"(float \| )?(?:int \| )?(?:{LIST})( \| .*)?")  # of a list, or of one number for all


@cache
def takers() -> dict[str, tuple[Callable[..., Any], dict[str, Any]]]:
    """What takes numbers as settings, each with what else it needs."""
    rows = torch.rand(8, 2, generator=torch.Generator().manual_seed(0))
    weights, labels = [torch.nn.Parameter(torch.zeros(2))], torch.tensor([0, 1] * 4)
    net, gpt, tokenizer, model = torch.nn.Linear(2, 2), random_gpt2(), characters(), lstm()
    echo, narrow = reservoir.Reservoir(2, 5, fan_in=2), reservoir.Reservoir(1, 5, fan_in=2)
    world = cooperative.Oracle(vocabulary=3, length=4, hidden=4)
    both: dict[str, Any] = {"generator": world.learner(4), "mediator": world.learner(4, seed=1)}
    statistics = RidgeStatistics.collect([(rows, rows)], output_size=2)
    sequences = world.sequences(6)
    store = AssociativeMemory(2, 4)
    automaton = piecewise.Automaton(piecewise.preset("small", context_length=4), tokenizer)
    layer = piecewise.PiecewisePolynomial(1, 1, nodes=2, segments=2, continuous=False)
    basis = piecewise.PiecewiseBasis(nodes=2)
    plans = (
        *(training.Plan, readout.ReadoutPlan, piecewise.PiecewisePlan, ImagePlan, memory.MemoryPlan),
        *(cooperative.CooperativePlan, cooperative.SequencePlan, baselines.TransformerPlan, Sampling),
        *(forward_forward.Goodness, ConvolutionShape, DualConvolutionShape, MambaShape, MLPShape, TransformerShape),
    )
    found: list[tuple[Callable[..., Any], dict[str, Any]]] = [
        *((plan, {}) for plan in plans),
        (reservoir.Reservoir, {"input_size": 2, "size": 20}),
        (reservoir.gpt_echo, {"input_size": 2, "size": 5}),
        (reservoir.run_parallel, {"reservoir": echo, "inputs": rows}),
        (echo.run, {"inputs": rows[None]}),
        (echo.start, {"batch_size": 2}),
        (tasks.mackey_glass, {"steps": 5}),
        (tasks.narma10, {"steps": 20}),
        (tasks.lorenz, {"steps": 5}),
        (tasks.score_narma10, {"reservoir": narrow, "ridge": 1e-6}),
        (diagnostics.forgetting, {"reservoir": echo, "inputs": rows}),
        (LinearMap.fit, {"inputs": rows, "targets": rows, "ridge": 1.0}),
        (RidgePath(statistics).condition, {"alpha": 1.0}),
        (RidgePath(statistics).solve, {"alpha": 1.0, "dtype": torch.float32}),
        (RidgeStatistics.empty, {"input_size": 2, "output_size": 2}),
        (readout.RidgeReadout, {"input_size": 2, "output_size": 2}),
        (readout.SoftmaxReadout, {"input_size": 2, "output_size": 2}),
        (readout.SoftmaxReadout(2, 2).whiten, {"statistics": statistics}),
        (readout.OnlineReadout, {"input_size": 2, "output_size": 2}),
        (readout.OnlineResidual, {"model": model}),
        (readout.EchoEncoder, {"foundation": gpt, "reservoir": None, "context": 8}),
        (readout.KeptRows(rows, labels).shuffle_columns, {"columns": slice(1)}),
        (training.Lion, {"params": weights}),
        (training.SparseLion, {"params": weights}),
        (training.make_optimizer, {"name": "adam", "parameters": weights, "learning_rate": 0.1}),
        (training.seed_everything, {"seed": 0}),
        (training.search, {"objective": lambda setting: 0.0, "space": {"x": [1]}}),
        (
            training.fit,
            {
                "model": net,
                "loss": lambda net, batch: net(batch).sum(),
                "batches": [rows],
                "optimizer": training.Lion(net.parameters()),
                "steps": 1,
            },
        ),
        (piecewise.BasisConvolution, {"in_channels": 1, "out_channels": 1, "kernel_size": 2, "basis": basis}),
        (piecewise.BasisLayer, {"in_features": 1, "out_features": 1, "basis": basis}),
        (piecewise.Batches, {"windows": piecewise.Windows(labels, labels[:2], [0], [1]), "size": 2}),
        (piecewise.FixedRotation, {"inputs": 2}),
        (piecewise.Fourier, {"in_features": 1, "out_features": 1, "terms": 3}),
        (piecewise.PiecewisePolynomial, {"in_features": 1, "out_features": 1, "nodes": 2, "segments": 2}),
        (piecewise.Polynomial, {"in_features": 1, "out_features": 1, "nodes": 2}),
        (piecewise.PolynomialND, {"in_features": 2, "out_features": 1, "nodes": 2, "dimensions": 2}),
        (piecewise.Product, {"in_features": 1, "out_features": 1}),
        (piecewise.TensorProductBasis, {"axis": basis, "dimensions": 2}),
        (piecewise.Windows.sequence, {"tokenizer": tokenizer, "documents": ["a mat"], "context_length": 2}),
        (piecewise.Windows.flat, {"tokenizer": tokenizer, "documents": ["a mat"], "context_length": 2}),
        (automaton.run, {"text": "a mat on", "rounds": 1}),
        (piecewise.smoothed, {"layer": layer, "factor": 0.5}),
        (piecewise.refined, {"layer": layer}),
        (piecewise.preset_of_size, {"name": "small", "weights": 9999, "characters": 20}),
        (forward_forward.ForwardForwardNet, {"input_size": 2, "hidden": (4,), "classes": 2}),
        (forward_forward.ForwardForwardReadout, {"input_size": 2, "output_size": 2}),
        (forward_forward.ForwardForwardClassifier, {"pixels": 2}),
        (forward_forward.BackpropClassifier, {"pixels": 2}),
        (forward_forward.RecurrentForwardForward, {"pixels": 2}),
        (forward_forward.UnsupervisedForwardForward, {"shape": (2, 2)}),
        (forward_forward.FoundationNegatives, {"foundation": gpt}),
        (forward_forward.SelfGenerated, {"model": model}),
        (forward_forward.SequenceExperiment, {"train": "a mat on a mat " * 9, "test": "a mat on a mat " * 9}),
        (forward_forward.stratified_split, {"labels": labels, "test_size": 2, "seed": 0}),
        (cooperative.LSTMLanguageModel, {"tokenizer": tokenizer}),
        (cooperative.Oracle, {}),
        (world.sequences, {"count": 2}),
        (cooperative.CooperativeTrainer, {**both, "data": sequences, "held_out": sequences}),
        (cooperative.draw, {"model": model, "count": 2, "length": 2}),
        (cooperative.gradient_noise, {**both, "data": sequences}),
        (cooperative.text_windows, {"tokenizer": tokenizer, "documents": ["a mat"], "length": 2}),
        (AssociativeMemory, {"dim": 2, "capacity": 4}),
        (store.age, {"decay": 0.5}),
        (store.collect_garbage, {"threshold": 0.5}),
        (store.forget, {"fraction": 0.5}),
        (store.search, {"queries": np.zeros((1, 2), np.float32), "k": 1}),
        (memory.Datastore.empty, {"dim": 2, "capacity": 4}),
        (memory.MemoryGPT, {"foundation": gpt}),
        (combine.Ensemble, {"experts": {"one": model}}),
        (combine.OnlineMixture, {"experts": {"one": model}}),
        (combine.Extrapolated, both),
        (combine.Inverted, both),
        (combine.Guided, {"model": model, "guide": "a mat"}),
        (combine.Steered, {"model": model, "guide": "a mat"}),
        (combine.Tempered, {"model": model, "temperature": 1.0}),
        (baselines.NGram, {"order": 2, "tokenizer": tokenizer}),
        (baselines.BoostedTrees, {"context_length": 2, "tokenizer": tokenizer}),
        (baselines.BoostedTrees(2, tokenizer).fit, {"documents": ["a mat"]}),
        (baselines.Cache, {"model": model}),
        (baselines.Cache.tuned, {"model": model, "documents": ["a mat"]}),
        (readout.OnlineResidual.tuned, {"model": model, "documents": ["a mat"]}),
        (memory.Interpolation.constant, {"weights": [0.1], "thetas": [10.0], "counts": [8]}),
        (probes.copied_share, {"states": [rows] * 5, "tokens": [labels] * 5, "delays": [0]}),
        (baselines.ContextMixing, {"orders": 2, "tokenizer": tokenizer}),
        (baselines.SmallTransformer, {"tokenizer": tokenizer}),
    ]
    return {getattr(taker, "__qualname__", str(taker)): (taker, given) for taker, given in found}


def number_settings() -> Iterator[Any]:
    for name, (taker, _) in takers().items():
        for setting in inspect.signature(taker, eval_str=True).parameters.values():
            if found := NUMBER.fullmatch(inspect.formatannotation(setting.annotation)):
                yield pytest.param(name, setting.name, found[1] is not None, id=f"{name}-{setting.name}")


@pytest.mark.parametrize(("name", "setting", "may_be_none"), [*number_settings()])
def test_what_is_no_number_is_refused_in_one_sentence(name: str, setting: str, may_be_none: bool) -> None:
    taker, given = takers()[name]
    for wrong in ("a", math.nan, [0.5, 0.5], True, *(() if may_be_none else (None,))):
        with pytest.raises(InputError, match=f"{setting}|lr="):
            taker(**{**given, setting: wrong})


def list_settings() -> Iterator[Any]:
    for name, (taker, _) in takers().items():
        for setting in inspect.signature(taker, eval_str=True).parameters.values():
            if found := NUMBERS.fullmatch(inspect.formatannotation(setting.annotation)):
                yield pytest.param(name, setting.name, found[1] is not None, id=f"{name}-{setting.name}")


@pytest.mark.parametrize(("name", "setting", "may_be_one"), [*list_settings()])
def test_what_is_no_list_of_numbers_is_refused_in_one_sentence(name: str, setting: str, may_be_one: bool) -> None:
    taker, given = takers()[name]
    wrong_lists = (["a", "b"], [math.nan, math.nan], [None, None], [[1], [1]], [True, True])
    for wrong in (*wrong_lists, "ab", None, {"a": 1}, *(() if may_be_one else (0.5,))):
        with pytest.raises(InputError, match=setting):
            taker(**{**given, setting: wrong})


@cache
def trainers() -> dict[str, tuple[type[training.Plan], Callable[[Any], Any]]]:
    """What takes a plan, with the kind that it takes."""
    tokenizer, images = characters(), forward_forward
    echo = echo_model("concat", readout.SoftmaxReadout(44, 273))
    layers = echo_model("concat", forward_forward.ForwardForwardReadout(44, 273, hidden=(4,)))
    rows, uniform = readout.KeptRows(torch.rand(8, 44), torch.arange(8)), forward_forward.UniformNegatives()
    world = cooperative.Oracle(vocabulary=3, length=4, hidden=4)
    data, pair = world.sequences(6), (world.learner(4), world.learner(4, seed=1))
    small, transformer = piecewise.preset("small", context_length=4), baselines.SmallTransformer(tokenizer, width=8)
    windows = piecewise.Windows.sequence(tokenizer, ["a mat on a mat"], 4)
    remembering, net = memory_gpt(remembered=()), torch.nn.Linear(1, 1)
    of_images = {
        kind.__name__: (ImagePlan, lambda plan, kind=kind, first=first: kind(first, plan=plan))
        for kind, first in (
            (images.ForwardForwardClassifier, 4),
            (images.BackpropClassifier, 4),
            (images.RecurrentForwardForward, 4),
            (images.UnsupervisedForwardForward, (2, 2)),
        )
    }
    return {
        **of_images,
        "run_epochs": (
            training.Plan,
            lambda plan: training.run_epochs(
                net,
                training.Lion(net.parameters()),
                plan,
                lambda epoch: 0.0,
                training.EpochScore,
                title="",
                keep_best=False,
                progress=False,
            ),
        ),
        "train_readout": (readout.ReadoutPlan, lambda plan: readout.train_readout(echo, rows, rows, plan)),
        "train_forward_forward": (
            readout.ReadoutPlan,
            lambda plan: forward_forward.train_forward_forward(layers, rows, rows, uniform, plan),
        ),
        "piecewise.train": (
            piecewise.PiecewisePlan,
            lambda plan: piecewise.train(piecewise.PiecewiseLM(small, tokenizer), windows, plan),
        ),
        "train_memory": (memory.MemoryPlan, lambda plan: memory.train_memory(remembering, TEXTS, TEXTS, plan)),
        "SmallTransformer.fit": (baselines.TransformerPlan, lambda plan: transformer.fit(TEXTS, plan)),
        "LikelihoodTrainer": (
            cooperative.SequencePlan,
            lambda plan: cooperative.LikelihoodTrainer(pair[0], data, data, plan),
        ),
        "CooperativeTrainer": (
            cooperative.CooperativePlan,
            lambda plan: cooperative.CooperativeTrainer(*pair, data, data, plan),
        ),
    }


TRAINERS = [
    *("ForwardForwardClassifier", "BackpropClassifier", "RecurrentForwardForward", "UnsupervisedForwardForward"),
    *("run_epochs", "train_readout", "train_forward_forward", "piecewise.train", "train_memory"),
    *("SmallTransformer.fit", "LikelihoodTrainer", "CooperativeTrainer"),
]


@pytest.mark.parametrize("name", TRAINERS)
def test_a_plan_of_another_kind_is_refused_in_one_sentence(name: str) -> None:
    assert set(TRAINERS) == set(trainers())
    kind, train = trainers()[name]
    plans = (training.Plan, readout.ReadoutPlan, piecewise.PiecewisePlan, ImagePlan, memory.MemoryPlan)
    wrong: list[Any] = [make() for make in (*plans, cooperative.SequencePlan, baselines.TransformerPlan)]
    if name in ("run_epochs", "LikelihoodTrainer"):  # the others have one of their own
        wrong.append(None)
    for plan in (*wrong, {"epochs": 1}, kind):
        if not isinstance(plan, kind):
            message = f"plan: must be an? {kind.__name__}, not a {type(plan).__name__}$"
            with pytest.raises(InputError, match=message):
                train(plan)


NUMPY = {
    "bounds": lambda **given: combine.Inverted(**given, bounds=np.array([0.1, 0.9])),
    "thetas": lambda generator, **_: baselines.Cache.tuned(generator, ["a mat"], thetas=np.array([0.0, 5.0])),
    "rates": lambda generator, **_: readout.OnlineResidual.tuned(generator, ["a mat"], rates=np.array([0.0, 0.1])),
    "betas": lambda **_: training.Lion([torch.nn.Parameter(torch.zeros(2))], betas=np.array([0.9, 0.99])),
    "hidden": lambda **_: readout.SoftmaxReadout(2, 3, hidden=np.array([4, 5]))(torch.zeros(1, 2)),
    "widths": lambda **_: forward_forward.ForwardForwardNet(2, np.array([4, 5]), 2, seed=np.int64(1)),
    "split": lambda **_: forward_forward.stratified_split(np.array([0, 1] * 4), np.int64(2), np.int64(1)),
    "batches": lambda **_: list(readout.KeptRows(torch.eye(4), torch.arange(4)).batches(np.int64(3), np.int64(1))),
    "columns": lambda **_: readout.KeptRows(torch.eye(4), torch.arange(4)).shuffle_columns(slice(2), np.int64(1)),
    "chunks": lambda **_: list(reservoir.Reservoir(1, 9, fan_in=2).chunks(torch.zeros(1, 20, 1), length=np.int64(7))),
    "fading": lambda **_: diagnostics.forgetting(
        reservoir.Reservoir(1, 9, fan_in=2), torch.rand(50, 1), seed=np.int64(1)
    ),
    "oracle": lambda **_: cooperative.Oracle(np.int64(3), np.int64(4), hidden=np.int64(8)).sequences(np.int64(5), 1),
}


@pytest.mark.parametrize("setting", NUMPY)
def test_numbers_and_lists_of_numpy_are_numbers_and_lists(setting: str) -> None:
    NUMPY[setting](generator=lstm(), mediator=lstm(seed=1))


def test_what_is_no_plain_number_is_not_called_negative() -> None:
    statistics = RidgeStatistics.collect([(torch.eye(4), torch.eye(4))], output_size=4)
    for ask in (
        lambda: RidgePath(statistics).condition(torch.tensor(0.1)),  # type: ignore[arg-type]
        lambda: LinearMap.fit(torch.eye(4), torch.eye(4), torch.tensor(0.1)),  # type: ignore[arg-type]
    ):
        with pytest.raises(InputError, match=r"=tensor\(0.1000\): must be one plain number"):
            ask()

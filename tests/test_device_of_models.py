"""Models compute and are trained where they are, and nowhere else: shown on a device that mixes with no other.

tests/elsewhere.py says what that device is. Whatever is made without saying where, and whatever is not moved to where
the model is, fails there as it would beside a model on a GPU. Numbers must be those of the processor.
"""

import copy
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import frugal.cooperative as cot
from elsewhere import THERE, Elsewhere, elsewhere
from frugal import forward_forward as ff
from frugal import frontier
from frugal.baselines import Cache
from frugal.corpora import Document
from frugal.errors import InputError
from frugal.evaluate import evaluate
from frugal.families import FAMILIES, Kept, asked, asked_on, keep_model, kept_model, read_texts
from frugal.foundation import Foundation, WindowedFoundation
from frugal.frontier import RECIPES, measure
from frugal.generate import ChatSession, Sampling, generate
from frugal.memory import Interpolation, MemoryPlan, controls, train_memory
from frugal.piecewise import Automaton, PiecewisePlan, Windows, memorised, preset, train
from frugal.piecewise.search import START, shape_at, trial_nats
from frugal.readout import RidgeReadout
from frugal.readout.online import OnlineReadout
from frugal.reservoir import diagnostics
from frugal.ridge import RidgeStatistics
from models import EVERY_MODEL, TEXTS, characters, echo_model, memory_gpt, neighbour_model, random_gpt2, small_reservoir
from test_families import SENTENCES, TRAINED

COUNTS = ("unigram", "gram", "context mixing", "boosted trees")  # models of counts, which stay on the processor
MIXED = ("online mixture", "ensemble")  # of a count and a net
TEXT = " ".join(SENTENCES)
TEN = torch.arange(10).repeat(4)


@pytest.mark.parametrize("name", EVERY_MODEL)
def test_a_model_scores_streams_and_writes_where_it_is(name: str) -> None:
    here = EVERY_MODEL[name]()
    tokens = torch.randint(1, 14, (2, 9), generator=torch.Generator().manual_seed(0))

    def of(model: Any) -> tuple[list[Tensor], str]:
        moved = tokens.to(model.device)
        logits, state = model.feed(moved, model.start(2))
        for _ in range(12):  # over the end of windows
            logits, state = model.step(moved[:, 0], state)
        rows = [model.log_probabilities(moved), *model.target_scores(moved), logits]
        return rows, generate(model, "a cat", Sampling(max_tokens=6, temperature=0))

    with torch.no_grad():
        expected, text = of(here)
    if name.startswith(MIXED):
        with elsewhere(), pytest.raises(InputError, match="one device"):
            EVERY_MODEL[name]()
        return
    with elsewhere(), torch.no_grad():
        model = EVERY_MODEL[name]()
        assert (model.device == THERE) == (not any(word in name for word in COUNTS))
        found, written = of(model)
        assert all(isinstance(row, Elsewhere) == (model.device == THERE) for row in found)
        found = [row.cpu() for row in found]
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-4)
    assert written == text


@pytest.fixture
def own_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FRUGAL_DATA", str(tmp_path / "data"))
    (tmp_path / "text.txt").write_text("\n".join(SENTENCES * 8), encoding="utf-8")
    random_gpt2().save(tmp_path / "gpt", "# Random")
    return tmp_path


@pytest.mark.parametrize(("name", "settings"), {name: (name, each) for name, each in TRAINED[::-1]}.values(), ids=str)
def test_a_family_is_trained_kept_scored_and_talked_to_where_it_is(
    name: str, settings: dict[str, Any], own_texts: Path
) -> None:
    if hasattr(FAMILIES[name], "foundation"):
        settings = {**settings, "foundation": str(own_texts / "gpt"), "context_length": 6}
    family, plan = asked(name, settings)
    texts = read_texts(str(own_texts / "text.txt"), held_out_characters=60)
    about = Kept(name="mine", family=name, text="text.txt", settings=asked_on(family))

    def trained(device: str) -> float:
        found = family.train(family.build(texts, device=device), texts, plan)
        keep_model(found.model, about, beside=found.beside)
        return evaluate(found.model, texts.test).nats

    with elsewhere():
        nats = trained("cuda")
        model, _, _ = kept_model("mine", device="auto")
        assert evaluate(model, texts.test).nats == pytest.approx(nats, rel=1e-4)
        session = ChatSession(model, sampling=Sampling(max_tokens=3, seed=0), markers=True)
        "".join(session.reply("the cat"))
    assert evaluate(kept_model("mine")[0], texts.test).nats == pytest.approx(nats, rel=1e-4)  # back on the processor
    assert trained("cpu") == pytest.approx(nats, rel=1e-2)


def sequences(kind: Callable[..., Any], device: str) -> float:
    oracle = cot.Oracle(3, 4, hidden=8, device=device)
    data, held_out = oracle.sequences(40), oracle.sequences(20, seed=1)
    learners = [oracle.learner(4), oracle.learner(8, seed=1)][: 1 + issubclass(kind, cot.CooperativeTrainer)]
    plan = (cot.CooperativePlan if len(learners) == 2 else cot.SequencePlan)(steps=4, epochs=2, batch_size=8)
    kind(*learners, data, held_out, plan).train()
    if len(learners) == 2:
        cot.gradient_noise(*learners, data, samples=4, batches=2)
    return oracle.compare(learners[0], count=20).jsd_step


def images(kind: Callable[..., Any], size: Any, device: str) -> float:
    classifier = kind(size, 10, (12, 8), plan=ff.ImagePlan(epochs=2, batch_size=10)).to(device)
    seen: list[list[float]] = []
    pictures = torch.rand(40, 16, generator=torch.Generator().manual_seed(0))
    classifier.fit(pictures, TEN, lambda score: seen.append(score.layers))
    for classifier.read_by in ("softmax", "goodness"):
        assert 0 <= classifier.error(pictures, TEN) <= 1
    return sum(seen[-1])


def automaton(device: str) -> float:
    torch.manual_seed(0)
    model = Automaton(preset("no_hidden_layer", context_length=4, width=8), characters(), device=device)
    windows = Windows.centred(model.tokenizer, [TEXT], 4)
    train(model, windows, PiecewisePlan(epochs=2, batch_size=50), progress=False)
    assert len(model.run("the cat", 2)) == 3
    return memorised(model, windows).nats


def shapes(device: str) -> float:
    torch.manual_seed(0)
    shape = shape_at({**START, "width": 4}, preset("large_single_layer", context_length=4))
    windows = Windows.sequence(characters(), [TEXT], 4)
    return trial_nats(shape, characters(), windows, windows, device=device)


def ridge(device: str) -> float:
    model = echo_model()
    rows = model.rows(TEXTS)
    statistics = RidgeStatistics.collect(rows, model.vocabulary_size)
    fitted = model.with_readout(RidgeReadout.fit(statistics).calibrate(rows.kept()), "concat")
    assert isinstance(fitted.readout, RidgeReadout)
    fitted.readout.calibrate(rows)
    online = OnlineReadout(model.encoder.width, model.vocabulary_size).to(model.device)
    for inputs, targets in rows:
        online.partial_fit(inputs[:8], targets[:8])
    return evaluate(fitted, TEXTS[:1]).nats + evaluate(model.with_readout(online, "concat"), TEXTS[:1]).nats


def reservoirs(device: str) -> float:
    reservoir = small_reservoir()
    inputs = torch.randn(60, 24, generator=torch.Generator().manual_seed(0)).to(reservoir.like)
    found = [
        diagnostics.lyapunov_exponent(reservoir, inputs, washout=10),
        diagnostics.forgetting(reservoir, inputs).rate,
        diagnostics.effective_spectral_radius(reservoir),
        diagnostics.state_spectrum(reservoir.run(inputs[None])[0][0]).effective_rank,
    ]
    return float(sum(found))


def neighbours(device: str) -> float:
    model = neighbour_model()
    found = model.retrieve(TEXTS)
    mixture = Interpolation.fit(found)
    shuffled = mixture.log_probabilities(controls.shuffled(found, 0)[0]).sum()
    oracle = mixture.log_probabilities(controls.oracle(found)[0]).sum()
    tuned = Cache.tuned(WindowedFoundation(random_gpt2(), 6), TEXTS)
    return evaluate(model, TEXTS).nats + evaluate(tuned, TEXTS).nats + float(shuffled) + float(oracle)


def memories(read: str, device: str) -> float:
    model = memory_gpt(read=read, write="learned", deletes=True)
    scores = train_memory(model, TEXTS[1:], TEXTS[:1], MemoryPlan(epochs=1, forgetfulness_factor=0.1))
    controls.ablations(model, TEXTS[:1], TEXTS[1], 0)
    return scores[-1].validation_nats


def paper(method: Any, device: str) -> float:
    experiment = ff.SequenceExperiment(TEXT * 2, TEXT, hidden=(8, 8), epochs=1, device=device)
    return experiment.run(method).bits_per_character


def recipe(name: str, device: str) -> float:
    text = [Document("text", TEXT * 3)]
    with pytest.MonkeyPatch.context() as patches:
        patches.setattr(frontier, "MOST_EPOCHS", 1)
        # Looking for a size draws weights, which are then numbers of that device's.
        patches.setattr(frontier, "preset_of_size", lambda name, *_, **shape: preset(name, width=20, **shape))
        return measure(name, text, text, {"same": text}, budget=0.01, device=device).bits_per_byte("same")


TRAININGS: dict[str, Callable[[str], float]] = {
    "automaton": automaton,
    "search for shapes": shapes,
    "ridge and online readout": ridge,
    "reservoir": reservoirs,
    "neighbours and cache": neighbours,
    **{f"memory, {read}": partial(memories, read) for read in ("attention", "concat", "knn")},
    **{f"sequences, {way}": partial(paper, way) for way in ("random", "teacher-forced", "self-generated", "backprop")},
    **{f"frontier, {name}": partial(recipe, name) for name in RECIPES},
    **{
        kind.__name__: partial(sequences, kind)
        for kind in (cot.LikelihoodTrainer, cot.ScheduledSamplingTrainer, cot.CooperativeTrainer, cot.ReinforceTrainer)
    },
    **{
        kind.__name__: partial(images, kind, size)
        for kind, size in (
            (ff.ForwardForwardClassifier, 16),
            (ff.UnsupervisedForwardForward, (4, 4)),
            (ff.RecurrentForwardForward, 16),
            (ff.BackpropClassifier, 16),
        )
    },
}


@pytest.mark.parametrize("name", TRAININGS)
def test_a_training_gives_elsewhere_what_it_gives_on_the_processor(name: str, own_data_folder: None) -> None:
    with elsewhere():
        there = TRAININGS[name]("cuda")
    assert there == pytest.approx(TRAININGS[name]("cpu"), rel=1e-2)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_cuda_a_model_gives_what_it_gives_on_the_processor() -> None:
    here = random_gpt2()
    there = Foundation(copy.deepcopy(here.model).to("cuda"), here.tokenizer, name="random GPT-2")
    text = "the cat sat on the mat."
    assert evaluate(there, text).nats == pytest.approx(evaluate(here, text).nats, rel=1e-4)
    greedy = Sampling(max_tokens=12, temperature=0)
    assert generate(there, "the", greedy) == generate(here, "the", greedy)

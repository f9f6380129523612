"""What the protocol promises, held against every language model of the library (tests/models.py)."""

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from frugal.baselines import BoostedTrees, ContextMixing, NGram, SmallTransformer
from frugal.combine import Ensemble, Tempered
from frugal.cooperative import LSTMLanguageModel
from frugal.corpora import CharTokenizer
from frugal.errors import FrugalError, InputError
from frugal.evaluate import evaluate
from frugal.foundation import WindowedFoundation
from frugal.language_model import HiddenStateModel, LanguageModel, TargetScores, class_named, gather_targets, load_model
from frugal.memory import MemoryGPT
from frugal.readout import ReservoirLanguageModel, SoftmaxReadout
from frugal.reservoir import Reservoir
from models import (
    EVERY_MODEL,
    ROUNDING,
    TEXTS,
    characters,
    echo_model,
    lstm,
    memory_gpt,
    piecewise,
    random_gpt2,
    reservoir_model,
    set_everywhere,
)


@pytest.fixture(params=EVERY_MODEL, scope="module")
def model(request: pytest.FixtureRequest) -> LanguageModel:
    return EVERY_MODEL[request.param]()


@pytest.fixture(scope="module")
def tokens(model: LanguageModel) -> Tensor:
    """Two streams of 13 tokens [2, 13], one of them a text, each after the document start."""
    text = model.tokenizer.encode("the cat sat on")[:12]
    generator = torch.Generator().manual_seed(1)
    rows = torch.randint(model.tokenizer.vocabulary_size - 2, (2, 13), generator=generator)
    rows[0, 1 : len(text) + 1] = text
    rows[:, 0] = model.tokenizer.start_id
    return rows.to(model.device)


def test_the_future_never_changes_a_score(model: LanguageModel, tokens: Tensor) -> None:
    changed = tokens.clone()
    changed[:, 8:] = tokens[:, 8:].flip(1)
    assert not torch.equal(changed, tokens)
    torch.testing.assert_close(
        model.log_probabilities(changed)[:, :8], model.log_probabilities(tokens)[:, :8], rtol=0, atol=1e-5
    )


def test_stepping_gives_the_distributions_that_score_gives(model: LanguageModel, tokens: Tensor) -> None:
    state, rows = model.start(len(tokens)), []
    for t in range(tokens.shape[1]):
        logits, state = model.step(tokens[:, t], state)
        rows.append(logits.log_softmax(-1))
    torch.testing.assert_close(torch.stack(rows, 1), model.log_probabilities(tokens), rtol=0, atol=ROUNDING)


def test_feeding_is_stepping(model: LanguageModel, tokens: Tensor) -> None:
    logits, state = model.feed(tokens[:, :9], model.start(len(tokens)))
    torch.testing.assert_close(logits.log_softmax(-1), model.log_probabilities(tokens)[:, 8], rtol=0, atol=ROUNDING)
    logits, _ = model.feed(tokens[:, 9:], state)
    torch.testing.assert_close(logits.log_softmax(-1), model.log_probabilities(tokens)[:, -1], rtol=0, atol=ROUNDING)


def test_advancing_is_stepping(model: LanguageModel, tokens: Tensor) -> None:
    expected = model.log_probabilities(tokens)
    first, state = model.advance(tokens[:, :4], model.start(len(tokens)))
    second, _ = model.advance(tokens[:, 4:], state)
    torch.testing.assert_close(torch.cat([first, second], 1), expected, rtol=0, atol=ROUNDING)


def test_a_state_can_be_continued_in_two_ways(model: LanguageModel, tokens: Tensor) -> None:
    _, state = model.feed(tokens[:, :5], model.start(len(tokens)))
    first, _ = model.step(tokens[:, 5], state)
    model.step(tokens[:, 6], state)
    again, _ = model.step(tokens[:, 5], state)
    torch.testing.assert_close(again, first, rtol=0, atol=1e-5)


def test_probabilities_sum_to_one(model: LanguageModel, tokens: Tensor) -> None:
    scores = model.log_probabilities(tokens)
    assert scores.shape == (*tokens.shape, model.vocabulary_size)
    torch.testing.assert_close(scores.exp().sum(-1), torch.ones_like(scores[..., 0]), rtol=0, atol=1e-5)


def test_target_scores_are_those_of_score(model: LanguageModel, tokens: Tensor) -> None:
    expected = gather_targets(model.log_probabilities(tokens)[:, :-1], tokens[:, 1:])
    given = model.target_scores(tokens)
    torch.testing.assert_close(given.log_probabilities, expected.log_probabilities, rtol=0, atol=ROUNDING)
    assert (given.ranks == expected.ranks).float().mean() > 0.9  # ties may break either way


def test_one_token_or_no_stream_has_nothing_to_be_scored(model: LanguageModel, tokens: Tensor) -> None:
    for rows in (tokens[:, :1], tokens[:1, :0], tokens[:0]):
        scores = model.target_scores(rows)
        assert scores.log_probabilities.shape == scores.ranks.shape == rows[:, 1:].shape
    assert model.target_log_probabilities(tokens[:, :1]).shape == (len(tokens), 0)


@pytest.mark.parametrize("shape", [(0, 5), (2, 0), (0, 0)])
def test_no_streams_or_no_tokens_have_no_rows_and_leave_the_state(
    model: LanguageModel, tokens: Tensor, shape: tuple[int, int]
) -> None:
    V, nothing = model.vocabulary_size, torch.empty(shape, dtype=torch.int64, device=model.device)
    assert model.log_probabilities(nothing).shape == (*shape, V)
    assert model.target_log_probabilities(nothing).shape == (shape[0], max(0, shape[1] - 1))
    state = model.start(shape[0])
    rows, after = model.advance(nothing, state)
    assert rows.shape == (*shape, V)
    assert after is state
    if shape[0]:
        logits, _ = model.step(tokens[:, 0], after)
        torch.testing.assert_close(
            logits.log_softmax(-1), model.log_probabilities(tokens[:, :1])[:, 0], rtol=0, atol=ROUNDING
        )
        with pytest.raises(InputError, match="`feed` takes at least one token of each stream"):
            model.feed(nothing, state)
    else:
        for logits, after in (model.feed(nothing, state), model.step(nothing[:, :0].flatten(), state)):
            assert logits.shape == (0, V)
            assert after is state


def test_of_a_start_token_alone_there_is_nothing_to_score(model: LanguageModel, tokens: Tensor) -> None:
    start, document = tokens[0, :1].cpu(), tokens[0, :4].cpu()
    assert model.document_scores([]) == []
    empty, scores = model.document_scores([start, document])
    assert [len(column) for column in empty] == [0, 0, 0]
    assert torch.equal(scores.log_probabilities, model.document_scores([document])[0].log_probabilities)
    assert len(model.document_scores(each for each in [document])) == 1  # type: ignore[arg-type]
    with pytest.raises(InputError, match="documents: number 1 holds no token; each begins with the start token"):
        model.document_scores([document, start[:0]])


def test_tokens_are_whole_numbers_of_any_type_in_the_shape_that_is_said(model: LanguageModel, tokens: Tensor) -> None:
    short = tokens[:, :3]
    assert torch.equal(model.log_probabilities(short.int()), model.log_probabilities(short))
    state = model.start(len(short))
    for wrong in (short[0], short.float(), short.bool(), short.cpu().numpy(), short.tolist()):
        for method in (model.log_probabilities, model.target_scores):
            with pytest.raises(InputError, match=r"takes a tensor \[B, T\] of whole numbers"):
                method(wrong)  # type: ignore[arg-type]
        for go_on in (model.advance, model.feed):
            with pytest.raises(InputError, match=r"takes a tensor \[B, T\] of whole numbers"):
                go_on(wrong, state)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"`step` takes a tensor \[B\] of whole numbers"):
        model.step(short, state)
    for wrong in (short, short[0].float(), short[0].tolist()):
        with pytest.raises(InputError, match=r"`document_scores` takes a tensor \[T\] of whole numbers"):
            model.document_scores([wrong])  # type: ignore[list-item]
    with pytest.raises(InputError, match="batch_size=-1: must be a whole number of at least 0"):
        model.start(-1)


@pytest.mark.parametrize("long", [False, True])
def test_a_token_that_the_vocabulary_does_not_have_is_refused(model: LanguageModel, tokens: Tensor, long: bool) -> None:
    rows = tokens.repeat(1, 2 if long else 1)[:, : 18 if long else 3]
    for wrong in (-1, model.vocabulary_size):
        rows[1, -1] = wrong
        state, complaint = model.start(len(rows)), rf"token {wrong}: must lie in 0 to {model.vocabulary_size - 1}; use"
        for name in ("log_probabilities", "target_scores", "target_log_probabilities", "hidden", "hidden_pieces"):
            if hasattr(model, name):
                with pytest.raises(InputError, match=complaint):
                    getattr(model, name)(rows)
        for name in ("feed", "advance", "hidden_advance"):
            if hasattr(model, name):
                with pytest.raises(InputError, match=complaint):
                    getattr(model, name)(rows, state)
        for name in ("step", "hidden_step"):
            if hasattr(model, name):
                with pytest.raises(InputError, match=complaint):
                    getattr(model, name)(rows[:, -1], state)
        with pytest.raises(InputError, match=complaint):
            model.document_scores([*rows.cpu()])


def test_a_state_of_another_kind_or_number_of_streams_is_refused(model: LanguageModel, tokens: Tensor) -> None:
    ways = [(model.step, tokens[:, 1]), (model.feed, tokens[:, 1:3]), (model.advance, tokens[:, 1:3])]
    if isinstance(model, HiddenStateModel):
        ways += [(model.hidden_step, tokens[:, 1]), (model.hidden_advance, tokens[:, 1:3])]
    of_one, of_three = (model.feed(tokens[[0] * n, :2], model.start(n))[1] for n in (1, 3))
    others = [of_one, of_three, model.start(1), torch.zeros(2, 1, 1, 1), (torch.zeros(2, 1),), "state"]
    for wrong in others if of_one is not None else others[3:]:
        for go_on, given in ways:
            with pytest.raises(InputError, match=r"state: must be one of this \w+ for 2 streams; begin with `start\(2"):
                go_on(given, wrong)


@pytest.mark.parametrize(
    ("model", "other"),
    [
        (NGram(3, characters()).fit(TEXTS), NGram(5, characters()).fit(TEXTS)),
        (LSTMLanguageModel(characters(), 8), LSTMLanguageModel(characters(), 9)),
        (Tempered(LSTMLanguageModel(characters(), 8), 0.5), LSTMLanguageModel(characters(), 9)),
        (piecewise("small", context_length=5), piecewise("small", context_length=6)),
        (piecewise("mamba", width=8, blocks=2, state=4), piecewise("mamba", width=8, blocks=3, state=4)),
        (reservoir_model(), lstm()),
        (reservoir_model(), NGram(31, characters())),
    ],
)
def test_a_state_of_a_model_of_another_size_is_refused(model: LanguageModel, other: LanguageModel) -> None:
    with pytest.raises(InputError, match="state: must be one of this"):
        model.step(torch.tensor([0, 1]), other.start(2))
    with pytest.raises(InputError, match="state: must be one of this"):
        model.advance(torch.tensor([[0, 1]]), state=other.start(1))


@pytest.mark.parametrize(
    ("kind", "sizes"),
    [
        (lambda alphabet: NGram(3, CharTokenizer(alphabet)).fit([alphabet]), ("abc", "abcdefg")),
        (lambda width: SmallTransformer(characters(), width=width, context=8), (16, 32)),
        (lambda width: SmallTransformer(characters(), width=width, context=8), (64, 32)),
        (lambda blocks: SmallTransformer(characters(), blocks=blocks, width=16, context=8), (1, 2)),
        (lambda blocks: SmallTransformer(characters(), blocks=blocks, width=16, context=8), (2, 1)),
        (lambda layers: random_gpt2(n_layer=layers), (1, 2)),
        (lambda layers: random_gpt2(n_layer=layers), (2, 1)),
        (lambda heads: random_gpt2(n_head=heads), (2, 3)),
        (lambda width: WindowedFoundation(random_gpt2(n_embd=width), context=8), (24, 16)),
    ],
)
def test_a_state_with_tokens_read_by_a_model_of_another_size_is_refused(
    kind: Callable[[Any], LanguageModel], sizes: tuple[Any, Any]
) -> None:
    model, other = map(kind, sizes)
    last = other.vocabulary_size - 2
    _, state = other.feed(torch.full((2, 4), last), other.start(2))
    with pytest.raises(InputError, match="state: must be one of this"):
        model.step(torch.tensor([0, 1]), state)


def test_scoring_in_small_pieces_changes_nothing(
    model: LanguageModel, tokens: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    pieces: list[int] = []  # how many targets are scored at a time

    def counted(log_probabilities: Tensor, targets: Tensor) -> TargetScores:
        pieces.append(targets.numel())
        return gather_targets(log_probabilities, targets)

    set_everywhere(monkeypatch, "gather_targets", counted)
    rows = tokens if model.context_length else tokens[:1]  # also a single row is, where it may be of any length
    whole = model.target_log_probabilities(rows)
    usual = max(pieces)
    pieces.clear()
    set_everywhere(monkeypatch, "LOGITS_AT_ONCE", 3 * model.vocabulary_size)
    set_everywhere(monkeypatch, "CODES_AT_ONCE", 20)
    torch.testing.assert_close(model.target_log_probabilities(rows), whole, rtol=0, atol=ROUNDING)
    assert max(pieces) < usual or isinstance(model, MemoryGPT)  # which goes from window to window in any case


@pytest.mark.parametrize(
    "name", ["frugal.files:Path", "Path", "pathlib:Path", "frugal.nowhere:Path", "frugal:CHECKOUT"]
)
def test_a_folder_names_no_class_but_the_library_s_own(name: str) -> None:
    with pytest.raises(InputError, match="is no class of this library"):
        class_named(name)


def test_a_class_that_an_earlier_version_had_in_another_room_is_found() -> None:
    assert class_named("frugal.cooperative:ReservoirLanguageModel") is ReservoirLanguageModel


@pytest.mark.parametrize(
    ("name", "complaint"),
    [("frugal.files:Path", "is no class of this library"), ("frugal.corpora:Corpus", "is no readout")],
)
def test_an_echo_model_s_folder_names_no_other_class_as_its_readout(tmp_path: Path, name: str, complaint: str) -> None:
    EVERY_MODEL["echo, ridge readout"]().save(tmp_path / "echo")
    config = json.loads((tmp_path / "echo" / "config.json").read_text())
    config["readout"]["class"] = name
    (tmp_path / "echo" / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=complaint):
        load_model(tmp_path / "echo")


@pytest.mark.parametrize("name", ["echo, residual", "foundation in windows", "nearest neighbours", "memory, knn"])
def test_a_loaded_model_s_gpt_computes_in_the_format_that_is_asked_for(name: str, tmp_path: Path) -> None:
    EVERY_MODEL[name]().save(tmp_path / "model")
    for dtype in ("float32", "bfloat16"):
        model: Any = load_model(tmp_path / "model", dtype=dtype)  # type: ignore[arg-type]
        inside = model if hasattr(model, "foundation") else model.model
        assert inside.foundation.dtype == getattr(torch, dtype)
        assert evaluate(model, "the cat sat").bits_per_byte > 0


OF_NUMPY: dict[str, Callable[[], LanguageModel]] = {
    "NGram": lambda: NGram(np.int64(3), characters()).fit(TEXTS),
    "BoostedTrees": lambda: BoostedTrees(np.int64(2), characters()).fit(TEXTS, rounds=np.int64(1)),
    "ContextMixing": lambda: ContextMixing(np.int64(2), characters(), slots=np.int64(64)).fit(TEXTS),
    "SmallTransformer": lambda: SmallTransformer(
        characters(), blocks=np.int32(1), width=np.int64(32), context=np.int64(8), seed=np.int64(1)
    ),
    "SoftmaxReadout": lambda: echo_model("concat", SoftmaxReadout(np.int64(44), 273, hidden=(np.int64(4),))),
    "Reservoir": lambda: ReservoirLanguageModel(
        characters(),
        Reservoir(np.int64(characters().vocabulary_size), np.int64(8), fan_in=np.int64(4), leak=np.float32(0.5)),
        SoftmaxReadout(8, characters().vocabulary_size),
    ),
    "MemoryGPT": lambda: memory_gpt(
        memory_size=np.int64(50), memory_dim=np.int64(24), num_search_results=np.int64(2), budget=np.float32(0.5)
    ),
    "Ensemble": lambda: Ensemble({"one": lstm(), "two": lstm(1)}, memory=np.float32(0.5)),
    "LSTM": lambda: LSTMLanguageModel(characters(), hidden=np.int64(8), scale=np.float32(0.1), seed=np.int64(1)),
}


@pytest.mark.parametrize("name", OF_NUMPY)
def test_a_model_whose_settings_are_numbers_of_numpy_comes_back_from_its_folder(name: str, tmp_path: Path) -> None:
    model = OF_NUMPY[name]()
    model.save(tmp_path / "model")
    loaded, tokens = load_model(tmp_path / "model"), torch.tensor([[0, 1, 2, 1]])
    torch.testing.assert_close(loaded.log_probabilities(tokens), model.log_probabilities(tokens))


def test_a_reservoir_whose_settings_are_numbers_of_numpy_comes_back_from_its_folder(tmp_path: Path) -> None:
    made = Reservoir(np.int64(2), np.int64(8), fan_in=np.int64(2), leak=np.float32(0.5), seed=np.int64(3))
    made.save(tmp_path / "reservoir")
    inputs = torch.rand(1, 5, 2)
    assert torch.equal(Reservoir.load(tmp_path / "reservoir").run(inputs)[0], made.run(inputs)[0])


def test_a_model_without_a_gpt_takes_no_format(tmp_path: Path) -> None:
    EVERY_MODEL["bigram over characters"]().save(tmp_path / "model")
    with pytest.raises(InputError, match="stands on no GPT"):
        load_model(tmp_path / "model", dtype="bfloat16")


@pytest.mark.parametrize(
    "name",
    [
        "5-gram over characters",
        "LSTM",
        "boosted trees",
        "echo, forward-forward",
        "echo, ridge readout",
        "piecewise MLP",
        "reservoir of characters",
        "small transformer",
    ],
)
def test_a_folder_whose_files_do_not_go_together_is_refused_in_one_sentence(name: str, tmp_path: Path) -> None:
    EVERY_MODEL[name]().save(tmp_path / "model")
    path = tmp_path / "model" / "config.json"
    config = json.loads(path.read_text())
    for key, value in config.items():
        changes = [{}, {key: "?"}, *([{key: value + 1}] if type(value) is int else [])]
        for change in changes:
            path.write_text(json.dumps({k: v for k, v in config.items() if k != key} | change))
            with contextlib.suppress(FrugalError):  # what is wrong may be without effect, such as another seed
                load_model(tmp_path / "model")

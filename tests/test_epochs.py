"""The loop of epochs: early stopping, the best weights, resuming, interrupts, and what a folder holds."""

import json
import math
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import count, pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.optim import LBFGS, Optimizer

from frugal.errors import FrugalError, InputError, UnavailableError
from frugal.reservoir import Reservoir
from frugal.training import Epoch, EpochScore, Plan, fit, half_cosine, make_optimizer, run_epochs
from frugal.training.checkpoint import fingerprint
from frugal.training.loop import check_weights

PLAN = Plan(epochs=4, learning_rate=0.05, batch_size=5, seed=3)
INPUTS = torch.randn(40, 4, generator=torch.Generator().manual_seed(0))


def error(network: nn.Module, inputs: Tensor) -> Tensor:
    return (network(inputs) - inputs.sum(1, keepdim=True).sin()).square().mean()


class Training:
    """A small network with dropout, whose examples come in a random order."""

    def __init__(self, optimizer: str = "adamw", plan: Plan = PLAN, width: int = 6) -> None:
        torch.manual_seed(0)
        self.network = nn.Sequential(nn.Linear(4, width), nn.Tanh(), nn.Dropout(0.2), nn.Linear(width, 1))
        self.optimizer: Optimizer = (
            LBFGS(self.network.parameters(), max_iter=4)
            if optimizer == "lbfgs"
            else make_optimizer(optimizer, self.network.parameters(), plan.learning_rate)  # type: ignore[arg-type]
        )
        self.plan, self.second_order = plan, optimizer == "adahessian"

    def epoch(self, epoch: Epoch) -> float:
        if isinstance(self.optimizer, LBFGS):
            loss = float(self.optimizer.step(self.loss_of_all))  # type: ignore[arg-type]
            check_weights("", self.network.parameters())
            return loss
        assert self.network.training
        batches = INPUTS[torch.randperm(40)].split(self.plan.batch_size)
        losses = fit(
            self.network,
            error,
            batches,
            self.optimizer,
            steps=len(batches),
            seconds=epoch.seconds_left,
            schedule=epoch.part_of(half_cosine),
            clip=None if self.second_order else 1.0,
            title="",
        )
        return sum(losses) / len(losses)

    @torch.enable_grad()
    def loss_of_all(self) -> float:
        self.optimizer.zero_grad()
        loss = error(self.network, INPUTS)
        loss.backward()
        return loss.item()

    @torch.no_grad()
    def score(self) -> EpochScore:
        return EpochScore(validation_nats=error(self.network, INPUTS[:10]).item())

    def run(self, **settings: Any) -> list[EpochScore]:
        options = {"title": "small", "progress": False, **settings}
        return run_epochs(self.network, self.optimizer, self.plan, self.epoch, self.score, **options)

    @property
    def weights(self) -> Tensor:
        return torch.cat([values.flatten() for values in self.network.state_dict().values()]).clone()


def told(values: list[float], **plan: Any) -> tuple[list[EpochScore], Tensor, list[Tensor]]:
    """Run a training whose validation gives these values; its scores, its last weights and those after each epoch."""
    training, given, seen = Training(plan=replace(PLAN, epochs=len(values) - 1, **plan)), iter(values), []

    def score() -> EpochScore:
        seen.append(training.weights)
        return EpochScore(validation_nats=next(given))

    training.score = score  # type: ignore[method-assign]
    return training.run(), training.weights, seen


def without_seconds(scores: list[EpochScore]) -> str:
    """As text, in which NaN equals itself."""
    return str([replace(score, seconds=0.0) for score in scores])


def test_training_lowers_the_loss_epoch_by_epoch() -> None:
    scores = Training(plan=replace(PLAN, epochs=30)).run()
    assert [score.epoch for score in scores] == list(range(31))
    assert math.isnan(scores[0].training_loss)
    assert scores[-1].training_loss < 0.7 * scores[1].training_loss
    assert scores[-1].validation_nats < 0.7 * scores[0].validation_nats


@pytest.mark.parametrize(
    ("values", "patience", "trained", "best"),
    [
        ([5, 4, 3, 2, 1], None, 4, 4),
        ([5, 4, 6, 7, 1], 2, 3, 1),
        ([5, 6, 7, 8, 9], 2, 2, 0),  # never worse than it came
        ([5, 4, 6, 3, 9], 2, 4, 3),
        ([5, 4, 4, 4, 4], None, 4, 1),  # the first of equals
    ],
)
def test_the_best_weights_are_kept_and_patience_ends_the_training(
    values: list[float], patience: int | None, trained: int, best: int
) -> None:
    scores, weights, seen = told(values, patience=patience)
    assert scores[-1].epoch == trained
    assert torch.equal(weights, seen[best])
    assert all(not torch.equal(weights, other) for other in seen[:best] + seen[best + 1 :])


@pytest.mark.parametrize(("values", "epoch", "best"), [([5, 4, math.nan, 3], 2, 1), ([5, 6, math.inf, 3], 2, 0)])
def test_a_validation_that_is_not_finite_ends_the_training_with_the_best_weights(
    values: list[float], epoch: int, best: int
) -> None:
    training, given, seen = Training(plan=replace(PLAN, epochs=3)), iter(values), []

    def score() -> EpochScore:
        seen.append(training.weights)
        return EpochScore(validation_nats=next(given))

    training.score = score  # type: ignore[method-assign]
    with pytest.raises(InputError, match=f"validation gave {values[epoch]} nats after epoch {epoch}"):
        training.run()
    assert torch.equal(training.weights, seen[best])


def test_a_model_that_cannot_be_validated_is_not_trained() -> None:
    with pytest.raises(InputError, match="validation gave nan nats after epoch 0"):
        told([math.nan, 1.0])


@pytest.mark.parametrize("keep_best", [True, False])
@pytest.mark.parametrize("optimizer", ["adamw", "lbfgs", "lion", "sparse_lion", "adahessian"])
@pytest.mark.parametrize("fault", ["loss", "gradient", "last step"])
def test_a_training_that_fails_in_its_third_epoch_keeps_what_was_good(
    fault: str, optimizer: str, keep_best: bool
) -> None:
    training, seen = Training(optimizer), []
    train, steps = training.epoch, count(1)
    last = 3 if optimizer == "lbfgs" else 3 * 8

    def spoil(*_: Any) -> None:
        if next(steps) == last:
            training.network[0].weight.data[0, 0] = math.nan

    def epoch(epoch: Epoch) -> float:
        if epoch.number == 3 and fault == "loss":
            training.network[0].weight.data[0, 0] = math.nan
        if epoch.number == 3 and fault == "gradient":  # and so the next loss as well, where none looks at gradients
            training.network[0].weight.register_hook(lambda gradient: gradient * math.nan)
        return train(epoch)

    training.epoch = epoch  # type: ignore[method-assign]
    if fault == "last step":
        training.optimizer.register_step_post_hook(spoil)
    with pytest.raises(InputError, match=r"step 1|a weight is not finite after the last step: lower"):
        training.run(keep_best=keep_best, on_epoch=lambda score: seen.append((score.validation_nats, training.weights)))
    assert len(seen) == (3 if keep_best else 2)
    expected = min(seen, key=lambda item: item[0]) if keep_best else seen[-1]
    assert torch.equal(training.weights, expected[1])


def test_without_validation_the_last_weights_stay_and_patience_follows_the_training_loss() -> None:
    training, losses = Training(plan=replace(PLAN, epochs=9, patience=2)), iter([5.0, 3.0, 4.0, 4.0])
    training.epoch = lambda epoch: training.network[0].weight.data.add_(1) is None or next(losses)  # type: ignore
    before = training.network[0].weight.clone()
    scores = training.run(keep_best=False)
    assert [score.training_loss for score in scores] == [5, 3, 4, 4]
    torch.testing.assert_close(training.network[0].weight, before + 4)


@pytest.mark.parametrize("epoch", [1, 2, 3])
@pytest.mark.parametrize("where", ["after an epoch", "within it"])
@pytest.mark.parametrize("optimizer", ["adamw", "lbfgs", "sparse_lion", "adahessian"])
def test_a_resumed_training_equals_one_that_was_never_interrupted(
    optimizer: str, where: str, epoch: int, tmp_path: Path
) -> None:
    whole, broken, resumed = (Training(optimizer) for _ in range(3))
    expected = whole.run()

    def stop(score: EpochScore) -> None:
        if score.epoch == epoch:
            raise KeyboardInterrupt

    if where == "within it":
        interrupted_within(broken, epoch)
    with pytest.raises(KeyboardInterrupt):
        broken.run(folder=tmp_path / "kept", on_epoch=stop)
    told: list[int] = []
    found = resumed.run(folder=tmp_path / "kept", on_epoch=lambda score: told.append(score.epoch))
    first = epoch if where == "within it" else epoch + 1
    assert told == list(range(0 if first == 1 else first, 5))  # the start is told anew where nothing was kept
    if optimizer == "lbfgs":  # its dot products round by where in memory their vectors lie
        torch.testing.assert_close(resumed.weights, whole.weights, rtol=1e-4, atol=1e-4)
        assert [score.epoch for score in found] == [score.epoch for score in expected]
    else:
        assert without_seconds(found) == without_seconds(expected)
        assert torch.equal(resumed.weights, whole.weights)


def interrupted_within(training: Training, number: int) -> None:
    """Let a training be interrupted in the middle of an epoch, when some steps have been taken."""
    train = training.epoch

    def epoch(epoch: Epoch) -> float:
        loss = train(epoch)
        if epoch.number == number:
            raise KeyboardInterrupt
        return loss

    training.epoch = epoch  # type: ignore[method-assign]


def test_an_interrupt_leaves_the_best_weights() -> None:
    training, seen = Training(), []
    interrupted_within(training, 3)
    with pytest.raises(KeyboardInterrupt):
        training.run(on_epoch=lambda score: seen.append((score.validation_nats, training.weights)))
    assert len(seen) == 3
    assert torch.equal(training.weights, min(seen, key=lambda item: item[0])[1])
    assert not training.network.training


def test_a_finished_training_is_found_finished(tmp_path: Path) -> None:
    first, again = Training(), Training()
    scores = first.run(folder=tmp_path / "kept")
    again.epoch = lambda epoch: pytest.fail("trained again")  # type: ignore[method-assign]
    assert str(again.run(folder=tmp_path / "kept")) == str(scores)
    assert torch.equal(again.weights, first.weights)


@pytest.mark.parametrize(("nats", "perplexity"), [(0.0, 1.0), (1000.0, math.inf), (math.inf, math.inf)])
def test_a_perplexity_beyond_numbers_is_infinite(nats: float, perplexity: float) -> None:
    assert EpochScore(validation_nats=nats).validation_perplexity == perplexity
    assert math.isnan(EpochScore().validation_perplexity)


def test_on_epoch_sees_score_and_weights_of_the_start_and_of_each_epoch() -> None:
    training, seen = Training(), []
    scores = training.run(on_epoch=lambda score: seen.append((score, training.score().validation_nats)))
    assert [score for score, _ in seen] == scores
    assert [nats for _, nats in seen] == [score.validation_nats for score in scores]


def test_the_seed_decides_what_is_drawn_and_the_callers_draws_stay() -> None:
    def run(seed: int) -> tuple[Tensor, float]:
        training = Training(plan=replace(PLAN, seed=seed))
        torch.manual_seed(7)
        training.run()
        return training.weights, torch.rand(()).item()

    torch.manual_seed(7)
    undisturbed = torch.rand(()).item()
    (first, draw), (same, _), (other, _) = run(1), run(1), run(2)
    assert torch.equal(first, same)
    assert not torch.equal(first, other)
    assert draw == undisturbed


def test_processor_seconds_are_counted_through_an_interrupt_and_end_the_training(tmp_path: Path) -> None:
    def busy(epoch: Epoch) -> float:
        begun = time.process_time()
        while time.process_time() - begun < 0.05:
            pass
        return 1.0

    def stop(score: EpochScore) -> None:
        if score.epoch == 1:
            raise KeyboardInterrupt

    plan = replace(PLAN, epochs=1000, seconds=0.2)
    broken, resumed = Training(plan=plan), Training(plan=plan)
    broken.epoch = resumed.epoch = busy  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        broken.run(folder=tmp_path / "kept", on_epoch=stop)
    scores = resumed.run(folder=tmp_path / "kept")
    assert all(later.seconds - score.seconds > 0.05 for score, later in pairwise(scores))
    assert scores[-2].seconds < 0.2 <= scores[-1].seconds
    assert [score.out_of_time for score in scores] == [False] * (len(scores) - 1) + [True]


def test_a_budget_cuts_an_epoch_short() -> None:
    training = Training(plan=replace(PLAN, seconds=1e-9))
    taken: list[int] = []
    training.optimizer.register_step_post_hook(lambda *_: taken.append(1))
    assert [(score.epoch, score.out_of_time) for score in training.run()] == [(0, False), (1, True)]
    assert len(taken) == 1


def kept(folder: Path, **settings: Any) -> Path:
    Training().run(folder=folder, **settings)
    return folder


def write(folder: Path, name: str, change: Callable[[bytes], bytes]) -> None:
    (folder / name).write_bytes(change((folder / name).read_bytes()))


def test_a_folder_holds_json_and_safetensors_alone(tmp_path: Path) -> None:
    folder = kept(tmp_path / "kept")
    assert sorted(path.name for path in folder.iterdir()) == ["training.json", "training.safetensors"]
    assert json.loads((folder / "training.json").read_text())["plan"]["epochs"] == 4


def test_a_folder_may_be_given_as_text(tmp_path: Path) -> None:
    expected = Training().run(folder=str(tmp_path / "some" / "where"))
    assert (tmp_path / "some" / "where" / "training.json").is_file()
    assert without_seconds(Training().run(folder=tmp_path / "some" / "where")) == without_seconds(expected)


@pytest.mark.parametrize("kind", [str, Path])
@pytest.mark.parametrize("below", [".", "within", "within/it"])
def test_a_folder_that_is_a_file_or_within_one_is_refused_before_anything_is_computed(
    below: str, kind: Callable[[Path], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    training = Training()
    monkeypatch.setattr(training, "score", lambda: pytest.fail("scored"))
    monkeypatch.chdir(tmp_path)
    for place in (tmp_path / "file" / below, Path("file") / below):
        with pytest.raises(InputError, match=r"folder='.*': .* is a file; give a folder"):
            training.run(folder=kind(place))


@pytest.mark.parametrize("folder", [3, b"kept", ["kept"], True])
def test_what_is_no_path_is_refused_as_a_folder(folder: Any) -> None:
    with pytest.raises(InputError, match=r"folder=.*: must be a path"):
        Training().run(folder=folder)


@pytest.mark.parametrize(
    ("training", "settings", "message"),
    [
        (
            lambda: Training(plan=replace(PLAN, epochs=5, seed=7)),
            {},
            "another training, which differs in epochs, seed:",
        ),
        (lambda: Training(), {"title": "large"}, r"another training, which differs in kind \(small\):"),
        (lambda: Training(width=7), {}, "the training of another model"),
        (lambda: Training(), {"given": {"data": INPUTS}}, "another training, which differs in data:"),
        (lambda: Training(), {"keep_best": False}, "a training with validation"),
    ],
)
def test_the_folder_of_another_training_is_refused(
    training: Callable[[], Training], settings: dict[str, Any], message: str, tmp_path: Path
) -> None:
    folder = kept(tmp_path / "kept")
    with pytest.raises(InputError, match=message):
        training().run(folder=folder, **settings)


@dataclass
class Settings:
    name: str
    table: Tensor


class Data:
    identity = ("a text", 3, torch.arange(4))


GIVEN: list[Callable[[], Any]] = [
    lambda: INPUTS,
    lambda: INPUTS.double(),
    lambda: INPUTS[:10].repeat(4, 1),
    lambda: INPUTS.flatten(),
    lambda: INPUTS.T,
    lambda: INPUTS.bfloat16(),
    lambda: INPUTS.numpy()[::2],
    lambda: torch.tensor(1.0),
    lambda: 1,
    lambda: 1.0,
    lambda: "1",
    lambda: True,
    lambda: None,
    lambda: [],
    lambda: ["ab", "c"],
    lambda: ["a", "bc"],
    lambda: [["a"], "bc"],
    lambda: {"a": "bc"},
    lambda: Settings("ab", INPUTS),
    lambda: Settings("ab", INPUTS + 1),
    lambda: Data(),
    lambda: Data.identity,
    lambda: nn.ParameterList([INPUTS]),
    lambda: nn.ParameterList([INPUTS + 1]),
    *(lambda own=own: Reservoir(1, 16, activation=own) for own in (lambda t: t.tanh(), lambda t: t.relu())),
]


def test_a_training_goes_on_with_what_it_was_given_and_with_nothing_else(tmp_path: Path) -> None:
    digests = [fingerprint(make()) for make in GIVEN]
    assert len(set(digests)) == len(GIVEN)
    assert digests == [fingerprint(make()) for make in GIVEN]
    of_numpy = [np.int64(3), np.float32(0.5), np.float64(0.25), np.bool_(True), np.str_("ab")]
    assert fingerprint(of_numpy) == fingerprint([3, 0.5, 0.25, True, "ab"])
    folder = kept(tmp_path / "kept", given={"data": INPUTS, "settings": {"rate": 0.5}})
    Training().run(folder=folder, given={"data": INPUTS.clone(), "settings": {"rate": 0.5}})
    with pytest.raises(InputError, match="differs in data, settings:"):
        Training().run(folder=folder, given={"data": INPUTS + 1, "settings": {"rate": 0.25}})


def test_what_has_no_fingerprint_is_not_taken_for_equal() -> None:
    with pytest.raises(TypeError, match="a range has no fingerprint"):
        fingerprint([range(3)])


@pytest.mark.parametrize("name", ["training.json", "training.safetensors"])
@pytest.mark.parametrize("change", [lambda content: content[:-9], lambda content: b"", lambda content: b"{}"])
def test_a_damaged_folder_is_refused_in_one_sentence(
    name: str, change: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    folder = kept(tmp_path / "kept")
    write(folder, name, change)
    with pytest.raises(UnavailableError, match=r"no training that this version can resume .*: remove it"):
        Training().run(folder=folder)


def test_one_changed_bit_of_the_kept_weights_is_noticed(tmp_path: Path) -> None:
    folder = kept(tmp_path / "kept")
    write(folder, "training.safetensors", lambda content: content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(UnavailableError, match="is not as it was written"):
        Training().run(folder=folder)


def changes(value: Any) -> Iterator[Any]:
    """Copies of nested values, each with one part taken out, called otherwise, or of another kind."""
    parts = list(value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ())
    for key, part in parts:
        rest = [(name, other) for name, other in parts if name != key]
        make = dict if isinstance(value, dict) else lambda pairs: [other for _, other in sorted(pairs)]
        yield make(rest)
        for other in ("?", 12345, None, [], *changes(part)):
            if other != part:
                yield make([*rest, (key, other)])
        if isinstance(value, dict):
            yield {**make(rest), "other": part}


def half_a_training(folder: Path) -> dict[str, Any]:
    """What is kept of a training that was interrupted after its second epoch."""

    def stop(score: EpochScore) -> None:
        if score.epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Training().run(folder=folder, on_epoch=stop)
    return dict(json.loads((folder / "training.json").read_text()))


def test_whatever_is_changed_in_what_was_kept_is_noticed(tmp_path: Path) -> None:
    content = half_a_training(tmp_path / "kept")
    own = content.pop("sha256")
    for other in changes(content):
        (tmp_path / "kept" / "training.json").write_text(json.dumps({**other, "sha256": own}))
        training = Training()
        before = training.weights
        with pytest.raises(UnavailableError, match=r"training.json is not as it was written.*: remove it"):
            training.run(folder=tmp_path / "kept")
        assert torch.equal(training.weights, before)


def test_the_folder_of_an_earlier_version_without_a_checksum_is_gone_on_with_if_it_is_whole(tmp_path: Path) -> None:
    whole, resumed, content = Training(), Training(), half_a_training(tmp_path / "kept")
    del content["sha256"]
    (tmp_path / "kept" / "training.json").write_text(json.dumps(content))
    expected = whole.run()
    assert without_seconds(resumed.run(folder=tmp_path / "kept")) == without_seconds(expected)
    assert torch.equal(resumed.weights, whole.weights)


def test_the_folder_of_an_earlier_version_whose_parts_do_not_fit_fails_in_one_sentence(tmp_path: Path) -> None:
    content = half_a_training(tmp_path / "kept")
    del content["sha256"]
    tensors = (tmp_path / "kept" / "training.safetensors").read_bytes()
    for other in changes(content):
        (tmp_path / "kept" / "training.json").write_text(json.dumps(other))
        (tmp_path / "kept" / "training.safetensors").write_bytes(tensors)
        with suppress(FrugalError):  # another number in a score may be right
            Training().run(folder=tmp_path / "kept")
    for scores in ([], [{**content["scores"][0], "seconds": "?"}]):
        (tmp_path / "kept" / "training.json").write_text(json.dumps({**content, "scores": scores}))
        (tmp_path / "kept" / "training.safetensors").write_bytes(tensors)
        with pytest.raises(UnavailableError, match=r"can resume \((it has no scores|seconds is no number)\)"):
            Training().run(folder=tmp_path / "kept")


def test_the_folder_of_an_earlier_version_is_refused_in_one_sentence(tmp_path: Path) -> None:
    folder = kept(tmp_path / "kept")
    earlier = {"plan": {"epochs": 4}, "scores": []}
    write(folder, "training.json", lambda content: json.dumps(earlier).encode())
    with pytest.raises(UnavailableError, match="no training that this version can resume"):
        Training().run(folder=folder)


@dataclass(frozen=True, kw_only=True)
class OtherPlan(Plan):
    kind: Literal["plain", "fancy"] = "plain"
    careful: bool = False


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": 0}, "epochs=0: must be at least 1"),
        ({"epochs": 1.5}, "epochs=1.5: must be a whole number"),
        ({"epochs": True}, "epochs=True: must be a whole number"),
        ({"epochs": None}, "epochs=None: must be a whole number"),
        ({"epochs": "3"}, "epochs='3': must be a whole number"),
        ({"batch_size": 0}, "batch_size=0: must be at least 1"),
        ({"batch_size": 8.0}, "batch_size=8.0: must be a whole number"),
        ({"patience": 0}, "patience=0: must be at least 1"),
        ({"patience": -1}, "patience=-1: must be at least 1"),
        ({"patience": 2.5}, "patience=2.5: must be a whole number"),
        ({"learning_rate": 0.0}, "learning_rate=0.0: must be positive"),
        ({"learning_rate": math.nan}, "learning_rate=nan: must be finite"),
        ({"learning_rate": math.inf}, "learning_rate=inf: must be finite"),
        ({"learning_rate": "1e-3"}, "learning_rate='1e-3': must be a number"),
        ({"seconds": 0.0}, "seconds=0.0: must be positive"),
        ({"seconds": 0}, "seconds=0.0: must be positive"),
        ({"seconds": math.nan}, "seconds=nan: must be finite"),
        ({"seconds": math.inf}, "seconds=inf: must be finite"),
        ({"seconds": "60"}, "seconds='60': must be a number"),
        ({"seed": -1}, "seed=-1: must lie in 0 to"),
        ({"seed": 2**32}, f"seed={2**32}: must lie in 0 to"),
        ({"seed": 0.5}, "seed=0.5: must be a whole number"),
        ({"seed": None}, "seed=None: must be a whole number"),
        ({"kind": "odd"}, "kind='odd': must be one of 'plain', 'fancy'"),
        ({"careful": 1}, "careful=1: must be True or False"),
    ],
)
def test_a_plan_that_cannot_be_followed_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        OtherPlan(**settings)


def test_a_plan_takes_numbers_of_numpy_and_its_training_is_gone_on_with(tmp_path: Path) -> None:
    plan = Plan(epochs=np.int64(2), seed=np.uint8(3), learning_rate=np.float32(0.5), batch_size=5, seconds=9)
    assert plan == Plan(epochs=2, seed=3, learning_rate=0.5, batch_size=5, seconds=9.0)
    Training(plan=plan).run(folder=tmp_path / "kept")
    assert len(Training(plan=plan).run(folder=tmp_path / "kept")) == 3


@pytest.mark.parametrize("keep_best", [True, False])
def test_an_interrupted_training_is_gone_on_with_by_the_same_model_without_a_word(
    tmp_path: Path, keep_best: bool
) -> None:
    def run(training: Training, **settings: Any) -> None:
        training.run(folder=tmp_path / f"kept-{keep_best}", keep_best=keep_best, **settings)

    training, again, calls = Training(), Training(), count()
    epoch = training.epoch

    def interrupted(at: Epoch) -> float:
        found = epoch(at)
        if next(calls) == 1:  # in the midst of the second
            raise KeyboardInterrupt
        return found

    training.epoch = interrupted  # type: ignore[method-assign]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(KeyboardInterrupt):
            run(training)
        run(training)
    whole = Training()
    whole.run(keep_best=keep_best)
    assert torch.equal(training.weights, whole.weights)
    with torch.no_grad():
        again.network[0].weight += 1
    with pytest.warns(UserWarning, match="goes on with the weights that are kept there; other ones were given"):
        run(again)
    assert torch.equal(again.weights, whole.weights)

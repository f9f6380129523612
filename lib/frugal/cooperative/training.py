"""The loop that trains a generator of sequences, whatever its objective: log, progress, checkpoints, resumption."""

import json
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim import Adam, Optimizer
from tqdm.auto import tqdm

from frugal.cooperative.samples import Samples, draw, trained_part
from frugal.errors import InputError, UnavailableError
from frugal.files import appearing
from frugal.language_model import LanguageModel
from frugal.training import warm_up_and_decay

BETAS = (0.9, 0.95)  # as in the code of the CoT paper
SCORED = 256  # sequences drawn, and held-out ones, for a line of the log


@dataclass(frozen=True)
class Plan:
    """How a generator is trained.

    Attributes:
        steps: optimiser steps.
        batch_size: sequences per step.
        learning_rate: highest of the generator's Adam; it rises at first and falls to nothing at the end.
        log_every: steps between two lines of the log, and between two checkpoints.
        seed: of the order of the data and of the samples.
    """

    steps: int = 2000
    batch_size: int = 64
    learning_rate: float = 1e-2
    log_every: int = 200
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("steps", 1), ("batch_size", 2), ("log_every", 1)):
            if getattr(self, name) < least:
                raise InputError(f"{name}={getattr(self, name)}: must be at least {least}")
        check_rate("learning_rate", self.learning_rate)


@dataclass(frozen=True)
class Progress:
    """One line of the log; nats are per token unless said otherwise.

    Attributes:
        step: how many have been taken.
        losses: mean of each loss since the last line.
        held_out: negative log-likelihood of held-out data under the generator.
        entropy: of the generator, estimated from its own samples.
        seconds: of processor time spent on training steps so far.
        jsd_low, jsd_high: bounds on the Jensen-Shannon divergence of whole sequences, in nats per sequence, as the
            mediator sees them; None where there is no mediator, or for the upper one where the entropy of the data
            is not known.
    """

    step: int
    losses: dict[str, float]
    held_out: float
    entropy: float
    seconds: float
    jsd_low: float | None = None
    jsd_high: float | None = None


class SequenceTrainer(ABC):
    """Trains a generator on sequences of one length.

    Subclasses say what a step is. Interrupted, a training with a `folder` goes on from its last line of the log when
    it is built again in the same way, and ends where it would have ended.

    Args:
        generator: any language model that `trained_part` finds something to train in.
        data: sequences [n, 1 + T], each beginning with the start token.
        held_out: others of the same kind.
        plan: how to train.
        folder: where checkpoints are kept; None for none.

    Raises:
        InputError: the data are no such sequences, nothing can be trained, or `folder` is of another training.
        UnavailableError: the folder is damaged.
    """

    def __init__(
        self, generator: LanguageModel, data: Tensor, held_out: Tensor, plan: Plan, folder: Path | None = None
    ) -> None:
        for name, sequences in (("data", data), ("held_out", held_out)):
            check_sequences(name, sequences, generator)
        self.generator, self.data, self.held_out, self.plan, self.folder = generator, data, held_out, plan, folder
        self.parts: dict[str, nn.Module] = {}
        self.optimizers: dict[str, Optimizer] = {}
        self.rates: dict[str, float] = {}
        self.random = torch.Generator().manual_seed(plan.seed)
        self.log: list[Progress] = []
        self.seconds = 0.0
        self._add("generator", generator, plan.learning_rate)

    @abstractmethod
    def step(self, done: float) -> dict[str, Tensor]:
        """The losses of one batch after the part `done` of the training, 0..1.

        Their sum is descended: give each trained model a loss that depends on no other model's weights.
        """

    def train(self, after: Callable[[Progress], None] | None = None) -> list[Progress]:
        """Take the steps that are left; the log of all.

        `after` is called with each new line of the log; the models then have that step's weights.
        """
        if self.folder is not None and self.folder.is_dir():
            self._resume(self.folder)
        first = self.log[-1].step if self.log else 0
        summed: dict[str, float] = {}
        with tqdm(desc=type(self).__name__, initial=first, total=self.plan.steps, unit=" steps") as bar:
            for step in range(first + 1, self.plan.steps + 1):
                for name, loss in self._descend((step - 0.5) / self.plan.steps).items():
                    summed[name] = summed.get(name, 0.0) + loss
                bar.update()
                if step % self.plan.log_every == 0 or step == self.plan.steps:
                    since = step - (self.log[-1].step if self.log else 0)
                    self.log.append(self._progress(step, {name: total / since for name, total in summed.items()}))
                    bar.set_postfix(held_out=f"{self.log[-1].held_out:.3f}", refresh=False)
                    summed = {}
                    if self.folder is not None:
                        self._keep(self.folder)
                    if after is not None:
                        after(self.log[-1])
        return self.log

    def batch(self, size: int) -> Tensor:
        """Some of the data, [size, 1 + T]."""
        places = torch.randint(len(self.data), (size,), generator=self.random)
        return self.data[places].to(self.generator.device)

    def samples(self, size: int) -> Samples:
        """Fresh samples of the generator, of the data's length."""
        return draw(self.generator, size, self.data.shape[1] - 1, generator=self.random)

    def bounds(self, held_out: Tensor, samples: Tensor) -> tuple[float | None, float | None]:
        """Bounds on the Jensen-Shannon divergence, where there is something to estimate it with."""
        return None, None

    def _add(self, name: str, model: LanguageModel, rate: float) -> None:
        """Train this model too."""
        self.parts[name] = trained_part(model)
        self.rates[name] = rate
        self.optimizers[name] = Adam(self.parts[name].parameters(), rate, betas=BETAS)

    def _descend(self, done: float) -> dict[str, float]:
        """One step of all optimisers; the losses."""
        began = time.process_time()
        losses = self.step(done)
        values = {name: loss.item() for name, loss in losses.items()}
        for name, value in values.items():
            if not math.isfinite(value):
                raise InputError(f"the {name} loss is {value}: lower the learning rates")
        for name, optimizer in self.optimizers.items():
            optimizer.zero_grad()
            for group in optimizer.param_groups:
                group["lr"] = self.rates[name] * warm_up_and_decay(done)
        torch.stack(list(losses.values())).sum().backward()
        for optimizer in self.optimizers.values():
            optimizer.step()
        self.seconds += time.process_time() - began
        return values

    @torch.no_grad()
    def _progress(self, step: int, losses: dict[str, float]) -> Progress:
        held_out = self.held_out[:SCORED].to(self.generator.device)
        tokens = self.samples(len(held_out)).tokens
        likelihoods = [self.generator.target_log_probabilities(some).mean().item() for some in (held_out, tokens)]
        return Progress(step, losses, -likelihoods[0], -likelihoods[1], self.seconds, *self.bounds(held_out, tokens))

    def _keep(self, folder: Path) -> None:
        tensors = {"random": self.random.get_state()}
        for name, part in self.parts.items():
            tensors |= {f"{name}.weights.{key}": values for key, values in part.state_dict().items()}
            for index, state in self.optimizers[name].state_dict()["state"].items():
                tensors |= {f"{name}.optimizer.{index}.{key}": values for key, values in state.items()}
        kept = {"trainer": type(self).__name__, "plan": asdict(self.plan), "log": [asdict(line) for line in self.log]}
        with appearing(folder) as temporary:
            temporary.mkdir()
            save_file({name: values.contiguous() for name, values in tensors.items()}, temporary / "state.safetensors")
            (temporary / "log.json").write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")

    def _resume(self, folder: Path) -> None:
        try:
            kept = json.loads((folder / "log.json").read_text(encoding="utf-8"))
            tensors = load_file(folder / "state.safetensors")
            log = [Progress(**line) for line in kept["log"]]
            made_by = kept["trainer"], kept["plan"]
        except Exception as error:
            raise UnavailableError(f"{folder} holds no readable training ({error}): remove it to start anew") from error
        if made_by != (type(self).__name__, asdict(self.plan)):
            raise InputError(f"{folder} holds another training ({made_by[0]}, {made_by[1]}): remove it or name another")
        try:
            for name, part in self.parts.items():
                part.load_state_dict(_under(tensors, f"{name}.weights."))
                states: dict[int, dict[str, Tensor]] = {}
                for key, values in _under(tensors, f"{name}.optimizer.").items():
                    index, item = key.split(".")
                    states.setdefault(int(index), {})[item] = values
                groups = self.optimizers[name].state_dict()["param_groups"]
                self.optimizers[name].load_state_dict({"state": states, "param_groups": groups})
        except RuntimeError as error:
            raise InputError(f"{folder} holds the training of other models: remove it or name another") from error
        self.random.set_state(tensors["random"])
        self.log, self.seconds = log, log[-1].seconds


def check_rate(name: str, rate: float) -> None:
    if not 0 < rate < 1:
        raise InputError(f"{name}={rate}: must lie between 0 and 1; typical values lie in 1e-3 to 2e-2")


def check_sequences(name: str, sequences: Tensor, model: LanguageModel) -> None:
    """Raise InputError unless these are sequences [n, 1 + T] of the model's tokens after its start token."""
    if sequences.ndim != 2 or not len(sequences) or sequences.shape[1] < 2:
        raise InputError(
            f"{name} of shape {list(sequences.shape)}: expected sequences [n, 1 + T] of at least one token"
        )
    if not (sequences[:, 0] == model.tokenizer.start_id).all():
        raise InputError(f"{name}: every sequence must begin with the start token, {model.tokenizer.start_id}")
    if int(sequences.min()) < 0 or int(sequences.max()) >= model.vocabulary_size:
        raise InputError(f"{name}: tokens must lie in 0 to {model.vocabulary_size - 1}; use the model's own tokeniser")
    if model.context_length is not None and sequences.shape[1] - 1 > model.context_length:
        raise InputError(
            f"{name} of {sequences.shape[1] - 1} tokens: the model takes at most {model.context_length}; shorten them"
        )


def _under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): values for name, values in tensors.items() if name.startswith(prefix)}

"""Where the wrong data of a forward-forward readout comes from."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from frugal.errors import InputError, check_positive, check_whole, is_number
from frugal.forward_forward.net import uniform_wrong, wrong_candidates
from frugal.foundation import Foundation
from frugal.generate.sampling import Sampling, chooser
from frugal.readout.echo import EchoLanguageModel
from frugal.readout.rows import KeptRows, Rows

PROJECTIONS = 8  # of a state, to know it again
SAME_STATE = 0.05  # of the spread of all


class Batch(NamedTuple):
    """Real data: hidden states [n, d + N], the tokens that follow [n], and the model's own guesses at them [n, V]."""

    hidden: Tensor
    targets: Tensor
    guesses: Tensor


class Negatives(ABC):
    """A source of pairs of a hidden state and a token that does not belong to it.

    Attributes:
        identity: what its draws follow from beside batch, random numbers and the model that is trained; a training is
            gone on with only with equal ones. A source with settings says them here.
    """

    identity: Any = ()

    def check(self, model: EchoLanguageModel) -> None:  # noqa: B027  # most sources suit any model
        """Raise InputError unless a training of this model can draw from them."""

    def begin_epoch(self, rows: Rows) -> None:  # noqa: B027  # most sources gather nothing
        """Forget what was drawn, so that a training that is gone on with draws as one that never stopped.

        Args:
            rows: the real data that is learnt.
        """

    @abstractmethod
    def draw(self, batch: Batch, random: torch.Generator) -> tuple[Tensor, Tensor]:
        """Hidden states [n, d + N] and tokens [n]; the states are `batch.hidden` itself where they are the same."""


class UniformNegatives(Negatives):
    """The state with any other token, all equally likely.

    Example:
        >>> batch = Batch(torch.rand(3, 2), torch.tensor([0, 1, 2]), torch.tensor([[0.1, 0.8, 0.1, 0.0]] * 3))
        >>> states, tokens = UniformNegatives().draw(batch, torch.Generator().manual_seed(0))
        >>> states is batch.hidden, bool((tokens != batch.targets).all())
        (True, True)
    """

    def draw(self, batch: Batch, random: torch.Generator) -> tuple[Tensor, Tensor]:
        return batch.hidden, uniform_wrong(batch.guesses.shape[1], batch.targets, random)


class HardNegatives(Negatives):
    """The state with one of the readout's own guesses, the right token left out.

    Example:
        >>> guesses = torch.tensor([[0.5, 0.5, 0.0], [0.5, 0.5, 0.0]])
        >>> batch = Batch(torch.rand(2, 4), torch.tensor([0, 1]), guesses)
        >>> HardNegatives().draw(batch, torch.Generator().manual_seed(0))[1]
        tensor([1, 0])
    """

    def draw(self, batch: Batch, random: torch.Generator) -> tuple[Tensor, Tensor]:
        return batch.hidden, wrong_candidates(batch.guesses, batch.targets, random)


class FoundationNegatives(Negatives):
    """The state with a token that the foundation thinks likely, the right one left out.

    With a residual readout and a temperature of 1 this is where goodness means most: it is what the truth is likelier
    than the foundation says.

    Example:
        >>> from transformers import GPT2Config, GPT2LMHeadModel
        >>> from frugal.corpora import CharTokenizer
        >>> small = GPT2Config(vocab_size=130, n_positions=32, n_embd=12, n_layer=1, bos_token_id=128, eos_token_id=128)
        >>> gpt = Foundation(GPT2LMHeadModel(small), CharTokenizer.ascii(), name="untrained")
        >>> batch = Batch(torch.rand(3, 12), torch.tensor([0, 1, 2]), torch.full((3, 130), 1 / 130))
        >>> _, tokens = FoundationNegatives(gpt).draw(batch, torch.Generator().manual_seed(0))
        >>> bool((tokens != batch.targets).all())
        True
    """

    def __init__(self, foundation: Foundation, temperature: float = 1.0) -> None:
        check_positive("typical values lie in 0.7 to 1.5", temperature=temperature)
        self.foundation, self.temperature = foundation, temperature
        self.identity = foundation, temperature

    def draw(self, batch: Batch, random: torch.Generator) -> tuple[Tensor, Tensor]:
        logits = self.foundation.logits(batch.hidden[:, : self.foundation.hidden_size])
        return batch.hidden, wrong_candidates((logits / self.temperature).softmax(-1), batch.targets, random)


class TextNegatives(Negatives):
    """What follows in another text: `rows` are its hidden states and next tokens.

    Those of the text that is learnt are no such rows: what follows there is right.

    Either whole windows, a state of the other text with the token that follows it there, or, without `windows`, the
    real states with the other text's tokens, as frequent as they are there, the right one left out.

    Example:
        >>> batch = Batch(torch.rand(3, 2), torch.tensor([0, 1, 2]), torch.tensor([[0.1, 0.8, 0.1, 0.0]] * 3))
        >>> other_text = KeptRows(torch.ones(5, 2), torch.full((5,), 3))
        >>> states, tokens = TextNegatives(other_text).draw(batch, torch.Generator().manual_seed(0))
        >>> bool((states == 1).all()), tokens.tolist()
        (True, [3, 3, 3])
    """

    def __init__(self, rows: Rows, windows: bool = True) -> None:
        kept = rows.kept() if isinstance(rows, Rows) and not isinstance(rows, KeptRows) else rows
        if not isinstance(kept, KeptRows):
            raise InputError("rows: must be rows that memory holds, such as `model.rows(documents)` of a shorter text")
        self.rows, self.windows = kept, windows
        self.identity = kept, windows

    def check(self, model: EchoLanguageModel) -> None:
        if self.rows.largest >= model.vocabulary_size or self.rows.width != model.hidden_size:
            raise InputError("TextNegatives: rows are of another model; take those of `model.rows(documents)`")

    def draw(self, batch: Batch, random: torch.Generator) -> tuple[Tensor, Tensor]:
        if not self.windows:
            counts = self.rows.targets.bincount(minlength=batch.guesses.shape[1]).to(batch.guesses)
            return batch.hidden, wrong_candidates(counts.expand_as(batch.guesses), batch.targets, random)
        places = torch.randint(self.rows.count, (len(batch.targets),), generator=random)
        return self.rows.inputs[places].to(batch.hidden), self.rows.targets[places].to(batch.targets)


class Pairs:
    """Which states with which token some rows hold.

    A state is told from others by a few random projections: what lies within a twentieth of the states' spread is the
    same state, read in another number format or batch.

    Example:
        >>> pairs = Pairs(KeptRows(torch.eye(3), torch.tensor([0, 1, 2])))
        >>> pairs.hold(torch.eye(3), torch.tensor([0, 2, 2])).tolist()
        [True, False, True]
    """

    def __init__(self, rows: Rows) -> None:
        random = torch.Generator().manual_seed(0)
        self.projection = torch.randn(rows.width, PROJECTIONS, generator=random)
        pieces = [(self._projected(inputs), targets.cpu()) for inputs, targets in rows]
        self.states, self.tokens = (torch.cat(column) for column in zip(*pieces, strict=True))
        self.apart = SAME_STATE * self.states.var(0, correction=0).sum().sqrt()

    def hold(self, states: Tensor, tokens: Tensor) -> Tensor:
        """Whether each state [n, d + N] with its token [n] is one of the rows, [n]."""
        projected, tokens = self._projected(states), tokens.cpu()
        held = torch.zeros(len(tokens), dtype=torch.bool)
        for token in tokens.unique():
            asked = tokens == token
            distances = torch.cdist(projected[asked], self.states[self.tokens == token])
            held[asked] = (distances <= self.apart).any(1)
        return held

    def _projected(self, states: Tensor) -> Tensor:
        return states.cpu().float() @ self.projection


class SelfGenerated(Negatives):
    """What the model writes when nothing is read to it: every so many steps it sleeps, and its dreams are kept.

    A dream that the rows hold is none: their states with those tokens are real. Of dreams that are all real nothing is
    left, and the readout's own guesses take their place (`HardNegatives`).

    Args:
        model: the model that is trained.
        every: training steps from one sleep to the next.
        streams, length: texts written at once, from the start of a document, and tokens of each.
        temperature: of the sampling.

    Example:
        >>> from transformers import GPT2Config, GPT2LMHeadModel
        >>> from frugal.corpora import CharTokenizer
        >>> from frugal.reservoir import Reservoir
        >>> small = GPT2Config(vocab_size=130, n_positions=32, n_embd=12, n_layer=1, bos_token_id=128, eos_token_id=128)
        >>> gpt = Foundation(GPT2LMHeadModel(small), CharTokenizer.ascii(), name="untrained")
        >>> batch = Batch(torch.rand(3, 32), torch.tensor([0, 1, 2]), torch.full((3, 130), 1 / 130))
        >>> model = EchoLanguageModel(gpt, Reservoir(12, 20), context=8)
        >>> states, tokens = SelfGenerated(model, streams=2, length=4).draw(batch, torch.Generator().manual_seed(0))
        >>> states.shape, tokens.shape
        (torch.Size([3, 32]), torch.Size([3]))
    """

    def __init__(
        self,
        model: EchoLanguageModel,
        *,
        every: int = 200,
        streams: int = 16,
        length: int = 64,
        temperature: float = 1.0,
    ) -> None:
        check_whole(every=every, streams=streams, length=length)
        check_positive("typical values lie in 0.7 to 1.5", temperature=temperature)
        self.model, self.every, self.streams, self.length = model, every, streams, length
        self.temperature, self.steps = temperature, 0
        self.rows: Rows | None = None
        self.real: Pairs | None = None
        self.identity = every, streams, length, temperature

    def check(self, model: EchoLanguageModel) -> None:
        if model is not self.model:
            raise InputError("SelfGenerated: writes with another model than the one that is trained; give it that one")

    def begin_epoch(self, rows: Rows) -> None:
        self.steps = 0
        if rows is not self.rows:
            self.rows, self.real = rows, Pairs(rows)

    def draw(self, batch: Batch, random: torch.Generator) -> tuple[Tensor, Tensor]:
        if self.steps % self.every == 0:
            states, tokens = self._sleep(int(torch.randint(2**31, (), generator=random)))
            dreamt = slice(None) if self.real is None else ~self.real.hold(states, tokens).to(states.device)
            self.dreams = states[dreamt], tokens[dreamt]
        self.steps += 1
        states, tokens = self.dreams
        if not len(tokens):
            return HardNegatives().draw(batch, random)
        places = torch.randint(len(tokens), (len(batch.targets),), generator=random)
        return states[places], tokens[places]

    @torch.no_grad()
    def _sleep(self, seed: int) -> tuple[Tensor, Tensor]:
        """States and the tokens that were drawn after them."""
        model, inputs, targets = self.model, [], []
        choose = chooser(model.tokenizer, Sampling(temperature=self.temperature, seed=seed))
        tokens = torch.full((self.streams,), model.tokenizer.start_id, device=model.device)
        state = model.start(self.streams)
        for _ in range(self.length):
            hidden, state = model.hidden_step(tokens, state)
            tokens = choose(tokens.unsqueeze(1), model.head(hidden).float())
            inputs.append(hidden)
            targets.append(tokens)
        return torch.cat(inputs), torch.cat(targets)


class MixedNegatives(Negatives):
    """Several sources, each for its share of every batch.

    Example:
        >>> batch = Batch(torch.rand(3, 2), torch.tensor([0, 1, 2]), torch.tensor([[0.1, 0.8, 0.1, 0.0]] * 3))
        >>> mixed = MixedNegatives([(2, UniformNegatives()), (1, HardNegatives())])
        >>> mixed.draw(batch, torch.Generator().manual_seed(0))[1][-1].item()  # the last third is the net's best guess
        1
    """

    def __init__(self, sources: Sequence[tuple[float, Negatives]]) -> None:
        """Take (share, source) pairs; the shares are relative to their sum."""
        known = all(is_number(share) and isinstance(source, Negatives) for share, source in sources)
        if not sources or not known or not all(0 < share < math.inf for share, _ in sources):
            raise InputError("sources: must be (share, source) pairs with positive shares; leave out what is not used")
        self.sources = self.identity = list(sources)

    def check(self, model: EchoLanguageModel) -> None:
        for _, source in self.sources:
            source.check(model)

    def begin_epoch(self, rows: Rows) -> None:
        for _, source in self.sources:
            source.begin_epoch(rows)

    def draw(self, batch: Batch, random: torch.Generator) -> tuple[Tensor, Tensor]:
        shares = torch.tensor([share for share, _ in self.sources])
        ends = (shares.cumsum(0) / shares.sum() * len(batch.targets)).round().long()
        hidden, tokens = batch.hidden, torch.empty_like(batch.targets)
        for begin, end, (_, source) in zip([0, *ends[:-1]], ends, self.sources, strict=True):
            part = Batch(*(values[begin:end] for values in batch))
            if not len(part.targets):
                continue
            states, tokens[begin:end] = source.draw(part, random)
            if states is not part.hidden:
                hidden = hidden.clone() if hidden is batch.hidden else hidden
                hidden[begin:end] = states
        return hidden, tokens

"""A small transformer trained from nothing: what every cheaper model has to be compared with at equal cost.

The recipe is nanoGPT's (https://github.com/karpathy/nanoGPT): blocks of attention and a wide map, each after a
normalisation and with a shortcut around it; embeddings that are the head as well; AdamW, a warm-up, gradients of
limited norm.
Two things are of later date and help small models: rotary positions (Su et al., "RoFormer", 2021, equation 34) and
normalisation by the root mean square (Zhang and Sennrich, 2019).
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, gelu, rms_norm, scaled_dot_product_attention

from frugal.corpora import Document, Tokenizer, encode_in_a_row
from frugal.device import choose_device
from frugal.errors import InputError, check_not_negative, check_whole
from frugal.language_model import HiddenStateModel, pieces_in_windows, read_model, save_model
from frugal.training import Epoch, EpochScore, Plan, check_plan, fit, run_epochs, warm_up_and_decay

TOKENS_AT_ONCE = 4096


@dataclass(frozen=True, kw_only=True)
class TransformerPlan(Plan):
    """How a transformer is trained; see `Plan`.

    Attributes:
        examples: windows of the text in all, drawn at random places. The same number gives the same model.
        epochs: into how many parts they are divided; after each the model is validated.
        learning_rate: rises over the first tenth of the training and falls to nothing over the last fifth.
        seconds: most processor seconds in all; the rate then follows the clock.
        weight_decay: of matrices; not of embeddings and scales.

    >>> TransformerPlan(examples=1000, batch_size=10, epochs=2).steps
    50
    """

    examples: int = 20_000
    epochs: int = 4
    learning_rate: float = 5e-3
    batch_size: int = 32
    weight_decay: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.examples < 1:
            raise InputError(f"examples={self.examples}: must be at least 1; 20,000 take a minute or so")
        check_not_negative("0.1 is usual", weight_decay=self.weight_decay)

    @property
    def steps(self) -> int:
        """Of an epoch."""
        return max(1, math.ceil(self.examples / (self.epochs * self.batch_size)))


class TransformerState(NamedTuple):
    """A stream's window: its tokens [B, n], and each block's keys and values [B, heads, n, d]."""

    tokens: Tensor
    past: tuple[tuple[Tensor, Tensor], ...]


class SmallTransformer(nn.Module, HiddenStateModel):
    """Decoder-only transformer over any tokeniser; streams of any length are read in windows that overlap by half.

    So a prediction sees between a half and the whole of `context` tokens, and a stepped stream has the predictions of
    a text that is known as a whole.

    Args:
        tokenizer: of V tokens.
        blocks: each of attention and a map four times as wide.
        width: of the hidden states; a multiple of 32, the width of a head, or below it an even number.
        context: tokens in a window, at least 2.
        seed: of the weights.
        device: "cpu", "cuda", "mps" or "auto".

    Raises:
        InputError: a size that cannot be.

    Example:
        >>> from frugal.corpora import CharTokenizer
        >>> model = SmallTransformer(CharTokenizer("ab"), blocks=1, width=16, context=8)
        >>> plan = TransformerPlan(examples=400, learning_rate=0.02, batch_size=8)
        >>> scores = model.fit(["ab" * 30], plan, valid=["abab"], progress=False)
        >>> scores[-1].validation_nats < scores[0].validation_nats
        True
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        *,
        blocks: int = 2,
        width: int = 64,
        context: int = 128,
        seed: int = 0,
        device: str = "cpu",
    ) -> None:
        super().__init__()
        check_whole(blocks=blocks, width=width, context=context)
        check_whole(0, seed=seed)
        if width < 2 or width % (32 if width > 32 else 2):
            raise InputError(f"width={width}: must be a multiple of 32, or an even number below it")
        if context < 2:
            raise InputError(f"context={context}: must be at least 2; typical values lie in 64 to 512")
        self.tokenizer, self.vocabulary_size = tokenizer, tokenizer.vocabulary_size
        self.settings = {"blocks": blocks, "width": width, "context": context}
        self.context, self.stride = context, context - context // 2
        self.head_width = min(width, 32)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(seed))
            self.embedding = nn.Embedding(self.vocabulary_size, width)
            self.blocks = nn.ModuleList(Block(width, self.head_width, blocks) for _ in range(blocks))
            nn.init.normal_(self.embedding.weight, std=0.02)
        self.scale = nn.Parameter(torch.ones(width))
        self.to(choose_device(device))
        self.eval()

    @property
    def device(self) -> torch.device:  # type: ignore[override]  # where training has left the weights
        return self.scale.device

    @property
    def parameter_count(self) -> int:
        """How many numbers the weights hold."""
        return sum(weight.numel() for weight in self.parameters())

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits [B, n, V] of one window [B, n]."""
        return self.head(self.states(tokens))

    def states(self, tokens: Tensor) -> Tensor:
        """Hidden states [B, n, width] of one window [B, n], which is no longer than the context."""
        return self._read(tokens, ())[0]

    def hidden(self, tokens: Tensor) -> Tensor:
        return torch.cat(list(self.hidden_pieces(tokens)), 1)

    def hidden_pieces(self, tokens: Tensor) -> Iterator[Tensor]:
        if not tokens.numel():
            return iter([self.scale.new_zeros(*tokens.shape, len(self.scale))])
        return self._pieces(tokens, 0)

    def head(self, hidden: Tensor) -> Tensor:
        return hidden @ self.embedding.weight.T

    def start(self, batch_size: int) -> TransformerState:
        return TransformerState(torch.empty(batch_size, 0, dtype=torch.int64, device=self.device), ())

    def _goes_on_from(self, state: TransformerState) -> bool:
        heads = len(self.scale) // self.head_width
        shape = len(state.tokens), heads, state.tokens.shape[1], self.head_width
        blocks = len(self.blocks) if state.tokens.shape[1] else 0
        return len(state.past) == blocks and all(part.shape == shape for pair in state.past for part in pair)

    def hidden_step(self, tokens: Tensor, state: TransformerState) -> tuple[Tensor, TransformerState]:
        seen, past = state
        if seen.shape[1] == self.context:
            seen = seen[:, self.stride :]
            past = self._read(seen, ())[1]
        states, past = self._read(tokens.unsqueeze(1), past)
        return states[:, 0], TransformerState(torch.cat([seen, tokens.unsqueeze(1)], 1), past)

    def hidden_advance(self, tokens: Tensor, state: TransformerState) -> tuple[Tensor, TransformerState]:
        seen = torch.cat([state.tokens, tokens], 1)
        states = torch.cat(list(self._pieces(seen, state.tokens.shape[1])), 1)
        window = seen[:, max(0, math.ceil((seen.shape[1] - self.context) / self.stride)) * self.stride :]
        return states, TransformerState(window, self._read(window, ())[1])

    def fit(
        self,
        documents: Iterable[Document | str],
        plan: TransformerPlan | None = None,
        *,
        valid: Iterable[Document | str] | None = None,
        folder: Path | str | None = None,
        on_epoch: Callable[[EpochScore], None] | None = None,
        progress: bool = True,
    ) -> list[EpochScore]:
        """Train on windows at random places of the text; document starts lie between the documents.

        Args:
            documents: the text.
            plan: how to train; by default as TransformerPlan() says.
            valid: held-out text; the model ends with the weights that predicted it best. Without it, with the last.
            folder: where the training's state is kept after each epoch; found there, it is gone on with.
            on_epoch: called with each new score.
            progress: show a bar over the epochs.

        Returns:
            The scores: with `valid` that before training, and that after each epoch.

        Raises:
            InputError: no text, a loss that is not finite, or `folder` is that of another training.
        """
        plan = TransformerPlan() if plan is None else plan
        check_plan(plan, TransformerPlan)
        tokens = _joined(self.tokenizer, documents, "train on")
        held_out = None if valid is None else _joined(self.tokenizer, valid, "validate on")
        optimizer = self._optimizer(plan)

        def train_epoch(epoch: Epoch) -> float:
            left = epoch.seconds_left
            losses = fit(
                self,
                _loss,
                RandomWindows(tokens, self.context, plan.batch_size, plan.steps),
                optimizer,
                steps=plan.steps,
                seconds=None if left is None else left / (plan.epochs - epoch.number + 1),
                schedule=epoch.part_of(warm_up_and_decay),
                device=self.device.type,
                title="",
            )
            return sum(losses) / len(losses)

        def score() -> EpochScore:
            return EpochScore() if held_out is None else EpochScore(validation_nats=self._nats(held_out))

        return run_epochs(
            self,
            optimizer,
            plan,
            train_epoch,
            score,
            title="transformer",
            keep_best=held_out is not None,
            folder=folder,
            given={"documents": tokens, "validation": held_out, "model": self.settings},
            on_epoch=on_epoch,
            progress=progress,
        )

    def save(self, folder: Path | str, notes: str = "") -> None:
        """Write the model to a folder; `notes` go on its card: trained on what, with which scores."""
        card = f"# Small transformer\n\n{self.parameter_count:,} weights, {self.settings}.\n\n{notes}"
        save_model(folder, self, self.state_dict(), self.settings, card)

    @classmethod
    def load(cls, folder: Path | str, *, device: str = "cpu") -> Self:
        weights, config, tokenizer = read_model(folder, cls)
        model = cls(tokenizer, **config)
        model.load_state_dict(weights)
        return model.to(choose_device(device))

    def _pieces(self, seen: Tensor, known: int) -> Iterator[Tensor]:
        return pieces_in_windows(
            self.states, seen, known, context=self.context, stride=self.stride, tokens_at_once=TOKENS_AT_ONCE
        )

    def _read(
        self, tokens: Tensor, past: Sequence[tuple[Tensor, Tensor]]
    ) -> tuple[Tensor, tuple[tuple[Tensor, Tensor], ...]]:
        """Hidden states [B, n, width] of the next n tokens of a window, and each block's keys and values after them."""
        known = past[0][0].shape[2] if past else 0
        turn = _rotation(known, known + tokens.shape[1], self.head_width, tokens.device)
        x, after = self.embedding(tokens), []
        for number, block in enumerate(self.blocks):
            x, keys_and_values = block(x, turn, past[number] if past else None)
            after.append(keys_and_values)
        return rms_norm(x, x.shape[-1:], self.scale, 1e-6), tuple(after)

    def _optimizer(self, plan: TransformerPlan) -> torch.optim.Optimizer:
        matrices = [weight for block in self.blocks for weight in block.parameters() if weight.ndim == 2]
        others = [weight for weight in self.parameters() if all(weight is not matrix for matrix in matrices)]
        groups = [{"params": matrices, "weight_decay": plan.weight_decay}, {"params": others, "weight_decay": 0.0}]
        return torch.optim.AdamW(groups, lr=plan.learning_rate, betas=(0.9, 0.95))

    @torch.inference_mode()
    def _nats(self, tokens: Tensor) -> float:
        """Mean nats of a text's tokens, read in windows."""
        return -self.target_log_probabilities(tokens[None].to(self.device)).mean().item()


class Block(nn.Module):
    """x + attention(normalise(x)), then x + map(normalise(x))."""

    def __init__(self, width: int, head_width: int, blocks: int) -> None:
        super().__init__()
        self.head_width = head_width
        self.before_attention, self.before_map = nn.Parameter(torch.ones(width)), nn.Parameter(torch.ones(width))
        self.queries_keys_values = nn.Linear(width, 3 * width, bias=False)
        self.mix = nn.Linear(width, width, bias=False)
        self.widen, self.narrow = nn.Linear(width, 4 * width, bias=False), nn.Linear(4 * width, width, bias=False)
        for layer in (self.queries_keys_values, self.widen):
            nn.init.normal_(layer.weight, std=width**-0.5)
        for layer in (self.mix, self.narrow):  # all shortcuts together then have a variance of about one
            nn.init.normal_(layer.weight, std=(2 * blocks * layer.in_features) ** -0.5)

    def forward(
        self, x: Tensor, turn: tuple[Tensor, Tensor], past: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """New vectors [B, n, width], and keys and values [B, heads, past + n, head width]."""
        y = rms_norm(x, x.shape[-1:], self.before_attention, 1e-6)
        parts = self.queries_keys_values(y).unflatten(2, (3, -1, self.head_width)).permute(2, 0, 3, 1, 4)
        q, k, v = parts.unbind(0)  # [B, heads, n, head width]
        q, k = _turned(q, turn), _turned(k, turn)
        mask = None
        if past is not None:
            k, v = torch.cat([past[0], k], 2), torch.cat([past[1], v], 2)
            mask = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool, device=x.device).tril(k.shape[2] - q.shape[2])
        mixed = scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None)
        x = x + self.mix(mixed.transpose(1, 2).flatten(2))
        y = rms_norm(x, x.shape[-1:], self.before_map, 1e-6)
        return x + self.narrow(gelu(self.widen(y))), (k, v)


@dataclass(frozen=True)
class RandomWindows:
    """Batches (inputs, targets) [B, length] from random places of a text, drawn again each time they are asked for.

    >>> len(list(RandomWindows(torch.arange(10), length=4, size=2, batches=3)))
    3
    """

    tokens: Tensor
    length: int
    size: int
    batches: int

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        length = min(self.length, len(self.tokens) - 1)
        for _ in range(self.batches):
            begins = torch.randint(len(self.tokens) - length, (self.size, 1))
            windows = self.tokens[begins + torch.arange(length + 1)].long()
            yield windows[:, :-1], windows[:, 1:]


def _joined(tokenizer: Tokenizer, documents: Iterable[Document | str], what_for: str) -> Tensor:
    """All documents in one row, a document start before each."""
    tokens = encode_in_a_row(tokenizer, documents)
    if not len(tokens) or tokens.min() == tokens.max():  # nothing but document starts
        raise InputError(f"nothing to {what_for}: the text is empty; give some text")
    return tokens


def _loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    inputs, targets = batch
    return cross_entropy(model(inputs).flatten(0, 1), targets.flatten())


def _rotation(begin: int, end: int, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Cosines and sines [end - begin, width / 2] by which the vectors at these places are turned."""
    frequency = 10_000.0 ** (-torch.arange(0, width, 2, device=device) / width)
    angle = torch.arange(begin, end, device=device).unsqueeze(1) * frequency
    return angle.cos(), angle.sin()


def _turned(vectors: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
    """Vectors [.., n, width], their halves taken as the coordinates of points, each turned about the origin."""
    first, second = vectors.chunk(2, -1)
    cosine, sine = turn
    return torch.cat([first * cosine - second * sine, first * sine + second * cosine], -1)

"""Training the heads that read and write: the loss, what an epoch is, and what validation measures."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from frugal.corpora import Blocks, Document, encode_documents, separate
from frugal.errors import InputError, check_not_negative, check_whole
from frugal.memory.entries import Entries
from frugal.memory.model import MemoryGPT, Step
from frugal.training import Epoch, EpochScore, Plan, check_plan, fit, half_cosine, run_epochs

Streams = DataLoader[tuple[Tensor, Tensor]]
SMALLEST = 1e-9  # probabilities below it count as it


@dataclass(frozen=True, kw_only=True)
class MemoryPlan(Plan):
    """How a MemoryGPT is trained; see `Plan`. An epoch begins with empty memories.

    Attributes:
        learning_rate: of AdamW, its highest; it falls to nothing along half a cosine over all epochs.
        batch_size: streams trained side by side.
        windows: windows of a stream that one step reads; the gradient reaches from its readings to its writings.
        scope: how long a stream's entries live: until its "step" ends, or on through the "stream" of steps, then
            without a gradient.
        forgetfulness_factor: share of a stream's entries that is forgotten, at random, after each step.
        retrieval, write_rate, deletion: weights of the loss's terms beside the cross-entropy; see `memory_loss`.

    >>> MemoryPlan(epochs=3, deletion=0.0).scope
    'step'
    """

    epochs: int = 5
    learning_rate: float = 1e-4
    batch_size: int = 1
    patience: int | None = 2
    windows: int = 6
    scope: str = "step"
    forgetfulness_factor: float = 0.001
    retrieval: float = 0.5
    write_rate: float = 1.0
    deletion: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole(windows=self.windows)
        if self.scope not in ("step", "stream"):
            raise InputError(f"scope={self.scope!r}: must be 'step' or 'stream'")
        if not 0 <= self.forgetfulness_factor < 1:
            raise InputError(f"forgetfulness_factor={self.forgetfulness_factor}: must be at least 0 and below 1")
        terms = {"retrieval": self.retrieval, "write_rate": self.write_rate, "deletion": self.deletion}
        check_not_negative("0 leaves this term out", **terms)


@dataclass(frozen=True, kw_only=True)
class MemoryScore(EpochScore):
    """What an epoch gave; see `EpochScore`.

    Attributes:
        training_loss: the mean of all terms.
        retrieval_f1: of the decision to read (more than half the weight on entries) where an entry holds the next
            token.
        hit_rate: share of positions where one does.
        write_rate: entries per token.
    """

    retrieval_f1: float
    hit_rate: float
    write_rate: float


def memory_loss(model: MemoryGPT, step: Step, targets: Tensor, plan: MemoryPlan) -> Tensor:
    """The loss of one window's rows, whose next tokens are `targets` [B, n]; mean over tokens, in nats.

        cross-entropy of the next tokens
        + retrieval * -log(weight of the entries that hold the next token, or of reading nothing if none does)
        + write_rate * (mean of sigmoid(store decision) - budget)^2
        + deletion * (is there nothing useful to read? - what the delete decision says, as a cross-entropy,
                      + distance of the deletable vector from the nearest useless entry)

    The second term is that of a training with memories (TRIME; Zhong, Lei and Chen, 2022), with a choice of none.
    """
    _, output, _ = step
    reading, writer = output.reading, model.network.writer
    loss = -model.network.target_log_probabilities(output.logits, targets).mean()
    hits = reading.hits(targets)
    if plan.retrieval and bool((reading.tokens >= 0).any()):
        found = (reading.weights[..., 1:] * hits).sum(-1)
        right = torch.where(hits.any(-1), found, reading.weights[..., 0])
        loss = loss - plan.retrieval * right.clamp_min(SMALLEST).log().mean()
    if plan.write_rate and writer.write in ("threshold", "learned"):
        rate = writer.store_decision(output.hidden).sigmoid().mean()
        loss = loss + plan.write_rate * (rate - writer.budget).square()
    if plan.deletion and writer.deletes:
        useless = (reading.tokens >= 0) & ~hits
        decision = writer.delete_decision(output.hidden).squeeze(-1)
        loss = loss + plan.deletion * binary_cross_entropy_with_logits(decision, (~hits.any(-1)).float())
        if bool(useless.any()):
            distance = writer.distances(output.hidden, reading).masked_fill(~useless, torch.inf).amin(-1)
            loss = loss + plan.deletion * distance[useless.any(-1)].mean()
    return loss


def train_memory(
    model: MemoryGPT,
    documents: Iterable[Document | str],
    validation: Iterable[Document | str],
    plan: MemoryPlan | None = None,
    *,
    folder: Path | str | None = None,
    on_epoch: Callable[[MemoryScore], None] | None = None,
) -> list[MemoryScore]:
    """Train the model in place; it ends with the weights that did best on `validation`.

    Streams run through all documents, one after the other. Validation never sees their entries, nor the kept memory:
    its own documents are read from an empty memory each. A model that was saved and loaded is trained on in the same
    way. Several devices are used by as many processes, each with its own model and memory.

    Args:
        folder: where the training's state is kept after each epoch; found there, it is gone on with.
        on_epoch: called with each new score; the model then has that epoch's weights.

    Returns:
        The scores before training and after each epoch.

    Raises:
        InputError: too little text, nothing to train, a loss that is not finite, or a validation that gives no number.

    Example:
        >>> from transformers import GPT2Config, GPT2LMHeadModel
        >>> from frugal.corpora import CharTokenizer
        >>> from frugal.foundation import Foundation
        >>> small = GPT2Config(vocab_size=130, n_positions=8, n_embd=12, n_layer=1, bos_token_id=128, eos_token_id=128)
        >>> gpt = Foundation(GPT2LMHeadModel(small), CharTokenizer.ascii(), name="untrained")
        >>> model, unseen = MemoryGPT(gpt, read="knn"), ["the cat sat on the hat"]
        >>> scores = train_memory(model, ["the cat sat on the mat"], unseen, MemoryPlan(epochs=2, windows=2))
        >>> nats = [score.validation_nats for score in scores]
        >>> len(nats), validate(model, unseen).validation_nats == min(nats)
        (3, True)
    """
    plan, network = MemoryPlan() if plan is None else plan, model.network
    check_plan(plan, MemoryPlan)
    documents, validation = list(separate(documents)), list(separate(validation))
    streams = _streams(model, _encoded(model, "documents", documents), plan)
    held_out = _encoded(model, "validation", validation)
    optimizer = torch.optim.AdamW([p for p in network.parameters() if p.requires_grad], lr=plan.learning_rate)
    return run_epochs(
        network,
        optimizer,
        plan,
        lambda epoch: _train_epoch(model, streams, plan, optimizer, epoch),
        lambda: _measured(model.without_memory(), held_out),
        title="memory",
        kind=MemoryScore,
        folder=folder,
        given={
            "documents": documents,
            "validation": validation,
            "model": model.settings,
            "foundation": model.foundation,
            **({"memory": model.memory} if len(model.memory) else {}),  # earlier versions did not ask for it
        },
        on_epoch=on_epoch,
    )


def validate(model: MemoryGPT, documents: Iterable[Document | str]) -> MemoryScore:
    """Measure on documents, each from an empty memory: nothing that was remembered or trained on can be read."""
    return measure(model.without_memory(), documents)


def measure(model: MemoryGPT, documents: Iterable[Document | str]) -> MemoryScore:
    """How well documents are predicted, and how well the model decides to read.

    Each begins with no entries of its own.

    Raises:
        InputError: there is no text.
    """
    return _measured(model, _encoded(model, "documents", documents))


def _encoded(model: MemoryGPT, name: str, documents: Iterable[Document | str]) -> list[Tensor]:
    """Tokens [1 + T] of those documents that are not empty."""
    found = [tokens for tokens in encode_documents(model.tokenizer, documents) if len(tokens) > 1]
    if not found:
        raise InputError(f"{name}: there is no text in them; give at least one document that is not empty")
    return found


@torch.no_grad()
def _measured(model: MemoryGPT, documents: list[Tensor]) -> MemoryScore:
    nats = right = written = tokens_read = decided = useful = both = 0.0
    for tokens in documents:
        tokens = tokens.unsqueeze(0).to(model.device)
        for step in model.steps(tokens[:, :-1]):
            targets = step.targets(tokens)
            logits = step.output.logits[0]
            nats -= model.network.target_log_probabilities(step.output.logits, targets).sum().item()
            right += (logits.argmax(-1) == targets[0]).sum().item()
            decisions = step.output.reading.weights[..., 0] < 0.5
            hits = step.output.reading.hits(targets).any(-1)
            decided += int(decisions.sum())
            useful += int(hits.sum())
            both += int((decisions & hits).sum())
        written += (model.after(step, tokens).log_prior > -torch.inf).sum().item()
        tokens_read += tokens.shape[1] - 1
    return MemoryScore(
        validation_nats=nats / tokens_read,
        validation_accuracy=right / tokens_read,
        retrieval_f1=2 * both / max(1, decided + useful),
        hit_rate=useful / tokens_read,
        write_rate=written / tokens_read,
    )


def _train_epoch(model: MemoryGPT, streams: Streams, plan: MemoryPlan, optimizer: Optimizer, epoch: Epoch) -> float:
    """One pass over the streams; the mean loss."""
    generator = torch.Generator().manual_seed(epoch.seed)
    if streams.generator is not None:
        streams.generator.manual_seed(epoch.seed)
    carried: list[Entries] = []  # what the streams wrote in the step before

    def loss(_: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        inputs, targets = batch
        tokens = torch.cat([inputs, targets[:, -1:]], 1)
        total = torch.zeros((), device=tokens.device)
        for step in model.steps(inputs, carried.pop() if carried else None):
            of_step = step.targets(tokens)
            total = total + memory_loss(model, step, of_step, plan) * of_step.shape[1] / inputs.shape[1]
        if plan.scope == "stream":
            carried.append(_carried(model.after(step, tokens), inputs.shape[1], plan, generator))
        return total

    losses = fit(
        model.network,
        loss,
        streams,
        optimizer,
        steps=len(streams),
        seconds=epoch.seconds_left,
        schedule=epoch.part_of(half_cosine),
        device=model.device.type,
        title=f"epoch {epoch.number}",
        leave=False,
    )
    return sum(losses) / len(losses)


def _carried(entries: Entries, length: int, plan: MemoryPlan, generator: torch.Generator) -> Entries:
    """A stream's entries as the next step finds them: without gradient, `length` tokens ago, some forgotten."""
    lost = torch.rand(entries.tokens.shape, generator=generator).to(entries.tokens.device) < plan.forgetfulness_factor
    entries = Entries(*(column.detach() for column in entries)).without(lost)
    return entries._replace(positions=entries.positions - length)


def _streams(model: MemoryGPT, documents: list[Tensor], plan: MemoryPlan) -> Streams:
    """Batches of (inputs [B, T], targets [B, T]); T is that of the plan, or all that a short text has."""
    length = model.context + (plan.windows - 1) * model.stride
    if plan.scope == "step":  # no example crosses a document's border
        length = min(length, max(map(len, documents)) - 1)
        return DataLoader(Blocks(documents, length), plan.batch_size, shuffle=True, generator=torch.Generator())
    rows = torch.cat(documents)
    if len(rows) < 2 * plan.batch_size:
        raise InputError(
            f"batch_size={plan.batch_size}: each stream takes 2 tokens, and the documents have {len(rows)}; give more "
            "text, or fewer streams"
        )
    rows = rows[: len(rows) // plan.batch_size * plan.batch_size].view(plan.batch_size, -1)
    blocks = Blocks(list(rows), min(length, rows.shape[1] - 1))
    count = len(blocks) // plan.batch_size
    order = [[b * count + i for b in range(plan.batch_size)] for i in range(count)]
    return DataLoader(blocks, batch_sampler=order)

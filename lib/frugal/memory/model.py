"""A GPT with an associative memory that it reads and writes."""

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import torch
from torch import Tensor

from frugal.corpora import Document, encode_documents, strided_windows
from frugal.device import DType
from frugal.errors import InputError, check_whole
from frugal.files import appearing
from frugal.foundation import Foundation, copied_cache, save_on_foundation, saved_foundation
from frugal.language_model import LanguageModel, TargetScores, gather_targets, read_model, whole_tokens
from frugal.memory.datastore import Datastore, tokens_to_remember
from frugal.memory.entries import Entries
from frugal.memory.network import MemoryNetwork, Read, WindowOutput
from frugal.memory.reading import Reader
from frugal.memory.writing import Write, Writer

if TYPE_CHECKING:
    from transformers import DynamicCache


class StreamState(NamedTuple):
    """What a stream keeps: its window, and what it has written.

    The lists hold one tensor for each token since the window began to answer: those rows are written when the window
    moves on.
    """

    begin: int  # position of the window's first token
    tokens: Tensor  # [B, n], the window's
    cache: "DynamicCache"
    entries: Entries
    deleted: Tensor  # [B, m], entries to be deleted when the window moves on
    hidden: Tensor  # [B, r, E], of the rows to be written
    surprise: Tensor  # [B, r - 1], of the tokens after them
    logits: Tensor  # [B, V], the last


class Step(NamedTuple):
    """One window's share of streams: outputs of its rows, from position `begin` on, and what was written before."""

    begin: int
    output: WindowOutput
    entries: Entries

    def targets(self, tokens: Tensor) -> Tensor:
        """The tokens [B, n] that follow its rows, of the streams' tokens [B, T]."""
        return tokens[:, self.begin + 1 : self.begin + 1 + self.output.logits.shape[1]]


class MemoryGPT(LanguageModel):
    """A GPT that looks back on what has left its window, and on texts that it was told to remember.

    It reads a text in half-overlapping windows. While a window is read the memory stands still; when it moves on, the
    rows it answered for are written (see Writer), and what was written before the window's first token can be read
    (see MemoryNetwork). So the memory never holds what the window shows, and never what is still to come.

    There are two memories: each stream's own entries, which begin empty with every stream, and `memory`, which keeps
    texts; scoring and generating only read it, `remember` and `forget` change it.

    Args:
        foundation: the GPT. Its weights are used as they are, or copied if they are to be trained.
        read: "concat", "attention" or "knn"; see MemoryNetwork, as for `layer` and `original`.
        write: "all", "threshold", "surprise", "learned" or "random"; see Writer, as for `budget` and `deletes`.
        context: tokens per window; by default the foundation's own context.
        memory_size: most entries of a stream, and of the kept memory; the oldest go first.
        memory_dim: width of the entries' vectors; by default that of the embeddings.
        num_search_results: entries read at each position.
        train_base: train the GPT too.
        seed: of everything random.
        index: settings of the kept memory's AssociativeMemory, such as index, num_clusters and eviction.

    Raises:
        InputError: a value outside its range.

    Examples:
        >>> from transformers import GPT2Config, GPT2LMHeadModel
        >>> from frugal.corpora import CharTokenizer
        >>> small = GPT2Config(vocab_size=130, n_positions=8, n_embd=12, n_layer=1, bos_token_id=128, eos_token_id=128)
        >>> gpt = Foundation(GPT2LMHeadModel(small), CharTokenizer.ascii(), name="untrained")
        >>> model = MemoryGPT(gpt, read="knn")
        >>> model.log_probabilities(torch.zeros(1, 100, dtype=torch.int64)).shape
        torch.Size([1, 100, 130])
        >>> model.remember("the cat sat"), model.forget("the cat sat")
        (11, 11)
    """

    context_length = None

    def __init__(
        self,
        foundation: Foundation,
        *,
        read: Read = "attention",
        write: Write = "all",
        context: int | None = None,
        memory_size: int = 10_000,
        memory_dim: int | None = None,
        num_search_results: int = 5,
        layer: int = -1,
        budget: float = 0.25,
        deletes: bool = False,
        original: bool = False,
        train_base: bool = False,
        seed: int = 0,
        **index: Any,
    ) -> None:
        given = {name: value for name, value in locals().items() if name not in ("self", "foundation", "index")}
        self.foundation = foundation
        self.tokenizer, self.device = foundation.tokenizer, foundation.device
        self.vocabulary_size = foundation.vocabulary_size
        self.context = foundation.context_length if context is None else context
        check_whole(0, context=self.context, seed=seed)
        if not 4 <= self.context <= foundation.context_length:
            raise InputError(f"context={context}: must lie in 4 to {foundation.context_length}, the foundation's own")
        if not foundation.has_usual_form:
            raise InputError(
                f"{foundation.name}: a memory is built into models of the GPT-2 or Llama kind only, which keep keys "
                "and values and have hidden states as wide as their embeddings"
            )
        dim = foundation.hidden_size if memory_dim is None else memory_dim
        check_whole(memory_size=memory_size, num_search_results=num_search_results, memory_dim=dim)
        self.settings: dict[str, Any] = given | {"context": self.context, "memory_dim": dim} | index
        gpt = copy.deepcopy(foundation.model).float().requires_grad_(True) if train_base else foundation.model
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(seed))
            width = foundation.hidden_size
            reader = Reader(width, dim, num_search_results, original)
            writer = Writer(width, dim, write=write, budget=budget, deletes=deletes, seed=seed, original=original)
            self.network = MemoryNetwork(gpt, reader, writer, read=read, layer=layer).to(self.device)
        self.network.eval()
        self.stride = self.context + 1 - self.context // 2
        self.memory_size, self.dim = memory_size, dim
        self._change: Callable[[Entries], Entries] | None = None
        metric = "l2" if original else "cosine"
        self.memory = Datastore.empty(dim, memory_size, metric=metric, seed=seed, device=str(self.device), **index)

    def steps(self, tokens: Tensor, entries: Entries | None = None) -> Iterator[Step]:
        """Read streams [B, T] window by window; `entries` are what they have written earlier, by default nothing."""
        entries = Entries.none(len(tokens), self.dim, tokens.device) if entries is None else entries
        for begin, end, keep in strided_windows(tokens.shape[1], self.context, self.stride):
            visible = self._visible(entries, begin)
            output = self.network(tokens[:, begin:end], visible, self.memory, first=keep - begin)
            step = Step(keep, output, entries)
            yield step
            if end < tokens.shape[1]:
                entries = self.after(step, tokens)

    def after(self, step: Step, tokens: Tensor) -> Entries:
        """The streams' entries once a window has moved on; `tokens` [B, T] are the streams', the next one included."""
        _, output, entries = step
        deleted = self.network.writer.deleted_columns(output.hidden, output.reading, entries.tokens.shape[1])
        return entries.without(deleted).joined(self._written(step, tokens), self.memory_size)

    def log_probabilities(self, tokens: Tensor) -> Tensor:
        return torch.cat([step.output.logits.log_softmax(-1) for step in self.steps(tokens)], 1)

    def _target_scores(self, tokens: Tensor) -> TargetScores:
        """As the protocol's, in the memory that one window takes."""
        pieces = [
            gather_targets(step.output.logits.log_softmax(-1), step.targets(tokens))
            for step in self.steps(tokens[:, :-1])
        ]
        return TargetScores.joined(pieces, dim=1)

    def start(self, batch_size: int) -> StreamState:
        entries = Entries.none(batch_size, self.dim, self.device)
        empty = torch.empty(batch_size, 0, device=self.device)
        hidden = torch.empty(batch_size, 0, self.foundation.hidden_size, device=self.device)
        return StreamState(0, empty.long(), self._empty_cache(), entries, empty.bool(), hidden, empty, empty)

    def step(self, tokens: Tensor, state: StreamState) -> tuple[Tensor, StreamState]:
        """As the protocol's: one token through the GPT, but for the first after the window has moved on."""
        surprise = state.surprise
        if state.tokens.shape[1]:
            of_token = state.logits.log_softmax(-1).gather(1, tokens.unsqueeze(1))
            surprise = torch.cat([surprise, -of_token], 1)
        if state.tokens.shape[1] == self.context:
            state = self._moved_on(state, tokens, surprise)
            surprise = state.surprise
        visible, cache = self._visible(state.entries, state.begin), copied_cache(state.cache)
        output = self.network(tokens.unsqueeze(1), visible, self.memory, cache=cache)
        deleted = self.network.writer.deleted_columns(output.hidden, output.reading, state.deleted.shape[1])
        logits = output.logits[:, 0]
        return logits, state._replace(
            tokens=torch.cat([state.tokens, tokens.unsqueeze(1)], 1),
            cache=cache,
            deleted=state.deleted | deleted,
            hidden=torch.cat([state.hidden, output.hidden], 1),
            surprise=surprise,
            logits=logits,
        )

    def work(self, inputs: Tensor, memory_input: Tensor | None = None) -> Tensor:
        """Logits [B, T, V] of tokens [B, T] or vectors [B, T, E], with the kept memory as working memory.

        It is asked with `memory_input` [B, T, E], and not read at all where that is None. T is at most the
        foundation's context.
        """
        if inputs.ndim == 2:
            inputs = whole_tokens(inputs, "BT", "work", self.vocabulary_size)
        kept = None if memory_input is None else self.memory
        return self.network(inputs, None, kept, memory_input=memory_input).logits

    @torch.inference_mode()
    def remember(self, text: Document | str) -> int:
        """Write a text into the kept memory, as `write` and `budget` say; the number of entries written.

        Raises:
            InputError: the text is empty.
        """
        tokens = tokens_to_remember(self.tokenizer, text).to(self.device)
        before = self.memory.store.clock
        written = [self._written(step, tokens[None]) for step in self.steps(tokens[None, :-1])]
        entries = Entries(*(torch.cat(column, 1)[0] for column in zip(*written, strict=True)))  # [n]
        kept = entries.log_prior > -torch.inf
        self.memory.add(tokens, entries.vectors[kept], entries.positions[kept], document=text)
        return self.memory.store.clock - before

    def forget(self, text: Document | str) -> int:
        """Take a remembered text out of the kept memory again; the number of entries removed."""
        return self.memory.forget(encode_documents(self.tokenizer, [text])[0])

    def save(self, folder: Path | str, notes: str = "") -> None:
        """Write the model with a snapshot of its kept memory; a packaged foundation is named, others saved along."""
        card = f"# Memory GPT\n\n{self.foundation.name} with a memory: {self.settings}.\n\n{notes}"
        with appearing(folder) as temporary:
            save_on_foundation(temporary, self, self.network.state_dict(), self.settings, card)
            self.memory.save(temporary)

    @classmethod
    def load(
        cls, folder: Path | str, *, foundation: Foundation | None = None, device: str = "cpu", dtype: DType = "auto"
    ) -> Self:
        """Read a model that `save` wrote; its foundation can be given where it is loaded already."""
        weights, config, _ = read_model(folder, cls)
        if "faithful" in config:  # as earlier versions called it
            config["original"] = config.pop("faithful")
        model = cls(saved_foundation(folder, config, foundation, device, dtype), **config)
        model.network.load_state_dict(weights)
        model.memory = Datastore.load(folder)
        return model

    def with_memory(self, memory: Datastore) -> "MemoryGPT":
        """The same model, weights and all, with another kept memory, such as one on disk (`Datastore.open`).

        Raises:
            InputError: its entries have another width.
        """
        if memory.store.dim != self.dim:
            raise InputError(f"a memory of width {memory.store.dim}: expected {self.dim}, as memory_dim says")
        other = copy.copy(self)
        other.memory = memory
        return other

    def without_memory(self) -> "MemoryGPT":
        """The same model with nothing in its kept memory."""
        return self.with_memory(Datastore.empty(self.dim, 1, metric=self.memory.store.metric))

    def altered(self, change: Callable[[Entries], Entries]) -> "MemoryGPT":
        """The same model reading other entries than it wrote: for controls, such as `Entries.shuffled`."""
        other = copy.copy(self)
        other._change = change
        return other

    def _visible(self, entries: Entries, position: int) -> Entries:
        """What can be read in a window that begins at `position`."""
        visible = entries.before(position)
        return visible if self._change is None else self._change(visible)

    def _written(self, step: Step, tokens: Tensor) -> Entries:
        """What the rows of a step are written as."""
        output, following = step.output, step.targets(tokens)
        surprise = -self.network.target_log_probabilities(output.logits.detach(), following)
        return self.network.writer(output.hidden, following, surprise, step.begin)

    def _moved_on(self, state: StreamState, tokens: Tensor, surprise: Tensor) -> StreamState:
        """The state of streams whose windows are full, before their next tokens [B] are read."""
        rows = state.hidden.shape[1]
        following = torch.cat([state.tokens, tokens.unsqueeze(1)], 1)[:, -rows:]
        new = self.network.writer(state.hidden, following, surprise, state.begin + self.context - rows)
        entries = state.entries.without(state.deleted).joined(new, self.memory_size)
        begin, seen, cache = state.begin + self.stride, state.tokens[:, self.stride :], self._empty_cache()
        if seen.shape[1]:
            self.network(seen, self._visible(entries, begin), self.memory, cache=cache)
        deleted = torch.zeros_like(entries.tokens, dtype=torch.bool)
        return StreamState(begin, seen, cache, entries, deleted, state.hidden[:, :0], surprise[:, :0], state.logits)

    def _empty_cache(self) -> "DynamicCache":
        from transformers import DynamicCache

        return DynamicCache(config=self.foundation.model.config)

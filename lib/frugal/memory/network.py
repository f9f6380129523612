"""The transformer with its memory: one forward pass over one window."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self, get_args

import torch
from torch import Tensor, nn

from frugal.errors import InputError, is_number
from frugal.language_model import log_mixed
from frugal.memory.datastore import Datastore
from frugal.memory.entries import Entries
from frugal.memory.reading import Reader, Reading
from frugal.memory.writing import Writer

if TYPE_CHECKING:
    from transformers import DynamicCache, PreTrainedModel

Read = Literal["concat", "attention", "knn"]


class WindowOutput(NamedTuple):
    """What comes out of n rows of a window for each of B streams."""

    logits: Tensor  # [B, n, V]
    hidden: Tensor  # [B, n, E], last hidden states, float32
    reading: Reading  # of each position


class MemoryNetwork(nn.Module):
    """A causal transformer that reads entries of a memory, and the heads that write them.

    With x the input embeddings, h the hidden states after `layer`, p the transformer's own distribution, and w_i the
    weights of the k entries read, each with its vector s_i and its token v_i:

        "concat"     x + gate * fc([x; w_1 u_1; ..; w_k u_k])      before the first layer
        "attention"  h + gate * sum_i w_i u_i                      after `layer`
        "knn"        (1 - gate * sum_i w_i) p + gate * sum_i w_i [token = v_i]

    where u_i = value([embedding(v_i); s_i]). With `original`, "concat" is fc([x; s_1; ..; s_k]) in place of the
    embedding, as VardaGPT has it. A gate of 0 gives the transformer's own logits exactly. So does a new network: the
    last map of what is read, value or fc, starts at zero; but "knn" starts by reading almost nothing, and `original`
    with a random fc.

    Args:
        gpt: a Hugging Face causal model; it is trained where its parameters require a gradient.
        reader, writer: for hidden states of its width; `original` is the reader's.
        layer: number of the block after which "attention" reads; negative counts from the last.
    """

    def __init__(self, gpt: "PreTrainedModel", reader: Reader, writer: Writer, *, read: Read, layer: int) -> None:
        super().__init__()
        dim, width = reader.query.weight.shape
        original = reader.original
        if read not in get_args(Read):
            raise InputError(f"read={read!r}: must be one of {', '.join(map(repr, get_args(Read)))}")
        count = len(_blocks(gpt))
        if not (is_number(layer) and layer in range(-count, count)):
            raise InputError(f"layer={layer}: must lie in {-count} to {count - 1}, the model's {count} layers")
        if original and (read != "concat" or dim != width):
            raise InputError(
                f"original=True with read={read!r}, memory_dim={dim}: the original concatenates vectors as wide as the "
                f"embeddings; give read='concat', memory_dim={width}"
            )
        self.gpt, self.read, self.original = gpt, read, original
        self.layer, self.reader, self.writer = layer, reader, writer
        self.gate = nn.Parameter(torch.tensor(1.0))
        if not original and read != "knn":
            self.value = nn.Linear(width + dim, width)
        if read == "concat":
            self.fc = nn.Linear(width * (1 + reader.k), width)
        last = None if original or read == "knn" else self.fc if read == "concat" else self.value
        if last is not None:
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)

    def train(self, mode: bool = True) -> Self:
        """As torch has it, but a frozen transformer stays as it is used: without dropout."""
        super().train(mode)
        if not any(parameter.requires_grad for parameter in self.gpt.parameters()):
            self.gpt.eval()
        return self

    def state_dict(self, *arguments: Any, **keywords: Any) -> dict[str, Any]:  # type: ignore[override]
        """The weights that training changes: a frozen transformer's are left out, tied ones come once."""
        weights = super().state_dict(*arguments, **keywords)
        frozen = not any(parameter.requires_grad for parameter in self.gpt.parameters())
        left_out = "gpt." if frozen else "gpt.lm_head."
        return {name: value for name, value in weights.items() if not name.startswith(left_out)}

    def load_state_dict(self, weights: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Take what `state_dict` gave, or gave in earlier versions."""
        weights = {name.replace("reader.nothing.", "reader.null_key."): value for name, value in weights.items()}
        if strict and weights.keys() != self.state_dict().keys():
            raise RuntimeError("these are the weights of another network")
        return super().load_state_dict(weights, strict=False, assign=assign)

    def forward(
        self,
        inputs: Tensor,
        entries: Entries | None = None,
        kept: Datastore | None = None,
        *,
        memory_input: Tensor | None = None,
        cache: "DynamicCache | None" = None,
        first: int = 0,
    ) -> WindowOutput:
        """Read a window of tokens [B, n], or of vectors [B, n, E] in place of their embeddings.

        Args:
            entries: the streams' own.
            kept: a memory that all streams read.
            memory_input: vectors [B, n, E] to ask the memory with, in place of the window's own.
            cache: keys and values of the tokens before the window; these tokens' are added to it.
            first: the row of the window from which on the output is wanted.
        """
        vectors = inputs if inputs.is_floating_point() else self.gpt.get_input_embeddings()(inputs)

        def find(states: Tensor, begin: int = 0) -> Reading:
            asked = states if memory_input is None else memory_input
            return self.reader(asked[:, begin:], entries, kept)

        if self.read == "concat":
            reading = find(vectors)
            hidden = self._transform(self._concatenated(vectors, reading), cache)[:, first:]
            reading = reading.rows(first)
        elif self.read == "attention":
            with self._reading_after_block(find) as found:
                hidden = self._transform(vectors, cache)[:, first:]
            reading = found[0].rows(first)
        else:
            hidden = self._transform(vectors, cache)
            reading, hidden = find(hidden, first), hidden[:, first:]
        logits = self.gpt.get_output_embeddings()(hidden).float()
        if self._mixes:
            logits = self._mixed(logits, reading)
        return WindowOutput(logits, hidden.float(), reading)

    def target_log_probabilities(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Of targets [B, n], from logits [B, n, V] of this network."""
        found = logits.gather(2, targets.unsqueeze(2)).squeeze(2)
        return found if self._mixes else found - logits.logsumexp(-1)

    @property
    def _mixes(self) -> bool:
        """Whether the logits are those of a mixture: log-probabilities, which need no scaling."""
        return self.read == "knn" and self.gate.item() != 0

    def _transform(self, vectors: Tensor, cache: "DynamicCache | None") -> Tensor:
        """Last hidden states [B, n, E] of input vectors."""
        output = self.gpt.base_model(inputs_embeds=vectors, past_key_values=cache, use_cache=cache is not None)
        return output.last_hidden_state

    def _concatenated(self, vectors: Tensor, reading: Reading) -> Tensor:
        """What the first layer gets, [B, n, E]."""
        results = reading.vectors if self.original else reading.weights[..., 1:, None] * self._values(reading)
        mixed = self.fc(torch.cat([vectors.float(), results.flatten(2)], 2)).to(vectors.dtype)
        return mixed if self.original else vectors + self.gate.to(vectors.dtype) * mixed

    @contextlib.contextmanager
    def _reading_after_block(self, find: Any) -> Iterator[list[Reading]]:
        """What is read is added to the block's output; the list gets it."""
        found: list[Reading] = []

        def add(block: nn.Module, inputs: Any, output: Any) -> Any:
            states = output if isinstance(output, Tensor) else output[0]
            reading = find(states)
            found.append(reading)
            read = (reading.weights[..., 1:, None] * self._values(reading)).sum(2)
            states = states + (self.gate * read).to(states.dtype)
            return states if isinstance(output, Tensor) else (states, *output[1:])

        handle = _blocks(self.gpt)[self.layer].register_forward_hook(add)
        try:
            yield found
        finally:
            handle.remove()

    def _values(self, reading: Reading) -> Tensor:
        """What each entry has to say, [B, n, k, E]."""
        embedded = self.gpt.get_input_embeddings()(reading.tokens.clamp_min(0)).float()
        return self.value(torch.cat([embedded, reading.vectors], 3))

    def _mixed(self, logits: Tensor, reading: Reading) -> Tensor:
        """Log-probabilities [B, n, V] of the transformer's distribution mixed with the entries' tokens."""
        if not 0 <= self.gate.item() <= 1:  # a step of training led out of where probabilities are
            with torch.no_grad():
                self.gate.clamp_(0, 1)
        log_own, share = logits.log_softmax(-1), 1 - self.gate + self.gate * reading.weights[..., :1]
        found = self.gate * reading.weights[..., 1:]
        mixed = (share * log_own.exp()).scatter_add(2, reading.tokens.clamp_min(0), found)
        # A share of nothing has no gradient: what is read decides alone, and what it rules out stays a number.
        return log_mixed(mixed, share.clamp_min(torch.finfo(share.dtype).tiny), log_own)


def _blocks(gpt: "PreTrainedModel") -> nn.ModuleList:
    """The transformer's layers, whatever its family calls them."""
    lists = [module for module in gpt.base_model.children() if isinstance(module, nn.ModuleList)]
    if len(lists) != 1:
        raise InputError(f"{type(gpt).__name__}: its blocks are not found; use a model of the GPT-2 or Llama kind")
    return lists[0]

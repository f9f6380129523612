"""Language models mixed bit by bit, with weights that are learned while the text is read.

Logistic mixing, as in PAQ (Mahoney, "Adaptive weighing of context models for lossless data compression", 2005): a
token is a path through a binary tree over the vocabulary, and at each node the experts' odds are multiplied, each to
the power of its weight. The weights are chosen by small contexts: the node, and the token read last.
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from frugal.combine.experts import Experts
from frugal.corpora import Document, encode_documents
from frugal.errors import InputError, is_number
from frugal.language_model import LOGITS_AT_ONCE, LanguageModel

MOST_NODES = 4096  # with weights of their own; in a larger vocabulary those of one depth share them


class OnlineState(NamedTuple):
    """Of each stream: the experts' states, the weights, and what the experts expect next. Nobody changes any of it."""

    experts: list[Any]
    by_node: NDArray[np.float32]  # [B, nodes, K]
    by_token: NDArray[np.float32]  # [B, V, K]
    expected: NDArray[np.float32] | None  # [B, 1, K, V], logarithms; None at the start
    last: NDArray[np.int64]  # [B]


class OnlineMixture(Experts):
    """Any models that share a tokeniser, mixed in the logistic domain; the mixture learns from each token it reads.

    At a node of the tree with weights w (those of the node and of the last token together), and the experts'
    probabilities p_k of a right turn,

        p = squash(sum_k w_k stretch(p_k)),    stretch(p) = ln(p / (1 - p)),    w_k <- w_k + rate (bit - p) stretch(p_k)

    Where all weights are 1 / K this is the geometric mean. Experts that are sure count for more than in a sum of
    probabilities, and together can be surer than each. The learned weights are in the state: with
    `evaluate(.., carry=True)` they go from document to document, as do experts that learn themselves.

    Args:
        experts: models with the same tokens, by name.
        rate: of learning, per bit; 0 leaves the weights as they are.

    Raises:
        InputError: there are no experts, they do not have the same tokens, or a rate below 0.

    Example:
        >>> from frugal.baselines import NGram
        >>> from frugal.corpora import CharTokenizer
        >>> from frugal.evaluate import evaluate
        >>> experts = {f"{n}-gram": NGram(n, CharTokenizer.ascii()).fit(["the cat sat on the mat. "]) for n in (1, 4)}
        >>> mixture = OnlineMixture(experts)
        >>> text = ["the cat sat. " * 10]
        >>> evaluate(mixture, text, carry=True).bits_per_byte < evaluate(experts["1-gram"], text).bits_per_byte
        True
    """

    def __init__(self, experts: Mapping[str, LanguageModel], *, rate: float = 0.005) -> None:
        super().__init__(experts)
        if not (is_number(rate) and 0 <= rate <= 1):
            raise InputError(f"rate={rate}: must lie in 0, fixed weights, to 1; typical values lie in 0.001 to 0.02")
        self.rate = rate
        depth = (self.vocabulary_size - 1).bit_length()
        nodes = 1 << depth if 1 << depth <= MOST_NODES else depth
        self.by_node = np.full((nodes, len(experts)), 1 / len(experts), np.float32)
        self.by_token = np.zeros((self.vocabulary_size, len(experts)), np.float32)

    def fit(self, documents: Iterable[Document | str]) -> Self:
        """Learn the weights from documents that no expert was trained on; no expert learns anything.

        Raises:
            InputError: there is no text.
        """
        encoded = encode_documents(self.tokenizer, documents)
        if not sum(len(tokens) - 1 for tokens in encoded):
            raise InputError("documents: hold no token to learn from; give texts that are not empty")
        state = self.start(1)
        at_once = max(1, LOGITS_AT_ONCE // (self.vocabulary_size * len(self.experts)))
        with torch.inference_mode():
            for tokens in encoded:
                state = state._replace(experts=self.experts_start(1), expected=None)
                for piece in tokens.to(self.device).split(at_once):
                    _, state = self.advance(piece.unsqueeze(0), state)
        self.by_node, self.by_token = state.by_node[0], state.by_token[0]
        return self

    def with_expert(self, name: str, expert: LanguageModel) -> Self:
        """A mixture with one more expert, which begins without weight.

        Raises:
            InputError: there is one of that name, or it has other tokens.
        """
        mixture = type(self)(self.experts_with(name, expert), rate=self.rate)
        mixture.by_node = np.pad(self.by_node, ((0, 0), (0, 1)))
        mixture.by_token = np.pad(self.by_token, ((0, 0), (0, 1)))
        return mixture

    def without_expert(self, name: str) -> Self:
        """A mixture without that expert; the others share its weight.

        Raises:
            InputError: there is none of that name, or no other.
        """
        mixture = type(self)(self.experts_without(name), rate=self.rate)
        place = list(self.experts).index(name)
        for weights in ("by_node", "by_token"):
            before = getattr(self, weights)
            rest = np.delete(before, place, axis=1)
            setattr(mixture, weights, rest + before[:, [place]] / rest.shape[1])
        return mixture

    def start(self, batch_size: int) -> OnlineState:
        return OnlineState(
            self.experts_start(batch_size),
            np.repeat(self.by_node[None], batch_size, 0),
            np.repeat(self.by_token[None], batch_size, 0),
            None,
            np.full(batch_size, self.tokenizer.start_id),
        )

    def advance(self, tokens: Tensor, state: OnlineState) -> tuple[Tensor, OnlineState]:
        rows, experts = self.experts_advance(tokens, state.experts)
        said = rows.detach().float().cpu().numpy()  # [B, T, K, V]
        read = tokens.cpu().numpy()
        by_node, by_token, mixed = state.by_node.copy(), state.by_token.copy(), []
        for b in range(len(read)):
            before = None if state.expected is None else state.expected[b]
            mixed.append(self._mixed(said[b], read[b], before, int(state.last[b]), by_node[b], by_token[b]))
        after = OnlineState(experts, by_node, by_token, said[:, -1:].copy(), read[:, -1].copy())
        return torch.from_numpy(np.stack(mixed)).to(self.device), after

    def _mixed(
        self,
        said: NDArray[np.float32],
        read: NDArray[np.int64],
        before: NDArray[np.float32] | None,
        last: int,
        by_node: NDArray[np.float32],
        by_token: NDArray[np.float32],
    ) -> NDArray[np.float32]:
        """Log-probabilities [T, V] after each token read [T] of one stream; the weights are changed in place."""
        from frugal.baselines.logistic import mix_experts  # numba takes half a second

        rows = np.empty((len(said), self.vocabulary_size), np.float32)
        skipped = self.tokenizer.start_id
        if before is not None:  # what the experts said of the first token that is read now
            first = np.empty((1, self.vocabulary_size), np.float32)
            mix_experts(before, read[:1].copy(), np.array([last]), by_node, by_token, self.rate, skipped, first)
        said, following = np.ascontiguousarray(said), np.append(read[1:], -1)
        mix_experts(said, following, np.ascontiguousarray(read), by_node, by_token, self.rate, skipped, rows)
        return rows

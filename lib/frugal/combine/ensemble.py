"""Many small models, one per source, mixed: sources come and go, and no other model has to be trained again."""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

from frugal.baselines.cache import mixture_weights
from frugal.combine.experts import Experts
from frugal.corpora import Document, encode_documents
from frugal.errors import InputError, is_number
from frugal.files import appearing
from frugal.language_model import LanguageModel, load_model, read_model, save_model

LEAST_SAID = -100.0  # log-probability of a token: one that an expert rules out does not silence it for good


class EnsembleState(NamedTuple):
    """Of each stream: the experts' states, their evidence [B, K], and what they expect next, [B, K, V]."""

    experts: list[Any]
    evidence: Tensor
    expected: Tensor | None


class Ensemble(Experts):
    """The mixture of its experts' predictions, p(x) = sum_k w_k p_k(x).

    The weights of a stream are w_k ~ prior_k exp(e_k), where the evidence for an expert is what it said of the tokens
    so far: e_k <- memory e_k + log p_k(x). With memory=1 they are the posterior probabilities of Bayes' rule, had one
    of the experts written the text; below 1 older tokens count less, so that a text may go from one source to
    another; with memory=0 the prior is all there is. What an expert rules out counts as e^-100 of it.

    Args:
        experts: models with the same tokens, by name.
        prior: their weights before any token, in any scale; equal by default.
        memory: 0 to 1.

    Raises:
        InputError: there are no experts, or they do not have the same tokens.

    Example:
        >>> from frugal.baselines import NGram
        >>> from frugal.corpora import CharTokenizer
        >>> texts = {"cats": "the cat purrs. ", "numbers": "1 2 3 4 5 6 7. "}
        >>> experts = {name: NGram(3, CharTokenizer.ascii()).fit([text * 20]) for name, text in texts.items()}
        >>> both = Ensemble(experts, memory=1.0)
        >>> [tokens] = encode_documents(both.tokenizer, ["1 2 3"])
        >>> weights = both.weights(tokens[None])[0]  # [T, K]
        >>> weights[0].tolist(), weights[-1].argmax().item()
        ([0.5, 0.5], 1)
    """

    def __init__(
        self, experts: Mapping[str, LanguageModel], prior: Mapping[str, float] | None = None, *, memory: float = 0.9
    ) -> None:
        super().__init__(experts)
        if not (is_number(memory) and 0 <= memory <= 1):
            raise InputError(f"memory={memory}: must be from 0, fixed weights, to 1, nothing is forgotten")
        weights = dict.fromkeys(experts, 1.0) if prior is None else dict(prior)
        if weights.keys() != experts.keys() or not all(
            is_number(weight) and 0 < weight < math.inf for weight in weights.values()
        ):
            raise InputError(f"prior={weights}: needs a positive weight for each of {', '.join(experts)}")
        largest = max(weights.values())
        total = sum(weight / largest for weight in weights.values())
        self.prior = {name: weights[name] / largest / total for name in experts}
        self.memory = memory

    def with_expert(self, name: str, expert: LanguageModel) -> Self:
        """A mixture with one more expert, whose weight is that of an average one.

        Raises:
            InputError: there is one of that name, or it has other tokens.
        """
        prior = {**self.prior, name: 1 / len(self.experts)}
        return type(self)(self.experts_with(name, expert), prior, memory=self.memory)

    def without_expert(self, name: str) -> Self:
        """A mixture without that expert; the others keep their proportions."""
        kept = self.experts_without(name)
        return type(self)(kept, {other: self.prior[other] for other in kept}, memory=self.memory)

    def with_learned_prior(self, documents: Iterable[Document | str]) -> Self:
        """A mixture whose prior, with fixed weights, predicts these documents best; found by expectation-maximisation.

        No expert is trained; give documents that none of them was trained on.

        Raises:
            InputError: a text instead of documents, or documents without a token.
        """
        if isinstance(documents, str):
            raise InputError("documents is a text: give a list of documents, such as [text]")
        encoded = encode_documents(self.tokenizer, documents)
        pieces = [self._said(tokens[None].to(self.device))[0].cpu() for tokens in encoded if len(tokens) > 1]
        if not pieces:
            raise InputError("documents: hold no token to learn a prior from; give texts that are not empty")
        said = torch.cat(pieces).clamp_min(LEAST_SAID)
        given = (said - said.amax(1, keepdim=True)).double().exp()  # a row's scale says nothing about the weights
        weights = mixture_weights(given, torch.ones(len(given), len(self.experts) - 1, dtype=torch.bool))
        prior = dict(zip(self.experts, weights.clamp_min(1e-6).tolist(), strict=True))
        return type(self)(self.experts, prior, memory=self.memory)

    def save(self, folder: Path | str, notes: str = "") -> None:
        """Write the experts, each in a folder of its own, with their prior; `notes` go on the card.

        Raises:
            InputError: an expert has nothing to save.
        """
        config = {"experts": list(self.experts), "prior": list(self.prior.values()), "memory": self.memory}
        card = f"# Ensemble\n\n{len(self.experts)} experts: {', '.join(self.experts)}.\n\n{notes}"
        with appearing(folder) as temporary:
            save_model(temporary, self, {}, config, card)
            for number, expert in enumerate(self.experts.values()):
                expert.save(temporary / f"expert-{number}")

    @classmethod
    def load(cls, folder: Path | str, *, device: str = "cpu") -> Self:
        _, config, _ = read_model(folder, cls)
        names = config["experts"]
        experts = {name: load_model(Path(folder, f"expert-{n}"), device=device) for n, name in enumerate(names)}
        return cls(experts, dict(zip(names, config["prior"], strict=True)), memory=config["memory"])

    def weights(self, tokens: Tensor) -> Tensor:
        """The experts' weights [B, T, K]: row t is for the token after tokens 0..t."""
        return self._posterior(self._evidence(self._said(tokens), self._no_evidence(len(tokens)))).exp()

    def log_probabilities(self, tokens: Tensor) -> Tensor:
        expected = torch.stack([expert.log_probabilities(tokens) for expert in self.experts.values()], dim=2)
        return self._mixed(expected, tokens, self._no_evidence(len(tokens)), None)[0]

    def start(self, batch_size: int) -> EnsembleState:
        return EnsembleState(self.experts_start(batch_size), self._no_evidence(batch_size), None)

    def advance(self, tokens: Tensor, state: EnsembleState) -> tuple[Tensor, EnsembleState]:
        expected, states = self.experts_advance(tokens, state.experts)
        mixed, evidence = self._mixed(expected, tokens, state.evidence, state.expected)
        return mixed, EnsembleState(states, evidence[:, -1], expected[:, -1])

    def _mixed(self, expected: Tensor, tokens: Tensor, evidence: Tensor, last: Tensor | None) -> tuple[Tensor, Tensor]:
        """Log-probabilities [B, T, V] after tokens [B, T], and the evidence [B, T, K] by then.

        Args:
            expected: what the experts expect after each token, [B, T, K, V].
            evidence, last: before these tokens, as in the state.
        """
        before = expected[:, :-1] if last is None else torch.cat([last.unsqueeze(1), expected[:, :-1]], 1)
        read = tokens[:, tokens.shape[1] - before.shape[1] :, None, None].expand(-1, -1, expected.shape[2], 1)
        by_then = self._evidence(before.gather(3, read).squeeze(3), evidence)[:, -tokens.shape[1] :]
        return torch.logsumexp(expected + self._posterior(by_then).unsqueeze(3), dim=2), by_then

    def _said(self, tokens: Tensor) -> Tensor:
        """Log-probability [B, T - 1, K] that each expert gave each token but the first."""
        return torch.stack([expert.target_log_probabilities(tokens) for expert in self.experts.values()], dim=2)

    def _no_evidence(self, batch_size: int) -> Tensor:
        return torch.zeros(batch_size, len(self.experts), device=self.device)

    def _evidence(self, said: Tensor, first: Tensor) -> Tensor:
        """The evidence [B, n + 1, K] that was there first, [B, K], and after each of the tokens said, [B, n, K]."""
        evidence = [first]
        for row in said.unbind(1):
            evidence.append(self.memory * evidence[-1] + row.clamp_min(LEAST_SAID))
        return torch.stack(evidence, 1)

    def _posterior(self, evidence: Tensor) -> Tensor:
        if self.memory == 0:
            evidence = torch.zeros_like(evidence)
        return (torch.tensor([*self.prior.values()], device=evidence.device).log() + evidence).log_softmax(-1)

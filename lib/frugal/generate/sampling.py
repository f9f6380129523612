"""Text out of any `LanguageModel`: one token at a time, streamed, singly or in batches."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from frugal.corpora import Tokenizer, encode_documents
from frugal.corpora.tokenizers import REPLACEMENT
from frugal.errors import InputError, check_not_negative
from frugal.language_model import LanguageModel
from frugal.training import check_fields

# Decoding a few tokens of the prompt with the new ones keeps spaces right for tokenisers that decide them by what
# stands before.
PROMPT_TAIL = 16
MOST_TOKENS_OF_A_CHARACTER = 4  # one a byte
SEEDS = 2**32
MOST_PENALTY = 1e6  # beyond it, products with logits are no numbers
COLDEST = 1e-6  # temperatures below it take the likeliest token, as 0 does: logits divided by them leave float32


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen.

    Attributes:
        max_tokens: most tokens to generate.
        temperature: 0 always takes the likeliest token; 1 samples from the model's distribution.
        top_k: sample among the k likeliest tokens only.
        top_p: sample among the fewest tokens that together have this probability (nucleus sampling,
            Holtzman et al. 2020).
        repetition_penalty: above 1 makes tokens that have occurred less likely (Keskar et al. 2019).
        stop: generation ends before any of these strings appears; it always ends at the tokeniser's `end_ids`.
        seed: makes the choice reproducible on one machine; None draws a fresh one.

    Example:
        >>> Sampling(temperature=0.8, top_p=0.9, stop=("\\n",)).max_tokens
        200
        >>> Sampling(temperature=-1)
        Traceback (most recent call last):
        frugal.errors.InputError: temperature=-1.0: must not be negative; typical values lie in 0.6 to 1.2
    """

    max_tokens: int = 200
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    repetition_penalty: float = 1.0
    stop: tuple[str, ...] = ()
    seed: int | None = None

    def __post_init__(self) -> None:
        if isinstance(self.stop, str) or not all(self.stop):
            raise InputError(f"stop={self.stop!r}: must be a tuple of strings that are not empty, such as ('\\n',)")
        check_fields(self)
        if self.max_tokens < 1:
            raise InputError(f"max_tokens={self.max_tokens}: must be at least 1")
        check_not_negative("typical values lie in 0.6 to 1.2", temperature=self.temperature)
        if self.top_k is not None and self.top_k < 1:
            raise InputError(f"top_k={self.top_k}: must be at least 1; leave it out to sample among all tokens")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise InputError(f"top_p={self.top_p}: must be above 0 and at most 1; typical values lie in 0.8 to 0.95")
        if not 0 < self.repetition_penalty <= MOST_PENALTY:
            raise InputError(
                f"repetition_penalty={self.repetition_penalty}: must be positive, and {MOST_PENALTY:g} at most; 1 is "
                "none, 1.2 is strong"
            )
        if self.seed is not None and not 0 <= self.seed < SEEDS:
            raise InputError(f"seed={self.seed}: must lie in 0 to {SEEDS - 1}")


def generate(model: LanguageModel, prompt: str, sampling: Sampling = Sampling()) -> str:
    """Continue a prompt; the prompt itself is not repeated in the answer.

    An empty prompt starts a new document. Past its context a model forgets the oldest tokens, with a warning.

    Example:
        >>> from frugal.baselines import NGram
        >>> from frugal.corpora import CharTokenizer
        >>> model = NGram(4, CharTokenizer.ascii()).fit(["to be or not to be. " * 50])
        >>> generate(model, "to b", Sampling(max_tokens=9, temperature=0))
        'e or not '
    """
    return generate_batch(model, [prompt], sampling)[0]


def generate_batch(model: LanguageModel, prompts: Sequence[str], sampling: Sampling = Sampling()) -> list[str]:
    """As `generate`, for several prompts of any lengths at once.

    Example:
        >>> from frugal.baselines import NGram
        >>> from frugal.corpora import CharTokenizer
        >>> model = NGram(4, CharTokenizer.ascii()).fit(["to be or not to be. " * 50])
        >>> generate_batch(model, ["to b", "or"], Sampling(max_tokens=4, temperature=0))
        ['e or', ' not']
    """
    texts = [""] * len(prompts)
    for pieces in _stream(model, prompts, sampling):
        texts = [text + piece for text, piece in zip(texts, pieces, strict=True)]
    return texts


def stream(model: LanguageModel, prompt: str, sampling: Sampling = Sampling()) -> Iterator[str]:
    """Continue a prompt piece by piece: the pieces joined are what `generate` would return.

    Example:
        >>> from frugal.baselines import NGram
        >>> from frugal.corpora import CharTokenizer
        >>> model = NGram(4, CharTokenizer.ascii()).fit(["to be or not to be. " * 50])
        >>> list(stream(model, "to b", Sampling(max_tokens=3, temperature=0)))
        ['e', ' ', 'o']
    """
    for (piece,) in _stream(model, [prompt], sampling):
        if piece:
            yield piece


class Continuation:
    """The text of one stream as it grows, given out only as far as it can no longer change.

    Each token costs the decoding of a few, however long the text is.
    """

    def __init__(self, tokenizer: Tokenizer, prompt: Tensor, stop: tuple[str, ...]) -> None:
        self.tokenizer, self.stop = tokenizer, stop
        self.tokens = prompt[-PROMPT_TAIL:].tolist()
        self.read = len(self.tokens)  # how many of them have become text
        self.pending = ""  # text that may be the beginning of a stop string
        self.ended = False

    def take(self, token: int) -> str:
        """Add a token; the text that is now settled."""
        if token in self.tokenizer.end_ids:
            return self.end()
        self.tokens.append(token)
        text = self._new_text()
        if text.endswith(REPLACEMENT) and len(self.tokens) - self.read < MOST_TOKENS_OF_A_CHARACTER:
            return ""  # a character whose last bytes are still to come
        self.tokens = self.tokens[-PROMPT_TAIL:]
        self.read = len(self.tokens)
        return self._give(text)

    def end(self) -> str:
        """No more tokens: all that was held back."""
        if self.ended:
            return ""
        text = self._give(self._new_text()) + ("" if self.ended else self.pending)
        self.ended = True
        return text

    def _new_text(self) -> str:
        before = len(self.tokenizer.decode(torch.tensor(self.tokens[: self.read])))
        return self.tokenizer.decode(torch.tensor(self.tokens))[before:]

    def _give(self, text: str) -> str:
        """What of the pending and the new text no stop string can end any more."""
        text = self.pending + text
        cuts = [at for string in self.stop if (at := text.find(string)) >= 0]
        if cuts:
            self.ended = True
            return text[: min(cuts)]
        held = max((_overlap(text, string) for string in self.stop), default=0)
        self.pending = text[len(text) - held :]
        return text[: len(text) - held]


def _stream(model: LanguageModel, prompts: Sequence[str], sampling: Sampling) -> Iterator[list[str]]:
    """Per step the settled text of each prompt's continuation."""
    if isinstance(prompts, str):
        raise InputError(f"prompts={prompts[:20]!r}: must be a list of prompts; `generate` takes one")
    encoded = encode_documents(model.tokenizer, prompts)
    if not encoded:
        return
    longest = max(map(len, encoded))
    if model.context_length and longest > model.context_length:
        warnings.warn(
            f"the prompt has {longest} tokens, the model sees the last {model.context_length} at most", stacklevel=3
        )
    continuations = [Continuation(model.tokenizer, prompt, sampling.stop) for prompt in encoded]
    for tokens in _tokens(model, encoded, sampling):
        yield [
            "" if row.ended or token is None else row.take(token)
            for row, token in zip(continuations, tokens, strict=True)
        ]
        if all(row.ended for row in continuations):
            return
    yield [row.end() for row in continuations]


@torch.inference_mode()
def _tokens(model: LanguageModel, prompts: list[Tensor], sampling: Sampling) -> Iterator[list[int | None]]:
    """Per step one new token of each stream, or None while a prompt that is longer than the others is still read.

    All streams advance together from the end of the shortest prompt, so that no padding is needed.
    """
    shortest, longest = min(map(len, prompts)), max(map(len, prompts))
    choosers = [chooser(model.tokenizer, sampling) for _ in prompts]  # a row is the text that it would be alone
    history = torch.zeros(len(prompts), longest + sampling.max_tokens, dtype=torch.int64, device=model.device)
    history[:, :shortest] = torch.stack([prompt[:shortest] for prompt in prompts])
    logits, state = model.feed(history[:, :shortest], model.start(len(prompts)))
    for at in range(shortest, longest + sampling.max_tokens):
        new: list[int | None] = []
        for row, (prompt, choose) in enumerate(zip(prompts, choosers, strict=True)):
            if at < len(prompt):
                history[row, at] = prompt[at]
            else:
                history[row, at] = choose(history[row : row + 1, :at], logits[row : row + 1])
            new.append(int(history[row, at]) if len(prompt) <= at < len(prompt) + sampling.max_tokens else None)
        yield new
        logits, state = model.step(history[:, at], state)


def chooser(tokenizer: Tokenizer, sampling: Sampling) -> Callable[[Tensor, Tensor], Tensor]:
    """A function from the tokens so far [B, t] and logits [B, V] to the next tokens [B].

    The transformations are those of the transformers library, which they do not tie to its models.
    """
    from transformers import (
        LogitsProcessorList,
        RepetitionPenaltyLogitsProcessor,
        TemperatureLogitsWarper,
        TopKLogitsWarper,
        TopPLogitsWarper,
    )

    process = LogitsProcessorList()
    if sampling.repetition_penalty != 1:
        process.append(RepetitionPenaltyLogitsProcessor(sampling.repetition_penalty))
    if sampling.temperature >= COLDEST and sampling.temperature != 1:
        process.append(TemperatureLogitsWarper(sampling.temperature))
    if sampling.top_k is not None:
        process.append(TopKLogitsWarper(sampling.top_k))
    if sampling.top_p is not None:
        process.append(TopPLogitsWarper(sampling.top_p))
    unwritable = sorted(tokenizer.unwritable_ids)
    generator = torch.Generator()
    if sampling.seed is None:
        generator.seed()
    else:
        generator.manual_seed(int(sampling.seed))

    def choose(history: Tensor, logits: Tensor) -> Tensor:
        logits = logits.clone()
        logits[:, tokenizer.vocabulary_size :] = -torch.inf  # rows of the head that stand for no token
        logits[:, unwritable] = -torch.inf
        scores: Tensor = process(history, logits)
        if sampling.temperature < COLDEST:
            return scores.argmax(-1)
        # Drawn on the CPU, so that a seed gives the same text whatever device the model is on.
        return torch.multinomial(scores.softmax(-1).cpu(), 1, generator=generator).squeeze(1).to(logits.device)

    return choose


def _overlap(text: str, string: str) -> int:
    """Length of the longest end of `text` that could be the beginning of `string`."""
    return next((n for n in range(min(len(text), len(string) - 1), 0, -1) if text.endswith(string[:n])), 0)

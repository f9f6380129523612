"""Conversations with any language model, whose state is carried from turn to turn."""

import json
import warnings
from collections.abc import Generator, Iterable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol, Self, runtime_checkable

import torch
from jinja2 import TemplateError
from torch import Tensor

from frugal.corpora import TURN_MARKERS, Tokenizer, Turn, dialogue_text, text_of
from frugal.errors import InputError, UnavailableError
from frugal.files import write_text
from frugal.generate.sampling import SEEDS, Continuation, Sampling, chooser
from frugal.language_model import LanguageModel

CONVERSATION = "conversation.json"
CHAT_SAMPLING = Sampling(temperature=0.7, top_p=0.9)
# In marker format a turn ends where the next one begins; a model may leave the line end out.
MARKER_STOPS = tuple(f"{end}{marker}" for marker in TURN_MARKERS.values() for end in ("\n", ""))


@runtime_checkable
class ChatTokenizer(Protocol):
    """A tokeniser that knows its model's chat template, as frugal.foundation's do."""

    def chat_prompt(self, turns: Iterable[Turn]) -> Tensor:
        """Tokens [T] of the turns and of the beginning of the answer; InputError without a template."""


class Reading(NamedTuple):
    """What the model has read: the tokens [1, n], its logits after them [1, V], its state."""

    tokens: Tensor
    logits: Tensor
    state: Any


class ChatSession:
    """A conversation with a language model.

    The model reads what a turn adds and nothing twice, so that its state (an echo, a key-value cache) goes on from
    turn to turn. Where the conversation as it is now written differs from what was read (a stop string cut the answer,
    a template changes earlier turns), the model reads it again: the last answer, or all if more has changed. Either way
    the state before an answer is that after the conversation so far, so a saved conversation needs no saved state.

    Past its context a model forgets the oldest tokens, with a warning.

    Args:
        model: any language model.
        sampling: how answers are chosen; can be changed between turns. A seed is shifted from turn to turn.
        system: instructions that come first: the template's system message, or in marker format a line of text.
        markers: mark turns as in frugal's dialogue corpora even if the model has a chat template of its own; for models
            trained on such dialogues. Without a template it is always done.

    Example:
        >>> from frugal.baselines import NGram
        >>> from frugal.corpora import CharTokenizer
        >>> dialogue = dialogue_text([Turn("user", "hello"), Turn("assistant", "good day")])
        >>> model = NGram(8, CharTokenizer.ascii()).fit([dialogue] * 20)
        >>> session = ChatSession(model, sampling=Sampling(temperature=0))
        >>> "".join(session.reply("hello"))
        'good day'
        >>> len(session.turns)
        2
    """

    def __init__(
        self,
        model: LanguageModel,
        *,
        sampling: Sampling = CHAT_SAMPLING,
        system: str | None = None,
        markers: bool = False,
    ) -> None:
        self.model, self.sampling, self.markers = model, sampling, markers
        self.system = None if system is None else text_of(system)
        self._template = None if markers else _with_template(model.tokenizer)
        self._answer: Generator[str, None, None] | None = None
        self.reset()

    @property
    def turns(self) -> tuple[Turn, ...]:
        """All turns so far, user and assistant in alternation."""
        return tuple(self._turns)

    def reset(self) -> None:
        """Forget the conversation; settings and system text stay."""
        self._end_answer()
        self._turns: list[Turn] = []
        self._readings: tuple[Reading, ...] = ()  # where the model can go on from, latest first

    def change_model(self, model: LanguageModel) -> None:
        """Go on with another model over the same tokeniser, which reads the turns when it answers next."""
        self._end_answer()
        self.model, self._readings = model, ()

    def reply(self, text: str) -> Iterator[str]:
        """Answer a message piece by piece.

        Whoever stops iterating leaves the pieces so far as the answer; the next turn goes on from there.

        Raises:
            InputError: the message is empty, or the chat template does not take the conversation.
        """
        if not text_of(text).strip():
            raise InputError("the message is empty: write something")
        self._end_answer()
        self._answer = self._answering(text)
        return self._answer

    def save(self, folder: Path | str) -> None:
        """Write turns and settings to `conversation.json` in a folder; other files there are left alone."""
        content = {
            "system": self.system,
            "markers": self.markers,
            "sampling": asdict(self.sampling),
            "turns": self._turns,
        }
        write_text(Path(folder, CONVERSATION), json.dumps(content, indent=2, ensure_ascii=False) + "\n")

    @classmethod
    def load(cls, folder: Path, model: LanguageModel) -> Self:
        """Read what `save` wrote; the model, which may be another one, reads the turns when it answers next.

        Raises:
            UnavailableError: the folder holds no conversation, or a damaged one.
        """
        try:
            content = json.loads(Path(folder, CONVERSATION).read_text(encoding="utf-8"))
            turns = [Turn(str(speaker), str(text)) for speaker, text in content["turns"]]
            if [turn.speaker for turn in turns] != ["user", "assistant"] * (len(turns) // 2):
                raise ValueError("user and assistant do not alternate")
            sampling = Sampling(**{**content["sampling"], "stop": tuple(content["sampling"]["stop"])})
            session = cls(model, sampling=sampling, system=content["system"], markers=content["markers"])
        except Exception as error:
            raise UnavailableError(
                f"{folder} holds no readable conversation ({error}): give a folder that a conversation was saved to"
            ) from error
        session._turns = turns
        return session

    def _answering(self, text: str) -> Generator[str, None, None]:
        turns = [*self._turns, Turn("user", text)]
        prompt = self._prompt(turns)
        # From here on the turns are complete at every moment, whenever the answer is broken off.
        self._turns = [*turns, Turn("assistant", "")]
        for piece in self._pieces(prompt):
            if piece:
                self._turns[-1] = Turn("assistant", self._turns[-1].text + piece)
                yield piece

    def _pieces(self, prompt: Tensor) -> Iterator[str]:
        stop = self.sampling.stop if self._template else (*self.sampling.stop, *MARKER_STOPS)
        continuation = Continuation(self.model.tokenizer, prompt, stop)
        for token in self._tokens(prompt):
            yield continuation.take(token)
            if continuation.ended:
                return
        # A model that ends the document after its turn has written the turn's line end too.
        yield continuation.end().rstrip("\n")

    @torch.inference_mode()
    def _tokens(self, prompt: Tensor) -> Iterator[int]:
        """Tokens of the answer up to the end of the turn; each is read only if another is asked for."""
        seed = self.sampling.seed
        sampling = replace(self.sampling, seed=None if seed is None else (seed + len(self._turns)) % SEEDS)
        choose = chooser(self.model.tokenizer, sampling)
        asked = now = self._read(prompt)
        for _ in range(sampling.max_tokens):
            self._readings = (now, asked)
            chosen = choose(now.tokens, now.logits)  # [1]
            if int(chosen) in self.model.tokenizer.end_ids:
                return
            yield int(chosen)
            logits, state = self.model.step(chosen, now.state)
            now = Reading(torch.cat([now.tokens, chosen.unsqueeze(1)], 1), logits, state)

    def _read(self, prompt: Tensor) -> Reading:
        """Read a prompt [T], going on from the latest reading that it begins with."""
        limit = self.model.context_length
        if limit and len(prompt) > limit:
            # The text is always the same, so that it is shown once.
            warnings.warn(f"the conversation has grown beyond the model's context of {limit} tokens", stacklevel=2)
        tokens = prompt.unsqueeze(0).to(self.model.device)
        for reading in self._readings:
            known = reading.tokens.shape[1]
            if known < len(prompt) and torch.equal(reading.tokens, tokens[:, :known]):
                return Reading(tokens, *self.model.feed(tokens[:, known:], reading.state))
        return Reading(tokens, *self.model.feed(tokens, self.model.start(1)))

    def _prompt(self, turns: list[Turn]) -> Tensor:
        """Tokens [T] of a conversation, ready for the assistant's answer."""
        if self._template is None:
            opening = f"{self.system}\n" if self.system else ""
            text = self.model.tokenizer.encode(opening + dialogue_text(turns) + TURN_MARKERS["assistant"])
            return torch.cat([torch.tensor([self.model.tokenizer.start_id]), text])
        system = [Turn("system", self.system)] if self.system else []
        try:
            return self._template.chat_prompt([*system, *turns])
        except TemplateError as error:
            raise InputError(
                f"the model's chat template does not take this conversation ({error}): leave the system text out, "
                "or mark turns with markers"
            ) from error

    def _end_answer(self) -> None:
        """Break off an answer that is still being given: it must not write into what comes after it."""
        if self._answer is not None:
            self._answer.close()


def _with_template(tokenizer: Tokenizer) -> ChatTokenizer | None:
    """The tokeniser, if its model has a chat template."""
    if not isinstance(tokenizer, ChatTokenizer):
        return None
    try:
        tokenizer.chat_prompt([Turn("user", "")])
    except InputError:
        return None
    return tokenizer

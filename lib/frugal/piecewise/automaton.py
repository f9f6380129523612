"""A cellular automaton over characters: every character becomes what its neighbours on both sides make likely."""

from dataclasses import asdict
from pathlib import Path
from typing import Self, cast

import torch

from frugal.corpora import CharTokenizer, Tokenizer
from frugal.device import choose_device
from frugal.errors import InputError, check_whole
from frugal.language_model import read_model, save_model
from frugal.piecewise.networks import CODES_AT_ONCE, Shape
from frugal.piecewise.presets import shape_of


class Automaton:
    """A window network that sees both sides of a character, applied to all of a text at once, again and again.

    Like the stencil of a differential equation it fits a text of any length. Train its network on
    `Windows.centred(...)` with the same `context_length`; it is not a language model, because it sees what follows.

    Args:
        shape: of a window network, such as `preset("small", context_length=10)`.
        tokenizer: one code per token: a `CharTokenizer`.
        device: "cpu", "cuda", "mps" or "auto".

    Raises:
        InputError: the shape is of a network that reads on without end, or the tokeniser's tokens are no characters.

    >>> from frugal.corpora import CharTokenizer
    >>> from frugal.piecewise import preset
    >>> automaton = Automaton(preset("small", context_length=4), CharTokenizer("ab"))
    >>> rounds = automaton.run("abba", 3)
    >>> rounds[0], [len(text) for text in rounds]
    ('abba', [4, 4, 4, 4])
    """

    def __init__(self, shape: Shape, tokenizer: Tokenizer, *, device: str = "cpu") -> None:
        if not isinstance(tokenizer, CharTokenizer):
            raise InputError(f"tokenizer: an automaton is one of characters; a {type(tokenizer).__name__} has pieces")
        self.shape, self.tokenizer = shape, cast(Tokenizer, tokenizer)
        self.network = shape.build(tokenizer.vocabulary_size).to(choose_device(device))
        if self.network.predicts_all:
            raise InputError(f"shape={type(shape).__name__}: reads on and on; an automaton needs a window network")
        self.left, self.right = (shape.context_length + 1) // 2, shape.context_length // 2

    @torch.inference_mode()
    def run(self, text: str, rounds: int, *, top_k: int = 1, seed: int = 0) -> list[str]:
        """Return the text before the first round and after each; document starts stand around it.

        Every character is drawn, in proportion to their probabilities, from the `top_k` that are likeliest there.
        """
        check_whole(rounds=rounds, top_k=top_k)
        check_whole(0, seed=seed)
        if not isinstance(text, str) or not text:
            raise InputError(f"text={text!r}: must be a text to begin with; give some characters")
        generator = torch.Generator().manual_seed(int(seed))
        device, start = self.network.device, self.tokenizer.start_id
        codes, texts = self.tokenizer.encode(text), [text]
        for _ in range(rounds):
            around = torch.nn.functional.pad(codes, (self.left, self.right), value=start)
            windows = around.unfold(0, self.left + 1 + self.right, 1)
            sides = torch.cat([windows[:, : self.left], windows[:, self.left + 1 :]], dim=1)
            at_once = max(1, CODES_AT_ONCE // sides.shape[1])
            logits = torch.cat([self.network(part.to(device)).cpu() for part in sides.split(at_once)])
            logits[:, start:] = -torch.inf  # document start and unknown are no characters
            likeliest = logits.topk(min(top_k, start), dim=1)
            drawn = torch.multinomial(likeliest.values.softmax(1), 1, generator=generator)
            codes = likeliest.indices.gather(1, drawn).squeeze(1)
            texts.append(self.tokenizer.decode(codes))
        return texts

    def save(self, folder: Path | str) -> None:
        """Write weights, shape, tokeniser and a card."""
        card = f"# Automaton\n\n{self.shape}"
        config = {"shape": type(self.shape).__name__, **asdict(self.shape)}
        save_model(folder, self, self.network.state_dict(), config, card)

    @classmethod
    def load(cls, folder: Path | str, *, device: str = "cpu") -> Self:
        """Read what `save` wrote."""
        weights, config, tokenizer = read_model(folder, cls)
        automaton = cls(shape_of(config), tokenizer, device=device)
        automaton.network.load_state_dict(weights)
        return automaton

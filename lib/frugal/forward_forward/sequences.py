"""The paper's test on sequences: predict the next character from what layers make of the last ten (section 4.2).

Real data is a window of ten characters out of a book, other data a window that ends in, or consists of, what the net
predicts. The head reads the activities of real windows and gives the next character. The test asks what the layers
have learned for it: they are compared with layers that stay random and with layers trained by backpropagation.
"""

import math
import time
from collections import Counter
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot

from frugal.device import choose_device
from frugal.errors import InputError, check_list, check_positive, check_whole
from frugal.forward_forward.net import ForwardForwardNet, Goodness, wrong_candidates
from frugal.forward_forward.optimizer import net_optimizer
from frugal.training import take_steps, warm_up_and_decay

ALPHABET = " abcdefghijklmnopqrstuvwxyz,;."  # 30 symbols, as in the paper
MOST_SYMBOLS = 100  # of a text's own alphabet
WINDOW = 10

Method = Literal["random", "teacher-forced", "self-generated", "backprop"]


@dataclass(frozen=True)
class SequenceResult:
    """Bits per character on held-out text, share of characters guessed, processor seconds of one method's training."""

    method: Method
    bits_per_character: float
    accuracy: float
    seconds: float


class SequenceExperiment:
    """Nets of one size on windows of one text, trained in four ways.

    "random"          the hidden layers stay as they are; only the head learns, as it does in the others
    "teacher-forced"  other data: real windows whose last character is the net's prediction of it, if that is wrong
    "self-generated"  other data: windows of texts that the net wrote in its sleep, but for those that the training
                      text holds; new ones every few epochs
    "backprop"        no other data: the head's error goes back through all layers

    Attributes:
        alphabet: the symbols, 30 in the paper.
        windows, following: of the training text, one-hot [n, 10 * symbols] and next characters [n].

    Example:
        >>> text = "to be or not to be, that is the question. " * 4
        >>> experiment = SequenceExperiment(text, text, hidden=(8, 8), epochs=1)
        >>> experiment.run("teacher-forced").bits_per_character < math.log2(len(ALPHABET)) + 1
        True
    """

    def __init__(
        self,
        train: str,
        test: str,
        *,
        alphabet: str = ALPHABET,
        hidden: tuple[int, ...] = (300, 300, 300),
        epochs: int = 10,
        batch_size: int = 128,
        learning_rate: float = 1e-3,
        goodness: Goodness | None = None,
        sleep_every: int = 2,
        seed: int = 0,
        device: str = "cpu",
    ) -> None:
        """Cut the texts into windows.

        Args:
            train, test: texts; characters outside the alphabet become spaces, of which one is kept of several.
            alphabet: symbols, a space among them; see `alphabet_of`.
            hidden: widths of the layers; 2000 three times in the paper.
            epochs, batch_size, learning_rate: of the training; the same for all methods.
            goodness: of the layers.
            sleep_every: epochs from one sleep to the next, for "self-generated".
            seed: of weights, order and draws.
            device: "cpu", "cuda", "mps" or "auto".
        """
        check_whole(epochs=epochs, batch_size=batch_size, sleep_every=sleep_every)
        check_whole(0, seed=seed)
        check_list(check_whole, hidden=hidden)
        if not (isinstance(alphabet, str) and " " in alphabet):
            raise InputError(f"alphabet={alphabet!r}: must be a text of symbols, a space among them")
        check_positive("typical values: 1e-4 to 1e-2", learning_rate=learning_rate)
        self.alphabet, self.device = alphabet, choose_device(device)
        self.windows, self.following, self.test_windows, self.test_following = (
            part.to(self.device)
            for text in (train, test)
            for part in _windows(encode_alphabet(text, alphabet), len(alphabet))
        )
        self.hidden, self.epochs, self.batch_size, self.learning_rate = hidden, epochs, batch_size, learning_rate
        self.goodness, self.sleep_every, self.seed = goodness, sleep_every, seed

    def run(self, method: Method) -> SequenceResult:
        """Train a net and score it on the test text."""
        if method not in get_args(Method):
            raise InputError(f"method={method!r}: must be one of {', '.join(map(repr, get_args(Method)))}")
        began = time.process_time()
        net = ForwardForwardNet(
            self.windows.shape[1],
            self.hidden,
            len(self.alphabet),
            candidates=False,
            goodness=self.goodness,
            peer=0.03,
            seed=self.seed,
        ).to(self.device)
        self._train(net, method)
        seconds = time.process_time() - began
        with torch.no_grad():
            logits = torch.cat([net.head_logits(piece) for piece in self.test_windows.split(4096)])
        nats = cross_entropy(logits, self.test_following).item()
        accuracy = (logits.argmax(-1) == self.test_following).double().mean().item()
        return SequenceResult(method, nats / math.log(2), accuracy, seconds)

    def _train(self, net: ForwardForwardNet, method: Method) -> None:
        random = torch.Generator().manual_seed(int(self.seed))
        optimizer = net_optimizer(net, self.learning_rate, head_rate=3.0, head_decay=0.0)
        dreams = self.windows
        for epoch in range(self.epochs):
            if method == "self-generated" and epoch % self.sleep_every == 0:
                dreams = self._dream(net, random)
            order = torch.randperm(len(self.windows), generator=random).split(self.batch_size)
            take_steps(
                partial(self._set_gradients, net, method, dreams, random),
                order,
                optimizer,
                steps=len(order),
                schedule=lambda done, epoch=epoch: warm_up_and_decay((epoch + done) / self.epochs),  # type: ignore[misc]
                title="",
            )

    def _set_gradients(
        self, net: ForwardForwardNet, method: Method, dreams: Tensor, random: torch.Generator, places: Tensor
    ) -> float:
        """Gradients for the windows at these places; the head's mean nats."""
        windows, following = self.windows[places], self.following[places]
        if method == "backprop":
            loss = cross_entropy(net.head_logits(windows), following)
            loss.backward()
            return loss.item()
        probabilities = net.set_head_gradient(windows, following)
        if method == "teacher-forced":
            # The window one later, real and with a wrong prediction in the place of its last character.
            guesses = wrong_candidates(probabilities, following, random)
            real, other = (_shifted(windows, last) for last in (following, guesses))
            net.set_gradients(real, None, None, other)
        elif method == "self-generated" and len(dreams):
            net.set_gradients(windows, None, None, dreams[torch.randint(len(dreams), places.shape, generator=random)])
        return -probabilities.gather(1, following.unsqueeze(1)).clamp_min(1e-30).log().mean().item()

    @torch.no_grad()
    def _dream(self, net: ForwardForwardNet, random: torch.Generator, streams: int = 256, length: int = 90) -> Tensor:
        """Windows of texts that the net writes, each after ten characters of the book, which are not in the book."""
        begins = torch.randint(len(self.windows), (streams,), generator=random)
        windows, dreams = self.windows[begins], []
        for _ in range(length):
            probabilities = net.head_logits(windows).softmax(-1)
            drawn = torch.multinomial(probabilities.cpu(), 1, generator=random).squeeze(1)
            windows = _shifted(windows, drawn.to(self.device))
            dreams.append(windows)
        dreamt, real = torch.cat(dreams), set(_as_bytes(self.windows))
        return dreamt[torch.tensor([key not in real for key in _as_bytes(dreamt)])]


def alphabet_of(text: str) -> str:
    """The paper's 30 symbols where they are nine tenths of a text, else a space and the text's own 99 commonest.

    Example:
        >>> alphabet_of("To be, or not to be.") == ALPHABET
        True
        >>> alphabet_of("Быть или не быть")
        ' бытьилне'
    """
    counts = Counter(" ".join(text.lower().split()))
    if sum(counts[symbol] for symbol in ALPHABET) >= 0.9 * counts.total():
        return ALPHABET
    common = (symbol for symbol, _ in counts.most_common() if not symbol.isspace())
    return " " + "".join(islice(common, MOST_SYMBOLS - 1))


def clean_alphabet(text: str, alphabet: str = ALPHABET) -> str:
    """The text in the alphabet's symbols: small letters, other characters as spaces, no two spaces in a row.

    Example:
        >>> clean_alphabet("It's 9 o'clock, Tom.")
        'it s o clock, tom.'
    """
    return " ".join("".join(c if c in alphabet else " " for c in text.lower()).split())


def encode_alphabet(text: str, alphabet: str = ALPHABET) -> Tensor:
    """Places in the alphabet, int64 [T], of the text's characters, cleaned first."""
    cleaned = clean_alphabet(text, alphabet)
    if len(cleaned) <= WINDOW:
        raise InputError(f"text: has {len(cleaned)} characters of the alphabet; at least {WINDOW + 1} are needed")
    return torch.tensor([alphabet.index(character) for character in cleaned])


def _windows(characters: Tensor, symbols: int) -> tuple[Tensor, Tensor]:
    """One-hot windows [n, WINDOW * symbols], and the character after each [n]."""
    windows = characters[:-1].unfold(0, WINDOW, 1)
    return one_hot(windows, symbols).flatten(1).float(), characters[WINDOW:]


def _as_bytes(windows: Tensor) -> list[bytes]:
    """One key for each window, the same for equal ones."""
    return [row.tobytes() for row in windows.view(len(windows), WINDOW, -1).argmax(-1).short().cpu().numpy()]


def _shifted(windows: Tensor, last: Tensor) -> Tensor:
    """Windows one character later, with the given last characters [n]."""
    symbols = windows.shape[1] // WINDOW
    return torch.cat([windows[:, symbols:], one_hot(last, symbols).to(windows)], 1)

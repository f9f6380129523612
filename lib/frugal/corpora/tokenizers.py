"""Text to tokens and back, behind one interface."""

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Self

import numpy as np
import tokenizers
import torch
from torch import Tensor
from tqdm.auto import tqdm

from frugal.corpora.disk import DELAY, row_of_tokens
from frugal.corpora.documents import Document, separate, text_of
from frugal.errors import InputError, UnavailableError

START_TOKEN = "<|endoftext|>"
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


class Tokenizer(ABC):
    """Turns text into int64 tokens and back.

    Attributes:
        vocabulary_size: tokens are 0..vocabulary_size-1.
        start_id: the token put in front of each document; never produced from text.
        unknown_id: the token of a character that cannot be written; None where any text can be.
    """

    vocabulary_size: int
    start_id: int
    unknown_id: int | None

    @property
    def end_ids(self) -> frozenset[int]:
        """The tokens at which a text ends: where the next document starts and, in some models, others."""
        return frozenset({self.start_id})

    @property
    def unwritable_ids(self) -> frozenset[int]:
        """The tokens below `vocabulary_size` that stand for no text: what is generated never holds them."""
        return frozenset() if self.unknown_id is None else frozenset({self.unknown_id})

    @abstractmethod
    def encode(self, text: str) -> Tensor:
        """Tokens [T] of the text alone: nothing is put in front, and no special token comes out of text."""

    @abstractmethod
    def decode(self, tokens: Tensor) -> str:
        """Text of tokens [T]; special tokens such as `start_id` are left out."""

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write the tokeniser's files into an existing folder, for `load_tokenizer`."""


class CharTokenizer(Tokenizer):
    """One token per character of a fixed alphabet; then come `start_id` and `unknown_id`.

    Example:
        >>> tokenizer = CharTokenizer.learn(["abcab"])
        >>> tokenizer.encode("cab?")  # the last is unknown
        tensor([2, 0, 1, 4])
        >>> tokenizer.decode(tokenizer.encode("cab"))
        'cab'
    """

    FILE = "characters.json"
    unknown_id: int

    def __init__(self, alphabet: str) -> None:
        """Use the distinct characters of `alphabet`, ordered by code point."""
        self.alphabet = "".join(sorted(set(alphabet)))
        if not self.alphabet:
            raise InputError("alphabet='': must hold at least one character; learn it from a text that is not empty")
        self.start_id = len(self.alphabet)
        self.unknown_id = self.start_id + 1
        self.vocabulary_size = self.start_id + 2
        self._code_points = _code_points(self.alphabet)
        self._pieces = [*self.alphabet, "", REPLACEMENT]

    @classmethod
    def ascii(cls) -> Self:
        """The 128 ASCII characters, each one's token being its code point."""
        return cls("".join(map(chr, range(128))))

    @classmethod
    def learn(cls, texts: Iterable[str]) -> Self:
        """The alphabet of the given texts; give the training texts only, so that others may surprise."""
        letters: set[str] = set()
        for text in texts:
            letters.update(text)
        return cls("".join(letters))

    def encode(self, text: str) -> Tensor:
        wanted = _code_points(text)
        places = np.searchsorted(self._code_points, wanted).clip(max=len(self.alphabet) - 1)
        tokens = np.where(self._code_points[places] == wanted, places, self.unknown_id)
        return torch.from_numpy(tokens.astype(np.int64))

    def decode(self, tokens: Tensor) -> str:
        return "".join(self._pieces[token] for token in token_list(tokens, self.vocabulary_size))

    def save(self, folder: Path) -> None:
        text = json.dumps({"alphabet": self.alphabet})
        (folder / self.FILE).write_text(text + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote."""
        return cls(json.loads((folder / cls.FILE).read_text(encoding="utf-8"))["alphabet"])


class BytePairTokenizer(Tokenizer):
    """A byte-level tokeniser of the `tokenizers` library: any text can be written, and comes back exactly.

    Saved in the Hugging Face layout, so that other programs can open it too.

    Example:
        >>> tokenizer = BytePairTokenizer.train(["the cat and the hat"] * 5, vocabulary_size=262)
        >>> len(tokenizer.encode("the hat")) < len("the hat")
        True
        >>> tokenizer.decode(tokenizer.encode("the naïve 猫"))
        'the naïve 猫'
    """

    FILE = "tokenizer.json"
    SETTINGS = "tokenizer_config.json"
    unknown_id = None

    def __init__(self, tokenizer: tokenizers.Tokenizer, start_token: str = START_TOKEN) -> None:
        """Wrap a trained tokeniser, whose vocabulary holds `start_token` as a special token."""
        start_id = tokenizer.token_to_id(start_token)
        if start_id is None:
            raise InputError(f"start_token={start_token!r}: is not in the vocabulary; name one of its special tokens")
        tokenizer.encode_special_tokens = True  # text that looks like a special token stays text
        self.tokenizer = tokenizer
        self.start_token = start_token
        self.start_id = start_id
        self.vocabulary_size = tokenizer.get_vocab_size()

    @classmethod
    def train(cls, texts: Iterable[str], vocabulary_size: int) -> Self:
        """Learn byte pairs from texts; a short text may give fewer tokens than asked for."""
        smallest = 257  # the bytes and the start token
        if vocabulary_size < smallest:
            raise InputError(f"vocabulary_size={vocabulary_size}: must be at least {smallest}; 2048 suits a small text")
        learner = tokenizers.ByteLevelBPETokenizer()
        learner.train_from_iterator(
            texts, vocabulary_size, min_frequency=0, show_progress=False, special_tokens=[START_TOKEN]
        )
        return cls(tokenizers.Tokenizer.from_str(learner.to_str()))

    def encode(self, text: str) -> Tensor:
        return torch.tensor(self.tokenizer.encode(text, add_special_tokens=False).ids, dtype=torch.int64)

    def decode(self, tokens: Tensor) -> str:
        return self.tokenizer.decode(token_list(tokens), skip_special_tokens=True)

    def save(self, folder: Path) -> None:
        settings = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": self.start_token,
            "eos_token": self.start_token,
        }
        (folder / self.SETTINGS).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
        self.tokenizer.save(str(folder / self.FILE))

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote."""
        settings = json.loads((folder / cls.SETTINGS).read_text(encoding="utf-8"))
        return cls(tokenizers.Tokenizer.from_file(str(folder / cls.FILE)), settings["bos_token"])


def token_list(tokens: Tensor, vocabulary_size: int = 2**32) -> list[int]:
    """Tokens [T] as a list; raises InputError where they are no tensor of such tokens.

    A model may be wider than its byte pairs: what has no text is left out, but must be a number that could have one.
    """
    whole = isinstance(tokens, Tensor) and not tokens.is_floating_point() and tokens.dtype != torch.bool
    if not isinstance(tokens, Tensor) or tokens.ndim != 1 or not (whole or not len(tokens)):
        kind = f"{tokens.dtype} {list(tokens.shape)}" if isinstance(tokens, Tensor) else type(tokens).__name__
        raise InputError(f"tokens of {kind}: `decode` takes a tensor [T] of whole numbers")
    found = tokens.tolist()
    wrong = [token for token in found if not 0 <= token < vocabulary_size]
    if wrong:
        raise InputError(f"token {wrong[0]}: must lie in 0 to {vocabulary_size - 1}; use this model's own tokeniser")
    return found


def letters_or_bytes(texts: Iterable[str], most: int = 300) -> Tokenizer:
    """For nets over characters: one token for each that is ASCII or stands in the texts, else one for each UTF-8 byte.

    Bytes are taken where that would be more than `most` tokens, as with Chinese. No text is unknown to them.

    Example:
        >>> letters_or_bytes(["Größe"]).vocabulary_size  # ASCII, two letters, the document start, unknown
        132
        >>> letters_or_bytes([chr(0x4E00 + n) for n in range(500)]).vocabulary_size  # bytes and the document start
        257
    """
    letters = CharTokenizer.learn([CharTokenizer.ascii().alphabet, *texts])
    return letters if letters.vocabulary_size <= most else BytePairTokenizer.train([], 257)


def load_tokenizer(folder: Path) -> Tokenizer:
    """Read the tokeniser that `Tokenizer.save` wrote into `folder`.

    Raises:
        UnavailableError: the folder holds no tokeniser, or a damaged one.
    """
    kind = CharTokenizer if (folder / CharTokenizer.FILE).exists() else BytePairTokenizer
    try:
        return kind.load(folder)
    except Exception as error:  # the tokenizers library raises plain Exception for a damaged file
        raise UnavailableError(f"{folder} holds no readable tokeniser ({error}): save the tokeniser again") from error


def encode_documents(tokenizer: Tokenizer, documents: Iterable[Document | str]) -> list[Tensor]:
    """Tokens [1 + T] of each document, with `start_id` in front. A single text is one document.

    Example:
        >>> encode_documents(CharTokenizer("ab"), ["ab", "b"])
        [tensor([2, 0, 1]), tensor([2, 1])]
    """
    return list(encode_each(tokenizer, documents))


def encode_each(tokenizer: Tokenizer, documents: Iterable[Document | str]) -> Iterator[Tensor]:
    """As `encode_documents`, one document at a time; a bar shows progress where that takes long."""
    start = torch.tensor([tokenizer.start_id])
    for document in tqdm(separate(documents), "tokens", unit=" documents", delay=DELAY):
        yield torch.cat([start, tokenizer.encode(text_of(document))])


def encode_in_a_row(tokenizer: Tokenizer, documents: Iterable[Document | str]) -> Tensor:
    """Tokens of all documents in one row [T], `start_id` before each.

    Where they are many they lie on disk, memory-mapped, as int32: what is taken out of them becomes int64 by `long`.

    Example:
        >>> encode_in_a_row(CharTokenizer("ab"), ["ab", "b"])
        tensor([2, 0, 1, 2, 1])
    """
    return row_of_tokens(encode_each(tokenizer, documents))


def _code_points(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")

"""The next character by boosted trees: LightGBM on the characters before it, each of them a category."""

import subprocess
import sys
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from frugal.corpora import Document, Tokenizer, encode_documents
from frugal.errors import InputError, UnavailableError, check_positive, check_whole
from frugal.files import has_checksum
from frugal.language_model import AdvancingModel, check_on_cpu, read_model, save_model

# Share of the uniform distribution that is mixed in, so that a character never seen in training is not impossible.
UNIFORM = 1e-3
WINDOWS_AT_ONCE = 2**13
SECONDS_OF_A_TRIAL = 60  # of processor time
TRIAL = """
import resource, sys
resource.setrlimit(resource.RLIMIT_CPU, [int(sys.argv[1])] * 2)
import lightgbm, numpy
text = sys.stdin.buffer.read().decode()
trees = lightgbm.Booster(model_str=text)
windows = numpy.random.default_rng(0).integers(-1, 128, (5000, trees.num_feature()))
trees.predict(windows, num_threads=1)
sys.exit(trees.model_to_string() != text)
"""


class BoostedTrees(AdvancingModel):
    """Gradient-boosted trees, one per character and round, over windows of `context_length` characters.

    Ke et al., "LightGBM: a highly efficient gradient boosting decision tree", 2017. Training and prediction are slow
    beside all else here: a round grows as many trees as there are characters.

    Args:
        context_length: characters of context. A text may have any length, so that the attribute of this name, which
            limits what is scored at once, stays None.
        tokenizer: one token per character.

    >>> from frugal.corpora import CharTokenizer
    >>> model = BoostedTrees(2, CharTokenizer("abc")).fit(["abc" * 100], rounds=2, threads=1)
    >>> tokens = model.tokenizer.encode("ab")[None]
    >>> model.tokenizer.decode(model.log_probabilities(tokens)[0, -1].argmax()[None])
    'c'
    """

    def __init__(self, context_length: int, tokenizer: Tokenizer) -> None:
        check_whole(context_length=context_length)
        self.tokenizer, self.window_length = tokenizer, context_length
        self.vocabulary_size = tokenizer.vocabulary_size
        self.booster: Any = None
        self.classes = torch.empty(0, dtype=torch.int64)  # the tokens that the trees know

    def fit(
        self,
        documents: Iterable[Document | str],
        *,
        rounds: int = 20,
        leaves: int = 31,
        depth: int = 32,
        learning_rate: float = 0.1,
        most: int | None = None,
        threads: int = 0,
    ) -> Self:
        """Train on documents, at most the first `most` characters of them; `threads=0` uses all cores.

        Raises:
            InputError: there is no text, or a setting with which no trees can grow.
        """
        check_whole(rounds=rounds, depth=depth, most=1 if most is None else most)
        check_whole(2, leaves=leaves)
        check_whole(0, threads=threads)
        check_positive("typical values lie in 0.01 to 0.3", learning_rate=learning_rate)
        import lightgbm  # takes a second to import

        encoded = encode_documents(self.tokenizer, documents)
        if not sum(len(tokens) - 1 for tokens in encoded):
            raise InputError("nothing to learn from: the training text is empty; give some text")
        read = (torch.cat([self.start(1)[0, 1:], tokens[:-1]]) for tokens in encoded if len(tokens) > 1)
        windows = torch.cat([row.unfold(0, self.window_length, 1) for row in read])[:most].numpy()
        targets = torch.cat([tokens[1:] for tokens in encoded])[:most]
        self.classes, labels = targets.unique(return_inverse=True)
        settings = {
            "objective": "multiclass",
            "num_class": max(2, len(self.classes)),
            "num_leaves": leaves,
            "max_depth": depth,
            "learning_rate": learning_rate,
            "num_threads": threads,
            "deterministic": True,  # and nothing is drawn, so that there is no seed
            "verbosity": -1,
        }
        data = lightgbm.Dataset(windows, labels.numpy(), categorical_feature=[*range(self.window_length)])
        self.booster = lightgbm.train(settings, data, rounds)
        return self

    def advance(self, tokens: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        read = torch.cat([state, tokens], 1)
        windows = read[:, 1:].unfold(1, self.window_length, 1).flatten(0, 1)
        parts = [self._log_probabilities(part.numpy()) for part in windows.split(WINDOWS_AT_ONCE)]
        return torch.cat(parts).view(*tokens.shape, -1), read[:, tokens.shape[1] :]

    def start(self, batch_size: int) -> Tensor:
        return torch.full((batch_size, self.window_length), self.tokenizer.start_id)

    def step(self, tokens: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        state = torch.cat([state[:, 1:], tokens.unsqueeze(1)], dim=1)
        return self._log_probabilities(state.numpy()), state

    def save(self, folder: Path | str) -> None:
        trees = torch.frombuffer(bytearray(self._trained().model_to_string().encode()), dtype=torch.uint8)
        card = f"# Boosted trees\n\n{self.booster.num_trees():,} trees on {self.window_length} characters of context."
        config = {"context_length": self.window_length}
        save_model(folder, self, {"trees": trees, "classes": self.classes}, config, card)

    @classmethod
    def load(cls, folder: Path | str, *, device: str = "cpu") -> Self:
        import lightgbm

        check_on_cpu(cls, device)
        weights, config, tokenizer = read_model(folder, cls)
        # Earlier versions wrote `features`.
        model = cls(config["context_length" if "context_length" in config else "features"], tokenizer)
        model.classes = weights["classes"]
        text = weights["trees"].numpy().tobytes()
        if not has_checksum(Path(folder, "model.safetensors")):
            if not _bearable(text):
                raise UnavailableError(f"{folder} holds no readable trees: they are damaged, train the model again")
            warnings.warn(f"{folder} is of an earlier version, without a checksum: save the model again", stacklevel=2)
        try:
            model.booster = lightgbm.Booster(model_str=text.decode())
        except (lightgbm.basic.LightGBMError, UnicodeDecodeError) as error:
            raise UnavailableError(f"{folder} holds no readable trees ({error}): save the model again") from error
        return model

    def _log_probabilities(self, windows: NDArray[np.int64]) -> Tensor:
        found = torch.from_numpy(self._trained().predict(windows)[:, : len(self.classes)]).float()
        known = torch.zeros(len(found), self.vocabulary_size)
        known[:, self.classes] = found / found.sum(1, keepdim=True)
        return ((1 - UNIFORM) * known + UNIFORM / self.vocabulary_size).log()

    def _trained(self) -> Any:
        if self.booster is None:
            raise InputError("the trees are not grown yet: call fit first")
        return self.booster


def _bearable(trees: bytes) -> bool:
    """Whether LightGBM takes these trees, predicts by them and writes them as they are, tried in another process.

    Damaged ones can end the process, or never come to an end.
    """
    trial = [sys.executable, "-c", TRIAL, str(SECONDS_OF_A_TRIAL)]
    return subprocess.run(trial, input=trees, capture_output=True, check=False).returncode == 0

"""What a search for a network's shape tries, and how a trial is judged; `frugal.training.search` does the searching."""

from collections.abc import Mapping
from dataclasses import replace

from frugal.corpora import Tokenizer
from frugal.piecewise.language_model import PiecewiseLM
from frugal.piecewise.mlp import MLPShape
from frugal.piecewise.training import PiecewisePlan, memorised, train
from frugal.piecewise.windows import Windows

# As in language-interpolation: ranges of whole numbers, and where to start. A truth value is a range from 0 to 1.
SPACE = {"continuous": (0, 1), "segments": (8, 100), "layers": (1, 3), "width": (2, 250), "output_segments": (8, 20)}
START = {"continuous": 0, "segments": 8, "layers": 1, "width": 10, "output_segments": 8}


def shape_at(point: Mapping[str, float], base: MLPShape | None = None) -> MLPShape:
    """Return the network shape that a point of `SPACE` stands for; `base` says all else.

    Example:
        >>> shape_at({"continuous": 0, "segments": 16, "layers": 2, "width": 20}).kind
        'discontinuous'
    """
    fields = {name: int(value) for name, value in point.items()}
    kind = "continuous" if fields.pop("continuous", 1) else "discontinuous"
    return replace(MLPShape() if base is None else base, kind=kind, **fields)  # type: ignore[arg-type]  # all integers


def trial_nats(
    shape: MLPShape,
    tokenizer: Tokenizer,
    windows: Windows,
    validation: Windows,
    plan: PiecewisePlan | None = None,
    *,
    device: str = "cpu",
) -> float:
    """Train a new model briefly; return its nats per character on other windows.

    Example:
        >>> from frugal.corpora import CharTokenizer
        >>> shape, tokenizer = MLPShape(context_length=2, width=4), CharTokenizer("ab")
        >>> windows = Windows.sequence(tokenizer, ["abab"], context_length=2)
        >>> trial_nats(shape, tokenizer, windows, windows) > 0
        True
    """
    model = PiecewiseLM(shape, tokenizer, device=device)
    brief = PiecewisePlan(epochs=2, batch_size=100, learning_rate=1e-3) if plan is None else plan
    train(model, windows, brief, progress=False)
    return memorised(model, validation).nats

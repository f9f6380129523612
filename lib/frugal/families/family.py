"""What is the same for every family: settings and plan from names and values, a model built, a model trained."""

import dataclasses
import inspect
import math
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol, Self

from frugal.device import DType, choose_device, choose_dtype
from frugal.errors import InputError
from frugal.families.texts import Texts
from frugal.foundation.loading import check_foundation
from frugal.language_model import LanguageModel
from frugal.training import Plan, check_fields

SECONDS = 300.0  # of processor time that a training takes unless asked for more; features and scores come beside it


class Savable(Protocol):
    """What can be kept beside a model."""

    def save(self, path: Path) -> None:
        """Write it to this place."""


class Trained(NamedTuple):
    """What a training gave: the model, a score for each epoch if it had any, what is kept beside the model by name."""

    model: Any
    scores: list[Any] = []  # noqa: RUF012  # never changed
    beside: Mapping[str, Savable] = {}

    @property
    def improved(self) -> bool:
        """Whether an epoch was better than none; so it is where there are no epochs."""
        nats = [score.validation_nats for score in self.scores]
        return len(nats) < 2 or min(nats[1:]) < nats[0]

    @property
    def verdict(self) -> str:
        """What became of the training, in a sentence or two; and why it may be, where it came to nothing.

        >>> from frugal.training import EpochScore
        >>> epochs = [EpochScore(validation_nats=2.0), EpochScore(epoch=1, training_loss=9.0, validation_nats=5.0)]
        >>> Trained(None, epochs).verdict.split(": ")[0]
        'The training never improved on its start, which is what is kept'
        """
        if not self.scores:
            return "It was made in one pass."
        nats = [score.validation_nats for score in self.scores]
        best = nats.index(min(nats))
        clock = " It ended by its clock: with more seconds it may go further." if self.scores[-1].out_of_time else ""
        if self.improved:
            return f"Validation went from {nats[0]:.3f} to {nats[best]:.3f} nats a token, best in epoch {best}.{clock}"
        losses = [score.training_loss for score in self.scores[1:]]
        rose = losses[0] > nats[0] + 0.1 or losses[-1] > losses[0]
        why = (
            "the learning rate may be too high; try a tenth of it"
            if rose
            else "what it learnt does not hold for the validation text, which is of another kind, or the training text "
            "is too short; try more text, or a lower learning rate"
        )
        return f"The training never improved on its start, which is what is kept: {why}.{clock}"


OnEpoch = Callable[[Trained], None]


class Observe(Protocol):
    """Is told each score of a training, and what is kept beside the model at that time."""

    def __call__(self, score: Any, /, **beside: Savable) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Family(ABC):
    """The settings of a family, which its models are built and trained by.

    Attributes:
        characters: most characters of the training text that are learnt from; None takes all.

    Raises:
        InputError: a value is of another type than its setting, or out of its range.
    """

    name: ClassVar[str]
    ranges: ClassVar[Mapping[str, tuple[float, float]]] = {}  # of settings; whole numbers are 1 at least
    of_training: ClassVar[frozenset[str]] = frozenset({"characters"})  # may change when a kept model is trained on
    characters: int | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        for setting, value in vars(self).items():
            low, high = self.ranges.get(setting, (1 if type(value) is int else -math.inf, math.inf))
            if isinstance(value, int | float) and not isinstance(value, bool) and not low <= value <= high:
                wanted = f"at least {low}" if math.isinf(high) else f"{low} to {high}"
                raise InputError(f"{setting}={value}: must be {wanted}")

    def check(self) -> None:
        """Raise what a training would, as far as it is known before one: of a GPT or a text that is not to be had."""
        if hasattr(self, "foundation"):
            check_foundation(self.foundation)

    @property
    def made_at_once(self) -> bool:
        """Whether a model is made of all that it has learnt in one pass, so that going on means making it again."""
        return False

    @classmethod
    def from_values(cls, given: Mapping[str, Any]) -> tuple[Self, dict[str, Any]]:
        """The settings that are among these, and the rest, which is the plan's."""
        own = {name: value for name, value in given.items() if name in _fields(cls)}
        rest = {name: value for name, value in given.items() if name not in own}
        return cls(**own), rest

    def plan(self) -> Plan | None:
        """How its models are trained unless something else is asked for; None where there are no epochs."""
        return None

    def start_of(self, model: Any, texts: Texts) -> tuple[str, LanguageModel]:
        """What a training has to improve on, with its name: the untrained model, where that says anything."""
        return "untrained", model

    def foundation_of(self, model: Any) -> LanguageModel | None:
        """The GPT that a model stands on, alone and with the same view; None for a family that stands on none."""
        return None

    def build(self, texts: Texts, *, device: str = "cpu", dtype: DType = "auto", seed: int = 0) -> Any:
        """A model that has learnt nothing yet. What must be known of the text first, its alphabet, is read from it.

        `dtype` is that of a GPT that no training goes through; what is trained is float32.
        """
        if dtype != "auto" and not hasattr(self, "foundation"):
            raise InputError(f"dtype={dtype!r}: {self.name} stands on no GPT; leave the dtype out")
        choose_dtype(dtype, choose_device(device), 0)
        return self._build(texts, device, dtype, seed)

    @abstractmethod
    def _build(self, texts: Texts, device: str, dtype: DType, seed: int) -> LanguageModel:
        """As `build`, with everything given."""

    def train(
        self,
        model: Any,
        texts: Texts,
        plan: Plan | None = None,
        *,
        on_epoch: OnEpoch | None = None,
        beside: Path | None = None,
    ) -> Trained:
        """Train a model that `build` made, or go on with one that was kept.

        Args:
            model: of this family; it may be changed in place.
            texts: to learn from, and to stop by.
            plan: by default as `plan` says.
            on_epoch: called with what has been trained so far, at the start and after each epoch, whose score is the
                last; the model then has that epoch's weights.
            beside: the folder of a kept model, with what was kept beside it.
        """
        scores: list[Any] = []

        def observe(score: Any, /, **parts: Savable) -> None:
            scores.append(score)
            if on_epoch is not None:
                on_epoch(Trained(model, list(scores), parts))

        return self._train(model, texts, self.plan() if plan is None else plan, observe, beside)

    @abstractmethod
    def _train(self, model: Any, texts: Texts, plan: Any, observe: Observe, beside: Path | None) -> Trained:
        """As `train`, with everything given."""


class Asked(NamedTuple):
    """What is to be trained, and how."""

    family: Any
    plan: Any


FAMILIES: dict[str, type[Family]] = {}


def known(kind: type[Family]) -> type[Family]:
    """Make a family known by its name."""
    FAMILIES[kind.name] = kind
    return kind


def asked(name: str, given: Mapping[str, Any], kept: Mapping[str, Any] | None = None) -> Asked:
    """A family's settings and plan, from names and values; what is not named, the family decides.

    Args:
        name: of the family.
        given: fields of the family or of its plan, such as epochs and learning_rate.
        kept: the settings of a kept model that is to be trained on: what it is made of stays.

    Raises:
        InputError: there is no such family or setting, or a value is not one that it can have.

    Example:
        >>> family, plan = asked("echo", {"reservoir_size": 64, "epochs": 3, "patience": None})
        >>> family.reservoir_size, plan.epochs, plan.patience
        (64, 3, None)
    """
    if name not in FAMILIES:
        raise InputError(f"family={name!r}: is not known; {_near(name, FAMILIES)}there are {', '.join(FAMILIES)}")
    values = dict(given)
    if kept is not None:
        for setting in kept.keys() & values.keys() - FAMILIES[name].of_training:
            if _several(values[setting]) != _several(kept[setting]):
                raise InputError(
                    f"{setting}={values[setting]!r}: the kept model has {kept[setting]!r}, which a training that goes "
                    "on cannot change; leave it out, or train a model of another name"
                )
        values = {**kept, **values}
    family, rest = FAMILIES[name].from_values(values)
    plan = family.plan()
    fields = [] if plan is None else _fields(type(plan))
    for setting in rest:
        if setting not in fields:
            raise InputError(_unknown(setting, rest[setting], family, plan))
    return Asked(family, plan if plan is None else replace(plan, **rest))


def asked_on(family: Family) -> dict[str, Any]:
    """The settings as plain values, which `asked` takes back as those of a kept model.

    Example:
        >>> family, _ = asked("ngram", {"order": 3})
        >>> asked_on(family) == {"characters": None, "order": 3, "tokens": "characters"}
        True
    """
    return dataclasses.asdict(family)


def settings_table(name: str) -> list[dict[str, Any]]:
    """What can be set of a family and its plan: name, value unless set, what it is.

    Example:
        >>> [row["name"] for row in settings_table("ngram")]
        ['characters', 'order', 'tokens']
    """
    family, plan = asked(name, {})
    return [row for part in (family, plan) if part is not None for row in _rows(part)]


def _rows(part: Any) -> list[dict[str, Any]]:
    """The fields of a dataclass with what its docstring, or that of a class above it, says of them."""
    about: dict[str, str] = {}
    for kind in reversed(type(part).__mro__):
        found = re.findall(r"^    ([\w, ]+): (.+(?:\n {8}.+)*)", inspect.cleandoc(kind.__doc__ or ""), re.MULTILINE)
        about |= {name: " ".join(words.split()) for names, words in found for name in names.split(", ")}
    return [
        {"name": field.name, "unless set": getattr(part, field.name), "what it is": about.get(field.name, "")}
        for field in dataclasses.fields(part)
    ]


def _fields(kind: type[Any]) -> list[str]:
    return [field.name for field in dataclasses.fields(kind)]


def _several(value: Any) -> list[Any]:
    """A setting's value as a list: several may come as a list or a tuple, and a single one without either."""
    return list(value) if isinstance(value, list | tuple) else [value]


def _unknown(setting: str, value: Any, family: Family, plan: Plan | None) -> str:
    if plan is None and setting in _fields(Plan):
        return f"{setting}={value!r}: this {family.name} is made in one pass, without epochs; leave it out"
    names = [*_fields(type(family)), *([] if plan is None else _fields(type(plan)))]
    return f"{setting}={value!r}: is no setting of {family.name}; {_near(setting, names)}it has {', '.join(names)}"


def _near(name: str, known: Iterable[str]) -> str:
    near = get_close_matches(name, known, n=1)
    return f"did you mean {near[0]}? " if near else ""

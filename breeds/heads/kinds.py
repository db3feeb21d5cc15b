"""The kinds of heads, a row for each, what training a head is told, and what a head is fitted to.

Whoever adds a head adds a module with a function `train` (as `breeds.heads.logistic.train`) and a row in
`KINDS`: the command line, the library, the model file, `--compare` and the exports read the table.
"""

from __future__ import annotations

import math
import re
from dataclasses import asdict, dataclass, fields
from importlib import import_module
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

from breeds.errors import BreedsError

if TYPE_CHECKING:  # the command line's help reads the table, and numpy takes longer to load than that
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray

#: What C can be: below and above no head is another, and single precision overflows.
SMALLEST_C, LARGEST_C = 1e-12, 1e12
#: How a record ends on who chose C, where it was not chosen on these photos but before.
KEPT = ", kept since"
_EVERY = {
    "store", "also", "views", "n_train", "n_val", "n_test", "unlabelled", "duplicates", "few", "corrections",
    "seed", "val", "balanced", "keep", "seconds",
}  # fmt: skip
_TEXT = ("store", "C_chosen_by")
_WHOLE = (
    "n_train",
    "n_val",
    "n_test",
    "unlabelled",
    "duplicates",
    "n_drawn",
    "n_available",
    "seed",
    "best_epoch",
    "memory",
)
_NUMBERS = ("seconds", "train_accuracy", "train_log_loss", "val_log_loss")
_SHARES = ("val", "keep")


@dataclass(frozen=True)
class Kind:
    """A kind of head.

    Attributes
    ----------
    title
        What people call it.
    module
        Where its `train` is, in `breeds.heads`; loaded when it is used, as it may bring large libraries.
    options
        Which of C and balanced it has a use for; given another, it is refused.
    validates
        Whether it is fitted to the photos for validation too, and decides by them when to stop.
    quick
        Whether it is trained in seconds, so that cross-validation may repeat it.
    linear
        Whether it is a single layer, which scikit-learn's pipelines can hold.
    """

    title: str
    module: str
    options: tuple[str, ...] = ()
    validates: bool = False
    quick: bool = True
    linear: bool = True

    def train(self, data: TrainingData, settings: TrainingSettings) -> Fitted:
        """Fit a head of this kind."""
        fitted: Fitted = import_module(f"breeds.heads.{self.module}").train(data, settings)
        return fitted


#: By the name that `--head` and a model's file have for it. The first is the default.
KINDS = {
    "logistic": Kind("logistic regression", "logistic", options=("C", "balanced")),
    "dense": Kind(
        "dense layers in Keras",
        "dense",
        ("balanced",),
        validates=True,
        quick=False,
        linear=False,
    ),
}
HEADS = tuple(KINDS)
LINEAR = tuple(name for name, kind in KINDS.items() if kind.linear)


def taking(option: str) -> str:
    """Name the heads that take an option, for a sentence."""
    return " or ".join(name for name, kind in KINDS.items() if option in kind.options)


@dataclass(frozen=True)
class TrainingSettings:
    """Everything that training is told; a model's record keeps it.

    Attributes
    ----------
    head
        One of `HEADS`.
    C
        Inverse regularisation strength; None has it chosen by cross-validation on the training photos.
    seed
        Decides the split, the folds, and whatever is random.
    val
        Share of photos for validation; a head that has no use for them leaves them alone.
    balanced
        Let every class weigh the same; the dense head always does.
    keep
        Share of known photos that the threshold for unknown ones is set to keep.
    memory
        How many bytes training may take; None is half of this machine's. Where all photos would take more, a
        head is trained on as many as fit.

    Raises
    ------
    BreedsError
        If one is out of its range, or the head has no use for it.
    """

    head: str = HEADS[0]
    C: float | None = None
    seed: int = 0
    val: float = 0.0
    balanced: bool = False
    keep: float = 0.95
    memory: int | None = None

    def __post_init__(self) -> None:
        if self.head not in HEADS:
            raise BreedsError(f"head={self.head!r}: Breeds has the heads {' and '.join(HEADS)}.")
        if not (self.C is None or (isinstance(self.C, Real) and SMALLEST_C <= self.C <= LARGEST_C)):
            raise BreedsError(f"C={self.C!r}: give a number from {SMALLEST_C:g} to {LARGEST_C:g}, or None.")
        if not (isinstance(self.seed, Integral) and self.seed >= 0):
            raise BreedsError(f"seed={self.seed!r}: give a whole number from 0 up.")
        for name, share, below in (("keep", self.keep, 1), ("val", self.val, 0.7)):
            if not (isinstance(share, Real) and 0 <= share < below):
                raise BreedsError(f"{name}={share!r}: give a share from 0 to below {below}.")
        for option in ("C", "balanced"):
            if getattr(self, option) and option not in self.kind.options:
                raise BreedsError(
                    f"--{option} belongs to --head {taking(option)}; leave it out for the {self.head} head."
                )

    @property
    def kind(self) -> Kind:
        """The row of the head."""
        return KINDS[self.head]

    def as_record(self) -> dict[str, Any]:
        """Return what was decided, for a model's record: plain JSON values."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    @classmethod
    def of_record(cls, record: Mapping[str, Any]) -> TrainingSettings:
        """Return the settings that a model's record keeps, with C as it was used, whoever chose it."""
        names = {field.name for field in fields(cls)}
        return cls(**{name: value for name, value in record.items() if name in names})


@dataclass(frozen=True)
class TrainingData:
    """What a head is fitted to, an entry for each photo.

    Attributes
    ----------
    features
        As extracted, float32 (n, width).
    targets
        Class numbers, all of 0 to classes - 1 present, intp (n,).
    folds
        The fold of each photo, intp (n,), every class in at least two of them; None where a class has a
        single photo, and nothing can be cross-validated.
    validation
        Which photos a head that stops early decides by, bool (n,).
    augmented
        Which are variants of other photos, which help in training and judge nothing, bool (n,).
    """

    features: NDArray[np.float32]
    targets: NDArray[np.intp]
    folds: NDArray[np.intp] | None
    validation: NDArray[np.bool_] | None = None
    augmented: NDArray[np.bool_] | None = None


@dataclass(frozen=True)
class Fitted:
    """A head before it becomes a model.

    Attributes
    ----------
    mean, scale
        What standardises features, float32 (width,).
    layers
        Weights (inputs, outputs) and bias (outputs,) of each, float32, with rectifiers between.
    temperature
        Divides the logits.
    how
        How it came about, for the model's record: plain JSON values.
    """

    mean: NDArray[np.float32]
    scale: NDArray[np.float32]
    layers: list[tuple[NDArray[np.float32], NDArray[np.float32]]]
    temperature: float
    how: dict[str, Any]


def check_record(record: dict[str, Any]) -> None:
    """Check what every head's training records, and of the rest what is shown, drawn or trained by.

    Raises
    ------
    ValueError
        If something is missing or of another kind.
    """
    fits = [
        record.keys() >= _EVERY,
        all(isinstance(record[name], str) for name in _TEXT if name in record),
        all(type(record[name]) is int and record[name] >= 0 for name in _WHOLE if name in record),
        all(_is_number(record[name]) for name in _NUMBERS if name in record),
        all(_is_number(record[name]) and 0 <= record[name] < 1 for name in _SHARES if name in record),
        _is_strength(record.get("C", 1.0)),
        "C" in record or not (record.get("C_chosen_by") or record.get("cv_log_loss")),
        _is_search(record.get("cv_log_loss", {})),
        _is_effect(record.get("corrections")),
        _are_views(record.get("views")),
        isinstance(record.get("also"), list) and isinstance(record.get("few"), dict),
    ]
    if not all(fits):
        raise ValueError("the training record is missing or not of its kind")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value) and abs(value) < 1e15


def _is_strength(value: object) -> bool:
    return isinstance(value, int | float) and SMALLEST_C <= value <= LARGEST_C


def _is_effect(corrections: object) -> bool:
    """Say whether these are counts of corrections, and a digest of them."""
    return isinstance(corrections, dict) and all(
        isinstance(value, str) if name == "sha256" else type(value) is int and value >= 0
        for name, value in corrections.items()
    )


def _are_views(views: object) -> bool:
    """Say whether these are names of views, which names of files are made of."""
    return isinstance(views, list) and all(
        isinstance(view, str) and re.fullmatch("[a-z0-9]+", view) for view in views
    )


def _is_search(losses: object) -> bool:
    """Say whether these are log losses by the C that was tried."""
    return isinstance(losses, dict) and all(
        _is_strength(float(C)) and _is_number(loss) for C, loss in losses.items()
    )

"""Split photos into training, validation and test parts: by content, stratified, seeded."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from breeds.errors import BreedsError

TEST_SHARE = 0.2


def draw_parts(
    keys: Sequence[str],
    labels: Sequence[str],
    seed: int,
    val: float = 0.0,
    given: Sequence[str] | None = None,
) -> NDArray[np.str_]:
    """Assign each photo to a part of the split; `check_parts` says whether there are enough of them.

    Within each class the keys are put in the order of their SHA-256 with the seed and cut, so the
    answer depends on nothing but the photos' contents: not on their order, names or machine.

    Whoever names a test part has decided what to test on: then no other photo is drawn for it,
    and all that is undecided is for training, but for the share `val`.

    Parameters
    ----------
    keys, labels
        One per photo, labels as they came with it: those that people correct later must move no photo.
        The same key more than once lands in one part.
    seed
        Another seed gives another split.
    val
        Share of each class's undecided photos for validation, on top of `TEST_SHARE` for test.
    given
        Parts that are already decided ("" for those that are not).

    Returns
    -------
    numpy.ndarray
        Text, shape (n,): ``train``, ``val`` or ``test``.

    Examples
    --------
    >>> from collections import Counter
    >>> keys, labels = [f"{i:064x}" for i in range(40)], ["beagle", "pug"] * 20
    >>> Counter(draw_parts(keys, labels, seed=0).tolist())
    Counter({'train': 32, 'test': 8})
    >>> given = ["test", "test"] + [""] * 38
    >>> Counter(draw_parts(keys, labels, seed=0, val=0.25, given=given).tolist())
    Counter({'train': 28, 'val': 10, 'test': 2})
    """
    of_class: dict[str, set[str]] = {}
    part: dict[str, str] = {}
    for key, label, decided in zip(keys, labels, given or [""] * len(keys), strict=True):
        of_class.setdefault(label, set()).add(key)
        if decided:
            part[key] = decided
    test = 0.0 if "test" in part.values() else TEST_SHARE
    for members in of_class.values():
        open_keys = sorted(members - part.keys(), key=lambda key: _draw(seed, key))
        cuts = _counts(len(open_keys), test, val)
        for key, name in zip(open_keys, np.repeat(list(cuts), list(cuts.values())), strict=True):
            part[key] = str(name)
    return np.array([part[key] for key in keys], dtype=np.str_)


def check_parts(keys: Sequence[str], labels: Sequence[str], parts: Sequence[str], val: float = 0.0) -> None:
    """Make sure that there are enough photos of every class for every part.

    Parameters
    ----------
    labels
        That training goes by; "" for photos that are left out.

    Raises
    ------
    BreedsError
        If there are fewer than two classes, or a class has too few photos.
    """
    of_class: dict[str, set[str]] = {}
    for key, label in zip(keys, labels, strict=True):
        if label:
            of_class.setdefault(label, set()).add(key)
    _refuse_too_few(of_class, 3 if val else 2)
    _refuse_empty_part(of_class, dict(zip(keys, parts, strict=True)))


def fold_of(keys: Sequence[str], labels: Sequence[str], folds: int, seed: int) -> NDArray[np.intp]:
    """Assign each photo to one of `folds` cross-validation folds, stratified, by content.

    Returns
    -------
    numpy.ndarray
        Shape (n,), values 0 to folds - 1.

    Examples
    --------
    >>> fold = fold_of([f"{i:064x}" for i in range(10)], ["beagle", "pug"] * 5, folds=5, seed=0)
    >>> np.bincount(fold)
    array([2, 2, 2, 2, 2])
    """
    order = sorted(range(len(keys)), key=lambda i: (labels[i], _draw(seed, f"fold {keys[i]}")))
    result = np.empty(len(keys), dtype=np.intp)
    result[order] = np.arange(len(keys)) % folds
    return result


def _draw(seed: int, key: str) -> str:
    return hashlib.sha256(f"{seed} {key}".encode()).hexdigest()


def _counts(n: int, test: float, val: float) -> dict[str, int]:
    """Return how many of `n` photos each part gets; one is always left for training."""
    tested = max(1, round(n * test)) if test and n > 1 else 0
    held = min(max(1, round(n * val)), n - tested - 1) if val and n - tested > 1 else 0
    return {"test": tested, "val": held, "train": n - tested - held}


def _refuse_too_few(of_class: dict[str, set[str]], least: int) -> None:
    if len(of_class) < 2:
        only = next(iter(of_class), "none")
        raise BreedsError(f"Training needs photos of at least two classes; the only one here is {only}.")
    few = sorted(label for label, members in of_class.items() if len(members) < least)
    if few:
        raise BreedsError(
            f"Each class needs at least {least} different photos to be split; too few of "
            f"{', '.join(few)}: add photos, or leave the class out with --classes."
        )


def _refuse_empty_part(of_class: dict[str, set[str]], part: dict[str, str]) -> None:
    for label, members in of_class.items():
        counts = Counter(part[key] for key in members)
        if not counts["train"]:
            raise BreedsError(
                f"The split leaves {label} without a training photo; change the split that the data names, "
                f"or the corrections."
            )

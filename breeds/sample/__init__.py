"""The built-in sample: photos of ten invented breeds, drawn by the project itself from a seed.

Nobody's photographs are needed to try Breeds out, and nobody can mistake these for real breeds.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from breeds.files import write_aside
from breeds.sample.drawing import BREEDS, Breed, draw

HOLIDAY = 1_000_000  # indexes from here on are never training photos


def _save(path: Path, breed: Breed, index: int, seed: int) -> None:
    """Draw a photo unless it is there; what stands under its name is always whole."""
    if path.exists():
        return
    with write_aside(path) as aside:
        draw(breed, index, seed).save(aside, "JPEG", quality=90)


def write_samples(folder: Path, per_breed: int = 30, seed: int = 0) -> int:
    """Write the training photos, as ``folder/BREED/NN.jpg``, except those already there.

    Parameters
    ----------
    folder
        Where to; made if need be.
    per_breed
        How many photos of each breed.
    seed
        Which set of photos; it does not touch photos already there.

    Returns
    -------
    int
        How many photos are there now.
    """
    for breed in BREEDS:
        for index in range(1, per_breed + 1):
            _save(folder / breed.name / f"{index:02d}.jpg", breed, index, seed)
    return sum(1 for breed in BREEDS for _ in (folder / breed.name).glob("*.jpg"))


def write_holiday(folder: Path, count: int = 12, seed: int = 0) -> int:
    """Write photos to predict, as ``folder/holiday_NN.jpg``: unlabelled, none a training photo.

    Parameters
    ----------
    folder
        Where to; made if need be.
    count
        How many photos; breeds take turns in a shuffled order.
    seed
        Which set of photos; it does not touch photos already there.

    Returns
    -------
    int
        How many photos are there now.
    """
    order = np.random.default_rng([seed, HOLIDAY]).permutation(len(BREEDS)).tolist()
    for k in range(count):
        breed = BREEDS[order[k % len(order)]]
        _save(folder / f"holiday_{k + 1:02d}.jpg", breed, HOLIDAY + k, seed)
    return sum(1 for _ in folder.glob("holiday_*.jpg"))

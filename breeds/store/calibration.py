"""Which photos int8 is calibrated on: fixed when a store begins, and recorded beside its shards."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from breeds.engines.convert import CALIBRATION_PHOTOS
from breeds.errors import BreedsError, PhotoError
from breeds.files import write_aside
from breeds.photos import key_of, read
from breeds.recipe import Recipe
from breeds.store import Store, Table, list_shards, shard_folder


def calibrated(
    recipe: Recipe, old: Store | None, stores: Sequence[Path], table: Table
) -> tuple[Recipe, list[str] | None]:
    """Fix the photos that int8 is calibrated on: those the store began with, or the first by key.

    Their keys are recorded beside the shards, in a file named by their digest.

    Parameters
    ----------
    old
        The store as it is, or the one whose sample it shares, as a view shares that of the photos.
    stores
        Where the sample may be recorded: the store to write, and the one whose sample it shares.
    table
        The photos at hand, whose keys have just been computed.

    Returns
    -------
    recipe, sample
        The recipe with its calibration, and the photos' paths, or None if they are not all at hand.
    """
    folders = list(dict.fromkeys(shard_folder(store) for store in stores))
    recorded = [path for folder in folders for path in sorted(folder.glob("calibration-*.txt"))]
    if old:
        chosen = [path for path in recorded if path.name == f"calibration-{old.recipe.calibration}.txt"]
        if not chosen:
            return replace(recipe, calibration=old.recipe.calibration), None
    else:
        # A list that no feature rests on yet, of a run that was stopped, binds nobody.
        chosen = recorded[:1] if list_shards(folders[0]) else []
    if chosen:
        keys = chosen[0].read_text(encoding="ascii").split()
    else:
        keys = sorted(set(table.key))[:CALIBRATION_PHOTOS]
    text = "\n".join(keys) + "\n"
    digest = hashlib.sha256(text.encode()).hexdigest()
    if not chosen:
        for path in folders[0].glob("calibration-*.txt"):
            path.unlink()
        with write_aside(folders[0] / f"calibration-{digest}.txt") as aside:
            aside.write_text(text, encoding="ascii")
    return replace(recipe, calibration=digest), _paths(keys, table)


def recorded_sample(store: Path, recipe: Recipe) -> list[str] | None:
    """Return the photos that an int8 recipe was calibrated on, if they are still as they were.

    Parameters
    ----------
    store
        The store that the model was trained on.
    """
    try:
        listed = shard_folder(store) / f"calibration-{recipe.calibration}.txt"
        keys = listed.read_text(encoding="ascii").split()
        paths = _paths(keys, Store.open(store).table)
        unchanged = paths and all(key_of(read(path)) == key for key, path in zip(keys, paths, strict=True))
    except (OSError, ValueError, BreedsError, PhotoError):
        return None
    return paths if unchanged else None


def _paths(keys: Sequence[str], table: Table) -> list[str] | None:
    path_of = dict(zip(table.key, table.path, strict=True))
    if not all(key in path_of for key in keys):
        return None
    return [os.path.join(table.root, path_of[key]) for key in keys]

"""Which photos int8 is calibrated on: fixed when a store begins, and recorded beside its shards."""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from pathlib import Path

from breeds.backbone import Recipe
from breeds.durable import write_aside
from breeds.engines.network import CALIBRATION_PHOTOS
from breeds.photos import Listing
from breeds.store import Store, Table, shard_folder


def calibrated(
    recipe: Recipe, old: Store | None, store: Path, table: Table, listing: Listing
) -> tuple[Recipe, list[str] | None]:
    """Fix the photos that int8 is calibrated on: those this store began with, or the first by key.

    Their keys are recorded beside the shards, in a file named by their digest.
    """
    folder = shard_folder(store)
    recorded = sorted(folder.glob("calibration-*.txt"))
    wanted = f"calibration-{old.recipe.calibration}.txt" if old else ""
    chosen = [path for path in recorded if path.name == wanted] or recorded[:1]
    if old and not (chosen and chosen[0].name == wanted):
        return replace(recipe, calibration=old.recipe.calibration), None
    if chosen:
        keys = chosen[0].read_text(encoding="ascii").split()
    else:
        keys = sorted(set(table.key))[:CALIBRATION_PHOTOS]
    text = "\n".join(keys) + "\n"
    digest = hashlib.sha256(text.encode()).hexdigest()
    if not chosen:
        with write_aside(folder / f"calibration-{digest}.txt") as aside:
            aside.write_text(text, encoding="ascii")
    path_of = dict(zip(table.key, table.path, strict=True))
    complete = all(key in path_of for key in keys)
    sample = [os.path.join(listing.root, path_of[key]) for key in keys] if complete else None
    return replace(recipe, calibration=digest), sample

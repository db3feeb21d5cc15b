"""Photos to features: what is missing, in which order, beside the engine; bad photos set aside."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from tqdm import tqdm

from breeds.engines.backbones import BACKBONES, LARGEST_SIZE, XCEPTION, Backbone
from breeds.engines.choose import open_engine, recipe_precision
from breeds.engines.pipeline import Pipeline, run_ahead
from breeds.engines.weights import Weights, get_weights
from breeds.errors import BreedsError, PhotoError
from breeds.files import check_writable, hold
from breeds.photos import ORIGINAL, Listing, Photo, find_photos, key_of, read
from breeds.recipe import Recipe
from breeds.store import FeatureIndex, ShardWriter, Store, Table, assemble, check_recipe, shard_folder
from breeds.store.calibration import calibrated


@dataclass(frozen=True)
class Summary:
    """What an extraction did: ``photos == features + len(quarantined)``, always."""

    store: Path
    recipe: Recipe
    photos: int
    features: int
    new: int
    changed: bool
    duplicates: int
    ignored: int
    missing: int
    quarantined: list[tuple[str, str]]
    damaged: list[Path]
    seconds: float


def extract(
    data: Path,
    store: Path,
    weights: str = "imagenet",
    labels: Path | None = None,
    top: int | None = None,
    classes: Sequence[str] | None = None,
    backbone: str = XCEPTION.name,
    view: str = ORIGINAL,
    resize: str = "stretch",
    size: int | None = None,
    precision: str = "fp32",
    engine: str = "auto",
    workers: int = 2,
    trust_mtime: bool = False,
    plain: Path | None = None,
) -> Summary:
    """Bring the store up to date with the photos of `data`; only what is missing is computed.

    Parameters
    ----------
    data, labels, top, classes
        Which photos, as in `breeds.photos.find_photos`.
    store
        The HDF5 file to write; its shards go to the folder ``NAME.shards`` beside it.
    weights
        ``imagenet``, ``random`` or a file's path.
    backbone
        A name in `breeds.engines.backbones.BACKBONES`.
    view
        Which variant of the photos to extract, as in `breeds.photos.decode`.
    resize
        How a photo becomes a square, one of `breeds.photos.RESIZES`.
    size
        Width and height of the network's input; None is the backbone's own.
    precision, engine
        One of `breeds.engines.choose.PRECISIONS` and one of `breeds.engines.choose.ENGINES`.
    workers
        Threads that read and decode, or processes beside a GPU.
    trust_mtime
        Take a file whose path, size and time have not changed for unchanged, without reading it.
    plain
        For a view: the store of the photos as they are, whose int8 calibration it shares.

    Raises
    ------
    BreedsError
        If a user's mistake leaves nothing to do, or another process writes the store.
    """
    started = time.perf_counter()
    check_writable(store)
    listing = find_photos(data, labels, top, classes)
    found = get_weights(weights, BACKBONES[backbone])
    recipe = _recipe(BACKBONES[backbone], found, size, resize, recipe_precision(engine, precision), view)
    old = Store.open(store) if store.exists() else None
    if old is not None:
        check_recipe(store, old.recipe, replace(recipe, calibration=old.recipe.calibration))
    table = identify(listing, old.table if old and trust_mtime else None, workers)
    if found.path is not None:
        table.weights_path = os.path.abspath(found.path)
    _refuse_conflicts(table)
    _refuse_nothing_left(listing, table)

    with hold(store.with_name(f".{store.stem}.lock"), str(store)):
        old = Store.open(store) if store.exists() else None  # another run may have just finished
        sample = None
        if recipe.precision == "int8":
            begun = old or (Store.open(plain) if plain and plain.exists() else None)
            recipe, sample = calibrated(recipe, begun, [store, plain or store], table)
        index = FeatureIndex(recipe)
        if old is not None:
            check_recipe(store, old.recipe, recipe)
            index.add_file(store, old.table.key)
        if any(key not in index for key in table.key):
            index.add_shards(shard_folder(store))
        with Pipeline(lambda: open_engine(recipe, lambda: found, engine, sample), workers) as pipeline:
            new = _extract_missing(listing.root, table, index, shard_folder(store), pipeline)
        _refuse_nothing_left(listing, table)
        changed = old is None or old.table != table
        if changed:
            assemble(store, table, index, pipeline.name or (old.engine if old else ""))
    return Summary(
        store=store,
        recipe=recipe,
        photos=len(listing.photos),
        features=len(table),
        new=new,
        changed=changed,
        duplicates=len(table) - len(set(table.key)),
        ignored=listing.ignored,
        missing=listing.missing,
        quarantined=table.quarantine,
        damaged=index.damaged,
        seconds=time.perf_counter() - started,
    )


def _recipe(
    backbone: Backbone, weights: Weights, size: int | None, resize: str, precision: str, view: str
) -> Recipe:
    size = size or backbone.size
    if not backbone.smallest <= size <= LARGEST_SIZE:
        raise BreedsError(
            f"--size {size}: {backbone.name} takes {backbone.smallest} to {LARGEST_SIZE} pixels."
        )
    return Recipe(backbone.name, weights.name, weights.sha256, size, resize, precision, view=view)


def identify(listing: Listing, trusted: Table | None, workers: int) -> Table:
    """Compute every photo's key; those that cannot be read go to the table's quarantine.

    Parameters
    ----------
    trusted
        An older table whose keys are taken over where path, size and time are the same.
    """
    table = Table(root=os.path.abspath(listing.root))
    known = {}
    if trusted is not None and trusted.root == table.root:
        rows = zip(trusted.path, trusted.size, trusted.mtime_ns, strict=True)
        known = dict(zip(rows, trusted.key, strict=True))

    def look(photo: Photo) -> tuple[str, int, int] | PhotoError:
        path = listing.full_path(photo)
        try:
            status = os.stat(path)
            stamp = (photo.path, status.st_size, status.st_mtime_ns)
            return known.get(stamp) or key_of(read(path)), status.st_size, status.st_mtime_ns
        except PhotoError as error:
            return error
        except (OSError, ValueError) as error:
            return PhotoError(f"cannot be read: {getattr(error, 'strerror', None) or error}")

    photos = tqdm(listing.photos, desc="looking", unit=" photos", disable=None, leave=False, delay=1)
    with ThreadPoolExecutor(workers) as pool:
        for photo, seen in run_ahead(pool, look, photos, window=64):
            if isinstance(seen, PhotoError):
                table.quarantine.append((photo.path, str(seen)))
                continue
            for column, value in zip(
                (table.key, table.size, table.mtime_ns, table.path, table.label, table.split),
                (*seen, photo.path, photo.label, photo.split),
                strict=True,
            ):
                column.append(value)  # type: ignore[attr-defined]
    return table


def _extract_missing(root: Path, table: Table, index: FeatureIndex, folder: Path, pipeline: Pipeline) -> int:
    """Compute and commit what `index` lacks; photos that cannot be decoded leave the table."""
    missing: dict[str, str] = {}
    for key, path in zip(table.key, table.path, strict=True):
        if key not in index:
            missing.setdefault(key, path)
    if not missing:
        return 0
    bad: dict[str, str] = {}
    writer = ShardWriter(folder, index.recipe, index)
    photos = ((key, os.path.join(root, path)) for key, path in missing.items())
    progress = tqdm(total=len(missing), desc="extracting", unit=" photos", disable=None, smoothing=0.05)
    try:
        with progress:
            for (key, _), feature in pipeline.features(photos, index.recipe):
                if isinstance(feature, PhotoError):
                    bad[key] = str(feature)
                else:
                    writer.add(key, missing[key], feature, pipeline.name)
                progress.update()
    finally:
        writer.commit(pipeline.name)
    _set_aside(table, bad)
    return len(missing) - len(bad)


def _set_aside(table: Table, bad: dict[str, str]) -> None:
    """Move the rows whose keys are in `bad` from the table's columns to its quarantine."""
    table.quarantine += [
        (path, bad[key]) for path, key in zip(table.path, table.key, strict=True) if key in bad
    ]
    table.quarantine.sort()
    keep = [key not in bad for key in table.key]
    for name in ("key", "path", "label", "split", "size", "mtime_ns"):
        column = getattr(table, name)
        setattr(table, name, [value for value, kept in zip(column, keep, strict=True) if kept])


def _refuse_conflicts(table: Table) -> None:
    """Refuse the same photo under two labels or in two parts of the split."""
    first: dict[str, int] = {}
    conflicts = []
    for row, key in enumerate(table.key):
        other = first.setdefault(key, row)
        for what, column in (("label", table.label), ("split", table.split)):
            if column[row] != column[other]:
                conflicts.append(
                    f"{table.path[other]} ({what} {column[other] or 'none'}) and "
                    f"{table.path[row]} ({what} {column[row] or 'none'})"
                )
    if conflicts:
        more = f", and {len(conflicts) - 5} more pairs" if len(conflicts) > 5 else ""
        raise BreedsError(
            f"The same photo, byte for byte, is there with two answers: {'; '.join(conflicts[:5])}"
            f"{more}; remove or relabel one of each pair."
        )


def _refuse_nothing_left(listing: Listing, table: Table) -> None:
    if len(table) == 0:
        path, reason = table.quarantine[0]
        raise BreedsError(
            f"None of the {len(listing.photos)} photos in {listing.root} can be used; "
            f"the first, {path}: {reason}."
        )

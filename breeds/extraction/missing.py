"""The features that are missing: computed in order, committed in the journal, bad photos rejected."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from breeds.backbones.pipeline import Pipeline
from breeds.errors import GoneError, PhotoError
from breeds.extraction.table import PhotoOf
from breeds.features import FeatureLookup, Table, Writer
from breeds.features.columns import Keys, Rows
from breeds.photos.photo import Photo
from breeds.text import progress

if TYPE_CHECKING:
    from breeds.backbones.ray import RayPipeline


def extract_missing(
    table: Table, lookup: FeatureLookup, folder: Path, pipeline: Pipeline | RayPipeline, photo_of: PhotoOf
) -> tuple[Table, int]:
    """Compute and commit what `lookup` lacks; return the table without what cannot be used."""
    rows = table.key.first_rows()
    rows = rows[lookup.lacks(table.key.take(rows))]
    if not len(rows):
        return table, 0
    bad: dict[str, str] = {}
    writer = Writer(folder, lookup.config)
    with progress(total=len(rows), desc="extracting", unit=" photos", smoothing=0.05) as bar:
        wanted = len(rows)
        while len(rows):
            gone = _compute(table, rows, photo_of, writer, pipeline, bad, bar)
            rows = _twins(table, gone)
    for shard, keys in writer.committed:
        lookup.add_shard(shard, keys)
    return _set_aside(table, bad), wanted - len(bad)


def _compute(
    table: Table,
    rows: Rows,
    photo_of: PhotoOf,
    writer: Writer,
    pipeline: Pipeline | RayPipeline,
    bad: dict[str, str],
    bar: Any,
) -> list[int]:
    """Compute and commit the photos of `rows`; put the others' reasons into `bad`, by key.

    Returns
    -------
    list of int
        The rows of those whose files were removed or changed meanwhile.
    """
    gone = []
    under_way: dict[str, int] = {}  # a cluster gives them back as they are done

    def photos() -> Iterator[tuple[str, Photo]]:
        for row in rows:
            under_way[key := table.key[row]] = row
            yield key, photo_of(row)

    try:
        for (key, _), feature in pipeline.features(photos(), writer.config):
            row = under_way.pop(key)
            bad.pop(key, None)
            if isinstance(feature, PhotoError):
                bad[key] = str(feature)
                gone += [int(row)] if isinstance(feature, GoneError) else []
                writer.commit_if_due(pipeline.name)
            else:
                writer.add(key, feature, pipeline.name)
            bar.update()
    finally:
        writer.commit(pipeline.name)
    assert not under_way
    return gone


def _twins(table: Table, gone: list[int]) -> Rows:
    """Return, for each of these rows, the next one with the same photo, byte for byte, if there is one."""
    packed = table.key.packed
    later = (row + 1 + np.flatnonzero(packed[row + 1 :] == packed[row])[:1] for row in gone)
    return np.concatenate([np.zeros(0, dtype=np.intp), *later])


def _set_aside(table: Table, bad: dict[str, str]) -> Table:
    """Return the table with the rows whose keys are in `bad` moved to its rejected photos."""
    out = np.isin(table.key.packed, Keys.of(bad).packed)
    reasons = [(table.path[row], bad[table.key[row]]) for row in np.flatnonzero(out)]
    kept = table.take(np.flatnonzero(~out))
    return replace(kept, rejected=sorted(table.rejected + reasons))

"""Shards: the small immutable HDF5 files in which extraction commits its features.

A shard's name ends in the SHA-256 of its bytes, so it carries its own checksum; it is written
aside, fsynced and renamed, and never opened for writing again.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from breeds.errors import BreedsError
from breeds.files import commit, temporary_beside
from breeds.recipe import Recipe
from breeds.store import hdf5

#: A killed run loses at most this many photos' features, and those that are under way in the engine.
SHARD_ROWS = 128
_NAME = re.compile(r"(\d{6})-([0-9a-f]{64})\.h5")


def shard_folder(store: Path) -> Path:
    """Return the folder beside `store` that holds its shards."""
    return store.with_suffix(".shards")


def list_shards(folder: Path) -> list[Path]:
    """Return the committed shards of `folder`, oldest first."""
    return sorted(path for path in folder.glob("*.h5") if _NAME.fullmatch(path.name))


def is_intact(shard: Path) -> bool:
    """Say whether a shard's bytes still match the checksum in its name."""
    match = _NAME.fullmatch(shard.name)
    try:
        with open(shard, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return False
    return match is not None and digest == match[2]


class FeatureIndex:
    """Where the feature of each key is: in which file, in which row.

    All files hold features of one recipe. Damaged shards are renamed to ``*.damaged`` and listed
    in `damaged`: their photos count as not extracted.

    Parameters
    ----------
    recipe
        The recipe that every file must have.
    """

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.damaged: list[Path] = []
        self._place: dict[str, tuple[Path, int]] = {}

    def __contains__(self, key: str) -> bool:
        return key in self._place

    def add_file(self, path: Path, keys: Sequence[str]) -> None:
        """Count in the features of a file whose row i is of ``keys[i]``."""
        for row, key in enumerate(keys):
            self._place.setdefault(key, (path, row))

    def add_shards(self, folder: Path) -> None:
        """Count in every intact shard of `folder`.

        Raises
        ------
        BreedsError
            If a shard is of another recipe.
        """
        for shard in list_shards(folder):
            if not is_intact(shard):
                shard.rename(shard.with_suffix(".damaged"))
                self.damaged.append(shard)
                continue
            with hdf5.open_hdf5(shard) as file:
                check_recipe(shard, hdf5.read_recipe(file), self.recipe)
                self.add_file(shard, hdf5.read_keys(file, rows=len(hdf5.features(file))))

    def read(self, keys: Sequence[str]) -> NDArray[np.float32]:
        """Return the features of `keys`, float32 (len(keys), width), in their order.

        Raises
        ------
        BreedsError
            If a file is damaged.
        """
        rows_of: dict[Path, list[int]] = {}
        for position, key in enumerate(keys):
            rows_of.setdefault(self._place[key][0], []).append(position)
        result: NDArray[np.float32] | None = None
        for path, positions in rows_of.items():
            rows = np.array([self._place[keys[position]][1] for position in positions])
            with hdf5.open_hdf5(path) as file:
                if not hdf5.holds(file, [keys[position] for position in positions], rows):
                    raise BreedsError(f"{path} was replaced while it was being read; run the command again.")
                block = hdf5.read_rows(hdf5.features(file), rows)
            if result is None:
                result = np.empty((len(keys), block.shape[1]), dtype=np.float32)
            result[positions] = block
        if result is None:
            raise ValueError("no keys to read")
        return result


class ShardWriter:
    """Collects features and commits them as shards; `commit` commits the rest.

    Parameters
    ----------
    folder
        Where the shards go; the caller holds the lock.
    recipe, index
        The recipe of the features, and the index that learns where they are.
    """

    def __init__(self, folder: Path, recipe: Recipe, index: FeatureIndex) -> None:
        self._folder = folder
        self._recipe = recipe
        self._index = index
        self._rows: dict[str, tuple[str, NDArray[np.float32]]] = {}
        names = [_NAME.fullmatch(path.with_suffix(".h5").name) for path in folder.glob("*-*.*")]
        self._number = 1 + max((int(name[1]) for name in names if name), default=0)

    def add(self, key: str, path: str, feature: NDArray[np.float32], engine: str) -> None:
        """Add the feature of one photo, float32 (width,); every `SHARD_ROWS` of them are committed."""
        if key not in self._index:
            self._rows[key] = (path, feature)
        if len(self._rows) == SHARD_ROWS:
            self.commit(engine)

    def commit(self, engine: str) -> None:
        """Commit what has been added since the last shard."""
        if not self._rows:
            return
        keys = list(self._rows)
        block = np.stack([feature for _, feature in self._rows.values()])
        with temporary_beside(self._folder / "shard.h5") as aside:
            with hdf5.create_hdf5(aside) as file:
                hdf5.write_provenance(file, self._recipe, engine)
                hdf5.write_keys(file, keys)
                hdf5.write_text(file, "path", [path for path, _ in self._rows.values()])
                hdf5.create_features(file, *block.shape)[:] = block
            with h5py.File(aside, "r") as file:
                if not np.array_equal(hdf5.features(file)[:], block, equal_nan=True):
                    raise OSError("the disk gave back other bytes than were written")
            with open(aside, "rb") as raw:
                digest = hashlib.file_digest(raw, "sha256").hexdigest()
            shard = self._folder / f"{self._number:06d}-{digest}.h5"
            commit(aside, shard)
        self._index.add_file(shard, keys)
        self._number += 1
        self._rows.clear()


def check_recipe(path: Path, found: Recipe, wanted: Recipe) -> None:
    """Refuse features of another recipe, naming both.

    Raises
    ------
    BreedsError
        If the recipes differ.
    """
    if found.digest != wanted.digest:
        raise BreedsError(
            f"{path} holds features of another recipe ({found}) than the one asked for ({wanted}); "
            f"name another --store, or ask for the same recipe."
        )

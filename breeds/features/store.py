"""The store: the features of photos by one network, and what is known of the photos, in one HDF5 file."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property, partial
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import h5py
import numpy as np
from numpy.typing import NDArray

from breeds.config import FeatureConfig, Network
from breeds.errors import BreedsError
from breeds.features import hdf5
from breeds.features.columns import Keys, Names, Rows, Texts
from breeds.features.corrections import Corrections, corrections_path
from breeds.features.datasets import FORMAT, checked, gather, identity, read_column, read_keys
from breeds.features.journal import journal_folder, list_networks, list_shards, load_network, read_shard
from breeds.features.table import COLUMNS, Table, Unread
from breeds.text import as_here

if TYPE_CHECKING:
    import pandas as pd

#: No network gives numbers of this size, and no arithmetic of a head survives them.
LARGEST_FEATURE = 1e9

#: The kind of a column's values in the file, and what makes a column of them.
_COLUMNS: dict[str, tuple[str, Callable[[Iterator[NDArray[Any]]], Any]]] = {
    "key": ("S", read_keys),
    "path": ("S", Texts.of_padded),
    "label": ("S", Names.of_padded),
    "split": ("S", Names.of_padded),
    "size": ("i", lambda blocks: np.concatenate([np.zeros(0, dtype=np.int64), *blocks])),
    "mtime_ns": ("i", lambda blocks: np.concatenate([np.zeros(0, dtype=np.int64), *blocks])),
    "unused/key": ("S", read_keys),
}


class Store:
    """The features of photos and what is known of the photos, as `breeds.extract` has written them.

    Opening reads no column and no feature; each is read, and compared with its checksum, when it is first
    asked for.

    Parameters
    ----------
    *paths
        The store's file, such as ``features/photos.h5``. Of several files of the same photos, by different
        networks, the features are put beside each other; labels are those of the first.
    corrected
        Read people's corrections of the labels, ``NAME.corrections.csv`` beside the (first) file; if not,
        `corrected` is `table`.

    Attributes
    ----------
    path, config, engine, created, sha256
        The (first) file, what decides its features, what computed them last, when it was written, and its
        identity.
    table
        What is known of the photos, with labels as they came; these decide which photos are for testing.
    also
        The other stores.
    corrections
        Those that were read; none without `corrected`.

    Raises
    ------
    BreedsError
        If a file is missing, no store, or damaged.

    Examples
    --------
    >>> import breeds
    >>> store = breeds.Store("features/photos.h5")
    >>> len(store), store.features().shape, store.features().dtype
    (30, (30, 2048), dtype('float32'))
    >>> store.to_pandas()["label"].nunique(), str(store.config)[:31]
    (5, 'xception 96×96 stretch fp32, we')
    """

    def __init__(self, *paths: str | os.PathLike[str], corrected: bool = True) -> None:
        if not paths:
            raise TypeError("name the store's file")
        self.path = Path(paths[0])
        with hdf5.open_hdf5(self.path) as file:
            self._read(file)
        self.also = tuple(Store(path, corrected=False) for path in paths[1:])
        self.corrections = Corrections.load(corrections_path(self.path)) if corrected else Corrections()

    def _read(self, file: h5py.File) -> None:
        """Read everything but columns and features."""
        if not hdf5.has(file, "format"):
            raise hdf5.ForeignError("it is an HDF5 file of something else")
        if (found := hdf5.read_attribute(file, "format")) != FORMAT:
            raise hdf5.ForeignError(f"its format is {found!r}, and this version reads {FORMAT!r}")
        self.config = hdf5.read_config(file)
        self.engine, self.created = (hdf5.read_attribute(file, name) for name in ("engine", "created"))
        self.about, self.sha256 = read_about(file, self.config)
        rows = self.about["rows"]
        rejected = _read_rejected(file, self.about["digests"])
        columns = {name: self._unread(file, name, rows) for name in COLUMNS}
        self.table = Table(self.about["root"], self.about["weights_path"], **columns, rejected=rejected)
        if len(hdf5.features_of(file)) != rows:
            raise hdf5.DamagedError("it has not as many features as photos")

    def _unread(self, file: h5py.File, name: str, rows: int) -> Unread:
        """Make sure that a column can be one, and return what reads it."""
        hdf5.dataset(file, name, rows, _COLUMNS[name][0])
        return Unread(rows, partial(self._column, name, rows))

    def _column(self, name: str, rows: int) -> Any:
        kind, make = _COLUMNS[name]
        with self.opened() as file:
            column = hdf5.dataset(file, name, rows, kind)
            return make(read_column(column, self.about["digests"].get(name, "")))

    def __len__(self) -> int:
        return len(self.table)

    def __repr__(self) -> str:
        configs = " + ".join(str(config) for config, _ in self.parts())
        return f"<breeds.Store {str(self.path)!r}: {len(self)} photos, {configs}>"

    def like(self, **changes: Any) -> Self:
        """Return the store with other values of some attributes, such as its `table`."""
        result = copy.copy(self)
        vars(result).pop("corrected", None)
        vars(result).update(changes)
        return result

    def with_corrections(self, corrections: Corrections) -> Self:
        """Return the store with these corrections, instead of those that it has."""
        return self.like(corrections=corrections)

    @cached_property
    def corrected(self) -> Table:
        """The table with labels as corrected: "" for a photo that is left out."""
        return self.corrections.apply(self.table)

    @property
    def rejected(self) -> list[tuple[str, str]]:
        """Path and reason of each photo that could not be used.

        Photos asked for = ``len(store)`` + ``len(store.rejected)``, always.
        """
        return self.table.rejected

    def parts(self) -> list[tuple[FeatureConfig, str]]:
        """Return the configs whose features make up a row, in order, each with its weights' path."""
        return [(store.config, store.table.weights_path) for store in (self, *self.also)]

    def to_pandas(self) -> pd.DataFrame:
        """Return a table with a row for each photo, in the order of `table`.

        Returns
        -------
        pandas.DataFrame
            ``key``, the SHA-256 of the photo's bytes in 64 hexadecimal digits; ``path``, from the folder
            that was extracted; ``label``, "" where there is none or a correction leaves the photo out;
            ``split``, the part that the data names (train, val, test), mostly "": all text (object). Then
            the features, float32, in columns ``feature_0`` and so on. The index counts from 0.

        Raises
        ------
        BreedsError
            As `features` does.
        """
        import pandas as pd

        features = self.features()
        about = pd.DataFrame(
            {name: list(getattr(self.corrected, name)) for name in ("key", "path", "label", "split")},
            dtype=object,
        )  # names of files may be no Unicode, which pandas's own text cannot hold
        numbers = pd.DataFrame(features, columns=[f"feature_{i}" for i in range(features.shape[1])])
        return pd.concat([about, numbers], axis=1)

    def features(self, rows: Rows | None = None) -> NDArray[np.float32]:
        """Return the features of `rows` (all by default), float32 (n, width); without unit.

        Raises
        ------
        BreedsError
            If the file is damaged, or was replaced since it was opened, or a feature is not finite or
            absurdly large.
        """
        found = self._sound(None if rows is None else np.asarray(rows, dtype=np.intp))
        if not self.also:
            return found
        keys = self.table.key if rows is None else self.table.key.take(rows)
        return np.hstack([found, *(other.features_of(keys) for other in self.also)])

    def blocks(self, size: int) -> Iterator[NDArray[np.float32]]:
        """Yield the features of all rows, in order, `size` rows in memory at a time: float32 (size, width).

        Raises
        ------
        BreedsError
            As `features` does.
        """
        columns = [(self, np.arange(len(self)))]
        columns += [(other, other.rows_of(self.table.key)) for other in self.also]
        for start in range(0, len(self), size):
            yield np.hstack([one._sound(rows[start : start + size]) for one, rows in columns])

    def features_of(self, keys: Sequence[str]) -> NDArray[np.float32]:
        """Return the features of the photos with these keys, float32 (len(keys), width).

        Raises
        ------
        BreedsError
            If the store lacks one of them.
        """
        return self.features(self.rows_of(keys))

    def rows_of(self, keys: Sequence[str]) -> Rows:
        """Return the row of each of these keys, intp (len(keys),).

        Raises
        ------
        BreedsError
            If the store lacks one of them.
        """
        rows = self.table.key.rows_of(Keys.of(keys))
        missing = int((rows < 0).sum())
        if missing:
            raise BreedsError(
                f"{self.path} lacks {missing} of the {len(keys)} photos asked for; extract the same "
                f"photos into every store."
            )
        return rows

    def width(self) -> int:
        """Return how many features a photo has in this store alone.

        Raises
        ------
        BreedsError
            If it cannot be read just now, or was replaced since it was opened.
        """
        with self.opened() as file:
            return int(hdf5.features_of(file).shape[1])

    def _sound(self, rows: Rows | None) -> NDArray[np.float32]:
        """Return the features of this store alone, refused if they are no numbers of a network."""
        found = self.read(rows)
        largest = np.maximum(found.max(axis=1, initial=0), -found.min(axis=1, initial=0))
        bad = np.flatnonzero(~(largest < LARGEST_FEATURE))  # also what is not a number
        if len(bad):
            row = bad[0] if rows is None else rows[bad[0]]
            raise BreedsError(
                f"{self.path} has features that are not finite numbers, or as large as none are, first those "
                f"of {self.table.path[row]}; extract again, into another --store, with sound weights."
            )
        return found

    def read(self, rows: Rows | None = None) -> NDArray[np.float32]:
        """Return the features of this store alone as they are in the file, compared with their checksums."""
        with self.opened() as file:
            return gather(file, self.about["digests"]["block_sha256"], rows)

    @cached_property
    def unused(self) -> Keys:
        """Keys of photos whose features are in the file, though they are not among the photos now."""
        if not self.about["unused"]:
            return Keys.of([])
        keys: Keys = self._column("unused/key", self.about["unused"])
        return keys

    def read_unused(self, rows: Rows) -> NDArray[np.float32]:
        """Return features of photos that are not among the photos now, by their row in `unused`."""
        with self.opened() as file:
            digest = self.about["digests"].get("unused/block_sha256")
            return gather(hdf5.subgroup(file, "unused"), digest, rows)

    def networks(self) -> dict[str, Network]:
        """Return the int8 networks that the features rest on, by digest.

        Raises
        ------
        BreedsError
            If one is not there, or cannot be read.
        """
        parts = [part for part in (self, *self.also) if part.config.precision == "int8"]
        found = {}
        for part in parts:
            with part.opened() as file:
                found[part.config.calibration] = _read_network(file, part.config)
        return found

    @contextmanager
    def opened(self) -> Iterator[h5py.File]:
        """Open the file again, if it is still the same store."""
        with hdf5.open_hdf5(self.path) as file:
            if not hdf5.has(file, "sha256") or hdf5.read_attribute(file, "sha256") != self.sha256:
                raise hdf5.replaced(self.path)
            yield file


def read_about(file: h5py.File, config: FeatureConfig) -> tuple[dict[str, Any], str]:
    """Read what a store says of itself, with the SHA-256 of each part, and the identity that binds it all.

    Raises
    ------
    DamagedError
        If it is not what was written.
    """
    text, sha256 = hdf5.read_attribute(file, "about"), hdf5.read_attribute(file, "sha256")
    if sha256 != identity(text, config):
        raise hdf5.DamagedError("what it says of itself does not match its checksum")
    try:
        about: dict[str, Any] = as_here(json.loads(text))
        wanted = {"rows": int, "unused": int, "root": str, "weights_path": str, "digests": dict}
        if any(type(about[name]) is not kind for name, kind in wanted.items()) or about["rows"] < 0:
            raise ValueError
    except (ValueError, KeyError, TypeError, RecursionError):
        raise hdf5.DamagedError("what it says of itself cannot be read") from None
    return about, sha256


def _read_rejected(file: h5py.File, digests: dict[str, str]) -> list[tuple[str, str]]:
    names = ("rejected_path", "rejected_reason")
    columns = [read_column(hdf5.dataset(file, name, kind="S"), digests.get(name, "")) for name in names]
    texts = ((text for block in blocks for text in block.tolist()) for blocks in columns)
    found = []
    for path, reason in zip_longest(*texts):
        if not path or not reason:  # a file may claim any number of empty ones
            raise hdf5.DamagedError("rejected_path and rejected_reason do not fit each other")
        found.append((os.fsdecode(path), os.fsdecode(reason)))
    return found


def _read_network(file: h5py.File, config: FeatureConfig) -> Network:
    """Return the network of int8, which the config names."""
    group = hdf5.subgroup(file, "network")
    found = Network(*(hdf5.read_block(hdf5.dataset(group, name, kind="u")) for name in ("xml", "bin")))
    if found.digest != config.calibration:
        raise hdf5.DamagedError("its int8 network does not match its checksum")
    return found


def verify(path: Path) -> Iterator[str]:
    """Yield a sentence for everything in a store and its journal that does not match its checksum.

    Raises
    ------
    BreedsError
        If the store cannot be read at all.
    """
    folder = journal_folder(path)
    reads: dict[Path, Callable[[], object]] = {
        part: partial(read_shard, part) for part in list_shards(folder)
    }
    reads |= {part: partial(load_network, folder, key) for key, part in list_networks(folder).items()}
    for part, read in reads.items():
        try:
            if read() is None:
                yield f"{part}: the bytes do not match the checksum in the name"
        except OSError as error:
            yield f"{part}: cannot be read ({error.strerror or error}), which says nothing about its bytes"
    Store(path, corrected=False)  # raises if it is none
    with hdf5.open_hdf5(path) as file:  # once: it may be replaced meanwhile
        config = hdf5.read_config(file)
        for name, sha256 in read_about(file, config)[0]["digests"].items():
            folder_name, _, dataset_name = name.rpartition("/")
            group = hdf5.subgroup(file, folder_name) if folder_name else file
            reading = (
                checked(group, sha256)
                if dataset_name == "block_sha256"
                else read_column(hdf5.dataset(group, dataset_name), sha256)
            )
            try:
                for _ in reading:
                    pass
            except hdf5.DamagedError as error:
                yield f"{path}: {error}"
        if config.precision == "int8":
            _read_network(file, config)

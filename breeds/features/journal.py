"""The journal of a store: what runs have committed since its file was last written, in small immutable files.

The name of a shard ends in the SHA-256 of its bytes, so it carries its own checksum; it is written aside,
fsynced and renamed, and never opened for writing again. When the store's file holds what is in the shards,
they are deleted.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import re
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import save

from breeds.config import MOST_BYTES, FeatureConfig, Network
from breeds.errors import BreedsError
from breeds.features import hdf5
from breeds.features.columns import Keys
from breeds.features.datasets import key_blocks, read_keys, write_column
from breeds.files import (
    UnfitError,
    commit,
    open_regular,
    read_safetensors,
    sync_folder,
    temporary_beside,
    write_aside,
)

#: A killed run loses at most this many photos' features, and those that are under way in the engine,
SHARD_ROWS = 128
#: and no more than it computed in so many seconds.
SHARD_SECONDS = 10
_MOST_IN_SHARD = 2**26
_NETWORK_NAME = re.compile(r"network-([0-9a-f]{64})\.safetensors")
_NAME = re.compile(r"(\d{6,})-([0-9a-f]{64})\.h5")


def journal_folder(store: Path) -> Path:
    """Return the folder of a store's journal: beside the file itself where `store` is a link."""
    store = _itself(store)
    return store.parent / f"{store.stem}.journal"


def lock_file(store: Path) -> Path:
    """Return the file to hold while `store` is written, the same by whatever link it is reached."""
    store = _itself(store)
    return store.parent / f".{store.stem}.lock"


def _itself(store: Path) -> Path:
    return Path(os.path.realpath(store)) if store.is_symlink() else store


def list_shards(folder: Path) -> list[Path]:
    """Return the committed shards of `folder`, oldest first."""
    return sorted(path for path in folder.glob("*.h5") if _NAME.fullmatch(path.name))


def read_shard(shard: Path) -> bytes | None:
    """Return a shard's bytes if they match the checksum in its name, None if not.

    Raises
    ------
    OSError
        If they cannot be read, or another program has the shard open to write, which says nothing about them.
    """
    match = _NAME.fullmatch(shard.name)
    try:
        with open_regular(shard, _MOST_IN_SHARD) as file:
            data = file.read(_MOST_IN_SHARD + 1) or b""  # None from a file of the system's
            if match is not None and hashlib.sha256(data).hexdigest() == match[2]:
                return data
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except UnfitError:  # a shard is a small regular file
        pass
    except BlockingIOError:  # HDF5 writes into a file that is open to write, and locks it
        raise OSError(errno.EBUSY, "it is open in another program") from None
    return None


def open_shard(shard: Path, config: FeatureConfig) -> Keys | None:
    """Return the keys of a shard's rows; None if it is damaged.

    Raises
    ------
    BreedsError
        If it is of another config, or cannot be read just now.
    """
    try:
        data = read_shard(shard)
    except OSError as error:
        raise BreedsError(
            f"Cannot read {shard}: {error.strerror or error}; nothing was changed; look to the "
            f"file's permissions and the disk, and run the command again."
        ) from None
    if data is None:
        return None
    with hdf5.open_bytes(shard, data) as file:
        check_config(shard, hdf5.read_config(file), config)
        keys = hdf5.dataset(file, "key", len(hdf5.features_of(file)))
        return read_keys([hdf5.read_block(keys)])


def shard_features(shard: Path) -> NDArray[np.float32]:
    """Return all features of a shard, float32 (n, width).

    Raises
    ------
    BreedsError
        If it is not there any more, or not what it was.
    """
    with suppress(OSError):
        if (data := read_shard(shard)) is not None:
            with hdf5.open_bytes(shard, data) as file:
                return hdf5.read_block(hdf5.features_of(file))
    raise hdf5.replaced(shard)


def clear(folder: Path, shards: Iterable[Path]) -> None:
    """Delete what a store's file holds by now: these shards, and the network of int8."""
    gone = [*shards, *list_networks(folder).values()]
    for path in gone:
        path.unlink(missing_ok=True)
    if gone:
        sync_folder(folder)
    with suppress(OSError):
        folder.rmdir()  # if nothing is left in it


class Writer:
    """Collects features and commits them as shards; `commit` commits the rest.

    Parameters
    ----------
    folder
        The journal; the caller holds the store's lock.
    config
        Of the features.
    """

    def __init__(self, folder: Path, config: FeatureConfig) -> None:
        self.config = config
        #: What was committed, by shard.
        self.committed: list[tuple[Path, Keys]] = []
        self._folder = folder
        self._rows: dict[str, NDArray[np.float32]] = {}
        self._waiting_since = 0.0
        names = [_NAME.fullmatch(path.with_suffix(".h5").name) for path in folder.glob("*-*.*")]
        self._number = 1 + max((int(name[1]) for name in names if name), default=0)

    def add(self, key: str, feature: NDArray[np.float32], engine: str) -> None:
        """Add the feature of one photo, float32 (width,).

        Every `SHARD_ROWS` of them are committed, and what there is when the first of them has waited for
        `SHARD_SECONDS`.
        """
        if not self._rows:
            self._waiting_since = time.monotonic()
        self._rows[key] = feature
        if len(self._rows) == SHARD_ROWS:
            self.commit(engine)
        self.commit_if_due(engine)

    def commit_if_due(self, engine: str) -> None:
        """Commit what has been waiting for `SHARD_SECONDS`."""
        if self._rows and time.monotonic() - self._waiting_since >= SHARD_SECONDS:
            self.commit(engine)

    def commit(self, engine: str) -> None:
        """Commit what has been added since the last shard; from then on it survives a kill at any instant."""
        if not self._rows:
            return
        keys, block = Keys.of(self._rows), np.stack(list(self._rows.values()))
        with temporary_beside(self._folder / "shard.h5") as aside:
            with hdf5.write_hdf5(aside) as file:
                hdf5.write_provenance(file, self.config, engine)
                write_column(file, "key", key_blocks(keys), len(keys))
                file.create_dataset("features", data=block, dtype=np.float32)
            with open(aside, "rb") as raw:
                data = raw.read()
            with hdf5.open_bytes(aside, data) as file:
                if not np.array_equal(hdf5.features_of(file)[:], block, equal_nan=True):
                    raise OSError("the disk gave back other bytes than were written")
            shard = self._folder / f"{self._number:06d}-{hashlib.sha256(data).hexdigest()}.h5"
            commit(aside, shard)
        self.committed.append((shard, keys))
        self._number += 1
        self._rows.clear()


def check_config(path: Path, found: FeatureConfig, wanted: FeatureConfig) -> None:
    """Refuse features of another config, naming both.

    Raises
    ------
    BreedsError
        If the configs differ.
    """
    if found.digest != wanted.digest:
        raise BreedsError(
            f"{path} holds features of another config ({found}) than the one asked for ({wanted}); "
            f"name another --store, or ask for the same config."
        )


def network_file(folder: Path, digest: str) -> Path:
    """Return where a folder keeps the network of this digest."""
    return folder / f"network-{digest}.safetensors"


def list_networks(folder: Path) -> dict[str, Path]:
    """Return the files of the networks that a folder keeps, by the digests in their names."""
    names = {path: _NETWORK_NAME.fullmatch(path.name) for path in sorted(folder.glob("network-*"))}
    return {name[1]: path for path, name in names.items() if name}


def save_network(network: Network, folder: Path) -> None:
    """Write a network into `folder`, in a file named by its digest, whole or not at all.

    Raises
    ------
    BreedsError
        If it cannot be written.
    """
    with write_aside(network_file(folder, network.digest)) as aside:
        aside.write_bytes(save({"xml": network.xml, "bin": network.bin}))


def load_network(folder: Path, digest: str) -> Network | None:
    """Return the network of this digest out of `folder`, or None if it is not there, whole.

    Raises
    ------
    OSError
        If it is there and cannot be read just now.
    """
    try:
        arrays, _ = read_safetensors(network_file(folder, digest), MOST_BYTES)
        network = Network(arrays["xml"], arrays["bin"])
    except (FileNotFoundError, UnfitError, SafetensorError, ValueError, LookupError, AttributeError):
        return None
    return network if network.digest == digest else None

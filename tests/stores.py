"""Stores as files: sealed anew after a change, journals written, and what is committed."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import h5py
import numpy as np

from breeds.config import FeatureConfig
from breeds.features import FeatureLookup, Store, Writer, journal_folder, list_shards


def seal(file: h5py.File) -> None:
    """Give the features of a store, as they are now, the checksums that fit them."""
    features, config = file["features"][:], file.attrs["config"].decode()
    digests = b"".join(
        hashlib.sha256(features[start : start + 16].tobytes()).digest()
        for start in range(0, len(features), 16)
    )
    file["block_sha256"][:] = np.frombuffer(digests, dtype=np.uint8)
    about = json.loads(file.attrs["about"])
    about["digests"]["block_sha256"] = hashlib.sha256(digests).hexdigest()
    file.attrs["about"] = np.bytes_(json.dumps(about))
    bound = f"{json.dumps(about)} {config}"
    file.attrs["sha256"] = np.bytes_(hashlib.sha256(bound.encode()).hexdigest())


def write_journal(
    folder: Path, features: dict[str, np.ndarray], config: FeatureConfig, rows: int = 128
) -> Path:
    """Commit features to a journal, so many in each shard."""
    writer = Writer(folder, config)
    for number, (key, feature) in enumerate(features.items(), 1):
        writer.add(key, feature, "made up")
        if number % rows == 0:
            writer.commit("made up")
    writer.commit("made up")
    return folder


def as_journal(store: Path) -> Path:
    """Leave a store's features in its journal alone, as a run that is killed does."""
    found = Store(store)
    features = dict(zip(found.table.key, found.features(), strict=True))
    store.unlink()
    return write_journal(journal_folder(store), features, found.config)


def committed(store: Path) -> dict[str, bytes]:
    """Return what a store's file and its journal have, by key."""
    folder = journal_folder(store)
    if store.exists():
        config = Store(store).config
    elif shards := list_shards(folder):
        with h5py.File(shards[0]) as file:
            config = FeatureConfig.from_json(file.attrs["config"].decode())
    else:
        return {}
    lookup = FeatureLookup(store, config)
    keys = sorted(set(lookup.keys()))
    return {key: row.tobytes() for key, row in zip(keys, lookup.read(keys), strict=True)} if keys else {}

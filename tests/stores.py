"""Stores as files, sealed anew after a change."""

from __future__ import annotations

import hashlib

import h5py
import numpy as np


def seal(file: h5py.File) -> None:
    """Give the features of a store, as they are now, the checksums that fit them."""
    features, config = file["features"][:], file.attrs["config"].decode()
    digests = b"".join(
        hashlib.sha256(features[start : start + 16].tobytes()).digest()
        for start in range(0, len(features), 16)
    )
    del file["block_sha256"]
    file["block_sha256"] = np.frombuffer(digests, dtype=np.uint8)
    whole = hashlib.sha256(digests).hexdigest()
    bound = f"{file.attrs['about'].decode()} {config} {whole}"
    file.attrs["features_sha256"] = np.bytes_(whole)
    file.attrs["table_sha256"] = np.bytes_(hashlib.sha256(bound.encode()).hexdigest())

"""The feature store: features cached by photo and config, in HDF5, never half-written."""

from breeds.features.file import Store, assemble, verify, write_store
from breeds.features.hdf5 import versions
from breeds.features.shards import (
    FeatureIndex,
    ShardWriter,
    check_config,
    list_shards,
    lock_file,
    shard_folder,
)
from breeds.features.table import Table

__all__ = [
    "FeatureIndex",
    "ShardWriter",
    "Store",
    "Table",
    "assemble",
    "check_config",
    "list_shards",
    "lock_file",
    "shard_folder",
    "verify",
    "versions",
    "write_store",
]

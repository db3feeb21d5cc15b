"""The feature store: features cached by photo and recipe, in HDF5, never half-written."""

from breeds.store.file import Store, assemble, refer, verify
from breeds.store.hdf5 import versions
from breeds.store.shards import (
    FeatureIndex,
    ShardWriter,
    check_recipe,
    list_shards,
    lock_file,
    shard_folder,
)
from breeds.store.table import Table

__all__ = [
    "FeatureIndex",
    "ShardWriter",
    "Store",
    "Table",
    "assemble",
    "check_recipe",
    "list_shards",
    "lock_file",
    "refer",
    "shard_folder",
    "verify",
    "versions",
]

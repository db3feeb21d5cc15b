"""The feature store: features cached by photo and config, in HDF5, never half-written."""

from breeds.features.datasets import extend_store, write_store
from breeds.features.hdf5 import versions
from breeds.features.journal import Writer, check_config, journal_folder, list_shards, lock_file
from breeds.features.lookup import FeatureLookup
from breeds.features.store import Store, verify
from breeds.features.table import Table

__all__ = [
    "FeatureLookup",
    "Store",
    "Table",
    "Writer",
    "check_config",
    "extend_store",
    "journal_folder",
    "list_shards",
    "lock_file",
    "verify",
    "versions",
    "write_store",
]

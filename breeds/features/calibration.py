"""The int8 network of a store: quantised when it begins, kept beside its shards, the same for good."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from breeds.backbones.convert import CALIBRATION_PHOTOS, cached_network, quantised_network
from breeds.backbones.network import Network, digest_in_name, list_networks, load_network, save_network
from breeds.backbones.weights import Weights
from breeds.config import FeatureConfig
from breeds.errors import BreedsError
from breeds.features import Store, Table, list_shards, shard_folder
from breeds.features.columns import first_of_each


def calibrated(
    config: FeatureConfig,
    store: Path,
    old: Store | None,
    plain: Path | None,
    table: Table,
    weights: Callable[[], Weights],
) -> tuple[FeatureConfig, Callable[[], Network | None]]:
    """Complete an int8 config by its network: the one the store began with, or one quantised now.

    A new one is calibrated on the first photos by key, so that names and labels have no say in it,
    and it is written beside the shards before the first feature that rests on it.

    Parameters
    ----------
    config
        Any config; one that is not int8 comes back as it is.
    store, old
        Where the store is written, and the store as it is, if there is one.
    plain
        For a view: the store of the photos as they are, whose network it shares.
    table
        The photos at hand, whose keys have just been computed.
    weights
        Finds the weights; called only if they are needed.

    Returns
    -------
    config, network
        The config with its network's digest, and what finds the network, or raises BreedsError.
    """
    if config.precision != "int8":
        return config, lambda: None
    begun = old or (Store.open(plain) if plain and plain.exists() else None)
    folder = shard_folder(store)
    kept = list_networks(folder)
    if begun:
        digest = begun.config.calibration
    elif kept and list_shards(folder):
        digest = digest_in_name(kept[0])
    else:
        for other in kept:  # of a run that was stopped before its first feature: it binds nobody
            other.unlink(missing_ok=True)
        rows = first_of_each(table.key.packed)[:CALIBRATION_PHOTOS]
        sample = [(table.key[row], os.path.join(table.root, table.path[row])) for row in rows]
        network = quantised_network(config, weights, sample)
        save_network(network, folder)
        return replace(config, calibration=network.digest), lambda: network
    return replace(config, calibration=digest), partial(kept_network, digest, [store, plain or store])


def kept_network(digest: str, stores: Sequence[Path]) -> Network:
    """Return the network that is kept beside one of `stores`, or in the cache.

    Raises
    ------
    BreedsError
        If it is in neither, or cannot be read just now.
    """
    folders = dict.fromkeys(shard_folder(store) for store in stores)
    try:
        found = [network for folder in folders if (network := load_network(folder, digest))]
    except OSError as error:
        raise BreedsError(f"Cannot read {error.filename}: {error.strerror}; run the command again.") from None
    network = found[0] if found else cached_network(digest)
    if network is None:
        raise BreedsError(
            f"The int8 network {digest[:12]} of {stores[0]} is not in {shard_folder(stores[0])}: it was "
            f"lost, or never kept there, as by older versions of Breeds; extract into another --store."
        )
    return network


def networks_of(store: Store) -> dict[str, Network]:
    """Return the int8 networks that a store's features rest on (and those beside it), by digest.

    Raises
    ------
    BreedsError
        If one is not there.
    """
    return {
        part.config.calibration: kept_network(part.config.calibration, [part.path])
        for part in (store, *store.also)
        if part.config.precision == "int8"
    }

"""The int8 network of a store: quantised when it begins, kept with its features, the same for good."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from breeds.backbones.convert import CALIBRATION_PHOTOS, quantised_network
from breeds.backbones.weights import Weights
from breeds.config import FeatureConfig, Network
from breeds.features import Store, Table, journal_folder, list_shards
from breeds.features.columns import first_of_each
from breeds.features.journal import digest_in_name, list_networks, save_network
from breeds.features.lookup import find_network


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
    and it is written into the journal before the first feature that rests on it.

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
    begun = old or (Store(plain, corrected=False) if plain and plain.exists() else None)
    folder = journal_folder(store)
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
    return replace(config, calibration=digest), partial(find_network, digest, [store, *filter(None, [plain])])

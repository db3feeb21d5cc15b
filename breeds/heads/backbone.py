"""A model's network: whether this version can compute it, where its weights are, and how it is opened."""

from __future__ import annotations

import os
from functools import partial

from breeds.backbones import Engine
from breeds.backbones.brought.file import find_brought
from breeds.backbones.brought.settle import BACKBONE
from breeds.backbones.choose import open_engine
from breeds.backbones.registry import BACKBONES, LARGEST_SIZE
from breeds.backbones.weights import Weights, get_weights
from breeds.config import DECODE_RULE, FeatureConfig
from breeds.errors import BreedsError
from breeds.heads.model import Model
from breeds.photos import ORIGINAL, fits


def check_computable(config: FeatureConfig) -> None:
    """Refuse a config that this version of Breeds cannot follow to the letter.

    Raises
    ------
    BreedsError
        If it is one.
    """
    backbone = BACKBONES.get(config.backbone)
    smallest = backbone.smallest if backbone else 1
    known = config.backbone == BACKBONE if config.reading is not None else backbone is not None
    if (
        not known
        or not smallest <= config.size <= LARGEST_SIZE
        or not fits(config.resize, config.size)
        or config.view != ORIGINAL
        or config.decode_rule != DECODE_RULE
    ):
        raise BreedsError(
            f"The model was trained on a config that this version of Breeds does not know ({config}); "
            f"extract and train again."
        )


def open_network(
    model: Model,
    part: tuple[FeatureConfig, str],
    spec: str | None,
    engine: str,
    single: bool = False,
    maps: bool = False,
) -> Engine:
    """Open the network of one of a model's configs.

    Parameters
    ----------
    part
        One of `Model.parts`.
    spec
        As in `weights_of`.
    engine, single, maps
        As in `breeds.backbones.choose.open_engine`.

    Raises
    ------
    BreedsError
        If the weights are not there or not the model's, or the engine cannot be opened.
    """
    network = partial(model.networks.get, part[0].calibration)
    return open_engine(part[0], lambda: weights_of(part, spec), engine, network, single, maps)


def found_weights(config: FeatureConfig, spec: str) -> Weights:
    """Find the weights that `spec` names for the network of a config, be they the config's or not.

    Raises
    ------
    BreedsError
        If they are not there.
    """
    return find_brought(spec) if config.reading else get_weights(spec, BACKBONES[config.backbone])


def weights_of(part: tuple[FeatureConfig, str], spec: str | None) -> Weights:
    """Find the weights of one of a model's configs, and refuse others, naming both.

    Parameters
    ----------
    spec
        ``imagenet``, ``random``, a file's path (of an ONNX network, also its folder's), or None for those the
        model was trained with.

    Raises
    ------
    BreedsError
        If they are not there, or not the model's.
    """
    config, path = part
    if spec is None:
        spec = config.weights if config.weights in ("imagenet", "random") else path
        if not spec or (config.weights not in ("imagenet", "random") and not os.path.isfile(spec)):
            raise BreedsError(
                f"The weights {config.weights} ({config.weights_sha256[:12]}) that the model was trained "
                f"with are not at {spec or 'a known place'} any more; say where with --weights PATH."
            )
    found = found_weights(config, spec)
    if found.sha256 != config.weights_sha256:
        raise BreedsError(
            f"The model was trained on the weights {config.weights} ({config.weights_sha256[:12]}), but "
            f"--weights {spec} is {found.name} ({found.sha256[:12]}); name the same weights."
        )
    return found

"""A model's network: whether this version can compute it, where its weights are, and how it is opened."""

from __future__ import annotations

import os
from functools import partial

from breeds.engines import Engine
from breeds.engines.backbones import BACKBONES, LARGEST_SIZE
from breeds.engines.brought.file import find_brought
from breeds.engines.brought.settle import BACKBONE
from breeds.engines.choose import open_engine
from breeds.engines.weights import Weights, get_weights
from breeds.errors import BreedsError
from breeds.heads.model import Model
from breeds.photos import ORIGINAL, fits
from breeds.recipe import DECODE_RULE, Recipe


def check_computable(recipe: Recipe) -> None:
    """Refuse a recipe that this version of Breeds cannot follow to the letter.

    Raises
    ------
    BreedsError
        If it is one.
    """
    backbone = BACKBONES.get(recipe.backbone)
    smallest = backbone.smallest if backbone else 1
    known = recipe.backbone == BACKBONE if recipe.reading is not None else backbone is not None
    if (
        not known
        or not smallest <= recipe.size <= LARGEST_SIZE
        or not fits(recipe.resize, recipe.size)
        or recipe.view != ORIGINAL
        or recipe.decode_rule != DECODE_RULE
    ):
        raise BreedsError(
            f"The model was trained on a recipe that this version of Breeds does not know ({recipe}); "
            f"extract and train again."
        )


def open_network(
    model: Model,
    part: tuple[Recipe, str],
    spec: str | None,
    engine: str,
    single: bool = False,
    maps: bool = False,
) -> Engine:
    """Open the network of one of a model's recipes.

    Parameters
    ----------
    part
        One of `Model.parts`.
    spec
        As in `weights_of`.
    engine, single, maps
        As in `breeds.engines.choose.open_engine`.

    Raises
    ------
    BreedsError
        If the weights are not there or not the model's, or the engine cannot be opened.
    """
    network = partial(model.networks.get, part[0].calibration)
    return open_engine(part[0], lambda: weights_of(part, spec), engine, network, single, maps)


def found_weights(recipe: Recipe, spec: str) -> Weights:
    """Find the weights that `spec` names for the network of a recipe, be they the recipe's or not.

    Raises
    ------
    BreedsError
        If they are not there.
    """
    return find_brought(spec) if recipe.reading else get_weights(spec, BACKBONES[recipe.backbone])


def weights_of(part: tuple[Recipe, str], spec: str | None) -> Weights:
    """Find the weights of one of a model's recipes, and refuse others, naming both.

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
    recipe, path = part
    if spec is None:
        spec = recipe.weights if recipe.weights in ("imagenet", "random") else path
        if not spec or (recipe.weights not in ("imagenet", "random") and not os.path.isfile(spec)):
            raise BreedsError(
                f"The weights {recipe.weights} ({recipe.weights_sha256[:12]}) that the model was trained "
                f"with are not at {spec or 'a known place'} any more; say where with --weights PATH."
            )
    found = found_weights(recipe, spec)
    if found.sha256 != recipe.weights_sha256:
        raise BreedsError(
            f"The model was trained on the weights {recipe.weights} ({recipe.weights_sha256[:12]}), but "
            f"--weights {spec} is {found.name} ({found.sha256[:12]}); name the same weights."
        )
    return found

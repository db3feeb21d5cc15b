"""From what a user says of a network to a whole config, its weights, and the engine that computes it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from importlib import import_module
from itertools import pairwise
from typing import Protocol

from breeds.backbones import BACKBONES, ENGINES, LARGEST_SIZE, ONNX, Engine, EngineUnavailableError
from breeds.backbones.convert import converted_width, say_once
from breeds.backbones.onnx_config import resolve_onnx
from breeds.backbones.onnx_file import is_onnx, open_onnx
from breeds.backbones.weights import Weights, get_weights
from breeds.config import DECODE_RULE, FeatureConfig, Network
from breeds.errors import BreedsError
from breeds.photos import ORIGINAL, fits
from breeds.photos.resize import RULES


def resolve(config: FeatureConfig, engine: str | Engine = "auto") -> tuple[FeatureConfig, Weights]:
    """Return a config with nothing left open but the network of int8, and the weights.

    Parameters
    ----------
    config
        As a user gives it, or as a store keeps it with `weights` said anew.
    engine
        As in `breeds.backbones.resolve.open_engine`.

    Raises
    ------
    BreedsError
        If the weights cannot be had, the backbone does not take this size, or the engine this precision.
    """
    if config.preprocessing is not None:
        weights = open_onnx(config.weights)[1]
    elif _is_onnx(config):
        return _resolve_onnx(config, engine)
    else:
        size, resize = square(config)
        backbone = BACKBONES[config.backbone]
        check_precision(config.precision, engine)
        weights = get_weights(config.weights, backbone)
        config = replace(config, size=size, resize=resize, width=backbone.width)
    return replace(config, weights=weights.name, weights_sha256=weights.sha256), weights


def check_precision(precision: str, engine: str | Engine) -> None:
    """Refuse a precision that the engine, unless it is ``auto``, does not have.

    Raises
    ------
    BreedsError
        If it is one.
    """
    if not isinstance(engine, str):
        return
    able = [name for name, entry in ENGINES.items() if precision in entry.precisions]
    if not able or engine not in ("auto", *able):
        needs = f"needs {ENGINES[able[0]].title} (--engine {able[0]})" if able else "is known to no engine"
        has = "" if engine == "auto" else f"; --engine {engine} has {', '.join(ENGINES[engine].precisions)}"
        raise BreedsError(f"--precision {precision} {needs}{has}.")


def _resolve_onnx(config: FeatureConfig, engine: str | Engine) -> tuple[FeatureConfig, Weights]:
    able = next(name for name, entry in ENGINES.items() if entry.runs_onnx)
    if isinstance(engine, str) and engine != "auto" and not ENGINES[engine].runs_onnx:
        raise BreedsError(
            f"--engine {engine}: an ONNX network is run by {ENGINES[able].title}; leave it out."
        )
    if config.weights != "imagenet":
        raise BreedsError(f"--weights {config.weights}: an ONNX network has its weights in it; leave it out.")
    check_precision(config.precision, able if engine == "auto" else engine)
    weights, size, resize, preprocessing = resolve_onnx(config.backbone, config.size, config.resize)
    config = replace(
        config, backbone=ONNX, weights=weights.name, weights_sha256=weights.sha256, size=size, resize=resize,
        preprocessing=preprocessing,
    )  # fmt: skip
    return replace(config, width=converted_width(config, lambda: weights)), weights


def _is_onnx(config: FeatureConfig) -> bool:
    """Say whether the backbone is an ONNX network, and refuse what is neither that nor of Keras's."""
    if config.backbone in BACKBONES:
        return False
    if not is_onnx(config.backbone):
        raise BreedsError(
            f"--backbone {config.backbone}: it is one of {', '.join(BACKBONES)}, an ONNX file (.onnx), "
            f"or a folder with model.onnx."
        )
    return True


def square(config: FeatureConfig) -> tuple[int, str]:
    """Return the side of the network's input, in pixels, and the resize rule; no weights are needed.

    Raises
    ------
    BreedsError
        If the backbone does not take what was asked for.
    """
    if _is_onnx(config):
        return resolve_onnx(config.backbone, config.size, config.resize)[1:3]
    backbone = BACKBONES[config.backbone]
    size, resize = config.size or backbone.size, config.resize or "stretch"
    if not backbone.smallest <= size <= LARGEST_SIZE:
        raise BreedsError(
            f"--size {size}: {backbone.name} takes {backbone.smallest} to {LARGEST_SIZE} pixels."
        )
    if not fits(resize, size):
        raise BreedsError(f"--resize {resize}: it is {RULES}, with N from {size} up.")
    return size, resize


def check_computable(config: FeatureConfig) -> None:
    """Refuse a config that this version of Breeds cannot follow to the letter.

    Raises
    ------
    BreedsError
        If it is one.
    """
    backbone = BACKBONES.get(config.backbone)
    smallest = backbone.smallest if backbone else 1
    known = config.backbone == ONNX if config.preprocessing is not None else backbone is not None
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


def found_weights(config: FeatureConfig, spec: str) -> Weights:
    """Find the weights that `spec` names for the network of a config, be they the config's or not.

    Raises
    ------
    BreedsError
        If they are not there.
    """
    return open_onnx(spec)[1] if config.preprocessing else get_weights(spec, BACKBONES[config.backbone])


def weights_of(part: tuple[FeatureConfig, str], spec: str | None) -> Weights:
    """Find the weights of one of a model's configs, and refuse others, naming both.

    Parameters
    ----------
    part
        One of `breeds.heads.model.Model.parts`: a config, and where its weights were.
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


def open_engine(
    config: FeatureConfig,
    weights: Callable[[], Weights],
    engine: str | Engine = "auto",
    network: Callable[[], Network | None] = lambda: None,
    single: bool = False,
    maps: bool = False,
    threads: int | None = None,
) -> Engine:
    """Load the backbone of `config`, ready to run.

    Parameters
    ----------
    config
        What to compute; its precision decides the engine where only one can do it.
    weights
        Finds the weights; called only if they are needed.
    engine
        One of `breeds.backbones.ENGINE_CHOICES`, or an engine that is open already.
    network
        Finds the quantised network of an int8 config, if there is one.
    single
        Prefer the quickest first answer to the most answers a second.
    maps
        Open it for `Engine.stream_maps` too.
    threads
        How many OpenVINO computes in; None for as many as there are cores.

    Raises
    ------
    BreedsError
        If the weights do not fit the backbone (the text names the layer), or the engine cannot
        do the config's precision, or maps of a network that has none were asked for.
    """
    if not isinstance(engine, str):
        return engine
    brought = config.preprocessing is not None
    able = [
        name
        for name, entry in ENGINES.items()
        if config.precision in entry.precisions and (entry.runs_onnx or not brought)
    ]
    if not able:
        raise BreedsError(f"This version of Breeds does not know the precision {config.precision}.")
    if engine not in ("auto", *able):
        what = "an ONNX network" if brought else config.precision
        raise BreedsError(f"{what} needs the {able[0]} engine; use --engine {able[0]}.")
    candidates = able if engine == "auto" else [engine]
    for name, following in pairwise([*candidates, ""]):
        module, _, implementation = ENGINES[name].implementation.partition(":")
        opener = getattr(import_module(module), implementation)
        try:
            opened: Engine = opener(
                config, weights, network=network, single=single, maps=maps, threads=threads
            )
            return opened
        except EngineUnavailableError as error:
            if not following:
                instead = "another network" if brought else "--engine keras, with --precision fp32"
                raise BreedsError(f"{error}; use {instead}.") from None
            say_once(f"{error}; using the slower {ENGINES[following].title} engine")
    raise AssertionError("an engine was opened, or an error raised")


class HasNetworks(Protocol):
    """A model, as far as it brings quantised networks, by their digest."""

    @property
    def networks(self) -> Mapping[str, Network]:
        """Networks by their digest."""
        ...


def open_network(
    model: HasNetworks,
    part: tuple[FeatureConfig, str],
    spec: str | None,
    engine: str | Engine,
    single: bool = False,
    maps: bool = False,
) -> Engine:
    """Open the network of one of a model's configs.

    Parameters
    ----------
    model
        Brings the networks of int8.
    part, spec
        As in `weights_of`.
    engine, single, maps
        As in `breeds.backbones.resolve.open_engine`.

    Raises
    ------
    BreedsError
        If the weights are not there or not the model's, or the engine cannot be opened.
    """
    network = partial(model.networks.get, part[0].calibration)
    return open_engine(part[0], lambda: weights_of(part, spec), engine, network, single, maps)

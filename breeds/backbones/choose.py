"""Open the engine that computes a config: the first here that can, or the one that was named."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib import import_module
from itertools import pairwise

from breeds.backbones import Engine, EngineUnavailableError
from breeds.backbones.registry import ENGINES
from breeds.backbones.weights import Weights
from breeds.config import FeatureConfig
from breeds.errors import BreedsError
from breeds.features.network import Network
from breeds.text import mention


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
        One of `breeds.backbones.registry.ENGINE_CHOICES`, or an engine that is open already.
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
            _say(f"{error}; using the slower {ENGINES[following].title} engine")
    raise AssertionError("an engine was opened, or an error raised")


@cache
def _say(text: str) -> None:
    mention(text)

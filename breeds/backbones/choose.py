"""Which engine computes a config: the fastest one here that can, or the one that was asked for."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

from breeds.backbones import Engine
from breeds.backbones.weights import Weights
from breeds.config import FeatureConfig
from breeds.errors import BreedsError
from breeds.features.network import Network
from breeds.text import mention


class Abilities(NamedTuple):
    """What people call an engine, and the arithmetic it has: as it is asked for, and as a config says it."""

    title: str
    precisions: dict[str, str]


#: The engines; what is not in an engine's row, that engine cannot do.
ABILITIES = {
    "openvino": Abilities("OpenVINO", {"fp32": "fp32", "bf16": "bf16", "int8": "int8"}),
    "keras": Abilities(
        "Keras, on a GPU", {"fp32": "fp32", "bf16": "mixed_bfloat16", "fp16": "mixed_float16"}
    ),
}
ENGINES = ("auto", *ABILITIES)
#: What extraction can be asked for: an engine here, or those on the nodes of a cluster.
PLACES = (*ENGINES, "ray")
PRECISIONS = ("fp32", "bf16", "fp16", "int8")


@cache
def choose_engine(engine: str) -> str:
    """Return ``openvino`` or ``keras``; ``auto`` is Keras on a machine with a GPU that Keras sees.

    Raises
    ------
    BreedsError
        If `engine` is ``openvino`` and it does not load here; ``auto`` warns and takes Keras.
    """
    if engine == "keras" or (engine == "auto" and _keras_sees_gpu()):
        return "keras"
    from breeds.backbones.loading import import_openvino

    try:
        import_openvino()
    except (ImportError, OSError, RuntimeError) as error:
        if isinstance(error.__cause__, KeyboardInterrupt):  # its libraries make an ImportError of Ctrl-C
            raise KeyboardInterrupt from None
        reason = " ".join(str(error).split())[:200]
        if engine == "openvino":
            raise BreedsError(
                f"OpenVINO does not load here ({reason}); use --engine keras, with --precision fp32."
            ) from None
        mention(f"OpenVINO does not load here ({reason}); using the slower Keras engine")
        return "keras"
    return "openvino"


def _keras_sees_gpu() -> bool:
    """Ask Keras for a GPU, but only where there is NVIDIA's driver: asking costs seconds."""
    if shutil.which("nvidia-smi") is None:
        return False
    from breeds.backbones.keras import gpus

    return gpus() > 0


def config_precision(engine: str, precision: str) -> str:
    """Return what a config calls `precision` computed by `engine` (``auto`` is decided).

    Raises
    ------
    BreedsError
        If that engine cannot do it.
    """
    if precision == "fp32":  # the same with all of them, and no library need be loaded to say so
        return precision
    if engine == "auto" and precision == "int8":  # asked for by name: it is not left to a GPU
        engine = "openvino"
    chosen = choose_engine(engine)
    found = ABILITIES[chosen].precisions.get(precision)
    if found is None:
        able = next(name for name, row in ABILITIES.items() if precision in row.precisions)
        raise BreedsError(
            f"--precision {precision} needs {ABILITIES[able].title} (--engine {able}); "
            f"--engine {chosen} has {', '.join(ABILITIES[chosen].precisions)}."
        )
    return found


def open_engine(
    config: FeatureConfig,
    weights: Callable[[], Weights],
    engine: str = "auto",
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
        One of `ENGINES`.
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
    able = [
        name
        for name, row in ABILITIES.items()
        if config.precision in row.precisions.values() and (config.reading is None or name == "openvino")
    ]
    if not able:
        raise BreedsError(f"This version of Breeds does not know the precision {config.precision}.")
    if engine not in ("auto", *able):
        what = config.precision if config.reading is None else "an ONNX network"
        raise BreedsError(f"{what} needs the {able[0]} engine; use --engine {able[0]}.")
    chosen = choose_engine(engine if len(able) > 1 else able[0])
    if chosen == "openvino":
        from breeds.backbones.openvino import OpenvinoEngine

        try:
            return OpenvinoEngine(config, weights, network, single, maps, threads)
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:200]
            if engine == "openvino" or "keras" not in able:
                what = (
                    "use --engine keras, with --precision fp32"
                    if config.reading is None
                    else "use another network"
                )
                raise BreedsError(f"OpenVINO fails on this machine ({reason}); {what}.") from None
            mention(f"OpenVINO fails on this machine ({reason}); using the slower Keras engine")
    from breeds.backbones.keras import KerasEngine

    return KerasEngine(config, weights(), maps)

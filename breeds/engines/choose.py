"""Which engine computes a recipe: the fastest one here that can, or the one that was asked for."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Sequence
from functools import cache

from breeds.engines import Engine
from breeds.engines.weights import Weights
from breeds.errors import BreedsError
from breeds.recipe import Recipe

ENGINES = ("auto", "openvino", "keras")
PRECISIONS = ("fp32", "bf16", "fp16", "int8")
_KERAS_PRECISIONS = {"fp32": "fp32", "bf16": "mixed_bfloat16", "fp16": "mixed_float16"}


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
    from breeds.engines.convert import import_openvino

    try:
        import_openvino()
    except (ImportError, OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        if engine == "openvino":
            raise BreedsError(
                f"OpenVINO does not load here ({reason}); use --engine keras, with --precision fp32."
            ) from None
        print(f"OpenVINO does not load here ({reason}); using the slower Keras engine", file=sys.stderr)
        return "keras"
    return "openvino"


def _keras_sees_gpu() -> bool:
    """Ask Keras for a GPU, but only where there is NVIDIA's driver: asking costs seconds."""
    if shutil.which("nvidia-smi") is None:
        return False
    from breeds.engines.keras import gpus

    return gpus() > 0


def recipe_precision(engine: str, precision: str) -> str:
    """Return what a recipe calls `precision` computed by `engine` (``auto`` is decided).

    Raises
    ------
    BreedsError
        If that engine cannot do it.
    """
    if precision == "fp32":
        return precision
    chosen = choose_engine("openvino" if engine == "auto" and precision == "int8" else engine)
    if chosen == "keras":
        if precision in _KERAS_PRECISIONS:
            return _KERAS_PRECISIONS[precision]
        raise BreedsError("--precision int8 needs the OpenVINO engine; use --engine openvino, or bf16.")
    if precision == "fp16":
        raise BreedsError("--precision fp16 needs the Keras engine on a GPU; use bf16, int8 or fp32 here.")
    if precision == "int8":
        from breeds.engines.openvino import int8_is_fast

        if not int8_is_fast():
            print("this CPU has neither VNNI nor AMX: int8 will not be faster than fp32", file=sys.stderr)
    return precision


def open_engine(
    recipe: Recipe,
    weights: Callable[[], Weights],
    engine: str = "auto",
    sample: Sequence[str] | None = None,
    single: bool = False,
) -> Engine:
    """Load the backbone of `recipe`, ready to run.

    Parameters
    ----------
    recipe
        What to compute; its precision decides the engine where only one can do it.
    weights
        Finds the weights; called only if they are needed.
    engine
        One of `ENGINES`.
    sample
        Paths of the photos that an int8 recipe is calibrated on, if they are at hand.
    single
        Prefer the quickest first answer to the most answers a second.

    Raises
    ------
    BreedsError
        If the weights do not fit the backbone (the text names the layer), or the engine cannot
        do the recipe's precision.
    """
    if engine == "auto" and recipe.precision in ("bf16", "int8"):
        engine = "openvino"
    elif engine == "auto" and recipe.precision in _KERAS_PRECISIONS.values() and recipe.precision != "fp32":
        engine = "keras"
    if choose_engine(engine) == "openvino":
        from breeds.engines.openvino import OpenvinoEngine

        if recipe.precision not in ("fp32", "bf16", "int8"):
            raise BreedsError(f"{recipe.precision} needs the Keras engine; use --engine keras.")
        try:
            return OpenvinoEngine(recipe, weights, sample, single)
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:200]
            if engine == "openvino":
                raise BreedsError(
                    f"OpenVINO fails on this machine ({reason}); use --engine keras, with --precision fp32."
                ) from None
            print(
                f"OpenVINO fails on this machine ({reason}); using the slower Keras engine", file=sys.stderr
            )
    from breeds.engines.keras import KerasEngine

    if recipe.precision not in _KERAS_PRECISIONS.values():
        raise BreedsError(f"{recipe.precision} needs the OpenVINO engine; use --engine openvino.")
    return KerasEngine(recipe, weights())

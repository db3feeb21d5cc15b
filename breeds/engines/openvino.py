"""The fast engine for CPUs: OpenVINO, one request a photo, all cores busy."""

from __future__ import annotations

import os
import platform
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from breeds.engines.convert import fp32_network, import_openvino, int8_network
from breeds.engines.weights import Weights
from breeds.errors import BreedsError
from breeds.recipe import Recipe

# Without an explicit hint OpenVINO may compute in bf16 where the CPU can, which is another recipe.
_HINTS = {"fp32": "f32", "bf16": "bf16", "int8": "f32"}


class OpenvinoEngine:
    """A network converted from Keras, in as many streams as there are cores.

    Every request holds one photo, so a feature cannot depend on its neighbours.

    Parameters
    ----------
    recipe
        Names the weights, the input size and the precision.
    weights
        Finds the weights; called only if the converted network is not in the cache.
    sample
        Paths of the photos that int8 is calibrated on, if they are at hand.
    single
        All cores work on one photo at a time: the quickest first answer.

    Raises
    ------
    BreedsError
        If this CPU cannot do the precision, or the network cannot be had.
    ImportError, RuntimeError
        If OpenVINO does not load on this machine.
    """

    name = "openvino"
    outruns_threads = False

    def __init__(
        self,
        recipe: Recipe,
        weights: Callable[[], Weights],
        sample: Sequence[str] | None = None,
        single: bool = False,
    ) -> None:
        core = import_openvino().Core()
        if recipe.precision == "bf16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            raise BreedsError("--precision bf16: this CPU has no bfloat16 arithmetic; use fp32 or int8.")
        if recipe.precision == "int8":
            path = int8_network(recipe, weights, sample)
        else:
            path = fp32_network(recipe, weights)
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self._requests = _compile(core, path, recipe, cores, single)

    def stream(self, pixels: Iterable[NDArray[np.uint8]]) -> Iterator[NDArray[np.float32]]:
        """Yield one feature, float32 (width,), for each photo, uint8 (size, size, 3), in order."""
        idle, busy = deque(self._requests), deque[Any]()
        try:
            for photo in pixels:
                if not idle:
                    yield _result(busy[0])
                    idle.append(busy.popleft())
                request = idle.popleft()
                request.get_input_tensor(0).data[0] = photo
                request.start_async()
                busy.append(request)
            while busy:
                yield _result(busy[0])
                busy.popleft()
        finally:
            for request in busy:
                request.wait()


def _compile(core: Any, path: Path, recipe: Recipe, cores: int, single: bool) -> list[Any]:
    """Compile the network for this machine and return its requests, two for every stream."""
    network = core.read_model(path)
    shape = [1, recipe.size, recipe.size, 3]
    if list(network.input(0).shape) != shape:
        network.reshape(shape)
    settings = {
        "INFERENCE_PRECISION_HINT": _HINTS[recipe.precision],
        "INFERENCE_NUM_THREADS": cores,
        "NUM_STREAMS": 1 if single else cores,
        "ENABLE_CPU_PINNING": False,
    }
    compiled = core.compile_model(network, "CPU", settings)
    return [compiled.create_infer_request() for _ in range(1 if single else 2 * cores)]


def _result(request: Any) -> NDArray[np.float32]:
    request.wait()
    return np.array(request.get_output_tensor(0).data[0], dtype=np.float32)


def int8_is_fast() -> bool:
    """Say whether this CPU multiplies int8 faster than fp32 (VNNI, AMX, or Arm's dot products)."""
    if platform.machine() in ("arm64", "aarch64"):
        return True
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").split()
    except OSError:
        return True  # nobody can tell; then nothing is claimed
    return not {"avx512_vnni", "avx_vnni", "amx_int8"}.isdisjoint(flags)

"""The fast engine for CPUs: OpenVINO, one request a photo, all cores busy."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from breeds.backbones import EngineUnavailableError, FeatureAndMap, import_openvino, unmapped
from breeds.backbones.convert import fp32_network
from breeds.backbones.weights import Weights
from breeds.config import FeatureConfig, Network
from breeds.errors import BreedsError
from breeds.machine import cores

T = TypeVar("T")

# They change the shape of an average, and no number of it.
_SAME_NUMBERS = ("Reshape", "Squeeze", "Flatten")
# Without an explicit hint OpenVINO may compute in bf16 where the CPU can, which is another config.
_HINTS = {"fp32": "f32", "bf16": "bf16", "int8": "f32"}


class OpenvinoEngine:
    """A network converted from Keras or ONNX, in as many streams as there are cores.

    Every request holds one photo, so a feature cannot depend on its neighbours.

    Parameters
    ----------
    config
        Names the weights, the input size and the precision.
    weights
        Finds the weights; called only if the converted network is not in the cache.
    network
        Finds the quantised network of an int8 config; one of another config if it is at hand.
    single
        All cores work on one photo at a time: the quickest first answer.
    maps
        Give maps too, as a second output of the same network.
    threads
        How many to compute in, each a photo at a time; None for as many as there are cores.

    Raises
    ------
    BreedsError
        If this CPU cannot do the precision, or the network cannot be had, or it has no map to give.
    EngineUnavailableError
        If OpenVINO does not load, or fails, on this machine.
    """

    name = "openvino"

    def __init__(
        self,
        config: FeatureConfig,
        weights: Callable[[], Weights],
        *,
        network: Callable[[], Network | None] = lambda: None,
        single: bool = False,
        maps: bool = False,
        threads: int | None = None,
    ) -> None:
        try:
            core = import_openvino().Core()
            if config.precision == "bf16" and "BF16" not in core.get_property(
                "CPU", "OPTIMIZATION_CAPABILITIES"
            ):
                raise BreedsError("--precision bf16: this CPU has no bfloat16 arithmetic; use fp32 or int8.")
            read = read_network(core, config, weights, network)
            backbone = "this ONNX network" if config.preprocessing else config.backbone
            self._cells = _add_map(read, backbone) if maps else None
            self._requests = _compile(core, read, config, threads or cores(), single)
        except (ImportError, OSError, RuntimeError) as error:
            if isinstance(error.__cause__, KeyboardInterrupt):  # OpenVINO makes an ImportError of Ctrl-C
                raise KeyboardInterrupt from None
            reason = " ".join(str(error).split())[:200]
            raise EngineUnavailableError(f"OpenVINO does not work here ({reason})") from None

    def stream(self, pixels: Iterable[NDArray[np.uint8]]) -> Iterator[NDArray[np.float32]]:
        """Yield one feature, float32 (width,), for each photo, uint8 (size, size, 3), in order."""
        return self._stream(pixels, _feature)

    def stream_maps(self, pixels: Iterable[NDArray[np.uint8]]) -> Iterator[FeatureAndMap]:
        """Yield each photo's feature with the map that it is the mean of, if opened with ``maps=True``."""
        if self._cells is None:
            raise ValueError("the engine was opened without maps")
        cells = self._cells

        def both(request: Any) -> FeatureAndMap:
            unpooled = np.moveaxis(request.get_output_tensor(1).data[0], cells, (0, 1))
            return _feature(request), np.array(unpooled, dtype=np.float32)

        return self._stream(pixels, both)

    def _stream(self, pixels: Iterable[NDArray[np.uint8]], take: Callable[[Any], T]) -> Iterator[T]:
        """Yield what `take` takes out of the request of every photo, in order."""
        idle, busy = deque(self._requests), deque[Any]()
        try:
            for photo in pixels:
                if not idle:
                    busy[0].wait()
                    yield take(busy[0])
                    idle.append(busy.popleft())
                request = idle.popleft()
                request.get_input_tensor(0).data[0] = photo
                request.start_async()
                busy.append(request)
            while busy:
                busy[0].wait()
                yield take(busy[0])
                busy.popleft()
        finally:
            for request in busy:
                request.wait()


def read_network(
    core: Any, config: FeatureConfig, weights: Callable[[], Weights], network: Callable[[], Network | None]
) -> Any:
    """Read the network of a config: uint8 (n, size, size, 3) to float32 (n, width), for a size to be set.

    Parameters
    ----------
    core
        OpenVINO's ``Core``.
    weights, network
        As `OpenvinoEngine` takes them.

    Raises
    ------
    BreedsError
        If it cannot be had.
    """
    found = network()
    if config.precision == "int8":
        return _read_int8(core, config, found)
    if found is not None:
        return core.read_model(found.xml.tobytes(), found.bin.tobytes())
    # As text: a Path is converted by Python code, and Ctrl-C in there would look like an error of OpenVINO.
    return core.read_model(str(fp32_network(config, weights)))


def _read_int8(core: Any, config: FeatureConfig, found: Network | None) -> Any:
    """Read the quantised network that the config names, and no other.

    Raises
    ------
    BreedsError
        If there is none, it is another one, or it is not made for photos of the config's size.
    """
    if found is None or found.digest != config.calibration:
        raise BreedsError(
            f"The int8 network {config.calibration[:12]} is not in the model, as older versions of Breeds "
            f"kept none there; extract into another --store and train again."
        )
    try:
        read = core.read_model(found.xml.tobytes(), found.bin.tobytes())
        sound = [list(port.shape) for port in read.inputs] == [[1, config.size, config.size, 3]]
        sound &= str(read.input(0).element_type) == "<Type: 'uint8_t'>" and len(read.outputs) == 1
    except RuntimeError as error:
        raise BreedsError(
            f"OpenVINO cannot read the int8 network {config.calibration[:12]} "
            f"({' '.join(str(error).split())[:200]}); extract and train again."
        ) from None
    if not sound:
        raise BreedsError(
            f"The int8 network {config.calibration[:12]} does not take photos of {config.size} pixels "
            f"squared; extract and train again."
        )
    return read


def _compile(core: Any, network: Any, config: FeatureConfig, threads: int, single: bool) -> list[Any]:
    """Compile the network for this machine and return its requests, two for every stream."""
    # Threads that share a photo may add up in another order each time, and a step of int8 is wide.
    single = single and config.precision != "int8"
    shape = [1, config.size, config.size, 3]
    if list(network.input(0).shape) != shape:
        network.reshape(shape)
    settings = {
        "INFERENCE_PRECISION_HINT": _HINTS[config.precision],
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1 if single else threads,
        "ENABLE_CPU_PINNING": False,
    }
    compiled = core.compile_model(network, "CPU", settings)
    return [compiled.create_infer_request() for _ in range(1 if single else 2 * threads)]


def _add_map(network: Any, backbone: str) -> tuple[int, int]:
    """Make what the global average averages a second output; return its axes of height and width.

    Raises
    ------
    BreedsError
        If the features are not a global average.
    """
    average = network.output(0).get_node().input_value(0).get_node()
    while average.get_type_name() in _SAME_NUMBERS:
        average = average.input_value(0).get_node()
    if average.get_type_name() != "ReduceMean" or len(average.input_value(0).get_partial_shape()) != 4:
        raise unmapped(backbone)
    axes = sorted(int(axis) % 4 - 1 for axis in average.input_value(1).get_node().data.ravel())
    if axes not in ([0, 1], [1, 2]):
        raise unmapped(backbone)
    network.add_outputs(average.input_value(0))
    return axes[0], axes[1]  # of one photo: without the axis of photos


def _feature(request: Any) -> NDArray[np.float32]:
    return np.array(request.get_output_tensor(0).data[0], dtype=np.float32)

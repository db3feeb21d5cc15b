"""The reference engine: ``keras.applications`` in fp32, on whatever device Keras sees."""

from __future__ import annotations

import re
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from breeds.backbones import FeatureAndMap, unmapped
from breeds.backbones.registry import BACKBONES
from breeds.backbones.weights import Weights, check_unchanged
from breeds.config import FeatureConfig
from breeds.errors import BreedsError
from breeds.quiet import quiet

with quiet():
    import keras

__all__ = ["KerasEngine", "build", "gpus", "keras"]

# One photo at a time on a CPU: on some, a feature's last bits depend on its place in a batch. Batches of
# 32 are up to a quarter faster (`benchmarks/extraction.py`); who is in a hurry uses the other engine.
BATCH, GPU_BATCH = 1, 256
# Of a batch: features, float32 (n, width), and maps, float32 (n, height, width, features), if asked for.
_Outputs = list[NDArray[np.float32]]
# At which input size random weights are calibrated, in pixels; every backbone takes it.
_RANDOM_SIZE = 96
# How Keras's backends name the end of a GPU's memory, and Python the end of its own.
_OUT_OF_MEMORY = re.compile("RESOURCE_?EXHAUSTED|out of memory|OutOfMemory|MemoryError", re.IGNORECASE)


class KerasEngine:
    """Xception and its like on Keras: photo by photo on a CPU, in batches as large as a GPU's memory allows.

    On a CPU a feature is the same to the last bit whatever photos are around it, and is so from run
    to run on one machine; on a GPU the last bits may differ with a photo's place in its batch.

    Parameters
    ----------
    config
        Names the backbone and its input size.
    weights
        The weights that the config's digest stands for.
    maps
        Give maps too, as a second output of the same network.

    Raises
    ------
    BreedsError
        If the weights do not fit the backbone (the text names the layer), or it has no map to give.
    """

    name = "keras"

    def __init__(self, config: FeatureConfig, weights: Weights, maps: bool = False) -> None:
        self.outruns_threads = gpus() > 0
        self._batch = GPU_BATCH if self.outruns_threads else BATCH
        self._size = config.size
        self._scales = BACKBONES[config.backbone].scales
        if self.outruns_threads and config.precision == "fp32":
            _no_tensor_float()
        with quiet():
            self._model = build(config, weights)
        self._maps = maps
        if maps:
            self._model = add_map(self._model, config.backbone)

    def stream(self, pixels: Iterable[NDArray[np.uint8]]) -> Iterator[NDArray[np.float32]]:
        """Yield one feature, float32 (width,), for each photo, uint8 (size, size, 3), in order."""
        for outputs in self._stream(pixels):
            yield outputs[0]

    def stream_maps(self, pixels: Iterable[NDArray[np.uint8]]) -> Iterator[FeatureAndMap]:
        """Yield each photo's feature with the map that it is the mean of, if opened with ``maps=True``."""
        if not self._maps:
            raise ValueError("the engine was opened without maps")
        for outputs in self._stream(pixels):
            yield outputs[0], outputs[1]

    def _stream(self, pixels: Iterable[NDArray[np.uint8]]) -> Iterator[tuple[NDArray[np.float32], ...]]:
        """Yield the network's outputs for each photo, in order.

        The next batch is gathered while one is computed, so that a GPU need not wait for it.
        """
        pixels = iter(pixels)
        under_way: Future[_Outputs] | None = None
        device = ThreadPoolExecutor(1)
        try:
            while photos := list(islice(pixels, self._batch)):
                following = device.submit(self._run, photos)
                if under_way is not None:
                    yield from zip(*under_way.result(), strict=True)
                under_way = following
            if under_way is not None:
                yield from zip(*under_way.result(), strict=True)
        finally:
            device.shutdown(cancel_futures=True)

    def _run(self, photos: Sequence[NDArray[np.uint8]]) -> _Outputs:
        """Compute a batch; where the device's memory ends, halve it for good."""
        while True:
            try:
                starts = range(0, len(photos), self._batch)
                computed = [self._compute(photos[i : i + self._batch]) for i in starts]
                return [np.concatenate(output) for output in zip(*computed, strict=True)]
            except Exception as error:  # every backend of Keras has its own
                if not _OUT_OF_MEMORY.search(f"{type(error).__name__} {error}"):
                    raise
                if self._batch == 1:
                    raise BreedsError(
                        f"There is not enough memory for one photo of {self._size}×{self._size}; extract "
                        f"with a smaller --size, or on another machine."
                    ) from None
                self._batch //= 2

    def _compute(self, photos: Sequence[NDArray[np.uint8]]) -> _Outputs:
        # A batch that is not full is filled up with zeros: the shape stays, so the bits do.
        batch = np.zeros((self._batch, self._size, self._size, 3), dtype=np.float32)
        np.stack(photos, out=batch[: len(photos)])
        if not self._scales:
            batch /= np.float32(127.5)
            batch -= np.float32(1)
        found = self._model.predict_on_batch(batch)
        outputs = found if self._maps else [found]
        return [np.asarray(output[: len(photos)], dtype=np.float32) for output in outputs]


def add_map(model: Any, backbone: str) -> Any:
    """Return the same network with a second output: what its global average averages.

    Raises
    ------
    BreedsError
        If the features are not a global average.
    """
    average = model.layers[-1]
    if not isinstance(average, keras.layers.GlobalAveragePooling2D):
        raise unmapped(backbone)
    return keras.Model(model.inputs, [model.output, average.input])


def gpus() -> int:
    """Return how many GPUs Keras sees, whichever its backend is."""
    if keras.backend.backend() == "torch":  # Keras has no list of its devices
        import torch  # type: ignore[import-not-found, unused-ignore]

        return int(torch.cuda.device_count())
    try:
        return len(keras.distribution.list_devices("gpu"))
    except (RuntimeError, ValueError):
        return 0


def _no_tensor_float() -> None:
    """Keep fp32 what it says: GPUs may round factors to 10 bits (TF32), which is another config."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow  # type: ignore[import-untyped, unused-ignore]

        tensorflow.config.experimental.enable_tensor_float_32_execution(False)
    elif backend == "torch":
        import torch  # type: ignore[import-not-found, unused-ignore]

        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    elif backend == "jax":
        import jax  # type: ignore[import-not-found, unused-ignore]

        jax.config.update("jax_default_matmul_precision", "highest")


def build(config: FeatureConfig, weights: Weights) -> Any:
    """Build the Keras model of `config`: float32 (n, size, size, 3) in [-1, 1] to (n, width).

    Raises
    ------
    BreedsError
        If the weights do not fit the backbone; the text names the layer.
    """
    model = _architecture(config.backbone, config.size, config.precision)
    if weights.path is not None:
        _load(model, weights.path)
        check_unchanged(
            weights, BACKBONES[config.backbone]
        )  # Keras reads by name, and what has it now may be another file
        return model
    # Always of one size, so that random weights are the same at every size; and of a small one, as
    # calibration keeps every layer's output for all its photos: 5 GB for Xception at 299 pixels.
    is_small = (config.size, config.precision) == (_RANDOM_SIZE, "fp32")
    drawn = model if is_small else _architecture(config.backbone, _RANDOM_SIZE, "fp32")
    _randomise(drawn, (_RANDOM_SIZE, _RANDOM_SIZE, 3), BACKBONES[config.backbone].scales)
    if drawn is not model:
        model.set_weights(drawn.get_weights())
    return model


def _architecture(backbone: str, size: int, precision: str) -> Any:
    """Build the network with fresh weights; in half precision the global average stays float32."""
    constructor = getattr(keras.applications, BACKBONES[backbone].keras_name)
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float32" if precision == "fp32" else precision)
    try:
        model = constructor(include_top=False, weights=None, input_shape=(size, size, 3), pooling="avg")
    finally:
        keras.config.set_dtype_policy(before)
    if precision == "fp32":
        return model
    pooling = keras.layers.GlobalAveragePooling2D
    last = max(i for i, layer in enumerate(model.layers) if isinstance(layer, pooling))
    exact = {layer.name for layer in model.layers[last:]}

    def clone(layer: Any) -> Any:
        config = layer.get_config()
        return type(layer).from_config({**config, "dtype": "float32"} if layer.name in exact else config)

    return keras.models.clone_model(model, clone_function=clone)


def _load(model: Any, path: Path) -> None:
    try:
        with h5py.File(path) as file:
            layout = ".h5" if "layer_names" in file.attrs or "model_weights" in file else ".weights.h5"
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(record=True) as caught:
            # Keras tells its two file layouts apart by name; we do by content. What it cannot
            # match, it may only warn of and leave random.
            warnings.simplefilter("always", UserWarning)
            link = Path(folder, f"weights{layout}")
            link.symlink_to(path.resolve())
            model.load_weights(link)
        doubts = [str(warning.message) for warning in caught if issubclass(warning.category, UserWarning)]
        if doubts:
            raise ValueError(doubts[0])
        for layer in model.layers:
            if not all(np.isfinite(weight).all() for weight in layer.get_weights()):
                raise ValueError(f"layer {layer.name} has numbers that are not finite")
    except (ValueError, OSError, LookupError, TypeError, AttributeError, RuntimeError) as error:
        raise BreedsError(
            f"The weights file {path} does not fit {model.name}: {_misfit(model, path, str(error))}."
        ) from None


def _misfit(model: Any, path: Path, text: str) -> str:
    """Say in one clause why Keras could not load `path`, naming the layer where it names one."""
    if not h5py.is_hdf5(path):
        return "it is not an HDF5 file, or damaged"
    named = re.search(r"<\w+ name=([^,>]+)|named ([^\s,)]+)|[Ll]ayer '([^']+)'", text)
    shapes = re.findall(r"shape[= ]\(([\d, ]+)\)", text)
    if named is None:
        return " ".join(text.split())[:200].rstrip(".")
    layer = next(filter(None, named.groups()))
    if len(shapes) >= 2:
        return f"layer {layer} has shape ({shapes[0]}) and the file has ({shapes[1]})"
    return f"layer {layer} and the file differ ({' '.join(text.split())[-150:].rstrip('.')})"


def _randomise(model: Any, shape: tuple[int, int, int], scales: bool) -> None:
    """Draw all weights from a fixed seed and calibrate batch normalisation on generated photos.

    They are in [-1, 1], or from 0 to 255 for a network that scales pixels itself.

    He initialisation (He et al., 2015, arXiv:1502.01852); with each layer's statistics measured
    as the batch flows through, activations neither vanish nor explode, and features differ.
    """
    rng = np.random.default_rng(0)
    norms, dropouts = [], []
    for layer in model.layers:
        if isinstance(layer, keras.layers.Dropout):  # it would drop other features each time
            dropouts.append((layer, layer.rate))
            layer.rate = 0.0
        if isinstance(layer, keras.layers.BatchNormalization):
            norms.append((layer, layer.momentum))
            continue
        drawn = []
        for weight in layer.get_weights():
            if weight.ndim < 2:  # biases and scales stay as Keras starts them
                drawn.append(weight)
                continue
            fan_in = np.prod(weight.shape[:-1])
            drawn.append(rng.normal(0, np.sqrt(2 / fan_in), weight.shape).astype(np.float32))
        layer.set_weights(drawn)
    for layer, _ in norms:
        layer.momentum = 0.0
    photos = _generated(rng, shape)
    model((photos + 1) * np.float32(127.5) if scales else photos, training=True)
    for layer, momentum in norms:
        layer.momentum = momentum
    for layer, rate in dropouts:
        layer.rate = rate


def _generated(rng: np.random.Generator, shape: tuple[int, int, int], count: int = 4) -> Any:
    """Return float32 (count, size, size, 3) in [-1, 1]: noise at many scales, as photos have."""
    size = shape[0]
    total = np.zeros((count, *shape), dtype=np.float32)
    for cells in (2, 5, 13, 38, 113, size):
        noise = rng.normal(size=(count, cells, cells, 3)).astype(np.float32)
        index = np.arange(size) * cells // size
        total += noise[:, index][:, :, index] / np.float32(cells**0.5)
    spread = np.abs(total).max(axis=(1, 2, 3), keepdims=True)
    return total / spread

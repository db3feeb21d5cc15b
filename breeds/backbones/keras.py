"""The reference engine: ``keras.applications`` in fp32, on whatever device Keras sees."""

from __future__ import annotations

import re
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from breeds.backbones import BACKBONES, FeatureAndMap, unmapped
from breeds.backbones.weights import Weights, check_unchanged
from breeds.config import FeatureConfig
from breeds.errors import BreedsError
from breeds.machine import quiet

with quiet():
    import keras

__all__ = ["KerasEngine", "build", "keras"]

# At which input size random weights are calibrated, in pixels; every backbone takes it.
_RANDOM_SIZE = 96


class KerasEngine:
    """Xception and its like on Keras, photo by photo: the reference, on whatever device Keras sees.

    On a CPU a feature is the same to the last bit whatever photos are around it, and is so from run
    to run on one machine. A GPU that Keras sees is used; none of our machines has run that.

    Parameters
    ----------
    config
        Names the backbone and its input size.
    weights
        Finds the weights that the config's digest stands for.
    maps
        Give maps too, as a second output of the same network.
    others
        What other engines take (`breeds.backbones.resolve.open_engine`), which means nothing here.

    Raises
    ------
    BreedsError
        If the weights do not fit the backbone (the text names the layer), or it has no map to give.
    """

    name = "keras"

    def __init__(
        self, config: FeatureConfig, weights: Callable[[], Weights], *, maps: bool = False, **others: Any
    ) -> None:
        self._size = config.size
        self._scales = BACKBONES[config.backbone].scales
        found = weights()
        with quiet():
            self._model = build(config, found)
        self._maps = maps
        if maps:
            self._model = add_map(self._model, config.backbone)

    def stream(self, pixels: Iterable[NDArray[np.uint8]]) -> Iterator[NDArray[np.float32]]:
        """Yield one feature, float32 (width,), for each photo, uint8 (size, size, 3), in order."""
        for photo in pixels:
            yield self._compute(photo)[0]

    def stream_maps(self, pixels: Iterable[NDArray[np.uint8]]) -> Iterator[FeatureAndMap]:
        """Yield each photo's feature with the map that it is the mean of, if opened with ``maps=True``."""
        if not self._maps:
            raise ValueError("the engine was opened without maps")
        for photo in pixels:
            feature, unpooled = self._compute(photo)
            yield feature, unpooled

    def _compute(self, photo: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        """Return a photo's feature, and the map if it was asked for."""
        # One photo at a time: on some CPUs a feature's last bits depend on its place in a batch. Batches of
        # 32 are up to a quarter faster (`benchmarks/extraction.py`); who is in a hurry uses OpenVINO.
        batch = photo[None].astype(np.float32)
        if not self._scales:
            batch /= np.float32(127.5)
            batch -= np.float32(1)
        found = self._model.predict_on_batch(batch)
        return [np.asarray(output[0], dtype=np.float32) for output in (found if self._maps else [found])]


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


def build(config: FeatureConfig, weights: Weights) -> Any:
    """Build the Keras model of `config`: float32 (n, size, size, 3) in [-1, 1] to (n, width).

    Raises
    ------
    BreedsError
        If the weights do not fit the backbone; the text names the layer.
    """
    model = _architecture(config.backbone, config.size)
    if weights.path is not None:
        _load(model, weights.path)
        # Keras reads by name, and what has it now may be another file
        check_unchanged(weights, BACKBONES[config.backbone])
        return model
    # Always of one size, so that random weights are the same at every size; and of a small one, as
    # calibration keeps every layer's output for all its photos: 5 GB for Xception at 299 pixels.
    drawn = model if config.size == _RANDOM_SIZE else _architecture(config.backbone, _RANDOM_SIZE)
    _randomise(drawn, (_RANDOM_SIZE, _RANDOM_SIZE, 3), BACKBONES[config.backbone].scales)
    if drawn is not model:
        model.set_weights(drawn.get_weights())
    return model


def _architecture(backbone: str, size: int) -> Any:
    """Build the network with fresh weights."""
    constructor = getattr(keras.applications, BACKBONES[backbone].keras_name)
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float32")  # whatever a program that uses this library has set
    try:
        return constructor(include_top=False, weights=None, input_shape=(size, size, 3), pooling="avg")
    finally:
        keras.config.set_dtype_policy(before)


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

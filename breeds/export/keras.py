"""Network and head as one Keras model of Keras's own layers, which loads without Breeds."""

from __future__ import annotations

import json
import shutil
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from breeds.backbones import BACKBONES
from breeds.backbones.keras import build, keras
from breeds.backbones.weights import Weights
from breeds.export import PIXELS, PROBABILITIES, SCORE, about
from breeds.export.compare import Answers, Comparison
from breeds.files import write_aside
from breeds.heads.model import Model

#: What the file says of itself, and the first of its members, by which it is known.
ABOUT = "breeds.json"


def classifier(model: Model, weights: Sequence[Weights]) -> Any:
    """Build a Keras model of a model's networks and its head.

    Parameters
    ----------
    weights
        Of each of the model's configs, all in fp32 and of the same size.

    Returns
    -------
    keras.Model
        From `PIXELS`, uint8 (n, size, size, 3), to a dictionary: `PROBABILITIES`, float32 (n, classes), and
        `SCORE`, float32 (n,), if the model has a detector.

    Raises
    ------
    BreedsError
        If weights do not fit their backbone.
    """
    layers = keras.layers
    size = model.config.size
    pixels = keras.Input((size, size, 3), dtype="uint8", name=PIXELS)
    parts = []
    for number, ((config, _), found) in enumerate(zip(model.parts, weights, strict=True)):
        built = build(config, found)
        network = keras.Model(built.inputs, built.outputs[0], name=f"network_{number}")
        scale = (1.0, 0.0) if BACKBONES[config.backbone].scales else (1 / 127.5, -1.0)
        parts.append(network(layers.Rescaling(*scale, name=f"scaled_{number}")(pixels)))
    features = layers.Concatenate(name="features")(parts) if len(parts) > 1 else parts[0]
    outputs = {PROBABILITIES: _probabilities(model, features)}
    if model.unknown is not None:
        outputs[SCORE] = _score(model, features)
    return keras.Model(pixels, outputs, name="breeds_classifier")


def _dense(inputs: Any, weights: NDArray[Any], bias: NDArray[Any] | None = None, **options: Any) -> Any:
    """Apply a dense layer of these numbers."""
    layer = keras.layers.Dense(weights.shape[1], use_bias=bias is not None, **options)
    result = layer(inputs)
    layer.set_weights([weights] if bias is None else [weights, bias])
    return result


def _probabilities(model: Model, features: Any) -> Any:
    """Do what `Model.probabilities` does, the temperature in the last layer's numbers."""
    scale = model.scale.astype(np.float64)
    standardise = keras.layers.Normalization(mean=model.mean.tolist(), variance=(scale**2).tolist())
    values = standardise(features)
    *hidden, (weights, bias) = model.layers
    for inner, shift in hidden:
        values = _dense(values, inner, shift, activation="relu")
    weights, bias = weights / model.temperature, bias / model.temperature
    return _dense(values, weights, bias, activation="softmax", name=PROBABILITIES)


def _score(model: Model, features: Any) -> Any:
    """Do what `breeds.heads.unknown.Detector.excess` does."""
    assert model.unknown is not None
    layers, ops = keras.layers, keras.ops
    lighter, linear, constant = model.unknown.terms()
    unit = layers.UnitNormalization(name="unit_length")(features)
    along = _dense(unit, lighter)
    rest = ops.sum(unit * unit, axis=1, keepdims=True) - ops.sum(along * along, axis=1, keepdims=True)
    distances = _dense(unit, linear, constant) + rest
    typical = layers.Embedding(len(model.classes), 1, name="typical")
    of_nearest = typical(ops.argmin(distances, axis=1))[:, 0]
    typical.set_weights([model.unknown.typical[:, None]])
    return layers.Identity(name=SCORE)(ops.min(distances, axis=1) - of_nearest)


def write(model: Model, path: Path, comparison: Comparison) -> tuple[float, int]:
    """Write a model's file; return the largest difference of its answers, and over how many photos.

    Raises
    ------
    BreedsError
        If it cannot be written, or answers otherwise.
    """
    with write_aside(path) as aside:
        _save(classifier(model, [comparison.weights_of(part) for part in model.parts]), model, aside)
        return comparison.check(_run(aside, comparison.batches), "Keras", path)


def _save(classifier: Any, model: Model, path: Path) -> None:
    """Save a Keras model at `path`, with a member `ABOUT` that says what it is before the others."""
    with tempfile.TemporaryDirectory(prefix="breeds-") as folder:
        saved = Path(folder, "saved.keras")  # Keras goes by the name
        classifier.save(saved)
        with zipfile.ZipFile(saved) as members, zipfile.ZipFile(path, "w") as whole:
            whole.writestr(ABOUT, json.dumps(about(model), indent=1))
            for member in members.infolist():
                with members.open(member) as source, whole.open(member, "w") as target:
                    shutil.copyfileobj(source, target)


def _run(path: Path, batches: Sequence[NDArray[np.uint8]]) -> Answers:
    """Run a file on batches of photos, uint8 (n, size, size, 3), each of any number."""
    with tempfile.TemporaryDirectory(prefix="breeds-") as folder:
        link = Path(folder, "saved.keras")
        link.symlink_to(path.resolve())
        model = keras.models.load_model(link)
    found = [model.predict_on_batch(batch) for batch in batches]
    columns = {name: np.concatenate([outputs[name] for outputs in found]) for name in found[0]}
    return Answers(columns[PROBABILITIES], columns.get(SCORE))

"""Network and head as one network of OpenVINO: pixels in, probabilities and the score for unknown out."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from breeds.backbones import import_openvino
from breeds.backbones.openvino import read_network
from breeds.config import FeatureConfig
from breeds.errors import BreedsError
from breeds.export import PIXELS, PROBABILITIES, SCORE, as_texts
from breeds.export.compare import Answers, Comparison, joined
from breeds.files import commit, temporary_beside
from breeds.heads.model import Model

#: What the network is called, by which its file is known.
NAME = "breeds classifier"
# Without it OpenVINO may compute in bf16 where the CPU can, and the file cannot ask for it.
_EXACT = {"INFERENCE_PRECISION_HINT": "f32"}
#: The least length by which a feature is divided, as in `breeds.heads.unknown`.
SHORTEST = 1e-12


def classifier(model: Model, networks: Sequence[Any]) -> Any:
    """Put a model's networks and its head into one network.

    Parameters
    ----------
    networks
        The network of each of the model's configs, uint8 (n, size, size, 3) to float32 (n, width), all of
        the same size. They become parts of what is returned.

    Returns
    -------
    openvino.Model
        From `PIXELS`, uint8 (n, size, size, 3), to `PROBABILITIES`, float32 (n, classes), and `SCORE`,
        float32 (n,), if the model has a detector. n is any number but for int8, where it is 1 until
        ``reshape`` sets another: where n is open OpenVINO rounds elsewhere, which is another network.
    """
    ov = import_openvino()
    from openvino import opset8 as ops

    fixed = any(config.precision == "int8" for config, _ in model.parts)
    shape = [1 if fixed else -1, model.config.size, model.config.size, 3]
    pixels = ops.parameter(shape, ov.Type.u8, name=PIXELS)
    pixels.output(0).get_tensor().set_names({PIXELS})
    features = []
    for network in networks:
        _set_shape(network, shape)
        for target in network.input(0).get_target_inputs():
            target.replace_source_output(pixels.output(0))
        features.append(network.output(0).get_node().input_value(0))
    joined = ops.concat(features, 1) if len(features) > 1 else features[0]
    outputs = {PROBABILITIES: _probabilities(ops, model, joined)}
    if model.unknown is not None:
        outputs[SCORE] = _score(ops, model, joined)
    for name, node in outputs.items():
        node.output(0).get_tensor().set_names({name})
    whole = ov.Model([ops.result(node) for node in outputs.values()], [pixels], NAME)
    for name, text in as_texts(model).items():
        whole.set_rt_info(text, ["breeds", name])
    return whole


def _set_shape(network: Any, shape: list[int]) -> None:
    """Set how many photos a network takes; one that came as an ONNX file may be for one alone.

    Raises
    ------
    BreedsError
        If it is, and any number was asked for.
    """
    try:
        network.reshape(shape)
        fits = shape[0] > 0 or network.output(0).get_partial_shape()[0].is_dynamic
    except RuntimeError:
        fits = False
    if not fits:
        raise BreedsError(
            "The network takes one photo at a time, and a file for other programs any number; export the "
            "network itself with an open number of photos, and extract and train again."
        )


def _constant(ops: Any, array: Any) -> Any:
    return ops.constant(np.asarray(array, dtype=np.float32))


def _probabilities(ops: Any, model: Model, features: Any) -> Any:
    """Do what `Model.probabilities` does."""
    centred = ops.subtract(features, _constant(ops, model.mean[None]))
    values = ops.divide(centred, _constant(ops, model.scale[None]))
    for number, (weights, bias) in enumerate(model.layers):
        values = ops.relu(values) if number else values
        product = ops.matmul(values, _constant(ops, weights), False, False)
        values = ops.add(product, _constant(ops, bias[None]))
    return ops.softmax(ops.divide(values, _constant(ops, [[model.temperature]])), 1)


def _score(ops: Any, model: Model, features: Any) -> Any:
    """Do what `breeds.heads.unknown.Detector.excess` does."""
    assert model.unknown is not None
    lighter, linear, constant = model.unknown.terms()
    axis = ops.constant(np.array([1]))

    def squared_length(rows: Any) -> Any:
        return ops.reduce_sum(ops.multiply(rows, rows), axis, keep_dims=True)

    length = ops.maximum(ops.sqrt(squared_length(features)), _constant(ops, [[SHORTEST]]))
    unit = ops.divide(features, length)
    rest = ops.subtract(
        squared_length(unit),
        squared_length(ops.matmul(unit, _constant(ops, lighter), False, False)),
    )
    product = ops.add(ops.matmul(unit, _constant(ops, linear), False, False), _constant(ops, constant[None]))
    nearest = ops.topk(ops.add(product, rest), ops.constant(np.array(1)), 1, "min", "value")
    typical = ops.gather(_constant(ops, model.unknown.typical), nearest.output(1), ops.constant(np.array(0)))
    return ops.squeeze(ops.subtract(nearest.output(0), typical), axis)


def networks(model: Model, comparison: Comparison) -> list[Any]:
    """Read the network of each of a model's configs."""
    core = import_openvino().Core()

    def network(part: tuple[FeatureConfig, str]) -> Any:
        quantised = partial(model.networks.get, part[0].calibration)
        return read_network(core, part[0], partial(comparison.weights_of, part), quantised)

    return list(map(network, model.parts))


def write(model: Model, path: Path, comparison: Comparison) -> tuple[float, int]:
    """Write a model's two files; return the largest difference of its answers, and over how many photos.

    Raises
    ------
    BreedsError
        If they cannot be written, or answer otherwise.
    """
    with written(classifier(model, networks(model, comparison)), path) as network:
        return comparison.check(_run(network, comparison.batches), "OpenVINO", path)


def _run(network: Any, batches: Sequence[NDArray[np.uint8]]) -> Answers:
    """Run a network on batches of photos, uint8 (n, size, size, 3), each of any number."""
    settings: dict[str, Any] = dict(_EXACT)
    if network.input(0).get_partial_shape().is_static:  # int8: one photo at a time
        batches = [photo[None] for batch in batches for photo in batch]
        # Threads that share a photo add up in another order each time, and a step of int8 is far wider.
        settings["INFERENCE_NUM_THREADS"] = 1
    compiled = import_openvino().Core().compile_model(network, "CPU", settings)
    numbers = range(len(compiled.outputs))
    found = [compiled(batch) for batch in batches]
    return joined([[np.array(outputs[number]) for number in numbers] for outputs in found])


@contextmanager
def written(network: Any, path: Path) -> Iterator[Any]:
    """Write a network aside and give it as it is read back; if nothing is wrong then, it gets its name.

    A kill leaves the old files or the new ones, or none with the name `path`, but never one of each.

    Raises
    ------
    BreedsError
        If it cannot be written.
    """
    ov = import_openvino()
    description, numbers = path, path.with_suffix(".bin")
    with temporary_beside(description) as xml, temporary_beside(numbers) as bin_:
        with tempfile.TemporaryDirectory(prefix="breeds-") as folder:
            saved = Path(folder, "network.xml")
            ov.save_model(network, saved, compress_to_fp16=False)
            shutil.copyfile(saved, xml)
            shutil.copyfile(saved.with_suffix(".bin"), bin_)
        yield ov.Core().read_model(xml.read_bytes(), bin_.read_bytes())
        Path(os.path.realpath(description)).unlink(missing_ok=True)
        commit(bin_, numbers)
        commit(xml, description)

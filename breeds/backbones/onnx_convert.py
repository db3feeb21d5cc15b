"""An ONNX network made one of OpenVINO's: a photo's pixels in, its feature out; measured before it runs."""

from __future__ import annotations

import resource
from contextlib import suppress
from math import prod
from pathlib import Path
from typing import Any

from breeds.backbones import import_openvino
from breeds.backbones.onnx_file import content_of, describe, refused
from breeds.config import Preprocessing
from breeds.errors import BreedsError
from breeds.machine import quiet

#: Bounds of a network, in bytes: of numbers that do not depend on the photo, and of any one tensor.
MOST_CONSTANT, MOST_TENSOR = 2**30, 2**30
# Bounds of the process that reads it: address space in bytes, and seconds of a processor.
_MEMORY, _SECONDS = 2**33, 900


def bring(target: Path, path: Path, sha256: str, size: int, preprocessing: Preprocessing) -> None:
    """Write the network of an ONNX file for OpenVINO; to be run in a process of its own, which it bounds.

    Parameters
    ----------
    target
        The XML file to write, with the numbers beside it.
    path, sha256
        The ONNX file, and what its content has to be.
    size, preprocessing
        How it is read.

    Raises
    ------
    BreedsError
        In one sentence, why it cannot be used.
    """
    _bound()
    model, found = content_of(path)
    if found != sha256:
        raise BreedsError(f"{path} was replaced while it was being read; run the command again.")
    taken = describe(model, path).name
    data = model.SerializeToString()
    del model
    ov = import_openvino()
    with quiet():
        try:
            network = ov.Core().read_model(data)
            colours_first = preprocessing.layout == "nchw"
            network.reshape({taken: [1, 3, size, size] if colours_first else [1, size, size, 3]})
            network = _pooled(ov, network, preprocessing, path)
            network = _of_pixels(ov, network, preprocessing)
        except (RuntimeError, MemoryError, ValueError, TypeError) as error:
            reason = " ".join(str(error).split())[-200:]
            if isinstance(error, MemoryError) or "alloc" in reason:
                raise _too_large(path) from None
            raise BreedsError(
                f"OpenVINO cannot read the network {path} for {size}×{size} pixels ({reason}); export it for "
                f"that size, with plain operators."
            ) from None
        _measure(network, path)
        _fold(ov, network, size)
        ov.save_model(network, target, compress_to_fp16=False)


def _bound() -> None:
    """Bound this process, where the system can: a small file may ask for all memory, or all day."""
    for what, most in ((resource.RLIMIT_AS, _MEMORY), (resource.RLIMIT_CPU, _SECONDS)):
        with suppress(OSError, ValueError):
            resource.setrlimit(what, (most, resource.getrlimit(what)[1]))


def _pooled(ov: Any, network: Any, preprocessing: Preprocessing, path: Path) -> Any:
    """Return the network with one output, float32 (1, width): the feature."""
    from openvino import opset8 as ops

    output = network.output(preprocessing.output)
    source = output.get_node().input_value(0)
    shape = source.get_partial_shape()
    if shape.is_dynamic:
        what = f"has no fixed shape ({shape}) of {preprocessing.output[:60]} where the photo has one"
        raise refused(path, f"{what}; export it with one")
    places = [2, 3] if preprocessing.layout == "nchw" else [1, 2]
    axes: dict[tuple[str, int], list[int]] = {
        ("none", 2): [], ("cls", 3): [], ("avg", 3): [1], ("avg", 4): places
    }  # fmt: skip
    along = axes.get((preprocessing.pool, len(shape)))
    if along is None or shape[0] != 1:
        raise BreedsError(
            f"The output {preprocessing.output[:60]} of the network {path} is {shape}, of which "
            f'"pool": "{preprocessing.pool}" makes no feature of a photo; name another in the JSON beside it.'
        )
    if source.get_element_type() != ov.Type.f32:
        if not source.get_element_type().is_real():
            raise refused(path, "gives no floating-point numbers, so they are no features")
        source = ops.convert(source, "f32").output(0)
    if along:
        source = ops.reduce_mean(source, along, False).output(0)
    elif preprocessing.pool == "cls":
        source = ops.gather(source, ops.constant(0), ops.constant(1)).output(0)
    width = source.get_shape()[1]
    if not 1 <= width <= 2**16:
        raise refused(path, f"gives {width} numbers a photo, which is no feature")
    return ov.Model([ops.result(source)], network.get_parameters(), "brought")


def _of_pixels(ov: Any, network: Any, preprocessing: Preprocessing) -> Any:
    """Return the network with its scaling inside: it takes uint8 (1, size, size, 3), from 0 to 255."""
    from openvino.preprocess import PrePostProcessor

    kind = network.input(0).get_element_type()
    steps = PrePostProcessor(network)
    steps.input().tensor().set_element_type(ov.Type.u8).set_layout(ov.Layout("NHWC"))
    steps.input().model().set_layout(ov.Layout(preprocessing.layout.upper()))
    pixels = steps.input().preprocess().convert_element_type(ov.Type.f32)
    mean, std = ([255 * value for value in column] for column in (preprocessing.mean, preprocessing.std))
    pixels.mean(mean).scale(std)
    pixels.convert_element_type(kind)
    return steps.build()


def _fold(ov: Any, network: Any, size: int) -> None:
    """Compute what no photo decides, such as the axes of an average, for whoever looks at the network later.

    The number of photos is left open meanwhile where it can be, so that it can be set afterwards.
    """
    from openvino.passes import ConstantFolding, Manager

    with suppress(RuntimeError):  # exported for one photo
        network.reshape([-1, size, size, 3])
    manager = Manager()
    manager.register_pass(ConstantFolding())
    manager.run_passes(network)
    network.reshape([1, size, size, 3])


def _measure(network: Any, path: Path) -> None:
    """Refuse a network that would take more memory than it may, before anything of it is computed.

    What does not depend on the photo is computed where a network is opened, however small its file is.
    """
    constant = 0
    depends: set[str] = set()
    for node in network.get_ordered_ops():
        name = node.get_friendly_name()
        if node.get_type_name() == "Parameter" or any(
            value.get_node().get_friendly_name() in depends for value in node.input_values()
        ):
            depends.add(name)
        for output in node.outputs():
            shape = output.get_partial_shape()
            most = shape.get_max_shape() if shape.rank.is_static else [2**62]
            size = prod(most) * max(1, output.get_element_type().bitwidth // 8)
            constant += 0 if name in depends else size
            if size > MOST_TENSOR or constant > MOST_CONSTANT:
                raise _too_large(path)


def _too_large(path: Path) -> BreedsError:
    most = f"{MOST_TENSOR / 2**30:.0f} GiB"
    return refused(path, f"wants more than {most} for the numbers of one step, or for its constants")

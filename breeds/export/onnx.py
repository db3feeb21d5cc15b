"""A network of OpenVINO as ONNX: the graph is walked, and every operation written down in ONNX's words.

OpenVINO itself writes none. Keras's exporter (tf2onnx 1.17) knows no network that people bring, wants
TensorFlow and the weights again, and writes EfficientNetV2 with numbers of its own as inputs that nobody
feeds. Only what networks for images are made of is known here; anything else is refused by name.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from breeds.export import as_texts, openvino
from breeds.export.compare import Answers, Comparison, joined
from breeds.export.onnx_operations import WRITERS, Graph, unknown
from breeds.files import write_aside
from breeds.heads.model import Model

#: Of ONNX, and of its files: those of the spring of 2023, which what runs ONNX has known since.
OPSET, IR_VERSION = 18, 8
PRODUCER = "breeds"


def translate(network: Any, name: str, texts: dict[str, str]) -> Any:
    """Write a network of OpenVINO down as ONNX.

    Parameters
    ----------
    network
        An ``openvino.Model`` whose inputs and outputs have names.
    name
        What the graph is called.
    texts
        Its metadata.

    Returns
    -------
    onnx.ModelProto

    Raises
    ------
    BreedsError
        If it has an operation that is not known here; the text names it.
    """
    from onnx import checker, helper

    graph = Graph()
    results = []
    for node in network.get_ordered_ops():
        kind = node.get_type_name()
        if kind == "Parameter":
            graph.name(node, [node.output(0).get_any_name()])
        elif kind == "Result":
            results.append(node)
        elif kind != "Constant":
            if kind not in WRITERS:
                raise unknown(node)
            names = WRITERS[kind](graph, node)
            graph.name(node, [names] if isinstance(names, str) else names)
    for port in network.outputs:
        graph.add("Identity", graph.input(port.get_node(), 0), outputs=[port.get_any_name()])
    inputs, outputs = ([_described(port) for port in ports] for ports in (network.inputs, network.outputs))
    made = helper.make_model(
        helper.make_graph(graph.nodes, name, inputs, outputs, graph.constants),
        producer_name=PRODUCER,
        ir_version=IR_VERSION,
        opset_imports=[helper.make_opsetid("", OPSET)],
    )
    helper.set_model_props(made, texts)
    checker.check_model(made)
    return made


def _described(port: Any) -> Any:
    """Return name, type and shape of an input or output; "n" stands for the number of photos."""
    from onnx import helper

    kind = helper.np_dtype_to_tensor_dtype(np.dtype(port.get_element_type().to_dtype()))
    shape = [axis.get_length() if axis.is_static else "n" for axis in port.get_partial_shape()]
    return helper.make_tensor_value_info(port.get_any_name(), kind, shape)


def write(model: Model, path: Path, comparison: Comparison) -> tuple[float, int]:
    """Write a model's file; return the largest difference of its answers, and over how many photos.

    Raises
    ------
    BreedsError
        If it cannot be written, or answers otherwise.
    """
    network = openvino.classifier(model, openvino.networks(model, comparison))
    made = translate(network, openvino.NAME, as_texts(model))
    with write_aside(path) as aside:
        aside.write_bytes(made.SerializeToString())
        return comparison.check(_run(aside, comparison.batches), "ONNX Runtime", path)


def _run(path: Path, batches: Sequence[NDArray[np.uint8]]) -> Answers:
    """Run a file on batches of photos, uint8 (n, size, size, 3), each of any number."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    asked = session.get_inputs()[0].name
    return joined([session.run(None, {asked: batch}) for batch in batches])

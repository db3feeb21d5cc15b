"""Operations of OpenVINO in ONNX's words, one by one: a row of `WRITERS` for each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from breeds.errors import BreedsError

_END = np.iinfo(np.int64).max
# Operations that differ in nothing but their name.
_SAME = {
    "Abs": "Abs", "Add": "Add", "Divide": "Div", "Erf": "Erf", "Exp": "Exp", "Floor": "Floor",
    "HSwish": "HardSwish", "Log": "Log", "Maximum": "Max", "Minimum": "Min", "Multiply": "Mul",
    "Negative": "Neg", "Power": "Pow", "Relu": "Relu", "Sigmoid": "Sigmoid", "SoftPlus": "Softplus",
    "Sqrt": "Sqrt", "Subtract": "Sub", "Tanh": "Tanh",
}  # fmt: skip
_REDUCTIONS = ("ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum")


class Graph:
    """The graph that grows: nodes, constants, and what every output of OpenVINO's is called in it."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self._names: dict[tuple[str, int], str] = {}

    def add(self, kind: str, *inputs: str, outputs: Sequence[str] = (), **attributes: Any) -> str:
        """Add a node and return the name of its first output."""
        from onnx import helper

        names = list(outputs) or [f"value{len(self.nodes)}"]
        name = f"{kind}{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, names, name=name, **attributes))
        return names[0]

    def constant(self, array: Any) -> str:
        """Add a constant and return its name."""
        from onnx import numpy_helper

        name = f"constant{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def name(self, node: Any, names: Sequence[str]) -> None:
        """Say what the outputs of OpenVINO's node are called."""
        for port, name in enumerate(names):
            self._names[node.get_name(), port] = name

    def input(self, node: Any, number: int) -> str:
        """Return the name of what a node of OpenVINO's takes."""
        source = node.input_value(number)
        place = source.get_node().get_name(), source.get_index()
        if place not in self._names:  # a constant: those that become attributes are not written
            self._names[place] = self.constant(_array(node, number))
        return self._names[place]

    def inputs(self, node: Any) -> list[str]:
        """Return the names of all that a node takes."""
        return [self.input(node, number) for number in range(node.get_input_size())]


def unknown(node: Any, why: str = "") -> BreedsError:
    """Return the error for an operation that cannot be written."""
    return BreedsError(
        f"The network has an operation, {node.get_type_name()}{why}, that Breeds cannot write as ONNX; "
        f"export it as openvino."
    )


def _array(node: Any, number: int) -> NDArray[Any]:
    """Return the constant that a node takes."""
    source = node.input_value(number).get_node()
    if source.get_type_name() != "Constant":
        raise unknown(node, " without a constant")
    return np.array(source.data)


def _integers(node: Any, number: int) -> list[int]:
    return [int(value) for value in _array(node, number).ravel()]


def _axis(node: Any) -> dict[str, int]:
    return {"axis": node.get_attributes()["axis"]}


def _window(node: Any) -> dict[str, Any]:
    """Return the attributes of what slides over an image."""
    found = node.get_attributes()
    result = {"strides": found["strides"]}
    if "dilations" in found:
        result["dilations"] = found["dilations"]
    if "kernel" in found:
        result |= {"kernel_shape": found["kernel"], "ceil_mode": int(found["rounding_type"] != "floor")}
    if found["auto_pad"] in ("same_upper", "same_lower"):
        return result | {"auto_pad": found["auto_pad"].upper()}
    return result | {"pads": [*found["pads_begin"], *found["pads_end"]]}


def _group_convolution(graph: Graph, node: Any) -> str:
    weights = _array(node, 1)  # (groups, outputs of each, inputs of each, height, width)
    joined = graph.constant(weights.reshape(-1, *weights.shape[2:]))
    return graph.add("Conv", graph.input(node, 0), joined, group=weights.shape[0], **_window(node))


def _reduction(graph: Graph, node: Any) -> str:
    keep = int(node.get_attributes()["keep_dims"])
    axes = graph.constant(np.array(_integers(node, 1)))
    return graph.add(node.get_type_name(), graph.input(node, 0), axes, keepdims=keep)


def _matrix_product(graph: Graph, node: Any) -> str:
    factors = graph.inputs(node)
    for number, turned in enumerate(("transpose_a", "transpose_b")):
        if node.get_attributes()[turned]:
            axes = list(range(node.get_input_partial_shape(number).rank.get_length()))
            axes[-2:] = axes[:-3:-1]
            factors[number] = graph.add("Transpose", factors[number], perm=axes)
    return graph.add("MatMul", *factors)


def _cast(graph: Graph, value: str, node: Any, port: int = 0) -> str:
    from onnx import helper

    kind = node.get_output_element_type(port).to_dtype()
    return graph.add("Cast", value, to=helper.np_dtype_to_tensor_dtype(np.dtype(kind)))


def _clamp(graph: Graph, node: Any) -> str:
    found = node.get_attributes()
    kind = node.get_output_element_type(0).to_dtype()
    bounds = [graph.constant(np.array(found[name], dtype=kind)) for name in ("min", "max")]
    return graph.add("Clip", graph.input(node, 0), *bounds)


def _swish(graph: Graph, node: Any) -> str:
    value, *slope = graph.inputs(node)
    steep = graph.add("Mul", value, *slope) if slope else value
    return graph.add("Mul", value, graph.add("Sigmoid", steep))


def _hard_sigmoid(graph: Graph, node: Any) -> str:
    alpha, beta = (1 / 6, 0.5) if node.get_input_size() == 1 else (float(_array(node, i)) for i in (1, 2))
    return graph.add("HardSigmoid", graph.input(node, 0), alpha=alpha, beta=beta)


def _gelu(graph: Graph, node: Any) -> str:
    """Half of x, times 1 + erf(x / √2), or what comes near it, 1 + tanh(√(2 / π) (x + 0.044715 x³))."""
    value = graph.input(node, 0)

    def number(x: float) -> str:
        return graph.constant(np.float32(x))

    if node.get_attributes().get("approximation_mode", "ERF").upper() == "TANH":
        cube = graph.add("Mul", graph.add("Pow", value, number(3)), number(0.044715))
        bent = graph.add("Tanh", graph.add("Mul", graph.add("Add", value, cube), number((2 / np.pi) ** 0.5)))
    else:
        bent = graph.add("Erf", graph.add("Mul", value, number(0.5**0.5)))
    return graph.add("Mul", graph.add("Mul", value, number(0.5)), graph.add("Add", bent, number(1)))


def _squared_difference(graph: Graph, node: Any) -> str:
    difference = graph.add("Sub", *graph.inputs(node))
    return graph.add("Mul", difference, difference)


def _normalise(graph: Graph, node: Any) -> str:
    """Subtract the mean over some axes, and divide by the deviation."""
    found, value = node.get_attributes(), graph.input(node, 0)
    axes = graph.constant(np.array(_integers(node, 1)))
    centred = graph.add("Sub", value, graph.add("ReduceMean", value, axes, keepdims=1))
    if not found["normalize_variance"]:
        return centred
    variance = graph.add("ReduceMean", graph.add("Mul", centred, centred), axes, keepdims=1)
    epsilon = graph.constant(np.float32(found["eps"]))
    if found["eps_mode"].lower() == "inside_sqrt":
        return graph.add("Div", centred, graph.add("Sqrt", graph.add("Add", variance, epsilon)))
    return graph.add("Div", centred, graph.add("Add", graph.add("Sqrt", variance), epsilon))


def _attention(graph: Graph, node: Any) -> str:
    """Softmax of queries times keys, scaled, plus a mask, times values."""
    query, key, value, *more = graph.inputs(node)
    if node.get_attributes()["causal"] or len(more) > 2:
        raise unknown(node, " that looks at what came before")
    rank = node.get_input_partial_shape(1).rank.get_length()
    turned = graph.add("Transpose", key, perm=[*range(rank - 2), rank - 1, rank - 2])
    depth = node.get_input_partial_shape(0)[rank - 1].get_length()
    scale = more[1] if len(more) > 1 else graph.constant(np.float32(depth**-0.5))
    scores = graph.add("Mul", graph.add("MatMul", query, turned), scale)
    if more:
        scores = graph.add("Add", scores, more[0])
    return graph.add("MatMul", graph.add("Softmax", scores, axis=-1), value)


def _pad(graph: Graph, node: Any) -> str:
    mode = node.get_attributes()["pad_mode"]
    if mode not in ("constant", "edge", "reflect"):
        raise unknown(node, f" of the mode {mode}")
    pads = graph.constant(np.array([*_integers(node, 1), *_integers(node, 2)]))
    filled = [graph.input(node, 3)] if mode == "constant" and node.get_input_size() > 3 else []
    return graph.add("Pad", graph.input(node, 0), pads, *filled, mode=mode)


def _gather(graph: Graph, node: Any) -> str:
    if node.get_attributes().get("batch_dims", 0):
        raise unknown(node, " by batch")
    (axis,) = _integers(node, 2)
    return graph.add("Gather", graph.input(node, 0), graph.input(node, 1), axis=axis)


def _slice(graph: Graph, node: Any) -> str:
    data, start, stop, step = (graph.input(node, number) for number in range(4))
    axes = [graph.input(node, 4)] if node.get_input_size() > 4 else [
        graph.constant(np.arange(node.get_input_partial_shape(0).rank.get_length()))
    ]  # fmt: skip
    return graph.add("Slice", data, start, stop, *axes, step)


def _strided_slice(graph: Graph, node: Any) -> str:
    found = node.get_attributes()
    if any([*found["new_axis_mask"], *found["ellipsis_mask"]]):
        raise unknown(node, " with new axes")
    starts, stops = _integers(node, 1), _integers(node, 2)
    steps = _integers(node, 3) if node.get_input_size() > 3 else [1] * len(starts)
    begin, end, single = (
        {axis for axis, masked in enumerate(found[f"{name}_mask"]) if masked}
        for name in ("begin", "end", "shrink_axis")
    )
    for axis, step in enumerate(steps):
        if axis in single:
            stops[axis] = starts[axis] + 1 or _END  # after -1 comes the end
            continue
        if axis in begin:
            starts[axis] = 0 if step > 0 else _END
        if axis in end:
            stops[axis] = _END if step > 0 else -_END
    numbers = [graph.constant(np.array(column)) for column in (starts, stops, range(len(starts)), steps)]
    taken = graph.add("Slice", graph.input(node, 0), *numbers)
    return graph.add("Squeeze", taken, graph.constant(np.array(sorted(single)))) if single else taken


def _split(graph: Graph, node: Any) -> list[str]:
    (axis,) = _integers(node, 1)
    names = [f"value{len(graph.nodes)}_{port}" for port in range(node.get_output_size())]
    shapes = [node.get_output_partial_shape(port) for port in range(len(names))]
    lengths = graph.constant(np.array([shape[axis].get_length() for shape in shapes]))
    graph.add("Split", graph.input(node, 0), lengths, outputs=names, axis=axis)
    return names


def _top(graph: Graph, node: Any) -> list[str]:
    found = node.get_attributes()
    if found["sort"] not in ("value", "none"):
        raise unknown(node, f" sorted by {found['sort']}")
    names = [f"value{len(graph.nodes)}_{port}" for port in range(2)]
    count = graph.constant(np.array(_integers(node, 1)))
    largest = int(found["mode"] == "max")
    graph.add("TopK", graph.input(node, 0), count, outputs=names, axis=found["axis"], largest=largest)
    return [names[0], _cast(graph, names[1], node, 1)]


def _broadcast(graph: Graph, node: Any) -> str:
    if node.get_attributes()["mode"] not in ("numpy", "bidirectional"):
        raise unknown(node, f" of the mode {node.get_attributes()['mode']}")
    from onnx import TensorProto

    wanted = graph.add("Cast", graph.input(node, 1), to=TensorProto.INT64)
    return graph.add("Expand", graph.input(node, 0), wanted)


def _shaped(graph: Graph, node: Any) -> str:
    """Reshape, and remove or add axes: all by numbers that ONNX wants in 64 bits."""
    from onnx import TensorProto

    wanted = [
        graph.add("Cast", graph.input(node, number), to=TensorProto.INT64)
        for number in range(1, node.get_input_size())
    ]
    return graph.add(node.get_type_name(), graph.input(node, 0), *wanted)


def _same(graph: Graph, node: Any) -> str:
    if node.get_attributes().get("auto_broadcast", "numpy") != "numpy":
        raise unknown(node, " that spreads its inputs in its own way")
    return graph.add(_SAME[node.get_type_name()], *graph.inputs(node))


#: How each operation of OpenVINO's is written down.
WRITERS: dict[str, Callable[[Graph, Any], str | list[str]]] = {
    "AvgPool": lambda graph, node: graph.add(
        "AveragePool", graph.input(node, 0), **_window(node),
        count_include_pad=int(not node.get_attributes()["exclude-pad"]),
    ),
    "Broadcast": _broadcast,
    "Clamp": _clamp,
    "Concat": lambda graph, node: graph.add("Concat", *graph.inputs(node), **_axis(node)),
    "Convert": lambda graph, node: _cast(graph, graph.input(node, 0), node),
    "Convolution": lambda graph, node: graph.add("Conv", *graph.inputs(node), **_window(node)),
    "Gather": _gather,
    "Gelu": _gelu,
    "GroupConvolution": _group_convolution,
    "HSigmoid": _hard_sigmoid,
    "HardSigmoid": _hard_sigmoid,
    "MVN": _normalise,
    "MatMul": _matrix_product,
    "MaxPool": lambda graph, node: graph.add("MaxPool", graph.input(node, 0), **_window(node)),
    "Pad": _pad,
    "Reshape": _shaped,
    "ScaledDotProductAttention": _attention,
    "ShapeOf": lambda graph, node: _cast(graph, graph.add("Shape", graph.input(node, 0)), node),
    "Slice": _slice,
    "Softmax": lambda graph, node: graph.add("Softmax", graph.input(node, 0), **_axis(node)),
    "Split": _split,
    "SquaredDifference": _squared_difference,
    "Squeeze": _shaped,
    "StridedSlice": _strided_slice,
    "Swish": _swish,
    "TopK": _top,
    "Transpose": lambda graph, node: graph.add(
        "Transpose", graph.input(node, 0), perm=_integers(node, 1)
    ),
    "Unsqueeze": _shaped,
    "VariadicSplit": _split,
} | dict.fromkeys(_SAME, _same) | dict.fromkeys(_REDUCTIONS, _reduction)  # fmt: skip

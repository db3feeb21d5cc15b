"""Small image networks as ONNX files, and what ONNX Runtime makes of a photo with them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
WIDTH = 16
CONFIG = {
    "do_resize": True, "size": {"height": 32, "width": 32}, "resample": 3, "do_rescale": True,
    "rescale_factor": 1 / 255, "do_normalize": True, "image_mean": list(MEAN), "image_std": list(STD),
}  # fmt: skip


def network(
    path: Path,
    axes: int = 2,
    layout: str = "nchw",
    dims: Sequence[int | str] = ("n", 3, 32, 32),
    outputs: Sequence[str] = ("features",),
    half: bool = False,
    more: Sequence[Any] = (),
    taken: str = "",
    name: str = "pixels",
) -> Path:
    """Write a network of two convolutions that gives features (2 axes), tokens (3) or maps (4).

    `more` are further operators, of which `taken` is the output's source; of several outputs the first is the
    network's, and the others are it doubled, tripled ...
    """
    rng = np.random.default_rng(0)
    kind = np.float16 if half else np.float32
    numbers = {
        "w1": rng.normal(0, 0.3, (8, 3, 3, 3)), "w2": rng.normal(0, 0.2, (WIDTH, 8, 3, 3)),
        "b": rng.normal(0, 0.3, WIDTH),
    }  # fmt: skip
    initial = [numpy_helper.from_array(array.astype(kind), key) for key, array in numbers.items()]
    initial.append(numpy_helper.from_array(np.array([0, WIDTH, -1], np.int64), "shape"))
    first = "colours" if layout == "nhwc" else name
    nodes = [
        helper.make_node("Conv", [first, "w1"], ["c1"], strides=[2, 2]),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node("Conv", ["r1", "w2", "b"], ["c2"], strides=[2, 2]),
        helper.make_node("Relu", ["c2"], ["map"]),
    ]
    if layout == "nhwc":
        nodes.insert(0, helper.make_node("Transpose", [name], ["colours"], perm=[0, 3, 1, 2]))
    match axes:
        case 2:
            nodes.append(helper.make_node("GlobalAveragePool", ["map"], ["pooled"]))
            nodes.append(helper.make_node("Flatten", ["pooled"], ["made"]))
        case 3:
            nodes.append(helper.make_node("Reshape", ["map", "shape"], ["rows"]))
            nodes.append(helper.make_node("Transpose", ["rows"], ["made"], perm=[0, 2, 1]))
        case _:
            perm = [0, 2, 3, 1] if layout == "nhwc" else [0, 1, 2, 3]
            nodes.append(helper.make_node("Transpose", ["map"], ["made"], perm=perm))
    nodes += more
    for number, output in enumerate(outputs, 1):
        initial.append(numpy_helper.from_array(np.array(number, kind), f"times{number}"))
        nodes.append(helper.make_node("Mul", [taken or "made", f"times{number}"], [output]))
    element = TensorProto.FLOAT16 if half else TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info(name, element, dims)],
        [helper.make_tensor_value_info(o, element, [f"{o}{i}" for i in range(axes)]) for o in outputs],
        initial,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)
    return path


def described(
    path: Path,
    mean: Sequence[float] = MEAN,
    std: Sequence[float] = STD,
    says: dict[str, Any] | None = None,
    **options: Any,
) -> Path:
    """Write a network, and the JSON beside it that says how it is read: `says`, and how pixels are scaled."""
    config = {"image_mean": list(mean), "image_std": list(std), **(says or {})}
    network(path, **options)
    path.with_suffix(".json").write_text(json.dumps(config), encoding="utf-8")
    return path


def folder(path: Path, config: dict[str, Any] | str | None = None, **options: Any) -> Path:
    """Write a network in the layout of model hubs."""
    network(path / "model.onnx", **options)
    text = config if isinstance(config, str) else json.dumps(CONFIG if config is None else config)
    (path / "preprocessor_config.json").write_text(text, encoding="utf-8")
    return path


def onnx_runtime(path: Path, squares: Sequence[Image.Image], layout: str = "nchw", mean=MEAN, std=STD) -> Any:
    """What ONNX Runtime gives for photos that are squares already: the first output, float32."""
    batch = np.stack([np.asarray(square, np.float32) for square in squares]) / 255
    batch = (batch - np.array(mean, np.float32)) / np.array(std, np.float32)
    batch = batch.transpose(0, 3, 1, 2) if layout == "nchw" else batch
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    asked = session.get_inputs()[0]
    kind = np.float16 if "float16" in asked.type else np.float32
    found = [session.run(None, {asked.name: photo[None].astype(kind)})[0] for photo in batch]
    return np.concatenate(found).astype(np.float32)

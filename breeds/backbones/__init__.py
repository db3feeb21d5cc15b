"""The networks that Breeds knows and the engines that run them: a row for each, read without loading any.

An engine is a class in a module of its own, imported when it is used. On a CPU a feature never depends on
the photos around it, to the last bit. Engines agree within 1e-3 of a feature's length and 1e-4 of cosine
distance, so stores can be begun with one and continued with another.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from breeds.errors import BreedsError
from breeds.started import commanded

if TYPE_CHECKING:  # the command line's help reads `breeds.backbones`, and should come at once
    import numpy as np
    from numpy.typing import NDArray

#: Largest input size that is accepted, in pixels; memory grows with its square.
LARGEST_SIZE = 1024


@dataclass(frozen=True)
class Backbone:
    """A pretrained network without its classifier, as ``keras.applications`` builds it.

    The features are the global average of its last layer. Pixels are scaled to [-1, 1] first, but
    for the networks that `scales` itself says do that inside, and take 0 to 255. `content` is the
    digest of the ImageNet weights' arrays (`breeds.backbones.weightfile.content_digest`) where it is
    known, `weights_digest` that of the file with them which Keras publishes.
    """

    name: str
    keras_name: str
    size: int
    smallest: int
    width: int
    weights_url: str
    weights_digest: str
    scales: bool = False
    content: str = ""


_KERAS_FILES = "https://storage.googleapis.com/tensorflow/keras-applications/"
XCEPTION = Backbone(
    name="xception",
    keras_name="Xception",
    size=299,
    smallest=71,
    width=2048,
    weights_url=_KERAS_FILES + "xception/xception_weights_tf_dim_ordering_tf_kernels_notop.h5",
    weights_digest="b0042744bf5b25fce3cb969f33bebb97",
    content="eccae98f183ea732626aefd3625b50e8a4049799b33e959652ebf515972c7c6e",
)
BACKBONES = {
    backbone.name: backbone
    for backbone in (
        XCEPTION,
        Backbone(
            "inceptionv3", "InceptionV3", 299, 75, 2048,
            _KERAS_FILES + "inception_v3/inception_v3_weights_tf_dim_ordering_tf_kernels_notop.h5",
            "bcbd6486424b2319ff4ef7d526e38f63",
        ),
        Backbone(
            "resnet50v2", "ResNet50V2", 224, 32, 2048,
            _KERAS_FILES + "resnet/resnet50v2_weights_tf_dim_ordering_tf_kernels_notop.h5",
            "fac2f116257151a9d068a22e544a4917",
        ),
        Backbone(
            "efficientnetv2s", "EfficientNetV2S", 384, 32, 1280,
            _KERAS_FILES + "efficientnet_v2/efficientnetv2-s_notop.h5",
            "af0682fb74e8c54910f2d4393339c070", scales=True,
        ),
        Backbone(
            "convnexttiny", "ConvNeXtTiny", 224, 32, 768,
            _KERAS_FILES + "convnext/convnext_tiny_notop.h5",
            "d547c096cabd03329d7be5562c5e14798aa39ed24b474157cef5e85ab9e49ef1", scales=True,
        ),
        Backbone(
            "efficientnetv2b0", "EfficientNetV2B0", 224, 32, 1280,
            _KERAS_FILES + "efficientnet_v2/efficientnetv2-b0_notop.h5",
            "893217f2bb855e2983157299931e43ff", scales=True,
        ),
        Backbone(
            "mobilenetv3large", "MobileNetV3Large", 224, 32, 960,
            _KERAS_FILES + "mobilenet_v3/weights_mobilenet_v3_large_224_1.0_float_no_top_v2.h5",
            "07fb09a5933dd0c8eaafa16978110389", scales=True,
        ),
    )
}  # fmt: skip
#: The backbone in configs of ONNX networks, which people bring; their weights tell them apart.
ONNX = "onnx"


@dataclass(frozen=True)
class EngineEntry:
    """An engine: its name for people, ``module:class`` that implements it, and what it can do."""

    title: str
    implementation: str
    precisions: tuple[str, ...]
    runs_onnx: bool


#: The engines; where several can compute a config, the first that works on this machine does.
ENGINES = {
    "openvino": EngineEntry(
        "OpenVINO", "breeds.backbones.openvino:OpenvinoEngine", ("fp32", "bf16", "int8"), runs_onnx=True
    ),
    "keras": EngineEntry("Keras", "breeds.backbones.keras:KerasEngine", ("fp32",), runs_onnx=False),
}
#: What users choose from.
ENGINE_CHOICES = ("auto", *ENGINES)
PRECISIONS = tuple(dict.fromkeys(name for entry in ENGINES.values() for name in entry.precisions))

#: A feature, float32 (width,), and what it is the mean of, float32 (height, width, features), in cells.
FeatureAndMap: TypeAlias = "tuple[NDArray[np.float32], NDArray[np.float32]]"


class Engine(Protocol):
    """Something that turns pixels into features.

    A feature is the mean over a map of small cells, which an engine that was opened for it gives too.
    """

    name: str

    def stream(self, pixels: Iterable[NDArray[np.uint8]]) -> Iterator[NDArray[np.float32]]:
        """Yield one feature, float32 (width,), for each photo, uint8 (size, size, 3), in order."""
        ...

    def stream_maps(self, pixels: Iterable[NDArray[np.uint8]]) -> Iterator[FeatureAndMap]:
        """Yield each photo's feature with the map that it is the mean of, if opened with ``maps=True``."""
        ...


class EngineUnavailableError(BreedsError):
    """An engine does not work on this machine, whatever it is asked for; the text has no full stop."""


def unmapped(backbone: str) -> BreedsError:
    """Return the error for a network whose features are not the plain mean over its last map."""
    return BreedsError(
        f"Where the network looked cannot be shown for {backbone}: its features are not the plain average of "
        f"its last map, as something follows on the average; use another backbone for that."
    )


def import_openvino() -> Any:
    """Import OpenVINO without its telemetry, which sends what nobody asked for, and takes long to load.

    OpenVINO does without it where its import fails, and has no other switch (0.41 s with it, 0.27 s
    without, medians of ten). In another program it is blocked only while OpenVINO is imported.

    Raises
    ------
    ImportError
        If OpenVINO is not installed or does not load on this machine.
    """
    telemetry = "openvino_telemetry"
    blocked = telemetry not in sys.modules and "openvino" not in sys.modules
    if blocked or commanded():  # in a process of our own it stays blocked: NNCF looks for it later
        sys.modules.setdefault(telemetry, None)  # type: ignore[arg-type]
    try:
        import openvino
    finally:
        if blocked and not commanded():
            sys.modules.pop(telemetry, None)
    return openvino

"""What a backbone is, where its weights come from, and the recipe that decides a feature's value."""

from __future__ import annotations

import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields
from functools import cache
from pathlib import Path

from breeds.errors import BreedsError

#: Version of the decode rule of `breeds.photos`; a change of any pixel needs a new one.
DECODE_RULE = "1"
#: Largest input size that is accepted, in pixels; memory grows with its square.
LARGEST_SIZE = 1024
#: Version of the way random weights are drawn and calibrated.
RANDOM_RULE = "2"


@dataclass(frozen=True)
class Backbone:
    """A pretrained network without its classifier, as ``keras.applications`` builds it.

    The features are the global average of its last layer. Pixels are scaled to [-1, 1] first, but
    for the networks that `scales` itself says do that inside, and take 0 to 255.
    """

    name: str
    keras_name: str
    size: int
    smallest: int
    width: int
    weights_url: str
    weights_digest: str
    scales: bool = False


_KERAS_FILES = "https://storage.googleapis.com/tensorflow/keras-applications/"
XCEPTION = Backbone(
    name="xception",
    keras_name="Xception",
    size=299,
    smallest=71,
    width=2048,
    weights_url=_KERAS_FILES + "xception/xception_weights_tf_dim_ordering_tf_kernels_notop.h5",
    weights_digest="b0042744bf5b25fce3cb969f33bebb97",
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
    )
}  # fmt: skip

# Weights that are known by content, whatever their file is called.
_KNOWN_WEIGHTS = {
    "5d5159bc4d25be6ba1ee8e63b6fffc9c78470368187fe2d0f0d49c37982cdd3f": "shared-block14-retrained",
}


@dataclass(frozen=True)
class Weights:
    """A backbone's weights: their honest name, their SHA-256, and their file (None if random).

    The name is ``imagenet`` only for the very file that Keras publishes; any other file is
    ``file:NAME``. The digest of random weights is that of the rule and seed which draw them.
    """

    name: str
    sha256: str
    path: Path | None


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a feature's value. Features of two recipes never mix.

    `precision` is ``fp32``, ``bf16`` or ``int8`` (OpenVINO), ``mixed_bfloat16`` or ``mixed_float16``
    (Keras); `calibration` is the SHA-256 over the sorted keys of the photos int8 is calibrated on.
    """

    backbone: str
    weights: str
    weights_sha256: str
    size: int
    resize: str
    precision: str = "fp32"
    calibration: str = ""
    view: str = "original"
    decode_rule: str = DECODE_RULE

    @property
    def digest(self) -> str:
        """SHA-256 of the recipe without the weights' name, which is not what decides."""
        deciding = {key: value for key, value in asdict(self).items() if key != "weights"}
        return hashlib.sha256(json.dumps(deciding, sort_keys=True).encode()).hexdigest()

    def __str__(self) -> str:
        """Name the recipe in one line, for people."""
        extra = "" if self.view == "original" else f", view {self.view}"
        extra += f", calibration {self.calibration[:12]}" if self.calibration else ""
        return (
            f"{self.backbone} {self.size}×{self.size} {self.resize} {self.precision}{extra}, "
            f"weights {self.weights} ({self.weights_sha256[:12]}), decode rule {self.decode_rule}"
        )

    def to_json(self) -> str:
        """Return the recipe as JSON, for a store's or a model's metadata."""
        return json.dumps(asdict(self), sort_keys=True)

    @staticmethod
    def from_json(text: str) -> Recipe:
        """Read back what `to_json` wrote.

        Raises
        ------
        ValueError
            If the text is not a recipe.
        """
        values = json.loads(text)
        kinds = {field.name: int if field.name == "size" else str for field in fields(Recipe)}
        if not isinstance(values, dict) or values.keys() != kinds.keys():
            raise ValueError("not a recipe of this version of Breeds")
        if not all(type(values[name]) is kind for name, kind in kinds.items()):
            raise ValueError("a recipe with values of the wrong kind")
        return Recipe(**values)


def imagenet_path(backbone: Backbone) -> Path:
    """Return where Keras keeps its own download of the ImageNet weights."""
    home = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras")
    return home / "models" / backbone.weights_url.rsplit("/", 1)[1]


def find_weights(spec: str, backbone: Backbone) -> Weights | None:
    """Find the weights that `spec` names on this machine.

    Parameters
    ----------
    spec
        ``imagenet``, ``random``, or the path of a ``.h5`` file.

    Returns
    -------
    Weights or None
        None if `spec` is ``imagenet`` and Keras has not downloaded them yet, or not whole.

    Raises
    ------
    BreedsError
        If the file is not there or is no HDF5 weights file.
    """
    if spec == "random":
        rule = f"breeds random weights, rule {RANDOM_RULE}, {backbone.name}, seed 0"
        return Weights("random", hashlib.sha256(rule.encode()).hexdigest(), None)
    if spec == "imagenet":
        path = imagenet_path(backbone)
        found = _identify(path, backbone) if path.is_file() else None
        return found if found and found.name == "imagenet" else None
    path = Path(spec)
    if path.suffix != ".h5":
        raise BreedsError(f"--weights {spec}: use imagenet, random, or the path of a .h5 weights file.")
    if not path.is_file():
        raise BreedsError(f"No such weights file: {path}.")
    return _identify(path, backbone)


def _identify(path: Path, backbone: Backbone) -> Weights:
    """Name the weights of a file by its content: that of the very file that Keras publishes, or another."""
    with ThreadPoolExecutor(1) as pool:  # both at once: a tenth of a second of every start
        md5 = pool.submit(_digest, path, "md5")
        sha256 = _digest(path, "sha256")
    if backbone.weights_digest in (md5.result(), sha256):  # Keras publishes one or the other
        return Weights("imagenet", sha256, path)
    return Weights(_KNOWN_WEIGHTS.get(sha256, f"file:{path.name}"), sha256, path)


def forget_digests() -> None:
    """Forget what files were: one of them has changed."""
    _digest.cache_clear()


@cache
def _digest(path: Path, algorithm: str) -> str:
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, algorithm).hexdigest()
    except OSError as error:
        raise BreedsError(f"Cannot read the weights file {path}: {error.strerror}.") from None

"""The config: everything that decides a feature's value, and the identity that follows from it."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from breeds.files import open_regular, read_regular

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy as np
    from numpy.typing import NDArray

#: How many bytes a file of a network, or of a model with several, can have.
MOST_BYTES = 2**29
#: Version of the decode rule of `breeds.photos`; a change of any pixel needs a new one.
DECODE_RULE = "1"

#: How an ONNX network may take a photo's pixels, and how a feature may be taken of its output.
LAYOUTS, POOLS = ("nchw", "nhwc"), ("none", "avg", "cls")
_MOST_WIDTH, _LONGEST_NAME, _LARGEST = 2**16, 200, 1e6


@dataclass(frozen=True)
class Preprocessing:
    """How an ONNX network is fed and read, which its file does not say.

    Attributes
    ----------
    layout
        One of `LAYOUTS`.
    mean, std
        Of red, green and blue, where pixels are from 0 to 1: the network takes ``(pixel - mean) / std``.
    output
        The name of the output that is taken.
    pool
        One of `POOLS`: the output is the feature, or its average over all places or tokens is, or the first
        token.
    """

    layout: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    output: str
    pool: str

    def __str__(self) -> str:
        """Name it in a few words, for people."""
        mean, std = (",".join(f"{value:.4g}" for value in column) for column in (self.mean, self.std))
        pooled = "" if self.pool == "none" else f" ({self.pool})"
        return f"{self.layout}, mean {mean}, std {std}, output {self.output}{pooled}"

    @staticmethod
    def of(values: Any) -> Preprocessing:
        """Return what plain values from a file say.

        Raises
        ------
        ValueError, TypeError, LookupError
            If they are no preprocessing.
        """
        names = [field.name for field in fields(Preprocessing)]
        if not isinstance(values, dict) or values.keys() != set(names):
            raise ValueError("a config whose network cannot be read by it")
        found = Preprocessing(**{**values, "mean": _three(values["mean"]), "std": _three(values["std"])})
        sound = (
            found.layout in LAYOUTS
            and found.pool in POOLS
            and all(value > 0 for value in found.std)
            and isinstance(found.output, str)
            and 0 < len(found.output) <= _LONGEST_NAME
        )
        if not sound:
            raise ValueError("a config whose network cannot be read by it")
        return found


def _three(values: Any) -> tuple[float, ...]:
    """Return three numbers, of which none is out of all measure."""
    if not isinstance(values, list) or len(values) != 3:
        raise ValueError("a config whose mean or std is not of three colours")
    if not all(type(value) in (int, float) and abs(value) <= _LARGEST for value in values):
        raise ValueError("a config whose mean or std is no number")
    return tuple(map(float, values))


@dataclass(frozen=True)
class FeatureConfig:
    """Everything that decides a feature's value. Features of two configs never mix.

    A user says as much of it as matters to them, and `breeds.backbones.resolve.resolve` fills in the rest:
    the digest, the size, how photos become a square, the width and an ONNX network's preprocessing.

    Attributes
    ----------
    backbone
        A name in `breeds.backbones.BACKBONES`; of an ONNX network the path of its file or folder,
        and ``onnx`` once that is resolved.
    weights
        ``imagenet``, ``random`` or a file's path; once resolved, the honest name of the weights.
    weights_sha256
        Their digest, "" until they are found.
    size
        Width and height of the network's input; 0 is the backbone's own.
    resize
        How a photo becomes a square, a rule of `breeds.photos.resize`; "" is ``stretch``, or as an ONNX
        network's JSON says.
    precision
        One of `breeds.backbones.PRECISIONS`.
    calibration
        The digest of int8's `Network`.
    view
        Which variant of the photos, as in `breeds.photos.decode`.
    decode_rule
        `DECODE_RULE`.
    preprocessing
        How an ONNX network is read; None for Keras's networks.
    width
        Numbers of a feature, which follow from the rest; 0 until resolved.
    """

    backbone: str = "xception"
    weights: str = "imagenet"
    weights_sha256: str = ""
    size: int = 0
    resize: str = ""
    precision: str = "fp32"
    calibration: str = ""
    view: str = "original"
    decode_rule: str = DECODE_RULE
    preprocessing: Preprocessing | None = None
    width: int = 0

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the config without the weights' name and the width, which decide nothing."""
        deciding = {key: value for key, value in asdict(self).items() if key not in ("weights", "width")}
        return hashlib.sha256(json.dumps(deciding, sort_keys=True).encode()).hexdigest()

    def __str__(self) -> str:
        """Name the config in one line, for people."""
        extra = "" if self.view == "original" else f", view {self.view}"
        extra += f", network {self.calibration[:12]}" if self.calibration else ""
        extra += f", {self.preprocessing}" if self.preprocessing else ""
        return (
            f"{self.backbone} {self.size}×{self.size} {self.resize} {self.precision}{extra}, "
            f"weights {self.weights} ({self.weights_sha256[:12]}), decode rule {self.decode_rule}"
        )

    def to_json(self) -> str:
        """Return the config as JSON, for a store's or a model's metadata."""
        return json.dumps(asdict(self), sort_keys=True)

    @staticmethod
    def from_json(text: str) -> FeatureConfig:
        """Read back what `to_json` wrote.

        Raises
        ------
        ValueError
            If the text is not a config.
        """
        values = json.loads(text)
        kinds: dict[str, type] = {field.name: str for field in fields(FeatureConfig)}
        kinds |= {"size": int, "width": int}
        preprocessing = values.pop("preprocessing", None) if isinstance(values, dict) else None
        if not isinstance(values, dict) or values.keys() | {"preprocessing"} != kinds.keys():
            raise ValueError("not a config of this version of Breeds")
        if not all(type(value) is kinds[name] for name, value in values.items()):
            raise ValueError("a config with values of the wrong kind")
        if not 0 <= values["width"] <= _MOST_WIDTH:
            raise ValueError("a config whose features have no such width")
        digests = [values["weights_sha256"], *filter(None, [values["calibration"]])]
        if not all(re.fullmatch("[0-9a-f]{64}", digest) for digest in digests):
            raise ValueError("a config whose digests are none")
        if preprocessing is not None:
            values["preprocessing"] = Preprocessing.of(preprocessing)
        return FeatureConfig(**values)


@dataclass(frozen=True, eq=False)
class Network:
    """A quantised network in OpenVINO's format: its description, and the file of its numbers.

    Both are data: OpenVINO reads them, knows the operations of its own standard sets only (Breeds
    loads no extension into it), and follows no path in them. One from a stranger can still name a
    network that takes all memory or all day, and it meets OpenVINO's reader, a large C++ program,
    with bytes that somebody chose; the digest says that it is what the config means, not that it
    is harmless. So take an int8 model from people whose model you would take anyway.

    Attributes
    ----------
    xml, bin
        The two files, uint8 (n,) each.
    """

    xml: NDArray[np.uint8]
    bin: NDArray[np.uint8]

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the SHA-256 of both files, in hexadecimal digits."""
        return _joint(hashlib.sha256(part.data).digest() for part in (self.xml, self.bin))

    @staticmethod
    def read(xml: Path) -> Network:
        """Read the network that OpenVINO wrote: `xml`, with the numbers beside it."""
        import numpy as np  # the command line's help loads this module, and should come at once

        files = (xml, xml.with_suffix(".bin"))
        return Network(*(np.frombuffer(read_regular(path, MOST_BYTES), dtype=np.uint8) for path in files))


def digest_of(xml: Path) -> str:
    """Return the digest of the network that OpenVINO wrote, without holding it: fp32 is four times int8."""
    parts = []
    for path in (xml, xml.with_suffix(".bin")):
        with open_regular(path, MOST_BYTES) as file:
            parts.append(hashlib.file_digest(file, "sha256").digest())
    return _joint(parts)


def _joint(parts: Iterable[bytes]) -> str:
    return hashlib.sha256(b"".join(parts)).hexdigest()

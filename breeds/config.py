"""The config: everything that decides a feature's value, and the identity that follows from it."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from typing import Any

#: Version of the decode rule of `breeds.photos`; a change of any pixel needs a new one.
DECODE_RULE = "1"

#: How an ONNX network may take a photo's pixels, and how a feature may be taken of its output.
LAYOUTS, POOLS = ("nchw", "nhwc"), ("none", "avg", "cls")
_MOST_WIDTH, _LONGEST_NAME, _LARGEST = 2**16, 200, 1e6


@dataclass(frozen=True)
class Reading:
    """How an ONNX network is read, which its file does not say.

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
    width
        Numbers of a feature.
    """

    layout: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    output: str
    pool: str
    width: int

    def __str__(self) -> str:
        """Name it in a few words, for people."""
        mean, std = (",".join(f"{value:.4g}" for value in column) for column in (self.mean, self.std))
        pooled = "" if self.pool == "none" else f" ({self.pool})"
        return f"{self.layout}, mean {mean}, std {std}, output {self.output}{pooled}"

    @staticmethod
    def of(values: Any) -> Reading:
        """Return what plain values from a file say.

        Raises
        ------
        ValueError, TypeError, LookupError
            If they are no reading.
        """
        names = [field.name for field in fields(Reading)]
        if not isinstance(values, dict) or values.keys() != set(names):
            raise ValueError("a config whose network cannot be read by it")
        found = Reading(**{**values, "mean": _three(values["mean"]), "std": _three(values["std"])})
        sound = (
            found.layout in LAYOUTS
            and found.pool in POOLS
            and all(value > 0 for value in found.std)
            and isinstance(found.output, str)
            and 0 < len(found.output) <= _LONGEST_NAME
            and type(found.width) is int
            and 0 < found.width <= _MOST_WIDTH
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

    `precision` is ``fp32``, ``bf16`` or ``int8`` (OpenVINO), ``mixed_bfloat16`` or ``mixed_float16``
    (Keras); `calibration` is the digest of int8's quantised network (`breeds.features.network.Network`).
    `reading` is how an ONNX network is read, None for Keras's networks.
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
    reading: Reading | None = None

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the config without the weights' name, which is not what decides."""
        deciding = {key: value for key, value in self._values().items() if key != "weights"}
        return hashlib.sha256(json.dumps(deciding, sort_keys=True).encode()).hexdigest()

    def __str__(self) -> str:
        """Name the config in one line, for people."""
        extra = "" if self.view == "original" else f", view {self.view}"
        extra += f", network {self.calibration[:12]}" if self.calibration else ""
        extra += f", {self.reading}" if self.reading else ""
        return (
            f"{self.backbone} {self.size}×{self.size} {self.resize} {self.precision}{extra}, "
            f"weights {self.weights} ({self.weights_sha256[:12]}), decode rule {self.decode_rule}"
        )

    def to_json(self) -> str:
        """Return the config as JSON, for a store's or a model's metadata."""
        return json.dumps(self._values(), sort_keys=True)

    def _values(self) -> dict[str, Any]:
        """Return plain values; what most configs lack is not there, as it never was."""
        return {key: value for key, value in asdict(self).items() if key != "reading" or value is not None}

    @staticmethod
    def from_json(text: str) -> FeatureConfig:
        """Read back what `to_json` wrote.

        Raises
        ------
        ValueError
            If the text is not a config.
        """
        values = json.loads(text)
        names = [field.name for field in fields(FeatureConfig) if field.name != "reading"]
        kinds = {name: int if name == "size" else str for name in names}
        reading = values.pop("reading", None) if isinstance(values, dict) else None
        if not isinstance(values, dict) or values.keys() != kinds.keys():
            raise ValueError("not a config of this version of Breeds")
        if not all(type(values[name]) is kind for name, kind in kinds.items()):
            raise ValueError("a config with values of the wrong kind")
        digests = [values["weights_sha256"], *filter(None, [values["calibration"]])]
        if not all(re.fullmatch("[0-9a-f]{64}", digest) for digest in digests):
            raise ValueError("a config whose digests are none")
        return FeatureConfig(**values, reading=None if reading is None else Reading.of(reading))

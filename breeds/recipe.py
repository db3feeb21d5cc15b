"""The recipe: everything that decides a feature's value, and the identity that follows from it."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass, fields

#: Version of the decode rule of `breeds.photos`; a change of any pixel needs a new one.
DECODE_RULE = "1"


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a feature's value. Features of two recipes never mix.

    `precision` is ``fp32``, ``bf16`` or ``int8`` (OpenVINO), ``mixed_bfloat16`` or ``mixed_float16``
    (Keras); `calibration` is the digest of int8's quantised network (`breeds.engines.network.Network`).
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
        extra += f", network {self.calibration[:12]}" if self.calibration else ""
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
        digests = [values["weights_sha256"], *filter(None, [values["calibration"]])]
        if not all(re.fullmatch("[0-9a-f]{64}", digest) for digest in digests):
            raise ValueError("a recipe whose digests are none")
        return Recipe(**values)

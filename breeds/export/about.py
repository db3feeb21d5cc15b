"""What a file for other programs says of itself, and what its input and outputs are called."""

from __future__ import annotations

import json
from typing import Any

from breeds import __version__
from breeds.heads.model import Model
from breeds.photos import parse_resize

#: The names of a file's input and outputs.
PIXELS, PROBABILITIES, SCORE = "pixels", "probabilities", "unknown_score"
#: The first word of every file's metadata, in the formats that have words.
FORMAT = "breeds export 1"

_UPRIGHT = (
    "a photo's pixels are 8-bit RGB, upright by its EXIF orientation, transparency laid over white, then "
)
_SQUARE = {
    "stretch": "squeezed to a square: image.resize((SIZE, SIZE), Image.Resampling.HOW) in Pillow",
    "crop": "its middle square resized: side = min(image.size), left = (image.width - side) // 2, "
    "top = (image.height - side) // 2, image.resize((SIZE, SIZE), Image.Resampling.HOW, box=(left, top, "
    "left + side, top + side)) in Pillow",
    "pad": "made a square with grey bars: ImageOps.pad(image, (SIZE, SIZE), Image.Resampling.HOW, "
    "color=(128, 128, 128)) in Pillow",
}
_SHORTER = (
    "its shorter side made EDGE and the middle cut out: w, h = (EDGE * side // min(image.size) for side "
    "in image.size), image = image.resize((w, h), Image.Resampling.HOW), left = (w - SIZE) // 2, top = (h - "
    "SIZE) // 2, image.crop((left, top, left + SIZE, top + SIZE)) in Pillow"
)


def _square(resize: str) -> str:
    """Say how a photo becomes a square of SIZE."""
    rule = parse_resize(resize)
    if rule is None:
        return f"made a square as the resize rule {resize} says"
    text = _SHORTER.replace("EDGE", str(rule.edge)) if rule.edge else _SQUARE[rule.kind]
    return text.replace("HOW", rule.resampling.name)


def about(model: Model) -> dict[str, Any]:
    """Return what a file says of itself: plain JSON values."""
    square = _square(model.config.resize).replace("SIZE", str(model.config.size))
    config, *also = [json.loads(config.to_json()) for config, _ in model.parts]
    return {
        "format": FORMAT,
        "breeds": __version__,
        "classes": model.classes,
        "unknown_threshold": model.unknown.threshold if model.unknown else None,
        "size": model.config.size,
        "resize": _UPRIGHT + square,
        "config": config,
        "also": also,
        "head": model.kind,
        "temperature": model.temperature,
        "caveat": model.caveat,
    }


def as_texts(model: Model) -> dict[str, str]:
    """Return `about` for formats that have only text, of which none is more than ASCII.

    Sentences stand as they are, all else is JSON.
    """
    plain = ("format", "breeds", "resize", "head", "caveat")
    return {name: value if name in plain else json.dumps(value) for name, value in about(model).items()}

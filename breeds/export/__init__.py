"""The whole classifier as a file for other programs: a row for each format, and checks before any work.

A format is a module with a function `write`, which writes a file, runs what it wrote and compares the answers
(`breeds.export.compare`), and a row in `FORMATS`. `breeds.export.parquet` writes tables of features.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from breeds import __version__
from breeds.backbones import BACKBONES
from breeds.config import FeatureConfig
from breeds.errors import BreedsError
from breeds.files import check_writable
from breeds.heads.kinds import LINEAR
from breeds.outputs import KERAS, ONNX, OPENVINO, PIPELINE, Kind, check_apart, check_output
from breeds.started import need

if TYPE_CHECKING:  # the command line's help reads the table
    from breeds.features import Store
    from breeds.heads.model import Model


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


@dataclass(frozen=True)
class Format:
    """A format of files.

    Attributes
    ----------
    suffix
        The name's end.
    kind
        What a file is like.
    module
        Where its `write` is.
    runner
        What computes such a file.
    packages
        What has to be installed.
    precisions
        Of the features, that a file can hold the network of; none where it holds the head alone.
    heads, backbones
        The kinds of heads, and the networks, that it can hold; none are all.
    beside
        The end of a second file's name, which belongs to the first.
    """

    suffix: str
    kind: Kind
    module: str
    runner: str
    packages: tuple[str, ...] = ()
    precisions: tuple[str, ...] = ("fp32",)
    heads: tuple[str, ...] = ()
    backbones: tuple[str, ...] = ()
    beside: str = ""

    def files(self, path: Path) -> list[Path]:
        """Return the files of which `path` is the first."""
        return [path, *([path.with_suffix(self.beside)] if self.beside else [])]


FORMATS = {
    "onnx": Format(".onnx", ONNX, "breeds.export.onnx", "ONNX Runtime", ("onnx", "onnxruntime")),
    "openvino": Format(
        ".xml", OPENVINO, "breeds.export.openvino", "OpenVINO", precisions=("fp32", "int8"), beside=".bin"
    ),
    "keras": Format(
        ".keras", KERAS, "breeds.export.keras", "Keras", ("tensorflow", "keras"), backbones=tuple(BACKBONES)
    ),
    "joblib": Format(
        ".joblib", PIPELINE, "breeds.export.joblib", "scikit-learn", precisions=(), heads=LINEAR
    ),
}


@dataclass(frozen=True)
class Exported:
    """A file that was written.

    Attributes
    ----------
    form
        One of `FORMATS`.
    path
        The file; for ``openvino`` the description, beside which is another with the numbers.
    size
        Bytes of all files of it.
    difference
        The largest difference of a probability or a score from the answers here.
    photos
        How many photos of the store that is over.
    """

    form: str
    path: Path
    size: int
    difference: float
    photos: int


def plan(
    forms: Sequence[str], model_path: Path, parts: Sequence[tuple[FeatureConfig, str]], head: str
) -> dict[str, Path]:
    """Make sure, before any work, that a model can be exported, and return the file of each format.

    Parameters
    ----------
    forms
        Of `FORMATS`.
    model_path
        The model, beside which the files are.
    parts
        Its configs, as `Model.parts` or `Store.parts` gives them.
    head
        Its kind.

    Raises
    ------
    BreedsError
        If a format is not for such a model, a package is missing, or a file cannot be written.
    """
    paths = {form: model_path.with_suffix(FORMATS[form].suffix) for form in forms}
    for form, path in paths.items():
        _check_fits(form, [config for config, _ in parts], head)
        need(*FORMATS[form].packages)
        first, *others = FORMATS[form].files(path)
        check_apart({"--model": model_path, "--export": first})
        check_output(first, FORMATS[form].kind)
        for other in others:  # what it is can only be told by the first, beside it
            check_apart({"--model": model_path, "--export": other})
            check_writable(other)
            if os.path.isfile(other) and os.path.getsize(other) and not os.path.isfile(first):
                raise BreedsError(
                    f"Cannot write {other}: a file is there, and no {first.name} beside it that says that it "
                    f"is ours; name another, or move it away."
                )
    return paths


def _check_fits(form: str, configs: list[FeatureConfig], head: str) -> None:
    """Refuse a format that models of these configs and this head cannot have."""
    entry = FORMATS[form]
    if entry.heads and head not in entry.heads:
        raise BreedsError(
            f"{form} is the {' or '.join(entry.heads)} head for {entry.runner}, and this head is {head}; "
            f"export it as onnx, openvino or keras."
        )
    if not entry.precisions:
        return
    for config in configs:
        if config.precision == "int8" and "int8" not in entry.precisions:
            raise BreedsError(
                f"An int8 network is OpenVINO's own, and {entry.runner} would round it elsewhere; export it "
                f"as openvino, or extract with --precision fp32."
            )
        if config.precision not in entry.precisions:
            raise BreedsError(
                f"Features of the precision {config.precision} are rounded while they are computed, which no "
                f"file can ask for; extract with --precision fp32 to export as {form}."
            )
        if entry.backbones and config.backbone not in entry.backbones:
            name = "An ONNX network" if config.preprocessing else config.backbone
            raise BreedsError(f"{name} is no network of {entry.runner}; export it as onnx or openvino.")
    if len({(config.size, config.resize, config.decode_rule) for config in configs}) > 1:
        shapes = " and ".join(f"{config.size}×{config.size} {config.resize}" for config in configs)
        raise BreedsError(
            f"The model rests on networks that take photos of different shapes ({shapes}), and a file takes "
            f"one; extract with the same --size and --resize to export them as {form}."
        )


def export(
    model: Model, store: Store, paths: dict[str, Path], weights: str | None = None
) -> Iterator[Exported]:
    """Write a model's files, and yield each once it is there; one that answers otherwise is not written.

    Parameters
    ----------
    model
        The model.
    store
        The store, or stores beside each other, that it was trained on: files are compared on its photos.
    paths
        The file of each format, as `plan` gives them.
    weights
        As in `breeds.prediction.predict`.

    Raises
    ------
    BreedsError
        If the store is of another config, its photos are gone, the network cannot be had, or a file cannot be
        written, or its answers differ by more than `breeds.export.compare.TOLERANCE`.
    """
    from breeds.export.compare import Comparison
    from breeds.heads.model import check_stores

    check_stores(store, model)
    comparison = Comparison(model, store, weights)
    for form, path in paths.items():
        difference, photos = import_module(FORMATS[form].module).write(model, path, comparison)
        size = sum(map(os.path.getsize, FORMATS[form].files(path)))
        yield Exported(form, path, size, difference, photos)


def _square(resize: str) -> str:
    """Say how a photo becomes a square of SIZE."""
    from breeds.photos import parse_resize

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

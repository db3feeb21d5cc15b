"""A model to the whole classifier in files for other programs, each compared with the answers here first."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from breeds.backbones.openvino import read_network
from breeds.backbones.registry import BACKBONES
from breeds.config import FeatureConfig
from breeds.errors import BreedsError, PhotoError
from breeds.features import Store
from breeds.files import check_writable, write_aside
from breeds.heads.backbone import weights_of
from breeds.heads.export import Answers, as_texts
from breeds.heads.kinds import KINDS
from breeds.heads.model import Model, check_stores
from breeds.outputs import KERAS, ONNX, OPENVINO, PIPELINE, Kind, check_apart, check_output
from breeds.photos import decode, key_of, photo_at
from breeds.prediction import predict
from breeds.started import command, need

#: The largest difference of a probability or a score from the answers here, or nothing is written.
TOLERANCE = 1e-4
#: How many photos of the store a file is compared on, and how many are tried to find so many.
PHOTOS, TRIED = 16, 160


class Format(NamedTuple):
    """A format: the name's end, what a file is like, what computes it, and the packages that it takes."""

    suffix: str
    kind: Kind
    runner: str
    packages: tuple[str, ...]


FORMATS = {
    "onnx": Format(".onnx", ONNX, "ONNX Runtime", ("onnx", "onnxruntime")),
    "openvino": Format(".xml", OPENVINO, "OpenVINO", ()),
    "keras": Format(".keras", KERAS, "Keras", ("tensorflow", "keras")),
    "joblib": Format(".joblib", PIPELINE, "scikit-learn", ()),
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
        check_apart({"--model": model_path, "--export": path})
        check_output(path, FORMATS[form].kind)
        if form == "openvino":
            _check_numbers(path, model_path)
    return paths


def _check_fits(form: str, configs: list[FeatureConfig], head: str) -> None:
    """Refuse a format that models of these configs and this head cannot have."""
    if form == "joblib":
        if not KINDS[head].linear:
            raise BreedsError(
                f"joblib is a linear head as a scikit-learn pipeline, and this head is {head}; export it as "
                f"onnx, openvino or keras."
            )
        return
    for config in configs:
        if config.precision not in ("fp32", "int8"):
            raise BreedsError(
                f"Features of the precision {config.precision} are rounded while they are computed, which no "
                f"file can ask for; extract with --precision fp32 to export as {form}."
            )
        if config.precision == "int8" and form != "openvino":
            raise BreedsError(
                f"An int8 network is OpenVINO's own, and {FORMATS[form].runner} would round it elsewhere; "
                f"export it as openvino, or extract with --precision fp32."
            )
        if form == "keras" and config.backbone not in BACKBONES:
            name = "An ONNX network" if config.reading else config.backbone
            raise BreedsError(f"{name} is no network of Keras; export it as onnx or openvino.")
    if len({(config.size, config.resize, config.decode_rule) for config in configs}) > 1:
        shapes = " and ".join(f"{config.size}×{config.size} {config.resize}" for config in configs)
        raise BreedsError(
            f"The model rests on networks that take photos of different shapes ({shapes}), and a file takes "
            f"one; extract with the same --size and --resize to export them as {form}."
        )


def _check_numbers(path: Path, model_path: Path) -> None:
    """Check the second file of OpenVINO's; what it is can only be told by the first, beside it."""
    from breeds.heads.export.openvino import files

    _, numbers = files(path)
    check_apart({"--model": model_path, "--export": numbers})
    check_writable(numbers)
    if os.path.isfile(numbers) and os.path.getsize(numbers) and not os.path.isfile(path):
        raise BreedsError(
            f"Cannot write {numbers}: a file is there, and no {path.name} beside it that says that it is "
            f"ours; name another, or move it away."
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
        written, or its answers differ by more than `TOLERANCE`.
    """
    check_stores(store, model)
    sample: Sample | None = None
    for form, path in paths.items():
        if form == "joblib":
            yield _export_pipeline(model, store, path)
            continue
        sample = sample or _sample(model, store, weights)
        writer = {"onnx": _write_onnx, "openvino": _write_openvino, "keras": _write_keras}[form]
        difference = writer(model, path, sample, weights)
        size = os.path.getsize(path)
        if form == "openvino":
            from breeds.heads.export.openvino import files

            size = sum(map(os.path.getsize, files(path)))
        yield Exported(form, path, size, difference, len(sample.pixels))


@dataclass(frozen=True)
class Sample:
    """Photos of a store to compare on: pixels, uint8 (n, size, size, 3), and what is answered here."""

    pixels: NDArray[np.uint8]
    answers: Answers

    @property
    def batches(self) -> list[NDArray[np.uint8]]:
        """The photos in batches of different numbers: the first alone, the others in fours."""
        return [part for part in np.split(self.pixels, range(1, len(self.pixels), 4)) if len(part)]

    def check(self, found: Answers, form: str, path: Path) -> float:
        """Return the largest difference of answers from those here.

        Raises
        ------
        BreedsError
            If it is more than `TOLERANCE`.
        """
        difference = found.difference(self.answers)
        if not difference <= TOLERANCE:  # also what is not a number
            raise BreedsError(
                f"{path} is not written: in {FORMATS[form].runner} its answers differ by up to "
                f"{difference:.2g} from what {command('predict')} says of {len(self.pixels)} photos of the "
                f"store, and by more than {TOLERANCE:g} it is not the same model; extract into another "
                f"--store on this machine, and train again."
            )
        return difference


def _sample(model: Model, store: Store, weights: str | None) -> Sample:
    """Take photos that are spread over a store and still what they were, and answer for them."""
    pixels, rows, files = [], [], []
    for row in _spread(len(store.table)):
        file = os.path.join(store.table.root, store.table.path[row])
        try:
            data = photo_at("", file).read()
            if key_of(data) != store.table.key[row]:
                continue
            pixels.append(decode(data, model.config.size, model.config.resize))
        except PhotoError:
            continue
        rows.append(row)
        files.append(file)
        if len(rows) == PHOTOS:
            break
    if not rows:
        raise BreedsError(
            f"A file is compared on photos of {store.path} before it is written, and none that was tried is "
            f"where it was, in {store.table.root}, unchanged; bring them back, or extract them again."
        )
    answers = [answer.probabilities for answer in predict(model, files, weights, None)]
    features = store.features(np.array(rows))
    score = model.unknown.excess(features) if model.unknown else None
    return Sample(np.stack(pixels), Answers(np.stack([a for a in answers if a is not None]), score))


def _spread(total: int) -> list[int]:
    """Return up to `TRIED` rows of so many, of which the first `PHOTOS` are spread as far as all of them.

    Examples
    --------
    >>> _spread(3)
    [0, 1, 2]
    >>> _spread(1600)[:3], len(_spread(1600))
    ([0, 100, 201], 160)
    """
    rows = list(dict.fromkeys(np.linspace(0, total - 1, min(total, TRIED)).astype(int).tolist()))
    step = max(1, len(rows) // PHOTOS)
    return [row for start in range(step) for row in rows[start::step]]


def _networks(model: Model, weights: str | None) -> list[Any]:
    """Read the network of each of a model's configs."""
    from breeds.backbones.loading import import_openvino

    core = import_openvino().Core()
    return [
        read_network(
            core,
            part[0],
            partial(weights_of, part, weights),
            partial(model.networks.get, part[0].calibration),
        )
        for part in model.parts
    ]


def _write_openvino(model: Model, path: Path, sample: Sample, weights: str | None) -> float:
    from breeds.heads.export import openvino

    with openvino.written(openvino.classifier(model, _networks(model, weights)), path) as network:
        return sample.check(openvino.run(network, sample.batches), "openvino", path)


def _write_onnx(model: Model, path: Path, sample: Sample, weights: str | None) -> float:
    from breeds.heads.export import onnx, openvino

    network = openvino.classifier(model, _networks(model, weights))
    made = onnx.translate(network, openvino.NAME, as_texts(model))
    with write_aside(path) as aside:
        aside.write_bytes(made.SerializeToString())
        return sample.check(onnx.run(aside, sample.batches), "onnx", path)


def _write_keras(model: Model, path: Path, sample: Sample, weights: str | None) -> float:
    from breeds.heads.export import keras

    classifier = keras.classifier(model, [weights_of(part, weights) for part in model.parts])
    with write_aside(path) as aside:
        keras.write(classifier, model, aside)
        return sample.check(keras.run(aside, sample.batches), "keras", path)


def _export_pipeline(model: Model, store: Store, path: Path) -> Exported:
    """Write the head as a pipeline that takes features; what is compared is what is written."""
    from breeds.heads.export.pipeline import as_pipeline, export_joblib

    features = store.features(np.array(_spread(len(store.table))))
    found = Answers(as_pipeline(model).predict_proba(features), None)
    difference = found.difference(Answers(model.probabilities(features), None))
    if not difference <= TOLERANCE:
        raise BreedsError(
            f"{path} is not written: as a scikit-learn pipeline the head's answers differ by up to "
            f"{difference:.2g}, and more than {TOLERANCE:g} is not the same model; train with another --C."
        )
    export_joblib(model, path)
    return Exported("joblib", path, os.path.getsize(path), difference, len(features))

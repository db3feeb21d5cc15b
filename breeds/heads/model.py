"""The model: a head as plain arrays, with everything that belongs to it, in one safe file.

A head of any kind is a standardisation followed by dense layers with rectifiers between: one
layer for logistic regression, two for the dense head. So one numpy function predicts with all
of them, and a model file is arrays plus JSON: loading one runs no code from it.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from safetensors import SafetensorError
from safetensors.numpy import save

from breeds.config import MOST_BYTES, FeatureConfig, Network
from breeds.errors import BreedsError
from breeds.features import Store, check_config
from breeds.files import read_safetensors, write_aside
from breeds.heads.kinds import KINDS, check_record
from breeds.heads.unknown import Detector
from breeds.outputs import MODEL, check_output
from breeds.started import command
from breeds.text import as_here, means_unknown

_FORMAT = "breeds model 1"
_DETECTOR = ("means", "directions", "weights", "typical")
_OPTIMISTIC = (
    "The weights have seen ImageNet, and Stanford Dogs and Kaggle's dog photos are ImageNet photos: accuracy "
    "measured on those is optimistic."
)
_RANDOM = "The weights are random: the answers say nothing about real dogs."
Array = NDArray[np.float32]


@dataclass(repr=False)
class Model:
    """A trained head with its classes, its config and its training record.

    `Model.load`, which `breeds.load` is, reads one from its file; nothing in it is run.

    Attributes
    ----------
    kind
        One of `breeds.heads.kinds.KINDS`, such as ``logistic``.
    classes
        Names, in the order of the probabilities' columns.
    config
        The config of the features it was trained on, and the only one it may be used with.
    weights_path
        Where the backbone's weights were found at training time ("" for imagenet and random).
    mean, scale
        Standardisation, float32 (width,): ``(features - mean) / scale``.
    layers
        Weights and biases, float32 (inputs, outputs) and (outputs,).
    seen
        SHA-256 keys of the training and validation photos, uint8 (n, 32).
    temperature
        Divides the logits.
    unknown
        Tells photos of none of the classes, or None if there were too few photos to set it.
    also
        Further configs, with their weights' paths, whose features follow in the same row.
    networks
        The quantised network of every int8 config, by its digest.
    record
        How it was trained: hyperparameters, numbers, versions, the store. Plain JSON values.
    tested
        Keys of the photos kept for testing, uint8 (n, 32).

    Examples
    --------
    >>> import breeds
    >>> len(breeds.load("models/photos.safetensors").classes)
    5
    """

    kind: str
    classes: list[str]
    config: FeatureConfig
    weights_path: str
    mean: Array
    scale: Array
    layers: list[tuple[Array, Array]]
    seen: NDArray[np.uint8]
    temperature: float = 1.0
    unknown: Detector | None = None
    also: list[tuple[FeatureConfig, str]] = field(default_factory=list)
    networks: dict[str, Network] = field(default_factory=dict)
    record: dict[str, Any] = field(default_factory=dict)
    tested: NDArray[np.uint8] = field(default_factory=lambda: np.zeros((0, 32), dtype=np.uint8))

    @property
    def parts(self) -> list[tuple[FeatureConfig, str]]:
        """The configs whose features make up a row, in order, each with its weights' path."""
        return [(self.config, self.weights_path), *self.also]

    @property
    def caveat(self) -> str:
        """What its weights mean for whoever takes its answers, or numbers about them, for true."""
        return _RANDOM if self.config.weights == "random" else _OPTIMISTIC

    def __repr__(self) -> str:
        configs = " + ".join(str(config) for config, _ in self.parts)
        return f"<breeds.Model: {self.kind}, {len(self.classes)} classes, {configs}>"

    @staticmethod
    def load(path: str | os.PathLike[str]) -> Model:
        """Read a model's file; nothing in it is run, and everything in it is checked.

        Raises
        ------
        BreedsError
            If it is missing, not a model of Breeds, or damaged.

        Examples
        --------
        >>> import breeds
        >>> breeds.load("models/photos.safetensors").kind
        'logistic'
        """
        path = Path(path)
        try:
            arrays, metadata = read_safetensors(path, MOST_BYTES)
            if metadata.get("format") != _FORMAT:
                raise ValueError(f"its format is not {_FORMAT!r}")
            model = _model(as_here(json.loads(metadata["breeds"])), arrays)
            _check(model)
            return model
        except FileNotFoundError:
            raise BreedsError(f"No such model: {path}; make it with {command('train')}.") from None
        except (
            SafetensorError, OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError,
            RecursionError,
        ) as error:  # fmt: skip
            text = getattr(error, "strerror", None) or str(error)
            reason = " ".join(text.strip("'\"").split())[:200]
            raise BreedsError(
                f"{path} is not a model of Breeds, or is damaged ({reason}); train it again with "
                f"{command('train')}."
            ) from None

    def save(self, path: str | os.PathLike[str]) -> str:
        """Write the model's file, whole or not at all, and return its SHA-256.

        Raises
        ------
        BreedsError
            If it cannot be written, or something else than a model is there.

        Examples
        --------
        >>> import breeds
        >>> digest = breeds.load("models/photos.safetensors").save("models/copy.safetensors")
        """
        check_output(Path(path), MODEL)
        data = save(*_as_file(self))
        with write_aside(Path(path)) as aside:
            # save_file would put a file of its own, with rights of its own, in the place of this one.
            aside.write_bytes(data)
        return hashlib.sha256(data).hexdigest()

    def logits(self, features: ArrayLike) -> NDArray[np.float64]:
        """Return the logits, float64 (n, classes), of features, float32 (n, width), over the temperature."""
        values = np.asarray(features, dtype=np.float64)
        if values.ndim != 2 or values.shape[1] != len(self.mean):
            width = values.shape[-1] if values.ndim else 0
            raise BreedsError(
                f"The model takes {len(self.mean)} features a photo, and its config gives "
                f"{width}; train it again on this store."
            )
        return apply_layers((values - self.mean) / self.scale, self.layers) / self.temperature

    def probabilities(self, features: ArrayLike) -> NDArray[np.float64]:
        """Return the probabilities of features of its config, float64 (n, classes), rows adding up to 1.

        Parameters
        ----------
        features
            As `breeds.Store.features` and `breeds.BottleneckFeatures` give them, (n, width).

        Raises
        ------
        BreedsError
            If they are of another width.

        Examples
        --------
        >>> import breeds
        >>> model = breeds.load("models/photos.safetensors")
        >>> model.probabilities(breeds.Store("features/photos.h5").features()).shape
        (30, 5)
        """
        return softmax(self.logits(features))

    def has_seen(self, key: str) -> bool:
        """Say whether training has seen the photo of this key."""
        return bool((self.seen == np.frombuffer(bytes.fromhex(key), dtype=np.uint8)).all(axis=1).any())

    def seen_keys(self) -> set[str]:
        """Return the keys of the photos that training has seen."""
        return _hexadecimal(self.seen)

    def tested_keys(self) -> set[str]:
        """Return the keys of the photos that were kept for testing."""
        return _hexadecimal(self.tested)


def _hexadecimal(keys: NDArray[np.uint8]) -> set[str]:
    return {row.tobytes().hex() for row in keys}


def apply_layers(values: NDArray[Any], layers: list[tuple[Array, Array]]) -> NDArray[np.float64]:
    """Return the logits, float64 (n, classes), of standardised features, before any temperature."""
    for number, (weights, bias) in enumerate(layers):
        values = (values if number == 0 else np.maximum(values, 0)) @ weights + bias
    return np.asarray(values, dtype=np.float64)


def softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the softmax of each row."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def pack_keys(keys: list[str]) -> NDArray[np.uint8]:
    """Return hexadecimal keys as uint8 (n, 32), sorted.

    Half the bytes of the digits; sorted, so that the file is the same in whatever order photos came,
    and says nothing of it.

    Examples
    --------
    >>> pack_keys(["ff" * 32, "00" * 32])[:, 0].tolist()
    [0, 255]
    """
    return np.frombuffer(bytes.fromhex("".join(sorted(keys))), dtype=np.uint8).reshape(-1, 32)


def _as_file(model: Model) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """Return the arrays and the metadata of a model's file."""
    arrays: dict[str, NDArray[Any]] = {
        "mean": model.mean, "scale": model.scale, "seen": model.seen, "tested": model.tested,
    }  # fmt: skip
    for number, (weights, bias) in enumerate(model.layers):
        arrays[f"weights.{number}"], arrays[f"bias.{number}"] = weights, bias
    if model.unknown is not None:
        arrays |= {f"unknown.{name}": getattr(model.unknown, name) for name in _DETECTOR}
    for digest, network in model.networks.items():
        arrays |= {f"network.{digest}.xml": network.xml, f"network.{digest}.bin": network.bin}
    about = {
        "kind": model.kind,
        "classes": model.classes,
        "config": json.loads(model.config.to_json()),
        "config_sha256": model.config.digest,
        "weights_path": model.weights_path,
        "also": [
            {"config": json.loads(config.to_json()), "weights_path": path} for config, path in model.also
        ],
        "temperature": model.temperature,
        "unknown": model.unknown and {"threshold": model.unknown.threshold, "keep": model.unknown.keep},
        "record": model.record,
    }
    metadata = {"format": _FORMAT, "breeds": json.dumps(about)}
    return {name: np.ascontiguousarray(array) for name, array in arrays.items()}, metadata


def _model(about: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> Model:
    count = sum(name.startswith("weights.") for name in arrays)
    return Model(
        kind=str(about["kind"]),
        classes=[str(name) for name in list(about["classes"])],
        config=FeatureConfig.from_json(json.dumps(about["config"])),
        weights_path=str(about["weights_path"]),
        mean=arrays["mean"],
        scale=arrays["scale"],
        layers=[(arrays[f"weights.{i}"], arrays[f"bias.{i}"]) for i in range(count)],
        seen=arrays["seen"],
        also=[
            (FeatureConfig.from_json(json.dumps(a["config"])), str(a["weights_path"])) for a in about["also"]
        ],
        temperature=float(about["temperature"]),
        unknown=about["unknown"]
        and Detector(
            **{name: arrays[f"unknown.{name}"] for name in _DETECTOR},
            threshold=float(about["unknown"]["threshold"]),
            keep=float(about["unknown"]["keep"]),
        ),
        networks={
            digest: Network(arrays[f"network.{digest}.xml"], arrays[f"network.{digest}.bin"])
            for digest in {name.split(".")[1] for name in arrays if name.startswith("network.")}
        },
        record=dict(about["record"]),
        tested=arrays["tested"],
    )


def _check(model: Model) -> None:
    """Raise ValueError if the parts of a model do not belong together."""
    check_record(model.record)
    if model.kind not in KINDS:
        raise ValueError(f"this version knows the heads {', '.join(KINDS)}, and not its own")
    if model.unknown is not None and any(map(means_unknown, model.classes)):
        raise ValueError("a class is called as photos of none of the classes are answered")
    also = model.record["also"]
    if not isinstance(also, list) or len(also) != len(model.also):
        raise ValueError("the stores in the record do not fit the configs")
    width = model.mean.size
    if not model.layers or model.mean.shape != (width,) or model.scale.shape != (width,):
        raise ValueError("arrays are missing or of the wrong shape")
    for weights, bias in model.layers:
        if weights.shape != (width, len(bias)) or bias.ndim != 1:
            raise ValueError("layers do not fit each other")
        width = len(bias)
    if width != len(model.classes) or len(set(model.classes)) != width or width < 2:
        raise ValueError("the classes do not fit the last layer")
    if any(keys.dtype != np.uint8 or keys.ndim != 2 or keys.shape[1] != 32
           for keys in (model.seen, model.tested)):  # fmt: skip
        raise ValueError("the photos' keys are not SHA-256 digests")
    for digest, network in model.networks.items():
        if any(part.dtype != np.uint8 or part.ndim != 1 for part in (network.xml, network.bin)):
            raise ValueError("a network is not bytes")
        if network.digest != digest or all(config.calibration != digest for config, _ in model.parts):
            raise ValueError("a network is not the one that the config names")
    floats = [model.mean, model.scale, *(array for layer in model.layers for array in layer)]
    if model.unknown is not None:
        width, rank = model.mean.shape[0], len(model.unknown.weights)
        shapes = [(len(model.classes), width), (width, rank), (rank,), (len(model.classes),)]
        parts = [getattr(model.unknown, name) for name in _DETECTOR]
        detector = model.unknown
        fits = [part.shape for part in parts] == shapes and np.isfinite(detector.threshold)
        if not (
            fits and 0 <= detector.keep < 1 and ((detector.weights >= 0) & (detector.weights <= 1)).all()
        ):
            raise ValueError("the parts of the unknown detector do not fit")
        floats += parts
    if not all(array.dtype == np.float32 and np.isfinite(array).all() for array in floats):
        raise ValueError("a number is not finite")
    if not (model.scale > 0).all() or not 1e-3 < model.temperature < 1e3:
        raise ValueError("a scale is not positive")


def check_stores(store: Store, model: Model) -> None:
    """Refuse a store, or stores beside each other, of other configs than the model's.

    Raises
    ------
    BreedsError
        If there are more or fewer of them, or a config is another.
    """
    if len(store.parts()) != len(model.parts):
        raise BreedsError(
            f"The model rests on {len(model.parts)} stores and {len(store.parts())} were given; name as "
            f"many with --store, in the same order."
        )
    for (found, _), (wanted, _) in zip(store.parts(), model.parts, strict=True):
        check_config(store.path, found, wanted)

"""Two estimators for scikit-learn: photos to features, and logistic regression on features."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from joblib import effective_n_jobs
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import Tags
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from breeds.api import check_several, listed
from breeds.backbones import ENGINE_CHOICES, PRECISIONS, Engine
from breeds.backbones.pipeline import Feature, Pipeline
from breeds.backbones.resolve import open_engine, resolve
from breeds.backbones.weights import Weights
from breeds.config import FeatureConfig, Network
from breeds.errors import BreedsError, PhotoError, attempt
from breeds.features import Store, check_config
from breeds.features.lookup import KeptFeatures, find_network
from breeds.heads import logistic
from breeds.heads.kinds import TrainingData, TrainingSettings
from breeds.heads.model import apply_layers, softmax
from breeds.heads.unknown import fit_detector
from breeds.machine import cores
from breeds.photos import parse_resize, photo_of
from breeds.photos.photo import RejectedPhoto
from breeds.photos.resize import RULES
from breeds.prediction import Cache, features_of
from breeds.split import fold_of
from breeds.text import mention
from breeds.training import FOLDS

__all__ = ["BottleneckFeatures", "BreedsClassifier"]

ERRORS = ("raise", "nan")
# Photos that are looked up, decoded and computed together.
_CHUNK = 128
# A network answers one call at a time.
_TURN = threading.RLock()


class RefusedError(BreedsError, ValueError):
    """A `BreedsError` that is a ValueError too, as scikit-learn asks of its estimators."""


@contextmanager
def refusing() -> Iterator[None]:
    """Raise what the block raises as scikit-learn knows it."""
    try:
        yield
    except BreedsError as error:
        raise RefusedError(str(error)) from error


class BottleneckFeatures(
    ClassNamePrefixFeaturesOutMixin,  # type: ignore[misc]
    TransformerMixin,  # type: ignore[misc]
    BaseEstimator,  # type: ignore[misc]
):
    """The features of a pretrained network, for photos as paths, bytes, Pillow images or arrays.

    It learns nothing from the photos that it is fitted to; fitting finds the weights. Photos come in a list,
    a Series, a table of one column or an array, uint8 (n, height, width[, bands]), and may be of all kinds
    at once; each is seen as `breeds.predict` sees it. A feature depends on its photo and the config
    alone, not on what is around it. The network stays open from call to call, and answers one call at a
    time; a clone or a pickled copy opens its own.

    Parameters
    ----------
    weights : str, default "imagenet"
        ``imagenet`` (fetched once), ``random``, or the path of a ``.h5`` file.
    backbone : str or path, default "xception"
        The network; also the path of an ONNX file, or of a hub's folder with one (docs/backbones.md).
    size : int, optional
        Width and height of what it sees, in pixels; None is its own.
    resize : str, optional
        How a photo becomes a square: ``stretch``, ``crop``, ``pad``, ``crop256-bicubic`` ...; None is as the
        folder says, or else ``stretch``.
    precision : {"fp32", "bf16", "int8"}, default "fp32"
        The arithmetic. int8 is set on photos of a folder, by `breeds.extract`: name its store.
    engine : {"auto", "openvino", "keras"}, default "auto"
        What computes, as in `breeds.extract`.
    store : str or path, optional
        Keep features by the photos' contents, in the journal of this store (``NAME.journal`` beside NAME.h5),
        and compute none that the store or its journal has. Several processes may share it; it holds one
        config. The file itself, with its table of paths and labels, is left to `breeds.extract`, which takes
        in what the journal has.
    workers : int, optional
        Threads that read and decode; None for as many as there are cores.
    n_jobs : int, default -1
        Cores that OpenVINO computes with, as joblib counts them: -1 for all. They change no feature.
    errors : {"raise", "nan"}, default "raise"
        What a photo that cannot be read is: an error, or a row of NaN, with the reason in the logger
        ``breeds`` at level INFO.

    Attributes
    ----------
    config_ : breeds.config.FeatureConfig
        What decides the features; ``str()`` makes a line of it.

    Raises
    ------
    BreedsError
        If a parameter is wrong, the weights cannot be had or the store is another config's (`fit`), or a
        photo cannot be used (`transform`, unless ``errors="nan"``); it is a ValueError too.

    Examples
    --------
    >>> import breeds, pathlib
    >>> photos = sorted(pathlib.Path("photos").rglob("*.jpg"))[:3]
    >>> features = breeds.BottleneckFeatures(weights="random", size=96, store="features/photos.h5")
    >>> features.fit_transform(photos).shape
    (3, 2048)
    >>> list(features.set_output(transform="pandas").transform(photos).columns[:2])
    ['bottleneckfeatures0', 'bottleneckfeatures1']
    """

    def __init__(
        self,
        weights: str = "imagenet",
        backbone: str | os.PathLike[str] = "xception",
        size: int | None = None,
        resize: str | None = None,
        precision: str = "fp32",
        engine: str = "auto",
        store: str | os.PathLike[str] | None = None,
        workers: int | None = None,
        n_jobs: int | None = -1,
        errors: str = "raise",
    ) -> None:
        self.weights = weights
        self.backbone = backbone
        self.size = size
        self.resize = resize
        self.precision = precision
        self.engine = engine
        self.store = store
        self.workers = workers
        self.n_jobs = n_jobs
        self.errors = errors

    def fit(self, X: Any, y: Any = None) -> BottleneckFeatures:
        """Find the weights, and check what was asked for; the photos are not looked at."""
        with refusing():
            check_several(X)
            self._check()
            config, _ = self._resolved()
            self.config_ = self._store_config(config)
        self._n_features_out = self.config_.width
        self._engines: dict[object, Engine] = {}
        return self

    def transform(self, X: Any) -> NDArray[np.float32]:
        """Return the photos' features, float32 (n, width), in their order; without unit."""
        check_is_fitted(self)
        with refusing():
            photos = listed(X)
            result = np.full((len(photos), self._n_features_out), np.nan, dtype=np.float32)
            with _TURN:
                for row, found in enumerate(self._features(photos)):
                    if isinstance(found, PhotoError):
                        self._bad(row, photos[row], found)
                    else:
                        result[row] = found
        return result

    def _resolved(self) -> tuple[FeatureConfig, Weights]:
        config = FeatureConfig(
            backbone=os.fspath(self.backbone), weights=str(self.weights), size=self.size or 0,
            resize=self.resize or "", precision=self.precision,
        )  # fmt: skip
        return resolve(config, self.engine)

    def _check(self) -> None:
        """Refuse parameters that are wrong, as the command line refuses them."""
        allowed = {"precision": PRECISIONS, "engine": ENGINE_CHOICES, "errors": ERRORS}
        for name, values in allowed.items():
            if getattr(self, name) not in values:
                able = ", ".join(map(str, values))
                raise BreedsError(f"{name}={getattr(self, name)!r}: it is one of {able}.")
        if not isinstance(self.backbone, str | os.PathLike):
            raise BreedsError(f"backbone={self.backbone!r}: give a name or a path.")
        if self.resize is not None and parse_resize(str(self.resize)) is None:
            raise BreedsError(f"resize={self.resize!r}: it is {RULES}.")
        for name in ("size", "workers"):
            value = getattr(self, name)
            if value is not None and not (isinstance(value, int) and value >= 1):
                raise BreedsError(f"{name}={value!r}: give a whole number from 1 up, or None.")
        if self.n_jobs is not None and not (isinstance(self.n_jobs, int) and self.n_jobs):
            raise BreedsError(f"n_jobs={self.n_jobs!r}: give a whole number, as joblib takes it, or None.")

    def _store_config(self, config: FeatureConfig) -> FeatureConfig:
        """Return the config, with the network of int8; refuse a store of another."""
        path = None if self.store is None else Path(self.store)
        old = Store(path, corrected=False) if path is not None and path.exists() else None
        if self.precision == "int8":
            if old is None:
                raise BreedsError(
                    'precision="int8": first breeds.extract(..., precision="int8") sets its network on '
                    "photos; do that, and name its store."
                )
            config = replace(config, calibration=old.config.calibration)
        if old is not None:
            check_config(old.path, old.config, config)
        return config

    def _engine(self) -> Engine:
        """Return the engine, which stays open: that takes longer than a photo."""
        threads = min(effective_n_jobs(self.n_jobs), cores())
        what = self.config_.digest, self.engine, threads
        if what not in self._engines:
            self._engines[what] = open_engine(
                self.config_, lambda: self._resolved()[1], self.engine, self._network, threads=threads
            )
        return self._engines[what]

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy is made of: it opens a network of its own."""
        state: dict[str, Any] = super().__getstate__()
        return state | {"_engines": {}} if "_engines" in state else state

    def _network(self) -> Network | None:
        if self.config_.precision != "int8" or self.store is None:
            return None
        return find_network(self.config_.calibration, [Path(self.store)])

    def _features(self, photos: Sequence[Any]) -> Iterator[Feature | PhotoError]:
        """Yield the feature of every photo, or why there is none; those computed are kept, come what may."""
        kept = None if self.store is None else KeptFeatures(Path(self.store), self.engine)
        caches: list[Cache] = [] if kept is None else [kept]
        with Pipeline(self._engine, self.workers or cores()) as pipeline:
            try:
                for start in range(0, len(photos), _CHUNK):
                    taken = [attempt(photo_of, one) for one in photos[start : start + _CHUNK]]
                    keys = pipeline.identify(
                        RejectedPhoto("", str(one)) if isinstance(one, PhotoError) else one for one in taken
                    )
                    keyed = [(key, photo) for photo, key in keys]
                    good = [(key, photo) for key, photo in keyed if isinstance(key, str)]
                    features = iter(features_of(good, self.config_, pipeline, caches))
                    for key, _ in keyed:
                        yield key if isinstance(key, PhotoError) else next(features)
            finally:
                if kept is not None:
                    kept.commit(self.config_)

    def _bad(self, row: int, photo: Any, error: PhotoError) -> None:
        name = f" ({os.fsdecode(photo)})" if isinstance(photo, str | os.PathLike) else ""
        if self.errors == "raise":
            raise BreedsError(f'Photo {row}{name}: {error}; leave it out, or set errors="nan".')
        mention(f"no feature for photo {row}{name}: {error}")

    def __sklearn_tags__(self) -> Tags:
        tags: Tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.transformer_tags.preserves_dtype = []  # always float32
        tags.no_validation = True
        return tags


class BreedsClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Logistic regression on features, as `breeds.train` fits it: C and temperature chosen together.

    Both are chosen by the log loss of up to five folds that the fit has not seen; the folds go by the rows'
    contents, so that the order of rows decides none of them. Fitting takes about a second for a thousand
    photos. In one process one fit runs at a time, as it sets how many threads numpy uses and puts that back.

    Parameters
    ----------
    C : float, optional
        Inverse strength of regularisation, 1e-12 to 1e12; None has it chosen out of 16 values.
    balanced : bool, default False
        Let every class weigh the same, however many rows it has.
    keep : float, default 0.95
        Share of rows of known classes that `is_unknown` is set to keep, from 0 to below 1.
    seed : int, default 0
        Decides the folds.

    Attributes
    ----------
    classes_ : numpy.ndarray
        The labels, sorted, shape (classes,).
    C_ : float
        The C that was taken.
    temperature_ : float
        What the logits are divided by, so that probabilities are honest; 1 where nothing could be left out.
    n_features_in_ : int
        The width of the features.
    feature_names_in_ : numpy.ndarray
        Their names, where they were given with names.

    Raises
    ------
    BreedsError
        By `fit`, if a parameter is wrong or there is one class only; such an error is a ValueError too, and
        what scikit-learn itself finds wrong with arrays is its own ValueError.

    Examples
    --------
    >>> import breeds
    >>> table = breeds.Store("features/photos.h5").to_pandas()
    >>> features = table.filter(like="feature_")
    >>> classifier = breeds.BreedsClassifier().fit(features, table["label"])
    >>> classifier.predict_proba(features).shape, classifier.classes_[0] in set(table["label"])
    ((30, 5), True)
    """

    def __init__(
        self, C: float | None = None, balanced: bool = False, keep: float = 0.95, seed: int = 0
    ) -> None:
        self.C = C
        self.balanced = balanced
        self.keep = keep
        self.seed = seed

    def fit(self, X: ArrayLike, y: ArrayLike) -> BreedsClassifier:
        """Fit to features (n, width), taken as float32, and labels (n,), numbers or text."""
        with refusing():
            settings = TrainingSettings(C=self.C, seed=self.seed, balanced=self.balanced, keep=self.keep)
        features, labels = validate_data(self, X, y, dtype=np.float32, order="C")
        check_classification_targets(labels)
        self.classes_: NDArray[Any]
        self.classes_, targets = np.unique(labels, return_inverse=True)
        if len(self.classes_) < 2:
            raise RefusedError("Training needs rows of at least two classes; y has one class only.")
        count = min(FOLDS, int(np.bincount(targets).min()))
        keys = [hashlib.sha256(row.tobytes()).hexdigest() for row in features]
        folds = fold_of(keys, targets.astype(str).tolist(), count, self.seed) if count > 1 else None
        self._head = logistic.train(TrainingData(features, targets, folds), settings)
        self._detector = None if folds is None else fit_detector(features, targets, folds, self.keep)
        self.C_: float = self._head.how["C"]
        self.temperature_: float = self._head.temperature
        return self

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Return the likeliest class of each row, shape (n,), always one of ``classes_``."""
        best = self._logits(X).argmax(axis=1)
        return np.asarray(self.classes_[best])

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return the probability of each class, float64 (n, classes), rows adding up to 1."""
        return softmax(self._logits(X))

    def decision_function(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return the logits that the probabilities come of, float64 (n, classes).

        Of two classes (n,): how much larger the second's is.
        """
        logits = self._logits(X)
        return logits if len(self.classes_) > 2 else logits[:, 1] - logits[:, 0]

    def unknown_score(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return how much farther from its nearest class each row is than typical and allowed, float64 (n,).

        Above 0 a row seems to be of none of the classes. Without unit; minus infinity where a class had a
        single row to fit, so that nothing could be set.
        """
        features = self._features(X)
        if self._detector is None:
            return np.full(len(features), -np.inf)
        return self._detector.excess(features) - self._detector.threshold

    def is_unknown(self, X: ArrayLike) -> NDArray[np.bool_]:
        """Say of each row, bool (n,), whether it seems to be of none of the classes."""
        return self.unknown_score(X) > 0

    def _features(self, X: ArrayLike) -> NDArray[np.float32]:
        check_is_fitted(self)
        features: NDArray[np.float32] = validate_data(self, X, dtype=np.float32, order="C", reset=False)
        return features

    def _logits(self, X: ArrayLike) -> NDArray[np.float64]:
        features, head = self._features(X).astype(np.float64), self._head
        return apply_layers((features - head.mean) / head.scale, head.layers) / head.temperature

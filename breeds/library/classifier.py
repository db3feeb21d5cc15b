"""The logistic head as scikit-learn knows classifiers: on features, in pipelines and searches."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from breeds.heads import logistic
from breeds.heads.kinds import TrainingData, TrainingSettings
from breeds.heads.model import apply_layers, softmax
from breeds.heads.unknown import fit_detector
from breeds.library.refused import RefusedError, refusing
from breeds.split import fold_of
from breeds.training import FOLDS


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

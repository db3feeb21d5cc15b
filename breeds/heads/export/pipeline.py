"""A head as a scikit-learn pipeline, from features to probabilities. Breeds never loads it back."""

from __future__ import annotations

from pathlib import Path

import joblib
import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from breeds.files import write_aside
from breeds.heads.model import Model


def export_joblib(model: Model, path: Path) -> None:
    """Write a fitted ``StandardScaler`` and ``LogisticRegression`` whose answers are the model's.

    Parameters
    ----------
    model
        Of the kind ``logistic``.
    """
    with write_aside(path) as aside:
        joblib.dump(as_pipeline(model), aside)


def as_pipeline(model: Model) -> Pipeline:
    """Return the pipeline: ``predict_proba`` takes features (n, width) and gives class names."""
    weights, bias = model.layers[0]
    width = len(model.mean)
    scaler = StandardScaler()
    scaler.mean_, scaler.scale_ = model.mean.astype(float), model.scale.astype(float)
    scaler.var_, scaler.n_features_in_ = scaler.scale_**2, width
    scaler.n_samples_seen_ = model.record["n_train"]
    head = LogisticRegression(C=model.record.get("C", 1.0))
    head.classes_ = np.array(model.classes)
    head.coef_ = weights.T.astype(float) / model.temperature
    head.intercept_ = bias.astype(float) / model.temperature
    if len(model.classes) == 2:  # scikit-learn keeps one row for two classes
        head.coef_ = head.coef_[1:] - head.coef_[:1]
        head.intercept_ = head.intercept_[1:] - head.intercept_[:1]
    head.n_features_in_, head.n_iter_ = width, np.array([0])
    return make_pipeline(scaler, head)

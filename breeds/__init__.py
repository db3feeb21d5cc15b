"""Breeds: tell dog breeds apart from photos, on an ordinary CPU, and retrain in a second."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from breeds.api import evaluate, extract, load, predict
    from breeds.errors import BreedsError
    from breeds.features.store import Store
    from breeds.heads.model import Model
    from breeds.prediction import Predictor
    from breeds.sklearn import BottleneckFeatures, BreedsClassifier
    from breeds.training import train

__version__ = "0.1.0"

#: All that other programs may rely on; each is imported when it is asked for, and with it what it needs.
__all__ = [
    "BottleneckFeatures",
    "BreedsClassifier",
    "BreedsError",
    "Model",
    "Predictor",
    "Store",
    "evaluate",
    "extract",
    "load",
    "predict",
    "train",
]
_HOMES = {
    "BottleneckFeatures": "breeds.sklearn",
    "BreedsClassifier": "breeds.sklearn",
    "BreedsError": "breeds.errors",
    "Model": "breeds.heads.model",
    "Predictor": "breeds.prediction",
    "Store": "breeds.features.store",
    "train": "breeds.training",
} | dict.fromkeys(("evaluate", "extract", "load", "predict"), "breeds.api")


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    found = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

"""A store to a model: split, fit the head, record everything that had a part in it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from breeds.engines.backbones import width_of
from breeds.engines.network import Network
from breeds.errors import BreedsError
from breeds.heads.model import Model, apply_layers, pack_keys
from breeds.heads.threads import limited
from breeds.heads.unknown import JUDGED_ON, Detector, fit_detector
from breeds.labels import means_unknown
from breeds.metrics import log_loss
from breeds.split import check_parts, draw_parts, fold_of
from breeds.store import Store, versions

HEADS = ("logistic", "dense")
FOLDS = 5
#: C where there are too few photos of a class to choose it by cross-validation.
FALLBACK_C = 0.01
DENSE_VALIDATION_FOLDS = 8
#: Under so many training photos of a class, its numbers rest on too few.
FEW = 10
Rows = NDArray[np.intp]


@dataclass(frozen=True)
class Labelled:
    """The labelled photos of a store, each different photo once, and their parts of the split.

    `labels` are as corrected, "" for a photo that a correction leaves out; it keeps its part.
    """

    rows: Rows
    keys: list[str]
    labels: list[str]
    part: NDArray[np.str_]
    unlabelled: int
    duplicates: int


def labelled(store: Store, seed: int, val: float) -> Labelled:
    """Take the labelled, different photos of a store and split them by their labels as they came.

    So no correction moves a photo from one part to another. One that came without a label, and has it from
    a correction, is for training, or whatever the data names it for; for testing it is not used.

    Raises
    ------
    BreedsError
        If they cannot be split into what training and evaluation need.
    """
    table, corrected = store.table, store.corrected
    rows = table.labelled_rows()
    keys, labels, given = ([column[row] for row in rows] for column in (table.key, table.label, table.split))
    part = dict(zip(keys, draw_parts(keys, labels, seed, val, given).tolist(), strict=True))
    for row in np.flatnonzero(corrected.label.given() & ~table.label.given()).tolist():
        if table.key[row] not in part and table.split[row] != "test":
            part[table.key[row]] = table.split[row] or "train"
            rows.append(row)
    rows.sort()
    keys, labels = ([column[row] for row in rows] for column in (table.key, corrected.label))
    if not any(labels):
        raise BreedsError(
            f"The photos in {store.path} have no labels; extract from a folder with a subfolder per "
            f"class, or name a CSV file with --labels."
        )
    parts = [part[key] for key in keys]
    check_parts(keys, labels, parts, val)
    _refuse_unknown(store, labels)
    total = sum(map(part.__contains__, table.key))
    return Labelled(np.array(rows), keys, labels, np.array(parts), len(table) - total, total - len(rows))


def _refuse_unknown(store: Store, labels: Sequence[str]) -> None:
    """Refuse a class that answers could not be told from a refusal by."""
    taken = next(filter(means_unknown, labels), None)
    if taken is not None:
        raise BreedsError(
            f"{store.path} has a class called {taken}, as photos of none of the classes are answered; rename "
            f"the folder or the label and extract again, which computes no photo again, or leave the class "
            f"out with --classes."
        )


def train(
    store: Store,
    head: str = "logistic",
    C: float | None = None,
    seed: int = 0,
    val: float = 0.0,
    balanced: bool = False,
    keep: float = 0.95,
    views: Sequence[Store] = (),
) -> Model:
    """Train a head on a store's training part.

    Parameters
    ----------
    head
        One of `HEADS`.
    C
        Inverse regularisation strength of logistic regression; None chooses it by
        cross-validation on the training part.
    seed
        Decides the split, the folds, and the dense head's first weights.
    val
        Share of photos for validation; logistic regression has no use for them and leaves them
        alone, the dense head decides by them when to stop (without, by an eighth of training).
    balanced
        Let every class weigh the same; the dense head always does.
    keep
        Share of known photos that the threshold for unknown ones is set to keep.
    views
        Stores of views of the same photos, to train on as well; testing is on the photos as they are.

    Raises
    ------
    BreedsError
        If the store's photos are not enough, or its features are not finite or all the same.

    Examples
    --------
    >>> store = Store.open(Path("features/dogs.h5"))  # doctest: +SKIP
    >>> model = train(store)  # doctest: +SKIP
    >>> save_model(model, Path("models/dogs.safetensors"))  # doctest: +SKIP
    >>> model.classes[model.probabilities(store.features())[0].argmax()]  # doctest: +SKIP
    'beagle'
    """
    started = time.perf_counter()
    photos = labelled(store, seed, val)
    data = _training_data(store, photos, head, seed, views)
    with limited(1):  # where there is work for more, `breeds.heads.logistic` says so
        fitted = _dense(data, seed) if head == "dense" else _logistic(data, C, balanced)
    model = Model(
        kind=head,
        classes=data.classes,
        recipe=store.recipe,
        weights_path=store.table.weights_path,
        mean=fitted.mean,
        scale=fitted.scale,
        layers=fitted.layers,
        seen=pack_keys([k for k, part in zip(photos.keys, photos.part, strict=True) if part != "test"]),
        temperature=fitted.temperature,
        unknown=_detector(data, keep),
        also=store.parts()[1:],
        networks=_networks(store),
        tested=pack_keys([k for k, part in zip(photos.keys, photos.part, strict=True) if part == "test"]),
    )
    model.record = {
        **fitted.how,
        "seed": seed,
        "val": val,
        "keep": keep,
        **_origin(store, views),
        **_counts(photos, data),
        "corrections": asdict(store.corrections.effect(store.table)),
        **_on_training_photos(model, data),
        "keep_judged_on": JUDGED_ON if model.unknown else "",
        "seconds": round(time.perf_counter() - started, 2),
        "versions": versions(),
    }
    return model


@dataclass(frozen=True)
class _Data:
    """What a head is fitted to, a row for each photo.

    `views` has the features of the same photos' views. `folds` are those of cross-validation, None
    if a class has a single photo; `decides` says which photos the dense head decides by when to stop.
    """

    features: NDArray[np.float32]
    targets: Rows
    classes: list[str]
    labels: list[str]
    folds: Rows | None
    decides: NDArray[np.bool_]
    views: list[NDArray[np.float32]]

    def with_views(self) -> NDArray[np.float32]:
        """Return the features of the photos and, below them, of their views."""
        return np.vstack([self.features, *self.views])

    def tiled(self, column: NDArray[Any]) -> NDArray[Any]:
        """Repeat a column, so that it fits `with_views`."""
        return np.tile(column, 1 + len(self.views))


def check_width(store: Store, features: NDArray[np.float32]) -> None:
    """Refuse features, float32 (n, width), of another width than the store's networks give.

    Raises
    ------
    BreedsError
        If it is another; nothing can be said of networks that this version does not know.
    """
    widths = [width_of(recipe) for recipe, _ in store.parts()]
    if all(widths) and sum(widths) != features.shape[1]:
        raise BreedsError(
            f"{store.path} has {features.shape[1]} features a photo, and its recipe ({store.recipe}) gives "
            f"{sum(widths)}; extract again, into another --store."
        )


def _training_data(store: Store, photos: Labelled, head: str, seed: int, views: Sequence[Store]) -> _Data:
    """Read what a head is fitted to; the dense head takes the photos for validation along."""
    for_fit = np.isin(photos.part, ("train", "val") if head == "dense" else ("train",))
    for_fit &= np.array(photos.labels) != ""
    features = store.features(photos.rows[for_fit])
    check_width(store, features)
    if (features == features[0]).all():
        raise BreedsError(
            f"All training photos in {store.path} have the same features, so nothing tells the classes "
            f"apart; extract again with sound weights."
        )
    keys, labels = ([column[i] for i in np.flatnonzero(for_fit)] for column in (photos.keys, photos.labels))
    folds = min(FOLDS, *Counter(labels).values())
    decides = photos.part[for_fit] == "val"
    if head == "dense" and not decides.any():
        decides = fold_of(keys, labels, DENSE_VALIDATION_FOLDS, seed) == 0
    classes = sorted(set(photos.labels) - {""})
    return _Data(
        features,
        np.searchsorted(np.array(classes), np.array(labels)),
        classes,
        labels,
        fold_of(keys, labels, folds, seed) if folds > 1 else None,
        decides,
        [view.features_of(keys) for view in views],
    )


def _detector(data: _Data, keep: float) -> Detector | None:
    """Fit what tells photos of none of the classes, if there are enough photos to set it."""
    return None if data.folds is None else fit_detector(data.features, data.targets, data.folds, keep)


def _networks(store: Store) -> dict[str, Network]:
    """Return the int8 networks that the features rest on; what finds them is loaded only then."""
    if all(recipe.precision != "int8" for recipe, _ in store.parts()):
        return {}
    from breeds.store.calibration import networks_of

    return networks_of(store)


def _origin(store: Store, views: Sequence[Store]) -> dict[str, Any]:
    """Say where the features came from; absolute, so that any folder will do to evaluate from."""
    return {
        "store": str(store.path.absolute()),
        "also": [str(other.path.absolute()) for other in store.also],
        "views": [view.recipe.view for view in views],
    }


def _counts(photos: Labelled, data: _Data) -> dict[str, Any]:
    """Say how many photos had which part, and which classes rest on too few."""
    used = (np.array(photos.labels) != "") | (photos.part == "test")  # labels as they came are tested too
    parts = Counter(photos.part[used].tolist())
    return {
        "n_train": parts["train"],
        "n_val": parts["val"],
        "n_test": parts["test"],
        "unlabelled": photos.unlabelled,
        "duplicates": photos.duplicates,
        "few": {label: n for label, n in sorted(Counter(data.labels).items()) if n < FEW},
    }


def _on_training_photos(model: Model, data: _Data) -> dict[str, float]:
    """Judge a model on the photos that it was trained on."""
    probabilities = model.probabilities(data.features)
    return {
        "train_accuracy": float((probabilities.argmax(axis=1) == data.targets).mean()),
        "train_log_loss": log_loss(data.targets, probabilities),
    }


@dataclass(frozen=True)
class Fitted:
    """A head before it becomes a model: standardisation, layers, temperature, and how it came about."""

    mean: NDArray[np.float32]
    scale: NDArray[np.float32]
    layers: list[tuple[NDArray[np.float32], NDArray[np.float32]]]
    temperature: float
    how: dict[str, Any]


def _logistic(data: _Data, C: float | None, balanced: bool) -> Fitted:
    features, targets = data.with_views(), data.tiled(data.targets)
    judged = np.arange(len(features)) < len(data.features)  # views only help in training
    folds = None if data.folds is None else data.tiled(data.folds)
    return fit_logistic(features, targets, folds, C, balanced, judged)


def fit_logistic(
    features: NDArray[np.float32],
    targets: Rows,
    folds: Rows | None,
    C: float | None = None,
    balanced: bool = False,
    judged: NDArray[np.bool_] | None = None,
) -> Fitted:
    """Fit the logistic head, with its temperature, and choose C where none is given.

    Parameters
    ----------
    features
        As extracted, float32 (n, width).
    targets, judged
        As in `breeds.heads.logistic.search_C`.
    folds
        As there; None where a class has a single photo, and nothing can be cross-validated.
    C, balanced
        As in `train`.
    """
    from breeds.heads import logistic

    mean, scale = logistic.standardise(features)
    standard = (features - mean) / scale
    how: dict[str, Any] = {
        "C": C or FALLBACK_C,
        "C_chosen_by": "you" if C else "default",
        "balanced": balanced,
    }
    if folds is None:
        layer = logistic.fit(standard, targets, how["C"], balanced)
        return Fitted(mean, scale, [layer], 1.0, how)
    grid = (C,) if C else logistic.C_GRID
    search = logistic.search_C(standard, targets, folds, balanced, grid, judged)
    how["C"] = search.C
    if not C:
        how["C_chosen_by"] = f"{int(folds.max()) + 1}-fold cross-validation"
        how["C_at_edge"] = search.at_edge
    how["cv_log_loss"] = {f"{c:.3g}": round(loss, 5) for c, loss in search.log_loss.items()}
    layer = logistic.fit(standard, targets, search.C, balanced, search)
    return Fitted(mean, scale, [layer], search.temperature, how)


def _dense(data: _Data, seed: int) -> Fitted:
    from breeds.heads import dense
    from breeds.heads.logistic import standardise
    from breeds.heads.temperature import fit_temperature

    features, targets, decides = data.with_views(), data.tiled(data.targets), data.tiled(data.decides)
    mean, scale = standardise(features[~decides])
    standard = (features - mean) / scale
    trained = dense.fit(standard, targets, decides, seed)
    temperature = fit_temperature(apply_layers(standard[decides], trained.layers), targets[decides])
    how = {"best_epoch": trained.best_epoch, "val_log_loss": min(trained.val_log_loss)}
    return Fitted(mean, scale, trained.layers, temperature, how)

"""A store to a model: split, fit the head, record everything that had a part in it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from breeds.engines.backbones import width_of
from breeds.engines.network import Network
from breeds.engines.processes import memory_of_machine
from breeds.errors import BreedsError
from breeds.heads.model import Model, apply_layers, pack_keys, softmax
from breeds.heads.threads import limited
from breeds.heads.unknown import JUDGED_ON, Detector, fit_detector
from breeds.labels import means_unknown
from breeds.metrics import log_loss
from breeds.split import check_parts, draw_parts, fold_of
from breeds.store import Store, versions

if TYPE_CHECKING:
    from breeds.heads.batched import Batch

HEADS = ("logistic", "dense")
FOLDS = 5
#: C where there are too few photos of a class to choose it by cross-validation.
FALLBACK_C = 0.01
DENSE_VALIDATION_FOLDS = 8
#: Under so many training photos of a class, its numbers rest on too few.
FEW = 10
#: Training at once holds the features about so many times: as read, standardised, and in the search's folds.
_COPIES = 4
#: In batches, photos that are read at once, and photos that C is chosen on.
_BATCH, _SAMPLE = 4096, 12_000
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
    memory: int | None = None,
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
    memory
        How many bytes training may take. Where the features need more, logistic regression reads them in
        batches, again for each step (`breeds.heads.batched`). None is half of this machine's.

    Raises
    ------
    BreedsError
        If the store's photos are not enough, its features are not finite or all the same, or the dense head
        needs more memory.

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
    chosen = _choose(photos, head, seed)
    if _fits(store, chosen, views, head, memory):
        done = _in_memory(store, chosen, head, seed, views, C, balanced, keep)
    else:
        done = _in_batches(store, chosen, views, C, balanced, keep, seed)
    fitted = done.fitted
    model = Model(
        kind=head,
        classes=chosen.classes,
        recipe=store.recipe,
        weights_path=store.table.weights_path,
        mean=fitted.mean,
        scale=fitted.scale,
        layers=fitted.layers,
        seen=pack_keys([k for k, part in zip(photos.keys, photos.part, strict=True) if part != "test"]),
        temperature=fitted.temperature,
        unknown=done.unknown,
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
        **_counts(photos, chosen.labels),
        "corrections": asdict(store.corrections.effect(store.table)),
        **done.on_training_photos,
        "keep_judged_on": JUDGED_ON if model.unknown else "",
        "seconds": round(time.perf_counter() - started, 2),
        "versions": versions(),
    }
    return model


@dataclass(frozen=True)
class _Chosen:
    """The photos that a head is fitted to, an entry for each.

    `rows` are theirs in the store. `folds` are those of cross-validation, None if a class has a single photo;
    `decides` says which photos the dense head decides by when to stop.
    """

    rows: Rows
    keys: list[str]
    labels: list[str]
    classes: list[str]
    targets: Rows
    folds: Rows | None
    decides: NDArray[np.bool_]


def _choose(photos: Labelled, head: str, seed: int) -> _Chosen:
    """Choose what a head is fitted to; the dense head takes the photos for validation along."""
    for_fit = np.isin(photos.part, ("train", "val") if head == "dense" else ("train",))
    for_fit &= np.array(photos.labels) != ""
    keys, labels = ([column[i] for i in np.flatnonzero(for_fit)] for column in (photos.keys, photos.labels))
    decides = photos.part[for_fit] == "val"
    if head == "dense" and not decides.any():
        decides = fold_of(keys, labels, DENSE_VALIDATION_FOLDS, seed) == 0
    classes = sorted(set(photos.labels) - {""})
    targets = np.searchsorted(np.array(classes), np.array(labels))
    return _Chosen(photos.rows[for_fit], keys, labels, classes, targets, _folds(keys, labels, seed), decides)


def _folds(keys: Sequence[str], labels: Sequence[str], seed: int) -> Rows | None:
    """Return the fold of each photo, None if a class has a single one."""
    folds = min(FOLDS, *Counter(labels).values())
    return fold_of(keys, labels, folds, seed) if folds > 1 else None


def _fits(store: Store, chosen: _Chosen, views: Sequence[Store], head: str, memory: int | None) -> bool:
    """Say whether training at once takes no more memory than it may."""
    memory = memory_of_machine() // 2 if memory is None else memory
    width = sum(one.width() for one in (store, *store.also))
    needed = _COPIES * len(chosen.rows) * (1 + len(views)) * width * np.dtype(np.float32).itemsize
    if needed > memory and head == "dense":
        raise BreedsError(
            f"The dense head takes all features into memory at once, about {needed / 1e9:.1f} GB of "
            f"{len(chosen.rows)} photos, and --memory allows {memory / 1e9:.1f} GB; train --head logistic, "
            f"which reads them in batches, or allow more."
        )
    return bool(needed <= memory)


@dataclass(frozen=True)
class _Done:
    """What training found: the head, what tells photos of none of the classes, and its own photos' scores."""

    fitted: Fitted
    unknown: Detector | None
    on_training_photos: dict[str, float]


@dataclass(frozen=True)
class _Data:
    """What a head is fitted to in memory: features, float32 (n, width), and those of the photos' views."""

    chosen: _Chosen
    features: NDArray[np.float32]
    views: list[NDArray[np.float32]]

    def with_views(self) -> NDArray[np.float32]:
        """Return the features of the photos and, below them, of their views."""
        return np.vstack([self.features, *self.views])

    def tiled(self, column: NDArray[Any]) -> NDArray[Any]:
        """Repeat a column, so that it fits `with_views`."""
        return np.tile(column, 1 + len(self.views))


def _in_memory(
    store: Store,
    chosen: _Chosen,
    head: str,
    seed: int,
    views: Sequence[Store],
    C: float | None,
    balanced: bool,
    keep: float,
) -> _Done:
    """Train on features that are read at once."""
    features = store.features(chosen.rows)
    check_width(store, features)
    if (features == features[0]).all():
        raise _all_the_same(store)
    data = _Data(chosen, features, [view.features_of(chosen.keys) for view in views])
    with limited(1):  # where there is work for more, `breeds.heads.logistic` says so
        fitted = _dense(data, seed) if head == "dense" else _logistic(data, C, balanced)
    unknown = None
    if chosen.folds is not None:
        unknown = fit_detector(features, chosen.targets, chosen.folds, keep)
    logits = apply_layers((features - fitted.mean) / fitted.scale, fitted.layers)
    return _Done(fitted, unknown, _scores(chosen.targets, softmax(logits / fitted.temperature)))


def _in_batches(
    store: Store,
    chosen: _Chosen,
    views: Sequence[Store],
    C: float | None,
    balanced: bool,
    keep: float,
    seed: int,
) -> _Done:
    """Train the logistic head on features that are read in batches, again for each step.

    C is chosen on a sample in memory: it says how large weights may be, whatever the number of photos.
    """
    from breeds.heads import batched

    n, number = len(chosen.rows), 1 + len(views)
    counts = np.bincount(chosen.targets).astype(np.float64)
    each = n / len(counts) / counts[chosen.targets] if balanced else np.ones(n)
    parts = [(store, chosen.rows), *((view, view.rows_of(chosen.keys)) for view in views)]
    stream = batched.Stream(
        partial(_batches, parts), np.tile(chosen.targets, number), np.tile(each, number).astype(np.float32)
    )
    photos = replace(stream, targets=chosen.targets, weights=np.ones(n, dtype=np.float32))
    standard = batched.standardise(stream)
    if (standard.scale == 1).all():
        raise _all_the_same(store)
    few = _sample(chosen.targets)
    keys, labels = ([column[i] for i in few] for column in (chosen.keys, chosen.labels))
    features = store.features(chosen.rows[few])
    check_width(store, features)
    found = fit_logistic(features, chosen.targets[few], _folds(keys, labels, seed), C, balanced)
    if "C_at_edge" in found.how:
        found.how["C_chosen_by"] += f" on {len(few)} of the {n} photos"
    start = batched.Solution(*found.layers[0]).moved(batched.Standard(found.mean, found.scale), standard)
    along = batched.directions(standard.of(features), start, found.how["C"], float(stream.weights.sum()))
    arguments = stream, standard, found.how["C"], start, along
    if chosen.folds is None:
        solution, temperature, unknown = batched.fit(*arguments), 1.0, None
    else:
        solution, temperature = batched.fit_with_temperature(*arguments, np.tile(chosen.folds == 0, number))
        unknown = batched.fit_detector(photos, chosen.folds, solution.weights.shape, keep)
    how = {**found.how, "in_batches": True, "steps": solution.steps}
    fitted = Fitted(*standard, [(solution.weights, solution.bias)], temperature, how)
    right, loss = 0.0, 0.0
    for rows, part in photos:
        logits = solution.logits(standard.of(part)).astype(np.float64)
        scores = _scores(chosen.targets[rows], softmax(logits / temperature))
        right += scores["train_accuracy"] * len(rows) / n
        loss += scores["train_log_loss"] * len(rows) / n
    return _Done(fitted, unknown, {"train_accuracy": right, "train_log_loss": loss})


def _batches(parts: list[tuple[Store, Rows]], wanted: Rows) -> Iterator[Batch]:
    """Yield the features of training photos, and of their views behind them; the next are read meanwhile."""
    from breeds.engines.pipeline import run_ahead
    from breeds.heads.batched import Batch

    n = len(parts[0][1])
    pieces = [
        (number, rows)
        for number in range(len(parts))
        for rows in _cut(wanted[(wanted >= number * n) & (wanted < (number + 1) * n)])
    ]

    def read(piece: tuple[int, Rows]) -> NDArray[np.float32]:
        store, rows_of = parts[piece[0]]
        return store.features(rows_of[piece[1] - piece[0] * n])

    with ThreadPoolExecutor(1) as pool:
        for (_, rows), features in run_ahead(pool, read, pieces, window=2):
            yield Batch(rows, features)


def _cut(rows: Rows) -> list[Rows]:
    return [rows[start : start + _BATCH] for start in range(0, len(rows), _BATCH)]


def _sample(targets: Rows) -> Rows:
    """Return about `_SAMPLE` of the photos, at least `FEW` of each class if it has them, spread evenly."""
    found = []
    for number, count in enumerate(np.bincount(targets)):
        some = max(min(count, FEW), round(count * _SAMPLE / len(targets)))
        of_class = np.flatnonzero(targets == number)
        found.append(of_class[np.linspace(0, count - 1, min(some, count)).astype(np.intp)])
    return np.sort(np.concatenate(found))


def _scores(targets: Rows, probabilities: NDArray[np.float64]) -> dict[str, float]:
    """Say how well a head tells the photos that it was trained on."""
    return {
        "train_accuracy": float((probabilities.argmax(axis=1) == targets).mean()),
        "train_log_loss": log_loss(targets, probabilities),
    }


def _all_the_same(store: Store) -> BreedsError:
    return BreedsError(
        f"All training photos in {store.path} have the same features, so nothing tells the classes "
        f"apart; extract again with sound weights."
    )


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


def _counts(photos: Labelled, labels: Sequence[str]) -> dict[str, Any]:
    """Say how many photos had which part, and which classes rest on too few."""
    used = (np.array(photos.labels) != "") | (photos.part == "test")  # labels as they came are tested too
    parts = Counter(photos.part[used].tolist())
    return {
        "n_train": parts["train"],
        "n_val": parts["val"],
        "n_test": parts["test"],
        "unlabelled": photos.unlabelled,
        "duplicates": photos.duplicates,
        "few": {label: n for label, n in sorted(Counter(labels).items()) if n < FEW},
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
    features, targets = data.with_views(), data.tiled(data.chosen.targets)
    judged = np.arange(len(features)) < len(data.features)  # views only help in training
    folds = None if data.chosen.folds is None else data.tiled(data.chosen.folds)
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

    chosen = data.chosen
    features, targets, decides = data.with_views(), data.tiled(chosen.targets), data.tiled(chosen.decides)
    mean, scale = standardise(features[~decides])
    standard = (features - mean) / scale
    trained = dense.fit(standard, targets, decides, seed)
    temperature = fit_temperature(apply_layers(standard[decides], trained.layers), targets[decides])
    how = {"best_epoch": trained.best_epoch, "val_log_loss": min(trained.val_log_loss)}
    return Fitted(mean, scale, trained.layers, temperature, how)

"""Which is better: heads in cross-validation on a store, or two models on photos that neither has seen."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from breeds import metrics
from breeds.errors import BreedsError
from breeds.features import Store
from breeds.heads import logistic
from breeds.heads.kinds import HEADS, KINDS, TrainingData, TrainingSettings
from breeds.heads.model import Model, apply_layers, check_stores, softmax
from breeds.split import fold_of

Floats = NDArray[np.float32]
#: Takes standardised training features, their class numbers, held-out features; gives probabilities.
Head = Callable[[Floats, NDArray[np.intp], Floats], NDArray[np.float64]]
#: Photos a class needs, so that training on all folds but one can cross-validate within.
_LEAST = 3


def labelled_features(store: Store, least: int = 2) -> tuple[Floats, NDArray[np.intp], list[str], list[int]]:
    """Return features, class numbers, class names and rows of a store's different, labelled photos.

    Labels are as corrected, where the store has corrections.

    Raises
    ------
    BreedsError
        If there are fewer than two classes, or a class has fewer than `least` photos.
    """
    table = store.corrected
    rows = table.labelled_rows()
    classes = sorted({table.label[row] for row in rows})
    if len(classes) < 2:
        raise BreedsError(f"{store.path} has labelled photos of {len(classes)} classes; two are needed.")
    targets = np.searchsorted(np.array(classes), np.array([table.label[row] for row in rows]))
    counts = np.bincount(targets)
    if counts.min() < least:
        raise BreedsError(
            f"This needs {least} photos of every class; {classes[int(counts.argmin())]} has {counts.min()}."
        )
    return store.features(np.array(rows)), targets, classes, rows


@dataclass(frozen=True)
class _Photos:
    """The photos of a store as cross-validation takes them, each different photo once.

    Attributes
    ----------
    keys, names
        And labels, which stratify the folds.
    features
        float32 (n, width).
    targets
        Class numbers by labels as corrected, which heads are trained on, int (n,); -1 for a photo left out.
    came, now
        Class numbers by labels as they came and as corrected, which heads are judged by, int (n,); -1 is not
        judged. A photo that came without a label is trained on and never judged.
    """

    keys: list[str]
    names: list[str]
    features: Floats
    targets: NDArray[np.intp]
    came: NDArray[np.intp]
    now: NDArray[np.intp]

    @staticmethod
    def of(store: Store) -> _Photos:
        """Take the photos of a store that have a label, as it came or as corrected."""
        features, targets, classes, rows = labelled_features(store, _LEAST)
        table, label = store.table, store.corrected.label
        left_out = [row for row in table.labelled_rows() if not label[row]]
        if left_out:
            features = np.vstack([features, store.features(np.array(left_out))])
            targets, rows = np.append(targets, [-1] * len(left_out)), rows + left_out
        number = {name: i for i, name in enumerate(classes)}
        came = np.array([number.get(table.label[row], -1) for row in rows])
        if (came < 0).all():
            raise BreedsError(f"No photo of {store.path} came with a label that a head could be judged by.")
        now = np.where([bool(table.label[row]) for row in rows], targets, -1)
        names = [label[row] or table.label[row] for row in rows]
        return _Photos([table.key[row] for row in rows], names, features, targets, came, now)

    def fold(self, folds: int, seed: int) -> NDArray[np.intp]:
        """Return the fold that each photo is held out in, at most `folds` of them, int (n,); -1 for none."""
        folds = min(folds, int(np.bincount(self.targets[self.targets >= 0]).min()))
        result = np.full(len(self.keys), -1)
        # Those left out by themselves, or the others of a class might all be in one fold.
        for some in (self.now >= 0, (self.now < 0) & (self.came >= 0)):
            at = np.flatnonzero(some).tolist()
            keys, names = ([column[i] for i in at] for column in (self.keys, self.names))
            result[at] = fold_of(keys, names, folds, seed)
        return result


def cross_validate(store: Store, model: Model, folds: int, repeats: int) -> dict[str, Any]:
    """Repeat a model's whole training, C and temperature included, in repeated cross-validation.

    Parameters
    ----------
    model
        Of a kind that is trained in seconds; what its user decided (C, equal weights of classes) is kept.
        Views are not trained on.
    folds, repeats
        Every photo is tested `repeats` times, each time by a head that has not seen it.

    Returns
    -------
    dict
        Mean accuracy and log loss with their intervals over the photos, mean macro F1, and the
        standard deviation of each over the repeats, by labels as they came; under ``corrected`` the same by
        labels as corrected, None where these are no others.
    """
    kind = KINDS[model.kind]
    if not kind.quick:
        raise BreedsError(f"--cv does not work on the {model.kind} head, which would take minutes.")
    photos = _Photos.of(store)
    settings = TrainingSettings.of_record(model.record)
    if model.record.get("C_chosen_by") != "you":
        settings = replace(settings, C=None)
    repeated = []
    for repeat in range(repeats):
        head = partial(_trained_head, settings=replace(settings, seed=repeat))
        fold = photos.fold(folds, repeat)
        repeated.append(_held_out(head, photos, fold))
    return {"folds": int(fold.max()) + 1, "repeats": repeats, **_judge(photos, repeated)}


def _judge(photos: _Photos, repeats: list[NDArray[np.float64]]) -> dict[str, Any]:
    """Measure the probabilities of each repeat, by labels as they came and, where others, as corrected."""

    def measured(truth: NDArray[np.intp]) -> dict[str, Any]:
        judged = truth >= 0
        truth, answers = truth[judged], [found[judged] for found in repeats]
        # The same photos are tested again in each repeat, so they are no more photos than they are.
        losses = np.mean([metrics.log_losses(truth, found) for found in answers], axis=0)
        result: dict[str, Any] = {"photos": len(truth), "log_loss_interval": metrics.mean_interval(losses)}
        for measure in (metrics.accuracy, metrics.log_loss, metrics.macro_f1):
            values = [measure(truth, found) for found in answers]
            result[measure.__name__] = float(np.mean(values))
            result[f"{measure.__name__}_spread"] = float(np.std(values))
        right = result["accuracy"] * len(truth)
        return result | {"accuracy_interval": metrics.wilson_interval(right, len(truth))}

    is_touched = (photos.came != photos.now).any()
    return {**measured(photos.came), "corrected": measured(photos.now) if is_touched else None}


def _held_out(head: Head, photos: _Photos, fold: NDArray[np.intp]) -> NDArray[np.float64]:
    """Return photos' probabilities, float64 (n, classes), by a head that has not seen them; 0 in no fold."""
    features, targets = photos.features, photos.targets
    answers = np.zeros((len(targets), int(targets.max()) + 1))
    for number in range(int(fold.max()) + 1):
        out = fold == number
        inside = ~out & (targets >= 0)
        mean, scale = logistic.standardise(features[inside])
        answers[out] = head(
            (features[inside] - mean) / scale, targets[inside], (features[out] - mean) / scale
        )
    return answers


def out_of_fold(
    features: Floats, targets: NDArray[np.intp], folds: NDArray[np.intp], C: float
) -> NDArray[np.float64]:
    """Return every photo's logits, float64 (n, classes), by logistic regression that has not seen it."""
    mean, scale = logistic.standardise(features)
    return logistic.search_C((features - mean) / scale, targets, folds, grid=(C,)).out_of_fold


def compare_heads(
    store: Store, seed: int = 0, folds: int = 5, heads: Sequence[str] = HEADS
) -> list[dict[str, Any]]:
    """Cross-validate `heads`, and others of scikit-learn, on the same folds.

    They are trained on labels as corrected, and judged by labels as they came.

    Returns
    -------
    list of dict
        Name, seconds, and the numbers of `cross_validate`, of each.
    """
    photos = _Photos.of(store)
    fold = photos.fold(folds, seed)
    table = []
    for name, head in _heads(seed, heads).items():
        started = time.perf_counter()
        answers = _held_out(head, photos, fold)
        seconds = time.perf_counter() - started
        table.append({"head": name, **_judge(photos, [answers]), "seconds": seconds})
    return table


def _heads(seed: int, heads: Sequence[str]) -> dict[str, Head]:
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.neighbors import KNeighborsClassifier, NearestCentroid
    from sklearn.svm import LinearSVC

    def scikit(make: Callable[[NDArray[np.intp]], Any]) -> Head:
        def head(inside: Floats, targets: NDArray[np.intp], outside: Floats) -> NDArray[np.float64]:
            return np.asarray(make(targets).fit(inside, targets).predict_proba(outside), dtype=np.float64)

        return head

    def neighbours(targets: NDArray[np.intp]) -> Any:
        return KNeighborsClassifier(min(10, len(targets)), weights="distance", metric="cosine")

    def machine(targets: NDArray[np.intp]) -> Any:
        parts = min(3, int(np.bincount(targets).min()))
        return CalibratedClassifierCV(LinearSVC(C=1e-4, random_state=seed % 2**32), cv=parts)

    own = {
        KINDS[name].title: partial(_trained_head, settings=TrainingSettings(name, seed=seed))
        for name in heads
    }
    return own | {
        "nearest class mean": scikit(lambda _: NearestCentroid()),
        "10 nearest neighbours": scikit(neighbours),
        "linear SVM": scikit(machine),
    }


def _trained_head(
    inside: Floats, targets: NDArray[np.intp], outside: Floats, settings: TrainingSettings
) -> NDArray[np.float64]:
    """Choose C, if it is not given, and temperature inside, as `train_head.py` does."""
    names = [f"{i:064x}" for i in range(len(targets))], list(map(str, targets))
    folds = max(2, min(5, int(np.bincount(targets).min())))
    inner, eighths = (fold_of(*names, number, settings.seed) for number in (folds, 8))
    fitted = settings.kind.train(TrainingData(inside, targets, inner, eighths == 0), settings)
    return softmax(apply_layers((outside - fitted.mean) / fitted.scale, fitted.layers) / fitted.temperature)


def compare_models(store: Store, model: Model, other_store: Store, other: Model) -> dict[str, Any]:
    """Compare two models on the labelled photos that neither has seen in training.

    Parameters
    ----------
    store, other_store
        The features of each model's config; the photos are those that both stores have.

    Returns
    -------
    dict
        Counts, McNemar's exact p-value, and what it means in words, by labels as they came; under
        ``corrected`` the same by labels as corrected, None where these are no others.

    Raises
    ------
    BreedsError
        If their classes differ, a store is of another config than its model's, or no photo is left.
    """
    if model.classes != other.classes:
        raise BreedsError("The two models know different classes; compare models of the same classes.")
    check_stores(store, model)
    check_stores(other_store, other)
    table, there = store.table, set(other_store.table.key)
    seen = model.seen_keys() | other.seen_keys()
    number = {name: i for i, name in enumerate(model.classes)}
    rows = [
        row
        for row in table.labelled_rows()
        if table.key[row] in there
        and table.key[row] not in seen
        and (table.label[row] in number or store.corrected.label[row] in number)
    ]
    labels = (table.label, store.corrected.label)
    came, now = (np.array([number.get(column[row], -1) for row in rows]) for column in labels)
    if not (came.size and (came >= 0).any()):
        raise BreedsError(
            f"{store.path} has no photo that neither model has seen in training"
            f"{'' if store is other_store else f' and that {other_store.path} has too'}."
        )
    keys = [table.key[row] for row in rows]
    answers = model.logits(store.features_of(keys)).argmax(axis=1)
    other_answers = other.logits(other_store.features_of(keys)).argmax(axis=1)
    found = compare_answers(came, answers, other_answers)
    touched = (came != now).any() and (now >= 0).any()
    return found | {"corrected": compare_answers(now, answers, other_answers) if touched else None}


def compare_answers(
    truth: metrics.Truth,
    answers: NDArray[np.intp],
    other_answers: NDArray[np.intp],
    names: tuple[str, str] = ("this model", "the other model"),
) -> dict[str, Any]:
    """Compare the answers of two models for the same photos, but for those whose truth is -1.

    Parameters
    ----------
    truth, answers, other_answers
        Numbers of classes, int (n,).
    names
        What to call the two in words.
    """
    right, other_right = (given[truth >= 0] == truth[truth >= 0] for given in (answers, other_answers))
    n = len(right)
    only, only_other = int((right & ~other_right).sum()), int((other_right & ~right).sum())
    p = metrics.mcnemar(only, only_other)
    better = names[0] if only > only_other else names[1]
    words = (
        f"{better} is better, and that is no accident of these {n} photos (p = {p:.3g})"
        if p < 0.05
        else f"these {n} photos do not show that either is better (p = {p:.3g})"
    )
    return {
        "photos": n,
        "accuracy": float(right.mean()),
        "accuracy_interval": list(metrics.wilson_interval(int(right.sum()), n)),
        "accuracy_other": float(other_right.mean()),
        "accuracy_other_interval": list(metrics.wilson_interval(int(other_right.sum()), n)),
        "only_this_right": only,
        "only_other_right": only_other,
        "p_value": p,
        "in_words": words,
    }

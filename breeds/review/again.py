"""Training again on the features at hand, and what it has changed on photos that nobody touched."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from breeds import metrics
from breeds.features import Store, check_config
from breeds.features.corrections import Corrections
from breeds.heads.crossval import compare_answers
from breeds.heads.kinds import KEPT, TrainingSettings
from breeds.heads.model import Model, check_stores
from breeds.outputs import view_store
from breeds.report.modelcard import write_card
from breeds.text import mention, visible
from breeds.training import train_head


@dataclass(frozen=True, slots=True)
class Score:
    """A model's answers for the photos compared: accuracy and log loss, each with its 95 % interval.

    `log_loss_interval` is None where resampling knows nothing of it, as of a single photo.
    """

    accuracy: float
    accuracy_interval: list[float]
    log_loss: float
    log_loss_interval: list[float] | None


@dataclass(frozen=True)
class Again:
    """What training again has done.

    Attributes
    ----------
    model
        The new one, as it was saved.
    photos
        How many test photos are compared: those for testing before and after, that neither model has seen,
        that have no correction, and whose class both know.
    before, after
        Scores of the two, None if there is no such photo.
    only_before, only_after
        How many of these photos only one of the two gets right.
    p_value
        McNemar's, exact; 1 if there is no photo.
    new, gone
        Classes that only the new, or only the old model knows.
    in_words
        All of this in a few sentences.
    seconds
        That training, comparing and saving took.
    """

    model: Model
    photos: int
    before: Score | None
    after: Score | None
    only_before: int
    only_after: int
    p_value: float
    new: list[str]
    gone: list[str]
    in_words: str
    seconds: float


def train_again(model_path: Path, store: Store, corrections: Corrections, search: bool = False) -> Again:
    """Train a model again as it was trained before, on the store as it is now, and replace it whole.

    Head, seed, shares, weights of classes and views are as its record says, and so is C, but with `search`.
    It takes 0.5 s for 1,141 photos of ten classes on two cores, as no photo is computed.

    Parameters
    ----------
    model_path
        The model; it is replaced when all else is done, or stays as it is.
    store
        Opened anew, and beside others if the model rests on several.
    corrections
        That the new model is trained with; no test photo that has one is compared.
    search
        Choose C anew.

    Raises
    ------
    BreedsError
        If the photos are not enough any more, a store is not the model's, or the model cannot be written.
    """
    started = time.perf_counter()
    old = Model.load(model_path)
    store = store.with_corrections(corrections)
    check_stores(store, old)
    new = _trained(store, old, search)
    found = _compared(store, old, new)
    kept = write_card(new, model_path, new.save(model_path))
    if kept:
        mention(kept)
    return Again(new, **found, seconds=time.perf_counter() - started)


def _trained(store: Store, old: Model, search: bool) -> Model:
    record = old.record
    chosen_by = str(record.get("C_chosen_by", ""))
    # What was only a default, as photos were few, is no choice to keep.
    keeps_C = not search and "C" in record and chosen_by not in ("", "default")
    settings = TrainingSettings.of_record(record)
    settings = settings if keeps_C else replace(settings, C=None)
    new = train_head(store, settings, _views(store, record))
    if keeps_C:
        new.record["C_chosen_by"] = chosen_by if chosen_by.endswith(("you", KEPT)) else chosen_by + KEPT
        new.record["C_at_edge"] = bool(record.get("C_at_edge"))
    return new


def _views(store: Store, record: dict[str, Any]) -> list[Store]:
    views = [Store(view_store(store.path, view), corrected=False) for view in record["views"]]
    for view in views:
        check_config(view.path, replace(view.config, view=store.config.view), store.config)
    return views


def _compared(store: Store, old: Model, new: Model) -> dict[str, Any]:
    """Compare the two on the test photos that nobody touched."""
    gained, lost = sorted({*new.classes} - {*old.classes}), sorted({*old.classes} - {*new.classes})
    rows = untouched(store, old, new)
    found: dict[str, Any] = {"photos": len(rows), "new": gained, "gone": lost}
    if not rows:
        words = (
            "No test photo is left that neither model has seen and nobody has touched, so the two cannot be "
            "compared."
        )
        scores = {"before": None, "after": None, "only_before": 0, "only_after": 0, "p_value": 1.0}
        return found | scores | {"in_words": " ".join([words, *_changes(gained, lost)])}
    features = store.features(np.array(rows))
    labels = [store.table.label[row] for row in rows]
    (before, old_wrong), (after, new_wrong) = (_score(model, features, labels) for model in (old, new))
    # Right is 0 and wrong is 1: the two may number classes differently.
    right = np.zeros(len(rows), dtype=np.intp)
    mcnemar = compare_answers(right, new_wrong, old_wrong, names=("the new model", "the old one"))
    words = (
        f"On the {len(rows)} test photos that nobody touched: accuracy {before.accuracy:.1%} before, "
        f"{after.accuracy:.1%} after; log loss {before.log_loss:.3f} before, {after.log_loss:.3f} after; "
        f"{mcnemar['in_words']}."
    )
    return found | {
        "before": before,
        "after": after,
        "only_before": mcnemar["only_other_right"],
        "only_after": mcnemar["only_this_right"],
        "p_value": mcnemar["p_value"],
        "in_words": " ".join([words, *_changes(gained, lost)]),
    }


def untouched(store: Store, old: Model, new: Model) -> list[int]:
    """Return the rows of the test photos that two models can be compared on, though people correct labels.

    They were for testing before and are after, neither model has seen them, no correction is of them, and
    both models know their class. So photos that were taught meanwhile are none of them: whoever teaches
    chooses what the old model does not know.
    """
    table = store.table
    seen, known = old.seen_keys() | new.seen_keys(), {*old.classes} & {*new.classes}
    tested = new.tested_keys() & old.tested_keys()
    return [
        row
        for row in table.labelled_rows()
        if (key := table.key[row]) in tested
        and key not in seen
        and key not in store.corrections.last
        and table.label[row] in known
    ]


def _score(model: Model, features: NDArray[np.float32], labels: list[str]) -> tuple[Score, NDArray[np.intp]]:
    """Return a model's score on photos, and 1 where it is wrong, intp (n,)."""
    truth = np.array([model.classes.index(label) for label in labels], dtype=np.intp)
    answers = model.probabilities(features)
    wrong = (answers.argmax(axis=1) != truth).astype(np.intp)
    right, losses = len(truth) - int(wrong.sum()), metrics.log_losses(truth, answers)
    interval = metrics.wilson_interval(right, len(truth))
    score = Score(right / len(truth), interval, float(losses.mean()), metrics.mean_interval(losses))
    return score, wrong


def _changes(new: list[str], gone: list[str]) -> list[str]:
    """Say which classes came and went: what is asked of the two models is not quite the same then."""
    found = []
    for names, what, model in ((new, "new", "the old model"), (gone, "gone", "the new model")):
        if names:
            shown = ", ".join(visible(name) for name in names[:5])
            more = f" and {len(names) - 5} more" if len(names) > 5 else ""
            verb = "is" if len(names) == 1 else "are"
            found.append(f"{shown}{more} {verb} {what}: {model} cannot be asked about that.")
    return found

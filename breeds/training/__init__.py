"""A store to a model: split, fit the head, record everything that had a part in it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from breeds.backbones.network import Network
from breeds.backbones.processes import memory_of_machine
from breeds.errors import BreedsError
from breeds.features import Store, versions
from breeds.heads.model import Model, pack_keys
from breeds.heads.unknown import JUDGED_ON
from breeds.metrics import FEW
from breeds.training.fits import FALLBACK_C, check_width, fit_logistic, in_memory
from breeds.training.photos import FOLDS, Chosen, Labelled, choose, labelled

__all__ = ["FALLBACK_C", "FOLDS", "HEADS", "check_width", "fit_logistic", "labelled", "train"]

HEADS = ("logistic", "dense")
#: Training at once holds the features about so many times: as read, standardised, and in the search's folds.
_COPIES = 7


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
    chosen = choose(photos, head, seed)
    if _fits(store, chosen, views, head, memory):
        done = in_memory(store, chosen, head, seed, views, C, balanced, keep)
    else:
        from breeds.training.batches import in_batches  # few need it, and scipy's solvers

        done = in_batches(store, chosen, views, C, balanced, keep, seed)
    fitted = done.fitted
    model = Model(
        kind=head,
        classes=chosen.classes,
        config=store.config,
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


def _fits(store: Store, chosen: Chosen, views: Sequence[Store], head: str, memory: int | None) -> bool:
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


def _networks(store: Store) -> dict[str, Network]:
    """Return the int8 networks that the features rest on; what finds them is loaded only then."""
    if all(config.precision != "int8" for config, _ in store.parts()):
        return {}
    from breeds.features.calibration import networks_of

    return networks_of(store)


def _origin(store: Store, views: Sequence[Store]) -> dict[str, Any]:
    """Say where the features came from; absolute, so that any folder will do to evaluate from."""
    return {
        "store": str(store.path.absolute()),
        "also": [str(other.path.absolute()) for other in store.also],
        "views": [view.config.view for view in views],
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

"""What a person should look at: labelled photos worth a second, and unlabelled ones worth a label."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from breeds.features import Store
from breeds.features.columns import Keys
from breeds.features.corrections import Correction, Corrections
from breeds.heads.label_issues import Judged, find_near_duplicates, judge
from breeds.heads.model import Model, check_stores
from breeds.heads.scikit import alone
from breeds.text import certainty, visible

#: Of unlabelled photos, so many times as many as are asked for are taken by their margin, and chosen from for
#: diversity.
CANDIDATES = 10
# Rows of the store that are looked at together: 8 MB of Xception's features.
_BLOCK = 1024


@dataclass(frozen=True, slots=True)
class Item:
    """A photo that is worth a second, and why.

    Attributes
    ----------
    kind
        "doubt", "mistake", "twins" or "uncertain", in this order in the queue; or "unlabelled".
    key, path
        Which photo; the path starts from the store's root.
    label
        As it is now.
    reason
        Why it is asked about, in words for people.
    suggestion
        Another label that it may have, "" for none.
    probability
        Of the suggestion, 0 if there is none.
    twin, twin_path, twin_label
        The photo that is nearly the same picture under another label, "" if there is none; it is in no other
        item.
    part
        ``train``, or ``test`` for a photo that the model has not seen in training: to correct it after
        seeing the model's answer flatters the model.
    """

    kind: str
    key: str
    path: str
    label: str
    reason: str
    suggestion: str
    probability: float
    part: str
    twin: str = ""
    twin_path: str = ""
    twin_label: str = ""


def queue(
    store: Store, model: Model, corrections: Corrections, most: int = 50, skipped: Collection[str] = ()
) -> list[Item]:
    """List what a person should look at, the most worthwhile first; each photo is in it once.

    First come doubtful labels (heads that have not seen the photo give its label less than 5 %), then other
    mistakes, the most confident first (of the model on photos that it has not seen, of heads without them on
    training photos), then near duplicates with two labels, then photos of which it is least certain, by
    the margin between label and the next class. A photo and its near duplicate are one item. It takes one
    cross-validation: 0.8 s for 1,141 photos of ten classes on two cores.

    Parameters
    ----------
    corrections
        Photos that have one are not asked about again; they are judged by.
    most
        How many items at most.
    skipped
        Keys of photos that are not asked about either.

    Raises
    ------
    BreedsError
        If the store is not of the model's config, or has photos of fewer than two classes.
    """
    check_stores(store, model)
    store = _without_single_photos(store.with_corrections(corrections))
    judged, seen = judge(store), model.seen_keys()
    answers = _Answers(store, model, judged, seen)
    settled = {*corrections.last, *skipped}
    used: set[str] = set()
    found: list[Item] = []
    for item in answers.items():
        if len(found) == most:
            break
        if {item.key, item.twin} & (used | settled):
            continue
        if not item.twin:
            item = answers.with_twin(item, used)
        used |= {item.key, item.twin} - {""}
        found.append(item)
    return found


def _without_single_photos(store: Store) -> Store:
    """Leave out the only photo of a class, as one that is corrected to a new class: nothing judges it."""
    table = store.corrected
    counts = Counter(table.label[row] for row in table.labelled_rows())
    single = [table.key[row] for row in table.labelled_rows() if counts[table.label[row]] == 1]
    if not single:
        return store
    out = [Correction(key, "") for key in single]
    return store.with_corrections(Corrections.of([*store.corrections.last.values(), *out]))


class _Answers:
    """What is said of each labelled photo by what has not seen it: the model, or heads without it."""

    def __init__(self, store: Store, model: Model, judged: Judged, seen: set[str]) -> None:
        self.store, self.judged = store, judged
        table = store.corrected
        self.keys = [table.key[row] for row in judged.rows]
        self.labels = [judged.classes[target] for target in judged.targets]
        self.is_test = np.array([key not in seen for key in self.keys], dtype=bool)
        self.classes = sorted({*judged.classes, *model.classes})
        number = {name: i for i, name in enumerate(self.classes)}
        self.targets: NDArray[np.intp] = np.array([number[label] for label in self.labels])
        self.answers = np.zeros((len(self.keys), len(self.classes)))
        self.answers[:, [number[name] for name in judged.classes]] = judged.probabilities
        test = np.flatnonzero(self.is_test)
        if len(test):
            given = model.probabilities(store.features(np.array(judged.rows)[test]))
            self.answers[test] = 0
            self.answers[test[:, None], [number[name] for name in model.classes]] = given
        self.of_label = self.answers[np.arange(len(self.targets)), self.targets]

    def items(self) -> Iterator[Item]:
        """Yield all that may be asked, in order; a photo may come more than once."""
        yield from self._doubts()
        yield from self._mistakes()
        yield from self._twins()
        yield from self._uncertain()

    def _doubts(self) -> Iterator[Item]:
        judged = self.judged
        for i in judged.doubted():
            best = int(judged.probabilities[i].argmax())
            suggestion, probability = judged.classes[best], float(judged.probabilities[i, best])
            reason = f"labelled {self._shown(i)}; the other photos say {_likely(suggestion, probability)}"
            yield self._item("doubt", i, reason, suggestion, probability)

    def _mistakes(self) -> Iterator[Item]:
        best = self.answers.argmax(axis=1)
        wrong = np.flatnonzero(best != self.targets)
        sure = self.answers[wrong, best[wrong]]
        for i in map(int, wrong[np.argsort(-sure, kind="stable")]):
            suggestion, probability = self.classes[best[i]], float(self.answers[i, best[i]])
            who = "the model, which has not seen it, says" if self.is_test[i] else "the other photos say"
            reason = f"labelled {self._shown(i)}; {who} {_likely(suggestion, probability)}"
            yield self._item("mistake", i, reason, suggestion, probability)

    def _twins(self) -> Iterator[Item]:
        for pair in self.pairs:
            i, j = sorted(pair, key=lambda at: self.of_label[at])
            probability = float(self.answers[i, self.targets[j]])
            reason = f"labelled {self._shown(i)}; {self._of_twin(j)}"
            yield self._item("twins", i, reason, self.labels[j], probability, twin=j)

    @cached_property
    def pairs(self) -> list[tuple[int, int]]:
        """Near duplicates with two labels, by their places, the most alike first."""
        pairs, table = find_near_duplicates(self.store), self.store.table
        paths = {path for pair in pairs for path in (pair.path, pair.other_path)}
        place = {table.path[row]: i for i, row in enumerate(self.judged.rows) if table.path[row] in paths}
        return [(place[pair.path], place[pair.other_path]) for pair in pairs]

    @cached_property
    def _twins_of(self) -> dict[str, list[int]]:
        """By the keys of photos, the places of their near duplicates with other labels."""
        found: dict[str, list[int]] = {}
        for i, j in self.pairs:
            found.setdefault(self.keys[i], []).append(j)
            found.setdefault(self.keys[j], []).append(i)
        return found

    def with_twin(self, item: Item, used: set[str]) -> Item:
        """Put a photo's near duplicate under another label beside it, but for one that is used already."""
        for j in self._twins_of.get(item.key, []):
            if self.keys[j] not in used:
                path = self.store.table.path[self.judged.rows[j]]
                reason = f"{item.reason}; {self._of_twin(j)}"
                return replace(
                    item, reason=reason, twin=self.keys[j], twin_path=path, twin_label=self.labels[j]
                )
        return item

    def _of_twin(self, j: int) -> str:
        return f"nearly the same picture is labelled {self._shown(j)}"

    def _uncertain(self) -> Iterator[Item]:
        """By the margin; those whose answer is not their label have come before."""
        others = self.answers.copy()
        others[np.arange(len(self.targets)), self.targets] = -1
        next_best = others.argmax(axis=1)
        margin = self.of_label - others.max(axis=1)
        for i in np.argsort(margin, kind="stable").tolist():
            suggestion, probability = self.classes[next_best[i]], float(others[i, next_best[i]])
            reason = (
                f"labelled {self._shown(i)}, which gets {certainty(self.of_label[i])}; it may be "
                f"{_likely(suggestion, probability)}"
            )
            yield self._item("uncertain", i, reason, suggestion, probability)

    def _shown(self, i: int) -> str:
        return visible(self.labels[i])

    def _item(
        self, kind: str, i: int, reason: str, suggestion: str, probability: float, twin: int | None = None
    ) -> Item:
        path, rows = self.store.table.path, self.judged.rows
        other = () if twin is None else (self.keys[twin], path[rows[twin]], self.labels[twin])
        part = "test" if self.is_test[i] else "train"
        return Item(
            kind, self.keys[i], path[rows[i]], self.labels[i], reason, suggestion, probability, part, *other
        )


def _likely(label: str, probability: float) -> str:
    return f"{visible(label)}, {certainty(probability)}"


def label_next(
    store: Store, model: Model, corrections: Corrections, most: int = 50, skipped: Collection[str] = ()
) -> list[Item]:
    """List unlabelled photos, those first that a label would teach the model most about.

    Diverse mini-batch active learning (Zhdanov, 2019, arXiv:1901.05954): the photos of the smallest margin
    between the best two answers, `CANDIDATES` times as many as asked for, are clustered by k-means on
    their standardised features, each weighted by how unsure the answer is, and of each cluster the photo
    nearest to its centre is taken. Nothing is left to chance.

    Memory holds the candidates' features, and some 50 bytes for each photo without a label.

    Parameters
    ----------
    corrections
        Photos that have one are not asked about, as they have a label, or are to be left out.
    skipped
        Keys of photos that are not asked about either.

    Raises
    ------
    BreedsError
        If the store is not of the model's config.
    """
    check_stores(store, model)
    rows = _unlabelled(store, {*corrections.last, *skipped})
    if not len(rows) or most < 1:
        return []
    margins = _margins(store, model, rows)
    # Ties by key: the order of a store's rows is that of names, which say nothing.
    closest = np.lexsort((store.table.key.take(rows).packed, margins))[: CANDIDATES * most]
    rows, margins = rows[closest], margins[closest]
    features = store.features(rows)
    if len(rows) > most:
        chosen = _diverse((features - model.mean) / model.scale, 1 - margins, most)
        rows, features = rows[chosen], features[chosen]
    answers = model.probabilities(features)
    return [
        _unlabelled_item(store, model, int(row), answer) for row, answer in zip(rows, answers, strict=True)
    ]


def _unlabelled(store: Store, settled: set[str]) -> NDArray[np.intp]:
    """Return the rows of the photos to choose from, each different photo once."""
    table = store.table
    rows = np.flatnonzero(~table.label.given())
    rows = rows[table.key.take(rows).first_rows()]
    return rows[~np.isin(table.key.take(rows).packed, Keys.of(settled).packed)]


def _margins(store: Store, model: Model, rows: NDArray[np.intp]) -> NDArray[np.float64]:
    """Return how far the model's answer is ahead of its next best, float64 (n,)."""
    found = np.empty(len(rows))
    for start in range(0, len(rows), _BLOCK):
        answers = model.probabilities(store.features(rows[start : start + _BLOCK]))
        best = np.sort(answers, axis=1)
        found[start : start + _BLOCK] = best[:, -1] - best[:, -2]
    return found


def _diverse(features: NDArray[np.float32], unsure: NDArray[np.float64], most: int) -> NDArray[np.intp]:
    """Return which photos to take, one of each cluster, in the order that they are in, intp (most,)."""
    from threadpoolctl import threadpool_limits

    with alone():
        from sklearn.cluster import KMeans
        from sklearn.exceptions import ConvergenceWarning

    with threadpool_limits(1), warnings.catch_warnings():  # sums of several threads differ in their last bits
        warnings.simplefilter("ignore", ConvergenceWarning)  # of fewer different photos than clusters
        clusters = KMeans(most, n_init=1, random_state=0).fit(features, sample_weight=unsure + 1e-6)
        distance = clusters.transform(features)
    own = np.where(clusters.labels_[:, None] == np.arange(most), distance, np.inf)
    chosen = dict.fromkeys(own.argmin(axis=0).tolist())
    # Clusters can be empty, as of equal photos: then the least certain of the others are taken.
    places = [*chosen, *(i for i in range(len(features)) if i not in chosen)]
    return np.array(sorted(places[:most]), dtype=np.intp)


def _unlabelled_item(store: Store, model: Model, row: int, answer: NDArray[np.float64]) -> Item:
    second, best = np.argsort(answer, kind="stable")[-2:]
    suggestion, probability = model.classes[best], float(answer[best])
    before = _likely(model.classes[second], float(answer[second]))
    reason = f"the model says {_likely(suggestion, probability)}, before {before}"
    key, path = store.table.key[row], store.table.path[row]
    return Item("unlabelled", key, path, "", reason, suggestion, probability, "train")

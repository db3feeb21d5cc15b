"""The tested photos as the report shows them: in cells, class by class, on a map, and as mistakes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from breeds.backbones.convert import is_prepared
from breeds.backbones.pipeline import KeyAndPhoto, Pipeline
from breeds.backbones.resolve import check_computable, open_network
from breeds.errors import BreedsError, PhotoError
from breeds.evaluation import Tested
from breeds.heads.explain import EXACT, Explanation, Neighbour, Neighbours, check_explainable, explanation_of
from breeds.heads.model import Model
from breeds.heads.scikit import alone
from breeds.photos import photo_at
from breeds.report.explanations import overlay
from breeds.report.photos import Album, Photos, Thumbnail, out_of
from breeds.report.render import percent
from breeds.started import command

#: Photos shown in all, and of a class in the table; a strip's photos are this wide, in pixels.
GALLERY, STRIP, STRIP_PIXELS = 480, 6, 64
#: More points than this the map does not take: laying them out would take longer than all the rest.
POINTS = 1000
SHADES, COLOURS, SHAPES = 5, 8, 3
#: More classes than this have no legend; their points tell their class one by one.
_LEGEND = 24
#: Fewer points than this are no map.
_LEAST = 4
_WIDTH, _HEIGHT, _MARGIN = 1000, 640, 24


class Gallery:
    """A model's answers, photo by photo, and which of them the page shows."""

    def __init__(self, tested: Tested) -> None:
        self.tested = tested
        self.answer = tested.probabilities.argmax(axis=1)
        self.confidence = tested.probabilities.max(axis=1)
        self.is_right = self.answer == tested.truth
        detector = tested.model.unknown
        self.is_refused = (
            np.zeros(len(self.answer), dtype=bool)
            if detector is None or tested.excess is None
            else tested.excess > detector.threshold
        )
        wrong = np.flatnonzero(~self.is_right)
        #: Places of the wrong answers, the most confident first.
        self.mistakes: list[int] = wrong[np.argsort(-self.confidence[wrong], kind="stable")].tolist()
        self.shown, self.more = self._pick()

    def row(self, i: int) -> int:
        """Return the row in the store of the photo in place `i`."""
        return int(self.tested.rows[i])

    def cell(self, i: int) -> tuple[int, int]:
        """Return the cell of the confusion matrix, truth and answer, that a photo is in."""
        return int(self.tested.truth[i]), int(self.answer[i])

    @cached_property
    def order(self) -> NDArray[np.intp]:
        """All places: first the mistakes, the surest before, then the right answers, the least sure before.

        These are the ones that people want to see.
        """
        return np.argsort(np.where(self.is_right, self.confidence, -self.confidence), kind="stable")

    def _pick(self) -> tuple[list[int], Counter[tuple[int, int]]]:
        """Choose the photos to show, a few of every cell before many of one; count those left out."""
        rank: Counter[tuple[int, int]] = Counter()
        ranked = []
        for i in self.order.tolist():
            ranked.append((rank[self.cell(i)], bool(self.is_right[i]), i))
            rank[self.cell(i)] += 1
        shown = [i for _, _, i in sorted(ranked)[:GALLERY]]
        return shown, rank - Counter(self.cell(i) for i in shown)

    def photo(self, album: Photos, i: int, longest: int = 0) -> dict[str, Any]:
        """Return what a template shows of the photo in place `i`."""
        classes, (truth, answer) = self.tested.model.classes, self.cell(i)
        called = "" if truth == answer else f", called {classes[answer]}"
        return album.photo(
            self.row(i),
            f"Photo of {classes[truth]}{called}",
            longest,
            number=i,
            truth=truth,
            answer=answer,
            truth_name=classes[truth],
            answer_name=classes[answer],
            truth_share=float(self.tested.probabilities[i, truth]),
            answer_share=float(self.tested.probabilities[i, answer]),
            is_right=truth == answer,
            is_refused=bool(self.is_refused[i]),
            corrected=self._corrected(i),
        )

    def _corrected(self, i: int) -> str:
        """Say what a correction has made of a photo's label, "" if nothing."""
        label = self.tested.corrected.labels.get(self.row(i)) if self.tested.corrected else None
        if label is None:
            return ""
        return f"Its label was corrected to {label}." if label else "A correction has left it out."

    def matrix(self, confusion: Sequence[Sequence[int]]) -> list[dict[str, Any]]:
        """Return the rows of the confusion matrix; a cell's shade is its share of its row, 0 to `SHADES`."""
        rows = []
        for truth, counts in enumerate(confusion):
            total = max(1, sum(counts))
            cells = [
                {
                    "column": answer,
                    "count": count,
                    "share": count / total,
                    "shade": -(-count * SHADES // total),
                    "more": self.more[truth, answer],
                }
                for answer, count in enumerate(counts)
            ]
            rows.append({"number": truth, "name": self.tested.model.classes[truth], "cells": cells})
        return rows

    def per_class(self, scores: dict[str, dict[str, float]], album: Photos) -> list[dict[str, Any]]:
        """Return the rows of the table of classes, each with a strip of its tested photos."""
        strips: dict[int, list[int]] = {number: [] for number in range(len(scores))}
        for i in self.shown:
            strip = strips[int(self.tested.truth[i])]
            if len(strip) < STRIP:
                strip.append(i)
        return [
            {"name": name, **scores[name], "strip": [self.photo(album, i, STRIP_PIXELS) for i in strips[n]]}
            for n, name in enumerate(scores)
        ]

    @cached_property
    def mapped(self) -> NDArray[np.intp]:
        """The places of the photos on the map: all, or else the mistakes and some others."""
        return np.sort(np.array([*self.mistakes, *np.flatnonzero(self.is_right)][:POINTS], dtype=np.intp))

    def plane(self) -> NDArray[np.float64]:
        """Lay the photos of the map out: x and y, float64 (n, 2); none where they are too few for a map."""
        if len(self.mapped) < _LEAST:
            return np.zeros((0, 2))
        return _laid_out(self.tested.features_of(self.mapped))

    def map(self, plane: NDArray[np.float64]) -> dict[str, Any]:
        """Return the photos as points of what `plane` returns, with a legend if that helps."""
        places, classes = self.mapped, self.tested.model.classes
        if len(places) < _LEAST:
            return {"missing": "A map needs four tested photos or more."}
        points = []
        for (x, y), i in zip(plane, places.tolist(), strict=True):
            truth, answer = self.cell(i)
            called = "" if truth == answer else f", called {classes[answer]}"
            mark = {"colour": truth % COLOURS, "shape": truth // COLOURS % SHAPES}
            where = {"x": round(float(x), 1), "y": round(float(y), 1), "number": i}
            key = self.tested.store.table.key[self.row(i)]
            text = f"{classes[truth]}{called} {percent(self.confidence[i])}"
            points.append(
                {**where, **mark, "key": key, "truth": truth, "is_wrong": truth != answer, "text": text}
            )
        legend = [
            {"number": n, "name": name, "colour": n % COLOURS, "shape": n // COLOURS % SHAPES}
            for n, name in enumerate(classes)
        ]
        total = len(self.answer)
        which = (
            f"All {total:,} tested photos"
            if len(places) == total
            else f"{len(places):,} of the {total:,} tested photos, all mistakes among them"
        )
        return {
            "missing": "",
            "note": f"{which}, laid out so that those with like features lie together (t-SNE); how far "
            f"apart others lie says little. Mistakes are ringed.",
            "points": sorted(points, key=lambda point: point["is_wrong"]),  # the mistakes on top
            "legend": legend if len(legend) <= _LEGEND else [],
        }


def _laid_out(features: NDArray[np.float32]) -> NDArray[np.float64]:
    """Lay photos out in a plane: t-SNE (van der Maaten and Hinton, 2008) on 50 principal components.

    Returns
    -------
    numpy.ndarray
        x and y, float64 (n, 2), within the map.
    """
    from threadpoolctl import threadpool_limits

    with alone():
        from sklearn.decomposition import PCA
        from sklearn.manifold import TSNE

    n = len(features)
    # Several threads wait for each other here, and take up to thirty times as long where others compute.
    with threadpool_limits(1):
        leading = PCA(min(50, n - 1), svd_solver="randomized", random_state=0).fit_transform(features)
        if not leading.std() > 0:  # all photos alike
            plane = np.zeros((n, 2))
        else:
            layout = TSNE(2, init="pca", perplexity=min(30, (n - 1) / 3), max_iter=500, random_state=0)
            plane = layout.fit_transform(leading).astype(np.float64)
    span = np.maximum(np.ptp(plane, axis=0), 1e-9)
    room = np.array([_WIDTH, _HEIGHT]) - 2 * _MARGIN
    return np.asarray(_MARGIN + (plane - plane.min(axis=0)) / span * room)


#: How many mistakes are shown, and for how many the network is run again to see where it looked.
MISTAKES, EXPLAINED = 24, 12


@dataclass(frozen=True)
class Looked:
    """Where the network looked at photos.

    Attributes
    ----------
    shown
        By the photo's place, the pictures as a template shows them.
    kind
        How exact they are, as `breeds.heads.explain.Explanation` says.
    missing
        Why there are none.
    """

    shown: dict[int, list[dict[str, Any]]] = field(default_factory=dict)
    kind: str = EXACT
    missing: str = ""


@dataclass(frozen=True)
class Mistakes:
    """The most confident mistakes, with the training photos nearest to each."""

    gallery: Gallery
    places: list[int]
    nearest: list[list[Neighbour]]
    row_of: dict[str, int]

    @staticmethod
    def of(gallery: Gallery) -> Mistakes:
        """Gather the most confident mistakes."""
        tested, places = gallery.tested, gallery.mistakes[:MISTAKES]
        if not places:
            return Mistakes(gallery, [], [], {})
        table = tested.store.table
        nearest = Neighbours(tested.store, tested.model.seen_keys()).nearest(tested.features_of(places))
        wanted = {near.key for found in nearest for near in found}
        row_of = {key: row for row, key in enumerate(table.key) if key in wanted}
        return Mistakes(gallery, places, nearest, row_of)

    @property
    def rows(self) -> list[int]:
        """The rows of all photos that are shown."""
        return [*map(self.gallery.row, self.places), *self.row_of.values()]

    def note(self, looked: Looked) -> str:
        """Say how many there are, and what stands beside them."""
        parts = [f"{out_of(len(self.places), len(self.gallery.mistakes), 'mistakes')}."]
        if looked.shown:
            how = (
                "class activation maps, exact for this head"
                if looked.kind == EXACT
                else "the gradient at the pooled features, near for this head"
            )
            parts.append(f"Warm parts speak for a name, cool ones against it ({how}).")
        parts.append("Beside it, the training photos most like it.")
        return " ".join([*parts, looked.missing]).strip()

    def shown(self, album: Photos, looked: Looked, doubted: set[str]) -> list[dict[str, Any]]:
        """Return what the template shows of each mistake; `doubted` are paths of photos with odd labels."""
        table = self.gallery.tested.store.table
        return [
            {
                "photo": self.gallery.photo(album, i),
                "doubted": table.path[self.gallery.row(i)] in doubted,
                "looked": looked.shown.get(i, []),
                "nearest": [
                    album.photo(
                        self.row_of[near.key],
                        f"Training photo of {near.label}",
                        caption=f"{near.label}, similarity {near.similarity:.2f}",
                    )
                    for near in nearest
                ],
            }
            for i, nearest in zip(self.places, self.nearest, strict=True)
        ]


def explain(
    model: Model, photos: Iterable[KeyAndPhoto], weights: str | None = None, engine: str = "auto"
) -> Iterator[Explanation | PhotoError]:
    """Say of every photo which parts of it speak for which class, or why not; in order, one at a time.

    Raises
    ------
    BreedsError
        If the model rests on several stores, its network normalises after the average, or its weights
        are not there.
    """
    check_explainable(model)
    check_computable(model.config)
    opener = partial(open_network, model, model.parts[0], weights, engine, maps=True)
    with Pipeline(opener, 2) as pipeline:
        for _, found in pipeline.maps(photos, model.config):
            yield found if isinstance(found, PhotoError) else explanation_of(model, *found)


def look_again(mistakes: Mistakes, album: Album) -> Looked:
    """Run the network again over the first mistakes, whose thumbnails are there, to see where it looked."""
    gallery, places = mistakes.gallery, mistakes.places[:EXPLAINED]
    model, table = gallery.tested.model, gallery.tested.store.table
    if not places:
        return Looked()
    try:
        check_explainable(model)
        if not is_prepared(model.config):
            raise BreedsError(
                "Where the network looked is not shown, as the network has not been prepared on this "
                f"machine: {command('predict')} does that, the first time it computes a photo."
            )
        rows = map(gallery.row, places)
        found = list(
            explain(model, [(table.key[row], photo_at(table.root, table.path[row])) for row in rows])
        )
    except BreedsError as error:
        return Looked(missing=str(error))
    good = [(i, one) for i, one in zip(places, found, strict=True) if isinstance(one, Explanation)]
    kind = good[0][1].kind if good else EXACT
    laid = {i: _pictures(gallery, album, i, one) for i, one in good}
    return Looked({i: pictures for i, pictures in laid.items() if pictures}, kind)


def views(gallery: Gallery, i: int) -> list[dict[str, str]]:
    """Return the words of a template on where the network looked at a mistake, of two pictures.

    The first is of what speaks for the answer; the second, of that for it rather than the truth.
    """
    truth, answer = (gallery.tested.model.classes[number] for number in gallery.cell(i))
    return [
        {
            "missing": "",
            "name": "",
            "alt": f"The same photo; warm where it speaks {text}",
            "caption": f"speaks {text}",
        }
        for text in (f"for {answer}", f"for it rather than {truth}")
    ]


def _pictures(gallery: Gallery, album: Album, i: int, found: Explanation) -> list[dict[str, Any]]:
    """Lay over a mistake's thumbnail what speaks for the answer; nothing where there is no thumbnail."""
    config, small = gallery.tested.model.config, album.thumbnail(gallery.row(i))
    if isinstance(small, PhotoError):
        return []
    truth, answer = gallery.cell(i)
    made = []
    for other, words in zip((None, truth), views(gallery, i), strict=True):
        laid = overlay(small.pixels(), found.speaks_for(answer, other), config.resize, size=config.size)
        made.append({"thumbnail": Thumbnail.of(laid), **words})
    return made

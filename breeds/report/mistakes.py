"""The mistakes that the report shows, with what explains them: the nearest photos, and where it looked."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from breeds.backbones.convert import is_prepared
from breeds.errors import BreedsError
from breeds.heads.explain import EXACT, Explanation, check_explainable, explain
from breeds.heads.neighbours import Neighbour, Neighbours
from breeds.photos import photo_at, picture, read
from breeds.report.album import Album, Photos, out_of
from breeds.report.explanations import overlay
from breeds.report.gallery import Gallery
from breeds.report.thumbs import LONGEST, Thumbnail
from breeds.started import command

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


def look_again(mistakes: Mistakes, album: Album) -> Looked:
    """Run the network again over the first mistakes to see where it looked."""
    gallery, places = mistakes.gallery, mistakes.places[:EXPLAINED]
    model, key = gallery.tested.model, gallery.tested.store.table.key
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
        found = list(explain(model, [(key[row], photo_at("", album.file(row))) for row in rows]))
    except BreedsError as error:
        return Looked(missing=str(error))
    good = [(i, one) for i, one in zip(places, found, strict=True) if isinstance(one, Explanation)]
    kind = good[0][1].kind if good else EXACT
    return Looked({i: _pictures(gallery, album, i, one) for i, one in good}, kind)


def views(gallery: Gallery, i: int) -> list[tuple[bool, dict[str, str]]]:
    """Return which pictures show where the network looked at a mistake, in the words of a template.

    The first is what speaks for the answer; the second, marked True, for it rather than the truth.
    """
    truth, answer = (gallery.tested.model.classes[number] for number in gallery.cell(i))
    return [
        (
            rather,
            {
                "missing": "",
                "name": "",
                "alt": f"The same photo; warm where it speaks {text}",
                "caption": f"speaks {text}",
            },
        )
        for rather, text in ((False, f"for {answer}"), (True, f"for it rather than {truth}"))
    ]


def _pictures(gallery: Gallery, album: Album, i: int, found: Explanation) -> list[dict[str, Any]]:
    model = gallery.tested.model
    pixels = np.asarray(picture(read(album.file(gallery.row(i))), LONGEST))
    truth, answer = gallery.cell(i)
    shown = []
    for rather, words in views(gallery, i):
        cells = found.speaks_for(answer, truth if rather else None)
        shown.append(
            {
                "thumbnail": Thumbnail.of(
                    overlay(pixels, cells, model.config.resize, size=model.config.size)
                ),
                **words,
            }
        )
    return shown

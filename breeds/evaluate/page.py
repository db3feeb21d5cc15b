"""The report as a page: numbers, confusion, photos, mistakes, doubtful labels, charts and a map."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from breeds.engines.convert import is_prepared
from breeds.errors import BreedsError
from breeds.evaluate import Tested
from breeds.evaluate.album import Album
from breeds.evaluate.doubts import Doubt, NearDuplicate, find_doubts, find_near_duplicates
from breeds.evaluate.figures import draw_charts
from breeds.evaluate.gallery import Gallery
from breeds.evaluate.terminal import FEW, touched
from breeds.heads.explain import EXACT, Explanation, check_explainable, explain
from breeds.heads.neighbours import Neighbour, Neighbours
from breeds.heads.record import KEPT
from breeds.pages.overlay import overlay
from breeds.pages.render import percent, write_page
from breeds.pages.thumbs import LONGEST, Thumbnail
from breeds.photos import picture, read
from breeds.store import Store
from breeds.store.corrections import corrections_path

#: How many are shown of each list, and for how many mistakes the network is run again to see where it looked.
MISTAKES, EXPLAINED, DOUBTS, PAIRS = 24, 12, 24, 12


def write_report(
    numbers: dict[str, Any],
    tested: Tested,
    path: Path,
    found: tuple[list[Doubt], list[NearDuplicate]] | None = None,
) -> int:
    """Write the report of a model as a page that opens from disk, whole or not at all.

    What cannot be shown (photos that are gone, a network that is not here, too few photos) is said in
    its place.

    Parameters
    ----------
    numbers
        What `breeds.evaluate.measure` has found, and ``model``, the path of the model.
    tested
        The answers that they are about.
    path
        The page to write.
    found
        The doubtful labels and near duplicates, if they have been looked for already.

    Returns
    -------
    int
        The page's size in bytes.

    Raises
    ------
    BreedsError
        If it cannot be written, or the store is damaged.
    """
    gallery, album = Gallery(tested), Album(tested.store, path)
    labels, mistakes = Labels.of(tested.store, found), Mistakes.of(gallery, album)
    album.fetch([*map(gallery.row, gallery.shown), *labels.rows, *mistakes.rows])
    drawn, missing = draw_charts(numbers, tested)
    return write_page(
        "report.html",
        path,
        "report.js",
        n=numbers,
        name=Path(numbers["model"]).stem,
        right=int(gallery.is_right.sum()),
        total=len(tested.truth),
        root=tested.store.table.root,
        split=_split(tested),
        head=_head(tested),
        caveats=_caveats(numbers, tested, labels),
        touched=touched(numbers["corrected"]) if numbers["corrected"] else "",
        matrix=gallery.matrix(numbers["confusion"]),
        gallery=[gallery.photo(album, i) for i in gallery.shown],
        gallery_note=_of(len(gallery.shown), len(tested.truth), "tested photos"),
        per_class=gallery.per_class(numbers["per_class"], album),
        mistakes=mistakes.shown(album, labels),
        mistakes_note=mistakes.note(),
        **labels.shown(album),
        charts=drawn,
        charts_missing=missing,
        **gallery.map(),
        facts=_facts(tested),
        commands=_commands(tested, numbers["model"]),
        versions=numbers["versions"].items(),
    )


@dataclass(frozen=True)
class Labels:
    """The labels of a store that are worth a second look, with the rows of their photos."""

    doubts: list[Doubt] = field(default_factory=list)
    pairs: list[NearDuplicate] = field(default_factory=list)
    row_of: dict[str, int] = field(default_factory=dict)
    missing: str = ""

    @staticmethod
    def of(store: Store, found: tuple[list[Doubt], list[NearDuplicate]] | None = None) -> Labels:
        """Look for doubtful labels and near duplicates; where photos are too few, say so."""
        try:
            doubts, pairs = found or (find_doubts(store), find_near_duplicates(store))
        except BreedsError as error:
            return Labels(missing=f"Doubtful labels cannot be looked for: {error}")
        wanted = {doubt.path for doubt in doubts} | {
            path for pair in pairs for path in (pair.path, pair.other_path)
        }
        row_of = {path: row for row, path in enumerate(store.table.path) if path in wanted}
        return Labels(doubts, pairs, row_of)

    @property
    def rows(self) -> list[int]:
        """The rows of the photos that are shown."""
        paths = [doubt.path for doubt in self.doubts[:DOUBTS]]
        paths += [path for pair in self.pairs[:PAIRS] for path in (pair.path, pair.other_path)]
        return [self.row_of[path] for path in paths]

    def shown(self, album: Album) -> dict[str, Any]:
        """Return what the template shows of them."""
        return {
            "labels_missing": self.missing,
            "doubts": [self._doubt(album, doubt) for doubt in self.doubts[:DOUBTS]],
            "doubts_note": self._doubts_note(),
            "pairs": [self._pair(album, pair) for pair in self.pairs[:PAIRS]],
            "pairs_note": _of(min(PAIRS, len(self.pairs)), len(self.pairs), "pairs")
            if self.pairs
            else "No two photos of different classes are.",
        }

    def _doubts_note(self) -> str:
        if not self.doubts:
            return (
                "Every photo, those for training too, was judged by a head trained without it; none "
                "contradicts its label."
            )
        shown = _of(min(DOUBTS, len(self.doubts)), len(self.doubts), "photos")
        return (
            f"{shown}, the most doubtful first. Each was judged by a head trained without it, which gives "
            f"its label less than 5 %. Look, and decide: some are wrong labels, some only odd photos."
        )

    def _doubt(self, album: Album, doubt: Doubt) -> dict[str, Any]:
        return album.photo(
            self.row_of[doubt.path],
            f"Photo labelled {doubt.label}",
            label=doubt.label,
            label_share=doubt.label_probability,
            suggestion=doubt.suggestion,
            suggestion_share=doubt.suggestion_probability,
        )

    def _pair(self, album: Album, pair: NearDuplicate) -> dict[str, Any]:
        photos = ((pair.path, pair.label), (pair.other_path, pair.other_label))
        return {
            "similarity": pair.similarity,
            "photos": [
                album.photo(self.row_of[path], f"Photo labelled {label}", label=label)
                for path, label in photos
            ],
        }


@dataclass(frozen=True)
class Mistakes:
    """The mistakes that are shown, with what explains them: nearest training photos, and where it looked."""

    gallery: Gallery
    places: list[int]
    nearest: list[list[Neighbour]]
    row_of: dict[str, int]
    explanations: list[Explanation | Exception]
    unexplained: str = ""

    @staticmethod
    def of(gallery: Gallery, album: Album) -> Mistakes:
        """Gather what explains the most confident mistakes."""
        tested, places = gallery.tested, gallery.mistakes[:MISTAKES]
        if not places:
            return Mistakes(gallery, [], [], {}, [])
        store, model = tested.store, tested.model
        nearest = Neighbours(store, model.seen_keys()).nearest(tested.features[places])
        wanted = {near.key for found in nearest for near in found}
        row_of = {key: row for row, key in enumerate(store.table.key) if key in wanted}
        try:
            check_explainable(model)
            if not is_prepared(model.recipe):
                raise BreedsError(
                    "Where the network looked is not shown, as the network has not been prepared on this "
                    "machine: predict.py does that, the first time it computes a photo."
                )
            rows = map(gallery.row, places[:EXPLAINED])
            explanations = list(explain(model, [(store.table.key[row], album.file(row)) for row in rows]))
        except BreedsError as error:
            return Mistakes(gallery, places, nearest, row_of, [], str(error))
        return Mistakes(gallery, places, nearest, row_of, [*explanations])

    @property
    def rows(self) -> list[int]:
        """The rows of all photos that are shown."""
        return [*map(self.gallery.row, self.places), *self.row_of.values()]

    def note(self) -> str:
        """Say how many there are, and what stands beside them."""
        total = len(self.gallery.mistakes)
        parts = [f"{_of(len(self.places), total, 'mistakes')}."]
        if any(isinstance(found, Explanation) for found in self.explanations):
            kind = next(found.kind for found in self.explanations if isinstance(found, Explanation))
            how = (
                "class activation maps, exact for this head"
                if kind == EXACT
                else "the gradient at the pooled features, near for this head"
            )
            parts.append(f"Warm parts speak for a name, cool ones against it ({how}).")
        parts.append("Beside it, the training photos most like it.")
        return " ".join([*parts, self.unexplained]).strip()

    def shown(self, album: Album, labels: Labels) -> list[dict[str, Any]]:
        """Return what the template shows of each mistake."""
        found = []
        for number, i in enumerate(self.places):
            row = self.gallery.row(i)
            explanation = self.explanations[number] if number < len(self.explanations) else None
            found.append(
                {
                    "photo": self.gallery.photo(album, i),
                    "doubted": self.gallery.tested.store.table.path[row] in labels.row_of,
                    "looked": self._looked(album, i, explanation),
                    "nearest": [
                        album.photo(
                            self.row_of[near.key],
                            f"Training photo of {near.label}",
                            caption=f"{near.label}, similarity {near.similarity:.2f}",
                        )
                        for near in self.nearest[number]
                    ],
                }
            )
        return found

    def _looked(self, album: Album, i: int, found: Explanation | Exception | None) -> list[dict[str, Any]]:
        if not isinstance(found, Explanation):
            return []
        model, (truth, answer) = self.gallery.tested.model, self.gallery.cell(i)
        names = model.classes
        pixels = np.asarray(picture(read(album.file(self.gallery.row(i))), LONGEST))
        views = [
            (found.speaks_for(answer), f"for {names[answer]}"),
            (found.speaks_for(answer, truth), f"for it rather than {names[truth]}"),
        ]
        return [
            {
                "thumbnail": Thumbnail.of(overlay(pixels, cells, model.recipe.resize)),
                "missing": "",
                "name": "",
                "alt": f"The same photo; warm where it speaks {text}",
                "caption": f"speaks {text}",
            }
            for cells, text in views
        ]


def _of(shown: int, total: int, things: str) -> str:
    """Say how many are shown, and how many more there are."""
    more = f"; {total - shown:,} more are not shown" if total > shown else ""
    things = things.removesuffix("s") if total == 1 else things
    return f"{total:,} {things}{more}"


def _split(tested: Tested) -> str:
    if any(tested.store.table.split):
        return "named by the data"
    return f"by the photos' content, a fifth for testing (seed {tested.model.record.get('seed', 0)})"


def _head(tested: Tested) -> str:
    model, record = tested.model, tested.model.record
    if model.kind != "logistic":
        return f"dense, two layers, stopped after epoch {record.get('best_epoch', '?')}"
    chosen = record.get("C_chosen_by", "")
    return f"logistic regression, C {record.get('C', 0):.3g} ({chosen}), temperature {model.temperature:.3g}"


def _caveats(numbers: dict[str, Any], tested: Tested, labels: Labels) -> list[str]:
    """Say why these numbers may flatter or mislead."""
    found = [numbers["caveat"]]
    few = [name for name, scores in numbers["per_class"].items() if scores["support"] < FEW]
    if few:
        names = ", ".join(few[:5]) + (f" and {len(few) - 5} more" if len(few) > 5 else "")
        found.append(f"Fewer than {FEW} photos were tested of {names}: little is known of these classes.")
    if labels.doubts:
        found.append(
            f"{_of(len(labels.doubts), len(labels.doubts), 'labels')} "
            f"{'is' if len(labels.doubts) == 1 else 'are'} doubtful, and every number here takes labels for "
            f"true: see Labels."
        )
    if len(tested.model.parts) > 1:
        found.append(f"The model rests on {len(tested.model.parts)} networks beside each other.")
    return found


def _facts(tested: Tested) -> list[tuple[str, str]]:
    recipes = [(f"Recipe{f' {n}' if n else ''}", str(part)) for n, (part, _) in enumerate(tested.model.parts)]
    record, store = tested.model.record, tested.store
    own = record.get("train_accuracy")
    corrections = store.corrections.effect(store.table).sentences()
    own = "" if own is None else f"; {percent(own)} of its own photos right"
    return [
        *recipes,
        ("Store", f"{store.path}, {len(store.table):,} photos, made {store.created}"),
        ("Engine", store.engine),
        *([("Corrections", "; ".join(corrections))] if corrections else []),
        ("Set aside", f"{len(store.table.quarantine)} photos that could not be used"),
        ("Training", f"{record.get('seconds', '?')} s{own}"),
    ]


def _trained_with_corrections(record: dict[str, Any]) -> bool:
    return bool(record.get("corrections", {}).get("applied"))


def _commands(tested: Tested, model_path: str) -> str:
    """Return the commands that do all of it again, as far as the record tells."""
    model, record, lines = tested.model, tested.model.record, []
    stores = [tested.store, *tested.store.also]
    for store in stores:
        recipe = store.recipe
        options = [store.table.root, "--store", str(store.path)]
        options += ["--weights", store.table.weights_path or recipe.weights, "--backbone", recipe.backbone]
        options += ["--size", str(recipe.size), "--resize", recipe.resize]
        options += [
            "--precision",
            recipe.precision.replace("mixed_bfloat16", "bf16").replace("mixed_float16", "fp16"),
        ]
        lines.append(["extract_features.py", *options])
    train = ["train_head.py", "--store", *(str(store.path) for store in stores), "--model", model_path]
    train += ["--head", model.kind, "--seed", str(record.get("seed", 0))]
    if str(record.get("C_chosen_by", "")).endswith(("you", KEPT)):
        train += ["--C", str(record["C"])]
    train += ["--balanced"] if record.get("balanced") else []
    train += ["--views"] if record.get("views") else []
    evaluate = ["evaluate.py", "--model", model_path]
    if corrections_path(tested.store.path).is_file():
        train += [] if _trained_with_corrections(record) else ["--no-corrections"]
        evaluate += [] if tested.store.corrections else ["--no-corrections"]
    lines += [train, evaluate]
    return "\n".join(f"python {shlex.join(line)}" for line in lines)

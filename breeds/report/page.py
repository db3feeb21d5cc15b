"""The report as a page: numbers, confusion, photos, mistakes, doubtful labels, charts and a map."""

from __future__ import annotations

import shlex
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from breeds.errors import BreedsError
from breeds.evaluation import Tested
from breeds.features import Store
from breeds.features.corrections import corrections_path
from breeds.heads.kinds import KEPT, KINDS
from breeds.heads.label_issues import Doubt, NearDuplicate, find_doubts, find_near_duplicates
from breeds.metrics import FEW
from breeds.report.charts import draw_charts
from breeds.report.gallery import Gallery, Looked, Mistakes, look_again
from breeds.report.photos import Album, Photos, out_of
from breeds.report.render import percent, write_page
from breeds.report.terminal import touched
from breeds.started import command

T = TypeVar("T")
#: How many are shown of each list.
DOUBTS, PAIRS = 24, 12


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
        What `breeds.evaluation.measure` has found, and ``model``, the path of the model.
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
    report = Report(numbers, tested, Once(lambda: Labels.of(tested.store, found)))
    gallery, table = report.gallery, tested.store.table
    album = Album(table.root, table.path, table.key, path)
    labels = report.labels()
    album.fetch([*map(gallery.row, gallery.shown), *labels.rows, *report.mistakes.rows])
    looked = look_again(report.mistakes, album)
    shown = [gallery.photo(album, i) for i in gallery.shown]
    return write_page("report.html", path, "report.js", gallery=shown, **report.values(album, looked))


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

    def shown(self, album: Photos) -> dict[str, Any]:
        """Return what the template shows of them."""

        def photo(path: str, label: str, **more: Any) -> dict[str, Any]:
            return album.photo(self.row_of[path], f"Photo labelled {label}", label=label, **more)

        pairs = self.pairs[:PAIRS]
        return {
            "missing": self.missing,
            "doubts": [photo(doubt.path, doubt.label, doubt=doubt) for doubt in self.doubts[:DOUBTS]],
            "doubts_note": self._doubts_note(),
            "pairs": [
                (pair, [photo(pair.path, pair.label), photo(pair.other_path, pair.other_label)])
                for pair in pairs
            ],
            "pairs_note": out_of(len(pairs), len(self.pairs), "pairs")
            if pairs
            else "No two photos of different classes are.",
        }

    def _doubts_note(self) -> str:
        if not self.doubts:
            return (
                "Every photo, those for training too, was judged by a head trained without it; none "
                "contradicts its label."
            )
        shown = out_of(min(DOUBTS, len(self.doubts)), len(self.doubts), "photos")
        return (
            f"{shown}, the most doubtful first. Each was judged by a head trained without it, which gives "
            f"its label less than 5 %. Look, and decide: some are wrong labels, some only odd photos."
        )


class Once(Generic[T]):
    """What is worked out when it is first asked for, once, whichever thread asks.

    Parameters
    ----------
    work
        Works it out.
    keep
        Says of what was found whether it is to be kept; else it is worked out again.
    """

    def __init__(self, work: Callable[[], T], keep: Callable[[T], bool] = lambda _: True) -> None:
        self._work: Callable[[], T] | None = work
        self._keep, self._lock = keep, threading.Lock()
        self._found: list[T] = []

    def __call__(self) -> T:
        """Return it, however long that takes."""
        with self._lock:
            if self._work is None:
                return self._found[0]
            found = self._work()
            if self._keep(found):
                self._found.append(found)
                self._work = None  # and whatever it holds
            return found

    @property
    def known(self) -> T | None:
        """What it is, or None if nobody has asked."""
        return self._found[0] if self._found else None


class Report:
    """What a report shows, wherever it is shown.

    Attributes
    ----------
    labels, plane, charts
        What takes long, worked out when it is first asked for: `Labels`, `Gallery.plane`, and `_charts`.

    Parameters
    ----------
    numbers, tested
        As `write_report` takes them.
    labels, plane
        These, if they are worked out elsewhere.

    Raises
    ------
    BreedsError
        If the store is damaged.
    """

    def __init__(
        self,
        numbers: dict[str, Any],
        tested: Tested,
        labels: Once[Labels] | None = None,
        plane: Once[NDArray[np.float64]] | None = None,
    ) -> None:
        self.numbers, self.tested = numbers, tested
        self.gallery = Gallery(tested)
        self.mistakes = Mistakes.of(self.gallery)
        self.labels = labels or Once(lambda: Labels.of(tested.store), lambda found: not found.missing)
        self.plane = plane or Once(self.gallery.plane)
        self.charts = Once(lambda: _charts(numbers, tested))

    def values(
        self,
        album: Photos,
        looked: Looked,
        address: Callable[..., str] | None = None,
        review: Callable[[str], str] | None = None,
    ) -> dict[str, Any]:
        """Return what the template shows; it calls for what takes long where it shows it.

        Parameters
        ----------
        album
            Shows the photos.
        looked
            Where the network looked at the mistakes.
        address
            Of a page that shows some of the photos, which its arguments name (``truth``, ``answer``,
            ``only``, ``photo``); None for a page that shows them itself.
        review
            Of the page where a photo's label is judged, by its key, if there is an `address`.
        """
        numbers, tested, gallery = self.numbers, self.tested, self.gallery
        labels = self.labels.known
        return {
            "address": address,
            "review": review,
            "n": numbers,
            "name": Path(numbers["model"]).stem,
            "right": int(gallery.is_right.sum()),
            "total": len(tested.truth),
            "refused": int(gallery.is_refused.sum()),
            "root": tested.store.table.root,
            "split": _split(tested),
            "head": _head(tested),
            "caveats": _caveats(numbers, tested, labels or Labels()),
            "touched": touched(numbers["corrected"]) if numbers["corrected"] else "",
            "matrix": gallery.matrix(numbers["confusion"]),
            "gallery_note": out_of(len(gallery.shown), len(tested.truth), "tested photos"),
            "per_class": gallery.per_class(numbers["per_class"], album),
            "mistakes": self.mistakes.shown(album, looked, set(labels.row_of) if labels else set()),
            "mistakes_note": self.mistakes.note(looked),
            "labels": lambda: self.labels().shown(album),
            "charts": self.charts,
            "map": lambda: gallery.map(self.plane()),
            "facts": _facts(tested),
            "commands": _commands(tested, numbers["model"]),
            "versions": numbers["versions"].items(),
        }


def _charts(numbers: dict[str, Any], tested: Tested) -> dict[str, Any]:
    """Draw the charts, and say why some are missing."""
    drawn, missing = draw_charts(numbers, tested)
    shown = [{"title": chart.title, "svg": chart.svg(), "words": chart.words} for chart in drawn]
    return {"shown": shown, "missing": missing}


def _split(tested: Tested) -> str:
    if any(tested.store.table.split):
        return "named by the data"
    return f"by the photos' content, a fifth for testing (seed {tested.model.record.get('seed', 0)})"


def _head(tested: Tested) -> str:
    model, record = tested.model, tested.model.record
    how = f", C {record['C']:.3g} ({record.get('C_chosen_by', '')})" if "C" in record else ""
    how += f", stopped after epoch {record['best_epoch']}" if "best_epoch" in record else ""
    return f"{KINDS[model.kind].title}{how}, temperature {model.temperature:.3g}"


def _caveats(numbers: dict[str, Any], tested: Tested, labels: Labels) -> list[str]:
    """Say why these numbers may flatter or mislead."""
    found = [numbers["caveat"]]
    few = [name for name, scores in numbers["per_class"].items() if scores["support"] < FEW]
    if few:
        names = ", ".join(few[:5]) + (f" and {len(few) - 5} more" if len(few) > 5 else "")
        found.append(f"Fewer than {FEW} photos were tested of {names}: little is known of these classes.")
    if labels.doubts:
        found.append(
            f"{out_of(len(labels.doubts), len(labels.doubts), 'labels')} "
            f"{'is' if len(labels.doubts) == 1 else 'are'} doubtful, and every number here takes labels for "
            f"true: see Labels."
        )
    if len(tested.model.parts) > 1:
        found.append(f"The model rests on {len(tested.model.parts)} networks beside each other.")
    return found


def _facts(tested: Tested) -> list[tuple[str, str]]:
    configs = [(f"Config{f' {n}' if n else ''}", str(part)) for n, (part, _) in enumerate(tested.model.parts)]
    record, store = tested.model.record, tested.store
    corrections = store.corrections.effect(store.table).sentences()
    own = record.get("train_accuracy")
    own = "" if own is None else f"; {percent(own)} of its own photos right"
    return [
        *configs,
        ("Store", f"{store.path}, {len(store.table):,} photos, made {store.created}"),
        ("Engine", store.engine),
        *([("Corrections", "; ".join(corrections))] if corrections else []),
        ("Set aside", f"{len(store.table.rejected)} photos that could not be used"),
        ("Training", f"{record.get('seconds', '?')} s{own}"),
    ]


def _commands(tested: Tested, model_path: str) -> str:
    """Return the commands that do all of it again, as far as the record tells."""
    model, record, lines = tested.model, tested.model.record, []
    stores = [tested.store, *tested.store.also]
    for store in stores:
        config = store.config
        options = [store.table.root, "--store", str(store.path)]
        weights = store.table.weights_path or config.weights
        if config.preprocessing is None:
            options += ["--weights", weights, "--backbone", config.backbone]
        else:
            options += ["--backbone", weights]
        options += ["--size", str(config.size), "--resize", config.resize, "--precision", config.precision]
        lines.append(("extract", options))
    train = ["--store", *(str(store.path) for store in stores), "--model", model_path]
    train += ["--head", model.kind, "--seed", str(record.get("seed", 0))]
    if str(record.get("C_chosen_by", "")).endswith(("you", KEPT)):
        train += ["--C", str(record["C"])]
    train += ["--balanced"] if record.get("balanced") else []
    train += ["--views"] if record.get("views") else []
    evaluate = ["--model", model_path]
    if corrections_path(tested.store.path).is_file():
        train += [] if record.get("corrections", {}).get("applied") else ["--no-corrections"]
        evaluate += [] if tested.store.corrections else ["--no-corrections"]
    lines += [("train", train), ("evaluate", evaluate)]
    return "\n".join(f"{command(name)} {shlex.join(options)}" for name, options in lines)

"""The report on the model in use, worked out once for all who look, and photos as its pages show them."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from breeds.app.chosen import write_query
from breeds.app.workshop import Workshop
from breeds.errors import BreedsError, PhotoError
from breeds.evaluation import answer_test_photos, measure
from breeds.features import Store
from breeds.heads.explain import EXACT, GRADIENT, check_explainable
from breeds.heads.model import Model
from breeds.photos import key_of, read
from breeds.report.gallery import Gallery, Looked, views
from breeds.report.page import Report
from breeds.report.photos import Served


class Shelf:
    """The photos of a store as pages show them that are served: each by its own address.

    Parameters
    ----------
    store
        Whose photos.
    """

    def __init__(self, store: Store) -> None:
        self._table = store.table
        self._looked_at: dict[int, tuple[tuple[int, int], str]] = {}

    def photo(self, row: int, alt: str, longest: int = 0, **more: Any) -> dict[str, Any]:
        """Return what a template needs of a photo, as `breeds.report.photos.Photos` says."""
        key, missing = self._table.key[row], self.missing(row)
        return {
            "key": key,
            "name": self._table.path[row],
            "href": f"/photo/{key}",
            "thumbnail": None if missing else Served(f"/thumb/{key}"),
            "missing": missing,
            "alt": alt,
            **more,
        }

    def missing(self, row: int) -> str:
        """Say why a photo cannot be shown, "" if it can: its file has the bytes that its key says.

        A file of the same size and time as at extraction is taken for the same; another is read.
        """
        path = os.path.join(self._table.root, self._table.path[row])
        try:
            found = os.stat(path)
        except (OSError, ValueError):
            found = None
        state = (found.st_size, found.st_mtime_ns) if found else (0, 0)
        if state == (int(self._table.size[row]), int(self._table.mtime_ns[row])):
            return ""
        if found is None or self._looked_at.get(row, ((), ""))[0] != state:
            self._looked_at[row] = state, _changed(path, self._table.key[row])
        return self._looked_at[row][1]


def _changed(path: str, key: str) -> str:
    try:
        return "" if key_of(read(path)) == key else "changed since its features were computed"
    except PhotoError as error:
        return str(error)


@dataclass(frozen=True)
class View:
    """A report, and what it is about.

    Attributes
    ----------
    store
        With the corrections of its labels.
    made
        When it was made.
    """

    report: Report
    model: Model
    store: Store
    shelf: Shelf
    made: str = field(default_factory=lambda: time.strftime("%Y-%m-%d %H:%M"))

    def is_labelled_as(self, store: Store) -> bool:
        """Say whether this is about these photos, with these corrections."""
        return self.store.table is store.table and self.store.corrections is store.corrections

    @property
    def gone(self) -> str:
        """Say so if the folder of the photos is not there any more, else ""."""
        root = self.store.table.root
        if os.path.isdir(root):
            return ""
        return (
            f"The photos are not in {root} any more, so none is shown. Put them back, or extract again from "
            f"where they are, which computes nothing, and start again."
        )

    def looked(self, failure: str) -> Looked:
        """Return where the network looked at the mistakes: pictures that are made when they are asked for.

        Parameters
        ----------
        failure
            Why nothing can be computed, "" if it can.
        """
        missing = failure or self.unexplained
        if missing:
            return Looked(missing=missing)
        pictures = {i: self.pictures(i) for i in self.report.mistakes.places}
        return Looked(pictures, EXACT if len(self.model.layers) == 1 else GRADIENT)

    def pictures(self, i: int) -> list[dict[str, Any]]:
        """Return where the network looked at the photo in place `i`, as a template shows it."""
        gallery = self.report.gallery
        row, (truth, answer) = gallery.row(i), gallery.cell(i)
        if self.shelf.missing(row):
            return []
        sources = [self.looked_address(row, answer)]
        sources += [self.looked_address(row, answer, truth)] if truth != answer else []
        return [
            {"thumbnail": Served(source), **words}
            for source, (_, words) in zip(sources, views(gallery, i), strict=False)
        ]

    @property
    def unexplained(self) -> str:
        """Say why where the network looked cannot be shown, "" if it can."""
        try:
            check_explainable(self.model)
        except BreedsError as error:
            return str(error)
        return ""

    def looked_address(self, row: int, answer: int, rather_than: int | None = None) -> str:
        """Return the address of the picture of where the network looked at a photo."""
        names = self.model.classes
        return looked_address(
            self.store.table.key[row], names[answer], "" if rather_than is None else names[rather_than]
        )


def looked_address(key: str, name: str, rather_than: str = "") -> str:
    """Return the address of the picture of what speaks for a class, or for it rather than another."""
    asked = {"for": name} | ({"rather": rather_than} if rather_than else {})
    return f"/look/looked/{key}?{write_query(asked)}"


class Look:
    """Gives the report on the model in use; who comes while it is worked out waits for the same.

    Parameters
    ----------
    workshop
        Has the model and its store; when these or people's corrections are others, there is another report.
    """

    def __init__(self, workshop: Workshop) -> None:
        self._workshop = workshop
        self._lock = threading.Lock()
        self._view: View | None = None

    def view(self) -> View:
        """Return the report.

        Raises
        ------
        BreedsError
            If there is no store, or the model cannot be tested on it.
        """
        with self._lock:
            state, view = self._workshop.refresh(), self._view
            if state.store is None:
                where = state.model.record.get("store") or "the store of the model"
                raise BreedsError(
                    f"There is no report without the photos that the model is tested on: {where} cannot be "
                    f"opened; start again with --store and where it is now."
                )
            if view is None or view.model is not state.model or not view.is_labelled_as(state.store):
                self._view = view = self._made(state.model, state.store, view)
            return view

    def _made(self, model: Model, store: Store, before: View | None) -> View:
        """Make a report; what the one before knows of the same photos is taken from there."""
        tested = answer_test_photos(store, model)
        numbers = measure(tested) | {"model": str(self._workshop.model_path)}
        if before is None:
            return View(Report(numbers, tested), model, store, Shelf(store))
        gallery, old = Gallery(tested), before.report.gallery
        is_mapped_alike = np.array_equal(
            tested.features_of(gallery.mapped), old.tested.features_of(old.mapped)
        )
        return View(
            Report(
                numbers,
                tested,
                before.report.labels if before.is_labelled_as(store) else None,
                before.report.plane if is_mapped_alike else None,
            ),
            model,
            store,
            before.shelf if before.store.table is store.table else Shelf(store),
        )

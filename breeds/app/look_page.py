"""The page Look: the report on the model in use, worked out once for all, and photos of what is pressed."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode

import numpy as np
from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response

from breeds.app.service import Answered, RefusedError, why_unexplained
from breeds.app.site import site_of
from breeds.app.state import AppState, read_as
from breeds.errors import BreedsError, PhotoError, attempt
from breeds.evaluation import answer_test_photos, measure
from breeds.features import Store
from breeds.heads.explain import EXACT, GRADIENT
from breeds.heads.model import Model
from breeds.photos import MemoryPhoto, picture
from breeds.report.explanations import overlay
from breeds.report.gallery import Gallery, Looked, views
from breeds.report.page import Report
from breeds.report.photos import Served, Thumbnail
from breeds.text import certainty, visible

router = APIRouter(include_in_schema=False)
PAGE = ("Look", "/look")
#: Photos on one page at most.
AT_ONCE = 500
#: Some of the tested photos, by name: what is said of one of them, and of several.
ONLY = {"": "tested photo", "mistakes": "mistake", "refused": "refused photo"}
# Of how many probabilities a photo's card tells; longer side of a picture of where the network looked.
_BEST, _LOOKED = 3, 480


class Shelf:
    """The photos of a store as pages show them that are served: each by its own address."""

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
            data = attempt(read_as, self._table.key[row], path)
            self._looked_at[row] = state, str(data) if isinstance(data, PhotoError) else ""
        return self._looked_at[row][1]


@dataclass(frozen=True)
class View:
    """A report, when it was made, and what it is about: the store has the corrections of its labels."""

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
        """Return where the network looked at the mistakes; `failure` says why nothing can be computed."""
        missing = failure or why_unexplained(self.model)
        if missing:
            return Looked(missing=missing)
        pictures = {i: self.pictures(i) for i in self.report.mistakes.places}
        return Looked(pictures, EXACT if len(self.model.layers) == 1 else GRADIENT)

    def pictures(self, i: int) -> list[dict[str, Any]]:
        """Return where the network looked at the photo in place `i`, as a template shows it."""
        gallery, names = self.report.gallery, self.model.classes
        row, (truth, answer) = gallery.row(i), gallery.cell(i)
        if self.shelf.missing(row):
            return []
        key = self.store.table.key[row]
        sources = [looked_address(key, names[answer])]
        sources += [looked_address(key, names[answer], names[truth])] if truth != answer else []
        return [
            {"thumbnail": Served(source), **words}
            for source, words in zip(sources, views(gallery, i), strict=False)
        ]


def looked_address(key: str, name: str, rather_than: str = "") -> str:
    """Return the address of the picture of what speaks for a class, or for it rather than another."""
    asked = {"for": name} | ({"rather": rather_than} if rather_than else {})
    return f"/look/looked/{key}?{write_query(asked)}"


class Look:
    """Gives the report on the model in use; who comes while it is worked out waits for the same.

    When model, store or people's corrections are others, there is another report.
    """

    def __init__(self, state: AppState) -> None:
        self._state = state
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
            now, view = self._state.refresh(), self._view
            if now.store is None:
                where = now.model.record.get("store") or "the store of the model"
                raise BreedsError(
                    f"There is no report without the photos that the model is tested on: {where} cannot be "
                    f"opened; start again with --store and where it is now."
                )
            if view is None or view.model is not now.model or not view.is_labelled_as(now.store):
                self._view = view = self._made(now.model, now.store, view)
            return view

    def _made(self, model: Model, store: Store, before: View | None) -> View:
        """Make a report; what the one before knows of the same photos is taken from there."""
        tested = answer_test_photos(store, model)
        numbers = measure(tested) | {"model": str(self._state.model_path)}
        if before is None:
            return View(Report(numbers, tested), model, store, Shelf(store))
        gallery, old = Gallery(tested), before.report.gallery
        mapped, old_mapped = tested.features_of(gallery.mapped), old.tested.features_of(old.mapped)
        report = Report(
            numbers,
            tested,
            before.report.labels if before.is_labelled_as(store) else None,
            before.report.plane if np.array_equal(mapped, old_mapped) else None,
        )
        shelf = before.shelf if before.store.table is store.table else Shelf(store)
        return View(report, model, store, shelf)


@dataclass(frozen=True)
class Chosen:
    """Which of the tested photos are asked for: class numbers, a name of `ONLY`, a key; and from which on."""

    truth: int | None = None
    answer: int | None = None
    only: str = ""
    photo: str = ""
    page: int = 1

    @staticmethod
    def of(query: bytes, classes: Sequence[str]) -> Chosen:
        """Read the part of an address after the question mark.

        Raises
        ------
        RefusedError
            If it is not what `address` writes; the sentence says what is wrong.
        """
        given = read_query(query, ("truth", "answer", "only", "photo", "page"))
        numbers = {name: _class(classes, given[name]) for name in ("truth", "answer") if name in given}
        only, page = given.get("only", ""), given.get("page", "1")
        if only not in ONLY:
            raise RefusedError(
                404, f"There are no photos called {_short(only)}, only mistakes and refused ones."
            )
        if not (page.isascii() and page.isdecimal() and len(page) < 7 and int(page)):
            raise RefusedError(404, f"There is no page {_short(page)} of these photos.")
        return Chosen(**numbers, only=only, photo=given.get("photo", ""), page=int(page))

    def places(self, gallery: Gallery) -> list[int]:
        """Return the photos' places: mistakes first, the surest before, then the least sure answers."""
        table, rows = gallery.tested.store.table, gallery.tested.rows
        is_chosen = np.ones(len(gallery.answer), dtype=bool)
        if self.truth is not None:
            is_chosen &= gallery.tested.truth == self.truth
        if self.answer is not None:
            is_chosen &= gallery.answer == self.answer
        if self.only:
            is_chosen &= gallery.is_refused if self.only == "refused" else ~gallery.is_right
        if self.photo:
            is_chosen &= np.array([table.key[row] == self.photo for row in rows.tolist()], dtype=bool)
        return [i for i in gallery.order.tolist() if is_chosen[i]]

    def title(self, total: int, classes: Sequence[str]) -> str:
        """Say what is asked for, and how many these are."""
        what = f"{total:,} {ONLY[self.only]}{'' if total == 1 else 's'}"
        if self.truth is not None:
            what += f" of {classes[self.truth]}"
        if self.answer is not None:
            right = self.answer == self.truth
            what += ", rightly called so" if right else f" called {classes[self.answer]}"
        return what

    def address(self, classes: Sequence[str], page: int) -> str:
        """Return the address of a page of these photos."""
        names = {name: classes[n] for name in ("truth", "answer") if (n := getattr(self, name)) is not None}
        asked = names | {"only": self.only, "photo": self.photo, "page": str(page) if page > 1 else ""}
        return address(**{name: value for name, value in asked.items() if value or name in names})


def address(**asked: str) -> str:
    """Return the address of some of the tested photos, by ``truth``, ``answer``, ``only`` and ``photo``."""
    return f"/look/photos?{write_query(asked)}" if asked else "/look/photos"


def write_query(asked: dict[str, str]) -> str:
    """Write the part of an address after the question mark; `read_query` gives names back as they were."""
    # Names may hold bytes that are no Unicode.
    return urlencode(asked, errors="surrogatepass", quote_via=quote)


def read_query(query: bytes, names: Sequence[str]) -> dict[str, str]:
    """Read what `write_query` wrote, of these names alone, each once.

    Raises
    ------
    RefusedError
        If it is anything else.
    """
    try:
        pairs = parse_qsl(
            query.decode("ascii"), keep_blank_values=True, errors="surrogatepass", max_num_fields=len(names)
        )
    except ValueError:
        raise RefusedError(404, "This address cannot be read.") from None
    found = dict(pairs)
    if len(found) < len(pairs) or not found.keys() <= set(names):
        raise RefusedError(404, f"This address may say {', '.join(names)}, each once, and nothing else.")
    return found


def _class(classes: Sequence[str], name: str) -> int:
    if name not in classes:
        raise RefusedError(404, f"The model knows no class {_short(name) or 'without a name'}.")
    return classes.index(name)


def _short(text: str, longest: int = 80) -> str:
    return visible(text if len(text) <= longest else f"{text[:longest]}…")


@router.get("/look")
def look(request: Request) -> Response:
    """Show the report, from the top on: what takes long follows when it is there."""
    site, view = site_of(request), _view(request)
    values = view.report.values(view.shelf, view.looked(site.service.failure), address, "/review/{}".format)
    values["caveats"] = [view.gone] * bool(view.gone) + values["caveats"]
    return site.stream(request, "look.html", layout="app/base.html", made=view.made, **values)


def _view(request: Request) -> View:
    shared: Look = request.app.state.look
    return shared.view()


@router.get("/look/photos")
def photos(request: Request) -> Response:
    """Show all photos that were asked for."""
    site, view = site_of(request), _view(request)
    gallery, classes = view.report.gallery, view.model.classes
    chosen = Chosen.of(request.scope["query_string"], classes)
    places = chosen.places(gallery)
    first = (chosen.page - 1) * AT_ONCE
    if chosen.photo and not places:
        raise RefusedError(404, "No tested photo has that key.")
    if first and first >= len(places):
        raise RefusedError(404, f"There is no page {chosen.page} of these photos.")
    shown = places[first : first + AT_ONCE]
    explained = not (site.service.failure or why_unexplained(view.model))
    cards = [_photo(view, i, explained) for i in shown]
    return site.page(
        request,
        "photos.html",
        name=site.state.model_path.stem,
        title=cards[0]["alt"] if chosen.photo else chosen.title(len(places), classes),
        note=_note(view, places, shown),
        photos=cards,
        alone=bool(chosen.photo),
        looked=view.pictures(shown[0]) if chosen.photo and explained else [],
        nearest=_nearest(site.state, view, shown[0]) if chosen.photo else [],
        before=chosen.address(classes, chosen.page - 1) if first else "",
        after=chosen.address(classes, chosen.page + 1) if first + AT_ONCE < len(places) else "",
    )


def _note(view: View, places: list[int], shown: list[int]) -> str:
    """Say which of the photos are shown, and in which order."""
    first = places.index(shown[0]) if shown else 0
    is_part = len(shown) < len(places)
    which = f"{first + 1:,} to {first + len(shown):,} of these. " if is_part else ""
    right = int(view.report.gallery.is_right[places].sum())
    orders = {0: "The surest first.", len(places): "The least sure first."}
    order = orders.get(right, "The surest mistakes first, then the least sure answers.")
    return f"{which}{order if len(places) > 1 else ''} {view.gone}".strip()


def _photo(view: View, i: int, explained: bool) -> dict[str, Any]:
    """Return what the template shows of the photo in place `i`: more than the report does."""
    gallery, names = view.report.gallery, view.model.classes
    cell, shares = gallery.cell(i), gallery.tested.probabilities[i]
    photo = gallery.photo(view.shelf, i)
    others = [n for n in np.argsort(-shares, kind="stable")[:_BEST].tolist() if n not in cell]
    is_shown = explained and not photo["missing"]
    return photo | {
        "others": [(names[n], certainty(float(shares[n]))) for n in others],
        "looked": looked_address(photo["key"], names[cell[1]]) if is_shown else "",
        "review": f"/review/{photo['key']}",
    }


def _nearest(state: AppState, view: View, i: int) -> list[dict[str, Any]]:
    """Return the training photos most like the photo in place `i`, as a template shows them."""
    (found,) = state.now.nearest(view.report.tested.features_of([i]))
    rows = view.store.rows_of([near.key for near in found])
    return [
        view.shelf.photo(
            int(row),
            f"Training photo of {near.label}",
            caption=f"{near.label}, similarity {near.similarity:.2f}",
        )
        for row, near in zip(rows, found, strict=True)
    ]


@router.get("/look/looked/{key}")
async def looked(request: Request, key: str) -> Response:
    """Give the picture of where the network looked at a photo of the store, for a class or between two."""
    site = site_of(request)
    asked = read_query(request.scope["query_string"], ("for", "rather"))
    if site.state.now.row(key) is None:
        raise RefusedError(404, "No photo has that key.")
    try:
        data = await run_in_threadpool(site.state.now.read, key)
        found = await site.service.explained(key, MemoryPhoto(data))
        if found.explanation is None:
            raise RefusedError(
                404, f"Where the network looked is not known: {found.answer.error or 'no map'}."
            )
        classes = found.model.classes
        if asked.get("for") not in classes or asked.get("rather", classes[0]) not in classes:
            raise RefusedError(404, "The model does not know that class.")
        made = await run_in_threadpool(_laid_over, data, found, asked)
    except PhotoError as error:
        raise RefusedError(404, f"The photo is not there any more: {error}.") from None
    return Response(made.data, media_type="image/jpeg")


def _laid_over(data: bytes, found: Answered, asked: dict[str, str]) -> Thumbnail:
    assert found.explanation is not None
    config, classes = found.model.config, found.model.classes
    rather = classes.index(asked["rather"]) if "rather" in asked else None
    pixels = np.asarray(picture(data, _LOOKED))
    cells = found.explanation.speaks_for(classes.index(asked["for"]), rather)
    return Thumbnail.of(overlay(pixels, cells, config.resize, size=config.size))

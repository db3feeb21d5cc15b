"""The page Look: the report on the model in use, and all photos of a cell, a class or a point."""

from __future__ import annotations

from typing import Any

import numpy as np
from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response

from breeds.app.chosen import Chosen, address, read_query
from breeds.app.desk import Answered
from breeds.app.look import View
from breeds.app.site import Site, site_of
from breeds.app.uploads import RefusedError
from breeds.backbones.pipeline import KeyAndPath
from breeds.errors import PhotoError
from breeds.photos import picture, read
from breeds.report.explanations import overlay
from breeds.report.photos import Thumbnail
from breeds.text import certainty

router = APIRouter(include_in_schema=False)
PAGE = ("Look", "/look")
#: Photos on one page at most.
AT_ONCE = 500
# Of how many probabilities a photo's card tells.
_BEST = 3
# Longer side of a picture of where the network looked, in pixels.
_LOOKED = 480


@router.get("/look")
def look(request: Request) -> Response:
    """Show the report, from the top on: what takes long follows when it is there."""
    site = site_of(request)
    view = site.look.view()
    values = view.report.values(view.shelf, view.looked(site.desk.failure), address, review)
    values["caveats"] = [view.gone] * bool(view.gone) + values["caveats"]
    return site.stream(request, "look.html", layout="app/base.html", made=view.made, **values)


@router.get("/look/photos")
def photos(request: Request) -> Response:
    """Show all photos that were asked for."""
    site = site_of(request)
    view = site.look.view()
    gallery, classes = view.report.gallery, view.model.classes
    try:
        chosen = Chosen.of(request.scope["query_string"], classes)
    except ValueError as error:
        raise RefusedError(404, str(error)) from None
    places = chosen.places(gallery)
    first = (chosen.page - 1) * AT_ONCE
    if chosen.photo and not places:
        raise RefusedError(404, "No tested photo has that key.")
    if first and first >= len(places):
        raise RefusedError(404, f"There is no page {chosen.page} of these photos.")
    shown = places[first : first + AT_ONCE]
    explained = not (site.desk.failure or view.unexplained)
    cards = [_photo(view, i, explained) for i in shown]
    return site.page(
        request,
        "photos.html",
        name=site.workshop.name,
        title=cards[0]["alt"] if chosen.photo else chosen.title(len(places), classes),
        note=_note(view, places, shown),
        photos=cards,
        alone=bool(chosen.photo),
        looked=view.pictures(shown[0]) if chosen.photo and explained else [],
        nearest=_nearest(site, view, shown[0]) if chosen.photo else [],
        before=chosen.address(classes, chosen.page - 1) if first else "",
        after=chosen.address(classes, chosen.page + 1) if first + AT_ONCE < len(places) else "",
    )


def review(key: str) -> str:
    """Return the address of the page where a photo's label is judged."""
    return f"/review/{key}"


def _note(view: View, places: list[int], shown: list[int]) -> str:
    """Say which of the photos are shown, and in which order."""
    which = ""
    if len(shown) < len(places):
        first = places.index(shown[0])
        which = f"{first + 1:,} to {first + len(shown):,} of these. "
    right = int(view.report.gallery.is_right[places].sum())
    orders = {0: "The surest first.", len(places): "The least sure first."}
    order = orders.get(right, "The surest mistakes first, then the least sure answers.")
    return f"{which}{order if len(places) > 1 else ''} {view.gone}".strip()


def _photo(view: View, i: int, explained: bool) -> dict[str, Any]:
    """Return what the template shows of the photo in place `i`: more than the report does."""
    gallery, names = view.report.gallery, view.model.classes
    row, cell = gallery.row(i), gallery.cell(i)
    photo = gallery.photo(view.shelf, i)
    shares = gallery.tested.probabilities[i]
    others = [n for n in np.argsort(-shares, kind="stable")[:_BEST].tolist() if n not in cell]
    return photo | {
        "others": [(names[n], certainty(float(shares[n]))) for n in others],
        "looked": view.looked_address(row, cell[1]) if explained and not photo["missing"] else "",
        "review": review(photo["key"]),
    }


def _nearest(site: Site, view: View, i: int) -> list[dict[str, Any]]:
    """Return the training photos most like the photo in place `i`, as a template shows them."""
    found = site.workshop.nearest(view.report.tested.features_of([i])[0])
    wanted = {near.key for near in found}
    row_of = {key: row for row, key in enumerate(view.store.table.key) if key in wanted}
    return [
        view.shelf.photo(
            row_of[near.key],
            f"Training photo of {near.label}",
            caption=f"{near.label}, similarity {near.similarity:.2f}",
        )
        for near in found
        if near.key in row_of
    ]


@router.get("/look/looked/{key}")
async def looked(request: Request, key: str) -> Response:
    """Give the picture of where the network looked at a photo of the store, for a class or between two."""
    site = site_of(request)
    photo = site.workshop.photo(key)
    try:
        asked = read_query(request.scope["query_string"], ("for", "rather"))
    except ValueError as error:
        raise RefusedError(404, str(error)) from None
    if photo is None:
        raise RefusedError(404, "No photo has that key.")
    found = await site.explained.answer(photo)
    if found.explanation is None:
        raise RefusedError(404, f"Where the network looked is not known: {found.answer.error or 'no map'}.")
    classes = found.model.classes
    if asked.get("for") not in classes or asked.get("rather", classes[0]) not in classes:
        raise RefusedError(404, "The model does not know that class.")
    made = await run_in_threadpool(_laid_over, photo, found, asked)
    if isinstance(made, PhotoError):
        raise RefusedError(404, f"The photo is not there any more: {made}.")
    return Response(made.data, media_type="image/jpeg")


def _laid_over(photo: KeyAndPath, found: Answered, asked: dict[str, str]) -> Thumbnail | PhotoError:
    assert found.explanation is not None
    classes = found.model.classes
    rather = classes.index(asked["rather"]) if "rather" in asked else None
    try:
        pixels = np.asarray(picture(read(photo[1]), _LOOKED))
    except PhotoError as error:
        return error
    cells = found.explanation.speaks_for(classes.index(asked["for"]), rather)
    return Thumbnail.of(overlay(pixels, cells, found.model.config.resize, size=found.model.config.size))

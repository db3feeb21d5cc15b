"""The page Try: what breed is it, how sure, why, and which training photos are like it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import HTMLResponse, Response

from breeds.app.service import Answered
from breeds.app.site import Site, site_of, while_here
from breeds.app.uploads import Form, RefusedError, Upload
from breeds.errors import PhotoError
from breeds.heads.explain import EXACT, Neighbour
from breeds.photos import picture
from breeds.prediction import Evidence
from breeds.report.explanations import overlay
from breeds.report.photos import Thumbnail
from breeds.text import certainty

router = APIRouter(include_in_schema=False)
PAGE = ("Try", "/")
#: How many breeds a card names.
BEST = 3
# How many photos a page without script shows at once: each has two pictures in the page itself.
_MOST_SHOWN = 24
# Longer side of the pictures on a card, in pixels.
_LONGEST = 480


@dataclass
class Card:
    """What a card shows of a photo.

    Attributes
    ----------
    breed, unknown, sure
        The likeliest breed; whether the photo seems to be of none; the probability in words.
    bars
        The likeliest breeds: name, probability in words, and as a share of 100.
    photo, looked
        The photo, and where the network looked.
    exact
        Whether that adds up to the score, or is a first approximation.
    nearest
        Training photos like it.
    key, seen
        The photo's key, and whether the model was trained on it.
    error
        Why there is no answer; then there is nothing else.
    """

    name: str
    error: str = ""
    key: str = ""
    seen: bool = False
    breed: str = ""
    unknown: bool = False
    sure: str = ""
    bars: list[tuple[str, str, float]] = field(default_factory=list)
    photo: Thumbnail | None = None
    looked: Thumbnail | None = None
    exact: bool = True
    nearest: list[Neighbour] = field(default_factory=list)


@router.get("/")
async def show(request: Request) -> HTMLResponse:
    """Show the page, without any answer."""
    return site_of(request).page(request, "try.html", cards=[], urls=[])


@router.post("/")
async def answer(request: Request) -> Response:
    """Show the page with the answers for the photos of its form, where there is no script."""
    return await _with_cards(request, "try.html")


@router.post("/card")
async def card(request: Request) -> Response:
    """Give the cards alone, for the script."""
    return await _with_cards(request, "cards.html")


async def _with_cards(request: Request, template: str) -> Response:
    site = site_of(request)
    site.service.check_room()
    async with site.uploads.received(request) as form:
        if len(form.uploads) + len(form.texts("url")) > _MOST_SHOWN:
            raise RefusedError(413, f"This page shows {_MOST_SHOWN} photos at once; send fewer.")
        return await while_here(request, _shown(site, request, template, form))


async def _shown(site: Site, request: Request, template: str, form: Form) -> Response:
    async with site.fetched(urls := form.texts("url")) as fetched:
        uploads = form.uploads + fetched
        found = await site.service.answers(uploads)
        pairs = zip(uploads, found, strict=True)
        cards = [await run_in_threadpool(make_card, upload, one) for upload, one in pairs]
    return site.page(request, template, cards=cards, urls=urls)


def make_card(upload: Upload, found: Answered) -> Card:
    """Make a card of an answer: read the photo again, small, and lay over it where the network looked."""
    answer, model, evidence = found.answer, found.model, found.answer.evidence
    if answer.probabilities is None:
        return Card(upload.name, answer.error)
    order = np.argsort(-answer.probabilities, kind="stable")[:BEST]
    shares = [(model.classes[i], float(answer.probabilities[i])) for i in order]
    card = Card(
        upload.name,
        key=answer.key,
        seen=model.has_seen(answer.key),
        breed=shares[0][0],
        unknown=answer.unknown,
        sure=certainty(shares[0][1]),
        bars=[(name, certainty(share), round(100 * share, 2)) for name, share in shares],
    )
    try:
        shown = picture(upload.read(), _LONGEST)
    except PhotoError as error:
        return Card(upload.name, str(error))
    card.photo = Thumbnail.of(shown)
    if isinstance(evidence, Evidence):
        explanation = evidence.explanation
        cells = explanation.speaks_for(explanation.answer)
        pixels = np.asarray(shown)
        card.looked = Thumbnail.of(overlay(pixels, cells, model.config.resize, size=model.config.size))
        card.exact = explanation.kind == EXACT
        card.nearest = evidence.nearest
    return card

"""The page Try, and the endpoint for programs: what breed is it, how sure, why, and is all well."""

from __future__ import annotations

import json
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import HTMLResponse, Response
from pydantic import BaseModel, create_model

from breeds import __version__
from breeds.app.service import MOST_FILES, Answered, Form, RefusedError, Upload
from breeds.app.site import Site, site_of, while_here
from breeds.errors import PhotoError
from breeds.heads.explain import EXACT
from breeds.photos import picture
from breeds.prediction import Evidence
from breeds.report.answers import COLUMNS, as_json, plain_json
from breeds.report.explanations import overlay
from breeds.report.photos import Thumbnail
from breeds.text import certainty

router = APIRouter()
#: In the navigation.
PAGE = ("Try", "/")
#: How many breeds a card names.
BEST = 3
# How many photos a page without script shows at once: each has two pictures in the page itself.
_MOST_SHOWN = 24
# Longer side of the pictures on a card, in pixels.
_LONGEST = 480


@router.get("/", include_in_schema=False)
async def show(request: Request) -> HTMLResponse:
    """Show the page, without any answer."""
    return site_of(request).page(request, "try.html", cards=[], urls=[])


@router.post("/", include_in_schema=False)
async def answer(request: Request) -> Response:
    """Show the page with the answers for the photos of its form, where there is no script."""
    return await _with_cards(request, "try.html")


@router.post("/card", include_in_schema=False)
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
        cards = [await run_in_threadpool(_card, upload, one) for upload, one in pairs]
    return site.page(request, template, cards=cards, urls=urls)


def _card(upload: Upload, found: Answered) -> dict[str, Any]:
    """Make a card of an answer: read the photo again, small, and lay over it where the network looked."""
    answer, model, evidence = found.answer, found.model, found.answer.evidence
    if answer.probabilities is None:
        return {"name": upload.name, "error": answer.error}
    order = np.argsort(-answer.probabilities, kind="stable")[:BEST]
    shares = [(model.classes[i], float(answer.probabilities[i])) for i in order]
    try:
        shown = picture(upload.read(), _LONGEST)
    except PhotoError as error:
        return {"name": upload.name, "error": str(error)}
    card = {
        "name": upload.name,
        "error": "",
        "key": answer.key,
        "seen": model.has_seen(answer.key),
        "breed": shares[0][0],
        "unknown": answer.unknown,
        "sure": certainty(shares[0][1]),
        "bars": [(name, certainty(share), round(100 * share, 2)) for name, share in shares],
        "photo": Thumbnail.of(shown),
        "looked": None,
        "nearest": [],
    }
    if isinstance(evidence, Evidence):
        explanation = evidence.explanation
        cells = explanation.speaks_for(explanation.answer)
        looked = overlay(np.asarray(shown), cells, model.config.resize, size=model.config.size)
        exact = explanation.kind == EXACT  # else the cells add up to the score in a first approximation only
        card |= {"looked": Thumbnail.of(looked), "exact": exact, "nearest": evidence.nearest}
    return card


# The endpoint for programs

_MOST_JSON = 2**20


class Guess(BaseModel):
    """One of the likeliest breeds."""

    breed: str
    probability: float


_Said: Any = create_model("_Said", **{column.name: (column.kind | None, ...) for column in COLUMNS})  # type: ignore[call-overload]


class Row(_Said):  # type: ignore[misc]
    """The answer for one photo: the values that predicting gives with ``--format json``."""

    name: str
    top: list[Guess]
    error: str | None


class About(BaseModel):
    """The model in use."""

    name: str
    classes: list[str]
    head: str
    config: str
    photos: int | None
    unknown: bool


class Health(BaseModel):
    """How the application is."""

    status: str
    warm: bool
    waiting: int
    error: str | None
    version: str


class Problem(BaseModel):
    """Why a request was not served."""

    error: str


_PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem, "description": text}
    for status, text in (
        (400, "The body is not what it should be"),
        (413, "Too many photos, or too large"),
        (415, "Neither multipart/form-data nor JSON"),
        (503, "Too many photos wait already: come again after as many seconds as Retry-After says"),
    )
}
_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["files"],
                    "properties": {
                        "files": {
                            "type": "array",
                            "maxItems": MOST_FILES,
                            "items": {"type": "string", "contentMediaType": "application/octet-stream"},
                        }
                    },
                }
            },
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["urls"],
                    "properties": {
                        "urls": {"type": "array", "maxItems": MOST_FILES, "items": {"type": "string"}}
                    },
                }
            },
        },
    }
}


@router.post(
    "/api/predict",
    responses={200: {"model": list[Row]}, **_PROBLEMS},
    openapi_extra=_BODY,
    response_class=Response,
)
async def predict(request: Request, top: Annotated[int, Query(ge=1, le=1000)] = 3) -> Response:
    """Say what breed is on each photo: as many rows as photos, in the same order.

    A photo that cannot be read, or fetched, is an error in its row. `top` says how many breeds to name.
    """
    site = site_of(request)
    site.service.check_room()  # before the photos are sent in vain
    if request.headers.get("content-type", "").lower().startswith("application/json"):
        urls = await _urls(request)
        return await while_here(request, _fetched(site, urls, top))
    async with site.uploads.received(request) as form:
        if not form.uploads:
            raise RefusedError(400, "There is no photo in the field files.")
        return await while_here(request, _rows(site, form.uploads, top))


async def _fetched(site: Site, urls: list[str], top: int) -> Response:
    async with site.fetched(urls) as uploads:
        return await _rows(site, uploads, top)


async def _rows(site: Site, uploads: list[Upload], top: int) -> Response:
    found = await site.service.answers(uploads)
    rows = [
        {"name": upload.name, **as_json(one.answer, one.model.classes, top)}
        for upload, one in zip(uploads, found, strict=True)
    ]
    return _json(rows)


async def _urls(request: Request) -> list[str]:
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > _MOST_JSON:
            raise RefusedError(413, "A list of addresses has no more than a megabyte.")
    try:
        said = json.loads(bytes(body))
        urls = said["urls"]
        if not isinstance(urls, list) or not urls or not all(isinstance(url, str) for url in urls):
            raise ValueError
    except (ValueError, LookupError, TypeError, RecursionError):
        raise RefusedError(400, 'Send JSON such as {"urls": ["https://..."]}.') from None
    if len(urls) > MOST_FILES:
        raise RefusedError(413, f"The request has more than {MOST_FILES} addresses; send them in several.")
    return urls


@router.get("/api/model", responses={200: {"model": About}}, response_class=Response)
async def model(request: Request) -> Response:
    """Say which model answers."""
    state = site_of(request).state
    used = state.now.model
    photos = used.record.get("n_train")
    return _json(
        {
            "name": state.model_path.stem,
            "classes": used.classes,
            "head": used.kind,
            "config": str(used.config),
            "photos": photos if isinstance(photos, int) else None,
            "unknown": used.unknown is not None,
        }
    )


@router.get("/api/health", responses={200: {"model": Health}}, response_class=Response)
async def health(request: Request) -> Response:
    """Say how the application is: `status` is ok, warming up, or failed, with the reason."""
    service = site_of(request).service
    status = "ok" if service.warm else "failed" if service.failure else "warming up"
    return _json(
        {
            "status": status,
            "warm": service.warm,
            "waiting": service.waiting,
            "error": service.failure or None,
            "version": __version__,
        }
    )


def _json(found: Any) -> Response:
    """Return JSON, in which names of classes and files may be no Unicode."""
    return Response(plain_json(found), media_type="application/json")


@router.get("/api", include_in_schema=False)
async def about(request: Request) -> HTMLResponse:
    """Show how programs ask."""
    return site_of(request).page(request, "api.html", most=MOST_FILES, base=str(request.base_url).rstrip("/"))

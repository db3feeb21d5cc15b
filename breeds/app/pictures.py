"""Photos of the model's store, by the key that the store knows them by, and the pages' own files."""

from __future__ import annotations

from collections.abc import Callable

from fastapi import APIRouter, Request
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from breeds.app.site import site_of
from breeds.errors import PhotoError
from breeds.report.photos import Thumbnail

router = APIRouter(include_in_schema=False)
# What has a name made of its content never changes.
_FOREVER = {"cache-control": "private, max-age=31536000, immutable"}


@router.get("/photo/{key}")
def photo(request: Request, key: str) -> Response:
    """Give a photo of the store, large enough to judge."""
    return _jpeg(site_of(request).workshop.large, key)


@router.get("/thumb/{key}")
def thumb(request: Request, key: str) -> Response:
    """Give a photo of the store, small."""
    return _jpeg(site_of(request).workshop.thumb, key)


def _jpeg(made: Callable[[str], Thumbnail], key: str) -> Response:
    try:
        data = made(key).data
    except PhotoError:
        raise HTTPException(404) from None
    return Response(data, media_type="image/jpeg", headers=_FOREVER)


@router.get("/favicon.ico")
async def icon() -> Response:
    """Give no icon: browsers ask for one beside a photo that they show alone."""
    return Response(status_code=204, headers=_FOREVER)


@router.get("/static/{name:path}")
async def static(request: Request, name: str) -> Response:
    """Give a style or a script of the pages: one of a few names, each read when the application began."""
    found = site_of(request).assets.get(name)
    if found is None:
        raise HTTPException(404)
    data, kind = found
    return Response(data, media_type=kind, headers=_FOREVER)

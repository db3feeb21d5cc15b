"""What the pages share: the parts of the application, pages as answers, photos and files by address."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import secrets
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import count
from typing import Any, TypeVar

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, Response, StreamingResponse
from starlette.exceptions import HTTPException

from breeds.app.batches import Review
from breeds.app.service import Form, InferenceService, RefusedError, Upload, Uploads
from breeds.app.state import AppState
from breeds.errors import PhotoError
from breeds.photos import picture
from breeds.report.photos import LONGEST, Thumbnail
from breeds.report.render import asset, render, render_pieces

T = TypeVar("T")
router = APIRouter(include_in_schema=False)

# How many photos of a request are fetched from the web at once.
_FETCHED_AT_ONCE = 4
#: Scripts and styles that are served, by the name that they are asked for.
ASSETS = {
    "look.css": "text/css",
    "report.js": "text/javascript",
    "app/drop.js": "text/javascript",
    "app/look.js": "text/javascript",
    "app/review.js": "text/javascript",
    "app/teach.js": "text/javascript",
    "app/try.js": "text/javascript",
}
# Longest side of a photo that is shown large, in pixels; small pictures that are kept, some 5 KB each.
_LARGE, _THUMBS = 1200, 2000
# How many sentences are kept for pages that somebody is led to.
_NOTES = 200
# What has a name made of its content never changes.
_FOREVER = {"cache-control": "private, max-age=31536000, immutable"}


@dataclass(frozen=True)
class Secrets:
    """What only those know who may.

    Attributes
    ----------
    access
        What every request has to bring, "" if none needs to.
    page
        Drawn for this process, and in every page: what changes something has to bring it.
    """

    access: str = ""
    page: str = field(default_factory=lambda: secrets.token_urlsafe(24))

    def check_page(self, token: str) -> None:
        """Make sure that what changes something was asked for by a page of ours.

        Raises
        ------
        RefusedError
            If not.
        """
        if not is_same(token, self.page):
            raise RefusedError(403, "This page is of an earlier start of the application; load it again.")

    @property
    def cookie(self) -> str:
        """The value of the cookie that stands for `access`, which cannot be told from it."""
        return hashlib.sha256(f"cookie {self.access}".encode()).hexdigest()


def is_same(given: str, wanted: str) -> bool:
    """Compare in a time that says nothing of how much is right."""
    return bool(wanted) and hmac.compare_digest(given.encode(), wanted.encode())


@dataclass
class Site:
    """The parts of the application.

    Attributes
    ----------
    state, service, uploads
        The model and its photos; the engine; the photos that come.
    known
        The tokens.
    fetch
        Fetches a photo from the web, and ends soon once the event is set; None if that is switched off.
    pages
        What the navigation names: title and address.
    review
        What people say of photos.
    """

    state: AppState
    service: InferenceService
    uploads: Uploads
    known: Secrets
    fetch: Callable[[str, threading.Event], bytes] | None = None
    pages: list[tuple[str, str]] = field(default_factory=list)
    review: Review = field(init=False)
    assets: dict[str, tuple[bytes, str]] = field(init=False)
    thumb: Callable[[str, int], bytes] = field(init=False)
    _notes: dict[int, Any] = field(default_factory=dict)
    _numbers: Iterator[int] = field(default_factory=count)

    def __post_init__(self) -> None:
        self.review = Review(self.state)
        self.state.on_change = self.service.use
        self.thumb = lru_cache(_THUMBS)(self.picture)  # one that is not there is not kept: it may come back
        self.assets = {name: (asset(name), kind) for name, kind in ASSETS.items()}

    def picture(self, key: str, longest: int) -> bytes:
        """Return a photo of the store as a JPEG of so many pixels at most.

        Raises
        ------
        PhotoError
            If it is not there.
        """
        return Thumbnail.of(picture(self.state.now.read(key), longest)).data

    def address(self, name: str) -> str:
        """Return the address of a script or style, another one after every change."""
        return f"/static/{name}?{hashlib.sha256(self.assets[name][0]).hexdigest()[:12]}"

    def page(self, request: Request, template: str, status: int = 200, **values: Any) -> HTMLResponse:
        """Return a page; `template` is the name of one in ``templates/app``."""
        html = render(f"app/{template}", site=self, here=request.url.path, token=self.known.page, **values)
        return HTMLResponse(html.encode("utf-8", "replace"), status)

    def stream(self, request: Request, template: str, **values: Any) -> StreamingResponse:
        """Return a page as `page` does, sent as it is made: what is slow keeps back only what follows it."""
        values |= {"site": self, "here": request.url.path, "token": self.known.page}
        pieces = render_pieces(f"app/{template}", **values)
        return StreamingResponse(
            (piece.encode("utf-8", "replace") for piece in pieces), media_type="text/html"
        )

    def note(self, found: Any) -> int:
        """Keep something to be told on a page that somebody is led to, and return its number."""
        number = next(self._numbers)
        self._notes[number] = found
        self._notes.pop(number - _NOTES, None)
        return number

    def noted(self, number: int | None) -> Any:
        """Return what was kept under a number, None if it is not there."""
        return None if number is None else self._notes.get(number)

    @asynccontextmanager
    async def change(self, request: Request) -> AsyncIterator[Form]:
        """Read the form of a page of ours that changes something; its photos are let go when the block ends.

        Raises
        ------
        RefusedError
            If it lacks the token of the page, or is not what it should be.
        """
        async with self.uploads.received(request) as form:
            self.known.check_page(request.headers.get("x-breeds-token", "") or form.text("token"))
            yield form

    @asynccontextmanager
    async def fetched(self, urls: list[str]) -> AsyncIterator[list[Upload]]:
        """Fetch photos from the web, a few at a time; they are let go when the block ends.

        One that cannot be had says why.

        Raises
        ------
        RefusedError
            If there is no room for them.
        """
        some, stop = asyncio.Semaphore(_FETCHED_AT_ONCE), threading.Event()
        uploads = [Upload(url) for url in urls]
        left = self.uploads.most_bytes

        async def fetch(upload: Upload) -> None:
            nonlocal left
            if self.fetch is None:
                upload.error = "fetching from the web is switched off"
                return
            async with some:
                try:
                    data = await asyncio.to_thread(self.fetch, upload.name, stop)
                except PhotoError as error:
                    upload.error = str(error)
                    return
            left -= len(data)
            if left < 0:
                upload.error = f"the photos of this request have over {self.uploads.most_bytes // 10**6} MB"
                return
            upload.fill(data)

        with self.uploads.room(self.uploads.most_bytes if urls else 0):
            try:
                async with asyncio.TaskGroup() as group:
                    for upload in uploads:
                        group.create_task(fetch(upload))
                yield uploads
            finally:
                stop.set()
                for upload in uploads:
                    upload.close()


def site_of(request: Request) -> Site:
    """Return the site that a request is served by."""
    site: Site = request.app.state.site
    return site


class LeftError(Exception):
    """Nobody waits for the answer any more."""


async def while_here(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Do some work for a request whose body has been read, and cancel it when its sender has gone.

    Raises
    ------
    LeftError
        If the sender has gone.
    """

    async def left() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    doing, leaving = asyncio.ensure_future(work), asyncio.ensure_future(left())
    try:
        await asyncio.wait({doing, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if doing.done():
            return doing.result()
        raise LeftError
    finally:
        for task in (doing, leaving):
            task.cancel()
        with suppress(asyncio.CancelledError, Exception):
            await doing


@router.get("/photo/{key}")
def photo(request: Request, key: str) -> Response:
    """Give a photo of the store, large enough to judge."""
    return _jpeg(site_of(request).picture, key, _LARGE)


@router.get("/thumb/{key}")
def thumb(request: Request, key: str) -> Response:
    """Give a photo of the store, small."""
    return _jpeg(site_of(request).thumb, key, LONGEST)


def _jpeg(made: Callable[[str, int], bytes], key: str, longest: int) -> Response:
    try:
        return Response(made(key, longest), media_type="image/jpeg", headers=_FOREVER)
    except PhotoError:
        raise HTTPException(404) from None


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

"""What the pages share: the parts of the application, pages as answers, and work for one who may leave."""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from typing import Any, TypeVar

from fastapi import Request
from fastapi.responses import HTMLResponse, StreamingResponse

from breeds.app.desk import Desk
from breeds.app.explained import Explained
from breeds.app.guard import Secrets
from breeds.app.look import Look
from breeds.app.review import Review
from breeds.app.uploads import Form, RefusedError, Upload, Uploads
from breeds.app.workshop import Workshop
from breeds.errors import PhotoError
from breeds.report.render import asset, render, render_pieces

T = TypeVar("T")

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
# How many sentences are kept for pages that somebody is led to.
_NOTES = 200


@dataclass
class Site:
    """The parts of the application.

    Attributes
    ----------
    workshop, desk, uploads
        The model and its photos; the engine; the photos that come.
    known
        The tokens.
    fetch
        Fetches a photo from the web, and ends soon once the event is set; None if that is switched off.
    pages
        What the navigation names: title and address.
    look, explained
        The report on the model; where the network looked at its photos.
    review
        What people say of photos.
    """

    workshop: Workshop
    desk: Desk
    uploads: Uploads
    known: Secrets
    fetch: Callable[[str, threading.Event], bytes] | None = None
    pages: list[tuple[str, str]] = field(default_factory=list)
    assets: dict[str, tuple[bytes, str]] = field(default_factory=dict)
    look: Look = field(init=False)
    explained: Explained = field(init=False)
    review: Review = field(init=False)
    _notes: dict[int, Any] = field(default_factory=dict)
    _numbers: Iterator[int] = field(default_factory=count)

    def __post_init__(self) -> None:
        self.look, self.explained = Look(self.workshop), Explained(self.desk)
        self.review = Review(self.workshop)
        self.workshop.on_model = self.desk.use
        self.assets = {name: (asset(name), kind) for name, kind in ASSETS.items()}

    def address(self, name: str) -> str:
        """Return the address of a script or style, another one after every change."""
        return f"/static/{name}?{hashlib.sha256(self.assets[name][0]).hexdigest()[:12]}"

    def page(self, request: Request, template: str, status: int = 200, **values: Any) -> HTMLResponse:
        """Return a page; `template` is the name of one in ``templates/app``."""
        html = render(f"app/{template}", site=self, here=request.url.path, token=self.known.page, **values)
        return HTMLResponse(html.encode("utf-8", "replace"), status)

    def stream(self, request: Request, template: str, **values: Any) -> StreamingResponse:
        """Return a page as `page` does, sent as it is made: what is slow keeps back only what follows it."""
        pieces = render_pieces(
            f"app/{template}", site=self, here=request.url.path, token=self.known.page, **values
        )
        return StreamingResponse(
            (piece.encode("utf-8", "replace") for piece in pieces), media_type="text/html"
        )

    def note(self, found: Any) -> int:
        """Keep something to be told on a page that somebody is led to, and return its number."""
        number = next(self._numbers)
        self._notes[number] = found
        for old in [*self._notes][:-_NOTES]:
            self._notes.pop(old, None)
        return number

    def noted(self, number: int | None) -> Any:
        """Return what was kept under a number, None if it is not there."""
        return None if number is None else self._notes.get(number)

    async def receive(self, request: Request) -> Form:
        """Read what came with a request.

        Raises
        ------
        RefusedError
            If it is not what it should be, or too much.
        """
        return await self.uploads.receive(request.headers.get("content-type", ""), request.stream())

    async def receive_change(self, request: Request) -> Form:
        """Read the form of a page of ours that changes something.

        Raises
        ------
        RefusedError
            If it lacks the token of the page, or is not what it should be.
        """
        form = await self.receive(request)
        try:
            self.known.check_page(request.headers.get("x-breeds-token", "") or form.text("token"))
        except RefusedError:
            self.uploads.remove(form.uploads)
            raise
        return form

    async def fetch_all(self, urls: list[str]) -> list[Upload]:
        """Fetch photos from the web, a few at a time; one that cannot be had says why.

        Raises
        ------
        RefusedError
            If there is no room for them; then none is kept.
        """
        found = [Upload(url) for url in urls]
        some = asyncio.Semaphore(_FETCHED_AT_ONCE)
        stop = threading.Event()
        tasks = [asyncio.ensure_future(self._fetch(upload, some, stop)) for upload in found]
        try:
            await asyncio.gather(*tasks)
        except BaseException:
            stop.set()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self.uploads.remove(found)
            raise
        return found

    async def _fetch(self, upload: Upload, some: asyncio.Semaphore, stop: threading.Event) -> None:
        if self.fetch is None:
            upload.error = "fetching from the web is switched off"
            return
        async with some:
            try:
                data = await asyncio.to_thread(self.fetch, upload.name, stop)
            except PhotoError as error:
                upload.error = str(error)
                return
            self.uploads.keep(upload, data)


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

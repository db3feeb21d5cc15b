"""The page Teach: a handful of photos into a class, old or new, and the model trained again."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import RedirectResponse, Response

from breeds.app.site import Site, site_of
from breeds.app.uploads import MOST_FILES, Form, Upload
from breeds.app.workshop import Trained
from breeds.errors import BreedsError
from breeds.review import Refused, Taught

router = APIRouter(include_in_schema=False)
PAGE = ("Teach", "/teach")


@dataclass(frozen=True)
class Lesson:
    """What came of teaching: what was written and refused, and the training after it, if there was any."""

    taught: Taught
    trained: Trained | None
    refused: list[Refused]
    seconds: float


@router.get("/teach")
def teach(request: Request, said: int | None = None) -> Response:
    """Show the form, and what came of teaching before."""
    site = site_of(request)
    site.workshop.refresh()
    lesson = site.noted(said)
    return _page(site, request, lesson=lesson if isinstance(lesson, Lesson) else None)


@router.post("/teach")
async def taught(request: Request) -> Response:
    """Put the photos into the class, compute their features, and train again."""
    site = site_of(request)
    uploads: list[Upload] = []
    try:
        form = await site.receive_change(request)
        uploads = form.uploads
        return await run_in_threadpool(_teach, site, request, form)
    finally:
        site.uploads.remove(uploads)


def _teach(site: Site, request: Request, form: Form) -> Response:
    typed, started = form.text("label"), time.perf_counter()
    try:
        label = site.review.named(typed, bool(form.text("new")))
        photos = [(one.name, Path(one.path).read_bytes()) for one in form.uploads if not one.error]
        if not form.uploads:
            raise BreedsError("There is no photo yet; choose some, or drop them on the page.")
        result, trained = site.workshop.teach(label, photos)
    except BreedsError as error:
        return _page(site, request, 409, problem=str(error), typed=typed)
    refused = [Refused(one.name, one.error) for one in form.uploads if one.error]
    lesson = Lesson(result, trained, refused + result.refused, time.perf_counter() - started)
    return RedirectResponse(f"/teach?said={site.note(lesson)}", 303)


def _page(site: Site, request: Request, status: int = 200, **values: Any) -> Response:
    workshop = site.workshop
    state = workshop.state
    shown = {"lesson": None, "problem": "", "typed": ""} | values
    root = "" if state.store is None else state.store.table.root
    return site.page(
        request,
        "teach.html",
        status,
        **shown,
        state=state,
        problems=workshop.problems,
        root=root,
        is_there=bool(root) and os.path.isdir(root),
        most=MOST_FILES,
    )

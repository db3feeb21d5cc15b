"""The pages Review (one photo at a time: what it is, and training again) and Teach (photos into a class)."""

from __future__ import annotations

import os
import time
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import RedirectResponse, Response

from breeds.app.batches import SAYINGS, Case, ElsewhereError, Seen, mark_of
from breeds.app.look_page import looked_address
from breeds.app.service import MOST_FILES, Form, RefusedError, why_unexplained
from breeds.app.site import Site, site_of
from breeds.app.state import Trained
from breeds.errors import BreedsError, PhotoError, attempt
from breeds.review import Refused, Taught
from breeds.text import certainty

router = APIRouter(include_in_schema=False)
#: In the navigation.
PAGES = (("Review", "/review"), ("Teach", "/teach"))
#: The addresses of the batches, by name.
_BATCHES = {"check": "/review", "label": "/review/next"}
# Seconds that the first page waits for what is worked out; later ones never wait.
_PATIENCE = 2.0
# How many of the things done are listed.
_DONE_SHOWN = 50


@router.get("/review")
@router.get("/review/next")
def review(request: Request, said: int | None = None, trained: int | None = None, after: int = 0) -> Response:
    """Show the next of the labels to check, or of the photos to label."""
    name = "label" if request.url.path == _BATCHES["label"] else "check"
    site = site_of(request)
    now = site.state.refresh()
    note = _note(site, said)
    if now.store is None:
        return _page(site, request, name, None, note=note)
    found = site.review.batches[name].get(site.review.skipped, _PATIENCE, after)
    cases = [] if found is None else found.open(now, site.review.skipped)
    if found is None or (not cases and not found.fits(now)):
        return _page(site, request, name, None, note=note, working=True, trained=trained)
    return _page(
        site,
        request,
        name,
        cases[0] if cases else None,
        note=note,
        problem=found.problem,
        trained=trained,
        number=found.number,
        place=len(found.cases) - len(cases) + 1,
        total=len(found.cases),
        following=cases[1].item if len(cases) > 1 else None,
    )


@router.get("/review/{key}")
def one(request: Request, key: str, said: int | None = None) -> Response:
    """Show one photo of the store, whatever the batches are."""
    site = site_of(request)
    site.state.refresh()
    case = site.review.case(key)
    if case is None:
        raise RefusedError(404, "The store does not know this photo, or not any more.")
    return _page(site, request, "one", case, note=_note(site, said))


@router.post("/review")
async def say(request: Request) -> Response:
    """Keep what somebody says of a photo, and show the next."""
    site = site_of(request)
    async with site.change(request) as form:
        return await run_in_threadpool(_say, site, request, form)


def _say(site: Site, request: Request, form: Form) -> Response:
    key, saying, back = form.text("key"), form.text("do"), form.text("back")
    review = site.review
    if saying not in SAYINGS:
        raise RefusedError(400, "This is nothing that can be said of a photo.")
    try:
        label = ""
        if saying in ("agree", "keep"):
            label = review.name_of(form.text(saying))
        elif saying == "relabel":
            label = review.named(form.text("label"), bool(form.text("new")))
        done = review.say(saying, key, form.text("mark"), label)
    except ElsewhereError as error:
        return _to(f"/review/{key}", said=site.note(str(error)))
    except BreedsError as error:
        case = review.case(key, back if back in _BATCHES else "check")
        if case is None:
            raise RefusedError(404, str(error)) from None
        return _page(site, request, back, case, status=409, problem=str(error), typed=form.text("label"))
    if back not in _BATCHES:
        return _to(f"/review/{key}", said=site.note("That was said already.") if done is None else None)
    return _to(_BATCHES[back])


@router.post("/review/undo")
async def undo(request: Request) -> Response:
    """Take back what was done last, and show that photo."""
    site = site_of(request)
    async with site.change(request) as form:
        return await run_in_threadpool(_undo, site, form)


def _undo(site: Site, form: Form) -> Response:
    number, back = form.text("done"), form.text("back")
    where = _BATCHES.get(back) or _BATCHES["check"]
    try:
        done = site.review.undo(int(number) if number.isascii() and number.isdecimal() else 0)
    except BreedsError as error:
        return _to(where, said=site.note(str(error)))
    if done is None:
        return _to(where, said=site.note("That was taken back already, or something else was done since."))
    # The photo that it was about: to see that it is as it was, and to say what is right.
    found = site.review.batches[back].get(site.review.skipped) if back in _BATCHES else None
    first = next(iter(found.open(site.state.now, site.review.skipped)), None) if found else None
    if first is None or first.item.key != done.key:
        where = f"/review/{done.key}"
    return _to(where, said=site.note("Taken back."))


@router.post("/review/train")
async def train(request: Request) -> Response:
    """Train the model again, and show before and after."""
    site = site_of(request)
    async with site.change(request) as form:
        where = _BATCHES.get(form.text("back")) or _BATCHES["check"]
        number = site.state.trainings[-1].number if site.state.trainings else 0
        if form.text("trainings") != str(number):  # a second click, or a reload
            return _to(where, trained=number)
        try:
            found = await run_in_threadpool(site.state.train_again, bool(form.text("search")))
        except BreedsError as error:
            return _to(where, said=site.note(str(error)))
        return _to(where, trained=found.number)


def _to(path: str, **query: int | None) -> Response:
    """Lead to a page, so that loading it again does nothing again."""
    asked = "&".join(f"{name}={value}" for name, value in query.items() if value is not None)
    return RedirectResponse(f"{path}?{asked}" if asked else path, 303)


def _page(
    site: Site, request: Request, back: str, case: Case | None, status: int = 200, **values: Any
) -> Response:
    """Return the page about a photo, or about there being none."""
    state, review = site.state, site.review
    number = values.pop("trained", None)
    trained = next((one for one in state.trainings if one.number == number), None)
    shown = {
        "note": "", "problem": "", "typed": "", "working": False, "number": 0, "place": 0, "total": 0,
        "following": None,
    } | values  # fmt: skip
    return site.page(
        request,
        "review.html",
        status,
        **shown,
        back=back,
        state=state.now,
        problems=state.problems,
        photo=None if case is None else _photo(site, case, review.look(case.item.key)),
        changes=state.changes,
        trained=trained,
        trainings=state.trainings,
        done=review.done[: -_DONE_SHOWN - 1 : -1],
        counts=Counter(one.saying for one in review.done),
        has_unlabelled=state.now.store is not None and "" in state.now.store.table.label.names,
    )


def _photo(site: Site, case: Case, seen: Seen) -> dict[str, Any]:
    """Return what the template needs of a photo."""
    item, label = case.item, seen.label
    return (
        asdict(item)
        | asdict(seen)
        | {
            "label_mark": mark_of(label) if label else "",
            "suggestion": item.suggestion if item.suggestion != label else "",
            "suggestion_mark": mark_of(item.suggestion),
            "best": item.suggestion,
            "sure": certainty(item.probability),
            "is_test": item.part == "test",
            "missing": isinstance(attempt(site.state.now.read, item.key), PhotoError),
            "looked": _looked_address(site, item.key, item.suggestion),
            "nearest": case.nearest,
        }
    )


def _note(site: Site, number: int | None) -> str:
    found = site.noted(number)
    return found if isinstance(found, str) else ""


def _looked_address(site: Site, key: str, name: str) -> str:
    """Return the address of the picture of where the network looked, "" if there is none."""
    model = site.state.now.model
    if site.service.failure or name not in model.classes or why_unexplained(model):
        return ""
    return looked_address(key, name)


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
    site.state.refresh()
    lesson = site.noted(said)
    return _lesson_page(site, request, lesson=lesson if isinstance(lesson, Lesson) else None)


@router.post("/teach")
async def taught(request: Request) -> Response:
    """Put the photos into the class, compute their features, and train again."""
    site = site_of(request)
    async with site.change(request) as form:
        return await run_in_threadpool(_teach, site, request, form)


def _teach(site: Site, request: Request, form: Form) -> Response:
    typed, started = form.text("label"), time.perf_counter()
    try:
        label = site.review.named(typed, bool(form.text("new")))
        photos = [(one.name, one.read()) for one in form.uploads if not one.error]
        if not form.uploads:
            raise BreedsError("There is no photo yet; choose some, or drop them on the page.")
        result, trained = site.state.teach(label, photos)
    except BreedsError as error:
        return _lesson_page(site, request, 409, problem=str(error), typed=typed)
    refused = [Refused(one.name, one.error) for one in form.uploads if one.error]
    lesson = Lesson(result, trained, refused + result.refused, time.perf_counter() - started)
    return RedirectResponse(f"/teach?said={site.note(lesson)}", 303)


def _lesson_page(site: Site, request: Request, status: int = 200, **values: Any) -> Response:
    now = site.state.now
    shown = {"lesson": None, "problem": "", "typed": ""} | values
    root = "" if now.store is None else now.store.table.root
    return site.page(
        request,
        "teach.html",
        status,
        **shown,
        state=now,
        problems=site.state.problems,
        root=root,
        is_there=bool(root) and os.path.isdir(root),
        most=MOST_FILES,
    )

"""The page Review: one photo at a time, what it may be, and why; a word on it, and training again."""

from __future__ import annotations

from collections import Counter
from typing import Any

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import RedirectResponse, Response

from breeds.app.look import looked_address
from breeds.app.review import SAYINGS, ElsewhereError, Seen, mark_of
from breeds.app.rounds import Case, has_unlabelled
from breeds.app.site import Site, site_of
from breeds.app.uploads import Form, RefusedError
from breeds.errors import BreedsError
from breeds.heads.explain import check_explainable
from breeds.photos.again import is_there
from breeds.text import certainty

router = APIRouter(include_in_schema=False)
PAGE = ("Review", "/review")
#: The addresses of the rounds, by name.
_ROUNDS = {"check": "/review", "label": "/review/next"}
# Seconds that the first page waits for what is worked out; later ones never wait.
_PATIENCE = 2.0
# How many of the things done are listed.
_DONE_SHOWN = 50


@router.get("/review")
def review(request: Request, said: int | None = None, trained: int | None = None, after: int = 0) -> Response:
    """Show the next of the labels to check."""
    return _round(request, "check", said, trained, after)


@router.get("/review/next")
def label_next(
    request: Request, said: int | None = None, trained: int | None = None, after: int = 0
) -> Response:
    """Show the next of the photos to label."""
    return _round(request, "label", said, trained, after)


@router.get("/review/{key}")
def one(request: Request, key: str, said: int | None = None) -> Response:
    """Show one photo of the store, whatever the rounds are."""
    site = site_of(request)
    site.workshop.refresh()
    case = site.review.case(key)
    if case is None:
        raise RefusedError(404, "The store does not know this photo, or not any more.")
    return _page(site, request, "one", case, note=_note(site, said))


@router.post("/review")
async def say(request: Request) -> Response:
    """Keep what somebody says of a photo, and show the next."""
    site = site_of(request)
    form = await _form(site, request)
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
        case = review.case(key, back if back in _ROUNDS else "check")
        if case is None:
            raise RefusedError(404, str(error)) from None
        return _page(site, request, back, case, status=409, problem=str(error), typed=form.text("label"))
    if back not in _ROUNDS:
        return _to(f"/review/{key}", said=site.note("That was said already.") if done is None else None)
    return _to(_ROUNDS[back])


@router.post("/review/undo")
async def undo(request: Request) -> Response:
    """Take back what was done last, and show that photo."""
    site = site_of(request)
    form = await _form(site, request)
    return await run_in_threadpool(_undo, site, form)


def _undo(site: Site, form: Form) -> Response:
    number, back = form.text("done"), form.text("back")
    where = _ROUNDS.get(back) or _ROUNDS["check"]
    try:
        done = site.review.undo(int(number) if number.isascii() and number.isdecimal() else 0)
    except BreedsError as error:
        return _to(where, said=site.note(str(error)))
    if done is None:
        return _to(where, said=site.note("That was taken back already, or something else was done since."))
    # The photo that it was about: to see that it is as it was, and to say what is right.
    state = site.workshop.state
    found = site.review.rounds[back].get(site.review.skipped) if back in _ROUNDS else None
    first = next(iter(site.review.open(found, state)), None) if found else None
    if first is None or first.item.key != done.key:
        where = f"/review/{done.key}"
    return _to(where, said=site.note("Taken back."))


@router.post("/review/train")
async def train(request: Request) -> Response:
    """Train the model again, and show before and after."""
    site = site_of(request)
    form = await _form(site, request)
    where = _ROUNDS.get(form.text("back")) or _ROUNDS["check"]
    if form.text("trainings") != str(site.workshop.trained):  # a second click, or a reload
        return _to(where, trained=site.workshop.trained)
    try:
        found = await run_in_threadpool(site.workshop.train_again, bool(form.text("search")))
    except BreedsError as error:
        return _to(where, said=site.note(str(error)))
    return _to(where, trained=found.number)


async def _form(site: Site, request: Request) -> Form:
    form = await site.receive_change(request)
    site.uploads.remove(form.uploads)
    return form


def _to(path: str, **query: int | None) -> Response:
    """Lead to a page, so that loading it again does nothing again."""
    asked = "&".join(f"{name}={value}" for name, value in query.items() if value is not None)
    return RedirectResponse(f"{path}?{asked}" if asked else path, 303)


def _round(request: Request, name: str, said: int | None, trained: int | None, after: int) -> Response:
    site = site_of(request)
    state = site.workshop.refresh()
    review = site.review
    note = _note(site, said)
    if state.store is None:
        return _page(site, request, name, None, note=note)
    found = review.rounds[name].get(review.skipped, _PATIENCE, after)
    cases = [] if found is None else review.open(found, state)
    if found is None or (not cases and not found.fits(state)):
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


def _page(
    site: Site, request: Request, back: str, case: Case | None, status: int = 200, **values: Any
) -> Response:
    """Return the page about a photo, or about there being none."""
    workshop, review = site.workshop, site.review
    state = workshop.state
    number = values.pop("trained", None)
    trained = next((one for one in workshop.trainings if one.number == number), None)
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
        state=state,
        problems=workshop.problems,
        photo=None if case is None else _photo(site, case, review.look(case.item.key)),
        changes=workshop.changes,
        trained=trained,
        trainings=workshop.trainings,
        done=review.done[: -_DONE_SHOWN - 1 : -1],
        counts=Counter(one.saying for one in review.done),
        has_unlabelled=has_unlabelled(state),
    )


def _photo(site: Site, case: Case, seen: Seen) -> dict[str, Any]:
    """Return what the template needs of a photo."""
    item = case.item
    return {
        "key": item.key,
        "path": item.path,
        "mark": seen.mark,
        "label": seen.label,
        "label_mark": mark_of(seen.label) if seen.label else "",
        "said": seen.said,
        "came": seen.came,
        "kind": item.kind,
        "reason": item.reason,
        "suggestion": item.suggestion if item.suggestion != seen.label else "",
        "suggestion_mark": mark_of(item.suggestion),
        "best": item.suggestion,
        "sure": certainty(item.probability),
        "is_test": item.part == "test",
        "missing": _is_missing(site, item.key),
        "looked": _looked_address(site, item.key, item.suggestion),
        "nearest": case.nearest,
        "twin": item.twin,
        "twin_path": item.twin_path,
        "twin_label": item.twin_label,
    }


def _note(site: Site, number: int | None) -> str:
    found = site.noted(number)
    return found if isinstance(found, str) else ""


def _is_missing(site: Site, key: str) -> bool:
    found = site.workshop.photo(key)
    return found is None or not is_there(found[1])


def _looked_address(site: Site, key: str, name: str) -> str:
    """Return the address of the picture of where the network looked, "" if there is none."""
    if site.desk.failure or name not in site.workshop.model.classes:
        return ""
    try:
        check_explainable(site.workshop.model)
    except BreedsError:
        return ""
    return looked_address(key, name)

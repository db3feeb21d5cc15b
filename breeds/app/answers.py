"""Photos of a request to answers, in the order that they came: the way from uploads over the desk."""

from __future__ import annotations

import asyncio

from breeds.app.desk import Answered
from breeds.app.site import Site
from breeds.app.uploads import Upload
from breeds.prediction import Answer


async def answers(site: Site, uploads: list[Upload], explain: bool = False) -> list[Answered]:
    """Answer for photos that came; one that did not is answered with its reason.

    When this is cancelled, nothing that has not begun will be.

    Raises
    ------
    BusyError
        If too many photos wait already.
    BreedsError
        If the network cannot be opened.
    """
    model = site.desk.model
    asked = site.desk.ask([(one.key, one.path) for one in uploads if not one.error], explain)
    try:
        found = iter(await asyncio.gather(*map(asyncio.wrap_future, asked.futures)))
    finally:
        asked.give_up()
    return [
        Answered(Answer(one.path, None, one.error), model) if one.error else next(found) for one in uploads
    ]

"""A look at photos before any work on them: a page of what there is, and of what is wrong with it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from breeds.backbones.resolve import square
from breeds.config import FeatureConfig
from breeds.errors import BreedsError
from breeds.extraction import Selection
from breeds.outputs import PAGE, check_output
from breeds.photos import parse_resize, parse_views
from breeds.preview.found import ELONGATED, find
from breeds.preview.seen import see
from breeds.preview.sheet import values
from breeds.preview.tiles import Tiles
from breeds.report.render import write_page
from breeds.training import FEW

#: What views are shown as an example where none is asked for.
EXAMPLE_VIEWS = "flip,crops:3"


@dataclass(frozen=True)
class Preview:
    """What a preview found.

    Attributes
    ----------
    page
        Where the page is.
    photos, classes
        How many there are.
    duplicates, conflicts
        How many photos are copies of others, and how many different photos have two labels or two parts.
    quarantined
        The photos that cannot be used, each with its reason.
    seconds
        From start to page.
    """

    page: Path
    photos: int
    classes: int
    duplicates: int
    conflicts: int
    quarantined: list[tuple[str, str]]
    seconds: float


def preview(
    selection: Selection,
    page: Path,
    config: FeatureConfig,
    views: str | None,
    following: str,
    workers: int = 2,
) -> Preview:
    """Write a page that shows photos before they are extracted; no engine and no weights are needed.

    Every photo is read and decoded, as only that tells whether it can be. Memory holds the photos under
    way, the pictures on the page, and for each photo its listing (150 bytes) and its row (60).

    Parameters
    ----------
    selection, config
        Which photos, and what the network would be given of them; what it would compute does not matter.
    page
        The HTML file to write.
    views
        The views that would be extracted, as `breeds.photos.parse_views` takes them.
    following
        The command that comes next.
    workers
        Threads that read and decode.

    Raises
    ------
    BreedsError
        If the page cannot be written, or a user's mistake leaves nothing to show.
    """
    started = time.perf_counter()
    if page.suffix.lower() not in (".html", ".htm"):  # the next argument may have been meant otherwise
        raise BreedsError(f"--preview {page}: the page's name has to end in .html; name another file.")
    check_output(page, PAGE)
    size, resize = square(config)
    shown = parse_views(views or EXAMPLE_VIEWS)
    listing = selection.find()
    seen = see(listing, workers)
    found = find(seen, size)
    tiles = Tiles(seen, listing.root, page)
    write_page(
        "preview.html",
        page,
        seen=seen,
        found=found,
        selection=selection,
        config=config,
        size=size,
        resize=resize,
        how=parse_resize(resize),
        views_asked=bool(views),
        views=shown,
        example_views=EXAMPLE_VIEWS,
        following=following,
        few_photos=FEW,
        elongated=ELONGATED,
        **values(seen, found, tiles, size, resize, shown),
    )
    return Preview(
        page=page,
        photos=len(seen),
        classes=len(found.labelled),
        duplicates=found.duplicates,
        conflicts=len(found.conflicts),
        quarantined=[(seen.path[row], reason) for row, reason in seen.bad.items()],
        seconds=time.perf_counter() - started,
    )

"""A look at photos before any work on them: a page of what there is, and of what is wrong with it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from breeds.backbones.resolve import square
from breeds.config import FeatureConfig
from breeds.errors import BreedsError, PhotoError
from breeds.features.columns import Rows
from breeds.metrics import FEW
from breeds.outputs import PAGE, check_output
from breeds.photos import ORIGINAL, decode, find_photos, parse_resize, parse_views, photo_at
from breeds.report import charts
from breeds.report.photos import Album, Cut, Thumbnail, cut, shown
from breeds.report.render import write_page
from breeds.report.survey import ELONGATED, SMALL, Class, Found, Seen, find, see
from breeds.selection import Selection

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
    variants = parse_views(views or EXAMPLE_VIEWS)
    listing = find_photos(selection)
    seen = see(listing, workers)
    found = find(seen, size)
    album = Album(seen, page, seen.bad)
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
        views=variants,
        example_views=EXAMPLE_VIEWS,
        following=following,
        few_photos=FEW,
        elongated=ELONGATED,
        **values(seen, found, album, size, resize, variants),
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


#: Classes that the page shows at most; up to `FEW_CLASSES` these have longer rows.
MOST_CLASSES, FEW_CLASSES = 400, 20
#: Photos in rows at most: of each of few classes and of many, of very few classes together, of all.
OF_FEW, OF_MANY, TOGETHER, ALTOGETHER = 8, 5, 48, 600
#: Photos of a finding, groups of copies, members of a group, and photos that cannot be read.
MOST_TILES, MOST_GROUPS, MOST_MEMBERS, MOST_BAD = 24, 30, 6, 200
#: Sizes in the table, and views of an example.
MOST_SIZES, MOST_VIEWS = 8, 8
#: The examples are those less wide for their height than which are these shares of the photos.
EXAMPLES = (0.02, 0.5, 0.98)
#: Longest side of the examples' pictures, in pixels.
LARGE = 320


#: A photo as the template shows it.
Photo = dict[str, Any]


@dataclass(frozen=True)
class Row:
    """A class and photos of it; its bar is `width` percent long, the part that cannot be read more."""

    number: int
    of: Class
    width: float
    unreadable_width: float
    photos: Cut[Photo]


def values(
    seen: Seen, found: Found, album: Album, size: int, resize: str, views: Sequence[str]
) -> dict[str, Any]:
    """Return what the template shows of photos: tiles, groups, rows, sizes and examples."""
    good = seen.good
    chosen = [_evenly(rows, _of_each(found)) for rows in _rows_of_classes(seen, found)]
    extremes = _extremes(seen)
    odd, small = cut(found.odd.tolist(), MOST_TILES), cut(found.small.tolist(), MOST_TILES)
    conflicts, copies = cut(found.conflicts, MOST_GROUPS), cut(found.copies, MOST_GROUPS)
    album.fetch(
        [row for photos in chosen for row in photos]
        + [*extremes.values(), *odd.shown, *small.shown]
        + [int(group[0]) for group in (*conflicts.shown, *copies.shown)]
    )
    bad = cut(list(seen.bad.items()), MOST_BAD)
    return {
        "rows": _rows(seen, found, chosen, album),
        "parts": Counter(part for part in seen.split if part),
        "sizes": _sizes(seen),
        "shapes": _shapes(seen),
        "chart": charts.sizes(seen.width[good], seen.height[good], size) if len(good) else None,
        "extremes": [(name, _photo(album, seen, row)) for name, row in extremes.items()],
        "examples": list(_examples(seen, album, size, resize, views[:MOST_VIEWS])),
        "many": len(found.classes) > FEW_CLASSES,
        "more_views": max(0, len(views) - MOST_VIEWS),
        "bad": Cut([_photo(album, seen, row) for row, _ in bad.shown], bad.more),
        "odd": Cut([_photo(album, seen, row) for row in odd.shown], odd.more),
        "small": Cut([_photo(album, seen, row) for row in small.shown], small.more),
        "conflicts": Cut([_group(rows, seen, album) for rows in conflicts.shown], conflicts.more),
        "few": cut(found.few, MOST_CLASSES),
        "clean": _clean(seen, found),
        "copies": Cut([_group(rows, seen, album) for rows in copies.shown], copies.more),
    }


def _of_each(found: Found) -> int:
    """Return how many photos of a class are shown."""
    shown = min(len(found.classes), MOST_CLASSES)
    if shown > FEW_CLASSES:
        return min(OF_MANY, ALTOGETHER // shown)
    return OF_FEW * max(1, TOGETHER // (OF_FEW * shown))  # whole rows of them


def _rows_of_classes(seen: Seen, found: Found) -> Iterator[Rows]:
    """Yield the usable photos of every class that is shown."""
    codes = {name: code for code, name in enumerate(seen.label.names)}
    good = seen.good
    for one in found.classes[:MOST_CLASSES]:
        yield good[seen.label.codes[good] == codes[one.name]]


def _evenly(rows: Rows, most: int) -> list[int]:
    """Return at most so many rows, evenly spaced from the first to the last."""
    places = np.linspace(0, len(rows) - 1, min(len(rows), most)).round().astype(np.intp)
    chosen: list[int] = rows[places].tolist()
    return chosen


def _rows(seen: Seen, found: Found, chosen: Sequence[Sequence[int]], album: Album) -> Cut[Row]:
    longest = max(one.usable + one.unreadable for one in found.classes)
    rows = [
        Row(
            number=number,
            of=one,
            width=round(100 * one.usable / longest, 2),
            unreadable_width=round(100 * one.unreadable / longest, 2),
            photos=Cut([_photo(album, seen, row) for row in photos], one.usable - len(photos)),
        )
        for number, (one, photos) in enumerate(zip(found.classes, chosen, strict=False))
    ]
    return Cut(rows, len(found.classes) - len(rows))


def _photo(album: Album, seen: Seen, row: int) -> Photo:
    size = f"{seen.width[row]}×{seen.height[row]}" if seen.width[row] else ""
    name = f"photo {seen.path[row]}"
    return album.photo(row, name, label=seen.label[row], split=seen.split[row], size=size)


def _group(rows: Rows, seen: Seen, album: Album) -> dict[str, Any]:
    """Return photos that are one and the same, byte for byte, and the picture of the first of them."""
    members = cut(rows.tolist(), MOST_MEMBERS)
    files = Cut([_photo(album, seen, row) for row in members.shown], members.more)
    return {"photo": _photo(album, seen, int(rows[0])), "members": files}


def _extremes(seen: Seen) -> dict[str, int]:
    """Return the rows of the smallest, the largest and the most elongated photo, if there is any."""
    good = seen.good
    if not len(good):
        return {}
    area = seen.width[good].astype(np.int64) * seen.height[good]
    return {
        "smallest": int(good[area.argmin()]),
        "largest": int(good[area.argmax()]),
        "most elongated": int(good[seen.elongation(good).argmax()]),
    }


def _sizes(seen: Seen) -> Cut[tuple[str, int, float]]:
    """Return the most common sizes: width × height, how many photos, and their bar in percent."""
    good = seen.good
    pairs = np.stack([seen.width[good], seen.height[good]], axis=1)
    sizes, counts = np.unique(pairs, axis=0, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:MOST_SIZES]
    shown = [
        (f"{width}×{height}", count, round(100 * count / int(counts.max()), 2))
        for (width, height), count in zip(sizes[order].tolist(), counts[order].tolist(), strict=True)
    ]
    return Cut(shown, len(sizes) - len(shown))


def _shapes(seen: Seen) -> list[tuple[str, int]]:
    """Return how many photos are wider than high, higher than wide, and neither."""
    good = seen.good
    wider = np.sign(seen.width[good] - seen.height[good])
    signs = {"wider than high": 1, "higher than wide": -1, "square": 0}
    return [(what, int((wider == sign).sum())) for what, sign in signs.items()]


def _examples(
    seen: Seen, album: Album, size: int, resize: str, views: Sequence[str]
) -> Iterator[tuple[Photo, list[dict[str, Any]]]]:
    """Yield a tall photo, a common one and a wide one, each with the squares that become of it."""
    good = seen.good
    enough = good[seen.shorter(good) >= SMALL * size]  # in a tiny photo there is little to see
    good = enough if len(enough) else good
    by_shape = good[np.argsort(seen.width[good] / seen.height[good], kind="stable")].tolist()
    places = [round(share * (len(by_shape) - 1)) for share in EXAMPLES if by_shape]
    rows = [by_shape[place] for place in sorted(set(places))]
    for row, picture in zip(rows, album.pictures(rows, LARGE), strict=True):
        photo = _photo(album, seen, row) | shown(picture)
        yield photo, [_square(album.file(row), photo["name"], size, resize, v) for v in (ORIGINAL, *views)]


def _square(path: str, name: str, size: int, resize: str, view: str) -> dict[str, Any]:
    """Return what the network is given of a photo in one view, or why it is not."""
    try:
        pixels = decode(photo_at("", path).read(), size, resize, view)
    except PhotoError as error:
        return {"view": view, "name": name, **shown(error)}
    return {"view": view, "name": name, **shown(Thumbnail.of_pixels(pixels, LARGE))}


def _clean(seen: Seen, found: Found) -> list[str]:
    """Name what was looked for and not found."""
    looked_for = {
        "photos that cannot be read": seen.bad,
        "the same photo with two answers": found.conflicts,
        "duplicates": range(found.duplicates),
        "classes with too few photos": found.few,
        "odd shapes": found.odd,
        "very small photos": found.small,
    }
    return [what for what, there in looked_for.items() if not len(there)]

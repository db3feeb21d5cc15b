"""A look at photos before any work on them: a page of what there is, and of what is wrong with it."""

from __future__ import annotations

import time
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
from numpy.typing import NDArray

from breeds.backbones.resolve import square
from breeds.config import FeatureConfig
from breeds.errors import BreedsError, PhotoError
from breeds.features.columns import PACKED, Keys, Names, Rows, Texts
from breeds.metrics import FEW
from breeds.outputs import PAGE, check_output
from breeds.photos import Listing, Photo, find_photos, parse_resize, photo_at
from breeds.photos.decode import ORIGINAL, decode, key_of, look, parse_views
from breeds.report import charts
from breeds.report.photos import Album, Cut, Thumbnail, cut, each, shown
from breeds.report.render import write_page
from breeds.selection import Selection
from breeds.text import progress

#: What views are shown as an example where none is asked for.
EXAMPLE_VIEWS = "flip,crops:3"
#: A photo longer than this many times its shorter side is of an odd shape.
ELONGATED = 3.0
#: A photo whose shorter side is below this share of the network's input is small.
SMALL = 0.5
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
LARGE = 320  # pixels, the longest side of their pictures


def preview(
    selection: Selection,
    page: Path,
    config: FeatureConfig,
    views: str | None,
    following: str,
    workers: int = 2,
) -> tuple[Seen, Found]:
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

    Returns
    -------
    seen, found
        All the photos, and what was found out about them.

    Raises
    ------
    BreedsError
        If the page cannot be written, or a user's mistake leaves nothing to show.
    """
    if page.suffix.lower() not in (".html", ".htm"):  # the next argument may have been meant otherwise
        raise BreedsError(f"--preview {page}: the page's name has to end in .html; name another file.")
    check_output(page, PAGE)
    size, resize = square(config)
    variants = parse_views(views or EXAMPLE_VIEWS)
    listing = find_photos(selection)
    seen = see(listing, workers)
    found = find(seen, size)
    good, album = seen.good, Album(seen.root, seen.path, seen.key, page, seen.bad)
    chosen, extremes = _chosen(seen, found), _extremes(seen)
    odd, small = cut(found.odd.tolist(), MOST_TILES), cut(found.small.tolist(), MOST_TILES)
    conflicts, copies = cut(found.conflicts, MOST_GROUPS), cut(found.copies, MOST_GROUPS)
    album.fetch(
        [row for photos in chosen for row in photos]
        + [*extremes.values(), *odd.shown, *small.shown]
        + [int(group[0]) for group in (*conflicts.shown, *copies.shown)]
    )

    photo = partial(_photo, album, seen)

    def group(rows: Rows) -> dict[str, Any]:
        return {"photo": photo(int(rows[0])), "members": cut(rows.tolist(), MOST_MEMBERS).each(photo)}

    write_page(
        "preview.html",
        page,
        seen=seen,
        found=found,
        listing=listing,
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
        rows=_rows(seen, found, chosen, album),
        parts=Counter(part for part in seen.split if part),
        sizes=_sizes(seen),
        wider=Counter(np.sign(seen.width[good] - seen.height[good]).tolist()),
        chart=charts.sizes(seen.width[good], seen.height[good], size) if len(good) else None,
        extremes=[(name, photo(row)) for name, row in extremes.items()],
        examples=list(_examples(seen, album, size, resize, variants[:MOST_VIEWS])),
        many=len(found.classes) > FEW_CLASSES,
        more_views=max(0, len(variants) - MOST_VIEWS),
        bad=cut(list(seen.bad), MOST_BAD).each(photo),
        odd=odd.each(photo),
        small=small.each(photo),
        conflicts=conflicts.each(group),
        few=cut(found.few, MOST_CLASSES),
        copies=copies.each(group),
    )
    return seen, found


@dataclass
class Seen:
    """The photos of a listing, in its order, one row each: about 60 bytes and the path's length.

    Attributes
    ----------
    root, path, label, split
        As the listing has them.
    key
        Of each photo's bytes; zeros where they could not be read.
    width, height
        Of the photo upright, in pixels, int32 (n,); 0 where it could not be decoded.
    bad
        The rows of photos that cannot be used, each with its reason.
    seconds
        How long the look at all of them took.
    """

    root: str
    path: Texts
    label: Names
    split: Names
    key: Keys
    width: NDArray[np.int32]
    height: NDArray[np.int32]
    bad: dict[int, str]
    seconds: float

    def __len__(self) -> int:
        return len(self.path)

    @property
    def good(self) -> Rows:
        """The rows of the photos that can be used."""
        return np.flatnonzero(self.width)

    def sides(self, rows: Rows) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Return the shorter and the longer side of photos, in pixels."""
        width, height = self.width[rows], self.height[rows]
        return np.minimum(width, height), np.maximum(width, height)


def see(listing: Listing, workers: int) -> Seen:
    """Read and decode every photo of a listing, whose photos the result takes the place of."""
    started, photos = time.perf_counter(), listing.photos
    if not isinstance(photos, list):
        raise BreedsError(f"The photos of {listing.root} are no files in a folder here; name such a folder.")
    keys, widths, heights, bad = bytearray(), array("i"), array("i"), {}
    watched = progress(photos, desc="looking", unit=" photos", leave=False, delay=1)
    for row, (key, width, height, reason) in enumerate(each(_look, watched, workers)):
        keys += bytes.fromhex(key) or bytes(PACKED.itemsize)
        widths.append(width)
        heights.append(height)
        if reason:
            bad[row] = reason
    seen = Seen(
        root=listing.root,
        path=Texts.of(photo.name for photo in photos),
        label=Names.of(photo.label for photo in photos),
        split=Names.of(photo.split for photo in photos),
        key=Keys(np.frombuffer(keys, dtype=PACKED)),
        width=np.frombuffer(widths, dtype=np.int32),
        height=np.frombuffer(heights, dtype=np.int32),
        bad=bad,
        seconds=time.perf_counter() - started,
    )
    photos.clear()
    return seen


def _look(photo: Photo, stop: Event) -> tuple[str, int, int, str]:
    """Return key, width, height and reason of a photo."""
    key = ""
    try:
        data = photo.read()
        key = key_of(data)
        small = look(data, 32, stop)  # a JPEG need not be decoded in full to know that it can be
    except PhotoError as error:
        return key, 0, 0, str(error)
    return key, small.width, small.height, ""


@dataclass(frozen=True)
class Class:
    """A class and its photos: `usable` can be decoded, `different` of these are no copies."""

    name: str
    usable: int
    different: int
    unreadable: int


@dataclass
class Found:
    """What was found out about photos.

    Attributes
    ----------
    classes
        In the order of their names; "" holds the photos without a label, if there are any.
    copies
        Rows of photos that are the same, byte for byte, a group each.
    duplicates
        How many photos are copies of another one.
    conflicts
        The groups of rows that are the same photo under different labels or in different parts of the
        split, readable or not: what extraction refuses.
    odd, small
        Rows of photos that are elongated, or small for the network's input; the worst first.
    """

    classes: list[Class]
    copies: list[Rows]
    duplicates: int
    conflicts: list[Rows]
    odd: Rows
    small: Rows

    @property
    def labelled(self) -> list[Class]:
        """The classes, without the photos that have no label."""
        return [one for one in self.classes if one.name]

    @property
    def few(self) -> list[Class]:
        """The classes with fewer different photos than training can rest on, the smallest first."""
        few = [one for one in self.labelled if one.different < FEW]
        return sorted(few, key=lambda one: (one.different, one.name))


def find(seen: Seen, size: int) -> Found:
    """Look for all that a person should know before photos are extracted at an input `size`."""
    good = seen.good
    groups = _same_bytes(seen)
    copies = [group for rows in groups if len(group := rows[seen.width[rows] > 0]) > 1]
    shorter, longer = seen.sides(good)
    elongation = longer / shorter
    odd, small = np.argsort(-elongation, kind="stable"), np.argsort(shorter, kind="stable")
    return Found(
        classes=_classes(seen),
        copies=[rows for rows in copies if not _differ(seen, rows)],
        duplicates=sum(len(rows) - 1 for rows in copies),
        conflicts=[rows for rows in groups if _differ(seen, rows)],
        odd=good[odd[elongation[odd] > ELONGATED]],
        small=good[small[shorter[small] < SMALL * size]],
    )


def _same_bytes(seen: Seen) -> list[Rows]:
    """Return the rows of photos with the same key, a group each, in the order of their first rows."""
    read = np.flatnonzero(seen.key.packed != b"")
    _, place, count = np.unique(seen.key.packed[read], return_inverse=True, return_counts=True)
    several = np.flatnonzero(count[place] > 1)
    ordered = several[np.argsort(place[several], kind="stable")]
    groups = np.split(read[ordered], np.flatnonzero(np.diff(place[ordered])) + 1)
    return sorted((rows for rows in groups if len(rows)), key=lambda rows: int(rows[0]))


def _differ(seen: Seen, rows: Rows) -> bool:
    return any(len(np.unique(column.codes[rows])) > 1 for column in (seen.label, seen.split))


def _classes(seen: Seen) -> list[Class]:
    good = seen.good
    names, codes = seen.label.names, seen.label.codes
    first = seen.key.take(good).first_rows()
    usable, different, everything = (
        np.bincount(codes[rows], minlength=len(names)).tolist() for rows in (good, good[first], slice(None))
    )
    return [Class(name, usable[i], different[i], everything[i] - usable[i]) for i, name in enumerate(names)]


def _chosen(seen: Seen, found: Found) -> list[list[int]]:
    """Choose the photos that are shown of every class, evenly spaced among those that can be used."""
    shown = min(len(found.classes), MOST_CLASSES)
    if shown > FEW_CLASSES:
        most = min(OF_MANY, ALTOGETHER // shown)
    else:
        most = OF_FEW * max(1, TOGETHER // (OF_FEW * shown))  # whole rows of them
    good, chosen = seen.good, []
    for one in found.classes[:MOST_CLASSES]:
        rows = good[seen.label.codes[good] == seen.label.names.index(one.name)]
        places = np.linspace(0, len(rows) - 1, min(len(rows), most)).round().astype(np.intp)
        chosen.append(rows[places].tolist())
    return chosen


def _rows(seen: Seen, found: Found, chosen: Sequence[Sequence[int]], album: Album) -> Cut[dict[str, Any]]:
    """Return the classes with photos; a bar is `width` percent long, the part that cannot be read more."""
    longest = max(one.usable + one.unreadable for one in found.classes)
    rows = [
        {
            "number": number,
            "of": one,
            "width": round(100 * one.usable / longest, 2),
            "unreadable_width": round(100 * one.unreadable / longest, 2),
            "photos": Cut([_photo(album, seen, row) for row in photos], one.usable - len(photos)),
        }
        for number, (one, photos) in enumerate(zip(found.classes, chosen, strict=False))
    ]
    return Cut(rows, len(found.classes) - len(rows))


def _photo(album: Album, seen: Seen, row: int) -> dict[str, Any]:
    size = f"{seen.width[row]}×{seen.height[row]}" if seen.width[row] else ""
    name = f"photo {seen.path[row]}"
    return album.photo(row, name, label=seen.label[row], split=seen.split[row], size=size)


def _extremes(seen: Seen) -> dict[str, int]:
    """Return the rows of the smallest, the largest and the most elongated photo, if there is any."""
    good = seen.good
    if not len(good):
        return {}
    shorter, longer = seen.sides(good)
    area = shorter.astype(np.int64) * longer
    places = {
        "smallest": area.argmin(),
        "largest": area.argmax(),
        "most elongated": (longer / shorter).argmax(),
    }
    return {name: int(good[place]) for name, place in places.items()}


def _sizes(seen: Seen) -> Cut[tuple[str, int, float]]:
    """Return the most common sizes: width × height, how many photos, and their bar in percent."""
    pairs = np.stack([seen.width[seen.good], seen.height[seen.good]], axis=1)
    sizes, counts = np.unique(pairs, axis=0, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    found = zip(sizes[order].tolist(), counts[order].tolist(), strict=True)
    rows = [(f"{width}×{height}", n, round(100 * n / int(counts.max()), 2)) for (width, height), n in found]
    return cut(rows, MOST_SIZES)


def _examples(
    seen: Seen, album: Album, size: int, resize: str, views: Sequence[str]
) -> Iterator[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """Yield a tall photo, a common one and a wide one, each with the squares that become of it."""
    good = seen.good
    enough = good[seen.sides(good)[0] >= SMALL * size]  # in a tiny photo there is little to see
    good = enough if len(enough) else good
    by_shape = good[np.argsort(seen.width[good] / seen.height[good], kind="stable")].tolist()
    places = [round(share * (len(by_shape) - 1)) for share in EXAMPLES if by_shape]
    rows = [by_shape[place] for place in sorted(set(places))]

    def square(row: int, view: str) -> dict[str, Any]:
        made: Thumbnail | PhotoError
        try:
            made = Thumbnail.of_pixels(
                decode(photo_at(seen.root, seen.path[row]).read(), size, resize, view), LARGE
            )
        except PhotoError as error:
            made = error
        return {"view": view, "name": seen.path[row], **shown(made)}

    for row, picture in zip(rows, album.pictures(rows, LARGE), strict=True):
        yield _photo(album, seen, row) | shown(picture), [square(row, v) for v in (ORIGINAL, *views)]

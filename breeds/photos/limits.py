"""What a photo's file may ask for beside its pixels: scans, metadata and time, told before Pillow obeys.

A decoder does whatever a file says. A few bytes can say "go over all pixels once more" two million
times, or "here follow ten million fractions", each of which Pillow makes an object of.
"""

from __future__ import annotations

import io
import re
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from PIL import Image

from breeds.errors import PhotoError

#: How long the processor may work on one photo, in seconds. An ordinary photo takes a tenth of one, the
#: largest that is allowed about five; time of the processor, so that a busy machine refuses no more.
MAX_SECONDS = 60
#: How many bytes a photo's file may have.
MAX_BYTES = 100 * 2**20
#: How many pixels a photo may have.
MAX_PIXELS = 128_000_000
#: How often a JPEG may go over its pixels, and the largest photo: encoders do so a dozen times at most.
MAX_SCANS, LARGE_SCANS = 100, 16
#: Text, profiles, thumbnails and the like, in bytes, unpacked.
MAX_METADATA = 32 * 2**20
#: Numbers among them, in bytes: Pillow makes an object of each, of up to 30 times its size.
MAX_NUMBERS = 2 * 2**20

# What a read costs, or a chunk, at least: Pillow keeps small ones as objects too.
_READ, _CHUNK, _PIXEL_CHUNK, _TABLE = 64, 256, 16, 32
# What Pillow unpacks of one compressed text at most, and how far zlib can squeeze.
_TEXT, _SQUEEZED = 2**20, 1032

# A marker of a JPEG, but for those inside of a scan; found in one go however many \xff there are.
_MARKER = re.compile(rb"\xff([^\x00\xd0-\xd7\xff])")
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE = frozenset([0xC2, 0xC6, 0xCA, 0xCE])
# Pillow makes objects of tables and frames, and there are few of them in honest photos.
_TABLES = frozenset([*range(0xC0, 0xD0), 0xDB, 0xDE])
_ALONE, _END, _SCAN, _APP1 = frozenset([0x01, 0xD8]), 0xD9, 0xDA, 0xE1

# Bytes of a value of each type in TIFF and EXIF; the first three are taken as they are.
_BYTES = {1: 1, 2: 1, 7: 1}
_NUMBERS = {3: 2, 4: 4, 5: 8, 6: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_POINTERS = frozenset([0x8769, 0x8825, 0xA005])  # to the directories of EXIF, GPS and interoperability


def size_fault(size: int) -> str:
    """Say why a photo's file of so many bytes is not read, "" if it is.

    Examples
    --------
    >>> size_fault(0), size_fault(200 * 2**20), size_fault(1)
    ('empty file (0 bytes)', '200 MiB is over the limit of 100 MiB', '')
    """
    if size < 1:
        return "empty file (0 bytes)"
    if size > MAX_BYTES:
        return f"{size / 2**20:.0f} MiB is over the limit of {MAX_BYTES // 2**20} MiB"
    return ""


@dataclass(frozen=True)
class Contents:
    """What a file holds beside its pixels.

    Parameters
    ----------
    metadata
        Their bytes, about, when Pillow has unpacked them.
    several_scans
        Whether it is a JPEG that comes in more than one scan.
    scans
        Where its scans begin, but for the first.
    bounded
        Whether all of it is known to be within the limits, so that opening it needs no watch.
    """

    metadata: int = 0
    several_scans: bool = False
    bounded: bool = False
    scans: list[int] = field(default_factory=list)


class Watched(io.BytesIO):
    """A photo's bytes, for Pillow to read: where it reads on, decoding can end.

    Pillow hands its decoders one piece after the other, so that no call lasts long; of a JPEG in several
    scans, no more than one scan at a time.

    Parameters
    ----------
    data, contents
        The photo's bytes, and what is in them.
    stop
        Once it is set, reading ends with a `PhotoError`.
    """

    def __init__(self, data: bytes, contents: Contents, stop: threading.Event | None) -> None:
        super().__init__(data)
        self._scans = contents.scans[::-1]
        self._stop = stop
        self._until = time.thread_time() + MAX_SECONDS
        self._allowance = MAX_METADATA
        # Methods of the instance, as Pillow reads a JPEG's header byte by byte, and a call costs time.
        if not contents.bounded:
            self.read = self._read_metadata  # type: ignore[method-assign]

    def close(self) -> None:
        """Let go of the bytes, and of the method that makes a circle with this."""
        self.__dict__.pop("read", None)
        super().close()

    def opened(self) -> None:
        """Say that what is read from now on is pixels."""
        self.read = self._read_pixels  # type: ignore[method-assign]

    def _read_metadata(self, size: int | None = -1, /) -> bytes:
        """Read as `io.BytesIO` does, until the photo has had its share of metadata."""
        if size is not None and size >= 0:  # WebP's library takes all at once, and makes no objects
            self._allowance -= max(size, _READ)
            if self._allowance < 0:
                raise _too_much_metadata()
        return super().read(size)

    def _read_pixels(self, size: int | None = -1, /) -> bytes:
        """Read as `io.BytesIO` does, until the photo has had its time, or all is to end."""
        if self._stop is not None and self._stop.is_set():
            raise PhotoError("stopped")
        if time.thread_time() > self._until:
            raise PhotoError(f"decoding takes over the limit of {MAX_SECONDS} seconds")
        if self._scans and size is not None and size > 0:
            at = self.tell()
            while self._scans and self._scans[-1] <= at:
                self._scans.pop()
            if self._scans:
                size = min(size, self._scans[-1] - at)
        return super().read(size)


def contents_of(data: bytes) -> Contents:
    """Look through a file for what it holds beside its pixels, whatever its format.

    Raises
    ------
    PhotoError
        If it has more scans or metadata than it may.
    """
    if data.startswith(b"\xff\xd8\xff"):
        return _jpeg(data)
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return Contents(metadata=_png(data))
    if data[:2] in (b"II", b"MM"):
        return Contents(_check_numbers(data), bounded=True)
    return Contents()


def check_exif(image: Image.Image) -> None:
    """Check what else but its format says of how a photo lies, before Pillow makes objects of it.

    Raises
    ------
    PhotoError
        If it is more than it may be.
    """
    if image.format in ("JPEG", "MPO"):
        return  # as `contents_of` has done
    exif = image.info.get("exif")
    if exif is None and "Raw profile type exif" in image.info:
        text = str(image.info["Raw profile type exif"])
        if len(text) > 4 * MAX_NUMBERS:
            raise _too_much_metadata()
        try:
            exif = bytes.fromhex("".join(text.split("\n")[3:]))
        except ValueError:  # Pillow cannot read it either
            return
    if isinstance(exif, bytes):
        _check_numbers(re.sub(b"^(Exif\x00\x00){1,2}", b"", exif))


def check_tiff(image: Image.Image, data: bytes) -> None:
    """Check what libtiff will do in one go: nobody can end it before it has done all.

    Raises
    ------
    PhotoError
        If its tiles are larger than a photo may be, or the JPEG in them has too many scans.
    """
    tags = image.tag_v2  # type: ignore[attr-defined]
    if tile_pixels(image) > MAX_PIXELS:
        raise PhotoError("its tiles are larger than a photo may be")
    if image.info.get("compression") not in ("jpeg", "tiff_jpeg"):
        return
    for starts, lengths in ((273, 279), (324, 325)):
        for start, length in zip(tags.get(starts, ()), tags.get(lengths, ()), strict=False):
            if data.count(b"\xff\xda", start, start + length) > LARGE_SCANS:
                raise PhotoError("the JPEG in it has too many scans")


def tile_pixels(image: Image.Image) -> int:
    """Return how many pixels each tile of a TIFF has, 0 where it has none."""
    tags = image.tag_v2  # type: ignore[attr-defined]
    sides = tags.get(322, 0), tags.get(323, 0)
    return sides[0] * sides[1] if all(isinstance(side, int) for side in sides) else 0


def tiff_pixel_bytes(image: Image.Image) -> int:
    """Return how many bytes a pixel of a TIFF takes when it is unpacked, 4 at least."""
    tags = image.tag_v2  # type: ignore[attr-defined]
    bits, bands = tags.get(258, (1,)), tags.get(277, 1)
    return max(4, int(max(bits) * max(len(bits), bands) + 7) // 8)


def _too_much_metadata() -> PhotoError:
    return PhotoError(f"its metadata are over the limit of {MAX_METADATA // 2**20} MiB")


def _jpeg(data: bytes) -> Contents:
    """Look through a JPEG's segments; through its scans only if there are several."""
    at, bands, pixels, several, metadata = 2, 0, 0, False, 0
    exif: list[bytes] = []
    scans: list[int] = []
    while marker := _MARKER.search(data, at):
        # Before the first scan, Pillow reads on byte by byte until there is a marker.
        metadata += _READ * (2 if scans else marker.end() - at)
        kind, at = marker[1][0], marker.end()
        if kind in _ALONE:
            continue
        if kind == _END:
            break
        length = max(2, int.from_bytes(data[at : at + 2], "big"))
        if kind in _FRAMES and not bands and at + 8 <= len(data):
            height, width, bands = struct.unpack_from(">HHB", data, at + 3)
            pixels, several = width * height, kind in _PROGRESSIVE
        elif kind == _APP1 and not scans and data.startswith(b"Exif\0\0", at + 2):
            exif.append(data[at + 8 : at + length])
        elif kind == _SCAN:
            several = several or data[at + 2 : at + 3] < bytes([bands])
            if not several:
                break
            scans.append(at)
            if len(scans) > MAX_SCANS or len(scans) * pixels > LARGE_SCANS * MAX_PIXELS:
                raise PhotoError(f"it goes over its pixels too often: {len(scans)} scans or more")
        metadata += length * (_TABLE if kind in _TABLES else 1)
        if metadata > MAX_METADATA:
            raise _too_much_metadata()
        at += length
    if exif:
        _check_numbers(b"".join(exif))
    return Contents(metadata, several, True, scans[1:])


def _png(data: bytes) -> int:
    """Return about how many bytes the chunks of a PNG are that are not of pixels, unpacked."""
    at, total = 8, 0
    while at + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        if kind == b"IEND":
            break
        if kind in (b"IDAT", b"fdAT"):
            total += _PIXEL_CHUNK
        elif kind in (b"zTXt", b"iTXt", b"iCCP"):
            total += _CHUNK + max(length, min(_TEXT, _SQUEEZED * length))
        else:
            total += _CHUNK + length
        if total > MAX_METADATA:
            raise _too_much_metadata()
        at += 12 + length
    return total


def _check_numbers(data: bytes) -> int:
    """Check the directory that a TIFF or EXIF begins with, and those it points to; return their bytes.

    Raises
    ------
    PhotoError
        If its numbers, or all its values together, are more than they may be; values may lie over each
        other, so that a small file can hold many large ones.
    """
    numbers, total = 0, 0
    for size, is_number in _values(data):
        total += size
        numbers += 16 + (size if is_number else 0)
        if numbers > MAX_NUMBERS:
            raise PhotoError(f"the numbers in its metadata are over the limit of {MAX_NUMBERS // 2**20} MiB")
        if total > len(data) + MAX_METADATA:
            raise _too_much_metadata()
    return total


def _values(data: bytes) -> Iterator[tuple[int, bool]]:
    """Yield the bytes of each value in a TIFF's first directories, and whether they are numbers."""
    order, big = (">" if data[:2] == b"MM" else "<"), data[2:4] in (b"\x2b\0", b"\0\x2b")
    first, count, entry = ("8xQ", "Q", "HHQQ") if big else ("4xL", "H", "HHLL")
    step, size = struct.calcsize(order + entry), struct.calcsize(order + count)
    try:
        directories = list(struct.unpack_from(order + first, data))
        for depth, at in enumerate(directories):  # the first one names the others
            (entries,) = struct.unpack_from(order + count, data, at)
            for place in range(at + size, at + size + entries * step, step):
                tag, kind, many, value = struct.unpack_from(order + entry, data, place)
                if depth == 0 and tag in _POINTERS:
                    directories.append(value >> (16 if order == ">" and kind == 3 and not big else 0))
                yield many * (_BYTES.get(kind) or _NUMBERS.get(kind, 0)), kind in _NUMBERS
    except (struct.error, OverflowError):  # cut off, as Pillow will find
        return

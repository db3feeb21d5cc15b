"""How many bytes decoding a photo takes, and the budget that all that decode at once share."""

from __future__ import annotations

import ctypes
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import Image

from breeds.errors import PhotoError
from breeds.photos.limits import Contents, tiff_pixel_bytes, tile_pixels

#: What decoding may take at once, in bytes, over all threads of a process together.
DECODE_BYTES = 3 * 2**29
#: Conversions to RGB work on rows of about this many pixels at a time.
STRIPE_PIXELS = 2**18

# What Pillow stores for a pixel of a mode, in bytes; the others take 4.
_STORED = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2, "I;16L": 2, "I;16N": 2}
# Conversion of a stripe, and the tables of a resize for each row and column (measured, rounded up).
_STRIPE_BYTES, _SIDE_BYTES = 32, 24
# What a character of text takes.
_UNPACKED = 4


# After a photo of so many bytes, what was freed is given back to the system (a millisecond or two).
_LARGE = 2**28


class Budget:
    """Bytes that all threads that decode share: who wants more than is free waits, in turn."""

    def __init__(self, total: int) -> None:
        self.total = total
        self._taken = 0
        self._turn = threading.Lock()
        self._changed = threading.Condition()

    @contextmanager
    def hold(self, wanted: int) -> Iterator[None]:
        """Hold so many bytes while the block runs.

        Raises
        ------
        PhotoError
            If that is more than there is altogether.
        """
        if wanted > self.total:
            raise PhotoError(
                f"decoding takes {wanted / 2**30:.1f} GiB of memory, over the limit of "
                f"{self.total / 2**30:.1f} GiB"
            )
        with self._turn, self._changed:  # one at a time, or a large photo could wait for ever
            self._changed.wait_for(lambda: self._taken + wanted <= self.total)
            self._taken += wanted
        try:
            yield
        finally:
            if wanted >= _LARGE:
                _give_back()
            with self._changed:
                self._taken -= wanted
                self._changed.notify_all()


#: The budget of this process.
BUDGET = Budget(DECODE_BYTES)


def _give_back() -> None:
    """Give freed memory back to the system: glibc keeps what each thread has freed for that thread."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


def bytes_needed(image: Image.Image, contents: Contents, size: int, view: str, turned: bool) -> int:
    """Return about how many bytes the decode rule takes at its peak, from the header alone.

    Parameters
    ----------
    image, contents
        The photo, opened and not loaded, and what else is in its file.
    size
        Width and height of the result, in pixels.
    view
        As in `breeds.photos.decode`.
    turned
        Whether the photo may have to be turned upright.
    """
    pixels = image.width * image.height
    stored = _STORED.get(image.mode, 4)
    steps = [stored + _library_bytes(image, contents)]
    if turned:
        steps.append(2 * stored)
    if image.mode != "RGB" or "transparency" in image.info:
        steps.append(stored + 4)
    if view != "original":
        steps.append(8 if view == "flip" else 12)
    sides = image.width + image.height
    stripe = min(pixels, max(STRIPE_PIXELS, sides)) * _STRIPE_BYTES
    needed = pixels * max(steps) + stripe + sides * (4 * size + _SIDE_BYTES) + _UNPACKED * contents.metadata
    if image.format == "TIFF":  # its last tiles may lie beyond the photo
        needed += tile_pixels(image) * tiff_pixel_bytes(image)
    return needed


def _library_bytes(image: Image.Image, contents: Contents) -> int:
    """Return what the format's library takes for a pixel beside what Pillow stores (measured)."""
    if image.format in ("JPEG", "MPO"):  # all coefficients, 16 bits each, if they come in several scans
        return 2 * len(image.getbands()) if contents.several_scans else 0
    if image.format == "WEBP":  # two canvases, what predicts, and a copy
        return 15
    return tiff_pixel_bytes(image) if image.format == "TIFF" else 1  # a strip, which may be the whole photo

"""What a hub's ``preprocessor_config.json`` says of how photos become a network's input."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from PIL import Image

from breeds.errors import BreedsError
from breeds.files import read_regular

NAME = "preprocessor_config.json"
_MOST_BYTES = 2**20
# Steps that are followed; a step that is not is refused where it is switched on.
_STEPS = ("do_resize", "do_rescale", "do_normalize", "do_center_crop", "do_convert_rgb")
# Settings that change pixels, and what they are where they change none.
_OTHERS = ("crop_pct", "rescale_offset", "include_top")
_LAYOUTS = {"channels_first": "nchw", "channels_last": "nhwc"}


@dataclass(frozen=True)
class Options:
    """How photos become a network's input, and its output a feature, as far as somebody says; None: not said.

    Attributes
    ----------
    size, resize
        Of the square, in pixels, and how a photo becomes one (`breeds.photos.resize`).
    mean, std
        Of red, green and blue, where pixels are from 0 to 1.
    layout, pool
        Of `breeds.config.LAYOUTS` and `breeds.config.POOLS`.
    """

    size: int | None = None
    resize: str | None = None
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    layout: str | None = None
    pool: str | None = None


def read_config(file: Path) -> Options:
    """Read a folder's ``preprocessor_config.json``.

    Raises
    ------
    BreedsError
        If it cannot be read, contradicts itself, or asks for what Breeds does not do.
    """
    try:
        values = json.loads(read_regular(file, _MOST_BYTES), object_pairs_hook=_once)
    except OSError as error:
        raise BreedsError(f"Cannot read {file}: {error.strerror}.") from None
    except (ValueError, RecursionError) as error:
        raise BreedsError(
            f"{file} is no JSON that can be read ({' '.join(str(error).split())[:100]}); mend it."
        ) from None
    if not isinstance(values, dict):
        raise BreedsError(f"{file} is no table of settings; mend it.")
    return _Config(values, file).options()


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a setting stands there twice")
    return found


class _Config:
    """The settings of a file, looked at one by one."""

    def __init__(self, values: dict[str, Any], file: Path) -> None:
        self._values = values
        self._file = file

    def options(self) -> Options:
        """Return what they say."""
        for name, value in self._values.items():
            if name.startswith("do_") and value not in (True, False, None):
                self._refuse(f"{name} is neither true nor false")
            if (name.startswith("do_") and value and name not in _STEPS) or (name in _OTHERS and value):
                self._refuse(f"{name} asks for what Breeds does not do")
        layout = self._values.get("data_format")
        if layout is not None and layout not in _LAYOUTS:
            self._refuse("data_format is neither channels_first nor channels_last")
        size, resize = self._square()
        mean, std = self._scaling()
        return Options(size, resize, mean, std, _LAYOUTS.get(layout or ""))

    def _refuse(self, why: str) -> NoReturn:
        raise BreedsError(
            f"{self._file}: {why}; mend it, or name the .onnx file itself, with --size, --resize, --mean and "
            f"--std."
        )

    def _on(self, step: str, default: bool) -> bool:
        value = self._values.get(step)
        return default if value is None else bool(value)

    def _square(self) -> tuple[int | None, str | None]:
        """Return the size and the resize rule."""
        crops = self._on("do_center_crop", False)
        size, cut = self._values.get("size"), self._values.get("crop_size")
        if not self._on("do_resize", size is not None):
            if crops:
                self._refuse("do_center_crop without do_resize sees another part of every photo")
            return (None, None) if size is None else (self._side(size, "size"), None)
        if size is None:
            self._refuse("do_resize is true and there is no size")
        end = self._resampling()
        if isinstance(size, dict) and "shortest_edge" in size:
            edge = self._whole(size["shortest_edge"], "size")
            if len(size) > 1:
                self._refuse("size has a shortest_edge and more than that")
            if not crops or cut is None:
                self._refuse("size is of the shorter side, and nothing is cut to a square (do_center_crop)")
            side = self._side(cut, "crop_size")
            if side > edge:
                self._refuse(f"crop_size {side} is more than the shorter side, {edge}")
            return side, f"crop{edge}{end}"
        side = self._side(size, "size")
        if crops and cut is not None and self._side(cut, "crop_size") != side:
            self._refuse(f"the photo is squeezed to {side} pixels and cut again (crop_size)")
        return side, f"stretch{end}"

    def _side(self, value: Any, name: str) -> int:
        """Return the side of a square."""
        if isinstance(value, dict) and value.keys() == {"height", "width"}:
            if value["height"] != value["width"]:
                self._refuse(f"{name} is no square")
            return self._whole(value["height"], name)
        if name == "crop_size" and not isinstance(value, dict):
            return self._whole(value, name)
        return self._refuse(
            f'{name} can be read in two ways, and has to be {{"height": N, "width": N}} or, with '
            f'do_center_crop, {{"shortest_edge": N}}'
        )

    def _whole(self, value: Any, name: str) -> int:
        if type(value) is not int or not 1 <= value < 10_000:
            self._refuse(f"{name} is no number of pixels")
        return int(value)

    def _resampling(self) -> str:
        """Return the end of a resize rule."""
        value = self._values.get("resample", 2)
        if type(value) is not int or value not in list(Image.Resampling):
            self._refuse("resample is none of Pillow's resamplings")
        name = Image.Resampling(value).name.lower()
        return "" if name == "bilinear" else f"-{name}"

    def _scaling(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Return mean and std of pixels from 0 to 1."""
        factor = 1.0
        if self._on("do_rescale", True):
            factor = self._number(self._values.get("rescale_factor", 1 / 255), "rescale_factor")
        mean: tuple[float, ...] = (0.0, 0.0, 0.0)
        std: tuple[float, ...] = (1.0, 1.0, 1.0)
        if self._on("do_normalize", "image_mean" in self._values):
            mean, std = self._colours("image_mean"), self._colours("image_std")
        # A pixel p from 0 to 255 becomes (factor * p - mean) / std, and p / 255 is the one from 0 to 1.
        whole = 1.0 if abs(255 * factor - 1) < 1e-9 else 255 * factor
        if factor <= 0 or min(std) <= 0:
            self._refuse("rescale_factor and image_std have to be more than 0")
        return tuple(value / whole for value in mean), tuple(value / whole for value in std)

    def _colours(self, name: str) -> tuple[float, ...]:
        value = self._values.get(name)
        if value is None:
            self._refuse(f"do_normalize is true and there is no {name}")
        values = value if isinstance(value, list) else [value] * 3
        if len(values) != 3:
            self._refuse(f"{name} is not of three colours")
        return tuple(self._number(one, name) for one in values)

    def _number(self, value: Any, name: str) -> float:
        if type(value) not in (int, float) or not abs(value) < 1e4:  # also what is not a number
            self._refuse(f"{name} is no number")
        return float(value)

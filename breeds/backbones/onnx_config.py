"""How an ONNX network is fed and read: its file, a JSON beside it, and the size and resize rule asked for.

The JSON is the ``preprocessor_config.json`` of the network's folder, in the words of model hubs, or
``NAME.json`` beside ``NAME.onnx`` in the same words. Two more say what hubs leave to their code:
``"layout": "nchw"`` or ``"nhwc"``, the order of the input's axes, and ``"pool": "avg"``, ``"cls"`` or
``"none"``, how the output becomes a feature.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from PIL import Image

from breeds.backbones import LARGEST_SIZE
from breeds.backbones.onnx_file import Described, describe, find_file, open_onnx, refused, shape_text
from breeds.backbones.weights import Weights
from breeds.config import LAYOUTS, POOLS, Preprocessing
from breeds.errors import BreedsError
from breeds.files import read_regular
from breeds.photos import fits
from breeds.photos.resize import RULES

#: What model hubs call the JSON.
NAME = "preprocessor_config.json"
_MOST_BYTES = 2**20
# Steps that are followed; a step that is not is refused where it is switched on.
_STEPS = ("do_resize", "do_rescale", "do_normalize", "do_center_crop", "do_convert_rgb")
# Settings that change pixels, and what they are where they change none.
_OTHERS = ("crop_pct", "rescale_offset", "include_top")
_FORMATS = {"channels_first": "nchw", "channels_last": "nhwc"}

#: Of several outputs the first of these that can be pooled as asked is taken, as hubs name them.
OUTPUTS = ("image_embeds", "pooler_output", "last_hidden_state")
# The input that hubs give photos to, colours first, whatever their number of axes is left open.
_HUB_INPUT = "pixel_values"
# How many axes an output has for each way of pooling; and what is clear where nobody says how.
_AXES = {"none": (2,), "avg": (3, 4), "cls": (3,)}
_CLEAR = {2: "none", 4: "avg"}
_Colours = tuple[float, ...]


def resolve_onnx(spec: str, size: int, resize: str) -> tuple[Weights, int, str, Preprocessing]:
    """Find an ONNX network, and how it is fed and read.

    Parameters
    ----------
    spec
        An ONNX file, or a folder with ``model.onnx``.
    size, resize
        What the user asks for, which comes before what the JSON says; 0 and "" ask for nothing.

    Returns
    -------
    weights, size, resize, preprocessing

    Raises
    ------
    BreedsError
        If the network cannot be used, or something is unclear or contradicts itself.
    """
    path = find_file(spec)
    file = _json_of(spec, path)
    said = read_config(file) if os.path.lexists(file) else None
    model, weights = open_onnx(spec)
    network = _Network(path, file, said, describe(model, path))
    layout = network.layout()
    size = network.size(layout, size)
    resize = resize or (said.resize if said else "") or "stretch"
    if not fits(resize, size):
        raise BreedsError(f"--resize {resize}: it is {RULES}, with N from {size} up.")
    mean, std = network.scaling()
    return weights, size, resize, Preprocessing(layout, mean, std, *network.output())


def _json_of(spec: str, path: Path) -> Path:
    """Return where the JSON of a network is, or would be."""
    if os.path.isdir(spec):
        return Path(spec, NAME)
    own, folders = path.with_suffix(".json"), path.parent / NAME
    return folders if os.path.lexists(folders) and not os.path.lexists(own) else own


@dataclass(frozen=True)
class Said:
    """What a JSON says of a network; 0 and "" where it does not.

    Attributes
    ----------
    size, resize
        Of the square, in pixels, and how a photo becomes one (`breeds.photos.resize`).
    mean, std
        Of red, green and blue, where pixels are from 0 to 1.
    layout, pool
        Of `breeds.config.LAYOUTS` and `breeds.config.POOLS`.
    """

    size: int
    resize: str
    mean: _Colours
    std: _Colours
    layout: str
    pool: str


class _Network:
    """What a network's file and its JSON say, put together point by point."""

    def __init__(self, path: Path, file: Path, said: Said | None, described: Described) -> None:
        self._path = path
        self._json = file
        self._said = said
        self._described = described
        self._taken = shape_text(described.dims)

    def _unclear(self, what: str, words: str) -> NoReturn:
        raise refused(self._path, f"does not say {what}; write {words} into {self._json}")

    def scaling(self) -> tuple[_Colours, _Colours]:
        """Return mean and std."""
        if self._said is None:
            self._unclear(
                "how its pixels are scaled", '{"image_mean": [R, G, B], "image_std": [R, G, B]}, from 0 to 1,'
            )
        return self._said.mean, self._said.std

    def layout(self) -> str:
        """Return the layout of the input."""
        _, first, _, last = self._described.dims
        axes = {"nchw": first, "nhwc": last}
        able = [layout for layout, colours in axes.items() if colours == 3]
        able = able or [layout for layout, colours in axes.items() if colours is None]
        if not able:
            raise refused(self._path, f"takes {self._taken}, which are no photos of three colours")
        said = self._said.layout if self._said else ""
        if said and said not in able:
            layout = f"so its layout is {able[0]} and not {said}"
            raise refused(self._path, f"takes {self._taken}, {layout}; mend {self._json}")
        if not said and len(able) > 1 and self._described.name != _HUB_INPUT:
            self._unclear(
                f"which axis of {self._taken} is that of colours", '"layout": "nchw" or "layout": "nhwc"'
            )
        return said or able[0]

    def size(self, layout: str, asked: int) -> int:
        """Return the side of the square that the network takes."""
        _, *dims = self._described.dims
        sides = {side for side in (dims[1:] if layout == "nchw" else dims[:2]) if side is not None}
        if len(sides) > 1:
            raise refused(self._path, f"takes {self._taken}, which is no square; export it for one")
        own = next(iter(sides), None)
        size = asked or (self._said.size if self._said else 0) or own or 0
        if not size:
            raise refused(self._path, "does not say which size of photos it takes; give --size")
        if own not in (None, size):
            where = f"--size or {self._json.name}"
            instead = f"export it for that size, or leave {own}"
            raise refused(self._path, f"takes {self._taken} and no {size} pixels ({where}); {instead}")
        if not 1 <= size <= LARGEST_SIZE:
            raise BreedsError(f"--size {size}: Breeds takes up to {LARGEST_SIZE} pixels.")
        return size

    def output(self) -> tuple[str, str]:
        """Return the output's name and how it is pooled."""
        outputs, pool = self._described.outputs, self._said.pool if self._said else ""
        names = list(outputs) if len(outputs) == 1 else [name for name in OUTPUTS if name in outputs]
        if not names:
            shown = ", ".join(name[:60] for name in list(outputs)[:5])
            what = f"has {len(outputs)} outputs ({shown}), and none is called {', '.join(OUTPUTS)}"
            raise refused(self._path, f"{what}; export it with the one that is wanted")
        fitting = [name for name in names if not pool or outputs[name] in (None, *_AXES[pool])]
        if not fitting:
            raise BreedsError(
                f'"pool": "{pool}" of {self._json}: the output {names[0][:60]} has {outputs[names[0]]} axes, '
                f"and that is for {' or '.join(map(str, _AXES[pool]))}; mend it."
            )
        axes = outputs[fitting[0]]
        if axes not in (None, 2, 3, 4):
            what = f"gives {axes} axes in {fitting[0][:60]}, which is no feature of a photo"
            raise refused(self._path, f"{what}; export it with features, maps or tokens")
        pool = pool or _CLEAR.get(axes or 0, "")
        if not pool:
            self._unclear(
                "of how many axes its output is" if axes is None else "how its tokens become one feature",
                '"pool": "cls" (the first), "pool": "avg" (the average of all)'
                + (' or "pool": "none"' if axes is None else ""),
            )
        return fitting[0], pool


def read_config(file: Path) -> Said:
    """Read what a JSON says.

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
    return _Settings(values, file).said()


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a setting stands there twice")
    return found


class _Settings:
    """The settings of a file, looked at one by one."""

    def __init__(self, values: dict[str, Any], file: Path) -> None:
        self._values = values
        self._file = file

    def said(self) -> Said:
        """Return what they say."""
        for name, value in self._values.items():
            if name.startswith("do_") and value not in (True, False, None):
                self._refuse(f"{name} is neither true nor false")
            if (name.startswith("do_") and value and name not in _STEPS) or (name in _OTHERS and value):
                self._refuse(f"{name} asks for what Breeds does not do")
        layout = self._one_of("layout", LAYOUTS) or _FORMATS.get(self._one_of("data_format", _FORMATS), "")
        return Said(*self._square(), *self._scaling(), layout, self._one_of("pool", POOLS))

    def _refuse(self, why: str) -> NoReturn:
        raise BreedsError(f"{self._file}: {why}; mend it.")

    def _one_of(self, name: str, allowed: Any) -> str:
        value = self._values.get(name)
        if value is not None and (not isinstance(value, str) or value not in allowed):
            self._refuse(f"{name} is none of {', '.join(allowed)}")
        return value or ""

    def _on(self, step: str, default: bool) -> bool:
        value = self._values.get(step)
        return default if value is None else bool(value)

    def _square(self) -> tuple[int, str]:
        """Return the size and the resize rule."""
        crops = self._on("do_center_crop", False)
        size, cut = self._values.get("size"), self._values.get("crop_size")
        if not self._on("do_resize", size is not None):
            if crops:
                self._refuse("do_center_crop without do_resize sees another part of every photo")
            return (0 if size is None else self._side(size, "size")), ""
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

    def _scaling(self) -> tuple[_Colours, _Colours]:
        """Return mean and std of pixels from 0 to 1."""
        factor = 1.0
        if self._on("do_rescale", True):
            factor = self._number(self._values.get("rescale_factor", 1 / 255), "rescale_factor")
        mean: _Colours = (0.0, 0.0, 0.0)
        std: _Colours = (1.0, 1.0, 1.0)
        if self._values.get("do_normalize") is None and "image_mean" not in self._values:
            self._refuse('it says neither "image_mean" and "image_std" nor "do_normalize": false')
        if self._on("do_normalize", True):
            mean, std = self._colours("image_mean"), self._colours("image_std")
        # A pixel p from 0 to 255 becomes (factor * p - mean) / std, and p / 255 is the one from 0 to 1.
        whole = 1.0 if abs(255 * factor - 1) < 1e-9 else 255 * factor
        if factor <= 0 or min(std) <= 0:
            self._refuse("rescale_factor and image_std have to be more than 0")
        return tuple(value / whole for value in mean), tuple(value / whole for value in std)

    def _colours(self, name: str) -> _Colours:
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

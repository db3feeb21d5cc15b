"""File, folder and options put together: how a network is read, or in one sentence what is unclear."""

from __future__ import annotations

import os
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import NoReturn

from breeds.backbones.brought.file import Described, content_of, describe, find_file, named, shape_text
from breeds.backbones.brought.folder import NAME, Options, read_config
from breeds.backbones.registry import LARGEST_SIZE
from breeds.backbones.weights import Weights
from breeds.config import Reading
from breeds.errors import BreedsError
from breeds.photos import fits
from breeds.photos.resize import RULES

#: Of several outputs the first of these that can be pooled as asked is taken, as hubs name them.
OUTPUTS = ("image_embeds", "pooler_output", "last_hidden_state")
#: The name that configs of ONNX networks have for a backbone; which one it is, their weights say.
BACKBONE = "onnx"
# The input that hubs give photos to, colours first, whatever their number of axes is left open.
_HUB_INPUT = "pixel_values"
# How many axes an output has for each way of pooling; and what is clear where nobody says how.
_AXES = {"none": (2,), "avg": (3, 4), "cls": (3,)}
_CLEAR = {2: "none", 4: "avg"}


@dataclass(frozen=True)
class Settled:
    """A network with everything that decides a feature; its `reading` has no width yet."""

    weights: Weights
    size: int
    resize: str
    reading: Reading


def settle(spec: str, options: Options) -> Settled:
    """Settle how a network is read.

    Parameters
    ----------
    spec
        An ONNX file, or a folder with ``model.onnx`` and, if it is of a hub, ``preprocessor_config.json``.
    options
        What the user says, which comes before what the folder says.

    Raises
    ------
    BreedsError
        If the network cannot be used, or something is unclear or contradicts itself.
    """
    path = find_file(spec)
    config = Path(spec, NAME)
    from_folder = os.path.isdir(spec) and os.path.lexists(config)
    said = read_config(config) if from_folder else Options()
    merged = replace(
        said,
        **{
            field.name: value
            for field in fields(Options)
            if (value := getattr(options, field.name)) is not None
        },
    )
    model, sha256 = content_of(path)
    return _Settling(path, merged, describe(model, path), from_folder).settled(named(spec, path, sha256))


class _Settling:
    """What is said of a network, and what its file says."""

    def __init__(self, path: Path, said: Options, file: Described, hub: bool) -> None:
        self._path = path
        self._said = said
        self._file = file
        self._hub = hub

    def settled(self, weights: Weights) -> Settled:
        layout = self._layout()
        size = self._size(layout)
        resize = self._said.resize or "stretch"
        if not fits(resize, size):
            raise BreedsError(f"--resize {resize}: it is {RULES}, with N from {size} up.")
        mean, std = self._scaling()
        output, pool = self._output()
        return Settled(weights, size, resize, Reading(layout, mean, std, output, pool, 0))

    def _unclear(self, what: str, option: str) -> NoReturn:
        where = "" if self._hub else f", or name its folder, if there is a {NAME}"
        raise BreedsError(f"The network {self._path} does not say {what}; give {option}{where}.")

    def _scaling(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        mean, std = self._said.mean, self._said.std
        if mean is None or std is None:
            self._unclear("how its pixels are scaled", "--mean and --std, as those who trained it write")
        for name, values in (("mean", mean), ("std", std)):
            if not (len(values) == 3 and all(abs(value) < 1e4 for value in values)):
                raise BreedsError(f"--{name}: give three numbers, of red, green and blue.")
        if min(std) <= 0:
            raise BreedsError("--std: each number has to be more than 0.")
        return tuple(map(float, mean)), tuple(map(float, std))

    def _layout(self) -> str:
        _, first, _, last = self._file.dims
        able = [
            layout for layout, colours in (("nchw", first), ("nhwc", last)) if colours == 3
        ] or [layout for layout, colours in (("nchw", first), ("nhwc", last)) if colours is None]  # fmt: skip
        taken = shape_text(self._file.dims)
        if not able:
            raise BreedsError(
                f"The network {self._path} takes {taken}, which are no photos of three colours; use another."
            )
        asked = self._said.layout
        if asked is not None and asked not in able:
            raise BreedsError(
                f"The network {self._path} takes {taken}, so its layout is {able[0]} and not {asked}; leave "
                f"out --layout, or mend {NAME}."
            )
        if asked is None and len(able) > 1 and self._file.name != _HUB_INPUT:
            self._unclear(f"which axis of {taken} is that of colours", "--layout nchw or --layout nhwc")
        return asked or able[0]

    def _size(self, layout: str) -> int:
        """Return the side of the square that the network takes."""
        _, *dims = self._file.dims
        sides = {side for side in (dims[1:] if layout == "nchw" else dims[:2]) if side is not None}
        taken = shape_text(self._file.dims)
        if len(sides) > 1:
            raise BreedsError(
                f"The network {self._path} takes {taken}, which is no square; export it for one."
            )
        own = next(iter(sides), None)
        if own is None and self._said.size is None:
            self._unclear("which size of photos it takes", "--size")
        size = self._said.size or own or 0
        if own not in (None, size):
            raise BreedsError(
                f"The network {self._path} takes {taken} and no {size} pixels (--size or {NAME}); export it "
                f"for that size, or leave {own}."
            )
        if not 1 <= size <= LARGEST_SIZE:
            raise BreedsError(f"--size {size}: Breeds takes up to {LARGEST_SIZE} pixels.")
        return size

    def _output(self) -> tuple[str, str]:
        """Return the output's name and how it is pooled."""
        outputs, pool = self._file.outputs, self._said.pool
        names = list(outputs) if len(outputs) == 1 else [name for name in OUTPUTS if name in outputs]
        shown = ", ".join(name[:60] for name in list(outputs)[:5])
        if not names:
            raise BreedsError(
                f"The network {self._path} has {len(outputs)} outputs ({shown}), and none is called "
                f"{', '.join(OUTPUTS)}; export it with the one that is wanted."
            )
        fitting = [
            name for name in names if pool is None or outputs[name] is None or outputs[name] in _AXES[pool]
        ]
        if not fitting:
            raise BreedsError(
                f"--pool {pool}: the output {names[0][:60]} of {self._path} has {outputs[names[0]]} axes, "
                f"and that is for {' or '.join(map(str, _AXES[pool or 'none']))}; name another --pool."
            )
        axes = outputs[fitting[0]]
        pool = pool or _CLEAR.get(axes or 0)
        if pool is None:
            what = "of how many axes it is" if axes is None else "how its tokens become one feature"
            if axes not in (None, 3):
                raise BreedsError(
                    f"The network {self._path} gives {axes} axes in {fitting[0][:60]}, which is no feature "
                    f"of a photo; export it with features, maps or tokens."
                )
            raise BreedsError(
                f"The output {fitting[0][:60]} of the network {self._path} does not say {what}; give --pool "
                f"cls (the first), avg (the average of all)"
                f"{' or none' if axes is None else ''}."
            )
        return fitting[0], pool

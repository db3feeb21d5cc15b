"""What a user asks of extraction: by which config, with what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from breeds.backbones.brought.file import is_onnx
from breeds.backbones.brought.folder import Options
from breeds.backbones.brought.settle import BACKBONE, settle
from breeds.backbones.choose import config_precision
from breeds.backbones.convert import converted_width
from breeds.backbones.registry import BACKBONES, LARGEST_SIZE, XCEPTION
from breeds.backbones.weights import Weights, get_weights
from breeds.config import FeatureConfig
from breeds.errors import BreedsError
from breeds.photos import ORIGINAL, fits
from breeds.photos.resize import RULES


@dataclass(frozen=True)
class Asked:
    """What a user decides of the config, and what is to compute it.

    Parameters
    ----------
    weights
        ``imagenet``, ``random`` or a file's path.
    backbone
        A name in `breeds.backbones.registry.BACKBONES`, or the path of an ONNX file or of a folder with one.
    view
        Which variant of the photos to extract, as in `breeds.photos.decode`.
    resize
        How a photo becomes a square, a rule of `breeds.photos.resize`; None is the folder's, or ``stretch``.
    size
        Width and height of the network's input; None is the backbone's own.
    precision, engine
        One of `breeds.backbones.choose.PRECISIONS` and one of `breeds.backbones.choose.ENGINES`.
    mean, std, layout, pool
        How an ONNX network is read (`breeds.config.Reading`); None is as its folder says.
    """

    weights: str = "imagenet"
    backbone: str = XCEPTION.name
    view: str = ORIGINAL
    resize: str | None = None
    size: int | None = None
    precision: str = "fp32"
    engine: str = "auto"
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    layout: str | None = None
    pool: str | None = None

    def find(self) -> tuple[FeatureConfig, Weights]:
        """Return the config, still without the network of int8, and the weights.

        Raises
        ------
        BreedsError
            If the weights cannot be had, the backbone does not take this size, or the engine this precision.
        """
        if self._brought():
            return self._find_brought()
        size, resize = self.square()
        weights = get_weights(self.weights, BACKBONES[self.backbone])
        precision = config_precision(self.engine, self.precision)
        config = FeatureConfig(
            self.backbone,
            weights.name,
            weights.sha256,
            size,
            resize,
            precision,
            view=self.view,
        )
        return config, weights

    def _find_brought(self) -> tuple[FeatureConfig, Weights]:
        """Return config and weights of an ONNX network."""
        if self.engine == "keras":
            raise BreedsError("--engine keras: an ONNX network is run by OpenVINO; leave it out.")
        if self.weights != "imagenet":
            raise BreedsError(
                f"--weights {self.weights}: an ONNX network has its weights in it; leave it out."
            )
        precision = config_precision("openvino", self.precision)
        found = settle(self.backbone, self._options())
        weights = found.weights
        config = FeatureConfig(
            BACKBONE, weights.name, weights.sha256, found.size, found.resize, precision, view=self.view,
            reading=found.reading,
        )  # fmt: skip
        width = converted_width(config, lambda: weights)
        return replace(config, reading=replace(found.reading, width=width)), weights

    def _options(self) -> Options:
        return Options(self.size, self.resize, self.mean, self.std, self.layout, self.pool)

    def _brought(self) -> bool:
        """Say whether the backbone is an ONNX network, and refuse what is neither that nor of Keras's."""
        if self.backbone not in BACKBONES:
            if not is_onnx(self.backbone):
                raise BreedsError(
                    f"--backbone {self.backbone}: it is one of {', '.join(BACKBONES)}, an ONNX file (.onnx), "
                    f"or a folder with model.onnx."
                )
            return True
        for name in ("mean", "std", "layout", "pool"):
            if getattr(self, name) is not None:
                raise BreedsError(
                    f"--{name} is for networks as ONNX files, and {self.backbone} has its own; leave it out."
                )
        return False

    def square(self) -> tuple[int, str]:
        """Return the side of the network's input, in pixels, and the resize rule.

        Raises
        ------
        BreedsError
            If the backbone does not take what was asked for.
        """
        if self._brought():
            found = settle(self.backbone, self._options())
            return found.size, found.resize
        backbone = BACKBONES[self.backbone]
        size, resize = self.size or backbone.size, self.resize or "stretch"
        if not backbone.smallest <= size <= LARGEST_SIZE:
            raise BreedsError(
                f"--size {size}: {backbone.name} takes {backbone.smallest} to {LARGEST_SIZE} pixels."
            )
        if not fits(resize, size):
            raise BreedsError(f"--resize {resize}: it is {RULES}, with N from {size} up.")
        return size, resize

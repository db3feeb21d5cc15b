"""Networks converted for OpenVINO: made once, kept in a cache folder, checked at every use.

An entry is a folder whose name ends in the SHA-256 of its files, so it carries its own checksum:
a damaged one is remade, never trusted. Conversion and quantisation run in a process of their
own, so that TensorFlow and NNCF leave nothing behind in the one that extracts.
"""

from __future__ import annotations

import atexit
import hashlib
import json
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import BrokenExecutor
from contextlib import suppress
from dataclasses import asdict, replace
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from breeds.backbones import BACKBONES, import_openvino
from breeds.backbones.weights import Weights
from breeds.config import FeatureConfig, Network, Preprocessing, digest_of
from breeds.errors import BreedsError, PhotoError
from breeds.files import cache_folder
from breeds.machine import quiet, run_alone
from breeds.photos import decode, key_of, photo_at
from breeds.started import need
from breeds.text import mention

#: Version of the conversion; a change of what it gives needs a new one.
_RULE = "1"
_FILES = ("network.xml", "network.bin")
# No network has more bytes.
_LARGEST = 2**28
#: How many photos int8 is calibrated on.
CALIBRATION_PHOTOS = 150


def fp32_network(config: FeatureConfig, weights: Callable[[], Weights]) -> Path:
    """Return the converted network of a config's weights, converting it if it is not in the cache.

    Networks of Keras are converted for any size, an ONNX network for the config's.

    Parameters
    ----------
    weights
        Finds the weights; called only if they are needed.

    Returns
    -------
    pathlib.Path
        The XML file; the numbers are in the BIN file beside it.

    Raises
    ------
    BreedsError
        If the weights cannot be had or do not fit, or TensorFlow, which converts them, is not installed.
    """
    name = _fp32_name(config)
    found = _find(name)
    if found is None and config.preprocessing is not None:
        brought = weights()
        say_once("converting the ONNX network for OpenVINO, once for this file and size")
        found = _make(name, _bring, brought, config.size, config.preprocessing)
    elif found is None:
        need("tensorflow", "keras")
        say_once("converting the network for OpenVINO, once for these weights: about 15 seconds")
        found = _make(name, _convert, config, weights())
    return found


def is_prepared(config: FeatureConfig) -> bool:
    """Say whether a config can be computed here without fetching weights or converting them."""
    return config.precision == "int8" or _find(_fp32_name(config)) is not None


def converted_width(config: FeatureConfig, weights: Callable[[], Weights]) -> int:
    """Return how many numbers a feature of an ONNX network has, converting it if it is not in the cache.

    Raises
    ------
    BreedsError
        As `fp32_network` does.
    """
    description = ElementTree.parse(fp32_network(config, weights))  # written by OpenVINO, here
    ports = description.findall("./layers/layer[@type='Result']/input/port")
    return int([dim.text for dim in ports[0].findall("dim")][-1] or 0)


def _fp32_name(config: FeatureConfig) -> str:
    name = f"{config.backbone}-{config.weights_sha256[:16]}-fp32-{_RULE}"
    if config.preprocessing is None:
        return name
    read = json.dumps([config.size, asdict(config.preprocessing)], sort_keys=True)
    return f"{name}-{hashlib.sha256(read.encode()).hexdigest()[:16]}"


def quantised_network(
    config: FeatureConfig, weights: Callable[[], Weights], sample: Sequence[tuple[str, str]]
) -> Network:
    """Return the network of a config's weights quantised to int8, out of the cache where it can be.

    The same weights, input size, photos and versions of NNCF and OpenVINO give the same network on
    the same machine; another machine may round elsewhere, which makes it another network.

    Parameters
    ----------
    sample
        Key and path of every photo to calibrate on.

    Raises
    ------
    BreedsError
        If none of the photos can be decoded, or the weights cannot be had.
    """
    deciding = [*(key for key, _ in sample), *(f"{name} {version(name)}" for name in ("nncf", "openvino"))]
    mark = hashlib.sha256("\n".join(deciding).encode()).hexdigest()[:16]
    mark = f"{config.size}-{config.resize}-{mark}"
    name = _fp32_name(config).replace("-fp32-", f"-int8-{mark}-")
    found = _find(name)
    if found is None:
        fp32 = fp32_network(config, weights)
        say_once("quantising the network to int8, once for these photos: about a minute")
        found = _make(name, _quantise, fp32, config.size, config.resize, list(sample))
    return Network.read(found)


@cache
def say_once(text: str) -> None:
    """Tell people something, the first time only."""
    mention(text)


def _find(name: str) -> Path | None:
    """Return the network `name` of the cache if it is whole; remove it if it is not.

    Raises
    ------
    BreedsError
        If it cannot be read just now.
    """
    for entry in sorted(cache_folder().glob(f"{name}-*")):
        match = re.fullmatch(re.escape(name) + r"-([0-9a-f]{64})", entry.name)
        if match is None:
            continue
        try:
            if digest_of(entry / _FILES[0]) == match[1]:
                return entry / _FILES[0]
        except FileNotFoundError:
            pass
        except OSError as error:  # says nothing about what is there
            raise BreedsError(
                f"Cannot read the cached network {entry}: {error.strerror or error}; look to its permissions "
                f"and its disk, or let $BREEDS_CACHE name another folder."
            ) from None
        say_once(f"the cached network {entry} is damaged and is made again")
        shutil.rmtree(entry, ignore_errors=True)
    return None


def _make(name: str, maker: Callable[..., None], *arguments: Any) -> Path:
    """Let `maker` write a network into a folder, in a process of its own, and put it into the cache."""
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _sweep(folder)
        aside = Path(tempfile.mkdtemp(prefix=".", suffix=".tmp", dir=folder))
    except OSError as error:
        say_once(
            f"the cache {folder} cannot be written ({error.strerror}): the network is made again each time"
        )
        aside = Path(tempfile.mkdtemp(prefix="breeds-"))
        atexit.register(shutil.rmtree, aside, ignore_errors=True)
    try:
        try:
            _in_own_process(maker, aside, *arguments)
        except RuntimeError:  # OpenVINO does not say why, where it was the disk
            _check_room(aside)
            raise
        if aside.parent != folder:
            return aside / _FILES[0]
        final = folder / f"{name}-{digest_of(aside / _FILES[0])}"
        for file in _FILES:
            with open(aside / file, "rb") as written:
                os.fsync(written.fileno())
        try:
            aside.rename(final)
        except OSError:
            if not final.exists():  # another process was not faster
                raise
        return final / _FILES[0]
    except OSError as error:
        raise BreedsError(
            f"The network cannot be written to {aside.parent} ({error.strerror or error}); make room there, "
            f"or let $BREEDS_CACHE name another folder."
        ) from None
    finally:
        if aside.parent == folder:
            shutil.rmtree(aside, ignore_errors=True)


def _check_room(folder: Path) -> None:
    """Raise OSError if a network cannot be written into `folder`; nothing is written to find out."""
    with tempfile.TemporaryFile(dir=folder) as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, _LARGEST)


def _sweep(folder: Path) -> None:
    """Remove what conversions that were killed have left; none takes an hour."""
    for leftover in folder.glob(".*.tmp"):
        with suppress(OSError):
            if time.time() - leftover.stat().st_mtime > 3600:
                shutil.rmtree(leftover)


def _in_own_process(maker: Callable[..., None], *arguments: Any) -> None:
    """Run `maker` in a new process."""
    try:
        run_alone(maker, *arguments)
    except BrokenExecutor:
        raise BreedsError(
            "The process that converts the network was killed; is there enough memory?"
        ) from None


def _bring(folder: Path, weights: Weights, size: int, preprocessing: Preprocessing) -> None:
    """Convert an ONNX network."""
    from breeds.backbones.onnx_convert import bring

    assert weights.path is not None
    bring(folder / _FILES[0], weights.path, weights.sha256, size, preprocessing)


def _convert(folder: Path, config: FeatureConfig, weights: Weights) -> None:
    """Convert the Keras model to one that takes uint8 pixels of one photo, with scaling folded in."""
    os.environ["KERAS_BACKEND"] = "tensorflow"
    from breeds.backbones.keras import build

    # Any size can be set afterwards: the network is fully convolutional.
    model = build(replace(config, size=BACKBONES[config.backbone].size), weights)
    ov = import_openvino()
    _mend_converter()
    from openvino.preprocess import PrePostProcessor

    size = model.input_shape[1]
    with quiet():
        network = ov.convert_model(model)
        network.reshape([1, size, size, 3])
        steps = PrePostProcessor(network)
        steps.input().tensor().set_element_type(ov.Type.u8).set_layout(ov.Layout("NHWC"))
        pixels = steps.input().preprocess().convert_element_type(ov.Type.f32)
        if not BACKBONES[config.backbone].scales:
            pixels.scale(127.5).mean(1.0)
        ov.save_model(steps.build(), folder / _FILES[0], compress_to_fp16=False)


def _mend_converter() -> None:
    """Let OpenVINO's converter run on Python 3.13 and later, for as long as this process lives.

    OpenVINO 2026.4 looks for TensorFlow's version with ``exec("import tensorflow")``, then ``exec("del
    tensorflow")``; since Python 3.13 the second no longer finds in a function what the first has put there.
    """
    if sys.version_info >= (3, 13):
        from openvino.frontend.tensorflow import utils

        utils.get_environment_setup = lambda framework: {"tensorflow": version("tensorflow")}


def _quantise(folder: Path, fp32: Path, size: int, resize: str, sample: Sequence[tuple[str, str]]) -> None:
    """Quantise a network after training, calibrated on photos (NNCF's symmetric int8)."""
    import logging

    pixels = []
    for key, path in sample:
        try:
            data = photo_at("", path).read()
            if key_of(data) == key:
                pixels.append(decode(data, size, resize)[None])
        except PhotoError:
            continue
    if not pixels:
        raise BreedsError("None of the photos to calibrate int8 on can be decoded; use --precision fp32.")
    ov = import_openvino()
    with quiet():
        import nncf

        nncf.set_log_level(logging.ERROR)
        network = ov.Core().read_model(fp32)
        network.reshape([1, size, size, 3])
        quantised = nncf.quantize(
            network,
            nncf.Dataset(pixels),
            subset_size=len(pixels),
            preset=nncf.QuantizationPreset.PERFORMANCE,
            # Weights of 7 bits: processors without VNNI add up products in 16 bits, which 8 overflow,
            # and the same network would give other features there.
            advanced_parameters=nncf.AdvancedQuantizationParameters(overflow_fix=nncf.OverflowFix.ENABLE),
        )
        ov.save_model(quantised, folder / _FILES[0], compress_to_fp16=False)

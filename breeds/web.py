"""The web, in bounded time and bytes: is it there, and fetch it."""

from __future__ import annotations

import threading
import urllib.request
from pathlib import Path

from breeds.text import progress

PROBE_SECONDS = 10
STALL_SECONDS = 30
_BLOCK = 2**16


def unreachable(url: str) -> str | None:
    """Return why `url` cannot be reached, or None if it can, within `PROBE_SECONDS`.

    A thread, because looking up a name can hang for longer than any timeout that Python offers.
    """
    answer = [f"no answer in {PROBE_SECONDS} s"]

    def probe() -> None:
        try:
            request = urllib.request.Request(url, method="HEAD")
            with urllib.request.urlopen(request, timeout=PROBE_SECONDS):
                answer.clear()
        except (OSError, ValueError) as error:
            answer[0] = str(getattr(error, "reason", None) or error)

    thread = threading.Thread(target=probe, daemon=True)
    thread.start()
    thread.join(PROBE_SECONDS)
    return answer[0] if answer else None


def download(url: str, target: Path, most: int) -> None:
    """Write what is at `url` into the file `target`, showing progress.

    Parameters
    ----------
    most
        How many bytes it may have.

    Raises
    ------
    OSError
        If it cannot be reached, stalls, or ends before its length.
    ValueError
        If it is larger than `most`.
    """
    with urllib.request.urlopen(url, timeout=STALL_SECONDS) as source, open(target, "wb") as file:
        length = source.length  # None if the server does not say
        with progress(total=length, desc="fetching", unit="B", unit_scale=True, leave=False) as shown:
            while block := source.read(_BLOCK):
                file.write(block)
                shown.update(len(block))
                if file.tell() > most:
                    raise ValueError(f"it is larger than {most // 2**20} MiB")
        if length is not None and file.tell() != length:
            raise OSError(f"it ended after {file.tell()} of {length} bytes")

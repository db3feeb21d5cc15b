"""What a source of photos is called: addresses and paths, as they may be shown, and names made of them."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

#: An address that names how it is reached, such as ``s3://bucket/photos``; no path begins so.
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
# What stands for several names: `photos-{000..009}.tar`, `photos-*.tar`.
_PATTERN = re.compile(r"\{[^{}]*\}|[*?]|\[[^\]]*\]")
_ENDINGS = (".tar", ".parquet", ".csv")


def is_address(text: str) -> bool:
    """Say whether a source is named by an address, such as ``s3://bucket/photos``, and is no path."""
    return _ADDRESS.match(text) is not None


def as_source(text: str) -> Path | str:
    """Return a source as it is named on a command line: an address stays text, all else is a path."""
    return text if is_address(text) else Path(text)


def shown(address: str) -> str:
    """Return an address as it may be shown and kept: without a user's name, a password and a query.

    Examples
    --------
    >>> shown("https://rex:secret@example.org/photos-000.tar?signature=secret")
    'https://example.org/photos-000.tar'
    """
    try:
        parts = urlsplit(address)
    except ValueError:  # as of brackets that hold no address of IPv6
        scheme, _, rest = address.partition("://")
        return f"{scheme}://{rest.rpartition('@')[2].partition('?')[0]}"
    host = parts.netloc.rpartition("@")[2]
    query = "" if parts.scheme in ("http", "https") else parts.query
    if query:  # a name that has a question mark in it, as in a bucket
        return f"{parts.scheme}://{host}{parts.path}?{query}"
    return urlunsplit((parts.scheme, host, parts.path, "", ""))


def stem_of(source: str) -> str:
    """Return what to call what is made of an address or a pattern, "" if nothing is left of it.

    Examples
    --------
    >>> stem_of("s3://bucket/dogs/photos-{000..009}.tar"), stem_of("s3://bucket/dogs/")
    ('photos', 'dogs')
    """
    name = shown(source) if is_address(source) else source
    name = name.rstrip("/").rpartition("/")[2]
    for ending in _ENDINGS:
        name = name.removesuffix(ending)
    return _PATTERN.sub("", name).strip("-_. ")

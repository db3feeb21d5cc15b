"""A quantised network as plain bytes: it identifies an int8 config, and travels with store and model."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from breeds.files import UnfitError, open_regular, read_regular, write_aside

Bytes = NDArray[np.uint8]
#: How many bytes a file of a network, or of a model with several, can have.
MOST_BYTES = 2**29
_NAME = re.compile(r"network-([0-9a-f]{64})\.safetensors")


@dataclass(frozen=True, eq=False)
class Network:
    """A network in OpenVINO's format: its description, and the file of its numbers.

    Both are data: OpenVINO reads them, knows the operations of its own standard sets only (Breeds
    loads no extension into it), and follows no path in them. One from a stranger can still name a
    network that takes all memory or all day, and it meets OpenVINO's reader, a large C++ program,
    with bytes that somebody chose; the digest says that it is what the config means, not that it
    is harmless. So take an int8 model from people whose model you would take anyway.

    Attributes
    ----------
    xml, bin
        The two files, uint8 (n,) each.
    """

    xml: Bytes
    bin: Bytes

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the SHA-256 of both files, in hexadecimal digits."""
        return _joint(hashlib.sha256(part.data).digest() for part in (self.xml, self.bin))

    @staticmethod
    def read(xml: Path) -> Network:
        """Read the network that OpenVINO wrote: `xml`, with the numbers beside it."""
        files = (xml, xml.with_suffix(".bin"))
        return Network(*(np.frombuffer(read_regular(path, MOST_BYTES), dtype=np.uint8) for path in files))


def digest_of(xml: Path) -> str:
    """Return the digest of the network that OpenVINO wrote, without holding it: fp32 is four times int8."""
    parts = []
    for path in (xml, xml.with_suffix(".bin")):
        with open_regular(path, MOST_BYTES) as file:
            parts.append(hashlib.file_digest(file, "sha256").digest())
    return _joint(parts)


def _joint(parts: Iterable[bytes]) -> str:
    return hashlib.sha256(b"".join(parts)).hexdigest()


def network_file(folder: Path, digest: str) -> Path:
    """Return where a folder keeps the network of this digest."""
    return folder / f"network-{digest}.safetensors"


def list_networks(folder: Path) -> list[Path]:
    """Return the files of the networks that a folder keeps."""
    return sorted(path for path in folder.glob("network-*") if _NAME.fullmatch(path.name))


def digest_in_name(file: Path) -> str:
    """Return the digest that a network's file is named by."""
    return file.stem.removeprefix("network-")


def is_whole(file: Path) -> bool:
    """Say whether a network's file holds the network that its name says.

    Raises
    ------
    OSError
        If it cannot be read, which says nothing about it.
    """
    return load_network(file.parent, digest_in_name(file)) is not None


def save_network(network: Network, folder: Path) -> None:
    """Write a network into `folder`, in a file named by its digest, whole or not at all.

    Raises
    ------
    BreedsError
        If it cannot be written.
    """
    with write_aside(network_file(folder, network.digest)) as aside:
        aside.write_bytes(save({"xml": network.xml, "bin": network.bin}))


def load_network(folder: Path, digest: str) -> Network | None:
    """Return the network of this digest out of `folder`, or None if it is not there, whole.

    Raises
    ------
    OSError
        If it is there and cannot be read just now.
    """
    try:
        arrays, _ = read_safetensors(network_file(folder, digest))
        network = Network(arrays["xml"], arrays["bin"])
    except (FileNotFoundError, UnfitError, SafetensorError, ValueError, LookupError, AttributeError):
        return None
    return network if network.digest == digest else None


def read_safetensors(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """Read all arrays of a safetensors file, and its metadata, out of bytes that were read once.

    Raises
    ------
    OSError
        As `breeds.files.read_regular` does.
    SafetensorError, ValueError, LookupError, TypeError, AttributeError, RecursionError
        If it is damaged, or something else.
    """
    data = read_regular(path, MOST_BYTES)
    arrays = load(data)  # checks the header, and gives all but the metadata in it
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    return arrays, dict(header.get("__metadata__") or {})

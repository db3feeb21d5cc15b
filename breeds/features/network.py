"""Files of quantised networks, which identify int8 configs and travel with store and model."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from breeds.config import MOST_BYTES, Network
from breeds.files import UnfitError, read_regular, write_aside

_NAME = re.compile(r"network-([0-9a-f]{64})\.safetensors")


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

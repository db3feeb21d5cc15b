"""A file of weights, known by the numbers in it: whatever its layout and its name.

Keras has two layouts. In that of Keras 3 (``.weights.h5``) an array's path is
``layers/KIND_N/vars/I``: the N-th layer of its kind, in the network's order. In the older one
(``.h5``) layers have the names that somebody gave them, in the network's order. Both are read as
the first, so the same numbers have the same digest.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import astuple, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from breeds.errors import BreedsError
from breeds.files import UnfitError, cache_folder, open_regular, read_regular, write_aside
from breeds.plainhdf5 import FAULTS_OF_THE_FILE, open_on, plain_dataset

#: No network that Breeds knows has so many arrays, groups and arrays, or groups within groups.
_MOST_ARRAYS, _MOST_MEMBERS, _DEEPEST = 20_000, 60_000, 8
#: How many bytes a file of weights can have; those of the networks here have some 100 million.
MOST_BYTES = 2**31
#: How many files' digests are remembered, and in how many bytes.
_MOST_FILES, _MOST_REMEMBERED = 100, 2**20
# A file written just now may be written again within the same tick of its clock.
_SETTLED_NS = 2 * 10**9


def read_arrays(path: Path, root: str = "layers") -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Yield every array of a weights file with its canonical name, in the names' order.

    Parameters
    ----------
    path
        An HDF5 file in either layout. It may come from a stranger: nothing outside of it is
        followed, and no more is read than the file has bytes (so none that is compressed).
    root
        The group that holds the layers, in the layout of Keras 3.

    Yields
    ------
    name, array
        Such as ``conv2d_3/vars/0``, and float32 of any shape, one at a time.

    Raises
    ------
    OSError, ValueError, LookupError, TypeError, RuntimeError
        If it is no weights file, or damaged.

    Notes
    -----
    Layers of kinds that the older layout does not tell apart by the names of their arrays keep the
    names that this layout gives them, so networks which have some (ConvNeXt) are known by content
    within each layout only.
    """
    with open_regular(path, MOST_BYTES) as raw, open_on(raw) as file:
        top = _hard(file, "model_weights") if "model_weights" in file else file
        old = _names(top, "layer_names") is not None
        members = _old_layout(top) if old else _new_layout(_hard(file, root))
        found = dict(islice(members, _MOST_ARRAYS))
        # A file may name one array many times over.
        if not found or sum(array.nbytes for array in found.values()) > file.id.get_filesize():
            raise ValueError("it holds no weights of a network, or claims more than is in it")
        # Random generators of dropout are part of no answer.
        for name in sorted(name for name in found if "seed_generator" not in name):
            yield name, np.asarray(found[name][()], dtype="<f4")


def _hard(group: h5py.Group, name: str) -> Any:
    """Return a member that lives in `group` itself: links elsewhere are not followed."""
    for part in name.split("/"):
        if not isinstance(group.get(part, getlink=True), h5py.HardLink):
            raise ValueError(f"there is no {name} in it")
        group = group[part]
    return group


def _new_layout(root: Any) -> Iterator[tuple[str, h5py.Dataset]]:
    groups, seen = [("", root)], 0
    while groups:
        path, group = groups.pop()
        for name in group:
            seen += 1
            if seen > _MOST_MEMBERS or path.count("/") > _DEEPEST:
                raise ValueError("its groups are no network's")
            member = _hard(group, name)
            if isinstance(member, h5py.Group):
                groups.append((f"{path}{name}/", member))
            else:
                yield path + name, _plain(member)


def _old_layout(top: h5py.Group) -> Iterator[tuple[str, h5py.Dataset]]:
    count: Counter[str] = Counter()
    for layer in _names(top, "layer_names") or []:
        group = _hard(top, layer)
        members = [(name, _plain(_hard(group, name))) for name in _names(group, "weight_names") or []]
        if not members:
            continue
        kind = _kind([member.shape for _, member in members]) or layer
        number = f"_{count[kind]}" if count[kind] else ""
        count[kind] += 1
        for index, (_, member) in enumerate(members):
            yield f"{kind}{number}/vars/{index}", member


def _kind(shapes: Sequence[tuple[int, ...]]) -> str:
    """Tell a layer's kind by its arrays' shapes, as their names differ from one Keras to another."""
    first, *others = shapes
    if len(first) == 1 and len(others) >= 2 and set(others) == {first}:
        return "batch_normalization"
    if len(first) != 4:
        return ""
    if others and len(others[0]) == 4:
        return "separable_conv2d"
    return "depthwise_conv2d" if first[-1] == 1 else "conv2d"


def _names(group: h5py.Group, attribute: str) -> list[str] | None:
    """Return a list of names; a long one is in parts whose attributes are numbered."""
    parts = [attribute] if attribute in group.attrs else []
    while f"{attribute}{len(parts)}" in group.attrs:
        parts.append(f"{attribute}{len(parts)}")
    if not parts:
        return None
    values = [value for part in parts for value in np.atleast_1d(group.attrs[part]).tolist()]
    if len(values) > _MOST_ARRAYS:
        raise ValueError("its layers are no network's")
    return [value.decode() if isinstance(value, bytes) else str(value) for value in values]


def _plain(found: Any) -> h5py.Dataset:
    """Return a dataset of numbers whose bytes are in the file."""
    array = plain_dataset(found, "an array of it")
    if array.dtype.kind not in "fiu":
        raise ValueError("an array of it is not of numbers")
    return array


def content_digest(path: Path, root: str = "layers") -> str:
    """Return the SHA-256 over a weights file's arrays: of each its name, shape and bytes (float32).

    Raises
    ------
    OSError, ValueError, LookupError, TypeError, RuntimeError
        As `read_arrays` does.
    """
    total = hashlib.sha256()
    for name, array in read_arrays(path, root):
        total.update(f"{name} {array.shape}\n".encode())
        total.update(np.ascontiguousarray(array).data)
    return total.hexdigest()


@dataclass(frozen=True)
class Identity:
    """What a weights file is: `content_digest`, and the MD5 and SHA-256 of the file itself."""

    content: str
    md5: str
    sha256: str


def identify(path: Path) -> Identity:
    """Say what a weights file is, out of the cache if it is unchanged: by path, size, times and inode.

    Raises
    ------
    BreedsError
        If the file cannot be read just now.
    ValueError
        If it is no weights file, or damaged; the text says in what.
    """
    try:
        mark = _mark(path)
        memory, place = cache_folder() / "weights.json", str(path.resolve())
        known = _remembered(memory)
        if place in known and known[place][0] == mark:
            return Identity(*known[place][1])
        found = Identity(content_digest(path), _file_digest(path, "md5"), _file_digest(path, "sha256"))
        if _mark(path) != mark:
            raise BreedsError(f"{path} was replaced while it was being read; run the command again.")
    except (OSError, ValueError, LookupError, TypeError, RuntimeError) as error:
        if isinstance(error, UnfitError):
            raise ValueError(error.strerror) from None
        if isinstance(error, OSError) and error.errno and error.errno not in FAULTS_OF_THE_FILE:
            raise BreedsError(f"Cannot read the weights file {path}: {error.strerror}.") from None
        if isinstance(error, OSError) and "truncated" not in str(error):
            raise ValueError("it is not an HDF5 file, or damaged") from None
        raise ValueError(" ".join(str(error).strip("'\"").split())[:200]) from None
    if time.time_ns() - max(mark[1:3]) > _SETTLED_NS:
        known.pop(place, None)
        newest = dict([*known.items(), (place, [mark, list(astuple(found))])][-_MOST_FILES:])
        with suppress(BreedsError), write_aside(memory) as aside:  # it is only slower without
            aside.write_text(json.dumps(newest), encoding="utf-8")
    return found


def _mark(path: Path) -> list[int]:
    """Return what differs when a file is another, or was written: size, times, inode and device."""
    status = os.stat(path)
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_dev]


def _file_digest(path: Path, kind: str) -> str:
    with open_regular(path, MOST_BYTES) as file:
        return hashlib.file_digest(file, kind).hexdigest()


def _remembered(memory: Path) -> dict[str, list[Any]]:
    """Return what is known of files: their marks, and the digests that they had."""
    try:
        known = json.loads(read_regular(memory, _MOST_REMEMBERED))
        whole = all(
            len(mark) == 5 and [len(digest) for digest in digests] == [64, 32, 64]
            for mark, digests in known.values()
        )
    except (OSError, ValueError, TypeError, AttributeError):
        return {}
    return known if whole else {}


def write_arrays(path: Path, arrays: dict[str, NDArray[np.float32]]) -> None:
    """Write arrays, named as `read_arrays` names them, as a weights file of Keras 3; whole or not at all.

    Raises
    ------
    BreedsError
        If it cannot be written.
    """
    with write_aside(path) as aside, h5py.File(aside, "w", locking=False) as file:
        file.create_group("vars")
        for name, array in arrays.items():
            file[f"layers/{name}"] = array

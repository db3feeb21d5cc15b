"""Tars of photos in WebDataset's layout, read as a stream; nothing in them is ever put on a disk.

A sample is what lies side by side under one key: ``KEY.jpg`` and its label in ``KEY.cls`` or ``KEY.json``.
Headers are read here, and not by `tarfile`, as that takes as much memory as a header asks for.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

from breeds.errors import GoneError, PhotoError
from breeds.photos.labels import label_of, plain_label
from breeds.photos.limits import size_fault
from breeds.photos.photo import Photo

#: How many members a tar may have, and how many may lie side by side under one key.
MAX_MEMBERS, MAX_SAMPLE = 1_000_000, 1000
#: How long a name may be, what else a header may say of a member, and a label's file, in bytes.
MAX_NAME, MAX_HEADER, MAX_LABEL = 2**14, 2**20, 2**16
#: Photos up to so many bytes stay in memory until their label has come; the others are read again.
KEPT_BYTES = 4 * 2**20

_BLOCK = 512
_ZEROS = bytes(_BLOCK)
# First bytes of gzip, bzip2, xz and zstd.
_PACKED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")
# Zeros that may follow the end: shards may be joined end to end, each padded to its record.
_MOST_ZEROS = 2**25
_READ = 8 * 2**20
_CUT = "ends in the middle, so it is cut off: what comes before counts, and what is missing is not known"

_LINKS, _FOLDER, _SPARSE, _DATA = b"12", b"5", b"S", b"0\0007"
_OTHERS = b"34" + b"6"  # devices and pipes, which have no bytes here


class File(Protocol):
    """A file of which parts can be read, on this machine or another."""

    @property
    def size(self) -> int:
        """Its bytes."""
        ...

    @property
    def mtime_ns(self) -> int:
        """When it was written, 0 if nobody knows."""
        ...

    @property
    def name(self) -> str:
        """What it is called, to be shown."""
        ...

    def read_at(self, at: int, size: int) -> bytes:
        """Return `size` bytes from byte `at` on, fewer only at the end."""
        ...

    def __hash__(self) -> int: ...


@dataclass(slots=True)
class TarPhoto:
    """A photo in a tar: its bytes are `size` from byte `at` on."""

    name: str
    tar: File
    at: int
    size: int
    label: str = ""
    split: str = ""
    group: str = ""

    def read(self) -> bytes:
        """Return the photo's bytes.

        Raises
        ------
        GoneError
            If there are none or too many, or the tar has become shorter.
        BreedsError
            If the tar cannot be read.
        """
        if fault := size_fault(self.size):
            raise GoneError(fault)
        data = self.tar.read_at(self.at, self.size)
        if len(data) != self.size:
            raise GoneError("the tar changed while it was being read; run again")
        return data


@dataclass(slots=True)
class Found:
    """What was found in a file of many photos: a photo, or what is to be set aside, with `error`.

    `path` is its name inside; `data` are its bytes where they are in memory still, else `photo` reads them.
    """

    path: str
    label: str = ""
    split: str = ""
    key: str = ""
    size: int = 0
    photo: Photo | None = None
    data: bytes | None = field(default=None, repr=False)
    error: str = ""

    def bytes(self) -> bytes:
        """Return the photo's bytes, read again if they are not at hand.

        Raises
        ------
        PhotoError
            If they are not there any more.
        """
        if self.data is not None:
            return self.data
        assert self.photo is not None
        return self.photo.read()


def found_in(tar: File, is_photo: Extension) -> Iterator[Found | None]:
    """Yield every photo of a tar with its key and label, in order; None for each other file passed over.

    The tar is read once from its beginning to its end. Of each photo that cannot be used, and of the tar
    itself if it is cut off or damaged (its path is "" then), the reason is told.

    Parameters
    ----------
    is_photo
        Says by a name's ending whether it is a photo's.

    Raises
    ------
    BreedsError
        If the tar cannot be read.
    """
    sample, names = _Sample(), set[int]()
    stream = _Stream(tar)
    for header in headers(stream):
        if not header.path:
            yield from sample.found()
            yield Found("", error=header.reason)
            return
        if header.is_folder or not header.key:  # hidden, or without an ending
            yield from [] if header.is_folder else [None]
            continue
        if sample.key != header.key or sample.is_full:
            yield from sample.found()
            sample = _Sample(header.key)
        if is_photo(header.path):
            sample.photos.append(_photo(header, stream, names))
        elif header.ending in ("cls", "json") and not header.reason:
            sample.take_label(header, stream)
        else:
            yield None
    yield from sample.found()


class Extension(Protocol):
    """Says whether a name is a photo's."""

    def __call__(self, name: str, /) -> bool:
        """Say so."""
        ...


def _photo(header: Header, stream: _Stream, names: set[int]) -> Found:
    photo = Found(header.path, size=header.size, error=header.reason)
    photo.error = photo.error or size_fault(header.size)
    if not photo.error and hash(header.path) in names:
        photo.error = "another of this name comes before it in the tar"
    names.add(hash(header.path))
    if photo.error:
        return photo
    data = stream.take(header.at, header.size)
    if len(data) < header.size:
        photo.error = f"the tar ends in the middle of it: {len(data)} of {header.size} bytes are there"
        return photo
    photo.key = hashlib.sha256(data).hexdigest()
    photo.photo = TarPhoto(header.path, stream.tar, header.at, header.size)
    photo.data = data if header.size <= KEPT_BYTES else None
    return photo


@dataclass(slots=True)
class _Sample:
    """What lies side by side under one key."""

    key: str = ""
    photos: list[Found] = field(default_factory=list)
    labels: list[tuple[str, str]] = field(default_factory=list)
    error: str = ""

    @property
    def is_full(self) -> bool:
        """Whether so much has come that no more is waited for."""
        return len(self.photos) + len(self.labels) >= MAX_SAMPLE

    def take_label(self, header: Header, stream: _Stream) -> None:
        """Read the label's file; what is wrong with it is told of the photos."""
        try:
            if header.size > MAX_LABEL:
                raise PhotoError(f"{header.size} bytes are over the limit of {MAX_LABEL}")
            data = stream.take(header.at, header.size)
            if len(data) == header.size:  # else the tar is cut, as is told then
                self.labels.append(_read_label(header.ending, data))
        except PhotoError as error:
            self.error = f"its label in {os.path.basename(header.path)} cannot be used: {error}"

    def found(self) -> Iterator[Found]:
        """Yield the photos with what the sample says of them."""
        labels = dict.fromkeys(label for label, _ in self.labels if label)
        splits = dict.fromkeys(split for _, split in self.labels if split)
        error = self.error
        for what, names in (("labels", labels), ("parts of the split", splits)):
            if len(names) > 1:
                error = error or f"it has two {what}: {' and '.join(list(names)[:2])}"
        for photo in self.photos:
            photo.label, photo.split = next(iter(labels), ""), next(iter(splits), "")
            photo.error = photo.error or error
            if photo.error:
                photo.data = None
            yield photo


def _read_label(ending: str, data: bytes) -> tuple[str, str]:
    """Return a label and a part of the split, "" for what is not there."""
    try:
        text = data.decode("utf-8-sig")
        if ending == "cls":
            return plain_label(text), ""
        return label_of(json.loads(text))
    except UnicodeDecodeError:
        raise PhotoError("it is no text in UTF-8") from None
    except (ValueError, RecursionError):
        raise PhotoError("it is no JSON") from None


class _Stream:
    """A tar read from its beginning on, a few megabytes ahead; what is skipped far is not read."""

    def __init__(self, tar: File) -> None:
        self.tar = tar
        self._start, self._data = 0, b""

    def take(self, at: int, size: int) -> bytes:
        """Return `size` bytes from byte `at` on, fewer only at the end."""
        inside = at - self._start
        if inside >= 0 and inside + size <= len(self._data):
            return self._data[inside : inside + size]
        have = self._data[inside:] if 0 <= inside < len(self._data) else b""
        self._data = b""
        self._data = have + self.tar.read_at(at + len(have), max(_READ, size) - len(have))
        self._start = at
        return self._data[:size]


@dataclass(frozen=True, slots=True)
class Header:
    """A member of a tar: its name made safe, where its bytes are, and why it cannot be used.

    Without a path, it says what is wrong with the tar from there on.
    """

    path: str
    at: int = 0
    size: int = 0
    reason: str = ""
    is_folder: bool = False

    @property
    def key(self) -> str:
        """The sample's key: the name up to the first dot after its folders; "" where there is none."""
        folder, _, name = self.path.rpartition("/")
        stem, dot, _ = name.partition(".")
        return f"{folder}/{stem}" if stem and dot else ""

    @property
    def ending(self) -> str:
        """What follows the key, in small letters."""
        return self.path.rpartition("/")[2].partition(".")[2].lower()


def headers(stream: _Stream) -> Iterator[Header]:
    """Yield the members of a tar in order, and, at the end, what is wrong with the tar, if anything is."""
    at, count, zeros, ended = 0, 0, 0, False
    more: dict[str, str] = {}
    common: dict[str, str] = {}
    while True:
        block = stream.take(at, _BLOCK)
        if not block and at <= stream.tar.size and (ended or not stream.tar.size):
            if not count:
                yield Header("", reason="is empty: it has no members")
            return
        if len(block) < _BLOCK:
            yield Header("", reason=_CUT)
            return
        if at == 0 and block.startswith(_PACKED):
            yield Header(
                "", reason="is compressed, which saves nothing with photos; unpack it to a plain tar"
            )
            return
        if block == _ZEROS:
            at, zeros, ended = at + _BLOCK, zeros + _BLOCK, True
            if zeros > _MOST_ZEROS:
                yield Header("", reason=f"has {_MOST_ZEROS // 2**20} MiB of zeros: what follows is not read")
                return
            continue
        zeros, ended, count = 0, False, count + 1
        try:
            kind, name, size = _read_header(block)
            if count > MAX_MEMBERS:
                raise ValueError(f"it has more than {MAX_MEMBERS} members; split it")
            data = at + _BLOCK
            if kind in b"LKxXg":
                said = _extended(kind, stream, data, size)
                (common if kind == b"g" else more).update(said)  # a few names at most
                at = data + _padded(size)
                continue
            said, more = {**common, **more}, {}
            if "size" in said:
                size = _decimal(said["size"])
            if kind == _SPARSE:
                data = _past_sparse(stream, block, data)
            has_data = kind in _DATA or kind not in _LINKS + _FOLDER + _OTHERS
            reason = _reason(kind, said)
            path = safe_name(said.get("path", name))
            is_folder = kind == _FOLDER or (kind == b"\0" and name.endswith("/"))
            at = data + (_padded(size) if has_data else 0)
            if path:
                yield Header(path, data, size if has_data else 0, reason, is_folder)
        except ValueError as error:
            yield Header("", reason=f"is damaged at byte {at}: {error}; what comes before counts")
            return


def _reason(kind: bytes, said: dict[str, str]) -> str:
    if kind in _LINKS:
        return "is a link in a tar, and none is followed"
    if kind in _OTHERS:
        return "is a device or a pipe in a tar, and no photo"
    if kind == _SPARSE or "GNU.sparse" in said:
        return "is a sparse file in a tar, which may be of any size when it is filled up"
    return ""


def _read_header(block: bytes) -> tuple[bytes, str, int]:
    """Return a member's kind, name and size.

    Raises
    ------
    ValueError
        If the header's own sum does not fit.
    """
    total = 8 * 32 + sum(block[:148]) + sum(block[156:])
    if _number(block[148:156]) != total:
        signed = total - 256 * sum(byte > 127 for byte in block[:148] + block[156:])
        if _number(block[148:156]) != signed:
            raise ValueError("no header of a tar is there")
    name = _text(block[:100])
    if block[257:263] == b"ustar\0" and (prefix := _text(block[345:500])):
        name = f"{prefix}/{name}"
    return block[156:157], name, _number(block[124:136])


def _text(cell: bytes) -> str:
    return cell.partition(b"\0")[0].decode("utf-8", "surrogateescape")


def _number(cell: bytes) -> int:
    if cell[0] in (0x80, 0xFF):  # base 256, as GNU writes what is large
        number = int.from_bytes(cell[1:], "big")
        if cell[0] == 0xFF or number >= 2**62:
            raise ValueError("a size is no size")
        return number
    text = cell.replace(b"\0", b" ").strip()
    if any(byte not in b"01234567" for byte in text):
        raise ValueError("a number in a header is none")
    return int(text or b"0", 8)


def _decimal(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise ValueError("a size is no size")
    return int(text)


def _padded(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK


def _extended(kind: bytes, stream: _Stream, at: int, size: int) -> dict[str, str]:
    """Return what an extended header says of the next member, its name and size at most."""
    if size > (MAX_NAME if kind in b"LK" else MAX_HEADER):
        raise ValueError(f"a header of {size} bytes")
    data = stream.take(at, size)
    if len(data) < size:
        return {}  # cut off, as is seen next
    if kind == b"L":
        return {"path": _text(data)}
    return {} if kind == b"K" else dict(_records(data))


def _records(data: bytes) -> Iterator[tuple[str, str]]:
    """Yield the records of a pax header that matter: each is ``LENGTH NAME=VALUE`` and a line's end."""
    at = 0
    while at < len(data) and data[at]:
        digits, blank, _ = data[at : at + 20].partition(b" ")
        length = _decimal(digits.decode("latin-1")) if blank else 0
        name, equals, value = data[at + len(digits) + 1 : at + length - 1].partition(b"=")
        if not equals or length <= len(digits) + 2 or at + length > len(data):
            raise ValueError("a header that says more of a member is none")
        if name == b"path" and len(value) > MAX_NAME:
            raise ValueError("a name is too long")
        if name in (b"path", b"size"):
            yield name.decode(), value.decode("utf-8", "surrogateescape")
        elif name.startswith(b"GNU.sparse."):
            yield "GNU.sparse", ""
        at += length


def _past_sparse(stream: _Stream, block: bytes, at: int) -> int:
    """Return where the bytes of GNU's sparse member begin, past the tables of what it leaves out."""
    more = block[482]
    while more:
        block = stream.take(at, _BLOCK)
        if len(block) < _BLOCK:
            return at
        more, at = block[504], at + _BLOCK
    return at


def safe_name(name: str) -> str:
    r"""Return a member's name as part of a path that no program can take for one that leads elsewhere.

    Examples
    --------
    >>> safe_name("./pug/1.jpg"), safe_name("/etc/../passwd.jpg")
    ('pug/1.jpg', 'etc/%2E%2E/passwd.jpg')
    """
    parts = (part for part in name.replace("\0", "%00").split("/") if part not in ("", "."))
    return "/".join("%2E%2E" if part == ".." else part for part in parts)[:MAX_NAME]


def members_of(tar: File, is_photo: Extension) -> dict[str, tuple[int, int]]:
    """Return where each photo of a tar is, by its name: its first byte, and how many there are.

    Headers alone are read, so this is for tars in which skipping is cheap.
    """
    found: dict[str, tuple[int, int]] = {}
    for header in headers(_Stream(tar)):
        if header.path and not header.reason and is_photo(header.path):
            found.setdefault(header.path, (header.at, header.size))
    return found

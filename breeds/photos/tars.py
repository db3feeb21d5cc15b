"""Tars of photos in WebDataset's layout, read as a stream; nothing in them is ever put on a disk.

A sample is what lies side by side under one key: ``KEY.jpg`` and its label in ``KEY.cls`` or ``KEY.json``.
Python's `tarfile` reads the headers, from a file that gives each of them a bounded number of bytes.
"""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field

from breeds.errors import BreedsError, PhotoError
from breeds.photos.limits import size_fault
from breeds.photos.photo import RejectedPhoto, TarPhoto
from breeds.photos.storage import SourceFile
from breeds.selection import is_photo, plain_label, plain_split

#: How many members a tar may have, and how many may lie side by side under one key.
MAX_MEMBERS, MAX_SAMPLE = 1_000_000, 1000
#: How long a name may be, what a header may have in all, and a label's file, in bytes.
MAX_NAME, MAX_HEADER, MAX_LABEL = 2**14, 2**17, 2**16
#: Photos up to so many bytes stay in memory until their label has come; the others are read again.
KEPT_BYTES = 4 * 2**20

# First bytes of gzip, bzip2, xz and zstd.
_PACKED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")
# Zeros that may follow the end: shards may be joined end to end, each padded to its record.
_MOST_ZEROS = 2**25
# What is read ahead of a stream, and where headers alone are wanted.
_READ, _READ_HEADER = 8 * 2**20, 2**12
# What `tarfile` says where a tar ends too early.
_ENDS = ("unexpected end of data", "empty header", "truncated header")
_CUT = "ends in the middle, so it is cut off: what comes before counts, and what is missing is not known"


def photos_in(tar: SourceFile) -> Iterator[TarPhoto | RejectedPhoto | None]:
    """Yield every photo of a tar with its label, in order; None for each other file that is passed over.

    The tar is read once, from its beginning to its end; photos of up to `KEPT_BYTES` come with their bytes.
    Where the tar is cut off or damaged, the last one has no name, and says so.

    Raises
    ------
    BreedsError
        If the tar cannot be read.
    """
    sample, names = _Sample(), set[int]()
    file = _Bounded(tar.opened(), _READ)
    try:
        for member, path in _members(file, tar.size):
            key, ending = _key_and_ending(path)
            if member.isdir() or not key:  # hidden, or without an ending
                yield from [] if member.isdir() else [None]
                continue
            if sample.key != key or sample.is_full:
                yield from sample.photos_with_label()
                sample = _Sample(key)
            reason = _reason(member)
            if is_photo(path):
                sample.photos.append(_photo(member, path, reason, tar, file, names))
            elif ending in ("cls", "json") and not reason:
                sample.take_label(ending, path, member, file)
            else:
                yield None
    except ValueError as error:
        yield from sample.photos_with_label()
        yield RejectedPhoto("", str(error))
    else:
        yield from sample.photos_with_label()


def places_in(tar: SourceFile) -> dict[str, tuple[int, int]]:
    """Return where each photo of a tar is, by its name: its first byte, and how many there are.

    Headers alone are read, so this is for tars in which skipping is cheap.
    """
    found: dict[str, tuple[int, int]] = {}
    try:
        for member, path in _members(_Bounded(tar.opened(), _READ_HEADER), tar.size):
            if not _reason(member) and not member.isdir() and is_photo(path):
                found.setdefault(path, (member.offset_data, member.size))
    except ValueError:  # what comes before counts
        pass
    return found


def _photo(
    member: tarfile.TarInfo, path: str, reason: str, tar: SourceFile, file: _Bounded, names: set[int]
) -> TarPhoto | RejectedPhoto:
    reason = reason or size_fault(member.size)
    if not reason and hash(path) in names:
        reason = "another of this name comes before it in the tar"
    names.add(hash(path))
    there = tar.size - member.offset_data
    if not reason and there < member.size:
        reason = f"the tar ends in the middle of it: {max(0, there)} of {member.size} bytes are there"
    if reason:
        return RejectedPhoto(path, reason)
    photo = TarPhoto(path, tar, member.offset_data, member.size)
    if member.size <= KEPT_BYTES:
        photo.data = file.take(member.offset_data, member.size)
    return photo


def _reason(member: tarfile.TarInfo) -> str:
    """Say why a member can be neither a photo nor a label, "" if it can."""
    if member.issym() or member.islnk():
        return "is a link in a tar, and none is followed"
    if member.isdev():
        return "is a device or a pipe in a tar, and no photo"
    if member.issparse() or any(name.startswith("GNU.sparse.") for name in member.pax_headers):
        return "is a sparse file in a tar, which may be of any size when it is filled up"
    return ""


def _key_and_ending(path: str) -> tuple[str, str]:
    """Return a sample's key, the name up to the first dot after its folders, and what follows, small."""
    folder, _, name = path.rpartition("/")
    stem, dot, ending = name.partition(".")
    return f"{folder}/{stem}" if stem and dot else "", ending.lower()


@dataclass(slots=True)
class _Sample:
    """What lies side by side under one key."""

    key: str = ""
    photos: list[TarPhoto | RejectedPhoto] = field(default_factory=list)
    labels: list[tuple[str, str]] = field(default_factory=list)
    error: str = ""

    @property
    def is_full(self) -> bool:
        """Whether so much has come that no more is waited for."""
        return len(self.photos) + len(self.labels) >= MAX_SAMPLE

    def take_label(self, ending: str, path: str, member: tarfile.TarInfo, file: _Bounded) -> None:
        """Read the label's file; what is wrong with it is told of the photos."""
        try:
            if member.size > MAX_LABEL:
                raise PhotoError(f"{member.size} bytes are over the limit of {MAX_LABEL}")
            data = file.take(member.offset_data, member.size)
            if len(data) == member.size:  # else the tar is cut, as is told then
                self.labels.append(_read_label(ending, data))
        except PhotoError as error:
            self.error = f"its label in {os.path.basename(path)} cannot be used: {error}"

    def photos_with_label(self) -> Iterator[TarPhoto | RejectedPhoto]:
        """Yield the photos with what the sample says of them."""
        labels = dict.fromkeys(label for label, _ in self.labels if label)
        splits = dict.fromkeys(split for _, split in self.labels if split)
        error = self.error
        for what, names in (("labels", labels), ("parts of the split", splits)):
            if len(names) > 1:
                error = error or f"it has two {what}: {' and '.join(list(names)[:2])}"
        for photo in self.photos:
            if error and isinstance(photo, TarPhoto):
                photo = RejectedPhoto(photo.name, error)
            photo.label, photo.split = next(iter(labels), ""), next(iter(splits), "")
            yield photo


def _read_label(ending: str, data: bytes) -> tuple[str, str]:
    """Return a label and a part of the split, "" for what is not there."""
    try:
        text = data.decode("utf-8-sig")
        if ending == "cls":
            return plain_label(text), ""
        said = json.loads(text)
    except UnicodeDecodeError:
        raise PhotoError("it is no text in UTF-8") from None
    except (ValueError, RecursionError):
        raise PhotoError("it is no JSON") from None
    if not isinstance(said, dict):
        raise PhotoError("it is no object of JSON")
    return plain_label(said.get("label")), plain_split(said.get("split"))


class _Bounded(io.BufferedReader):
    """A tar as `tarfile` reads it: `MAX_HEADER` bytes for each header at most, whatever it asks for."""

    left = 0

    def read(self, size: int | None = -1, /) -> bytes:
        """Read a part of a header."""
        self.left -= size or 0
        if size is None or size < 0 or self.left < 0:
            raise ValueError(f"a header asks for more than {MAX_HEADER} bytes")
        return super().read(size)

    def take(self, at: int, size: int) -> bytes:
        """Return `size` bytes from byte `at` on, fewer only at the end."""
        self.seek(at)
        return super().read(size)


def _members(file: _Bounded, size: int) -> Iterator[tuple[tarfile.TarInfo, str]]:
    """Yield the members of a tar, or of several that were joined end to end, with names made safe.

    Raises
    ------
    ValueError
        With what is wrong with the tar from there on.
    """
    at = count = 0
    while (at := _past_zeros(file, at)) < size:
        if at == 0 and file.take(0, 512).startswith(_PACKED):
            raise ValueError("is compressed, which saves nothing with photos; unpack it to a plain tar")
        for member, end in _headers(file, at, size):
            at, count = end, count + 1
            if count > MAX_MEMBERS:
                raise ValueError(f"has more than {MAX_MEMBERS} members: split it; what comes before counts")
            if path := safe_name(member.name):
                yield member, path
    if not count:
        raise ValueError("is empty: it has no members")


def _headers(file: _Bounded, at: int, size: int) -> Iterator[tuple[tarfile.TarInfo, int]]:
    """Yield the members of the tar that begins at byte `at`, and where what follows each of them begins."""
    opened: tarfile.TarFile | None = None
    while True:
        file.left = MAX_HEADER
        try:
            if opened is None:
                file.seek(at)
                opened = tarfile.TarFile(fileobj=file, encoding="utf-8", errors="surrogateescape")
            member = opened.next()
            opened.members.clear()  # type: ignore[attr-defined]  # else it keeps them all
        except BreedsError:
            raise
        except Exception as error:  # a stranger's bytes can make it raise nearly anything
            raise ValueError(_damage(at, size, error)) from None
        if member is None:
            block = file.take(opened.offset, 512)
            if len(block) < 512:
                raise ValueError(_CUT)
            if block.strip(b"\0"):
                raise ValueError(_damage(opened.offset, size, "no header of a tar is there"))
            return
        if opened.offset <= at:  # as of a size below zero
            raise ValueError(_damage(at, size, "a size is no size"))
        at = opened.offset
        yield member, at


def _damage(at: int, size: int, error: object) -> str:
    if size - at < 512 or str(error) in _ENDS:
        return _CUT
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    return f"is damaged at byte {at}: {reason}; what comes before counts"


def _past_zeros(file: _Bounded, at: int) -> int:
    """Return where the next block begins that is not all zeros, or the end."""
    start = at
    while data := file.take(at, 2**16):
        rest = data.lstrip(b"\0")
        if rest:
            return at + (len(data) - len(rest)) // 512 * 512
        at += len(data)
        if at - start > _MOST_ZEROS:
            raise ValueError(f"has {_MOST_ZEROS // 2**20} MiB of zeros: what follows is not read")
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

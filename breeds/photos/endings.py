"""What files of photos, and files of many photos, are called."""

from __future__ import annotations

#: How the names of photos end.
EXTENSIONS = frozenset(
    [".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".mpo"]
)
#: How the names of files of many photos end: WebDataset's shards, and Parquet.
CONTAINERS = (".tar", ".parquet")
#: Tars in which no photo can be found without unpacking all before it.
PACKED = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst")


def is_photo(name: str) -> bool:
    """Say by its name whether a file is a photo; hidden ones are not."""
    last = name.rpartition("/")[2]
    stem, dot, ending = last.rpartition(".")
    return bool(stem) and not last.startswith(".") and f"{dot}{ending}".lower() in EXTENSIONS

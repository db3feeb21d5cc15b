"""Photos: find them, read them, identify them by their bytes, and decode one safely to pixels."""

from breeds.photos.again import photo_at, photo_of
from breeds.photos.decode import ORIGINAL, decode, key_of, look, parse_views, picture
from breeds.photos.find import find_photos, find_streamed
from breeds.photos.folders import Layout, Listing, walk_folders, walk_photos
from breeds.photos.photo import FilePhoto, MemoryPhoto, Photo
from breeds.photos.resize import RESIZES, fits, parse_resize

__all__ = [
    "ORIGINAL",
    "RESIZES",
    "FilePhoto",
    "Layout",
    "Listing",
    "MemoryPhoto",
    "Photo",
    "decode",
    "find_photos",
    "find_streamed",
    "fits",
    "key_of",
    "look",
    "parse_resize",
    "parse_views",
    "photo_at",
    "photo_of",
    "picture",
    "walk_folders",
    "walk_photos",
]

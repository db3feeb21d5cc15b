"""Photos: find them, identify them by their bytes, and decode one safely to pixels."""

from breeds.photos.decode import ORIGINAL, decode, key_of, look, parse_views, picture, read
from breeds.photos.find import Layout, Listing, find_photos, walk_folders, walk_photos
from breeds.photos.inside import photo_at
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
    "fits",
    "key_of",
    "look",
    "parse_resize",
    "parse_views",
    "photo_at",
    "picture",
    "read",
    "walk_folders",
    "walk_photos",
]

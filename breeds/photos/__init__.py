"""Photos: find them, identify them by their bytes, and decode one safely to pixels."""

from breeds.photos.decode import ORIGINAL, RESIZES, decode, key_of, look, parse_views, picture, read
from breeds.photos.find import Layout, Listing, Photo, find_photos, walk_folders, walk_photos

__all__ = [
    "ORIGINAL",
    "RESIZES",
    "Layout",
    "Listing",
    "Photo",
    "decode",
    "find_photos",
    "key_of",
    "look",
    "parse_views",
    "picture",
    "read",
    "walk_folders",
    "walk_photos",
]

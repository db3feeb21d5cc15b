"""Photos: find them, identify them by their bytes, and decode one safely to pixels."""

from breeds.photos.decode import RESIZES, decode, key_of, read
from breeds.photos.find import Listing, Photo, find_photos, walk_photos

__all__ = ["RESIZES", "Listing", "Photo", "decode", "find_photos", "key_of", "read", "walk_photos"]

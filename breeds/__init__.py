"""Breeds: tell dog breeds apart from photos, on an ordinary CPU, and retrain in a second."""

__version__ = "0.1.0"

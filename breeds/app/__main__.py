"""A front, ``python -m breeds.app``: `breeds.cli.app` says what it does."""

from __future__ import annotations

from breeds.cli import common
from breeds.cli.app import main

if __name__ == "__main__":
    common.run(main)

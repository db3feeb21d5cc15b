"""A front, ``python -m breeds.features``: `breeds.cli.store` says what it does."""

from __future__ import annotations

from breeds.cli import common
from breeds.cli.store import main

if __name__ == "__main__":
    common.run(main)

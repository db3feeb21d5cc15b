"""A front, ``python -m breeds.store``: `breeds.commands.store` says what it does."""

from __future__ import annotations

from breeds import cli
from breeds.commands.store import main

if __name__ == "__main__":
    cli.run(main)

"""``python -m breeds``: the command ``breeds`` where it is not installed."""

from __future__ import annotations

from breeds.cli import main

if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Photos to features: the script in front of `breeds.cli.extract`."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent))  # python -P and -I do not look there

from breeds.cli import common
from breeds.cli.extract import main, parser

__all__ = ["main", "parser"]

if __name__ == "__main__":
    common.run(main)

#!/usr/bin/env python3
"""How good a model is: the script in front of `breeds.cli.evaluate`."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent))  # python -P and -I do not look there

from breeds.cli import common
from breeds.cli.evaluate import main, parser

__all__ = ["main", "parser"]

if __name__ == "__main__":
    common.run(main)

#!/usr/bin/env python3
"""Features to a model: the script in front of `breeds.cli.train`."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent))  # python -P and -I do not look there

from breeds.cli import common
from breeds.cli.train import compare, main, parser

__all__ = ["compare", "main", "parser"]

if __name__ == "__main__":
    common.run(main)

#!/usr/bin/env python3
"""What breed it is: the script in front of `breeds.cli.predict`."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent))  # python -P and -I do not look there

from breeds.cli import common
from breeds.cli.predict import main, parser

__all__ = ["main", "parser"]

if __name__ == "__main__":
    common.run(main)

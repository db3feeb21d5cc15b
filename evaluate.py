#!/usr/bin/env python3
"""How good a model is: the script in front of `breeds.cli.evaluate`."""

from __future__ import annotations

if __name__ == "__main__":  # before all else: Ctrl-C ends it quietly, and python -P and -I find the package
    import sys

    # Until Python 3.12 a Ctrl-C while a class is made comes as the cause of another error.
    sys.excepthook = lambda kind, error, trace: (
        None if KeyboardInterrupt in (kind, type(error.__cause__)) else sys.__excepthook__(kind, error, trace)
    )
    import os.path

    sys.path.append(os.path.dirname(os.path.abspath(__file__)))

from breeds.cli import common
from breeds.cli.evaluate import main, parser

__all__ = ["main", "parser"]

if __name__ == "__main__":
    common.run(main)

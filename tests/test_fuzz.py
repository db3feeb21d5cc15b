"""A little of `make fuzz`: what reads strangers' files says so in its own words, whatever is in them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [2, pytest.param(10, marks=pytest.mark.thorough)])
@pytest.mark.parametrize("target", ["decode", "store", "model", "csv"])
def test_seconds_of_fuzzing_find_nothing(target: str, seconds: int, tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "tests/fuzz.py"), target, str(seconds)]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, errors="replace", check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert not list(tmp_path.glob("fuzz/*/crash-*"))

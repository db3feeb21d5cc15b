"""A little of `make fuzz`: what reads strangers' files says so in its own words, whatever is in them."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import run_script


@pytest.mark.thorough
@pytest.mark.parametrize("target", ["decode", "store", "model", "csv"])
def test_seconds_of_fuzzing_find_nothing(target: str, tmp_path: Path) -> None:
    done = run_script("tests/fuzz.py", target, 10, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert not list(tmp_path.glob("fuzz/*/crash-*"))

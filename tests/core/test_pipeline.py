"""Working ahead of the engine: every photo comes back once, in order, whatever its fate."""

from __future__ import annotations

import io
import os
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor, ThreadPoolExecutor
from pathlib import Path

import pytest
from conftest import ROOT
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from breeds.backbones.pipeline import Pipeline
from breeds.config import FeatureConfig
from breeds.errors import PhotoError
from breeds.machine import run_alone
from breeds.photos import FilePhoto, key_of, memory

RECIPE = FeatureConfig("xception", "random", "0" * 64, 8, "stretch")


class Batches:
    """An engine that gathers batches of four: the mean of each photo."""

    name = "batches"

    def stream(self, pixels):
        batch = []
        for photo in pixels:
            batch.append(photo)
            if len(batch) == 4:
                yield from (photo.mean(keepdims=True).ravel() for photo in batch)
                batch = []
        yield from (photo.mean(keepdims=True).ravel() for photo in batch)


def png(level: int) -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (9, 7), (level,) * 3).save(data, "png")
    return data.getvalue()


@pytest.fixture(scope="module")
def pipeline() -> Iterator[tuple[Pipeline, list[int]]]:
    opened: list[int] = []

    def engine():
        opened.append(1)
        return Batches()

    with Pipeline(engine, workers=2) as started:
        yield started, opened


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(["good", "bad", "gone", "changed"]), max_size=40))
def test_every_photo_comes_back_once_in_order(pipeline, fates: list[str]) -> None:
    started, opened = pipeline
    with tempfile.TemporaryDirectory() as folder:
        photos = []
        for number, fate in enumerate(fates):
            path = Path(folder, f"{number}.png")
            data = b"no photo" if fate == "bad" else png(number)
            if fate != "gone":
                path.write_bytes(data)
            photos.append((key_of(b"" if fate == "changed" else data), FilePhoto(str(path))))
        found = list(started.features(photos, RECIPE))
    assert [photo for photo, _ in found] == photos
    reasons = {"bad": "not a photo", "gone": "no such file", "changed": "changed while"}
    for number, (fate, (_, feature)) in enumerate(zip(fates, found, strict=True)):
        if fate == "good":
            assert feature == pytest.approx(number)
        else:
            assert isinstance(feature, PhotoError) and reasons[fate] in str(feature)
    assert len(opened) <= 1


def test_no_engine_is_opened_where_no_photo_can_be_decoded(tmp_path: Path) -> None:
    def engine():
        raise AssertionError

    with Pipeline(engine, workers=2) as started:
        (_, reason), *rest = started.features([("0" * 64, FilePhoto(str(tmp_path / "gone.jpg")))], RECIPE)
    assert isinstance(reason, PhotoError) and not rest
    assert started.name == ""


def alone(marker: str) -> None:
    """Hold most of the budget, again and again, and fail if anybody else does meanwhile."""
    for _ in range(50):
        with memory.BUDGET.hold(memory.DECODE_BYTES * 2 // 3):
            os.close(os.open(marker, os.O_CREAT | os.O_EXCL))
            os.unlink(marker)


@pytest.mark.slow
def test_decoders_never_hold_more_than_the_budget_together(tmp_path: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(alone, [str(tmp_path / "held")] * 4))


def slow_bitmap(number: int, side: int = 4000) -> bytes:
    """A bitmap that Pillow unpacks pixel by pixel, for ten seconds and more."""
    body = (b"\1\0\1\1" * (side // 2) + b"\0\0") * side
    header = struct.pack("<IiiHHIIiiII", 40, side, side, 1, 8, 1, len(body), 0, 0, 256, 0)
    start = struct.pack("<IHHI", 54 + 1024 + len(body), 0, 0, 54 + 1024)
    return b"BM" + start + header + bytes(range(256)) * 4 + body + bytes([number])


@pytest.mark.slow
def test_who_leaves_does_not_wait_for_what_is_being_decoded(tmp_path: Path) -> None:
    photos = []
    for number, data in enumerate([png(1), *map(slow_bitmap, range(3))]):
        (tmp_path / f"{number}").write_bytes(data)
        photos.append((key_of(data), FilePhoto(str(tmp_path / f"{number}"))))

    class One(Batches):
        def stream(self, pixels):
            yield from (photo.mean(keepdims=True).ravel() for photo in pixels)

    with pytest.raises(KeyboardInterrupt), Pipeline(One, workers=2) as started:
        next(started.features(photos, RECIPE))
        left = time.perf_counter()
        raise KeyboardInterrupt
    assert time.perf_counter() - left < 5


UNGUARDED = """
from breeds.machine import run_alone
print(run_alone(len, "abc"))
"""


@pytest.mark.parametrize("way", ["stdin", "file"])
def test_a_process_starts_from_a_script_on_stdin_or_without_a_guard(way: str, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(UNGUARDED)
    command = [sys.executable, "-" if way == "stdin" else str(script)]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    with script.open() as stdin:
        result = subprocess.run(command, stdin=stdin, env=env, capture_output=True, text=True, timeout=60)
    assert (result.stdout, result.stderr) == ("3\n", "")


def test_a_process_of_its_own_raises_what_its_function_raises_or_that_it_was_killed() -> None:
    with pytest.raises(ValueError, match="invalid literal"):
        run_alone(int, "x")
    with pytest.raises(BrokenExecutor):
        run_alone(signal.raise_signal, signal.SIGKILL)

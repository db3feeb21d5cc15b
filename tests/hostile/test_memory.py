"""Memory does not grow with the number of photos, but for a stated few bytes each."""

from __future__ import annotations

import gc
import io
import json
import os
import subprocess
import sys
import tracemalloc
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, MakeStore
from PIL import Image
from test_predict import made_up_store

from breeds.config import FeatureConfig
from breeds.errors import PhotoError
from breeds.features import FeatureLookup, Store
from breeds.features.table import COLUMNS
from breeds.photos import decode, picture
from breeds.training import train

# Extracts a folder with the real pipeline and store, and an engine that needs no network, and says
# how many photos there were and the most memory that was ever held: by the system's count, which for a
# process's usage begins with what its parent held, and so on Linux the one that begins with the program.
EXTRACT = r"""
import json, re, resource, sys
from pathlib import Path
import numpy as np
from breeds.config import FeatureConfig
from breeds.extraction import extract
from breeds.selection import Selection

class StandIn:
    name = "stand-in"
    def stream(self, pixels):
        for photo in pixels:
            yield np.float32(photo[0].reshape(-1)[:200]).repeat(10)

config = FeatureConfig(weights="random", size=96)
summary = extract(Selection(Path(sys.argv[1])), Path(sys.argv[2]), config, engine=StandIn())
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
if sys.platform == "linux":
    peak = 1024 * int(re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())[1])
print(json.dumps([summary.photos, summary.features, summary.new, peak]))
"""


def small_photos(folder: Path, count: int) -> None:
    """Write so many different photos, in ten classes."""
    for number in range(count):
        breed = folder / f"breed {number % 10}"
        breed.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (12, 12, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(breed / f"{number:06d}.png", compress_level=1)


def peak_of_extraction(photos: Path, store: Path) -> tuple[list[int], int]:
    command = [sys.executable, "-c", EXTRACT, str(photos), str(store)]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    *counts, peak = json.loads(done.stdout)
    return counts, peak


@pytest.mark.slow
def test_extraction_of_ten_times_as_many_photos_needs_no_more_memory(tmp_path: Path) -> None:
    """Their pixels would be 55 MB and their features 16 MB; names, keys and places are 1 MB.

    Between 200 and 500 photos the buffers fill up that are as large for any number: 5 MB.
    """
    peaks: dict[str, list[int]] = {"new": [], "again": []}
    for count in (200, 2000):
        photos, store = tmp_path / str(count), tmp_path / "features" / f"{count}.h5"
        small_photos(photos, count)
        for run, new in (("new", count), ("again", 0)):
            counts, peak = peak_of_extraction(photos, store)
            assert counts == [count, count, new]
            peaks[run].append(peak)
            min(photos.rglob("*.png")).rename(photos / "renamed.png")  # the store is written anew
    for few, many in peaks.values():
        assert many - few < 9 * 2**20, peaks


# Runs a command, and says how it ended and the most memory that it held: by a process that is small itself,
# as the system's count begins with what a process's parent held.
PEAK = """
import os, sys
child = os.spawnv(os.P_NOWAIT, sys.executable, [sys.executable, *sys.argv[1:]])
_, status, usage = os.wait4(child, 0)
print(os.waitstatus_to_exitcode(status), usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024))
"""


@pytest.mark.slow
def test_damaged_photos_are_let_go_and_only_their_reasons_stay(
    photos: Path, random_config: FeatureConfig, tmp_path: Path
) -> None:
    """250 of 5 MB: an exception that is kept holds the frames that it came through, and their bytes."""
    train(Store(made_up_store(photos, tmp_path / "features/photos.h5", random_config)), C=1.0).save(
        tmp_path / "models/photos.safetensors"
    )
    whole = io.BytesIO()
    Image.new("RGB", (640, 480), "red").save(whole, "JPEG")
    good, damaged = len(list(photos.rglob("*.jpg"))), 250
    for number in range(damaged):
        with (min(photos.iterdir()) / f"damaged{number:03d}.jpg").open("wb") as file:
            file.write(whole.getvalue()[:2])
            for _ in range(77):  # comments of 64 kB, with holes in the file, which take no room on the disk
                file.write(b"\xff\xfe\xff\xff" + number.to_bytes(2, "big"))
                file.seek(65531, os.SEEK_CUR)
            file.write(whole.getvalue()[2:1500])  # cut off in its pixels
    for script, said in (
        (
            "extract_features.py photos --weights random",
            f"{good} features (0 new, {good} reused) + {damaged}",
        ),
        ("predict.py photos", f"{good} answers + {damaged} without"),
    ):
        command = [sys.executable, "-c", PEAK, *f"{ROOT}/{script}".split()]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
        code, peak = map(int, done.stdout.split()[-2:])
        assert code == 1 and said in done.stdout + done.stderr, done.stdout + done.stderr
        assert done.stderr.count("truncated") == damaged, done.stderr
        assert peak < 600 * 2**20, f"{script}: {peak / 2**20:.0f} MB"


@pytest.mark.slow
def test_a_photo_costs_as_many_bytes_as_the_table_says(make_store: MakeStore, tmp_path: Path) -> None:
    """About 100 for what is known of it and 40 for where its feature is; a list of text needs 360 and 120."""
    path = make_store({f"breed {number}": 500 for number in range(10)}, width=1)
    Store(path)  # what is imported and cached once is no photo's
    tracemalloc.start()
    try:
        store = Store(path)
        for name in COLUMNS:  # they are read when they are asked for
            getattr(store.table, name)
        table, peak = tracemalloc.get_traced_memory()
        lookup = FeatureLookup(path, store.config, store)
        lookup.keys()
        both, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert table < 100 * 5000
    assert peak < 250 * 5000
    assert both - table < 50 * 5000


@pytest.mark.slow
def test_a_photo_that_is_decoded_is_let_go_at_once() -> None:
    """Its bytes must not wait for Python to look for circles, which it rarely does."""
    rng = np.random.default_rng(0)
    file = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (300, 300, 3), dtype=np.uint8)).save(file, "JPEG")
    photos = [file.getvalue() + bytes([number]) for number in range(20)]
    photos += [photo[: len(photo) // 2] for photo in photos]
    decode(photos[0], 96)
    gc.collect()  # what earlier tests have left
    gc.disable()
    tracemalloc.start()
    try:
        for photo in photos:
            for function in (partial(decode, size=96), partial(picture, longest=96)):
                with suppress(PhotoError):
                    function(bytes(bytearray(photo)))  # bytes of its own
        assert tracemalloc.get_traced_memory()[0] < 3 * len(photos[0])
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        assert [found for found in gc.garbage if isinstance(found, io.BytesIO)] == []
    finally:
        tracemalloc.stop()
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()

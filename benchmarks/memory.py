"""What a photo costs in memory: its name, key and place; and that long runs of the commands stay flat."""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import tracemalloc
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from table import child, peak_of_programs, report, show

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

WIDTH = 4


class StandIn:
    """An engine that costs nothing: a few pixels are the feature."""

    name = "stand-in"

    def stream(self, pixels: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Yield a feature for every photo, in order."""
        for photo in pixels:
            yield np.float32(photo[0, :WIDTH, 0])


def write_store(path: Path, photos: int) -> None:
    """Write a store of made-up photos, paths of 30 letters, 120 labels."""
    from breeds.config import FeatureConfig
    from breeds.features import Table, write_store

    rng = np.random.default_rng(0)
    keys = [rng.bytes(32).hex() for _ in range(photos)]
    labels = [f"breed {i % 120:03d}" for i in range(photos)]
    paths = [f"{label}/photo {i:013d}" for i, label in enumerate(labels)]

    table = Table("made up", "", keys, paths, labels, [""] * photos, [1000] * photos, [10**18] * photos)
    config = FeatureConfig("xception", "random", "a" * 64, 299, "stretch")
    write_store(path, table, config, np.zeros((photos, WIDTH), dtype=np.float32), "made up")


def run_store(photos: str) -> None:
    """Print bytes a photo of a store's table, its peak while opening, and of an index of its features."""
    from breeds.features import FeatureLookup, Store
    from breeds.features.table import COLUMNS

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "store.h5")
        write_store(path, int(photos))
        tracemalloc.start()
        store = Store(path)
        for name in COLUMNS:  # of a large store they are read when they are asked for
            getattr(store.table, name)
        table, peak = tracemalloc.get_traced_memory()
        FeatureLookup(path, store.config, store).keys()
        both = tracemalloc.get_traced_memory()[0]
    each = [number / len(store.table) for number in (table, peak, both - table)]
    report(table=each[0], opening=each[1], index=each[2])


def write_photos(folder: Path, photos: int, seed: int = 0) -> None:
    """Write small photos, all different, of ten labels."""
    from PIL import Image

    rng = np.random.default_rng(seed)
    for number in range(photos):
        breed = folder / f"breed {number % 10:03d}"
        breed.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(breed / f"photo {number:013d}.png", compress_level=1)


def run_extract(photos: str) -> None:
    """Extract so many small photos twice by an engine that costs nothing: all new, and all there."""
    from breeds.config import FeatureConfig
    from breeds.extraction import extract
    from breeds.selection import Selection

    folder, config = Path(photos), FeatureConfig(weights="random", size=71)
    for _ in range(2):
        extract(Selection(folder), folder.parent / f"{folder.name}.h5", config, engine=StandIn())
    report()


def run_command(script: str, *arguments: str) -> None:
    """Run one of the four scripts."""
    subprocess.run([sys.executable, ROOT / script, *arguments], check=True, stdout=subprocess.DEVNULL)
    report(script_mb=peak_of_programs())


def long_runs(few: int, many: int) -> None:
    """Extract and predict small photos with the real network at 71 pixels, and print what the scripts held."""
    rows: dict[str, list[str]] = {"extract_features.py": [], "predict.py": []}
    with tempfile.TemporaryDirectory() as folder:
        for count in (few, many):
            photos, others, store = (
                Path(folder, f"{what} {count}") for what in ("photos", "others", "store")
            )
            write_photos(photos, count)
            write_photos(others, count, seed=1)
            model = str(store.with_suffix(".safetensors"))
            store = store.with_suffix(".h5")
            how = ("--weights", "random", "--size", "71", "--store", str(store))
            trained = ("--store", str(store), "--model", model, "--C", "0.001")
            found = child(__file__, "run_command", "extract_features.py", str(photos), *how)
            rows["extract_features.py"].append(f"{found['script_mb']:.0f} MB, {found['wall']:.0f} s")
            child(__file__, "run_command", "train_head.py", *trained)
            how = ("--model", model, "--out", str(Path(folder, "answers.csv")), "--no-cache")
            found = child(__file__, "run_command", "predict.py", str(others), *how)
            rows["predict.py"].append(f"{found['script_mb']:.0f} MB, {found['wall']:.0f} s")
    show(["peak of", f"{few:,} photos", f"{many:,} photos"], [[name, *cells] for name, cells in rows.items()])


def main() -> None:
    """Measure all, each in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=int, default=200_000, help="in the made-up store; default: 200000")
    parser.add_argument("--files", type=int, default=20_000, help="small photos to extract; default: 20000")
    arguments = parser.parse_args()
    of_store = child(__file__, "run_store", str(arguments.photos))
    few, many = arguments.files // 10, arguments.files
    with tempfile.TemporaryDirectory() as folder:
        peaks = {}
        for count in (few, many):
            write_photos(Path(folder, str(count)), count)
            peaks[count] = child(__file__, "run_extract", str(Path(folder, str(count))))["peak_mb"]
    show(
        ["bytes a photo", ""],
        [
            ["table of a store", f"{of_store['table']:.0f}"],
            ["reading it, at its peak", f"{of_store['opening']:.0f}"],
            ["finding its feature", f"{of_store['index']:.0f}"],
            ["extraction, the whole process", f"{(peaks[many] - peaks[few]) * 2**20 / (many - few):.0f}"],
        ],
    )
    print(f"peak of extraction: {peaks[few]:.0f} MB at {few} photos, {peaks[many]:.0f} MB at {many}\n")
    long_runs(few, many)


if __name__ == "__main__":
    if len(sys.argv) > 1 and sys.argv[1].startswith("run_"):
        globals()[sys.argv[1]](*sys.argv[2:])
    else:
        main()

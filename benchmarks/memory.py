"""What a photo costs in memory beyond pixels and features under way: its name, key and place."""

from __future__ import annotations

import argparse
import sys
import tempfile
import tracemalloc
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from table import child, report, show

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

WIDTH = 4


class StandIn:
    """An engine that costs nothing: a few pixels are the feature."""

    name = "stand-in"
    outruns_threads = False

    def stream(self, pixels: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Yield a feature for every photo, in order."""
        for photo in pixels:
            yield np.float32(photo[0, :WIDTH, 0])


def write_store(path: Path, photos: int) -> None:
    """Write a store of made-up photos, paths of 30 letters, 120 labels."""
    from breeds.recipe import Recipe
    from breeds.store import FeatureIndex, Table, assemble

    rng = np.random.default_rng(0)
    keys = [rng.bytes(32).hex() for _ in range(photos)]
    labels = [f"breed {i % 120:03d}" for i in range(photos)]
    paths = [f"{label}/photo {i:013d}" for i, label in enumerate(labels)]

    class Made(FeatureIndex):
        def read(self, keys) -> np.ndarray:
            return np.zeros((len(keys), WIDTH), dtype=np.float32)

    table = Table("made up", "", keys, paths, labels, [""] * photos, [1000] * photos, [10**18] * photos)
    assemble(path, table, Made(Recipe("xception", "random", "a" * 64, 299, "stretch")), "made up")


def run_store(photos: str) -> None:
    """Print bytes a photo of a store's table, its peak while opening, and of an index of its features."""
    from breeds.store import FeatureIndex, Store

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "store.h5")
        write_store(path, int(photos))
        tracemalloc.start()
        store = Store.open(path)
        table, peak = tracemalloc.get_traced_memory()
        index = FeatureIndex(store.recipe)
        index.add_file(path, store.table.key, store.features_sha256)
        both = tracemalloc.get_traced_memory()[0]
    each = [number / len(store.table) for number in (table, peak, both - table)]
    report(table=each[0], opening=each[1], index=each[2])


def write_photos(folder: Path, photos: int) -> None:
    """Write small photos, all different: one PNG, and a number after its end."""
    import io

    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(np.arange(48, dtype=np.uint8).reshape(4, 4, 3)).save(buffer, "PNG")
    for number in range(photos):
        breed = folder / f"breed {number % 10:03d}"
        breed.mkdir(parents=True, exist_ok=True)
        (breed / f"photo {number:013d}.png").write_bytes(buffer.getvalue() + str(number).encode())


def run_extract(photos: str) -> None:
    """Extract so many small photos twice by an engine that costs nothing: all new, and all there."""
    import breeds.extraction
    from breeds.extraction import Asked, Selection, extract

    breeds.extraction.open_engine = lambda *_, **__: StandIn()
    folder = Path(photos)
    for _ in range(2):
        extract(Selection(folder), folder.parent / f"{folder.name}.h5", Asked("random", size=71))
    report()


def main() -> None:
    """Measure both, each in a process of its own."""
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
            ["opening it, at its peak", f"{of_store['opening']:.0f}"],
            ["finding its feature", f"{of_store['index']:.0f}"],
            ["extraction, the whole process", f"{(peaks[many] - peaks[few]) * 2**20 / (many - few):.0f}"],
        ],
    )
    print(f"peak of extraction: {peaks[few]:.0f} MB at {few} photos, {peaks[many]:.0f} MB at {many}")


if __name__ == "__main__":
    if len(sys.argv) > 1 and sys.argv[1].startswith("run_"):
        globals()[sys.argv[1]](*sys.argv[2:])
    else:
        main()

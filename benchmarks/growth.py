"""How seconds and memory grow with the number of photos: extraction's bookkeeping, opening, training, answers."""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
from memory import write_photos
from table import child, report, show

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

WIDTH, CLASSES, ASKED = 2048, 120, 1000


class StandIn:
    """An engine that costs nothing: a few pixels are the feature."""

    name = "stand-in"
    outruns_threads = False

    def stream(self, pixels: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Yield a feature, float32 (2048,), for every photo, in order."""
        for photo in pixels:
            yield np.resize(np.float32(photo[0].reshape(-1)), WIDTH)


def write_store(path: Path, photos: int) -> None:
    """Write a store of made-up features: a cloud for each of the classes."""
    from breeds.recipe import Recipe
    from breeds.store import FeatureIndex, Table, assemble

    rng = np.random.default_rng(0)
    centres = rng.normal(size=(CLASSES, WIDTH)).astype(np.float32) * 0.15
    classes = rng.integers(0, CLASSES, photos)
    written = 0

    class Made(FeatureIndex):
        def read(self, keys) -> np.ndarray:
            nonlocal written
            here = classes[written : written + len(keys)] if len(keys) > 1 else classes[:1]
            written += len(keys) if len(keys) > 1 else 0
            return rng.standard_normal((len(keys), WIDTH), dtype=np.float32) + centres[here]

    keys = (rng.bytes(32).hex() for _ in range(photos))
    labels = [f"breed {number:03d}" for number in classes]
    paths = (f"{label}/photo {i:013d}" for i, label in enumerate(labels))
    table = Table("made up", "", keys, paths, labels, [""] * photos, [1000] * photos, [10**18] * photos)
    assemble(path, table, Made(Recipe("xception", "random", "a" * 64, 299, "stretch")), "made up")


def timed(work: Callable[[], object]) -> None:
    """Print the seconds that something takes, without what was imported before, and the peak of memory."""
    started = time.perf_counter()
    work()
    report(seconds=time.perf_counter() - started)


def run_extract(folder: str) -> None:
    """Extract a folder of small photos by an engine that costs nothing."""
    import breeds.extraction
    from breeds.extraction import Asked, Selection, extract

    breeds.extraction.open_engine = lambda *_, **__: StandIn()
    photos = Path(folder)
    timed(lambda: extract(Selection(photos), photos.with_suffix(".h5"), Asked("random", size=71)))


def run_open(path: str) -> None:
    """Open a store."""
    from breeds.store import Store

    timed(lambda: Store.open(Path(path)))


def run_rows(path: str) -> None:
    """Read a thousand features by key."""
    from breeds.store import Store

    store = Store.open(Path(path))
    rows = np.random.default_rng(1).integers(0, len(store.table), ASKED)
    keys = [store.table.key[int(row)] for row in rows]
    timed(lambda: store.features_of(keys))


def run_train(path: str) -> None:
    """Train a head without a search, as `train_head.py --C 0.001` does."""
    from breeds.heads.model import save_model
    from breeds.store import Store
    from breeds.training import train

    store = Store.open(Path(path))
    timed(lambda: save_model(train(store, C=1e-3), Path(path).with_suffix(".safetensors")))


def run_evaluate(path: str) -> None:
    """Measure the head on the test photos."""
    from breeds.evaluation import evaluate
    from breeds.heads.model import load_model
    from breeds.store import Store

    store, model = Store.open(Path(path)), load_model(Path(path).with_suffix(".safetensors"))
    timed(lambda: evaluate(store, model))


STEPS = {
    "extract, all new": run_extract,
    "extract, none new": run_extract,
    "open": run_open,
    f"{ASKED:,} rows by key": run_rows,
    "train, C given": run_train,
    "evaluate": run_evaluate,
}


def main() -> None:
    """Measure every step at every size, each in a process of its own, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1000, 10_000, 100_000], help="photos")
    parser.add_argument("--files", type=int, default=100_000, help="at most so many small files are written")
    parser.add_argument("--train", type=int, default=100_000, help="at most so many photos are trained on")
    arguments = parser.parse_args()
    found: dict[str, list[dict[str, float] | None]] = {name: [] for name in STEPS}
    for size in arguments.sizes:
        with tempfile.TemporaryDirectory() as folder:
            photos, store = Path(folder, "photos"), Path(folder, "store.h5")
            if size <= arguments.files:
                write_photos(photos, size)
            write_store(store, size)
            for name, step in STEPS.items():
                most = arguments.files if step is run_extract else size
                most = arguments.train if step in (run_train, run_evaluate) else most
                place = photos if step is run_extract else store
                found[name].append(child(__file__, step.__name__, str(place)) if size <= most else None)
    rows = []
    for name, each in found.items():
        there = [(size, one) for size, one in zip(arguments.sizes, each, strict=True) if one]
        cells = [f"{one['seconds']:.3g} s, {one['peak_mb']:.0f} MB" if one else "" for one in each]
        (few, first), (many, last) = there[-2:] if len(there) > 1 else (there * 2)
        growth = (
            math.log(last["seconds"] / first["seconds"]) / math.log(many / few) if many > few else math.nan
        )
        rows.append((name, *cells, f"{growth:.2f}"))
    show(("", *(f"{size:,}" for size in arguments.sizes), "exponent"), rows)


if __name__ == "__main__":
    if len(sys.argv) > 1 and sys.argv[1].startswith("run_"):
        globals()[sys.argv[1]](*sys.argv[2:])
    else:
        main()

"""How seconds and memory grow with the number of photos: extraction's bookkeeping, opening, training, answers."""

from __future__ import annotations

import argparse
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path

import numpy as np
from memory import write_photos
from table import child, peak_of_programs, report, show

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

WIDTH, CLASSES, ASKED = 2048, 120, 1000
#: How far apart the classes' clouds are: so near that some photos in a hundred are told wrongly.
SPREAD = 0.06


class StandIn:
    """An engine that costs nothing: a few pixels are the feature."""

    name = "stand-in"

    def stream(self, pixels: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Yield a feature, float32 (2048,), for every photo, in order."""
        for photo in pixels:
            yield np.resize(np.float32(photo[0].reshape(-1)), WIDTH)


def write_made_up(path: Path, photos: int) -> None:
    """Write a store of made-up features: a cloud for each of the classes."""
    from breeds.config import FeatureConfig
    from breeds.features import Table, write_store
    from breeds.features.columns import PACKED, Keys, Names, Texts

    rng = np.random.default_rng(0)
    centres = rng.normal(size=(CLASSES, WIDTH)).astype(np.float32) * SPREAD
    classes = np.sort(rng.integers(0, CLASSES, photos))

    class Made:
        def __getitem__(self, rows: slice) -> np.ndarray:
            here = classes[rows]
            return rng.standard_normal((len(here), WIDTH), dtype=np.float32) + centres[here]

    table = Table(
        "made up",
        "",
        Keys(np.frombuffer(rng.bytes(32 * photos), dtype=PACKED)),
        Texts.of(f"breed {number:03d}/photo {i:013d}" for i, number in enumerate(classes)),
        Names.of(f"breed {number:03d}" for number in classes),
        Names(("",), np.zeros(photos, dtype=np.int32)),
        np.full(photos, 1000),
        np.full(photos, 10**18),
    )
    write_store(path, table, FeatureConfig("xception", "random", "a" * 64, 299, "stretch"), Made(), "made up")


def timed(work: Callable[[], object]) -> None:
    """Print the seconds that something takes, without what was imported before, and the peak of memory."""
    started = time.perf_counter()
    work()
    report(seconds=time.perf_counter() - started)


def run_extract(folder: str) -> None:
    """Extract a folder of small photos by an engine that costs nothing."""
    from breeds.config import FeatureConfig
    from breeds.extraction import extract
    from breeds.selection import Selection

    photos, config = Path(folder), FeatureConfig(weights="random", size=71)
    timed(lambda: extract(Selection(photos), photos.with_suffix(".h5"), config, engine=StandIn()))


def run_open(path: str) -> None:
    """Open a store."""
    from breeds.features import Store

    timed(lambda: Store(Path(path)))


def run_info(path: str) -> None:
    """Have the command say what a store is, from its start to its exit."""
    started = time.perf_counter()
    subprocess.run([sys.executable, "-m", "breeds", "store", "info", path], check=True, cwd=ROOT)
    seconds = time.perf_counter() - started
    print()
    report(seconds=seconds, command_mb=peak_of_programs())


def run_rows(path: str) -> None:
    """Read a thousand features by key."""
    from breeds.features import Store

    store = Store(Path(path))
    rows = np.random.default_rng(1).integers(0, len(store.table), ASKED)
    keys = [store.table.key[int(row)] for row in rows]
    timed(lambda: store.features_of(keys))


def run_verify(path: str) -> None:
    """Compare everything with its checksum."""
    from breeds.features import verify

    timed(lambda: [print(problem) for problem in verify(Path(path))])


def run_add(path: str) -> None:
    """Add a thousand features to a store, as extraction does once it has them in the journal."""
    from breeds.features import FeatureLookup, Store, Table, Writer, extend_store, journal_folder
    from breeds.features.columns import Keys, Names, Texts
    from breeds.features.journal import clear

    target = Path(path)
    rng = np.random.default_rng(2)
    fresh = {rng.bytes(32).hex(): rng.standard_normal(WIDTH, dtype=np.float32) for _ in range(ASKED)}

    def add() -> None:
        store = Store(target)
        writer = Writer(journal_folder(target), store.config)
        for key, feature in fresh.items():
            writer.add(key, feature, "made up")
        writer.commit("made up")
        lookup, old, keys = FeatureLookup(target, store.config, store), store.table, list(fresh)
        size, time_ns = (np.append(column, np.zeros(ASKED, np.int64)) for column in (old.size, old.mtime_ns))
        table = Table(
            old.root,
            "",
            Keys(np.concatenate([old.key.packed, Keys.of(keys).packed])),
            Texts.of_bytes(chain(map(old.path.encoded, range(len(old))), map(str.encode, keys))),
            Names.of(chain(old.label, ["breed 000"] * ASKED)),
            Names.of(chain(old.split, [""] * ASKED)),
            size,
            time_ns,
        ).after(old.key)
        assert table is not None
        extend_store(store, table, lookup.rows(table.key), "")
        clear(journal_folder(target), lookup.shards)

    timed(add)


def run_one_more(photos: str) -> None:
    """Put one more photo into a predict cache that holds so many."""
    from breeds.config import FeatureConfig
    from breeds.features.cache import FeatureCache

    config = FeatureConfig("xception", "random", "a" * 64, 299, "stretch")
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        with FeatureCache(Path(folder), 10**10) as cache:
            for _ in range(int(photos)):
                cache.add(config, rng.bytes(32).hex(), rng.standard_normal(WIDTH, dtype=np.float32))

        def one_more() -> None:
            key = rng.bytes(32).hex()
            with FeatureCache(Path(folder), 10**10) as cache:
                assert not cache.get(config, [key])
                cache.add(config, key, rng.standard_normal(WIDTH, dtype=np.float32))

        timed(one_more)


def run_train(path: str, memory: str) -> None:
    """Train a head without a search, as `train_head.py --C 0.001 --memory` does."""
    from breeds.features import Store
    from breeds.training import train

    store = Store(Path(path))
    model = Path(path).with_suffix(".safetensors")
    timed(lambda: train(store, C=1e-3, memory=int(float(memory) * 1e9)).save(model))


def run_evaluate(path: str) -> None:
    """Measure the head on the test photos."""
    from breeds.evaluation import evaluate
    from breeds.features import Store
    from breeds.heads.model import Model

    store, model = Store(Path(path)), Model.load(Path(path).with_suffix(".safetensors"))
    timed(lambda: evaluate(store, model))


#: What is measured, on what: a folder of photos, a store, or nothing but their number.
STEPS = {
    "extract, all new": (run_extract, "photos"),
    "extract, none new": (run_extract, "photos"),
    "open": (run_open, "store"),
    "info, the whole command": (run_info, "store"),
    f"{ASKED:,} rows by key": (run_rows, "store"),
    "verify": (run_verify, "store"),
    f"add {ASKED:,}": (run_add, "store"),
    "train, C given": (run_train, "store"),
    "evaluate": (run_evaluate, "store"),
    "one more to the predict cache": (run_one_more, "number"),
}


def peak_of(one: dict[str, float]) -> float:
    """Return the peak of memory, in MB: a command's own, where a command was run."""
    return one.get("command_mb", one["peak_mb"])


def main() -> None:
    """Measure every step at every size, each in a process of its own, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1000, 10_000, 100_000], help="photos")
    parser.add_argument("--files", type=int, default=100_000, help="at most so many small files are written")
    parser.add_argument("--memory", default="4", metavar="GB", help="what training may take")
    parser.add_argument("--only", nargs="+", metavar="STEP", help="measure only steps with these words")
    arguments = parser.parse_args()
    steps = {
        name: step
        for name, step in STEPS.items()
        if not arguments.only or any(word in name for word in arguments.only)
    }
    found: dict[str, list[dict[str, float] | None]] = {name: [] for name in steps}
    for size in arguments.sizes:
        with tempfile.TemporaryDirectory() as folder:
            places = {"photos": str(Path(folder, "photos")), "store": str(Path(folder, "store.h5"))}
            places["number"] = str(size)
            kinds = {kind for _, kind in steps.values()}
            if size <= arguments.files and "photos" in kinds:
                write_photos(Path(places["photos"]), size)
            if "store" in kinds:
                write_made_up(Path(places["store"]), size)
            for name, (step, kind) in steps.items():
                more = [arguments.memory] if step is run_train else []
                there = kind == "store" or size <= arguments.files
                found[name].append(child(__file__, step.__name__, places[kind], *more) if there else None)
                print(size, name, found[name][-1], file=sys.stderr, flush=True)
    rows = []
    for name, each in found.items():
        there = [(size, one) for size, one in zip(arguments.sizes, each, strict=True) if one]
        cells = [f"{one['seconds']:.3g} s, {peak_of(one):.0f} MB" if one else "" for one in each]
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

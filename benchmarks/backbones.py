"""Every backbone at hand, alone and beside another: photos/s, accuracy and log loss on the same folds."""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from functools import partial
from itertools import combinations
from pathlib import Path

from table import show

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))


def at_hand(weights: str | None, onnx: list[str]) -> dict[str, list[str]]:
    """Return the options of ``extract_features.py`` for every network whose weights are on this machine."""
    from breeds.backbones import BACKBONES
    from breeds.backbones.weights import find_weights

    found = {}
    for name, backbone in BACKBONES.items():
        spec = weights if name == "xception" and weights else "imagenet"
        if find_weights(spec, backbone) is None:
            print(f"{name} does not take part: its ImageNet weights are not on this machine", file=sys.stderr)
            continue
        found[name] = ["--backbone", name, "--weights", spec]
    return found | {Path(path).resolve().name: ["--backbone", path] for path in onnx}


def extracted(data: str, store: Path, options: list[str]) -> Path:
    """Bring a store up to date; what is there is not computed again."""
    command = [sys.executable, str(ROOT / "extract_features.py"), data, "--store", str(store), *options]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return store


def speeds(stores: dict[str, Path], photos: int, rounds: int) -> dict[str, tuple[float, float]]:
    """Return photos/s of each store's network on decoded photos, and CPU seconds a photo: medians of rounds.

    The second says something on a busy machine too.
    """
    from breeds.backbones.resolve import found_weights, open_engine
    from breeds.features import Store
    from breeds.photos import decode, photo_at

    ready = {}
    for name, path in stores.items():
        store = Store(path)
        ((config, where),) = store.parts()
        spec = where if Path(where).is_file() else config.weights
        engine = open_engine(
            config, partial(found_weights, config, spec), "openvino",
            partial(store.networks().get, config.calibration),
        )  # fmt: skip
        files = [f"{store.table.root}/{path}" for path in list(store.table.path)[:photos]]
        pixels = [decode(photo_at("", file).read(), config.size, config.resize) for file in files]
        list(engine.stream(pixels[:4]))  # warms up
        ready[name] = engine, pixels
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in ready}
    for _ in range(rounds):
        for name, (engine, pixels) in ready.items():
            started, before = time.perf_counter(), time.process_time()
            for _feature in engine.stream(pixels):
                pass
            seconds, cpu = time.perf_counter() - started, time.process_time() - before
            found[name].append((len(pixels) / seconds, cpu / len(pixels)))
    return {
        name: (statistics.median(pace for pace, _ in values), statistics.median(cpu for _, cpu in values))
        for name, values in found.items()
    }


def judged(paths: list[Path], repeats: int) -> dict[str, object]:
    """Cross-validate logistic regression on stores beside each other, C and temperature chosen inside."""
    from breeds.features import Store
    from breeds.heads.crossval import cross_validate
    from breeds.training import train

    store = Store(*paths)
    return cross_validate(store, train(store), folds=5, repeats=repeats)


def main() -> None:
    """Extract with every network, measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", help="labelled photos")
    parser.add_argument("--weights", help="Xception's .h5 file (default: Keras's own, if it is here)")
    parser.add_argument("--onnx", nargs="*", default=[], help="ONNX files and hubs' folders")
    parser.add_argument(
        "--stores", type=Path, required=True, help="folder for the stores, kept for the next time"
    )
    parser.add_argument("--precision", nargs="*", default=["fp32", "int8"], help="default: fp32 int8")
    parser.add_argument("--photos", type=int, default=200, help="photos to time; default: 200")
    parser.add_argument("--rounds", type=int, default=3, help="default: 3")
    parser.add_argument("--repeats", type=int, default=1, help="of the five folds; default: 1")
    arguments = parser.parse_args()
    arguments.stores.mkdir(parents=True, exist_ok=True)
    networks = at_hand(arguments.weights, arguments.onnx)
    stores = {
        f"{name} {precision}": extracted(
            arguments.data, arguments.stores / f"{name}-{precision}.h5", [*options, "--precision", precision]
        )
        for precision in arguments.precision
        for name, options in networks.items()
    }
    pace = speeds(stores, arguments.photos, arguments.rounds)
    pairs = [
        pair for pair in combinations(stores, 2) if pair[0].split()[-1] == pair[1].split()[-1]
    ]  # fmt: skip
    rows = []
    for names in [*((name,) for name in stores), *pairs]:
        numbers = judged([stores[name] for name in names], arguments.repeats)
        rows.append([
            " + ".join(names), f"{1 / sum(1 / pace[name][0] for name in names):.1f}",
            f"{1000 * sum(pace[name][1] for name in names):.0f}",
            f"{numbers['accuracy']:.2%}", "{:.1%} to {:.1%}".format(*numbers["accuracy_interval"]),
            f"{numbers['log_loss']:.4f}",
        ])  # fmt: skip
    show(["network", "photos/s", "CPU ms a photo", "accuracy", "95 % interval", "log loss"], rows)


if __name__ == "__main__":
    main()

"""The four scripts on the team's ten breeds; features against a plain Keras loop; kills at random."""

from __future__ import annotations

import argparse
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
SHARED = ROOT.parent / "shared"


def run(*command: str, cwd: str) -> None:
    """Run a script, show its output, and say how long it took."""
    print(f"\n$ python {' '.join(command)}", flush=True)
    started = time.perf_counter()
    subprocess.run([sys.executable, str(ROOT / command[0]), *command[1:]], cwd=cwd, check=True)
    print(f"[{time.perf_counter() - started:.2f} s from start to exit]", flush=True)


def keras_loop(paths: list[str], weights: str) -> np.ndarray:
    """Compute features as anyone would with Keras alone, float32 (n, 2048)."""
    import keras

    model = keras.applications.Xception(
        include_top=False, pooling="avg", weights=None, input_shape=(299, 299, 3)
    )
    model.load_weights(weights)
    found = []
    for start in range(0, len(paths), 32):
        photos = [
            keras.utils.img_to_array(
                keras.utils.load_img(p, target_size=(299, 299), interpolation="bilinear")
            )
            for p in paths[start : start + 32]
        ]
        found.append(model.predict_on_batch(keras.applications.xception.preprocess_input(np.stack(photos))))
    return np.concatenate(found)


def kills(photos: str, weights: str, engine: str, times: int, cwd: str) -> None:
    """Kill an extraction at random moments, finish it, and compare with an uninterrupted one."""
    from breeds.features import Store

    command = [
        sys.executable, str(ROOT / "extract_features.py"), photos, "--weights", weights,
        "--engine", engine, "--store",
    ]  # fmt: skip
    chance = random.Random(0)
    for _ in range(times):
        process = subprocess.Popen([*command, "features/killed.h5"], cwd=cwd, stdout=subprocess.DEVNULL)
        time.sleep(chance.uniform(1, 15))
        process.send_signal(signal.SIGKILL)
        process.wait()
        committed = len(list(Path(cwd, "features/killed.shards").glob("*.h5")))
        print(f"killed; {committed} shards committed", flush=True)
    subprocess.run([*command, "features/killed.h5"], cwd=cwd, check=True)
    whole, killed = (Store(Path(cwd, f"features/{name}.h5")) for name in ("dogs10", "killed"))
    same = whole.table.key == killed.table.key and np.array_equal(whole.features(), killed.features())
    print(f"features after {times} kills equal the uninterrupted run's, bit for bit: {same}")


def main() -> None:
    """Run everything and print it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", default=str(SHARED / "data/dogs10"), help="default: %(default)s")
    parser.add_argument("--weights", default=str(SHARED / "weights/xception_notop.weights.h5"),
                        help="default: %(default)s")  # fmt: skip
    parser.add_argument("--engine", default="auto", help="default: %(default)s")
    parser.add_argument("--kills", type=int, default=10, help="default: 10")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        extraction = ("extract_features.py", arguments.photos, "--weights", arguments.weights,
                      "--engine", arguments.engine, "--store", "features/dogs10.h5")  # fmt: skip
        run(*extraction, cwd=folder)
        run(*extraction, cwd=folder)
        run("train_head.py", "--store", "features/dogs10.h5", "--C", "0.01", cwd=folder)
        run("train_head.py", "--store", "features/dogs10.h5", cwd=folder)
        run("evaluate.py", cwd=folder)
        run("predict.py", arguments.photos, "--out", "breeds.csv", cwd=folder)

        from breeds.features import Store

        store = Store(Path(folder, "features/dogs10.h5"))
        found = store.features()
        wanted = keras_loop([f"{store.table.root}/{path}" for path in store.table.path], arguments.weights)
        relative = np.linalg.norm(found - wanted, axis=1) / np.linalg.norm(wanted, axis=1)
        print(f"\nagainst a plain Keras loop: largest difference {np.abs(found - wanted).max():.2g}, "
              f"relative {relative.max():.2g}")  # fmt: skip
        kills(arguments.photos, arguments.weights, arguments.engine, arguments.kills, folder)


if __name__ == "__main__":
    main()

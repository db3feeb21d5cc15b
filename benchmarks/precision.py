"""What a faster recipe costs: accuracy and log loss of heads trained and tested on its features."""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from table import show

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
RECIPES = {
    "fp32": [],
    "bf16": ["--precision", "bf16"],
    "int8": ["--precision", "int8"],
    "int8, size 256": ["--precision", "int8", "--size", "256"],
    "int8, size 224": ["--precision", "int8", "--size", "224"],
    "fp32, size 224": ["--size", "224"],
}


def cross_validated(store_path: Path, seeds: range) -> tuple[float, float]:
    """Return mean accuracy and log loss over 5 folds and the seeds, C = 0.01."""
    from breeds.heads import logistic
    from breeds.heads.model import softmax
    from breeds.metrics import accuracy, log_loss
    from breeds.split import fold_of
    from breeds.store import Store

    store = Store.open(store_path)
    features, labels = store.features(), store.table.label
    truth = np.unique(labels, return_inverse=True)[1]
    scores = []
    for seed in seeds:
        folds = fold_of(store.table.key, labels, 5, seed)
        answers = np.zeros((len(truth), truth.max() + 1))
        for fold in range(5):
            inside = folds != fold
            mean, scale = logistic.standardise(features[inside])
            weights, bias = logistic.fit((features[inside] - mean) / scale, truth[inside], 0.01)
            answers[~inside] = softmax(((features[~inside] - mean) / scale @ weights + bias).astype(float))
        scores.append((accuracy(truth, answers), log_loss(truth, answers)))
    return tuple(np.mean(scores, axis=0))  # type: ignore[return-value]


def main() -> None:
    """Extract with every recipe, cross-validate, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", help="labelled photos")
    parser.add_argument("--weights", required=True, help="Xception's .h5 file")
    arguments = parser.parse_args()
    rows = []
    base = (0.0, 1.0)
    with tempfile.TemporaryDirectory() as folder:
        for name, options in RECIPES.items():
            store = Path(folder, f"{name}.h5")
            command = [sys.executable, str(ROOT / "extract_features.py"), arguments.data]
            done = subprocess.run(
                [*command, "--weights", arguments.weights, "--store", store, *options],
                check=False, stdout=subprocess.DEVNULL,
            )  # fmt: skip
            if done.returncode == 2:  # it has said why
                continue
            right, loss = cross_validated(store, range(3))
            base = (right, loss) if name == "fp32" else base
            rows.append([name, f"{right:.2%}", f"{100 * (right - base[0]):+.2f}", f"{loss:.4f}",
                         f"{100 * (loss / base[1] - 1):+.1f} %"])  # fmt: skip
    show(["recipe", "accuracy", "points", "log loss", "change"], rows)


if __name__ == "__main__":
    main()

"""What a faster config costs: accuracy and log loss of heads trained and tested on its features."""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

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


def cross_validated(store_path: Path) -> tuple[float, float]:
    """Return mean accuracy and log loss over 5 folds and 3 repeats, C and temperature chosen inside."""
    from breeds.features import Store
    from breeds.heads.crossval import cross_validate
    from breeds.training import train

    store = Store(store_path)
    numbers = cross_validate(store, train(store), folds=5, repeats=3)
    return numbers["accuracy"], numbers["log_loss"]


def main() -> None:
    """Extract with every config, cross-validate, and print the table."""
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
            right, loss = cross_validated(store)
            base = (right, loss) if name == "fp32" else base
            rows.append([name, f"{right:.2%}", f"{100 * (right - base[0]):+.2f}", f"{loss:.4f}",
                         f"{100 * (loss / base[1] - 1):+.1f} %"])  # fmt: skip
    show(["config", "accuracy", "points", "log loss", "change"], rows)


if __name__ == "__main__":
    main()

"""From start to exit of the commands that people wait for; each run in turn, medians."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from table import median, rounds, show

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    """Prepare a store and a model, then time the commands."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photos", type=Path, help="labelled photos")
    parser.add_argument("--weights", required=True, type=Path, help="Xception's .h5 file")
    parser.add_argument("--rounds", type=int, default=5, help="default: 5")
    arguments = parser.parse_args()
    photos, weights = str(arguments.photos.resolve()), str(arguments.weights.resolve())
    one = next(str(path) for path in sorted(arguments.photos.resolve().rglob("*.jpg")))
    with tempfile.TemporaryDirectory() as folder:

        def run(*command: str) -> dict[str, float]:
            started = time.perf_counter()
            done = subprocess.run(
                [sys.executable, str(ROOT / command[0]), *command[1:]],
                cwd=folder, check=False, capture_output=True, text=True,
            )  # fmt: skip
            if done.returncode:
                raise RuntimeError(done.stderr)
            return {"wall": time.perf_counter() - started}

        def page(name: str, *command: str) -> dict[str, float]:
            """Run a command that writes a page, and say how large that is."""
            return run(*command) | {"page": Path(folder, name).stat().st_size / 1e6}

        def predict_uncached() -> dict[str, float]:
            Path(folder, "models/features.sqlite").unlink(missing_ok=True)
            return run("predict.py", "one.jpg")

        extraction = ("extract_features.py", photos, "--weights", weights, "--store", "features/p.h5")
        run(*extraction)
        run("train_head.py", "--C", "0.01")
        # One byte after the end of a JPEG makes it a photo that no cache knows.
        Path(folder, "one.jpg").write_bytes(Path(one).read_bytes() + os.urandom(4))
        predict_uncached()
        commands = {
            "predict.py one.jpg (not cached)": predict_uncached,
            "predict.py one.jpg (cached)": lambda: run("predict.py", "one.jpg"),
            "predict.py --help": lambda: run("predict.py", "--help"),
            "train_head.py --C 0.01": lambda: run("train_head.py", "--C", "0.01"),
            "train_head.py (C searched)": lambda: run("train_head.py"),
            "train_head.py --head dense": lambda: run(
                "train_head.py", "--head", "dense", "--model", "d.safetensors"
            ),
            "evaluate.py --no-html": lambda: run("evaluate.py", "--no-html"),
            "evaluate.py, with its page": lambda: page("reports/p.html", "evaluate.py"),
            "extract_features.py --preview": lambda: page(
                "preview.html", "extract_features.py", photos, "--preview", "preview.html"
            ),
            "predict.py PHOTOS --html (cached)": lambda: page(
                "answers.html", "predict.py", photos, "--out", "answers.csv", "--html", "answers.html"
            ),
            "extract_features.py, nothing new": lambda: run(*extraction),
            "extract_features.py --trust-mtime": lambda: run(*extraction, "--trust-mtime"),
        }
        found = rounds(commands, arguments.rounds)
    rows = [
        [
            name,
            f"{median(n['wall']):.2f}",
            f"{min(n['wall']):.2f}",
            f"{n['page'][-1]:.1f}" if "page" in n else "",
        ]
        for name, n in found.items()
    ]
    show(["", "median s", "fastest s", "page, MB"], rows)


if __name__ == "__main__":
    main()

"""``make demo``: the four scripts in order, on your photos or on a sample that needs none."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

from breeds import cli
from breeds.engines.backbones import XCEPTION
from breeds.engines.weights import get_weights
from breeds.errors import BreedsError
from breeds.sample import write_holiday, write_samples

DEMO = Path("demo")


def main() -> int:
    """Run the demo and return the first exit code that is not 0."""
    parser = cli.parser(__doc__)
    parser.prog = "python -m breeds.sample.demo"
    parser.add_argument("--data", metavar="DIR", help="your labelled photos (default: drawn ones)")
    parser.add_argument("--weights", metavar="W",
                        help="weights (default: imagenet if reachable, else random)")  # fmt: skip
    arguments = parser.parse_args()
    data, holiday = arguments.data, arguments.data
    if not data:
        data, holiday = str(DEMO / "photos"), str(DEMO / "holiday")
        print(f"Drawing a sample of ten invented breeds into {DEMO}/ ...", flush=True)
        write_samples(Path(data))
        write_holiday(Path(holiday))
    weights = arguments.weights or _reachable_weights()
    name = f"{cli.name_of(Path(data))}-{Path(weights).name.split('.')[0]}"
    store, model = cli.FEATURES / f"{name}.h5", cli.MODELS / f"{name}.safetensors"
    report, table = cli.REPORTS / f"{name}.json", DEMO / f"{name}.csv"
    scripts = (
        ("extract_features.py", data, "--store", store, "--weights", weights),
        ("train_head.py", "--store", store, "--model", model),
        ("evaluate.py", "--store", store, "--model", model, "--json", report),
        ("predict.py", holiday, "--model", model, "--weights", weights, "--out", table, "--top-k", "3"),
    )
    for script in scripts:
        command = [str(part) for part in script]
        print(f"\n$ python {shlex.join(command)}", flush=True)
        code = subprocess.run([sys.executable, *command], check=False).returncode
        if code:
            return code
    _show(table)
    print(f"\nLook next at {table} (answers), {report} (all numbers), {holiday} (the photos);\n"
          "then run it on your own: make demo DATA=photos/ [WEIGHTS=file.h5], or the four commands\n"
          "above (first: source .venv/bin/activate). README.md says what each can do.")  # fmt: skip
    return 0


def _reachable_weights() -> str:
    try:
        get_weights("imagenet", XCEPTION)
        return "imagenet"
    except BreedsError:
        print("\nThe ImageNet weights cannot be reached from here, so this demo uses random weights: "
              "all the steps are real, but the accuracy means nothing about real dogs.")  # fmt: skip
        return "random"


def _show(table: Path, rows: int = 13) -> None:
    print()
    lines = table.read_text(encoding="utf-8").splitlines()
    print("\n".join(lines[:rows]))
    if len(lines) > rows:
        print(f"... and {len(lines) - rows} more rows")


if __name__ == "__main__":
    cli.run(main)

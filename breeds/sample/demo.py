"""A demonstration: the four scripts in order, on your photos or on a sample that needs none."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

from breeds.backbones import XCEPTION
from breeds.backbones.weights import get_weights
from breeds.cli import common
from breeds.errors import BreedsError
from breeds.sample import write_holiday, write_samples
from breeds.started import arguments_of, as_breeds, command, need

DEMO = Path("demo")
_AGAIN = """then run it on real dogs, make dogs, or on your own: make demo DATA=photos/ [WEIGHTS=file.h5], or
the four commands above (first: source .venv/bin/activate). README.md says what each can do."""
_BREEDS_AGAIN = """then run it on your own, breeds demo --data photos/ [--weights file.h5], or the four
commands above. --help says what each can do."""


def main() -> int:
    """Run the demo and return the first exit code that is not 0."""
    parser = common.parser(__doc__, "demo")
    parser.add_argument("--data", metavar="DIR", help="your labelled photos (default: drawn ones)")
    parser.add_argument("--weights", metavar="W",
                        help="weights (default: imagenet if reachable, else random)")  # fmt: skip
    arguments = parser.parse_args()
    weights = arguments.weights or best_weights()
    data, unseen = arguments.data, arguments.data
    if not data:
        data, unseen = str(DEMO / "photos"), str(DEMO / "holiday")
        print(f"Drawing a sample of ten invented breeds into {DEMO}/ ...", flush=True)
        write_samples(Path(data))
        write_holiday(Path(unseen))
    DEMO.mkdir(exist_ok=True)
    again = _BREEDS_AGAIN if as_breeds() else _AGAIN
    return run_four_scripts(data, unseen, weights, DEMO, again)


def run_four_scripts(data: str, unseen: str, weights: str, folder: Path, again: str) -> int:
    """Run the four scripts, show what they say, and return the first exit code that is not 0.

    Parameters
    ----------
    data, unseen
        Labelled photos, and photos to predict.
    weights
        As ``--weights`` takes them.
    folder
        Where the answers go.
    again
        What to say of running it again.
    """
    name = f"{common.name_of(Path(data))}-{Path(weights).name.split('.')[0]}"
    store, model = common.FEATURES / f"{name}.h5", common.MODELS / f"{name}.safetensors"
    report, table = common.REPORTS / f"{name}.json", folder / f"{name}.csv"
    preview, answers = common.REPORTS / f"{name}-preview.html", table.with_suffix(".html")
    steps = (
        ("extract", data, "--preview", preview),
        ("extract", data, "--store", store, "--weights", weights),
        ("train", "--store", store, "--model", model),
        ("evaluate", "--store", store, "--model", model, "--json", report),
        ("predict", unseen, "--model", model, "--out", table, "--top-k", "3", "--html", answers),
    )
    for name, *options in steps:
        arguments = [str(option) for option in options]
        print(f"\n$ {command(name)} {shlex.join(arguments)}", flush=True)
        code = subprocess.run([sys.executable, *arguments_of(name), *arguments], check=False).returncode
        if code:
            return code
    _show(table)
    print("\nLook at the pages, in any browser:")
    for page, what in (
        (preview, "the photos, before any work"),
        (report.with_suffix(".html"), "how good it is, and where it errs"),
        (answers, f"the answers for {unseen}"),
    ):
        print(f"  {page}: {what}")
    print(f"The same for programs: {report}, {table};\n{again}")
    return 0


def best_weights() -> str:
    """Return ``imagenet`` if those weights are here or can be fetched, else ``random``, and say so."""
    need("tensorflow", "keras")  # without them there are no random weights either
    try:
        get_weights("imagenet", XCEPTION)
        return "imagenet"
    except BreedsError:
        print("\nThe ImageNet weights cannot be reached from here, so this uses random weights: "
              "all the steps are real, but the accuracy means nothing about real dogs.")  # fmt: skip
        return "random"


def _show(table: Path, rows: int = 13) -> None:
    print()
    lines = table.read_text(encoding="utf-8").splitlines()
    print("\n".join(lines[:rows]))
    if len(lines) > rows:
        print(f"... and {len(lines) - rows} more rows")


if __name__ == "__main__":
    common.run(main)

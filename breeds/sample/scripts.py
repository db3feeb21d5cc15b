"""The four scripts in order, or those commands of ``breeds``, as somebody would type them."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

from breeds.backbones.registry import XCEPTION
from breeds.backbones.weights import get_weights
from breeds.cli import common
from breeds.errors import BreedsError
from breeds.started import SCRIPTS, as_breeds, command, need


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
        front = [sys.argv[0], name] if as_breeds() else [SCRIPTS[name]]
        code = subprocess.run([sys.executable, *front, *arguments], check=False).returncode
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

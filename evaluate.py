#!/usr/bin/env python3
"""How good is the model on photos it has not seen? Numbers here, and all of them as JSON."""

from __future__ import annotations

import argparse
from pathlib import Path

from breeds import cli


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    result = cli.parser(__doc__)
    add = result.add_argument
    add("--store", metavar="FILE", type=Path,
        help="the store with the photos to test on (default: the one the model was trained on)")  # fmt: skip
    add("--model", metavar="FILE", type=Path, help="the model (default: the newest in models/)")
    add("--json", metavar="FILE", type=Path, help="the report to write (default: reports/MODEL.json)")
    return result


def main() -> int:
    """Evaluate, print the report, and write it."""
    arguments = parser().parse_args()
    model_path = arguments.model or cli.newest(cli.MODELS, "*.safetensors", "train_head.py")
    json_path = arguments.json or cli.REPORTS / f"{model_path.stem}.json"
    from breeds import report
    from breeds.durable import check_writable
    from breeds.heads import saved
    from breeds.store import Store

    check_writable(json_path)
    model = saved.load(model_path)
    store_path = arguments.store
    if store_path is None:
        store_path = cli.say_using(Path(str(model.record.get("store", ""))))
    numbers = report.evaluate(Store.open(store_path), model)
    numbers["model"] = str(model_path)
    report.write_json(numbers, json_path)
    print(report.as_text(numbers))
    print(f"wrote {json_path}; next: python predict.py PHOTOS")
    return 0


if __name__ == "__main__":
    cli.run(main)

"""The whole classifier as a file for other programs: pixels in, probabilities and a score for unknown out."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from breeds.cli import common
from breeds.export import FORMATS
from breeds.started import command
from breeds.text import say

if TYPE_CHECKING:
    from breeds.export import Exported


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    result = common.parser(
        f"{__doc__} The files lie beside the model; each is run and compared with {command('predict')} on "
        f"photos of the store before it is written.",
        "export",
    )
    add = result.add_argument
    add("model", metavar="MODEL", type=Path, nargs="?", help="the model (default: the newest in models/)")
    add("--format", choices=tuple(FORMATS), nargs="+", default=["onnx"],
        help="onnx, openvino and keras take pixels; joblib takes features: the logistic head alone, for "
             "scikit-learn (default: onnx)")  # fmt: skip
    add("--store", metavar="FILE", type=Path, nargs="+",
        help="the store that the model was trained on, several for a model that rests on several (default: "
             "as the model says)")  # fmt: skip
    add("--weights", metavar="W",
        help="the backbone's weights: imagenet, random, or a file (default: those of the model)")  # fmt: skip
    return result


def main() -> int:
    """Export, and say what was written."""
    arguments = parser().parse_args()
    model_path = arguments.model or common.newest(common.MODELS, "*.safetensors", command("train"))
    from breeds.cli.evaluate import trained_on
    from breeds.export import export, plan
    from breeds.features import Store
    from breeds.heads.model import Model

    model = Model.load(model_path)
    paths = plan(arguments.format, model_path, model.parts, model.kind)
    store = Store(*(arguments.store or trained_on(model, model_path)), corrected=False)
    for exported in export(model, store, paths, arguments.weights):
        show(exported)
    if model.unknown is None:
        say("there is no unknown_score: the model does not refuse photos of none of the classes")
    return 0


def show(exported: Exported) -> None:
    """Say what was written, and how near it is."""
    where = f"wrote {exported.path}"
    if FORMATS[exported.form].beside:
        where += f" and {FORMATS[exported.form].beside} beside it"
    near = (
        f"{exported.size / 1e6:.1f} MB, at most {exported.difference:.1g} from {command('predict')}'s values"
    )
    if not FORMATS[exported.form].precisions:
        say(f"{where} (scikit-learn; Breeds never loads it): features to probabilities, {near}")
    else:
        say(f"{where}: pixels to answers, {near} on {exported.photos} photos")


if __name__ == "__main__":
    common.run(main)

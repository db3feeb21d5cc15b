"""Features to a model: train a head on a store, in seconds."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from breeds.cli import common
from breeds.export import FORMATS
from breeds.heads.kinds import HEADS, KINDS, TrainingSettings, taking
from breeds.outputs import view_stores
from breeds.started import command
from breeds.text import say

if TYPE_CHECKING:
    from breeds.features import Store
    from breeds.heads.model import Model


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    result = common.parser(f"{__doc__} Then: {command('evaluate')}, {command('predict')}.", "train")
    add = result.add_argument
    add("--store", metavar="FILE", type=Path, nargs="+",
        help="the store to train on; several, of the same photos, are put beside each other "
        "(default: the newest in features/)")  # fmt: skip
    add("--views", action="store_true", default=False,
        help="train on the views of the photos too: the stores NAME+VIEW.h5 beside the store")  # fmt: skip
    add("--model", metavar="FILE", type=Path,
        help="the model to write (default: models/STORE.safetensors)")  # fmt: skip
    add(
        "--head",
        choices=HEADS,
        default=HEADS[0],
        help="what is trained: " + ", or ".join(f"{name}: {kind.title}" for name, kind in KINDS.items()),
    )
    add("--C", metavar="X", type=common.strength,
        help=f"inverse regularisation strength of the {taking('C')} head, 1e-12 to 1e12 (default: chosen "
        "by cross-validation)")  # fmt: skip
    add("--seed", metavar="N", type=common.natural, default=0, help="decides the split and everything random")
    add("--val", metavar="SHARE", type=lambda text: common.share(text, 0.7), default=0.0,
        help="share of the photos for validation, beside the fifth for testing")  # fmt: skip
    add("--balanced", action="store_true", default=False,
        help="let every class weigh the same, however many photos it has, as the dense head "
        "always does")  # fmt: skip
    add("--keep", metavar="SHARE", type=common.share, default=0.95,
        help="share of known photos to keep when photos of none of the classes are refused: about so "
        "many of photos of other framing, size and light, more of photos like those here")  # fmt: skip
    add("--memory", metavar="SIZE", type=common.size,
        help="train on as many photos as fit where all would take more than this, such as 4GB (default: half "
        "of this machine's)")  # fmt: skip
    add("--compare", action="store_true", default=False,
        help="only print a table of heads of several kinds, cross-validated on the same folds")  # fmt: skip
    common.add_no_corrections(result)
    add("--export", choices=tuple(FORMATS), nargs="+", metavar="FORMAT",
        help=f"also write the whole classifier beside the model, for other programs, as {command('export')} "
        "does: one or more of onnx, openvino, keras, joblib (default: no)")  # fmt: skip
    return result


def settings_of(arguments: argparse.Namespace) -> TrainingSettings:
    """Return what training is told by the command line."""
    return TrainingSettings(
        **{field.name: getattr(arguments, field.name) for field in fields(TrainingSettings)}
    )


def compare(store: Store, seed: int, heads: Sequence[str] = HEADS) -> int:
    """Print the table of heads; nothing is written."""
    from breeds.heads.crossval import compare_heads

    for sentence in store.corrections.effect(store.table).sentences():
        say(sentence)
    say(f"{'head':24} log loss  accuracy  95 % interval     seconds")
    rows = compare_heads(store, seed, heads=heads)
    for row in rows:
        say(f"{_numbers_of(row['head'], row)} {row['seconds']:8.1f}")
    if rows[0]["corrected"]:
        say("heads are trained on labels as corrected, and judged above by labels as they came; judged by "
              "those as corrected, which may flatter:")  # fmt: skip
        for row in rows:
            say(_numbers_of(row["head"], row["corrected"]))
    return 0


def _numbers_of(head: str, found: dict[str, Any]) -> str:
    low, high = found["accuracy_interval"]
    return f"{head:24} {found['log_loss']:8.4f}  {found['accuracy']:8.2%}  {low:.2%} to {high:.2%}"


def open_views(store: Store) -> list[Store]:
    """Open the stores of views beside a store."""
    from breeds.errors import BreedsError
    from breeds.features import Store, check_config

    views = [Store(path, corrected=False) for path in view_stores(store.path)]
    if not views:
        raise BreedsError(f"There are no views beside {store.path}; run {command('extract')} --views flip.")
    for view in views:
        check_config(view.path, replace(view.config, view=store.config.view), store.config)
    return views


def main() -> int:
    """Train, save, and say what was done."""
    arguments = parser().parse_args()
    paths = arguments.store or [common.newest(common.FEATURES, "*.h5", command("extract"))]
    name = "-".join(path.stem for path in paths)
    model_path = arguments.model or common.MODELS / f"{name}.safetensors"
    from breeds.errors import BreedsError
    from breeds.features import Store
    from breeds.outputs import MODEL, check_output
    from breeds.report.modelcard import write_card
    from breeds.training import train_head

    settings = settings_of(arguments)
    if arguments.compare and (arguments.C or arguments.views or arguments.balanced or arguments.export):
        raise BreedsError("--compare trains every head its own way; give only --store and --seed with it.")
    if arguments.views and len(paths) > 1:
        raise BreedsError("--views goes with a single store; leave one of the two out.")
    store = Store(*paths, corrected=not arguments.no_corrections)
    if arguments.compare:
        return compare(store, arguments.seed)
    check_output(model_path, MODEL)
    exports = {}
    if arguments.export:
        from breeds.export import export, plan

        exports = plan(arguments.export, model_path, store.parts(), arguments.head)
    views = open_views(store) if arguments.views else []
    model = train_head(store, settings, views)
    kept = write_card(model, model_path, model.save(model_path))
    show(model, store)
    if kept:
        say(kept)
    if exports:
        from breeds.cli.export import show as show_exported

        for exported in export(model, store, exports):
            show_exported(exported)
    say(f"wrote {model_path}{'' if kept else ' and its card'}; next: {command('evaluate')}")
    return 0


def show(model: Model, store: Store) -> None:
    """Say how a model came about."""
    record = model.record
    say(f"{len(model.classes)} classes; {record['n_train']} photos for training, {record['n_val']} for "
          f"validation, {record['n_test']} kept for testing")  # fmt: skip
    if record["views"]:
        say(f"trained on these views too: {', '.join(record['views'])}")
    for sentence in store.corrections.effect(store.table).sentences():
        say(sentence)
    for name in ("unlabelled", "duplicates"):
        if record[name]:
            say(f"{record[name]} {name} left out")
    if "n_drawn" in record:
        say(f"fitted to {record['n_drawn']} of these {record['n_available']} photos, drawn by key and class, "
              "as many as --memory allows")  # fmt: skip
    if "C" in record:
        say(f"C = {record['C']:.3g}, chosen by {record['C_chosen_by']}")
    if "best_epoch" in record:
        say(f"best of the epochs: {record['best_epoch']}, validation log loss {record['val_log_loss']:.4f}")
    say(f"temperature {model.temperature:.3g}")
    if record.get("C_at_edge"):
        say("this C is at the edge of the grid: a better one may lie beyond; try with --C")
    if model.unknown is None:
        say("photos of none of the classes are not refused: a class has a single photo for training")
    if record["few"]:
        names = ", ".join(f"{label} ({count})" for label, count in record["few"].items())
        say(f"few training photos, so numbers about these classes say little: {names}")
    say(f"on the training photos themselves: accuracy {record['train_accuracy']:.1%}, "
          f"log loss {record['train_log_loss']:.4f}")  # fmt: skip
    for config, _ in model.parts:
        say(f"weights {config.weights} ({config.weights_sha256[:12]})")
    say(f"{record['seconds']:.1f} s")

"""A store: ``info`` says what it holds, ``verify`` whether it is whole, ``export`` writes it as a table."""

from __future__ import annotations

import argparse
from pathlib import Path

from breeds.cli import common
from breeds.started import command
from breeds.text import say


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    result = common.parser(__doc__, "store")
    commands = result.add_subparsers(dest="command", required=True)
    for name, text in (
        ("info", "say what a store holds"),
        ("verify", "check a store and its journal against their checksums"),
    ):
        one = commands.add_parser(name, help=text, description=text)
        one.add_argument("file", type=Path, help="a store, features/NAME.h5")
    text = "write features, and what is known of each photo, as a table in Parquet for other tools"
    writes = commands.add_parser("export", help=text, description=text)
    add = writes.add_argument
    add("file", metavar="FILE.parquet", type=Path, help="the table to write")
    add("--store", metavar="FILE", type=Path, nargs="+",
        help="the store; several, of the same photos, are put beside each other (default: what the model was "
        "trained on, or else the newest in features/)")  # fmt: skip
    add("--model", metavar="MODEL", type=Path,
        help="add what this model says of each photo, and which part it had (default: no)")  # fmt: skip
    common.add_no_corrections(writes)
    return result


def main() -> int:
    """Run one of the three commands and return its exit code."""
    arguments = parser().parse_args()
    if arguments.command == "export":
        return export(arguments.file, arguments.store, arguments.model, not arguments.no_corrections)
    return info(arguments.file) if arguments.command == "info" else check(arguments.file)


def export(path: Path, stores: list[Path] | None, model_path: Path | None, corrected: bool) -> int:
    """Write stores beside each other as a table, with what a model says of each photo."""
    from breeds.outputs import FEATURES_PARQUET, check_output
    from breeds.started import need

    need("pyarrow")
    check_output(path, FEATURES_PARQUET, [*(stores or ()), *filter(None, [model_path])])
    from breeds.export.parquet import export_features
    from breeds.features import Store
    from breeds.heads.model import Model

    model = None if model_path is None else Model.load(model_path)
    if not stores:
        if model is None or model_path is None:
            stores = [common.newest(common.FEATURES, "*.h5", command("extract"))]
        else:
            from breeds.cli.evaluate import trained_on

            stores = trained_on(model, model_path)
    store = Store(*stores, corrected=corrected)
    for sentence in store.corrections.effect(store.table).sentences():
        say(sentence)
    rows = export_features(store, path, model)
    say(f"wrote {path}: {rows} photos, {path.stat().st_size / 1e6:.1f} MB")
    return 0


def info(path: Path) -> int:
    """Print what the store at `path` holds."""
    from breeds.features import Store, journal_folder, list_shards
    from breeds.features.corrections import Corrections, corrections_path

    store = Store(path, corrected=False)
    table = store.table
    say(f"{path}: {len(table)} photos of {table.root}, {len(table.key.first_rows())} of them different")
    say(f"config   {store.config}")
    say(f"         {store.config.digest}")
    say(f"engine   {store.engine}, written {store.created}, "
          f"{len(list_shards(journal_folder(path)))} parts in its journal")  # fmt: skip
    for sentence in Corrections.load(corrections_path(path)).effect(table).sentences():
        say(sentence)
    for label, count in table.label.counts().items():
        say(f"{count:8d} {label or '(no label)'}")
    for name, reason in table.rejected:
        say(f"quarantined {name}: {reason}")
    return 0


def check(path: Path) -> int:
    """Check the store at `path`; 1 if anything is damaged."""
    from breeds.features import Store, journal_folder, list_shards, verify

    problems = list(verify(path))
    for problem in problems:
        say(problem)
    if not problems:
        parts = len(list_shards(journal_folder(path)))
        rows = len(Store(path, corrected=False))
        say(f"{path}: {rows} features and {parts} parts of its journal match their checksums")
    return 1 if problems else 0

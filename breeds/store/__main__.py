"""A store: ``info FILE`` says what it holds, ``verify FILE`` whether it is whole."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from breeds import cli
from breeds.store import Store, verify
from breeds.store.corrections import Corrections, corrections_path
from breeds.store.shards import list_shards, shard_folder
from breeds.text import say


def main() -> int:
    """Run one of the two commands and return its exit code."""
    parser = cli.parser(__doc__, "store")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in (
        ("info", "say what a store holds"),
        ("verify", "check a store and every shard beside it against their checksums"),
    ):
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("file", type=Path, help="a store, features/NAME.h5")
    arguments = parser.parse_args()
    return info(arguments.file) if arguments.command == "info" else check(arguments.file)


def info(path: Path) -> int:
    """Print what the store at `path` holds."""
    store = Store.open(path)
    table = store.table
    say(f"{path}: {len(table)} photos of {table.root}, {len(table.key.first_rows())} of them different")
    say(f"recipe   {store.recipe}")
    say(f"         {store.recipe.digest}")
    say(f"engine   {store.engine}, written {store.created}, "
          f"{len(list_shards(shard_folder(path)))} shards beside it")  # fmt: skip
    for sentence in Corrections.load(corrections_path(path)).effect(table).sentences():
        say(sentence)
    for label, count in sorted(Counter(table.label).items()):
        say(f"{count:8d} {label or '(no label)'}")
    for name, reason in table.quarantine:
        say(f"quarantined {name}: {reason}")
    return 0


def check(path: Path) -> int:
    """Check the store at `path`; 1 if anything is damaged."""
    problems = list(verify(path))
    for problem in problems:
        say(problem)
    if not problems:
        shards = len(list_shards(shard_folder(path)))
        say(f"{path}: {len(Store.open(path).table)} features and {shards} shards match their checksums")
    return 1 if problems else 0


if __name__ == "__main__":
    cli.run(main)

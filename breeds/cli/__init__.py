"""The command ``breeds``, which installation gives: one name for all that can be done, from any folder."""

from __future__ import annotations

import sys
from importlib import import_module

from breeds import __doc__ as about
from breeds import __version__
from breeds.errors import BreedsError

#: Its commands: where the `main` of each is, and what it is for.
COMMANDS = {
    "extract": ("breeds.cli.extract", "photos to features, once for each photo"),
    "train": ("breeds.cli.train", "features to a model, in seconds"),
    "evaluate": ("breeds.cli.evaluate", "how good the model is, as numbers and as a page"),
    "predict": ("breeds.cli.predict", "what breed is it? Photos, folders, addresses on the web"),
    "export": ("breeds.cli.export", "the whole classifier as a file for other programs"),
    "app": ("breeds.cli.app", "the same in the browser, on this machine (needs breeds[app])"),
    "store": ("breeds.cli.store", "what a store of features holds, whether it is whole; as a table"),
    "demo": ("breeds.sample.demo", "the first four in a row, on drawn dogs (needs breeds[tensorflow])"),
}


def main() -> None:
    """Run the command that is named first, and exit as it does."""
    from breeds.cli import common

    common.run(run_named)


def run_named() -> int:
    """Run the command that ``sys.argv`` names first, on the rest of it; without one, show them all.

    Raises
    ------
    BreedsError
        If there is no such command.
    """
    from breeds.cli import common

    named = sys.argv[1:2]
    if named and named[0] in COMMANDS:
        del sys.argv[1]
        code: int = import_module(COMMANDS[named[0]][0]).main()
        return code
    if named and not named[0].startswith("-"):
        raise BreedsError(f"breeds has no command {named[0]}; it has {', '.join(COMMANDS)}.")
    parser = common.parser(about)
    parser.prog = "breeds"
    parser.add_argument("--version", action="version", version=f"breeds {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    for name, (_, text) in COMMANDS.items():
        commands.add_parser(name, help=text)
    parser.parse_args(named)
    parser.print_help()
    return 0

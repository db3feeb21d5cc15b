"""A demonstration: the four scripts in order, on your photos or on a sample that needs none."""

from __future__ import annotations

from pathlib import Path

from breeds.cli import common
from breeds.sample import write_holiday, write_samples
from breeds.sample.scripts import best_weights, run_four_scripts
from breeds.started import as_breeds

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


if __name__ == "__main__":
    common.run(main)

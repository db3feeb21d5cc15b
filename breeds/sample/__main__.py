"""``python -m breeds.sample FOLDER``: draw the sample."""

from __future__ import annotations

from pathlib import Path

from breeds.cli import common
from breeds.sample import write_holiday, write_samples
from breeds.sample.drawing import BREEDS
from breeds.text import say


def main() -> int:
    """Draw the sample into FOLDER/photos and FOLDER/holiday; return the exit code."""
    about = "Draw the sample: FOLDER/photos/BREED to train on, FOLDER/holiday to predict."
    parser = common.parser(about)
    parser.prog = "python -m breeds.sample"
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="where to")
    parser.add_argument(
        "--per-breed", type=common.positive, default=30, metavar="N", help="photos of each breed"
    )
    parser.add_argument("--seed", type=common.natural, default=0, metavar="N", help="which set of photos")
    arguments = parser.parse_args()
    photos = write_samples(arguments.folder / "photos", arguments.per_breed, arguments.seed)
    holiday = write_holiday(arguments.folder / "holiday", seed=arguments.seed)
    say(f"{photos} photos of {len(BREEDS)} drawn breeds in {arguments.folder / 'photos'}, "
          f"{holiday} more in {arguments.folder / 'holiday'}")  # fmt: skip
    return 0


if __name__ == "__main__":
    common.run(main)

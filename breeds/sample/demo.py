"""A demonstration: the four scripts in order, on your photos, on drawn dogs, or on real ones."""

from __future__ import annotations

import gzip
import re
import shlex
import subprocess
import sys
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple, cast

from breeds.backbones import XCEPTION
from breeds.backbones.weights import get_weights
from breeds.cli import common
from breeds.errors import BreedsError
from breeds.sample import write_holiday, write_samples
from breeds.started import arguments_of, as_breeds, command, need
from breeds.web import download, unreachable

DEMO = Path("demo")
_AGAIN = """then run it on real dogs, make dogs, or on your own: make demo DATA=photos/ [WEIGHTS=file.h5], or
the four commands above (first: source .venv/bin/activate). README.md says what each can do."""
_BREEDS_AGAIN = """then run it on your own, breeds demo --data photos/ [--weights file.h5], or the four
commands above. --help says what each can do."""
#: Imagewoof of fast.ai: photos of ten breeds of ImageNet.
URL = "https://s3.amazonaws.com/fast-ai-imageclas/imagewoof2-160.tgz"
DOGS = Path("dogs")
#: Photos of each breed to train on, and to predict.
PER_BREED, UNSEEN = 80, 2
BREEDS = {
    "n02086240": "shih_tzu",
    "n02087394": "rhodesian_ridgeback",
    "n02088364": "beagle",
    "n02089973": "english_foxhound",
    "n02093754": "border_terrier",
    "n02096294": "australian_terrier",
    "n02099601": "golden_retriever",
    "n02105641": "old_english_sheepdog",
    "n02111889": "samoyed",
    "n02115641": "dingo",
}
MOST_PHOTO = 2**22  # bytes
_MEMBER = re.compile(r"imagewoof2-160/(train|val)/(n\d{8})/([A-Za-z0-9_-]+)\.JPEG")
_DOGS_AGAIN = """these dogs are ImageNet photos, which the weights have seen, so the numbers are optimistic.
Now run it on your own, make demo DATA=photos/, or the commands above (source .venv/bin/activate first)."""


class Bounds(NamedTuple):
    """What the archive may have: bytes as it comes, bytes and members unpacked."""

    packed: int = 200 * 2**20
    unpacked: int = 400 * 2**20
    members: int = 30_000


BOUNDS = Bounds()


def main() -> int:
    """Run the demo and return the first exit code that is not 0."""
    parser = common.parser(
        "The four scripts in order, on your photos or on a sample that needs none.", "demo"
    )
    parser.add_argument("--data", metavar="DIR", help="your labelled photos (default: drawn ones)")
    parser.add_argument("--weights", metavar="W",
                        help="weights (default: imagenet if reachable, else random)")  # fmt: skip
    parser.add_argument("--dogs", action="store_true",
                        help="real photos of ten breeds, fetched once into dogs/ (88 MB)")  # fmt: skip
    parser.add_argument("--url", default=URL, help="where the archive of --dogs is")
    arguments = parser.parse_args()
    if arguments.dogs and not DOGS.exists():
        print(f"Fetching real photos of ten breeds (88 MB) from {arguments.url} ...", flush=True)
        fetch_dogs(arguments.url, DOGS)
    weights = arguments.weights or best_weights()
    if arguments.dogs:
        return run_four_scripts(str(DOGS / "photos"), str(DOGS / "holiday"), weights, DOGS, _DOGS_AGAIN)
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


def fetch_dogs(url: str, folder: Path, bounds: Bounds = BOUNDS) -> None:
    """Fetch Imagewoof and make `folder` of it, whole or not at all: ``photos/BREED`` and ``holiday``.

    Raises
    ------
    BreedsError
        If it cannot be reached, or is not what it should be; then nothing is left behind.
    """
    reason = unreachable(url)
    with tempfile.TemporaryDirectory(prefix=".dogs-", dir=folder.absolute().parent) as place:
        archive, unpacked = Path(place, "dogs.tgz"), Path(place, "dogs")
        try:
            if reason is None:
                download(url, archive, bounds.packed)
                unpack_dogs(archive, unpacked, bounds)
                unpacked.rename(folder)
        except (OSError, EOFError, ValueError, zlib.error, tarfile.TarError) as error:
            reason = " ".join(str(error).split())[:200] or type(error).__name__
    if reason is not None:
        raise BreedsError(
            f"The photos at {url} cannot be had ({reason}); name photos of your own, a folder with a "
            f"subfolder for each breed: make demo DATA=photos/."
        )


def unpack_dogs(archive: Path, folder: Path, bounds: Bounds) -> None:
    """Write the photos of an archive into `folder`, the first of each breed by name.

    Only what is a photo by its kind, name and size is written, under a name put together here;
    all else, such as links and names that lead elsewhere, is passed over.

    Raises
    ------
    OSError, EOFError, ValueError, zlib.error, tarfile.TarError
        If the archive is damaged, unpacks to too much, or lacks a breed.
    """
    names: dict[Path, list[str]] = {}
    for place, name, _ in _photos(archive, bounds):
        names.setdefault(place, []).append(name)
    if {place.name for place in names if place.parent.name == "train"} != set(BREEDS.values()):
        raise ValueError("it does not hold photos of the ten breeds")
    most = {"train": PER_BREED, "val": UNSEEN}
    chosen = {(place, name) for place in names for name in sorted(names[place])[: most[place.parent.name]]}
    for place, name, data in _photos(archive, bounds):
        if (place, name) in chosen:
            target = folder / "holiday" if place.parent.name == "val" else folder / "photos" / place.name
            target.mkdir(parents=True, exist_ok=True)
            (target / f"{name}.jpg").write_bytes(data)


def _photos(archive: Path, bounds: Bounds) -> Iterator[tuple[Path, str, bytes]]:
    """Yield every photo of an archive: its part and breed as a path, its name, its bytes."""
    with (
        gzip.open(archive) as raw,
        tarfile.open(fileobj=cast(IO[bytes], _Bounded(raw, bounds.unpacked)), mode="r|") as tar,
    ):
        for number, member in enumerate(tar):
            if number == bounds.members:
                raise ValueError(f"it has more than {bounds.members} members")
            match = _MEMBER.fullmatch(member.name)
            if match and match[2] in BREEDS and member.isreg() and member.size <= MOST_PHOTO:
                source = tar.extractfile(member)
                yield Path(match[1], BREEDS[match[2]]), match[3], source.read() if source else b""


class _Bounded:
    """Reads from a file, up to a bound: a small archive can unpack to more than a disk holds."""

    def __init__(self, source: gzip.GzipFile, most: int) -> None:
        self._source, self._most, self._left = source, most, most

    def read(self, size: int) -> bytes:
        """Read on, as files do."""
        data = self._source.read(size)
        self._left -= len(data)
        if self._left < 0:
            raise ValueError(f"it unpacks to more than {self._most // 2**20} MiB")
        return data


if __name__ == "__main__":
    common.run(main)

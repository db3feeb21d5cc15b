"""``make dogs``: the four scripts in order, on real photos of ten breeds (fast.ai's Imagewoof)."""

from __future__ import annotations

import gzip
import re
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple, cast

from breeds.cli import common
from breeds.errors import BreedsError
from breeds.sample.demo import best_weights, run_four_scripts
from breeds.web import download, unreachable

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
_AGAIN = """these dogs are ImageNet photos, which the weights have seen, so the numbers are optimistic. Now
run it on your own: make demo DATA=photos/, or the four commands above (source .venv/bin/activate first)."""


class Bounds(NamedTuple):
    """What the archive may have: bytes as it comes, bytes and members unpacked."""

    packed: int = 200 * 2**20
    unpacked: int = 400 * 2**20
    members: int = 30_000


BOUNDS = Bounds()


def main() -> int:
    """Fetch the photos if they are not here, run the four scripts, and return the exit code."""
    parser = common.parser(__doc__)
    parser.prog = "python -m breeds.sample.dogs"
    parser.add_argument("--url", default=URL, help="where the archive is")
    arguments = parser.parse_args()
    if not DOGS.exists():
        print(f"Fetching real photos of ten breeds (88 MB) from {arguments.url} ...", flush=True)
        fetch_dogs(arguments.url, DOGS)
    return run_four_scripts(str(DOGS / "photos"), str(DOGS / "holiday"), best_weights(), DOGS, _AGAIN)


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

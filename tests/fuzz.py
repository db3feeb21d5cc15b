"""Fuzzing of what reads strangers' files: ``python tests/fuzz.py decode|store|model|csv [SECONDS] [SEED]``.

Real files are changed at random, again and again: nothing but Breeds' own errors may come out, and no input
may take more than `MOST_SECONDS` of the processor or `MOST_BYTES` of memory. atheris (``pip install
atheris``) does it if it is installed, led by what the code has not yet done; else Hypothesis, blindly. An
input that fails is left behind in ``fuzz/TARGET``, and its name is printed.
"""

from __future__ import annotations

import contextlib
import faulthandler
import hashlib
import io
import resource
import sys
import time
import warnings
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

MOST_SECONDS, MOST_BYTES = 10, 2 * 2**30
#: Larger inputs are drawn only from larger seeds.
LARGEST = 2**17

Target = tuple[Callable[[bytes], None], list[bytes]]


def decode_target(folder: Path) -> Target:
    """Photos of every format and mode, and some of the team's real ones where they are."""
    import numpy as np
    from PIL import Image, ImageFile

    from breeds import photos

    # Large pictures of nothing take a second each, and have tests of their own.
    sys.modules["breeds.photos.decode"].MAX_PIXELS = 10**6  # type: ignore[attr-defined]
    assert not ImageFile.LOAD_TRUNCATED_IMAGES
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 40, 3)).astype(np.uint8))
    exif = Image.Exif()
    exif[274], exif[282] = 6, 72.0
    clear = noise.copy()
    clear.putalpha(noise.convert("L"))
    grey16 = Image.fromarray(np.arange(1200, dtype=np.uint16).reshape(30, 40))
    kinds: list[tuple[Image.Image, str, dict[str, object]]] = [
        *((noise, form, {}) for form in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")),
        *((noise, form, {"exif": exif}) for form in ("JPEG", "PNG", "WEBP", "TIFF")),
        *((noise, form, {"save_all": True, "append_images": [clear]}) for form in ("GIF", "PNG", "WEBP")),
        *(
            (noise, "TIFF", {"compression": how})
            for how in ("tiff_lzw", "jpeg", "tiff_adobe_deflate", "lzma")
        ),
        *((clear, form, {}) for form in ("PNG", "WEBP", "TIFF")),
        *((grey16, form, {}) for form in ("PNG", "TIFF")),
        (noise, "MPO", {"save_all": True, "append_images": [noise]}),
        (noise, "JPEG", {"progressive": True, "comment": b"a dog", "icc_profile": b"profile" * 9}),
        (noise.convert("CMYK"), "JPEG", {"progressive": True}),
        (noise.convert("L"), "JPEG", {}),
        (noise.quantize(16), "PNG", {"transparency": 3}),
        (noise.convert("1"), "TIFF", {"compression": "group4"}),
        (noise, "WEBP", {"lossless": True}),
        (noise.quantize(200), "BMP", {}),
    ]
    seeds = []
    for image, form, options in kinds:
        buffer = io.BytesIO()
        image.save(buffer, form, **options)  # type: ignore[arg-type]
        seeds.append(buffer.getvalue())
    real = sorted((ROOT.parent / "shared" / "data").rglob("*.jpg"), key=lambda path: path.stat().st_size)
    seeds += [path.read_bytes() for path in real[:8]]

    def one(data: bytes) -> None:
        data = with_sound_checksums(data)
        resize, view = photos.RESIZES[len(data) % 3], ("original", "flip", "crop1")[len(data) % 5 % 3]
        for way in (lambda: photos.decode(data, 16, resize, view), lambda: photos.picture(data, 16)):
            with contextlib.suppress(photos_error()):
                way()

    return one, seeds


def with_sound_checksums(data: bytes) -> bytes:
    """Return a PNG whose chunks' checksums are right, so that more than its header is looked at."""
    changed, at = bytearray(data), 8
    while data.startswith(b"\x89PNG") and at + 12 <= len(data):
        end = at + 8 + int.from_bytes(data[at : at + 4], "big")
        changed[end : end + 4] = zlib.crc32(data[at + 4 : end]).to_bytes(4, "big")
        at = end + 4
    return bytes(changed[: len(data)])


def photos_error() -> type[Exception]:
    from breeds.errors import PhotoError

    return PhotoError


def small_store(folder: Path) -> Path:
    """A store of made-up features of nine photos."""
    import numpy as np

    from breeds.config import FeatureConfig
    from breeds.features import Table, write_store

    rng, path = np.random.default_rng(0), folder / "seed.h5"
    config = FeatureConfig("xception", "random", "0" * 64, 299, "stretch")
    keys = [hashlib.sha256(bytes([i])).hexdigest() for i in range(9)]
    features = np.array([rng.normal(i % 3, 1, 2048) for i in range(9)], dtype=np.float32)
    labels = ["pug", "beagle", "collie"] * 3
    paths = [f"{label}/{i}.jpg" for i, label in enumerate(labels)]
    table = Table("made up", "", keys, paths, labels, [""] * 9, [1] * 9, [0] * 9)
    table.rejected = [("bad.jpg", "empty file (0 bytes)")]
    write_store(path, table, config, features, "made up")
    return path


def store_target(folder: Path) -> Target:
    """A store, opened, read and verified."""
    from breeds.errors import BreedsError
    from breeds.features import Store, verify

    path = folder / "one.h5"

    def one(data: bytes) -> None:
        path.write_bytes(data)
        with contextlib.suppress(BreedsError):
            Store(path).features()
        with contextlib.suppress(BreedsError):
            list(verify(path))

    return one, [small_store(folder).read_bytes()]


def model_target(folder: Path) -> Target:
    """A model, loaded and asked."""
    import numpy as np

    from breeds.errors import BreedsError
    from breeds.features import Store
    from breeds.heads.model import Model
    from breeds.training import train

    path, seeds = folder / "one.safetensors", []
    logistic = train(Store(small_store(folder)), C=1.0)
    layers = [(np.ones((2048, 4), np.float32), np.ones(4, np.float32)),
              (np.ones((4, 3), np.float32), np.ones(3, np.float32))]  # fmt: skip
    for model in (logistic, replace(logistic, kind="dense", layers=layers)):
        model.save(path)
        seeds.append(path.read_bytes())

    def one(data: bytes) -> None:
        path.write_bytes(data)
        with contextlib.suppress(BreedsError):
            model = Model.load(path)
            with np.errstate(all="ignore"):
                model.probabilities(np.ones((1, model.mean.size), np.float32))

    return one, seeds


def csv_target(folder: Path) -> Target:
    """A list of photos with labels, of both kinds."""
    from breeds.errors import BreedsError
    from breeds.photos import find_photos
    from breeds.selection import Selection

    for name in ("a.jpg", "b.jpg"):
        (folder / name).write_bytes(b"\xff\xd8\xff")
    table = folder / "dogs.csv"

    def one(data: bytes) -> None:
        table.write_bytes(data)
        with contextlib.suppress(BreedsError):
            find_photos(Selection(table))

    texts = ["path,label,split\na.jpg,pug,train\nb.jpg,beagle,\n", "id,breed\na,pug\nb,shih-tzu\n"]
    return one, [*(text.encode() for text in texts), ("\ufeff" + texts[0]).replace("\n", "\r\n").encode()]


TARGETS = {"decode": decode_target, "store": store_target, "model": model_target, "csv": csv_target}


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def bounded(one: Callable[[bytes], None]) -> Callable[[bytes], None]:
    """Return what fails also where an input takes too much time or memory."""
    before = peak()

    def run(data: bytes) -> None:
        started = time.thread_time()
        faulthandler.dump_traceback_later(6 * MOST_SECONDS, exit=True)  # even where a library never returns
        try:
            one(data)
        finally:
            faulthandler.cancel_dump_traceback_later()
        took = time.thread_time() - started
        assert took < MOST_SECONDS, f"{took:.0f} seconds"
        assert peak() - before < MOST_BYTES, f"{peak() - before} bytes"

    return run


def with_atheris(
    one: Callable[[bytes], None], seeds: list[bytes], folder: Path, seconds: int, seed: int
) -> None:
    """Fuzz with atheris, which ends the process."""
    import atheris

    corpus = folder / "corpus"  # what it finds to be new is kept there, and the next run begins with it
    corpus.mkdir(exist_ok=True)
    for number, data in enumerate(seeds):
        (corpus / str(number)).write_bytes(data)
    options = [f"-max_total_time={seconds}", f"-seed={seed}", f"-max_len={LARGEST}", "-rss_limit_mb=0"]
    options += [
        "-verbosity=0",
        "-print_final_stats=1",
        f"-timeout={6 * MOST_SECONDS}",
        f"-artifact_prefix={folder}/",
    ]
    atheris.Setup([sys.argv[0], str(corpus), *options], one)
    atheris.Fuzz()


def with_hypothesis(
    one: Callable[[bytes], None], seeds: list[bytes], folder: Path, seconds: int, number: int
) -> int:
    """Fuzz with Hypothesis; return how many inputs there were."""
    from hypothesis import HealthCheck, Phase, given, seed, settings
    from hypothesis import strategies as st

    count = 0

    def change(data: bytes, edits: list[tuple[int, bytes, int]], end: int) -> bytes:
        changed = bytearray(data)
        for place, value, removed in edits:
            # Half of all changes are in the first bytes, where headers are.
            place = place % len(data) if place % 2 else place % min(len(data), 200)
            changed[place : place + removed] = value
        return bytes(changed[: len(changed) - end % len(data)] if end % 4 == 0 else changed)

    edit = st.tuples(st.integers(0, 10**6), st.binary(max_size=8), st.integers(0, 8))
    changed = st.builds(change, st.sampled_from(seeds), st.lists(edit, max_size=8), st.integers(0, 10**6))
    until = time.monotonic() + seconds
    while time.monotonic() < until:

        @seed(number + count)
        @settings(
            max_examples=100,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.generate],
        )
        @given(changed)
        def run(data: bytes) -> None:
            nonlocal count
            count += 1
            try:
                one(data)
            except BaseException:
                kept = folder / f"crash-{hashlib.sha1(data).hexdigest()}"
                kept.write_bytes(data)
                print(f"an input that fails is in {kept}", file=sys.stderr)
                raise

        run()
    return count


def main(target: str, seconds: int = 600, seed: int = 0) -> None:
    """Fuzz one target for so many seconds."""
    warnings.simplefilter("ignore")
    folder = Path("fuzz", target)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        import atheris
    except ImportError:
        one, seeds = TARGETS[target](folder)
        count = with_hypothesis(bounded(one), seeds, folder, seconds, seed)
        print(f"{target}: {count} inputs in {seconds} seconds, nothing found (Hypothesis, seed {seed})")
    else:
        with atheris.instrument_imports(include=["breeds", "PIL"]):
            one, seeds = TARGETS[target](folder)
        with_atheris(bounded(one), seeds, folder, seconds, seed)


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))

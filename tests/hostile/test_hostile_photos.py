"""Photos that ask for more scans, metadata, memory or time than they may are set aside with the reason."""

from __future__ import annotations

import io
import os
import re
import signal
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import brought
import numpy as np
import pytest
from conftest import ROOT, run_script
from PIL import Image

from breeds.errors import PhotoError
from breeds.photos import decode, limits, picture
from breeds.photos.inputs import list_inputs

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")

NOISE = Image.fromarray(np.random.default_rng(7).integers(0, 256, (96, 128, 3)).astype(np.uint8))


def encoded(image: Image.Image, form: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def with_scans(count: int, side: int = 128) -> bytes:
    """A progressive JPEG that goes over its pixels so many times more, each time with nothing new."""
    data = encoded(Image.new("L", (side, side), 99), "JPEG", progressive=True)
    end = data.rindex(b"\xff\xd9")
    last = data[data.rindex(b"\xff\xda") : end]
    return data[:end] + count * last + data[end:]


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_with(*chunks: tuple[bytes, bytes], after: bool = False) -> bytes:
    """A PNG with more chunks, before its pixels or after them."""
    data = encoded(NOISE, "PNG")
    at = len(data) - 12 if after else 33
    return data[:at] + b"".join(png_chunk(*chunk) for chunk in chunks) + data[at:]


def png_of_zeros(width: int, height: int, bits: int, colour: int, channels: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    pixels = zlib.compressobj(9)
    row = bytes(1 + width * channels * bits // 8)
    packed = b"".join(pixels.compress(row) for _ in range(height)) + pixels.flush()
    parts = [(b"IHDR", header), (b"IDAT", packed), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*part) for part in parts)


def fractions(count: int, values: int = 1) -> bytes:
    """EXIF whose orientation is so many fractions, told so many times, all at the same place."""
    entries = b"".join(struct.pack(">HHLL", 274 + i, 5, count, 14 + 12 * values) for i in range(values))
    return b"MM\0*" + struct.pack(">LH", 8, values) + entries + struct.pack(">L", 0) + b"\0\0\0\1" * 2 * count


def tiff(*more: tuple[int, int, int, int], tail: bytes = b"") -> bytes:
    """A grey TIFF of 8 by 8 pixels with more tags: number, type, count, value."""
    known = [(256, 4, 1, 8), (257, 4, 1, 8), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (278, 4, 1, 8)]
    tags = sorted([*known, (273, 4, 1, 0), (279, 4, 1, 64), *more])
    end = 8 + 2 + 12 * len(tags) + 4
    rows = [(tag, kind, count, end if tag == 273 else value) for tag, kind, count, value in tags]
    directory = b"".join(struct.pack("<HHLL", *row) for row in rows)
    return b"II*\0" + struct.pack("<LH", 8, len(tags)) + directory + bytes(4) + bytes(64) + tail


def gif_with(blocks: bytes) -> bytes:
    data = encoded(NOISE.convert("P"), "GIF")
    at = 13 + 3 * 2 ** ((data[10] & 7) + 1)
    return data[:at] + blocks + data[at:]


JPEG = encoded(NOISE, "JPEG")
COMMENT = b"\xff\xfe\xff\xff" + bytes(65533)
TABLES = b"\xff\xdb\xff\xf2" + bytes(65 * 1008)
FRAMES = b"\xff\xc0\xff\xfe\x08\0\x60\0\x80\3" + bytes(3 * 21842)
EXIF = b"\xff\xe1\xff\xff" + b"Exif\0\0" + bytes(65527)

HOSTILE = {
    "scans": lambda: (with_scans(2000), "goes over its pixels too often"),
    "scans, no progressive": lambda: (sequential_scans(2000), "goes over its pixels too often"),
    "scans of a large photo": lambda: (resized(with_scans(20), 11_000, 11_000), "over its pixels too often"),
    "fractions in PNG": lambda: (png_with((b"eXIf", fractions(10**6))), "numbers in its metadata"),
    "fractions after the pixels": lambda: (png_with((b"eXIf", fractions(10**6)), after=True), "numbers in"),
    "fractions in text": lambda: (
        png_with((b"tEXt", b"Raw profile type exif\0\n\n\n" + fractions(10**6).hex().encode())),
        "metadata",
    ),
    "fractions in WebP": lambda: (encoded(NOISE, "WEBP", exif=fractions(10**6)), "numbers in its metadata"),
    "fractions in JPEG": lambda: (jpeg_with_exif(fractions(10**6)), "numbers in its metadata"),
    "fractions told 500 times": lambda: (png_with((b"eXIf", fractions(1000, 500))), "numbers in"),
    "fractions in TIFF": lambda: (tiff((274, 5, 10**6, 0), tail=bytes(8 * 10**6)), "numbers in its metadata"),
    "numbers in a directory of a TIFF": lambda: (inner_directory(), "numbers in its metadata"),
    "one value of a TIFF 300 times": lambda: (
        tiff(*((40000 + i, 7, 10**6, 0) for i in range(300)), tail=bytes(10**6)),
        "metadata are over the limit of 32 MiB",
    ),
    "tiles larger than the photo": lambda: (
        tiff((322, 4, 1, 30_000), (323, 4, 1, 30_000)),
        "tiles are larger than a photo may be",
    ),
    "comments in JPEG": lambda: (JPEG[:2] + COMMENT * 600 + JPEG[2:], "metadata are over the limit"),
    "EXIF in parts": lambda: (JPEG[:2] + EXIF * 600 + JPEG[2:], "metadata are over the limit"),
    "junk in JPEG": lambda: (JPEG[:20] + bytes(2**20) + JPEG[20:], "metadata are over the limit"),
    "nothing but marks in JPEG": lambda: (JPEG[:20] + b"\xff" * 2**22 + JPEG[20:], "metadata are over"),
    "tables in JPEG": lambda: (JPEG[:20] + TABLES * 500 + JPEG[20:], "metadata are over the limit"),
    "frames in JPEG": lambda: (JPEG[:20] + FRAMES * 500 + JPEG[20:], "metadata are over the limit"),
    "comments between scans": lambda: (comments_between_scans(10**6), "metadata are over the limit"),
    "texts in PNG": lambda: (
        png_with(*((b"zTXt", b"a%d\0\0" % i + zlib.compress(bytes(2**20))) for i in range(60))),
        "metadata are over the limit of 32 MiB",
    ),
    "small chunks in PNG": lambda: (png_with(*[(b"abCd", b"")] * 200_000, after=True), "metadata are over"),
    "comments in GIF": lambda: (gif_with(b"!\xfe" + b"\1a" * 10**6 + b"\0"), "metadata are over the limit"),
}


def comments_between_scans(count: int) -> bytes:
    data = encoded(NOISE, "JPEG", progressive=True)
    at = data.rindex(b"\xff\xda")
    return data[:at] + b"\xff\xfe\0\2" * count + data[at:]


def sequential_scans(count: int) -> bytes:
    """A JPEG whose colours come one after the other, and the last one again and again."""
    grey = encoded(Image.new("L", (64, 64), 99), "JPEG")
    frame, start = grey.index(b"\xff\xc0"), grey.index(b"\xff\xda")
    scan, pixels = grey[start : start + 10], grey[start + 10 : -2]
    three = b"\xff\xc0\0\x11\x08" + grey[frame + 5 : frame + 9] + b"\3" + b"\1\x11\0\2\x11\0\3\x11\0"
    colours = b"".join(scan.replace(b"\1\1\0", bytes([1, i, 0]), 1) + pixels for i in (1, 2, 3))
    last = scan.replace(b"\1\1\0", b"\1\3\0", 1) + pixels
    return grey[:frame] + three + grey[frame + 13 : start] + colours + last * count + b"\xff\xd9"


def resized(jpeg: bytes, width: int, height: int) -> bytes:
    """The same JPEG with another size in its header."""
    at = re.search(rb"\xff[\xc0\xc2]", jpeg).start() + 5  # type: ignore[union-attr]
    return jpeg[:at] + struct.pack(">HH", height, width) + jpeg[at + 4 :]


def jpeg_with_exif(exif: bytes) -> bytes:
    """A JPEG whose EXIF is longer than a segment may be, in parts that Pillow puts together."""
    parts = [b"Exif\0\0" + exif[i : i + 65527] for i in range(0, len(exif), 65527)]
    segments = b"".join(b"\xff\xe1" + struct.pack(">H", 2 + len(part)) + part for part in parts)
    return JPEG[:2] + segments + JPEG[2:]


def inner_directory() -> bytes:
    """A TIFF whose EXIF directory holds a million numbers."""
    plain = tiff((34665, 4, 1, 0))
    inner = struct.pack("<HHHLLL", 1, 40000, 4, 10**6, len(plain) + 18, 0)
    return tiff((34665, 4, 1, len(plain)), tail=inner + bytes(4 * 10**6))


@pytest.mark.slow
@pytest.mark.parametrize("way", ["decode", "picture"])
@pytest.mark.parametrize("name", HOSTILE)
def test_a_photo_that_asks_for_too_much_is_refused_at_once(name: str, way: str) -> None:
    data, reason = HOSTILE[name]()
    started = time.thread_time()
    with pytest.raises(PhotoError, match=reason):
        decode(data, 64) if way == "decode" else picture(data, 64)
    assert time.thread_time() - started < 2


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(encoded(NOISE, "JPEG", progressive=True), id="progressive"),
        pytest.param(with_scans(60), id="70 scans"),
        pytest.param(sequential_scans(3), id="sequential scans"),
        pytest.param(encoded(NOISE, "JPEG", exif=Image.Exif(), comment=b"a" * 60_000), id="comment"),
        pytest.param(JPEG[:2] + COMMENT * 100 + JPEG[2:], id="6 MB of comments"),
        pytest.param(JPEG + os.urandom(10**5) + b"\xff\xda" * 1000, id="a film behind the photo"),
        pytest.param(png_with((b"eXIf", fractions(1000))), id="a thousand fractions"),
        pytest.param(png_with((b"iTXt", b"a\0\0\0\0\0" + b"b" * 5 * 10**6)), id="5 MB of text"),
        pytest.param(png_with((b"iCCP", b"a\0\0" + zlib.compress(bytes(10**6)))), id="a large profile"),
        pytest.param(gif_with(b"!\xfe" + (b"\xff" + b"a" * 255) * 1000 + b"\0"), id="GIF with comments"),
        pytest.param(tiff((700, 1, 10**6, 0), tail=bytes(10**6)), id="TIFF with a megabyte of text"),
    ],
)
def test_what_honest_photos_hold_is_allowed(data: bytes) -> None:
    assert decode(data, 32).shape == (32, 32, 3)
    assert max(picture(data, 32).size) <= 64


@pytest.mark.parametrize("count", [0, 1, 20])
def test_scans_give_the_same_pixels_one_at_a_time(count: int) -> None:
    data = with_scans(count)
    with Image.open(io.BytesIO(data)) as image:
        whole = np.asarray(image.convert("RGB"))
    np.testing.assert_array_equal(decode(data, 128), whole)


def test_arithmetic_coding_is_decoded_as_before() -> None:
    """Its decoder wants a whole scan at once, so a piece ends where the next scan's marker does."""
    data = encoded(NOISE, "JPEG", progressive=True)
    contents = limits.contents_of(data)
    assert [data[at - 2 : at] for at in contents.scans] == [b"\xff\xda"] * len(contents.scans)
    assert len(contents.scans) == data.count(b"\xff\xda") - 1


@pytest.mark.slow
def test_a_photo_has_so_much_time_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(NOISE.resize((2000, 2000)), "PNG")
    monkeypatch.setattr(limits, "MAX_SECONDS", 0.02)
    with pytest.raises(PhotoError, match=r"takes over the limit of 0\.02 seconds"):
        decode(data, 64)
    assert decode(encoded(NOISE.resize((8, 8)), "PNG"), 8).shape == (8, 8, 3)


def test_decoding_stops_between_two_pieces() -> None:
    stop = threading.Event()
    data = encoded(NOISE, "PNG")
    assert decode(data, 64, stop=stop).shape == (64, 64, 3)
    stop.set()
    for way in (decode, picture):
        with pytest.raises(PhotoError, match="stopped"):
            way(data, 64, stop=stop)


# --- memory ----------------------------------------------------------------------------------

_PEAK = """
import sys
from concurrent.futures import ThreadPoolExecutor
from breeds.photos import decode
small, hostile = (open(path, "rb").read() for path in sys.argv[1:3])
decode(small, 8)
def kilobytes(what):  # of this process alone: ru_maxrss starts with its parent's
    return int(open("/proc/self/status").read().split(what)[1].split()[0])
before = kilobytes("VmRSS:")
with ThreadPoolExecutor(4) as pool:
    list(pool.map(lambda data: decode(data, 64), [hostile] * 8))
print((kilobytes("VmHWM:") - before) * 1024)
"""


@pytest.mark.slow
@pytest.mark.xdist_group("memory")
@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
def test_what_a_worker_has_freed_is_there_for_the_others(tmp_path: Path) -> None:
    """glibc would keep it for the thread that freed it: 2.1 GB for four workers, and more with each photo."""
    (tmp_path / "small").write_bytes(encoded(NOISE, "PNG"))
    (tmp_path / "hostile").write_bytes(png_of_zeros(1000, 60_000, 16, 4, 2))
    command = [sys.executable, "-c", _PEAK, str(tmp_path / "small"), str(tmp_path / "hostile")]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 3 * 2**29


def tiff16(bands: int, side: int) -> bytes:
    """A TIFF of 16-bit colours, all in one strip."""
    strip = zlib.compress(bytes(side * side * bands * 2), 1)
    tags = [(256, 4, 1, side), (257, 4, 1, side), (258, 3, bands, 0), (259, 3, 1, 8), (262, 3, 1, 2)]
    tags += [(273, 4, 1, 0), (277, 3, 1, bands), (278, 4, 1, side), (279, 4, 1, len(strip))]
    tags += [(338, 3, 1, 2)] if bands == 4 else []
    end = 8 + 2 + 12 * len(tags) + 4
    rows = [(tag, kind, n, {258: end, 273: end + 8}.get(tag, value)) for tag, kind, n, value in tags]
    directory = b"".join(struct.pack("<HHLL", *row) for row in rows)
    return (
        b"II*\0"
        + struct.pack("<LH", 8, len(tags))
        + directory
        + bytes(4)
        + struct.pack("<4H", *[16] * 4)
        + strip
    )


SIDE = 3000
LARGE = NOISE.resize((SIDE, SIDE), Image.Resampling.NEAREST)
PEAKS = {
    "JPEG": lambda: encoded(LARGE, "JPEG"),
    "JPEG turned": lambda: encoded(LARGE, "JPEG", exif=orientation()),
    "JPEG progressive": lambda: encoded(LARGE, "JPEG", progressive=True, subsampling=0),
    "JPEG CMYK progressive": lambda: encoded(LARGE.convert("CMYK"), "JPEG", progressive=True),
    "PNG 1": lambda: png_of_zeros(SIDE, SIDE, 1, 0, 1),
    "PNG 16 grey": lambda: png_of_zeros(SIDE, SIDE, 16, 0, 1),
    "PNG 16 grey and alpha": lambda: png_of_zeros(SIDE, SIDE, 16, 4, 2),
    "PNG 16 colours and alpha": lambda: png_of_zeros(SIDE, SIDE, 16, 6, 4),
    "PNG palette": lambda: encoded(LARGE.quantize(64), "PNG", transparency=bytes(range(64))),
    "WebP": lambda: encoded(LARGE, "WEBP", method=0),
    "WebP with alpha": lambda: encoded(half_clear(), "WEBP", method=0),
    "WebP animated": lambda: encoded(
        LARGE, "WEBP", method=0, save_all=True, append_images=[LARGE.transpose(Image.Transpose.ROTATE_180)]
    ),
    "GIF": lambda: encoded(LARGE.quantize(64), "GIF", transparency=1),
    "BMP": lambda: encoded(LARGE, "BMP"),
    "TIFF": lambda: encoded(LARGE, "TIFF", compression="tiff_lzw", exif=orientation()),
    "TIFF 16 colours": lambda: tiff16(3, SIDE),
    "TIFF 16 colours and alpha": lambda: tiff16(4, SIDE),
}


def orientation() -> Image.Exif:
    exif = Image.Exif()
    exif[274] = 6
    return exif


def half_clear() -> Image.Image:
    image = LARGE.copy()
    image.putalpha(LARGE.convert("L"))
    return image


_PEAKS = """
import os, sys
from PIL import Image
from breeds.photos import decode, memory
def kilobytes(what):
    return int(open("/proc/self/status").read().split(what)[1].split()[0])
needed, wanted = memory.bytes_needed, []
memory.bytes_needed = lambda *asked: wanted.append(needed(*asked)) or wanted[-1]
decode(open(sys.argv[1], "rb").read(), 8)
for line in sys.stdin:
    if os.fork():
        os.wait()
        continue
    data = open(line.strip(), "rb").read()
    before = kilobytes("VmRSS:")
    decode(data, 299)
    print(wanted[-1], (kilobytes("VmHWM:") - before) * 1024, flush=True)
    os._exit(0)
"""


@pytest.fixture(scope="module")
def measuring(tmp_path_factory: pytest.TempPathFactory) -> Iterator[subprocess.Popen[str]]:
    """A process that is told photos, and says of each what is held for it and what a fork takes."""
    small = tmp_path_factory.mktemp("measuring") / "small"
    small.write_bytes(encoded(NOISE, "JPEG", progressive=True))
    env = {**os.environ, "PYTHONPATH": str(ROOT), "MALLOC_MMAP_THRESHOLD_": "65536"}
    command = [sys.executable, "-c", _PEAKS, str(small)]
    with subprocess.Popen(
        command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield process
        assert process.stdin
        process.stdin.close()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
@pytest.mark.parametrize("name", PEAKS)
def test_no_photo_takes_more_memory_than_is_held_for_it(
    name: str, measuring: subprocess.Popen[str], tmp_path: Path
) -> None:
    (tmp_path / "photo").write_bytes(PEAKS[name]())
    assert measuring.stdin and measuring.stdout
    print(tmp_path / "photo", file=measuring.stdin, flush=True)
    held, took = map(int, measuring.stdout.readline().split())
    assert took < held


# --- through the command line ----------------------------------------------------------------


@pytest.mark.slow
def test_hostile_photos_are_quarantined_each_with_its_reason(photos: Path, tmp_path: Path) -> None:
    wanted = {}
    for number, name in enumerate(HOSTILE):
        data, reason = HOSTILE[name]()
        (photos / f"{number:02d}.jpg").write_bytes(data)
        wanted[f"{number:02d}.jpg"] = reason
    network = brought.described(tmp_path / "small.onnx")
    how = ("--backbone", network)
    result = run_script("extract_features.py", photos, *how, cwd=tmp_path)
    assert (result.returncode, "Traceback" in result.stderr) == (1, False)
    said = result.stdout + result.stderr
    for name, reason in wanted.items():
        assert re.search(rf"{name}.*{reason}", said), (name, said)
    assert f"{12 + len(wanted)} photos" in said


def bytes_read_by(process: subprocess.Popen[str]) -> int:
    return int(Path(f"/proc/{process.pid}/io").read_text().split("rchar:")[1].split()[0])


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="what a process has read is told by /proc")
def test_one_ctrl_c_ends_a_run_whatever_its_photos_do(photos: Path, tmp_path: Path) -> None:
    """Bitmaps that Pillow unpacks pixel by pixel take half a minute each, so there is time to press it."""
    side = 6000
    body = (b"\1\0\1\1" * (side // 2) + b"\0\0") * side
    header = struct.pack("<IiiHHIIiiII", 40, side, side, 1, 8, 1, len(body), 0, 0, 256, 0)
    start = struct.pack("<IHHI", 54 + 1024 + len(body), 0, 0, 54 + 1024)
    bitmap = b"BM" + start + header + bytes(range(256)) * 4 + body
    for number in range(4):
        (photos / f"{number}.bmp").write_bytes(bitmap + bytes([number]))
    command = [sys.executable, str(ROOT / "extract_features.py"), str(photos), "--weights", "random"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [*command, "--size", "96"], cwd=tmp_path, env=env, stderr=subprocess.PIPE, text=True
    ) as run:
        try:
            # All were read for their keys; two of them again, to be decoded.
            while bytes_read_by(run) < 6 * len(bitmap) and run.poll() is None:
                time.sleep(0.05)
            assert run.poll() is None
            run.send_signal(signal.SIGINT)
            started = time.perf_counter()
            _, error = run.communicate(timeout=60)
        finally:
            run.kill()
    assert run.returncode == 130, error
    assert "Traceback" not in error
    assert time.perf_counter() - started < 10


# --- patterns --------------------------------------------------------------------------------


def test_two_links_in_a_circle_end(tmp_path: Path) -> None:
    (tmp_path / "gl/inner").mkdir(parents=True)
    for name in ("a.jpg", "inner/b.jpg"):
        (tmp_path / "gl" / name).write_bytes(JPEG)
    for link in ("one", "two"):
        (tmp_path / "gl" / link).symlink_to(tmp_path / "gl", target_is_directory=True)
    found = [photo.name for photo in list_inputs([f"{tmp_path}/gl/**/*.jpg"], []) if photo]
    assert found == [f"{tmp_path}/gl/a.jpg", f"{tmp_path}/gl/inner/b.jpg"]


@pytest.mark.parametrize(
    "pattern",
    ["**/*.jpg", "d/**/*.jpg", "*/**/b*", "./d/**/*.jpg", "d/**/e/**/*.jpg", "d/e/../**/*.jpg", "**/e"],
)
def test_patterns_fit_what_they_fitted(pattern: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import glob

    monkeypatch.chdir(tmp_path)
    for name in ("top.jpg", "d/a.jpg", "d/e/b.jpg", "d/e/f/c.jpg", "d/.hidden/x.jpg", "d[1]/b.jpg"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(JPEG)
    wanted = sorted(glob.glob(pattern, recursive=True))
    inside = [
        os.path.join(path, name) for path in wanted if os.path.isdir(path) for name in ("b.jpg", "f/c.jpg")
    ]
    assert [photo.name for photo in list_inputs([pattern], []) if photo] == (inside or wanted)

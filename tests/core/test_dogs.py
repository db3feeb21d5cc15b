"""Real dogs are fetched from a server, and unpacked whatever the archive tries."""

from __future__ import annotations

import gzip
import io
import tarfile
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from conftest import ROOT, assert_refused, run_script

from breeds.errors import BreedsError
from breeds.sample import demo
from breeds.sample.demo import BOUNDS, BREEDS, Bounds, fetch_dogs

FEW = Bounds(members=1000)


def add(tar: tarfile.TarFile, name: str, data: bytes = b"photo", **fields: object) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for field, value in fields.items():
        setattr(info, field, value)
    tar.addfile(info, io.BytesIO(data))


def add_dogs(tar: tarfile.TarFile, photo: bytes = b"photo", train: int = 90) -> None:
    add(tar, "imagewoof2-160/noisy_imagewoof.csv", b"path,label")
    for number, part in [(train, "train"), (4, "val")]:
        for wnid in BREEDS:
            for i in range(number):
                add(tar, f"imagewoof2-160/{part}/{wnid}/{wnid}_{i:03d}.JPEG", photo + bytes([i]))


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., str]]:
    """Serve an archive on the loopback interface; gives its address."""
    folder = tmp_path / "served"
    folder.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()

    def publish(fill: Callable[[tarfile.TarFile], None]) -> str:
        with tarfile.open(folder / "dogs.tgz", "w:gz") as tar:
            fill(tar)
        return f"http://127.0.0.1:{server.server_port}/dogs.tgz"

    yield publish
    server.shutdown()
    server.server_close()


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir())


@pytest.mark.slow
def test_eighty_photos_of_each_breed_are_kept_and_some_are_left_to_predict(serve, tmp_path: Path) -> None:
    fetch_dogs(serve(add_dogs), tmp_path / "dogs")
    found = files(tmp_path / "dogs")
    assert len([name for name in found if name.startswith("photos/")]) == 800
    assert {Path(name).parts[1] for name in found if name.startswith("photos/")} == set(BREEDS.values())
    assert len([name for name in found if name.startswith("holiday/")]) == 20
    assert (tmp_path / "dogs/photos/beagle/n02088364_079.jpg").read_bytes() == b"photo" + bytes([79])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dogs", "served"]


def hostile(tar: tarfile.TarFile) -> None:
    wnid = next(iter(BREEDS))
    inside = f"imagewoof2-160/train/{wnid}/"
    add(tar, "../escaped.JPEG")
    add(tar, f"{inside}../../../../escaped.JPEG")
    add(tar, "/tmp/breeds-escaped.JPEG")
    add(tar, f"{inside}000.JPEG", b"", type=tarfile.SYMTYPE, linkname="/etc/passwd")
    add(tar, f"{inside}001.JPEG", b"", type=tarfile.LNKTYPE, linkname="/etc/passwd")
    add(tar, f"{inside}002.JPEG", b"", type=tarfile.CHRTYPE)
    add(tar, f"{inside}003.JPEG", b"", type=tarfile.FIFOTYPE)
    add(tar, f"{inside}004.JPEG", b"x" * (demo.MOST_PHOTO + 1))
    add(tar, f"imagewoof2-160/train/{wnid}", b"", type=tarfile.SYMTYPE, linkname="/tmp")
    add(tar, "imagewoof2-160/train/n99999999/a.JPEG")
    add(tar, f"{inside}run.sh", b"#!/bin/sh", mode=0o7777)
    add_dogs(tar)


@pytest.mark.slow
def test_nothing_of_a_hostile_archive_lands_outside_or_is_anything_but_a_photo(serve, tmp_path: Path) -> None:
    fetch_dogs(serve(hostile), tmp_path / "dogs")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dogs", "served"]
    assert not Path("/tmp/breeds-escaped.JPEG").exists()
    found = [path for path in (tmp_path / "dogs").rglob("*") if not path.is_dir()]
    assert len(found) == 820
    assert all(path.is_file() and not path.is_symlink() and path.suffix == ".jpg" for path in found)
    assert all(path.read_bytes().startswith(b"photo") and not path.stat().st_mode & 0o111 for path in found)


def nine_breeds(tar: tarfile.TarFile) -> None:
    for wnid in list(BREEDS)[:9]:
        add(tar, f"imagewoof2-160/train/{wnid}/a.JPEG")


def many_members(tar: tarfile.TarFile) -> None:
    for i in range(FEW.members + 1):
        add(tar, str(i), b"")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fill", "words"),
    [(nine_breeds, "ten breeds"), (many_members, "members"), (lambda tar: None, "ten breeds")],
)
def test_an_archive_of_something_else_is_refused(fill, words: str, serve, tmp_path: Path) -> None:
    refused(serve(fill), tmp_path, words, FEW)


def refused(url: str, tmp_path: Path, words: str = "", bounds: Bounds = BOUNDS) -> None:
    with pytest.raises(BreedsError, match=r"make demo DATA=photos/") as caught:
        fetch_dogs(url, tmp_path / "dogs", bounds)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["served"], "nothing is left behind"


@pytest.mark.slow
def test_damaged_archives_are_refused(serve, tmp_path: Path) -> None:
    url, archive = serve(add_dogs), tmp_path / "served/dogs.tgz"
    whole = archive.read_bytes()
    for data in (b"", b"no archive", whole[: len(whole) // 2], whole[:200] + b"!" + whole[201:]):
        archive.write_bytes(data)
        refused(url, tmp_path)
    archive.write_bytes(gzip.compress(bytes(11 * 10**6), 1))  # ends a tar at once, and goes on
    refused(url, tmp_path, bounds=Bounds(unpacked=10**7))
    with tarfile.open(archive, "w:gz") as tar:
        add(tar, "huge", bytes(10**7))
        add_dogs(tar)
    refused(url, tmp_path, "unpacks to more", Bounds(unpacked=10**6))
    archive.write_bytes(whole)
    refused(url, tmp_path, "larger than", Bounds(packed=1000))


@pytest.mark.thorough
def test_make_dogs_runs_the_four_scripts_and_says_that_they_are_imagenet_photos(
    serve, drawn_photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole command, on drawn dogs in the archive's clothes."""

    def dressed(tar: tarfile.TarFile) -> None:
        first = next(iter(BREEDS))
        for wnid, breed in zip(BREEDS, sorted(drawn_photos.iterdir()), strict=True):
            for i, photo in enumerate(sorted(breed.iterdir())[: 3 if wnid == first else 2]):
                part = "train" if i < 2 else "val"
                add(tar, f"imagewoof2-160/{part}/{wnid}/{wnid}_{i}.JPEG", photo.read_bytes())

    for script in ("extract_features.py", "train_head.py", "evaluate.py", "predict.py"):
        (tmp_path / script).symlink_to(ROOT / script)
    env = {"https_proxy": "http://127.0.0.1:9", "HTTPS_PROXY": "http://127.0.0.1:9"}
    result = run_script("-m breeds.sample.demo", "--dogs", "--url", serve(dressed), cwd=tmp_path, env=env)
    assert result.returncode == 0, result.stderr
    assert "ImageNet photos" in result.stdout and "optimistic" in result.stdout
    assert len((tmp_path / "dogs/photos-random.csv").read_text().splitlines()) == 2


@pytest.mark.slow
def test_without_a_network_it_is_one_sentence(tmp_path: Path) -> None:
    url = "http://127.0.0.1:9/dogs.tgz"  # nobody listens there
    result = run_script("-m breeds.sample.demo", "--dogs", "--url", url, cwd=tmp_path)
    assert_refused(result, url, "make demo DATA=photos/")
    assert list(tmp_path.iterdir()) == []

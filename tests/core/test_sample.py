"""The drawn sample: the same bytes everywhere, whole breeds, and a holiday apart from the training."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from conftest import run_script
from PIL import Image

from breeds.photos import find_photos
from breeds.sample import write_holiday, write_samples
from breeds.sample.drawing import BREEDS
from breeds.selection import Selection


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample as a process of its own draws it."""
    folder = tmp_path_factory.mktemp("elsewhere")
    command = ("-m breeds.sample", folder / "sample", "--per-breed", 1)
    done = run_script(*command, cwd=folder, env={"PYTHONHASHSEED": "77"})
    assert done.returncode == 0, done.stderr
    assert "10 photos of 10 drawn breeds" in done.stdout
    return folder / "sample"


@pytest.mark.slow
def test_another_process_draws_the_same_bytes(elsewhere: Path, drawn_photos: Path, tmp_path: Path) -> None:
    here = digests(drawn_photos)
    assert digests(elsewhere / "photos") == {name: here[name] for name in here if name.endswith("/01.jpg")}
    write_holiday(tmp_path, count=3)
    there = digests(elsewhere / "holiday")
    assert digests(tmp_path) == {name: there[name] for name in sorted(there)[:3]}


def test_the_sample_is_a_folder_for_each_of_ten_breeds(drawn_photos: Path) -> None:
    photos = find_photos(Selection(drawn_photos)).photos
    assert len({photo.label for photo in photos}) == len({breed.name for breed in BREEDS}) == 10
    assert len(photos) == 60
    for photo in photos:
        with Image.open(photo.path) as image:
            assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (400, 300))


@pytest.mark.slow
def test_every_photo_differs_and_the_holiday_is_new(elsewhere: Path, drawn_photos: Path) -> None:
    training, holiday = digests(drawn_photos), digests(elsewhere / "holiday")
    assert sorted(holiday) == [f"holiday_{k:02d}.jpg" for k in range(1, 13)]
    together = [*training.values(), *holiday.values()]
    assert len(set(together)) == len(together) == 72
    assert {photo.label for photo in find_photos(Selection(elsewhere / "holiday")).photos} == {""}


@pytest.mark.slow
def test_what_is_there_is_kept_and_only_the_rest_drawn(elsewhere: Path, tmp_path: Path) -> None:
    before = digests(elsewhere / "photos")
    kept = tmp_path / BREEDS[0].name / "01.jpg"
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"mine")
    assert write_samples(tmp_path, per_breed=1) == 10
    assert kept.read_bytes() == b"mine"
    kept.write_bytes((elsewhere / "photos" / kept.relative_to(tmp_path)).read_bytes())
    assert digests(tmp_path) == before, "the others are the usual ones, and nothing else is left behind"


@pytest.mark.slow
def test_another_seed_draws_other_photos(elsewhere: Path, tmp_path: Path) -> None:
    write_holiday(tmp_path, count=2, seed=1)
    assert not set(digests(tmp_path).values()) & set(digests(elsewhere / "holiday").values())

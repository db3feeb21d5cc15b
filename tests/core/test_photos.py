"""Finding photos and decoding them: real files in, and what Keras and numpy say of them."""

from __future__ import annotations

import functools
import hashlib
import io
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import SHARED, needs_shared
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from breeds.errors import BreedsError, PhotoError
from breeds.photos import (
    Listing,
    decode,
    find_photos,
    key_of,
    limits,
    look,
    memory,
    parse_views,
    photo_at,
    picture,
)
from breeds.selection import Selection

# Pillow warns of the damage that these tests do.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")

# Blocks of 16 pixels, asymmetrical in every direction: flat inside, so that JPEG keeps them well.
BLOCKS = np.random.default_rng(5).integers(0, 256, (6, 8, 3)).astype(np.uint8)
PICTURE = Image.fromarray(BLOCKS.repeat(16, axis=0).repeat(16, axis=1))
FORMATS = ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "MPO"]


def encoded(image: Image.Image, form: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


JPEG = encoded(PICTURE, "JPEG")


def put(folder: Path, *names: str, data: bytes = JPEG) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def found(listing: Listing) -> dict[str, tuple[str, str]]:
    return {photo.name: (photo.label, photo.split) for photo in listing.photos}


# --- finding ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "expected",
    [
        pytest.param({"pug/a.jpg": ("pug", ""), "beagle/a.JPEG": ("beagle", "")}, id="folder per class"),
        pytest.param(
            {
                "n02085620-Chihuahua/a.jpg": ("Chihuahua", ""),
                "n02088094-Afghan_hound/a.jpg": ("Afghan_hound", ""),
            },
            id="wnid prefix",
        ),
        pytest.param(
            {"n02085620-/a.jpg": ("n02085620-", ""), "n0208-pug/a.jpg": ("n0208-pug", "")},
            id="no wnid prefix",
        ),
        pytest.param(
            {"Images/n02085620-Chihuahua/a.jpg": ("Chihuahua", ""), "Images/pug/a.jpg": ("pug", "")},
            id="one folder around all classes",
        ),
        pytest.param(
            {"dogs/Images/pug/a.jpg": ("pug", ""), "dogs/Images/beagle/a.jpg": ("beagle", "")},
            id="two folders around all classes",
        ),
        pytest.param({"Images/pug/a.jpg": ("pug", ""), "Images/pug/b.jpg": ("pug", "")}, id="one class"),
        pytest.param(
            {
                "train/pug/a.jpg": ("pug", "train"),
                "test/n02085620-pug/a.jpg": ("pug", "test"),
                "val/beagle/a.jpg": ("beagle", "val"),
            },
            id="parts of the split",
        ),
        pytest.param(
            {"d/train/pug/a.jpg": ("pug", "train"), "d/valid/pug/b.jpg": ("pug", "val")},
            id="parts inside one folder, valid for val",
        ),
        pytest.param(
            {"train/pug/a.jpg": ("pug", "train"), "validation/pug/b.jpg": ("pug", "val")},
            id="validation for val",
        ),
        pytest.param(
            {"test/a.jpg": ("test", ""), "pug/a.jpg": ("pug", "")}, id="a class called test beside another"
        ),
        pytest.param(
            {"pug/young/a.jpg": ("pug", ""), "beagle/old/grey/a.jpg": ("beagle", "")},
            id="folders inside classes",
        ),
        pytest.param({"a.jpg": ("", ""), "b.png": ("", "")}, id="flat"),
        pytest.param({"pug/a.jpg": ("pug", ""), "stray.jpg": ("", "")}, id="a stray photo has no label"),
    ],
)
def test_folders_give_labels_and_parts(tmp_path: Path, expected: dict[str, tuple[str, str]]) -> None:
    put(tmp_path, *expected)
    listing = find_photos(Selection(tmp_path))
    assert found(listing) == expected
    assert listing.ignored == 0
    assert all(photo.read() == JPEG for photo in listing.photos)


def test_photos_come_sorted_by_path_whatever_made_first(tmp_path: Path) -> None:
    put(tmp_path, "pug/b.jpg", "pug/a.jpg", "pug/10.jpg", "Beagle/z.jpg", "pug/é.jpg", "pug.jpg")
    paths = [photo.name for photo in find_photos(Selection(tmp_path)).photos]
    assert paths == ["Beagle/z.jpg", "pug.jpg", "pug/10.jpg", "pug/a.jpg", "pug/b.jpg", "pug/é.jpg"]


def test_hidden_files_and_other_files_are_counted_and_passed_over(tmp_path: Path) -> None:
    put(tmp_path, "pug/a.jpg", "pug/._a.jpg", ".hidden.jpg", ".git/b.jpg")
    put(tmp_path, "pug/notes.txt", "pug/README", ".DS_Store", data=b"not a photo")
    listing = find_photos(Selection(tmp_path))
    assert list(found(listing)) == ["pug/a.jpg"]
    assert listing.ignored == 5  # what is inside .git is not even looked at


@pytest.mark.parametrize("form", FORMATS)
def test_a_photo_without_extension_is_found_by_its_content(tmp_path: Path, form: str) -> None:
    put(tmp_path, "pug/0001", "pug/a.jpg.dat", data=encoded(PICTURE, form))
    put(tmp_path, "pug/0002", data=b"RIFF....WAVEfmt ")
    listing = find_photos(Selection(tmp_path))
    assert list(found(listing)) == ["pug/0001", "pug/a.jpg.dat"]
    assert listing.ignored == 1


def test_a_text_that_begins_like_a_bitmap_is_none(tmp_path: Path) -> None:
    put(tmp_path, "pug/photo", data=encoded(PICTURE, "BMP"))
    put(tmp_path, "pug/notes", data=b"BMW drivers and their dogs, a field study")
    put(tmp_path, "pug/zeros", data=b"BM" + bytes(30))
    put(tmp_path, "pug/short", data=b"BM")
    listing = find_photos(Selection(tmp_path))
    assert list(found(listing)) == ["pug/photo"]
    assert listing.ignored == 3


def test_what_is_named_like_a_photo_is_listed_so_that_it_can_be_set_aside(tmp_path: Path) -> None:
    put(tmp_path, "pug/text.jpg", "pug/empty.png", data=b"")
    (tmp_path / "pug/gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    assert list(found(find_photos(Selection(tmp_path)))) == ["pug/empty.png", "pug/gone.jpg", "pug/text.jpg"]


def test_a_pipe_in_the_folder_does_not_block(tmp_path: Path) -> None:
    put(tmp_path, "a.jpg")
    os.mkfifo(tmp_path / "pipe")
    listing = find_photos(Selection(tmp_path))
    assert (list(found(listing)), listing.ignored) == (["a.jpg"], 1)


def test_links_to_folders_are_followed_once_and_loops_end(tmp_path: Path) -> None:
    put(tmp_path, "data/pug/a.jpg", "elsewhere/b.jpg")
    data = tmp_path / "data"
    (data / "pug/loop").symlink_to(data)
    (data / "pug/self").symlink_to(data / "pug/self")
    (data / "beagle").symlink_to(tmp_path / "elsewhere")
    (data / "again").symlink_to(tmp_path / "elsewhere")
    photos = found(find_photos(Selection(data)))
    assert len(photos) == 2
    assert photos["pug/a.jpg"] == ("pug", "")


@pytest.mark.parametrize(
    ("top", "kept"), [(1, {"b"}), (2, {"b", "a"}), (3, {"a", "b", "c"}), (99, {"a", "b", "c", "d"})]
)
def test_top_keeps_the_largest_classes_ties_by_name(tmp_path: Path, top: int, kept: set[str]) -> None:
    put(tmp_path, "stray.jpg", "d/1.jpg", "c/1.jpg", "c/2.jpg", "n02085620-a/1.jpg", "n02085620-a/2.jpg")
    put(tmp_path, "b/1.jpg", "b/2.jpg", "b/3.jpg")
    assert {label for label, _ in found(find_photos(Selection(tmp_path, top=top))).values()} == kept


def test_classes_keeps_those_named(tmp_path: Path) -> None:
    put(tmp_path, "a/1.jpg", "n02085620-b/1.jpg", "c/1.jpg")
    photos = found(find_photos(Selection(tmp_path, classes=["b", "c"])))
    assert photos == {"c/1.jpg": ("c", ""), "n02085620-b/1.jpg": ("b", "")}


def test_an_unknown_class_is_refused_with_those_there_are(tmp_path: Path) -> None:
    put(tmp_path, "pug/1.jpg", "beagle/1.jpg")
    with pytest.raises(BreedsError, match=r"poodle.*beagle, pug"):
        find_photos(Selection(tmp_path, classes=["pug", "poodle"]))


@pytest.mark.parametrize("choice", [{"top": 3}, {"classes": []}])
def test_choosing_among_classes_without_any_is_refused(tmp_path: Path, choice: dict[str, object]) -> None:
    put(tmp_path, "a.jpg")
    with pytest.raises(BreedsError, match="no labels"):
        find_photos(Selection(tmp_path, **choice))


def test_no_such_folder_an_empty_one_and_one_without_photos(tmp_path: Path) -> None:
    with pytest.raises(BreedsError, match=r"No such folder.*nowhere"):
        find_photos(Selection(tmp_path / "nowhere"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(BreedsError, match=r"No photos in .*empty;"):
        find_photos(Selection(tmp_path / "empty"))
    put(tmp_path / "texts", "a.txt", "pug/b.doc", data=b"words")
    with pytest.raises(BreedsError, match=r"No photos in .*texts \(2 other files\)"):
        find_photos(Selection(tmp_path / "texts"))
    with pytest.raises(BreedsError, match=r"a\.txt is a file"):
        find_photos(Selection(tmp_path / "texts/a.txt"))
    with pytest.raises(BreedsError, match=r"No such labels file: .*labels\.csv"):
        find_photos(Selection(tmp_path / "texts", tmp_path / "labels.csv"))


# --- labels in a CSV file --------------------------------------------------------------------


def manifest(folder: Path, text: str | bytes, name: str = "dogs.csv") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("path,label,split\nx/a.jpg,pug,train\nx/b.jpg,beagle,\n", id="plain"),
        pytest.param("\ufeffpath,label,split\r\nx/a.jpg,pug,train\r\nx/b.jpg,beagle,\r\n", id="from Excel"),
        pytest.param('split,label,path,note\ntrain,pug,x/a.jpg,"a, b"\n,beagle,x/b.jpg\n', id="any order"),
        pytest.param(
            " path , label,split\n x/a.jpg , pug, train\n\nx/b.jpg,beagle\n\n", id="spaces, empty lines"
        ),
        pytest.param(
            "path,label,split\nx/a.jpg,n02085620-pug,train\nx/b.jpg,beagle,,,\n", id="wnid, too many cells"
        ),
    ],
)
def test_a_manifest_gives_labels_and_parts(tmp_path: Path, text: str) -> None:
    put(tmp_path, "x/a.jpg", "x/b.jpg", "x/unlisted.jpg")
    listing = find_photos(Selection(manifest(tmp_path, text)))
    assert found(listing) == {"x/a.jpg": ("pug", "train"), "x/b.jpg": ("beagle", "")}
    assert listing.root == str(tmp_path)


def test_a_manifest_may_be_elsewhere_and_name_absolute_paths(tmp_path: Path) -> None:
    put(tmp_path, "photos/a.jpg", "other/b.jpg")
    absolute = str(tmp_path / "other/b.jpg")
    table = manifest(tmp_path, f"path,label\na.jpg,pug\n{absolute},beagle\n")
    listing = find_photos(Selection(tmp_path / "photos", labels=table))
    assert found(listing) == {"a.jpg": ("pug", ""), absolute: ("beagle", "")}
    assert {photo.read() for photo in listing.photos} == {JPEG}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param(
            "file,class\na.jpg,pug\n", r"dogs\.csv has columns class, file;.*path,label", id="columns"
        ),
        pytest.param("", r"columns none", id="empty file"),
        pytest.param("path,label\n", r"No photos in", id="no rows"),
        pytest.param(
            "path,label\na.jpg,pug\n,beagle\n", r"dogs\.csv, row 3: the path is empty", id="empty path"
        ),
        pytest.param(
            "path,label,split\na.jpg,pug,trian\n", r"row 2: split is 'trian'; use one of train", id="split"
        ),
        pytest.param("path,label\na.jpg,pug\na.jpg,beagle\n", r"names a\.jpg more than once", id="twice"),
        pytest.param(
            "path,label\na.jpg,caf\xe9\n".encode("latin-1"), r"Cannot read .*dogs\.csv", id="not UTF-8"
        ),
        pytest.param("path,label\na.jpg,pug\na,pug\n", r"1 of 2 photos .* missing: a\.", id="missing"),
        pytest.param("id,breed\nb,pug\nc,pug\n", r"2 of 2 photos .* missing: b\.jpg", id="all ids missing"),
        pytest.param("path,label\na.jpg,p\0g\n", r"row 2: .* NUL", id="NUL in a label"),
        pytest.param("path,label\n" + "a" * 5000 + ",pug\n", r"1 of 1 photos .* missing", id="endless name"),
    ],
)
def test_a_bad_manifest_is_refused_saying_why(tmp_path: Path, text: str | bytes, words: str) -> None:
    put(tmp_path, "a.jpg")
    with pytest.raises(BreedsError, match=words):
        find_photos(Selection(manifest(tmp_path, text)))


def test_missing_photos_are_counted_and_the_first_five_named(tmp_path: Path) -> None:
    put(tmp_path, "here.jpg")
    rows = "".join(f"gone{i}.jpg,pug\n" for i in range(7))
    with pytest.raises(BreedsError) as refused:
        find_photos(Selection(manifest(tmp_path, f"path,label\nhere.jpg,pug\n{rows}")))
    assert "7 of 8 photos" in str(refused.value)
    assert "gone0.jpg, gone1.jpg, gone2.jpg, gone3.jpg, gone4.jpg." in str(refused.value)
    assert "gone5" not in str(refused.value)


@pytest.mark.parametrize("folder", ["train", ""])
def test_kaggles_layout_needs_no_option(tmp_path: Path, folder: str) -> None:
    put(tmp_path / folder, "0a.jpg", "0b.jpg", "unlisted.jpg")
    manifest(tmp_path, "id,breed\n0a,pug\n0b,shih-tzu\n", "labels.csv")
    prefix = f"{folder}/" if folder else ""
    expected = {f"{prefix}0a.jpg": ("pug", ""), f"{prefix}0b.jpg": ("shih-tzu", "")}
    assert found(find_photos(Selection(tmp_path))) == expected
    assert found(find_photos(Selection(tmp_path, labels=tmp_path / "labels.csv"))) == expected


@needs_shared
def test_kaggles_own_files(tmp_path: Path) -> None:
    folder = SHARED / "data/kaggle300"
    frame = pd.read_csv(folder / "labels.csv")
    frame = frame[[(folder / f"train/{i}.jpg").is_file() for i in frame["id"]]]
    frame.to_csv(tmp_path / "labels.csv", index=False)
    expected = {f"train/{i}.jpg": (breed, "") for i, breed in zip(frame["id"], frame["breed"], strict=True)}
    assert len(expected) > 30
    assert found(find_photos(Selection(folder, tmp_path / "labels.csv"))) == expected
    largest = frame["breed"].value_counts().sort_index().sort_values(ascending=False, kind="stable")[:5]
    top = find_photos(Selection(folder, tmp_path / "labels.csv", top=5))
    assert {photo.label for photo in top.photos} == set(largest.index)
    assert len(top.photos) == largest.sum()


# --- reading ---------------------------------------------------------------------------------


def test_a_photo_is_read_whole_and_its_key_is_its_sha256(tmp_path: Path) -> None:
    put(tmp_path, "a.jpg")
    assert photo_at("", str(tmp_path / "a.jpg")).read() == JPEG
    assert key_of(JPEG) == hashlib.sha256((tmp_path / "a.jpg").read_bytes()).hexdigest()


def test_what_cannot_be_read_is_a_reason_not_a_crash(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    put(tmp_path, "empty.jpg", data=b"")
    put(tmp_path, "huge.jpg")
    os.truncate(tmp_path / "huge.jpg", 101 * 2**20)  # sparse: takes no room
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for path, reason in {
        tmp_path: "not a regular file",
        tmp_path / "pipe": "not a regular file",
        "/dev/zero": "not a regular file",
        tmp_path / "empty.jpg": "empty file",
        tmp_path / "huge.jpg": "101 MiB is over the limit of 100 MiB",
        tmp_path / "nowhere.jpg": "no such file",
        tmp_path / "loop": "cannot be read",
        tmp_path / "empty.jpg/a.jpg": "cannot be read",
        "a\0b": "cannot be read",
        "a" * 5000: "cannot be read",
    }.items():
        with pytest.raises(PhotoError, match=reason):
            photo_at("", str(path)).read()


# --- decoding: equal to Keras ----------------------------------------------------------------


@pytest.fixture(scope="module")
def load_img():
    """Keras's own loader, with the target size and interpolation of the design."""
    import keras

    return functools.partial(keras.utils.load_img, target_size=(299, 299), interpolation="bilinear")


@needs_shared
@pytest.mark.parametrize(("resize", "keep"), [("stretch", False), ("crop", True)])
def test_real_photos_equal_keras(load_img, resize: str, keep: bool) -> None:
    photos = sorted((SHARED / "data/fullsize").rglob("*.jpg"))[::6]
    assert len(photos) == 25
    for photo in photos:
        expected = np.asarray(load_img(photo, keep_aspect_ratio=keep))
        np.testing.assert_array_equal(decode(photo.read_bytes(), 299, resize), expected, err_msg=photo.name)


@pytest.mark.parametrize(("resize", "keep"), [("stretch", False), ("crop", True)])
def test_drawn_photos_equal_keras(load_img, drawn_photos: Path, resize: str, keep: bool) -> None:
    photos = sorted(drawn_photos.glob("*/01.jpg"))
    assert len(photos) == 10
    for photo in photos:
        expected = np.asarray(load_img(photo, keep_aspect_ratio=keep))
        np.testing.assert_array_equal(decode(photo.read_bytes(), 299, resize), expected, err_msg=photo.name)


@pytest.mark.parametrize("size", [(500, 375), (375, 500), (1, 1), (3, 900), (900, 3), (299, 299), (300, 299)])
@pytest.mark.parametrize(("resize", "keep"), [("stretch", False), ("crop", True)])
def test_any_shape_equals_keras(
    load_img, tmp_path: Path, size: tuple[int, int], resize: str, keep: bool
) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (size[1], size[0], 3)).astype(np.uint8)
    put(tmp_path, "a.png", data=encoded(Image.fromarray(noise)))
    expected = np.asarray(load_img(tmp_path / "a.png", keep_aspect_ratio=keep))
    np.testing.assert_array_equal(decode((tmp_path / "a.png").read_bytes(), 299, resize), expected)


OPAQUE = "CMYK JPEG, CMYK TIFF, L JPEG, L PNG, P PNG, P GIF, P BMP, 1 PNG, 1 TIFF, RGB WEBP, RGB BMP, RGB MPO"


@pytest.mark.parametrize(("mode", "form"), [pair.split() for pair in OPAQUE.split(", ")])
def test_every_opaque_mode_equals_keras(load_img, tmp_path: Path, mode: str, form: str) -> None:
    put(tmp_path, "a", data=encoded(PICTURE.convert(mode), form))
    with Image.open(tmp_path / "a") as image:
        assert image.mode == mode
    np.testing.assert_array_equal(
        decode((tmp_path / "a").read_bytes(), 299), np.asarray(load_img(tmp_path / "a"))
    )


def test_cmyk_keeps_its_colours() -> None:
    pixels = decode(encoded(PICTURE.convert("CMYK"), "JPEG", quality=100), 96, "crop")
    expected = np.asarray(PICTURE)[:, 16:112]
    assert np.abs(pixels.astype(int) - expected).max() < 8


# --- decoding: shapes ------------------------------------------------------------------------


@pytest.mark.parametrize("resize", ["stretch", "crop", "pad"])
def test_a_photo_of_the_right_size_keeps_every_pixel(resize: str) -> None:
    square = np.random.default_rng(2).integers(0, 256, (32, 32, 3)).astype(np.uint8)
    pixels = decode(encoded(Image.fromarray(square)), 32, resize)
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, square)


@pytest.mark.parametrize("wide", [True, False])
def test_pad_keeps_the_shape_and_adds_grey_bars(wide: bool) -> None:
    red = Image.new("RGB", (400, 200) if wide else (200, 400), (255, 0, 0))
    pixels = decode(encoded(red), 64, "pad")
    pixels = pixels if wide else pixels.transpose(1, 0, 2)
    assert (pixels[:16] == 128).all()
    assert (pixels[48:] == 128).all()
    assert (pixels[16:48] == (255, 0, 0)).all()


# --- decoding: orientation -------------------------------------------------------------------

# How the upright pixels lie in the file, by the EXIF standard's own words for each value.
STORED = {
    1: lambda up: up,
    2: np.fliplr,
    3: lambda up: np.rot90(up, 2),
    4: np.flipud,
    5: lambda up: up.transpose(1, 0, 2),
    6: lambda up: np.rot90(up, 1),  # a viewer turns it clockwise
    7: lambda up: np.rot90(up, 2).transpose(1, 0, 2),
    8: lambda up: np.rot90(up, -1),
}


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("resize", ["stretch", "pad"])
@pytest.mark.parametrize(
    ("form", "options"),
    [
        ("JPEG", {"quality": 100, "subsampling": 0}),
        ("PNG", {}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("WEBP", {"lossless": True}),
    ],
)
def test_exif_orientation_is_applied(
    orientation: int, resize: str, form: str, options: dict[str, object]
) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](np.asarray(PICTURE))))
    pixels = decode(encoded(stored, form, exif=exif, **options), 128, resize)
    upright = decode(encoded(PICTURE, form, **options), 128, resize)
    assert np.abs(pixels.astype(int) - upright).max() <= (3 if form == "JPEG" else 0)


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_that_does_not_exist_is_left_alone(orientation: int) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    np.testing.assert_array_equal(decode(encoded(PICTURE, exif=exif), 64), decode(encoded(PICTURE), 64))


def test_damaged_exif_does_not_cost_the_photo() -> None:
    damaged = encoded(PICTURE, "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff garbage")
    np.testing.assert_array_equal(decode(damaged, 64), decode(JPEG, 64))


# --- decoding: modes -------------------------------------------------------------------------


def over_white(colour: tuple[int, ...], alpha: int) -> list[float]:
    return [(c * alpha + 255 * (255 - alpha)) / 255 for c in colour]


@pytest.mark.parametrize("alpha", [0, 1, 128, 254, 255])
@pytest.mark.parametrize(
    ("mode", "form", "options"),
    [
        ("RGBA", "PNG", {}),
        ("RGBA", "WEBP", {"lossless": True, "exact": True}),
        ("RGBA", "TIFF", {}),
        ("LA", "PNG", {}),
    ],
)
def test_transparency_lies_over_white(mode: str, form: str, options: dict[str, object], alpha: int) -> None:
    colour = (200, 100, 0) if mode == "RGBA" else (90,)
    pixels = decode(encoded(Image.new(mode, (8, 8), (*colour, alpha)), form, **options), 8)
    expected = over_white(colour if mode == "RGBA" else colour * 3, alpha)
    np.testing.assert_allclose(pixels[3, 3], expected, atol=1)


@pytest.mark.parametrize("form", ["PNG", "GIF"])
def test_a_transparent_palette_entry_becomes_white(form: str) -> None:
    image = Image.new("P", (8, 8), 0)
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.paste(1, (4, 0, 8, 8))
    pixels = decode(encoded(image, form, transparency=0), 8)
    assert pixels[0, 0].tolist() == [255, 255, 255]
    assert pixels[0, 7].tolist() == [0, 0, 255]


def test_a_palette_with_degrees_of_transparency() -> None:
    image = Image.new("P", (8, 8), 0)
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.paste(1, (4, 0, 8, 8))
    pixels = decode(encoded(image, transparency=bytes([255, 51])), 8)
    assert pixels[0, 0].tolist() == [255, 0, 0]
    np.testing.assert_allclose(pixels[0, 7], over_white((0, 0, 255), 51), atol=1)


@pytest.mark.parametrize(("mode", "key", "other"), [("RGB", (9, 8, 7), (1, 2, 3)), ("L", 9, 1)])
def test_a_colour_that_stands_for_transparent_becomes_white(mode: str, key: object, other: object) -> None:
    image = Image.new(mode, (8, 8), key)
    image.paste(other, (4, 0, 8, 8))
    pixels = decode(encoded(image, transparency=key), 8)
    assert pixels[0, 0].tolist() == [255, 255, 255]
    assert pixels[0, 7].tolist() == list(other if mode == "RGB" else (1, 1, 1))


@pytest.mark.parametrize("form", ["PNG", "TIFF", "TIFF big-endian"])
def test_16_bit_grey_is_scaled_not_clipped(form: str) -> None:
    levels = np.linspace(0, 65535, 1024).astype(np.uint16).reshape(32, 32)
    image = Image.fromarray(levels)
    if form == "TIFF big-endian":
        image = Image.frombytes("I;16B", (32, 32), levels.astype(">u2").tobytes())
    pixels = decode(encoded(image, form.split()[0]), 32)
    expected = np.rint(levels / 65535 * 255)
    np.testing.assert_array_equal(pixels, np.dstack([expected] * 3))


def test_1_bit_is_black_and_white() -> None:
    board = np.indices((16, 16)).sum(axis=0) % 2 == 0
    pixels = decode(encoded(Image.fromarray(board)), 16)
    np.testing.assert_array_equal(pixels, np.dstack([board * 255] * 3))


@pytest.mark.parametrize("form", ["GIF", "WEBP", "PNG", "TIFF", "MPO"])
def test_the_first_of_several_pictures_counts(form: str) -> None:
    frames = [Image.new("RGB", (32, 32), colour) for colour in ("red", "blue", "lime")]
    data = encoded(frames[0], form, save_all=True, append_images=frames[1:])
    with Image.open(io.BytesIO(data)) as image:
        assert image.n_frames == 3
    np.testing.assert_allclose(decode(data, 8)[4, 4], (255, 0, 0), atol=2)


# --- decoding: what is refused ---------------------------------------------------------------


@pytest.mark.parametrize(
    "image",
    [
        pytest.param(Image.fromarray(np.full((8, 8), 0.5, dtype=np.float32)), id="float"),
        pytest.param(Image.fromarray(np.full((8, 8), 70000, dtype=np.int32)), id="32 bits"),
        pytest.param(Image.fromarray(np.full((8, 8), -1, dtype=np.int32)), id="negative"),
    ],
)
def test_pixels_without_a_defined_white_are_refused(image: Image.Image) -> None:
    with pytest.raises(PhotoError, match="no defined white"):
        decode(encoded(image, "TIFF"), 8)


@pytest.mark.parametrize(
    ("form", "options"),
    [
        ("JPEG", {}),
        ("JPEG", {"progressive": True}),
        ("PNG", {}),
        ("WEBP", {}),
        ("GIF", {}),
        ("BMP", {}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("TIFF", {"compression": "tiff_adobe_deflate"}),
    ],
)
@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.9])
def test_truncated_photos_are_refused(form: str, options: dict[str, object], share: float) -> None:
    noise = np.random.default_rng(3).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    data = encoded(Image.fromarray(noise), form, **options)
    assert decode(data, 16).shape == (16, 16, 3)
    with pytest.raises(PhotoError, match=r"\w"):
        decode(data[: int(len(data) * share)], 16)


@pytest.mark.parametrize("form", ["PPM", "ICO", "TGA", "SGI", "JPEG2000", "PDF", "EPS", "DDS"])
def test_formats_that_are_not_on_the_list_are_refused(form: str) -> None:
    with pytest.raises(PhotoError):
        decode(encoded(PICTURE.resize((32, 32)), form), 8)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0",
        b"hello",
        b"<svg/>",
        b"\xff\xd8\xff",
        b"\x89PNG\r\n\x1a\n",
        b"GIF89a",
        b"II*\0",
        b"BM",
        JPEG[2:],
    ],
)
def test_what_is_no_photo_is_refused(data: bytes) -> None:
    with pytest.raises(PhotoError, match=r"\w"):
        decode(data, 8)


def claims_30000_squared(form: str) -> bytes:
    """A tiny file whose header promises 900 megapixels."""
    data = bytearray(encoded(PICTURE.resize((8, 8)), form))
    if form == "PNG":
        data[16:24] = struct.pack(">II", 30000, 30000)
        data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    elif form == "BMP":
        data[18:26] = struct.pack("<ii", 30000, 30000)
    elif form == "GIF":
        data[6:10] = struct.pack("<HH", 30000, 30000)
    else:
        start = data.index(b"\xff\xc0") + 5
        data[start : start + 4] = struct.pack(">HH", 30000, 30000)
    return bytes(data)


@pytest.mark.parametrize("form", ["PNG", "BMP", "GIF", "JPEG"])
def test_a_photo_that_claims_too_many_pixels_is_refused_by_its_header(form: str) -> None:
    with pytest.raises(PhotoError, match="30000×30000 is over the limit of 128 megapixels"):
        decode(claims_30000_squared(form), 299)


@pytest.mark.parametrize(("limit", "fits"), [(128 * 96, True), (128 * 96 - 1, False)])
def test_the_pixel_limit_is_exact(monkeypatch: pytest.MonkeyPatch, limit: int, fits: bool) -> None:
    monkeypatch.setattr(sys.modules["breeds.photos.decode"], "MAX_PIXELS", limit)
    if fits:
        assert decode(JPEG, 8).shape == (8, 8, 3)
    else:
        with pytest.raises(PhotoError, match="over the limit"):
            decode(JPEG, 8)


# --- decoding: memory, and what it leaves alone ------------------------------------------------


def png16(side: int, *chunks: tuple[bytes, bytes]) -> bytes:
    """A tiny PNG of very many 16-bit grey pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 16, 0, 0, 0, 0)
    pixels = zlib.compressobj(9)
    packed = b"".join(pixels.compress(bytes(1 + 2 * side)) for _ in range(side)) + pixels.flush()
    parts = [(b"IHDR", header), *chunks, (b"IDAT", packed), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


_PEAK = """
import sys
from concurrent.futures import ThreadPoolExecutor
from breeds.photos import decode, memory
limit, workers, *paths = sys.argv[1:]
memory.BUDGET.total = int(limit)
photos = [open(path, "rb").read() for path in paths]
decode(photos[0], 8)
def kilobytes(what):  # of this process alone: ru_maxrss starts with its parent's
    return int(open("/proc/self/status").read().split(what)[1].split()[0])
before = kilobytes("VmRSS:")
with ThreadPoolExecutor(int(workers)) as pool:
    list(pool.map(lambda data: decode(data, 299), photos * int(workers)))
print((kilobytes("VmHWM:") - before) * 1024)
"""


def peak_of_decoding(limit: int, workers: int, photo: Path, tmp_path: Path) -> int:
    """Return by how many bytes so many threads that decode `photo` at once let a process grow."""
    put(tmp_path, "small.jpg")
    command = [sys.executable, "-c", _PEAK, limit, workers, tmp_path / "small.jpg", photo]
    # What is freed goes back to the system at once, so that the peak is what was held.
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "MALLOC_MMAP_THRESHOLD_": "65536"}
    return int(
        subprocess.run(list(map(str, command)), env=env, capture_output=True, text=True, check=True).stdout
    )


linux = pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")


@linux
@pytest.mark.parametrize("chunks", [(), ((b"tRNS", b"\0\1"),)], ids=["grey", "one grey level is clear"])
@pytest.mark.slow
def test_16_bits_take_no_more_than_8_bytes_a_pixel(tmp_path: Path, chunks: tuple) -> None:
    put(tmp_path, "bomb.png", data=png16(4000, *chunks))
    assert peak_of_decoding(2**30, 1, tmp_path / "bomb.png", tmp_path) < 8 * 4000**2


@pytest.mark.slow
@linux
def test_all_that_decode_at_once_share_one_budget(tmp_path: Path) -> None:
    put(tmp_path, "bomb.png", data=png16(4000))
    limit = 8 * 4000**2  # one at a time fits
    assert peak_of_decoding(limit, 4, tmp_path / "bomb.png", tmp_path) < limit


def test_a_photo_that_needs_more_than_the_budget_is_refused_by_its_header() -> None:
    """A strip of 4 by 30 million pixels is within the limit of pixels, and resizing it takes 36 GB."""
    strip = bytearray(encoded(PICTURE.resize((8, 8))))
    strip[16:24] = struct.pack(">II", 4, 30_000_000)
    strip[29:33] = struct.pack(">I", zlib.crc32(strip[12:29]))
    with pytest.raises(PhotoError, match=r"decoding takes \d+\.\d GiB of memory, over the limit of 1\.5 GiB"):
        decode(bytes(strip), 299)


def test_the_largest_photos_that_are_allowed_fit_into_the_budget() -> None:
    for mode, options in (("RGB", {"progressive": True, "subsampling": 0}), ("L", {}), ("CMYK", {})):
        data = encoded(PICTURE.convert(mode), "JPEG", **options)
        with Image.open(io.BytesIO(data)) as image:
            image._size = (16_000, 8_000)
            assert (
                memory.bytes_needed(image, limits.contents_of(data), 299, "original", turned=True)
                < memory.DECODE_BYTES
            )


@pytest.mark.parametrize("several", [False, True])
def test_a_jpeg_of_several_scans_is_told_by_its_header(several: bool) -> None:
    """Also where a thumbnail with scans of its own comes first."""
    exif = Image.Exif()
    exif[270] = "\xff\xda\0\1" * 20
    data = encoded(PICTURE, "JPEG", exif=exif, progressive=several)
    with Image.open(io.BytesIO(data)) as image:
        needs = memory.bytes_needed(image, limits.contents_of(data), 8, "original", turned=False)
        more = memory.bytes_needed(image, limits.contents_of(data), 8, "original", turned=True)
    pixels = PICTURE.width * PICTURE.height
    assert more - needs == (0 if several else 4 * pixels)


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "I;16", "I;16B", "I"])
def test_conversion_by_stripes_gives_the_same_pixels(
    mode: str, orientation: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    levels = np.random.default_rng(4).integers(0, 65536, (70, 90))
    grey = Image.fromarray((levels // 256).astype(np.uint8))
    image = Image.merge("RGB", [grey, grey.rotate(90, expand=False), grey.rotate(180)])
    options: dict[str, object] = {}
    if mode in ("LA", "RGBA"):
        image = image.convert(mode)
        image.putalpha(grey)
    elif mode in ("P", "PA"):
        image = image.quantize(64)
        options = {"transparency": bytes(range(0, 256, 4))} if mode == "PA" else {}
    elif mode == "I":
        image = Image.fromarray(levels.astype(np.int32))
    elif mode.startswith("I;16"):
        kind = ">u2" if mode == "I;16B" else "<u2"
        image = Image.frombytes(mode, (90, 70), levels.astype(kind).tobytes())
        options = {"transparency": int(levels[3, 3])} if mode == "I;16" else {}
    else:
        image = image.convert(mode)
        options = {"transparency": image.getpixel((4, 4))} if mode == "RGB" else {}
    exif = Image.Exif()
    exif[274] = orientation
    form = "TIFF" if mode in ("CMYK", "I;16B", "I") else "PNG"
    data = encoded(image, form, exif=exif, **options)
    whole = decode(data, 64)
    monkeypatch.setattr(memory, "STRIPE_PIXELS", 500)
    np.testing.assert_array_equal(decode(data, 64), whole)


def test_importing_photos_changes_nothing_for_others() -> None:
    code = (
        "import warnings, numpy; from PIL import Image; from concurrent import futures\n"
        "before = Image.MAX_IMAGE_PIXELS, list(warnings.filters)\n"
        "import breeds.photos\n"
        "assert before == (Image.MAX_IMAGE_PIXELS, list(warnings.filters)), 'changed'"
    )
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    subprocess.run([sys.executable, "-c", code], env=env, check=True)


def test_pillows_own_limit_is_that_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = decode(JPEG, 64)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    np.testing.assert_array_equal(decode(JPEG, 64), expected)


SEEDS = [encoded(PICTURE.resize((40, 30)), form) for form in FORMATS] + [
    encoded(PICTURE.resize((40, 30)), "JPEG", progressive=True, exif=Image.Exif()),
    encoded(PICTURE.resize((40, 30)).convert("P"), "PNG", transparency=0),
    encoded(PICTURE.resize((40, 30)), "TIFF", compression="tiff_lzw"),
    encoded(PICTURE.resize((40, 30)), "GIF", save_all=True, append_images=[PICTURE.resize((20, 20))]),
]


@settings(max_examples=400, deadline=None, derandomize=True, database=None)
@given(
    data=st.sampled_from(SEEDS),
    edits=st.lists(st.tuples(st.integers(0, 5000), st.binary(min_size=1, max_size=4)), max_size=6),
    early=st.booleans(),
    end=st.integers(0, 5000),
    resize=st.sampled_from(["stretch", "crop", "pad"]),
)
@pytest.mark.slow
def test_damaged_photos_decode_or_are_refused(
    data: bytes, edits: list[tuple[int, bytes]], early: bool, end: int, resize: str
) -> None:
    damaged = bytearray(data)
    for place, value in edits:
        place %= 64 if early else len(data)
        damaged[place : place + len(value)] = value
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys.modules["breeds.photos.decode"], "MAX_PIXELS", 10**6)  # to stay fast
        try:
            pixels = decode(
                bytes(damaged[: len(data) - end % len(data)] if end % 3 == 0 else damaged), 16, resize
            )
        except PhotoError as error:
            assert str(error)
        else:
            assert (pixels.shape, pixels.dtype) == ((16, 16, 3), np.uint8)


def test_kaggles_table_may_name_photos_that_are_not_there(tmp_path: Path) -> None:
    put(tmp_path, "a.jpg")
    listing = find_photos(Selection(manifest(tmp_path, "id,breed\na,pug\nb,pug\n")))
    assert found(listing) == {"a.jpg": ("pug", "")}
    assert listing.missing == 1


@pytest.mark.parametrize(
    ("paths", "wanted"),
    [
        (["Images/a/1.jpg", "Images/b/1.jpg", "cover.jpg"], {"a", "b", ""}),
        (["train/a/1.jpg", "train/b/1.jpg", "test/a/2.jpg", "cover.jpg"], {"a", "b", ""}),
        (["train/a/1.jpg", "train/b/1.jpg", "test/2.jpg"], {"a", "b", ""}),
    ],
)
def test_a_stray_photo_does_not_change_what_the_folders_are(
    tmp_path: Path, paths: list[str], wanted: set[str]
) -> None:
    for path in paths:
        put(tmp_path, path)
    assert {photo.label for photo in find_photos(Selection(tmp_path)).photos} == wanted


def test_views_are_drawn_by_key_and_never_change() -> None:
    rng = np.random.default_rng(0)
    image = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (60, 80, 3), dtype=np.uint8)).save(image, "PNG")
    data = image.getvalue()
    plain = decode(data, 64)
    assert np.array_equal(decode(data, 64, view="flip"), decode(data, 64, view="flip"))
    crops = [decode(data, 64, view=view) for view in parse_views("flip,crops:3")]
    assert len({crop.tobytes() for crop in [plain, *crops]}) == 5
    assert np.array_equal(crops[2], decode(data, 64, view="crop2"))


@pytest.mark.parametrize("text", ["", "flop", "crops", "crops:0", "crops:x", "flip;crops:2", "crops:33"])
def test_views_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(BreedsError, match="names no view"):
        parse_views(text)


# --- pictures to look at ---------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMATS)
def test_a_picture_has_the_photos_shape_and_is_never_enlarged(form: str) -> None:
    photo = encoded(PICTURE, form)
    small, whole = picture(photo, 64), picture(photo, 10_000)
    assert (small.mode, small.size, small.info) == ("RGB", (64, 48), {})
    assert whole.size == PICTURE.size
    wanted = np.asarray(PICTURE.resize((64, 48), Image.Resampling.BICUBIC), dtype=float)
    assert np.abs(np.asarray(small, dtype=float) - wanted).mean() < 12


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_is_upright_and_keeps_nothing_of_the_metadata(orientation: int) -> None:
    exif = Image.Exif()
    exif[274], exif[270] = orientation, "where I live"
    photo = encoded(PICTURE, "JPEG", exif=exif, quality=95)
    shown = picture(photo, 64)
    assert shown.size == ((64, 48) if orientation < 5 else (48, 64))
    wanted = decode(photo, 32).astype(float)
    assert np.abs(np.asarray(shown.resize((32, 32)), dtype=float) - wanted).mean() < 12
    assert b"where I live" not in encoded(shown, "JPEG") + encoded(shown, "PNG")


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF", "MPO"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_look_says_how_large_the_photo_itself_is_upright(form: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    shown, width, height = look(encoded(PICTURE, form, exif=exif), 8)  # so small that JPEG is reduced
    assert (width, height) == (PICTURE.size if orientation < 5 else PICTURE.size[::-1])
    assert shown.size == ((8, 6) if orientation < 5 else (6, 8))


@pytest.mark.parametrize("data", [b"", JPEG[: len(JPEG) // 2], b"GIF89a", claims_30000_squared("PNG")])
def test_a_picture_of_what_is_no_photo_is_refused_as_decode_refuses_it(data: bytes) -> None:
    with pytest.raises(PhotoError) as by_decode:
        decode(data, 32)
    with pytest.raises(PhotoError) as by_picture:
        picture(data, 32)
    assert str(by_picture.value) == str(by_decode.value)

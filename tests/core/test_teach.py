"""Teaching: new files that are whole and replace nothing, extracted at once, and said one by one."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
from conftest import ROOT, extract_photos
from killed import BEFORE_FORKS, COUNTED, ONE_THREAD
from PIL import Image

from breeds import review
from breeds.errors import BreedsError
from breeds.features import Store, lock_file
from breeds.features.corrections import Correction, Corrections, add, corrections_path
from breeds.files import hold
from breeds.outputs import view_store
from breeds.photos import find_photos, key_of
from breeds.review import Taught, train_again
from breeds.review.folder import check_label, photo_name
from breeds.selection import EXTENSIONS, Selection
from breeds.training import train

DOGS = tuple[Path, Path, list[tuple[str, bytes]]]


class StandIn:
    """In the network's place: quick, and another feature for every photo."""

    name = "stand-in"

    def stream(self, pixels: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
        for photo in pixels:
            yield np.resize(np.float32(photo[::3, ::3]), 2048) / 3


teach = partial(review.teach, engine=StandIn())


@pytest.fixture
def dogs(photos: Path, drawn_photos: Path, tmp_path: Path) -> DOGS:
    """A folder of three breeds, its store, and three photos that are not in it."""
    store = tmp_path / "features" / "photos.h5"
    extract_photos(photos, store, size=96, engine=StandIn())
    more = sorted(sorted(drawn_photos.iterdir())[3].iterdir())[:3]
    return photos, store, [(f"new {path.name}", path.read_bytes()) for path in more]


def contents(folder: Path) -> dict[str, bytes]:
    """All that is in a folder, hidden or not."""
    return {
        os.path.relpath(os.path.join(here, name), folder): Path(here, name).read_bytes()
        for here, _, names in os.walk(folder)
        for name in names
    }


def assert_taught(found: Taught, store: Path, photos: list[tuple[str, bytes]]) -> None:
    """Assert that these photos, and no others, are in the store under the label, as what they are."""
    opened = Store(store)
    assert [photo.name for photo in found.written] == [name for name, _ in photos]
    for photo, (_, data) in zip(found.written, photos, strict=True):
        row = list(opened.table.path).index(photo.path)
        assert photo.key == opened.table.key[row] == key_of(data)
        assert opened.table.label[row] == found.label
        assert Path(opened.table.root, photo.path).read_bytes() == data


def test_photos_go_into_a_class_or_a_new_one(dogs: DOGS) -> None:
    folder, path, new = dogs
    before = contents(folder)
    known = Store(path).table.label.names[0]
    found = teach(Store(path), known, new[:1])
    assert not found.is_new
    assert_taught(found, path, new[:1])
    found = teach(Store(path), "Great Dane", new[1:])
    assert found.is_new
    assert_taught(found, path, new[1:])
    assert found.others == 0
    assert found.photos == 2
    after = contents(folder)
    assert before.items() <= after.items()
    assert after.keys() - before.keys() == {
        f"{known}/{new[0][0]}", f"Great Dane/{new[1][0]}", f"Great Dane/{new[2][0]}"
    }  # fmt: skip
    umask = os.umask(0)
    os.umask(umask)
    written = folder / "Great Dane" / new[1][0]
    assert stat.S_IMODE(written.stat().st_mode) == 0o666 & ~umask
    assert written.stat().st_nlink == 1
    assert len(Store(path).table) == 15


def test_inputs_are_written_and_refused_each_with_its_reason(dogs: DOGS) -> None:
    folder, path, new = dogs
    store = Store(path)
    there = Path(folder, store.table.path[0])
    add(corrections_path(path), [Correction(key_of(new[2][1]), "")])
    given = [
        *new,
        ("no.jpg", b"<html>"),
        ("empty.jpg", b""),
        ("again.jpg", new[0][1]),
        ("known.jpg", there.read_bytes()),
    ]
    found = teach(store, "husky", given)
    assert found.photos == len(given) == len(found.written) + len(found.refused)
    assert_taught(found, path, new[:2])
    reasons = {photo.name: photo.reason for photo in found.refused}
    assert list(reasons) == [new[2][0], "no.jpg", "empty.jpg", "again.jpg", "known.jpg"]
    assert reasons[new[2][0]] == "a correction leaves it out"
    assert "not a photo" in reasons["no.jpg"]
    assert "empty file" in reasons["empty.jpg"]
    assert reasons["again.jpg"] == f"it is the same photo as {new[0][0]}"
    assert store.table.path[0] in reasons["known.jpg"]
    assert sorted(os.listdir(folder / "husky")) == sorted(name for name, _ in new[:2])
    nothing = teach(Store(path), "spitz", given[3:5])
    assert (nothing.written, len(nothing.refused)) == ([], 2)
    assert not (folder / "spitz").exists()


def test_nothing_that_is_there_is_ever_replaced(dogs: DOGS) -> None:
    folder, path, new = dogs
    known = Store(path).table.label.names[0]
    taken = next(name for name in os.listdir(folder / known))
    before = contents(folder)
    (folder / known / "dangling.jpg").symlink_to(folder.parent / "elsewhere.jpg")
    found = teach(Store(path), known, [(taken, new[0][1]), ("dangling.jpg", new[1][1])])
    assert_taught(found, path, [(taken, new[0][1]), ("dangling.jpg", new[1][1])])
    (folder / known / "dangling.jpg").unlink()
    assert before.items() <= contents(folder).items()
    assert not (folder.parent / "elsewhere.jpg").exists()
    assert [os.path.basename(photo.path) for photo in found.written] == [
        f"{Path(taken).stem}-{key_of(new[0][1])[:8]}{Path(taken).suffix}",
        f"dangling-{key_of(new[1][1])[:8]}.jpg",
    ]


# Names

NAMES = [
    "../../../etc/cron.d/x.jpg",
    "..\\..\\x.jpg", "/etc/passwd", "C:\\x.png", ".bashrc", "..", ".", "", "/", "a/",
    "con.jpg", "NUL", "a\0b.jpg", "a\nb.jpg", "\u202egpj.exe", "-rf.jpg", "x" * 5000 + ".jpg",
    "\N{DOG FACE}" * 200 + ".png", "caf\udce9.jpg", "x.jpg/", "a.php.jpg", "x.JPEG",
    "x.exe", "~", "$(id).jpg",
    "'; drop.jpg", "<img>.png", "\N{LATIN SMALL LETTER E WITH ACUTE}" * 300, "a:b.jpg", "labels.csv",
]  # fmt: skip


@hypothesis.given(
    st.one_of(st.text(), st.text(alphabet="./\\:\0\n aA-\udce9\N{DOG FACE}"), st.sampled_from(NAMES))
)
def test_whatever_a_photo_is_called_its_name_is_one_of_a_file(name: str) -> None:
    found = photo_name(name)
    assert found
    assert found.isprintable()
    assert not set(found) & set('/\\:*?"<>|\0')
    assert found[0] not in ".- "
    assert found == found.strip()
    assert "." not in found or os.path.splitext(found)[1].lower() in EXTENSIONS
    assert len(found.encode()) <= 110
    assert found.split(".")[0].casefold() not in ("con", "nul", "aux", "prn", "com1", "lpt1")
    assert photo_name(found) == found


def test_hostile_names_of_photos_are_files_in_the_class(dogs: DOGS, drawn_photos: Path) -> None:
    folder, path, _ = dogs
    known = set(Store(path).table.key)
    data = [photo.read_bytes() for photo in sorted(drawn_photos.rglob("*.*"))]
    data = [one for one in data if key_of(one) not in known][: len(NAMES)]
    given = list(zip(NAMES, data, strict=True))
    found = teach(Store(path), "husky", given)
    assert found.refused == []
    assert_taught(found, path, given)
    assert {os.path.dirname(photo.path) for photo in found.written} == {"husky"}
    assert len(os.listdir(folder / "husky")) == len(NAMES)


LABELS = [
    "", "..", ".", ".git", "a/b", "/etc", "a\\b", "a\0", "a\nb", "\x1b[2J", " husky", "husky ", "Unknown",
    "x" * 300, "caf\udce9", "nul", "CON.x", "a:b", "a*", "husky.", "n02110185-husky",
]  # fmt: skip


@pytest.mark.parametrize("label", LABELS)
def test_what_cannot_be_a_folder_is_refused_before_anything_is_written(dogs: DOGS, label: str) -> None:
    folder, path, new = dogs
    before = contents(folder.parent)
    with pytest.raises(BreedsError, match="choose another name"):
        teach(Store(path), label, new)
    assert contents(folder.parent) == before


def test_another_spelling_of_a_class_is_refused(dogs: DOGS) -> None:
    folder, path, new = dogs
    add(corrections_path(path), [Correction(Store(path).table.key[0], "Shih Tzu")])
    teach(Store(path), "German Shepherd", new[:1])
    before = contents(folder)
    for label in ("german shepherd", "German_Shepherd", "GERMAN-SHEPHERD", "shih-tzu"):
        with pytest.raises(BreedsError, match="another spelling"):
            teach(Store(path), label, new[1:])
    (folder / "Whippet").mkdir()
    with pytest.raises(BreedsError, match="Whippet"):
        teach(Store(path), "whippet", new[1:])
    assert contents(folder) == before
    check_label("Whippet", ["whippets", "German Shepherd"])


# Folders


@pytest.mark.parametrize(
    ("layout", "class_folder", "base"),
    [
        ("{wnid}-{name}", "n02110000-{name}", ""),
        ("Images/{name}", "Images/{name}", "Images/"),
        ("train/{name}", "train/{name}", "train/"),
    ],
)
def test_photos_go_where_those_of_the_class_are(
    dogs: DOGS, tmp_path: Path, layout: str, class_folder: str, base: str
) -> None:
    photos, _, new = dogs
    folder, path = tmp_path / "data", tmp_path / "features" / "d.h5"
    names = sorted(os.listdir(photos))
    for name in names:
        shutil.copytree(photos / name, folder / layout.format(wnid="n02110000", name=name))
    if layout.startswith("train"):
        (folder / "test" / names[0]).mkdir(parents=True)
        photo = next((folder / "train" / names[0]).iterdir())
        photo.rename(folder / "test" / names[0] / photo.name)
    extract_photos(folder, path, size=96, engine=StandIn())
    table = Store(path).table
    before = list(zip(table.path, table.label, table.split, strict=True))
    found = teach(Store(path), names[0], new[:1])
    assert found.written[0].path == f"{class_folder.format(name=names[0])}/{new[0][0]}"
    found = teach(Store(path), "husky", new[1:2])
    assert found.written[0].path == f"{base}husky/{new[1][0]}"
    after = Store(path).table
    rows = {p: (label, split) for p, label, split in zip(after.path, after.label, after.split, strict=True)}
    assert len(rows) == len(before) + 2
    assert all(rows[p] == (label, split) for p, label, split in before)
    assert {rows[photo.path][1] for photo in found.written} == {"train" if base == "train/" else ""}


def test_a_store_of_some_classes_stays_one_of_these_and_the_new(dogs: DOGS, tmp_path: Path) -> None:
    folder, _, new = dogs
    names = sorted(os.listdir(folder))
    path = tmp_path / "features" / "some.h5"
    extract_photos(folder, path, size=96, classes=names[:2], engine=StandIn())
    found = teach(Store(path), "husky", new[:1])
    assert Store(path).table.label.names == tuple(sorted([*names[:2], "husky"]))
    assert found.others == 0
    stray = folder / names[0] / "stray.png"
    Image.new("RGB", (100, 100), "red").save(stray)
    found = teach(Store(path), names[2], new[1:2])
    assert found.is_new
    assert found.others == 5, "four of the class that the folder had already, and the stray one"


def test_a_photo_elsewhere_in_the_folder_is_not_put_into_another_class(dogs: DOGS) -> None:
    folder, path, new = dogs
    names = sorted(os.listdir(folder))
    (folder / names[0] / "late.jpg").write_bytes(new[0][1])
    found = teach(Store(path), names[1], new[:1])
    assert [photo.reason for photo in found.refused] == [f"it is in the folder already: {names[0]}/late.jpg"]
    found = teach(Store(path), names[0], new[:1])
    assert [photo.path for photo in found.written] == [f"{names[0]}/late.jpg"], "it need not be written twice"
    assert_taught(found, path, new[:1])


def test_labels_from_a_table_are_refused_in_one_sentence(dogs: DOGS, tmp_path: Path) -> None:
    folder, _, new = dogs
    rows = [
        (photo.name, "dog" if i % 2 else "hound")
        for i, photo in enumerate(find_photos(Selection(folder)).photos)
    ]
    table = tmp_path / "labels.csv"
    table.write_text("path,label\n" + "".join(f"{path},{label}\n" for path, label in rows))
    path = tmp_path / "features" / "t.h5"
    extract_photos(folder, path, size=96, labels=table, engine=StandIn())
    before = contents(folder)
    with pytest.raises(BreedsError, match="from a table: add the new photos to that"):
        teach(Store(path), "dog", new)
    kaggle, path = tmp_path / "kaggle", tmp_path / "features" / "k.h5"
    (kaggle / "train").mkdir(parents=True)
    for number, (photo, _) in enumerate(rows):
        shutil.copyfile(folder / photo, kaggle / "train" / f"{number}.jpg")
    (kaggle / "labels.csv").write_text(
        "id,breed\n" + "".join(f"{number},{label}\n" for number, (_, label) in enumerate(rows))
    )
    extract_photos(kaggle, path, size=96, engine=StandIn())
    with pytest.raises(BreedsError, match="from a table: add the new photos to that"):
        teach(Store(path), "dog", new)
    assert contents(folder) == before


def test_a_flat_folder_gets_its_first_class(dogs: DOGS, tmp_path: Path) -> None:
    folder, _, new = dogs
    flat, path = tmp_path / "flat", tmp_path / "features" / "flat.h5"
    flat.mkdir()
    for number, photo in enumerate(sorted(folder.rglob("*.jpg"))):
        shutil.copyfile(photo, flat / f"{number}.jpg")
    extract_photos(flat, path, size=96, engine=StandIn())
    found = teach(Store(path), "husky", new)
    assert_taught(found, path, new)
    assert Store(path).table.label.names == ("", "husky")


# What goes wrong


def test_what_is_missing_is_said_before_anything_is_written(
    dogs: DOGS, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, path, new = dogs
    before = contents(folder)
    with hold(lock_file(path), str(path)), pytest.raises(BreedsError, match="is being written by process"):
        teach(Store(path), "husky", new)
    assert contents(folder) == before
    with monkeypatch.context() as patch:
        patch.setattr("breeds.backbones.weights.RANDOM_RULE", "0")
        with pytest.raises(BreedsError, match="another config"):
            teach(Store(path), "husky", new)
    assert contents(folder) == before
    stale = Store(path)
    teach(stale, "husky", new[:1])
    assert "it is in the store already" in teach(stale, "spitz", new[:1]).refused[0].reason
    folder.rename(folder.with_name("moved"))
    with pytest.raises(BreedsError, match="is not there"):
        teach(Store(path), "husky", new)
    assert not folder.exists()
    folder.mkdir()
    (folder / "x.jpg").write_bytes(new[0][1])
    with pytest.raises(BreedsError, match="has none of the photos"):
        teach(Store(path), "husky", new)


def test_files_that_were_written_stay_and_are_named_where_extraction_fails(dogs: DOGS) -> None:
    folder, path, new = dogs
    before = Store(path).table

    class Broken(StandIn):
        def stream(self, pixels: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
            raise RuntimeError("the engine is out of order")

    with pytest.raises(BreedsError, match="3 of 3 photos were written") as refusal:
        teach(Store(path), "husky", new, engine=Broken())
    for name, data in new:
        assert f"husky/{name}" in str(refusal.value)
        assert (folder / "husky" / name).read_bytes() == data
    assert "out of order" in str(refusal.value)
    assert Store(path).table == before
    found = teach(Store(path), "husky", new)
    assert_taught(found, path, new)
    assert sorted(os.listdir(folder / "husky")) == sorted(name for name, _ in new)


def test_a_full_disk_leaves_no_half_file(dogs: DOGS, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, path, new = dogs
    before = contents(folder)
    left, fsync = [1], os.fsync

    def full(handle: int) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(28, "No space left on device")
        fsync(handle)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(BreedsError, match="No space left"):
        teach(Store(path), "husky", new)
    assert contents(folder) == before
    assert not (folder / "husky").exists()


def test_a_file_system_without_links_will_do(dogs: DOGS, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, path, new = dogs

    def no_links(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    found = teach(Store(path), "husky", [new[0], (new[0][0], new[1][1])])
    assert len(found.written) == 2
    assert len(os.listdir(folder / "husky")) == 2


@pytest.mark.slow
def test_views_are_brought_up_to_date_and_the_class_is_learnt(dogs: DOGS, tmp_path: Path) -> None:
    folder, path, new = dogs
    extract_photos(folder, view_store(path, "flip"), size=96, view="flip", engine=StandIn())
    model = tmp_path / "m.safetensors"
    view = Store(view_store(path, "flip"))
    train(Store(path), C=0.01, views=[view]).save(model)
    teach(Store(path), "husky", new)
    again = train_again(model, Store(path), Corrections())
    assert again.new == ["husky"]
    assert again.model.record["views"] == ["flip"]


# kill -9

KILLED = (
    """
import json, os, signal, sys
from pathlib import Path
sys.path[:0] = sys.argv[1:]
import multiprocessing.synchronize, numpy.ma, PIL.JpegImagePlugin, tqdm  # once, and not in each child
import breeds.extraction, breeds.review
from breeds.features import Store
from test_teach import teach

"""
    + COUNTED
    + BEFORE_FORKS
    + """
for name in ("fsync", "replace", "unlink", "link", "mkdir"):
    setattr(os, name, counted(getattr(os, name)))
left = 0
for line in sys.stdin:
    store, photos, step = json.loads(line)
    child = os.fork()
    if not child:
        left = step
        teach(Store(Path(store)), "husky", [(Path(p).name, Path(p).read_bytes()) for p in photos])
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
)


@pytest.mark.slow
def test_killed_at_every_step_a_photo_is_whole_or_not_there(dogs: DOGS, tmp_path: Path) -> None:
    folder, path, new = dogs
    (tmp_path / "given").mkdir()
    for name, data in new:
        (tmp_path / "given" / name).write_bytes(data)
    given = [str(tmp_path / "given" / name) for name, _ in new]
    before, table = contents(folder), Store(path).table
    saved = tmp_path / "saved"
    shutil.copytree(path.parent, saved)
    parent = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(ROOT), str(ROOT / "tests"), str(ROOT / "tests/core")],
        env={**os.environ, **ONE_THREAD}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    seen = set()
    for step in itertools.count(1):
        shutil.rmtree(folder / "husky", ignore_errors=True)
        shutil.rmtree(path.parent)
        shutil.copytree(saved, path.parent)
        parent.stdin.write(json.dumps([str(path), given, step]) + "\n")
        parent.stdin.flush()
        code = int(parent.stdout.readline())
        assert code in (0, -signal.SIGKILL)
        after = contents(folder)
        shown = {name for name in after if not os.path.basename(name).startswith(".")}
        assert before.items() <= after.items()
        assert all(after[name] == dict(new)[os.path.basename(name)] for name in shown - before.keys())
        found = Store(path).table
        assert found == table or len(found) == 15
        seen.add((len(shown - before.keys()), len(found)))
        if code == 0:
            break
        again = teach(Store(path), "husky", new)
        assert len(Store(path).table) == 15
        assert len(again.written) == (0 if len(found) == 15 else 3)
        assert contents(folder).keys() == before.keys() | {f"husky/{name}" for name, _ in new}
        assert not list(path.parent.glob(".*")), "no lock and nothing half written is left"
    parent.stdin.close()
    parent.wait(60)
    assert {(0, 12), (1, 12), (2, 12), (3, 12), (3, 15)} == seen

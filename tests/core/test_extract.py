"""Extraction: every photo accounted for, and only what is new ever computed."""

from __future__ import annotations

import dataclasses
import functools
import os
import shutil
import subprocess
from pathlib import Path

import conftest
import h5py
import numpy as np
import pytest
from conftest import ROOT, assert_refused, run_script
from stores import as_journal, committed, write_journal

import breeds.extraction
from breeds.errors import BreedsError, PhotoError
from breeds.extraction import Summary
from breeds.features import Store, journal_folder, list_shards
from breeds.photos import key_of

RANDOM = ("--weights", "random", "--size", "96")
extract_photos = functools.partial(conftest.extract_photos, size=96)


class StandIn:
    """An engine that needs no network: a few pixels are the feature."""

    name = "stand-in"

    def stream(self, pixels):
        for photo in pixels:
            yield np.float32(photo[0, :8, 0])


@pytest.fixture
def engine(shared_engine_everywhere: list[str]) -> list[str]:
    """The real engine; lists its openings."""
    return shared_engine_everywhere


@pytest.fixture
def store(photos: Path, engine: list[str], tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of `photos`, extracted once and then copied, as the photos are always the same."""
    path = tmp_path / "features" / "photos.h5"
    kept = tmp_path_factory.getbasetemp() / "extracted"
    if kept.exists():
        shutil.copytree(kept, path.parent)
    extract_photos(photos, path)
    if not kept.exists():
        shutil.copytree(path.parent, kept)
    engine.clear()
    return path


def run(photos: Path, store: Path, **options: object) -> Summary:
    """Extract, and check what must hold of every run."""
    summary = extract_photos(photos, store, **options)
    assert summary.photos == summary.features + len(summary.quarantined)
    table = Store(store).table
    assert summary.features == len(table) == len(Store(store).features())
    assert summary.quarantined == table.rejected
    for path, key in zip(table.path, table.key, strict=True):
        assert key == key_of((photos / path).read_bytes())
    return summary


def by_key(store: Path) -> dict[str, bytes]:
    """Return the features' bits."""
    found = Store(store)
    return {k: f.tobytes() for k, f in zip(found.table.key, found.features(), strict=True)}


def by_path(store: Path) -> dict[str, bytes]:
    found = Store(store)
    return {p: f.tobytes() for p, f in zip(found.table.path, found.features(), strict=True)}


def snapshot(folder: Path) -> dict[str, tuple[bytes, int, int]]:
    """Return bytes, time and inode of every file below `folder`."""
    return {
        str(p.relative_to(folder)): (p.read_bytes(), p.stat().st_mtime_ns, p.stat().st_ino)
        for p in folder.rglob("*")
        if p.is_file()
    }


def first_photo(photos: Path) -> Path:
    return min(photos.rglob("*.jpg"))


def edit(photo: Path) -> None:
    """Change a photo's bytes, not its pixels: whatever follows a JPEG's end is not looked at."""
    photo.write_bytes(photo.read_bytes() + b"\0")


# what is computed, and what is not


def test_a_second_run_computes_nothing_and_touches_nothing(
    photos: Path, store: Path, engine: list[str]
) -> None:
    before = snapshot(store.parent)
    summary = run(photos, store)
    assert (summary.photos, summary.features, summary.new, summary.changed) == (12, 12, 0, False)
    assert engine == []
    assert snapshot(store.parent) == before
    assert run(photos, store, trust_mtime=True).new == 0
    assert snapshot(store.parent) == before


def test_a_new_photo_is_the_only_one_computed(
    photos: Path, store: Path, engine: list[str], drawn_photos: Path
) -> None:
    features = by_key(store)
    unseen = max(drawn_photos.rglob("*.jpg"))
    shutil.copyfile(unseen, photos / "new.jpg")
    summary = run(photos, store)
    assert (summary.features, summary.new, summary.changed, engine) == (13, 1, True, ["opened"])
    assert features.items() <= by_key(store).items()
    assert key_of(unseen.read_bytes()) in by_key(store)


def rename(photos: Path) -> None:
    first_photo(photos).rename(first_photo(photos).with_name("😀 é\n.jpg"))


def rename_to_no_unicode(photos: Path) -> None:
    first_photo(photos).rename(first_photo(photos).with_name("\udcff.jpg"))


def relabel(photos: Path) -> None:
    first_photo(photos).rename(max(photos.iterdir()) / "moved.jpg")


def rename_a_class(photos: Path) -> None:
    min(photos.iterdir()).rename(photos / "n02085620-Größe 犬 \udcff")


def copy(photos: Path) -> None:
    shutil.copyfile(first_photo(photos), first_photo(photos).with_name("again.png"))


def touch(photos: Path) -> None:
    os.utime(first_photo(photos), ns=(1, 1))


def remove(photos: Path) -> None:
    first_photo(photos).unlink()


def remove_a_class(photos: Path) -> None:
    shutil.rmtree(min(photos.iterdir()))


@pytest.mark.parametrize("trust_mtime", [False, True])
@pytest.mark.parametrize(
    "change",
    [rename, rename_to_no_unicode, relabel, rename_a_class, copy, touch, remove, remove_a_class],
    ids=lambda change: change.__name__,
)
def test_no_computation_without_new_bytes(
    photos: Path, store: Path, engine: list[str], change, trust_mtime: bool
) -> None:
    features = by_key(store)
    change(photos)
    summary = run(photos, store, trust_mtime=trust_mtime)
    assert (summary.new, summary.changed, engine) == (0, True, [])
    table = Store(store).table
    found = {os.path.relpath(p, photos) for p in photos.rglob("*") if p.is_file()}
    assert set(table.path) == found
    assert table.label == [Path(path).parent.name.removeprefix("n02085620-") for path in table.path]
    assert by_key(store).items() <= features.items()
    assert committed(store) == features
    assert os.listdir(store.parent) == [store.name]


def test_a_photo_taken_out_and_put_back_is_not_computed_again(
    photos: Path, store: Path, engine: list[str]
) -> None:
    photo, before = first_photo(photos), by_key(store)
    data = photo.read_bytes()
    photo.unlink()
    assert run(photos, store).features == 11
    (photos / "back.jpg").write_bytes(data)
    assert run(photos, store).new == 0
    assert by_key(store) == before
    assert engine == []


def test_an_edited_photo_is_computed_again(photos: Path, store: Path) -> None:
    before = by_path(store)
    edit(first_photo(photos))
    assert run(photos, store).new == 1
    assert by_path(store) == before  # other bytes, the same pixels


def test_a_photo_with_other_pixels_has_other_features(photos: Path, store: Path) -> None:
    one, other = first_photo(photos), max(photos.rglob("*.jpg"))
    name, before = os.path.relpath(one, photos), by_path(store)
    one.write_bytes(other.read_bytes() + b"\0")
    run(photos, store)
    after = by_path(store)
    assert after[name] == before[os.path.relpath(other, photos)] != before[name]


def test_the_same_photo_twice_is_computed_once(photos: Path, engine: list[str], tmp_path: Path) -> None:
    for photo in sorted(photos.rglob("*.jpg"))[2:]:
        photo.unlink()
    copy(photos)
    summary = run(photos, tmp_path / "s.h5")
    assert (summary.photos, summary.features, summary.new, summary.duplicates) == (3, 3, 2, 1)
    assert len(by_key(tmp_path / "s.h5")) == 2


def edit_keeping_size_and_time(photo: Path) -> None:
    status, data = photo.stat(), bytearray(photo.read_bytes())
    data[15] ^= 1  # the density in a JPEG's first header, which decides no pixel
    photo.write_bytes(data)
    os.utime(photo, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_trust_mtime_reads_no_photo_of_the_same_size_and_time(photos: Path, store: Path) -> None:
    before = by_path(store)
    edit_keeping_size_and_time(first_photo(photos))
    trusting = extract_photos(photos, store, trust_mtime=True)
    assert (trusting.new, trusting.changed) == (0, False)
    assert run(photos, store).new == 1
    assert by_path(store) == before


@pytest.mark.parametrize("same", ["size", "time"])
def test_trust_mtime_notices_another_size_or_time(photos: Path, store: Path, same: str) -> None:
    photo = first_photo(photos)
    status = photo.stat()
    if same == "size":
        edit_keeping_size_and_time(photo)
        os.utime(photo, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    else:
        edit(photo)
        os.utime(photo, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert run(photos, store, trust_mtime=True).new == 1


def test_trust_mtime_takes_no_photo_of_another_folder_for_the_same(photos: Path, store: Path) -> None:
    other = shutil.copytree(photos, photos.with_name("other"))  # the times are copied too
    edit_keeping_size_and_time(first_photo(other))
    assert run(other, store, trust_mtime=True).new == 1


# features depend on the photo and the config alone


def test_features_do_not_depend_on_the_company_the_order_or_the_run(
    photos: Path, store: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.h5"
    everything = sorted(photos.rglob("*.jpg"), reverse=True)
    for count in (1, 6, 12):  # batches of 1 + 5 + 4 + 2, in the reverse order
        for number, photo in enumerate(everything[:count]):
            target = tmp_path / "again" / f"{number:02d}.jpg"
            target.parent.mkdir(exist_ok=True)
            shutil.copyfile(photo, target)
        run(tmp_path / "again", other, workers=3)
    assert by_key(other) == by_key(store)


def test_what_a_killed_run_has_committed_is_taken_in(photos: Path, store: Path, engine: list[str]) -> None:
    before = by_path(store)
    journal = as_journal(store)
    summary = run(photos, store)
    assert (summary.new, summary.changed, engine) == (0, True, [])
    assert by_path(store) == before
    assert not journal.exists()
    assert Store(store).engine == ""


def test_what_is_in_the_journal_and_no_photo_is_kept_in_the_store(photos: Path, store: Path) -> None:
    before = by_key(store)
    write_journal(journal_folder(store), {"ab" * 32: np.ones(2048, dtype=np.float32)}, Store(store).config)
    assert run(photos, store).changed
    assert committed(store) == before | {"ab" * 32: np.ones(2048, dtype=np.float32).tobytes()}
    assert by_key(store) == before and not journal_folder(store).exists()
    assert list(Store(store).unused) == ["ab" * 32]
    write_journal(journal_folder(store), {"ab" * 32: np.ones(2048, dtype=np.float32)}, Store(store).config)
    assert not run(photos, store).changed, "as if killed before the journal was deleted"
    assert not journal_folder(store).exists()


def test_the_store_alone_is_enough(photos: Path, store: Path, engine: list[str], tmp_path: Path) -> None:
    copied = Path(shutil.copy(store, tmp_path / "copied.h5"))
    before = by_key(store)
    rename(photos)
    assert run(photos, copied).new == 0
    assert engine == []
    assert by_key(copied) == before


def test_a_damaged_shard_is_set_aside_and_its_photos_computed_again(photos: Path, store: Path) -> None:
    before = by_path(store)
    (shard,) = list_shards(as_journal(store))
    shard.write_bytes(shard.read_bytes()[:-1])
    summary = run(photos, store)
    assert (summary.new, summary.damaged) == (12, [shard])
    assert [p.suffix for p in journal_folder(store).iterdir()] == [".damaged"]
    assert by_path(store) == before


@pytest.mark.parametrize("journal_only", [False, True])
def test_another_config_is_refused_with_both_named(photos: Path, store: Path, journal_only: bool) -> None:
    config = Store(store).config
    if journal_only:
        as_journal(store)
    before = snapshot(store.parent)
    with pytest.raises(BreedsError) as refused:
        extract_photos(photos, store, resize="crop")
    assert str(config) in str(refused.value)
    assert str(dataclasses.replace(config, resize="crop")) in str(refused.value)
    assert snapshot(store.parent) == before


# photos that cannot be used


def test_bad_photos_are_quarantined_with_their_reasons(photos: Path, store: Path, engine: list[str]) -> None:
    good = first_photo(photos)
    (photos / "zero.jpg").touch()
    (photos / "text.jpg").write_text("not a photo")
    (photos / "truncated.jpg").write_bytes(good.read_bytes()[:2000])
    (photos / "dangling.jpg").symlink_to("nowhere")
    os.mkfifo(photos / "pipe.jpg")
    summary = extract_photos(photos, store)
    reasons = dict(summary.quarantined)
    assert (summary.photos, summary.features, summary.new, engine) == (17, 12, 0, [])
    assert reasons.keys() == {"zero.jpg", "text.jpg", "truncated.jpg", "dangling.jpg", "pipe.jpg"}
    for name, reason in {
        "zero.jpg": "empty file (0 bytes)",
        "text.jpg": "",
        "truncated.jpg": "truncated",
        "dangling.jpg": "no such file",
        "pipe.jpg": "not a regular file",
    }.items():
        assert reason.lower() in reasons[name].lower()
    with h5py.File(store) as f:
        columns = (f["rejected_path"].asstr()[:], f["rejected_reason"].asstr()[:])
        assert dict(zip(*columns, strict=True)) == reasons
    again = extract_photos(photos, store)
    assert (again.changed, again.quarantined, engine) == (False, summary.quarantined, [])


def test_a_mended_photo_leaves_the_quarantine(photos: Path, store: Path) -> None:
    photo = first_photo(photos)
    data = photo.read_bytes()
    photo.write_bytes(b"")
    assert len(run(photos, store).quarantined) == 1
    photo.write_bytes(data)
    summary = run(photos, store)
    assert (summary.quarantined, summary.features, summary.new) == ([], 12, 0)


@pytest.mark.parametrize("had_a_store", [False, True])
def test_nothing_but_bad_photos_is_refused(photos: Path, store: Path, had_a_store: bool) -> None:
    bad = photos
    if had_a_store:  # that of the same folder, whose photos have gone bad
        shutil.rmtree(photos)
    else:
        shutil.rmtree(store.parent)
        bad = photos.with_name("bad")
    bad.mkdir()
    (bad / "a.jpg").write_text("text")
    (bad / "b.jpg").touch()
    before = snapshot(photos.parent)
    words = rf"None of the 2 photos in {bad} can be used; the first, a\.jpg: "
    with pytest.raises(BreedsError, match=words):
        extract_photos(bad, store)
    assert snapshot(photos.parent) == before


@pytest.mark.parametrize("change", ["edit", "remove", "empty"])
def test_a_photo_that_changes_while_it_is_worked_on_never_gets_anothers_features(
    photos: Path, store: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    before = by_path(store)
    photo = first_photo(photos)
    edit(photo)
    edited = photo.read_bytes()
    identify = breeds.extraction.make_table

    def identify_then_change(*arguments: object) -> object:
        table = identify(*arguments)  # type: ignore[arg-type]
        if change == "remove":
            photo.unlink()
        else:
            photo.write_bytes(edited + b"0" if change == "edit" else b"")
        return table

    with monkeypatch.context() as patch:
        patch.setattr("breeds.extraction.make_table", identify_then_change)
        summary = extract_photos(photos, store)
    assert (summary.photos, summary.features, summary.new) == (12, 11, 0)
    assert [path for path, _ in summary.quarantined] == [os.path.relpath(photo, photos)]
    photo.write_bytes(edited)
    assert run(photos, store).new == 1
    assert by_path(store) == before


# labels


def test_one_photo_with_two_labels_is_refused_with_both_paths(photos: Path, store: Path) -> None:
    one = first_photo(photos)
    other = max(photos.iterdir()) / "other.jpg"
    shutil.copyfile(one, other)
    before = snapshot(store.parent)
    with pytest.raises(BreedsError, match="with two answers") as refused:
        extract_photos(photos, store)
    for path in (one, other):
        assert f"{path.relative_to(photos)} (label {path.parent.name})" in str(refused.value)
    assert snapshot(store.parent) == before


def test_many_conflicts_are_counted_and_the_first_five_listed(photos: Path, store: Path) -> None:
    first, second, _ = sorted(photos.iterdir())
    for photo in first.iterdir():
        shutil.copyfile(photo, second / f"other{photo.name}")
        shutil.copyfile(photo, second / f"third{photo.name}")
    with pytest.raises(BreedsError, match="and 3 more pairs") as refused:
        extract_photos(photos, store)
    assert str(refused.value).count(" and ") == 6


def test_one_photo_in_two_parts_of_the_split_is_refused(photos: Path, tmp_path: Path) -> None:
    name = first_photo(photos).relative_to(photos)
    shutil.copyfile(photos / name, photos / "again.jpg")
    manifest = photos / "manifest.csv"
    manifest.write_text(f"path,label,split\n{name},a,train\nagain.jpg,a,test\n")
    with pytest.raises(BreedsError, match=r"\(split train\).*\(split test\)|\(split test\).*\(split train\)"):
        extract_photos(manifest, tmp_path / "s.h5")
    assert not (tmp_path / "s.h5").exists()


def test_new_labels_from_a_file_refresh_the_table_alone(photos: Path, store: Path, engine: list[str]) -> None:
    features = by_path(store)
    labels = photos / "labels.csv"
    labels.write_text("path,label,split\n" + "".join(f"{p},new,test\n" for p in features))
    summary = run(photos, store)
    assert (summary.new, summary.changed, engine) == (0, True, [])
    table = Store(store).table
    assert set(table.label) == {"new"}
    assert set(table.split) == {"test"}
    assert by_path(store) == features


def test_fewer_classes_and_back_compute_nothing(photos: Path, store: Path, engine: list[str]) -> None:
    before = by_path(store)
    assert run(photos, store, top=2).features == 8
    assert run(photos, store, classes=[max(photos.iterdir()).name]).features == 4
    assert run(photos, store).new == 0
    assert by_path(store) == before
    assert engine == []


# two folders of one name


@pytest.fixture
def two_places(drawn_photos: Path, tmp_path: Path) -> list[Path]:
    """Two folders called ``train``, of different photos, whose store is the same by default."""
    breeds_of = sorted(drawn_photos.iterdir())
    for place, some in (("a", breeds_of[:2]), ("b", breeds_of[2:4])):
        for breed in some:
            shutil.copytree(breed, tmp_path / place / "train" / breed.name)
    return [tmp_path / "a" / "train", tmp_path / "b" / "train"]


@pytest.mark.parametrize("view", ["original", "flip"])
@pytest.mark.slow
def test_another_folders_photos_are_another_data_set(
    two_places: list[Path], tmp_path: Path, view: str
) -> None:
    one, other = two_places
    store = tmp_path / "features" / "train.h5"
    extract_photos(one, store, view=view, engine=StandIn())
    before = snapshot(store.parent)
    with pytest.raises(BreedsError, match=r"another data set.*name another --store") as refused:
        extract_photos(other, store, view=view, engine=StandIn())
    assert f"{store} holds the photos of {one}, and 0 of the 12 photos in {other}" in str(refused.value)
    assert snapshot(store.parent) == before
    shutil.copyfile(first_photo(one), other / "one.jpg")  # one photo in common makes no data set one
    with pytest.raises(BreedsError, match="and 1 of the 13 photos"):
        extract_photos(other, store, view=view, engine=StandIn())


@pytest.mark.slow
def test_another_folder_of_the_same_name_is_refused_by_the_script(
    two_places: list[Path], tmp_path: Path
) -> None:
    one, other = two_places
    extract_photos(one, tmp_path / "features" / "train.h5", engine=StandIn())
    result = run_script("extract_features.py", other, *RANDOM, cwd=tmp_path)
    assert_refused(result, "features/train.h5", str(one), str(other), "name another --store")


def test_a_folder_that_has_gone_and_another_in_its_stead_are_two_data_sets(
    two_places: list[Path], tmp_path: Path
) -> None:
    """As when a disk is not there just now."""
    one, other = two_places
    extract_photos(one, tmp_path / "train.h5", engine=StandIn())
    one.rename(tmp_path / "away")
    with pytest.raises(BreedsError, match="another data set"):
        extract_photos(other, tmp_path / "train.h5", engine=StandIn())


@pytest.mark.parametrize("how", ["moved", "copied", "linked", "part", "grown"])
def test_a_moved_copied_or_linked_folder_is_the_same_data_set(
    two_places: list[Path], tmp_path: Path, how: str
) -> None:
    one, more = two_places
    store, there = tmp_path / "train.h5", tmp_path / "there"
    extract_photos(one, store, engine=StandIn())
    before = by_key(store)
    if how == "moved":
        one.rename(there)
    elif how == "linked":
        there.symlink_to(one)
    else:
        shutil.copytree(one, there)
    if how == "part":
        shutil.rmtree(min(there.iterdir()))
    if how == "grown":
        for breed in more.iterdir():
            shutil.copytree(breed, there / breed.name)
    summary = extract_photos(there, store, engine=StandIn())
    assert (summary.photos, summary.new) == {"part": (6, 0), "grown": (24, 12)}.get(how, (12, 0))
    assert Store(store).table.root == str(there)
    after = by_key(store)
    assert after.items() <= before.items() if how == "part" else before.items() <= after.items()


# a store that is damaged


def test_the_command_that_a_damaged_store_asks_for_mends_it(
    photos: Path, store: Path, tmp_path: Path, engine: list[str]
) -> None:
    before = by_path(store)
    store = store.rename(store.with_name("it's $(mine).h5"))
    journal = dict(zip(Store(store).table.key, Store(store).features(), strict=True))
    write_journal(journal_folder(store), journal, Store(store).config)
    os.truncate(store, store.stat().st_size // 2)
    arguments = ("extract_features.py", photos, *RANDOM, "--store", store)
    result = run_script(*arguments, cwd=tmp_path)
    assert_refused(
        result, f"{store} is damaged (", "put back a copy, or move it aside", "extract_features.py again"
    )
    assert "delete" not in result.stderr
    command = result.stderr.split("`")[1]
    subprocess.run(command, shell=True, check=True)
    assert "12 features (0 new, 12 reused)" in run_script(*arguments, cwd=tmp_path).stdout
    assert by_path(store) == before
    assert engine == []


# what is looked at again


def test_a_photo_that_can_be_decoded_at_last_is(
    photos: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bad photo is tried again each time, as a newer Pillow may read it."""
    edit(first_photo(photos))
    with monkeypatch.context() as patch:
        patch.setattr("breeds.backbones.pipeline.decode", lambda *_: (_ for _ in ()).throw(PhotoError("odd")))
        assert len(extract_photos(photos, store).quarantined) == 1
    summary = run(photos, store)
    assert (summary.new, summary.quarantined) == (1, [])


# refused before any work, with nothing written


def test_top_and_classes_together_are_refused(photos: Path, tmp_path: Path) -> None:
    name = min(photos.iterdir()).name
    result = run_script("extract_features.py", photos, *RANDOM, "--top=1", f"--classes={name}", cwd=tmp_path)
    assert_refused(result, "--top and --classes")
    assert os.listdir(tmp_path) == ["photos"]


@pytest.mark.parametrize("place", ["file/s.h5", "file/deeper/s.h5", "folder", "/proc/s.h5"])
def test_a_store_that_cannot_be_written_is_found_before_any_work(
    photos: Path, engine: list[str], tmp_path: Path, place: str
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    with pytest.raises(BreedsError, match="Cannot write"):
        extract_photos(photos, tmp_path / place)
    assert engine == []
    assert sorted(os.listdir(tmp_path)) == ["file", "folder", "photos"]


# the script


def test_the_script_says_both_numbers_and_quarantine_is_exit_code_1(photos: Path, store: Path) -> None:
    (photos / "zero.jpg").touch()
    (photos / "notes.txt").write_text("not a photo")
    result = run_script("extract_features.py", "photos", *RANDOM, cwd=photos.parent)
    assert result.returncode == 1
    assert "13 photos = 12 features (0 new, 12 reused) + 1 quarantined; 1 other files" in result.stdout
    assert str(Store(store).config) in result.stdout
    assert "wrote features/photos.h5" in result.stdout
    assert "quarantined zero.jpg: empty file (0 bytes)" in result.stderr
    again = run_script("extract_features.py", "photos", *RANDOM, cwd=photos.parent)
    assert "nothing to change in features/photos.h5" in again.stdout


def test_a_second_run_never_loads_tensorflow(photos: Path, store: Path) -> None:
    (photos / "zero.jpg").touch()
    poison = photos.parent / "poison"
    for module in ("tensorflow", "keras", "openvino"):
        (poison / module).mkdir(parents=True)
        (poison / module / "__init__.py").write_text("raise SystemExit('loaded')")

    def script() -> subprocess.CompletedProcess[str]:
        arguments = ("photos", *RANDOM, "--engine", "keras")
        env = {"PYTHONPATH": f"{poison}:{ROOT}"}
        return run_script("extract_features.py", *arguments, cwd=photos.parent, env=env)

    assert "12 features (0 new, 12 reused) + 1 quarantined" in script().stdout
    edit(first_photo(photos))
    assert "loaded" in script().stderr  # so the poison works


def test_a_folder_whose_name_is_not_utf8(photos: Path, tmp_path: Path) -> None:
    folder = photos.rename(tmp_path / "\udcff")
    extract_photos(folder, tmp_path / "s.h5", engine=StandIn())
    assert Store(tmp_path / "s.h5").table.root == str(folder)


def test_an_extraction_that_another_overtakes_mixes_nothing_up(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While one run still hashes, another finishes, with one photo less."""
    store = tmp_path / "s.h5"
    extract_photos(photos, store, engine=StandIn())
    right = dict(zip(Store(store).table.key, Store(store).features(), strict=True))
    identify = breeds.extraction.make_table

    def slowly(*arguments):
        table = identify(*arguments)
        monkeypatch.setattr("breeds.extraction.make_table", identify)
        extract_photos(tmp_path / "fewer", store, engine=StandIn())
        return table

    shutil.copytree(photos, tmp_path / "fewer")
    first, last = min((tmp_path / "fewer").rglob("*.jpg")), max((tmp_path / "fewer").rglob("*.jpg"))
    last.with_name("zz.jpg").write_bytes(first.read_bytes() + b"0")  # as many, all one row on
    first.unlink()
    monkeypatch.setattr("breeds.extraction.make_table", slowly)
    (photos / "labels.csv").write_text(
        "path,label\n" + "".join(f"{p.relative_to(photos)},new\n" for p in photos.rglob("*.jpg"))
    )
    extract_photos(photos, store, engine=StandIn())
    found = Store(store)
    for key, feature in zip(found.table.key, found.features(), strict=True):
        assert np.array_equal(feature, right[key])


def test_classes_with_few_photos_are_left_out_and_named(photos: Path, tmp_path: Path) -> None:
    small, *others = sorted(path for path in photos.iterdir() if path.is_dir())
    few = sorted(small.iterdir())[1:]
    for photo in few:
        photo.unlink()
    summary = extract_photos(photos, tmp_path / "s.h5", min_photos=2, engine=StandIn())
    assert {*Store(tmp_path / "s.h5").table.label} == {path.name for path in others}
    assert summary.notes == [f"1 class of fewer than 2 photos left out: {small.name} (1)"]
    with pytest.raises(BreedsError, match=r"No class .* has 99 photos"):
        extract_photos(photos, tmp_path / "s.h5", min_photos=99, engine=StandIn())

"""Photos in tars, Parquet files and object storage: what a folder of the same photos gives, no less."""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import tarfile
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import webdataset
from conftest import assert_refused, extract_photos, run_script
from storage import Storage, stored

import breeds
from breeds.errors import BreedsError, GoneError
from breeds.features import Store, Table
from breeds.features.identify import make_table
from breeds.photos import Photo, find_photos, find_streamed, photo_at
from breeds.photos import storage as files
from breeds.photos.photo import ObjectPhoto, RejectedPhoto
from breeds.photos.storage import SourceFile
from breeds.photos.tars import photos_in, places_in
from breeds.selection import Selection, shown, stem_of

#: Where several processes share the tests, one starts the storage.
in_bucket = pytest.mark.xdist_group("app_place")


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def tar_of(path: Path, members: list[tuple[str, bytes]], form: int = tarfile.GNU_FORMAT) -> Path:
    """A tar written by Python's own library."""
    with tarfile.open(path, "w", format=form) as tar:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def look(source: Path | str) -> Table:
    return make_table(find_photos(Selection(source)), None, 2)[0]


def labels_of(table: Table) -> dict[str, str]:
    return dict(zip(table.path, table.label, strict=True))


def inside(tar: Path) -> list[Photo]:
    return [photo for photo in photos_in(SourceFile.here(str(tar))) if photo is not None]


def error_of(photo: Photo) -> str:
    return photo.reason if isinstance(photo, RejectedPhoto) else ""


def keys_of(photos: list[Photo]) -> list[str]:
    return [sha(photo.read()) for photo in photos if not error_of(photo)]


@pytest.fixture(scope="module")
def storage() -> Iterator[Storage]:
    with stored() as running:
        yield running


@pytest.fixture
def bucket(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> Iterator[Storage]:
    """The storage, as this process reaches it, without waiting between tries."""
    import s3fs

    for name, value in storage.env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(files, "PAUSES", (0.01, 0.01, 0.01))
    s3fs.S3FileSystem.clear_instance_cache()
    storage.asked.clear()
    yield storage
    storage.fault = lambda method, path: ""


# --- what a folder gives ----------------------------------------------------------------------


def files_of(folder: Path) -> list[tuple[str, str, bytes]]:
    """Every photo of a folder: its path there, its label, its bytes."""
    return [
        (path.relative_to(folder).as_posix(), path.parent.name, path.read_bytes())
        for path in sorted(folder.rglob("*.jpg"))
    ]


def in_shards(photos: list[tuple[str, str, bytes]], folder: Path, ending: str = "cls") -> None:
    """Three shards, written by WebDataset's own writer."""
    folder.mkdir()
    for number in range(3):
        with webdataset.TarWriter(str(folder / f"photos-{number:03d}.tar")) as writer:
            for i, (_, label, data) in enumerate(photos[number::3]):
                said = label if ending == "cls" else {"label": label, "colour": "brown"}
                writer.write({"__key__": f"{i:05d}", "jpg": data, ending: said})


def in_parquet(photos: list[tuple[str, str, bytes]], path: Path) -> None:
    """As Hugging Face writes a set: numbers that have names, and bytes beside a path; several groups."""
    names = sorted({label for _, label, _ in photos})
    images = [{"bytes": data, "path": where} for where, _, data in photos]
    table = pa.table(
        {"image": pa.array(images), "label": pa.array([names.index(label) for _, label, _ in photos])}
    )
    said = {"info": {"features": {"label": {"names": names, "_type": "ClassLabel"}}}}
    table = table.replace_schema_metadata({"huggingface": json.dumps(said)})
    pq.write_table(table, path, row_group_size=7)


@pytest.fixture(scope="module")
def forms(app_place: Path, storage: Storage, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The photos of `app_place` in every form."""
    place = tmp_path_factory.mktemp("forms")
    photos = files_of(app_place / "photos")
    in_shards(photos, place / "shards")
    in_shards(photos, place / "json", "json")
    in_parquet(photos, place / "dogs.parquet")
    for path, _, data in photos:
        storage.put(f"photos/{path}", data)
    for shard in (place / "shards").iterdir():
        storage.put(f"shards/{shard.name}", shard.read_bytes())
    storage.put("dogs.parquet", (place / "dogs.parquet").read_bytes())
    return place


#: Every form; what lies behind it is computed for two, as the network is the same.
SOURCES = {
    "tars": "shards/photos-{000..002}.tar",
    "a folder of tars": "json",
    "parquet": "dogs.parquet",
    "a bucket": "s3://dogs/photos",
    "tars in a bucket": "s3://dogs/shards/photos-*.tar",
    "parquet in a bucket": "s3://dogs/dogs.parquet",
}


def test_every_source_gives_the_folders_keys_and_labels(
    app_place: Path, forms: Path, bucket: Storage
) -> None:
    wanted = {sha(data): label for _, label, data in files_of(app_place / "photos")}
    for source in SOURCES.values():
        table = look(source if "://" in source else str(forms / source))
        assert dict(zip(table.key, table.label, strict=True)) == wanted
        assert list(table.path) == sorted(table.path) and not table.rejected
        where = os.path.join(table.root, table.path[17])  # as pages read it again
        assert sha(photo_at("", where).read()) == table.key[17]


@pytest.mark.parametrize("kind", ["tars in a bucket", "parquet"])
def test_a_source_gives_the_folders_features_and_nothing_twice(
    kind: str, app_place: Path, forms: Path, bucket: Storage, tmp_path: Path
) -> None:
    source = SOURCES[kind] if "://" in SOURCES[kind] else str(forms / SOURCES[kind])
    wanted = Store(app_place / "features/photos.h5")
    by_key = dict(zip(wanted.table.key, wanted.table.label, strict=True))
    store = tmp_path / "made.h5"
    summary = extract_photos(source, store, size=96)  # type: ignore[arg-type]
    made = Store(store)
    assert summary.photos == summary.features == summary.new == len(by_key) == 30
    assert dict(zip(made.table.key, made.table.label, strict=True)) == by_key
    order = [list(wanted.table.key).index(key) for key in made.table.key]
    assert np.array_equal(made.features(), wanted.features()[order])
    again = extract_photos(source, store, size=96)  # type: ignore[arg-type]
    assert (again.new, again.changed) == (0, False)


def test_members_are_those_that_webdataset_reads(app_place: Path, forms: Path) -> None:
    for folder, ending in (("shards", "cls"), ("json", "json")):
        shard = forms / folder / "photos-001.tar"
        theirs = list(webdataset.WebDataset(str(shard), shardshuffle=False, empty_check=False))
        ours = inside(shard)
        assert [found.name for found in ours] == [f"{one['__key__']}.jpg" for one in theirs]
        assert [found.read() for found in ours] == [one["jpg"] for one in theirs]
        said = [one[ending].decode() for one in theirs]
        assert [found.label for found in ours] == [
            text if ending == "cls" else json.loads(text)["label"] for text in said
        ]


def test_predictions_are_those_of_the_folder_and_in_order(
    app_place: Path, forms: Path, bucket: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from breeds.heads.model import Model
    from breeds.photos import inputs, key_of
    from breeds.photos.inputs import list_inputs
    from breeds.prediction import predict
    from breeds.report import answers as parts

    model = Model.load(app_place / "models/photos.safetensors")

    def answers(*names: str, network: bool = True):
        return list(predict(model, list_inputs(names, (), network)))

    monkeypatch.setattr(inputs, "HELD_BYTES", 100_000)  # as if there were more photos
    folder = {one.key: one for one in answers(str(app_place / "photos"))}
    for source in (str(forms / "shards"), "s3://dogs/photos", str(forms / "dogs.parquet")):
        found = answers(source)
        assert len(found) == 30 and {one.key for one in found} == folder.keys()
        assert [one.path for one in found] == sorted(one.path for one in found)
        for one in found:
            assert np.allclose(one.probabilities, folder[one.key].probabilities, atol=1e-6)
            assert key_of(photo_at("", one.path).read()) == one.key
    frame = breeds.predict(app_place / "models/photos.safetensors", [forms / "dogs.parquet"])
    assert frame.path.tolist() == [one.path for one in found]
    with pytest.raises(BreedsError, match="--no-network"):
        answers("s3://dogs/photos", network=False)
    parts.check_parts(tmp_path / "parts")
    total, failed = parts.write_parts(iter(found), model.classes, tmp_path / "parts", "csv", 1, rows=8)
    written = sorted((tmp_path / "parts").iterdir())
    assert (total, failed, [path.name for path in written][-1]) == (30, [], "part-00003.csv")
    rows = [line.split(",")[0] for path in written for line in path.read_text().splitlines()[1:]]
    assert rows == [one.path for one in found]
    with pytest.raises(BreedsError, match="not empty"):
        parts.check_parts(tmp_path / "parts")


# --- tars as strangers make them --------------------------------------------------------------


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_names_of_every_kind_are_only_names(form: int, tmp_path: Path) -> None:
    long = "x" * (90 if form == tarfile.USTAR_FORMAT else 300)
    names = {
        "./pug/1.jpg": "pug/1.jpg",
        "/etc/passwd.jpg": "etc/passwd.jpg",
        "../../out.jpg": "%2E%2E/%2E%2E/out.jpg",
        f"{long}/deep.jpg": f"{long}/deep.jpg",
        "caf\u00e9 \x1b[2J.jpg": "caf\u00e9 \x1b[2J.jpg",
        "no-unicode-\udce9.JPG": "no-unicode-\udce9.JPG",
    }
    members = [(name, f"photo {i}".encode()) for i, name in enumerate(names)]
    tar = tar_of(tmp_path / "names.tar", members, form)
    before = sorted(tmp_path.rglob("*"))
    table = look(tar)
    assert sorted(table.path) == sorted(f"names.tar/{name}" for name in names.values())
    assert sorted(table.key) == sorted(sha(data) for _, data in members)
    for path, key in zip(table.path, table.key, strict=True):
        assert sha(photo_at("", os.path.join(table.root, path)).read()) == key
        assert os.path.normpath(os.path.join(table.root, path)).startswith(f"{tar}/")
    assert sorted(tmp_path.rglob("*")) == before


def test_what_is_no_plain_file_is_set_aside_and_reaches_no_disk(tmp_path: Path) -> None:
    tar = tmp_path / "odd.tar"
    with tarfile.open(tar, "w") as made:
        for name, kind in (
            ("link.jpg", tarfile.SYMTYPE), ("hard.jpg", tarfile.LNKTYPE), ("null.jpg", tarfile.CHRTYPE),
            ("pipe.jpg", tarfile.FIFOTYPE), ("folder.jpg", tarfile.DIRTYPE),
        ):  # fmt: skip
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "/etc/passwd"
            made.addfile(member)
        plain = tarfile.TarInfo("plain.jpg")
        plain.size = 5
        made.addfile(plain, io.BytesIO(b"photo"))
        bomb = tarfile.TarInfo("bomb.jpg")
        bomb.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.realsize": str(2**50)}
        made.addfile(bomb)
        gnu = tarfile.TarInfo("gnu.jpg")
        gnu.type = tarfile.GNUTYPE_SPARSE
        made.addfile(gnu)
        made.addfile(tarfile.TarInfo("empty.jpg"))
        last = tarfile.TarInfo("last.jpg")
        last.size = 4
        made.addfile(last, io.BytesIO(b"last"))
    table = look(tar)
    assert list(table.path) == ["odd.tar/last.jpg", "odd.tar/plain.jpg"]
    reasons = {path.removeprefix("odd.tar/"): reason for path, reason in table.rejected}
    words = {
        "link.jpg": "link", "hard.jpg": "link", "null.jpg": "device", "pipe.jpg": "pipe",
        "bomb.jpg": "sparse", "gnu.jpg": "sparse", "empty.jpg": "empty",
    }  # fmt: skip
    assert reasons.keys() == words.keys()
    assert all(word in reasons[name] for name, word in words.items())
    with pytest.raises(GoneError):
        photo_at("", f"{tar}/link.jpg").read()


def test_labels_none_one_and_two(tmp_path: Path) -> None:
    tar = tar_of(
        tmp_path / "labels.tar",
        [
            ("none.jpg", b"1"),
            ("two.cls", b"pug"), ("two.jpg", b"2"), ("two.json", b'{"label": "beagle"}'),
            ("same.cls", b"n02110958-pug\n"), ("same.jpg", b"3"),
            ("same.json", b'{"label": "pug", "split": "val"}'),
            ("number.jpg", b"4"), ("number.cls", b"7"),
            ("broken.jpg", b"5"), ("broken.json", b"{"),
            ("deep.jpg", b"6"), ("deep.json", b"[" * 60_000),
            ("odd.jpg", b"7"), ("odd.json", b'{"label": ["pug"]}'),
            ("long.jpg", b"8"), ("long.cls", b"x" * 70_000),
            ("._same.cls", b"x"),
            ("pair.left.jpg", b"9"), ("pair.right.jpg", b"10"), ("pair.cls", b"pug"), ("pair.txt", b"two"),
            ("same.jpg", b"11"),
        ],
    )  # fmt: skip
    found = find_photos(Selection(tar))
    table, _ = make_table(found, None, 2)
    assert labels_of(table) == {
        f"labels.tar/{name}.jpg": label
        for name, label in (
            ("none", ""), ("number", "7"), ("pair.left", "pug"), ("pair.right", "pug"), ("same", "pug"),
        )
    }  # fmt: skip
    assert dict(zip(table.path, table.split, strict=True))["labels.tar/same.jpg"] == "val"
    reasons = {os.path.basename(path): reason for path, reason in table.rejected}
    assert "two labels: pug and beagle" in reasons["two.jpg"]
    assert "another of this name" in reasons["same.jpg"]
    assert all("its label" in reasons[f"{name}.jpg"] for name in ("broken", "deep", "odd", "long"))
    assert len(table) + len(table.rejected) == 11
    assert found.ignored == 2


def test_a_tar_cut_anywhere_keeps_what_came_before(tmp_path: Path) -> None:
    members = [
        (f"{i}.{kind}", data) for i in range(4) for kind, data in (("cls", b"pug"), ("jpg", b"%d" % i * 700))
    ]
    whole = tar_of(tmp_path / "whole.tar", members).read_bytes()
    size, cut = len(whole.rstrip(b"\0")), tmp_path / "cut.tar"
    photos = [sha(data) for name, data in members if name.endswith("jpg")]
    before = 0
    for length in [*range(1, size, 300), *range(512, size, 512), len(whole)]:
        cut.write_bytes(whole[:length])
        found = inside(cut)
        good = keys_of(found)
        assert good == photos[: len(good)]
        if length < size:
            assert found[-1].name == "" and error_of(found[-1])
        before = max(before, len(good))
    assert before == 4 and [error_of(one) for one in found] == [""] * 4
    (tmp_path / "empty.tar").write_bytes(b"")
    assert [one.name for one in inside(tmp_path / "empty.tar")] == [""]
    joined = tmp_path / "joined.tar"  # as `cat` makes one of two
    other = tar_of(tmp_path / "other.tar", [("other.jpg", b"other")]).read_bytes()
    joined.write_bytes(whole + other)
    assert keys_of(inside(joined)) == [*photos, sha(b"other")]


@pytest.mark.slow
def test_any_bytes_end_with_a_reason_and_little_memory(tmp_path: Path) -> None:
    chance, tar = random.Random(13), tmp_path / "changed.tar"
    whole = tar_of(
        tmp_path / "whole.tar",
        [(f"{'n' * 150}{i}.{kind}", b"pug") for i in range(3) for kind in ("jpg", "cls")],
        tarfile.PAX_FORMAT,
    ).read_bytes()
    for _ in range(300):
        data = bytearray(whole)
        for _ in range(chance.randint(1, 6)):
            data[chance.randrange(len(data) - 9000)] = chance.choice(
                (0, 255, 0x80, 48, 55, chance.randrange(256))
            )
        tar.write_bytes(data)
        assert all(error_of(one) or one.read() for one in inside(tar))
        places_in(SourceFile.here(str(tar)))
    bombs = {}
    for kind, size in ((b"x", 2**33), (b"L", 2**30), (b"g", 2**40), (b"0", 2**40)):
        member = tarfile.TarInfo("bomb.jpg")
        member.size, member.type = size, kind
        bombs[kind] = member.tobuf(tarfile.GNU_FORMAT) + bytes(2**20)
    tracemalloc.start()
    for data in bombs.values():
        tar.write_bytes(data)
        assert inside(tar)[-1].name == ""
    with open(tar, "wb") as hole:
        hole.truncate(2**40)
    assert [one.name for one in inside(tar)] == [""]
    assert tracemalloc.get_traced_memory()[1] < 64 * 2**20
    tracemalloc.stop()


# --- Parquet ----------------------------------------------------------------------------------


def test_rows_of_parquet_are_photos_or_reasons(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from breeds.photos import limits

    monkeypatch.setattr(limits, "MAX_BYTES", 1000)
    path = tmp_path / "dogs.parquet"
    images = [b"one", None, b"", b"x" * 2000, b"five", b"six"]
    labels = ["pug", "pug", "pug", "pug", None, "n02110958-pug"]
    splits = ["train", "", None, "test", "validation", "nowhere"]
    pq.write_table(pa.table({"image": images, "label": labels, "split": splits, "more": range(6)}), path)
    table = look(path)
    assert list(table.path) == ["dogs.parquet/000000000", "dogs.parquet/000000004"]
    assert (list(table.label), list(table.split)) == (["pug", ""], ["train", "val"])
    reasons = [reason for _, reason in table.rejected]
    words = ["no bytes", "empty", "over the limit", "split is none"]
    assert all(word in reason for word, reason in zip(words, reasons, strict=True))
    assert photo_at("", f"{path}/000000004").read() == b"five"
    for missing in ("000000009", "4", "rex.jpg"):
        with pytest.raises(GoneError):
            photo_at("", f"{path}/{missing}").read()


def test_a_parquet_file_of_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "dogs.parquet"
    for columns in ({"photo": [b"one"]}, {"image": ["text"]}, {"image": [{"path": "a.jpg"}]}):
        pq.write_table(pa.table(columns), path)
        with pytest.raises(BreedsError, match=r"dogs\.parquet has the columns .*; it needs image"):
            look(path)
    whole = tmp_path / "whole.parquet"
    pq.write_table(pa.table({"image": [b"x" * 5000]}), whole)
    for data in (b"", b"PAR1", whole.read_bytes()[:-20], b"no parquet at all"):
        path.write_bytes(data)
        with pytest.raises(BreedsError, match="is no Parquet file, or damaged or cut off"):
            look(path)


# --- names of sources -------------------------------------------------------------------------


def test_patterns_name_each_file_and_one_that_lacks_is_said(tmp_path: Path) -> None:
    for number in range(3):
        tar_of(tmp_path / f"a-{number:03d}.tar", [(f"{number}.jpg", b"%d" % number)])
    assert len(look(f"{tmp_path}/a-{{000..002}}.tar")) == 3
    assert len(look(f"{tmp_path}/a-{{000,002}}.tar")) == 2
    assert len(look(f"{tmp_path}/a-*.tar")) == len(look(tmp_path)) == 3
    for pattern, words in {
        "a-{000..003}.tar": "a-003.tar",
        "b-*.tar": "No such file",
        "a-{0..999999999}.tar": "more than 100000",
        "a-000.tar.gz": "compressed",
    }.items():
        with pytest.raises(BreedsError, match=words):
            find_streamed(f"{tmp_path}/{pattern}")
    (tmp_path / "photo.jpg").write_bytes(b"a folder of photos, with tars beside them")
    assert find_streamed(tmp_path) is None


def test_the_script_says_what_is_cut_and_goes_on_when_it_is_whole(
    app_place: Path, photos: Path, tmp_path: Path
) -> None:  # in `app_place` its network was converted
    found = files_of(photos)
    in_shards(found, tmp_path / "shards")
    last = tmp_path / "shards/photos-002.tar"
    whole = last.read_bytes()
    last.write_bytes(whole[: len(whole) // 2])
    how = ("shards/photos-{000..002}.tar", "--weights", "random", "--size", 96)
    cut = run_script("extract_features.py", *how, cwd=tmp_path)
    assert cut.returncode == 1, cut.stderr
    assert "photos-002.tar: ends in the middle" in cut.stderr and "\n" in cut.stdout
    had = Store(tmp_path / "features/photos.h5").table
    assert 8 <= len(had) < 12
    last.write_bytes(whole)
    store = tmp_path / "features/photos.h5"
    summary = extract_photos(f"{tmp_path}/{how[0]}", store, size=96)  # type: ignore[arg-type]
    assert (summary.photos, summary.new, summary.quarantined) == (12, 12 - len(had), [])
    refused = run_script("extract_features.py", *how, "--labels", "labels.csv", cwd=tmp_path)
    assert_refused(refused, "--labels is for folders here")
    preview = run_script("extract_features.py", *how, "--preview", cwd=tmp_path)
    assert_refused(preview, "are no files in a folder here")


# --- object storage that fails ----------------------------------------------------------------


def once_each(kind: str) -> Callable[[str, str], str]:
    """A fault at the first request for each object."""
    seen: set[str] = set()

    def fault(method: str, path: str) -> str:
        first = path not in seen
        seen.add(path)
        return kind if first else ""

    return fault


@pytest.mark.slow
@in_bucket
@pytest.mark.parametrize("kind", ["500", "cut", "slow"])
def test_what_fails_in_passing_is_tried_again(kind: str, bucket: Storage) -> None:
    for number in range(4):
        bucket.put(f"{kind}/pug/{number}.jpg", b"%d" % number * 3000)
    bucket.fault = once_each(kind)
    table = look(f"s3://dogs/{kind}")
    assert sorted(table.key) == sorted(sha(b"%d" % number * 3000) for number in range(4))
    assert set(table.label) == {"pug"} and not table.rejected


@pytest.mark.slow
@in_bucket
def test_a_tar_is_read_on_where_it_was_cut(
    bucket: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from breeds.photos import tars

    monkeypatch.setattr(tars, "_READ", 4096)
    members = [(f"{i}.jpg", b"%d" % i * 3000) for i in range(6)]
    bucket.put("cut.tar", tar_of(tmp_path / "cut.tar", members).read_bytes())
    count = iter(range(10**6))
    bucket.fault = lambda method, path: ("cut", "", "500", "")[next(count) % 4]
    assert sorted(look("s3://dogs/cut.tar").key) == sorted(sha(data) for _, data in members)


@pytest.mark.slow
@in_bucket
def test_what_is_not_there_or_not_allowed_is_one_sentence(
    bucket: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.put("closed/a.jpg", b"x")
    for source in ("s3://nowhere/photos", "s3://dogs/nothing", "s3://dogs/gone.tar", "s3://dogs/g-*.tar"):
        with pytest.raises(BreedsError, match=r"^Nothing is at s3://[^ ]*; "):
            find_streamed(source)
    bucket.fault = lambda method, path: "403"
    for source in ("s3://dogs/closed", "s3://dogs/closed/a.tar"):
        with pytest.raises(BreedsError, match="is not allowed"):
            find_streamed(source)
    bucket.fault = lambda method, path: "500"
    bucket.asked.clear()
    with pytest.raises(BreedsError, match="nothing is lost: run the command again"):
        find_streamed("s3://dogs/closed")
    assert 2 <= len(bucket.asked) <= 8
    for source in (
        "nowhere://dogs/a.tar",
        "s3://dogs/a.tar::file:///etc",
        "https://example.org/photos/",
        "file:///etc",
    ):
        with pytest.raises(BreedsError):
            find_streamed(source)


def test_a_run_that_the_network_ends_keeps_what_it_has(
    app_place: Path, forms: Path, bucket: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "PAUSES", ())
    reads = iter(range(10**6))

    def fault(method: str, path: str) -> str:  # once for the keys, then photos until the twelfth
        return "500" if path.endswith(".jpg") and next(reads) >= 30 + 12 else ""

    bucket.fault = fault
    store = tmp_path / "made.h5"
    with pytest.raises(BreedsError, match="nothing is lost"):
        extract_photos("s3://dogs/photos", store, size=96)  # type: ignore[arg-type]
    assert not store.exists()
    bucket.fault = lambda method, path: ""
    summary = extract_photos("s3://dogs/photos", store, size=96)  # type: ignore[arg-type]
    assert summary.photos == summary.features == 30
    assert 10 <= summary.new < 30


@pytest.mark.slow
@in_bucket
def test_only_what_was_named_is_asked_and_nothing_secret_is_shown(bucket: Storage) -> None:
    bucket.put("unnamed/a.jpg", b"x")
    bucket.asked.clear()
    with pytest.raises(GoneError, match="only where the command names it"):
        photo_at("", "s3://dogs/unnamed/a.jpg").read()
    assert not bucket.asked
    assert shown("ftp://rex:secret@example.org/a.tar") == "ftp://example.org/a.tar"
    assert shown("https://example.org/a.tar?sig=secret#x") == "https://example.org/a.tar"
    assert "secret" not in repr(SourceFile("ftp://rex:secret@example.org/a.tar", 1))
    with pytest.raises(BreedsError) as refused:
        find_streamed("nowhere://rex:secret@example.org/a.tar")
    assert "secret" not in str(refused.value)
    assert (stem_of("s3://b/x/train-{00..09}.parquet"), stem_of("s3://dogs")) == ("train", "dogs")


@pytest.mark.slow
@in_bucket
def test_what_changes_while_it_is_read_is_set_aside_and_what_is_the_same_is_not_read(bucket: Storage) -> None:
    for number in range(5):
        bucket.put(f"changing/pug/{number}.jpg", b"%d" % number * 3)
    listed = find_photos(Selection("s3://dogs/changing"))
    bucket.client.delete_object(Bucket="dogs", Key="changing/pug/1.jpg")
    bucket.put("changing/pug/2.jpg", b"2")
    bucket.put("changing/pug/3.jpg", b"3" * 10**6)
    table, _ = make_table(listed, None, 2)
    reasons = ["no such file", *["changed while it was being read; run again"] * 2]
    assert table.rejected == [(f"pug/{i}.jpg", reason) for i, reason in enumerate(reasons, 1)]
    listed = find_photos(Selection("s3://dogs/changing"))
    table, _ = make_table(listed, None, 2)
    assert len(table.key) == 4 and not table.rejected
    bucket.asked.clear()
    again = find_photos(Selection("s3://dogs/changing"))
    assert make_table(again, table, 2)[0].key == table.key  # as with --trust-mtime
    assert not [path for _, path in bucket.asked if path.endswith(".jpg")]
    bucket.put("changing/labels.csv", b"id,breed\n")
    with pytest.raises(BreedsError, match=r"has a labels\.csv"):
        find_streamed("s3://dogs/changing")


@pytest.mark.slow
@in_bucket
def test_a_listing_is_each_object_once_whatever_its_name(bucket: Storage) -> None:
    for name in (
        "odd/pug/1.jpg",
        "odd/pug/",
        "odd/a//b.jpg",
        "odd/../c.jpg",
        "odd/.hidden/d.jpg",
        "odd/notes.txt",
    ):
        bucket.put(name, name.encode())
    found = find_streamed("s3://dogs/odd")
    assert found is not None and all(isinstance(photo, ObjectPhoto) for photo in found.photos)
    assert [photo.name for photo in find_photos(Selection("s3://dogs/odd")).photos] == ["pug/1.jpg"]
    assert found.ignored == 4

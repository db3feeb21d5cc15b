"""The store: plain HDF5 for everyone, checked to the byte, and never trusted when it comes from others."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from conftest import MakeStore, assert_refused, run_script
from hypothesis import given, settings
from hypothesis import strategies as st
from stores import committed, seal, write_journal

from breeds.config import FeatureConfig
from breeds.errors import BreedsError
from breeds.features import (
    FeatureLookup,
    Store,
    Table,
    extend_store,
    journal_folder,
    list_shards,
    verify,
    write_store,
)
from breeds.features.columns import Keys, Names, Texts
from breeds.features.hdf5 import open_hdf5

RECIPE = FeatureConfig("xception", "random", "a" * 64, 299, "stretch")
Features = dict[str, np.ndarray]


def made_up(count: int, width: int = 8) -> Features:
    rng = np.random.default_rng(0)
    return {rng.bytes(32).hex(): rng.normal(size=width).astype(np.float32) for _ in range(count)}


def write_made_up(
    path: Path, features: Features, table: Table | None = None, config: FeatureConfig = RECIPE
) -> Store:
    """Write a store of these features, whose photos are named by their keys if nothing else is said."""
    if table is None:
        n = len(features)
        names = [f"{key[:9]}.jpg" for key in features]
        table = Table("r", "", list(features), names, names, [""] * n, [1] * n, [1] * n)
    write_store(path, table, config, np.stack(list(features.values())), "made up")
    return Store(path)


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Return every file's bytes and time."""
    return {p.name: (p.read_bytes(), p.stat().st_mtime_ns) for p in folder.iterdir()}


def flip(path: Path, needle: bytes) -> None:
    """Change one bit of the first byte of `needle`, which the file holds once."""
    data = bytearray(path.read_bytes())
    assert data.count(needle) == 1
    data[data.index(needle)] ^= 1
    path.write_bytes(data)


@pytest.fixture
def store(make_store: MakeStore) -> Path:
    """A small store of eight numbers a photo, and a shard in its journal."""
    path = make_store({"beagle": 3, "samoyed": 2}, width=8)
    found = Store(path)
    write_journal(journal_folder(path), {"f" * 64: found.features()[0]}, found.config)
    return path


# what everyone reads


def test_plain_h5py_and_pandas_read_a_store_in_three_lines(store: Path) -> None:
    with h5py.File(store) as f:
        frame = pd.DataFrame(f["features"][:], index=f["key"].asstr()[:])
        frame["path"], frame["label"] = f["path"].asstr()[:], f["label"].asstr()[:]
    ours = Store(store)
    assert frame.index.tolist() == ours.table.key
    assert frame.path.tolist() == [f"{b}/{i:04d}.jpg" for i, b in enumerate(["beagle"] * 3 + ["samoyed"] * 2)]
    assert frame.label.value_counts().to_dict() == {"beagle": 3, "samoyed": 2}
    assert frame[list(range(8))].to_numpy().dtype == np.float32
    assert np.array_equal(frame[list(range(8))].to_numpy(), ours.features())


def test_the_config_and_the_versions_are_attributes(store: Path, random_config: FeatureConfig) -> None:
    with h5py.File(store) as f:
        config = dataclasses.replace(random_config, backbone="made up", width=8)
        assert FeatureConfig.from_json(f.attrs["config"]) == config
        assert f.attrs["config_sha256"].decode() == config.digest
        assert json.loads(f.attrs["versions"])["h5py"] == h5py.__version__
        digests = f["block_sha256"][:].tobytes()
        assert digests == hashlib.sha256(f["features"][:].tobytes()).digest()  # of sixteen rows each
        about = f.attrs["about"].decode()
        assert json.loads(about)["digests"]["block_sha256"] == hashlib.sha256(digests).hexdigest()
        assert json.loads(about)["digests"]["path"] == hashlib.sha256(f["path"][:].tobytes()).hexdigest()
        identity = hashlib.sha256(f"{about} {f.attrs['config'].decode()}".encode()).hexdigest()
        assert f.attrs["sha256"].decode() == identity == Store(store).sha256


@pytest.mark.slow
def test_more_rows_than_a_block_come_back_as_they_were(tmp_path: Path) -> None:
    features = made_up(2100)
    keys = sorted(features)
    columns = [[f"{key[:9]}.jpg" for key in keys], [key[0] for key in keys], ["test"] * 2100]
    numbers = [list(range(2100)), [2**40 + i for i in range(2100)]]
    table = Table("root", "w.h5", keys, *columns, *numbers, [("bad.jpg", "empty")])
    journal = write_journal(journal_folder(tmp_path / "s.h5"), features, RECIPE)  # in another order
    found = FeatureLookup(tmp_path / "s.h5", RECIPE).rows(table.key)
    write_store(tmp_path / "s.h5", table, RECIPE, found, "an engine")
    assert len(list_shards(journal)) == 17
    store = Store(tmp_path / "s.h5")
    assert store.table == table
    assert (store.engine, store.config) == ("an engine", RECIPE)
    assert np.array_equal(store.features(), [features[key] for key in keys])
    assert list(verify(tmp_path / "s.h5")) == []


def test_odd_names_survive(tmp_path: Path) -> None:
    names = [
        "bytes \udcff\udc80.jpg",
        "new\nline.jpg",
        "😀.jpg",
        "é.jpg",
        "e\u0301.jpg",
        " ",
        "=1+1",
        "a" * 4000,
    ]
    features = made_up(len(names))
    table = Table("r", "", list(features), names, names, [""] * 8, [1] * 8, [1] * 8, [(n, n) for n in names])
    assert write_made_up(tmp_path / "\udcff.h5", features, table).table == table


@pytest.fixture(scope="module")
def sixty(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, FeatureLookup, Features]:
    """Sixty photos, thirty in a store, twenty unused in it, ten in shards of three."""
    path = tmp_path_factory.mktemp("sixty") / "s.h5"
    features = made_up(60)
    keys, rows = list(features), np.stack(list(features.values()))
    text, ones = [""] * 30, [1] * 30
    table = Table("r", "", keys[:30], text, text, text, ones, ones)
    write_store(path, table, RECIPE, rows[:30], "", (Keys.of(keys[30:50]), rows[30:50]))
    write_journal(journal_folder(path), {key: features[key] for key in keys[50:]}, RECIPE, rows=3)
    return Store(path), FeatureLookup(path, RECIPE), features


@pytest.mark.slow
@settings(deadline=None)
@given(rows=st.lists(st.integers(0, 59), min_size=1, max_size=80))
def test_rows_come_in_the_order_asked_for_with_repeats(sixty, rows: list[int]) -> None:
    store, lookup, features = sixty
    names = list(features)
    expected = [features[names[row]] for row in rows]
    assert np.array_equal(lookup.read([names[row] for row in rows]), expected)
    assert np.array_equal(lookup.rows(Keys.of(names))[min(rows) :], list(features.values())[min(rows) :])
    there = [row for row in rows if row < 30]
    assert np.array_equal(
        store.features(np.array(there, dtype=int)),
        np.reshape([features[names[row]] for row in there], (-1, 8)),
    )
    assert list(lookup.lacks(Keys.of([names[rows[0]], "e" * 64]))) == [False, True]
    with pytest.raises(KeyError):
        lookup.read(["e" * 64])


# growing


@pytest.mark.parametrize("new", [0, 1, 15, 16, 2500])
@pytest.mark.parametrize("there", [1, 16, 47])
def test_a_store_grows_by_new_rows_alone(tmp_path: Path, there: int, new: int) -> None:
    features = made_up(there + new)
    keys, rows = list(features), np.stack(list(features.values()))
    old = write_made_up(tmp_path / "s.h5", dict(list(features.items())[:there]))
    before = old.table.key, old.table.path
    read: list[slice] = []

    class Rows:
        def __getitem__(self, part: slice) -> np.ndarray:
            read.append(part)
            return rows[part]

    n = there + new
    paths = [f"{i} with a longer name.jpg" for i in range(n)]
    extend_store(
        old, Table("r", "", keys, paths, ["a"] * n, [""] * n, [2] * n, [3] * n), Rows(), "another engine"
    )
    store = Store(tmp_path / "s.h5")
    assert (
        list(store.table.key) == keys and list(store.table.path) == paths and store.engine == "another engine"
    )
    assert np.array_equal(store.features(), rows)
    assert list(verify(store.path)) == []
    assert all(part.start >= there // 16 * 16 for part in read)
    assert len(before[0]) == there


def test_a_damaged_store_that_grows_is_as_damaged_as_before(tmp_path: Path) -> None:
    features = made_up(60)
    rows = np.stack(list(features.values()))
    old = write_made_up(tmp_path / "s.h5", dict(list(features.items())[:40]))
    flip(old.path, rows[7].tobytes())
    text, ones = [""] * 60, [1] * 60
    extend_store(Store(old.path), Table("r", "", list(features), text, text, text, ones, ones), rows, "")
    store = Store(old.path)
    assert np.array_equal(store.features(np.arange(16, 60)), rows[16:])
    with pytest.raises(BreedsError, match="the features do not match their checksum"):
        store.features(np.array([7]))


def test_a_store_that_grows_often_wastes_little(tmp_path: Path) -> None:
    features = made_up(4000, width=64)
    keys, rows = list(features), np.stack(list(features.values()))
    write_made_up(tmp_path / "whole.h5", features)
    write_made_up(tmp_path / "s.h5", dict(list(features.items())[:200]))
    for n in range(400, 4001, 200):
        paths = [f"{key[:9]}.jpg" for key in keys[:n]]
        table = Table("r", "", keys[:n], paths, paths, [""] * n, [1] * n, [1] * n)
        extend_store(Store(tmp_path / "s.h5"), table, rows, "")
    assert np.array_equal(Store(tmp_path / "s.h5").features(), rows)
    assert (tmp_path / "s.h5").stat().st_size < 1.2 * (tmp_path / "whole.h5").stat().st_size


@pytest.mark.slow
@given(old=st.lists(st.integers(0, 9), max_size=12), new=st.lists(st.integers(0, 9), max_size=15))
def test_photos_that_were_there_stay_first_and_in_order(old: list[int], new: list[int]) -> None:
    keys = [hashlib.sha256(bytes([i])).hexdigest() for i in range(10)]
    n = len(new)
    table = Table(
        "r", "", [keys[i] for i in new], [f"{i}" for i in range(n)], [""] * n, [""] * n, [1] * n, [1] * n
    )
    after = table.after(Keys.of(keys[i] for i in old))
    if any(old.count(i) > new.count(i) for i in old):
        assert after is None
    else:
        assert after is not None
        assert list(after.key[: len(old)]) == [keys[i] for i in old]
        assert sorted(map(int, after.path)) == list(range(n))
        assert [after.key[i] for i in range(n)] == [keys[new[int(path)]] for path in after.path]
        assert list(map(int, after.path[len(old) :])) == sorted(map(int, after.path[len(old) :]))


ODD = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=5) | st.just("\udcff")


@pytest.mark.slow
@given(
    rows=st.lists(
        st.tuples(st.binary(min_size=32, max_size=32), ODD, st.sampled_from(["", "a", "é"])), max_size=20
    ),
    data=st.data(),
)
def test_columns_are_as_lists_are(rows: list[tuple[bytes, str, str]], data) -> None:
    lists = [[row[0].hex() for row in rows], [row[1] for row in rows], [row[2] for row in rows]]
    chosen = data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=30)) if rows else []
    for kind, texts in zip((Keys, Texts, Names), lists, strict=True):
        column = kind.of(texts)
        assert column == texts
        assert texts == column
        assert [column[i] for i in range(-len(texts), len(texts))] == texts * 2
        assert column[1:4] == texts[1:4]
        assert column[::-1] == kind.of(texts[::-1])
        assert (
            column.take(chosen)
            == [texts[row] for row in chosen]
            == kind.of(texts).take(np.array(chosen, int))
        )
        assert column.take(chosen) == kind.of([texts[row] for row in chosen])
        assert [text in column for text in (*texts, "nowhere")] == [True] * len(texts) + [False]
        assert (column == kind.of([*texts, "ab" * 32])) is False
        with pytest.raises(IndexError):
            column[len(texts)]
    paths = Texts.of(lists[1])
    assert all(paths[paths.find(text)] == text for text in lists[1])
    assert paths.find("nowhere at all") == -1
    table = Table("r", "", *lists, [""] * len(rows), range(len(rows)), range(len(rows)))
    first: dict[str, int] = {}
    for row, (key, label) in enumerate(zip(lists[0], lists[2], strict=True)):
        if label:
            first.setdefault(key, row)
    assert table.labelled_rows() == list(first.values())
    part = table.take(chosen)
    assert (part.key, part.size.tolist()) == ([lists[0][row] for row in chosen], chosen)


# the journal


def test_a_shards_name_is_its_number_and_its_sha256(tmp_path: Path) -> None:
    features = made_up(7)
    write_journal(tmp_path, features, RECIPE, rows=3)
    shards = list_shards(tmp_path)
    assert sorted(os.listdir(tmp_path)) == [shard.name for shard in shards]
    assert [s.name for s in shards] == [
        f"{n:06d}-{hashlib.sha256(s.read_bytes()).hexdigest()}.h5" for n, s in enumerate(shards, start=1)
    ]
    keys: list[str] = []
    for shard in shards:
        with h5py.File(shard) as f:
            keys += f["key"].asstr()[:].tolist()
            assert FeatureConfig.from_json(f.attrs["config"].decode()) == RECIPE
    assert keys == list(features)


def test_committed_shards_are_never_touched_again(tmp_path: Path) -> None:
    features = made_up(10)
    folder = write_journal(tmp_path / "s.journal", dict(list(features.items())[:6]), RECIPE, rows=3)
    before = contents(folder)
    write_journal(folder, dict(list(features.items())[6:]), RECIPE, rows=3)
    after = contents(folder)
    assert before.items() <= after.items()
    assert [name[:6] for name in sorted(after)] == ["000001", "000002", "000003", "000004"]
    assert committed(tmp_path / "s.h5") == {key: row.tobytes() for key, row in features.items()}


@pytest.mark.parametrize("size", [0, 100, 3000, None])
def test_a_damaged_shard_counts_as_not_there_and_its_number_is_not_given_again(
    tmp_path: Path, size: int | None
) -> None:
    features = made_up(6)
    keys = list(features)
    folder = write_journal(tmp_path / "s.journal", features, RECIPE, rows=3)
    first, second = list_shards(folder)
    if size is None:
        flip(first, keys[0].encode())
    else:
        os.truncate(first, size)
    lookup = FeatureLookup(tmp_path / "s.h5", RECIPE)
    assert lookup.damaged == [first] and first.exists()
    assert list(lookup.lacks(Keys.of(keys))) == [True] * 3 + [False] * 3
    first.rename(first.with_suffix(".damaged"))
    write_journal(folder, {keys[0]: features[keys[0]]}, RECIPE)
    assert [s.name[:6] for s in list_shards(folder)] == ["000002", "000003"]
    assert second.exists()


@pytest.mark.parametrize("name", ["notes.txt", "000001-abc.h5", "x.h5", ".000001.tmp"])
def test_files_that_are_no_shards_are_left_alone(tmp_path: Path, name: str) -> None:
    (tmp_path / "s.journal").mkdir()
    (tmp_path / "s.journal" / name).write_text("mine")
    assert FeatureLookup(tmp_path / "s.h5", RECIPE).damaged == []
    assert (tmp_path / "s.journal" / name).read_text() == "mine"


@pytest.mark.parametrize(
    "change",
    [
        {"backbone": "resnet"},
        {"weights_sha256": "b" * 64},
        {"size": 224},
        {"resize": "crop"},
        {"precision": "int8"},
        {"view": "flip"},
        {"decode_rule": "2"},
    ],
)
def test_configs_never_mix_and_both_are_named(tmp_path: Path, change: dict) -> None:
    write_journal(tmp_path / "s.journal", made_up(1), RECIPE)
    other = dataclasses.replace(RECIPE, **change)
    with pytest.raises(BreedsError) as refused:
        FeatureLookup(tmp_path / "s.h5", other)
    (value,) = change.values()
    assert str(RECIPE) in str(refused.value)
    assert str(other) in str(refused.value)
    assert str(value)[:12] in str(other)


def test_another_name_for_the_same_weights_is_the_same_config(tmp_path: Path) -> None:
    features = made_up(1)
    write_journal(tmp_path / "s.journal", features, RECIPE)
    lookup = FeatureLookup(tmp_path / "s.h5", dataclasses.replace(RECIPE, weights="file:renamed.h5"))
    assert not lookup.lacks(Keys.of(features)).any()


# what cannot be read just now


class Cannot:
    """Files that cannot be read: a read error of the system's own, and a file of another user."""

    @staticmethod
    def read_error(path: Path) -> str:
        path.unlink()
        path.symlink_to("/proc/self/mem")  # opens, and fails at the first read
        return "Input/output error"

    @staticmethod
    def permission(path: Path) -> str:
        path.chmod(0)
        return "Permission denied"


NO_PERMISSION = pytest.param(
    Cannot.permission, marks=pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
)


@pytest.mark.parametrize("fail", [Cannot.read_error, NO_PERMISSION])
def test_a_shard_that_cannot_be_read_is_not_taken_for_damaged(
    tmp_path: Path, fail: Callable[[Path], str]
) -> None:
    features = made_up(6)
    folder = write_journal(tmp_path / "s.journal", features, RECIPE, rows=3)
    first, second = list_shards(folder)
    data = first.read_bytes()
    words = fail(first)
    with pytest.raises(BreedsError, match=rf"{first}.*{words}.*nothing was changed"):
        FeatureLookup(tmp_path / "s.h5", RECIPE)
    assert list_shards(folder) == [first, second]
    first.unlink()
    first.write_bytes(data)  # the disk is well again
    assert not FeatureLookup(tmp_path / "s.h5", RECIPE).lacks(Keys.of(features)).any()


def test_verify_says_that_a_shard_cannot_be_read_and_checks_the_others(store: Path) -> None:
    (shard,) = list_shards(journal_folder(store))
    write_journal(journal_folder(store), made_up(3), Store(store).config)
    _, other = list_shards(journal_folder(store))
    os.truncate(other, 10)
    words = Cannot.read_error(shard)
    assert list(verify(store)) == [
        f"{shard}: cannot be read ({words}), which says nothing about its bytes",
        f"{other}: the bytes do not match the checksum in the name",
    ]
    assert shard.is_symlink()


@pytest.mark.parametrize("fail", [Cannot.read_error, NO_PERMISSION])
@pytest.mark.parametrize("command", ["info", "verify"])
def test_a_store_that_cannot_be_read_is_not_called_damaged(
    store: Path, tmp_path: Path, command: str, fail: Callable[[Path], str]
) -> None:
    words = fail(store)
    result = run_script("-m breeds store", command, store, cwd=tmp_path)
    assert_refused(result, f"{store} cannot be read ({words})", "try again; nothing was changed")
    assert "damaged" not in result.stderr
    assert "delete" not in result.stderr


@pytest.mark.parametrize("command", ["-m breeds store info", "-m breeds store verify", "train_head.py"])
def test_a_store_that_another_program_has_open_is_not_called_damaged(
    store: Path, tmp_path: Path, command: str
) -> None:
    arguments = ["--store", store] if command == "train_head.py" else [store]
    with h5py.File(store, "r+"):
        result = run_script(command, *arguments, cwd=tmp_path)
    assert_refused(result, f"{store} is open in another program", "close it there and try again")
    assert "damaged" not in result.stderr
    assert "delete" not in result.stderr
    assert len(Store(store)) == 5


def test_a_read_that_fails_half_way_is_not_called_damage(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The words are HDF5's own, as it puts a failing disk."""
    opened = Store(store)

    def fail(*_: object) -> None:
        raise OSError(
            "Can't synchronously read data (file read failed: time = Mon, filename = 's.h5', errno = 5, "
            "error message = 'Input/output error', buf = 0x1, total read size = 8)"
        )

    monkeypatch.setattr(h5py.Dataset, "__getitem__", fail)
    with pytest.raises(BreedsError, match=r"Input/output error.*nothing was changed") as refused:
        opened.features()
    assert "damaged" not in str(refused.value)


@pytest.mark.parametrize("error", [TypeError, ValueError, KeyError, RuntimeError, FileNotFoundError, OSError])
def test_a_mistake_of_the_callers_is_not_the_files(store: Path, error: type[Exception]) -> None:
    with pytest.raises(error, match="my own"), open_hdf5(store):
        raise error("my own")


# stores from strangers, and from failing disks


def remove(name: str) -> Callable[[h5py.File], None]:
    def change(f: h5py.File) -> None:
        del f[name]

    return change


def replace(name: str, **new: object) -> Callable[[h5py.File], None]:
    def change(f: h5py.File) -> None:
        del f[name]
        f.create_dataset(name, **new)

    return change


def link(name: str, to: object) -> Callable[[h5py.File], None]:
    def change(f: h5py.File) -> None:
        f.copy(name, "elsewhere")
        del f[name]
        f[name] = to

    return change


def attribute(name: str, value: object) -> Callable[[h5py.File], None]:
    def change(f: h5py.File) -> None:
        f.attrs[name] = value

    return change


def virtual(f: h5py.File) -> None:
    layout = h5py.VirtualLayout(shape=(5, 8), dtype=np.float32)
    layout[:] = h5py.VirtualSource("other.h5", "features", shape=(5, 8))
    del f["features"]
    f.create_virtual_dataset("features", layout)


def external_storage(f: h5py.File) -> None:
    del f["size"]
    f.create_dataset("size", shape=(5,), dtype=np.int64, external=[("/etc/passwd", 0, 40)])


def group(f: h5py.File) -> None:
    del f["features"]
    f.create_group("features")


TEXT = h5py.string_dtype()
BOMB = {"dtype": np.float32, "shape": (5, 10**6), "chunks": (5, 1000), "compression": "gzip"}
SABOTAGE = {
    "a format that is a list": attribute("format", [1, 2]),
    "no config": lambda f: f.attrs.__delitem__("config"),
    "a config that is not JSON": attribute("config", "{"),
    "a config that is a number": attribute("config", 7),
    "a config of other keys": attribute("config", '{"backbone": "xception"}'),
    "a config nested without end": attribute("config", "[" * 60000),
    "no features": remove("features"),
    "features that are a group": group,
    "features in another file, virtually": virtual,
    "features behind an external link": link("features", h5py.ExternalLink("other.h5", "/features")),
    "features behind a soft link": link("features", h5py.SoftLink("/elsewhere")),
    "sizes stored in /etc/passwd": external_storage,
    "features of one dimension": replace("features", data=np.zeros(5, np.float32)),
    "features in doubles": replace("features", data=np.zeros((5, 8))),
    "features as one number": replace("features", data=np.float32(1)),
    "a claimed huge dataset": replace("features", dtype=np.float32, shape=(5, 10**12), chunks=(5, 8)),
    "a size that overflows": replace("features", dtype=np.float32, shape=(5, 2**62), chunks=(5, 8)),
    "a compression bomb": replace("features", **BOMB),
    "no keys": remove("key"),
    "keys too few": replace("key", data=np.array([b"a" * 64] * 4)),
    "keys too short": replace("key", data=np.array([b"a"] * 5)),
    "keys that are not ASCII": replace("key", data=np.array([b"\xff" * 64] * 5)),
    "labels too many": replace("label", data=np.array([b"a"] * 6)),
    "labels that are numbers": replace("label", data=np.arange(5)),
    "labels that are lists": replace(
        "label", data=np.array([np.arange(2)] * 5 + [None], dtype=object)[:5], dtype=h5py.vlen_dtype(np.int64)
    ),
    "sizes as one number": replace("size", data=5),
    "rejected photos without a reason": replace("rejected_path", data=np.array([b"a"])),
}


@pytest.mark.parametrize("change", SABOTAGE.values(), ids=SABOTAGE.keys())
def test_a_store_that_is_not_one_is_refused(store: Path, change: Callable[[h5py.File], None]) -> None:
    shutil.copyfile(store, store.with_name("other.h5"))
    with h5py.File(store, "r+") as f:
        change(f)
    with pytest.raises(BreedsError, match=r"made\.h5 is damaged \(.+\); put back a copy, or move it aside"):
        list(Store(store).table.key)


def test_another_format_is_no_damage(store: Path) -> None:
    with h5py.File(store, "r+") as f:
        f.attrs["format"] = np.bytes_("breeds store 99")
    with pytest.raises(
        BreedsError, match=r"is not a feature store of Breeds: its format is 'breeds store 99'"
    ):
        Store(store)


@pytest.mark.parametrize("data", [b"", b"not HDF5", b"\x89HDF\r\n\x1a\n", b"\x89HDF\r\n\x1a\n" + bytes(999)])
def test_a_file_that_is_not_hdf5_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "s.h5").write_bytes(data)
    words = "is damaged" if data.startswith(b"\x89HDF") else "is not a feature store"
    with pytest.raises(BreedsError, match=words):
        Store(tmp_path / "s.h5")


def test_hdf5_of_something_else_a_folder_and_nothing_are_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "s.h5", "w") as f:
        f["temperature"] = np.arange(3)
    for path in (tmp_path / "s.h5", tmp_path):
        with pytest.raises(BreedsError, match="is not a feature store"):
            Store(path)
    with pytest.raises(BreedsError, match=r"No such store: .*nothere\.h5"):
        Store(tmp_path / "nothere.h5")


@pytest.fixture(scope="module")
def small_store(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The bytes of a store."""
    path = tmp_path_factory.mktemp("small") / "s.h5"
    features, more = made_up(5), np.ones((3, 8), dtype=np.float32)
    text = list("abcde")
    table = Table("r", "", list(features), text, text, [""] * 5, [1] * 5, [1] * 5, [("f", "empty")])
    unused = Keys.of(f"{i:064x}" for i in range(3))
    write_store(path, table, RECIPE, np.stack(list(features.values())), "", (unused, more))
    return path.read_bytes()


@given(share=st.floats(0, 1, exclude_max=True))
def test_a_truncated_store_is_refused(
    small_store: bytes, tmp_path_factory: pytest.TempPathFactory, share: float
) -> None:
    path = tmp_path_factory.getbasetemp() / "truncated.h5"
    path.write_bytes(small_store[: (length := int(len(small_store) * share))])
    with pytest.raises(BreedsError, match="is damaged" if length >= 8 else "is not a feature store"):
        Store(path)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e38, -1e38])
def test_features_that_are_not_finite_are_refused_by_name(store: Path, value: float) -> None:
    with h5py.File(store, "r+") as f:  # as if it had been written so
        f["features"][3, 5] = value
        seal(f)
    for rows in (None, np.array([4, 3])):
        with pytest.raises(BreedsError, match=r"not finite numbers, .* first those of samoyed/0003\.jpg"):
            Store(store).features(rows)
    assert np.isfinite(Store(store).features(np.array([0, 4]))).all()


def test_a_flipped_byte_of_a_feature_is_noticed(store: Path) -> None:
    flip(store, Store(store).features()[2].tobytes())
    with pytest.raises(BreedsError, match="damaged"):
        Store(store).features()
    (problem,) = verify(store)
    assert problem.startswith(f"{store}: the features do not match")


def test_verify_notices_features_that_someone_rewrote(store: Path) -> None:
    with h5py.File(store, "r+") as f:
        f["features"][0, 0] += 1  # with a new block checksum
    (problem,) = verify(store)
    assert problem.startswith(f"{store}: ")


# python -m breeds store


def test_info_and_verify_say_what_a_store_holds(
    store: Path, tmp_path: Path, random_config: FeatureConfig
) -> None:
    info = run_script("-m breeds store", "info", store, cwd=tmp_path)
    assert info.returncode == 0
    config = dataclasses.replace(random_config, backbone="made up")
    for part in (str(store), "5 photos", str(config), config.digest, "3 beagle", "2 samoyed"):
        assert part in info.stdout
    whole = run_script("-m breeds store", "verify", store, cwd=tmp_path)
    assert (whole.returncode, whole.stderr) == (0, "")
    assert "5 features and 1 parts of its journal match their checksums" in whole.stdout


def test_verify_names_the_damaged_shard_and_exits_with_1(store: Path, tmp_path: Path) -> None:
    (shard,) = list_shards(journal_folder(store))
    flip(shard, b"f" * 64)
    result = run_script("-m breeds store", "verify", store, cwd=tmp_path)
    assert result.returncode == 1
    assert result.stdout == f"{shard}: the bytes do not match the checksum in the name\n"
    assert shard.exists()  # verify looks, and changes nothing


@pytest.mark.parametrize("command", ["info", "verify"])
@pytest.mark.parametrize("name", ["nothere.h5", "text.h5", "."])
def test_what_is_no_store_is_one_sentence_and_exit_code_2(tmp_path: Path, command: str, name: str) -> None:
    (tmp_path / "text.h5").write_text("not HDF5")
    assert_refused(run_script("-m breeds store", command, name, cwd=tmp_path), name)


_GOOD: list[tuple[Store, np.ndarray]] = []  # the small store as it is, read once


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_no_flipped_byte_goes_unnoticed(small_store: bytes, tmp_path_factory, data) -> None:
    path = tmp_path_factory.getbasetemp() / "flipped.h5"
    path.write_bytes(small_store)
    if not _GOOD:
        _GOOD.append((Store(path), Store(path).features()))
    ((good, features),) = _GOOD
    at = data.draw(st.integers(0, len(small_store) - 1))
    changed = bytearray(small_store)
    changed[at] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(changed)
    try:
        store = Store(path)
        assert list(verify(path)) or (
            store.table == good.table and np.array_equal(store.features(), features)
        )
    except BreedsError:
        pass


def test_a_store_that_was_replaced_since_it_was_opened_is_refused_not_mixed_up(make_store) -> None:
    path = make_store({"a": 3, "b": 2}, width=8)
    store = Store(path)
    make_store({"b": 2, "a": 3}, width=8, seed=1)
    with pytest.raises(BreedsError, match="was replaced while it was being read"):
        store.features()


def test_info_prints_names_that_are_not_utf8(tmp_path: Path) -> None:
    features = made_up(1)
    table = Table("r", "", list(features), ["\udcff"], ["\udcff"], [""], [1], [1], [("q\udcff", "bad")])
    write_made_up(tmp_path / "s.h5", features, table)
    env = {"PYTHONIOENCODING": "utf-8:strict"}  # as in every locale but C and POSIX
    result = run_script("-m breeds store", "info", "s.h5", cwd=tmp_path, env=env)
    assert result.returncode == 0, result.stderr


def test_the_network_of_int8_lies_in_the_store_and_is_checked(make_store, tmp_path: Path) -> None:
    from breeds.config import Network
    from breeds.features.journal import list_networks, save_network
    from breeds.features.lookup import find_network

    network = Network(np.arange(9, dtype=np.uint8), np.arange(99, dtype=np.uint8))
    config = dataclasses.replace(RECIPE, precision="int8", calibration=network.digest)
    plain, path = Store(make_store({"a": 3, "b": 3}, width=8)), tmp_path / "int8.h5"
    with pytest.raises(BreedsError, match="is not in"):
        find_network(network.digest, [path])
    save_network(network, journal_folder(path))  # as in a run that has not come to its end
    assert find_network(network.digest, [path]).digest == network.digest
    write_store(path, plain.table, config, plain.features(), "", None, network)
    assert list(verify(path)) == []
    (kept,) = list_networks(journal_folder(path)).values()
    flip(kept, network.bin.tobytes())
    assert list(verify(path)) == [f"{kept}: the bytes do not match the checksum in the name"]
    kept.unlink()
    assert find_network(network.digest, [path]).digest == network.digest
    assert Store(path).networks()[network.digest].bin.tobytes() == network.bin.tobytes()
    with h5py.File(path, "r+") as f:
        f["network/bin"][3] ^= 1
    with pytest.raises(BreedsError, match="int8 network does not match its checksum"):
        list(verify(path))

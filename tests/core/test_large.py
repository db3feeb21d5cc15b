"""Stores of many photos: nothing read that was not asked for, nothing written again that is there."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from dataclasses import fields, replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from conftest import assert_refused, extract_photos, run_script

from breeds.config import FeatureConfig
from breeds.errors import BreedsError
from breeds.evaluation import evaluate
from breeds.features import FeatureIndex, Store, Table, assemble, list_shards, shard_folder, verify
from breeds.features.table import COLUMNS, Unread
from breeds.features.tablefile import LARGE
from breeds.heads.model import load_model
from breeds.prediction import predict
from breeds.training import draw, train

RECIPE = FeatureConfig("made up", "random", "ab" * 32, 96, "stretch")


class StandIn:
    """An engine that costs nothing: a few pixels are the feature."""

    name = "stand-in"
    outruns_threads = False

    def stream(self, pixels: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        for photo in pixels:
            yield np.resize(np.float32(photo[::7, ::7].reshape(-1)), 2048)


@pytest.fixture
def photos(drawn_photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("breeds.extraction.open_engine", lambda *_, **__: StandIn())
    monkeypatch.setattr("breeds.features.shards.SHARD_ROWS", 8)
    return shutil.copytree(drawn_photos, tmp_path / "photos")


def scattered(photos: Path, tmp_path: Path) -> Path:
    """Extract and leave the features in shards."""
    store = tmp_path / "features" / "s.h5"
    assert extract_photos(photos, store, in_one=False).new > 16
    return store


def stamps(folder: Path) -> dict[str, tuple[int, int]]:
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in list_shards(folder)}


# features in shards


@pytest.mark.slow
def test_features_in_shards_are_those_of_a_store_put_together(photos: Path, tmp_path: Path) -> None:
    store, whole = scattered(photos, tmp_path), tmp_path / "features" / "whole.h5"
    extract_photos(photos, whole)
    one, other = Store.open(store), Store.open(whole)
    with h5py.File(store) as file:
        assert "features" not in file
    assert one.table == other.table
    assert np.array_equal(one.features(), other.features())
    rows = np.array([17, 3, 3, 0])
    assert np.array_equal(one.features(rows), other.features()[rows])
    keys = [one.table.key[row] for row in rows]
    assert np.array_equal(other.features_of(keys), one.features_of(keys))
    assert list(verify(store)) == []
    assert store.stat().st_size < whole.stat().st_size / 4


@pytest.mark.slow
def test_new_photos_are_added_without_writing_or_reading_the_rest(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = scattered(photos, tmp_path)
    before, found = stamps(shard_folder(store)), Store.open(store)
    first = min(photos.glob("*/*"))
    first.with_name("new.png").write_bytes(first.read_bytes() + b"!")
    read: list[str] = []
    whole = __import__("breeds.features.shards", fromlist=["read_shard"]).read_shard
    monkeypatch.setattr(
        "breeds.features.shards.read_shard", lambda path: read.append(path.name) or whole(path)
    )
    summary = extract_photos(photos, store)
    assert (summary.new, summary.changed, read) == (1, True, [])
    after = stamps(shard_folder(store))
    assert len(after) == len(before) + 1 and before.items() <= after.items()
    again = Store.open(store)
    assert again.shards is not None and len(again.table) == len(found.table) + 1
    assert np.array_equal(again.features_of(list(found.table.key)), found.features())
    assert extract_photos(photos, store).changed is False


@pytest.mark.slow
def test_a_store_changes_its_form_and_loses_nothing(photos: Path, tmp_path: Path) -> None:
    store = tmp_path / "features" / "s.h5"
    extract_photos(photos, store)
    with h5py.File(store) as file:
        plain = {name: file[name][:].tobytes() for name in file}
    shutil.rmtree(shard_folder(store))  # so the store alone has them
    summary = extract_photos(photos, store, in_one=False)
    assert (summary.new, summary.changed) == (0, True)
    assert Store.open(store).shards is not None and len(list_shards(shard_folder(store))) > 2
    summary = extract_photos(photos, store, in_one=True)
    assert (summary.new, summary.changed) == (0, True)
    with h5py.File(store) as file:
        assert {name: file[name][:].tobytes() for name in file} == plain


@pytest.mark.slow
def test_a_damaged_shard_is_named_and_moved_aside_it_is_computed_again(photos: Path, tmp_path: Path) -> None:
    store = scattered(photos, tmp_path)
    expected = Store.open(store).features()
    shard = list_shards(shard_folder(store))[1]
    with h5py.File(shard) as file:
        feature = file["features"][2].tobytes()
    data = bytearray(shard.read_bytes())
    data[data.index(feature) + 9] ^= 4
    shard.write_bytes(data)
    with pytest.raises(BreedsError, match=f"{shard.name} is damaged"):
        Store.open(store).features()
    assert np.array_equal(Store.open(store).features(np.arange(8)), expected[:8])
    (problem,) = verify(store)
    assert str(shard) in problem
    shard.rename(shard.with_suffix(".damaged"))
    (problem,) = verify(store)
    assert problem.endswith(f"{shard} is gone")
    summary = extract_photos(photos, store)
    assert summary.new == 8 and "is gone" in summary.mended
    assert np.array_equal(Store.open(store).features(), expected)


def test_a_shard_of_another_name_is_none(photos: Path, tmp_path: Path) -> None:
    store = scattered(photos, tmp_path)
    shards = list_shards(shard_folder(store))
    shards[0].write_bytes(shards[1].read_bytes())
    with pytest.raises(BreedsError, match="is damaged"):
        Store.open(store).features(np.arange(3))


def test_the_scripts_take_a_store_that_leaves_its_features_in_shards(app_place: Path, tmp_path: Path) -> None:
    shutil.copytree(app_place / "photos", tmp_path / "photos")
    (tmp_path / "features").mkdir()
    shutil.copy(app_place / "features/photos.h5", tmp_path / "features/photos.h5")
    extracted = run_script(
        "extract_features.py", "photos", "--weights", "random", "--size", "96", "--no-assemble", cwd=tmp_path
    )
    assert extracted.returncode == 0, extracted.stderr
    assert "(0 new" in extracted.stdout
    assert (tmp_path / "features/photos.h5").stat().st_size < 200_000
    for script, *arguments in (
        ("train_head.py", "--C", "0.01"),
        ("evaluate.py",),
        ("predict.py", min((tmp_path / "photos").glob("*/*"))),
    ):
        done = run_script(script, *arguments, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    shutil.rmtree(tmp_path / "features/photos.shards")
    assert_refused(run_script("train_head.py", "--C", "0.01", cwd=tmp_path), "No such store")


# half precision


@pytest.mark.slow
def test_features_in_half_precision_are_a_config_of_their_own(photos: Path, tmp_path: Path) -> None:
    store, whole = tmp_path / "features" / "half.h5", tmp_path / "features" / "whole.h5"
    extract_photos(photos, store, dtype="float16")
    extract_photos(photos, whole)
    half, full = Store.open(store), Store.open(whole)
    assert half.features().dtype == np.float32
    assert np.array_equal(half.features(), full.features().astype(np.float16))
    assert half.config.digest != full.config.digest and str(half.config).count("float16") == 1
    with h5py.File(store) as file, h5py.File(whole) as other:
        assert file["features"].dtype == np.float16
        assert file["features"].nbytes * 2 == other["features"].nbytes
    assert list(verify(store)) == []
    with pytest.raises(BreedsError, match="another config"):
        extract_photos(photos, whole, dtype="float16")
    expected = half.features()
    extract_photos(photos, store, dtype="float16", in_one=False)
    assert np.array_equal(Store.open(store).features(), expected)


def test_a_photo_is_answered_the_same_from_a_store_and_anew(app_place: Path, tmp_path: Path) -> None:
    shutil.copytree(app_place / "photos", tmp_path / "photos")
    options = ("--weights", "random", "--size", "96", "--dtype", "float16")
    for script, *arguments in (("extract_features.py", "photos", *options), ("train_head.py", "--C", "0.01")):
        done = run_script(script, *arguments, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    model = load_model(tmp_path / "models/photos.safetensors")
    photo = str(min((tmp_path / "photos").glob("*/*")))
    answers = [next(iter(predict(model, [photo], None, None)))]
    (tmp_path / "features/photos.h5").unlink()
    answers.append(next(iter(predict(model, [photo], None, None))))
    assert np.array_equal(answers[0].probabilities, answers[1].probabilities)


# many rows


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of so many photos that its table is read when it is asked for."""
    n = LARGE + 1234
    path = tmp_path_factory.mktemp("large") / "large.h5"
    rng = np.random.default_rng(0)
    packed = rng.bytes(32 * n)
    keys = [packed[32 * i : 32 * i + 32].hex() for i in range(n)]

    class Made(FeatureIndex):
        def read(self, keys: list[str]) -> np.ndarray:
            first = np.frombuffer(b"".join(bytes.fromhex(key)[:8] for key in keys), dtype=np.uint8)
            return first.reshape(-1, 8).astype(np.float32)

    names = [f"breed {i * 7 // n}" for i in range(n)]
    numbers = np.arange(n)
    paths = [f"{name}/ä {i:06d}.jpg" for i, name in enumerate(names)]
    assemble(path, Table("/photos", "", keys, paths, names, [""] * n, numbers, numbers), Made(RECIPE), "")
    return path


@pytest.mark.slow
def test_a_large_table_is_read_when_it_is_asked_for(large: Path) -> None:
    table = Store.open(large).table
    assert all(isinstance(vars(table)[name], Unread) for name in COLUMNS)
    assert len(table) == LARGE + 1234
    assert (table.label[0], table.label[-1], table.path[-1]) == (
        "breed 0", "breed 6", f"breed 6/ä {LARGE + 1233:06d}.jpg",
    )  # fmt: skip
    assert isinstance(vars(table)["key"], Unread) and not isinstance(vars(table)["path"], Unread)


@pytest.mark.slow
def test_a_thousand_features_by_key_out_of_many(large: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from breeds.features import hdf5

    store, read = Store.open(large), 0
    keys = [store.table.key[int(i)] for i in np.random.default_rng(1).integers(0, len(store.table), 1000)]
    block = hdf5.read_block

    def counting(source: h5py.Dataset, *rows: int) -> np.ndarray:
        nonlocal read
        found = block(source, *rows)
        read += len(found) if source.name == "/features" else 0
        return found

    monkeypatch.setattr(hdf5, "read_block", counting)
    found = store.features_of(keys)
    assert [bytes(row) for row in found.astype(np.uint8)] == [bytes.fromhex(key)[:8] for key in keys]
    assert 1000 < read < 17_000


@pytest.mark.slow
def test_damage_is_noticed_where_it_is_read(large: Path, tmp_path: Path) -> None:
    path = Path(shutil.copy(large, tmp_path))
    with h5py.File(path, "r+") as file:  # so HDF5's own checksums fit
        file["features"][40_000] += 1
        file["label"][5] = b"another"
    store = Store.open(path)
    assert np.isfinite(store.features(np.arange(30_000, 30_010))).all()
    with pytest.raises(BreedsError, match="the features do not match their checksum"):
        store.features(np.array([39_999, 40_000]))
    with pytest.raises(BreedsError, match="the table does not match its checksum"):
        store.table.label[0]
    with pytest.raises(BreedsError, match="the table does not match its checksum"):
        list(verify(path))


def test_a_large_store_that_was_replaced_is_not_mixed_up(large: Path, tmp_path: Path, make_store) -> None:
    path = Path(shutil.copy(large, tmp_path))
    store = Store.open(path)
    other = Store.open(make_store({"a": 5, "b": 5}))
    index = FeatureIndex(other.config)
    other.count_in(index)
    assemble(path, other.table, index, "")
    with pytest.raises(BreedsError, match="was replaced while it was being read"):
        store.table.label[0]


# training on as many photos as memory holds


@pytest.mark.slow
def test_training_on_the_half_that_fits_is_about_as_good(make_store) -> None:
    store = Store.open(make_store({"a": 3000, "b": 2000, "c": 2000}, width=32, spread=0.35))
    half = 2800 * 7 * 32 * 4
    whole, fitting = (train(store, memory=memory) for memory in (10**12, half))
    assert "n_drawn" not in whole.record
    assert (fitting.record["n_drawn"], fitting.record["n_available"]) == (2800, 5600)
    one, other = (evaluate(store, model)["log_loss"] for model in (whole, fitting))
    assert other < 1.02 * one
    assert (whole.seen == fitting.seen).all() and (whole.tested == fitting.tested).all()


def test_photos_are_drawn_by_key_and_class_alike_in_any_order() -> None:
    rng = np.random.default_rng(0)
    keys = [rng.bytes(32).hex() for _ in range(900)]
    targets = np.repeat([0, 1, 2], [600, 285, 15])
    drawn = draw(keys, targets, 300)
    assert np.bincount(targets[drawn]).tolist() == [200, 95, 10]
    order = rng.permutation(900)
    again = draw([keys[i] for i in order], targets[order], 300)
    assert {keys[i] for i in drawn} == {keys[order[i]] for i in again}
    more = draw(keys, targets, 600)
    assert set(drawn) < set(more) and len(draw(keys, targets, 900)) == 900
    assert np.bincount(targets[draw(keys, targets, 0)]).tolist() == [10, 10, 10]


def test_only_the_photos_that_are_drawn_are_read(make_store) -> None:
    store = Store.open(make_store({"a": 300, "b": 300}, width=16))
    read: list[int] = []

    class Watched(Store):
        def features(self, rows: np.ndarray | None = None) -> np.ndarray:
            read.extend(range(600) if rows is None else rows)
            return super().features(rows)

    watched = Watched(**{field.name: getattr(store, field.name) for field in fields(store)})
    model = train(watched, C=0.01, memory=100 * 7 * 16 * 4)
    assert len(read) == len(set(read)) == model.record["n_drawn"] == 100


@pytest.mark.slow
def test_views_are_drawn_with_their_photos(make_store) -> None:
    plain = Store.open(make_store({"a": 90, "b": 60, "c": 60}, width=32, spread=1.0))
    flipped = replace(plain.config, view="flip")
    view = plain.path.with_name("made+flip.h5")
    moved = {key: row + np.float32(0.3) for key, row in zip(plain.table.key, plain.features(), strict=True)}

    class Made(FeatureIndex):
        def read(self, keys: list[str]) -> np.ndarray:
            return np.stack([moved[key] for key in keys])

    assemble(view, plain.table, Made(flipped), "")
    model = train(plain, C=0.02, views=[Store.open(view)], memory=2 * 60 * 7 * 32 * 4)
    assert 50 < model.record["n_drawn"] <= 60 and model.record["views"] == ["flip"]
    assert evaluate(plain, model)["accuracy"] > 0.9


@pytest.mark.slow
def test_the_run_says_how_many_photos_fitted(make_store, tmp_path: Path) -> None:
    make_store({"a": 900, "b": 900}, width=512)
    done = run_script("train_head.py", "--memory", "10MB", "--C", "0.01", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "fitted to 696 of these 1440 photos, drawn by key and class" in done.stdout


# stores of the first format

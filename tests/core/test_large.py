"""Stores of many photos: nothing read that was not asked for, nothing written again that is there."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from conftest import run_script

from breeds.config import FeatureConfig
from breeds.errors import BreedsError
from breeds.evaluation import evaluate
from breeds.features import Store, Table, verify, write_store
from breeds.features.datasets import checked
from breeds.features.table import COLUMNS, Unread
from breeds.training import draw, train

PHOTOS = 51_234
RECIPE = FeatureConfig("made up", "random", "ab" * 32, 96, "stretch")


# many rows


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of so many photos that its table is read when it is asked for."""
    n = PHOTOS
    path = tmp_path_factory.mktemp("large") / "large.h5"
    rng = np.random.default_rng(0)
    packed = rng.bytes(32 * n)
    keys = [packed[32 * i : 32 * i + 32].hex() for i in range(n)]
    features = np.frombuffer(packed, dtype=np.uint8).reshape(-1, 32)[:, :8].astype(np.float32)
    names = [f"breed {i * 7 // n}" for i in range(n)]
    numbers = np.arange(n)
    paths = [f"{name}/ä {i:06d}.jpg" for i, name in enumerate(names)]
    table = Table("/photos", "", keys, paths, names, [""] * n, numbers, numbers)
    write_store(path, table, RECIPE, features, "")
    return path


@pytest.mark.slow
def test_a_large_table_is_read_when_it_is_asked_for(large: Path) -> None:
    table = Store(large).table
    assert all(isinstance(vars(table)[name], Unread) for name in COLUMNS)
    assert len(table) == PHOTOS
    assert (table.label[0], table.label[-1], table.path[-1]) == (
        "breed 0", "breed 6", f"breed 6/ä {PHOTOS - 1:06d}.jpg",
    )  # fmt: skip
    assert isinstance(vars(table)["key"], Unread) and not isinstance(vars(table)["path"], Unread)


@pytest.mark.slow
def test_a_thousand_features_by_key_out_of_many(large: Path) -> None:
    store = Store(large)
    keys = [store.table.key[int(i)] for i in np.random.default_rng(1).integers(0, len(store.table), 1000)]
    found = store.features_of(keys)
    assert [bytes(row) for row in found.astype(np.uint8)] == [bytes.fromhex(key)[:8] for key in keys]
    with store.opened() as file:
        blocks = checked(file, store.about["digests"]["block_sha256"], np.sort(store.rows_of(keys)))
        assert 1000 < sum(len(block) for _, block in blocks) < 17_000


@pytest.mark.slow
def test_damage_is_noticed_where_it_is_read(large: Path, tmp_path: Path) -> None:
    path = Path(shutil.copy(large, tmp_path))
    with h5py.File(path, "r+") as file:  # which HDF5 does not notice
        file["features"][40_000] += 1
        file["label"][5] = b"another"
    store = Store(path)
    assert np.isfinite(store.features(np.arange(30_000, 30_010))).all()
    with pytest.raises(BreedsError, match="the features do not match their checksum"):
        store.features(np.array([39_999, 40_000]))
    with pytest.raises(BreedsError, match="label does not match its checksum"):
        store.table.label[0]
    problems = ["label does not match its checksum", "the features do not match their checksum"]
    assert sorted(verify(path)) == [f"{path}: {problem}" for problem in problems]


def test_a_large_store_that_was_replaced_is_not_mixed_up(large: Path, tmp_path: Path, make_store) -> None:
    path = Path(shutil.copy(large, tmp_path))
    store = Store(path)
    other = store.table.take([3, 2, 1])
    store = Store(path)
    write_store(path, other, store.config, np.ones((3, 8), dtype=np.float32), "")
    with pytest.raises(BreedsError, match="was replaced while it was being read"):
        store.table.label[0]


# training on as many photos as memory holds


@pytest.mark.slow
def test_training_on_the_half_that_fits_is_about_as_good(make_store) -> None:
    store = Store(make_store({"a": 3000, "b": 2000, "c": 2000}, width=32, spread=0.35))
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
    store = Store(make_store({"a": 300, "b": 300}, width=16))
    read: list[int] = []

    class Watched(Store):
        def features(self, rows: np.ndarray | None = None) -> np.ndarray:
            read.extend(range(600) if rows is None else rows)
            return super().features(rows)

    watched = Watched(store.path)
    model = train(watched, C=0.01, memory=100 * 7 * 16 * 4)
    assert len(read) == len(set(read)) == model.record["n_drawn"] == 100


@pytest.mark.slow
def test_views_are_drawn_with_their_photos(make_store) -> None:
    plain = Store(make_store({"a": 90, "b": 60, "c": 60}, width=32, spread=1.0))
    flipped = replace(plain.config, view="flip")
    view = plain.path.with_name("made+flip.h5")
    write_store(view, plain.table, flipped, plain.features() + np.float32(0.3), "")
    model = train(plain, C=0.02, views=[Store(view)], memory=2 * 60 * 7 * 32 * 4)
    assert 50 < model.record["n_drawn"] <= 60 and model.record["views"] == ["flip"]
    assert evaluate(plain, model)["accuracy"] > 0.9


@pytest.mark.slow
def test_the_run_says_how_many_photos_fitted(make_store, tmp_path: Path) -> None:
    make_store({"a": 900, "b": 900}, width=512)
    done = run_script("train_head.py", "--memory", "10MB", "--C", "0.01", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "fitted to 696 of these 1440 photos, drawn by key and class" in done.stdout

"""Stores of many photos: nothing read that was not asked for, nothing written again that is there."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from conftest import assert_refused, run_script

from breeds.config import FeatureConfig
from breeds.errors import BreedsError
from breeds.evaluation import evaluate
from breeds.features import Store, Table, verify, write_store
from breeds.features.table import COLUMNS, Unread
from breeds.features.tablefile import LARGE
from breeds.training import train

RECIPE = FeatureConfig("made up", "random", "ab" * 32, 96, "stretch")


# many rows


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of so many photos that its table is read when it is asked for."""
    n = LARGE + 1234
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
    other = store.table.take([3, 2, 1])
    store = Store.open(path)
    write_store(path, other, store.config, np.ones((3, 8), dtype=np.float32), "")
    with pytest.raises(BreedsError, match="was replaced while it was being read"):
        store.table.label[0]


# training in batches


@pytest.mark.slow
@pytest.mark.parametrize("balanced", [False, True])
@pytest.mark.parametrize("counts", [{"a": 300, "b": 200, "c": 60}, {"a": 200, "b": 100}])
def test_training_in_batches_finds_what_training_at_once_finds(
    make_store, counts: dict[str, int], balanced: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("breeds.training.batches._BATCH", 64)
    store = Store.open(make_store(counts, width=48, spread=0.6))
    one, other = (train(store, C=0.02, balanced=balanced, memory=memory) for memory in (10**12, 1))
    assert other.record["in_batches"] and "in_batches" not in one.record
    features = store.features()
    for model in (one, other):  # temperatures are of other folds
        model.temperature = 1.0
    assert np.abs(one.probabilities(features) - other.probabilities(features)).max() < 5e-3
    assert np.allclose(one.mean, other.mean, atol=1e-5) and np.allclose(one.scale, other.scale, rtol=1e-5)
    expected, found = one.unknown, other.unknown
    assert np.allclose(found.excess(features), expected.excess(features), atol=1e-5)
    assert found.threshold == pytest.approx(expected.threshold, abs=1e-5)
    assert (one.seen == other.seen).all() and (one.tested == other.tested).all()


@pytest.mark.slow
def test_c_chosen_on_a_sample_is_as_good_as_on_all(make_store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("breeds.training.batches._BATCH", 256)
    monkeypatch.setattr("breeds.training.batches._SAMPLE", 300)
    counts = dict.fromkeys("abcd", 500)
    store = Store.open(make_store(counts, width=64, spread=0.25))
    models = [train(store, memory=memory) for memory in (10**12, 1)]
    assert "on 300 of the 1600 photos" in models[1].record["C_chosen_by"]
    one, other = (evaluate(store, model)["log_loss"] for model in models)
    assert other < 1.02 * one


@pytest.mark.slow
def test_views_are_trained_on_in_batches_too(make_store) -> None:
    plain = Store.open(make_store({"a": 90, "b": 60, "c": 60}, width=32))
    flipped = replace(plain.config, view="flip")
    view = plain.path.with_name("made+flip.h5")
    write_store(view, plain.table, flipped, plain.features() + np.float32(0.3), "")
    one, other = (train(plain, C=0.02, views=[Store.open(view)], memory=memory) for memory in (10**12, 1))
    for model in (one, other):
        model.temperature = 1.0
    features = plain.features()
    assert np.abs(one.probabilities(features) - other.probabilities(features)).max() < 2e-3


@pytest.mark.slow
def test_what_does_not_fit_the_dense_head_is_refused(make_store, tmp_path: Path) -> None:
    make_store({"a": 900, "b": 900}, width=512)
    done = run_script("train_head.py", "--head", "dense", "--memory", "10MB", cwd=tmp_path)
    assert_refused(done, "The dense head takes all features into memory", "--head logistic")
    assert not list(tmp_path.glob("models/*"))
    done = run_script("train_head.py", "--memory", "10MB", "--C", "0.01", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "in batches" in done.stdout

"""What evaluation and comparison add: unknown, doubts, cross-validation, heads, models side by side."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import assert_refused, run_script, tensorflow
from sklearn.linear_model import LogisticRegression

from breeds.features import Store
from breeds.heads import logistic
from breeds.heads.crossval import compare_heads, cross_validate
from breeds.heads.label_issues import find_doubts, find_near_duplicates
from breeds.training import train

COUNTS = {"a": 40, "b": 40, "c": 40}


@pytest.mark.parametrize("balanced", [False, True])
@pytest.mark.parametrize("n", [60, 400])
def test_the_small_space_gives_scikit_learns_answers(n: int, balanced: bool) -> None:
    """With fewer photos than features, through their span; with more, directly."""
    rng = np.random.default_rng(0)
    targets = rng.choice(4, n, p=[0.4, 0.3, 0.2, 0.1])
    features = (rng.normal(size=(4, 200))[targets] * 0.3 + rng.normal(size=(n, 200))).astype(np.float32)
    mean, scale = logistic.standardise(features)
    standard = (features - mean) / scale
    weights, bias = logistic.fit(standard, targets, 0.05, balanced)
    search = logistic.search_C(standard, targets, np.arange(n) % 5, balanced, grid=(0.05,))
    warm = logistic.fit(standard, targets, 0.05, balanced, search)
    wanted = LogisticRegression(
        C=0.05, tol=1e-8, max_iter=5000, class_weight="balanced" if balanced else None
    ).fit(standard.astype(float), targets)
    unseen = ((rng.normal(size=(50, 200)) - mean) / scale).astype(np.float32)
    for some_weights, some_bias in ((weights, bias), warm):
        logits = (unseen @ some_weights + some_bias).astype(float)
        found = np.exp(logits - logits.max(axis=1, keepdims=True))
        found /= found.sum(axis=1, keepdims=True)
        assert np.abs(found - wanted.predict_proba(unseen)).max() < 1e-4


def test_planted_wrong_labels_are_found(make_store) -> None:
    from breeds.features import Table, write_store

    path = make_store(COUNTS, noise=0.5)
    store = Store(path)
    wrong = [3, 50, 100]
    labels = [("abc"[("abc".index(x) + 1) % 3] if i in wrong else x) for i, x in enumerate(store.table.label)]
    whole = {name: getattr(store.table, name) for name in vars(store.table)}  # read before it is replaced
    table = Table(**{**whole, "label": labels})
    write_store(path, table, store.config, store.features(), "made up")
    doubts = find_doubts(Store(path))
    assert {doubt.path for doubt in doubts} == {table.path[i] for i in wrong}
    assert all(doubt.suggestion == doubt.path[0] for doubt in doubts)
    assert find_near_duplicates(Store(path)) == []


@pytest.mark.slow
@tensorflow
def test_cross_validation_and_heads_side_by_side(make_store) -> None:
    store = Store(make_store(COUNTS, width=128, spread=0.8))
    numbers = cross_validate(store, train(store, C=0.01), folds=3, repeats=2)
    assert numbers["photos"] == 120
    assert numbers["accuracy"] > 0.9
    assert numbers["log_loss"] < 0.5
    table = compare_heads(store, folds=2, heads=["logistic"])
    assert table[0]["head"] == "logistic regression"
    assert len(table) == 4
    for row in table:
        low, high = row["accuracy_interval"]
        assert 0.6 < low <= row["accuracy"] <= high <= 1
        assert np.isfinite(row["log_loss"])


@pytest.mark.slow
@tensorflow
def test_heads_are_compared_on_the_command_line_from_three_photos_a_class(make_store, tmp_path: Path) -> None:
    make_store({"a": 3, "b": 3, "c": 4}, width=64)
    done = run_script("train_head.py", "--compare", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()[1:]] == [
        "logistic", "dense", "nearest", "10", "linear",
    ]  # fmt: skip
    assert not (tmp_path / "models").exists()
    refused = run_script("train_head.py", "--compare", "--C", "0.1", cwd=tmp_path)
    assert_refused(refused, "--compare", "only --store and --seed")
    make_store({"a": 2, "b": 8})
    assert_refused(run_script("train_head.py", "--compare", cwd=tmp_path), "3 photos of every class; a has 2")


@pytest.mark.slow
def test_cross_validation_keeps_what_the_user_decided(make_store) -> None:
    store = Store(make_store({"a": 40, "b": 6}, noise=3.0))
    plain, balanced, weak = (
        cross_validate(store, train(store, **options), folds=3, repeats=1)["log_loss"]
        for options in ({"C": 1e-3}, {"C": 1e-3, "balanced": True}, {"C": 1e-5})
    )
    assert len({plain, balanced, weak}) == 3


@pytest.mark.slow
def test_a_view_store_is_no_default_and_a_plus_in_a_name_is_no_view(make_store, tmp_path: Path) -> None:
    make_store(COUNTS, name="features/p+q.h5")
    make_store(COUNTS, name="features/p+flip.h5", seed=1)
    result = run_script("train_head.py", "--C", "0.01", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "using features/p+q.h5" in result.stderr
    make_store(COUNTS, name="features/p.h5")
    assert_refused(
        run_script("train_head.py", "--views", "--store", "features/p.h5", cwd=tmp_path),
        "p+flip.h5",
        "lacks",
    )


@pytest.mark.slow
def test_evaluation_options_on_the_command_line(make_store, tmp_path: Path) -> None:
    make_store({"a": 30, "b": 30})
    for name, C in (("one", "0.01"), ("two", "0.00001")):
        model = f"models/{name}.safetensors"
        assert run_script("train_head.py", "--C", C, "--model", model, cwd=tmp_path).returncode == 0
    result = run_script(
        "evaluate.py", "--no-html", "--model", "models/one.safetensors", "--cv", "3x2", "--doubts",
        "--against", "models/two.safetensors", cwd=tmp_path,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    report = json.loads((tmp_path / "reports/one.json").read_text())
    assert report["cross_validation"]["folds"] == 3
    assert "do not show that either is better" in report["against"]["in_words"]
    assert report["doubts"] == []
    low, high = report["log_loss_interval"]
    assert low <= report["log_loss"] <= high
    assert {"ece_before", "ece_after", "brier_before", "brier_after"} <= report["calibration"].keys()
    assert report["unknown"]["kept_aimed_at"] == 0.95
    assert_refused(
        run_script("evaluate.py", "--no-html", "--against", "models/none.safetensors", cwd=tmp_path),
        "models/none",
    )
    bad = run_script("evaluate.py", "--no-html", "--cv", "1x2", cwd=tmp_path)
    assert bad.returncode == 2
    assert "5x2" in bad.stderr


def test_heads_on_two_stores_beside_each_other(make_store, tmp_path: Path) -> None:
    make_store(COUNTS, name="features/one.h5", width=64)
    stores = ("--store", "features/one.h5", "features/other.h5")
    make_store({"a": 5, "b": 5}, name="features/other.h5", seed=1, width=64)
    assert_refused(run_script("train_head.py", *stores, cwd=tmp_path), "features/other.h5", "lacks")


@pytest.mark.slow
def test_few_photos_work_and_are_said_to_be_few(make_store, tmp_path: Path) -> None:
    make_store({"a": 2, "b": 2, "c": 12})
    result = run_script("train_head.py", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "few training photos" in result.stdout
    assert "a (1), b (1)" in result.stdout
    assert run_script("evaluate.py", "--no-html", cwd=tmp_path).returncode == 0


def test_features_that_are_not_numbers_are_refused(make_store, tmp_path: Path) -> None:
    make_store(COUNTS, noise=float("nan"))
    assert_refused(run_script("train_head.py", cwd=tmp_path), "not finite", "a/0000.jpg")


@pytest.mark.slow
def test_constant_features_train_without_complaint(make_store, tmp_path: Path) -> None:
    make_store(COUNTS, noise=0.0)
    result = run_script("train_head.py", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "Warning" not in result.stderr


def test_the_same_feature_for_every_photo_is_refused(make_store, tmp_path: Path) -> None:
    make_store(COUNTS, noise=0.0, spread=0.0)
    assert_refused(run_script("train_head.py", cwd=tmp_path), "features/made.h5", "the same features")


@pytest.mark.slow
def test_a_class_without_a_test_photo_is_named(make_store, tmp_path: Path) -> None:
    splits = ["train"] * 9 + ["test"] * 3 + ["train"] * 9 + ["test"] * 3 + ["train"] * 4
    make_store({"a": 12, "b": 12, "c": 4}, splits=splits)
    assert run_script("train_head.py", cwd=tmp_path).returncode == 0
    result = run_script("evaluate.py", "--no-html", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "few        photos for testing, so little is known of: a (3), b (3), c (0)\n" in result.stdout


@pytest.mark.slow
def test_models_of_two_configs_are_compared_on_the_photos_of_both_stores(
    make_store, random_config, tmp_path: Path
) -> None:
    make_store(COUNTS, name="features/one.h5")
    make_store(COUNTS, name="features/two.h5", config=replace(random_config, size=224), noise=6.0)
    for name in ("one", "two"):
        assert run_script("train_head.py", "--store", f"features/{name}.h5", cwd=tmp_path).returncode == 0
    result = run_script(
        "evaluate.py", "--no-html", "--model", "models/one.safetensors",
        "--against", "models/two.safetensors", cwd=tmp_path,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert f"using {tmp_path / 'features/two.h5'}" in result.stderr
    assert "this model is better, and that is no accident of these 24 photos" in result.stdout
    assert "100%: 100.0%" in result.stdout
    make_store(COUNTS, name="features/two.h5", config=replace(random_config, size=224), seed=1)
    refused = run_script(
        "evaluate.py", "--no-html", "--model", "models/one.safetensors",
        "--against", "models/two.safetensors", cwd=tmp_path,
    )  # fmt: skip
    assert_refused(refused, "no photo that neither model has seen", "features/two.h5 has too")

"""The whole job on real dogs, with the genuine weights: slow, and only where these are."""

from __future__ import annotations

import csv
import json
import os
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from conftest import SHARED, SHARED_WEIGHTS, needs_shared, run_script

from breeds.features import Store

pytestmark = [pytest.mark.slow, needs_shared]


def run(script: str, *arguments: object, cwd: Path) -> str:
    result = run_script(script, *arguments, cwd=cwd)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def kaggle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The commonest breeds of Kaggle's sample, of whose labels.csv a row has no photo, trained on."""
    folder = tmp_path_factory.mktemp("kaggle")
    (folder / "kaggle300").mkdir()
    (folder / "kaggle300/train").symlink_to(SHARED / "data/kaggle300/train")
    labels = (SHARED / "data/kaggle300/labels.csv").read_text()
    (folder / "kaggle300/labels.csv").write_text(labels + "0" * 32 + "," + labels.split(",")[-1])
    out = run("extract_features.py", "kaggle300", "--top", 3, "--weights", SHARED_WEIGHTS, cwd=folder)
    assert "weights imagenet" in out
    assert "1 ids of labels.csv have no photo here" in out
    run("train_head.py", "--C", 0.01, cwd=folder)
    return folder


def test_kaggle_layout_and_submission(kaggle: Path) -> None:
    store = Store(kaggle / "features/kaggle300.h5")
    assert len(set(store.table.label)) == 3
    assert all(path.startswith("train/") for path in store.table.path)
    run("evaluate.py", cwd=kaggle)
    report = json.loads((kaggle / "reports/kaggle300.json").read_text())
    assert report["weights"]["name"] == "imagenet"
    photos = Counter(store.table.label)
    assert report["n_test"] == sum(max(1, round(count / 5)) for count in photos.values())
    ids = sorted((SHARED / "data/kaggle300/train").iterdir())[:4]
    run("predict.py", *ids, "--format", "kaggle", "--out", "submission.csv", cwd=kaggle)
    rows = list(csv.reader((kaggle / "submission.csv").open()))
    assert rows[0] == ["id", *report["classes"]]
    assert [row[0] for row in rows[1:]] == [path.stem for path in ids]
    assert all(abs(sum(map(float, row[1:])) - 1) < 1e-6 for row in rows[1:])


def test_dogs10_from_photos_to_report(tmp_path: Path) -> None:
    """Ten breeds, six photos of each, as a user's own folder; all 1,141 are for benchmarks/dogs10.py."""
    for breed in sorted((SHARED / "data/dogs10").iterdir()):
        (tmp_path / "dogs" / breed.name).mkdir(parents=True)
        for photo in sorted(breed.iterdir())[:6]:
            os.link(shutil.copy(photo, tmp_path), tmp_path / "dogs" / breed.name / photo.name)
    out = run("extract_features.py", "dogs", "--weights", SHARED_WEIGHTS, cwd=tmp_path)
    assert "60 photos = 60 features" in out
    run("train_head.py", cwd=tmp_path)
    run("evaluate.py", cwd=tmp_path)
    report = json.loads((tmp_path / "reports/dogs.json").read_text())
    assert report["n_test"] == 10
    assert report["accuracy"] >= 0.9
    assert report["log_loss"] < 0.3
    assert "optimistic" in report["caveat"]
    features = Store(tmp_path / "features/dogs.h5").features()
    assert features.shape == (60, 2048)
    assert np.linalg.matrix_rank(features) == 60

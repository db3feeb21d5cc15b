"""Breeds in scikit-learn: its own checks, pipelines, searches, and the same on photos."""

from __future__ import annotations

import os
import pickle
import shutil
from pathlib import Path

import joblib
import numpy as np
import pandas
import pytest
from PIL import Image
from sklearn.base import BaseEstimator, clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import check_estimator, parametrize_with_checks

import breeds
from breeds.backbones.pipeline import Pipeline
from breeds.features import journal_folder, list_shards

#: What scikit-learn's checks cannot see of a transformer of photos, as they transform rows of numbers, which
#: it refuses; and which test here sees it on photos.
EXPECTED = {
    "check_fit_score_takes_y": "test_a_pipeline_is_fitted_searched_and_kept",
    "check_estimators_dtypes": "test_photos_of_all_kinds_in_all_containers (photos have one type, uint8)",
    "check_pipeline_consistency": "test_a_pipeline_is_fitted_searched_and_kept",
    "check_estimators_pickle": "test_a_copy_gives_the_same_features",
    "check_f_contiguous_array_estimator": "test_photos_of_all_kinds_in_all_containers",
    "check_transformer_general": "test_photos_of_all_kinds_in_all_containers",
    "check_methods_sample_order_invariance": "test_a_feature_depends_on_its_photo_alone",
    "check_methods_subset_invariance": "test_a_feature_depends_on_its_photo_alone",
    "check_dict_unchanged": "test_transforming_changes_nothing_that_was_fitted",
    "check_fit_idempotent": "test_transforming_changes_nothing_that_was_fitted",
}


@pytest.mark.slow
@parametrize_with_checks([breeds.BreedsClassifier()])
def test_scikit_learn_checks(estimator: BaseEstimator, check) -> None:
    check(estimator)


def test_the_expected_failures_fail_as_numbers_are_no_photos() -> None:
    """Those of the transformer; and all its others pass."""
    features = breeds.BottleneckFeatures(weights="random", size=96)
    found = check_estimator(features, on_fail=None, on_skip=None)
    failed = {row["check_name"]: row["exception"] for row in found if row["status"] == "failed"}
    assert failed.keys() == EXPECTED.keys() and len(found) > 3 * len(EXPECTED)
    for error in failed.values():
        assert isinstance(error, breeds.BreedsError) and "is no photo" in str(error)
    assert all(test.split()[0] in globals() for test in EXPECTED.values())


# the classifier


@pytest.fixture
def made() -> tuple[np.ndarray, np.ndarray]:
    """Features of three classes that overlap, and their labels."""
    rng = np.random.default_rng(0)
    labels = np.repeat(["beagle", "pug", "briard"], (30, 25, 20))
    centres = {name: rng.normal(size=20) for name in ("beagle", "pug", "briard")}
    features = np.stack([centres[name] + rng.normal(size=20) for name in labels]).astype(np.float32)
    return features, labels


def test_it_is_logistic_regression_at_the_c_and_temperature_chosen(made) -> None:
    features, labels = made
    found = breeds.BreedsClassifier().fit(features, labels)
    standard = (features - features.mean(axis=0)) / features.std(axis=0)
    theirs = LogisticRegression(C=found.C_, tol=1e-8, max_iter=5000).fit(standard, labels)
    logits = theirs.decision_function(standard)
    ours = found.decision_function(features) * found.temperature_
    centred = [values - values.mean(axis=1, keepdims=True) for values in (logits, ours)]
    assert np.abs(centred[0] - centred[1]).max() < 1e-3
    assert list(found.classes_) == list(theirs.classes_)
    assert 0.002 < found.temperature_ < 50 and found.C_ != LogisticRegression().C
    assert breeds.BreedsClassifier(C=0.5).fit(features, labels).C_ == 0.5


def test_strangers_are_unknown_and_rows_of_the_classes_are_not(made) -> None:
    features, labels = made
    found = breeds.BreedsClassifier(keep=0.9).fit(features, labels)
    assert found.is_unknown(features).mean() < 0.2
    assert found.is_unknown(-5 * features).mean() > 0.8
    assert ((found.unknown_score(features) > 0) == found.is_unknown(features)).all()
    one = breeds.BreedsClassifier().fit(features[:31], labels[:31])  # a single pug: nothing to set it by
    assert not one.is_unknown(-5 * features).any() and one.temperature_ == 1


@pytest.mark.parametrize("labels", [[3, 1], [True, False], ["é", "a"], np.array(["x", "y"], dtype=object)])
def test_labels_of_any_kind_come_back(made, labels) -> None:
    features = made[0]
    targets = np.asarray(labels)[np.arange(len(features)) % 2]
    found = breeds.BreedsClassifier(C=1).fit(features, targets)
    assert found.predict(features).dtype == targets.dtype
    assert set(found.predict(features)) <= set(targets)
    assert found.decision_function(features).shape == (len(features),)


@pytest.mark.parametrize("wrong", [{"C": 0}, {"C": "1"}, {"keep": 1}, {"seed": 0.5}, {"seed": -1}])
def test_wrong_parameters_are_refused_by_fit(made, wrong: dict[str, object]) -> None:
    with pytest.raises(breeds.BreedsError, match=f"{next(iter(wrong))}=") as caught:
        breeds.BreedsClassifier(**wrong).fit(*made)
    assert isinstance(caught.value, ValueError)


@pytest.mark.slow
def test_a_search_in_processes_and_a_table_with_names(made) -> None:
    features, labels = made
    table = pandas.DataFrame(features).add_prefix("feature_")
    search = GridSearchCV(breeds.BreedsClassifier(), {"C": [None, 1e-3], "balanced": [False, True]}, cv=3)
    search.fit(table, labels)
    assert search.best_score_ > 0.7
    assert list(search.best_estimator_.feature_names_in_) == list(table.columns)


# the transformer


@pytest.fixture
def place(app_place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of `app_place`, and the folder that this process is in."""
    shutil.copytree(app_place, tmp_path / "place")
    monkeypatch.chdir(tmp_path / "place")
    return tmp_path / "place"


@pytest.fixture
def paths(place: Path) -> list[str]:
    """Eight photos, of several classes."""
    return [str(path) for path in sorted(place.glob("photos/*/*.jpg"))[::4]]


@pytest.fixture(scope="module")
def features() -> breeds.BottleneckFeatures:
    """Fitted, with its network open for all tests."""
    return breeds.BottleneckFeatures(weights="random", size=96).fit([])


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The keys of the photos that a network was run for."""
    keys: list[str] = []
    whole = Pipeline.features

    def noted(self, photos, config):
        for photo, found in whole(self, photos, config):
            keys.append(photo[0])
            yield photo, found

    monkeypatch.setattr(Pipeline, "features", noted)
    return keys


def test_features_are_those_of_extraction(paths: list[str], features) -> None:
    table = breeds.Store("features/photos.h5").to_pandas().set_index("path")
    names = [os.path.relpath(path, "photos") for path in paths]
    expected = table.loc[names].filter(like="feature_").to_numpy()
    found = features.transform(paths)
    assert found.dtype == np.float32
    assert np.array_equal(found, expected)


def test_photos_of_all_kinds_in_all_containers(paths: list[str], features) -> None:
    paths = paths[:3]
    expected = features.transform(paths)
    images = [Image.open(path) for path in paths]
    data = [Path(path).read_bytes() for path in paths]
    arrays = np.empty(3, dtype=object)
    arrays[:] = [np.asfortranarray(image) for image in images]
    same = [
        [Path(path) for path in paths], tuple(paths), np.array(paths), np.array(paths)[:, None], data, images,
        arrays, [paths[0], data[1], images[2]], pandas.Series(paths), pandas.DataFrame({"photo": data}),
        pandas.Series(paths, dtype=object, index=[5, 6, 7]), (path for path in paths),
    ]  # fmt: skip
    for photos in same:
        assert np.array_equal(features.transform(photos), expected)
    small = np.stack([np.asarray(image.resize((96, 96))) for image in images])
    assert np.array_equal(features.transform(small), features.transform(list(small)))
    assert features.transform([]).shape == (0, 2048)


def test_output_in_pandas_has_names_and_index(paths: list[str]) -> None:
    features = breeds.BottleneckFeatures(weights="random", size=96, store="features/photos.h5")
    photos = pandas.Series(paths, index=range(10, 10 + len(paths)))
    table = features.set_output(transform="pandas").fit_transform(photos)
    assert list(table.index) == list(photos.index)
    assert list(table.columns) == list(features.get_feature_names_out())
    assert len(set(table.columns)) == 2048


def test_a_feature_depends_on_its_photo_alone(paths: list[str], features) -> None:
    whole = features.transform(paths)
    assert np.array_equal(features.transform(paths[::-1]), whole[::-1])
    assert np.array_equal(np.vstack([features.transform([path]) for path in paths]), whole)
    assert np.array_equal(features.transform([*paths, *paths]), np.vstack([whole, whole]))


def test_a_copy_gives_the_same_features(paths: list[str], features, tmp_path: Path) -> None:
    expected = features.transform(paths[:2])
    joblib.dump(features, tmp_path / "features.joblib")
    for copy in (pickle.loads(pickle.dumps(features)), joblib.load(tmp_path / "features.joblib")):
        assert np.array_equal(copy.transform(paths[:2]), expected)
    fresh = clone(features)
    with pytest.raises(NotFittedError):
        fresh.transform(paths[:2])
    assert np.array_equal(fresh.set_params(n_jobs=1, workers=1).fit_transform(paths[:2]), expected)


def test_transforming_changes_nothing_that_was_fitted(paths: list[str], features) -> None:
    before = dict(vars(features))
    expected = features.transform(paths[:2])
    assert vars(features) == before
    again = clone(features)
    for _ in range(2):
        assert np.array_equal(again.fit(paths).transform(paths[:2]), expected)


def test_what_is_kept_is_not_computed_again(paths: list[str], computed: list[str]) -> None:
    def transformer() -> breeds.BottleneckFeatures:
        return breeds.BottleneckFeatures(weights="random", size=96, store=Path("features/kept.h5"))

    new = [Path(path).read_bytes() + b"!" for path in paths]
    expected = transformer().fit_transform(new)
    assert len(computed) == len(new)
    again = transformer().fit_transform([*new, Image.open(paths[0])])
    assert np.array_equal(again[:-1], expected)
    assert len(computed) == len(new) + 1
    assert len(list_shards(journal_folder(Path("features/kept.h5")))) == 2
    shutil.copytree("photos", "others")
    for number, data in enumerate(new):
        Path(f"others/{number}.jpg").write_bytes(data)
    computed.clear()
    store = breeds.extract("others", "features/kept.h5", weights="random", size=96, labels=None)
    assert len(computed) == len(store) - len(new), "extraction takes what is there"
    computed.clear()
    transformer().fit_transform(sorted(map(str, Path("others").rglob("*.jpg"))))
    assert computed == [], "and what extraction has computed is not computed again"


def test_a_store_of_another_config_is_refused(paths: list[str]) -> None:
    other = breeds.BottleneckFeatures(weights="random", size=80, store="features/photos.h5")
    with pytest.raises(breeds.BreedsError, match="another config"):
        other.fit(paths)
    kept = breeds.BottleneckFeatures(weights="random", size=80, store="features/kept.h5")
    kept.fit_transform([Path(paths[0]).read_bytes()])
    with pytest.raises(breeds.BreedsError, match="another config"):
        clone(kept).set_params(size=96).fit_transform(paths[:1])


def test_photos_that_cannot_be_read(paths: list[str], features, said: pytest.LogCaptureFixture) -> None:
    bad = [paths[0], "gone.jpg", b"no photo", 7, None, paths[1]]
    with pytest.raises(
        breeds.BreedsError, match=r"^Photo 1 \(gone\.jpg\): no such file; .*errors=\"nan\"\.$"
    ):
        features.transform(bad)
    quiet = clone(features).set_params(errors="nan").fit(bad)
    found = quiet.transform(bad)
    assert np.isnan(found[1:5]).all()
    assert np.array_equal(found[[0, 5]], features.transform(paths[:2]))
    assert said.text.count("no feature for photo") == 4
    assert np.isnan(quiet.transform([b"bad"])).all()


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"backbone": "vgg"}, "backbone vgg: it is one of xception"),
        ({"size": 20}, "20: xception takes 71"),
        ({"size": 0}, "size=0"),
        ({"size": "96"}, "size='96'"),
        ({"resize": "zoom"}, "resize='zoom'"),
        ({"precision": "fp8"}, "precision='fp8'"),
        ({"precision": "int8"}, "breeds.extract"),
        ({"precision": "fp16"}, "fp16"),
        ({"engine": "torch"}, "engine='torch'"),
        ({"errors": "ignore"}, "errors='ignore'"),
        ({"workers": 0}, "workers=0"),
        ({"n_jobs": 0}, "n_jobs=0"),
        ({"weights": "gone.h5"}, "No such weights file"),
        ({"weights": "gone.bin"}, "gone.bin"),
        ({"store": "models/photos.safetensors"}, "photos.safetensors"),
    ],
)
def test_wrong_parameters_are_refused(wrong: dict[str, object], words: str, place: Path) -> None:
    given = {"weights": "random", "size": 96, **wrong}
    with pytest.raises(breeds.BreedsError) as caught:
        breeds.BottleneckFeatures(**given).fit([])
    assert words in str(caught.value) and "\n" not in str(caught.value)
    assert isinstance(caught.value, ValueError)


def test_what_is_no_list_of_photos_is_refused(paths: list[str], features) -> None:
    table = pandas.DataFrame({"photo": paths, "label": paths})
    for wrong in (paths[0], Path(paths[0]), b"", Image.open(paths[0]), 7, table):
        with pytest.raises(breeds.BreedsError):
            features.transform(wrong)


def test_a_pipeline_is_fitted_searched_and_kept(place: Path, tmp_path: Path) -> None:
    photos = np.array([str(path.resolve()) for path in sorted(place.glob("photos/*/*.jpg"))])
    labels = [Path(path).parent.name for path in photos]
    pipeline = make_pipeline(
        breeds.BottleneckFeatures(weights="random", size=96, store=place / "features/photos.h5"),
        breeds.BreedsClassifier(C=0.01),
    )
    scores = cross_val_score(pipeline, photos, labels, cv=2, n_jobs=2)
    assert len(scores) == 2 and np.isfinite(scores).all()
    search = GridSearchCV(pipeline, {"breedsclassifier__C": [None, 0.1]}, cv=2, error_score="raise")
    assert search.fit(photos, labels).score(photos, labels) > 0.5
    joblib.dump(search.best_estimator_, tmp_path / "pipeline.joblib")
    loaded = joblib.load(tmp_path / "pipeline.joblib")
    new = [Path(path).read_bytes() + b"!" for path in photos[::10]]
    assert np.array_equal(loaded.predict_proba(new), search.best_estimator_.predict_proba(new))
    assert list(loaded.classes_) == sorted(set(labels))

"""Training, the model file, and the report: against scikit-learn, safetensors and h5py by themselves."""

from __future__ import annotations

import dataclasses
import json
import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import joblib
import numpy as np
import pytest
import safetensors.numpy
import scipy.optimize
import scipy.special
import sklearn.metrics
from conftest import MakeStore, assert_refused, run_script, tensorflow
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of
from safetensors import safe_open
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import PredefinedSplit, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from breeds.config import FeatureConfig
from breeds.errors import BreedsError
from breeds.evaluation import evaluate, write_json
from breeds.export.joblib import as_pipeline
from breeds.features import Store, write_store
from breeds.heads import logistic
from breeds.heads.kinds import TrainingSettings
from breeds.heads.logistic import fit_temperature
from breeds.heads.model import Model, softmax
from breeds.heads.unknown import Detector
from breeds.report.terminal import as_lines
from breeds.split import fold_of
from breeds.training import train

THREE = {"beagle": 20, "pug": 25, "shih-tzu": 15}
TWO = {"beagle": 12, "pug": 18}


@pytest.fixture
def open_store(make_store: MakeStore) -> Callable[..., Store]:
    """A function that makes a store of narrow, noisy features and opens it."""

    def make(counts: dict[str, int] = THREE, width: int = 16, noise: float = 0.5, **more: Any) -> Store:
        return Store(make_store(counts, width=width, noise=noise, **more))

    return make


def columns(path: Path) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Features, in double precision, labels and keys of a store, as plain h5py reads them."""
    with h5py.File(path) as file:
        return (
            file["features"][:].astype(np.float64),
            file["label"].asstr()[:],
            [key.decode() for key in file["key"][:]],
        )


def training_rows(path: Path, model: Model) -> np.ndarray:
    """Which photos of a store a model has seen."""
    return np.isin(columns(path)[2], list(model.seen_keys()))


def store_of(store: Store, path: Path, rows: list[int], **changed: list[str]) -> Store:
    """Write another store with some rows of one, in any order and number, and other columns."""
    table = dataclasses.replace(store.table.take(rows), **changed)
    write_store(path, table, store.config, store.features(np.array(rows)), "made up")
    return Store(path)


# --- training --------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("width", [16, 200], ids=["more photos than features", "more features than photos"])
@pytest.mark.parametrize("counts", [TWO, THREE], ids=["two classes", "three classes"])
@pytest.mark.parametrize("C", [None, 0.01, 1.0])
def test_answers_equal_scikit_learns(
    open_store: Callable[..., Store], counts: dict[str, int], C: float | None, width: int
) -> None:
    store = open_store(counts, width=width)
    model = train(store, C=C)
    features, labels, _ = columns(store.path)
    seen = training_rows(store.path, model)
    solver = LogisticRegression(C=model.record["C"], max_iter=9999, tol=1e-9)
    reference = make_pipeline(StandardScaler(), solver).fit(features[seen], labels[seen])
    assert model.classes == reference.classes_.tolist()
    before_temperature = scipy.special.softmax(model.logits(features) * model.temperature, axis=1)
    np.testing.assert_allclose(before_temperature, reference.predict_proba(features), atol=1e-4)
    np.testing.assert_allclose(model.probabilities(features).sum(axis=1), 1, rtol=1e-12)
    assert model.record["C_chosen_by"] == ("5-fold cross-validation" if C is None else "you")
    assert C is None or model.record["C"] == C


@pytest.mark.slow
def test_C_and_temperature_are_the_best_by_cross_validation(open_store: Callable[..., Store]) -> None:
    store = open_store(noise=0.8)
    model = train(store, seed=3)
    features, labels, keys = columns(store.path)
    seen = training_rows(store.path, model)
    truth = np.searchsorted(model.classes, labels[seen])
    cv = PredefinedSplit(
        fold_of([k for k, s in zip(keys, seen, strict=True) if s], labels[seen].tolist(), 5, 3)
    )
    expected = {}
    with threadpool_limits(1):  # so small problems take many times longer on several
        for C in logistic.C_GRID:
            head = make_pipeline(StandardScaler(), LogisticRegression(C=C, max_iter=9999, tol=1e-6))
            logits = cross_val_predict(head, features[seen], truth, cv=cv, method="decision_function")
            expected[C] = best_temperature(logits, truth)
    losses = {C: loss for C, (_, loss) in expected.items()}
    recorded = {float(C): loss for C, loss in model.record["cv_log_loss"].items()}
    assert model.record["C"] in logistic.C_GRID
    assert model.record["C"] == pytest.approx(min(recorded, key=recorded.__getitem__), rel=1e-5)
    for C, loss in recorded.items():
        assert loss == pytest.approx(losses[min(losses, key=lambda c: abs(c - C))], rel=0.02)
    assert losses[model.record["C"]] <= min(losses.values()) * 1.01
    assert model.temperature == pytest.approx(expected[model.record["C"]][0], rel=0.1)


def best_temperature(logits: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """The temperature of the least log loss, with one photo more of any class, and that loss, by SciPy."""
    n, classes = logits.shape
    every = np.concatenate([truth, np.repeat(np.arange(classes), n)])
    weights = np.concatenate([np.full(n, n), np.full(n * classes, 1 / classes)])

    def loss(logarithm: float) -> float:
        repeated = np.tile(scipy.special.log_softmax(logits / np.exp(logarithm), axis=1), (1 + classes, 1))
        return -float(np.average(repeated[np.arange(len(every)), every], weights=weights))

    found = scipy.optimize.minimize_scalar(loss, bounds=np.log([0.002, 50]), method="bounded")
    return float(np.exp(found.x)), float(found.fun)


@pytest.mark.parametrize("factor", [0.2, 1.0, 8.0])
def test_the_temperature_is_that_of_the_least_log_loss(factor: float) -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 4, 300)
    logits = factor * (rng.normal(size=(300, 4)) + 2 * np.eye(4)[truth])
    assert fit_temperature(logits, truth) == pytest.approx(best_temperature(logits, truth)[0], rel=1e-3)


@pytest.mark.parametrize("n", [4, 50])
def test_photos_that_are_all_told_right_are_no_proof_of_certainty(n: int) -> None:
    truth = np.arange(n) % 2
    logits = np.where(np.eye(2)[truth] == 1, 0.01, -0.01)
    temperature = fit_temperature(logits, truth)
    confidence = scipy.special.softmax(logits / temperature, axis=1).max(axis=1)
    np.testing.assert_allclose(confidence, 1 - 1 / (n + 1) / 2, atol=1e-4)


@pytest.mark.slow
def test_few_training_photos_leave_room_for_doubt(open_store: Callable[..., Store]) -> None:
    splits = (["train"] * 6 + ["test"] * 40) * 2
    ours, plain = [], []
    for seed in range(4):
        store = open_store({"beagle": 46, "pug": 46}, 32, 1.0, spread=0.6, splits=splits, seed=seed)
        model = train(store)
        features, labels, _ = columns(store.path)
        seen = training_rows(store.path, model)
        reference = make_pipeline(StandardScaler(), LogisticRegression()).fit(features[seen], labels[seen])
        ours.append(evaluate(store, model)["log_loss"])
        plain.append(sklearn.metrics.log_loss(labels[~seen], reference.predict_proba(features[~seen])))
    assert np.mean(ours) < 1.2 * np.mean(plain), (ours, plain)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("each", "spread", "width", "at_edge"),
    [(6, 0.02, 64, True), (12, 0.2, 256, False)],
    ids=["at the edge", "within"],
)
def test_the_record_and_the_run_say_whether_C_lies_at_the_edge(
    make_store: MakeStore, tmp_path: Path, each: int, spread: float, width: int, at_edge: bool
) -> None:
    made = make_store(dict.fromkeys("abcde", each), width=width, spread=spread)
    done = run_script("train_head.py", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    record = Model.load(tmp_path / "models" / f"{made.stem}.safetensors").record
    assert record["C_at_edge"] == (record["C"] in (logistic.C_GRID[0], logistic.C_GRID[-1]))
    assert record["C_at_edge"] == at_edge
    assert ("at the edge of the grid" in done.stdout) == record["C_at_edge"]


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="cores cannot be taken away here")
def test_the_number_of_cores_changes_nothing(open_store: Callable[..., Store]) -> None:
    store, cores = open_store(width=200), os.sched_getaffinity(0)
    several = train(store)
    os.sched_setaffinity(0, {min(cores)})
    try:
        one = train(store)
    finally:
        os.sched_setaffinity(0, cores)
    assert one.layers[0][0].tobytes() == several.layers[0][0].tobytes()
    assert one.temperature == several.temperature


@pytest.mark.parametrize(("few", "how"), [(2, "default"), (4, "3-fold")])
def test_small_classes_get_fewer_folds_or_the_default(
    open_store: Callable[..., Store], few: int, how: str
) -> None:
    model = train(open_store({"many": 20, "few": few}))
    assert model.record["C_chosen_by"].startswith(how)
    assert few > 2 or model.record["C"] == logistic.FALLBACK_C
    assert model.record["few"] == {"few": few - 1}, "one photo of the class is for testing"


@pytest.mark.slow
def test_the_same_seed_repeats_every_bit_and_another_splits_anew(open_store: Callable[..., Store]) -> None:
    store = open_store()
    one, two, other = (train(store, seed=seed) for seed in (4, 4, 5))
    for a, b in zip(one.layers[0], two.layers[0], strict=True):
        assert a.tobytes() == b.tobytes()
    assert {k: v for k, v in one.record.items() if k != "seconds"} == {
        k: v for k, v in two.record.items() if k != "seconds"
    }
    assert one.seen_keys() == two.seen_keys() != other.seen_keys()


@pytest.mark.slow
def test_the_order_of_the_store_does_not_matter(open_store: Callable[..., Store], tmp_path: Path) -> None:
    store = open_store()
    order = np.random.default_rng(0).permutation(len(store.table)).tolist()
    one, two = train(store), train(store_of(store, tmp_path / "shuffled.h5", order))
    assert one.seen_keys() == two.seen_keys()
    assert one.record["C"] == two.record["C"]
    np.testing.assert_allclose(one.layers[0][0], two.layers[0][0], atol=1e-5)


@pytest.mark.parametrize("val", [0.0, 0.2])
def test_the_model_has_seen_exactly_what_is_not_for_testing(
    open_store: Callable[..., Store], val: float
) -> None:
    store = open_store()
    model = train(store, C=0.1, val=val)
    record, keys = model.record, store.table.key
    assert record["n_test"] == 4 + 5 + 3
    assert record["n_val"] == (4 + 5 + 3 if val else 0)
    assert record["n_train"] + record["n_val"] + record["n_test"] == len(keys)
    assert len(model.seen_keys()) == record["n_train"] + record["n_val"]
    assert model.seen_keys() < set(keys)
    assert evaluate(store, model)["n_test"] == record["n_test"]


def test_validation_photos_take_no_part_in_the_fit(open_store: Callable[..., Store]) -> None:
    splits = (["train"] * 10 + ["val"] * 5 + ["test"] * 5) * 2
    store = open_store({"beagle": 20, "pug": 20}, splits=splits)
    model = train(store, C=0.1)
    features, labels, keys = columns(store.path)
    fitted = np.array(splits) == "train"
    reference = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, tol=1e-9)).fit(
        features[fitted], labels[fitted]
    )
    before_temperature = scipy.special.softmax(model.logits(features) * model.temperature, axis=1)
    np.testing.assert_allclose(before_temperature, reference.predict_proba(features), atol=1e-4)
    assert model.seen_keys() == {key for key, part in zip(keys, splits, strict=True) if part != "test"}


def test_the_record_says_how_it_was_trained(open_store: Callable[..., Store], tmp_path: Path) -> None:
    store = open_store({"": 3, **THREE})
    rows = list(range(len(store.table)))
    store = store_of(store, tmp_path / "copies.h5", [*rows, 5, 5, 10])
    model = train(store, seed=2)
    record = json.loads(json.dumps(model.record, allow_nan=False))
    assert record == model.record
    assert (record["unlabelled"], record["duplicates"], record["seed"]) == (3, 3, 2)
    assert record["store"] == str(store.path)
    assert Path(record["store"]).is_absolute()
    assert record["n_train"] + record["n_test"] == 60
    assert {"breeds", "numpy", "scikit-learn"} <= record["versions"].keys()
    features, labels, keys = columns(store.path)
    first = [keys.index(key) for key in sorted(model.seen_keys())]
    probabilities = model.probabilities(features[first])
    assert record["train_log_loss"] == pytest.approx(sklearn.metrics.log_loss(labels[first], probabilities))
    right = np.array(model.classes)[probabilities.argmax(axis=1)] == labels[first]
    assert record["train_accuracy"] == pytest.approx(right.mean())


def test_a_feature_that_never_changes_does_no_harm(open_store: Callable[..., Store]) -> None:
    features = np.random.default_rng(0).normal(size=(30, 4)).astype(np.float32)
    features[:, 2] = 7
    mean, scale = logistic.standardise(features)
    expected = StandardScaler().fit(features)
    np.testing.assert_allclose(mean, expected.mean_, rtol=1e-6)
    np.testing.assert_allclose(scale, expected.scale_, rtol=1e-6)
    weights, bias = logistic.fit((features - mean) / scale, np.arange(30) % 3, 0.1)
    assert np.isfinite(weights).all()
    assert (weights[2] == 0).all()
    assert bias.shape == (3,)


@pytest.mark.parametrize(
    ("counts", "more", "words"),
    [
        ({"pug": 9}, {}, "at least two classes"),
        ({"": 9}, {}, "have no labels"),
        ({"pug": 9, "lonely": 1}, {}, "lonely"),
        (TWO, {"noise": np.nan}, r"not finite numbers, .* first those of .*\.jpg"),
    ],
)
@pytest.mark.slow
def test_what_cannot_be_trained_on_is_refused(
    open_store: Callable[..., Store], counts: dict[str, int], more: dict[str, Any], words: str
) -> None:
    with pytest.raises(BreedsError, match=words):
        train(open_store(counts, **more))


@pytest.mark.slow
@tensorflow
def test_the_dense_head_learns_and_is_the_same_kind_of_model(
    open_store: Callable[..., Store], tmp_path: Path
) -> None:
    store = open_store(noise=0.05)
    model = train(store, head="dense", val=0.2)
    assert [weights.shape for weights, _ in model.layers] == [(16, 1024), (1024, 3)]
    assert model.record["train_accuracy"] > 0.9
    assert model.record["n_train"] + model.record["n_val"] + model.record["n_test"] == 60
    assert len(model.seen_keys()) == model.record["n_train"] + model.record["n_val"]
    model.save(tmp_path / "dense.safetensors")
    features = columns(store.path)[0]
    loaded = Model.load(tmp_path / "dense.safetensors")
    assert loaded.probabilities(features).tobytes() == model.probabilities(features).tobytes()


# --- softmax and probabilities ---------------------------------------------------------------

shapes = arrays_of.array_shapes(min_dims=2, max_dims=2, max_side=8)


@settings(max_examples=100, deadline=None, derandomize=True, database=None)
@given(arrays_of.arrays(np.float64, shapes, elements=st.floats(-1e6, 1e6)), st.floats(-1e6, 1e6))
def test_softmax_equals_scipys_and_ignores_a_shift(logits: np.ndarray, shift: float) -> None:
    shares = softmax(logits)
    np.testing.assert_allclose(shares, scipy.special.softmax(logits, axis=1), rtol=1e-12)
    np.testing.assert_allclose(shares.sum(axis=1), 1)
    np.testing.assert_allclose(softmax(logits + shift), shares, atol=1e-8)


def test_logits_are_layers_with_rectifiers_between_over_the_temperature(random_config: FeatureConfig) -> None:
    rng = np.random.default_rng(0)
    mean, scale, w0, b0, w1, b1 = (
        rng.normal(size=s).astype(np.float32) ** 2 + 0.1 for s in (5, 5, (5, 4), 4, (4, 3), 3)
    )
    seen = np.zeros((0, 32), np.uint8)
    layers = [(w0 - 1, b0), (w1, b1)]
    model = Model("dense", ["a", "b", "c"], random_config, "", mean, scale, layers, seen, 2.5)
    features = rng.normal(size=(7, 5)).astype(np.float32)
    hidden = np.clip((features - mean) / scale @ (w0 - 1) + b0, 0, None)
    assert (hidden == 0).any()
    np.testing.assert_allclose(model.logits(features), (hidden @ w1 + b1) / 2.5, rtol=1e-5)


# --- the model file --------------------------------------------------------------------------


@pytest.fixture
def model(random_config: FeatureConfig) -> Model:
    """A model that nobody trained, of 16 features and three classes."""
    rng = np.random.default_rng(0)
    shapes = {"mean": 16, "scale": 16, "weights": (16, 3), "bias": 3}
    shapes |= {"means": (3, 16), "directions": (16, 2), "lighter": 2, "typical": 3}
    part = {name: rng.random(shape, np.float32) / 2 + 0.1 for name, shape in shapes.items()}
    detector = Detector(part["means"], part["directions"], part["lighter"], part["typical"], 0.25, 0.95)
    return Model(
        kind="logistic",
        classes=["beagle", "pug", "shih-tzu"],
        config=random_config,
        weights_path="",
        mean=part["mean"],
        scale=part["scale"],
        layers=[(part["weights"], part["bias"])],
        seen=rng.integers(0, 256, (40, 32)).astype(np.uint8),
        unknown=detector,
        record={
            **TrainingSettings(C=0.1).as_record(),
            "store": "features/dogs.h5",
            "also": [],
            "views": [],
            "n_train": 40,
            "n_val": 0,
            "n_test": 10,
            "unlabelled": 0,
            "duplicates": 0,
            "few": {},
            "corrections": {},
            "seconds": 0.1,
        },
    )


@pytest.fixture
def model_file(model: Model, tmp_path: Path) -> Path:
    model.save(tmp_path / "models" / "dogs.safetensors")
    return tmp_path / "models" / "dogs.safetensors"


def test_a_model_comes_back_bit_for_bit(model: Model, tmp_path: Path) -> None:
    model.classes = ["Bärenhund", "shih-tzu", '"犬", <b>\n']
    model.temperature, model.weights_path = 1.25, "/some/where.h5"
    model.save(tmp_path / "m.safetensors")
    loaded = Model.load(tmp_path / "m.safetensors")
    for name in ("kind", "classes", "config", "weights_path", "temperature", "record"):
        assert getattr(loaded, name) == getattr(model, name), name
    for one, two in zip(arrays_of_model(loaded), arrays_of_model(model), strict=True):
        assert (one.dtype, one.shape, one.tobytes()) == (two.dtype, two.shape, two.tobytes())
    assert loaded.unknown and model.unknown
    assert (loaded.unknown.threshold, loaded.unknown.keep) == (0.25, 0.95)


def arrays_of_model(model: Model) -> list[np.ndarray]:
    parts = [getattr(model.unknown, name) for name in ("means", "directions", "weights", "typical")]
    return [model.mean, model.scale, model.seen, *model.layers[0], *parts]


def test_a_model_without_a_detector_comes_back_without(model: Model, tmp_path: Path) -> None:
    model.unknown = None
    model.save(tmp_path / "m.safetensors")
    assert Model.load(tmp_path / "m.safetensors").unknown is None


def test_a_model_file_is_arrays_and_json(model: Model, model_file: Path) -> None:
    with safe_open(model_file, "numpy") as file:
        names, metadata = set(file.keys()), file.metadata()
    assert names > {"mean", "scale", "seen", "weights.0", "bias.0"}
    about = json.loads(metadata["breeds"])
    assert about["classes"] == ["beagle", "pug", "shih-tzu"]
    assert about["config_sha256"] == model.config.digest
    assert about["record"]["C"] == 0.1
    by_hand = safetensors.numpy.load_file(model_file)
    assert {row.tobytes().hex() for row in by_hand["seen"]} == model.seen_keys()
    features = np.random.default_rng(0).normal(size=(5, 16)).astype(np.float32)
    logits = (features - by_hand["mean"]) / by_hand["scale"] @ by_hand["weights.0"] + by_hand["bias.0"]
    np.testing.assert_allclose(
        scipy.special.softmax(logits, axis=1), model.probabilities(features), atol=1e-5
    )


def test_a_model_that_cannot_be_written_is_refused_and_nothing_left(model: Model, tmp_path: Path) -> None:
    (tmp_path / "taken.safetensors").mkdir()
    before = sorted(tmp_path.iterdir())
    with pytest.raises(BreedsError, match=r"Cannot write .*taken\.safetensors"):
        model.save(tmp_path / "taken.safetensors")
    assert sorted(tmp_path.iterdir()) == before


def test_no_such_model(tmp_path: Path) -> None:
    with pytest.raises(BreedsError, match=r"No such model: .*breeds train"):
        Model.load(tmp_path / "none.safetensors")
    with pytest.raises(BreedsError, match=r"not a model of Breeds.*not a regular file"):
        Model.load(tmp_path)


class Trap:
    """A pickle of it, loaded, makes the file `path`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def header(claim: int, text: bytes = b"{}") -> bytes:
    return struct.pack("<Q", claim) + text


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"not a model\n" * 50, id="text"),
        pytest.param(np.random.default_rng(0).bytes(5000), id="random bytes"),
        pytest.param(b"\x89HDF\r\n\x1a\n" + bytes(2000), id="HDF5"),
        pytest.param(header(2**63), id="header of 8 exabytes"),
        pytest.param(header(2**31), id="header of 2 GiB"),
        pytest.param(header(2), id="no arrays"),
        pytest.param(header(9), id="header longer than the file"),
        pytest.param(header(4, b"null"), id="header is null"),
        pytest.param(header(60000, b"[" * 60000), id="deep header"),
        pytest.param(
            header(72, b'{"mean":{"dtype":"F32","shape":[4000000000],"data_offsets":[0,4]}}'.ljust(72)),
            id="array larger than the file",
        ),
    ],
)
def test_a_file_that_is_no_model_is_refused_by_name(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "m.safetensors").write_bytes(data)
    with pytest.raises(BreedsError, match=r"m\.safetensors is not a model of Breeds, or is damaged"):
        Model.load(tmp_path / "m.safetensors")


@pytest.mark.parametrize("dump", [pickle.dump, joblib.dump])
def test_a_pickle_is_refused_and_never_run(tmp_path: Path, dump: Callable[..., object]) -> None:
    trap, path = tmp_path / "sprung", tmp_path / "m.safetensors"
    with open(path, "wb") as file:
        dump(Trap(trap), file)
    with pytest.raises(BreedsError, match="not a model"):
        Model.load(path)
    assert not trap.exists()
    joblib.load(path)
    assert trap.exists(), "the trap works"


def rewrite(path: Path, change: Callable[[dict[str, np.ndarray], dict[str, Any]], object]) -> None:
    """Change the arrays and the JSON of a model file; what `change` returns replaces the JSON."""
    with safe_open(path, "numpy") as file:
        arrays, metadata = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118
    about = json.loads(metadata["breeds"])
    text = change(arrays, about)
    metadata["breeds"] = text if isinstance(text, str) else json.dumps(about)
    safetensors.numpy.save_file({n: np.ascontiguousarray(a) for n, a in arrays.items()}, path, metadata)


BAD_ARRAYS: dict[str, Callable[[dict[str, np.ndarray]], object]] = {
    "no mean": lambda a: a.pop("mean"),
    "no seen": lambda a: a.pop("seen"),
    "no layer": lambda a: [a.pop("weights.0"), a.pop("bias.0")],
    "no bias": lambda a: a.pop("bias.0"),
    "a gap between layers": lambda a: a.update({"weights.2": a["weights.0"], "bias.2": a["bias.0"]}),
    "layers that do not fit": lambda a: a.update({"weights.1": a["weights.0"], "bias.1": a["bias.0"]}),
    "mean too short": lambda a: a.update(mean=a["mean"][:-1]),
    "mean of two dimensions": lambda a: a.update(mean=a["mean"][None]),
    "scale too long": lambda a: a.update(scale=np.ones(17, np.float32)),
    "weights turned": lambda a: a.update({"weights.0": a["weights.0"].T}),
    "weights of one dimension": lambda a: a.update({"weights.0": a["weights.0"].ravel()}),
    "bias of two dimensions": lambda a: a.update({"bias.0": a["bias.0"][:, None]}),
    "bias without dimension": lambda a: a.update({"bias.0": np.float32(1)}),
    "one class less": lambda a: a.update({"weights.0": a["weights.0"][:, 1:], "bias.0": a["bias.0"][1:]}),
    "nan in mean": lambda a: a["mean"].__setitem__(0, np.nan),
    "nan in weights": lambda a: a["weights.0"].__setitem__((3, 1), np.nan),
    "infinite bias": lambda a: a["bias.0"].__setitem__(0, -np.inf),
    "infinite scale": lambda a: a["scale"].__setitem__(0, np.inf),
    "zero scale": lambda a: a["scale"].__setitem__(0, 0),
    "negative scale": lambda a: a["scale"].__setitem__(0, -1),
    "double weights": lambda a: a.update({"weights.0": a["weights.0"].astype(np.float64)}),
    "whole numbers": lambda a: a.update(mean=a["mean"].astype(np.int32)),
    "half floats": lambda a: a.update(mean=a["mean"].astype(np.float16)),
    "seen of another type": lambda a: a.update(seen=a["seen"].astype(np.int64)),
    "seen too narrow": lambda a: a.update(seen=a["seen"][:, :31]),
    "no detector means": lambda a: a.pop("unknown.means"),
    "detector of another width": lambda a: a.update({"unknown.means": a["unknown.means"][:, 1:]}),
    "detector of fewer classes": lambda a: a.update({"unknown.typical": a["unknown.typical"][1:]}),
    "detector of another rank": lambda a: a.update({"unknown.weights": a["unknown.weights"][1:]}),
    "nan in the detector": lambda a: a["unknown.directions"].__setitem__((0, 0), np.nan),
    "seen of one dimension": lambda a: a.update(seen=a["seen"].ravel()),
}


@pytest.mark.parametrize("change", BAD_ARRAYS.values(), ids=BAD_ARRAYS.keys())
def test_arrays_that_make_no_model_are_refused(model_file: Path, change: Callable[..., object]) -> None:
    rewrite(model_file, lambda arrays, about: [change(arrays)])
    with pytest.raises(BreedsError, match=r"dogs\.safetensors is not a model of Breeds, or is damaged"):
        Model.load(model_file)


BAD_JSON: dict[str, Callable[[dict[str, Any]], object]] = {
    "nothing": lambda b: "",
    "not JSON": lambda b: "{'kind': 'logistic'}",
    "null": lambda b: "null",
    "a list": lambda b: "[]",
    "a number of 5,000 digits": lambda b: "1" * 5000,
    **{
        f"no {name}": lambda b, name=name: b.pop(name)
        for name in ("kind", "classes", "config", "temperature")
    },
    **{f"no {name}": lambda b, name=name: b.pop(name) for name in ("weights_path", "record")},
    "classes twice": lambda b: b.update(classes=["pug", "pug", "beagle"]),
    "classes too few": lambda b: b.update(classes=["pug", "beagle"]),
    "classes too many": lambda b: b.update(classes=["a", "b", "c", "d"]),
    "classes a number": lambda b: b.update(classes=3),
    "classes null": lambda b: b.update(classes=None),
    "classes equal as text": lambda b: b.update(classes=["1", 1, "2"]),
    "config null": lambda b: b.update(config=None),
    "config text": lambda b: b.update(config="xception"),
    "config with less": lambda b: b["config"].pop("view"),
    "config with more": lambda b: b["config"].update(evil=1),
    "config of wrong kinds": lambda b: b["config"].update(size="299"),
    "config with a truth": lambda b: b["config"].update(size=True),
    "temperature zero": lambda b: b.update(temperature=0),
    "temperature negative": lambda b: b.update(temperature=-1.0),
    "temperature nan": lambda b: b.update(temperature=float("nan")),
    "temperature infinite": lambda b: b.update(temperature=float("inf")),
    "temperature text": lambda b: b.update(temperature="warm"),
    "temperature null": lambda b: b.update(temperature=None),
    "no unknown": lambda b: b.pop("unknown"),
    "unknown a number": lambda b: b.update(unknown=3),
    "unknown without threshold": lambda b: b["unknown"].pop("threshold"),
    "unknown threshold nan": lambda b: b["unknown"].update(threshold=float("nan")),
    "unknown threshold text": lambda b: b["unknown"].update(threshold="high"),
    "record a number": lambda b: b.update(record=5),
    "record text": lambda b: b.update(record="text"),
}


@pytest.mark.parametrize("change", BAD_JSON.values(), ids=BAD_JSON.keys())
def test_json_that_makes_no_model_is_refused(model_file: Path, change: Callable[..., object]) -> None:
    rewrite(model_file, lambda arrays, about: change(about))
    with pytest.raises(BreedsError, match=r"dogs\.safetensors is not a model of Breeds, or is damaged"):
        Model.load(model_file)


@pytest.mark.parametrize(
    "metadata", [None, {}, {"format": "pt"}, {"format": "breeds model 1"}, {"format": "breeds model 99"}]
)
def test_safetensors_of_others_are_refused(model_file: Path, metadata: dict[str, str] | None) -> None:
    with safe_open(model_file, "numpy") as file:
        ours = file.metadata()["breeds"]
    if metadata and metadata["format"] == "breeds model 99":
        metadata = {**metadata, "breeds": ours}
    safetensors.numpy.save_file(safetensors.numpy.load_file(model_file), model_file, metadata)
    with pytest.raises(BreedsError, match="not a model of Breeds"):
        Model.load(model_file)


@pytest.mark.parametrize("share", [0, 0.001, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_model_is_refused(model_file: Path, share: float) -> None:
    data = model_file.read_bytes()
    model_file.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(BreedsError, match="damaged"):
        Model.load(model_file)


def test_a_damaged_model_loads_or_is_refused(model: Model, model_file: Path, tmp_path: Path) -> None:
    data = model_file.read_bytes()
    length = 8 + struct.unpack("<Q", data[:8])[0]
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(300):
        damaged = bytearray(data)
        for place in rng.integers(0, length, rng.integers(1, 4)):
            damaged[place] = rng.choice(list(b'0123456789"{}[],:-. ae\\\x00\xff'))
        (tmp_path / "m").write_bytes(damaged)
        try:
            loaded = Model.load(tmp_path / "m")
        except BreedsError:
            refused += 1
        else:
            assert loaded.logits(np.ones((2, 16), np.float32)).shape == (2, len(loaded.classes))
    assert refused > 100


# --- export ----------------------------------------------------------------------------------


@pytest.mark.parametrize("counts", [TWO, THREE])
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_the_exported_pipeline_answers_as_the_model(
    open_store: Callable[..., Store], tmp_path: Path, counts: dict[str, int], temperature: float
) -> None:
    store = open_store(counts)
    model = train(store, C=0.1)
    model.temperature = temperature
    joblib.dump(as_pipeline(model), tmp_path / "m.joblib")
    pipeline = joblib.load(tmp_path / "m.joblib")
    features, labels, _ = columns(store.path)
    expected = model.probabilities(features)
    np.testing.assert_allclose(pipeline.predict_proba(features), expected, atol=1e-6)
    assert pipeline.predict(features).tolist() == [model.classes[i] for i in expected.argmax(axis=1)]
    assert pipeline.score(features, labels) > 0.5


# --- the report ------------------------------------------------------------------------------


def test_every_number_of_the_report_is_scikit_learns(open_store: Callable[..., Store]) -> None:
    store = open_store({"a": 60, "b": 40, "c": 40, "d": 30, "e": 10}, noise=0.4, seed=1)
    model = train(store)
    numbers = evaluate(store, model)
    features, labels, _ = columns(store.path)
    test = ~training_rows(store.path, model)
    truth, p = labels[test], as_pipeline(model).predict_proba(features[test])
    answered = np.array(model.classes)[p.argmax(axis=1)]
    assert numbers["accuracy"] == pytest.approx(sklearn.metrics.accuracy_score(truth, answered))
    assert 0.5 < numbers["accuracy"] < 1, "a store that is neither hopeless nor trivial"
    assert numbers["top3"] == pytest.approx(
        sklearn.metrics.top_k_accuracy_score(truth, p, k=3, labels=model.classes)
    )
    assert numbers["log_loss"] == pytest.approx(sklearn.metrics.log_loss(truth, p), rel=1e-6)
    assert numbers["confusion"] == sklearn.metrics.confusion_matrix(truth, answered).tolist()
    expected = sklearn.metrics.classification_report(truth, answered, output_dict=True, zero_division=0)
    for name, scores in numbers["per_class"].items():
        assert [scores[s] for s in ("precision", "recall", "f1", "support")] == pytest.approx(
            [expected[name][s] for s in ("precision", "recall", "f1-score", "support")]
        )
    low, high = numbers["accuracy_interval"]
    assert low < numbers["accuracy"] < high
    assert numbers["classes"] == ["a", "b", "c", "d", "e"]
    assert (numbers["n_test"], numbers["n_train"], numbers["n_seen"]) == (36, 144, 144)
    assert numbers["weights"] == {"name": "random", "sha256": store.config.weights_sha256}
    assert numbers["config"]["sha256"] == store.config.digest
    assert "random" in numbers["caveat"]


def test_the_report_is_strict_json_and_reads_well(open_store: Callable[..., Store], tmp_path: Path) -> None:
    store = open_store({"a": 20, "Bärenhund": 20}, noise=0.6)
    numbers = evaluate(store, train(store))
    write_json(numbers, tmp_path / "new" / "r.json")

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    read = json.loads((tmp_path / "new" / "r.json").read_text("utf-8"), parse_constant=refuse)
    assert read == numbers
    text = "\n".join(as_lines(read))
    words = " ".join(text.split())
    assert f"accuracy {numbers['accuracy']:.1%}" in words
    assert f"log loss {numbers['log_loss']:.4f}" in words
    table = {line.split()[0]: line.split()[1:] for line in text.splitlines() if len(line.split()) == 5}
    scores = numbers["per_class"]["Bärenhund"]
    assert table["Bärenhund"] == [*(f"{scores[s]:.3f}" for s in ("precision", "recall", "f1")), "4"]


def test_the_text_lists_what_was_confused(open_store: Callable[..., Store]) -> None:
    numbers = evaluate(store := open_store(), train(store))
    numbers["confusion"] = [[4, 0, 0], [0, 5, 0], [0, 0, 3]]
    assert "no photo was taken for another class" in "\n".join(as_lines(numbers))
    numbers["confusion"] = [[1, 3, 0], [0, 5, 0], [1, 0, 2]]
    lines = [line.strip() for line in as_lines(numbers)]
    place = lines.index("most confused:")
    assert lines[place + 1 : place + 4] == ["3 × beagle taken for pug", "1 × shih-tzu taken for beagle", ""]


def test_each_different_photo_counts_once(open_store: Callable[..., Store], tmp_path: Path) -> None:
    store = open_store()
    model = train(store)
    rows = list(range(len(store.table)))
    copies = store_of(store, tmp_path / "copies.h5", rows + rows[::-1])
    once, twice = evaluate(store, model), evaluate(copies, model)
    assert {**once, "store": ""} == {**twice, "store": ""}


def test_a_manifests_split_wins(open_store: Callable[..., Store]) -> None:
    splits = ["test"] * 7 + ["train"] * 13 + ["train"] * 20 + ["test"] * 5 + ["val"] * 5 + ["train"] * 10
    store = open_store(splits=splits)
    model = train(store, C=0.1)
    numbers = evaluate(store, model)
    assert numbers["n_test"] == 12
    assert [scores["support"] for scores in numbers["per_class"].values()] == [7, 5, 0]
    assert (numbers["n_train"], model.record["n_val"], model.record["n_test"]) == (43, 5, 12)
    _, _, keys = columns(store.path)
    assert model.seen_keys() == {key for key, part in zip(keys, splits, strict=True) if part != "test"}


def test_another_store_is_evaluated_on_its_own_test_part(open_store: Callable[..., Store]) -> None:
    model = train(open_store())
    own = open_store(name="other.h5", seed=9, splits=["test", "train", ""] * 20)
    assert evaluate(own, model)["n_test"] == 20
    unsplit = open_store(name="unsplit.h5", seed=9)
    assert (evaluate(unsplit, model)["n_test"], evaluate(unsplit, model)["n_seen"]) == (60, 0)


def test_photos_seen_in_training_are_never_reported_as_test(
    open_store: Callable[..., Store], tmp_path: Path
) -> None:
    store = open_store()
    model = train(store)
    seen = next(row for row, key in enumerate(store.table.key) if key in model.seen_keys())
    splits = ["test" if row in (seen, 59) else "train" for row in range(60)]
    relabelled = store_of(store, tmp_path / "relabelled.h5", list(range(60)), split=splits)
    with pytest.raises(BreedsError, match="used to train") as refused:
        evaluate(relabelled, model)
    assert store.table.path[seen] in str(refused.value)


def test_a_store_with_nothing_new_is_refused(open_store: Callable[..., Store], tmp_path: Path) -> None:
    store = open_store()
    model = train(store)
    seen = np.flatnonzero(training_rows(store.path, model)).tolist()
    with pytest.raises(BreedsError, match=r"seen\.h5 has no labelled photo that this model has not seen"):
        evaluate(store_of(store, tmp_path / "seen.h5", seen), model)
    with pytest.raises(BreedsError, match="no labelled photo"):
        evaluate(open_store({"": 5}, name="unlabelled.h5", seed=5), model)


def test_a_class_that_the_model_does_not_know_is_refused(open_store: Callable[..., Store]) -> None:
    model = train(open_store(TWO))
    with pytest.raises(BreedsError, match=r"other\.h5 has photos of poodle, shih-tzu, which the model"):
        evaluate(open_store({"pug": 3, "shih-tzu": 3, "poodle": 2}, name="other.h5", seed=7), model)


@pytest.mark.parametrize("change", [{"resize": "crop"}, {"weights_sha256": "f" * 64}, {"size": 331}])
def test_another_config_is_refused_naming_both(
    open_store: Callable[..., Store], change: dict[str, Any]
) -> None:
    model = train(open_store())
    other = dataclasses.replace(model.config, **change)
    with pytest.raises(BreedsError) as refused:
        evaluate(open_store(name="other.h5", config=other), model)
    assert str(other) in str(refused.value)
    assert str(model.config) in str(refused.value)


# --- as a user runs them ---------------------------------------------------------------------


@pytest.mark.slow
def test_the_scripts_never_import_tensorflow_and_export_on_request(
    make_store: MakeStore, tmp_path: Path
) -> None:
    features = columns(make_store(THREE, width=16))[0]
    for script, *options in (("train_head.py", "--export", "joblib"), ("evaluate.py",)):
        done = run_script(script, *options, cwd=tmp_path, env={"PYTHONPROFILEIMPORTTIME": "1"})
        assert done.returncode == 0, done.stderr
        timed = [line.rsplit("|", 1)[1] for line in done.stderr.splitlines() if "|" in line]
        imported = {name.strip().split(".")[0] for name in timed}
        assert {"breeds", "h5py", "safetensors"} <= imported
        assert not imported & {"tensorflow", "keras", "openvino", "ray"}
    answers = joblib.load(tmp_path / "models/made.joblib").predict_proba(features)
    model = Model.load(tmp_path / "models/made.safetensors")
    np.testing.assert_allclose(answers, model.probabilities(features), atol=1e-6)


@pytest.mark.parametrize("options", [("--C", 1), ("--export", "joblib")])
def test_the_dense_head_refuses_what_belongs_to_the_other(
    make_store: MakeStore, tmp_path: Path, options: tuple[object, ...]
) -> None:
    store = make_store(TWO, width=16)
    refused = run_script("train_head.py", "--store", store, "--head", "dense", *options, cwd=tmp_path)
    assert_refused(refused, str(options[0]).strip("-"), "dense")
    assert not (tmp_path / "models").exists()


@pytest.mark.slow
@pytest.mark.parametrize("several", [False, True], ids=["one store", "two beside each other"])
def test_a_model_is_evaluated_from_any_folder(make_store: MakeStore, tmp_path: Path, several: bool) -> None:
    make_store(THREE, width=16)
    stores = ["features/made.h5"] * (2 if several else 1)
    trained = run_script("train_head.py", "--store", *stores, "--model", "m.safetensors", cwd=tmp_path)
    assert trained.returncode == 0, trained.stderr
    (tmp_path / "elsewhere").mkdir()
    done = run_script(
        "evaluate.py", "--no-html", "--model", tmp_path / "m.safetensors", cwd=tmp_path / "elsewhere"
    )
    assert done.returncode == 0, done.stderr
    assert str(tmp_path / "features/made.h5") in done.stderr


@pytest.mark.slow
@tensorflow
def test_the_dense_head_repeats_itself_and_keeps_its_best_epoch() -> None:
    from breeds.heads import dense
    from breeds.heads.model import apply_layers

    quick = {"learning_rate": 1e-3}  # the best epoch is the tenth, not the thirtieth
    rng = np.random.default_rng(0)
    targets = np.repeat(np.arange(3), [60, 60, 12])
    features = (0.3 * rng.normal(size=(3, 512))[targets] + rng.normal(size=(132, 512))).astype(np.float32)
    validation = np.arange(132) % 4 == 0
    one, again = (dense.fit(features, targets, validation, 1, **quick) for _ in range(2))
    for (weights, bias), (same_weights, same_bias) in zip(one.layers, again.layers, strict=True):
        assert np.array_equal(weights, same_weights) and np.array_equal(bias, same_bias)
    assert len(one.val_log_loss) < dense.EPOCHS  # it stopped early
    assert one.best_epoch == len(one.val_log_loss) - dense.PATIENCE
    kept = sklearn.metrics.log_loss(
        targets[validation], softmax(apply_layers(features[validation], one.layers))
    )
    assert kept == pytest.approx(min(one.val_log_loss), rel=1e-4)
    # The small class weighs as much as the large ones.
    answers = apply_layers(features[~validation], one.layers).argmax(axis=1)
    assert (answers[targets[~validation] == 2] == 2).mean() > 0.5
    first, other = (dense.fit(features, targets, validation, seed, 1).layers[0][0] for seed in (1, 2))
    assert not np.array_equal(first, other)

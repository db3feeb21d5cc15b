"""The Keras engine is Keras, for every weights file that fits, and says why of those that do not."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from conftest import (
    ROOT,
    SHARED_WEIGHTS,
    assert_refused,
    extract_photos,
    needs_shared,
    run_script,
    starts_tensorflow,
)

from breeds.backbones import XCEPTION, Engine
from breeds.backbones.resolve import open_engine
from breeds.backbones.weights import Weights, get_weights
from breeds.config import FeatureConfig
from breeds.errors import BreedsError
from breeds.photos import decode

# Keras's own, on saving.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")


def open_with(weights: Weights) -> Engine:
    """Open the Keras engine."""
    config = FeatureConfig(XCEPTION.name, weights.name, weights.sha256, XCEPTION.size, "stretch")
    return open_engine(config, lambda: weights, "keras")


@pytest.fixture
def some(drawn_photos: Path) -> list[np.ndarray]:
    """The pixels of two drawn photos of each breed, as the session's engine takes them."""
    return [
        decode(photo.read_bytes(), 96)
        for breed in sorted(drawn_photos.iterdir())
        for photo in sorted(breed.iterdir())[:2]
    ]


@pytest.fixture(scope="module")
def files(random_engine, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Callable]:
    """The random weights in Keras's two file layouts, and plain Keras's features from them."""
    from breeds.backbones.keras import keras

    folder = tmp_path_factory.mktemp("weights")
    model = keras.applications.Xception(include_top=False, weights=None, pooling="avg")
    model.set_weights(random_engine._model.get_weights())
    model.save_weights(folder / "new.weights.h5")
    save_legacy(folder / "legacy.h5", model)

    def features(photos: list[np.ndarray]) -> np.ndarray:
        ready = keras.applications.xception.preprocess_input(np.float32(photos))
        # One by one: on some processors the last bits depend on the place in a batch.
        return np.concatenate([model.predict_on_batch(photo[None]) for photo in ready])

    return folder / "new.weights.h5", folder / "legacy.h5", features


@pytest.fixture(scope="module")
def empty() -> Any:
    """Xception as Keras builds it, which takes longer than to load weights into it."""
    from breeds.backbones.keras import keras

    return keras.applications.Xception(include_top=False, weights=None, pooling="avg")


@pytest.fixture
def built_once(empty, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights are loaded into one network, that holds nothing before, and not into a new one each time."""

    def again(*_: object) -> Any:
        empty.set_weights([np.zeros(weight.shape, weight.dtype) for weight in empty.weights])
        return empty

    monkeypatch.setattr("breeds.backbones.keras._architecture", again)


def save_legacy(path: Path, model: object) -> None:
    """Write weights as Keras 1 and 2 did, and as the files on Keras's own site are."""
    from keras.src.legacy.saving.legacy_h5_format import save_weights_to_hdf5_group

    with h5py.File(path, "w") as file:
        save_weights_to_hdf5_group(file, model)


# features


@needs_shared
def test_features_equal_a_plain_keras_loop_on_real_photos(genuine) -> None:
    from breeds.backbones.keras import keras

    photos, _, ours = genuine
    model = keras.applications.Xception(
        include_top=False, weights=None, pooling="avg", input_shape=(299, 299, 3)
    )
    model.load_weights(SHARED_WEIGHTS)
    theirs = []
    for photo in photos:
        image = keras.utils.load_img(photo, target_size=(299, 299), interpolation="bilinear")
        array = keras.applications.xception.preprocess_input(keras.utils.img_to_array(image)[None])
        theirs.append(model.predict_on_batch(array)[0])
    assert len(photos) >= 6
    assert np.abs(ours - theirs).max() <= 1e-5


def test_both_file_layouts_give_the_features_of_plain_keras(
    files, random_engine, some: list[np.ndarray], built_once
) -> None:
    for path in files[:2]:
        loaded = open_with(get_weights(str(path), XCEPTION))._model  # type: ignore[attr-defined]
        pairs = zip(loaded.weights, random_engine._model.weights, strict=True)
        assert all(np.array_equal(one, other) for one, other in pairs)
    features = list(random_engine.stream(some[:2]))
    assert np.abs(features - files[2](some[:2])).max() <= 1e-5
    assert features[0].dtype == np.float32


def test_a_feature_does_not_depend_on_its_place_or_its_neighbours(
    random_engine, some: list[np.ndarray]
) -> None:
    together = list(random_engine.stream(some[:3]))
    apart = [*random_engine.stream(some[2:3]), *random_engine.stream(some[:2][::-1])][::-1]
    assert np.array_equal(together, apart)
    assert list(random_engine.stream([])) == []


LESSER = """
import numpy as np
from breeds.backbones import XCEPTION
from breeds.backbones.resolve import open_engine
from breeds.backbones.weights import get_weights
from breeds.config import FeatureConfig

weights = get_weights("random", XCEPTION)
config = FeatureConfig("xception", "random", weights.sha256, 96, "stretch")
photos = list(np.random.default_rng(0).integers(0, 256, (6, 96, 96, 3), dtype=np.uint8))
engine = open_engine(config, lambda: weights, "keras")
together = list(engine.stream(photos))
apart = [*engine.stream(photos[5:]), *engine.stream(photos[:5][::-1])][::-1]
assert np.array_equal(together, apart)
"""


@pytest.mark.thorough
@starts_tensorflow
@pytest.mark.parametrize(
    "lesser",
    [
        {"TF_ENABLE_ONEDNN_OPTS": "0", "ONEDNN_MAX_CPU_ISA": "AVX2"},  # what TensorFlow does without AVX-512
        pytest.param(
            {"ONEDNN_MAX_CPU_ISA": "SSE41", "TF_NUM_INTRAOP_THREADS": "1"}, marks=pytest.mark.thorough
        ),
    ],
    ids=["avx2", "sse4"],
)
def test_a_feature_does_not_depend_on_its_company_on_lesser_processors(lesser: dict[str, str]) -> None:
    """As far as TensorFlow can be told to be on one; each has its own rounding."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), **lesser}
    done = subprocess.run(
        [sys.executable, "-c", LESSER], env=env, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr


def test_random_weights_are_not_degenerate(random_engine, some: list[np.ndarray]) -> None:
    features = np.array(list(random_engine.stream(some)))
    assert features.shape == (20, 2048)
    assert np.isfinite(features).all()
    spread = features.std(axis=0)
    assert (spread > 0.01 * np.abs(features).mean()).mean() > 0.9, "columns that tell photos apart"
    standardised = (features - features.mean(axis=0)) / np.where(spread > 0, spread, 1)
    unit = standardised / np.linalg.norm(standardised, axis=1, keepdims=True)
    assert (unit @ unit.T)[np.triu_indices(20, 1)].max() < 0.95, "no two photos are the same to it"


@pytest.fixture(scope="module")
def small_engine(random_config: FeatureConfig) -> Engine:
    """The engine for photos of 71 pixels, with random weights."""
    return open_engine(replace(random_config, size=71), lambda: get_weights("random", XCEPTION), "keras")


def test_random_weights_are_the_same_at_every_build_and_size(random_engine, small_engine) -> None:
    pairs = zip(small_engine._model.weights, random_engine._model.weights, strict=True)
    assert all(np.array_equal(one, other) for one, other in pairs)


# names


@needs_shared
@pytest.mark.parametrize("name", ["imagenet.h5", "random.weights.h5", "xception_notop.weights.h5"])
def test_known_weights_are_known_by_content(tmp_path: Path, name: str) -> None:
    (tmp_path / name).symlink_to(SHARED_WEIGHTS)
    weights = get_weights(str(tmp_path / name), XCEPTION)
    assert (weights.name, weights.sha256) == ("imagenet", XCEPTION.content)


@pytest.mark.parametrize("name", ["imagenet.h5", "random.h5", XCEPTION.weights_url.rsplit("/", 1)[1]])
def test_unknown_weights_are_a_file_whatever_they_are_called(files, tmp_path: Path, name: str) -> None:
    (tmp_path / name).symlink_to(files[1])
    assert get_weights(str(tmp_path / name), XCEPTION).name == f"file:{name}"


def test_a_store_begun_with_one_layout_goes_on_with_the_other(
    files, photos: Path, shared_engine_everywhere: list[str], tmp_path: Path
) -> None:
    for breed in sorted(photos.iterdir())[1:]:
        shutil.rmtree(breed)
    first, second = (
        extract_photos(photos, tmp_path / "s.h5", weights=str(path), size=96) for path in files[:2]
    )
    assert (first.new, second.new, second.changed) == (4, 0, True)
    assert first.config.digest == second.config.digest


# weights that do not fit


def small_network(path: Path) -> None:
    from breeds.backbones.keras import keras

    layers = [keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3, name="small")]
    model = keras.Sequential(layers)
    model.save_weights(path) if path.name.endswith(".weights.h5") else save_legacy(path, model)


def with_top(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        layer = file.create_group("predictions")
        names = ["predictions/kernel", "predictions/bias"]
        layer.attrs["weight_names"] = np.array(names, dtype="S")
        for name, shape in zip(names, ((2048, 1000), 1000), strict=True):
            layer[name] = np.zeros(shape, np.float32)
        file.attrs["layer_names"] = np.append(file.attrs["layer_names"].astype("S"), b"predictions")


def one_layer_of_another_shape(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        del file["block5_sepconv2"]["block5_sepconv2/depthwise_kernel"]
        file["block5_sepconv2"]["block5_sepconv2/depthwise_kernel"] = np.zeros((5, 5, 728, 1), np.float32)


def without_a_layer(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        names = [name for name in file.attrs["layer_names"] if name not in ("block1_conv1", b"block1_conv1")]
        file.attrs["layer_names"] = np.array(names, dtype="S")


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("w.h5", one_layer_of_another_shape, ["layer block5_sepconv2", "(3, 3, 728, 1)", "(5, 5, 728, 1)"]),
        ("w.h5", without_a_layer, ["80 layers", "79"]),
        ("w.h5", with_top, ["80 layers", "81"]),
        ("w.h5", small_network, ["80 layers", "1 saved"]),
        ("w.weights.h5", small_network, []),
        ("w.h5", lambda path: path.write_text("text"), ["not an HDF5 file"]),
        ("w.h5", lambda path: path.write_bytes(path.read_bytes()[: 10**6]), ["truncated"]),
        ("w.h5", lambda path: path.write_bytes(b""), ["not an HDF5 file"]),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_weights_that_do_not_fit_say_why(
    files, built_once, tmp_path: Path, name: str, change: Callable[[Path], None], words: list[str]
) -> None:
    path = tmp_path / name
    shutil.copyfile(files[1], path)
    change(path)
    with pytest.raises(BreedsError, match="does not fit xception") as refused:
        open_with(get_weights(str(path), XCEPTION))
    for word in (str(path), *words):
        assert word in str(refused.value)


@pytest.mark.parametrize("spec", ["nowhere.h5", "folder.h5", "weights.pb", "Imagenet", ""])
def test_weights_that_are_not_there_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spec: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder.h5").mkdir()
    with pytest.raises(BreedsError) as refused:
        get_weights(spec, XCEPTION)
    assert spec in str(refused.value)
    assert "weights" in str(refused.value)


# imagenet, offline


@pytest.fixture
def silent_proxy() -> Iterator[str]:
    """A proxy that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def assert_says_how_to_get_imagenet(
    photos: Path, home: Path, proxy: str, script: str = "extract_features.py"
) -> None:
    env = {"KERAS_HOME": str(home), "no_proxy": "", "NO_PROXY": ""}
    env |= dict.fromkeys(("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"), proxy)
    result = run_script(script, photos, cwd=photos.parent, env=env)
    place = home / "models" / "xception_weights_tf_dim_ordering_tf_kernels_notop.h5"
    assert_refused(result, XCEPTION.weights_url, str(place), "--weights PATH")
    assert not (photos.parent / "features").exists()


@pytest.mark.slow
@pytest.mark.parametrize("half_there", [False, True])
def test_imagenet_offline_says_what_to_fetch_and_where_to_put_it(
    photos: Path, tmp_path: Path, half_there: bool
) -> None:
    home = tmp_path / "keras"
    if half_there:
        (home / "models").mkdir(parents=True)
        (home / "models" / XCEPTION.weights_url.rsplit("/", 1)[1]).write_bytes(b"\x89HDF\r\n\x1a\n")
    assert_says_how_to_get_imagenet(photos, home, "http://127.0.0.1:9")  # nobody listens there


@pytest.mark.slow
def test_imagenet_behind_a_silent_network_ends_all_the_same(
    photos: Path, tmp_path: Path, silent_proxy: str
) -> None:
    (tmp_path / "impatient.py").write_text(
        "import breeds.web; breeds.web.PROBE_SECONDS = 0.3\n"
        "import extract_features; from breeds.cli import common; common.run(extract_features.main)\n"
    )
    assert_says_how_to_get_imagenet(photos, tmp_path / "keras", silent_proxy, "-m impatient")


def of_another_shape(path: Path) -> None:
    with h5py.File(path, "r+") as f:
        del f["layers/conv2d/vars/0"]
        f["layers/conv2d/vars/0"] = np.zeros((5, 5, 3, 32), np.float32)


def without_it(path: Path) -> None:
    with h5py.File(path, "r+") as f:
        del f["layers/conv2d"]


@pytest.mark.parametrize("change", [of_another_shape, without_it])
def test_weights_in_the_new_layout_that_do_not_fit_name_the_layer(
    files, built_once, tmp_path, change
) -> None:
    path = tmp_path / "w.weights.h5"
    shutil.copyfile(files[0], path)
    change(path)
    with pytest.raises(BreedsError, match="layer block1_conv1"):
        open_with(get_weights(str(path), XCEPTION))


def test_a_file_that_only_says_it_is_weights_is_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "w.h5", "w") as f:
        f.attrs["layer_names"] = 3
    with pytest.raises(BreedsError, match="does not fit"):
        open_with(get_weights(str(tmp_path / "w.h5"), XCEPTION))


def test_weights_that_are_not_finite_are_refused_before_hours_of_work(
    files, built_once, tmp_path: Path
) -> None:
    path = tmp_path / "w.h5"
    shutil.copyfile(files[1], path)
    with h5py.File(path, "r+") as f:
        f["block1_conv1"]["block1_conv1/kernel"][0, 0, 0, 0] = np.nan
    with pytest.raises(BreedsError, match="finite"):
        open_with(get_weights(str(path), XCEPTION))

"""The fast engine against the reference, and the cache of converted networks."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import brought
import h5py
import numpy as np
import openvino
import pytest
from conftest import (
    ROOT,
    SHARED_WEIGHTS,
    assert_refused,
    converted_in_this_process,
    copy_some,
    needs_shared,
    run_script,
    starts_tensorflow,
    tensorflow,
)
from stores import as_journal

from breeds.backbones import BACKBONES, XCEPTION, convert
from breeds.backbones.resolve import open_engine, resolve
from breeds.backbones.weights import Weights, get_weights
from breeds.config import FeatureConfig, Network
from breeds.errors import BreedsError
from breeds.features import Store
from breeds.features.journal import save_network
from breeds.heads.explain import Explanation
from breeds.heads.model import Model
from breeds.photos import FilePhoto, decode, photo_at
from breeds.prediction import predict
from breeds.report.gallery import explain

# The warning is Keras's own, on saving.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:__array__ implementation")]


@pytest.fixture(scope="module")
def pixels(drawn_photos: Path) -> list[np.ndarray]:
    return [decode(path.read_bytes(), 96) for path in sorted(drawn_photos.rglob("*.jpg"))[::12]]


@pytest.fixture(scope="module")
def small(random_config: FeatureConfig) -> FeatureConfig:
    """The config of random weights and photos of 96 pixels."""
    return replace(random_config, size=96)


def random_weights() -> Weights:
    return get_weights("random", XCEPTION)


def never() -> Weights:
    raise AssertionError("the weights were asked for though the network is in the cache")


@pytest.fixture
def converted_here() -> Iterator[None]:
    with converted_in_this_process():
        yield


def features(config: FeatureConfig, weights, pixels, **options) -> np.ndarray:
    return np.stack(list(open_engine(config, weights, "openvino", **options).stream(pixels)))


def assert_within_tolerance(found: np.ndarray, wanted: np.ndarray) -> None:
    """The design's rule for engines that may be exchanged inside one config."""
    lengths = np.linalg.norm(wanted, axis=1)
    assert (np.linalg.norm(found - wanted, axis=1) / lengths).max() < 1e-3
    cosine = (found * wanted).sum(axis=1) / lengths / np.linalg.norm(found, axis=1)
    assert (1 - cosine).max() < 1e-4


def test_openvino_equals_keras_at_another_size_and_converts_once(
    small, random_engine, pixels, session_cache, tmp_path, monkeypatch
) -> None:
    wanted = np.stack(list(random_engine.stream(pixels)))
    assert_within_tolerance(features(small, random_weights, pixels), wanted)
    (entry,) = session_cache.glob(f"xception-{small.weights_sha256[:16]}-fp32-*")
    again = features(small, never, pixels)
    assert np.array_equal(again, features(small, never, pixels[::-1])[::-1])
    assert_within_tolerance(features(small, never, pixels[:1], single=True), wanted[:1])

    cache = tmp_path / "cache"
    monkeypatch.setenv("BREEDS_CACHE", str(cache))
    network = shutil.copytree(entry, cache / entry.name) / "network.bin"
    damaged = bytearray(network.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    network.write_bytes(damaged)
    assert np.array_equal(features(small, random_weights, pixels), again)
    assert [path.name for path in cache.iterdir()] == [entry.name]


@needs_shared
def test_openvino_equals_keras_on_real_photos(genuine, converted_here) -> None:
    paths, config, wanted = genuine
    weights = get_weights(str(SHARED_WEIGHTS), XCEPTION)

    pixels = [decode(photo_at("", str(path)).read(), config.size) for path in paths]
    assert_within_tolerance(features(config, lambda: weights, pixels), wanted)


# int8


@pytest.fixture(scope="module")
def int8(drawn_photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with twelve photos, their int8 store, and a model of it."""
    folder = tmp_path_factory.mktemp("int8")
    photos = copy_some(drawn_photos, folder / "photos")
    (folder / "unseen.png").write_bytes(max(photos.rglob("*.jpg")).read_bytes() + b"!")
    result = run_script("extract_features.py", "photos", *INT8, "--store", "features/i.h5", cwd=folder)
    assert result.returncode == 0, result.stderr
    assert run_script("train_head.py", "--C", "0.01", cwd=folder).returncode == 0
    return folder


INT8 = ("--weights", "random", "--size", "96", "--precision", "int8")


@pytest.fixture
def copied(int8: Path, tmp_path: Path) -> Path:
    """A copy of that folder, to do with as a test likes."""
    return shutil.copytree(int8, tmp_path / "copied")


def digest_of(folder: Path, store: str = "i") -> str:
    return Store(folder / "features" / f"{store}.h5").config.calibration


@pytest.fixture(scope="module")
def exact(int8: Path) -> np.ndarray:
    """The features of the same photos in fp32, in the order of the int8 store."""
    result = run_script("extract_features.py", "photos", *INT8[:4], "--store", "exact.h5", cwd=int8)
    assert result.returncode == 0, result.stderr
    store = Store(int8 / "exact.h5")
    assert list(store.table.key) == list(Store(int8 / "features/i.h5").table.key)
    return store.features()


def test_int8_is_a_config_of_its_own_near_fp32(copied, exact) -> None:
    command = ("extract_features.py", "photos", *INT8, "--store")
    again = run_script(*command, "features/i.h5", cwd=copied)
    assert "(0 new, 12 reused)" in again.stdout
    assert f"int8, network {digest_of(copied)[:12]}" in again.stdout
    fp32 = (*command[:-2], "fp32", "--store")
    assert_refused(run_script(*fp32, "features/i.h5", cwd=copied), "int8", "fp32")
    found = Store(copied / "features/i.h5").features()
    cosine = (found * exact).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(exact, axis=1)
    assert cosine.min() > 0.95 and np.abs(found - exact).max() > 1e-4


def test_the_same_photos_give_the_same_network_and_it_identifies_the_config(
    copied, session_cache, tmp_path
) -> None:
    command = ("extract_features.py", "photos", *INT8, "--store")
    second = run_script(*command, "features/second.h5", cwd=copied)
    assert "(12 new, 0 reused)" in second.stdout and "quantising" not in second.stderr
    cache = tmp_path / "cache"  # of another user on this machine
    for network in session_cache.glob("xception-*-fp32-*"):
        shutil.copytree(network, cache / network.name)
    third = run_script(*command, "features/third.h5", cwd=copied, env={"BREEDS_CACHE": str(cache)})
    assert "quantising" in third.stderr
    assert digest_of(copied) == digest_of(copied, "second") == digest_of(copied, "third")

    with h5py.File(copied / "features/i.h5") as file:
        parts = [hashlib.sha256(file["network"][name][:].tobytes()).digest() for name in ("xml", "bin")]
    assert hashlib.sha256(b"".join(parts)).hexdigest() == digest_of(copied)


def test_an_int8_model_predicts_where_there_is_nothing_else(int8, tmp_path) -> None:
    answer = run_script("predict.py", "unseen.png", cwd=int8)
    assert answer.returncode == 0, answer.stderr
    (tmp_path / "models").mkdir()
    shutil.copy(int8 / "models/i.safetensors", tmp_path / "models")
    shutil.copy(int8 / "unseen.png", tmp_path)
    env = {"BREEDS_CACHE": str(tmp_path / "cache"), "PYTHONPROFILEIMPORTTIME": "1"}
    elsewhere = run_script("predict.py", "unseen.png", cwd=tmp_path, env=env)
    assert elsewhere.stdout == answer.stdout, elsewhere.stderr
    imported = {line.rsplit("|", 1)[-1].strip() for line in elsewhere.stderr.splitlines()}
    assert "openvino" in imported and "tensorflow" not in imported
    assert "keras" not in elsewhere.stderr.replace("engines.keras", "")
    assert not list(tmp_path.glob("cache/*int8*"))


def test_one_photo_alone_has_the_feature_that_it_has_among_others(int8) -> None:
    """Again and again: where threads shared a photo, some of these differed."""
    model = Model.load(int8 / "models/i.safetensors")
    (network,) = model.networks.values()
    photos = [decode(path.read_bytes(), 96) for path in sorted(int8.glob("photos/*/*.jpg"))[:4]]
    many, alone = (
        open_engine(model.config, None, network=lambda: network, single=single) for single in (0, 1)
    )
    among_others = np.stack(list(many.stream(photos)))
    for _ in range(8):
        assert np.array_equal(np.stack([next(alone.stream([photo])) for photo in photos]), among_others)


def test_an_int8_model_is_exported_with_its_own_network(copied) -> None:
    done = run_script("-m breeds.cli.export", "models/i.safetensors", "--format", "openvino", cwd=copied)
    assert done.returncode == 0, done.stderr
    store, model = Store(copied / "features/i.h5"), Model.load(copied / "models/i.safetensors")
    paths = [Path(store.table.root, path) for path in store.table.path]
    pixels = np.stack([decode(path.read_bytes(), 96) for path in paths])
    core = openvino.Core()
    network = core.read_model(copied / "models/i.xml")
    for count in (1, 4):
        network.reshape([count, 96, 96, 3])  # as docs/exports.md says
        settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
        compiled = core.compile_model(network, "CPU", settings)
        parts = [compiled(part) for part in np.split(pixels, len(pixels) // count)]
        found = [np.concatenate([part[i] for part in parts]) for i in range(2)]
        np.testing.assert_allclose(found[0], model.probabilities(store.features()), atol=1e-4)
        np.testing.assert_allclose(found[1], model.unknown.excess(store.features()), atol=1e-4)
    assert (copied / "models/i.bin").stat().st_size < 25e6
    refused = run_script("-m breeds.cli.export", "--format", "openvino", "onnx", cwd=copied)
    assert_refused(refused, "int8 network is OpenVINO's own, and ONNX Runtime would round it elsewhere")


def test_the_map_of_an_int8_network_is_its_score(int8) -> None:
    model = Model.load(int8 / "models/i.safetensors")
    store = Store(int8 / "features/i.h5")
    photos = [
        (key, FilePhoto(str(int8 / "photos" / path)))
        for key, path in zip(store.table.key, store.table.path, strict=True)
    ]
    for one, feature in zip(explain(model, photos), store.features(), strict=True):
        assert isinstance(one, Explanation)
        assert np.array_equal(one.feature, feature)
        score = model.logits(feature[None])[0] * model.temperature
        assert np.abs(one.evidence.mean(axis=(1, 2)) + model.layers[0][1] - score).max() < 1e-4


LESSER = """
import sys
import numpy as np
from breeds.backbones.resolve import open_engine
from breeds.heads.model import Model

model = Model.load(sys.argv[1])
(network,) = model.networks.values()
engine = open_engine(model.config, None, network=lambda: network)
np.save(sys.argv[2], list(engine.stream(np.load(sys.argv[3]))))
"""


def test_an_int8_network_is_as_exact_on_processors_without_int8_products(int8, exact, tmp_path) -> None:
    """As far as OpenVINO can be told to be on one; the store's features are what it gives here."""
    store = Store(int8 / "features/i.h5")
    photos = [decode((int8 / "photos" / path).read_bytes(), 96) for path in store.table.path]
    np.save(tmp_path / "photos.npy", photos)
    found = [store.features()]
    for limit in ("AVX2", "SSE41"):
        path = tmp_path / f"{limit}.npy"
        env = {**os.environ, "PYTHONPATH": str(ROOT), "ONEDNN_MAX_CPU_ISA": limit}
        command = [sys.executable, "-c", LESSER, int8 / "models/i.safetensors", path, tmp_path / "photos.npy"]
        subprocess.run(command, env=env, check=True, timeout=300)
        found.append(np.load(path))

    def apart(one, other):
        return np.linalg.norm(one - other, axis=1) / np.linalg.norm(exact, axis=1)

    best, *lesser = found
    for features in lesser:
        # A value between two steps is rounded to the other one: seldom from VNNI to AVX2, often from AMX, or
        # without FMA. Yet the features are as near to fp32 as int8 is anywhere.
        assert np.median(apart(features, best)) < 0.5 * np.median(apart(best, exact))
        assert np.median(apart(features, exact)) < 1.1 * np.median(apart(best, exact))


def test_shards_of_a_killed_run_go_on_with_their_network(copied, tmp_path) -> None:
    before = Store(copied / "features/i.h5")
    (network,) = before.networks().values()
    save_network(network, as_journal(before.path))
    shutil.copy(copied / "unseen.png", next((copied / "photos").iterdir()) / "unseen.png")
    command = ("extract_features.py", "photos", *INT8, "--store", "features/i.h5")
    result = run_script(*command, cwd=copied, env={"BREEDS_CACHE": str(tmp_path / "empty")})
    assert "(1 new, 12 reused)" in result.stdout, result.stderr
    assert "quantising" not in result.stderr
    assert Store(copied / "features/i.h5").config == before.config


def test_without_its_network_an_int8_store_or_model_says_so(copied, tmp_path) -> None:
    elsewhere = {"BREEDS_CACHE": str(tmp_path / "empty")}
    with h5py.File(copied / "features/i.h5", "r+") as file:
        file["network/bin"][99] ^= 1
    command = ("extract_features.py", "photos", *INT8, "--store", "features/i.h5")
    assert "(0 new, 12 reused)" in run_script(*command, cwd=copied, env=elsewhere).stdout
    shutil.copy(copied / "unseen.png", next((copied / "photos").iterdir()) / "unseen.png")
    for refused in (
        run_script(*command, cwd=copied, env=elsewhere),
        run_script("train_head.py", cwd=copied, env=elsewhere),
    ):
        assert_refused(refused, "i.h5 is damaged", "int8 network")

    model = Model.load(copied / "models/i.safetensors")
    model.networks.clear()  # as in models of older versions
    model.save(copied / "models/i.safetensors")
    (copied / "other.png").write_bytes((copied / "unseen.png").read_bytes() + b"!")
    refused = run_script("predict.py", "other.png", cwd=copied)
    assert_refused(refused, digest_of(copied)[:12], "older versions", "train again")


def test_a_network_that_is_not_the_configs_or_not_standard_is_refused(int8, tmp_path) -> None:
    model = Model.load(int8 / "models/i.safetensors")
    (network,) = model.networks.values()

    def with_network(xml: np.ndarray, numbers: np.ndarray, digest: str = "", **changes: object) -> Model:
        other = Network(xml, numbers)
        config = replace(model.config, calibration=digest or other.digest, **changes)
        return replace(model, config=config, networks={config.calibration: other})

    def answer(changed: Model) -> None:
        list(predict(changed, [FilePhoto(str(int8 / "unseen.png"))]))

    damaged = network.bin.copy()
    damaged[len(damaged) // 2] ^= 1
    with_network(network.xml, damaged, network.digest).save(tmp_path / "damaged.safetensors")
    with pytest.raises(BreedsError, match="not the one that the config names"):
        Model.load(tmp_path / "damaged.safetensors")

    text = network.xml.tobytes().decode()
    for old, new in (('version="opset1"', 'version="mine"'), ("<layers>", "<layers")):
        other = np.frombuffer(text.replace(old, new).encode(), np.uint8)
        with pytest.raises(BreedsError, match="OpenVINO cannot read the int8 network"):
            answer(with_network(other, network.bin))
    with pytest.raises(BreedsError, match="does not take photos of 128 pixels"):
        answer(with_network(network.xml, network.bin, size=128))


def test_views_share_the_network_of_an_int8_store_that_has_grown(
    int8, photos, drawn_photos, tmp_path
) -> None:
    """Of the same photos as `int8` at first, so that its network need not be quantised again."""
    options = (*INT8, "--store", "features/p.h5")
    journal = tmp_path / "features" / "p.journal"
    journal.mkdir(parents=True)
    (journal / f"network-{'0' * 64}.safetensors").touch()  # of a run that was stopped
    assert run_script("extract_features.py", photos, *options, cwd=tmp_path).returncode == 0
    assert digest_of(tmp_path, "p") == digest_of(int8)
    shutil.copytree(max(drawn_photos.iterdir()), photos / "more")
    result = run_script("extract_features.py", photos, *options, "--views", "flip", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "18 features (6 new, 12 reused)" in result.stdout
    assert digest_of(tmp_path, "p") == digest_of(tmp_path, "p+flip") == digest_of(int8)
    training = run_script("train_head.py", "--views", "--C", "0.01", cwd=tmp_path)
    assert training.returncode == 0, training.stderr


@starts_tensorflow
def test_without_openvino_keras_does_the_work_and_the_store_goes_on_with_openvino(photos, tmp_path) -> None:
    (tmp_path / "poison").mkdir()
    (tmp_path / "poison" / "openvino.py").write_text("raise ImportError('no such instruction')\n")
    poisoned = {"PYTHONPATH": f"{tmp_path / 'poison'}:{ROOT}"}
    options = ("--weights", "random", "--size", "96", "--store", "s.h5")
    _, *rest = sorted(photos.iterdir())
    for folder in rest:
        folder.rename(tmp_path / folder.name)
    command = ("extract_features.py", photos, *options)
    refused = run_script(*command, "--engine", "openvino", cwd=tmp_path, env=poisoned)
    assert_refused(refused, "OpenVINO does not work", "--engine keras")
    first = run_script(*command, cwd=tmp_path, env=poisoned)
    assert first.returncode == 0, first.stderr
    assert first.stderr.count("OpenVINO does not work here") == 1
    assert "4 photos = 4 features" in first.stdout
    for folder in rest:
        (tmp_path / folder.name).rename(folder)
    second = run_script(*command, "--engine", "openvino", cwd=tmp_path)
    assert "12 features (8 new, 4 reused)" in second.stdout, second.stderr
    other = ("--engine", "openvino", "--store", "o.h5")
    third = run_script("extract_features.py", photos, *options[:4], *other, cwd=tmp_path)
    assert third.returncode == 0, third.stderr
    with h5py.File(tmp_path / "s.h5") as mixed, h5py.File(tmp_path / "o.h5") as pure:
        assert_within_tolerance(mixed["features"][:], pure["features"][:])


@tensorflow
def test_where_openvino_loads_and_then_fails_keras_does_the_work(small, monkeypatch, said) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("no executor for this instruction set")

    monkeypatch.setattr("openvino.Core.compile_model", broken)
    assert open_engine(small, random_weights).name == "keras"
    assert said.text.count("using the slower Keras engine") == 1
    with pytest.raises(BreedsError, match=r"no executor.*--engine keras"):
        open_engine(small, random_weights, "openvino")


def test_bf16_where_the_cpu_has_it_and_one_sentence_where_not(small, pixels, random_engine) -> None:
    config = replace(small, precision="bf16")
    try:
        open_engine(config, random_weights)
    except BreedsError as error:  # OpenVINO knows best what this processor can
        assert "no bfloat16" in str(error)
        return
    found, wanted = features(config, random_weights, pixels), np.stack(list(random_engine.stream(pixels)))
    cosine = (found * wanted).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(wanted, axis=1)
    assert cosine.min() > 0.99 and np.abs(found - wanted).max() > 1e-4


def test_what_a_machine_cannot_do_is_one_sentence(drawn_photos, tmp_path) -> None:
    command = ("extract_features.py", drawn_photos, "--weights", "random")
    refused = run_script(*command, "--engine", "keras", "--precision", "int8", cwd=tmp_path)
    assert_refused(refused, "int8", "OpenVINO")
    assert_refused(run_script(*command, "--size", "70", cwd=tmp_path), "--size 70", "71")
    assert not (tmp_path / "features").exists()


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs a file that gives read errors")
def test_a_cached_network_that_cannot_be_read_just_now_is_not_taken_for_damaged(
    random_config, monkeypatch, tmp_path
) -> None:
    from breeds.backbones.convert import fp32_network

    monkeypatch.setenv("BREEDS_CACHE", str(tmp_path))
    entry = tmp_path / f"xception-{random_config.weights_sha256[:16]}-fp32-1-{'0' * 64}"
    entry.mkdir()
    for name in ("network.xml", "network.bin"):
        (entry / name).symlink_to("/proc/self/mem")  # reading it is an error of the device
    with pytest.raises(BreedsError, match="Cannot read the cached network"):
        fp32_network(random_config, never)
    assert sorted(path.name for path in entry.iterdir()) == ["network.bin", "network.xml"]


def test_a_cache_that_cannot_be_written_is_said_once(pixels, tmp_path, monkeypatch, said) -> None:
    file = brought.described(tmp_path / "a.onnx", dims=("n", 3, 96, 96))
    config, weights = resolve(FeatureConfig(str(file)))
    wanted = features(config, lambda: weights, pixels[:1])
    (tmp_path / "file").touch()
    monkeypatch.setenv("BREEDS_CACHE", str(tmp_path / "file" / "cache"))
    for _ in range(2):
        assert np.array_equal(features(config, lambda: weights, pixels[:1]), wanted)
    assert said.text.count("cannot be written") == 1


#: Its random weights, converted once, are in the session's cache for the test of two backbones.
SECOND = "mobilenetv3large"


@tensorflow
@pytest.mark.parametrize(
    "name",
    [
        pytest.param("inceptionv3", marks=pytest.mark.thorough),
        pytest.param("resnet50v2", marks=pytest.mark.thorough),
        pytest.param("efficientnetv2s", marks=pytest.mark.thorough),
        pytest.param("convnexttiny", marks=pytest.mark.thorough),
        pytest.param("efficientnetv2b0", marks=pytest.mark.thorough),
        SECOND,
    ],
)
def test_other_backbones_equal_keras_with_their_own_preprocessing(
    name: str, drawn_photos, tmp_path, converted_here
) -> None:
    import keras

    from breeds.backbones.keras import add_map

    modules = {
        "inceptionv3": keras.applications.inception_v3,
        "resnet50v2": keras.applications.resnet_v2,
        "efficientnetv2s": keras.applications.efficientnet_v2,
        "convnexttiny": keras.applications.convnext,
        "efficientnetv2b0": keras.applications.efficientnet_v2,
        "mobilenetv3large": keras.applications.mobilenet_v3,
    }
    backbone = BACKBONES[name]
    weights = get_weights("random", backbone)
    if name == "efficientnetv2b0":  # its gates magnify rounding where all is random
        keras.utils.set_random_seed(0)
        fresh = getattr(keras.applications, backbone.keras_name)
        shape = (96, 96, 3)
        fresh(include_top=False, weights=None, input_shape=shape).save_weights(tmp_path / "w.weights.h5")
        weights = get_weights(str(tmp_path / "w.weights.h5"), backbone)
    config = FeatureConfig(name, weights.name, weights.sha256, 96, "stretch")
    photos = [decode(path.read_bytes(), 96) for path in sorted(drawn_photos.rglob("*.jpg"))[::12]]
    engine = open_engine(config, lambda: weights, "keras", maps=name != "convnexttiny")
    ready = modules[name].preprocess_input(np.stack(photos).astype("float32"))
    computed = [engine._model.predict_on_batch(photo[None]) for photo in ready]
    wanted = np.concatenate([outputs if name == "convnexttiny" else outputs[0] for outputs in computed])
    found = np.stack(list(engine.stream(photos)))
    assert found.shape == (len(photos), backbone.width)
    assert found.std(axis=0).mean() > 1e-6
    assert np.allclose(found, wanted, rtol=1e-4, atol=1e-5)
    converted = ("resnet50v2", "convnexttiny", "efficientnetv2b0", "mobilenetv3large")
    if name in converted:
        if weights.path is None and name != SECOND:  # to draw them once more would take longer
            engine._model.save_weights(tmp_path / "w.weights.h5")
        same = weights if name == SECOND else get_weights(str(tmp_path / "w.weights.h5"), backbone)
        assert_within_tolerance(features(config, lambda: same, photos), found)
    if name == "convnexttiny":  # a normalisation follows on its average
        for with_map in (
            lambda: open_engine(config, never, "openvino", maps=True),
            lambda: add_map(engine._model, name),
        ):
            with pytest.raises(BreedsError, match="cannot be shown for convnexttiny"):
                with_map()
        return
    engines = [engine, *([open_engine(config, never, "openvino", maps=True)] if name in converted else [])]
    for mapped in engines:
        for feature, unpooled in mapped.stream_maps(photos):
            assert np.allclose(unpooled.mean(axis=(0, 1)), feature, rtol=1e-4, atol=1e-5)


@tensorflow
def test_a_model_on_two_backbones_predicts_from_photos_alone(photos, tmp_path, converted_here) -> None:
    weights = get_weights("random", BACKBONES[SECOND])
    convert.fp32_network(FeatureConfig(SECOND, weights.name, weights.sha256, 96, "stretch"), lambda: weights)
    for name in ("xception", SECOND):
        result = run_script(
            "extract_features.py", photos, "--weights", "random", "--backbone", name, "--size", "96",
            "--store", f"features/{name}.h5", cwd=tmp_path,
        )  # fmt: skip
        assert result.returncode == 0, result.stderr
    stores = ("--store", "features/xception.h5", f"features/{SECOND}.h5")
    assert run_script("train_head.py", *stores, "--C", "0.01", cwd=tmp_path).returncode == 0
    evaluation = run_script("evaluate.py", "--no-html", cwd=tmp_path)
    assert evaluation.returncode == 0, evaluation.stderr
    refused = run_script("evaluate.py", "--no-html", "--store", "features/xception.h5", cwd=tmp_path)
    assert_refused(refused, "2 stores", "1 were given")
    (tmp_path / "new.jpg").write_bytes(next(photos.rglob("*.jpg")).read_bytes() + b"!")
    answer = run_script("predict.py", "new.jpg", "--no-unknown", "--tta", "flip", cwd=tmp_path)
    assert answer.returncode == 0, answer.stderr
    assert len(answer.stdout.splitlines()) == 2
    model_classes = {path.name for path in photos.iterdir()}
    assert answer.stdout.splitlines()[1].split(",")[1] in model_classes
    assert_refused(run_script("predict.py", "new.jpg", "--explain", "why", cwd=tmp_path), "several stores")


def test_training_on_views_and_averaging_over_them(photos, tmp_path) -> None:
    extraction = run_script(
        "extract_features.py", photos, "--weights", "random", "--size", "96", "--views", "flip,crops:1",
        "--store", "features/p.h5", cwd=tmp_path,
    )  # fmt: skip
    assert extraction.returncode == 0, extraction.stderr
    names = {path.name for path in (tmp_path / "features").glob("*.h5")}
    assert names == {"p.h5", "p+flip.h5", "p+crop1.h5"}
    training = run_script("train_head.py", "--views", "--C", "0.01", cwd=tmp_path)
    assert training.returncode == 0, training.stderr
    assert "crop1, flip" in training.stdout
    assert run_script("evaluate.py", "--no-html", cwd=tmp_path).returncode == 0
    photo = next(photos.rglob("*.jpg"))
    plain, averaged = (
        run_script("predict.py", photo, *more, cwd=tmp_path).stdout for more in ([], ["--tta", "flip"])
    )
    assert plain != averaged


def test_a_config_of_the_other_engine_is_refused(random_config) -> None:
    for precision in ("bf16", "int8"):
        with pytest.raises(BreedsError, match="needs the"):
            open_engine(replace(random_config, precision=precision), never, "keras")

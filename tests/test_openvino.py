"""The fast engine against the reference, and the cache of converted networks."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from conftest import SHARED, SHARED_WEIGHTS, assert_refused, needs_shared, run_script

from breeds.engines.backbones import XCEPTION
from breeds.engines.choose import open_engine
from breeds.engines.weights import Weights, get_weights
from breeds.errors import BreedsError
from breeds.photos import decode, read
from breeds.recipe import Recipe

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("networks")


@pytest.fixture(autouse=True)
def use_cache(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BREEDS_CACHE", str(cache))


@pytest.fixture(scope="module")
def pixels(drawn_photos: Path) -> list[np.ndarray]:
    return [decode(path.read_bytes(), 299) for path in sorted(drawn_photos.rglob("*.jpg"))[::6]]


def random_weights() -> Weights:
    return get_weights("random", XCEPTION)


def never() -> Weights:
    raise AssertionError("the weights were asked for though the network is in the cache")


def features(recipe: Recipe, weights, pixels, **options) -> np.ndarray:
    return np.stack(list(open_engine(recipe, weights, "openvino", **options).stream(pixels)))


def assert_within_tolerance(found: np.ndarray, wanted: np.ndarray) -> None:
    """The design's rule for engines that may be exchanged inside one recipe."""
    lengths = np.linalg.norm(wanted, axis=1)
    assert (np.linalg.norm(found - wanted, axis=1) / lengths).max() < 1e-3
    cosine = (found * wanted).sum(axis=1) / lengths / np.linalg.norm(found, axis=1)
    assert (1 - cosine).max() < 1e-4


def test_openvino_equals_keras_and_converts_once(random_recipe, random_engine, pixels, cache) -> None:
    wanted = np.stack(list(random_engine.stream(pixels)))
    assert_within_tolerance(features(random_recipe, random_weights, pixels), wanted)
    (entry,) = cache.iterdir()
    again = features(random_recipe, never, pixels)
    assert np.array_equal(again, features(random_recipe, never, pixels[::-1])[::-1])
    assert_within_tolerance(features(random_recipe, never, pixels[:1], single=True), wanted[:1])

    network = entry / "network.bin"
    damaged = bytearray(network.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    network.write_bytes(damaged)
    assert np.array_equal(features(random_recipe, random_weights, pixels), again)
    assert [path.name for path in cache.iterdir()] == [entry.name]


@needs_shared
def test_openvino_equals_keras_on_real_photos_and_at_another_size() -> None:
    weights = get_weights(str(SHARED_WEIGHTS), XCEPTION)
    recipe = Recipe("xception", weights.name, weights.sha256, 299, "stretch")
    paths = [*sorted((SHARED / "data/fullsize").rglob("*.jpg"))[::5]]
    paths += sorted((SHARED / "data/dogs10").rglob("*.jpg"))[::40]
    for size in (299, 128):
        here = replace(recipe, size=size)
        photos = [decode(read(str(path)), size) for path in paths]
        wanted = np.stack(list(open_engine(here, lambda: weights, "keras").stream(photos)))
        assert_within_tolerance(features(here, lambda: weights, photos), wanted)


def test_int8_is_a_recipe_of_its_own_near_fp32(random_recipe, drawn_photos, pixels, tmp_path, cache) -> None:
    store = "features/small.h5"
    options = ("--weights", "random", "--size", "96", "--store", store)
    command = ("extract_features.py", drawn_photos, *options)
    result = run_script(*command, "--precision", "int8", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "calibration" in result.stdout
    recorded = list(tmp_path.glob("features/small.shards/calibration-*.txt"))
    assert len(recorded) == 1
    again = run_script(*command, "--precision", "int8", cwd=tmp_path)
    assert "(0 new, 60 reused)" in again.stdout
    assert_refused(run_script(*command, cwd=tmp_path), "int8", "fp32")
    assert run_script("train_head.py", "--C", "0.01", cwd=tmp_path).returncode == 0
    photo = next(drawn_photos.rglob("*.jpg"))
    (tmp_path / "unseen.png").write_bytes(photo.read_bytes() + b"!")
    answer = run_script("predict.py", "unseen.png", cwd=tmp_path, env={"PYTHONPROFILEIMPORTTIME": "1"})
    assert answer.returncode == 0, answer.stderr
    assert "openvino" in answer.stderr
    assert "tensorflow" not in answer.stderr and "keras" not in answer.stderr.replace("engines.keras", "")

    def forget_the_network() -> None:
        for network in cache.glob("*int8*"):
            shutil.rmtree(network)
        (tmp_path / "models" / "features.sqlite").unlink()

    forget_the_network()  # the store and its photos are there: it is made again, the same
    again = run_script("predict.py", "unseen.png", cwd=tmp_path)
    assert "quantising" in again.stderr
    assert again.stdout == answer.stdout
    forget_the_network()
    recorded[0].unlink()
    refused = run_script("predict.py", "unseen.png", cwd=tmp_path)
    assert_refused(refused, "int8 network", "extract_features.py --precision int8")


def test_views_share_the_calibration_of_an_int8_store_that_has_grown(photos, tmp_path) -> None:
    options = ("--weights", "random", "--size", "71", "--precision", "int8", "--store", "features/p.h5")
    _, *rest = sorted(photos.iterdir())
    for folder in rest:
        folder.rename(tmp_path / folder.name)
    shards = tmp_path / "features" / "p.shards"
    shards.mkdir(parents=True)
    (shards / f"calibration-{'0' * 64}.txt").write_text(f"{'1' * 64}\n")  # of a run that was stopped
    assert run_script("extract_features.py", photos, *options, cwd=tmp_path).returncode == 0
    for folder in rest:
        (tmp_path / folder.name).rename(folder)
    result = run_script("extract_features.py", photos, *options, "--views", "flip", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "12 features (8 new, 4 reused)" in result.stdout
    training = run_script("train_head.py", "--views", "--C", "0.01", cwd=tmp_path)
    assert training.returncode == 0, training.stderr


def test_a_store_begun_with_one_engine_goes_on_with_the_other(photos, tmp_path) -> None:
    options = ("--weights", "random", "--size", "71", "--store", "s.h5")
    _, *rest = sorted(photos.iterdir())
    for folder in rest:
        folder.rename(tmp_path / folder.name)
    first = run_script("extract_features.py", photos, *options, "--engine", "keras", cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    for folder in rest:
        (tmp_path / folder.name).rename(folder)
    second = run_script("extract_features.py", photos, *options, "--engine", "openvino", cwd=tmp_path)
    assert "12 features (8 new, 4 reused)" in second.stdout, second.stderr
    other = ("--engine", "openvino", "--store", "o.h5")
    third = run_script("extract_features.py", photos, *options[:4], *other, cwd=tmp_path)
    assert third.returncode == 0, third.stderr
    with h5py.File(tmp_path / "s.h5") as mixed, h5py.File(tmp_path / "o.h5") as pure:
        assert_within_tolerance(mixed["features"][:], pure["features"][:])


def test_where_openvino_loads_and_then_fails_keras_does_the_work(
    random_recipe, pixels, monkeypatch, capsys
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("no executor for this instruction set")

    monkeypatch.setattr("breeds.engines.openvino._compile", broken)
    small = replace(random_recipe, size=71)
    assert open_engine(small, random_weights).name == "keras"
    assert capsys.readouterr().err.count("using the slower Keras engine") == 1
    with pytest.raises(BreedsError, match=r"no executor.*--engine keras"):
        open_engine(small, random_weights, "openvino")


def test_bf16_where_the_cpu_has_it_and_one_sentence_where_not(random_recipe, pixels, random_engine) -> None:
    recipe = replace(random_recipe, precision="bf16")
    if "avx512_bf16" not in Path("/proc/cpuinfo").read_text():
        with pytest.raises(BreedsError, match="no bfloat16"):
            open_engine(recipe, random_weights)
        return
    found, wanted = features(recipe, random_weights, pixels), np.stack(list(random_engine.stream(pixels)))
    cosine = (found * wanted).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(wanted, axis=1)
    assert cosine.min() > 0.99 and np.abs(found - wanted).max() > 1e-4


def test_what_a_machine_cannot_do_is_one_sentence(drawn_photos, tmp_path) -> None:
    command = ("extract_features.py", drawn_photos, "--weights", "random")
    refused = run_script(*command, "--engine", "keras", "--precision", "int8", cwd=tmp_path)
    assert_refused(refused, "int8", "OpenVINO")
    assert_refused(run_script(*command, "--size", "70", cwd=tmp_path), "--size 70", "71")
    assert_refused(run_script(*command, "--precision", "fp16", cwd=tmp_path), "fp16", "GPU")
    assert not (tmp_path / "features").exists()


def test_without_openvino_keras_does_the_work_after_one_warning(drawn_photos, tmp_path) -> None:
    (tmp_path / "openvino.py").write_text("raise ImportError('no such instruction')\n")
    photo = next(drawn_photos.rglob("*.jpg"))
    (tmp_path / "flat").mkdir()
    (tmp_path / "flat" / "a.jpg").write_bytes(photo.read_bytes())
    env = {"PYTHONPATH": f"{tmp_path}:{Path(__file__).parent.parent}"}
    command = ("extract_features.py", "flat", "--weights", "random")
    refused = run_script(*command, "--engine", "openvino", cwd=tmp_path, env=env)
    assert_refused(refused, "OpenVINO does not load", "--engine keras")
    result = run_script(*command, cwd=tmp_path, env=env)
    assert result.returncode == 0, result.stderr
    assert result.stderr.count("OpenVINO does not load here") == 1
    assert "1 photos = 1 features" in result.stdout


def test_a_cache_that_cannot_be_written_is_said_once(
    random_recipe, pixels, tmp_path, monkeypatch, capsys
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("BREEDS_CACHE", str(tmp_path / "file" / "cache"))
    assert features(random_recipe, random_weights, pixels[:1]).shape == (1, 2048)
    assert capsys.readouterr().err.count("cannot be written") == 1


@pytest.mark.parametrize("name", ["inceptionv3", "resnet50v2", "efficientnetv2s", "convnexttiny"])
def test_other_backbones_equal_keras_with_their_own_preprocessing(name: str, drawn_photos) -> None:
    import keras

    from breeds.engines.backbones import BACKBONES

    modules = {
        "inceptionv3": keras.applications.inception_v3,
        "resnet50v2": keras.applications.resnet_v2,
        "efficientnetv2s": keras.applications.efficientnet_v2,
        "convnexttiny": keras.applications.convnext,
    }
    backbone = BACKBONES[name]
    weights = get_weights("random", backbone)
    recipe = Recipe(name, weights.name, weights.sha256, 96, "stretch")
    photos = [decode(path.read_bytes(), 96) for path in sorted(drawn_photos.rglob("*.jpg"))[::12]]
    engine = open_engine(recipe, lambda: weights, "keras")
    ready = modules[name].preprocess_input(np.stack(photos).astype("float32"))
    wanted = np.concatenate([engine._model.predict_on_batch(photo[None]) for photo in ready])
    found = np.stack(list(engine.stream(photos)))
    assert found.shape == (len(photos), backbone.width)
    assert found.std(axis=0).mean() > 1e-6
    assert np.allclose(found, wanted, rtol=1e-4, atol=1e-5)
    if name in ("resnet50v2", "convnexttiny"):
        assert_within_tolerance(features(recipe, lambda: weights, photos), found)


def test_a_model_on_two_backbones_predicts_from_photos_alone(drawn_photos, tmp_path) -> None:
    for name in ("xception", "resnet50v2"):
        result = run_script(
            "extract_features.py", drawn_photos, "--weights", "random", "--backbone", name, "--size", "96",
            "--store", f"features/{name}.h5", cwd=tmp_path,
        )  # fmt: skip
        assert result.returncode == 0, result.stderr
    stores = ("--store", "features/xception.h5", "features/resnet50v2.h5")
    assert run_script("train_head.py", *stores, "--C", "0.01", cwd=tmp_path).returncode == 0
    evaluation = run_script("evaluate.py", cwd=tmp_path)
    assert evaluation.returncode == 0, evaluation.stderr
    refused = run_script("evaluate.py", "--store", "features/xception.h5", cwd=tmp_path)
    assert_refused(refused, "2 stores", "1 were given")
    (tmp_path / "new.jpg").write_bytes(next(drawn_photos.rglob("*.jpg")).read_bytes() + b"!")
    answer = run_script("predict.py", "new.jpg", "--no-unknown", "--tta", "flip", cwd=tmp_path)
    assert answer.returncode == 0, answer.stderr
    assert len(answer.stdout.splitlines()) == 2
    model_classes = {path.name for path in drawn_photos.iterdir()}
    assert answer.stdout.splitlines()[1].split(",")[1] in model_classes


def test_training_on_views_and_averaging_over_them(drawn_photos, tmp_path) -> None:
    extraction = run_script(
        "extract_features.py", drawn_photos, "--weights", "random", "--size", "96", "--views", "flip,crops:1",
        "--store", "features/p.h5", cwd=tmp_path,
    )  # fmt: skip
    assert extraction.returncode == 0, extraction.stderr
    names = {path.name for path in (tmp_path / "features").glob("*.h5")}
    assert names == {"p.h5", "p+flip.h5", "p+crop1.h5"}
    training = run_script("train_head.py", "--views", "--C", "0.01", cwd=tmp_path)
    assert training.returncode == 0, training.stderr
    assert "crop1, flip" in training.stdout
    assert run_script("evaluate.py", cwd=tmp_path).returncode == 0
    photo = next(drawn_photos.rglob("*.jpg"))
    plain, averaged = (
        run_script("predict.py", photo, *more, cwd=tmp_path).stdout for more in ([], ["--tta", "flip"])
    )
    assert plain != averaged


def test_a_recipe_of_the_other_engine_is_refused(random_recipe) -> None:
    for precision, engine in (("mixed_float16", "openvino"), ("int8", "keras")):
        with pytest.raises(BreedsError, match="needs the"):
            open_engine(replace(random_recipe, precision=precision), never, engine)

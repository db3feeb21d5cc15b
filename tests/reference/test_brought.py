"""Networks that people bring: ONNX files and hubs' folders, against ONNX Runtime; and what is refused."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import brought
import h5py
import numpy as np
import onnx
import pytest
from brought import CONFIG, MEAN, STD
from conftest import SHARED, assert_refused, copy_some, needs_shared, run_script, starts_tensorflow
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

import breeds
from breeds.backbones.resolve import resolve
from breeds.config import FeatureConfig
from breeds.errors import BreedsError

LITE0 = SHARED / "weights" / "efficientnet_lite0"


def assert_equal(found: np.ndarray, wanted: np.ndarray) -> None:
    """The design's rule for programs that compute the same network."""
    assert found.shape == wanted.shape
    lengths = np.linalg.norm(wanted, axis=1)
    assert (np.linalg.norm(found - wanted, axis=1) / lengths).max() < 1e-3
    assert wanted.std(axis=0).mean() > 1e-4 * np.abs(wanted).mean(), "photos differ"


@pytest.fixture(scope="module")
def files(drawn_photos: Path) -> list[Path]:
    return sorted(drawn_photos.rglob("*.jpg"))[::15]


def opened(files: list[Path]) -> list[Image.Image]:
    return [Image.open(file).convert("RGB") for file in files]


def pooled(found: np.ndarray, axes: tuple[int, ...] | str) -> np.ndarray:
    return found[:, 0] if axes == "cls" else found.mean(axis=axes) if axes else found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("made", "options", "axes"),
    [
        pytest.param({}, {}, (), id="features"),
        pytest.param(
            {"axes": 4, "dims": ("n", "c", "h", "w"), "name": "pixel_values"}, {}, (2, 3), id="open"
        ),
        pytest.param(
            {"axes": 4, "layout": "nhwc", "dims": (1, 32, 32, 3)}, {"precision": "fp32"}, (1, 2), id="nhwc"
        ),
        pytest.param({"axes": 3, "says": {"pool": "cls"}}, {}, "cls", id="cls"),
        pytest.param({"axes": 3, "half": True, "says": {"pool": "avg"}}, {}, (1,), id="avg of tokens"),
    ],
)
def test_what_onnx_runtime_gives(made, options, axes, files: list[Path], tmp_path: Path) -> None:
    layout = made.get("layout", "nchw")
    if "h" in made.get("dims", ()):  # what the file leaves open, a hub's folder says
        config = {**CONFIG, "size": {"shortest_edge": 40}, "do_center_crop": True, "crop_size": 32}
        spec = brought.folder(tmp_path / "hub", config, **made)
        squares = []
        for photo in opened(files):
            w, h = (40 * side // min(photo.size) for side in photo.size)
            left, top = (w - 32) // 2, (h - 32) // 2
            whole = photo.resize((w, h), Image.Resampling.BICUBIC)
            squares.append(whole.crop((left, top, left + 32, top + 32)))
        file = spec / "model.onnx"
    else:
        spec = file = brought.described(tmp_path / "a.onnx", **made)
        squares = [photo.resize((32, 32), Image.Resampling.BILINEAR) for photo in opened(files)]
    features = breeds.BottleneckFeatures(backbone=spec, **options)
    wanted = pooled(brought.onnx_runtime(file, squares, layout), axes)
    assert_equal(features.fit_transform(files), wanted)
    assert features.config_.width == brought.WIDTH
    if "h" in made.get("dims", ()):
        assert features.config_.resize == "crop40-bicubic"


@needs_shared
@pytest.mark.slow
def test_a_published_network_gives_what_onnx_runtime_gives() -> None:
    files = sorted((SHARED / "data" / "fullsize").rglob("*.jpg"))[::25]
    squares = [photo.resize((224, 224), Image.Resampling.BILINEAR) for photo in opened(files)]
    config = json.loads((LITE0 / "preprocessor_config.json").read_text())
    wanted = brought.onnx_runtime(
        LITE0 / "model.onnx", squares, mean=config["image_mean"], std=config["image_std"]
    )
    features = breeds.BottleneckFeatures(backbone=str(LITE0))
    assert_equal(features.fit_transform(files), wanted)
    config = features.config_
    assert (config.size, config.resize, config.width) == (224, "stretch", 1280)
    named = breeds.BottleneckFeatures(backbone=LITE0 / "model.onnx")
    assert named.fit([]).config_.digest == config.digest, "the file is read as its folder says"


def ran(script: str, *arguments: object, cwd: Path, **env: str) -> str:
    done = run_script(script, *arguments, cwd=cwd, env=env)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def dogs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four photos each of three breeds, in a place of their own, extracted."""
    place = tmp_path_factory.mktemp("brought")
    copy_some(SHARED / "data" / "dogs10", place / "photos")
    shutil.copytree(LITE0, place / "lite0")
    said = ran("extract_features.py", "photos", "--backbone", "lite0", cwd=place)
    assert "12 features (12 new" in said and "onnx 224×224 stretch fp32" in said and "file:lite0" in said
    return place


@needs_shared
@pytest.mark.slow
@pytest.mark.xdist_group("brought")
def test_from_extraction_to_prediction(dogs: Path, tmp_path: Path) -> None:
    again = ran("extract_features.py", "photos", "--backbone", "lite0/model.onnx", cwd=dogs)
    assert "0 new, 12 reused" in again
    ran("train_head.py", "--C", 0.01, "--export", "onnx", "openvino", cwd=dogs)
    ran("evaluate.py", cwd=dogs)
    assert "--backbone" in (dogs / "reports/photos.html").read_text(encoding="utf-8")
    new = tmp_path / "new.jpg"
    shutil.copyfile(next((SHARED / "data" / "fullsize").rglob("*.jpg")), new)
    answers = ran("predict.py", new, "--explain", tmp_path / "why", "--no-cache", cwd=dogs)
    assert len(list((tmp_path / "why").glob("*.jpg")) + list((tmp_path / "why").glob("*.png"))) == 1

    (dogs / "lite0").rename(dogs / "moved")
    assert ran("predict.py", new, "--no-cache", cwd=dogs) == answers, "the converted network is in the cache"
    fresh = {"BREEDS_CACHE": str(tmp_path / "fresh")}
    gone = run_script("predict.py", new, "--no-cache", cwd=dogs, env=fresh)
    assert_refused(gone, "file:lite0", "say where with --weights")
    assert ran("predict.py", new, "--no-cache", "--weights", "moved", cwd=dogs, **fresh) == answers
    (dogs / "moved").rename(dogs / "lite0")
    other = brought.folder(tmp_path / "other", dims=("n", 3, 224, 224))
    refused = run_script("predict.py", new, "--weights", other, cwd=dogs)
    assert_refused(refused, "was trained on the weights file:lite0")
    keras = run_script("-m breeds.cli.export", "--format", "keras", cwd=dogs)
    assert_refused(keras, "no network of Keras")


@pytest.mark.slow
def test_a_network_for_one_photo_is_not_exported_for_many(tmp_path: Path) -> None:
    from breeds.backbones import import_openvino
    from breeds.backbones.openvino import read_network
    from breeds.export.openvino import classifier
    from breeds.heads.model import Model

    one = [
        helper.make_node("Constant", [], ["one"], value=numpy_helper.from_array(np.array([1, 16]))),
        helper.make_node("Reshape", ["made", "one"], ["flat"]),
    ]
    path = brought.described(tmp_path / "a.onnx", more=one, taken="flat", dims=(1, 3, 32, 32))
    config, weights = resolve(FeatureConfig(str(path)))
    network = read_network(import_openvino().Core(), config, lambda: weights, lambda: None)
    numbers = np.ones(16, np.float32)
    model = Model("logistic", ["a", "b"], config, "", numbers, numbers, [], np.zeros((0, 32), np.uint8))
    with pytest.raises(BreedsError, match="takes one photo at a time"):
        classifier(model, [network])


@needs_shared
@pytest.mark.slow
@pytest.mark.xdist_group("brought")
def test_in_int8_it_is_near_and_a_config_of_its_own(dogs: Path) -> None:
    options = ("--backbone", "lite0", "--precision", "int8", "--store", "int8.h5")
    ran("extract_features.py", "photos", *options, cwd=dogs)
    stores = dogs / "features/photos.h5", dogs / "int8.h5"
    assert [len(breeds.Store(path)) for path in stores] == [12, 12]
    a, b = (h5py.File(path)["features"][:] for path in stores)
    cosine = (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    assert 0.95 < cosine.min() < 1 - 1e-6
    ran("train_head.py", "--store", "int8.h5", "--model", "int8.safetensors", "--C", 0.01, cwd=dogs)
    photo = next((SHARED / "data" / "fullsize").rglob("*.jpg"))
    assert ran("predict.py", photo, "--model", "int8.safetensors", cwd=dogs).count("\n") == 2


@needs_shared
@starts_tensorflow
def test_beside_xception(dogs: Path) -> None:
    ran("extract_features.py", "photos", "--weights", "random", "--size", 96, "--store", "two.h5", cwd=dogs)
    stores = ("features/photos.h5", "two.h5")
    ran("train_head.py", "--store", *stores, "--model", "both.safetensors", "--C", 0.01, cwd=dogs)
    model = breeds.load(dogs / "both.safetensors")
    photos = sorted((SHARED / "data" / "fullsize").rglob("*.jpg"))[:2]
    table = breeds.predict(model, photos, top_k=3)
    one = breeds.BottleneckFeatures(backbone=dogs / "lite0").fit_transform(photos)
    two = breeds.BottleneckFeatures(weights="random", size=96).fit_transform(photos)
    wanted = model.probabilities(np.hstack([one, two]))
    assert wanted.shape == (2, 3)
    assert np.allclose(table["probability"].to_numpy(dtype=float), wanted.max(axis=1), atol=1e-6)


def test_a_config_is_kept_whole() -> None:
    config = FeatureConfig("xception", "imagenet", "ab" * 32, 299, "stretch", width=2048)
    assert FeatureConfig.from_json(config.to_json()) == config
    assert replace(config, weights="file:a.h5").digest == config.digest, "a name decides nothing"
    for changes in ({"size": "299"}, {"width": -1}, {"weights_sha256": "ab"}, {"view": None}, {"more": 1}):
        with pytest.raises(ValueError, match="config"):
            FeatureConfig.from_json(json.dumps(json.loads(config.to_json()) | changes))


@pytest.mark.slow
def test_everything_that_decides_is_part_of_the_config(tmp_path: Path) -> None:
    open_ = {"axes": 3, "dims": ("n", 3, "h", "w")}
    says = {"size": {"height": 32, "width": 32}, "pool": "cls"}

    def resolved(name: str, resize: str = "", **options: Any) -> FeatureConfig:
        file = brought.described(tmp_path / name, **{"says": says, **open_, **options})
        return resolve(FeatureConfig(str(file), resize=resize))[0]

    config = resolved("a.onnx")
    assert FeatureConfig.from_json(config.to_json()) == config
    assert resolved("b.onnx").digest == config.digest
    assert resolve(replace(config, weights=str(tmp_path / "b.onnx")))[0].digest == config.digest
    for other in ({"says": {**says, "pool": "avg"}}, {"mean": (0.5, 0.5, 0.5)}, {"resize": "crop40"}):
        assert resolved("a.onnx", **other).digest != config.digest
    for key, wrong in (
        ("mean", [0, 0]), ("std", [1, 1, 0]), ("pool", "max"), ("output", ""),
        ("mean", [1e99] * 3),
    ):  # fmt: skip
        values = json.loads(config.to_json())
        values["preprocessing"][key] = wrong
        with pytest.raises(ValueError, match="config"):
            FeatureConfig.from_json(json.dumps(values))


def refused(spec: object, engine: str = "auto", **options: Any) -> str:
    """The one sentence with which a network is refused."""
    with pytest.raises(BreedsError) as caught:
        resolve(FeatureConfig(str(spec), **options), engine)
    text = str(caught.value)
    assert text.endswith(".") and "\n" not in text and text.count(". ") == 0
    return text


def edited(path: Path, change: Any) -> Path:
    model = onnx.load(path)
    change(model)
    onnx.save(model, path)
    return path


def drop_shape(model: Any) -> None:
    model.graph.input[0].type.tensor_type.ClearField("shape")


def drop_output_shape(model: Any) -> None:
    model.graph.output[0].type.tensor_type.ClearField("shape")


def add_input(model: Any) -> None:
    model.graph.input.append(helper.make_tensor_value_info("input_ids", TensorProto.INT64, [1, 7]))


def take_bytes(model: Any) -> None:
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.UINT8


def custom(model: Any) -> None:
    model.graph.node[1].domain = "com.evil"


def function(model: Any) -> None:
    node = helper.make_node("Relu", ["x"], ["y"])
    sets = [helper.make_opsetid("", 17)]
    model.functions.append(helper.make_function("own", "F", ["x"], ["y"], [node], sets))


def loop(model: Any) -> None:
    model.graph.node[1].op_type = "Loop"


def sparse(model: Any) -> None:
    values = numpy_helper.from_array(np.ones(1, np.float32), "s")
    indices = numpy_helper.from_array(np.zeros(1, np.int64), "i")
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [2**40]))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (drop_shape, "does not say the shape of its input pixels"),
        (drop_output_shape, 'does not say of how many axes its output is; write "pool": "cls"'),
        (add_input, "has 2 inputs (pixels, input_ids), and an image network has one"),
        (take_bytes, "takes uint8 and no floating-point pixels"),
        (custom, "has a custom operator, Relu of com.evil"),
        (function, "has operators of its own (functions)"),
        (loop, "has a loop or a branch (Loop)"),
        (sparse, "has sparse numbers"),
    ],
)
def test_a_network_that_cannot_be_used_is_refused(change: Any, words: str, tmp_path: Path) -> None:
    assert words in refused(edited(brought.described(tmp_path / "a.onnx"), change))


@pytest.mark.parametrize(
    ("made", "options", "words"),
    [
        ({}, {"size": 64}, "takes (?, 3, 32, 32) and no 64 pixels"),
        ({"says": {"layout": "nhwc"}}, {}, "so its layout is nchw and not nhwc"),
        ({"says": {"layout": "chw"}}, {}, "layout is none of nchw, nhwc"),
        ({"says": {"pool": "cls"}}, {}, '"pool": "cls" of '),
        ({"says": {"pool": "max"}}, {}, "pool is none of none, avg, cls"),
        ({"std": (1, 1, 0)}, {}, "image_std have to be more than 0"),
        ({"mean": (1, 1)}, {}, "image_mean is not of three colours"),
        ({}, {"resize": "zoom"}, "--resize zoom: it is stretch, crop, cropN or pad"),
        ({}, {"resize": "crop20"}, "--resize crop20: it is stretch, crop, cropN or pad"),
        ({}, {"resize": "stretch40"}, "--resize stretch40"),
        ({}, {"weights": "random"}, "--weights random: an ONNX network has its weights in it"),
        ({}, {"engine": "keras"}, "--engine keras: an ONNX network is run by OpenVINO"),
        ({}, {"precision": "fp16"}, "--precision fp16 is known to no engine"),
        ({"dims": ("n", 3, "h", "w")}, {}, "does not say which size of photos it takes; give --size"),
        ({"dims": ("n", 3, "h", "w")}, {"size": 2000}, "--size 2000: Breeds takes up to 1024"),
        (
            {"dims": ("n", "c", "h", "w")}, {"size": 32},
            'which axis of (?, ?, ?, ?) is that of colours; write "layout": "nchw"',
        ),
        ({"dims": ("n", 3, 32, 48)}, {}, "takes (?, 3, 32, 48), which is no square"),
        ({"dims": ("n", 1, 32, 32)}, {}, "are no photos of three colours"),
        ({"dims": ("n", 3, 32)}, {}, "takes (?, 3, 32), so it is no image network"),
        ({"axes": 3}, {}, 'does not say how its tokens become one feature; write "pool": "cls"'),
        ({"outputs": ("a", "b")}, {}, "has 2 outputs (a, b), and none is called image_embeds"),
    ],
)  # fmt: skip
def test_what_is_unclear_or_wrong_is_refused(made, options, words: str, tmp_path: Path) -> None:
    assert words in refused(brought.described(tmp_path / "a.onnx", **made), **options)


def test_where_nothing_says_how_pixels_are_scaled_the_json_to_write_is_named(tmp_path: Path) -> None:
    text = refused(brought.network(tmp_path / "a.onnx"))
    assert "does not say how its pixels are scaled" in text and '"image_mean"' in text
    assert str(tmp_path / "a.json") in text
    brought.network(tmp_path / "hub" / "model.onnx")
    assert str(tmp_path / "hub" / "preprocessor_config.json") in refused(tmp_path / "hub")


@pytest.mark.slow
def test_of_several_outputs_a_name_says_which(tmp_path: Path, files: list[Path]) -> None:
    path = brought.described(tmp_path / "a.onnx", outputs=("logits", "last_hidden_state", "pooler_output"))
    config = resolve(FeatureConfig(str(path)))[0]
    assert config.preprocessing is not None
    assert (config.preprocessing.output, config.preprocessing.pool) == ("pooler_output", "none")
    squares = [photo.resize((32, 32), Image.Resampling.BILINEAR) for photo in opened(files)]
    found = breeds.BottleneckFeatures(backbone=path).fit_transform(files)
    assert_equal(found, 3 * brought.onnx_runtime(path, squares))


def test_what_is_no_network(tmp_path: Path) -> None:
    (tmp_path / "empty.onnx").write_bytes(b"")
    (tmp_path / "noise.onnx").write_bytes(np.random.default_rng(0).bytes(5000))
    (tmp_path / "photo.onnx").write_bytes(b"\xff\xd8\xff" * 100)
    os.mkfifo(tmp_path / "pipe.onnx")
    assert "is no ONNX file" in refused(tmp_path / "noise.onnx")
    assert "is no ONNX file" in refused(tmp_path / "photo.onnx")
    assert "is no ONNX file" in refused(tmp_path / "empty.onnx")
    assert "not a regular file" in refused(tmp_path / "pipe.onnx")
    assert "No such ONNX file" in refused(tmp_path / "gone.onnx")
    assert "There is no model.onnx" in refused(tmp_path)
    assert "it is one of xception" in refused("nonsense")


def external(path: Path, location: str, folder: Path | None = None) -> Path:
    """Move a network's numbers into a file beside it, and name that file as `location`."""
    model = onnx.load(path)
    onnx.save(model, path, save_as_external_data=True, location="numbers.bin", size_threshold=0)
    model = onnx.load(path, load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = location
    path.write_bytes(model.SerializeToString())
    return path


def test_numbers_outside_of_the_folder_are_never_read(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "hub").mkdir()
    secret = tmp_path / "secret.bin"
    secret.write_bytes(b"\1" * 100_000)
    (tmp_path / "hub/link.bin").symlink_to(secret)
    (tmp_path / "hub/inside").mkdir()
    (tmp_path / "hub/inside/a.bin").write_bytes(b"\1" * 100_000)
    read: list[object] = []
    real = os.open
    monkeypatch.setattr(
        os, "open", lambda path, *rest, **more: read.append(path) or real(path, *rest, **more)
    )
    for location, words in (
        ("../secret.bin", "outside its own folder"),
        (str(secret), "outside its own folder"),
        ("inside/a.bin", "outside its own folder"),
        ("", "outside its own folder"),
        ("link.bin", "which is a link"),
        ("gone.bin", "cannot be read"),
        ("inside", "cannot be read (not a regular file)"),
    ):
        path = external(brought.network(tmp_path / "hub/a.onnx"), location)
        assert words in refused(path), location
    assert not [path for path in read if "secret" in str(path) or "link" in str(path)]

    def longer(model: Any) -> None:
        for tensor in model.graph.initializer:
            for entry in tensor.external_data:
                entry.value = str(10**9) if entry.key == "length" else entry.value

    path = external(brought.network(tmp_path / "hub/a.onnx"), "numbers.bin")
    model = onnx.load(path, load_external_data=False)
    longer(model)
    path.write_bytes(model.SerializeToString())
    assert "names more numbers than numbers.bin" in refused(path)


@pytest.mark.slow
def test_numbers_beside_the_network_are_part_of_it(tmp_path: Path, files: list[Path]) -> None:
    plain = brought.described(tmp_path / "plain.onnx")
    path = external(brought.described(tmp_path / "hub/a.onnx"), "numbers.bin")
    features = breeds.BottleneckFeatures(backbone=path)
    found = features.fit_transform(files)
    assert np.array_equal(found, breeds.BottleneckFeatures(backbone=plain).fit_transform(files))
    numbers = bytearray((tmp_path / "hub/numbers.bin").read_bytes())
    numbers[-1] ^= 1
    (tmp_path / "hub/numbers.bin").write_bytes(numbers)
    other = resolve(FeatureConfig(str(path)))[0]
    assert other.weights_sha256 != features.config_.weights_sha256


@pytest.mark.slow
@pytest.mark.parametrize(
    ("operator", "inputs", "size"),
    [
        pytest.param("ConstantOfShape", ["plain"], [2**18, 2**18], id="plain"),
        pytest.param("Expand", ["one", "worked_out"], [2**18, 2**18], id="only known when it is read"),
        pytest.param("Tile", ["made", "worked_out"], [1, 2**26], id="of what depends on the photo"),
    ],
)
def test_gigabytes_out_of_a_small_file_are_refused(operator, inputs, size, tmp_path: Path) -> None:
    """Numbers of 256 GiB, or 4 GiB for each photo, are never made: sizes are known before, or bounded."""

    def constant(name: str, value: Any) -> Any:
        return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(np.array(value)))

    more = [
        constant("plain", size), constant("half", [value / 2 for value in size]), constant("two", 2.0),
        constant("one", np.ones((1, 1), np.float32)), helper.make_node("Mul", ["half", "two"], ["whole"]),
        helper.make_node("Cast", ["whole"], ["worked_out"], to=TensorProto.INT64),
        helper.make_node(operator, inputs, ["huge"]),
        helper.make_node("ReduceMax", ["huge"], ["most"], keepdims=0),
        helper.make_node("Mul", ["made", "most"], ["scaled"]),
    ]  # fmt: skip
    path = brought.described(tmp_path / "a.onnx", more=more, taken="scaled")
    assert os.path.getsize(path) < 20_000
    assert "wants more than 1 GiB" in refused(path)


@pytest.mark.slow
def test_where_there_is_no_map_the_network_cannot_show_where_it_looked(tmp_path: Path, files) -> None:
    from breeds.backbones.resolve import open_engine

    for number, made in enumerate([{"axes": 3, "says": {"pool": "avg"}}, {"axes": 4}]):
        path = brought.described(tmp_path / f"{number}.onnx", **made)
        config, weights = resolve(FeatureConfig(str(path)))
        if made["axes"] == 3:
            with pytest.raises(BreedsError, match="cannot be shown for this ONNX network"):
                open_engine(config, lambda w=weights: w, maps=True)
            continue
        engine = open_engine(config, lambda w=weights: w, maps=True)
        pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
        ((feature, cells),) = engine.stream_maps([pixels])
        assert cells.shape[2] == brought.WIDTH
        assert np.allclose(cells.mean(axis=(0, 1)), feature, rtol=1e-4, atol=1e-5)


def config(**changes: Any) -> dict[str, Any]:
    return {key: value for key, value in {**CONFIG, **changes}.items() if value is not ...}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "is no JSON that can be read"),
        ("[]", "is no table of settings"),
        ('{"size": 1, "size": 2}', "stands there twice"),
        (config(size=...), "do_resize is true and there is no size"),
        (config(size={"height": 32, "width": 48}), "size is no square"),
        (config(size=32), "size can be read in two ways"),
        (config(size={"shortest_edge": 40}), "nothing is cut to a square"),
        (
            config(size={"shortest_edge": 40, "height": 3}, do_center_crop=True, crop_size=32),
            "more than that",
        ),
        (config(size={"shortest_edge": 30}, do_center_crop=True, crop_size=32), "crop_size 32 is more than"),
        (config(do_center_crop=True, crop_size=24), "squeezed to 32 pixels and cut again"),
        (config(do_resize=False, do_center_crop=True, crop_size=32), "do_center_crop without do_resize"),
        (config(size={"height": 64, "width": 64}), "takes (?, 3, 32, 32) and no 64 pixels"),
        (config(size={"height": "32", "width": "32"}), "size is no number of pixels"),
        (config(resample=9), "resample is none of Pillow's"),
        (config(image_mean=...), "do_normalize is true and there is no image_mean"),
        (config(image_mean=..., do_normalize=...), 'neither "image_mean" and "image_std" nor'),
        (config(image_mean=[0.5, 0.5]), "image_mean is not of three colours"),
        (config(image_std=[0.5, 0.5, 0]), "have to be more than 0"),
        (config(image_std=[0.5, 0.5, "x"]), "image_std is no number"),
        (json.dumps(config(image_mean=[0.5, 0.5, float("nan")])), "image_mean is no number"),
        (config(rescale_factor=-1), "have to be more than 0"),
        (config(do_pad=True), "do_pad asks for what Breeds does not do"),
        (config(crop_pct=0.875), "crop_pct asks for what Breeds does not do"),
        (config(do_normalize="yes"), "do_normalize is neither true nor false"),
        (config(data_format="channels_last"), "so its layout is nchw and not nhwc"),
        (config(data_format="bgr"), "data_format is none of channels_first, channels_last"),
    ],
)
def test_a_folder_that_contradicts_itself_is_refused(text: Any, words: str, tmp_path: Path) -> None:
    assert words in refused(brought.folder(tmp_path / "hub", text))


def test_pixels_are_scaled_as_a_folder_says(tmp_path: Path) -> None:
    from breeds.backbones.onnx_config import read_config

    file = tmp_path / "preprocessor_config.json"

    def read(**changes: Any) -> tuple[Any, Any]:
        file.write_text(json.dumps(config(**changes)))
        found = read_config(file)
        return found.mean, found.std

    assert read() == (MEAN, STD)
    assert read(do_normalize=False) == ((0, 0, 0), (1, 1, 1))
    mean, std = read(do_rescale=False, image_mean=[127.5] * 3, image_std=[127.5] * 3)
    assert np.allclose([mean, std], 0.5)
    mean, std = read(rescale_factor=1 / 127.5, image_mean=1.0, image_std=1.0)
    assert np.allclose([mean, std], 0.5)


@pytest.mark.parametrize("shape", [(500, 375), (375, 501), (224, 224), (1000, 300)])
def test_a_hubs_crop_is_the_whole_photo_resized_and_cut(shape: tuple[int, int]) -> None:
    from breeds.photos.resize import resized

    width, height = shape
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    photo = Image.fromarray(pixels)
    w, h = (256 * side // min(shape) for side in shape)
    left, top = (w - 224) // 2, (h - 224) // 2
    whole = photo.resize((w, h), Image.Resampling.BICUBIC).crop((left, top, left + 224, top + 224))
    found = resized(photo, 224, "crop256-bicubic")
    assert np.abs(np.asarray(found).astype(int) - np.asarray(whole)).max() <= 1

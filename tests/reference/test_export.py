"""The whole classifier in other programs' formats: run there, from its file alone, on real pixels."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import brought
import numpy as np
import onnx
import onnxruntime
import openvino
import pytest
from conftest import ROOT, MakeStore, assert_refused, extract_photos, run_script, tensorflow
from openvino import opset13 as ops
from PIL import Image

from breeds.config import FeatureConfig
from breeds.errors import BreedsError
from breeds.export import FORMATS, export, plan
from breeds.export.onnx import translate
from breeds.export.openvino import written
from breeds.features import Store, write_store
from breeds.heads.model import Model
from breeds.training import train

EXPORT = "-m breeds.cli.export"
PROGRAMS = re.findall(r"```python\n(.*?)```", (ROOT / "docs/exports.md").read_text("utf-8"), re.DOTALL)


@pytest.fixture(scope="module")
def made(app_place: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model, its files for other programs, and what ``predict.py`` says of photos."""
    folder = tmp_path_factory.mktemp("exports")
    training = ("train_head.py", "--store", app_place / "features/photos.h5", "--C", 0.01)
    done = run_script(*training, "--export", "onnx", "openvino", "joblib", cwd=folder)
    assert done.returncode == 0, done.stderr
    wrote = re.findall(r"^wrote .*, at most \de-\d\d from python predict.py", done.stdout, re.MULTILINE)
    assert len(wrote) == 3
    ask(folder, app_place / "photos")
    assert {one["breed"] == "unknown" for one in said_in(folder)} == {True, False}
    return folder


def ask(folder: Path, photos: Path) -> None:
    """Put some photos into a folder with a model, and what ``predict.py`` says of them."""
    for number, photo in enumerate(sorted(photos.rglob("*.jpg"))[::6]):
        Image.open(photo).resize((130 + 20 * number, 110)).save(folder / f"{number}.png")
    Image.effect_noise((90, 90), 90).convert("RGB").save(folder / "noise.png")
    shutil.copy(folder / "0.png", folder / "rex.jpg")
    asked = sorted(map(str, folder.glob("*.png")))
    how = ("--format", "json", "--top-k", 9, "--out", "said.json")
    said = run_script("predict.py", *asked, *how, cwd=folder)
    assert said.returncode == 0, said.stderr


def said_in(folder: Path) -> list[dict[str, Any]]:
    """What ``predict.py`` said of the photos, in the order of their names."""
    return [json.loads(line) for line in (folder / "said.json").read_text("utf-8").splitlines()]


def pixels_of(folder: Path, size: int) -> np.ndarray:
    """The photos as others would read them, uint8 (n, size, size, 3)."""
    images = [Image.open(path).convert("RGB") for path in sorted(folder.glob("*.png"))]
    return np.stack([np.asarray(image.resize((size, size), Image.Resampling.BILINEAR)) for image in images])


def assert_said(folder: Path, about: dict[str, str], probabilities: np.ndarray, score: np.ndarray) -> None:
    """Assert that answers, (n, classes) and (n,), are those that ``predict.py`` gave in this folder."""
    classes, threshold = json.loads(about["classes"]), json.loads(about["unknown_threshold"])
    said = said_in(folder)
    assert len(said) == len(probabilities) == len(score) > 2
    for one, row, excess in zip(said, probabilities, score, strict=True):
        found = dict(zip(classes, row, strict=True))
        assert max(abs(found[best["breed"]] - best["probability"]) for best in one["top"]) < 1e-4
        assert one["breed"] == ("unknown" if excess > threshold else classes[row.argmax()])


def assert_described(about: dict[str, str], model: Model) -> None:
    assert json.loads(about["classes"]) == model.classes
    assert json.loads(about["unknown_threshold"]) == pytest.approx(model.unknown.threshold)
    assert FeatureConfig.from_json(about["config"]) == model.config
    assert "(96, 96)" in about["resize"] and "BILINEAR" in about["resize"]
    assert "random" in about["caveat"]


def test_onnx_runtime_gives_what_predict_says_for_any_number_of_photos(made: Path) -> None:
    session = onnxruntime.InferenceSession(made / "models/photos.onnx")
    about = session.get_modelmeta().custom_metadata_map
    assert_described(about, Model.load(made / "models/photos.safetensors"))
    (taken,) = session.get_inputs()
    assert (taken.name, taken.type, taken.shape) == ("pixels", "tensor(uint8)", ["n", 96, 96, 3])
    assert [(given.name, given.shape) for given in session.get_outputs()] == [
        ("probabilities", ["n", 5]), ("unknown_score", ["n"]),
    ]  # fmt: skip
    pixels = pixels_of(made, 96)
    whole = session.run(None, {"pixels": pixels})
    assert_said(made, about, *whole)
    alone = [session.run(None, {"pixels": pixels[i : i + 1]}) for i in range(len(pixels))]
    for column, rows in zip(whole, zip(*alone, strict=True), strict=True):
        np.testing.assert_allclose(np.concatenate(rows), column, atol=1e-5)
    onnx.checker.check_model(made / "models/photos.onnx", full_check=True)


def test_openvino_gives_what_predict_says_for_any_number_of_photos(made: Path) -> None:
    network = openvino.Core().read_model(made / "models/photos.xml")
    names = ("classes", "unknown_threshold", "config", "resize", "caveat")
    about = {name: network.get_rt_info(["breeds", name]).astype(str) for name in names}
    assert_described(about, Model.load(made / "models/photos.safetensors"))
    compiled = openvino.Core().compile_model(network, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    pixels = pixels_of(made, 96)
    parts = [compiled({"pixels": part}) for part in (pixels[:2], pixels[2:])]
    whole = [np.concatenate([part[name] for part in parts]) for name in ("probabilities", "unknown_score")]
    assert_said(made, about, *whole)


def expected_line(folder: Path) -> str:
    """What a program of the documents prints for ``rex.jpg``, by ``predict.py``."""
    answer = said_in(folder)[0]
    return f"{answer['breed']} {answer['probability']:.3f}"


def test_there_is_a_program_of_ten_lines_for_every_format() -> None:
    assert len(PROGRAMS) == len(FORMATS)
    for program in PROGRAMS:
        lines = [line for line in program.splitlines() if line and not line.startswith(("import ", "from "))]
        assert len(lines) <= 10


@pytest.mark.parametrize("word", ["onnxruntime", "openvino", "joblib"])
def test_the_program_of_the_documents_runs(word: str, made: Path, app_place: Path, tmp_path: Path) -> None:
    (program,) = (program for program in PROGRAMS if word in program)
    folder = shutil.copytree(made, tmp_path / "made")
    shutil.copytree(app_place / "features", folder / "features")
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    if word != "joblib":  # which is for features
        assert done.stdout.strip() == expected_line(folder)
        return
    store, model = Store(folder / "features/photos.h5"), Model.load(folder / "models/photos.safetensors")
    best = model.probabilities(store.features()).argmax(axis=1)
    rows = [line.rsplit(" ", 2) for line in done.stdout.splitlines()]
    assert [row[:2] for row in rows] == [
        [path, model.classes[i]] for path, i in zip(store.table.path, best, strict=True)
    ]


@tensorflow
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:__array__ implementation", "ignore:Rounding errors")
def test_keras_gives_what_predict_says(photos: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    extract_photos(photos, tmp_path / "photos.h5", size=96)
    store, path = Store(tmp_path / "photos.h5"), tmp_path / "models/photos.safetensors"
    model = train(store, C=0.01)
    model.save(path)
    (exported,) = export(model, store, plan(["keras"], path, model.parts, model.kind))
    assert exported.path == path.with_suffix(".keras") and exported.difference < 1e-4
    assert exported.photos == 12
    ask(tmp_path, photos)

    (program,) = (program for program in PROGRAMS if "keras" in program)
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    scope: dict[str, Any] = {}
    exec(program, scope)
    assert capsys.readouterr().out.strip() == expected_line(tmp_path)

    answers = scope["model"].predict_on_batch(pixels_of(tmp_path, 96))
    about = json.loads(zipfile.ZipFile(exported.path).read("breeds.json"))
    texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in about.items()}
    assert_described(texts, model)
    assert_said(tmp_path, texts, answers["probabilities"], answers["unknown_score"])
    plan(["keras"], path, model.parts, model.kind)  # ours is replaced


# Heads and stores of other kinds.


def test_a_dense_head_on_two_stores_that_refuses_nothing(app_place: Path, tmp_path: Path) -> None:
    """Both networks are in one file, and there is no score."""
    path, spec = tmp_path / "photos.h5", str(brought.described(tmp_path / "a.onnx", dims=("n", 3, 96, 96)))
    extract_photos(app_place / "photos", path, backbone=spec, weights="imagenet")
    store = Store(path)
    model, rng, width = train(store, C=0.01), np.random.default_rng(0), 2 * brought.WIDTH
    layers = [
        (rng.normal(0, 0.05, shape).astype(np.float32), np.ones(shape[1], np.float32))
        for shape in ((width, 40), (40, 5))
    ]
    mean, scale = np.tile(model.mean, 2), np.concatenate([model.scale, 2 * model.scale])
    dense = replace(
        model, kind="dense", layers=layers, mean=mean, scale=scale, unknown=None, temperature=0.5,
        also=model.parts, record={**model.record, "also": [str(path)]},
    )  # fmt: skip
    dense.save(tmp_path / "dense.safetensors")
    done = run_script(EXPORT, "dense.safetensors", "--format", "onnx", "openvino", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "there is no unknown_score" in done.stdout
    files = [Path(store.table.root, name) for name in store.table.path]
    pixels = np.stack([np.asarray(Image.open(file).convert("RGB").resize((96, 96), 2)) for file in files])
    (found,) = onnxruntime.InferenceSession(tmp_path / "dense.onnx").run(None, {"pixels": pixels})
    features = store.features()
    np.testing.assert_allclose(found, dense.probabilities(np.hstack([features, features])), atol=1e-4)
    refused = run_script(EXPORT, "dense.safetensors", "--format", "joblib", cwd=tmp_path)
    assert_refused(refused, "this head is dense; export it as onnx")


# Mistakes.


@pytest.fixture
def copied(made: Path, tmp_path: Path) -> Path:
    """A folder with the model alone."""
    (tmp_path / "models").mkdir()
    shutil.copy(made / "models/photos.safetensors", tmp_path / "models")
    return tmp_path


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("name", "form", "words"),
    [
        ("photos.onnx", "onnx", ["photos.onnx", "not an ONNX file of Breeds"]),
        ("photos.xml", "openvino", ["photos.xml", "not an OpenVINO network of Breeds"]),
        ("photos.bin", "openvino", ["photos.bin", "no photos.xml beside it"]),
        ("photos.keras", "keras", ["photos.keras", "not a Keras model of Breeds"]),
        ("photos.joblib", "joblib", ["photos.joblib", "not a scikit-learn pipeline"]),
        ("photos.onnx/", "onnx", ["photos.onnx", "folder"]),
        ("photos.bin/", "openvino", ["photos.bin", "folder"]),
    ],
)
def test_nothing_is_replaced_but_a_file_of_the_same_kind(name, form, words, copied: Path) -> None:
    if name.endswith("/"):
        (copied / "models" / name).mkdir()
    else:
        (copied / "models" / name).write_text("notes")
    before = contents(copied)
    model = Model.load(copied / "models/photos.safetensors")
    with pytest.raises(BreedsError) as refused:
        plan([form], copied / "models/photos.safetensors", model.parts, model.kind)
    assert all(word in str(refused.value) for word in words)
    assert contents(copied) == before


def test_files_of_others_in_the_same_formats_are_others(copied: Path, made: Path) -> None:
    text = (made / "models/photos.xml").read_text("utf-8")
    (copied / "models/photos.xml").write_text(text.replace('name="breeds classifier"', 'name="mine"', 1))
    other = onnx.load(made / "models/photos.onnx")
    other.producer_name = "pytorch"
    onnx.save(other, copied / "models/photos.onnx")
    with zipfile.ZipFile(copied / "models/photos.keras", "w") as file:
        file.writestr("metadata.json", "{}")
    model = Model.load(copied / "models/photos.safetensors")
    for form in ("onnx", "openvino", "keras"):
        with pytest.raises(BreedsError, match="of Breeds; name another"):
            plan([form], copied / "models/photos.safetensors", model.parts, model.kind)
    (copied / "models/photos.onnx").unlink()
    for form in ("onnx", "openvino"):
        for path in (made / "models").glob(f"photos{FORMATS[form].suffix[:-1]}*"):
            shutil.copy(path, copied / "models")
        plan([form], copied / "models/photos.safetensors", model.parts, model.kind)  # ours are replaced


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--format", "tflite"), ["invalid choice: 'tflite'", "onnx"]),
        (("--weights", "no.h5"), ["no.h5"]),
        (("no.safetensors",), ["No such model", "no.safetensors"]),
        (("--store", "no.h5"), ["no.h5"]),
        (("--store", "models/photos.safetensors"), ["photos.safetensors", "HDF5"]),
    ],
)
def test_mistakes_on_the_command_line(
    options, words, copied: Path, session_cache: Path, tmp_path: Path
) -> None:
    before = contents(copied)
    env = {"BREEDS_CACHE": str(tmp_path / "empty")} if "--weights" in options else {}
    refused = run_script(EXPORT, *options, cwd=copied, env=env)
    assert refused.returncode == 2 and "Traceback" not in refused.stderr
    assert all(word in refused.stderr for word in words), refused.stderr
    assert contents(copied) == before


def test_a_model_whose_weights_are_gone_and_whose_network_is_not_converted(
    made: Path, app_place: Path, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setenv("BREEDS_CACHE", str(tmp_path / "empty"))
    model = Model.load(made / "models/photos.safetensors")
    config = replace(model.config, weights="mine.h5")
    store = Store(app_place / "features/photos.h5")
    gone = replace(model, config=config, weights_path="/gone/mine.h5")
    paths = plan(["onnx", "openvino"], tmp_path / "gone.safetensors", gone.parts, gone.kind)
    with pytest.raises(
        BreedsError, match=r"mine\.h5.*are not at /gone/mine\.h5 any more; say where with --weights"
    ):
        list(export(gone, store.like(config=config), paths))
    assert not list(tmp_path.glob("gone*"))


@pytest.mark.slow
def test_photos_that_are_gone(make_store: MakeStore, tmp_path: Path) -> None:
    make_store({"a": 6, "b": 6})
    refused = run_script("train_head.py", "--C", 1, "--export", "onnx", "openvino", cwd=tmp_path)
    assert_refused(refused, "made.h5", "none that was tried is where it was")
    assert sorted(path.name for path in (tmp_path / "models").iterdir()) == ["made.md", "made.safetensors"]


def test_answers_that_are_not_those_of_the_store_are_refused(
    made: Path, app_place: Path, tmp_path: Path
) -> None:
    """The store's photos are there, but its features, as if from another machine, are not the network's."""
    real = Store(app_place / "features/photos.h5")
    features = real.features() * np.float32(1.05)
    write_store(tmp_path / "other.h5", real.table, real.config, features, "made up")
    store, model = Store(tmp_path / "other.h5"), Model.load(made / "models/photos.safetensors")
    model = replace(model, record={**model.record, "store": str(store.path)})
    paths = plan(["openvino"], tmp_path / "m.safetensors", model.parts, model.kind)
    with pytest.raises(
        BreedsError, match=r"is not written: in OpenVINO .* differ by up to .* on this machine"
    ):
        list(export(model, store, paths))
    assert not list(tmp_path.glob("*m.*"))


@pytest.mark.parametrize(
    ("changes", "form", "words"),
    [
        ({"precision": "int8"}, "onnx", "int8 network is OpenVINO's own, and ONNX Runtime would round"),
        ({"precision": "int8"}, "keras", "int8 network is OpenVINO's own, and Keras would round"),
        ({"precision": "bf16"}, "openvino", "precision bf16 are rounded while they are computed"),
        ({"precision": "bf16"}, "keras", "precision bf16 are rounded"),
        ({"backbone": "dinov2"}, "keras", "dinov2 is no network of Keras; export it as onnx"),
    ],
)
def test_configs_that_a_format_cannot_have(
    changes, form, words, random_config: FeatureConfig, tmp_path: Path
) -> None:
    config = replace(random_config, **changes)
    with pytest.raises(BreedsError, match=words):
        plan([form], tmp_path / "m.safetensors", [(config, "")], "logistic")


@pytest.mark.slow
def test_stores_of_different_sizes_are_refused_before_training(
    make_store: MakeStore, random_config: FeatureConfig, tmp_path: Path
) -> None:
    for name, size in (("a", 96), ("b", 128)):
        make_store({"x": 6, "y": 6}, name=f"{name}.h5", config=replace(random_config, size=size))
    refused = run_script("train_head.py", "--store", "a.h5", "b.h5", "--export", "onnx", cwd=tmp_path)
    assert_refused(refused, "96×96 stretch and 128×128 stretch", "a file takes one", "onnx")
    assert not (tmp_path / "models").exists()
    done = run_script(
        "train_head.py", "--store", "a.h5", "b.h5", "--C", 1, "--export", "joblib", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr


# The pair of files of OpenVINO's.


KILLED = """
import os, signal, sys
from pathlib import Path
import openvino
from openvino import opset8 as ops
from breeds import files
from breeds.export import openvino as export

left = int(sys.argv[1])
{counted}
os.replace, Path.unlink = counted(os.replace), counted(Path.unlink)
pixels = ops.parameter([1, 2], openvino.Type.f32)
network = openvino.Model([ops.add(pixels, ops.constant([[2.0, 2.0]], openvino.Type.f32))], [pixels], "two")
with export.written(network, Path("network.xml")):
    pass
"""


@pytest.mark.slow
def test_killed_at_every_step_the_two_files_never_differ(tmp_path: Path) -> None:
    from killed import COUNTED

    pixels = ops.parameter([1, 2], openvino.Type.f32)
    network = openvino.Model(
        [ops.add(pixels, ops.constant([[1.0, 1.0]], openvino.Type.f32))], [pixels], "one"
    )
    seen = set()
    for left in range(1, 40):
        with written(network, tmp_path / "network.xml"):
            pass
        script = KILLED.format(counted=COUNTED)
        done = subprocess.run(
            [sys.executable, "-c", script, str(left)], cwd=tmp_path, capture_output=True, text=True,
            env={"PYTHONPATH": str(ROOT)}, timeout=60, check=False,
        )  # fmt: skip
        if not (tmp_path / "network.xml").exists():
            seen.add("none")
        else:
            read = openvino.Core().read_model(tmp_path / "network.xml")
            value = openvino.Core().compile_model(read, "CPU")(np.zeros((1, 2), np.float32))[0][0, 0]
            assert read.friendly_name == {1.0: "one", 2.0: "two"}[float(value)]
            seen.add(read.friendly_name)
        if done.returncode == 0:
            break
        assert done.returncode == -9, done.stderr
    assert seen == {"one", "none", "two"}


# Every operation that is known, against OpenVINO itself.

IMAGE, ROWS = [-1, 4, 9, 9], [-1, 6, 8]
Node = Any


def number(value: Any, kind: type = np.float32) -> Node:
    return ops.constant(np.asarray(value, dtype=kind))


def drawn(*shape: int) -> Node:
    return number(np.random.default_rng(1).normal(size=shape))


def integers(*values: int) -> Node:
    return number(values, np.int64)


def window(pad: str, ends: int = 1) -> dict[str, Any]:
    return {"strides": [2, 2], "pads_begin": [0, 0], "pads_end": [ends, ends], "auto_pad": pad}


def attend(x: Node, masked: bool) -> Node:
    mask = number(np.triu(np.full((6, 6), -3.0)))
    if masked:
        return ops.scaled_dot_product_attention(x, ops.negative(x), x, mask, number(0.3))
    return ops.scaled_dot_product_attention(x, ops.negative(x), x)


OPERATIONS: dict[str, tuple[list[int], Callable[[Node], Node]]] = {
    "abs": (ROWS, ops.abs),
    "arithmetic": (ROWS, lambda x: ops.divide(ops.subtract(ops.multiply(x, drawn(8)), x), number([[3]]))),
    "power": (ROWS, lambda x: ops.power(ops.add(ops.abs(x), number(0.1)), number(1.7))),
    "roots": (ROWS, lambda x: ops.log(ops.sqrt(ops.exp(ops.negative(x))))),
    "steps": (ROWS, lambda x: ops.maximum(ops.minimum(ops.floor(x), number(1)), number(-1))),
    "curves": (ROWS, lambda x: ops.erf(ops.tanh(ops.sigmoid(ops.softplus(ops.relu(x)))))),
    "clamp": (ROWS, lambda x: ops.clamp(x, -0.5, 0.7)),
    "hswish": (ROWS, lambda x: ops.hswish(ops.multiply(x, number(3)))),
    "hsigmoid": (ROWS, lambda x: ops.hsigmoid(ops.multiply(x, number(3)))),
    "hard sigmoid": (ROWS, lambda x: ops.hard_sigmoid(x, number(0.3), number(0.4))),
    "swish": (ROWS, lambda x: ops.swish(ops.swish(x), number(1.5))),
    "gelu": (ROWS, lambda x: ops.gelu(x, "erf")),
    "gelu by tanh": (ROWS, lambda x: ops.gelu(x, "tanh")),
    "softmax": (ROWS, lambda x: ops.softmax(x, 1)),
    "squared difference": (ROWS, lambda x: ops.squared_difference(x, drawn(6, 1))),
    "reduce": (
        IMAGE,
        lambda x: ops.add(ops.reduce_mean(x, integers(2, 3), True), ops.reduce_max(x, integers(1), True)),
    ),
    "reduce away": (
        IMAGE,
        lambda x: ops.add(ops.reduce_sum(x, integers(-1)), ops.reduce_min(x, integers(3))),
    ),
    "mvn inside": (ROWS, lambda x: ops.mvn(x, integers(-1), True, 1e-2, "INSIDE_SQRT")),
    "mvn outside": (
        ROWS,
        lambda x: ops.mvn(
            ops.mvn(x, integers(1, 2), True, 0.1, "OUTSIDE_SQRT"), integers(2), False, 1e-3, "INSIDE_SQRT"
        ),
    ),
    "matmul": (ROWS, lambda x: ops.matmul(ops.matmul(x, drawn(3, 8), False, True), drawn(6, 5), True, False)),
    "attention": (ROWS, lambda x: attend(x, False)),
    "attention masked": (ROWS, lambda x: attend(x, True)),
    "transpose": (IMAGE, lambda x: ops.transpose(x, integers(0, 2, 3, 1))),
    "reshape": (
        ROWS,
        lambda x: ops.reshape(ops.reshape(x, integers(0, -1), True), integers(-1, 4, 12), False),
    ),
    "axes": (
        ROWS,
        lambda x: ops.squeeze(ops.unsqueeze(ops.unsqueeze(x, integers(1)), integers(-1)), integers(1, 4)),
    ),
    "concat": (ROWS, lambda x: ops.concat([x, ops.relu(x), drawn(1, 6, 8)][:2], 2)),
    "convert": (ROWS, lambda x: ops.convert(ops.convert(ops.multiply(x, number(9)), "i32"), "f32")),
    "gather": (ROWS, lambda x: ops.gather(x, integers(0, -1), integers(1))),
    "slice": (ROWS, lambda x: ops.slice(x, integers(1, 7), integers(99, 0), integers(2, -3), integers(1, 2))),
    "slice of all": (ROWS, lambda x: ops.slice(x, integers(0, 1, 2), integers(9, 5, 7), integers(1, 1, 2))),
    "strided slice": (
        ROWS,
        lambda x: ops.strided_slice(
            x, integers(5, -1, 0), integers(0, 0, 5), integers(1, 1, 2), [1, 0, 1], [1, 0, 0], [], [0, 1, 0]
        ),
    ),
    "backwards": (
        ROWS,
        lambda x: ops.strided_slice(
            x, integers(0, 5, 1), integers(0, 1, 0), integers(1, -2, -1), [1, 0, 1], [1, 0, 1]
        ),
    ),
    "split": (
        ROWS,
        lambda x: ops.add(*ops.split(x, number(2, np.int64), 2).outputs()),
    ),
    "variadic split": (
        ROWS,
        lambda x: ops.concat(ops.variadic_split(x, number(1, np.int64), integers(2, -1)).outputs()[::-1], 1),
    ),
    "topk": (
        ROWS,
        lambda x: ops.multiply(
            *(
                ops.convert(out, "f32")
                for out in ops.topk(x, number(3, np.int64), 2, "min", "value").outputs()
            )
        ),
    ),
    "shape": (ROWS, lambda x: ops.convert(ops.shape_of(x), "f32")),
    "broadcast": (ROWS, lambda x: ops.broadcast(drawn(1, 6, 1), ops.shape_of(x, "i32"))),
    "pad": (
        IMAGE,
        lambda x: ops.pad(
            ops.pad(x, integers(0, 0, 1, 2), integers(0, 0, 0, 3), "constant", number(0.5)),
            integers(0, 0, 1, 1),
            integers(0, 1, 1, 1),
            "edge",
        ),
    ),
    "pad reflected": (IMAGE, lambda x: ops.pad(x, integers(0, 0, 1, 2), integers(0, 0, 0, 3), "reflect")),
    "convolution": (IMAGE, lambda x: ops.convolution(x, drawn(5, 4, 3, 2), [2, 1], [1, 0], [0, 1], [1, 2])),
    "convolution same": (
        IMAGE,
        lambda x: ops.convolution(x, drawn(5, 4, 4, 4), [2, 2], [0, 0], [0, 0], [1, 1], "same_upper"),
    ),
    "group convolution": (
        IMAGE,
        lambda x: ops.group_convolution(
            x, drawn(2, 3, 2, 4, 4), [2, 2], [0, 0], [0, 0], [1, 1], "same_lower"
        ),
    ),
    "max pool": (IMAGE, lambda x: ops.max_pool(x, [2, 2], [1, 1], [0, 0], [1, 0], [3, 3]).output(0)),
    "max pool same": (
        IMAGE,
        lambda x: ops.max_pool(x, [2, 2], [1, 1], [0, 0], [0, 0], [2, 2], "floor", "same_upper").output(0),
    ),
    "average pool": (IMAGE, lambda x: ops.avg_pool(x, [2, 2], [1, 1], [1, 1], [3, 3], True)),
    "average pool with padding": (
        IMAGE,
        lambda x: ops.avg_pool(x, [2, 2], [1, 1], [1, 1], [3, 3], False, "ceil"),
    ),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_operation_is_the_same_in_onnx_runtime(name: str) -> None:
    shape, build = OPERATIONS[name]
    taken = ops.parameter(shape, openvino.Type.f32)
    network = openvino.Model([ops.result(build(taken))], [taken], name)
    network.input(0).get_tensor().set_names({"taken"})
    network.output(0).get_tensor().set_names({"given"})
    values = np.random.default_rng(0).normal(size=(3, *shape[1:])).astype(np.float32)
    compiled = openvino.Core().compile_model(network, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    session = onnxruntime.InferenceSession(translate(network, name, {}).SerializeToString())
    for count in (3, 1):
        (found,) = session.run(None, {"taken": values[:count]})
        np.testing.assert_allclose(found, compiled(values[:count])[0], rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda x: ops.cum_sum(x, number(1, np.int64)), "CumSum, that Breeds cannot write as ONNX"),
        (lambda x: ops.add(x, drawn(6), "pdpd"), "Add that spreads its inputs"),
        (lambda x: ops.scaled_dot_product_attention(x, x, x, causal=True), "looks at what came before"),
        (lambda x: ops.reshape(x, ops.convert(ops.shape_of(x), "i32"), False), ""),
    ],
)
def test_other_operations_are_refused_by_name(build, words: str) -> None:
    taken = ops.parameter(ROWS, openvino.Type.f32)
    network = openvino.Model([ops.result(build(taken))], [taken], "other")
    network.input(0).get_tensor().set_names({"taken"})
    network.output(0).get_tensor().set_names({"given"})
    if not words:
        translate(network, "other", {})
        return
    with pytest.raises(BreedsError, match=words):
        translate(network, "other", {})

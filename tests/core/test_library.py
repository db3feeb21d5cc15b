"""Breeds in other programs: what it offers, that it answers as the command line does, and changes nothing."""

from __future__ import annotations

import ast
import doctest
import importlib
import inspect
import io
import json
import os
import pickle
import pty
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from check import HEAVY
from conftest import ROOT, run_script
from PIL import Image
from threadpoolctl import threadpool_info

import breeds
from breeds.backbones import import_openvino
from breeds.photos import decode, key_of, photo_of


@pytest.fixture
def place(app_place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of `app_place`, and the folder that this process is in."""
    shutil.copytree(app_place, tmp_path / "place")
    monkeypatch.chdir(tmp_path / "place")
    return tmp_path / "place"


def run_python(code: str, **options: object) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=120, **options
    )  # type: ignore[call-overload]


# what there is


def test_importing_it_is_quick_and_loads_nothing_heavy() -> None:
    code = (
        "import sys, time; start = time.perf_counter(); import breeds; dir(breeds)\n"
        "print(time.perf_counter() - start)\n"
        f"print(*sorted(set(sys.modules) & {{'numpy', 'PIL', *{HEAVY!r}}}))"
    )
    seconds, *loaded = run_python(code, check=True).stdout.split()
    assert float(seconds) < 0.2
    assert loaded == []


def test_all_lists_what_type_checkers_see_and_what_is_given() -> None:
    tree = ast.parse(Path(breeds.__file__).read_text(encoding="utf-8"))
    checked = {
        alias.name: node.module
        for block in tree.body
        if isinstance(block, ast.If)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert checked == breeds._HOMES
    assert sorted(checked) == breeds.__all__
    assert set(breeds.__all__) <= set(dir(breeds))
    for name in breeds.__all__:
        assert getattr(breeds, name) is getattr(importlib.import_module(checked[name]), name)
    with pytest.raises(AttributeError, match="nothing_like_it"):
        _ = breeds.nothing_like_it
    assert (ROOT / "breeds/py.typed").is_file()


LIBRARY = sorted(set(breeds._HOMES.values()) - {"breeds.errors"})


def test_everything_public_is_described_with_an_example() -> None:
    for name in breeds.__all__:
        found = getattr(breeds, name)
        text = inspect.getdoc(found) or ""
        assert ">>> " in text or name == "BreedsError", name
        for method, value in vars(found).items() if inspect.isclass(found) else ():
            if not method.startswith("_") and method not in getattr(found, "__dataclass_fields__", {}):
                assert inspect.getdoc(value), f"{name}.{method}"


@pytest.mark.parametrize("module", LIBRARY)
def test_the_examples_run(module: str, place: Path) -> None:
    found = doctest.testmod(importlib.import_module(module))
    assert found.attempted and not found.failed


# the same answers


def drawn(kind: str) -> bytes:
    """A photo that needs more than its pixels as they lie."""
    x, y = np.meshgrid(np.arange(120), np.arange(80))
    pixels = np.stack([2 * x, 3 * y, (x * y) % 256], axis=-1).astype(np.uint8)
    image, file = Image.fromarray(pixels), io.BytesIO()
    exif = Image.Exif()
    exif[274] = 6
    if kind == "turned":
        image.save(file, "JPEG", exif=exif)
    elif kind == "clear":
        image.putalpha(Image.fromarray((2 * x).astype(np.uint8)))
        image.save(file, "PNG")
    elif kind == "palette":
        image.quantize(16).save(file, "GIF", transparency=3)
    elif kind == "cmyk":
        image.convert("CMYK").save(file, "JPEG")
    elif kind == "16 bits":
        Image.fromarray((x * 500).astype(np.uint16)).save(file, "PNG")
    elif kind == "turned png":
        image.save(file, "PNG", exif=exif)
    else:
        image.save(file, "TIFF", exif=exif)
    return file.getvalue()


@pytest.mark.parametrize("resize", ["stretch", "crop", "pad"])
@pytest.mark.parametrize("kind", ["turned", "clear", "palette", "cmyk", "16 bits", "turned png", "tiff"])
def test_an_open_image_is_seen_as_its_file_is(kind: str, resize: str) -> None:
    data = drawn(kind)
    expected = decode(data, 71, resize)
    image = Image.open(io.BytesIO(data))
    data_of_image = photo_of(image).read()
    assert np.array_equal(decode(data_of_image, 71, resize), expected)
    assert image.load() is not None, "it is still open"
    pixels = np.asarray(Image.open(io.BytesIO(data_of_image)))
    assert photo_of(pixels).read() == data_of_image
    assert photo_of(bytearray(data)).read() == data


def test_an_images_key_is_of_its_size_and_pixels() -> None:
    pixels = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    keys = [
        key_of(photo_of(array).read())
        for array in (pixels, pixels.copy(), pixels.reshape(6, 4, 3), pixels[::-1])
    ]
    assert keys[0] == keys[1] and len(set(keys)) == 3
    grey = pixels[:, :, 0]
    same = [grey, grey[:, :, None], np.stack([grey] * 3, axis=-1), Image.fromarray(grey)]
    assert len({key_of(photo_of(photo).read()) for photo in same}) == 1


def test_answers_are_those_of_predict_py(place: Path) -> None:
    photos = sorted(place.glob("photos/*/*.jpg"))[::7]
    fresh = photos[0].read_bytes() + b"!"  # no store knows it
    (place / "fresh.jpg").write_bytes(fresh)
    (place / "bad.jpg").write_bytes(fresh[:500])
    names = [str(path) for path in photos] + ["fresh.jpg", "bad.jpg", "photos"]
    said = run_script("predict.py", *names[:-1], "--format", "json", "--top-k", 3, "--no-cache", cwd=place)
    rows = [json.loads(line) for line in said.stdout.splitlines()]
    table = breeds.predict("models/photos.safetensors", [*names[:-1], fresh, "photos"], top_k=3)
    assert list(table.columns) == [
        "path", "breed", "probability", "guess", "margin", "breed_2", "probability_2", "breed_3",
        "probability_3", "error",
    ]  # fmt: skip
    assert len(table) == len(rows) + 2
    for row, number in zip(rows, table.index, strict=False):
        found = {name: table.at[number, name] for name in table}
        assert found["path"] == row["path"]
        for name in ("breed", "guess", "error"):
            assert found[name] == row[name]
        assert found["probability"] == row["probability"] or np.isnan(found["probability"])
        for place_, top in enumerate(row["top"][1:], start=2):
            assert (found[f"breed_{place_}"], found[f"probability_{place_}"]) == tuple(top.values())
    memory, folder = table.index[-2:]
    assert table.path[memory] is None
    assert table.probability[memory] == table.probability[names.index("fresh.jpg")]
    assert table.error[folder] and table.breed[folder] is None
    assert sorted(os.listdir("models")) == ["photos.safetensors"], "nothing is written unasked"


def test_what_is_no_photo_is_a_row_with_its_error(place: Path) -> None:
    photo = next(place.glob("photos/*/*.jpg"))
    image = Image.new("F", (9, 9))
    bad = [
        b"", b"no photo", None, 7, float("nan"), "", "gone.jpg", "a\0b", "caf\udce9.jpg", place,
        "https://example.org/a.jpg", image, np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8),
        np.zeros(3, np.uint8), Image.new("RGB", (0, 5)), [photo],
    ]  # fmt: skip
    model = breeds.load("models/photos.safetensors")
    table = breeds.predict(model, [*bad, photo])
    assert list(table.index) == list(range(len(bad) + 1))
    assert table.error[:-1].map(bool).all() and table.error.iloc[-1] is None
    assert table.breed[:-1].isna().all() and table.probability[:-1].isna().all() and table.breed.iloc[-1]
    assert len(breeds.predict(model, [])) == 0 and list(breeds.predict(model, []).columns) == list(
        table.columns
    )


def test_mistakes_are_one_class(place: Path) -> None:
    model = breeds.load("models/photos.safetensors")
    photo = str(next(place.glob("photos/*/*.jpg")))
    for wrong in (
        lambda: breeds.predict(model, photo),
        lambda: breeds.predict(model, Image.open(photo)),
        lambda: breeds.predict(model, [photo], top_k=0),
        lambda: breeds.predict(model, [photo + "!"], views="upside"),
        lambda: breeds.load("gone.safetensors"),
        lambda: breeds.load("features/photos.h5"),
        lambda: breeds.Store("models/photos.safetensors"),
        lambda: breeds.extract("gone", "features/other.h5"),
        lambda: breeds.extract("photos", "features/other.h5", weights="random", size=20),
        lambda: breeds.train("features/photos.h5", head="round"),
        lambda: breeds.train("features/photos.h5", C=0),
        lambda: breeds.train("features/photos.h5", keep=2),
        lambda: breeds.train("features/photos.h5", seed=-1),
        lambda: model.save("features/photos.h5"),
        lambda: model.probabilities(np.zeros((2, 3))),
    ):
        with pytest.raises(breeds.BreedsError) as caught:
            wrong()
        assert "\n" not in str(caught.value)
    assert not Path("features/other.h5").exists()


def test_training_and_judging_are_those_of_the_scripts(place: Path) -> None:
    store = breeds.Store("features/photos.h5")
    model = breeds.train(store, C=0.01)
    saved = breeds.load("models/photos.safetensors")
    assert np.array_equal(model.probabilities(store.features()), saved.probabilities(store.features()))
    assert run_script("evaluate.py", "--no-html", cwd=place).returncode == 0
    report = json.loads((place / "reports/photos.json").read_text())
    found = breeds.evaluate(model, store)
    assert {name: found[name] for name in ("accuracy", "log_loss", "n_test")} == {
        name: report[name] for name in ("accuracy", "log_loss", "n_test")
    }


def test_a_models_copy_answers_too(place: Path) -> None:
    photo = next(place.glob("photos/*/*.jpg")).read_bytes() + b"?"
    model = breeds.load("models/photos.safetensors")
    first = breeds.predict(model, [photo])
    assert breeds.predict(pickle.loads(pickle.dumps(model)), [photo]).equals(first)


def test_a_predictor_answers_call_after_call_with_its_own_options(place: Path) -> None:
    photo = next(place.glob("photos/*/*.jpg")).read_bytes() + b"?"
    model = breeds.load("models/photos.safetensors")
    expected = breeds.predict(model, [photo], views="flip")
    with breeds.Predictor(model, views=["flip"]) as predictor:
        for _ in range(2):
            assert breeds.predict(predictor, [photo]).equals(expected)
        with pytest.raises(breeds.BreedsError, match="the Predictor's"):
            breeds.predict(predictor, [photo], views="flip")


def test_many_threads_may_ask_one_model(place: Path) -> None:
    photos = [path.read_bytes() + b"?" for path in sorted(place.glob("photos/*/*.jpg"))[:8]]
    model = breeds.load("models/photos.safetensors")
    expected = breeds.predict(model, photos)
    found: dict[int, object] = {}
    threads = [
        threading.Thread(target=lambda i=i: found.__setitem__(i, breeds.predict(model, [photos[i]])))  # type: ignore[misc]
        for i in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[i].probability[0] for i in range(8)] == list(expected.probability)  # type: ignore[attr-defined]


def test_corrections_count_where_they_are_asked_for(place: Path) -> None:
    store = breeds.Store("features/photos.h5")
    key = store.to_pandas()["key"][0]
    Path("features/photos.corrections.csv").write_text(f"key,label\n{key},other\n")
    assert breeds.Store("features/photos.h5").to_pandas()["label"][0] == "other"
    assert breeds.Store("features/photos.h5", corrected=False).to_pandas()["label"][0] != "other"


# nothing of the process is changed, and nothing is said

STATE = """
import gc, io, json, locale, logging, multiprocessing, os, random, resource, signal, socket, sys, threading
import warnings
import h5py, joblib, matplotlib, numpy, pandas, scipy.optimize, sklearn.linear_model, sklearn.utils.validation
from PIL import Image, ImageFile
from threadpoolctl import threadpool_info

def state():
    return {
        "environment": dict(os.environ),
        "folder": os.getcwd(),
        "filters": list(warnings.filters),
        "blocked modules": sorted(name for name, module in sys.modules.items() if module is None),
        "main": sys.modules["__main__"],
        "path": list(sys.path),
        "hooks": (sys.excepthook, sys.unraisablehook, threading.excepthook, sys.displayhook),
        "streams": (sys.stdin, sys.stdout, sys.stderr, [os.fstat(n).st_ino for n in range(3)]),
        "limits": (sys.getrecursionlimit(), sys.getswitchinterval(), resource.getrlimit(resource.RLIMIT_AS)),
        "pillow": (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, ImageFile.MAXBLOCK),
        "collector": (gc.isenabled(), gc.get_threshold(), gc.get_freeze_count()),
        "signals": [signal.getsignal(number) for number in signal.valid_signals()],
        "mask": signal.pthread_sigmask(signal.SIG_BLOCK, []),
        "timeout": socket.getdefaulttimeout(),
        "threads": {lib["filepath"]: lib["num_threads"] for lib in threadpool_info()},
        "random": (random.getstate(), str(numpy.random.get_state())),
        "numpy": (numpy.geterr(), numpy.get_printoptions()),
        "matplotlib": dict(matplotlib.rcParams),
        "logging": [(log.level, list(log.handlers), log.disabled) for log in
                    (logging.getLogger(), logging.getLogger("breeds"))],
        "warnings shown by logging": warnings.showwarning,
        "locale": locale.setlocale(locale.LC_ALL),
        "working": [thread.name for thread in threading.enumerate()],
        "children": multiprocessing.active_children(),
    }

def changed(before):
    after = state()
    for name in before:
        old, new = before[name], after[name]
        if name == "threads":  # of a library that is loaded since, there is nothing to compare
            new = {path: new[path] for path in old}
        if old != new:
            yield name
"""
CALLS = """
before = state()
import breeds
from pathlib import Path
store = breeds.extract("photos", "features/new.h5", weights="random", size=96)
model = breeds.train(store)
model.save("models/new.safetensors")
breeds.evaluate("models/new.safetensors", store)
photos = sorted(Path("photos").rglob("*.jpg"))[:2]
Path("models/features.sqlite").write_bytes(b"no database" * 1000)
table = breeds.predict(model,
    [photos[0], photos[0].read_bytes() + b"!", Image.open(photos[1]), b"bad"], views="flip", cache="models"
)
assert table.error.notna().tolist() == [False, False, False, True], table.error
features = breeds.BottleneckFeatures(weights="random", size=96, errors="nan", store="features/kept.h5")
features.fit_transform([*photos, "gone.jpg"])
whole = store.to_pandas()
breeds.BreedsClassifier().fit(whole.filter(like="feature_"), whole["label"])
Path("changed").write_text(json.dumps(sorted(changed(before))))
"""


def test_nothing_of_the_process_is_changed_and_nothing_is_said(place: Path) -> None:
    """Run with a terminal as stdout and stderr: there even bars of progress would be seen."""
    ours, theirs = pty.openpty()
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "default"}
    done = subprocess.run(
        [sys.executable, "-c", STATE + CALLS], cwd=place, env=env, stdout=theirs, stderr=theirs, timeout=300
    )
    os.close(theirs)
    try:
        said = os.read(ours, 2**16)
    except OSError:  # Linux ends a terminal that nobody holds any more so
        said = b""
    os.close(ours)
    assert (done.returncode, said) == (0, b"")
    assert json.loads((place / "changed").read_text()) == []


def test_what_happens_by_the_way_is_in_the_log(place: Path, said: pytest.LogCaptureFixture) -> None:
    Path("cache").mkdir()
    Path("cache/features.sqlite").write_bytes(b"no database" * 1000)
    photo = next(place.glob("photos/*/*.jpg")).read_bytes() + b"?"
    breeds.predict("models/photos.safetensors", [photo], cache="cache")
    assert "features of this run are not kept" in said.text


@pytest.mark.slow
def test_loading_openvino_leaves_no_module_blocked() -> None:
    code = (
        "import sys; from breeds.backbones import import_openvino; import_openvino()\n"
        "assert [name for name, module in sys.modules.items() if module is None] == []\n"
        "assert not hasattr(sys.modules['openvino.tools.ovc'].telemetry, 'backend')\n"
        "assert 'openvino_telemetry' not in sys.modules"
    )
    done = run_python(code)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert import_openvino() is sys.modules["openvino"]


@pytest.mark.slow
def test_fits_side_by_side_leave_the_threads_as_they_were() -> None:
    def threads() -> list[int]:
        return [library["num_threads"] for library in threadpool_info()]

    rng = np.random.default_rng(0)
    features, labels = rng.normal(size=(60, 8)), np.repeat(["a", "b", "c"], 20)
    breeds.BreedsClassifier(C=1).fit(features, labels)
    before = threads()
    fits = [
        threading.Thread(target=lambda: breeds.BreedsClassifier().fit(features, labels)) for _ in range(4)
    ]
    for fit in fits:
        fit.start()
    for fit in fits:
        fit.join()
    assert threads() == before

"""A hostile world at the command line: what is not ours stays, text is only text, errors are sentences."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import forked
import numpy as np
import pytest
from conftest import ROOT, MakeStore, assert_refused, run_script, starts_tensorflow
from PIL import Image

from breeds.backbones import BACKBONES
from breeds.backbones.weights import get_weights
from breeds.config import FeatureConfig
from breeds.errors import BreedsError
from breeds.features import Store, Table, write_store
from breeds.heads.model import Model
from breeds.outputs import PICTURE, replaceable
from breeds.training import train

pytestmark = pytest.mark.slow  # nearly each starts the scripts several times

#: Codes that clear a screen, a line that we did not write, the same by C1, and letters turned around.
EVIL = "x\x1b[2J\nquarantined forged: really\r\x9b2J\u202egpj"


def furnish(
    folder: Path, config: FeatureConfig, labels: Sequence[str], photos: str = "photos", store: str = "made"
):
    """Write small photos, a folder for each class, and a store that has made-up features of each."""
    rng = np.random.default_rng(0)
    path = folder / f"features/{store}.h5"
    keys, paths, named, features = [], [], [], []
    for number, label in enumerate(labels):
        centre = rng.normal(size=2048) * 0.2
        for i in range(6):
            photo = folder / photos / label / f"{i}.png"
            photo.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (16, 16), (number * 40, i * 9, 77)).save(photo)
            key = hashlib.sha256(photo.read_bytes()).hexdigest()
            features.append(centre + rng.normal(size=2048) + 3)
            keys.append(key)
            paths.append(f"{label}/{i}.png")
            named.append(label)
    n = len(keys)
    table = Table(str(folder / photos), "", keys, paths, named, [""] * n, [1] * n, [0] * n)
    write_store(path, table, config, np.array(features, dtype=np.float32), "made up")
    return path


@pytest.fixture(scope="module")
def furnished(tmp_path_factory: pytest.TempPathFactory, random_config: FeatureConfig) -> Path:
    folder = tmp_path_factory.mktemp("furnished")
    store = Store(furnish(folder, random_config, ["a", "b"]))
    train(store, C=0.01).save(folder / "models/made.safetensors")
    return folder


@pytest.fixture
def place(furnished: Path, tmp_path: Path) -> Path:
    """A folder with photos, a store that knows them all, and a model: no network is needed for anything."""
    shutil.copytree(furnished, tmp_path / "place")
    return tmp_path / "place"


def shell(command: str, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a command of the shell in which ``py`` is Python and ``$B`` the scripts' folder."""
    return subprocess.run(
        ["bash", "-c", f'py() {{ "{sys.executable}" "$@"; }}; B="{ROOT}"; {command}'], cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), **env}, capture_output=True, text=True, timeout=120,
        check=False, errors="backslashreplace",
    )  # fmt: skip


def after(first: str, command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a script in a fork in which something is done first, as a shell does it before Python starts."""
    front = cwd.parent / "front.py"
    front.write_text(
        f"import os, resource, runpy, sys\n{first}\nsys.argv.pop(0)\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    name, *arguments = command.split()
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return forked.run([str(front), str(ROOT / name), *arguments], cwd, env, None, 120)


def contents(folder: Path) -> dict[str, bytes]:
    """The bytes of all files but the cache of features, which any prediction may write."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != "features.sqlite")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


# What is not ours stays.


@pytest.mark.parametrize(
    ("script", "arguments", "words"),
    [
        ("train_head.py", "--model features/made.h5", ["made.h5", "not a model"]),
        ("train_head.py", "--model photos/a/0.png", ["0.png", "not a model"]),
        ("train_head.py", "--model x.joblib --export joblib", ["--model and --export both name x.joblib"]),
        ("train_head.py", "--model mine.safetensors --export joblib", ["mine.joblib", "not a scikit-learn"]),
        ("train_head.py", "--model llm.safetensors", ["llm.safetensors", "not a model of Breeds"]),
        ("evaluate.py", "--json models/made.safetensors", ["made.safetensors", "not a report"]),
        ("evaluate.py", "--json mine.json", ["mine.html", "not a page"]),
        ("evaluate.py", "--figures figures", ["confusion.png", "not a chart"]),
        ("predict.py", "photos --out photos/a/0.png", ["0.png", "not answers"]),
        ("predict.py", "photos --out models/made.safetensors", ["made.safetensors", "not answers"]),
        ("predict.py", "photos --out link.csv", ["link.csv", "not answers"]),
        ("predict.py", "photos --format kaggle --out labels.csv", ["labels.csv", "not answers"]),
        ("predict.py", "answers.csv --out answers.csv", ["answers.csv", "read as well"]),
        ("predict.py", "photos --html mine.html", ["mine.html", "not a page"]),
        ("predict.py", "photos --explain why", ["explanations.csv", "not a table"]),
        ("predict.py", "photos --explain y --out y/explanations.csv", ["--out and --explain both name"]),
        ("extract_features.py", "photos --preview mine.html", ["mine.html", "not a page"]),
        ("extract_features.py", "photos --weights random --store photos/a/0.png", ["0.png", "HDF5"]),
    ],
)
def test_nothing_is_replaced_but_a_file_of_its_own_kind(script, arguments, words, place: Path) -> None:
    (place / "mine.html").write_text("<!doctype html><p>My dogs, all day's work")
    (place / "mine.joblib").write_text("notes")
    header = json.dumps({"__metadata__": {"format": "pt"}}).encode()
    (place / "llm.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    (place / "figures").mkdir()
    shutil.copy(place / "photos/a/0.png", place / "figures/confusion.png")
    (place / "labels.csv").write_text("id,breed\n000bec180eb18c7604dcecc8fe0dba07,boston_bull\n")
    (place / "answers.csv").write_text("path,breed,probability,guess,error\n")
    (place / "why").mkdir()
    (place / "why/explanations.csv").write_text("mine,all\n1,2\n")
    (place / "link.csv").symlink_to("photos/a/0.png")
    before = contents(place)
    assert_refused(run_script(script, *arguments.split(), cwd=place), *words)
    assert contents(place) == before


def test_what_is_ours_or_empty_is_replaced(place: Path, tmp_path: Path) -> None:
    """What evaluation writes is replaced in `test_the_plainest_locale`, as charts take long to draw."""
    for name in ("out.csv", "page.html", "other.safetensors"):
        (place / name).touch()
    for form in ("csv", "json", "kaggle", "csv"):
        result = run_script("predict.py", "photos", "--out", "out.csv", "--format", form, cwd=place)
        assert result.returncode == 0, result.stderr
    for _ in range(2):
        for command in (
            "predict.py photos --out out.csv --html page.html",
            "train_head.py --C 0.01 --model other.safetensors --export joblib",
        ):
            result = run_script(*command.split(), cwd=place)
            assert result.returncode == 0, result.stderr
    photo = tmp_path / "rex-0123456789abcdef.jpg"
    Image.new("RGB", (9, 9)).save(photo)
    assert not replaceable(photo, PICTURE)


# Text from strangers.


def assert_plain(*texts: str) -> None:
    """Assert that no text has a code that a terminal obeys, or a line that a name has forged."""
    for text in texts:
        assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]", text), ascii(text)
        assert not re.search("^quarantined forged", text, re.MULTILINE), text


def test_names_of_photos_are_text_in_every_front(place: Path) -> None:
    folder = place / "photos" / EVIL
    folder.mkdir()
    (folder / f"{EVIL}.jpg").touch()
    predicted = run_script("predict.py", "photos", cwd=place)
    assert predicted.returncode == 1
    assert "\\x1b[2J\\nquarantined forged" in predicted.stderr
    assert_plain(predicted.stderr)
    previewed = run_script("extract_features.py", "photos", "--preview", cwd=place)
    assert previewed.returncode == 1, previewed.stderr
    assert_plain(previewed.stderr, previewed.stdout)
    extracted = run_script("extract_features.py", "photos", "--weights", "random", "--store",
                           "features/made.h5", cwd=place)  # fmt: skip
    assert "quarantined" in extracted.stderr
    assert_plain(extracted.stderr, extracted.stdout)
    named = run_script("extract_features.py", f"photos/{EVIL}", "--weights", "random", cwd=place)
    assert_refused(named, "None of the 1 photos")
    assert_plain(named.stderr)
    option = run_script("predict.py", f"--{EVIL}.jpg", cwd=place)
    assert option.returncode == 2
    assert_plain(option.stderr)


def test_names_of_classes_are_text_in_every_front(random_config: FeatureConfig, tmp_path: Path) -> None:
    store = furnish(tmp_path, random_config, [EVIL, f"2{EVIL}"])
    for command in (
        ["train_head.py", "--C", "0.01"],
        ["evaluate.py", "--no-html", "--doubts"],
        ["predict.py", "nowhere*", "photos"],
        ["-m breeds store", "info", str(store)],
        ["-m breeds store", "verify", str(store)],
    ):
        result = run_script(*command, cwd=tmp_path)
        assert "Traceback" not in result.stderr
        assert_plain(result.stdout, result.stderr)


def test_on_a_terminal_an_answer_is_one_line(place: Path) -> None:
    (place / "photos" / EVIL).mkdir()
    (place / "photos" / EVIL / "a.jpg").touch()
    ours, theirs = os.openpty()
    with open(ours, "rb") as terminal:
        done = subprocess.run(
            [sys.executable, str(ROOT / "predict.py"), f"photos/{EVIL}"], cwd=place, stdout=theirs,
            env={**os.environ, "PYTHONPATH": str(ROOT)}, stderr=subprocess.PIPE, timeout=120, check=False,
        )  # fmt: skip
        text = os.read(ours, 2**16).decode().replace("\r\n", "\n")
        os.close(theirs)
        terminal.close()
    assert done.returncode == 1
    assert_plain(text)
    assert len(text.splitlines()) == 2


def changed_model(place: Path, **changes: object) -> Model:
    """Save the model with other fields, beside its own."""
    path = place / "models/made.safetensors"
    model = replace(Model.load(path), **changes)  # type: ignore[arg-type]
    model.save(path)
    return model


def test_what_a_model_says_of_itself_is_text(place: Path) -> None:
    model = Model.load(place / "models/made.safetensors")
    config = replace(model.config, weights=EVIL, resize=EVIL)
    changed_model(place, config=config, weights_path=EVIL, record={**model.record, "store": EVIL})
    shutil.copy(place / "photos/a/0.png", place / "new.png")
    for command in (
        ["evaluate.py"],
        ["evaluate.py", "--store", "features/made.h5"],
        ["predict.py", "new.png"],
    ):
        result = run_script(*command, cwd=place)
        assert_refused(result)
        assert_plain(result.stdout, result.stderr)


@pytest.mark.parametrize("name", ["unknown", "Unknown "])
def test_a_class_called_unknown_is_refused(name: str, make_store, tmp_path: Path) -> None:
    make_store({"a": 6, name: 6})
    result = run_script("train_head.py", cwd=tmp_path)
    assert_refused(result, "called unknown" if name == "unknown" else "called Unknown", "rename")
    assert not (tmp_path / "models").exists()


# Errors are sentences.


@pytest.mark.parametrize("option", ["", "--export joblib"])
def test_a_disk_that_is_full_while_a_model_is_saved(option: str, place: Path) -> None:
    before = contents(place)
    full = "sys.dont_write_bytecode = True; resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))"
    result = after(full, f"train_head.py --C 0.01 --model m.safetensors {option}", place)
    assert_refused(result, "m.safetensors", "File too large")
    assert contents(place) == before


@pytest.mark.parametrize("to", [">&-", "> /dev/full"])
@pytest.mark.parametrize(
    "command",
    ["train_head.py --C 0.01", "evaluate.py", "predict.py photos",
     "-m breeds store info features/made.h5",
     "extract_features.py photos --weights random --store features/made.h5"],
)  # fmt: skip
def test_a_stdout_that_cannot_be_written(command: str, to: str, place: Path) -> None:
    where = command if command.startswith("-m") else f"{ROOT}/{command}"
    if to == "> /dev/full":
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        result = forked.run(where.split(), place, env, None, 120, stdout="/dev/full")
    elif command.startswith(("train", "evaluate")):  # these load much
        more = " --no-html" if "evaluate" in command else ""
        result = after("os.close(1); sys.stdout = sys.__stdout__ = None", command + more, place)
    else:
        result = shell(f"py {where} >&-", place)
    assert_refused(result, "standard output", "what was written to files is there")
    if "evaluate" in command:
        assert (place / "reports/made.json").is_file()
        assert (place / "reports/made.html").is_file() or to == ">&-"


@pytest.mark.parametrize("to", ["--out out.csv 2>&-", "> out.csv 2>&-", "--out out.csv 2> /dev/full"])
def test_messages_that_cannot_be_written_never_get_into_a_file(to: str, place: Path) -> None:
    (place / "photos/a/bad.jpg").touch()
    result = shell(f'py "$B/predict.py" photos {to}', place)
    assert result.returncode == 1
    rows = list(csv.reader(io.StringIO((place / "out.csv").read_text())))
    assert rows[0] == ["path", "breed", "probability", "guess", "margin", "error"]
    assert len(rows) == 14
    assert all(len(row) == len(rows[0]) for row in rows)


def test_help_that_cannot_be_written(place: Path) -> None:
    result = shell('py "$B/predict.py" --help > /dev/full', place)
    assert result.stderr == ""


@pytest.mark.parametrize("streams", ["<&-", "<&- >&- 2>&-"])
def test_closed_streams(streams: str, place: Path) -> None:
    (place / "list").write_text("photos/a/0.png\n")
    result = shell(f'py "$B/predict.py" - photos --out out.csv {streams}', place)
    assert result.returncode == 0, result.stderr
    assert len((place / "out.csv").read_text().splitlines()) == 13


def test_broken_links_and_pipes_are_never_the_newest(place: Path) -> None:
    for folder, ending in (("models", "safetensors"), ("features", "h5")):
        (place / folder / f"broken.{ending}").symlink_to("nowhere")
        (place / folder / f"loop.{ending}").symlink_to(f"loop.{ending}")
        os.mkfifo(place / folder / f"pipe.{ending}")
    training = run_script("train_head.py", "--C", "0.01", cwd=place)
    assert training.returncode == 0, training.stderr
    prediction = run_script("predict.py", "photos", cwd=place)
    assert prediction.returncode == 0, prediction.stderr
    (place / "features/made.h5").unlink()
    assert_refused(run_script("train_head.py", cwd=place), "There is no features/*.h5 yet")


@pytest.mark.parametrize(
    ("script", "arguments", "word"),
    [
        ("predict.py", "photos --tta crops:²", "names no view"),
        ("predict.py", f"photos --tta crops:{'9' * 5000}", "names no view"),
        ("extract_features.py", "photos --preview --views crops:²", "names no view"),
        ("predict.py", "photos --workers 9223372036854775807", "from 1 to 1024"),
        ("extract_features.py", "photos --workers 1025", "from 1 to 1024"),
        ("evaluate.py", "--cv 5x²", "such as 5x2"),
        ("train_head.py", "--C 1e-40", "from 1e-12 to 1e12"),
        ("train_head.py", "--C 1e13", "from 1e-12 to 1e12"),
        ("train_head.py", f"--seed {'9' * 5000}", "whole number"),
    ],
)
def test_numbers_that_are_none_or_too_large(script: str, arguments: str, word: str, place: Path) -> None:
    result = run_script(script, *arguments.split(), cwd=place)
    assert result.returncode == 2
    assert "Traceback" not in result.stderr
    assert word in result.stderr


@pytest.mark.parametrize("C", ["1e-12", "1e12"])
def test_the_smallest_and_the_largest_C_end(C: str, place: Path) -> None:
    result = run_script("train_head.py", "--C", C, cwd=place)
    assert result.returncode == 0, result.stderr
    assert result.stderr == "using features/made.h5\n"


def test_large_numbers_that_are_fine(place: Path) -> None:
    huge = str(10**30)
    training = run_script("train_head.py", "--C", "0.01", "--seed", huge, cwd=place)
    assert training.returncode == 0, training.stderr
    prediction = run_script("predict.py", "photos", "--top-k", huge, cwd=place)
    assert prediction.returncode == 0, prediction.stderr


def test_every_head_takes_huge_seeds() -> None:
    """`train_head.py --compare` fits them all, which takes a minute; this is the one that did not."""
    from breeds.heads.crossval import _heads

    features = np.random.default_rng(0).normal(size=(12, 8)).astype(np.float32)
    shares = _heads(2**64, ())["linear SVM"](features, np.arange(12) % 2, features)
    assert np.isfinite(shares).all()


@pytest.mark.parametrize("changed", ["store", "weights_path", "weights_sha256"])
def test_what_a_model_records_may_be_anything(changed: str, place: Path) -> None:
    model = Model.load(place / "models/made.safetensors")
    long = "/x" * 2500
    changes: dict[str, dict[str, object]] = {
        "store": {"record": {**model.record, "store": long}},
        "weights_path": {"config": replace(model.config, weights="mine.h5"), "weights_path": long},
        "weights_sha256": {"config": replace(model.config, weights_sha256="***")},
    }
    changed_model(place, **changes[changed])
    Image.new("RGB", (9, 9), (1, 2, 3)).save(place / "new.png")
    if changed == "store":
        assert_refused(run_script("evaluate.py", cwd=place), "cannot be found")
        # Without its store it needs the network, and so the weights, which are not these.
        assert_refused(run_script("predict.py", "photos/a/0.png", "--weights", "new.png", cwd=place))
        return
    env = {"BREEDS_CACHE": str(place / "cache")}  # a network converted before needs no weights
    assert_refused(run_script("predict.py", "new.png", cwd=place, env=env))
    assert_refused(run_script("predict.py", "new.png", "--explain", "why", cwd=place, env=env))


@pytest.mark.parametrize(
    "changed",
    [{"C": 1e-40, "C_chosen_by": "you"}, {"C": "nan", "C_chosen_by": "you"}, {"C": None}, {"seed": EVIL},
     {"cv_log_loss": {"a": "b"}}, {"cv_log_loss": {"0.1": 1e308}}, {"cv_log_loss": [1]}, {"n_val": "1"},
     {"train_accuracy": EVIL}, {"seconds": {}}],
)  # fmt: skip
def test_a_record_is_of_its_kind(changed: dict[str, object], place: Path) -> None:
    model = Model.load(place / "models/made.safetensors")
    changed_model(place, record={**model.record, **changed})
    with pytest.raises(BreedsError, match="is not a model of Breeds"):
        Model.load(place / "models/made.safetensors")


def test_a_model_whose_class_is_called_unknown_is_refused(place: Path) -> None:
    changed_model(place, classes=["a", "unknown"])
    assert_refused(run_script("predict.py", "photos", cwd=place), "photos of none of the classes")


@pytest.mark.parametrize("script", ["train_head.py", "predict.py photos"])
@pytest.mark.parametrize("megabytes", [150, 300, 600])
def test_too_little_address_space(script: str, megabytes: int, place: Path) -> None:
    result = shell(f'ulimit -v {megabytes * 1000}; py "$B"/{script}', place, OPENBLAS_NUM_THREADS="1")
    # OpenBLAS ends the process itself, with a sentence of its own and 1.
    assert result.returncode in (0, 2) or "OpenBLAS error" in result.stderr, result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("how", ["-P", "-I", "-I -W error"])
@pytest.mark.parametrize("script", ["extract_features.py", "train_head.py", "evaluate.py", "predict.py"])
def test_python_without_the_scripts_folder(script: str, how: str, place: Path) -> None:
    result = shell(f'unset PYTHONPATH; py {how} "$B/{script}" --help', place)
    assert result.returncode == 0, result.stderr


def test_warnings_that_are_errors(place: Path) -> None:
    for command in (["train_head.py"], ["evaluate.py"], ["predict.py", "photos", "--html", "page.html"]):
        result = run_script(*command, cwd=place, env={"PYTHONWARNINGS": "error", "PYTHONSAFEPATH": "1"})
        assert result.returncode == 0, result.stderr


@pytest.mark.thorough
@starts_tensorflow
def test_a_network_is_converted_where_warnings_are_errors(make_store: MakeStore, tmp_path: Path) -> None:
    small = BACKBONES["mobilenetv3large"]
    weights = get_weights("random", small)
    make_store({"a": 6, "b": 6}, width=small.width)
    model = train(Store(tmp_path / "features/made.h5"), C=0.01)
    config = FeatureConfig(small.name, weights.name, weights.sha256, 32, "stretch")
    replace(model, config=config).save(tmp_path / "models/made.safetensors")
    Image.new("RGB", (9, 9), (1, 2, 3)).save(tmp_path / "new.png")
    env = {"PYTHONWARNINGS": "error"}
    result = run_script("predict.py", "new.png", "--engine", "openvino", cwd=tmp_path, env=env)
    assert result.returncode == 0, result.stderr
    assert "converting the network" in result.stderr  # it is kept for `test_openvino.py`, which comes later


@pytest.mark.thorough
def test_the_plainest_locale(place: Path, tmp_path: Path) -> None:
    """Python begins in it once, and does for each command what it does for all.

    What evaluation has written there, or found empty, it replaces. What was written there is whole in others.
    """
    (place / "photos/a").rename(place / "photos/Größe")
    (place / "reports").mkdir()
    (place / "reports/made.json").touch()
    large = b"IHDR" + struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + large + struct.pack(">I", zlib.crc32(large))
    (place / "photos/Größe/×.png").write_bytes(data)
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    with forked.serving(tmp_path, **plain):
        for command, codes in (
            (["predict.py", "photos", "--out", "out.csv", "--html", "page.html"], (1,)),
            (["predict.py", "photos"], (1,)),
            (["predict.py", "photos", "--format", "json"], (1,)),
            (["extract_features.py", "photos", "--preview"], (1,)),
            (["extract_features.py", "photos", "--weights", "random", "--store", "features/made.h5"], (1,)),
            (["train_head.py"], (0,)),
            (["evaluate.py", "--figures", "figures"], (0,)),
            (["evaluate.py", "--figures", "figures"], (0,)),
            (["-m breeds store", "info", "features/made.h5"], (0,)),
        ):
            result = run_script(*command, cwd=place)
            assert result.returncode in codes, result.stderr
            assert "Traceback" not in result.stderr
    for script, *arguments in (("-m breeds store", "verify", "features/made.h5"), ("evaluate.py",)):
        result = run_script(script, *arguments, cwd=place)
        assert result.returncode == 0, result.stderr
    assert "Größe" in Model.load(place / "models/made.safetensors").classes


def test_a_folder_that_is_called_as_a_view_is(random_config: FeatureConfig, tmp_path: Path) -> None:
    furnish(tmp_path, random_config, ["a", "b"], photos="dogs+flip", store="dogs-flip")
    extracted = run_script("extract_features.py", "dogs+flip", "--weights", "random", cwd=tmp_path)
    assert extracted.returncode == 0, extracted.stderr
    assert "features/dogs-flip.h5" in extracted.stdout
    training = run_script("train_head.py", "--C", "0.01", cwd=tmp_path)
    assert training.returncode == 0, training.stderr
    named = run_script("extract_features.py", "dogs+flip", "--store", "x+crop2.h5", cwd=tmp_path)
    assert_refused(named, "x+crop2.h5", "views end in +crop2")


STOPPED_IN_SEARCH = """
import os, signal, sys, threading, time
sys.path.insert(0, sys.argv.pop(1))
import breeds.heads.logistic as logistic
import train_head
from breeds.cli import common

solve = logistic._Fold.solve
def told(*arguments):
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
    return solve(*arguments)
logistic._Fold.solve = told
common.run(train_head.main)
"""


def test_ctrl_c_ends_the_search_for_c(make_store: MakeStore, tmp_path: Path) -> None:
    """Each fit of this store takes seconds."""
    store = make_store({f"class {number}": 25 for number in range(60)}, spread=0.01)
    (tmp_path / "stopped.py").write_text(STOPPED_IN_SEARCH)
    command = [str(tmp_path / "stopped.py"), str(ROOT), "--store", str(store)]
    started = time.monotonic()
    result = forked.run(command, tmp_path, dict(os.environ), None, 120)
    assert result.returncode == 130, result.stderr
    assert "stopped" in result.stderr and "Traceback" not in result.stderr
    assert not (tmp_path / "models").exists()
    assert time.monotonic() - started < 20

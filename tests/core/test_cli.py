"""The four scripts as a user runs them, in order, on the drawn sample; and every mistake."""

from __future__ import annotations

import csv
import importlib.util
import json
import shutil
from pathlib import Path

import pytest
from conftest import ROOT, assert_refused, run_script, starts_tensorflow

from breeds.cli import COMMANDS
from breeds.heads.model import Model

SCRIPTS = ("extract_features.py", "train_head.py", "evaluate.py", "predict.py")


@pytest.fixture(scope="module")
def workplace(drawn_photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder where extraction and training have been run with nothing but defaults."""
    folder = tmp_path_factory.mktemp("workplace")
    for photo in drawn_photos.glob("*/0[1-4].jpg"):
        (folder / "photos" / photo.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copyfile(photo, folder / "photos" / photo.parent.name / photo.name)
    extraction = run_script("extract_features.py", "photos/", "--weights", "random", cwd=folder)
    assert extraction.returncode == 0, extraction.stderr
    assert "40 photos = 40 features (40 new, 0 reused) + 0 quarantined" in extraction.stdout
    training = run_script("train_head.py", cwd=folder)
    assert training.returncode == 0, training.stderr
    assert "using features/photos.h5" in training.stderr
    return folder


def without_tensorflow(folder: Path) -> dict[str, str]:
    """An environment in which a command ends that loads TensorFlow or Keras, whatever it catches."""
    for module in ("tensorflow", "keras"):
        (folder / "poison" / module).mkdir(parents=True)
        (folder / "poison" / module / "__init__.py").write_text("raise SystemExit('loaded')")
    env = {"PYTHONPATH": f"{folder / 'poison'}:{ROOT}"}
    for module in ("tensorflow", "keras"):
        assert "loaded" in run_script(f"-m {module}", cwd=folder, env=env).stderr
    return env


@pytest.mark.slow
def test_four_scripts_in_order_with_defaults(workplace: Path) -> None:
    evaluation = run_script("evaluate.py", cwd=workplace)
    assert evaluation.returncode == 0, evaluation.stderr
    assert "random weights" in evaluation.stdout or "weights are random" in evaluation.stdout
    report = json.loads((workplace / "reports/photos.json").read_text())
    wanted = (
        "accuracy accuracy_interval top3 log_loss n_train n_test classes confusion per_class weights config"
    )
    assert set(wanted.split()) <= report.keys()
    assert report["weights"]["name"] == "random"
    assert sum(map(sum, report["confusion"])) == report["n_test"] == 10
    assert report["accuracy"] > 0.2, "ten classes: chance is 0.1"
    low, high = report["accuracy_interval"]
    assert 0 <= low <= report["accuracy"] <= high <= 1

    bad = workplace / "holiday" / "broken.jpg"
    bad.parent.mkdir()
    bad.write_bytes(b"")
    shutil.copy(workplace / "photos/toffee_curlmop/01.jpg", bad.parent / "a.jpg")
    prediction = run_script("predict.py", "holiday/", "--out", "breeds.csv", cwd=workplace)
    assert prediction.returncode == 1
    assert "broken.jpg: empty file" in prediction.stderr
    rows = list(csv.DictReader((workplace / "breeds.csv").open()))
    assert [row["path"] for row in rows] == ["holiday/a.jpg", "holiday/broken.jpg"]
    assert rows[0]["breed"] == "toffee_curlmop", "a training photo"
    assert rows[1]["breed"] == ""
    assert "empty" in rows[1]["error"]


@pytest.mark.slow
def test_nothing_new_never_loads_tensorflow(workplace: Path, tmp_path: Path) -> None:
    env = without_tensorflow(tmp_path)
    for options in ([], ["--trust-mtime"]):
        again = run_script(
            "extract_features.py", "photos/", "--weights", "random", *options, cwd=workplace, env=env
        )
        assert again.returncode == 0, again.stderr
        assert "(0 new, 40 reused)" in again.stdout


@pytest.mark.slow
def test_logistic_regression_never_loads_tensorflow(make_store, tmp_path: Path) -> None:
    make_store({"a": 9, "b": 9})
    result = run_script("train_head.py", cwd=tmp_path, env=without_tensorflow(tmp_path))
    assert result.returncode == 0, result.stderr


def test_python_m_breeds_is_the_command(tmp_path: Path) -> None:
    shown = run_script("-m breeds", cwd=tmp_path)
    assert shown.returncode == 0
    assert all(f"\n    {name} " in shown.stdout for name in COMMANDS)
    assert_refused(run_script("-m breeds", "evaluate", cwd=tmp_path), "run python -m breeds train first")
    assert_refused(run_script("-m breeds", "nonsense", cwd=tmp_path), "no command nonsense")


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_names_every_default(script: str, tmp_path: Path) -> None:
    result = run_script(script, "--help", cwd=tmp_path)
    assert result.returncode == 0
    text = " ".join(result.stdout.split("options:")[1].split())
    options = [part for part in text.split(" --")[1:] if not part.startswith("help")]
    assert options
    for option in options:
        if not option.endswith(","):  # of two names the help follows the second
            assert "default" in option, f"--{option} does not say its default"


@pytest.mark.parametrize(
    ("script", "arguments", "words"),
    [
        ("extract_features.py", ["nowhere"], ["nowhere", "No such folder"]),
        ("extract_features.py", ["empty"], ["No photos in empty"]),
        ("extract_features.py", ["bad.csv"], ["bad.csv", "path,label"]),
        ("extract_features.py", ["gone.csv"], ["6 of 6", "gone0.jpg", "gone4.jpg"]),
        ("extract_features.py", ["pics", "--weights", "nowhere.h5"], ["nowhere.h5"]),
        ("extract_features.py", ["pics", "--weights", "bad.csv"], ["bad.csv", ".h5"]),
        ("extract_features.py", ["pics", "--weights", "random", "--store", "bad.csv/x.h5"], ["bad.csv/x.h5"]),
        ("extract_features.py", ["pics", "--weights", "random", "--store", "text.h5"], ["text.h5", "HDF5"]),
        ("extract_features.py", ["pics", "--weights", "random", "--classes", "cat"], ["cat", "basenji"]),
        ("extract_features.py", ["pics", "--weights", "random"], ["basenji/a.jpg", "empty file"]),
        ("train_head.py", [], ["extract_features.py"]),
        ("train_head.py", ["--store", "nowhere.h5"], ["nowhere.h5"]),
        ("train_head.py", ["--store", "text.h5"], ["text.h5", "not an HDF5 file"]),
        ("evaluate.py", [], ["train_head.py"]),
        ("evaluate.py", ["--model", "text.h5"], ["text.h5", "not a model"]),
        ("predict.py", ["pics", "--model", "nowhere"], ["nowhere"]),
        ("predict.py", ["nowhere", "--model", "text.h5"], ["nowhere"]),
        ("predict.py", ["pics", "--model", "text.h5", "--out", "pics"], ["pics", "folder"]),
    ],
)
def test_mistakes_are_one_sentence_and_write_nothing(
    script: str, arguments: list[str], words: list[str], tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "pics/basenji").mkdir(parents=True)
    (tmp_path / "pics/basenji/a.jpg").touch()
    (tmp_path / "text.h5").write_text("no HDF5 at all")
    (tmp_path / "bad.csv").write_text("file,class\na,b\n")
    (tmp_path / "gone.csv").write_text("path,label\n" + "".join(f"gone{i}.jpg,x\n" for i in range(6)))
    before = sorted(tmp_path.rglob("*"))
    result = run_script(script, *arguments, cwd=tmp_path)
    assert_refused(result, *words)
    files = [path for path in sorted(tmp_path.rglob("*")) if path not in before and path.is_file()]
    assert files == []


@pytest.mark.parametrize(
    ("counts", "words"),
    [({"only": 9}, ["only", "two classes"]), ({"a": 9, "lonely": 1}, ["lonely"]), ({"": 9}, ["no labels"])],
)
def test_training_refuses_stores_that_cannot_be_split(counts, words, make_store, tmp_path: Path) -> None:
    make_store(counts)
    assert_refused(run_script("train_head.py", cwd=tmp_path), *words)
    assert not (tmp_path / "models").exists()


@pytest.mark.slow
def test_evaluation_refuses_what_does_not_fit(make_store, random_config, tmp_path: Path) -> None:
    from dataclasses import replace

    make_store({"a": 9, "b": 9})
    assert run_script("train_head.py", cwd=tmp_path).returncode == 0
    make_store({"a": 9, "c": 9}, name="other.h5", seed=1)
    other = run_script("evaluate.py", "--store", "other.h5", cwd=tmp_path)
    assert_refused(other, "photos of c", "does not know")
    make_store({"a": 9, "b": 9}, name="crop.h5", config=replace(random_config, resize="crop"))
    assert_refused(run_script("evaluate.py", "--store", "crop.h5", cwd=tmp_path), "crop", "stretch")
    make_store({"a": 9, "b": 9}, name="seen.h5", splits=["test"] * 18)
    assert_refused(run_script("evaluate.py", "--store", "seen.h5", cwd=tmp_path), "used to train")


@starts_tensorflow
def test_dense_head_is_trained_and_saved_without_pickle(make_store, tmp_path: Path) -> None:
    make_store({"a": 40, "b": 40, "c": 40}, width=64, spread=1.0)
    seed = 5_000_000_000  # more than Keras takes
    options = ("--head", "dense", "--val", "0.1", "--seed", seed)
    result = run_script("train_head.py", *options, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert Model.load(tmp_path / "models/made.safetensors").record["seed"] == seed
    evaluation = run_script("evaluate.py", cwd=tmp_path, env=without_tensorflow(tmp_path))
    assert evaluation.returncode == 0, evaluation.stderr
    assert json.loads((tmp_path / "reports/made.json").read_text())["accuracy"] > 0.9
    refused = run_script("train_head.py", "--head", "dense", "--C", "1", cwd=tmp_path)
    assert_refused(refused, "--C", "logistic")


@pytest.mark.parametrize(
    ("script", "option", "module", "names"),
    [
        ("train_head", "--head", "breeds.heads.kinds", "HEADS"),
    ],
)
def test_choices_are_those_of_the_code(script: str, option: str, module: str, names: str) -> None:
    """The scripts write them out, as help is shown without loading anything."""
    spec = importlib.util.spec_from_file_location(script, ROOT / f"{script}.py")
    front = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(front)
    choices = {o: action.choices for action in front.parser()._actions for o in action.option_strings}
    assert tuple(choices[option]) == tuple(getattr(importlib.import_module(module), names))


def test_repository_has_what_the_readme_promises() -> None:
    for name in (
        "LICENSE",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "docs/design.md",
        "requirements.txt",
        "pyproject.toml",
        ".ci/run",
        "Makefile",
    ):
        assert (ROOT / name).is_file()

"""The report's numbers: intervals that hold, every photo in one part, stores found from anywhere."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, MakeStore, assert_refused, run_script, tensorflow

from breeds.evaluation import evaluate
from breeds.features import Store
from breeds.heads.crossval import compare_models, cross_validate
from breeds.heads.model import Model
from breeds.metrics import wilson_interval
from breeds.report.terminal import as_lines, cross_validation_text
from breeds.training import train

FOUR = {"a": 16, "b": 16, "c": 16, "d": 16}
TWENTY_OF_200 = {"a": 100, "b": 100}
TWENTY_SPLITS = (["test"] * 10 + [""] * 90) * 2


def test_all_right_is_not_said_to_be_certain(make_store: MakeStore) -> None:
    store = Store(make_store(FOUR))
    report = evaluate(store, train(store, C=0.01))
    assert report["n_test"] == 12
    assert report["top3"] == 1
    assert report["top3_interval"] == pytest.approx(wilson_interval(12, 12))
    assert report["top3_interval"][0] == pytest.approx(0.7575, abs=1e-4)
    text = "\n".join(as_lines(report))
    assert "100.0%  (95 % interval 75.8% to 100.0%)" in text
    assert not re.search(r"(100\.0%|1\.000) to (100\.0%|1\.000)", text)


def test_every_share_in_the_report_has_wilsons_interval(make_store: MakeStore) -> None:
    store = Store(make_store({**FOUR, "e": 60}, noise=4.0))
    report = evaluate(store, train(store, C=0.001))
    n, unknown = report["n_test"], report["unknown"]
    kept = round(unknown["kept"] * n)
    shares = [
        (report["accuracy"], report["accuracy_interval"], n),
        (report["top3"], report["top3_interval"], n),
        (unknown["kept"], unknown["kept_interval"], n),
        (unknown["accuracy_of_kept"], unknown["accuracy_of_kept_interval"], kept),
        *(
            (accuracy, interval, round(share * n))
            for (share, accuracy), interval in zip(
                report["coverage"], report["coverage_interval"], strict=True
            )
        ),
    ]
    for share, interval, total in shares:
        assert interval == pytest.approx(wilson_interval(round(share * total), total))
    text = "\n".join(as_lines(report))
    for share, (low, high), _ in shares:
        assert re.search(rf"{share:.1%}.*\(95 % interval {low:.1%} to {high:.1%}\)", text)


@pytest.mark.slow
def test_no_interval_misses_its_own_number(make_store: MakeStore) -> None:
    store = Store(make_store({**FOUR, "e": 60}, noise=4.0))
    model = train(store, C=0.001)
    report, across = evaluate(store, model), cross_validate(store, model, 3, 2)
    model.temperature /= 4  # too sure of itself
    overconfident = evaluate(store, model)
    found = 0
    for numbers in (report, overconfident, across):
        for part in (numbers, numbers.get("calibration", {}), numbers.get("unknown", {})):
            for name in [name for name in part if name.endswith("_interval") and name != "coverage_interval"]:
                stem = name.removesuffix("_interval")
                low, high = part[name]
                assert low <= part.get(stem, part.get(f"{stem}_after")) <= high
                found += 1
    assert found == 2 * 8 + 2
    assert "ece_interval" not in report["calibration"]
    assert report["calibration"]["log_loss_interval"] == report["log_loss_interval"]


@pytest.mark.slow
def test_comparison_and_cross_validation_have_intervals_too(make_store: MakeStore) -> None:
    store = Store(make_store(FOUR, noise=3.0))
    one, two = train(store, C=0.01), train(store, C=1e-6)
    numbers = compare_models(store, one, store, two)
    for name in ("accuracy", "accuracy_other"):
        right = round(numbers[name] * numbers["photos"])
        assert numbers[f"{name}_interval"] == pytest.approx(wilson_interval(right, numbers["photos"]))
    across = cross_validate(store, one, folds=4, repeats=3)
    wanted = wilson_interval(across["accuracy"] * 64, 64)
    assert across["accuracy_interval"] == pytest.approx(wanted), "64 photos, though each is tested 3 times"
    assert f"{wanted[0]:.1%} to {wanted[1]:.1%}" in cross_validation_text(across)


def test_where_nothing_is_kept_nothing_is_said_of_the_kept(make_store: MakeStore) -> None:
    store = Store(make_store(FOUR))
    model = train(store, C=0.01)
    model.unknown = replace(model.unknown, threshold=-1e6)
    report = evaluate(store, model)
    assert report["unknown"]["kept"] == 0
    assert report["unknown"]["accuracy_of_kept"] is None
    assert "keeps 0.0%" in "\n".join(as_lines(report))
    assert "accuracy of the kept" not in "\n".join(as_lines(report))


def test_top_three_of_three_classes_is_no_news(make_store: MakeStore) -> None:
    store = Store(make_store({"a": 16, "b": 16, "c": 16}))
    assert "top 3" not in "\n".join(as_lines(evaluate(store, train(store, C=0.01))))


def parts_said(training: str, evaluation: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """How many photos for training, validation and testing each of the two scripts names."""
    said = re.search(
        r"(\d+) photos for training, (\d+) for validation, (\d+) kept for testing", training
    ).groups()
    photos = next(line for line in evaluation.splitlines() if line.startswith("photos "))
    test, train_, val = re.fullmatch(
        r"photos +(\d+) for testing, none of the (\d+) for training(?:, none of the (\d+) for validation)?",
        photos,
    ).groups()
    return tuple(map(int, said)), (int(train_), int(val or 0), int(test))


@pytest.mark.slow
@pytest.mark.parametrize("val", [0.0, 0.25])
def test_a_manifest_that_names_only_test_photos_loses_none(
    val: float, make_store: MakeStore, tmp_path: Path
) -> None:
    make_store(TWENTY_OF_200, splits=TWENTY_SPLITS)
    training = run_script("train_head.py", "--C", "0.01", "--val", val, cwd=tmp_path)
    assert training.returncode == 0, training.stderr
    evaluation = run_script("evaluate.py", "--no-html", cwd=tmp_path)
    assert evaluation.returncode == 0, evaluation.stderr
    trained, evaluated = parts_said(training.stdout, evaluation.stdout)
    assert trained == evaluated == ((180, 0, 20) if val == 0 else (136, 44, 20))
    report = json.loads((tmp_path / "reports/made.json").read_text())
    assert report["n_train"] + report["n_val"] + report["n_test"] == 200


@pytest.mark.slow
def test_a_manifest_from_photos_to_report_adds_up(drawn_photos: Path, tmp_path: Path) -> None:
    rows = [
        f"{photo},{breed.name},{'test' if (place, number) in ((0, 0), (0, 1), (2, 3)) else ''}"
        for place, breed in enumerate(sorted(drawn_photos.iterdir())[:4])
        for number, photo in enumerate(sorted(breed.iterdir())[:5])
    ]
    (tmp_path / "dogs.csv").write_text("path,label,split\n" + "\n".join(rows) + "\n")
    extraction = run_script(
        "extract_features.py", "dogs.csv", "--weights", "random", "--size", 96, cwd=tmp_path
    )
    assert extraction.returncode == 0, extraction.stderr
    training = run_script("train_head.py", "--val", "0.2", cwd=tmp_path)
    evaluation = run_script("evaluate.py", "--no-html", cwd=tmp_path)
    trained, evaluated = parts_said(training.stdout, evaluation.stdout)
    assert trained == evaluated == (13, 4, 3)


@pytest.mark.slow
@tensorflow
def test_the_dense_heads_parts_add_up_too(make_store: MakeStore) -> None:
    store = Store(make_store({"a": 20, "b": 20}, width=64, spread=1.0))
    model = train(store, head="dense", val=0.2)
    report = evaluate(store, model)
    for numbers in (model.record, report):
        assert (numbers["n_train"], numbers["n_val"], numbers["n_test"]) == (24, 8, 8)


@pytest.mark.slow
def test_evaluation_from_another_folder_finds_the_store(make_store: MakeStore, tmp_path: Path) -> None:
    make_store(FOUR)
    assert run_script("train_head.py", "--C", "0.01", cwd=tmp_path).returncode == 0
    elsewhere = tmp_path / "else" / "where"
    elsewhere.mkdir(parents=True)
    path = tmp_path / "models/made.safetensors"
    model = Model.load(path)
    for recorded in (tmp_path / "features/made.h5", "features/made.h5"):  # as now, and as it used to be
        model.record["store"] = str(recorded)
        model.save(path)
        result = run_script("evaluate.py", "--no-html", "--model", path, cwd=elsewhere)
        assert result.returncode == 0, result.stderr
        assert f"using {tmp_path / 'features/made.h5'}" in result.stderr
        assert (elsewhere / "reports/made.json").is_file()


@pytest.mark.slow
def test_a_store_that_is_gone_is_named_with_what_to_do(make_store: MakeStore, tmp_path: Path) -> None:
    store = make_store(FOUR)
    assert run_script("train_head.py", "--C", "0.01", cwd=tmp_path).returncode == 0
    store.rename(tmp_path / "moved.h5")
    gone = run_script("evaluate.py", "--no-html", cwd=tmp_path)
    assert_refused(gone, "models/made.safetensors", "features/made.h5", "cannot be found", "--store")
    moved = run_script("evaluate.py", "--no-html", "--store", "moved.h5", cwd=tmp_path)
    assert moved.returncode == 0, moved.stderr


def test_the_reports_readme_names_what_is_in_it(make_store: MakeStore) -> None:
    store = Store(make_store(FOUR))
    report = evaluate(store, train(store, C=0.01))
    text = (ROOT / "reports/README.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(\w+)`", text))
    assert set(report) <= named
    for part in ("calibration", "unknown"):
        assert set(report[part]) <= named
    assert np.isfinite(report["log_loss"])

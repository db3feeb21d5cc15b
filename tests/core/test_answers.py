"""Answers as files: read back with the csv module, pandas and json, as their users do."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from breeds.errors import BreedsError
from breeds.outputs import ANSWERS, check_output
from breeds.prediction import Answer
from breeds.report.answers import FORMATS, safe_cell, write_answers

#: Those that are text; Parquet is of `test_tables.py`.
TEXTS = [form for form in FORMATS if form != "parquet"]
CLASSES = ["beagle", "pug", "shih-tzu"]
PUG = Answer("dogs/a.jpg", np.array([0.2, 0.7, 0.1]))
BEAGLE = Answer("dogs/b.jpg", np.array([0.625, 0.125, 0.25]))
BROKEN = Answer("dogs/c.jpg", None, "empty file (0 bytes)")


def written(
    tmp_path: Path, *answers: Answer, form: str = "csv", top_k: int = 1, classes: Any = CLASSES
) -> str:
    out = tmp_path / "out"
    write_answers(iter(answers), list(classes), out, form, top_k)
    return out.read_bytes().decode("utf-8")


def rows(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text, newline="")))


def test_csv_has_one_row_for_each_answer_in_order(tmp_path: Path) -> None:
    assert written(tmp_path, BEAGLE, BROKEN, PUG) == (
        "path,breed,probability,guess,margin,error\n"
        "dogs/b.jpg,beagle,0.625000,beagle,0.375000,\n"
        "dogs/c.jpg,,,,,empty file (0 bytes)\n"
        "dogs/a.jpg,pug,0.700000,pug,0.500000,\n"
    )


@pytest.mark.parametrize(("top_k", "named"), [(1, 1), (2, 2), (3, 3), (99, 3)])
def test_csv_names_the_top_k(tmp_path: Path, top_k: int, named: int) -> None:
    frame = pd.read_csv(io.StringIO(written(tmp_path, PUG, BROKEN, top_k=top_k)))
    more = ["breed_2", "probability_2", "breed_3", "probability_3"][: 2 * (named - 1)]
    assert list(frame.columns) == ["path", "breed", "probability", "guess", "margin", *more, "error"]
    best = ["pug", 0.7, "beagle", 0.2, "shih-tzu", 0.1][: 2 * named]
    assert frame.loc[0].drop(["path", "guess", "margin", "error"]).tolist() == best
    assert frame.loc[1].drop(["path", "error"]).isna().all()
    assert frame["error"].fillna("").tolist() == ["", "empty file (0 bytes)"]


def test_a_carriage_return_never_begins_a_row() -> None:
    assert safe_cell("c\r=2+3.jpg") == r"c\r=2+3.jpg"


STARTS = ["=", "+", "-", "@", "\t", "\n", " =", "\u3000+", "\uff1d", "\uff0b", "\uff0d", "\uff20", "\u200b ="]


@pytest.mark.parametrize("start", STARTS)
def test_a_formula_gets_a_quote_before_it(start: str) -> None:
    assert safe_cell(f"{start}1+1") == f"'{start}1+1"


@pytest.mark.parametrize("start", STARTS)
def test_no_cell_is_a_formula(tmp_path: Path, start: str) -> None:
    evil = f'{start}HYPERLINK("http://x")'
    answers = [Answer(evil, np.array([0.9, 0.1])), Answer("b.jpg", None, evil)]
    header, good, bad = rows(written(tmp_path, *answers, top_k=2, classes=[evil, f"{start}2"]))
    assert header[0] == "path"
    assert good == [f"'{evil}", f"'{evil}", "0.900000", f"'{evil}", "0.800000", f"'{start}2", "0.100000", ""]
    assert bad == ["b.jpg", *[""] * 6, f"'{evil}"]
    for kaggle in rows(written(tmp_path, *answers, form="kaggle", classes=[evil, f"{start}2"])):
        assert not any(cell.startswith(start) for cell in kaggle)


@pytest.mark.parametrize("text", ["pug", "a-b", "2=3", "Hund, groß", "'quoted'", "", " a=1", "１"])
def test_other_cells_are_left_alone(text: str) -> None:
    assert safe_cell(text) == text


@pytest.mark.parametrize("path", ['a,"b".jpg', "two\nlines.jpg", "犬/é.jpg", "a;b\t.jpg"])
def test_odd_names_come_back_whole(tmp_path: Path, path: str) -> None:
    answer = Answer(path, PUG.probabilities)
    assert rows(written(tmp_path, answer))[1][:3] == [path, "pug", "0.700000"]
    assert json.loads(written(tmp_path, answer, form="json"))["path"] == path


@pytest.mark.parametrize("form", TEXTS)
def test_a_name_that_is_not_utf8_does_not_stop_the_run(tmp_path: Path, form: str) -> None:
    text = written(tmp_path, Answer(os.fsdecode(b"caf\xe9.jpg"), PUG.probabilities), PUG, form=form)
    assert "caf\ufffd" in text
    assert len(text.splitlines()) == (2 if form == "json" else 3)


@pytest.mark.parametrize("control", ["\x1b", "\x9b", "\x7f", "\u2028"])
def test_no_control_reaches_whoever_shows_the_file(tmp_path: Path, control: str) -> None:
    answer = Answer(f"a{control}b.jpg", None, f"{control}[2J")
    for form in TEXTS:
        assert control not in written(tmp_path, answer, form=form, classes=[f"a{control}", "b"])
    assert json.loads(written(tmp_path, answer, form="json"))["path"] == f"a{control}b.jpg", (
        "JSON loses nothing"
    )


def refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is not JSON")


def test_json_lines_each_parse(tmp_path: Path) -> None:
    text = written(tmp_path, PUG, BROKEN, form="json", top_k=2)
    good, bad = (json.loads(line, parse_constant=refuse) for line in text.splitlines())
    assert good == {
        "path": "dogs/a.jpg",
        "breed": "pug",
        "probability": 0.7,
        "guess": "pug",
        "margin": 0.5,
        "top": [{"breed": "pug", "probability": 0.7}, {"breed": "beagle", "probability": 0.2}],
        "error": None,
    }
    assert bad == {
        "path": "dogs/c.jpg",
        "breed": None,
        "probability": None,
        "guess": None,
        "margin": None,
        "top": [],
        "error": "empty file (0 bytes)",
    }


@pytest.mark.parametrize("form", TEXTS)
@pytest.mark.parametrize("top_k", [1, 3])
def test_what_was_written_is_known_and_may_be_replaced(tmp_path: Path, form: str, top_k: int) -> None:
    written(tmp_path, PUG, BROKEN, form=form, top_k=top_k)
    check_output(tmp_path / "out", ANSWERS)
    (tmp_path / "mine").write_text("path,breed,price\n")
    with pytest.raises(BreedsError, match="is not answers of Breeds"):
        check_output(tmp_path / "mine", ANSWERS)


def test_json_keeps_text_that_is_a_formula_only_to_spreadsheets(tmp_path: Path) -> None:
    assert json.loads(written(tmp_path, Answer("=a.jpg", PUG.probabilities), form="json"))["path"] == "=a.jpg"


def test_kaggle_has_every_class_for_every_id(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    classes = [f"breed_{i}" for i in range(120)]
    shares = rng.dirichlet(np.full(120, 0.05), size=50)
    answers = [Answer(f"test/{i:032x}.jpg", row) for i, row in enumerate(shares)]
    answers.append(Answer("test/broken.v2.jpg", None, "truncated"))
    frame = pd.read_csv(io.StringIO(written(tmp_path, *answers, form="kaggle", top_k=3, classes=classes)))
    assert list(frame.columns) == ["id", *classes]
    assert frame["id"].tolist() == [f"{i:032x}" for i in range(50)] + ["broken.v2"]
    numbers = frame[classes].to_numpy()
    np.testing.assert_allclose(numbers.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(numbers[:50], shares, atol=1e-8)
    np.testing.assert_allclose(numbers[50], 1 / 120, atol=1e-8)


def test_the_first_of_equal_classes_is_named(tmp_path: Path) -> None:
    tied = Answer("a.jpg", np.array([0.2, 0.4, 0.4]))
    row = dict(zip(*rows(written(tmp_path, tied, top_k=3)), strict=True))
    assert [row["breed"], row["breed_2"], row["breed_3"]] == ["pug", "shih-tzu", "beagle"]


def test_a_photo_of_no_known_breed_says_so_and_keeps_the_guess(tmp_path: Path) -> None:
    cat = Answer("cat.jpg", PUG.probabilities, unknown=True)
    assert rows(written(tmp_path, cat))[1] == ["cat.jpg", "unknown", "0.700000", "pug", "0.500000", ""]
    line = json.loads(written(tmp_path, cat, form="json"))
    assert (line["breed"], line["guess"], line["probability"]) == ("unknown", "pug", 0.7)
    assert rows(written(tmp_path, cat, form="kaggle"))[1][1:] == ["0.20000000", "0.70000000", "0.10000000"]


@pytest.mark.parametrize(("form", "lines"), [("csv", 4), ("json", 3), ("kaggle", 4)])
def test_without_a_file_answers_go_to_stdout(
    capsys: pytest.CaptureFixture[str], form: str, lines: int
) -> None:
    total, failed = write_answers(iter([PUG, BROKEN, BEAGLE]), CLASSES, None, form, 1)
    assert (total, failed) == (3, [BROKEN])
    assert len(capsys.readouterr().out.splitlines()) == lines


@pytest.mark.parametrize(("form", "lines"), [("csv", 1), ("json", 0), ("kaggle", 1)])
def test_no_photos_make_a_file_without_rows(tmp_path: Path, form: str, lines: int) -> None:
    assert len(written(tmp_path, form=form).splitlines()) == lines


@pytest.mark.parametrize("old", [None, "path,breed\nold.jpg,pug\n"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, BreedsError, MemoryError])
def test_a_failure_midway_leaves_the_file_as_it_was(tmp_path: Path, old: str | None, error: Any) -> None:
    out = tmp_path / "new" / "out.csv"
    if old:
        out.parent.mkdir()
        out.write_text(old)

    def answers() -> Iterator[Answer]:
        yield PUG
        raise error("midway")

    with pytest.raises(error, match="midway"):
        write_answers(answers(), CLASSES, out, "csv", 1)
    assert [path.name for path in out.parent.iterdir()] == (["out.csv"] if old else [])
    assert old is None or out.read_text() == old


def test_the_file_appears_only_when_it_is_whole(tmp_path: Path) -> None:
    out = tmp_path / "out.csv"

    def answers() -> Iterator[Answer]:
        for answer in (PUG, BEAGLE):
            yield answer
            assert not out.exists()

    assert write_answers(answers(), CLASSES, out, "csv", 1) == (2, [])
    assert len(out.read_text().splitlines()) == 3


def test_an_output_that_cannot_be_written_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BreedsError, match=r"Cannot write .*file/out\.csv"):
        write_answers(iter([PUG]), CLASSES, tmp_path / "file" / "out.csv", "csv", 1)

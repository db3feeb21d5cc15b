"""Corrections: kept word for word, taken back byte for byte, and never a way to a better number."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import stat
import subprocess
import sys
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import brought
import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import sklearn.metrics
from conftest import ROOT, MakeStore, assert_refused, extract_photos, run_script
from killed import COUNTED

from breeds.errors import BreedsError
from breeds.evaluation import answer_test_photos, evaluate
from breeds.features import Store, write_store
from breeds.features.corrections import (
    MOST_BYTES,
    Correction,
    Corrections,
    add,
    corrections_path,
    undo,
)
from breeds.heads.crossval import compare_heads, compare_models, cross_validate
from breeds.heads.explain import Neighbours
from breeds.heads.label_issues import find_doubts, find_near_duplicates
from breeds.heads.model import Model
from breeds.metrics import wilson_interval
from breeds.report.terminal import as_lines, cross_validation_text
from breeds.split import fold_of
from breeds.text import is_formula, unfit
from breeds.training import labelled, train

ONE, TWO, LAST = ("1" * 64, "2" * 64, "3" * 64)
HEADER = "key,label,was,when,note\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return corrections_path(tmp_path / "dogs.h5")


def test_the_last_word_on_a_photo_counts(file: Path) -> None:
    assert file.name == "dogs.corrections.csv"
    assert Corrections.load(file).labels == {}
    add(file, [Correction(ONE, "beagle", "pug", note="long ears"), Correction(TWO, "")])
    add(file, [Correction(ONE, "boxer", "pug")])
    found = Corrections.load(file)
    assert found.labels == {ONE: "boxer", TWO: ""}
    assert found.last[ONE].was == "pug"
    assert found.last[ONE].when
    assert len(file.read_text().splitlines()) == 4, "nothing that was said is rewritten"


@pytest.mark.slow
@hypothesis.given(st.text(min_size=1), st.text())
@hypothesis.example("=1+1", "'=1+1")
@hypothesis.example("'=1+1", "''@x")
@hypothesis.example('a "b", c', "\udce9\n\0")
@hypothesis.example("caf\N{LATIN SMALL LETTER E WITH ACUTE} \N{DOG FACE}", "-")
def test_a_label_comes_back_as_it_went(
    tmp_path_factory: pytest.TempPathFactory, label: str, was: str
) -> None:
    file = tmp_path_factory.mktemp("words") / "dogs.corrections.csv"
    if unfit(label):
        with pytest.raises(BreedsError, match="cannot be labelled"):
            add(file, [Correction(ONE, label, was)])
        assert not file.exists()
        return
    for _ in range(2):  # and as it came
        add(file, [Correction(ONE, label, was, note=was)])
        found = Corrections.load(file).last[ONE]
        assert found.label == label
        label, was = found.label, found.was
    with file.open(encoding="utf-8", newline="") as text:
        assert not any(is_formula(cell) for row in csv.reader(text) for cell in row)


@pytest.mark.parametrize(
    "label", ["Unknown", " beagle", "beagle\t", "a\nb", "a\x1b[2J", "\u202eabc", "\udce9"]
)
def test_what_cannot_be_a_label_is_refused(file: Path, label: str) -> None:
    with pytest.raises(BreedsError, match="cannot be labelled"):
        add(file, [Correction(TWO, "pug"), Correction(ONE, label)])
    with pytest.raises(BreedsError, match="no key"):
        add(file, [Correction("../../etc/passwd", "pug")])
    with pytest.raises(BreedsError, match="larger"):
        add(file, [Correction(ONE, "x" * 200_000)])
    assert list(file.parent.iterdir()) == []


HANDMADE = {
    "as we write it": HEADER.encode() + f"{ONE},beagle,pug,2026-01-02,\n".encode(),
    "no line break at the end": HEADER.encode() + f"{ONE},beagle,pug,,seen by Ann".encode(),
    "from Excel": b"\xef\xbb\xbf"
    + f'key,label,was,when,note,\r\n{ONE},beagle ,pug,,"two\r\nlines",\r\n,,,,,\r\n'.encode(),
    "other columns": f'label,note,key,who\n\n beagle ,"a, b",{ONE.upper()},Ann\n\n\n'.encode(),
    "two columns": f"key,label\n{ONE},beagle".encode(),
}


@pytest.mark.parametrize("data", HANDMADE.values(), ids=HANDMADE)
def test_a_handmade_file_is_kept_and_comes_back_byte_for_byte(file: Path, data: bytes) -> None:
    file.write_bytes(data)
    assert Corrections.load(file).labels == {ONE: "beagle"}
    first = add(file, [Correction(TWO, "-boxer, young", "pug")])
    between = file.read_bytes()
    second = add(file, [Correction(ONE, ""), Correction(LAST, "pug")])
    assert file.read_bytes().startswith(data)
    assert Corrections.load(file).labels == {ONE: "", TWO: "-boxer, young", LAST: "pug"}
    new = file.read_bytes()[len(data) :]
    assert new.count(b"\r\n") == (3 if b"\r\n" in data else 0), "lines end as they did"
    undo(file, second)
    assert file.read_bytes() == between
    undo(file, first)
    assert file.read_bytes() == data


@pytest.mark.parametrize("data", [None, b"", b"\n\n", b"\xef\xbb\xbf", b",,\r\n"])
def test_where_there_was_nothing_there_is_nothing_again(file: Path, data: bytes | None) -> None:
    if data is not None:
        file.write_bytes(data)
    done = add(file, [Correction(ONE, "beagle")])
    assert Corrections.load(file).labels == {ONE: "beagle"}
    undo(file, done)
    assert (file.read_bytes() if file.exists() else None) == data
    assert len(list(file.parent.iterdir())) == (data is not None), "no lock, no temporary file"


def test_what_somebody_else_has_changed_is_not_undone(file: Path) -> None:
    done = add(file, [Correction(ONE, "beagle")])
    add(file, [Correction(TWO, "pug")])
    now = file.read_bytes()
    with pytest.raises(BreedsError, match="has been changed since"):
        undo(file, done)
    assert file.read_bytes() == now
    file.unlink()
    with pytest.raises(BreedsError, match="has been changed since"):
        undo(file, done)
    assert not file.exists()


ROW = f"{ONE},beagle,pug,,\n"
HOSTILE = {
    "columns": ("when,where\n1,2\n", "line 1", "key,label"),
    "semicolons": (f"key;label\n{ONE};pug\n", "line 1", "commas between"),
    "columns twice": ("key,label,label\n", "line 1", "more than one column 'label'"),
    "no header": (ROW, "line 1", "key,label,was,when,note"),
    "no key": (HEADER + ROW + "../x,pug,,,\n", "line 3", "no key"),
    "a short key": (HEADER + "12ab,pug,,,\n", "line 2", "no key"),
    "no label": (f"key,was,label\n{ONE}\n", "line 2", "no label"),
    "unquoted comma": (HEADER + f"{ONE},pug,,,a, b\n", "line 2", "more cells than columns"),
    "open quote": (HEADER + f'{ONE},"pug,,,\n{TWO},pug,,,\n', "line 3", "double quotes"),
    "unknown": (HEADER + f"{ONE},UNKNOWN,,,\n", "line 2", "answered so"),
    "escape codes": (HEADER + f"{ONE},a\x1b[2Jb,,,\n", "line 2", "cannot be seen"),
    "a line break": (HEADER + f'{ONE},"a\nb",,,\n', "line 3", "cannot be seen"),
    "NUL": (HEADER + ROW + f"{TWO},p\0g,,,\n", "line 3", "UTF-8"),
    "Latin-1": ((HEADER + f"{TWO},caf\xe9,,,\n").encode("latin-1"), "line 2", "UTF-8"),
    "UTF-16": ((HEADER + ROW).encode("utf-16"), "line 1", "UTF-8"),
    "a huge cell": (HEADER + f"{ONE},{'x' * 200_000},,,\n", "line 2", "larger"),
}


@pytest.mark.parametrize(("data", "line", "word"), HOSTILE.values(), ids=HOSTILE)
def test_a_file_that_is_none_is_refused_by_line_and_left_alone(
    file: Path, data: str | bytes, line: str, word: str
) -> None:
    data = data if isinstance(data, bytes) else data.encode()
    file.write_bytes(data)
    for act in (lambda: Corrections.load(file), lambda: add(file, [Correction(ONE, "pug")])):
        with pytest.raises(BreedsError) as caught:
            act()
        assert f"{file}, {line}: " in str(caught.value)
        assert word in str(caught.value)
        assert "\x1b" not in str(caught.value)
        assert "\n" not in str(caught.value)
    assert file.read_bytes() == data


def test_what_is_no_file_is_not_waited_for(file: Path) -> None:
    os.mkfifo(file)
    with pytest.raises(BreedsError, match="not a regular file"):
        Corrections.load(file)
    with pytest.raises(BreedsError, match="not a regular file"):
        add(file, [Correction(ONE, "pug")])
    assert stat.S_ISFIFO(file.stat().st_mode)
    file.unlink()
    with file.open("wb") as large:
        large.truncate(MOST_BYTES + 1)
    with pytest.raises(BreedsError, match="over the limit"):
        Corrections.load(file)


def test_a_link_stays_a_link(file: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    file.symlink_to(tmp_path / "elsewhere" / "dogs.csv")
    done = add(file, [Correction(ONE, "beagle")])
    assert Corrections.load(file).labels == {ONE: "beagle"}
    undo(file, done)
    assert file.is_symlink()
    assert not list((tmp_path / "elsewhere").iterdir())


def _write_many(path: Path, writer: int, count: int) -> None:
    for number in range(count):
        add(path, [Correction(f"{writer:02x}{number:062x}", "beagle")])


def test_of_two_writers_none_loses_a_word(file: Path) -> None:
    processes = [get_context("fork").Process(target=_write_many, args=(file, w, 20)) for w in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert len(Corrections.load(file)) == 60


# Adds to the file and takes it back, and is killed before the step of writing of that number.
DIE = (
    """
import os, signal, sys
from pathlib import Path
from breeds.features.corrections import Correction, add, undo

path, left = Path(sys.argv[1]), 0
"""
    + COUNTED
    + """for name in ("open", "fsync", "replace", "unlink", "pwrite", "close"):
    setattr(os, name, counted(getattr(os, name)))
for die_at in range(1, 200):
    child = os.fork()
    if child == 0:
        left = die_at
        done = add(path, [Correction("2" * 64, "pug")])
        undo(path, done)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    print(code, path.read_bytes().hex() if path.exists() else "gone", flush=True)
    if code == 0:
        break
    path.write_bytes(bytes.fromhex(sys.argv[2])) if sys.argv[2] else path.unlink(missing_ok=True)
"""
)


@pytest.mark.slow
@pytest.mark.parametrize("before", [b"", HANDMADE["no line break at the end"]], ids=["none", "handmade"])
def test_killed_before_every_step_it_is_the_old_file_or_the_new(file: Path, before: bytes) -> None:
    if before:
        file.write_bytes(before)
    done = subprocess.run(
        [sys.executable, "-c", DIE, str(file), before.hex()],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    ends = [line.split() for line in done.stdout.splitlines()]
    assert len(ends) > 20
    assert {int(code) for code, _ in ends[:-1]} == {-signal.SIGKILL}
    old = before.hex() or "gone"
    assert ends[-1] == ["0", old], "not killed, it adds and takes back, whatever those before have left"
    found = {state for _, state in ends}
    for state in found - {old}:
        file.write_bytes(bytes.fromhex(state))
        assert bytes.fromhex(state).startswith(before)
        assert Corrections.load(file).labels == ({ONE: "beagle"} if before else {}) | {TWO: "pug"}
    assert found - {old}, "it is the new one in some"


# --- training and evaluation -------------------------------------------------------------------


THREE = {"beagle": 30, "pug": 30, "shih-tzu": 30}
Words = dict[int, str]


@pytest.fixture
def noisy(make_store: MakeStore) -> Store:
    """A store of three classes that a head takes for each other now and then."""
    return Store(make_store(THREE, width=64, noise=2.0, spread=0.5))


def corrected(store: Store, words: Words) -> Store:
    """The store with another label for these rows."""
    table = store.table
    rows = [Correction(table.key[row], label, table.label[row]) for row, label in words.items()]
    return store.with_corrections(Corrections.of(rows))


def like(store: Store, name: str, **columns: list[str]) -> Store:
    """A store of the same photos with other columns."""
    path = store.path.with_name(name)
    write_store(path, replace(store.table, **columns), store.config, store.features(), "made up")
    return Store(path)


def rows_of(store: Store, part: str) -> list[int]:
    found = labelled(store, 0, 0.0)
    return [int(row) for row, other in zip(found.rows, found.part, strict=True) if other == part]


def other_words(store: Store, rows: list[int]) -> Words:
    """Another label for these rows, and every fourth left out."""
    names = list(THREE)
    return {
        row: "" if number % 4 == 3 else names[(names.index(store.table.label[row]) + 1) % 3]
        for number, row in enumerate(rows)
    }


@hypothesis.settings(max_examples=30, suppress_health_check=list(hypothesis.HealthCheck))
@hypothesis.given(
    st.dictionaries(st.integers(0, 89), st.sampled_from(["", *THREE])), st.sampled_from([0, 0.2])
)
def test_no_correction_moves_a_photo_from_one_part_to_another(noisy: Store, words: Words, val: float) -> None:
    before, after = labelled(noisy, 3, val), labelled(corrected(noisy, words), 3, val)
    assert dict(zip(before.keys, before.part, strict=True)) == dict(zip(after.keys, after.part, strict=True))
    assert after.labels == [words.get(row, noisy.table.label[row]) for row in after.rows]


@pytest.mark.parametrize("C", [None, 0.01])
def test_training_on_corrections_is_training_on_photos_that_came_so(noisy: Store, C: float | None) -> None:
    words = other_words(noisy, rows_of(noisy, "train")[::5] + rows_of(noisy, "test")[::5])
    store = corrected(noisy, words)
    found = labelled(store, 0, 0.0)
    part = dict(zip(found.rows.tolist(), found.part, strict=True))
    same = like(noisy, "same.h5", label=list(store.corrected.label), split=[part[row] for row in range(90)])
    one, other = train(store, C=C, balanced=True), train(same, C=C, balanced=True)
    arrays = [[*model.layers[0], model.mean, model.scale] for model in (one, other)]
    for ours, theirs in zip(*arrays, strict=True):
        assert np.array_equal(ours, theirs)
    assert (one.temperature, one.record["n_train"]) == (other.temperature, other.record["n_train"])
    assert one.unknown.threshold == other.unknown.threshold
    assert one.record["train_log_loss"] == other.record["train_log_loss"]


def test_evaluation_gives_both_numbers_and_the_first_is_of_labels_as_they_came(noisy: Store) -> None:
    tested = rows_of(noisy, "test")
    words = other_words(noisy, tested[:7])
    store = corrected(noisy, words)
    model = train(store, C=0.01)
    found, plain = evaluate(store, model), evaluate(noisy, model)
    assert plain["corrected"] is None
    assert {k: v for k, v in found.items() if not k.startswith("correct")} == {
        k: v for k, v in plain.items() if not k.startswith("correct")
    }
    probabilities = model.probabilities(store.features(np.array(tested)))
    for numbers, label in ((found, noisy.table.label), (found["corrected"], store.corrected.label)):
        kept = [i for i, row in enumerate(tested) if label[row]]
        truth, answers = [label[tested[i]] for i in kept], probabilities[kept]
        said = [model.classes[i] for i in answers.argmax(axis=1)]
        right = sklearn.metrics.accuracy_score(truth, said)
        assert numbers["n_test"] == len(kept)
        assert numbers["accuracy"] == pytest.approx(right)
        interval = wilson_interval(round(right * len(kept)), len(kept))
        assert numbers["accuracy_interval"] == pytest.approx(interval)
        loss = sklearn.metrics.log_loss(truth, answers, labels=model.classes)
        assert numbers["log_loss"] == pytest.approx(loss)
        low, high = numbers["log_loss_interval"]
        assert low < loss < high
    assert (found["corrected"]["relabelled"], found["corrected"]["left_out"]) == (6, 1)
    assert found["corrected"]["accuracy"] != found["accuracy"]
    assert found["corrections"]["applied"] == 7
    text = "\n".join(as_lines(found))
    assert text.index("as they came") < text.index("corrected  accuracy") < text.index("may flatter")


def test_corrections_of_training_photos_alone_leave_one_number(noisy: Store) -> None:
    store = corrected(noisy, other_words(noisy, rows_of(noisy, "train")[:4]))
    found = evaluate(store, train(store, C=0.01))
    assert found["corrected"] is None
    assert found["corrections"]["applied"] == 4
    assert "as they came" not in "\n".join(as_lines(found))


def test_a_photo_left_out_of_training_is_never_tested_on(noisy: Store) -> None:
    row = rows_of(noisy, "train")[0]
    model = train(corrected(noisy, {row: ""}), C=0.01)
    assert noisy.table.key[row] in model.seen_keys()
    assert model.record["n_train"] == train(noisy, C=0.01).record["n_train"] - 1
    for store in (noisy, corrected(noisy, {row: "pug"})):
        assert row not in answer_test_photos(store, model).rows


@pytest.mark.slow
def test_a_photo_that_came_without_a_label_is_trained_on_and_never_tested(noisy: Store) -> None:
    labels = ["" if row % 10 == 0 else label for row, label in enumerate(noisy.table.label)]
    store = like(noisy, "some.h5", label=labels)
    words = {row: noisy.table.label[row] for row in range(0, 90, 10)}
    before, after = labelled(store, 0, 0.2), labelled(corrected(store, words), 0, 0.2)
    old, new = (dict(zip(found.keys, found.part, strict=True)) for found in (before, after))
    assert old.items() <= new.items()
    assert {new[key] for key in new.keys() - old.keys()} == {"train"}
    assert (before.unlabelled, after.unlabelled) == (9, 0)
    model = train(corrected(store, words), C=0.01)
    assert {store.table.key[row] for row in words} <= model.seen_keys()
    for labels_of in (store, corrected(store, words)):
        assert not set(words) & set(answer_test_photos(labels_of, model).rows.tolist())
    across = cross_validate(corrected(store, words), model, 3, 1)
    assert (across["photos"], across["corrected"]) == (81, None)
    named = like(noisy, "named.h5", label=labels, split=["test" if row < 20 else "" for row in range(90)])
    parts = labelled(corrected(named, words), 0, 0.0)
    assert not {0, 10} & set(parts.rows.tolist()), "what the data names for testing is not trained on"


def test_a_folder_without_labels_is_labelled_by_corrections_alone(noisy: Store) -> None:
    store = like(noisy, "none.h5", label=[""] * 90)
    with pytest.raises(BreedsError, match="have no labels"):
        train(store)
    model = train(corrected(store, dict(enumerate(noisy.table.label))), C=0.01)
    assert (model.record["n_train"], model.record["n_test"]) == (90, 0)
    with pytest.raises(BreedsError, match="no labelled photo that this model has not seen"):
        evaluate(corrected(store, dict(enumerate(noisy.table.label))), model)


def test_a_class_that_only_corrections_name_is_a_class(noisy: Store) -> None:
    inside, outside = rows_of(noisy, "train"), rows_of(noisy, "test")
    store = corrected(noisy, dict.fromkeys([*inside[:5], outside[0]], "boxer"))
    model = train(store, C=0.01)
    assert model.classes == ["beagle", "boxer", "pug", "shih-tzu"]
    assert model.record["few"]["boxer"] == 5
    assert evaluate(store, model)["corrected"]["n_test"] == len(outside)
    with pytest.raises(BreedsError, match="at least 2 different photos to be split; too few of boxer"):
        train(corrected(noisy, {inside[0]: "boxer"}))
    with pytest.raises(BreedsError, match="leaves boxer without a training photo"):
        train(corrected(noisy, dict.fromkeys(outside[:2], "boxer")))
    with pytest.raises(BreedsError, match=r"photos of boxer, which the model does not know.*--no-corr"):
        evaluate(store, train(noisy, C=0.01))


def test_a_class_that_is_merged_into_another_counts_as_corrected(noisy: Store) -> None:
    store = corrected(noisy, {row: "pug" for row, label in enumerate(noisy.table.label) if label == "beagle"})
    model = train(store, C=0.01)
    assert model.classes == ["pug", "shih-tzu"]
    found = evaluate(store, model)
    gone = sum(noisy.table.label[row] == "beagle" for row in rows_of(noisy, "test"))
    assert found["corrected"]["n_gone"] == gone
    assert found["corrected"]["n_test"] == found["n_test"] + gone == len(rows_of(noisy, "test"))
    assert f"{gone} came with a label that is no class now" in "\n".join(as_lines(found))
    assert cross_validate(store, model, 3, 1)["corrected"]["photos"] == 90
    every = corrected(noisy, {row: f"{label}s" for row, label in enumerate(noisy.table.label)})
    with pytest.raises(BreedsError, match="knows them only as corrected"):
        evaluate(every, train(every, C=0.01))


@pytest.mark.slow
def test_all_that_judges_a_head_gives_both_numbers(noisy: Store) -> None:
    words = {row: label for row, label in other_words(noisy, list(range(0, 90, 7))).items() if label}
    store = corrected(noisy, words)
    same = like(noisy, "same.h5", label=list(store.corrected.label))
    model = train(store, C=0.01)
    across, of_same = cross_validate(store, model, 3, 2), cross_validate(same, model, 3, 2)
    assert across["corrected"] == {name: of_same[name] for name in across["corrected"]}
    assert across["accuracy"] < across["corrected"]["accuracy"] or across["accuracy"] != of_same["accuracy"]
    assert "as corrected, which may flatter" in cross_validation_text(across)
    rough = train(noisy, C=1e-6)
    between, there = compare_models(store, model, store, rough), compare_models(same, model, same, rough)
    assert between["corrected"] | {"corrected": None} == there
    assert between["accuracy"] == compare_models(noisy, model, noisy, rough)["accuracy"]
    assert find_doubts(store) == find_doubts(same)
    assert find_near_duplicates(store) == find_near_duplicates(same)


@pytest.mark.slow
def test_what_is_left_out_counts_as_it_came_and_is_trained_on_nowhere(noisy: Store) -> None:
    words = dict.fromkeys(range(0, 90, 9), "")
    store, model = corrected(noisy, words), train(noisy, C=0.01)
    across = cross_validate(store, model, 3, 1)
    assert (across["photos"], across["corrected"]["photos"]) == (90, 80)
    paths = {noisy.table.path[row] for row in words}
    assert not paths & {doubt.path for doubt in find_doubts(store)}
    near = Neighbours(store, set(store.table.key)).nearest(store.features(np.array([0])), 90)[0]
    assert len(near) == 80
    assert not paths & {one.path for one in near}


def test_few_photos_among_many_left_out_are_still_in_every_fold(noisy: Store) -> None:
    beagles = [row for row, label in enumerate(noisy.table.label) if label == "beagle"]
    order = np.argsort(fold_of([noisy.table.key[row] for row in beagles], ["beagle"] * 30, 30, 0))
    kept = {beagles[order[place]] for place in (0, 3, 6)}  # in one fold of three, if left-out photos counted
    words = {row: "" for row in beagles if row not in kept}
    across = cross_validate(corrected(noisy, words), train(noisy, C=0.01), 3, 1)
    assert (across["folds"], across["photos"], across["corrected"]["photos"]) == (3, 90, 63)


def test_the_first_stores_corrections_count(noisy: Store) -> None:
    other = like(noisy, "other.h5")
    key = noisy.table.key[0]
    add(corrections_path(noisy.path), [Correction(key, "pug", "beagle")])
    add(corrections_path(other.path), [Correction(key, "shih-tzu", "beagle")])
    both = Store(noisy.path, other.path)
    assert (both.table.label[0], both.corrected.label[0]) == ("beagle", "pug")
    assert train(both, C=0.01).record["corrections"]["applied"] == 1
    single = Store(noisy.path)
    assert train(single, C=0.01, views=[other]).record["corrections"]["applied"] == 1
    assert Store(noisy.path, other.path, corrected=False).corrected.label[0] == "beagle"


@pytest.mark.slow
def test_the_scripts_apply_them_and_say_so(noisy: Store, tmp_path: Path) -> None:
    tested, trained = rows_of(noisy, "test"), rows_of(noisy, "train")
    table, file = noisy.table, corrections_path(noisy.path)
    rows = [
        *(Correction(table.key[row], "pug", "beagle") for row in tested[:3]),
        Correction(table.key[trained[0]], "", table.label[trained[0]]),
        Correction(table.key[trained[1]], "pug", "what it was"),
        *(Correction(f"{number:064x}", "pug") for number in range(2)),
    ]
    add(file, rows)
    before = file.read_bytes()
    said = [
        "5 corrections applied, 1 photo left out",
        "2 corrections of photos that are not in the store",
        "1 correction made when the label was another",
    ]
    training = run_script("train_head.py", "--C", "0.01", cwd=tmp_path)
    evaluation = run_script("evaluate.py", cwd=tmp_path)
    info = run_script("-m breeds store", "info", noisy.path, cwd=tmp_path)
    for done in (training, evaluation, info):
        assert done.returncode == 0, done.stderr
        assert [line for line in done.stdout.splitlines() if "correction" in line][:3] == said
    for text in ("corrections have relabelled 3 of the tested photos", "corrected  accuracy", "may flatter"):
        assert text in evaluation.stdout
    report = json.loads((tmp_path / "reports/made.json").read_text())
    assert report["corrected"]["relabelled"] == 3
    assert report["corrections"] == Model.load(tmp_path / "models/made.safetensors").record["corrections"]
    assert re.fullmatch("[0-9a-f]{64}", report["corrections"]["sha256"])
    page = (tmp_path / "reports/made.html").read_text(encoding="utf-8")
    assert page.index(">Accuracy<") < page.index(">Accuracy as corrected<") < page.index("may flatter")
    assert "Corrections have relabelled 3 of the tested photos" in page
    assert "with labels as they came" in page
    assert "Its label was corrected to pug." in page
    training = run_script("train_head.py", "--C", "0.01", "--no-corrections", cwd=tmp_path)
    evaluation = run_script("evaluate.py", "--no-html", "--no-corrections", cwd=tmp_path)
    for done in (training, evaluation):
        assert done.returncode == 0, done.stderr
        assert "correct" not in done.stdout
    assert Model.load(tmp_path / "models/made.safetensors").record["corrections"]["applied"] == 0
    assert file.read_bytes() == before
    file.write_text("path,label\n")
    for script in ("train_head.py", "evaluate.py"):
        assert_refused(run_script(script, cwd=tmp_path), "made.corrections.csv, line 1", "key,label,was")


@pytest.mark.slow
def test_heads_are_compared_by_both(noisy: Store, capsys: pytest.CaptureFixture[str]) -> None:
    import train_head

    words = {row: label for row, label in other_words(noisy, list(range(0, 90, 7))).items() if label}
    store = corrected(noisy, words)
    same = like(noisy, "same.h5", label=list(store.corrected.label))
    for row, of_same in zip(*(compare_heads(one, heads=["logistic"]) for one in (store, same)), strict=True):
        assert row["corrected"] == {name: of_same[name] for name in row["corrected"]}
        assert (row["accuracy"] != of_same["accuracy"]) and of_same["corrected"] is None
    train_head.compare(store, 0, ["logistic"])
    said = capsys.readouterr().out
    assert said.count("nearest class mean") == 2
    assert said.index("10 corrections applied") < said.index("which may flatter")


def test_a_record_that_lies_about_its_corrections_is_refused(noisy: Store, tmp_path: Path) -> None:
    model = train(noisy, C=0.01)
    for bad in (["x"], {"applied": -1}, {"applied": "many"}, {"sha256": 7}):
        model.record["corrections"] = bad
        model.save(tmp_path / "model.safetensors")
        with pytest.raises(BreedsError, match="record"):
            Model.load(tmp_path / "model.safetensors")


@pytest.mark.slow
def test_extraction_keeps_them_and_a_label_that_changes_is_said(photos: Path, tmp_path: Path) -> None:
    store = tmp_path / "features" / "dogs.h5"
    how = {"weights": "imagenet", "backbone": str(brought.described(tmp_path / "small.onnx"))}
    extract_photos(photos, store, **how)
    table = Store(store).table
    second = sorted(path.name for path in photos.iterdir())[1]
    add(corrections_path(store), [Correction(table.key[0], second, table.label[0])])
    before = corrections_path(store).read_bytes()
    moved = photos / table.path[0]
    moved.rename(photos / second / f"moved-{moved.name}")
    extract_photos(photos, store, **how)
    assert corrections_path(store).read_bytes() == before
    again = Store(store)
    assert again.corrections.effect(again.table).stale == 1
    assert again.corrections.effect(again.table).applied == 1
    assert again.corrected.label == again.table.label

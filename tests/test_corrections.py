"""Corrections: kept word for word, taken back byte for byte, and never a way to a better number."""

from __future__ import annotations

import csv
import os
import signal
import stat
import subprocess
import sys
from multiprocessing import get_context
from pathlib import Path

import hypothesis
import hypothesis.strategies as st
import pytest
from conftest import ROOT

from breeds.errors import BreedsError
from breeds.labels import unfit
from breeds.store.corrections import (
    MOST_BYTES,
    Correction,
    Corrections,
    add,
    corrections_path,
    undo,
)
from breeds.text import is_formula

ONE, TWO, THREE = ("1" * 64, "2" * 64, "3" * 64)
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
    second = add(file, [Correction(ONE, ""), Correction(THREE, "pug")])
    assert file.read_bytes().startswith(data)
    assert Corrections.load(file).labels == {ONE: "", TWO: "-boxer, young", THREE: "pug"}
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
DIE = """
import os, signal, sys
from pathlib import Path
from breeds.store.corrections import Correction, add, undo

path, left = Path(sys.argv[1]), 0
def counted(step):
    def call(*arguments, **options):
        global left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return step(*arguments, **options)
    return call
for name in ("open", "fsync", "replace", "unlink", "pwrite", "close"):
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

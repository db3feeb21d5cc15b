"""Files whole or not at all, and one writer at a time, also when processes are killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from breeds.errors import BreedsError
from breeds.files import check_writable, hold, write_aside

HOLD = """
import sys
from pathlib import Path
from breeds.files import hold
with hold(Path(sys.argv[1]), "the store"):
    print("held", flush=True)
    sys.stdin.read()
"""
WRITE_HALF_AND_DIE = """
import os, signal, sys
from pathlib import Path
from breeds.files import write_aside
with write_aside(Path(sys.argv[1])) as aside:
    aside.write_bytes(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
"""
WRITE_HALF_AND_WAIT = """
import sys
from pathlib import Path
from breeds.files import write_aside
with write_aside(Path(sys.argv[1])) as aside:
    aside.write_bytes(b"half")
    print(aside, flush=True)
    sys.stdin.read()
    aside.write_bytes(b"half and whole")
"""


def start(code: str, path: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, str(path)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def start_holding(path: Path) -> subprocess.Popen[str]:
    process = start(HOLD, path)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def assert_held(lock: Path, pid: int) -> None:
    with pytest.raises(BreedsError, match=f"the store is being written by process {pid} on "):
        hold(lock, "the store").__enter__()


# write_aside


@pytest.mark.parametrize("old", [None, b"old"])
def test_a_written_file_is_whole_and_alone(tmp_path: Path, old: bytes | None) -> None:
    path = tmp_path / "new" / "folders" / "file.bin"
    if old is not None:
        path.parent.mkdir(parents=True)
        path.write_bytes(old)
    with write_aside(path) as aside:
        assert aside.parent == path.parent  # a rename is atomic only within one file system
        aside.write_bytes(b"new")
        assert (path.read_bytes() if path.exists() else None) == old
    assert path.read_bytes() == b"new"
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize("old", [None, b"old"])
@pytest.mark.parametrize(
    ("raised", "seen"),
    [
        (ValueError("no"), ValueError),
        (KeyboardInterrupt(), KeyboardInterrupt),
        (BreedsError("no"), BreedsError),
        (OSError(28, "No space left on device"), BreedsError),
    ],
)
def test_an_exception_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, old: bytes | None, raised: BaseException, seen: type[BaseException]
) -> None:
    path = tmp_path / "file.bin"
    if old is not None:
        path.write_bytes(old)
    with pytest.raises(seen), write_aside(path) as aside:
        aside.write_bytes(b"half")
        raise raised
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == ({"file.bin": old} if old else {})


def test_the_file_is_on_the_disk_before_its_name_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[str] = []
    fsync, replace = os.fsync, os.replace

    def record_fsync(handle: int) -> None:
        steps.append(f"fsync {os.readlink(f'/proc/self/fd/{handle}')}")
        fsync(handle)

    def record_replace(source: Path, target: Path) -> None:
        steps.append(f"rename {source} {target}")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", record_fsync)
    monkeypatch.setattr(os, "replace", record_replace)
    path = tmp_path.resolve() / "file.bin"
    with write_aside(path) as aside:
        aside.write_bytes(b"new")
    assert steps == [f"fsync {aside}", f"rename {aside} {path}", f"fsync {path.parent}"]


def test_a_killed_writer_leaves_the_old_file_and_the_next_writer_cleans_up(tmp_path: Path) -> None:
    path = tmp_path / "file.bin"
    path.write_bytes(b"old")
    assert start(WRITE_HALF_AND_DIE, path).wait() == -signal.SIGKILL
    assert path.read_bytes() == b"old"
    assert len(os.listdir(tmp_path)) == 2  # the half file is there, under another name
    with write_aside(path) as aside:
        aside.write_bytes(b"new")
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"file.bin": b"new"}


@pytest.mark.parametrize("machine", ["this one", "another"])
@pytest.mark.parametrize("dies", [False, True])
def test_leftovers_go_with_their_writer_and_not_before(tmp_path: Path, dies: bool, machine: str) -> None:
    """Whether the writer lives is asked of its lock: names of machines and processes say nothing.

    In two containers over one folder both can be equal, or each unheard of in the other.
    """
    names = "import os, socket; os.getpid = lambda: 4194304\n"  # a number that no process here has
    if machine == "another":
        names += "socket.gethostname = lambda: 'another machine'\n"
    writer = start(names + WRITE_HALF_AND_WAIT, tmp_path / "a.csv")
    assert writer.stdout is not None
    aside = Path(writer.stdout.readline().strip())
    assert aside.read_bytes() == b"half"
    if dies:
        writer.kill()
        writer.wait()
    with write_aside(tmp_path / "c.csv") as other:
        other.touch()
    assert aside.exists() is not dies
    writer.communicate("")
    assert sorted(os.listdir(tmp_path)) == (["c.csv"] if dies else ["a.csv", "c.csv"])
    assert dies or (tmp_path / "a.csv").read_bytes() == b"half and whole"


def test_two_writers_of_one_name_never_share_a_temporary_file(tmp_path: Path) -> None:
    with write_aside(tmp_path / "a.csv") as one, write_aside(tmp_path / "a.csv") as other:
        one.write_text("one")
        other.write_text("other")
        assert one.read_text() == "one"
    assert os.listdir(tmp_path) == ["a.csv"]


def test_where_nothing_can_be_locked_no_file_is_a_leftover(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on some NFS: nobody can tell whether a writer lives."""
    import fcntl

    def no_locks(*_: object) -> None:
        raise OSError(37, "No locks available")

    assert start(WRITE_HALF_AND_DIE, tmp_path / "a.csv").wait() == -signal.SIGKILL
    (half,) = os.listdir(tmp_path)
    monkeypatch.setattr(fcntl, "flock", no_locks)
    with write_aside(tmp_path / "c.csv") as aside:
        aside.touch()
    assert sorted(os.listdir(tmp_path)) == [half, "c.csv"]


@pytest.mark.parametrize(
    "name", [".notes.tmp", "notes.00000000-4194304.tmp", ".notes.4194304", ".tmp", ".notes.4194304.tmp"]
)
def test_files_of_others_are_not_leftovers(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    with write_aside(tmp_path / "file.bin") as aside:
        aside.touch()
    assert (tmp_path / name).exists()


@pytest.mark.parametrize("place", ["file/below.csv", "file/deeper/below.csv", "/proc/breeds.csv"])
def test_a_place_that_cannot_be_written_is_named(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_bytes(b"old")
    path = tmp_path / place
    with pytest.raises(BreedsError, match=f"Cannot write {path}"):
        check_writable(path)
    with pytest.raises(BreedsError, match=f"Cannot write {path}"), write_aside(path) as aside:
        aside.touch()
    assert (tmp_path / "file").read_bytes() == b"old"


# check_writable


@pytest.mark.parametrize("length", [200, 250, 300])
def test_a_name_that_is_too_long_is_refused_before_any_work(tmp_path: Path, length: int) -> None:
    path = tmp_path / "deeper" / f"{'a' * length}.h5"
    if length == 200:
        check_writable(path)
        return
    with pytest.raises(BreedsError, match="name is too long"):
        check_writable(path)


def test_check_writable_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("old.csv").write_bytes(b"old")
    before = os.stat("old.csv")
    for path in (Path("new.csv"), Path("a/b/c/new.csv"), Path("old.csv"), tmp_path / "x" / "y.csv"):
        check_writable(path)
    assert os.listdir(tmp_path) == ["old.csv"]
    assert os.stat("old.csv").st_mtime_ns == before.st_mtime_ns


@pytest.mark.parametrize("name", [".", "folder", "link"])
def test_a_folder_is_not_a_file_to_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    Path("link").symlink_to("folder")
    with pytest.raises(BreedsError, match="it is a folder"):
        check_writable(Path(name))


# hold


def test_a_second_holder_is_told_who_the_first_is(tmp_path: Path) -> None:
    lock = tmp_path / "new" / ".lock"
    first = start_holding(lock)
    assert_held(lock, first.pid)
    assert_held(lock, first.pid)  # the refused one has not taken the first one's file away
    first.communicate("")
    assert first.returncode == 0
    assert not lock.exists()
    with hold(lock, "the store"):
        assert f"process {os.getpid()} on " in lock.read_text()
    assert not lock.exists()


def test_one_process_cannot_hold_twice_either(tmp_path: Path) -> None:
    with hold(tmp_path / ".lock", "the store"):
        assert_held(tmp_path / ".lock", os.getpid())


def test_a_killed_holder_holds_nothing(tmp_path: Path) -> None:
    lock = tmp_path / ".lock"
    first = start_holding(lock)
    first.kill()
    first.communicate()
    with hold(lock, "it"):
        text = lock.read_text()
        assert f"process {os.getpid()} on " in text
        assert f"process {first.pid} on " not in text
    assert not lock.exists()


def test_a_failure_inside_lets_go(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), hold(tmp_path / ".lock", "it"):
        raise ZeroDivisionError
    assert os.listdir(tmp_path) == []


def test_a_lock_won_on_a_file_that_its_holder_removed_is_no_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between opening and locking, the holder lets go and a third process takes a new lock file."""
    import fcntl

    lock = tmp_path / ".lock"
    lock.touch()
    flock = fcntl.flock
    third: list[subprocess.Popen[str]] = []

    def late(handle: int, how: int) -> None:
        if not third:
            lock.unlink()
            third.append(start_holding(lock))
        flock(handle, how)

    monkeypatch.setattr(fcntl, "flock", late)
    with pytest.raises(BreedsError, match="is being written by process"):
        hold(lock, "it").__enter__()
    third[0].communicate("")


def test_a_lock_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BreedsError, match="Cannot write"):
        hold(tmp_path / "file" / ".lock", "it").__enter__()


def test_links_stay_links_and_devices_are_refused(tmp_path: Path) -> None:
    target, link, pipe = tmp_path / "target", tmp_path / "link", tmp_path / "pipe"
    target.write_text("old")
    link.symlink_to(target)
    with write_aside(link) as aside:
        aside.write_text("new")
    assert link.is_symlink()
    assert target.read_text() == "new"
    os.mkfifo(pipe)
    for path in (pipe, Path("/dev/null")):
        with pytest.raises(BreedsError, match="not a regular file"):
            check_writable(path)


@pytest.mark.parametrize("name", [".report.20231122093000.tmp", ".x.².tmp"])
def test_a_number_that_is_no_process_is_no_leftover(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    with write_aside(tmp_path / "file.bin") as aside:
        aside.touch()
    assert (tmp_path / "file.bin").exists()


def test_a_holder_that_lets_go_while_we_ask_is_not_a_crash(tmp_path, monkeypatch) -> None:
    import fcntl

    def late(handle: int, how: int) -> None:
        (tmp_path / ".lock").unlink()
        raise BlockingIOError

    monkeypatch.setattr(fcntl, "flock", late)
    with pytest.raises(BreedsError):
        hold(tmp_path / ".lock", "it").__enter__()


def test_a_lock_on_a_full_disk_is_one_sentence(tmp_path, monkeypatch) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(BreedsError, match="No space left"):
        hold(tmp_path / ".lock", "it").__enter__()


_INTERRUPTED = """
import signal, sys
from breeds.files import open_regular
signal.signal(signal.SIGALRM, signal.default_int_handler)
for _ in range(400):
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.0005)
        for _ in range(10_000):
            open_regular(sys.argv[1], 100).close()
    except KeyboardInterrupt:
        pass
"""


def test_ctrl_c_while_a_file_is_opened_is_ctrl_c(tmp_path: Path) -> None:
    """And no file that has been closed already is closed again: its number may be another's by then."""
    (tmp_path / "file").write_bytes(b"data")
    command = [sys.executable, "-c", _INTERRUPTED, tmp_path / "file"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr

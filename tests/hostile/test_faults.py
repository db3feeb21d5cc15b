"""Kill it, stop it, start it twice: what was committed stays, and the next run ends the same."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext as nothing
from contextlib import suppress
from pathlib import Path

import brought
import numpy as np
import pytest
from conftest import ROOT, assert_refused, copy_some, extract_photos, run_script
from killed import BEFORE_FORKS, COUNTED
from PIL import Image
from stores import committed

from breeds.features import Store, Table, journal_folder, list_shards, verify

pytestmark = pytest.mark.slow  # each starts processes, stops or kills them, and starts them again

# extract_features.py with shards of four rows. STAND_IN puts in the network's place an engine that
# takes that many seconds for a photo, and with HOLD makes that file before the seventh and waits for
# a signal; OPENING is a file to make before the engine is opened; WAIT_FOR one before which nothing is
# decoded; DIE_AT kills the process before so many steps of writing; LIMIT is the most bytes of a file.
# Without arguments it reads runs to make, one on each line, and forks for each: that saves the start.
# It answers with the process's number, and then with how that ended and what it said.
SCRIPT = (
    """
import json, os, resource, signal, sys, time
import numpy as np
import multiprocessing.synchronize, numpy.ma, PIL.JpegImagePlugin, tqdm  # which each fork would load else
import breeds.extraction, breeds.features.journal, extract_features
from breeds.cli import common

class StandIn:
    name = "stand-in"
    def stream(self, pixels):
        for number, photo in enumerate(pixels):
            time.sleep(float(os.environ["STAND_IN"]))
            if number == 6 and "HOLD" in os.environ:
                open(os.environ["HOLD"], "x").close()
                signal.pause()
            yield np.float32(photo[::11, ::11]).reshape(-1) / 3

"""
    + COUNTED
    + """
def run():
    global left
    breeds.features.journal.SHARD_ROWS = int(os.environ.get("SHARD_ROWS", 4))
    breeds.features.journal.SHARD_SECONDS = float(os.environ.get("SHARD_SECONDS", 10))
    if "WAIT_FOR" in os.environ:  # until that is there, nothing is decoded
        import breeds.backbones.pipeline as pipeline
        load = pipeline.load_pixels
        def late(*arguments, **options):
            while not os.path.exists(os.environ["WAIT_FOR"]):
                time.sleep(0.01)
            return load(*arguments, **options)
        pipeline.load_pixels = late
    if "STAND_IN" in os.environ:
        breeds.extraction.open_engine = lambda *_, **__: StandIn()
    open_engine = breeds.extraction.open_engine
    def opening(*arguments, **options):
        open(os.environ["OPENING"], "x").close()
        return open_engine(*arguments, **options)
    if "OPENING" in os.environ:
        breeds.extraction.open_engine = opening
    left = int(os.environ.get("DIE_AT", 0))
    for name in ("fsync", "replace", "unlink", "truncate", "ftruncate"):
        setattr(os, name, counted(getattr(os, name)))
    if "LIMIT" in os.environ:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(os.environ["LIMIT"]),) * 2)
        sys.dont_write_bytecode = True
    common.run(extract_features.main)

def fork(arguments, env):
    ends, theirs = zip(*(os.pipe() for _ in range(2)))
    child = os.fork()
    if child:
        print(child, flush=True)
        for end in theirs:
            os.close(end)
        said = [open(end).read() for end in ends]
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), *said
    os.environ.update(env)
    sys.argv[1:] = arguments
    for number, end in enumerate(theirs, 1):
        os.dup2(end, number)
        os.close(end)
    try:
        run()
    except SystemExit as end:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(end.code)

if len(sys.argv) > 1:
    run()
from breeds.backbones import import_openvino
import_openvino()
"""
    + BEFORE_FORKS
    + """
for line in open(0, "rb", closefd=False):  # not sys.stdin: that is the front's to set up
    print(json.dumps(fork(**json.loads(line))), flush=True)
"""
)


#: How often extraction is killed at random moments: a second and a half each; `make fuzz` asks for a hundred.
KILLS = int(os.environ.get("KILLS", "6"))


def arguments(photos: Path, store: Path, network: Path | None = None) -> list[str]:
    how = ["--weights", "random", "--size", "96"]
    if network is not None:
        how = ["--backbone", str(network)]
    return [str(photos), "--store", str(store), *how]


def start(photos: Path, store: Path, network: Path | None = None, **env: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, *arguments(photos, store, network)],
        env={**os.environ, "PYTHONPATH": str(ROOT), **{name: str(value) for name, value in env.items()}},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


def wait_for(process: int, happened: Callable[[], bool]) -> None:
    """Wait until something has happened that a run does before it ends."""
    while not happened():
        os.kill(process, 0)
        time.sleep(0.005)


@pytest.fixture
def photos(drawn_photos: Path, tmp_path: Path) -> Path:
    """Three breeds of small photos, four of each: how large they are does not matter here."""
    folder = copy_some(drawn_photos, tmp_path / "photos")
    for photo in folder.rglob("*.jpg"):
        with Image.open(photo) as opened:
            opened.resize((40, 30)).save(photo)
    return folder


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network that runs in the real engine, without the start and the time of a large one.

    Its photos are large, so that a run is amid them for some time.
    """
    return brought.described(tmp_path_factory.mktemp("network") / "small.onnx", dims=("n", 3, 400, 400))


Finish = Callable[..., tuple[int, str, str]]
Quick = Callable[[Path, Path], str]


@pytest.fixture(scope="module")
def forked(session_cache: Path) -> Iterator[Finish]:
    """Make a run as `finish(start(...))` does, in a process forked from one that has started already.

    `meanwhile` is called with its number.
    """
    parent = subprocess.Popen(
        [sys.executable, "-c", SCRIPT],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )

    def make(
        photos: Path,
        store: Path,
        network: Path | None = None,
        meanwhile: Callable[[int], None] = lambda process: None,
        **env: object,
    ) -> tuple[int, str, str]:
        request = {
            "arguments": arguments(photos, store, network),
            "env": {name: str(value) for name, value in env.items()},
        }
        parent.stdin.write(json.dumps(request) + "\n")
        parent.stdin.flush()
        process = int(parent.stdout.readline())
        try:
            meanwhile(process)
        except BaseException:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
            raise
        finally:
            code, out, err = json.loads(parent.stdout.readline())
        return code, out, err

    yield make
    parent.stdin.close()
    parent.stdout.close()
    parent.wait(60)


@pytest.fixture
def quick(forked: Finish) -> Quick:
    """Make a whole run with the stand-in, which must go well, and return what it said."""

    def make(photos: Path, store: Path) -> str:
        code, out, err = forked(photos, store, STAND_IN=0)
        assert code == 0, err
        return out

    return make


def in_order(path: Path) -> tuple[Table, np.ndarray]:
    """Return a store's table and features in the order of paths; in the file, new photos come last."""
    store = Store(path)
    rows = np.array(sorted(range(len(store)), key=store.table.path.__getitem__))
    return store.table.take(rows), store.features(rows)


def assert_whole(store: Path, like: Path) -> None:
    """Assert that a store is what an uninterrupted run makes, bit for bit, with nothing left over."""
    (one, two), (table, expected) = (in_order(path) for path in (store, like))
    assert one == table
    assert np.array_equal(two, expected)
    assert list(verify(store)) == []
    assert os.listdir(store.parent) == [store.name]


# kill -9


def test_killed_before_every_single_step_of_writing(
    photos: Path, tmp_path: Path, forked: Finish, quick: Quick
) -> None:
    like = tmp_path / "like" / "s.h5"
    quick(photos, like)
    for step in range(1, 1000):
        store = tmp_path / str(step) / "s.h5"
        code, _, err = forked(photos, store, STAND_IN=0, DIE_AT=step)
        if code == 0:
            break
        assert code == -signal.SIGKILL, err
        before = committed(store)
        assert not store.exists() or list(verify(store)) == []
        out = quick(photos, store)
        assert before.items() <= committed(store).items()
        assert f"({12 - len(before)} new, {len(before)} reused)" in out
        assert_whole(store, like)
    assert step > 12, "three shards and a store, each at least written, renamed and made to last"


def test_an_update_killed_before_every_step_leaves_the_old_store_or_the_new(
    photos: Path, tmp_path: Path, forked: Finish, quick: Quick
) -> None:
    photo = min(photos.rglob("*.jpg"))
    hidden = photo.rename(tmp_path / photo.name)
    old, new = tmp_path / "old" / "s.h5", tmp_path / "new" / "s.h5"
    quick(photos, old)
    hidden.rename(photo)
    quick(photos, new)
    seen = set()
    for step in range(1, 1000):
        store = tmp_path / str(step) / "s.h5"
        shutil.copytree(old.parent, store.parent)
        code, _, err = forked(photos, store, STAND_IN=0, DIE_AT=step)
        if code == 0:
            break
        assert code == -signal.SIGKILL, err
        table, _ = in_order(store)
        assert table in (in_order(old)[0], in_order(new)[0])
        seen.add(len(table))
        quick(photos, store)
        assert_whole(store, new)
    assert seen == {11, 12}


def kill_when(process: int, happened: Callable[[], bool]) -> None:
    """Kill a process that the forked one waits for, if it has not ended before."""
    with suppress(ProcessLookupError):
        wait_for(process, happened)
        os.kill(process, signal.SIGKILL)


def moment(store: Path, waits: bool, seconds: float) -> Callable[[], bool]:
    """Say whether so many seconds are over: since now, or since one more shard was committed."""
    known, since = len(list_shards(journal_folder(store))), None if waits else time.monotonic()

    def happened() -> bool:
        nonlocal since
        if since is None and len(list_shards(journal_folder(store))) > known:
            since = time.monotonic()
        return since is not None and time.monotonic() > since + seconds

    return happened


@pytest.mark.thorough
def test_killed_at_random_moments_with_the_real_engine(
    drawn_photos: Path, tmp_path: Path, network: Path, forked: Finish
) -> None:
    """Each store is killed until a run comes to its end, and is then what a run that was left alone makes.

    Every other kill waits for a shard, as most of a run is the start of the engine.
    """
    like = tmp_path / "like" / "s.h5"
    for store in (like, tmp_path / "timed" / "s.h5"):  # after the first the network is converted
        started = time.monotonic()
        code, _, err = forked(drawn_photos, store, network)
        assert code == 0, err
        longest = time.monotonic() - started
    rng, stores, kills, amid_photos = random.Random(0), 0, 0, 0
    while kills < KILLS:
        stores += 1
        store, before, code = tmp_path / str(stores) / "s.h5", dict[str, bytes](), -signal.SIGKILL
        while code:
            waits = kills % 2 == 1
            due = moment(store, waits, rng.uniform(0, longest / 4 if waits else longest))
            code, _, err = forked(
                drawn_photos, store, network, lambda process, due=due: kill_when(process, due)
            )
            assert code in (0, -signal.SIGKILL), err
            kills += code != 0
            assert before.items() <= committed(store).items()
            before = committed(store)
            amid_photos += code != 0 and 0 < len(before) < len(committed(like))
        assert_whole(store, like)
    assert amid_photos >= KILLS / 10, "many are killed while photos are computed"


def test_kills_before_a_shard_is_full_do_not_stop_progress(
    photos: Path, tmp_path: Path, forked: Finish, quick: Quick
) -> None:
    """Each run is killed long before 128 photos, and keeps what has waited for some time."""
    like, store = tmp_path / "like" / "s.h5", tmp_path / "killed" / "s.h5"
    before: dict[str, bytes] = {}
    for _ in range(4):

        def kill(process: int, known: int = len(before)) -> None:
            kill_when(process, lambda: len(committed(store)) > known)

        code, _, err = forked(photos, store, None, kill, STAND_IN=0.3, SHARD_ROWS=128, SHARD_SECONDS=0.2)
        assert code == -signal.SIGKILL, err
        assert before.items() <= committed(store).items()
        assert len(committed(store)) > len(before)
        before = committed(store)
    quick(photos, like)
    out = quick(photos, store)
    assert "12 photos = 12 features" in out
    assert "(12 new" not in out
    assert_whole(store, like)


def test_a_photo_removed_in_mid_run_has_its_twins_feature(
    photos: Path, tmp_path: Path, forked: Finish
) -> None:
    first = min(photos.rglob("*.jpg"))
    twin = first.with_name("zz twin.jpg")
    shutil.copyfile(first, twin)
    store = tmp_path / "features" / "s.h5"
    os.mkfifo(photos / "pipe.jpg")

    def remove(process: int) -> None:
        wait_for(process, store.with_name(".s.lock").exists)  # by now every photo has its key
        first.unlink()
        (tmp_path / "go").touch()

    code, out, err = forked(photos, store, None, remove, STAND_IN=0, WAIT_FOR=tmp_path / "go")
    assert code == 1, err
    assert "14 photos = 13 features (12 new, 1 reused) + 1 quarantined" in out
    assert "quarantined pipe.jpg: not a regular file" in err


# Ctrl-C, and the polite kill


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_keeps_what_it_computed(
    photos: Path, tmp_path: Path, forked: Finish, quick: Quick, number: signal.Signals
) -> None:
    like, store = tmp_path / "like" / "s.h5", tmp_path / "stopped" / "s.h5"

    def stop(process: int) -> None:
        wait_for(process, (tmp_path / "held").exists)
        os.kill(process, number)

    code, out, err = forked(photos, store, None, stop, STAND_IN=0, HOLD=tmp_path / "held")
    assert code == 130
    assert out == ""
    assert "Traceback" not in err
    assert "the same command goes on from there" in err.splitlines()[-1]
    assert not store.exists()
    before = committed(store)
    assert len(before) > 4, "the shard in flight was committed too"
    assert os.listdir(store.parent) == [journal_folder(store).name], "nothing else is left"
    quick(photos, store)
    assert before.items() <= committed(store).items()
    quick(photos, like)
    assert_whole(store, like)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("shards", [0, 2], ids=["opening", "computing"])
def test_the_real_engine_can_be_stopped(
    drawn_photos: Path,
    tmp_path: Path,
    network: Path,
    forked: Finish,
    number: signal.Signals,
    shards: int,
) -> None:
    store = tmp_path / "features" / "s.h5"
    opening = tmp_path / "opening"

    def stop(process: int) -> None:
        wait_for(process, opening.exists)
        wait_for(process, lambda: len(list_shards(journal_folder(store))) >= shards)
        os.kill(process, number)

    code, _, err = forked(drawn_photos, store, network, stop, OPENING=opening)
    assert code == 130, err
    assert "Traceback" not in err
    assert len(list_shards(journal_folder(store))) >= shards
    code, out, err = forked(drawn_photos, store, network)
    assert code == 0 and "60 features" in out, err


class Breaks:
    """An engine that fails after six photos."""

    name = "breaks"

    def stream(self, pixels: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        for number, photo in enumerate(pixels):
            if number == 6:
                raise RuntimeError("out of memory")
            yield np.float32(photo[0, :8, 0])


def test_a_run_that_breaks_keeps_what_it_computed(photos: Path, tmp_path: Path) -> None:
    store = tmp_path / "features" / "s.h5"
    for left in (12, 6):
        with pytest.raises(RuntimeError, match="out of memory") if left == 12 else nothing():
            assert extract_photos(photos, store, engine=Breaks()).new == 6
    assert Store(store).features().shape == (12, 8)


# two at once


def test_the_second_of_two_extractions_is_told_of_the_first(
    photos: Path, tmp_path: Path, forked: Finish, quick: Quick
) -> None:
    store = tmp_path / "features" / "s.h5"

    def another(first: int) -> None:
        wait_for(first, (tmp_path / "held").exists)
        before = committed(store)
        assert len(before) == 4
        second = run_script("extract_features.py", *arguments(photos, store), cwd=tmp_path)
        assert_refused(second, f"{store} is being written by process {first} on ")
        assert before.items() <= committed(store).items()
        os.kill(first, signal.SIGINT)

    assert forked(photos, store, None, another, STAND_IN=0, HOLD=tmp_path / "held")[0] == 130
    assert "12 features" in quick(photos, store)


def test_a_store_reached_by_a_link_is_the_same_store(
    photos: Path, tmp_path: Path, forked: Finish, quick: Quick
) -> None:
    store, link = tmp_path / "features" / "s.h5", tmp_path / "elsewhere" / "link.h5"
    quick(photos, store)
    link.parent.mkdir()
    link.symlink_to(store)
    for photo in photos.rglob("*.jpg"):
        photo.write_bytes(photo.read_bytes() + b"0")  # other photos, to be computed anew

    def others(first: int) -> None:
        wait_for(first, (tmp_path / "held").exists)
        assert len(committed(store)) == 16
        for name in (link, store):
            second = run_script("extract_features.py", *arguments(photos, name), cwd=tmp_path)
            assert_refused(second, f"{name} is being written by process {first} on ")
        os.kill(first, signal.SIGINT)

    assert forked(photos, link, None, others, STAND_IN=0, HOLD=tmp_path / "held")[0] == 130
    assert "12 features" in quick(photos, link)
    assert link.is_symlink()
    assert os.listdir(link.parent) == ["link.h5"]
    assert list(verify(link)) == list(verify(store)) == []
    assert "nothing to change" in quick(photos, store)
    assert "(0 new, 12 reused)" in quick(photos, link)


def test_two_stores_can_be_written_at_once_in_one_folder(photos: Path, tmp_path: Path) -> None:
    stores = [tmp_path / "features" / name for name in ("a.h5", "b.h5")]
    processes = [start(photos, store, STAND_IN=0.05) for store in stores]
    assert [finish(process)[0] for process in processes] == [0, 0]
    assert np.array_equal(Store(stores[0]).features(), Store(stores[1]).features())
    assert sorted(os.listdir(tmp_path / "features")) == ["a.h5", "b.h5"]


def test_a_reader_that_is_gone_costs_nothing(photos: Path, tmp_path: Path) -> None:
    store = tmp_path / "features" / "s.h5"
    process = start(photos, store, STAND_IN=0)
    assert process.stdout is not None
    process.stdout.close()
    process.wait(timeout=300)
    assert process.returncode == 0
    assert process.stderr is not None
    assert "Traceback" not in process.stderr.read()
    assert len(Store(store).table) == 12


def test_a_full_disk_is_one_sentence_and_leaves_nothing_half(
    photos: Path, tmp_path: Path, forked: Finish, quick: Quick
) -> None:
    """Files that cannot grow beyond a limit stand for the full disk; the store is about 20 kB."""
    like = tmp_path / "like" / "s.h5"
    quick(photos, like)
    for limit in (0, 100, 1000, 5000, 8000, 12_000, 16_000, 20_000):
        store = tmp_path / str(limit) / "s.h5"
        code, _, err = forked(photos, store, STAND_IN=0, LIMIT=limit)
        assert code == 2, (limit, code, err)
        errors = [line for line in err.splitlines() if "extracting" not in line]
        assert len(errors) == 1, (limit, errors)
        assert "File too large" in errors[0]
        assert not store.exists()
        quick(photos, store)
        assert_whole(store, like)

"""Files of strangers, wherever one is opened: nothing hangs, nothing is lost, nothing is let in."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import brought
import forked
import h5py
import numpy as np
import pytest
from conftest import ROOT, MakeStore, copy_some, extract_photos
from stores import as_journal, seal, write_journal

from breeds.backbones.weightfile import write_arrays
from breeds.config import FeatureConfig
from breeds.errors import BreedsError
from breeds.features import FeatureLookup, Store, journal_folder, list_shards, verify, write_store
from breeds.files import hold, open_regular
from breeds.heads.model import Model
from breeds.photos import FilePhoto, find_photos
from breeds.selection import Selection
from breeds.training import train

pytestmark = pytest.mark.slow  # most start a script

#: What a script may take, on a busy machine, whatever it is given: seconds, and megabytes.
SECONDS, MEGABYTES = 60, 700


class StandIn:
    """An engine that needs no network: pixels are the feature, as many as Xception's."""

    name = "stand-in"

    def stream(self, pixels: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
        for photo in pixels:
            yield np.resize(np.float32(photo[::5, ::5]), 2048) / 100


@pytest.fixture(scope="module")
def furnished(drawn_photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with twelve photos, their store `features/s.h5` and a model, as the scripts leave them."""
    folder = tmp_path_factory.mktemp("furnished")
    copy_some(drawn_photos, folder / "photos")
    store = folder / "features" / "s.h5"
    extract_photos(folder / "photos", store, engine=StandIn())
    (folder / "models").mkdir()
    train(Store(store), C=0.1).save(folder / "models" / "s.safetensors")
    return folder


@pytest.fixture
def home(furnished: Path, tmp_path: Path) -> Path:
    """A copy of that folder, to do with as a test likes."""
    shutil.copytree(furnished, tmp_path, dirs_exist_ok=True)
    model = Model.load(tmp_path / "models" / "s.safetensors")
    model.record["store"] = str(tmp_path / "features" / "s.h5")
    model.save(tmp_path / "models" / "s.safetensors")
    return tmp_path


@pytest.fixture
def answers() -> Callable[[Path], list[np.ndarray]]:
    """A function that predicts the photos of a home, out of its store where that can be."""
    from breeds.prediction import predict

    def answer(home: Path) -> list[np.ndarray]:
        model = Model.load(home / "models" / "s.safetensors")
        paths = sorted(map(str, (home / "photos").rglob("*.jpg")))
        answers = predict(model, map(FilePhoto, paths), opener=lambda *_, **__: StandIn())
        return [found.probabilities for found in answers]

    return answer


@dataclass
class Done:
    """How a script ended."""

    code: int
    out: str
    err: str

    def refused(self, *words: str) -> None:
        assert self.code == 2, self.err
        (line,) = [line for line in self.err.splitlines() if line.startswith("error: ")]
        for word in words:
            assert word in line


def front(home: Path, script: str, *arguments: object) -> Done:
    """Run a script in `home`; what takes too long or too much memory has failed."""
    target = [*(script.split() if script.startswith("-m") else [str(ROOT / script)]), *map(str, arguments)]
    done = forked.run(target, home, {**os.environ, "PYTHONPATH": str(ROOT)}, None, SECONDS)
    assert done.returncode in (0, 1, 2), (done.returncode, done.stderr)
    assert done.peak < MEGABYTES * 1000, f"{done.peak / 1000:.0f} MB"
    assert "Traceback" not in done.stderr, done.stderr
    return Done(done.returncode, done.stdout, done.stderr)


def extract(home: Path, *more: object, data: object = "photos") -> Done:
    return front(home, "extract_features.py", data, "--store", "features/s.h5", "--weights", "random", *more)


def by_path(store: Path) -> dict[str, bytes]:
    found = Store(store)
    return {p: f.tobytes() for p, f in zip(found.table.path, found.features(), strict=True)}


# which files are opened, and how: locks


@pytest.mark.parametrize("there", [True, False])
def test_a_lock_that_is_a_link_is_neither_followed_nor_written(home: Path, there: bool) -> None:
    victim = home / "victim"
    if there:
        victim.write_text("a diary")
    (home / "features" / ".s.lock").symlink_to(victim)
    extract(home).refused(".s.lock: it is a link, which no lock of ours is; remove it")
    assert (victim.read_text() if victim.exists() else None) == ("a diary" if there else None)


def test_a_lock_that_is_another_name_of_somebodys_file_is_not_written(home: Path) -> None:
    victim = home / "victim"
    victim.write_text("a diary" * 99)
    os.link(victim, home / "features" / ".s.lock")
    assert extract(home).code == 0
    assert victim.read_text() == "a diary" * 99
    assert not (home / "features" / ".s.lock").exists()


@pytest.mark.parametrize("kind", ["pipe", "folder", "socket"])
def test_a_lock_that_is_no_file_is_one_sentence(home: Path, kind: str) -> None:
    make_odd(home / "features" / ".s.lock", kind)
    extract(home).refused("Cannot write features/.s.lock")


def test_a_lock_says_nothing_that_a_stranger_wrote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["extract_features.py", "\x1b[2J strangers"])
    lock = tmp_path / ".lock"
    with hold(lock, "it"):
        assert re.fullmatch(rf"process {os.getpid()} on [\w.-]+ since [-0-9: ]+\n", lock.read_text())
        lock.write_text("process 1 on \x1b[2J since 2026-01-01 00:00:00")
        with pytest.raises(BreedsError, match="is being written by another process; wait"):
            hold(lock, "it").__enter__()


# which files are opened, and how: what is no file to read


def make_odd(path: Path, kind: str) -> None:
    path.parent.mkdir(exist_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "socket":
        here = os.getcwd()
        os.chdir(path.parent)  # the name of a socket may have 108 bytes
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
        os.chdir(here)
    else:
        path.symlink_to(kind)


ODD = ["socket", "/dev/zero", "/dev/tty", "/proc/kmsg"]
PLACES = {
    "a store to train on": ("features/odd.h5", "train_head.py", "--store", "features/odd.h5"),
    "a store to look at": ("features/odd.h5", "-m breeds store info", "features/odd.h5"),
    "a store to verify": ("features/odd.h5", "-m breeds store verify", "features/odd.h5"),
    "a model": ("models/odd.safetensors", "evaluate.py", "--model", "models/odd.safetensors"),
    "weights": ("odd.h5", "extract_features.py", "photos", "--weights", "odd.h5"),
    "a manifest": ("odd.csv", "extract_features.py", "odd.csv", "--weights", "random"),
    "labels": ("odd.csv", "extract_features.py", "photos", "--labels", "odd.csv", "--weights", "random"),
}


@pytest.mark.parametrize(
    ("place", "kind"),
    [*((place, "pipe") for place in PLACES), *(("a store to verify", kind) for kind in ODD),
     ("a model", "/dev/zero"), ("weights", "/proc/kmsg"), ("a manifest", "/proc/kmsg")],
)  # fmt: skip
def test_what_is_no_file_is_refused_wherever_one_is_named(home: Path, place: str, kind: str) -> None:
    path, script, *arguments = PLACES[place]
    make_odd(home / path, kind)
    front(home, script, *arguments).refused()


@pytest.mark.parametrize("kind", ["pipe", "/dev/zero"])
def test_a_store_to_write_that_is_no_file_is_refused(home: Path, kind: str) -> None:
    make_odd(home / "features" / "odd.h5", kind)
    front(home, "extract_features.py", "photos", "--weights", "random", "--store", "features/odd.h5").refused(
        "not a regular file"
    )


@pytest.mark.parametrize("kind", ["pipe", "/dev/zero", "/proc/kmsg"])
def test_a_shard_that_is_no_file_is_set_aside_and_its_photos_computed_again(home: Path, kind: str) -> None:
    before = by_path(home / "features" / "s.h5")
    as_journal(home / "features" / "s.h5")
    odd = home / "features" / "s.journal" / f"000009-{'a' * 64}.h5"
    make_odd(odd, kind)
    done = extract(home)
    assert done.code == 0
    assert f"damaged, set aside and computed again: features/s.journal/{odd.name}" in done.err
    assert by_path(home / "features" / "s.h5") == before
    assert front(home, "-m breeds store verify", "features/s.h5").code == 0


@pytest.mark.parametrize("kind", ["pipe", "/dev/zero"])
def test_a_recorded_store_that_is_no_file_is_done_without(
    home: Path, kind: str, answers: Callable[[Path], list[np.ndarray]]
) -> None:
    sound = answers(home)
    (home / "features" / "s.h5").unlink()
    make_odd(home / "features" / "s.h5", kind)
    front(home, "evaluate.py").refused("cannot be found")
    assert np.allclose(answers(home), sound)


@pytest.mark.parametrize("kind", ["pipe", "socket", "/dev/zero", "/proc/kmsg", "/proc/self/mem"])
@pytest.mark.parametrize("name", ["odd.jpg", "odd"])
def test_a_photo_that_is_no_file_is_quarantined_or_passed_over(home: Path, kind: str, name: str) -> None:
    make_odd(home / "photos" / name, kind)
    done = extract(home)
    assert done.code == (1 if name == "odd.jpg" else 0)
    assert ("quarantined odd.jpg: " in done.err) is (name == "odd.jpg")


def test_a_file_of_the_systems_in_a_manifest_is_quarantined(home: Path) -> None:
    rows = [f"{path},{path.parent.name}" for path in sorted((home / "photos").rglob("*.jpg"))]
    (home / "s.csv").write_text("\n".join(["path,label", *rows, "/proc/kmsg,pug", "/proc/self/mem,pug", ""]))
    done = extract(home, data="s.csv")
    assert done.code == 1
    assert "14 photos = 12 features (0 new, 12 reused) + 2 quarantined" in done.out
    assert "quarantined /proc/kmsg: empty file (0 bytes)" in done.err


SPARSE = {
    "weights": ("w.h5", 2 * 2**40, "extract_features.py", "photos", "--weights", "w.h5"),
    "a manifest": ("w.csv", 3 * 10**9, "extract_features.py", "w.csv", "--weights", "random"),
    "a manifest within bounds": ("w.csv", 10**8, "extract_features.py", "w.csv", "--weights", "random"),
    "a model": ("w.safetensors", 60 * 10**9, "evaluate.py", "--model", "w.safetensors"),
    "a store": ("w.h5", 2 * 2**40, "train_head.py", "--store", "w.h5"),
    "a store to verify": ("w.h5", 2**39, "-m breeds store verify", "w.h5"),
}


@pytest.mark.parametrize("what", SPARSE)
def test_a_file_that_is_too_large_is_not_read(home: Path, what: str) -> None:
    name, size, script, *arguments = SPARSE[what]
    start = {"h5": home / "features" / "s.h5", "safetensors": home / "models" / "s.safetensors"}
    kind = name.split(".")[1]
    (home / name).write_bytes(start[kind].read_bytes() if kind in start else b"path,label\n")
    os.truncate(home / name, size)
    done = front(home, script, *arguments)
    if what == "a store to verify":  # what it says of its length bounds what is read
        assert done.code in (0, 2)
    else:
        done.refused()


def test_a_table_of_photos_that_are_not_there_is_not_gathered_in_memory(tmp_path: Path) -> None:
    rows = "".join(f"{number:07x},b\n" for number in range(10_000))
    (tmp_path / "w.csv").write_text("path,label\n" + rows)
    tracemalloc.start()
    try:
        with pytest.raises(BreedsError, match=r"10000 of 10000 photos in .*w\.csv are missing: 0000000, "):
            find_photos(Selection(tmp_path / "w.csv"))
        assert tracemalloc.get_traced_memory()[1] < 3 * 10**5
    finally:
        tracemalloc.stop()


# a file is what it was when it was opened


@pytest.fixture
def two_stores(make_store: MakeStore, random_config: FeatureConfig, tmp_path: Path) -> list[Path]:
    """Two stores of the same photos, with other features and another config each."""
    first = make_store({"a": 30, "b": 30}, name="features/0.h5")
    crop = replace(random_config, resize="crop")
    table = Store(first).table
    features = np.random.default_rng(1).normal(size=(len(table), 2048)).astype(np.float32)
    write_store(tmp_path / "features" / "1.h5", table, crop, features, "made up")
    return [first, tmp_path / "features" / "1.h5"]


class Swapping:
    """While it is entered, one store after the other stands at `place`, as fast as can be."""

    def __init__(self, stores: list[Path], place: Path) -> None:
        self._stores, self._place = stores, place
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._swap)

    def _swap(self) -> None:
        number = 0
        while not self._stop.is_set():
            aside = self._place.with_suffix(".aside")
            os.link(self._stores[number % 2], aside)
            os.replace(aside, self._place)
            number += 1
            time.sleep(0.002)

    def __enter__(self) -> None:
        shutil.copyfile(self._stores[0], self._place)
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def test_a_model_never_has_one_config_and_anothers_features(two_stores: list[Path], tmp_path: Path) -> None:
    place = tmp_path / "features" / "s.h5"
    means = {}
    for path in two_stores:
        model = train(Store(path), C=0.1)
        means[model.config.digest] = model.mean
    trained = refused = 0
    with Swapping(two_stores, place):
        while trained < 3 or trained + refused < 25:
            try:
                model = train(Store(place), C=0.1)
            except BreedsError as error:
                assert "was replaced while it was being read" in str(error)
                refused += 1
                continue
            trained += 1
            assert np.array_equal(model.mean, means[model.config.digest])


def test_features_of_another_config_are_never_read_in_prediction(
    two_stores: list[Path], tmp_path: Path
) -> None:
    place = tmp_path / "features" / "s.h5"
    expected = {store.config.digest: store.features() for store in map(Store, two_stores)}
    read = 0
    with Swapping(two_stores, place):
        for _ in range(60):
            store = Store(place)
            try:
                lookup = FeatureLookup(place, store.config, store)
                found = lookup.read(store.table.key)
            except BreedsError:
                continue
            read += 1
            assert np.array_equal(found, expected[store.config.digest])
    assert read


def test_verify_does_not_call_a_store_damaged_that_is_replaced_meanwhile(
    two_stores: list[Path], tmp_path: Path
) -> None:
    with Swapping(two_stores, tmp_path / "features" / "s.h5"):
        for _ in range(25):
            assert list(verify(tmp_path / "features" / "s.h5")) == []


def test_a_shard_that_is_another_by_now_is_not_read(two_stores: list[Path]) -> None:
    store, other = map(Store, two_stores)
    for one in (store, other):
        write_journal(journal_folder(one.path), {"a" * 64: one.features()[0]}, one.config)
    lookup = FeatureLookup(store.path, store.config)
    (shard,), (another,) = (list_shards(journal_folder(path)) for path in two_stores)
    shard.write_bytes(another.read_bytes())
    with pytest.raises(BreedsError, match="was replaced"):
        lookup.read(["a" * 64])


def test_what_is_open_is_what_was_checked(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"one")
    with open_regular(tmp_path / "a", 10) as file:
        (tmp_path / "b").write_bytes(b"other")
        os.replace(tmp_path / "b", tmp_path / "a")
        assert file.read() == b"one"


# checksums are asked


def flip_feature(store: Path) -> None:
    data = bytearray(store.read_bytes())
    with h5py.File(store) as file:
        data[data.index(file["features"][7].tobytes()) + 5] ^= 1
    store.write_bytes(data)


def reverse(name: str) -> Callable[[Path], None]:
    def change(store: Path) -> None:
        with h5py.File(store, "r+") as file:
            file[name][:] = file[name][:][::-1]

    return change


@pytest.mark.parametrize("new", [False, True])
@pytest.mark.parametrize("change", [flip_feature, reverse("features")], ids=["flip", "reverse"])
def test_a_damaged_store_is_named_and_never_laundered(
    home: Path, drawn_photos: Path, change: Callable[[Path], None], new: bool
) -> None:
    """Whether photos are added or only taken out: it is as it was, and the run says so."""
    store = home / "features" / "s.h5"
    change(store)
    before = store.read_bytes()
    if new:
        shutil.copyfile(max(drawn_photos.rglob("*.jpg")), home / "photos" / "new.jpg")
    else:
        min((home / "photos").rglob("*.jpg")).unlink()
    with pytest.raises(BreedsError, match=r"s\.h5 is damaged .*; put back a copy"):
        extract_photos(home / "photos", store, engine=StandIn())
    assert store.read_bytes() == before
    assert list(verify(store)) == [f"{store}: the features do not match their checksum"]


CHANGES = {
    "a bit": flip_feature,
    "features": reverse("features"),
    "keys": reverse("key"),
    "labels": reverse("label"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_nothing_is_trained_or_judged_on_what_does_not_match_its_checksum(
    home: Path, change: Callable[[Path], None]
) -> None:
    change(home / "features" / "s.h5")
    before = (home / "models" / "s.safetensors").read_bytes()
    front(home, "train_head.py").refused("features/s.h5 is damaged")
    front(home, "evaluate.py").refused("s.h5 is damaged")
    assert (home / "models" / "s.safetensors").read_bytes() == before


def test_prediction_takes_nothing_from_a_damaged_store(
    home: Path, answers: Callable[[Path], list[np.ndarray]]
) -> None:
    sound = answers(home)
    reverse("features")(home / "features" / "s.h5")
    assert np.allclose(answers(home), sound)


def rewritten(store: Path, features: np.ndarray) -> None:
    """Put other features into a store, with the checksum that fits them."""
    with h5py.File(store, "r+") as file:
        old = file["features"]
        del file["features"]
        file.create_dataset("features", data=features, chunks=(4, features.shape[1]), fletcher32=True)
        del old
        seal(file)


def noise(width: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(12, width)).astype(np.float32)


@pytest.mark.parametrize(
    ("features", "words"),
    [
        (
            np.random.default_rng(0).normal(size=(12, 2048)).astype(np.float32) * np.float32(5e37),
            "as large as none are",
        ),
        (noise(7), "7 features a photo"),
    ],
    ids=["1e38", "seven"],
)
def test_features_that_no_network_gives_are_not_trained_on(
    home: Path, features: np.ndarray, words: str
) -> None:
    rewritten(home / "features" / "s.h5", features)
    front(home, "train_head.py").refused(words)


# bombs


_UNPACKED = 2**31


def bomb(name: str) -> Callable[[h5py.File], None]:
    """Put in the place of a dataset one with a single block of 2 GB, 2 MB in the file."""

    def change(file: h5py.File) -> None:
        was = file[name]
        shape, dtype = was.shape, was.dtype
        del file[name]
        rows = _UNPACKED // (int(np.prod(shape[1:])) * dtype.itemsize)
        space = h5py.h5s.create_simple(shape, (h5py.h5s.UNLIMITED, *shape[1:]))
        settings = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        settings.set_chunk((rows, *shape[1:]))
        settings.set_deflate(9)
        made = h5py.h5d.create(file.id, name.encode(), h5py.h5t.py_create(dtype), space, settings)
        made.write_direct_chunk((0,) * len(shape), _packed())

    return change


def _packed() -> bytes:
    """So many zeros as zlib packs them: what it makes of 16 MB, again and again, and their checksum."""
    packer, block = zlib.compressobj(9, wbits=-15), 2**24
    once = packer.compress(bytes(block)) + packer.flush(zlib.Z_FULL_FLUSH)
    last = (_UNPACKED % 65521 << 16 | 1).to_bytes(4, "big")
    return b"\x78\xda" + once * (_UNPACKED // block) + packer.flush() + last


@pytest.mark.parametrize("name", ["features", "key", "size"])
@pytest.mark.parametrize("script", ["train_head.py", "-m breeds store verify", "extract_features.py"])
def test_a_block_that_unpacks_to_gigabytes_is_not_unpacked(home: Path, name: str, script: str) -> None:
    if name != "features" and script != "train_head.py":
        pytest.skip("all columns are read the same way")
    with h5py.File(home / "features" / "s.h5", "r+", libver=("v110", "v110")) as file:
        bomb(name)(file)
    assert (home / "features" / "s.h5").stat().st_size < 10**7
    done = extract(home) if script.startswith("extract") else front(
        home, script, *["--store"] * script.startswith("train"), "features/s.h5"
    )  # fmt: skip
    done.refused("s.h5 is damaged", f"{name} is compressed")


def test_a_shard_that_unpacks_to_gigabytes_is_not_unpacked(home: Path) -> None:
    (shard,) = list_shards(as_journal(home / "features" / "s.h5"))
    with h5py.File(shard, "r+", libver=("v110", "v110")) as file:
        bomb("features")(file)
    shard.rename(shard.with_name(f"000001-{hashlib.sha256(shard.read_bytes()).hexdigest()}.h5"))
    extract(home).refused("is compressed")


def test_weights_that_unpack_to_gigabytes_are_not_unpacked(home: Path) -> None:
    write_arrays(home / "w.weights.h5", {"conv2d/vars/0": np.zeros((8, 4), np.float32)})
    with h5py.File(home / "w.weights.h5", "r+") as file:
        bomb("layers/conv2d/vars/0")(file)
    front(home, "extract_features.py", "photos", "--weights", "w.weights.h5").refused("is compressed")


# smaller


@pytest.mark.parametrize("options", [{}, {"locking": False}])
@pytest.mark.parametrize("script", ["extract_features.py", "train_head.py", "-m breeds store verify"])
def test_a_store_that_another_program_has_open_is_not_called_damaged(
    home: Path, script: str, options: dict[str, bool]
) -> None:
    store = home / "features" / "s.h5"
    with h5py.File(store, "r+", libver=("v110", "v110"), **options) as file:
        file.flush()
        done = extract(home) if script.startswith("extract") else front(
            home, script, *["--store"] * script.startswith("train"), "features/s.h5"
        )  # fmt: skip
    done.refused("is open in another program", "nothing was changed")
    assert "damaged" not in done.err
    assert extract(home).code == 0


def test_a_shard_that_another_program_has_open_is_not_set_aside(home: Path) -> None:
    (shard,) = list_shards(as_journal(home / "features" / "s.h5"))
    with h5py.File(shard, "r+", libver=("v110", "v110")) as file:
        file.flush()
        extract(home).refused(shard.name, "open in another program")
    assert list_shards(home / "features" / "s.journal") == [shard]


def test_a_model_dated_in_the_future_is_not_the_newest_for_ever(home: Path) -> None:
    wrong, right = home / "models" / "wrong.safetensors", home / "models" / "s.safetensors"
    shutil.copyfile(right, wrong)
    os.utime(wrong, (4e9, 4e9))
    done = front(home, "evaluate.py", "--no-html")
    assert done.code == 0
    assert "using models/s.safetensors" in done.err
    assert "models/wrong.safetensors is dated 2096-10-02" in done.err
    right.unlink()
    assert "using models/wrong.safetensors" in front(home, "evaluate.py", "--no-html").err


def test_a_table_with_a_column_twice_is_refused(home: Path) -> None:
    photo = min((home / "photos").rglob("*.jpg"))
    (home / "s.csv").write_text(f"path,label,label\n{photo},pug,beagle\n")
    extract(home, data="s.csv").refused("s.csv has more than one column 'label'")


@pytest.mark.parametrize("what", ["wal", "journal", "shm"])
def test_the_cache_of_features_writes_through_no_link(home: Path, what: str) -> None:
    import sqlite3

    cache, victim = home / "models" / "features.sqlite", home / "victim"
    victim.write_text("a diary")
    with sqlite3.connect(cache) as database:
        database.execute(f"PRAGMA journal_mode = {'wal' if what != 'journal' else 'delete'}")
        database.execute("CREATE TABLE features (id BLOB NOT NULL UNIQUE, feature BLOB NOT NULL)")
    database.close()
    cache.with_name(f"features.sqlite-{what}").symlink_to(victim)
    from breeds.features.cache import FeatureCache

    with FeatureCache(home / "models") as kept:
        kept.add(Store(home / "features" / "s.h5").config, "ab" * 32, np.zeros(2048, np.float32))
    assert victim.read_text() == "a diary"


def test_a_full_cache_is_said_to_be_full(tmp_path: Path, photos: Path) -> None:
    """Files that cannot grow beyond a limit stand for the full disk."""
    network = brought.described(tmp_path / "net.onnx")
    code = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000));"
        "import extract_features; from breeds.cli import common; common.run(extract_features.main)"
    )
    # Python would keep what it has compiled cut off, too.
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1",
           "BREEDS_CACHE": str(tmp_path / "cache")}  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", code, photos, "--store", "s.h5", "--backbone", network],
        cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert "OpenVINO does not work" not in done.stderr
    assert done.returncode == 2, done.stderr
    assert f"cannot be written to {tmp_path / 'cache'} (File too large)" in done.stderr

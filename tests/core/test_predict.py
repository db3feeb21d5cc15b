"""Prediction: an answer or a reason for every photo, in order, and no feature computed twice."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT, assert_refused, run_script
from PIL import Image
from pyarrow import parquet

from breeds.backbones.weightfile import write_arrays
from breeds.config import FeatureConfig
from breeds.errors import BreedsError
from breeds.features import Store, Table, write_store
from breeds.features.cache import FeatureCache
from breeds.heads.model import Model
from breeds.photos import FilePhoto, Photo, key_of
from breeds.photos.inputs import list_inputs
from breeds.prediction import Answer, predict
from breeds.report.answers import GROUP_ROWS, write_answers
from breeds.training import train

# Twelve photos are few for scikit-learn's solver, and enough here.
pytestmark = pytest.mark.filterwarnings("ignore:.*[Ll]ine [Ss]earch")


def made_up_store(photos: Path, store: Path, config: FeatureConfig) -> Path:
    """Write a store for real photos with made-up features, which a head can learn."""
    features = []
    files = sorted(photos.rglob("*.jpg"))
    keys, labels = [key_of(photo.read_bytes()) for photo in files], [photo.parent.name for photo in files]
    for key, label in zip(keys, labels, strict=True):
        centre = np.random.default_rng(zlib.crc32(label.encode())).normal(size=2048)
        features.append(centre + np.random.default_rng(int(key[:8], 16)).normal(size=2048) * 0.1 + 3)
    paths, ones = [str(photo.relative_to(photos)) for photo in files], [1] * len(files)
    table = Table(str(photos), "", keys, paths, labels, [""] * len(files), ones, ones)
    write_store(store, table, config, np.array(features, dtype=np.float32), "made up")
    return store


@pytest.fixture
def place(
    photos: Path, random_config: FeatureConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A folder with photos and a model trained on them, whose store is all that answering needs."""
    store = made_up_store(photos, tmp_path / "features" / "photos.h5", random_config)
    model = train(Store(store), C=1.0)
    model.unknown = None
    model.save(tmp_path / "models" / "photos.safetensors")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def model(place: Path) -> Model:
    return Model.load(place / "models" / "photos.safetensors")


class Means:
    """An engine for what is not about the network: the means of a photo's 2048 stripes."""

    name = "means"

    def stream(self, pixels: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        for photo in pixels:
            length = photo.size // 2048
            yield photo.ravel()[: 2048 * length].reshape(2048, length).mean(axis=1, dtype=np.float32)


class Openings(list[str]):
    """Opens a stand-in for the engine, and lists its openings."""

    def __call__(self, *_: object, **__: object) -> Any:
        self.append("opened")
        return Means()


@pytest.fixture
def quick_engine() -> Openings:
    return Openings()


@pytest.fixture
def unseen(drawn_photos: Path, photos: Path) -> list[str]:
    """Five photos that no store knows."""
    known = {photo.name for photo in photos.iterdir()}
    return [str(p) for p in sorted(drawn_photos.rglob("*.jpg")) if p.parent.name not in known][::7][:5]


def script(*arguments: object, stdin: str = "", poison: bool = True) -> subprocess.CompletedProcess[str]:
    """Run predict.py; `poison` ends it if it loads what opening an engine needs."""
    env = {}
    if poison:
        for module in ("tensorflow", "keras", "openvino"):
            Path("poison", module).mkdir(parents=True, exist_ok=True)
            Path("poison", module, "__init__.py").write_text("raise SystemExit('an engine was opened')")
        env = {"PYTHONPATH": f"{Path('poison').resolve()}:{ROOT}"}
    return run_script("predict.py", *arguments, cwd=Path.cwd(), env=env, input=stdin)


def read_csv(path: str = "out.csv") -> pd.DataFrame:
    return pd.read_csv(path, keep_default_na=False)


def answered(model: Model, paths: Iterable[str], **options: Any) -> Iterator[Answer]:
    """Answers for files."""
    return predict(model, map(FilePhoto, paths), **options)


def numbers(answers: Iterator[Answer]) -> dict[str, bytes | str]:
    """Return the bits of every probability, or the error, by path."""
    return {a.path: a.error if a.probabilities is None else a.probabilities.tobytes() for a in answers}


# which photos, in which order


def test_a_pattern_over_links_in_a_circle_ends(place: Path) -> None:
    for link in ("one", "two"):
        (place / "photos" / link).symlink_to(place / "photos", target_is_directory=True)
    result = script("photos/**/*.jpg", "--out=out.csv")
    assert result.returncode == 0, result.stderr
    assert read_csv().path.tolist() == sorted(str(p) for p in Path("photos").glob("[!ot]*/*.jpg"))


def test_rows_are_in_the_order_of_the_input_with_the_bad_ones_in_place(place: Path) -> None:
    good = sorted(map(str, Path("photos").rglob("*.jpg")))
    Path("mixed/inner/.hidden").mkdir(parents=True)
    Path("bad.jpg").touch()
    shutil.copy(good[1], "mixed/b.jpg")
    shutil.copy(good[2], "mixed/inner/no_extension")
    shutil.copy(good[2], "mixed/inner/.hidden/c.jpg")
    Path("mixed/a.jpg").write_text("text")
    Path("mixed/notes.txt").write_text("text")
    stdin = f"{good[3]}\n\nnowhere.jpg\r\nmixed\n"
    result = script(
        good[11], "bad.jpg", "mixed", "-", "photos/*/01.jpg", good[0], "--out=out.csv", stdin=stdin
    )
    frame = read_csv()
    inside = ["mixed/a.jpg", "mixed/b.jpg", "mixed/inner/no_extension"]
    matches = sorted(map(str, Path("photos").glob("*/01.jpg")))
    expected = [good[11], "bad.jpg", *inside, good[3], "nowhere.jpg", *inside, *matches, good[0]]
    assert frame.path.tolist() == expected
    failed = [path for path in expected if path in ("bad.jpg", "mixed/a.jpg", "nowhere.jpg")]
    assert frame.path[frame.error != ""].tolist() == failed
    assert (frame.breed == "").tolist() == (frame.error != "").tolist()
    right = [Path(path).parent.name for path in expected if path.startswith("photos")]
    assert frame.breed[frame.path.str.startswith("photos")].tolist() == right
    assert result.returncode == 1
    assert f"{len(expected)} photos = {len(expected) - 4} answers + 4 without" in result.stderr


def test_more_photos_than_a_block_keep_their_order(model: Model) -> None:
    good = sorted(map(str, Path("photos").rglob("*.jpg")))
    paths = [path for k in range(20) for path in (*good[k % 5 :: 3], "nowhere.jpg", good[k % 12])]
    answers = list(answered(model, paths))
    assert [answer.path for answer in answers] == paths
    named = [a.error or model.classes[a.probabilities.argmax()] for a in answers]
    assert named == ["no such file" if p == "nowhere.jpg" else Path(p).parent.name for p in paths]


def names_of(photos: Iterable[Photo | None]) -> list[str]:
    return [photo.name for photo in photos if photo is not None]


def test_inputs_are_files_folders_patterns_and_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in (
        "f/b.jpg",
        "f/a/z.png",
        "f/.hidden.jpg",
        "f/notes.txt",
        "x[1].jpg",
        "x1.jpg",
        "deep/er/y.jpg",
    ):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()
    assert names_of(list_inputs(["f"], [])) == ["f/b.jpg", "f/a/z.png"]
    assert names_of(list_inputs(["x[1].jpg"], [])) == ["x[1].jpg"]
    assert names_of(list_inputs(["x?.jpg", "**/y.jpg"], [])) == ["x1.jpg", "deep/er/y.jpg"]
    assert names_of(list_inputs(["f/notes.txt"], [])) == ["f/notes.txt"]
    assert names_of(list_inputs(["x1.jpg", "-", "f"], ["gone\n", "\n", "deep\r\n"])) == [
        *("x1.jpg", "gone", "deep/er/y.jpg", "f/b.jpg", "f/a/z.png")
    ]


@pytest.mark.parametrize("name", ["nowhere.jpg", "nowhere/", "*.nothing", ""])
def test_something_missing_on_the_command_line_is_refused_at_once(place: Path, name: str) -> None:
    with pytest.raises(BreedsError, match="No such file or folder"):
        list_inputs(["photos", name], [])
    assert_refused(script("photos", name, "--out", "out.csv"), "No such file or folder")
    assert not Path("out.csv").exists()


def test_nothing_but_bad_photos_opens_no_engine(place: Path) -> None:
    result = script("-", stdin="gone.jpg\nphotos\0.jpg\n/dev/zero\n")
    assert result.returncode == 1
    lines = result.stdout.splitlines()
    assert len(lines) == 4
    for line, reason in zip(lines[1:], ["no such file", "null", "not a regular file"], strict=True):
        assert reason in line


@pytest.mark.slow
def test_a_list_on_stdin_is_answered_as_it_comes(place: Path) -> None:
    """One line, one answer, while the list is still open; then many at once, and a line without an end."""
    photos = sorted(map(str, Path("photos").rglob("*.jpg")))
    command = [sys.executable, f"{ROOT}/predict.py", "-", "--format", "json"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        too_late = threading.Timer(60, process.kill)  # the lines below would wait for ever
        too_late.start()
        assert process.stdin and process.stdout
        for photo in photos[:3]:
            process.stdin.write(f"{photo}\n")
            process.stdin.flush()
            assert json.loads(process.stdout.readline())["path"] == photo
        process.stdin.write("\n".join([*photos * 30, "nowhere.jpg"]))
        process.stdin.close()
        rest = [json.loads(line)["path"] for line in process.stdout]
        too_late.cancel()
    assert rest == [*photos * 30, "nowhere.jpg"]
    assert process.returncode == 1


def test_lines_that_are_there_are_answered_together(model: Model, quick_engine: Openings) -> None:
    """A list in a file, or in a full pipe, is no slower than a folder."""

    def read_ahead(file: Iterable[str]) -> list[int]:
        """How many lines have been read when each answer comes."""
        taken: list[Photo | None] = []

        def noted() -> Iterator[Photo | None]:
            for photo in list_inputs(["-"], file):
                taken.append(photo)
                yield photo

        return [len([one for one in taken if one]) for _ in predict(model, noted(), opener=quick_engine)]

    photo = min(Path("photos").rglob("*.jpg"))
    Path("list.txt").write_text(f"{photo}\n" * 300)
    with open("list.txt") as file:
        assert read_ahead(file) == [128] * 128 + [256] * 128 + [300] * 44
    reader, writer = os.pipe()
    os.write(writer, f"{photo}\n".encode() * 300)
    os.close(writer)
    with open(reader) as file:
        assert read_ahead(file) == [128] * 128 + [256] * 128 + [300] * 44


def test_a_stream_that_is_no_list_is_refused(place: Path) -> None:
    assert_refused(script("-", stdin="x" * 200_000), "stdin", "one path on each line")


_MANY = """
import io, sys
from dataclasses import replace
from itertools import count
from pathlib import Path
import numpy as np
from PIL import Image
from pyarrow import parquet
from test_predict import Means
from breeds.heads.model import Model
from breeds.photos import FilePhoto
from breeds.prediction import predict
from breeds.report.answers import write_answers
folder, photos = Path(sys.argv[1]), int(sys.argv[2])
data = io.BytesIO()
Image.new("RGB", (9, 7)).save(data, "png")
def paths():
    for n in range(photos):  # one file that is another each time, so that no disk is filled
        path = folder / f"{n % 200}.png"
        path.write_bytes(data.getvalue() + n.to_bytes(4, "big"))
        yield FilePhoto(str(path))
        if n % 100 == 99:
            yield None
model = Model.load(folder / "models/photos.safetensors")
model = replace(model, config=replace(model.config, size=96))  # small photos are quick
answers = predict(
    model, paths(), cache=folder / "cache", cache_bytes=10**7, opener=lambda *_, **__: Means()
)
assert write_answers(answers, model.classes, folder / "out.csv", "csv", 1) == (photos, [])
print(open("/proc/self/status").read().split("VmHWM:")[1].split()[0])
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
def test_memory_does_not_grow_with_the_number_of_photos(place: Path) -> None:
    """The features of 1,600 photos more are 13 MB: none of them is kept."""
    env = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT}/tests:{ROOT}/tests/core"}
    env["MALLOC_ARENA_MAX"] = "1"  # else memory is kept for each thread, the more the more of them meet
    peaks = [
        int(subprocess.run(
            [sys.executable, "-c", _MANY, place, str(photos)],
            env=env, check=True, capture_output=True, text=True,
        ).stdout)
        for photos in (400, 2000)
    ]  # fmt: skip
    assert peaks[1] - peaks[0] < 6000


@pytest.mark.slow
def test_odd_metadata_are_no_news(place: Path, model: Model) -> None:
    """Pillow warns of them; the photo decodes well, and nobody can act on it."""
    odd = Path("odd.jpg")
    Image.new("RGB", (40, 30), "red").save(odd, exif=b"Exif\0\0II*\0\xff\xff\xff\xff garbage")
    with FeatureCache(Path("models")) as cache:
        cache.add(model.config, key_of(odd.read_bytes()), np.ones(2048, dtype=np.float32))
    code = (
        "import predict, sys; from pathlib import Path; from breeds.cli import common\n"
        "from breeds.photos import decode\n"
        "def main():\n"
        "    decode(Path('odd.jpg').read_bytes(), 8)\n"
        "    return predict.main()\n"
        "common.run(main)"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-W", "error", "-c", code, "odd.jpg"]
    result = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "EXIF" not in result.stderr


# what is computed, and what is not


def test_the_training_store_answers_for_its_photos(place: Path) -> None:
    result = script("photos", "--out", "out.csv")
    assert result.returncode == 0, result.stderr
    frame = read_csv()
    assert len(frame) == 12
    assert frame.breed.tolist() == [Path(path).parent.name for path in frame.path]


@pytest.mark.slow
def test_a_second_run_opens_no_engine_and_says_the_same(
    model: Model, quick_engine: Openings, unseen: list[str]
) -> None:
    first = numbers(answered(model, unseen, cache=Path("models"), opener=quick_engine))
    assert quick_engine == ["opened"]
    assert len({*first.values()}) == len(unseen)
    assert numbers(answered(model, unseen, cache=Path("models"), opener=quick_engine)) == first
    assert quick_engine == ["opened"]
    outputs = [script(*unseen).stdout for _ in range(2)]
    assert outputs[0] == outputs[1]
    assert [line.split(",")[0] for line in outputs[0].splitlines()] == ["path", *unseen]
    assert sorted(os.listdir("models")) == ["features.sqlite", "photos.safetensors"]


def test_a_store_of_another_config_does_not_answer(
    place: Path, model: Model, random_config: FeatureConfig, quick_engine: Openings
) -> None:
    shutil.rmtree("features")
    other = dataclasses.replace(random_config, resize="crop")
    made_up_store(place / "photos", place / "features" / "photos.h5", other)
    photo = str(min(Path("photos").rglob("*.jpg")))
    assert [answer.error for answer in answered(model, [photo], opener=quick_engine)] == [""]
    assert quick_engine == ["opened"]


@pytest.mark.parametrize("how", ["no database", "page", "schema"])
def test_a_damaged_cache_is_set_aside_and_done_without(
    how: str, model: Model, quick_engine: Openings, unseen: list[str], said: pytest.LogCaptureFixture
) -> None:
    first = numbers(answered(model, unseen[:2], cache=Path("cache"), opener=quick_engine))
    cache = Path("cache/features.sqlite")
    data = cache.read_bytes()
    assert len(data) % 4096 == 0
    damaged = {
        "no database": data[::-1],
        "page": data[:4096] + bytes([7]) * (len(data) - 4096),
        "schema": data.replace(b"CREATE TABLE", b"CREATE \x1b[2JX"),
    }[how]
    cache.write_bytes(damaged)
    assert numbers(answered(model, unseen[:2], cache=Path("cache"), opener=quick_engine)) == first
    error = said.text
    assert "features of this run are not kept: cache/features.sqlite: " in error
    assert "set aside as cache/features.damaged" in error
    assert "\x1b" not in error
    assert os.listdir("cache") == ["features.damaged"]
    assert numbers(answered(model, unseen[:2], cache=Path("cache"), opener=quick_engine)) == first
    assert len(quick_engine) == 3
    assert numbers(answered(model, unseen[:2], cache=Path("cache"), opener=quick_engine)) == first
    assert len(quick_engine) == 3


def test_a_flipped_bit_in_a_feature_is_computed_again(
    model: Model, quick_engine: Openings, unseen: list[str]
) -> None:
    first = numbers(answered(model, unseen[:2], cache=Path("cache"), opener=quick_engine))
    cache = Path("cache/features.sqlite")
    data = bytearray(cache.read_bytes())
    (config, _), key = model.parts[0], key_of(Path(unseen[0]).read_bytes())
    with FeatureCache(Path("cache")) as opened:
        middle = opened.get(config, [key])[key][1000:1010].tobytes()
    data[data.index(middle)] ^= 1
    cache.write_bytes(data)
    for _ in range(2):
        assert numbers(answered(model, unseen[:2], cache=Path("cache"), opener=quick_engine)) == first
        assert quick_engine == ["opened", "opened"]


def test_a_cache_that_another_run_writes_is_read_and_then_written(
    model: Model, quick_engine: Openings, unseen: list[str], said: pytest.LogCaptureFixture
) -> None:
    first = numbers(answered(model, unseen[:2], cache=Path("models"), opener=quick_engine))
    other = sqlite3.connect("models/features.sqlite", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    assert numbers(answered(model, unseen[:2], cache=Path("models"), opener=quick_engine)) == first
    assert quick_engine == ["opened"]
    answers = answered(model, unseen[2:4], cache=Path("models"), opener=quick_engine)
    found = numbers(answers_before_the_last(answers, lambda: other.execute("COMMIT")))
    assert "not kept" not in said.text
    assert numbers(answered(model, unseen[2:4], cache=Path("models"), opener=quick_engine)) == found
    assert quick_engine == ["opened", "opened"]


def answers_before_the_last(answers: Iterator[Answer], then: Callable[[], object]) -> Iterator[Answer]:
    yield next(answers)
    then()
    yield from answers


def test_a_cache_that_stays_locked_is_done_without_and_said_so(
    model: Model,
    quick_engine: Openings,
    unseen: list[str],
    monkeypatch: pytest.MonkeyPatch,
    said: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("breeds.features.cache._WAIT_SECONDS", 0)
    list(answered(model, unseen[:1], cache=Path("models"), opener=quick_engine))
    other = sqlite3.connect("models/features.sqlite", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    assert [
        answer.error for answer in answered(model, unseen[:2], cache=Path("models"), opener=quick_engine)
    ] == ["", ""]
    error = said.text
    assert error.count("not kept") == 1
    assert "features of this run are not kept: models/features.sqlite: database is locked" in error
    assert sorted(os.listdir("models")) == ["features.sqlite", "photos.safetensors"]


@pytest.mark.parametrize("kind", ["folder", "link", "pipe", "pipe as journal", "other database"])
def test_what_is_no_cache_of_ours_is_left_alone_and_said_so(
    kind: str, model: Model, quick_engine: Openings, unseen: list[str], said: pytest.LogCaptureFixture
) -> None:
    Path("cache").mkdir()
    cache = Path("cache/features.sqlite")
    if kind == "folder":
        cache.mkdir()
    elif kind == "link":
        cache.symlink_to("../victim")
    elif kind == "other database":
        with sqlite3.connect(cache) as other:
            other.execute("CREATE TABLE features (id, feature)")
        other.close()
    else:
        os.mkfifo(f"{cache}-journal" if kind == "pipe as journal" else cache)
    (before,) = os.listdir("cache")
    content = cache.read_bytes() if kind == "other database" else b""
    assert [
        answer.error for answer in answered(model, unseen[:1], cache=Path("cache"), opener=quick_engine)
    ] == [""]
    assert said.text.count("features of this run are not kept: cache/features.sqlite") == 1
    assert os.listdir("cache") == [before]
    assert not Path("victim").exists()
    assert kind != "other database" or cache.read_bytes() == content


@pytest.mark.slow
def test_no_cache_reads_and_writes_none(place: Path, model: Model, unseen: list[str]) -> None:
    photo = unseen[0]
    with FeatureCache(Path("models")) as cache:
        cache.add(model.config, key_of(Path(photo).read_bytes()), np.ones(2048, dtype=np.float32))
    before = Path("models/features.sqlite").read_bytes()
    assert script(photo).returncode == 0
    assert "an engine was opened" in script(photo, "--no-cache", "--engine", "keras").stderr
    assert script("photos", "--no-cache").returncode == 0
    assert Path("models/features.sqlite").read_bytes() == before


@pytest.mark.parametrize("size", ["1MB", "0", "10", "5 GiB", "-1GB", "lots"])
def test_a_size_that_is_none_is_refused(place: Path, size: str) -> None:
    result = script("photos", f"--cache-size={size}")
    assert result.returncode == 2
    assert "is not a size from 10MB up" in result.stderr


# the cache itself


def features_of(numbers: Iterable[int]) -> dict[str, np.ndarray]:
    """Made-up features by key."""
    return {
        key_of(str(n).encode()): np.random.default_rng(n).normal(size=2048).astype(np.float32)
        for n in numbers
    }


@pytest.mark.slow
def test_the_cache_stays_one_file_within_its_bound_and_keeps_the_newest(
    random_config: FeatureConfig, tmp_path: Path
) -> None:
    made = features_of(range(3000))
    keys = list(made)
    for start in range(0, 3000, 100):  # a run each
        with FeatureCache(tmp_path, 10**7) as cache:
            for key in keys[start : start + 100]:
                cache.add(random_config, key, made[key])
        assert (tmp_path / "features.sqlite").stat().st_size <= 10**7
        assert os.listdir(tmp_path) == ["features.sqlite"]
    with FeatureCache(tmp_path) as cache:
        found = cache.get(random_config, keys)
        assert found.keys() == {*keys[-len(found) :]}
        assert 1000 < len(found) < 10**7 / (4 * 2048)
        assert all(np.array_equal(feature, made[key]) for key, feature in found.items())
        assert cache.get(dataclasses.replace(random_config, size=71), keys) == {}
    with FeatureCache(tmp_path, 2 * 10**6) as cache:
        cache.add(random_config, key_of(b"new"), made[keys[0]])
    assert (tmp_path / "features.sqlite").stat().st_size <= 2 * 10**6
    with FeatureCache(tmp_path) as cache:
        assert cache.get(random_config, [*keys[-9:], key_of(b"new")]).keys() == {*keys[-9:], key_of(b"new")}


def test_a_journal_of_others_that_comes_and_goes_is_no_reason_to_give_up(
    random_config: FeatureConfig, tmp_path: Path, said: pytest.LogCaptureFixture
) -> None:
    ((key, feature),) = features_of([0]).items()
    with FeatureCache(tmp_path) as cache:
        cache.add(random_config, key, feature)
    come_and_go = "import os, sys\nwhile True: open(sys.argv[1], 'w').close(); os.unlink(sys.argv[1])"
    other = subprocess.Popen([sys.executable, "-c", come_and_go, tmp_path / "features.sqlite-journal"])
    try:
        for _ in range(300):
            with FeatureCache(tmp_path) as cache:
                assert cache.get(random_config, [key]).keys() == {key}, said.text
    finally:
        other.kill()
        other.wait()


_KEEP_FOR_EVER = """
import logging, sys
from itertools import count
from pathlib import Path
import numpy as np
from breeds.photos import FilePhoto, Photo, key_of
from breeds.features import cache as module
from breeds.features.cache import FeatureCache
from breeds.config import FeatureConfig
module._WAIT_SECONDS = 100  # whoever gives up goes on without keeping anything, and says why
logging.basicConfig(level=logging.INFO)
cache, config, name = FeatureCache(Path(sys.argv[1])), FeatureConfig.from_json(sys.argv[2]), sys.argv[3]
for n in count():
    cache.add(config, key_of(f"{name} {n}".encode()), np.full(2048, n, dtype=np.float32))
    if n % 7 == 6:
        cache.commit()
        print(n, flush=True)
"""


@pytest.mark.slow
def test_a_kill_at_any_moment_loses_nothing_committed_also_beside_another_writer(
    random_config: FeatureConfig, tmp_path: Path
) -> None:
    for kill in range(3):
        writers = {
            f"{kill} {name}": subprocess.Popen(
                [sys.executable, "-c", _KEEP_FOR_EVER, tmp_path, random_config.to_json(), f"{kill} {name}"],
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stdout=subprocess.PIPE,
                text=True,
            )
            for name in "ab"
        }
        said = {}
        for name, writer in writers.items():
            assert writer.stdout is not None
            said[name] = "".join(writer.stdout.readline() for _ in range(1 + 2 * kill))
        for writer in writers.values():
            writer.kill()
        for name, writer in writers.items():  # before anything is read: who is not dead yet has its lock
            said[name] += writer.communicate()[0]
        with FeatureCache(tmp_path) as cache:
            for name in writers:
                last = int(said[name].split()[-1])
                keys = {key_of(f"{name} {n}".encode()): n for n in range(last + 1)}
                found = cache.get(random_config, keys)
                assert {key: feature[9] for key, feature in found.items()} == keys
            # A journal that was begun and holds nothing yet is left alone until somebody writes.
            cache.add(random_config, key_of(f"{kill}".encode()), np.zeros(2048, dtype=np.float32))
        assert os.listdir(tmp_path) == ["features.sqlite"]


# weights


def test_other_weights_are_refused_and_both_named(place: Path) -> None:
    write_arrays(Path("other.h5"), {"conv2d/vars/0": np.ones((3, 3, 3, 32), np.float32)})
    result = script("photos", "--weights", "other.h5", "--out", "out.csv")
    assert_refused(result, "weights random", "other.h5", "file:other.h5")
    assert not Path("out.csv").exists()


def test_renamed_weights_are_the_same_weights(place: Path) -> None:
    assert script("photos", "--weights", "random").returncode == 0


@pytest.mark.slow
def test_a_model_whose_weights_are_gone_says_which_and_where(
    model: Model, photos: Path, unseen: list[str]
) -> None:
    model.config = dataclasses.replace(model.config, weights="file:mine.h5", weights_sha256="b" * 64)
    model.weights_path = "/nowhere/mine.h5"
    with pytest.raises(BreedsError, match=r"file:mine\.h5 \(b{12}\).*/nowhere/mine\.h5.*--weights PATH"):
        list(answered(model, unseen, engine="openvino"))


# outputs


@pytest.mark.slow
def test_other_formats_have_the_same_answers(place: Path) -> None:
    Path("bad.jpg").touch()
    assert script("photos", "bad.jpg", "--top-k", "2", "--out", "out.csv").returncode == 1
    frame = read_csv()
    out = script("photos", "bad.jpg", "--top-k", "2", "--format", "json").stdout
    lines = [json.loads(line) for line in out.splitlines()]
    assert [line["path"] for line in lines] == frame.path.tolist()
    assert [line["breed"] or "" for line in lines] == frame.breed.tolist()
    assert [[guess["breed"] for guess in line["top"]] for line in lines[:-1]] == [
        list(pair) for pair in zip(frame.breed[:-1], frame.breed_2[:-1], strict=True)
    ]
    assert "empty file" in lines[-1]["error"]
    script("photos", "bad.jpg", "--top-k", "2", "--format", "parquet", "--out", "out.parquet")
    table = pd.read_parquet("out.parquet")
    assert list(table) == list(frame)
    assert table.path.tolist() == frame.path.tolist()
    assert table.error.isna().tolist() == [True] * (len(lines) - 1) + [False]
    assert table.error.iloc[-1] == lines[-1]["error"]
    for number, name in enumerate(("breed", "breed_2")):
        probability = name.replace("breed", "probability")
        assert table[[name, probability]].iloc[-1].isna().all()
        for row, line in zip(table.to_dict("records"), lines[:-1], strict=False):
            best = line["top"][number]
            assert row[name] == best["breed"] and abs(row[probability] - best["probability"]) < 1e-6
    script("photos", "bad.jpg", "--format", "kaggle", "--out", "kaggle.csv")
    kaggle = pd.read_csv("kaggle.csv", index_col="id", dtype={"id": str})
    assert kaggle.index.tolist() == [Path(path).stem for path in frame.path]
    assert kaggle.iloc[:-1].idxmax(axis=1).tolist() == frame.breed[:-1].tolist()
    assert np.allclose(kaggle.iloc[-1], 1 / 3)


def test_odd_names_neither_stop_the_run_nor_become_formulas(place: Path) -> None:
    photo = min(Path("photos").rglob("*.jpg"))
    Path("odd").mkdir()
    for name in ("=1+1.jpg", "new\nline.jpg", '😀,".jpg', "\udcff.jpg"):
        shutil.copy(photo, Path("odd", name))
    os.chdir("odd")
    result = script(*sorted(os.listdir()), "--model", "../models/photos.safetensors", "--out", "../out.csv")
    assert result.returncode == 0, result.stderr
    assert sorted(read_csv("../out.csv").path) == ["'=1+1.jpg", "new\nline.jpg", "�.jpg", '😀,".jpg']


@pytest.mark.slow
def test_parquet_is_written_in_groups_to_a_file_and_replaces_only_its_own_kind(
    place: Path,
) -> None:
    model, shares = Model.load(place / "models/photos.safetensors"), np.array([0.2, 0.7, 0.1])
    for _ in range(2):
        answers = (Answer(f"{number}.jpg", shares) for number in range(10_000))
        assert write_answers(answers, model.classes, Path("out.parquet"), "parquet", 1) == (10_000, [])
    about = parquet.read_metadata("out.parquet")
    groups = [about.row_group(i).num_rows for i in range(about.num_row_groups)]
    assert groups == [GROUP_ROWS, 10_000 - GROUP_ROWS]
    assert json.loads(about.metadata[b"breeds"])["classes"] == model.classes
    assert_refused(script("photos", "--format", "parquet"), "name one with --out")
    as_csv = script("photos", "--format", "csv", "--out", "out.parquet")
    assert_refused(as_csv, "out.parquet", "is not answers of Breeds")
    assert script("photos", "--out", "out.parquet").returncode == 0  # as its name says
    assert len(pd.read_parquet("out.parquet")) == 12
    pd.read_parquet("out.parquet").to_parquet("mine.parquet")
    assert_refused(script("photos", "--format", "parquet", "--out", "mine.parquet"), "not answers of Breeds")


@pytest.mark.parametrize("out", ["file/out.csv", "photos", "/proc/out.csv"])
def test_an_output_that_cannot_be_written_is_found_before_any_work(place: Path, out: str) -> None:
    Path("file").touch()
    result = script("photos", "--out", out)
    assert_refused(result, f"Cannot write {out}")
    assert os.listdir("models") == ["photos.safetensors"]


def test_an_output_is_whole_or_as_it_was(place: Path) -> None:
    old = "path,breed,probability,guess,margin,error\n"
    Path("out.csv").write_text(old)
    new = Path("photos", "new.jpg")
    new.write_bytes(min(Path("photos").rglob("*.jpg")).read_bytes() + b"\0")
    result = script("photos", "--out", "out.csv", "--engine", "keras")
    assert "an engine was opened" in result.stderr  # and broke, on the way
    assert Path("out.csv").read_text() == old
    assert not [name for name in os.listdir() if name.endswith(".tmp")]


@pytest.mark.slow
def test_a_reader_that_has_seen_enough_is_no_error(place: Path) -> None:
    Path("list.txt").write_text(f"{min(Path('photos').rglob('*.jpg'))}\n" * 3000)
    command = f"{sys.executable} {ROOT}/predict.py - < list.txt | head -1; echo ${{PIPESTATUS[0]}}"
    result = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines() == ["path,breed,probability,guess,margin,error", "0"]
    assert "Traceback" not in result.stderr
    assert "Exception" not in result.stderr


@pytest.mark.slow
def test_a_reader_that_is_gone_before_the_first_row_is_no_error(place: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, f"{ROOT}/predict.py", "photos"]
    result = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert result.returncode == 0
    assert "Traceback" not in result.stderr
    assert "Exception" not in result.stderr


@pytest.mark.slow
def test_a_training_store_replaced_meanwhile_gives_no_wrong_answers(
    model, random_config, quick_engine
) -> None:
    paths = sorted(map(str, Path("photos").rglob("*.jpg"))) * 20
    right = [a.probabilities.argmax() for a in answered(model, paths, opener=quick_engine)]
    store = Store(Path("features/photos.h5"))
    reverse, features = store.table.take(range(len(store.table))[::-1]), store.features()[::-1]
    answers = answered(model, paths, opener=quick_engine)
    found = [next(answers)]
    write_store(store.path, reverse, store.config, features, "")
    computed = answered(dataclasses.replace(model, record={"n_train": 1}), paths, opener=quick_engine)
    expected = [*right[:128], *[answer.probabilities.argmax() for answer in computed][128:]]
    found += answers  # what the store had no time to answer is computed: the made-up features were others
    assert [answer.probabilities.argmax() for answer in found] == expected
    assert quick_engine


@pytest.mark.slow
def test_names_on_stdin_need_not_be_utf8(place: Path) -> None:
    photo = min(Path("photos").rglob("*.jpg"))
    os.rename(photo, b"photos/\xff.jpg")
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8:strict"}
    command = [sys.executable, f"{ROOT}/predict.py", "-"]
    result = subprocess.run(command, input=b"photos/\xff.jpg\n", env=env, capture_output=True, check=False)
    assert result.returncode == 0, result.stderr.decode()


@pytest.mark.slow
def test_what_is_like_no_class_is_unknown_with_the_best_guess_beside_it(
    photos: Path, random_config: FeatureConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    known = sorted(map(str, photos.rglob("*.jpg")))
    store = made_up_store(photos, Path("features/photos.h5"), random_config)
    model = train(Store(store), C=1.0)
    stranger = Path("stranger.jpg")
    shutil.copy(known[0], stranger)
    with stranger.open("ab") as file:
        file.write(b"!")
    far = np.random.default_rng(1).normal(size=2048).astype(np.float32) * 5
    with FeatureCache(Path("models")) as cache:
        cache.add(random_config, key_of(stranger.read_bytes()), far)
    model.save(Path("models/photos.safetensors"))
    assert script(stranger, known[0], "--out=out.csv").returncode == 0
    row, own = read_csv().itertuples()
    assert row.breed == "unknown"
    assert row.guess in model.classes
    assert own.breed == own.guess == Path(known[0]).parent.name
    assert script(stranger, "--no-unknown", "--out=out.csv").returncode == 0
    (plain,) = read_csv().itertuples()
    assert plain.breed == plain.guess == row.guess
    answer = json.loads(script(stranger, "--format=json").stdout)
    assert (answer["breed"], answer["guess"]) == ("unknown", row.guess)


def test_a_store_that_goes_away_meanwhile_is_done_without(
    model: Model, quick_engine: Openings, photos: Path
) -> None:
    files = [FilePhoto(str(path)) for path in sorted(photos.rglob("*.jpg"))[:4]]
    answers = predict(model, [*files[:2], None, *files[2:]], opener=quick_engine)
    first = [next(answers) for _ in range(2)]
    assert not quick_engine
    Path("features/photos.h5").unlink()
    rest = list(answers)
    assert quick_engine == ["opened"]
    assert all(answer.probabilities is not None for answer in [*first, *rest])

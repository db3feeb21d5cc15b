"""Where it looked: the map adds up to the score, lies where it belongs, and is saved whatever the names."""

from __future__ import annotations

import csv
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import (
    SHARED,
    SHARED_WEIGHTS,
    assert_refused,
    converted_in_this_process,
    copy_some,
    extract_photos,
    needs_shared,
    run_script,
    tensorflow,
)
from PIL import Image, ImageFilter

from breeds.backbones import XCEPTION
from breeds.backbones.resolve import open_engine
from breeds.backbones.weights import get_weights
from breeds.config import FeatureConfig
from breeds.errors import BreedsError, PhotoError
from breeds.features import Store
from breeds.heads.explain import EXACT, GRADIENT, Explanation, Neighbours, class_evidence, linear_head
from breeds.heads.model import Model
from breeds.photos import FilePhoto, Photo, decode, key_of, photo_at
from breeds.report.explanations import AGAINST, FOR, card, overlay, picture_name
from breeds.report.gallery import explain
from breeds.training import train

# Few photos of a class are few for scikit-learn's solver, and enough here.
pytestmark = pytest.mark.filterwarnings("ignore:.*[Ll]ine [Ss]earch")


# --- the map adds up to the score --------------------------------------------------------------


def adds_up_to(model: Model, feature: np.ndarray, evidence: np.ndarray) -> float:
    """By how much the map's mean and the bias miss the score of the feature, at most."""
    standard = (feature.astype(np.float64) - model.mean) / model.scale
    score = model.logits(feature[None])[0] * model.temperature
    return float(np.abs(evidence.mean(axis=(1, 2)) + linear_head(model, standard)[1] - score).max())


@pytest.fixture(scope="module")
def dogs(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Real dogs, three of each of four breeds, with the features that the genuine weights give."""
    folder = tmp_path_factory.mktemp("dogs")
    copy_some(SHARED / "data/dogs10", folder / "dogs", breeds=4, each=3)
    with converted_in_this_process():
        extract_photos(folder / "dogs", folder / "dogs.h5", weights=str(SHARED_WEIGHTS))
    return Store(folder / "dogs.h5")


@needs_shared
@tensorflow
@pytest.mark.slow
@pytest.mark.parametrize(("head", "kind"), [("logistic", EXACT), ("dense", GRADIENT)])
def test_on_real_dogs_the_map_is_the_score_and_the_feature_is_the_stores(
    dogs: Store, head: str, kind: str
) -> None:
    model = train(dogs, head=head)
    rows = range(0, len(dogs.table), 3)
    photos = [(dogs.table.key[row], FilePhoto(dogs.table.path[row], root=dogs.table.root)) for row in rows]
    features = dogs.features(np.array(rows))
    for engine in ("openvino", "keras") if head == "logistic" else ("openvino",):
        some = len(photos) if engine == "openvino" else 2
        found = list(explain(model, photos[:some], str(SHARED_WEIGHTS), engine))
        assert len(found) == some
        for one, feature in zip(found, features, strict=False):
            assert isinstance(one, Explanation)
            assert one.kind == kind and one.evidence.shape == (4, 10, 10)
            assert adds_up_to(model, one.feature, one.evidence) < 1e-4
            if engine == "openvino":  # that of the store, to the last bit, though there is an output more
                assert np.array_equal(one.feature, feature)
                assert np.array_equal(one.probabilities, model.probabilities(feature[None])[0])
                assert one.answer == np.argsort(-one.probabilities)[0]


@pytest.mark.thorough
@needs_shared
@tensorflow
@pytest.mark.slow
def test_in_bf16_the_map_is_still_the_score(dogs: Store) -> None:
    model = train(dogs, C=0.01)
    weights = get_weights(str(SHARED_WEIGHTS), XCEPTION)
    photos = [decode(photo_at(dogs.table.root, path).read(), 299) for path in dogs.table.path[:3]]
    try:
        engine = open_engine(replace(model.config, precision="bf16"), lambda: weights, maps=True)
    except BreedsError as error:
        assert "no bfloat16 arithmetic" in str(error)
        return
    for feature, unpooled in engine.stream_maps(photos):
        assert adds_up_to(model, feature, class_evidence(model, unpooled)) < 1e-4


def made_up(kind: str, seed: int = 0) -> tuple[Model, np.ndarray]:
    """A model with random numbers in it, and a map for it."""
    rng = np.random.default_rng(seed)

    def drawn(*shape: int) -> np.ndarray:
        return rng.normal(size=shape).astype(np.float32)

    shapes = [(16, 4)] if kind == "logistic" else [(16, 32), (32, 4)]
    model = Model(
        kind=kind,
        classes=list("abcd"),
        config=FeatureConfig("xception", "random", "0" * 64, 96, "stretch"),
        weights_path="",
        mean=drawn(16),
        scale=np.abs(drawn(16)) + 0.5,
        layers=[(drawn(*shape), drawn(shape[1])) for shape in shapes],
        seen=np.zeros((0, 32), dtype=np.uint8),
        temperature=1.7,
    )
    return model, rng.normal(size=(3, 5, 16)).astype(np.float32)


@pytest.mark.parametrize("kind", ["logistic", "dense"])
def test_evidence_is_the_derivative_of_the_score_for_every_cell(kind: str) -> None:
    model, unpooled = made_up(kind)
    evidence = class_evidence(model, unpooled)
    pooled = unpooled.astype(np.float64).mean(axis=(0, 1))
    step = 1e-5
    for row in range(3):
        for column in range(5):
            away = (unpooled[row, column].astype(np.float64) - model.mean) * step
            up, down = (model.logits((pooled + sign * away)[None])[0] for sign in (1, -1))  # type: ignore[arg-type]
            wanted = (up - down) / (2 * step) * model.temperature
            assert np.allclose(evidence[:, row, column], wanted, atol=1e-6)
    assert adds_up_to(model, pooled, evidence) < 1e-9


# --- explain ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def drawn(drawn_photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with twelve drawn photos of three breeds, and a model of them on random weights."""
    folder = tmp_path_factory.mktemp("explained")
    for breed in sorted(drawn_photos.iterdir())[:3]:
        (folder / "photos" / breed.name).mkdir(parents=True)
        for photo in sorted(breed.iterdir())[:4]:
            shutil.copyfile(photo, folder / "photos" / breed.name / photo.name)
    extract_photos(folder / "photos", folder / "features/p.h5", size=96, resize="crop")
    model = train(Store(folder / "features/p.h5"), C=0.01)
    model.unknown = None
    model.save(folder / "models/p.safetensors")
    return folder


@pytest.fixture
def place(drawn: Path, tmp_path: Path) -> Path:
    """A copy of that folder, to do with as a test likes; the model's store is the original's."""
    return shutil.copytree(drawn, tmp_path / "place")


def keyed(*paths: Path) -> list[tuple[str, Photo]]:
    return [(key_of(path.read_bytes()), FilePhoto(str(path))) for path in paths]


@pytest.mark.slow
def test_photos_are_explained_in_order_and_bad_ones_are_reasons(place: Path) -> None:
    model = Model.load(place / "models/p.safetensors")
    photos = sorted(place.rglob("photos/*/*.jpg"))[:3]
    bad = place / "bad.jpg"
    bad.write_bytes(b"no photo")
    known = keyed(photos[0], bad, photos[1], photos[2], photos[0])
    photos[2].write_bytes(photos[2].read_bytes() + b"!")
    found = list(explain(model, known))
    assert [isinstance(one, PhotoError) for one in found] == [False, True, False, True, False]
    assert all(isinstance(one, Explanation | PhotoError) for one in found)
    assert "changed while" in str(found[3])
    features = Store(place / "features/p.h5").features_of([known[0][0], known[2][0]])
    for one, wanted in zip((found[0], found[2], found[4]), (*features, features[0]), strict=True):
        assert isinstance(one, Explanation)
        assert np.array_equal(one.feature, wanted)


def test_a_model_on_several_stores_is_refused_before_any_work() -> None:
    model, _ = made_up("logistic")
    model.also = [(model.config, "")]
    with pytest.raises(BreedsError, match="several stores"):
        next(explain(model, iter([("", FilePhoto(""))])))


# --- neighbours ---------------------------------------------------------------------------------


@pytest.mark.parametrize("block", [1, 7, 1024])
def test_the_nearest_are_scikit_learns(make_store, block: int) -> None:
    from sklearn.neighbors import NearestNeighbors

    store = Store(make_store({"a": 9, "b": 8, "c": 5}))
    keys = set(store.table.key[3:])
    neighbours = Neighbours(store, keys, block)
    assert len(neighbours) == 19
    among = store.features()[3:]
    queries = np.vstack([store.features()[:5], among[:1]])
    judge = NearestNeighbors(n_neighbors=4, metric="cosine", algorithm="brute").fit(
        among - among.mean(axis=0)
    )
    distances, rows = judge.kneighbors(queries - among.mean(axis=0))
    for found, wanted, apart in zip(neighbours.nearest(queries, 4), rows, distances, strict=True):
        assert [one.path for one in found] == [store.table.path[3 + row] for row in wanted]
        assert [one.label for one in found] == [store.table.label[3 + row] for row in wanted]
        assert np.allclose([one.similarity for one in found], 1 - apart, atol=1e-5)
    assert found[0].key == store.table.key[3] and found[0].similarity == pytest.approx(1)
    assert len(neighbours.nearest(queries, 100)[0]) == 19
    assert Neighbours(store, set()).nearest(queries) == [[]] * 6


# --- overlays -----------------------------------------------------------------------------------


@pytest.mark.parametrize("resize", ["stretch", "crop", "pad", "crop320-bicubic"])
@pytest.mark.parametrize("size", [(600, 300), (240, 480), (300, 300)])
def test_the_warm_lies_on_what_the_network_saw_there(size: tuple[int, int], resize: str, tmp_path) -> None:
    """Evidence that is the brightness of what `decode` gives must come back to the bright places."""
    width, height = size
    bright = Image.new("L", size, 0)
    side = min(size)
    spots = [(width // 2, height // 2), (width // 2 - side // 4, height // 2 + side // 4)]
    for x, y in spots:
        bright.paste(255, (x - side // 12, y - side // 12, x + side // 12, y + side // 12))
    bright.save(tmp_path / "a.png")
    seen = decode((tmp_path / "a.png").read_bytes(), 300, resize).mean(axis=2)
    cells = seen.reshape(30, 10, 30, 10).mean(axis=(1, 3)) - (128 if resize == "pad" else 0)
    cells[(cells == 0) | (cells < 0)] = 0
    grey = np.full((height, width, 3), 128, dtype=np.uint8)
    laid = np.asarray(overlay(grey, cells, resize, size=300)).astype(int)
    warm = laid[..., 0] - laid[..., 2]
    wanted = np.asarray(bright.filter(ImageFilter.BoxBlur(side / 30)), dtype=float)
    assert np.corrcoef(warm.ravel(), wanted.ravel())[0, 1] > 0.9
    for x, y in spots:
        assert warm[y, x] > 100
    if resize.startswith("crop") and (width != height or resize != "crop"):
        assert laid[0, 0].max() < 60  # what it did not see is dark
    else:
        assert abs(int(laid[0, 0].max()) - 128) < 30


def test_for_is_warm_against_is_cool_and_zero_leaves_the_photo() -> None:
    grey = np.full((40, 40, 3), 128, dtype=np.uint8)
    laid = np.asarray(overlay(grey, np.array([[2.0, -1.0], [0.0, 0.0]]))).astype(int)
    near, far = laid[0, 0], laid[0, -1]
    assert near[0] > near[2] + 100 and far[2] > far[0] + 30
    neutral = np.asarray(overlay(grey, np.zeros((2, 2)))).astype(int)
    assert np.ptp(neutral) == 0
    assert np.abs(laid[-1, -1] - neutral[0, 0]).max() <= 8  # a little of the neighbour's
    assert np.ptp(near) > np.ptp(far)  # one scale for both
    swapped = np.asarray(overlay(grey, -np.array([[2.0, -1.0], [0.0, 0.0]]), limit=2.0)).astype(int)
    assert swapped[0, 0, 2] > swapped[0, 0, 0]
    assert np.abs(np.array(FOR) - AGAINST).max() > 200


@pytest.mark.parametrize(
    "text", ["", "a\nb\r\x00\ud800", "x" * 10_000, "<b>&'\"", "\u202egnp.exe", "柴犬 🐕"]
)
def test_a_card_takes_any_text(text: str) -> None:
    picture = Image.new("RGB", (300, 200))
    made = card(text, text, [(text, picture)] * 3, text)
    assert made.size == card("a", "b", [("c", picture)] * 3).size


# --- predict.py --explain -----------------------------------------------------------------------


def table(folder: Path) -> list[dict[str, str]]:
    with open(folder / "explanations.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_the_answers_are_the_same_and_every_photo_has_its_picture(place: Path) -> None:
    photos = sorted(place.rglob("photos/*/*.jpg"))
    new = place / "new.jpg"
    new.write_bytes(photos[0].read_bytes() + b"!")
    (place / "twin").mkdir()
    shutil.copyfile(new, place / "twin" / "new.jpg")
    (place / "bad.jpg").write_bytes(photos[0].read_bytes()[:300])
    paths = ["photos", "new.jpg", "bad.jpg", "twin/new.jpg"]
    plain = run_script("predict.py", *paths, "--no-cache", cwd=place)
    explained = run_script("predict.py", *paths, "--explain", "why", cwd=place)
    again = run_script("predict.py", *paths, "--explain", "why", cwd=place)
    assert explained.stdout == plain.stdout == again.stdout
    assert [run.returncode for run in (plain, explained, again)] == [1, 1, 1]
    assert "no answer for bad.jpg" in explained.stderr and "no picture for" not in explained.stderr

    rows, answers = table(place / "why"), list(csv.DictReader(plain.stdout.splitlines()))
    assert len(rows) == len(answers) == 15
    for row, answer in zip(rows, answers, strict=True):
        assert (row["photo"], row["answer"], row["error"]) == (
            answer["path"], answer["breed"], answer["error"],
        )  # fmt: skip
        assert row["probability"] == answer["probability"]
        if not row["error"]:
            assert row["kind"] == EXACT and row["runner_up"] not in ("", row["guess"])
            with Image.open(place / "why" / row["picture"]) as picture:
                assert picture.format == "JPEG" and picture.width > 700
            assert (place / "photos" / row["nearest_1"]).is_file()
            assert row["label_1"] == Path(row["nearest_1"]).parent.name
            assert float(row["similarity_1"]) >= float(row["similarity_2"]) >= float(row["similarity_3"])
    store = Store(place / "features/p.h5").table
    seen = Model.load(place / "models/p.safetensors").seen_keys()
    trained = {path for key, path in zip(store.key, store.path, strict=True) if key in seen}
    assert {row["nearest_1"] for row in rows if not row["error"]} <= trained
    assert [row["picture"] for row in rows].count(rows[-1]["picture"]) == 2  # the same photo twice
    files = {path.name for path in (place / "why").iterdir()}
    assert files == {"explanations.csv"} | {row["picture"] for row in rows if row["picture"]}


@pytest.mark.slow
def test_hostile_names_stay_in_the_folder_and_never_meet(place: Path) -> None:
    source = min(place.rglob("photos/*/*.jpg")).read_bytes()
    names = [
        b"=cmd|' C calc'!A0.jpg", b"a\nb.jpg", b"<img src=x onerror=alert(1)>.jpg", "柴犬.jpg".encode(),
        b"\xff\xfe.jpg", b" .jpg", b"x" * 200 + b".jpg", b"-rf.jpg", "🐕.jpg".encode(),
    ]  # fmt: skip
    folder = place / "odd"
    folder.mkdir()
    for number, name in enumerate(names):
        with open(os.path.join(os.fsencode(folder), name), "wb") as file:
            file.write(source + bytes([number]))
    result = run_script("predict.py", "odd", "--explain", "why", cwd=place)
    assert result.returncode == 0, result.stderr
    rows = table(place / "why")
    pictures = {row["picture"] for row in rows}
    assert len(rows) == len(pictures) == len(names)
    assert {path.name for path in (place / "why").iterdir()} == pictures | {"explanations.csv"}
    assert all(name.isascii() and name[0].isalnum() and len(name) < 100 for name in pictures)
    assert any(row["photo"].endswith("'!A0.jpg") for row in rows)


def test_another_photo_of_the_same_name_has_another_picture() -> None:
    assert picture_name("a/rex.jpg", "0" * 64) != picture_name("b/rex.jpg", "1" * 64)
    assert picture_name("a/rex.jpg", "0" * 64) == picture_name("b/rex.png", "0" * 64)


@pytest.mark.slow
def test_without_the_training_photos_store_it_says_so_once(place: Path) -> None:
    model = Model.load(place / "models/p.safetensors")
    model.record["store"] = str(place / "gone.h5")
    model.save(place / "models/p.safetensors")
    result = run_script("predict.py", "photos", "--explain", "why", "--no-cache", cwd=place)
    assert result.returncode == 0, result.stderr
    assert result.stderr.count("nearest training photos are left out") == 1
    assert "gone.h5" in result.stderr
    assert all(row["picture"] and not row["nearest_1"] for row in table(place / "why"))


@pytest.mark.slow
def test_a_folder_that_cannot_be_written_is_refused_before_any_work(place: Path) -> None:
    (place / "file").touch()
    refused = run_script("predict.py", "photos", "--explain", "file", "--out", "out.csv", cwd=place)
    assert_refused(refused, "file")
    (place / "why/explanations.csv").mkdir(parents=True)
    assert_refused(run_script("predict.py", "photos", "--explain", "why", cwd=place), "it is a folder")
    assert not (place / "out.csv").exists() and not (place / "models/features.sqlite").exists()

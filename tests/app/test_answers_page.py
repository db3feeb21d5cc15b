"""The page of the answers: what it says is what the CSV says, and what is hostile is text on it."""

from __future__ import annotations

import hashlib
import io
import os
import re
import shutil
import signal
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from dataclasses import dataclass
from html import unescape
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
from conftest import ROOT, assert_refused, copy_some
from pages import CANARY, check_looks, opened
from PIL import Image
from playwright.sync_api import Browser, Page
from test_predict import made_up_store, read_csv, script

from breeds.config import FeatureConfig
from breeds.features import Store
from breeds.features.cache import FeatureCache
from breeds.heads.model import Model
from breeds.photos import FilePhoto, key_of
from breeds.prediction import Answer, predict
from breeds.report.answers_page import EMBEDDED_BYTES, AnswersPage
from breeds.training import train

pytestmark = pytest.mark.filterwarnings("ignore:.*[Ll]ine [Ss]earch")

MODEL = Path("models/photos.safetensors")
HOSTILE_CLASSES = [CANARY, f"\"'>{CANARY}", "bytes \udcff{{ 7 * 7 }}"]
HOSTILE_NAMES = [
    'it\'s "quoted" & <b>.jpg',
    "new\nline.jpg",
    "😀 #?%41.jpg",
    "\udcff\udcfe.jpg",
    "javascript:alert(3).jpg",
    "\u202egpj.jpg",
]


@pytest.fixture(scope="module")
def trained(
    drawn_photos: Path, random_config: FeatureConfig, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A folder with photos, a stranger, and a model whose store and cache are all that answering needs."""
    folder = tmp_path_factory.mktemp("trained")
    copy_some(drawn_photos, folder / "photos")
    store = made_up_store(folder / "photos", folder / "features/photos.h5", random_config)
    train(Store(store), C=1.0).save(folder / MODEL)
    stranger = folder / "stranger.jpg"
    stranger.write_bytes(min(folder.rglob("photos/*/*.jpg")).read_bytes() + b"!")
    with FeatureCache(folder / "models") as cache:
        far = np.random.default_rng(1).normal(size=2048).astype(np.float32) * 5
        cache.add(random_config, key_of(stranger.read_bytes()), far)
    return folder


@pytest.fixture
def place(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of that folder, which this process is in, to do with as a test likes."""
    shutil.copytree(trained, tmp_path / "place")
    monkeypatch.chdir(tmp_path / "place")
    return tmp_path / "place"


@dataclass
class Card:
    """What a card of a page says."""

    group: str
    certainty: str
    text: str
    address: str
    src: str
    alt: str


def cards_of(page: Path) -> list[Card]:
    """Read the cards of a page."""
    found = []
    for tag, inside in re.findall(r'<li class="card answer([^>]*)>(.*?)</li>', page.read_text(), re.DOTALL):
        values = dict(re.findall(r'(data-group|data-certainty|href|src|alt)="([^"]*)"', tag + inside))
        values = {name: unescape(value) for name, value in values.items()}
        shown = unescape(re.sub(r"<[^>]*>", "", inside))
        found.append(
            Card(
                values["data-group"],
                values["data-certainty"],
                re.sub(r"\s+", " ", shown).strip(),
                values.get("href", ""),
                values.get("src", ""),
                values.get("alt", ""),
            )
        )
    return found


def text_of(page: Path) -> str:
    """Read what a page says, without its script and style."""
    body = re.sub(r"<(script|style)>.*?</\1>", "", page.read_text(), flags=re.DOTALL)
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]*>", "", body)))


def write_page(
    model: Model, paths: list[str], page: Path = Path("page.html"), embedded: int = EMBEDDED_BYTES
) -> None:
    """Write a page of the answers for `paths`, in this process."""
    answers = AnswersPage(page, embedded=embedded)
    list(answers.watch(predict(model, map(FilePhoto, paths), None, Path("models"))))
    answers.write(model, MODEL)


# what it says


@pytest.mark.slow
def test_the_page_says_what_the_csv_says(place: Path) -> None:
    Path("empty.jpg").touch()
    Path("text.jpg").write_text("text")
    command = ("photos", "stranger.jpg", "empty.jpg", "text.jpg", "-")
    result = script(*command, "--top-k=2", "--out=out.csv", "--html=page.html", stdin="gone.jpg\n")
    assert result.returncode == 1
    assert "wrote out.csv and page.html" in result.stderr
    frame = read_csv()
    answered, failed = frame[frame.error == ""], frame[frame.error != ""]
    cards = cards_of(Path("page.html"))
    assert len(answered) == len(cards) == 13
    assert [card.certainty for card in cards] == [f"{float(p):.6f}" for p in answered.probability]
    for row, card in zip(answered.itertuples(), cards, strict=True):
        first, second = f"{float(row.probability) * 100:.1f}", f"{float(row.probability_2) * 100:.1f}"
        first, second = {"100.0": "> 99.9"}.get(first, first), {"0.0": "< 0.1"}.get(second, second)
        begin = f"None of these guess {row.guess}" if row.breed == "unknown" else row.breed
        name, folder = os.path.basename(row.path), os.path.dirname(row.path)
        inside = f" in {folder}" if folder else ""
        assert card.text == f"{begin} {first} % then {row.breed_2} {second} % {name}{inside}"
        assert unquote(card.address) == row.path
        assert card.alt == name
    text = text_of(Path("page.html"))
    assert "16 photos, 13 answers" in text
    assert "1 photo seems to be of none of these breeds. 3 photos have no answer" in text
    for row in failed.itertuples():
        assert f"{row.path} {row.error}" in text
    counts = answered.breed[answered.breed != "unknown"].value_counts()
    for breed, count in counts.items():
        assert f" {breed} {count} " in text
    assert "all 13 " in text
    assert "none of these 1 " in text
    assert "The weights are random: these answers say nothing about real dogs." in text
    seen = len(Model.load(MODEL).seen)
    assert 0 < seen < 13
    assert f"The model has seen {seen} of these photos in training" in text


@pytest.mark.parametrize("form", ["json", "kaggle"])
@pytest.mark.slow
def test_it_stands_beside_every_format(place: Path, form: str) -> None:
    photo = str(min(Path("photos").rglob("*.jpg")))
    shutil.copy(photo, "copy.jpg")
    plain = script("-", f"--format={form}", stdin=f"{photo}\ncopy.jpg\n{photo}\n")
    result = script("-", f"--format={form}", "--html=page.html", stdin=f"{photo}\ncopy.jpg\n{photo}\n")
    assert result.returncode == 0, result.stderr
    assert result.stdout == plain.stdout
    assert [unquote(card.address) for card in cards_of(Path("page.html"))] == [photo, "copy.jpg", photo]


@pytest.mark.slow
def test_it_says_that_a_breed_is_always_named_where_it_is(place: Path) -> None:
    script("stranger.jpg", "--no-unknown", "--html=page.html")
    (card,) = cards_of(Path("page.html"))
    assert card.group != "none"
    assert "a breed is named for every photo" in text_of(Path("page.html"))


def test_without_any_photo_or_any_answer_there_is_a_page_that_says_so(place: Path) -> None:
    Path("nothing").mkdir()
    assert script("nothing", "--html=page.html").returncode == 0
    assert "0 photos, 0 answers There was no photo in what was named." in text_of(Path("page.html"))
    Path("nothing/empty.jpg").touch()
    assert script("nothing", "--html=page.html").returncode == 1
    assert "1 photo, 0 answers 1 photo has no answer" in text_of(Path("page.html"))
    assert not cards_of(Path("page.html"))


def test_a_photo_that_is_gone_or_changed_meanwhile_is_a_tile_with_its_name(place: Path) -> None:
    photos = sorted(map(str, Path("photos").rglob("*.jpg")))[:3]
    model = Model.load(MODEL)
    page = AnswersPage(Path("page.html"))
    list(page.watch(predict(model, map(FilePhoto, photos), None, None)))
    os.unlink(photos[0])
    shutil.copy(photos[2], photos[1])
    page.write(model, MODEL)
    gone, changed, there = cards_of(Path("page.html"))
    assert gone.text.startswith(f"{os.path.basename(photos[0])}no such file ")
    assert changed.text.startswith(f"{os.path.basename(photos[1])}changed since ")
    assert (gone.src, changed.src) == ("", "")
    assert (gone.address, unquote(changed.address), unquote(there.address)) == ("", *photos[1:])
    assert there.src.startswith("data:image/jpeg;base64,")


# hostile names


def hostile(place: Path) -> list[str]:
    """Give classes and photos hostile names; return the photos' paths."""
    model = Model.load(MODEL)
    model.classes = HOSTILE_CLASSES
    model.save(MODEL)
    photo = min(Path("photos").rglob("*.jpg"))
    Path("hostile").mkdir()
    for name in HOSTILE_NAMES:
        shutil.copy(photo, Path("hostile", name))
    Path("hostile", "<img src=x onerror=document.title='canary'>.jpg").touch()
    return [f"hostile/{name}" for name in sorted(HOSTILE_NAMES)]


def test_hostile_names_are_text(place: Path) -> None:
    paths = hostile(place)
    assert script("hostile", "--html=page.html", "--out=out.csv").returncode == 1
    html = Path("page.html").read_text(encoding="utf-8")
    assert html.count("<script") == 1
    assert not re.search(r"<img(?! class=\"picture\" src=\"data:image/jpeg;base64,)", html)
    cards = cards_of(Path("page.html"))
    assert sorted(os.fsencode(unquote(card.address, errors="surrogateescape")) for card in cards) == sorted(
        os.fsencode(path) for path in paths
    )
    assert all(card.address.startswith("hostile/") for card in cards)
    classes = {name.replace("\udcff", "\N{REPLACEMENT CHARACTER}") for name in HOSTILE_CLASSES}
    assert all(any(card.text.startswith(name) for name in classes) for card in cards)
    assert "hostile/<img src=x onerror=document.title='canary'>.jpg empty file (0 bytes)" in text_of(
        Path("page.html")
    )


# where it is written


@pytest.mark.parametrize("page", ["file/page.html", "photos", "/proc/page.html", "taken.html"])
@pytest.mark.slow
def test_a_page_that_cannot_be_written_is_found_before_any_work(place: Path, page: str) -> None:
    Path("file").touch()
    Path("taken_files").touch()
    before = sorted(os.listdir())
    assert_refused(script("photos", "--html", page), "Cannot write", page.split(".")[0])
    assert sorted(os.listdir()) == sorted([*before, "poison"])


def test_one_file_for_page_and_answers_is_refused(place: Path) -> None:
    assert_refused(script("photos", "--out=answers", "--html=./answers"), "--html and --out", "answers")
    assert not Path("answers").exists()


def test_few_pictures_are_in_the_page(place: Path) -> None:
    before = {*os.listdir(), "poison", "page.html"}
    assert script("photos", "--html=page.html").returncode == 0
    assert {*os.listdir()} == before
    assert all(card.src.startswith("data:image/jpeg;base64,") for card in cards_of(Path("page.html")))
    assert "This page is one file" in text_of(Path("page.html"))


#: So few bytes are embedded that the pictures of a test are too many.
FEW_BYTES = 10_000


def test_many_pictures_are_files_beside_the_page_and_a_second_run_writes_none(
    place: Path,
) -> None:
    photos = sorted(map(str, Path("photos").rglob("*.jpg")))
    page = Path("sub folder/page's 1%.html")
    write_page(Model.load(MODEL), [*photos, photos[0]], page, embedded=FEW_BYTES)
    cards = cards_of(page)
    files = [page.parent / unquote(card.src) for card in cards]
    folder = page.parent / "page's 1%_files"
    assert len(files) == 13
    assert {*files} == {*folder.iterdir()}
    assert len({*files}) == 12
    for file in files:
        assert max(Image.open(file).size) <= 160
    assert "the folder page's 1%_files beside it" in text_of(page)
    before = {file: file.stat().st_ino for file in files}
    write_page(Model.load(MODEL), photos[:3] * 4, page, embedded=FEW_BYTES)
    assert {file: file.stat().st_ino for file in folder.iterdir()} == before
    assert sorted(os.listdir(page.parent)) == sorted([folder.name, page.name])


@pytest.mark.slow
def test_what_is_not_ours_in_the_folder_is_neither_changed_nor_shown(place: Path) -> None:
    photos = sorted(map(str, Path("photos").rglob("*.jpg")))
    write_page(Model.load(MODEL), photos, embedded=FEW_BYTES)
    names = [card.src for card in cards_of(Path("page.html"))]
    other = io.BytesIO()
    Image.new("RGB", (9, 9)).save(other, "png")
    Path(names[0]).write_bytes(other.getvalue())
    Path(names[1]).unlink()
    Path(names[1]).symlink_to("/nowhere/at all")
    Path(names[2]).unlink()
    os.mkfifo(names[2])
    Path("page_files/mine.txt").write_text("mine")
    write_page(Model.load(MODEL), photos, embedded=FEW_BYTES)
    cards = cards_of(Path("page.html"))
    assert [card.src.startswith("data:") for card in cards] == [True] * 3 + [False] * 9
    assert Path(names[0]).read_bytes() == other.getvalue()
    assert os.readlink(names[1]) == "/nowhere/at all"
    assert Path(names[2]).is_fifo()
    assert Path("page_files/mine.txt").read_text() == "mine"


def test_stopped_while_it_is_written_there_is_no_page_and_no_picture(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from breeds.report.photos import thumbnails

    def stopped(photos: Iterator[tuple[str, str]]) -> Iterator[object]:
        found = thumbnails(photos)
        for _ in range(8):
            yield next(found)
        assert len(os.listdir("page_files")) > 1
        raise KeyboardInterrupt

    monkeypatch.setattr("breeds.report.answers_page.thumbnails", stopped)
    before = sorted(os.listdir())
    photos = sorted(map(str, Path("photos").rglob("*.jpg")))
    with pytest.raises(KeyboardInterrupt):
        write_page(Model.load(MODEL), photos, embedded=FEW_BYTES)
    assert sorted(os.listdir()) == before
    Path("page_files").mkdir()
    Path("page_files/mine.txt").write_text("mine")
    old = '<!doctype html><meta name="generator" content="Breeds 0">'
    Path("page.html").write_text(old)
    with pytest.raises(KeyboardInterrupt):
        write_page(Model.load(MODEL), photos, embedded=FEW_BYTES)
    assert os.listdir("page_files") == ["mine.txt"]
    assert Path("page.html").read_text() == old


@pytest.mark.slow
def test_ctrl_c_among_the_answers_leaves_no_page(place: Path) -> None:
    photo = min(Path("photos").rglob("*.jpg"))
    command = [sys.executable, f"{ROOT}/predict.py", "-", "--html", "page.html"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin and process.stdout
        process.stdin.write(f"{photo}\n")
        process.stdin.flush()
        assert process.stdout.readline().startswith("path,")
        assert str(photo) in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert not list(Path().glob("*page*"))


@pytest.mark.slow
def test_an_answer_costs_the_page_some_hundred_bytes(tmp_path: Path) -> None:
    """The 120 probabilities of an answer are a kilobyte: they are not kept."""
    page = AnswersPage(tmp_path / "page.html")
    rng = np.random.default_rng(0)
    answers = (
        Answer(f"photos/{n:06d}.jpg", rng.dirichlet(np.ones(120)), key=hashlib.sha256(b"%d" % n).hexdigest())
        for n in range(4000)
    )
    tracemalloc.start()
    for _ in page.watch(answers):
        pass
    kept = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert kept / 4000 < 600


# in a browser


@pytest.fixture(scope="module")
def answered(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a page of thirteen answers, one none of these, and of a photo without an answer."""
    folder = tmp_path_factory.mktemp("answered")
    shutil.copytree(trained, folder, dirs_exist_ok=True)
    (folder / "empty.jpg").touch()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        done = script("photos", "stranger.jpg", "empty.jpg", "--html=page.html", "--out=out.csv")
    assert done.returncode == 1
    return folder


@pytest.fixture
def page(answered: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """That page, to look at, in the folder that this process is in."""
    monkeypatch.chdir(answered)
    return Path("page.html")


def shown(tab: Page) -> list[str]:
    """The addresses of the photos that a page shows, in its order."""
    return [unquote(link.get_attribute("href") or "") for link in tab.locator("#photos a:visible").all()]


def rows() -> list[tuple[str, str, float]]:
    """Path, breed and probability of every answer in the CSV."""
    frame = read_csv()
    frame = frame[frame.error == ""]
    return list(zip(frame.path, frame.breed, frame.probability.astype(float), strict=True))


def test_breeds_certainty_and_order_choose_what_is_shown(browser: Browser, page: Path) -> None:
    answers = rows()
    breed = answers[0][1]
    with opened(browser, page) as tab:
        assert shown(tab) == [path for path, *_ in answers]
        tab.locator("label", has_text=breed).click()
        chosen = [path for path, named, _ in answers if named == breed]
        assert shown(tab) == chosen
        assert tab.get_by_role("status").inner_text() == f"{len(chosen)} of 13 photos"
        tab.locator("label", has_text="none of these").click()
        assert shown(tab) == ["stranger.jpg"]
        tab.locator("label", has_text="all").first.click()
        least = sorted(answers, key=lambda row: row[2])
        tab.get_by_label("Order").select_option("least certain first")
        assert shown(tab) == [path for path, *_ in least]
        bound = int(least[0][2] * 100) + 1
        tab.get_by_label("from").fill(str(bound))
        certain = [path for path, _, share in least if share >= bound / 100]
        assert 0 < len(certain) < 13, least
        assert shown(tab) == certain
        assert f"{bound}\u202f% to 100\u202f%" in tab.locator("legend").inner_text()
        tab.get_by_label("to", exact=True).fill("0")
        assert tab.get_by_label("from").input_value() == "0"
        assert shown(tab) == []
        tab.get_by_role("button", name="Show all photos").click()
        assert shown(tab) == [path for path, *_ in least]
        tab.get_by_label("Order").select_option("most certain first")
        assert shown(tab) == [path for path, *_ in sorted(answers, key=lambda row: -row[2])]
        tab.get_by_label("Order").select_option("as they came")
        assert shown(tab) == [path for path, *_ in answers]


def test_the_keyboard_is_enough_and_the_way_back_keeps_what_was_chosen(browser: Browser, page: Path) -> None:
    answers = rows()
    with opened(browser, page) as tab:
        for _ in range(20):
            tab.keyboard.press("Tab")
            if tab.evaluate("document.activeElement.id") == "order":
                break
        tab.keyboard.press("ArrowDown")
        tab.keyboard.press("Tab")
        tab.keyboard.press("ArrowRight")
        assert tab.locator("#least-shown").inner_text() == "1\u202f%"
        tab.keyboard.press("Tab")
        tab.keyboard.press("Tab")
        tab.keyboard.press("ArrowDown")
        before = shown(tab)
        named = {path: breed for path, breed, _ in answers}
        assert 0 < len(before) < 13
        assert len({named[path] for path in before}) == 1
        tab.keyboard.press("Tab")
        tab.keyboard.press("Enter")
        tab.wait_for_url(f"**/{before[0]}")
        tab.go_back()
        tab.wait_for_function("document.getElementById('shown').innerText.includes(' of ')")
        assert shown(tab) == before


def test_pictures_beside_the_page_are_shown(browser: Browser, place: Path) -> None:
    photos = sorted(map(str, Path("photos").rglob("*.jpg")))
    write_page(Model.load(MODEL), photos, Path("a page's #1?.html"), embedded=FEW_BYTES)
    with opened(browser, Path("a page's #1?.html")) as tab:
        assert all(card.src.startswith("a%20page%27s%20%231") for card in cards_of(Path("a page's #1?.html")))
        for picture in tab.locator("img").all():
            picture.scroll_into_view_if_needed()
        tab.wait_for_function("[...document.images].every(image => image.naturalWidth > 1)", timeout=10_000)


def test_it_looks_right_and_hostile_names_run_nothing(browser: Browser, place: Path) -> None:
    hostile(place)
    script("hostile", "stranger.jpg", "--html=page.html")
    with opened(browser, Path("page.html")) as tab:
        check_looks(tab)
        name = next(name for name in HOSTILE_NAMES if "quoted" in name)
        tab.get_by_role("link", name=name).click()
        tab.wait_for_url("**/*quoted*")


def test_without_script_everything_is_there(browser: Browser, page: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    tab = context.new_page()
    tab.goto(page.absolute().as_uri())
    assert shown(tab) == [path for path, *_ in rows()]
    assert not tab.get_by_label("Order").is_visible()
    assert tab.locator("table").first.is_visible()
    context.close()

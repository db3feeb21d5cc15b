"""Review and Teach: words on photos that last and can be taken back, and a model trained again in the app."""

from __future__ import annotations

import html
import io
import os
import re
import shutil
import signal
import threading
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
from conftest import extract_photos
from pages import CANARY, check_looks, store_with_photos
from PIL import Image
from playwright.sync_api import Browser, Page, expect
from served import MODEL, STORE, Served, files, jpeg, serving, serving_here

from breeds.app.state import AppState
from breeds.config import FeatureConfig
from breeds.features import Store
from breeds.features.corrections import Correction, Corrections, add, corrections_path
from breeds.heads.model import Model
from breeds.photos import key_of
from breeds.sample.drawing import BREEDS, draw
from breeds.training import train

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*[Ll]ine [Ss]earch"),
    pytest.mark.slow,
    pytest.mark.xdist_group("app_place"),
]
POSTS = ("/review", "/review/undo", "/review/train", "/teach")
HOSTILE = [CANARY, f"\"'>{CANARY}", "bytes \udcff{{ 7 * 7 }}", "\u202egpj", "plain"]


# --- a place of its own, and words as a form sends them -------------------------------------------


@pytest.fixture(scope="module")
def taught_breed(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Ten drawn photos of a breed that the model does not know."""
    breed = sorted(BREEDS, key=lambda breed: breed.name)[5]
    folder = tmp_path_factory.mktemp("more") / breed.name
    folder.mkdir()
    paths = [folder / f"{index:02d}.jpg" for index in range(1, 11)]
    for index, path in enumerate(paths, 1):
        draw(breed, index, 0).save(path, "JPEG", quality=90)
    return paths


def _breeds(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(scope="module")
def place(drawn_photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawn photos of five breeds, two of them in a wrong folder, one twice with two labels; and a model."""
    folder = tmp_path_factory.mktemp("review")
    breeds = _breeds(drawn_photos)[:5]
    for breed in breeds:
        shutil.copytree(drawn_photos / breed, folder / "photos" / breed)
    for one, other in ((0, 1), (2, 3)):
        photo = min((folder / "photos" / breeds[one]).iterdir())
        photo.rename(folder / "photos" / breeds[other] / f"astray-{photo.name}")
    twin = max((folder / "photos" / breeds[4]).iterdir())
    Image.open(twin).save(folder / "photos" / breeds[3] / "twin.jpg", quality=93)
    extract_photos(folder / "photos", folder / STORE, size=96)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        train(Store(folder / STORE), C=0.01).save(folder / MODEL)
    shutil.copy(folder / MODEL, folder / "model.first")
    return folder


@pytest.fixture(scope="module")
def running(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(place, tmp_path_factory.mktemp("temporary"), "--no-network") as found:
        yield found


@pytest.fixture
def app(running: Served, place: Path) -> Served:
    """The application as it began: no corrections and the first model, which it notices by itself."""
    words(place).unlink(missing_ok=True)
    shutil.copy(place / "model.first", place / "model.aside")
    os.replace(place / "model.aside", place / MODEL)
    return running


def words(place: Path) -> Path:
    return corrections_path(place / STORE)


def rows(place: Path) -> list[str]:
    path = words(place)
    return path.read_text().splitlines()[1:] if path.exists() else []


def fields(page: str, form: str) -> dict[str, str]:
    """The hidden fields of a form, by a word of its tag."""
    found = re.findall(rf"<form[^>]*{form}.*?</form>", page, re.DOTALL)[0]
    return {
        name: html.unescape(value)
        for name, value in re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', found)
    }


def text_of(page: str) -> str:
    return html.unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]*>", "", page)))


def get(client: httpx.Client, path: str = "/review") -> str:
    """A page; who comes first waits for what is worked out."""
    for _ in range(100):
        found = client.get(path)
        assert found.status_code == 200, found.text
        if "data-working" not in found.text:
            return found.text
        time.sleep(0.1)
    raise AssertionError("nothing was worked out")


def post(client: httpx.Client, path: str, form: dict[str, str], **more: str) -> httpx.Response:
    """A form as a browser sends it."""
    data = {name: (None, value) for name, value in {**form, **more}.items()}
    return client.post(path, files=data)


def say(client: httpx.Client, page: str, do: str, **more: str) -> httpx.Response:
    return post(client, "/review", fields(page, "choices"), do=do, **more)


# --- words on photos ------------------------------------------------------------------------------


def test_a_word_is_one_row_and_undo_gives_back_every_byte(app: Served, place: Path) -> None:
    before = b"key,label,was,when,note\r\n# by hand,,,,\r\n"
    hand = Correction("ab" * 32, "somebody")
    add(words(place), [hand])
    kept = before = words(place).read_bytes().replace(b"\n", b"\r\n")
    words(place).write_bytes(before)
    with app.client() as client:
        states = [before]
        for do in ("agree", "keep", "out", "agree"):
            page = get(client)
            assert say(client, page, do).status_code == 303
            assert words(place).read_bytes().startswith(states[-1])
            states.append(words(place).read_bytes())
            # The same form again, as by a second click or a reload: nothing is said twice.
            assert say(client, page, do).headers["location"] == "/review"
            assert words(place).read_bytes() == states[-1]
        labels = [row.split(",")[1:3] for row in rows(place)[1:]]
        assert labels[1][0] == labels[1][1] and labels[2][0] == ""
        assert labels[0][0] != labels[0][1]
        for state in reversed(states[:-1]):
            undo = fields(get(client), "/review/undo")
            assert post(client, "/review/undo", undo).status_code == 303
            assert words(place).read_bytes() == state
            again = post(client, "/review/undo", undo)  # a second click takes back nothing more
            assert "taken back already" in text_of(client.get(again.headers["location"]).text)
            assert words(place).read_bytes() == state
        assert kept == words(place).read_bytes()


def test_undo_says_so_when_somebody_else_has_changed_the_file(app: Served, place: Path) -> None:
    with app.client() as client:
        say(client, get(client), "agree")
        with open(words(place), "a") as file:
            file.write(f"{'cd' * 32},by hand,,,\n")
        found = post(client, "/review/undo", fields(get(client), "/review/undo"))
        assert "has been changed since" in text_of(client.get(found.headers["location"]).text)
        assert len(rows(place)) == 2


def test_two_windows_never_talk_over_each_other(app: Served, place: Path) -> None:
    with app.client() as client:
        one = other = get(client)
        assert say(client, one, "agree").status_code == 303
        before = words(place).read_bytes()
        for do in ("keep", "out"):
            found = say(client, other, do)
            assert found.status_code == 303
            page = client.get(found.headers["location"]).text
            assert "Meanwhile, as in another window, it was called" in text_of(page)
            assert fields(page, "choices")["key"] == fields(other, "choices")["key"]
            assert words(place).read_bytes() == before
        # Who sees what was said may say otherwise.
        assert say(client, page, "keep").status_code == 303
        assert words(place).read_bytes() == before
        assert say(client, page, "out").status_code == 303
        assert len(rows(place)) == 2


def test_many_windows_at_once_leave_one_row_each(app: Served, place: Path) -> None:
    with app.client() as client:
        page = get(client)
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(lambda _: say(client, page, "agree").status_code, range(16)))
        assert set(found) == {303} and len(rows(place)) == 1


def test_what_is_typed_is_a_class_or_is_asked_about(app: Served, place: Path) -> None:
    breed = _breeds(place / "photos")[4]
    with app.client() as client:
        page = get(client)
        for typed, why in (
            ("no such breed", "There is no class 'no such breed' yet"),
            ("", "Say what it is"),
        ):
            found = say(client, page, "relabel", label=typed)
            assert (found.status_code, rows(place)) == (409, [])
            assert why in text_of(found.text) and f'value="{typed}"' in found.text
        for typed in ("un\x1bseen", "unknown", CANARY + "\u202e"):
            found = say(client, page, "relabel", label=typed, new="yes")
            assert (found.status_code, rows(place)) == (409, [])
            assert "<script>document" not in found.text
        spelled = breed.replace("_", "-").upper()
        assert say(client, page, "relabel", label=spelled).status_code == 303
        assert rows(place)[0].split(",")[1] == breed
        found = say(client, get(client), "relabel", label=CANARY, new="yes")
        assert found.status_code == 303
        assert CANARY in text_of(get(client)) and CANARY not in get(client)
        assert say(client, get(client), "nonsense").status_code == 400
        unknown = {**fields(get(client), "choices"), "key": "ab" * 32}
        assert post(client, "/review", unknown, do="out").status_code == 404
        assert client.get(f"/review/{'ab' * 32}").status_code == 404
        assert client.get("/review/..%2f..%2fetc%2fpasswd").status_code == 404


def test_skipped_photos_come_back_with_undo(app: Served, place: Path) -> None:
    with app.client() as client:
        first = get(client)
        say(client, first, "skip")
        assert fields(get(client), "choices")["key"] != fields(first, "choices")["key"]
        assert "Undo: skipped" in text_of(get(client))
        post(client, "/review/undo", fields(get(client), "/review/undo"))
        assert fields(get(client), "choices")["key"] == fields(first, "choices")["key"]
        assert rows(place) == []


def test_any_photo_can_be_reviewed_and_its_evidence_is_there(app: Served, place: Path) -> None:
    photo = min((place / "photos").rglob("*.jpg"))
    key = key_of(photo.read_bytes())
    with app.client() as client:
        page = get(client, f"/review/{key}")
        assert photo.parent.name in text_of(page) and f'src="/photo/{key}"' in page
        assert len(re.findall(r'src="/thumb/', page.split("So far")[0])) == 3
        (looked,) = re.findall(r'src="(/look/looked/[^"]*)"', page)
        picture = client.get(looked)
        assert Image.open(io.BytesIO(picture.content)).format == "JPEG"
        assert client.get(looked[:-3] + "abc").status_code == 404
        assert say(client, page, "keep").headers["location"] == f"/review/{key}"
        assert "A person called it so" in text_of(get(client, f"/review/{key}"))
        assert len(rows(place)) == 1


def test_a_near_duplicate_is_shown_side_by_side(app: Served, place: Path) -> None:
    key = key_of(next((place / "photos").rglob("twin.jpg")).read_bytes())
    with app.client() as client:
        get(client)
        addresses = [f"/review/{key_of(path.read_bytes())}" for path in (place / "photos").rglob("*.jpg")]
        for _ in range(50):  # near duplicates are worked out beside the queue
            found = [page for page in (get(client, a) for a in addresses) if 'class="large two"' in page]
            if found:
                break
            time.sleep(0.2)
        (page,) = found
        assert f'src="/photo/{key}"' in page and "nearly the same" in text_of(page)
        assert len(re.findall('<img class="picture"[^>]* src="/photo/', page)) == 2


def test_what_changes_something_needs_the_pages_token_and_origin(app: Served, place: Path) -> None:
    model = (place / MODEL).read_bytes()
    with app.client() as client:
        page = get(client)
        right = fields(page, "choices") | {"label": "x", "new": "yes", "do": "out"}
        right |= fields(page, "/review/train")
        photo = [("files", ("a.jpg", jpeg()))]
        for path in POSTS:
            for form, headers, status in (
                (right | {"token": ""}, {}, 403),
                (right | {"token": "guessed"}, {}, 403),
                (right, {"origin": "http://evil.example"}, 403),
                (right, {"sec-fetch-site": "cross-site"}, 403),
                (right, {"host": "evil.example"}, 421),
            ):
                sent = [(name, (None, value)) for name, value in form.items()] + photo  # type: ignore[list-item]
                assert client.post(path, files=sent, headers=headers).status_code == status, (path, headers)
            assert client.post(path, content=b"do=out").status_code == 415
        assert client.get("/review/train").status_code == 404  # the key of no photo
    assert rows(place) == [] and (place / MODEL).read_bytes() == model
    assert app.left() == []


# --- training again -------------------------------------------------------------------------------


def test_correct_two_undo_one_train_and_see_the_numbers_move(app: Served, place: Path) -> None:
    before = (place / MODEL).read_bytes()
    with app.client() as client:
        for _ in range(2):
            say(client, get(client), "agree")
        assert "2 labels changed since the last training" in text_of(get(client))
        post(client, "/review/undo", fields(get(client), "/review/undo"))
        page = get(client)
        assert "1 label changed since the last training" in text_of(page)
        form = fields(page, "/review/train")
        found = post(client, "/review/train", form)
        after = (place / MODEL).read_bytes()
        assert after != before
        page = text_of(get(client, found.headers["location"]))
        assert "test photos that nobody touched" in page or "test photo that nobody touched" in page
        assert re.search(r"Trained in \d+\.\d\d seconds, with C as it was", page)
        assert "label changed since" not in page
        assert len(rows(place)) == 1
        # A second click trains nothing more, and shows the same.
        again = post(client, "/review/train", form)
        assert again.headers["location"] == found.headers["location"]
        assert (place / MODEL).read_bytes() == after
        model = Model.load(place / MODEL)
        assert model.record["corrections"]["applied"] == 1
        found = post(client, "/review/train", fields(get(client), "/review/train"), search="yes")
        assert "with C chosen anew" in text_of(get(client, found.headers["location"]))


def test_what_has_changed_on_disk_is_noticed_or_said(app: Served, place: Path) -> None:
    with app.client() as client:
        first = fields(get(client), "choices")["key"]
        add(words(place), [Correction(first, "")])
        assert fields(get(client), "choices")["key"] != first
        good = words(place).read_bytes()
        words(place).write_bytes(good + b"no key,x\n")
        page = text_of(get(client))
        assert "line 3" in page and "no key" in page
        found = say(client, get(client), "out")
        assert (found.status_code, words(place).read_bytes()) == (409, good + b"no key,x\n")
        words(place).write_bytes(good)
        assert "line 3" not in text_of(get(client))
        # Another model, as train_head.py writes one: Try answers with it.
        model = train(Store(place / STORE), C=0.01)
        model.classes = [f"new {name}" for name in model.classes]
        model.save(place / MODEL)
        get(client)
        assert client.get("/api/model").json()["classes"] == model.classes
        row = client.post("/api/predict", files=files(jpeg())).json()[0]
        assert row["guess"] in model.classes
        (place / MODEL).write_bytes(b"no model")
        assert str(Path(MODEL).name) in text_of(get(client))
        assert client.post("/api/predict", files=files(jpeg())).json()[0]["guess"] == row["guess"]


def test_without_enough_photos_the_model_stays_as_it_was(app: Served, place: Path) -> None:
    store, before = Store(place / STORE), (place / MODEL).read_bytes()
    keep = store.table.label[0]
    out = [
        Correction(key, "")
        for key, label in zip(store.table.key, store.table.label, strict=True)
        if label != keep
    ]
    add(words(place), out)
    with app.client() as client:
        found = post(client, "/review/train", fields(get(client), "/review/train"))
        page = text_of(get(client, found.headers["location"]))
        assert "Not trained" in page and "The model is as it was" in page
    assert (place / MODEL).read_bytes() == before


def test_killed_in_the_middle_everything_is_old_or_new(place: Path, tmp_path: Path) -> None:
    """SIGKILL while one window corrects and another trains: what is there can be read, and goes on."""
    here = tmp_path / "here"
    shutil.copytree(place, here, ignore=shutil.ignore_patterns("photos"))
    store = corrections_path(here / STORE)
    store.unlink(missing_ok=True)
    shutil.copy(place / "model.first", here / MODEL)
    with serving(here, tmp_path, "--no-network", "--store", here / STORE) as running:
        with running.client() as client:
            page, trainings = get(client), fields(get(client), "/review/train")

            def train_on() -> None:
                with running.client() as other:
                    post(other, "/review/train", trainings)

            def correct_on() -> None:
                with running.client() as other:
                    for _ in range(100):
                        say(other, get(other), "agree")

            threads = [threading.Thread(target=quietly, args=(work,)) for work in (train_on, correct_on)]
            for thread in threads:
                thread.start()
            say(client, page, "agree")
        time.sleep(0.15)
        assert running.process is not None
        running.process.send_signal(signal.SIGKILL)
        running.process.wait()
        for thread in threads:
            thread.join()
    Model.load(here / MODEL)
    found = Corrections.load(store)
    assert len(store.read_text().splitlines()) == len(found) + 1 > 1
    state = AppState(here / MODEL, here / STORE)
    state.train_again()  # what the model was trained with is not known if words came after its training
    assert state.changes == 0 and state.trainings[-1].again is not None


def quietly(work: object) -> None:
    """Do what may be cut off."""
    with suppress(httpx.HTTPError, AssertionError, ValueError):
        work()  # type: ignore[operator]


# --- teaching -------------------------------------------------------------------------------------


def test_a_new_breed_from_eight_photos_is_recognised_at_once(
    app: Served, place: Path, taught_breed: list[Path], browser: Browser
) -> None:
    breed, photos = taught_breed[0].parent.name, taught_breed[:8]
    there = sorted((place / "photos").rglob("*"))
    bad = place / "bad.jpg"
    bad.write_bytes(b"no photo")
    known = min((place / "photos").rglob("*.jpg"))
    with opened(browser, app, "/teach") as tab:
        tab.locator("#files").set_input_files([*photos, bad, known])
        expect(tab.locator("#chosen-photos img")).to_have_count(10)
        tab.get_by_label("The breed").fill(breed)
        tab.get_by_role("button", name="Teach").click()
        expect(tab.locator("#problem")).to_contain_text("There is no class")  # and nothing is lost
        expect(tab.locator("#chosen-photos img")).to_have_count(10)
        assert sorted((place / "photos").rglob("*")) == there
        tab.get_by_label("a new class").check()
        tab.get_by_role("button", name="Teach").click()
        tab.wait_for_url("**/teach?said=*")
        found = tab.locator("main").inner_text()
        assert f"8 photos of {breed} taught, a new class" in found
        assert "2 photos refused" in found and "in the store already" in found
        assert f"{breed} is new: the old model cannot be asked about that." in found
        assert len(list((place / "photos" / breed).iterdir())) == 8
        assert breed in Model.load(place / MODEL).classes
        tab.reload()  # tells the same and does nothing again
        assert tab.locator("main").inner_text() == found
        tab.goto(app.url)
        tab.locator("#files").set_input_files(taught_breed[8:])
        expect(tab.locator("#cards h3")).to_have_count(2)
        assert any(
            breed in heading for heading in tab.locator("#cards .best tr:first-child").all_inner_texts()
        )
    with app.client() as client:  # the same again: nothing is written twice
        form = {"token": fields(get(client, "/teach"), "lesson-form")["token"], "label": breed}
        sent = [(name, (None, value)) for name, value in form.items()]
        sent += [("files", (path.name, path.read_bytes())) for path in photos]  # type: ignore[misc]
        told = client.post("/teach", files=sent)
        page = text_of(client.get(told.headers["location"]).text)
        assert "No photo was taught" in page and "8 photos refused" in page
        nothing = client.post("/teach", files=sent[:2])
        assert (nothing.status_code, "There is no photo yet" in nothing.text) == (409, True)
        (place / "photos").rename(place / "elsewhere")
        page = get(client, "/teach")
        assert "is not there" in text_of(page) and "<form" not in page
        assert client.post("/teach", files=sent).status_code == 409
        (place / "elsewhere").rename(place / "photos")
    assert app.left() == []


def test_teaching_waits_for_nobody_and_loses_nothing(app: Served, place: Path) -> None:
    """Somebody else extracts: a sentence, and no file."""
    from breeds.features import lock_file
    from breeds.files import hold

    breed = _breeds(place / "photos")[0]
    there = sorted((place / "photos").rglob("*"))
    with app.client() as client, hold(lock_file(place / STORE), "another"):
        token = fields(get(client, "/teach"), "lesson-form")["token"]
        sent = [("token", (None, token)), ("label", (None, breed)), ("files", ("a.jpg", jpeg(9)))]
        found = client.post("/teach", files=sent)  # type: ignore[arg-type]
        assert found.status_code == 409 and "process" in text_of(found.text)
    assert sorted((place / "photos").rglob("*")) == there


# --- in the browser -------------------------------------------------------------------------------


class opened:  # noqa: N801
    """A page of the application; it must not complain."""

    def __init__(
        self,
        browser: Browser,
        served: Served,
        path: str = "/review",
        size: tuple[int, int] = (1280, 800),
        scheme: str = "light",
        scripts: bool = True,
    ) -> None:
        self._context = browser.new_context(
            viewport={"width": size[0], "height": size[1]},
            color_scheme=scheme,  # type: ignore[arg-type]
            java_script_enabled=scripts,
        )
        self._served, self._path, self._said = served, path, []  # type: ignore[var-annotated]

    def __enter__(self) -> Page:
        tab = self._context.new_page()
        tab.on("pageerror", lambda error: self._said.append(str(error)))
        tab.on(
            "console",
            lambda message: "status of 409" in message.text or self._said.append(message.text),
        )
        tab.goto(self._served.url + self._path)
        return tab

    def __exit__(self, kind: object, *_: object) -> None:
        self._context.close()
        if kind is None:
            assert self._said == []


def ready(tab: Page) -> Page:
    tab.wait_for_selector("html[data-ready]", state="attached")
    return tab


def press(tab: Page, key: str) -> None:
    """A key that leads to a page."""
    ready(tab)
    with tab.expect_navigation():
        tab.keyboard.press(key)
    ready(tab)


def test_the_keyboard_alone_reviews_undoes_and_trains(app: Served, place: Path, browser: Browser) -> None:
    breed = _breeds(place / "photos")[4]
    with app.client() as client:
        get(client)
    with opened(browser, app) as tab:
        first = ready(tab).locator("#choices [name=key]").get_attribute("value")
        tab.keyboard.press("Enter")  # presses what is focused, which is nothing
        tab.keyboard.down("Control")
        tab.keyboard.press("k")
        tab.keyboard.up("Control")
        assert rows(place) == []
        press(tab, "a")
        press(tab, "k")
        tab.keyboard.press("r")
        tab.keyboard.type(breed)  # letters of it are no keys now
        with tab.expect_navigation():
            tab.keyboard.press("Enter")
        press(tab, "l")
        assert [row.split(",")[4] for row in rows(place)] == [
            f"review: {do}" for do in ("agree", "keep", "relabel", "out")
        ]
        assert rows(place)[0].startswith(str(first)) and rows(place)[2].split(",")[1] == breed
        for left in (3, 2, 1):
            press(tab, "u")
            assert len(rows(place)) == left
        tab.reload()
        press(tab, "u")
        assert rows(place) == [] and not words(place).exists()
        assert tab.locator("#choices [name=key]").get_attribute("value") == first
        press(tab, "a")
        press(tab, "t")
        expect(tab.locator("#trained-title")).to_be_focused()
        assert "before" in tab.locator("#trained").inner_text()
        tab.keyboard.press("?")
        expect(tab.locator("#keys dl")).to_be_visible()
        for _ in range(25):
            tab.keyboard.press("Tab")
            look = tab.evaluate(
                """() => { const at = document.activeElement, look = getComputedStyle(at);
                    return [at.tagName, look.outlineStyle, look.outlineWidth]; }"""
            )
            assert look[0] == "BODY" or (look[1] != "none" and float(look[2][:-2]) >= 2), look


def test_keys_can_be_switched_off(app: Served, place: Path, browser: Browser) -> None:
    """WCAG 2.1.4: who dictates, or presses what they did not mean, can do without keys of one letter."""
    with app.client() as client:
        get(client)
    with opened(browser, app) as tab:
        press(tab, "k")
        tab.keyboard.press("?")
        ready(tab).locator("#switch input").uncheck()
        expect(tab.locator("#choices kbd").first).to_be_hidden()
        tab.reload()
        ready(tab).locator("h1").click()
        tab.keyboard.type("akl?su")
        assert tab.locator("#keys").get_attribute("open") is None
        tab.locator("#keys summary").click()
        tab.locator("#switch input").check()
        press(tab, "u")
        assert rows(place) == []


def test_without_script_every_button_works(app: Served, place: Path, browser: Browser) -> None:
    with app.client() as client:
        get(client)
    with opened(browser, app, scripts=False) as tab:
        tab.get_by_role("button", name=re.compile("No, it is")).click()
        tab.get_by_role("button", name=re.compile("Yes, keep")).click()
        assert len(rows(place)) == 2
        tab.get_by_role("button", name=re.compile("Undo")).click()
        assert len(rows(place)) == 1
        tab.get_by_role("button", name=re.compile("^Train again( t)?$")).click()
        expect(tab.get_by_role("heading", name="Trained again")).to_be_visible()


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory, random_config: FeatureConfig) -> Iterator[Served]:
    """Hostile names of classes, and photos without a label."""
    folder = tmp_path_factory.mktemp("hostile")
    made = store_with_photos(folder, [*HOSTILE, ""], 8, random_config, spread=0.2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        train(Store(made), C=0.01).save(folder / MODEL)
    with serving_here(folder, tmp_path_factory.mktemp("temporary")) as found:
        yield found


def test_it_looks_right_and_hostile_names_are_text(hostile: Served, browser: Browser) -> None:
    with hostile.client() as client:
        say(client, get(client), "skip")
        post(client, "/review/train", fields(get(client), "/review/train"))
        for path in ("/review", "/review/next"):
            get(client, path)
        key = fields(get(client), "choices")["key"]
    with opened(browser, hostile) as tab:
        for path in ("/review?trained=1", "/review/next", f"/review/{key}", "/teach"):
            tab.goto(hostile.url + path)
            check_looks(tab)
            assert tab.title() != "canary"


def test_hostile_names_can_be_kept_or_say_why_not(hostile: Served) -> None:
    place = hostile.place / "features/made.h5"
    with hostile.client() as client:
        for key, name in zip(Store(place).table.key, Store(place).table.label, strict=True):
            if name in (HOSTILE[0], HOSTILE[2]):
                found = say(client, get(client, f"/review/{key}"), "keep")
                assert found.status_code == (303 if name == HOSTILE[0] else 409), found.text
        assert set(Corrections.load(corrections_path(place)).labels.values()) == {HOSTILE[0]}


def test_what_to_label_next_is_labelled_as_suggested_or_otherwise(hostile: Served) -> None:
    store = hostile.place / "features/made.h5"
    corrections_path(store).unlink(missing_ok=True)
    with hostile.client() as client:
        page = get(client, "/review/next")
        assert "1 of 8" in text_of(page) and "No label yet" in text_of(page).replace("no label", "No label")
        assert 'value="keep"' not in page
        assert say(client, page, "relabel", label="plain").headers["location"] == "/review/next"
        assert "2 of 8" in text_of(get(client, "/review/next"))
        (word,) = Corrections.load(corrections_path(store)).last.values()
        assert (word.label, word.was) == ("plain", "")

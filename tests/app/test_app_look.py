"""The page Look: evaluate's numbers, all photos of everything that can be pressed, and one report for all."""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import numpy as np
import pytest
from conftest import run_script
from pages import CANARY, check_looks, store_with_photos
from playwright.sync_api import Browser, expect
from served import MODEL, PATIENCE, Gate, Served, serving_here
from test_app_browser import opened

from breeds.app import look_page
from breeds.config import FeatureConfig
from breeds.evaluation import answer_test_photos, measure
from breeds.features import Store
from breeds.features.corrections import Correction, add, corrections_path, undo
from breeds.heads.model import Model
from breeds.report import page as report_page
from breeds.training import train

if TYPE_CHECKING:
    from breeds.evaluation import Tested

#: One process makes what these tests share, beside the other pages that a browser opens.
pytestmark = pytest.mark.xdist_group("browser")
RECIPE = FeatureConfig("xception", "random", "0" * 64, 299, "stretch")
NAMES = ["beagle", "pug", CANARY, "quo\"te's & new\nline #?+%41", "🐕 emoji", "bad\udcff bytes \x07 $x^2$"]
KEY = re.compile(r'href="/review/([0-9a-f]{64})"')


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos of six classes with hostile names, their store, and a model of it that makes mistakes."""
    folder = tmp_path_factory.mktemp("made")
    store = Store(store_with_photos(folder, NAMES, 20, RECIPE, spread=0.3))
    train(store).save(folder / MODEL)
    train(store, C=1.0).save(folder / "models/other.safetensors")
    return folder


@pytest.fixture(scope="module")
def here(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The application on `made`, in this process, without a network; what it has worked out it keeps."""
    with serving_here(made, tmp_path_factory.mktemp("temporary"), Gate().open) as running:
        yield running


@pytest.fixture
def fresh(made: Path, tmp_path: Path) -> Iterator[Served]:
    """The same, where nothing is worked out yet."""
    with serving_here(made, tmp_path, Gate().open) as running:
        yield running


@pytest.fixture(scope="module")
def tested(made: Path) -> Tested:
    model = Model.load(made / MODEL)
    return answer_test_photos(Store(Path(model.record["store"])), model)


def keys_of(tested: Tested, wanted: np.ndarray) -> set[str]:
    return {tested.store.table.key[row] for row in tested.rows[wanted].tolist()}


def addresses(text: str) -> set[str]:
    """Where the page leads to for photos."""
    return {html.unescape(link) for link in re.findall(r'href="(/look/photos[^"]*)"', text)}


def address(**asked: str) -> str:
    pairs = (f"{name}={quote(value, safe='', errors='surrogatepass')}" for name, value in asked.items())
    return "/look/photos?" + "&".join(pairs)


# --- what it says ------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_numbers_are_those_of_evaluate(here: Served, made: Path, tmp_path: Path) -> None:
    done = run_script("evaluate.py", "--model", made / MODEL, "--no-html", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    numbers = json.loads((tmp_path / "reports/photos.json").read_text())
    with here.client() as client:
        text = client.get("/look").text
    right, total = round(numbers["accuracy"] * numbers["n_test"]), numbers["n_test"]
    assert f"<h1>{right} of {total} photos are named rightly</h1>" in text
    assert 0 < right < total
    for value in (f"{numbers['log_loss']:.4f}", f"{numbers['macro_f1']:.3f}"):
        assert f'<span class="value">{value}</span>' in text
    rows = re.findall(r'<tr><th scope="row" title=.*?</tr>', text, re.DOTALL)
    cells = [re.findall(r"<td>(.*?)</td>", row, re.DOTALL) for row in rows]
    counts = [[int("".join(re.findall(r'class="n">(\d+)<', cell)) or 0) for cell in row] for row in cells]
    assert counts == numbers["confusion"]
    shown = re.findall(r'<td data-value="([\d.]+)">[\d.]+</td>', text)
    wanted = [scores[name] for scores in numbers["per_class"].values()
              for name in ("precision", "recall", "f1", "support")]  # fmt: skip
    assert [float(value) for value in shown] == wanted


@pytest.mark.slow
def test_everything_that_can_be_pressed_leads_to_its_photos(here: Served, tested: Tested) -> None:
    truth, answer = tested.truth, tested.probabilities.argmax(axis=1)
    everything = np.ones(len(truth), dtype=bool)
    assert tested.excess is not None and tested.model.unknown is not None
    refused = tested.excess > tested.model.unknown.threshold
    names = tested.model.classes
    wanted = {"/look/photos": everything, address(only="mistakes"): truth != answer}
    wanted |= {address(only="refused"): refused} if refused.any() else {}
    for number, name in enumerate(names):
        wanted |= {address(truth=name): truth == number, address(answer=name): answer == number}
        for other, called in enumerate(names):
            cell = (truth == number) & (answer == other)
            wanted |= {address(truth=name, answer=called): cell} if cell.any() else {}
    with here.client() as client:
        led = {link for link in addresses(client.get("/look").text) if "photo=" not in link}
        assert led == wanted.keys()
        for link, photos in wanted.items():
            page = client.get(link)
            found = KEY.findall(page.text)
            assert page.status_code == 200
            assert set(found) == keys_of(tested, photos) and len(found) == photos.sum()
        # What no cell leads to may be asked for all the same.
        both = client.get(address(truth=names[1], only="mistakes"))
        assert set(KEY.findall(both.text)) == keys_of(tested, (truth == 1) & (answer != 1))
        none = client.get(address(truth=names[0], answer=names[5], only="refused"))
        assert none.status_code == 200 and "<h1>0 refused photos of " in none.text


@pytest.mark.slow
def test_a_point_leads_to_its_photo(here: Served, tested: Tested) -> None:
    with here.client() as client:
        points = [link for link in addresses(client.get("/look").text) if "photo=" in link]
        assert {link.rpartition("=")[2] for link in points} == keys_of(
            tested, np.ones(len(tested.rows), bool)
        )
        i = int(np.flatnonzero(tested.probabilities.argmax(axis=1) != tested.truth)[0])
        key = tested.store.table.key[tested.rows[i]]
        text = client.get(address(photo=key)).text
        shares = sorted(tested.probabilities[i].tolist(), reverse=True)
        assert f"{100 * shares[0]:.1f}\u202f%" in text and f'src="/photo/{key}"' in text
        assert text.count("similarity") == 3
        assert set(KEY.findall(text)) == {key}
        assert client.get(f"/photo/{key}").headers["content-type"] == "image/jpeg"


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("truth=nobody", "no class nobody"),
        ("truth=", "no class without a name"),
        ("answer=%3Cscript%3E", "no class &lt;script&gt;"),
        ("truth=" + "x" * 9000, "xxx…"),
        ("truth=%ff", "cannot be read"),
        ("truth=pug&truth=pug", "each once"),
        ("label=pug", "and nothing else"),
        ("only=best", "no photos called best"),
        ("photo=" + "0" * 64, "No tested photo"),
        ("photo=../../etc/passwd", "No tested photo"),
        ("page=0", "no page 0"),
        ("page=2", "no page 2"),
        ("page=%D9%A1", "no page"),
        ("page=" + "9" * 5000, "no page"),
        ("&".join(f"truth={i}" for i in range(1000)), "cannot be read"),
    ],
)
def test_what_is_not_known_is_a_sentence(served: Served, query: str, words: str) -> None:
    with served.client() as client:
        page = client.get(f"/look/photos?{query}")
        assert page.status_code == 404
        assert words in re.search("<h1>(.*?)</h1>", page.text, re.DOTALL)[1]  # type: ignore[index]
        assert len(page.text) < 3000


def test_more_photos_than_a_page_takes_are_on_the_next(
    here: Served, tested: Tested, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(look_page, "AT_ONCE", 10)
    found, link = [], "/look/photos"
    with here.client() as client:
        while link:
            text = client.get(link).text
            assert f"{len(found) + 1} to " in text
            found += KEY.findall(text)
            after = re.search(r'href="([^"]+)">The next photos', text)
            link = html.unescape(after[1]) if after else ""
            assert bool(after) == (len(found) < len(tested.truth))
    assert len(found) == len(tested.truth) and set(found) == keys_of(tested, np.ones(len(found), bool))


@pytest.mark.slow
def test_photos_that_are_gone_or_changed_say_so(made: Path, tmp_path: Path) -> None:
    # The model's store is found by its path, so the photos of a copy are moved under it.
    place = tmp_path / "place"
    shutil.copytree(made, place)
    store = Store(place / "features/made.h5")
    root = Path(store.table.root)
    rows = answer_test_photos(store, Model.load(place / MODEL)).rows
    gone, changed, touched = (store.table.path[row] for row in rows[:3])
    kept = {name: (root / name).read_bytes() for name in (gone, changed, touched)}
    try:
        (root / gone).unlink()
        (root / changed).write_bytes(kept[gone])
        (root / touched).write_bytes(kept[touched])
        with serving_here(made, tmp_path, Gate().open) as running, running.client() as client:
            text = client.get("/look/photos").text
            assert f'not shown: no such file">{gone}<br>no such file' in text
            assert f"{changed}<br>changed since its features were computed" in text
            assert text.count('class="gone"') == 2 and "in place" not in text
            assert 'class="gone"' in client.get("/look").text
            root.rename(root.with_name("elsewhere"))
            try:
                text = client.get("/look").text
                assert f"The photos are not in {root} any more" in text
                assert 'src="/thumb' not in text
                assert client.get("/look/photos").status_code == 200
            finally:
                root.with_name("elsewhere").rename(root)
    finally:
        for name, data in kept.items():
            (root / name).write_bytes(data)


@pytest.mark.slow
def test_without_the_store_there_is_a_sentence(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made / "models", tmp_path / "models")
    model = Model.load(tmp_path / MODEL)
    model.record["store"] = "features/gone.h5"
    model.save(tmp_path / MODEL)
    with serving_here(tmp_path, tmp_path, Gate().open) as running, running.client() as client:
        for path in ("/look", "/look/photos", "/look/photos?only=mistakes"):
            page = client.get(path)
            assert page.status_code == 503
            assert "features/gone.h5 cannot be opened; start again with --store" in page.text
    with serving_here(made, tmp_path, Gate().open) as running, running.client() as client:
        store = Path(Store(made / "features/made.h5").path)
        store.rename(store.with_suffix(".away"))
        try:
            page = client.get("/look")
            assert page.status_code == 503 and "made.h5" in page.text
        finally:
            store.with_suffix(".away").rename(store)
        assert client.get("/look").status_code == 200


# --- once, and without holding anybody up -------------------------------------------------------


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """How often the model has answered for the test photos, and labels were judged."""
    counts = {"answers": 0, "labels": 0}

    def count(name: str, function: Callable[..., object]) -> Callable[..., object]:
        def wrapped(*arguments: object) -> object:
            counts[name] += 1
            return function(*arguments)

        return wrapped

    monkeypatch.setattr(look_page, "answer_test_photos", count("answers", answer_test_photos))
    monkeypatch.setattr(report_page, "find_doubts", count("labels", report_page.find_doubts))
    return counts


@pytest.mark.slow
def test_several_windows_share_one_report_until_the_model_changes(
    fresh: Served, made: Path, counted: dict[str, int]
) -> None:
    def get(_: int) -> str:
        with fresh.client() as client:
            return client.get("/look").text

    with ThreadPoolExecutor(6) as pool:
        pages = list(pool.map(get, range(6)))
    assert counted == {"answers": 1, "labels": 1}
    assert all(page.rstrip().endswith("</html>") and '<h2 id="map"' in page for page in pages)
    assert fresh.site is not None
    state = fresh.site.state
    points = set(re.findall(r'data-x="[\d.]+" data-y="[\d.]+"', pages[0]))
    model, kept = state.model_path, made / "kept.safetensors"
    shutil.copy(model, kept)
    shutil.copy(made / "models/other.safetensors", made / "other.safetensors")
    os.replace(made / "other.safetensors", model)
    try:
        assert state.now.store is not None
        numbers = measure(answer_test_photos(state.now.store, Model.load(model)))
        text = get(0)
        assert f'<span class="value">{numbers["log_loss"]:.4f}</span>' in text
        assert f'<span class="value">{numbers["log_loss"]:.4f}</span>' not in pages[0]
        assert counted == {"answers": 2, "labels": 1}  # the labels are the same
        assert set(re.findall(r'data-x="[\d.]+" data-y="[\d.]+"', text)) == points
        os.utime(state.now.store.path)
        assert get(0)
        assert counted == {"answers": 3, "labels": 2}
    finally:
        os.replace(kept, model)


@pytest.mark.slow
def test_corrections_count_as_soon_as_they_are_made(
    fresh: Served, made: Path, tested: Tested, counted: dict[str, int]
) -> None:
    path = corrections_path(made / "features/made.h5")
    answer = tested.probabilities.argmax(axis=1)
    wrong = int(np.flatnonzero(answer != tested.truth)[0])
    key, called = tested.store.table.key[tested.rows[wrong]], tested.model.classes[answer[wrong]]
    with fresh.client() as client:
        before = client.get("/look").text
        assert "as corrected" not in before
        added = add(path, [Correction(key, called)])
        try:
            store = Store(made / "features/made.h5")
            numbers = measure(answer_test_photos(store, Model.load(made / MODEL)))
            text = client.get("/look").text
            assert counted == {"answers": 2, "labels": 2}
            accuracy = f"{100 * numbers['corrected']['accuracy']:.1f}\u202f%"
            assert f'<dt>Accuracy as corrected</dt><dd><span class="value">{accuracy}</span>' in text
            h1 = re.compile("<h1>.*?</h1>")
            assert h1.findall(text) == h1.findall(before)  # the first number takes labels as they came
            assert "Its label was corrected to" in client.get(address(photo=key)).text
        finally:
            undo(path, added)
        assert "as corrected" not in client.get("/look").text


@pytest.mark.slow
def test_the_top_is_there_before_what_takes_long_and_nobody_is_held_up(
    fresh: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    go = threading.Event()
    find_doubts = report_page.find_doubts

    def slow(*arguments: object) -> object:
        assert go.wait(PATIENCE)
        return find_doubts(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(report_page, "find_doubts", slow)
    with fresh.client() as client, client.stream("GET", "/look") as answer:
        pieces, text = answer.iter_text(), ""
        while '<h2 id="labels"' not in text:
            text += next(pieces)
        assert "</html>" not in text
        with fresh.client() as other:
            assert other.get("/api/health").status_code == 200
            assert other.get("/look/photos?only=mistakes").status_code == 200
        go.set()
        assert "".join(pieces).rstrip().endswith("</html>")


# --- where it looked ---------------------------------------------------------------------------


def test_where_it_looked_is_a_picture_of_the_photo(served: Served, app_place: Path) -> None:
    model = Model.load(app_place / MODEL)
    store = Store(app_place / "features/photos.h5")
    key, names = store.table.key[0], model.classes
    with served.client() as client:
        one = client.get(f"/look/looked/{key}", params={"for": names[0]})
        assert one.headers["content-type"] == "image/jpeg" and one.content.startswith(b"\xff\xd8")
        other = client.get(f"/look/looked/{key}", params={"for": names[0], "rather": names[1]})
        assert other.status_code == 200 and other.content != one.content
        assert one.content != client.get(f"/thumb/{key}").content
        bad = ("", "?for=nobody", f"?for={names[0]}&rather=nobody", "?for=%ff")
        for path in [*(key + query for query in bad), f"{'0' * 64}?for={names[0]}"]:
            refused = client.get(f"/look/looked/{path}")
            assert refused.status_code == 404 and "<h1>" in refused.text


# --- in a real browser -------------------------------------------------------------------------


def test_a_cell_a_class_and_a_point_open_their_photos_in_place(
    browser: Browser, here: Served, tested: Tested
) -> None:
    with opened(browser, here) as tab:
        tab.goto(f"{here.url}/look")
        cell = tab.locator("#matrix .miss").first
        count = int(cell.locator(".n").inner_text())
        cell.click()
        shown = tab.locator("#chosen .photos > li")
        expect(shown).to_have_count(count)
        assert all("is-wrong" in (card.get_attribute("class") or "") for card in shown.all())
        expect(cell).to_have_attribute("aria-current", "true")
        tab.locator("#per-class tbody a").nth(1).click()
        expect(shown).to_have_count(int((tested.truth == 1).sum()))
        expect(cell).not_to_have_attribute("aria-current", "true")
        tab.locator("#plot .off").last.click()
        expect(tab.locator("#pointed article")).to_have_count(1)
        assert "called" in tab.locator("#pointed-title").inner_text()
        assert tab.url == f"{here.url}/look"
        tab.locator("#rates").click()
        assert cell.locator(".r").is_visible() and not cell.locator(".n").is_visible()


def test_where_it_looked_is_asked_for_when_it_is_opened(browser: Browser, served: Served) -> None:
    with opened(browser, served) as tab:
        asked: list[str] = []
        tab.on("request", lambda request: asked.append(request.url))
        tab.goto(f"{served.url}/look/photos")
        tab.wait_for_load_state("networkidle")
        assert not [url for url in asked if "/looked/" in url]
        tab.locator("summary").first.click()
        expect(tab.locator("details[open] img")).to_have_js_property("complete", True)
        assert tab.locator("details[open] img").evaluate("image => image.naturalWidth") > 0
        assert len([url for url in asked if "/looked/" in url]) == 1


def test_the_page_by_keyboard_alone(browser: Browser, here: Served) -> None:
    with opened(browser, here) as tab:
        tab.goto(f"{here.url}/look")
        tab.locator("#matrix .hit").first.focus()
        tab.keyboard.press("ArrowDown")
        tab.keyboard.press("ArrowRight")
        assert tab.evaluate("document.activeElement.matches('#matrix .cell')")
        count = int(tab.evaluate("document.activeElement.querySelector('.n').textContent"))
        tab.keyboard.press("Enter")
        expect(tab.locator("#chosen .photos > li")).to_have_count(count)
        assert tab.evaluate("document.activeElement.id") == "chosen"
        tab.keyboard.press("Tab")
        assert tab.evaluate("document.activeElement.getAttribute('href')").startswith("/photo/")
        tab.locator("#plot").focus()
        tab.keyboard.press("ArrowRight")
        expect(tab.locator("#shown img")).to_be_visible()
        text = tab.locator("#shown-text").inner_text()
        tab.keyboard.press("Enter")
        expect(tab.locator("#pointed article")).to_have_count(1)
        assert tab.evaluate("document.activeElement.id") == "pointed"
        assert text.split()[0] in tab.locator("#pointed-title").inner_text()


def test_without_script_the_links_lead_there(browser: Browser, here: Served) -> None:
    with opened(browser, here, scripts=False) as tab:
        tab.goto(f"{here.url}/look")
        cell = tab.locator("#matrix .miss").first
        count = int(cell.locator(".n").inner_text())
        cell.click()
        assert "/look/photos?truth=" in tab.url
        assert tab.locator(".photos > li").count() == count
        tab.go_back()
        tab.locator("#plot .off").last.click()
        assert "/look/photos?photo=" in tab.url and tab.locator("article").count() == 1


def test_the_pages_look_well(browser: Browser, here: Served) -> None:
    with opened(browser, here) as tab:
        tab.goto(f"{here.url}/look")
        tab.locator("#matrix .hit").first.click()
        expect(tab.locator("#chosen .photos")).to_be_visible()
        tab.locator("#plot .off").last.click()
        expect(tab.locator("#pointed article")).to_be_visible()
        for url in (tab.url, f"{here.url}/look/photos?only=mistakes"):
            if url != tab.url:
                tab.goto(url)
            assert tab.locator("[style]").count() == 0
            check_looks(tab)


def test_nothing_of_a_name_is_more_than_text(here: Served) -> None:
    with here.client() as client:
        for path in ("/look", "/look/photos", address(truth=CANARY), address(truth=NAMES[5])):
            page = client.get(path)
            text = page.text
            assert "<img src=x" not in text and "<script>" not in text and "style=" not in text
            assert "&lt;script&gt;document.title" in text or path == address(truth=NAMES[5])
            policy = page.headers["content-security-policy"]
            assert "unsafe" not in policy and "default-src 'none'" in policy

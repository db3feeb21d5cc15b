"""The page Try in a real browser: dropped, pasted or chosen, with and without script, by keyboard alone."""

from __future__ import annotations

import base64
import json
import re
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import run_script
from pages import CANARY, check_looks
from playwright.sync_api import Browser, Locator, Page, expect
from served import MODEL, Gate, Served, files, jpeg, serving_here

from breeds.heads.model import Model
from breeds.photos import key_of

HOSTILE_CLASSES = [CANARY, f"\"'>{CANARY}", "bytes \udcff{{ 7 * 7 }}", "a" * 200, "\u202egpj"]


@contextmanager
def opened(
    browser: Browser,
    served: Served,
    width: int = 1280,
    height: int = 800,
    scheme: str = "light",
    scripts: bool = True,
) -> Iterator[Page]:
    """The page Try; it must not complain, nor ask for anything of another machine."""
    context = browser.new_context(
        viewport={"width": width, "height": height},
        color_scheme=scheme,  # type: ignore[arg-type]
        java_script_enabled=scripts,
    )
    context.set_default_timeout(30_000)
    tab = context.new_page()
    said: list[str] = []
    asked: list[str] = []
    # Chromium shows a picture alone by means of a style that our policy stops; a 503 is asked again.
    known = (
        "Applying inline style violates",
        "Failed to load resource: the server responded with a status of 503",
    )
    tab.on("console", lambda message: message.text.startswith(known) or said.append(message.text))
    tab.on("pageerror", lambda error: said.append(str(error)))
    tab.on("request", lambda request: asked.append(request.url))
    try:
        tab.goto(served.url)
        yield tab
        assert said == []
        assert [url for url in asked if not url.startswith((served.url + "/", "data:", "blob:"))] == []
        assert tab.title() != "canary"
    finally:
        context.close()


def cards(tab: Page, count: int) -> list[Locator]:
    """The cards of the page, as soon as so many are done."""
    done = tab.locator("#cards > li:not(.is-waiting)")
    expect(done).to_have_count(count, timeout=30_000)
    return done.all()


@pytest.fixture(scope="module")
def chosen(app_place: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two photos, one of them a training photo, and what is none between them."""
    folder = tmp_path_factory.mktemp("chosen")
    seen = Model.load(app_place / MODEL).seen_keys()
    photos = sorted((app_place / "photos").rglob("*.jpg"))
    known = next(path for path in photos if key_of(path.read_bytes()) in seen)
    one = shutil.copy(known, folder / "a one.jpg")
    (folder / "bad.jpg").write_bytes(b"no photo")
    (folder / "other.jpg").write_bytes(jpeg(5, (300, 200)))
    return [Path(one), folder / "bad.jpg", folder / "other.jpg"]


def test_chosen_photos_are_answered_as_predict_answers_them(
    browser: Browser, served: Served, app_place: Path, chosen: list[Path]
) -> None:
    options = ("--format=json", "--top-k=3", "--no-cache", "--model", app_place / MODEL)
    done = run_script("predict.py", *chosen, *options, cwd=app_place)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    with opened(browser, served) as tab:
        tab.locator("#files").set_input_files(chosen)
        for card, row, path in zip(cards(tab, 3), rows, chosen, strict=True):
            text = card.inner_text()
            assert path.name in text
            if row["error"]:
                assert f"No answer: {row['error']}" in text
                continue
            heading = card.locator("h3").inner_text()
            assert heading.startswith("None of these" if row["breed"] == "unknown" else row["breed"])
            lines = card.locator(".best tr").all()
            for line, best in zip(lines, row["top"], strict=True):
                assert line.locator("bdi").inner_text() == best["breed"]
                share = float(line.locator("rect").get_attribute("width") or -1)
                assert share == pytest.approx(100 * best["probability"], abs=0.006)
            assert card.locator(".pictures img").count() == 2
            assert card.locator(".evidence img").count() == 3
            for picture in card.locator("img").all():
                picture.scroll_into_view_if_needed()
                expect(picture).to_have_js_property("complete", True)
                assert picture.evaluate("image => image.naturalWidth") > 1
        assert "trained on this very photo" in cards(tab, 3)[0].inner_text()
        assert "the same photo" in cards(tab, 3)[0].inner_text()
        assert re.match(r"3 of 3\. .+: ", tab.get_by_role("status").inner_text())
        tab.locator("#files").set_input_files(chosen[2])  # the new one is on top
        assert "other.jpg" in cards(tab, 4)[0].inner_text()


def transfer(tab: Page, *photos: Path) -> object:
    """Photos as a drop or the clipboard has them."""
    data = [(path.name, base64.b64encode(path.read_bytes()).decode()) for path in photos]
    return tab.evaluate_handle(
        """photos => {
            const found = new DataTransfer();
            for (const [name, data] of photos) {
                const bytes = Uint8Array.from(atob(data), letter => letter.charCodeAt(0));
                found.items.add(new File([bytes], name, { type: "image/jpeg" }));
            }
            return found;
        }""",
        data,
    )


def test_photos_are_dropped_anywhere_and_pasted(browser: Browser, served: Served, chosen: list[Path]) -> None:
    with opened(browser, served) as tab:
        dropped = transfer(tab, chosen[0], chosen[2])
        over = tab.locator("#over")
        tab.dispatch_event("h1", "dragover", {"dataTransfer": dropped})
        expect(over).to_be_visible()
        tab.dispatch_event("h1", "drop", {"dataTransfer": dropped})
        expect(over).to_be_hidden()
        assert [card.locator(".pictures img").count() for card in cards(tab, 2)] == [2, 2]
        pasted = transfer(tab, chosen[2])
        tab.evaluate(
            "data => document.body.dispatchEvent(new ClipboardEvent('paste', "
            "{ clipboardData: data, bubbles: true, cancelable: true }))",
            pasted,
        )
        assert "other.jpg" in cards(tab, 3)[0].inner_text()


def test_without_script_the_form_answers(browser: Browser, served: Served, chosen: list[Path]) -> None:
    with opened(browser, served, scripts=False) as tab:
        tab.locator("#files").set_input_files(chosen)
        tab.get_by_role("button", name="What is it?").click()
        found = cards(tab, 3)
        assert [card.locator(".pictures img").count() for card in found] == [2, 0, 2]
        expect(tab.get_by_role("heading", name="Answers")).to_be_visible()
        tab.locator("#files").set_input_files([])
        tab.get_by_role("button", name="What is it?").click()
        assert cards(tab, 0) == []


def test_the_keyboard_is_enough_and_focus_is_seen(
    browser: Browser, served: Served, chosen: list[Path]
) -> None:
    with opened(browser, served) as tab:
        tab.locator("#files").set_input_files(chosen[0])
        cards(tab, 1)
        reached = []
        for _ in range(12):
            tab.keyboard.press("Tab")
            here = tab.evaluate(
                """() => {
                    const at = document.activeElement, look = getComputedStyle(at);
                    const name = at.getAttribute("href") || at.id || at.tagName;
                    return [name, look.outlineStyle, look.outlineWidth];
                }"""
            )
            if here[0] == "BODY":
                break
            reached.append(here[0])
            assert here[1] != "none" and float(here[2].removesuffix("px")) >= 2, here
            if here[0].startswith("/photo/"):
                break
        assert {"files", "BUTTON"} <= set(reached)
        tab.keyboard.press("Enter")
        tab.wait_for_url("**/photo/*")


def test_a_reload_in_the_middle_costs_nothing_and_breaks_nothing(
    browser: Browser, app_place: Path, tmp_path: Path, chosen: list[Path]
) -> None:
    gate = Gate()
    with serving_here(app_place, tmp_path, gate.open) as running, opened(browser, running) as tab:
        photos = [tmp_path / f"{number}.jpg" for number in range(30)]
        for number, path in enumerate(photos):
            path.write_bytes(jpeg(number))
        tab.locator("#files").set_input_files(photos)
        expect(tab.locator(".is-waiting")).to_have_count(30)
        tab.reload()
        expect(tab.locator("#cards > li")).to_have_count(0)
        tab.locator("#files").set_input_files(chosen[0])
        gate.let(100)
        cards(tab, 1)
        assert gate.computed < 12  # three were under way


def test_a_busy_application_is_asked_again(
    browser: Browser, app_place: Path, tmp_path: Path, chosen: list[Path]
) -> None:
    gate = Gate()
    with (
        serving_here(app_place, tmp_path, gate.open, most_waiting=1) as running,
        opened(browser, running) as tab,
        running.client() as client,
        ThreadPoolExecutor() as pool,
    ):
        assert running.site is not None
        other = pool.submit(client.post, "/api/predict", files=files(jpeg(9)))
        while not running.site.service.waiting:
            time.sleep(0.01)
        with tab.expect_response(lambda answer: answer.status == 503):
            tab.locator("#files").set_input_files(chosen[0])
        gate.let(100)
        assert other.result().status_code == 200
        cards(tab, 1)


def test_an_application_that_is_gone_is_said_and_tried_again(
    browser: Browser, served: Served, chosen: list[Path]
) -> None:
    context = browser.new_context()
    tab = context.new_page()
    tab.goto(served.url)
    tab.route("**/card", lambda route: route.abort())
    tab.locator("#files").set_input_files(chosen[0])
    (card,) = cards(tab, 1)
    assert "The application does not answer; is it still running?" in card.inner_text()
    tab.unroute("**/card")
    card.get_by_role("button").click()
    expect(tab.locator("#cards .pictures img")).to_have_count(2)
    assert tab.evaluate("document.activeElement.className").startswith("card tried")
    context.close()


@pytest.fixture
def hostile(app_place: Path, tmp_path: Path) -> Iterator[Served]:
    """The application with a model whose classes have hostile names."""
    with serving_here(app_place, tmp_path, classes=HOSTILE_CLASSES) as running:
        yield running


def test_it_looks_right_and_hostile_names_are_text(
    browser: Browser, hostile: Served, chosen: list[Path], tmp_path: Path
) -> None:
    smuggled = "'\"><img src=x onerror=document.title='canary'>.jpg"
    names = [smuggled, "{{ 7 * 7 }} & \u202egpj.jpg", "x" * 200 + ".jpg"]
    photos = [Path(shutil.copy(chosen[0], tmp_path / name)) for name in names]
    with opened(browser, hostile) as tab:
        check_looks(tab)
        tab.locator("#files").set_input_files([*photos, chosen[1]])
        done = cards(tab, 4)
        assert "<img src=x onerror" in done[0].inner_text()
        assert "{{ 7 * 7 }}" in done[1].inner_text()
        check_looks(tab)
    with hostile.client() as client:
        assert [name.replace("\udcff", "\ufffd") for name in HOSTILE_CLASSES] == client.get(
            "/api/model"
        ).json()["classes"]


def test_the_page_of_the_endpoint_and_of_what_is_not_there(browser: Browser, served: Served) -> None:
    pages = {"/api": "The endpoint for programs", "/nothing": "There is nothing at this address."}
    context = browser.new_context()
    tab = context.new_page()
    for path, heading in pages.items():
        tab.goto(served.url + path)
        expect(tab.get_by_role("heading", level=1)).to_have_text(heading)
        check_looks(tab)
    context.close()


def test_another_pages_script_gets_nothing(browser: Browser, served: Served, app_place: Path) -> None:
    """A page of another origin in the same browser may neither send photos nor read anything."""
    key = key_of(min((app_place / "photos").rglob("*.jpg")).read_bytes())
    context = browser.new_context()
    context.route("http://localhost:1/", lambda route: route.fulfill(body="evil", content_type="text/html"))
    tab = context.new_page()
    tab.goto("http://localhost:1/")
    answered: list[tuple[str, int]] = []
    tab.on("response", lambda response: answered.append((response.request.method, response.status)))
    outcome = tab.evaluate(
        """async ([url, key]) => {
            const body = new FormData();
            body.append("files", new File(["x"], "x.jpg"));
            const tried = [];
            for (const [path, how] of [
                ["/api/predict", { method: "POST", body, mode: "no-cors" }],
                ["/card", { method: "POST", body, mode: "no-cors" }],
                ["/api/model", {}], ["/api/health", { mode: "no-cors" }],
                ["/photo/" + key, { mode: "no-cors" }],
            ]) {
                tried.push(await fetch(url + path, how).then((answer) => answer.type, () => "stopped"));
            }
            const image = new Image();
            image.src = `${url}/thumb/${key}`;
            tried.push(await image.decode().then(() => "shown", () => "stopped"));
            return tried;
        }""",
        [served.url, key],
    )
    assert outcome == ["stopped"] * 6
    assert [status for method, status in answered if method == "POST"] in ([], [403, 403])
    context.close()

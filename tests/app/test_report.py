"""The report's page: right numbers, real photos, no code from names; opened in a real browser."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import assert_refused, run_script
from pages import CANARY, check_looks, opened, store_with_photos

from breeds.config import FeatureConfig
from breeds.evaluation import answer_test_photos, measure
from breeds.features import Store
from breeds.heads.model import Model
from breeds.report.page import write_report
from breeds.training import train

#: One process makes what these tests share, beside the other pages that a browser opens.
pytestmark = pytest.mark.xdist_group("browser")
RECIPE = FeatureConfig("xception", "random", "0" * 64, 299, "stretch")
NAMES = ["beagle", "pug", CANARY, "quo\"te's & new\nline", "🐕 emoji", "bad\udcff bytes \x07 $x^2$"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of six classes with hostile names, its photos, and a model of it that makes mistakes."""
    folder = tmp_path_factory.mktemp("made")
    store = store_with_photos(folder, NAMES, 20, RECIPE, spread=0.3)
    train(Store(store)).save(folder / "models" / "made.safetensors")
    return folder


def page_of(folder: Path, out: Path, change: Callable[[Model], object] = lambda model: None) -> str:
    """Write a report into `out` and return its text."""
    model = Model.load(folder / "models" / "made.safetensors")
    change(model)
    tested = answer_test_photos(Store(folder / "features" / "made.h5"), model)
    write_report(measure(tested) | {"model": "models/made.safetensors"}, tested, out)
    return out.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("page") / "report.html"
    page_of(made, out)
    return out


@pytest.mark.slow
def test_evaluate_writes_the_page_beside_the_json(made: Path, tmp_path: Path) -> None:
    done = run_script(
        "evaluate.py", "--model", made / "models" / "made.safetensors", "--figures", "figures", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    card = made / "models" / "made.md"
    assert f"wrote reports/made.json, reports/made.html, 12 files in figures, {card}" in done.stdout
    numbers = json.loads((tmp_path / "reports" / "made.json").read_text())
    text = (tmp_path / "reports" / "made.html").read_text(encoding="utf-8")
    right = round(numbers["accuracy"] * numbers["n_test"])
    assert f"<h1>{right} of {numbers['n_test']} photos are named rightly</h1>" in text
    for name in ("confusion", "reliability", "coverage", "search", "refusal", "photos-per-class"):
        assert (tmp_path / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert "canary" not in (tmp_path / "figures" / f"{name}.svg").read_text().replace(
            "title='canary'", ""
        )
    for folder in ("reports", "figures"):
        assert not [path for path in (tmp_path / folder).iterdir() if path.name.startswith(".")]


@pytest.mark.slow
def test_no_html_writes_no_page_and_loads_nothing_for_it(made: Path, tmp_path: Path) -> None:
    done = run_script(
        "evaluate.py", "--model", made / "models" / "made.safetensors", "--no-html", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert [path.name for path in (tmp_path / "reports").iterdir()] == ["made.json"]


@pytest.mark.slow
def test_a_page_that_cannot_be_written_is_found_before_any_work(made: Path, tmp_path: Path) -> None:
    model = made / "models" / "made.safetensors"
    (tmp_path / "reports" / "made.html").mkdir(parents=True)
    assert_refused(run_script("evaluate.py", "--model", model, cwd=tmp_path), "made.html", "folder")
    assert_refused(
        run_script("evaluate.py", "--model", model, "--json", "x.html", cwd=tmp_path), "x.html", ".json"
    )
    (tmp_path / "file").write_text("")
    refused = run_script(
        "evaluate.py", "--model", model, "--json", "y.json", "--figures", "file", cwd=tmp_path
    )
    assert_refused(refused, "file")
    assert not (tmp_path / "reports" / "made.json").exists()
    assert not (tmp_path / "y.json").exists()


@pytest.mark.slow
def test_every_tested_photo_is_in_its_cell(made: Path, page: Path) -> None:
    store, model = Store(made / "features" / "made.h5"), Model.load(made / "models" / "made.safetensors")
    tested = answer_test_photos(store, model)
    answers = tested.probabilities.argmax(axis=1)
    text = page.read_text(encoding="utf-8")
    cards = re.findall(r'id="photo-(\d+)" data-truth="(\d+)" data-answer="(\d+)">\s*<a href="([^"]+)">', text)
    assert len(cards) == len(answers)
    for number, truth, answer, href in cards:
        assert (int(truth), int(answer)) == (tested.truth[int(number)], answers[int(number)])
        target = (page.parent / href).resolve()
        assert target == Path(store.table.root, store.table.path[tested.rows[int(number)]])
    assert text.count("<article") == (answers != tested.truth).sum()


@pytest.mark.slow
def test_photos_that_are_gone_or_changed_are_grey_tiles_with_their_names(made: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(made, tmp_path / "made")
    store = Store(moved / "features" / "made.h5")
    folder = Path(store.table.root)
    model = Model.load(moved / "models" / "made.safetensors")
    rows = answer_test_photos(store, model).rows
    gone, changed = (folder / store.table.path[row] for row in rows[:2])
    kept = {path: path.read_bytes() for path in (gone, changed)}
    try:
        gone.unlink()
        changed.write_bytes(kept[gone])
        text = page_of(made, tmp_path / "page.html")
    finally:
        for path, data in kept.items():
            path.write_bytes(data)
    assert re.search(f'aria-label="Photo of [^"]*, not shown: [^"]*">{gone.name}<br>', text)
    assert f">{changed.name}<br>changed since its features were computed" in text


@pytest.mark.slow
def test_names_are_text_and_nothing_else(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert text.count("<script") == 1
    assert "<img src=x" not in text
    assert "&lt;script&gt;document.title" in text
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', text)[1]
    assert "unsafe" not in policy and "default-src &#39;none&#39;" in policy


def test_the_report_in_the_browser(browser, page: Path) -> None:
    with opened(browser, page) as tab:
        check_looks(tab)
        assert tab.locator("#gallery > li:visible").count() == 0
        cell = tab.locator("#matrix button.miss").first
        count = int(cell.locator(".n").inner_text())
        cell.click()
        shown = tab.locator("#gallery > li:visible")
        assert shown.count() == count
        assert all("is-wrong" in card.get_attribute("class") for card in shown.all())
        assert tab.locator("#chosen-title").inner_text() == cell.get_attribute("aria-label")
        tab.locator("#rates").click()
        assert cell.locator(".r").is_visible() and not cell.locator(".n").is_visible()


def test_the_report_by_keyboard_alone(browser, page: Path) -> None:
    with opened(browser, page) as tab:
        tab.locator("#matrix button.hit").first.focus()
        tab.keyboard.press("ArrowDown")
        tab.keyboard.press("ArrowRight")
        focused = tab.evaluate("document.activeElement.getAttribute('aria-label')")
        tab.keyboard.press("Enter")
        assert tab.locator("#chosen-title").inner_text() == focused
        heading = tab.locator("#per-class .sort", has_text="recall")
        heading.focus()
        tab.keyboard.press("Enter")
        values = [
            float(cell.inner_text()) for cell in tab.locator("#per-class tbody tr td:nth-of-type(2)").all()
        ]
        assert values == sorted(values, reverse=True) and len(set(values)) > 1
        tab.keyboard.press("Enter")
        assert heading.locator("..").get_attribute("aria-sort") == "ascending"
        tab.locator("#plot").focus()
        tab.keyboard.press("ArrowRight")
        assert tab.locator("#shown").is_visible() and tab.locator("#shown img").is_visible()
        tab.keyboard.press("Enter")
        assert tab.locator("#gallery > li:visible").count() > 0


def test_120_classes_are_readable(browser, tmp_path: Path) -> None:
    names = [f"breed_number_{number}" for number in range(120)]
    store_with_photos(tmp_path, names, 8, RECIPE, spread=0.5)
    train(Store(tmp_path / "features" / "made.h5"), C=1e-3).save(tmp_path / "models" / "made.safetensors")
    page_of(tmp_path, tmp_path / "page.html")
    assert (tmp_path / "page.html").stat().st_size < 6e6
    with opened(browser, tmp_path / "page.html", 390, 844) as tab:
        assert tab.evaluate("document.documentElement.scrollWidth") <= 390
        assert tab.locator("#matrix tbody tr").count() == 120
        last = tab.locator("#matrix button.hit").last
        last.click()
        assert tab.locator("#gallery > li:visible").count() > 0
        assert (
            tab.locator("#matrix tbody th").last.evaluate("node => getComputedStyle(node).position")
            == "sticky"
        )


@pytest.mark.slow
def test_what_cannot_be_shown_is_said(made: Path, make_store, tmp_path: Path) -> None:
    def blind(model: Model) -> None:
        model.unknown = None
        del model.record["cv_log_loss"]

    text = page_of(made, tmp_path / "page.html", blind)
    assert "C was not searched for" in text
    assert "refuses no photo" in text
    # The photos of this store were never there, one class has a single photo, and few are tested.
    model = train(Store(make_store({"a": 4, "b": 4}, config=RECIPE)))
    tested = answer_test_photos(
        Store(make_store({"a": 2, "b": 1}, name="few.h5", seed=1, config=RECIPE)), model
    )
    write_report(measure(tested) | {"model": "m.safetensors"}, tested, tmp_path / "few.html")
    few = (tmp_path / "few.html").read_text(encoding="utf-8")
    assert "Doubtful labels cannot be looked for" in few
    assert "A map needs four tested photos" in few
    assert 'class="gone"' in few


@pytest.mark.slow
def test_a_model_on_two_stores_says_that_it_cannot_show_where_it_looked(tmp_path: Path) -> None:
    first = store_with_photos(tmp_path / "a", ["a", "b"], 30, RECIPE, spread=0.05)
    other = FeatureConfig("resnet50v2", "random", "1" * 64, 224, "stretch")
    second = store_with_photos(tmp_path / "b", ["a", "b"], 30, other, spread=0.05)
    store = Store(first, second)
    tested = answer_test_photos(store, train(store))
    assert (tested.probabilities.argmax(axis=1) != tested.truth).any()
    write_report(measure(tested) | {"model": "m.safetensors"}, tested, tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "several stores" in text and "2 networks" in text


@pytest.mark.slow
def test_charts_say_in_words_what_they_show(made: Path) -> None:
    from breeds.report.charts import draw_charts

    model = Model.load(made / "models" / "made.safetensors")
    tested = answer_test_photos(Store(made / "features" / "made.h5"), model)
    numbers = measure(tested)
    drawn, missing = draw_charts(numbers, tested)
    assert missing == []
    excess = int((tested.excess > model.unknown.threshold).sum())
    words = {chart.name: chart.words for chart in drawn}
    assert f"{excess} of {len(tested.truth)} tested photos" in words["refusal"]
    assert f"{numbers['accuracy'] * 100:.1f}\u202f% right when all" in words["coverage"]
    for chart in drawn:
        svg = chart.svg()
        assert "style=" not in svg and "<style" not in svg
        assert "<script" not in svg


def test_the_map_is_the_same_each_time(made: Path, tmp_path: Path) -> None:
    from breeds.report.gallery import Gallery

    model = Model.load(made / "models" / "made.safetensors")
    tested = answer_test_photos(Store(made / "features" / "made.h5"), model)
    one, other = (gallery.map(gallery.plane()) for gallery in (Gallery(tested), Gallery(tested)))
    assert one == other
    places = np.array([(point["x"], point["y"]) for point in one["points"]])
    assert len(places) == len(tested.truth)
    assert (places >= 0).all() and (places <= (1000, 640)).all()

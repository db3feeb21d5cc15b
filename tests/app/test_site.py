"""The documentation as it is built, and its tour and notebook as a reader would run them."""

from __future__ import annotations

import csv
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import h5py
import nbformat
import numpy as np
import pytest
from conftest import ROOT
from nbclient import NotebookClient
from pages import WIDTHS
from playwright.sync_api import Browser
from safetensors import safe_open

import breeds
from breeds.heads.model import Model
from breeds.prediction import Answer
from breeds.report.answers import write_answers

DOCS = ROOT / "docs"
TOUR = re.findall(r"```(sh|text)\n(.*?)```", (DOCS / "tour.md").read_text(encoding="utf-8"), flags=re.DOTALL)
EACH = 4
#: Small networks of random weights on few photos, so that the tests are quick; all else is as it is shown.
QUICK = {"breeds.sample dogs": f" --per-breed {EACH}", "extract dogs/photos": " --weights random --size 96"}

# In one process, beside the other pages that a browser opens.
in_one_process = pytest.mark.xdist_group("browser")


def checker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("check", DOCS / "check.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pages, as make docs makes them: a warning is an error, and there is no network to ask."""
    folder = tmp_path_factory.mktemp("site")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    (line,) = re.findall(r"\.venv/bin/python -m (sphinx .*) docs docs/_build", makefile)
    command = [
        sys.executable,
        "-m",
        *line.split(),
        "--doctree-dir",
        folder / "trees",
        "docs",
        folder / "html",
    ]
    nowhere = dict.fromkeys(("http_proxy", "https_proxy", "all_proxy"), "http://127.0.0.1:9")
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, **nowhere},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return folder / "html"


@pytest.mark.slow
@in_one_process
def test_every_link_of_the_pages_leads_somewhere_and_nothing_is_loaded_from_elsewhere(built: Path) -> None:
    assert checker().faults(built) == []
    names = {path.relative_to(built).with_suffix("").as_posix() for path in built.rglob("*.html")}
    pages = {path.relative_to(DOCS).with_suffix("").as_posix() for path in DOCS.rglob("*.md")}
    assert names == {page for page in pages if not page.startswith("_build")} | {"genindex", "search"}


@pytest.mark.slow
@in_one_process
def test_the_library_is_described_whole(built: Path) -> None:
    found = set(re.findall(r'id="breeds\.([\w.]+)"', (built / "api.html").read_text(encoding="utf-8")))
    assert {name for name in found if "." not in name} == set(breeds.__all__)
    for name in breeds.__all__:
        methods = vars(getattr(breeds, name)) if name[0].isupper() else {}
        methods = {method for method, what in methods.items() if callable(what) or hasattr(what, "__get__")}
        assert {f"{name}.{method}" for method in methods if re.match("(?!set_)[a-z]", method)} <= found


@pytest.mark.slow
@in_one_process
@pytest.mark.parametrize("name", ["index", "api", "howto/look"])
def test_pages_ask_for_nothing_and_fit_the_screen(built: Path, browser: Browser, name: str) -> None:
    """Of the network; what a page in a folder has beside it may lie above."""
    for (width, height), scheme in zip(WIDTHS, ("light", "dark"), strict=True):
        context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
        tab, asked, said = context.new_page(), [], []
        tab.on("request", lambda request, asked=asked: asked.append(request.url))
        tab.on("pageerror", lambda error, said=said: said.append(str(error)))
        tab.goto((built / f"{name}.html").as_uri())
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
        assert tab.locator("img:not([alt])").count() == 0
        context.close()
        assert len(asked) > 3
        assert [url for url in asked if not url.startswith((built.as_uri(), "data:"))] == []
        assert said == []


def test_the_check_finds_what_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "styles").mkdir()
    (tmp_path / "other.html").write_text("<h1 id=here>.</h1>")
    (tmp_path / "styles" / "a.css").write_text("@font-face { src: url(https://fonts.example.org/a.woff2) }")
    (tmp_path / "index.html").write_text(
        "<link rel=stylesheet href=styles/a.css><style>p { background: url('gone.png') }</style>"
        "<script src='//cdn.example.org/a.js'></script><img src=http://example.org/a.png>"
        "<a href=other.html#here>.</a><a href='#there'>.</a><a href=other.html#there>.</a>"
        "<a href=gone.html>.</a><a href='https://example.org/a'>.</a><a href='http:/example.org'>.</a>"
        "<a href='https://exam ple.org'>.</a><a href='javascript:alert()'>.</a>"
    )
    found = [fault.removeprefix(f"{tmp_path.resolve()}/") for fault in checker().faults(tmp_path)]
    assert found == [
        "index.html: #there names a place that is not in index.html",
        "index.html: other.html#there names a place that is not in other.html",
        "index.html: gone.html is not there",
        "index.html: http:/example.org is no address",
        "index.html: https://exam ple.org is no address",
        "index.html: javascript:alert() is no address",
        "index.html: gone.png is loaded and not there",
        "index.html: //cdn.example.org/a.js is loaded from elsewhere",
        "index.html: http://example.org/a.png is loaded from elsewhere",
        "styles/a.css: https://fonts.example.org/a.woff2 is loaded from elsewhere",
    ]


def described(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def test_the_formats_name_all_that_is_in_the_files(app_place: Path) -> None:
    with h5py.File(app_place / "features/photos.h5") as store:
        inside = {*store, *store.attrs}
    assert {name for name in inside if f"`{name}`" not in described("features/README.md")} == set()
    with safe_open(app_place / "models/photos.safetensors", "numpy") as model:
        arrays, about = set(model.keys()), json.loads(model.metadata()["breeds"])
    assert {name for name in (*arrays, *about) if f"`{name}`" not in described("models/README.md")} == set()


def test_the_formats_name_every_column_of_predictions(app_place: Path) -> None:
    model = Model.load(app_place / "models/photos.safetensors")
    answer = Answer("a.jpg", np.full(len(model.classes), 1 / len(model.classes)))
    for form, top in (("csv", 2), ("json", 2)):
        out = app_place / f"answers.{form}"
        write_answers([answer], model.classes, out, form, top)
        text = out.read_text(encoding="utf-8")
        names = json.loads(text) if form == "json" else next(csv.reader(text.splitlines()))
        assert {name for name in names if f"`{name}`" not in described("docs/formats.md")} == set()


def without_numbers(text: str) -> str:
    return re.sub(r"\d+(\.\d+)?", "#", text)


@pytest.fixture
def place(drawn_photos: Path, tmp_path: Path, app_place: Path) -> Path:
    """An empty folder, but that photos which would be drawn are there: what is there is not drawn again.

    `app_place` has converted the same network.
    """
    for breed in drawn_photos.iterdir():
        for photo in sorted(breed.iterdir())[:EACH]:
            target = tmp_path / "tour/dogs/photos" / breed.name / photo.name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(photo, target)
    return tmp_path / "tour"


#: A program that has a process forked for what it is called with.
FORKED = f"""import os, sys
sys.path.insert(0, {str(ROOT / "tests")!r})
import forked
done = forked.run({{target}} + sys.argv[1:], os.getcwd(), dict(os.environ), "", 300)
sys.stdout.write(done.stdout)
sys.stderr.write(done.stderr)
sys.exit(done.returncode)
"""


def test_the_tour(place: Path, tmp_path: Path) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "main").mkdir()
    (programs / "main/breeds").write_text("from breeds.cli import main\nmain()\n")
    for name, target in (("breeds", f"[{str(programs / 'main/breeds')!r}]"), ("python", "[]")):
        (programs / name).write_text(f"#!{sys.executable}\n{FORKED.format(target=target)}")
        (programs / name).chmod(0o755)
    commands = "".join(block for language, block in TOUR if language == "sh")
    assert len(commands.splitlines()) == 9
    for shown, more in QUICK.items():
        assert shown in commands
        commands = re.sub(f"({shown}(?: --preview)?)$", rf"\1{more}", commands, flags=re.MULTILINE)
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        ["sh", "-e"],
        input=commands,
        cwd=place,
        env=env,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said = without_numbers(done.stdout + done.stderr)
    for language, block in TOUR:
        for line in block.splitlines() if language == "text" else ():
            assert without_numbers(line) in said
    assert "40 photos = 40 features (0 new, 40 reused)" in done.stdout, "a new name computes nothing"
    assert (place / "breeds.csv").read_text().count("dogs/holiday/") == 12
    for page in ("reports/photos-preview.html", "reports/photos.html", "breeds.html"):
        assert f"`{page}`" in (DOCS / "tour.md").read_text(encoding="utf-8")
        assert "</html>" in (place / page).read_text(encoding="utf-8")


@pytest.mark.thorough
def test_the_notebook_runs_from_top_to_bottom(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notebook = nbformat.read(DOCS / "tour.ipynb", as_version=4)
    (given,) = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ())]
    names = given.source.split(" = ")[0]
    given.source = f'{names} = {EACH}, "random", 96'
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(place)}}).execute()
    answered = [cell.outputs for cell in notebook.cells if cell.cell_type == "code"]
    said = "".join(part.get("text", "") for outputs in answered for part in outputs)
    assert "40 photos of 10 drawn breeds" in said
    assert re.search(r"of \d+ photos \(95 % interval", said)
    shown = [part.data["text/plain"] for outputs in answered for part in outputs if "data" in part]
    assert "<breeds.Store 'features/dogs.h5': 40 photos" in shown[1]
    assert shown[-2].count("holiday_") == 12
    assert "<breeds.Model: logistic, 10 classes" in shown[-1]
    assert (place / "models/dogs.safetensors").is_file()

"""The preview: a page of photos before any work, and of what is wrong with them, as a user makes it."""

from __future__ import annotations

import base64
import io
import os
import re
import shutil
from collections import defaultdict
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, unquote_to_bytes

import numpy as np
import pytest
from conftest import assert_refused, extract_photos, run_script
from pages import CANARY, WIDTHS, check_looks, opened, photo_bytes
from PIL import Image

from breeds.errors import BreedsError, PhotoError
from breeds.photos import decode, photo_at

HEAVY = ("tensorflow", "openvino", "keras", "sklearn")


class PageText(HTMLParser):
    """What a page says, below each heading with an id; its tags, and its addresses and pictures."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.below: dict[str, str] = defaultdict(str)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self._heading, self._silent = "top", False
        self.feed(path.read_text(encoding="utf-8"))
        self.below = defaultdict(str, {name: " ".join(text.split()) for name, text in self.below.items()})

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.tags.append((tag, found))
        if tag in ("h2", "h3", "section") and found.get("id"):
            self._heading = str(found["id"])
        self._silent = tag in ("style", "script")

    def handle_endtag(self, tag: str) -> None:
        self._silent = False
        if tag in ("td", "th", "p"):
            self.below[self._heading] += " "

    def handle_data(self, data: str) -> None:
        if not self._silent:
            self.below[self._heading] += data

    def all(self, tag: str, name: str) -> list[str]:
        """That attribute of every tag of that kind that has it."""
        return [str(attributes[name]) for kind, attributes in self.tags if kind == tag and name in attributes]

    def pictures(self, alt: str) -> list[Image.Image]:
        """The embedded pictures whose alternative text fits, decoded."""
        sources = [a["src"] for kind, a in self.tags if kind == "img" and re.search(alt, str(a["alt"]))]
        data = [base64.b64decode(str(source).removeprefix("data:image/jpeg;base64,")) for source in sources]
        return [Image.open(io.BytesIO(each)) for each in data]


def files_of(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if not path.is_dir()}


def put(path: Path, seed: int, size: tuple[int, int] = (400, 300)) -> None:
    """A photo of noise, like no other of another seed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(photo_bytes(np.random.default_rng(seed), size))


@pytest.fixture(scope="module")
def troubled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all that can be wrong with photos, and its preview."""
    folder = tmp_path_factory.mktemp("troubled")
    photos = folder / "photos"
    for number in range(12):
        put(photos / "pug" / f"{number:02d}.jpg", number)
        put(photos / "collie" / f"{number:02d}.jpg", 100 + number)
    put(photos / "rare" / "only.jpg", 200)
    good = (photos / "pug" / "00.jpg").read_bytes()
    for name in ("a copy.jpg", "another.jpg"):
        (photos / "pug" / name).write_bytes(good)
    shutil.copy(photos / "collie" / "03.jpg", photos / "rare" / "no collie.jpg")
    (photos / "collie" / "cut.jpg").write_bytes(good[: len(good) // 2])
    (photos / "collie" / "empty.jpg").touch()
    (photos / "collie" / "text.png").write_text("no photo")
    (photos / "ghost").mkdir()
    (photos / "ghost" / "gone.jpg").symlink_to("nowhere.jpg")
    put(photos / "pug" / "banner.jpg", 300, (700, 200))
    put(photos / "pug" / "tower.jpg", 301, (160, 800))
    put(photos / "pug" / "tiny.jpg", 302, (40, 30))
    put(photos / "loose.jpg", 303)
    (photos / "notes.txt").write_text("x")
    done = run_script("extract_features.py", "photos", "--preview", cwd=folder)
    (folder / "said.txt").write_text(f"{done.returncode}\n{done.stdout}\n{done.stderr}")
    return folder


@pytest.mark.slow
def test_numbers_are_those_of_the_folder_and_nothing_but_the_page_is_made(
    photos: Path, tmp_path: Path
) -> None:
    before = files_of(tmp_path)
    done = run_script(
        "extract_features.py", "photos", "--preview", "--weights", "nowhere.h5", "--store", "my.h5",
        cwd=tmp_path, env={"PYTHONPROFILEIMPORTTIME": "1", "BREEDS_CACHE": str(tmp_path / "cache")},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert files_of(tmp_path) - before == {tmp_path / "reports" / "photos-preview.html"}
    assert "breeds.report.preview" in done.stderr and not [
        name for name in HEAVY if f" {name}\n" in done.stderr
    ]
    (line,) = done.stdout.splitlines()
    assert line.startswith("reports/photos-preview.html: 12 photos, 3 classes, looked at in ")
    assert line.endswith("next: python extract_features.py photos --store my.h5 --weights nowhere.h5")
    page = PageText(tmp_path / "reports" / "photos-preview.html")
    assert "12 photos of 3 classes, and all can be read" in page.below["top"]
    names = [folder.name for folder in sorted(photos.iterdir())]
    assert page.below["classes"].endswith(" ".join(f"{name} 4" for name in names))
    assert "Each class has 4 usable photos" in page.below["classes"]
    rows = [text for name, text in page.below.items() if name.startswith("class-")]
    assert rows == [f"{name} 4 photos" for name in names]
    shown = [unquote(href).removeprefix("../") for href in page.all("a", "href") if "../" in href]
    assert {str(path.relative_to(tmp_path)) for path in files_of(photos)} == set(shown)
    assert "Looked for and not found" in page.below["few"]


@pytest.mark.slow
def test_every_wrong_photo_is_listed_with_the_reason_that_extraction_gives(troubled: Path) -> None:
    code, line, *_ = (troubled / "said.txt").read_text().splitlines()
    assert code == "1"
    assert "36 photos, 4 classes" in line and "two answers (1), then python" in line
    page = PageText(troubled / "reports" / "photos-preview.html")
    assert "36 photos of 4 classes: 4 cannot be read, 3 are duplicates" in page.below["top"]
    assert page.below["unreadable"].startswith("4 photos that cannot be read")
    for name in ("collie/cut.jpg", "collie/empty.jpg", "collie/text.png", "ghost/gone.jpg"):
        with pytest.raises(PhotoError) as reason:
            decode(photo_at("", str(troubled / "photos" / name)).read(), 299)
        assert f"{name} {reason.value}" in page.below["unreadable"]
        assert f"cannot be read: {name}: {reason.value}" in (troubled / "said.txt").read_text()
    assert "pug/00.jpg pug/a copy.jpg pug/another.jpg" in page.below["duplicates"]
    assert "no collie" not in page.below["duplicates"]
    assert "collie: collie/03.jpg rare: rare/no collie.jpg" in page.below["conflicts"]
    assert "ghost 0 rare 1" in page.below["few"]
    assert "2 photos of an odd shape" in page.below["odd"]
    assert page.below["odd"].index("pug/tower.jpg") < page.below["odd"].index("pug/banner.jpg")
    assert "1 very small photo" in page.below["small"] and "40×30 pug/tiny.jpg" in page.below["small"]
    assert "1 photo without a label" in page.below["unlabelled"]
    assert "1 other file was passed over" in page.below["found"]
    assert "From 0 (ghost) to 17 (pug)" in page.below["classes"]


@pytest.mark.slow
def test_what_the_page_says_will_be_refused_is_refused(troubled: Path, tmp_path: Path) -> None:
    page = PageText(troubled / "reports" / "photos-preview.html")
    assert "Extraction will refuse these photos" in page.below["top"]
    with pytest.raises(BreedsError, match=r"two answers: collie/03\.jpg"):
        extract_photos(troubled / "photos", tmp_path / "x.h5")


@pytest.mark.slow
def test_it_shows_what_would_be_extracted(photos: Path, tmp_path: Path) -> None:
    first, second, third = sorted(folder.name for folder in photos.iterdir())
    options = ["--classes", f"{first},{third}", "--resize", "pad", "--size", "96", "--views", "flip,crops:9"]
    done = run_script("extract_features.py", "photos", "--preview", "a page.html", *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "'" not in done.stdout and f"--classes {first},{third}" in done.stdout
    page = PageText(tmp_path / "a page.html")
    assert "8 photos of 2 classes" in page.below["top"] and second not in " ".join(page.below.values())
    assert "as 96×96 pixels, and 10 views of it besides" in page.below["top"]
    assert "grey bars are added" in page.below["network"] and "but for 2 more views" in page.below["network"]
    squares = page.pictures("the network sees it$")
    assert len(squares) == 3 and {square.size for square in squares} == {(96, 96)}
    assert len(page.pictures("the same as flip$")) == 3 and not page.pictures("the same as crop8$")
    chosen = re.findall(r"photo (\S+) as it is", " ".join(page.all("img", "alt")))
    for square, flipped, name in zip(squares, page.pictures("same as flip$"), chosen, strict=True):
        for shown, view in ((square, "original"), (flipped, "flip")):
            wanted = decode(photo_at("", str(photos / name)).read(), 96, "pad", view).astype(float)
            assert np.abs(np.asarray(shown, dtype=float) - wanted).mean() < 6
    assert "No views" not in page.below["network"]
    top = run_script("extract_features.py", "photos", "--preview", "top.html", "--top", "1", cwd=tmp_path)
    assert top.stdout.startswith("top.html: 4 photos, 1 class,")
    assert "no views were asked for" in PageText(tmp_path / "top.html").below["network"]


@pytest.mark.slow
def test_labels_and_parts_come_from_a_table(photos: Path, tmp_path: Path) -> None:
    paths = sorted(path.relative_to(photos) for path in files_of(photos))
    lines = [f'{path},"{"odd, even"[:3] if i % 2 else "even"}",{"test" if i < 4 else "train"}'
             for i, path in enumerate(paths)]  # fmt: skip
    (tmp_path / "table.csv").write_text("\n".join(["path,label,split", *lines]), encoding="utf-8")
    done = run_script("extract_features.py", "photos", "--labels", "table.csv", "--preview", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    below = PageText(tmp_path / "reports" / "photos-preview.html").below["classes"]
    assert "Each class has 6 usable photos" in below and "4 test, 8 train" in below


@pytest.mark.slow
def test_long_lists_are_cut(tmp_path: Path) -> None:
    for number in range(450):
        put(tmp_path / "photos" / f"breed {number:03d}" / "1.jpg", number, (8, 6))
    for number in range(9):
        shutil.copy(
            tmp_path / "photos" / "breed 000" / "1.jpg", tmp_path / f"photos/breed 000/copy{number}.jpg"
        )
    for number in range(201):
        (tmp_path / "photos" / "breed 001" / f"empty{number}.jpg").touch()
    done = run_script("extract_features.py", "photos", "--preview", cwd=tmp_path)
    assert done.returncode == 1
    path = tmp_path / "reports" / "photos-preview.html"
    page = PageText(path)
    assert "… and 50 more classes." in page.below["classes"]
    assert "… and 1 more photo." in page.below["unreadable"]
    assert "… and 4 more files." in page.below["duplicates"]
    assert "… and 435 more photos." in page.below["small"]
    assert len(page.pictures("")) < 500 and path.stat().st_size < 2e6


@pytest.mark.slow
def test_photos_without_labels_and_none_that_can_be_read(tmp_path: Path) -> None:
    for number in range(60):
        put(tmp_path / "flat" / f"{number:02d}.jpg", number, (320, 300))
    done = run_script("extract_features.py", "flat", "--preview", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    flat = PageText(tmp_path / "reports" / "flat-preview.html")
    assert "60 photos without labels, and all can be read" in flat.below["top"]
    assert "training needs labels" in flat.below["classes"]
    assert "no label 48 photos and 12 more" in flat.below["class-0"]
    assert "All are 320×300 pixels" in flat.below["sizes"]
    shown = re.findall(r"no label: (\d\d)\.jpg", " ".join(flat.all("img", "alt")))
    assert (shown[0], shown[-1]) == ("00", "59") and len(set(shown)) == 48

    (tmp_path / "bad" / "pug").mkdir(parents=True)
    (tmp_path / "bad" / "pug" / "1.jpg").touch()
    done = run_script("extract_features.py", "bad", "--preview", cwd=tmp_path)
    assert (done.returncode, "none of them can be read" in done.stdout) == (1, True)
    bad = PageText(tmp_path / "reports" / "bad-preview.html")
    assert "1 photo of 1 class: none can be read" in bad.below["top"]
    assert "nothing to extract" in bad.below["top"] and "python extract" not in bad.below["top"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere", "--preview"], ["No such folder", "nowhere"]),
        (["nowhere", "--preview", "text.txt/page.html"], ["text.txt/page.html", "Cannot write"]),
        (["nowhere", "--preview", "folder.html"], ["folder.html", "it is a folder"]),
        (["photos", "--preview", "text.txt"], ["text.txt", ".html"]),
        (["photos", "--preview", "."], [".html"]),
        (["photos", "--preview", "--trust-mtime"], ["--trust-mtime", "--preview"]),
        (["photos", "--preview", "--size", "5"], ["--size 5", "71"]),
        (["photos", "--preview", "--views", "flop"], ["flop"]),
        (["photos", "--preview", "--top", "1", "--classes", "a"], ["--top", "--classes"]),
        (["empty", "--preview"], ["No photos in empty"]),
    ],
)
def test_mistakes_are_found_before_any_work(arguments: list[str], words: list[str], tmp_path: Path) -> None:
    put(tmp_path / "photos" / "a" / "1.jpg", 0)
    (tmp_path / "empty").mkdir()
    (tmp_path / "folder.html").mkdir()
    (tmp_path / "text.txt").write_text("mine")
    before = files_of(tmp_path)
    assert_refused(run_script("extract_features.py", *arguments, cwd=tmp_path), *words)
    assert files_of(tmp_path) == before
    assert (tmp_path / "text.txt").read_text() == "mine"


NAMES = [
    CANARY.replace("/", "∕"),
    "<script>alert(1)<∕script>",
    "quo\"te's & new\nline",
    "🐕 emoji {{ 7*7 }} $x^2$",
    "bad\udcff bytes \x07",
    "javascript:alert(1)",
    "\u202eright to left",
    " ",
]


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The preview of folders and photos whose names want to be more than text; some cannot be read."""
    folder = tmp_path_factory.mktemp("hostile")
    for number, name in enumerate(NAMES):
        for other, photo in enumerate([*NAMES, *NAMES][number : number + 3]):
            put(folder / "photos" / name / f"{photo}.jpg", 20 * number + other, (160 + 9 * other, 160))
        (folder / "photos" / name / f"{name} empty.jpg").touch()
        shutil.copy(folder / "photos" / name / f"{name}.jpg", folder / "photos" / name / f"{name} copy.jpg")
    shutil.copy(
        folder / "photos" / NAMES[0] / f"{NAMES[0]}.jpg", folder / "photos" / NAMES[1] / f"{NAMES[0]} 2.jpg"
    )
    put(folder / "photos" / f"{NAMES[3]}.jpg", 1000, (700, 160))  # no label, and an odd shape
    put(folder / "photos" / NAMES[0] / "tiny.jpg", 1001, (40, 30))
    done = run_script("extract_features.py", "photos", "--preview", f"{NAMES[2]}.html", cwd=folder)
    assert done.returncode == 1, done.stderr
    return folder / f"{NAMES[2]}.html"


@pytest.mark.slow
def test_names_are_text_and_links_lead_to_the_photos(hostile: Path) -> None:
    page = PageText(hostile)
    kinds = {tag for tag, _ in page.tags}
    assert "script" not in kinds and page.all("img", "src") and all(
        source.startswith("data:image/jpeg;base64,") for source in page.all("img", "src")
    )  # fmt: skip
    names = {name for _, attributes in page.tags for name in attributes}
    assert not [name for name in names if name.startswith("on") or name == "style"]
    said = " ".join(page.below.values())
    for name in NAMES:
        shown = re.sub("[\udc80-\udcff\x07]", "\N{REPLACEMENT CHARACTER}", name)
        assert " ".join(shown.split()) in said
    assert "49" not in page.below["classes"]
    targets = {href for href in page.all("a", "href") if not href.startswith("#")}
    for target in targets:
        assert re.fullmatch(r"photos/[A-Za-z0-9_.~%/-]+", target)
        assert os.path.lexists(os.fsencode(hostile.parent) + b"/" + unquote_to_bytes(target))
    assert len(targets) > 30
    (policy,) = [attributes["content"] for tag, attributes in page.tags if "http-equiv" in attributes]
    assert "default-src 'none'" in str(policy) and "unsafe" not in str(policy)


def test_preview_in_the_browser(browser, hostile: Path) -> None:
    with opened(browser, hostile) as tab:
        check_looks(tab)
        for part in ("unreadable", "conflicts", "duplicates", "few", "odd", "small", "unlabelled"):
            assert tab.locator(f"#{part}").is_visible()
        tab.get_by_role("link", name="What was found").focus()
        tab.keyboard.press("Enter")
        assert tab.locator("#found").is_visible() and tab.evaluate("scrollY") > 0


def test_120_classes_are_readable(browser, tmp_path: Path) -> None:
    made = [photo_bytes(np.random.default_rng(n), (150 + 25 * n, 160 + 15 * n)) for n in range(6)]
    for number in range(120):
        folder = tmp_path / "photos" / f"breed_number_{number}_of_the_north"
        folder.mkdir(parents=True)
        for other, data in enumerate(made):  # what follows a JPEG's end makes it another photo
            (folder / f"{other:02d}.jpg").write_bytes(data + bytes([number]))
    done = run_script("extract_features.py", "photos", "--preview", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    path = tmp_path / "reports" / "photos-preview.html"
    assert path.stat().st_size < 15e6
    with opened(browser, path) as tab:
        for width, height in WIDTHS:
            tab.set_viewport_size({"width": width, "height": height})
            assert tab.evaluate("document.documentElement.scrollWidth") <= width
            bars = tab.locator(".bars li")
            assert bars.count() == 120
            assert bars.first.evaluate("li => getComputedStyle(li).fontSize") >= "14px"
            bars.last.get_by_role("link").click()
            row = tab.locator(tab.evaluate("location.hash"))
            assert row.locator("img").count() == 5 and row.locator("img").first.bounding_box()["width"] > 60

"""What the tests of pages share: a browser, a page opened in it, and stores whose photos exist."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import Browser, Page

from breeds.backbones import XCEPTION
from breeds.config import FeatureConfig
from breeds.features import Table, write_store
from breeds.photos import key_of

#: Runs if anything that a name smuggles into a page is taken for more than text.
CANARY = "<script>document.title='canary'</script><img src=x onerror=document.title='canary'>"


def photo_bytes(rng: np.random.Generator, size: tuple[int, int] = (64, 48)) -> bytes:
    """A small JPEG of noise in one colour, different from any other."""
    colour = rng.integers(0, 256, 3)
    noise = rng.integers(0, 60, (size[1], size[0], 3))
    file = io.BytesIO()
    Image.fromarray(np.clip(colour + noise - 30, 0, 255).astype(np.uint8)).save(file, "JPEG")
    return file.getvalue()


def store_with_photos(
    folder: Path,
    classes: Sequence[str],
    each: int,
    config: FeatureConfig,
    width: int = 64,
    spread: float = 0.45,
) -> Path:
    """A store of made-up features whose photos lie in `folder`, named by their class's number."""
    if width != XCEPTION.width:  # no network that Breeds knows gives so few
        config = replace(config, backbone="made up", width=width)
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(len(classes), width)) * spread
    root, store = folder / "photos", folder / "features" / "made.h5"
    root.mkdir(parents=True)
    features = []
    columns: dict[str, list[str]] = {"key": [], "path": [], "label": []}
    for number, name in enumerate(classes):
        for i in range(each):
            data, path = photo_bytes(rng), f"{number:03d}-{i:02d}.jpg"
            (root / path).write_bytes(data)
            for column, value in (("key", key_of(data)), ("path", path), ("label", name)):
                columns[column].append(value)
            features.append(centres[number] + rng.normal(size=width) + 3)
    n = len(columns["key"])
    table = Table(str(root), "", **columns, split=[""] * n, size=[1] * n, mtime_ns=[0] * n)
    write_store(store, table, config, np.array(features, dtype=np.float32), "made up")
    return store


WIDTHS = ((1280, 800), (390, 844))


@contextmanager
def opened(
    browser: Browser, page: Path, width: int = 1280, height: int = 800, scheme: str = "light"
) -> Iterator[Page]:
    """A page opened from disk; it must not complain, nor ask for anything that does not lie beside it."""
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
    tab = context.new_page()
    said: list[str] = []
    asked: list[str] = []
    tab.on("console", lambda message: said.append(message.text))
    tab.on("pageerror", lambda error: said.append(str(error)))
    tab.on("request", lambda request: asked.append(request.url))
    try:
        tab.goto(page.absolute().as_uri())
        yield tab
        assert said == []
        beside = (page.absolute().parent.as_uri() + "/", "data:")
        assert [url for url in asked if not url.startswith(beside)] == []
        assert tab.title() != "canary"
    finally:
        context.close()


#: What colours there are to be seen, element by element.
_COLOURS = """[...document.querySelectorAll("*")].map((element) => {
    const look = getComputedStyle(element);
    return [element.checkVisibility(), look.color, look.backgroundColor, look.opacity].join();
}).join()"""
_AXE = """axe.run({ resultTypes: ["violations"] }).then(
    (found) => found.violations.map((rule) => [rule.id, rule.nodes[0].html]))"""


def check_looks(tab: Page) -> None:
    """Nothing overflows, every picture has words, and axe finds nothing, light and dark, wide and narrow.

    One tab becomes all of these, as no script of the pages asks how wide it is or which colours are liked.
    Axe is costly: where it has seen the width, and in another width the very colours, it would see no more.
    """
    assert tab.locator("img:not([alt]), svg[role=img]:not([aria-label])").count() == 0
    tab.evaluate(Axe().axe_script)
    seen: set[object] = set()
    for (width, height), scheme in zip([*WIDTHS, *WIDTHS], ("light", "dark", "dark", "light"), strict=True):
        tab.set_viewport_size({"width": width, "height": height})
        tab.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
        new = {width, tab.evaluate(_COLOURS)} - seen
        if new:
            assert tab.evaluate(_AXE) == []
        seen |= new
    tab.set_viewport_size(dict(zip(("width", "height"), WIDTHS[0], strict=True)))  # type: ignore[arg-type]

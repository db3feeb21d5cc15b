"""Make the README's pictures again: `make screenshots`, from the pages that `make demo` has written.

Drawn dogs, not other people's photos. Needs a Chromium from the system's packages.
"""

from __future__ import annotations

import io
import os
import shutil
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

ROOT = Path(__file__).resolve().parent.parent
SIZE = {"width": 1120, "height": 700}


def take(tab: Page, page: Path, target: Path, steps: str = "") -> None:
    """Open a page, do what `steps` says in JavaScript, and save what is in sight, with few colours."""
    tab.goto(page.as_uri())
    if steps:
        tab.evaluate(steps)
    tab.wait_for_timeout(500)
    image = Image.open(io.BytesIO(tab.screenshot())).convert("RGB")
    image.quantize(128, dither=Image.Dither.NONE).save(target, optimize=True)
    print(f"wrote {target.relative_to(ROOT)}, {target.stat().st_size // 1024} kB")


def newest(folder: Path, pattern: str) -> Path | None:
    """Return the page that was written last, if there is one."""
    return max(folder.glob(pattern), key=lambda page: page.stat().st_mtime, default=None)


def main() -> int:
    """Take the pictures; 2 if there is no browser or no page."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    pages = {
        "report": (newest(ROOT / "reports", "photos-*[!w].html"), _CLICK),
        "preview": (newest(ROOT / "reports", "photos-*-preview.html"), ""),
        "answers": (newest(ROOT / "demo", "photos-*.html"), ""),
    }
    if chromium is None:
        print("error: There is no Chromium; install it: apt-get install chromium.", file=sys.stderr)
        return 2
    if any(page is None for page, _ in pages.values()):
        print("error: The demo's pages are not there; run make demo first.", file=sys.stderr)
        return 2
    folder = ROOT / "docs" / "pictures"
    folder.mkdir(exist_ok=True)
    with sync_playwright() as playwright:
        flags = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=chromium, args=flags)
        tab = browser.new_page(viewport=SIZE)
        for name, (page, steps) in pages.items():
            take(tab, page, folder / f"{name}.png", steps)
        browser.close()
    return 0


_CLICK = """() => {
  const cell = document.querySelector("#matrix .miss") || document.querySelector("#matrix button");
  cell.click();
  document.documentElement.style.scrollBehavior = "auto";
  document.getElementById("confusion").scrollIntoView();
}"""

if __name__ == "__main__":
    sys.exit(main())

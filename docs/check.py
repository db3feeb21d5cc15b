"""Whether every link of the built pages leads somewhere, offline: `python docs/check.py docs/_build`.

Links between pages have to name a page that is there and a place in it; of addresses elsewhere only the form
is judged, as nothing is asked of the network. What a page loads by itself (styles, scripts, pictures, fonts)
has to lie beside it.
"""

from __future__ import annotations

import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit

#: Where elements name what is loaded without anybody's doing; of links in the head only these kinds.
LOADED = {"script": "src", "img": "src", "source": "src", "iframe": "src", "video": "src", "audio": "src",
          "object": "data", "embed": "src"}  # fmt: skip
SHOWN = {
    "stylesheet",
    "icon",
    "preload",
    "modulepreload",
    "prefetch",
    "preconnect",
    "dns-prefetch",
    "manifest",
}
#: What a style loads: url(...) and @import "...".
STYLE = re.compile(r"url\(\s*['\"]?([^'\")]+)|@import\s+['\"]([^'\"]+)")


class Page(HTMLParser):
    """What a page says of itself: its places, where it leads, and what it loads."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.places: set[str] = set()
        self.leads: list[str] = []
        self.loads: list[str] = []
        self._in_style = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note what an element names."""
        named = {name: value or "" for name, value in attrs}
        self.places |= {named[name] for name in ("id", "name") if name in named}
        self._in_style = tag == "style"
        if tag in LOADED and named.get(LOADED[tag]):
            self.loads.append(named[LOADED[tag]])
        self.loads += [entry.split()[0] for entry in named.get("srcset", "").split(",") if entry.strip()]
        self.loads += loaded_by(named.get("style", ""))
        if "href" in named:
            kinds = set(named.get("rel", "").split())
            (self.loads if tag == "link" and kinds & SHOWN else self.leads).append(named["href"])
        if "action" in named:
            self.leads.append(named["action"])

    def handle_data(self, data: str) -> None:
        """Note what a style in the page loads."""
        if self._in_style:
            self.loads += loaded_by(data)

    def handle_endtag(self, tag: str) -> None:
        """Leave a style."""
        self._in_style = False


def loaded_by(style: str) -> list[str]:
    """Return what a style loads."""
    return [one or other for one, other in STYLE.findall(style)]


def well_formed(address: SplitResult) -> bool:
    """Say whether an address of something elsewhere could be one."""
    if address.scheme == "mailto":
        return "@" in address.path
    host = address.hostname or ""
    return address.scheme in ("http", "https") and bool(re.fullmatch(r"[\w-]+(\.[\w-]+)+|localhost", host))


def faults(folder: Path) -> list[str]:
    """Return what is wrong with the links of the pages of a folder, a sentence each."""
    folder = folder.resolve()
    pages = {path: Page(path.read_text(encoding="utf-8")) for path in sorted(folder.rglob("*.html"))}
    found = [] if pages else [f"{folder}: there are no pages"]
    for path, page in pages.items():
        for link in page.leads:
            address = urlsplit(link)
            if address.scheme or address.netloc:
                if not well_formed(address) or re.search(r"\s", link):
                    found.append(f"{path}: {link} is no address")
                continue
            target = (path.parent / unquote(address.path)).resolve() if address.path else path
            place = unquote(address.fragment)
            if not target.is_file():
                found.append(f"{path}: {link} is not there")
            elif place and target in pages and place not in pages[target].places:
                found.append(f"{path}: {link} names a place that is not in {target.name}")
        found += [f"{path}: {fault}" for fault in unloaded(path, page.loads)]
    for path in sorted(folder.rglob("*.css")):
        loads = loaded_by(path.read_text(encoding="utf-8"))
        found += [f"{path}: {fault}" for fault in unloaded(path, loads)]
    return found


def unloaded(path: Path, loads: list[str]) -> list[str]:
    """Return what is wrong with what a page or a style loads."""
    found = []
    for load in loads:
        address = urlsplit(load)
        if address.scheme == "data" or load.startswith("#"):
            continue
        if address.scheme or address.netloc:
            found.append(f"{load} is loaded from elsewhere")
        elif not (path.parent / unquote(address.path)).is_file():
            found.append(f"{load} is loaded and not there")
    return found


def main() -> int:
    """Print what is wrong; 1 if anything is."""
    folder = Path(sys.argv[1]).resolve()
    found = faults(folder)
    for fault in found:
        print(fault, file=sys.stderr)
    print(f"{folder / 'index.html'}: {len(list(folder.rglob('*.html')))} pages, {len(found)} broken links")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())

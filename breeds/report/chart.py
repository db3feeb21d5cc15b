"""A chart in matplotlib: as SVG inside a page, in its colours, or as files at print quality."""

from __future__ import annotations

import io
import re
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from breeds.files import write_aside
from breeds.text import printable

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.figure import Figure

#: Width and height of a chart in inches; in a page it fills its column.
SIZE = (4.2, 3.0)
_DPI = 300
#: The kinds of file that a chart is written as.
FILES = ("png", "svg")
_SVG = "{http://www.w3.org/2000/svg}"
# matplotlib has one set of settings for all threads.
_ONE_AT_A_TIME = threading.Lock()


@dataclass(frozen=True)
class Colours:
    """The colours of a chart, as matplotlib takes them."""

    ink: str
    quiet: str
    line: str
    accent: str
    wrong: str


PAPER = Colours("#1c2024", "#5a626b", "#dfe2e5", "#00606e", "#a8330a")
# matplotlib writes colours as numbers; these stand for the page's own, which light and dark decide.
_PAGE = Colours("#000001", "#000002", "#000003", "#000004", "#000005")
_VARIABLES = {
    "#000001": "currentColor",
    "#000002": "var(--quiet)",
    "#000003": "var(--line)",
    "#000004": "var(--accent)",
    "#000005": "var(--wrong)",
}


@dataclass(frozen=True)
class Chart:
    """A chart before it is drawn.

    Attributes
    ----------
    name
        For a file's name: letters and hyphens.
    title
        What stands above it.
    words
        What it shows, in a sentence or two, with its numbers: for those who do not see it.
    draw
        Draws it in given colours.
    """

    name: str
    title: str
    words: str
    draw: Callable[[Colours], Figure]

    def svg(self) -> Markup:
        """Return the chart as SVG that stands inside a page: its text is text, its colours the page's."""
        from markupsafe import Markup

        with _settings("none", self.name):
            file = io.BytesIO()
            self.draw(_PAGE).savefig(file, format="svg", metadata={"Date": None}, transparent=True)
        return Markup(_inside_page(file.getvalue(), printable(self.words)))

    def save(self, folder: Path) -> list[Path]:
        """Write the chart as PNG and SVG at print quality into a folder; return the files.

        Raises
        ------
        BreedsError
            If they cannot be written.
        """
        files = []
        for kind in FILES:
            files.append(folder / f"{self.name}.{kind}")
            with _settings("path", self.name), write_aside(files[-1]) as aside:
                by: dict[str, Any] = (
                    {"Creator": "Breeds", "Date": None} if kind == "svg" else {"Software": "Breeds"}
                )
                about = {"Title": printable(self.title)} | by
                self.draw(PAPER).savefig(aside, format=kind, dpi=_DPI, metadata=about)
        return files


@contextmanager
def _settings(font_type: str, salt: str) -> Iterator[None]:
    from matplotlib import rc_context

    # Names of classes are text, never formulas between dollars; ids are the same from run to run.
    with (
        _ONE_AT_A_TIME,
        warnings.catch_warnings(),
        rc_context(
            {"svg.fonttype": font_type, "svg.hashsalt": salt, "text.parse_math": False, "font.size": 10.5}
        ),
    ):
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # a box stands for it
        yield


def _inside_page(data: bytes, words: str) -> str:
    """Make matplotlib's SVG fit for a page whose policy forbids styles in its elements."""
    ElementTree.register_namespace("", _SVG[1:-1])
    ElementTree.register_namespace("xlink", "http://www.w3.org/1999/xlink")
    root = ElementTree.fromstring(data)
    text = data.decode("utf-8")
    used = set(re.findall(r'(?:href="#|url\(#)([\w.-]+)', text))
    for parent in root.iter():
        for child in list(parent):
            if child.tag.rpartition("}")[2] in ("metadata", "style"):
                parent.remove(child)
    for element in root.iter():
        if element.get("id") not in used:
            element.attrib.pop("id", None)
        _spread_style(element)
        for name in ("fill", "stroke"):
            if element.get(name, "") in _VARIABLES:
                element.set(name, _VARIABLES[element.get(name, "")])
        if element.tag == f"{_SVG}text" and "fill" not in element.attrib:
            element.set("fill", "currentColor")
    for name in ("width", "height"):
        root.attrib.pop(name)
    root.attrib |= {"class": "chart", "role": "img", "aria-label": words}
    return ElementTree.tostring(root, encoding="unicode")


def _spread_style(element: ElementTree.Element) -> None:
    """Turn an element's style into attributes of the same names; the page decides the font's family."""
    for part in element.attrib.pop("style", "").split(";"):
        name, _, value = (piece.strip() for piece in part.partition(":"))
        if name == "font" and (size := re.search(r"[\d.]+px", value)):
            element.set("font-size", size[0])
        elif name and name not in ("font", "font-family"):
            element.set(name, value)


def new_axes(colours: Colours, x: str, y: str, size: tuple[float, float] = SIZE) -> tuple[Figure, Any]:
    """Return a figure with axes that stand for `x` and `y`: two thin lines, quiet labels, a light grid."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(colours.line)
    axes.tick_params(colors=colours.quiet, labelcolor=colours.quiet, length=0, labelsize=10)
    axes.grid(color=colours.line, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.set_xlabel(x, color=colours.quiet, fontsize=10)
    axes.set_ylabel(y, color=colours.quiet, fontsize=10)
    return figure, axes


def add_legend(figure: Figure, colours: Colours) -> None:
    """Say above the axes, where nothing is hidden by it, what the colours mean."""
    figure.legend(
        loc="outside upper left", ncols=3, frameon=False, fontsize=10, labelcolor=colours.quiet,
        handlelength=1, columnspacing=1.2,
    )  # fmt: skip

"""How `make docs` makes pages of this folder; a page that is missing or new needs no line here."""

from __future__ import annotations

import inspect
import json
import sys
from pathlib import Path
from typing import Any

from sphinx.util.inspect import stringify_signature

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # the package beside this folder, whether another one is installed or not

import breeds  # noqa: E402

project = "Breeds"
author = project_copyright = "the Breeds developers; MIT license"
version = release = breeds.__version__

extensions = ["sphinx.ext.autodoc", "numpydoc", "myst_parser"]
exclude_patterns = ["_build"]
root_doc = "index"
smartquotes = False  # "" is meant as it stands

# MyST: headings have the anchors that GitHub gives them, so that a link is right in both places.
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 4

# The interface is breeds.__all__, no more; types stand in the signatures, as they stand in the code.
default_role = "py:obj"
add_module_names = False
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
numpydoc_show_class_members = False
# All that numpydoc can find wrong, but for where text begins, types in it, and sections that say nothing new.
numpydoc_validation_checks = {"all", "GL01", "ES01", "EX01", "PR01", "PR04", "RT01", "SA01", "YD01"}
# What is not of Breeds is described elsewhere, and a link there would need the network to be checked.
nitpick_ignore_regex = [
    ("py:class", r"(np|os|pd|h5py|collections|pathlib|typing)\..*|\w+Like|NDArray|Any|Iterable|Sequence"),
    # What the classes are made of inside: a link would lead out of what may be relied on.
    ("py:class", r"Path|Photo|Answer|Callable\[.*|Rows|Corrections|FeatureConfig|Network"),
    ("py:class", r"breeds\.(config|features)\..*"),
    ("py:obj", r"table|rows|size|breeds\.(backbones|heads)\..*"),
]

maximum_signature_line_length = 80

html_theme = "furo"
html_title = f"Breeds {version}"
html_copy_source = False
html_show_sourcelink = False
html_show_sphinx = False
pygments_style, pygments_dark_style = "friendly", "monokai"


def add_cells(app: Any, docname: str, content: list[str]) -> None:
    """Make the page `notebook` of the cells of tour.ipynb, in order; what they answered is left out."""
    if docname != "notebook":
        return
    path = Path(app.srcdir, "tour.ipynb")
    app.env.note_dependency(str(path))
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    for cell in cells:
        text = "".join(cell["source"])
        content[0] += f"\n\n{text}" if cell["cell_type"] == "markdown" else f"\n\n```python\n{text}\n```"


def as_written(app: Any, what: str, name: str, thing: Any, *_: Any) -> tuple[str, str] | None:
    """Give types as they stand in the code: worked out, `ArrayLike` would fill a screen."""
    if what not in ("class", "function", "method"):
        return None
    found = inspect.signature(thing)
    if what == "method":
        found = found.replace(parameters=list(found.parameters.values())[1:])
    returned = "" if what == "class" else str(found.return_annotation)
    return stringify_signature(found, show_return_annotation=False), returned


def setup(app: Any) -> None:
    """Tell Sphinx of the notebook and the signatures."""
    app.connect("autodoc-process-signature", as_written)
    app.connect("source-read", add_cells)

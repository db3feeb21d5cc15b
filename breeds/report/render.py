"""Templates to pages: one file each, which loads nothing and runs no script but its own."""

from __future__ import annotations

import base64
import hashlib
import os
import re
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from breeds import __version__
from breeds.files import write_aside
from breeds.text import certainty, printable

if TYPE_CHECKING:
    from jinja2 import Environment

_TEMPLATES = Path(__file__).parent / "templates"


def write_page(template: str, path: Path, script: str = "", **values: Any) -> int:
    """Write a page, whole or not at all.

    Its Content-Security-Policy names its own style and script by their digests and allows nothing
    else: what a name or a path smuggles in does not run, and no address but ``data:`` and
    the files beside the page is asked for pictures.

    Parameters
    ----------
    template
        Name of a file of ``breeds/report/templates``; it extends ``base.html``.
    path
        The page to write.
    script
        Name of the script in the same folder that the page needs, if it needs one.
    **values
        What the template shows. Text is escaped; `markupsafe.Markup` alone is taken as it is.

    Returns
    -------
    int
        The page's size in bytes.

    Raises
    ------
    BreedsError
        If it cannot be written.
    """
    style = (_TEMPLATES / "look.css").read_text(encoding="utf-8")
    code = (_TEMPLATES / script).read_text(encoding="utf-8") if script else ""
    page = (
        _environment()
        .get_template(template)
        .stream(
            style=_trusted(style),
            script=_trusted(code),
            policy=_policy(style, code),
            version=__version__,
            made=time.strftime("%Y-%m-%d %H:%M"),
            **values,
        )
    )
    with write_aside(path) as aside:
        page.dump(os.fspath(aside), encoding="utf-8")  # piece by piece: never all of it in memory
        return aside.stat().st_size


def render(template: str, **values: Any) -> str:
    """Return a page, or a part of one, that is served: style and script are files of their own.

    Parameters
    ----------
    template, **values
        As in `write_page`.
    """
    return _environment().get_template(template).render(version=__version__, **values)


def render_pieces(template: str, **values: Any) -> Iterator[str]:
    """Yield a page as `render` returns it, heading by heading: what follows one is made when it is asked for.

    Parameters
    ----------
    template, **values
        As in `write_page`.
    """
    waiting: list[str] = []
    for piece in _environment().get_template(template).generate(version=__version__, **values):
        waiting.append(piece)
        if "<h2" in piece:
            yield "".join(waiting)
            waiting.clear()
    yield "".join(waiting)


def asset(name: str) -> bytes:
    """Return a style or a script of ours, to be served."""
    return (_TEMPLATES / name).read_bytes()


def link(target: str | os.PathLike[str], page: Path) -> str:
    """Return the address of a file as seen from a page, relative, so that both can move together.

    Examples
    --------
    >>> link("photos/a b:c.jpg", Path("reports/page.html"))
    '../photos/a%20b%3Ac.jpg'
    """
    return quote(os.fsencode(os.path.relpath(target, page.parent)))


def data_address(data: bytes, kind: str) -> str:
    """Return bytes as an address that holds them; `kind` is their media type."""
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"


def _policy(*inline: str) -> str:
    style, script = (
        f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" for text in inline
    )
    return (
        f"default-src 'none'; img-src 'self' data:; style-src {style}; script-src {script}; "
        f"base-uri 'none'; form-action 'none'"
    )


def _trusted(text: str) -> Any:
    from markupsafe import Markup

    return Markup(text)


@cache
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    def finalize(value: Any) -> Any:
        return printable(value) if type(value) is str else value

    found = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=finalize,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters |= {"percent": percent, "certainty": certainty, "interval": _interval, "count": _count}
    found.filters["breakable"] = _breakable
    return found


def percent(share: float, digits: int = 1) -> str:
    """Return a share as people read it, such as 97.4 %; a narrow space keeps number and sign together."""
    return f"{share * 100:.{digits}f}\N{NARROW NO-BREAK SPACE}%"


def _interval(bounds: list[float] | None, digits: int = 1, as_share: bool = True) -> str:
    """Return what the terminal says of an interval, in a page's typography."""
    if bounds is None:
        return "no interval: every resample gives the same"
    low, high = (percent(b, digits) if as_share else f"{b:.{digits}f}" for b in bounds)
    return f"95\N{NARROW NO-BREAK SPACE}% interval {low} to {high}"


def _count(number: int, one: str, many: str = "") -> str:
    """Return ``1 photo``, ``1,141 photos``."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def _breakable(name: str) -> Any:
    """Return a name or a path that may go on in the next line after an underscore or a stroke."""
    from markupsafe import Markup, escape

    return Markup(re.sub("([_/])", r"\1<wbr>", str(escape(printable(name)))))  # no entity has either

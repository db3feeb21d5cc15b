"""Which of the tested photos a page shows, as its address says it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import parse_qsl, quote, urlencode

import numpy as np

from breeds.report.gallery import Gallery
from breeds.text import visible

#: Some of the tested photos, by name: what is said of one of them, and of several.
ONLY = {"": "tested photo", "mistakes": "mistake", "refused": "refused photo"}


@dataclass(frozen=True)
class Chosen:
    """Which of the tested photos are asked for: class numbers, a name of `ONLY`, a key; and from which on."""

    truth: int | None = None
    answer: int | None = None
    only: str = ""
    photo: str = ""
    page: int = 1

    @staticmethod
    def of(query: bytes, classes: Sequence[str]) -> Chosen:
        """Read the part of an address after the question mark.

        Raises
        ------
        ValueError
            If it is not what `address` writes; the sentence says what is wrong.
        """
        given = read_query(query, ("truth", "answer", "only", "photo", "page"))
        numbers = {name: _class(classes, given[name]) for name in ("truth", "answer") if name in given}
        only, page = given.get("only", ""), given.get("page", "1")
        if only not in ONLY:
            raise ValueError(f"There are no photos called {_short(only)}, only mistakes and refused ones.")
        if not (page.isascii() and page.isdecimal() and len(page) < 7 and int(page)):
            raise ValueError(f"There is no page {_short(page)} of these photos.")
        return Chosen(**numbers, only=only, photo=given.get("photo", ""), page=int(page))

    def places(self, gallery: Gallery) -> list[int]:
        """Return the photos' places: mistakes first, the surest before, then the least sure answers."""
        table, rows = gallery.tested.store.table, gallery.tested.rows
        is_chosen = np.ones(len(gallery.answer), dtype=bool)
        if self.truth is not None:
            is_chosen &= gallery.tested.truth == self.truth
        if self.answer is not None:
            is_chosen &= gallery.answer == self.answer
        if self.only:
            is_chosen &= gallery.is_refused if self.only == "refused" else ~gallery.is_right
        if self.photo:
            is_chosen &= np.array([table.key[row] == self.photo for row in rows.tolist()], dtype=bool)
        order = gallery.order
        chosen: list[int] = order[is_chosen[order]].tolist()
        return chosen

    def title(self, total: int, classes: Sequence[str]) -> str:
        """Say what is asked for, and how many these are."""
        what = f"{total:,} {ONLY[self.only]}{'' if total == 1 else 's'}"
        if self.truth is not None:
            what += f" of {classes[self.truth]}"
        if self.answer is not None:
            right = self.answer == self.truth
            what += ", rightly called so" if right else f" called {classes[self.answer]}"
        return what

    def address(self, classes: Sequence[str], page: int) -> str:
        """Return the address of a page of these photos."""
        asked = {
            "truth": None if self.truth is None else classes[self.truth],
            "answer": None if self.answer is None else classes[self.answer],
            "only": self.only or None,
            "photo": self.photo or None,
            "page": None if page == 1 else str(page),
        }
        return address(**{name: value for name, value in asked.items() if value is not None})


def address(**asked: str) -> str:
    """Return the address of some of the tested photos, by ``truth``, ``answer``, ``only`` and ``photo``."""
    return f"/look/photos?{write_query(asked)}" if asked else "/look/photos"


def write_query(asked: dict[str, str]) -> str:
    """Write the part of an address after the question mark; `read_query` gives names back as they were."""
    # Names may hold bytes that are no Unicode.
    return urlencode(asked, errors="surrogatepass", quote_via=quote)


def read_query(query: bytes, names: Sequence[str]) -> dict[str, str]:
    """Read what `write_query` wrote, of these names alone, each once.

    Raises
    ------
    ValueError
        If it is anything else.
    """
    try:
        pairs = parse_qsl(
            query.decode("ascii"), keep_blank_values=True, errors="surrogatepass", max_num_fields=len(names)
        )
    except ValueError:
        raise ValueError("This address cannot be read.") from None
    found = dict(pairs)
    if len(found) < len(pairs) or not found.keys() <= set(names):
        raise ValueError(f"This address may say {', '.join(names)}, each once, and nothing else.")
    return found


def _class(classes: Sequence[str], name: str) -> int:
    if name not in classes:
        raise ValueError(f"The model knows no class {_short(name) or 'without a name'}.")
    return classes.index(name)


def _short(text: str, longest: int = 80) -> str:
    return visible(text if len(text) <= longest else f"{text[:longest]}…")

"""The Python of the README runs, as do the examples in docstrings; tests/lint/check.py checks the rest."""

from __future__ import annotations

import doctest
import importlib
import re
import shutil
from pathlib import Path

import pytest
from conftest import ROOT
from PIL import Image

import breeds

README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS: list[str] = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
#: Their examples are of photos: tests/core/test_library.py runs them.
ON_PHOTOS = tuple(set(breeds._HOMES.values()) - {"breeds.errors"})


def test_examples_in_docstrings_are_true() -> None:
    paths = [path for path in (ROOT / "breeds").rglob("*.py") if ">>> " in path.read_text(encoding="utf-8")]
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in sorted(paths)]
    names = [name.removesuffix(".__init__") for name in names if not name.startswith(ON_PHOTOS)]
    assert len(names) > 15
    assert [name for name in names if doctest.testmod(importlib.import_module(name)).failed] == []


def test_readme_pandas_lines_run(make_store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_store({"a": 5, "b": 5}, name="features/photos.h5")
    monkeypatch.chdir(tmp_path)
    (code,) = [block for block in BLOCKS if "h5py" in block]
    names: dict[str, object] = {}
    exec(code, names)
    table = names["table"]
    assert table.shape == (10, 2049)
    assert set(table["label"]) == {"a", "b"}


def test_readme_lines_of_the_library_run(
    app_place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As they stand, but for the weights: random ones are here, and small photos quick."""
    shutil.copytree(app_place / "photos", tmp_path / "photos")
    monkeypatch.chdir(tmp_path)
    photos = sorted(Path("photos").rglob("*.jpg"))
    names: dict[str, object] = {
        "image": Image.open(photos[0]), "photos": photos, "labels": [path.parent.name for path in photos],
    }  # fmt: skip
    shutil.copy(photos[0], "a.jpg")
    Image.open(photos[1]).save("b.png")
    quick = 'weights="random", size=96, '
    for code in BLOCKS:
        if "breeds." in code:
            code = code.replace("extract(", f"extract({quick}data=").replace(
                ', "features/', ', store="features/'
            )
            exec(code.replace("BottleneckFeatures(", f"BottleneckFeatures({quick}"), names)
    assert names["table"].error.tolist() == [None] * 3
    assert len(names["features"].transform(photos[:2])) == len(names["pipeline"].predict(photos[:2])) == 2

"""What the pages for developers name is there: tests, modules, files, links; examples run."""

from __future__ import annotations

import ast
import doctest
import importlib
import re
from functools import cache
from pathlib import Path

import pytest
from conftest import ROOT

PAGES = ("docs/design.md", "CONTRIBUTING.md")
NAMED = [
    (page, name)
    for page in PAGES
    for name in re.findall(r"`([^`\n]+)`", (ROOT / page).read_text(encoding="utf-8"))
]


MODULES = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for path in sorted((ROOT / "breeds").rglob("*.py"))
    if ">>> " in path.read_text(encoding="utf-8")
    and path.parent.name != "library"  # on photos: tests/test_library.py
]


@pytest.mark.parametrize("module", MODULES)
def test_examples_in_docstrings_are_true(module: str) -> None:
    assert not doctest.testmod(importlib.import_module(module)).failed


@cache
def names_in(path: Path) -> set[str]:
    """The functions, classes and constants that a module defines on its own level, or imports."""
    found: set[str] = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            found |= {name.id for name in ast.walk(node) if isinstance(name, ast.Name)}
        elif isinstance(node, ast.ImportFrom):
            found |= {alias.asname or alias.name for alias in node.names}
    return found


def module_exists(dotted: str) -> bool:
    """Whether ``breeds.a.b`` is a module, or ``b`` something that the module ``breeds.a`` has."""
    path = ROOT / dotted.replace(".", "/")
    if path.is_dir() or path.with_suffix(".py").is_file():
        return True
    home = path.parent / "__init__.py" if path.parent.is_dir() else path.parent.with_suffix(".py")
    return home.is_file() and path.name in names_in(home)


def test_the_pages_name_many_tests() -> None:
    assert sum("::" in name for _, name in NAMED) > 20


@pytest.mark.parametrize(("page", "name"), NAMED)
def test_what_a_page_names_exists(page: str, name: str) -> None:
    if "::" in name:
        file, test = name.removeprefix("tests/").split("::")
        file = (
            file
            if "/" in file
            else next((ROOT / "tests").glob(f"*/{file}")).relative_to(ROOT / "tests").as_posix()
        )
        assert test in names_in(ROOT / "tests" / file)
    elif re.fullmatch(r"(breeds|tests|benchmarks|docs)/[\w./]*|\w+\.(py|md|txt|toml)", name):
        assert (ROOT / name).exists()
    elif re.fullmatch(r"breeds(\.\w+)+", name):
        assert module_exists(name)
    elif name.startswith("make "):
        target = name.split()[1]
        assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    for path in re.findall(r"\]\((?!https?:)([^)#]+)\)", text):
        assert ((ROOT / page).parent / path).exists()


def test_every_name_of_the_code_in_contributing_exists() -> None:
    for module, name in (
        ("breeds/backbones/registry.py", "BACKBONES"),
        ("breeds/backbones/keras.py", "KerasEngine"),
        ("breeds/backbones/registry.py", "ENGINES"),
        ("breeds/backbones/__init__.py", "Engine"),
        ("breeds/training/__init__.py", "HEADS"),
        ("tests/lint/test_rooms.py", "HEAVY"),
    ):
        assert name in names_in(ROOT / module), f"{module} has no {name}"

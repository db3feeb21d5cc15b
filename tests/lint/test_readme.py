"""The commands of the README and docs/ are real: scripts and options exist; the README's Python runs."""

from __future__ import annotations

import importlib
import importlib.util
import re
import shlex
import shutil
from pathlib import Path

import pytest
from conftest import ROOT
from PIL import Image

README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", README, flags=re.DOTALL)
#: Shell lines of the pages that are for users, the README first.
SHELL = [
    block
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
    if "_build" not in page.parts
    for language, block in re.findall(
        r"```(\w*)\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL
    )
    if language in ("", "sh")
]
COMMANDS = [
    line.split("#")[0].strip()
    for block in SHELL
    for line in block.replace("\\\n", " ").splitlines()
    if re.match(r"python \w+\.py ?", line)
]
INSTALLED = [
    line.split("#")[0].strip()
    for block in SHELL
    for line in block.splitlines()
    if re.match(r"breeds (extract|train|evaluate|predict)\b", line)
]


def test_readme_shows_all_four_scripts() -> None:
    shown = {command.split()[1] for command in COMMANDS}
    assert {"extract_features.py", "train_head.py", "evaluate.py", "predict.py"} <= shown


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_of_the_scripts_parse(command: str) -> None:
    script, *arguments = shlex.split(command)[1:]
    spec = importlib.util.spec_from_file_location(script[:-3], ROOT / script)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.parser().parse_args(arguments)


@pytest.mark.parametrize("command", INSTALLED)
def test_commands_of_breeds_parse(command: str) -> None:
    name, *arguments = shlex.split(command)[1:]
    importlib.import_module(f"breeds.cli.{name}").parser().parse_args(arguments)


def test_readme_shows_all_four_commands() -> None:
    assert {command.split()[1] for command in INSTALLED} == {"extract", "train", "evaluate", "predict"}


def test_readme_pandas_lines_run(make_store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_store({"a": 5, "b": 5}, name="features/photos.h5")
    monkeypatch.chdir(tmp_path)
    (code,) = [block for language, block in BLOCKS if language == "python" and "h5py" in block]
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
    blocks = [block for language, block in BLOCKS if language == "python" and "breeds." in block]
    quick = 'weights="random", size=96, '
    for code in blocks:
        code = code.replace("extract(", f"extract({quick}data=").replace(', "features/', ', store="features/')
        exec(code.replace("BottleneckFeatures(", f"BottleneckFeatures({quick}"), names)
    assert names["table"].error.tolist() == [None] * 3
    assert len(names["features"].transform(photos[:2])) == len(names["pipeline"].predict(photos[:2])) == 2


def test_the_page_of_the_library_begins_with_lines_that_run() -> None:
    page = (ROOT / "docs/api.md").read_text(encoding="utf-8")
    shown = page.split("```python\n")[1].split("```")[0].splitlines()
    run = "".join(block for language, block in BLOCKS if language == "python")
    assert all(line.split("  #")[0] in run for line in shown)


@pytest.mark.parametrize("path", re.findall(r"\]\((?!https?:)([^)#]+)\)", README))
def test_readme_links_lead_somewhere(path: str) -> None:
    assert (ROOT / path).exists()

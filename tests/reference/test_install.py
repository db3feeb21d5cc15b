"""The wheel and its command: installed where the repository is out of sight, run from another folder."""

from __future__ import annotations

import configparser
import os
import re
import shlex
import shutil
import subprocess
import sys
import venv
import zipfile
from collections.abc import Iterable
from pathlib import Path

import brought
import httpx
import pytest
from conftest import ROOT, assert_refused, copy_some, starts_tensorflow

import breeds
from breeds.cli import COMMANDS

# One after the other with those that do start it, so that what is installed is installed once.
in_turn = starts_tensorflow
#: Which modules an extra brings, with what it needs itself.
EXTRAS = {
    "tensorflow": ("tensorflow", "keras"),
    "onnx": ("onnx", "onnxruntime"),
    "parquet": ("pyarrow",),
    "cloud": ("fsspec", "s3fs"),
    "ray": ("ray",),
    "app": ("fastapi", "starlette", "uvicorn", "python_multipart"),
}


def test_what_is_missing_beside_the_scripts_is_what_the_advice_installs() -> None:
    """Each package comes with the target of make that is named, or else with an extra of this folder."""
    packages = {extra: modules[0] for extra, modules in EXTRAS.items()}
    code = (
        "import sys; from breeds import started; sys.argv[0] = 'train_head.py'; started.begin()\n"
        "for package in sys.argv[1:]: print(started.missing(package))"
    )
    told = subprocess.run(
        [sys.executable, "-c", code, *packages.values()], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for extra, said in zip(packages, told.stdout.splitlines(), strict=True):
        if extra in ("cloud", "ray"):
            assert f"-m pip install -e {shlex.quote(f'{ROOT}[{extra}]')}`" in said
        else:
            assert f"run `make {'app' if extra == 'app' else 'setup'}`" in said


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built without a network; the repository stays as it is."""
    folder = tmp_path_factory.mktemp("wheel")
    before = set(ROOT.glob("[!.]*"))
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--wheel-dir", folder, ROOT], check=True, timeout=120)
    assert set(ROOT.glob("[!.]*")) == before
    return next(folder.glob("breeds-*.whl"))


@in_turn
def test_the_wheel_holds_the_whole_package_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as opened:
        names = opened.namelist()
        (entries,) = [opened.read(name).decode() for name in names if name.endswith("/entry_points.txt")]
    beside = f"breeds-{breeds.__version__}.dist-info/"
    inside = {name for name in names if not name.startswith(beside)}
    files = [
        path for path in (ROOT / "breeds").rglob("*") if path.is_file() and "__pycache__" not in path.parts
    ]
    assert inside == {path.relative_to(ROOT).as_posix() for path in files}
    assert sum("/templates/" in name for name in inside) > 5
    assert not [name for name in names if "test" in name or "__pycache__" in name]
    assert f"{beside}licenses/LICENSE" in names
    found = configparser.ConfigParser()
    found.read_string(entries)
    assert dict(found["console_scripts"]) == {"breeds": "breeds.cli:main"}


class Installed:
    """A new environment with the wheel in it, whose command ``breeds`` runs where it is told to.

    It sees what this environment has installed, but for the modules `without`, and never the repository.
    """

    def __init__(self, wheel: Path, folder: Path, without: Iterable[str] = ()) -> None:
        self.folder = folder
        self.env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        venv.create(folder / "venv", symlinks=True)
        self.python = folder / "venv/bin/python"
        pip = [sys.executable, "-m", "pip", "--python", self.python, "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "install", "--no-deps", "--no-index", wheel], check=True, timeout=120)
        seen = folder / "seen"
        seen.mkdir()
        for place in (Path(entry) for entry in sys.path if entry.endswith("-packages")):
            for path in place.iterdir():
                module = path.name.split("-")[0].split(".")[0]
                if module not in (*without, "breeds") and not os.path.lexists(seen / path.name):
                    (seen / path.name).symlink_to(path)
        (home,) = (folder / "venv/lib").glob("python3.*/site-packages")
        (home / "seen.pth").write_text(f"{seen}\n")
        where = [self.python, "-c", "import breeds; print(breeds.__file__)"]
        found = subprocess.run(where, cwd=folder, env=self.env, capture_output=True, text=True, check=True)
        assert found.stdout.startswith(str(home))

    def start(self, *arguments: object, cwd: Path) -> subprocess.Popen[str]:
        """Start ``breeds``."""
        return subprocess.Popen(
            [self.folder / "venv/bin/breeds", *map(str, arguments)], cwd=cwd, env=self.env,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def __call__(self, *arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
        """Run ``breeds``, and return how it ended."""
        with self.start(*arguments, cwd=cwd) as process:
            out, err = process.communicate(timeout=300)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)


@pytest.fixture(scope="module")
def run(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    return Installed(wheel, tmp_path_factory.mktemp("installed"))


@pytest.fixture(scope="module")
def place(run: Installed, drawn_photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another folder, where the four commands have been run with nothing but defaults, as far as can be.

    The network is a small one, as the demo runs a large one.
    """
    folder = tmp_path_factory.mktemp("place")
    brought.described(folder / "small.onnx")
    photos = copy_some(drawn_photos, folder / "photos", breeds=2)
    shutil.copy(max(photos.iterdir()) / "01.jpg", folder / "new.jpg")
    with open(folder / "new.jpg", "ab") as file:
        file.write(b"!")  # after the end of the JPEG: a photo that no store knows
    says = (
        (
            ("extract", "photos", "--backbone", "small.onnx"),
            "next: breeds train\n",
        ),
        (("train", "--C", "0.01"), "next: breeds evaluate\n"),
        (("evaluate", "--no-html"), "next: breeds predict PHOTOS\n"),
        (("predict", "new.jpg", "--out", "breeds.csv", "--html", "breeds.html"), ""),
        (("store", "info", "features/photos.h5"), "8 photos of"),
        (("store", "verify", "features/photos.h5"), "match their checksums"),
    )
    for arguments, words in says:
        done = run(*arguments, cwd=folder)
        assert done.returncode == 0, done.stderr
        assert words in done.stdout
    return folder


@in_turn
def test_the_commands_from_another_folder(place: Path) -> None:
    made = {"features/photos.h5", "models/photos.safetensors", "reports/photos.json", "breeds.csv"}
    assert {path for path in made if (place / path).is_file()} == made
    rows = (place / "breeds.csv").read_text(encoding="utf-8").splitlines()
    assert len(rows) == 2 and rows[1].startswith("new.jpg,")
    assert (place / "breeds.html").is_file()


@pytest.fixture(scope="module")
def demo(run: Installed, place: Path) -> str:
    """What the demo says that has been run there too."""
    done = run("demo", "--data", "photos", "--weights", "random", cwd=place)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.thorough
@starts_tensorflow
def test_the_demo_from_another_folder(demo: str, place: Path) -> None:
    for shown in ("$ breeds extract photos", "$ breeds train", "$ breeds evaluate", "$ breeds predict"):
        assert shown in demo
    assert "python" not in demo and "make" not in demo
    assert (place / "demo/photos-random.csv").is_file()
    page = (place / "reports/photos-random.html").read_text(encoding="utf-8")
    assert "breeds extract " in page and "breeds train " in page and "python " not in page


@in_turn
def test_what_is_no_command(run: Installed, tmp_path: Path) -> None:
    assert run("--version", cwd=tmp_path).stdout == f"breeds {breeds.__version__}\n"
    alone = run(cwd=tmp_path)
    assert alone.returncode == 0
    assert all(re.search(rf"^ +{name}  +\w", alone.stdout, re.MULTILINE) for name in COMMANDS)
    assert_refused(run("nonsense", cwd=tmp_path), "no command nonsense", *COMMANDS)
    assert_refused(run("evaluate", cwd=tmp_path), "run breeds train first")
    assert_refused(run("train", "--store", "no.h5", cwd=tmp_path), "no.h5; make it with breeds extract")
    assert run("--nonsense", cwd=tmp_path).returncode == 2
    assert list(tmp_path.iterdir()) == []


@in_turn
def test_help_is_of_the_command(run: Installed, tmp_path: Path) -> None:
    for name in COMMANDS:
        done = run(name, "--help", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith(f"usage: breeds {name} [-h]")
        assert not re.search(r"\bpython\b|\w\.py\b", done.stdout)


@pytest.mark.thorough
@starts_tensorflow
@pytest.mark.usefixtures("demo")
def test_without_the_extras(wheel: Path, place: Path, tmp_path: Path) -> None:
    """What is converted predicts, trains and is judged; the rest says what to install."""
    run = Installed(wheel, tmp_path, without=[module for modules in EXTRAS.values() for module in modules])
    for file in ("new.jpg", "features", "photos"):
        (tmp_path / file).symlink_to(place / file)
    xception = place / "models/photos-random.safetensors"
    works = (
        ("train", "--store", "features/photos.h5", "--C", 0.01, "--export", "openvino"),
        ("evaluate", "--no-html"), ("predict", "new.jpg"), ("predict", "new.jpg", "--model", xception),
    )  # fmt: skip
    for command in works:
        done = run(*command, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    assert "new.jpg," in done.stdout
    how = f"run `{tmp_path}/venv/bin/python -m pip install 'breeds[tensorflow]'`."
    for command in (
        ("extract", "photos", "--store", "other.h5", "--weights", "random", "--backbone", "resnet50v2"),
        ("extract", "photos", "--store", "other.h5"),
        ("train", "--head", "dense", "--val", 0.2),
        ("demo",),
    ):
        assert_refused(run(*command, cwd=tmp_path), "is not installed", how)
    assert not (tmp_path / "other.h5").exists()
    for extra, command in (("tensorflow", ("--format", "keras")), ("onnx", ())):
        refused = run("export", xception, *command, cwd=tmp_path)
        assert_refused(refused, "is not installed", how.replace("[tensorflow]", f"[{extra}]"))
    how = how.replace("[tensorflow]", "[app]")
    assert_refused(run("app", "--port", 0, cwd=tmp_path), "is not installed", how)


@pytest.mark.thorough
@in_turn
def test_the_application_is_whole(run: Installed, place: Path) -> None:
    with run.start("app", "--port", 0, "--model", "models/photos.safetensors", cwd=place) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            url = line.split()[3].rstrip("/")
            with httpx.Client(base_url=url, trust_env=False, timeout=60, follow_redirects=True) as client:
                pages = ("/", "/look", "/review", "/teach", "/api")
                texts = [client.get(page).raise_for_status().text for page in pages]
                assets = set(re.findall(r'(?:src|href)="(/[^"?#]+\.(?:js|css))["?]', "".join(texts)))
                assert len(assets) > 3
                for asset in assets:
                    client.get(asset).raise_for_status()
                photo = (place / "new.jpg").read_bytes()
                answer = client.post("/api/predict", files={"files": ("new.jpg", photo)}).raise_for_status()
        finally:
            process.kill()
    assert answer.json()

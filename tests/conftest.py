"""What the tests share: the scripts as a user runs them, real photos, and one engine for all."""

from __future__ import annotations

import ctypes
import gc
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import forked
import hypothesis
import numpy as np
import pytest
from numpy.typing import NDArray

from breeds.backbones import XCEPTION
from breeds.config import FeatureConfig
from breeds.features import Table, write_store

if TYPE_CHECKING:
    from playwright.sync_api import Browser
    from served import Served

    from breeds.backbones import Engine
    from breeds.extraction import Summary

# How long a drawn example may take would depend on what else the machine does.
hypothesis.settings.register_profile("breeds", deadline=None)
hypothesis.settings.load_profile("breeds")

# A shell starts background jobs deaf to Ctrl-C, and what the tests start would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"
SHARED_WEIGHTS = SHARED / "weights" / "xception_notop.weights.h5"

needs_shared = pytest.mark.skipif(
    not SHARED_WEIGHTS.is_file(), reason=f"the team's real photos and weights are not at {SHARED}"
)

#: Loads TensorFlow in this process, of several that share the tests only in one: it takes seconds and much
#: memory. Tests that ask for the session's engine are marked so of themselves.
tensorflow = pytest.mark.xdist_group("tensorflow")
#: Starts a program that loads TensorFlow, which takes a gigabyte: in the same process, before that has grown.
starts_tensorflow = pytest.mark.starts_tensorflow
memory = pytest.mark.xdist_group("memory")


def run_script(
    script: str, *arguments: object, cwd: Path, **options: object
) -> subprocess.CompletedProcess[str]:
    """Run one of the four scripts (or ``-m module``) as a user would, in the folder `cwd`.

    Python is started for it only where its environment says something to Python or to a library; else it
    is forked from a process that has loaded the libraries.
    """
    target = [*(script.split() if script.startswith("-m ") else [str(ROOT / script)]), *map(str, arguments)]
    own: dict[str, str] = options.pop("env", {})  # type: ignore[assignment]
    env = {**os.environ, "PYTHONPATH": str(ROOT), **own}
    if own.keys() <= forked.HARMLESS and options.keys() <= {"input"} and forked.ADDRESS in os.environ:
        return forked.run(target, cwd, env, options.get("input"), 600)  # type: ignore[arg-type]
    command = [sys.executable, *target]
    return subprocess.run(
        command, cwd=cwd, env=env, capture_output=True, text=True, timeout=600, check=False, **options
    )


def assert_refused(result: subprocess.CompletedProcess[str], *words: str) -> None:
    """Assert that a run ended as a user's mistake must: one sentence on stderr and exit code 2."""
    assert result.returncode == 2, result.stderr
    assert "Traceback" not in result.stderr
    error = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(error) == 1, result.stderr
    for word in words:
        assert word in error[0]


#: What `extract_photos` computes with, where nothing is said: an engine's name, or an engine.
QUICK: ContextVar[object] = ContextVar("QUICK", default="auto")


def extract_photos(
    data: Path, store: Path, workers: int = 2, trust_mtime: bool = False, **options: object
) -> Summary:
    """Extract with random weights; options are fields of `Selection` and `FeatureConfig`."""
    from breeds.extraction import extract
    from breeds.selection import Selection

    names = ("labels", "top", "classes", "min_photos")
    which = {name: options.pop(name) for name in names if name in options}
    engine = options.pop("engine", None) or QUICK.get()
    config = FeatureConfig(**{"weights": "random", **options})  # type: ignore[arg-type]
    found = Selection(data, **which)  # type: ignore[arg-type]
    return extract(found, store, config, workers, trust_mtime, engine=engine)  # type: ignore[arg-type]


#: How many heaps glibc keeps for threads, in a process that begins with it.
ARENAS = "MALLOC_ARENA_MAX"


def pytest_configure(config: pytest.Config) -> None:
    """Have one process that all who share the tests fork commands from.

    Programs keep what Python has compiled, as they do with users: else each compiles Breeds anew.
    """
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    if forked.ADDRESS not in os.environ:
        folder = Path(tempfile.mkdtemp(prefix="breeds-tests-"))
        stack = ExitStack()
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        stack.enter_context(forked.serving(folder))
        config.add_cleanup(stack.close)
        if config.getoption("numprocesses", None):
            os.environ[ARENAS] = "2"  # the processes that share the tests keep less of what they have freed
    elif hasattr(config, "workerinput"):
        os.environ.pop(ARENAS, None)  # what they start has as many as with users


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """What Breeds says by the way, where it is called by another program."""
    caplog.set_level("INFO", "breeds")
    return caplog


@pytest.fixture(scope="session", autouse=True)
def session_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One cache folder for the whole session, never the developer's own: networks are converted once.

    The processes of pytest-xdist share it.
    """
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "cache"
    folder.mkdir(exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BREEDS_CACHE", str(folder))
        patch.setenv("KERAS_HOME", str(tmp_path_factory.mktemp("keras")))
        patch.setenv("PIP_NO_INDEX", "1")  # no test asks a package index but its own
        patch.setenv("PIP_CONFIG_FILE", os.devnull)
        yield folder


@pytest.fixture(scope="session")
def random_config() -> FeatureConfig:
    """The config of random weights."""
    from breeds.backbones.weights import get_weights

    weights = get_weights("random", XCEPTION)
    return FeatureConfig(
        XCEPTION.name, weights.name, weights.sha256, XCEPTION.size, "stretch", width=XCEPTION.width
    )


@pytest.fixture(scope="session")
def random_engine(random_config: FeatureConfig):
    """The real Keras engine with random weights, for 96 pixels, opened once for the whole session."""
    from breeds.backbones.resolve import open_engine
    from breeds.backbones.weights import get_weights

    small = replace(random_config, size=96)
    engine = open_engine(small, lambda: get_weights("random", XCEPTION), "keras")
    gc.collect()
    gc.freeze()  # what stays need not be looked at after every test
    return engine


@pytest.fixture(scope="session")
def genuine() -> tuple[list[Path], FeatureConfig, NDArray[np.float32]]:
    """A few real photos, the config of the genuine weights, and what the Keras engine gives for them."""
    from breeds.backbones.resolve import open_engine
    from breeds.backbones.weights import get_weights
    from breeds.photos import decode

    photos = [*sorted((SHARED / "data/fullsize").rglob("*.jpg"))[::60]]
    photos += sorted((SHARED / "data/dogs10").rglob("*.jpg"))[::400]
    weights = get_weights(str(SHARED_WEIGHTS), XCEPTION)
    config = FeatureConfig(
        XCEPTION.name, weights.name, weights.sha256, XCEPTION.size, "stretch", width=XCEPTION.width
    )
    engine = open_engine(config, lambda: weights, "keras")
    return (
        photos,
        config,
        np.stack(list(engine.stream([decode(path.read_bytes(), 299) for path in photos]))),
    )


@contextmanager
def converted_in_this_process() -> Iterator[None]:
    """Convert networks in this process, where TensorFlow is already: another start of it takes longer."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("breeds.backbones.convert._in_own_process", lambda maker, *arguments: maker(*arguments))
        yield


class Noted:
    """An engine that notes when it is begun with."""

    def __init__(self, engine: Engine) -> None:
        self._engine, self.name = engine, engine.name
        self.opened: list[str] = []

    def stream(self, pixels: Iterable[NDArray[np.uint8]]) -> Iterator[NDArray[np.float32]]:
        self.opened.append("opened")
        return self._engine.stream(pixels)


@pytest.fixture
def shared_engine_everywhere(random_engine) -> Iterator[list[str]]:
    """Let `extract_photos` use the session's engine, with ``size=96``, and list when it is begun with."""
    noted = Noted(random_engine)
    before = QUICK.set(noted)
    yield noted.opened
    QUICK.reset(before)


@pytest.fixture(scope="session")
def drawn_photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of drawn photos, ten breeds, six of each; copy it before changing it."""
    from breeds.sample import write_samples

    folder = tmp_path_factory.mktemp("drawn") / "photos"
    write_samples(folder, per_breed=6)
    return folder


def copy_some(photos: Path, folder: Path, breeds: int = 3, each: int = 4) -> Path:
    """Copy the first of some breeds into a new folder, which is returned."""
    for breed in sorted(photos.iterdir())[:breeds]:
        (folder / breed.name).mkdir(parents=True)
        for photo in sorted(breed.iterdir())[:each]:
            shutil.copyfile(photo, folder / breed.name / photo.name)
    return folder


@pytest.fixture
def photos(drawn_photos: Path, tmp_path: Path) -> Path:
    """A copy of three breeds of the drawn photos, four of each, to do with as a test likes."""
    return copy_some(drawn_photos, tmp_path / "photos")


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """A headless Chromium from the system's packages; pages are opened in new contexts of it.

    The one that has no window of its own, where it is installed, takes a quarter of the time.
    """
    names = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        pytest.skip("there is no Chromium to open pages with: apt-get install chromium-headless-shell")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # Chromium's own sandbox does not start for root.
        flags = ["--no-sandbox"] if os.geteuid() == 0 else []
        with playwright.chromium.launch(executable_path=found, args=flags) as opened:
            yield opened


@pytest.fixture(scope="session")
def app_place(drawn_photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with thirty drawn photos of five breeds, their store and a model, on small random networks."""
    from breeds.features import Store
    from breeds.training import train

    folder = tmp_path_factory.mktemp("app")
    for breed in sorted(drawn_photos.iterdir())[:5]:
        shutil.copytree(breed, folder / "photos" / breed.name)
    extract_photos(folder / "photos", folder / "features/photos.h5", size=96)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # few photos are few for scikit-learn's solver
        model = train(Store(folder / "features/photos.h5"), C=0.01)
    model.save(folder / "models/photos.safetensors")
    return folder


@pytest.fixture(scope="session")
def served(app_place: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The application on `app_place`, in a process of its own."""
    from served import serving

    with serving(app_place, tmp_path_factory.mktemp("temporary")) as running:
        yield running
        # Nothing that a request holds is told on the terminal, and none of the tests meets a defect.
        said = (running.temporary / "stderr").read_text().splitlines()
        assert [line for line in said if not line.startswith(("using ", "the model rests on random"))] == []


MakeStore = Callable[..., Path]


@pytest.fixture
def make_store(tmp_path: Path, random_config: FeatureConfig) -> MakeStore:
    """A function that writes a real store of made-up features, clusters that a head can learn."""

    def make(
        counts: dict[str, int],
        name: str = "features/made.h5",
        seed: int = 0,
        config: FeatureConfig = random_config,
        width: int = 2048,
        noise: float = 1.0,
        spread: float = 0.2,
        splits: Sequence[str] | None = None,
    ) -> Path:
        if width != XCEPTION.width:  # no network that Breeds knows gives so few
            config = replace(config, backbone="made up", width=width)
        rng = np.random.default_rng(seed)
        labels = [label for label, count in counts.items() for _ in range(count)]
        centres = {label: rng.normal(size=width) * spread for label in counts}
        keys = [rng.bytes(32).hex() for _ in labels]
        paths = [f"{label}/{i:04d}.jpg" for i, label in enumerate(labels)]
        store = tmp_path / name
        features = [centres[label] + noise * rng.normal(size=width) + 3 for label in labels]
        n = len(labels)
        table = Table("made up", "", keys, paths, labels, list(splits or [""] * n), [1] * n, [0] * n)
        write_store(store, table, config, np.array(features, dtype=np.float32), "made up")
        return store

    return make


#: Whatever asks for one of these runs a network or the scripts over photos, or loads TensorFlow.
SLOW_FIXTURES = {"random_engine", "genuine", "workplace", "load_img", "browser", "app_place"}
#: Where pytest-xdist runs the tests in several processes, those of a group share one: what is costly
#: is made once for all of them, and only one process carries TensorFlow.
GROUPS = {"random_engine": "tensorflow", "genuine": "tensorflow", "load_img": "tensorflow"} | {
    name: name for name in ("workplace", "int8", "kaggle", "browser", "app_place")
}


@pytest.hookimpl(tryfirst=True)  # pytest-xdist reads the groups in the same hook
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs a slow fixture, however far down, and put what is slow first.

    So `make check` can leave the slow ones out, and processes that share the tests end together.
    """
    for item in items:
        asked = getattr(item, "fixturenames", ())
        if SLOW_FIXTURES.intersection(asked):
            item.add_marker(pytest.mark.slow)
        if item.get_closest_marker("starts_tensorflow"):
            item.add_marker(pytest.mark.slow)
            item.add_marker(tensorflow)
        groups = {group for name, group in GROUPS.items() if name in asked}
        if groups and item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(max(groups)))
    # What takes much memory comes before the processes have grown.
    items.sort(
        key=lambda item: (
            memory.mark not in item.iter_markers("xdist_group"),
            item.get_closest_marker("starts_tensorflow") is None,
            "int8" not in getattr(item, "fixturenames", ()),
            item.get_closest_marker("slow") is None,
        )
    )


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item) -> None:
    """Take back the memory of the networks that a test has opened, as they hold themselves in circles."""
    if tensorflow.mark in item.iter_markers("xdist_group"):
        if "keras" in sys.modules:
            sys.modules["keras"].backend.clear_session()
        gc.collect()
    if item.get_closest_marker("slow") and sys.platform == "linux":  # glibc keeps what was freed
        ctypes.CDLL(None).malloc_trim(0)

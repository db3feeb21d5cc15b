"""The house stands: every room knows only rooms below it, no two know each other, fronts stay light."""

from __future__ import annotations

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from conftest import ROOT

#: Floors from the roof down; modules of one floor may know each other, but never in a circle.
FLOORS = (
    ("cli",),
    ("sample",),
    ("app",),
    ("library",),
    (
        "exporting", "tables", "modelcard", "extraction", "training", "evaluation", "prediction", "preview",
        "review",
    ),
    ("report",),
    ("heads",),
    ("features",),
    ("backbones",),
    ("photos",),
    (
        "config", "split", "labels", "metrics", "files", "outputs", "text", "started", "errors", "web",
        "progress", "plainhdf5", "parquet", "places", "workers",
    ),
)  # fmt: skip
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}


def module_name(path: Path) -> str:
    """The dotted name by which a file of the package is imported."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted((ROOT / "breeds").rglob("*.py"))}


def imports_of(name: str) -> set[str]:
    """The modules of Breeds that a module imports, anywhere in it but where only types are checked."""
    found: set[str] = set()
    tree = ast.parse(MODULES[name].read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            node.body.clear()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "breeds":
            inside = {f"{node.module}.{alias.name}" for alias in node.names} & MODULES.keys()
            found |= inside or {node.module}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names} & MODULES.keys()
    return found - {name}


def floor_of(name: str) -> int:
    if name == "breeds.features.__main__":  # a front, whatever folder it lies in
        return 0
    if name == "breeds.cli.common":  # which moves up when the fronts outside of `breeds.cli` are gone
        return FLOOR["text"]
    return FLOOR[name.split(".")[1]]


@pytest.mark.parametrize("name", [name for name in MODULES if name != "breeds"])
def test_a_room_knows_only_rooms_below_it(name: str) -> None:
    above = {other for other in imports_of(name) - {"breeds"} if floor_of(other) < floor_of(name)}
    assert not above


def test_no_two_rooms_know_each_other() -> None:
    TopologicalSorter({name: imports_of(name) for name in MODULES}).prepare()  # raises on a circle


#: Modules that may open connections: what they fetch is asked for by name, and they send nothing but, to
#: object storage, the key that is set up for it.
NETWORK = {"breeds.web", "breeds.photos.web", "breeds.photos.cloud"}
#: May speak with the cluster that a command names; what is sent there is what it is to compute.
CLUSTER = {
    "breeds.backbones.cluster.connect", "breeds.backbones.cluster.node", "breeds.backbones.cluster.pool",
}  # fmt: skip
#: Looks up the address that it is to serve on, and opens none.
LISTENS = {"breeds.app.server"}
#: What opens connections, but for the name of this machine and a default timeout.
REACHES = {
    "urllib", "http", "requests", "httpx", "httpcore", "ftplib", "smtplib", "telnetlib", "aiohttp",
    "websockets", "fsspec", "s3fs",
    "ray",
}  # fmt: skip


SOCKETS = ("create_connection", "connect", "socket", "getaddrinfo")


def test_only_named_modules_can_reach_the_network() -> None:
    found = set()
    for name, path in MODULES.items():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if REACHES & {module.split(".")[0] for module in modules if module != "urllib.parse"}:
                found.add(name)
            reaches = isinstance(node, ast.Attribute) and node.attr in SOCKETS
            if reaches and ast.unparse(node) != "sqlite3.connect":  # that is a file
                found.add(name)
    assert found == NETWORK | LISTENS | CLUSTER
    for name in LISTENS:
        nodes = ast.walk(ast.parse(MODULES[name].read_text(encoding="utf-8")))
        used = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
        assert not used & {"connect", "create_connection", "sock_connect"}


HEAVY = (
    "tensorflow", "keras", "openvino", "nncf", "sklearn", "scipy", "pandas", "h5py", "matplotlib", "httpcore",
    "fastapi", "uvicorn", "pyarrow", "fsspec", "s3fs", "ray",
)  # fmt: skip


@pytest.mark.parametrize("script", ["extract_features", "train_head", "evaluate", "predict"])
def test_help_is_shown_without_heavy_libraries(script: str) -> None:
    code = f"import sys, {script}; {script}.parser(); print(*sorted(set(sys.modules) & set({HEAVY!r})))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.split() == []


def test_nothing_but_say_tells_people_anything() -> None:
    """What is printed in any other way may hold what a stranger wrote, for a terminal to obey."""
    fronts = [ROOT / f"{script}.py" for script in ("extract_features", "train_head", "evaluate", "predict")]
    for path in [*fronts, *MODULES.values()]:
        if path.parent.name != "sample" or path.name == "__main__.py":
            calls = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            printed = [node for node in calls if isinstance(node, ast.Name) and node.id == "print"]
            assert not printed or path.name == "text.py", path

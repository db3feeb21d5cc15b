"""What `make lint` checks of documents and imports: python tests/lint/check.py lists all that is wrong.

The house stands: a room imports only rooms below it, sizes stay within bounds, few modules reach the network.
And what documents name is there: tests, modules, files, links, options of commands.
"""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import importlib.util
import json
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

#: Floors from the roof down. Modules of one floor may know each other, in no circle; rooms of APART may not.
FLOORS = (
    ("cli", "sample", "__main__"),
    ("app",),
    ("review", "sklearn", "api"),
    ("extraction", "training", "evaluation", "prediction", "export", "report"),
    ("heads",),
    ("features", "backbones"),
    ("photos",),
    (
        "config", "split", "metrics", "files", "outputs", "text", "started", "errors",
        "machine", "selection", "plainhdf5", "web",
    ),
)  # fmt: skip
APART = (
    {"extraction", "training", "evaluation", "prediction"}, {"features", "backbones"}, {"heads", "backbones"},
)  # fmt: skip
#: What `train_head.py` never reaches, but for --export, which writes the network too.
NOT_FOR_TRAINING = ("breeds.photos", "breeds.backbones", "breeds.app")
EXPORTS = {"breeds.export", "breeds.cli.export"}
MOST_MODULES, MOST_LINES, MOST_LINES_OF_ONE, MOST_PARAMETERS = 110, 21_500, 400, 8
#: Modules that are longer, until they are not.
STILL_LONG: set[str] = set()
#: Public functions and constructors, whose options are keywords.
MANY_OPTIONS = {
    "breeds.prediction.Predictor.__init__",
    "breeds.sklearn.BottleneckFeatures.__init__",
    "breeds.sklearn.BreedsClassifier.__init__",
}

#: Modules that may open connections: what they fetch is asked for by name, and they send nothing but, to
#: object storage, the key that is set up for it; to a cluster, what it is to compute.
NETWORK = {"breeds.photos.web", "breeds.photos.storage", "breeds.web", "breeds.backbones.ray"}
REACHES = {
    "urllib", "http", "requests", "httpx", "httpcore", "ftplib", "smtplib", "telnetlib", "aiohttp",
    "websockets", "fsspec", "s3fs", "ray",
}  # fmt: skip
#: What opens connections, but for the name of this machine and a default timeout.
SOCKETS = ("create_connection", "connect", "sock_connect", "socket", "getaddrinfo")
#: Looks up the address that it is to serve on, and connects to none.
LISTENS = "breeds.app.server"
#: Imported only in the module that needs them, when it is used.
HEAVY = (
    "tensorflow", "keras", "openvino", "nncf", "sklearn", "scipy", "pandas", "h5py", "matplotlib", "httpcore",
    "fastapi", "uvicorn", "pyarrow", "fsspec", "s3fs", "ray",
)  # fmt: skip
#: Modules that an extra of the package brings.
EXTRAS = {
    "tensorflow": ("tensorflow", "keras"),
    "onnx": ("onnx", "onnxruntime"),
    "parquet": ("pyarrow",),
    "cloud": ("fsspec", "s3fs"),
    "ray": ("ray",),
    "app": ("fastapi", "starlette", "uvicorn", "python_multipart"),
}

SCRIPTS = ("extract_features", "train_head", "evaluate", "predict")
DEVELOPERS_PAGES = ("docs/design.md", "CONTRIBUTING.md")
BLOCK = re.compile(r"```(\w*)\n(.*?)```", re.DOTALL)
LINK = re.compile(r"\]\((?!https?:)([^)#]+)\)")


@cache
def text_of(path: Path) -> str:
    """The text of a file."""
    return path.read_text(encoding="utf-8")


@cache
def tree_of(path: Path) -> ast.Module:
    """A module as it is parsed."""
    return ast.parse(text_of(path))


def module_name(path: Path) -> str:
    """The dotted name by which a file of the package is imported."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted((ROOT / "breeds").rglob("*.py"))}


@cache
def imports_of(name: str) -> frozenset[str]:
    """The modules of Breeds that a module imports, anywhere in it but where only types are checked."""
    found: set[str] = set()
    tree = ast.parse(text_of(MODULES[name]))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            node.body.clear()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "breeds":
            inside = {f"{node.module}.{alias.name}" for alias in node.names} & MODULES.keys()
            found |= inside or {node.module}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names} & MODULES.keys()
    return frozenset(found - {name, "breeds"})


def room_of(name: str) -> str:
    """The room of a module; `__main__` of any room starts a command, as those of `breeds.cli` do."""
    return "__main__" if name.endswith(".__main__") else name.split(".")[1]


def floors() -> Iterator[str]:
    """A room imports only rooms below it, and there is no circle."""
    floor_of = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
    for name in MODULES.keys() - {"breeds"}:
        room = room_of(name)
        if room not in floor_of:
            yield f"{name}: its room has no floor in FLOORS"
            continue
        for other in imports_of(name):
            below = room_of(other)
            apart = room != below and any({room, below} <= rooms for rooms in APART)
            if floor_of.get(below, 0) < floor_of[room] or apart:
                yield f"{name} imports {other}, which is not below it"
    try:
        TopologicalSorter({name: imports_of(name) for name in MODULES}).prepare()
    except CycleError as error:
        yield f"modules import each other in a circle: {' > '.join(error.args[1])}"


def training_is_light() -> Iterator[str]:
    """`train_head.py` reaches no photos, no network, no application."""
    come_from: dict[str, str] = {"breeds.cli.train": "train_head.py"}
    todo = ["breeds.cli.train"]
    while todo:
        name = todo.pop()
        parents = {name.rsplit(".", n)[0] for n in range(1, name.count("."))} & MODULES.keys()
        for other in (imports_of(name) | parents) - come_from.keys() - EXPORTS:
            come_from[other] = name
            todo.append(other)
    for name in come_from:
        if name.startswith(NOT_FOR_TRAINING):
            chain = [name]
            while chain[-1] in come_from:
                chain.append(come_from[chain[-1]])
            yield " < ".join(chain)


def totals() -> Iterator[str]:
    """The whole is small."""
    lines = sum(text_of(path).count("\n") for path in MODULES.values())
    if len(MODULES) > MOST_MODULES:
        yield f"breeds/ has {len(MODULES)} modules, more than {MOST_MODULES}"
    if lines > MOST_LINES:
        yield f"breeds/ has {lines} lines, more than {MOST_LINES}"


def sizes() -> Iterator[str]:
    """No module is long, no function asks for everything."""
    long = {name for name, path in MODULES.items() if text_of(path).count("\n") > MOST_LINES_OF_ONE}
    yield from (f"{name} has more than {MOST_LINES_OF_ONE} lines" for name in long - STILL_LONG)
    yield from (f"{name} is not long any more: take it out of STILL_LONG" for name in STILL_LONG - long)
    for name, path in MODULES.items():
        for function, node in functions(tree_of(path), name):
            count = len(node.args.posonlyargs + node.args.args + node.args.kwonlyargs)
            count -= bool(node.args.args) and node.args.args[0].arg in ("self", "cls")
            if count > MOST_PARAMETERS and function not in MANY_OPTIONS and not is_public(function):
                yield f"{function} has {count} parameters, more than {MOST_PARAMETERS}"


def functions(tree: ast.AST, name: str) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """The functions in a module, by their whole names."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield f"{name}.{node.name}", node
        inner = f"{name}.{node.name}" if hasattr(node, "name") else name
        yield from functions(node, inner)


def is_public(function: str) -> bool:
    """Whether a function is one of `breeds.__all__`."""
    import breeds

    module, _, name = function.rpartition(".")
    return name in breeds.__all__ and getattr(breeds, name).__module__ == module


def network() -> Iterator[str]:
    """Only named modules can reach the network."""
    reach = set()
    for name, path in MODULES.items():
        for node in ast.walk(tree_of(path)):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if REACHES & {module.split(".")[0] for module in modules if module != "urllib.parse"}:
                reach.add(name)
            called = isinstance(node, ast.Attribute) and node.attr in SOCKETS
            if called and ast.unparse(node) != "sqlite3.connect":  # that is a file
                reach.add(name)
                if name == LISTENS and node.attr not in ("getaddrinfo", "socket"):
                    yield f"{name} uses {ast.unparse(node)}"
    yield from (f"{name} can reach the network" for name in reach - NETWORK - {LISTENS})
    yield from (f"{name} reaches no network: take it out of NETWORK" for name in NETWORK - reach)


def people_are_told_by_say() -> Iterator[str]:
    """What is printed in any other way may hold what a stranger wrote, for a terminal to obey."""
    for path in [*(ROOT / f"{script}.py" for script in SCRIPTS), *MODULES.values()]:
        if path.parent.name == "sample" or path.name == "text.py":
            continue
        if any(isinstance(node, ast.Name) and node.id == "print" for node in ast.walk(tree_of(path))):
            yield f"{path.relative_to(ROOT)} prints: breeds.text.say does it"


def help_is_light() -> Iterator[str]:
    """What --help shows needs no heavy library."""
    code = f"import sys, {', '.join(SCRIPTS)}\n"
    code += "".join(f"{script}.parser()\n" for script in SCRIPTS)
    code += f"print(*sorted(set(sys.modules) & set({HEAVY!r})))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    if done.returncode:
        yield f"the parsers cannot be made: {done.stderr}"
    yield from (f"the parser of a script loads {library}" for library in done.stdout.split())


def parsed(lines: Iterable[str]) -> dict[str, Requirement]:
    """Requirements by name."""
    bare = (line.split("#")[0].strip() for line in lines)
    return {found.name: found for found in map(Requirement, filter(None, bare))}


def requirements() -> Iterator[str]:
    """Bounds are the same in pyproject.toml and requirements*.txt; they name what the package imports."""
    project = tomllib.loads(text_of(ROOT / "pyproject.toml"))
    extras = project["project"]["optional-dependencies"]
    own = parsed(project["project"]["dependencies"])
    files = {of: parsed(text_of(ROOT / f"requirements{of}.txt").splitlines()) for of in ("", "-app", "-test")}
    at_once = own | parsed([*extras["tensorflow"], *extras["onnx"], *extras["parquet"]])
    if {name: found for name, found in files[""].items() if name != "pytest"} != at_once:
        yield "requirements.txt is not what pyproject.toml asks for, its extras tensorflow, onnx and parquet"
    if files["-app"] != parsed(extras["app"]):
        yield "requirements-app.txt is not the extra app of pyproject.toml"
    for_tests = parsed([*extras["cloud"], *extras["ray"], *project["build-system"]["requires"]])
    if not for_tests.items() <= files["-test"].items():
        yield "requirements-test.txt lacks the extras cloud or ray, or what builds the package"

    imported: set[str] = set()
    for path in MODULES.values():
        if path.parent.name != "app":
            for node in ast.walk(tree_of(path)):
                if isinstance(node, ast.Import):
                    imported |= {alias.name.split(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                    imported.add(node.module.split(".")[0])
    others = {"jax", "torch"}  # where they are Keras's backend, they are here
    by_extras = {module for extra in EXTRAS.keys() - {"app"} for module in EXTRAS[extra]}
    imported -= {"breeds", *by_extras, *EXTRAS["app"], *others, *sys.stdlib_module_names}
    homes = importlib.metadata.packages_distributions()
    names = {re.sub(r"[-_.]+", "-", homes[module][0]).lower() for module in imported}
    yield from (f"pyproject.toml lacks {name}, which the package imports" for name in names - own.keys())
    yield from (f"pyproject.toml names {name}, which nothing imports" for name in own.keys() - names)


@cache
def names_in(path: Path) -> frozenset[str]:
    """The functions, classes and constants that a module defines on its own level, or imports."""
    found: set[str] = set()
    for node in tree_of(path).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            found |= {name.id for name in ast.walk(node) if isinstance(name, ast.Name)}
        elif isinstance(node, ast.ImportFrom):
            found |= {alias.asname or alias.name for alias in node.names}
    return frozenset(found)


def is_there(name: str) -> bool:
    """Whether what a page names in code is there, if it is a test, a file, a module or a target of make."""
    if "::" in name:
        file, test = name.removeprefix("tests/").split("::")
        paths = [ROOT / "tests" / file] if "/" in file else list((ROOT / "tests").glob(f"*/{file}"))
        return any(path.is_file() and test in names_in(path) for path in paths)
    if re.fullmatch(r"(breeds|tests|benchmarks|docs)/[\w./]*|\w+\.(py|md|txt|toml)", name):
        return (ROOT / name).exists()
    if re.fullmatch(r"breeds(\.\w+)+", name):
        path = ROOT / name.replace(".", "/")
        if (path / "__init__.py").is_file() or path.with_suffix(".py").is_file():
            return True
        homes = (path.parent / "__init__.py", path.parent.with_suffix(".py"))
        return any(home.is_file() and path.name in names_in(home) for home in homes)
    if name.startswith("make "):
        return re.search(rf"^{name.split()[1]}:", text_of(ROOT / "Makefile"), re.MULTILINE) is not None
    return True


def benchmarks() -> Iterator[str]:
    """What benchmarks and the scripts of docs/ import from Breeds is there; no type checker reads them."""
    for path in (*sorted((ROOT / "benchmarks").glob("*.py")), *sorted((ROOT / "docs").glob("*.py"))):
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "breeds":
                for alias in node.names:
                    name = f"{node.module}.{alias.name}"
                    if not is_there(name):
                        yield f"{path.relative_to(ROOT)} imports {name}, which is not there"


def names_in_documents() -> Iterator[str]:
    """What the pages for developers name is there, and links lead somewhere."""
    tests = 0
    for page in DEVELOPERS_PAGES:
        for name in dict.fromkeys(re.findall(r"`([^`\n]+)`", text_of(ROOT / page))):
            tests += "::" in name
            if not is_there(name):
                yield f"{page} names {name}, which is not there"
    if tests < 20:
        yield f"{DEVELOPERS_PAGES[0]} names few tests: its table of promises is not read as it is written"
    for page in ("README.md", *DEVELOPERS_PAGES):
        for path in LINK.findall(text_of(ROOT / page)):
            if not ((ROOT / page).parent / path).exists():
                yield f"{page} has a link to {path}, which is not there"


def commands_in_documents() -> Iterator[str]:
    """Commands that the pages for users show are parsed by the commands that there are."""
    shown: dict[str, set[str]] = {"README.md": set()}
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))):
        page = path.relative_to(ROOT).as_posix()
        if "_build" in path.parts:
            continue
        shell = "".join(block for language, block in BLOCK.findall(text_of(path)) if language in ("", "sh"))
        for line in shell.replace("\\\n", " ").splitlines():
            command = line.split("#")[0].strip()
            script = re.match(r"python (\w+)\.py\b", command)
            installed = re.match(r"breeds (extract|train|evaluate|predict)\b", command)
            if script or installed:
                module = script[1] if script else f"breeds.cli.{installed[1]}"  # type: ignore[index]
                shown.setdefault(page, set()).add(module)
                if not parses(module, shlex.split(command)[2:]):
                    yield f"{page} shows a command that is not understood: {command}"
    missing = {*SCRIPTS, *(f"breeds.cli.{name}" for name in ("extract", "train", "evaluate", "predict"))}
    yield from (f"README.md shows no command of {module}" for module in missing - shown["README.md"])


def parses(module: str, arguments: list[str]) -> bool:
    """Whether the parser of a module takes these arguments; it says itself on stderr why not."""
    try:
        importlib.import_module(module).parser().parse_args(arguments)
    except (SystemExit, ImportError):
        return False
    return True


def lines_of_the_library() -> Iterator[str]:
    """The page of the library begins with lines that a test runs: those of the README."""
    first = text_of(ROOT / "docs/api.md").split("```python\n")[1].split("```")[0]
    run = "".join(
        block for language, block in BLOCK.findall(text_of(ROOT / "README.md")) if language == "python"
    )
    for line in first.splitlines():
        if line.split("  #")[0] not in run:
            yield f"docs/api.md begins with a line that README.md has not: {line}"


def notebook() -> Iterator[str]:
    """The notebook is kept without outputs."""
    cells = [
        cell for cell in json.loads(text_of(ROOT / "docs/tour.ipynb"))["cells"] if cell["cell_type"] == "code"
    ]
    if len(cells) < 8 or any(cell["outputs"] or cell["execution_count"] for cell in cells):
        yield "docs/tour.ipynb has outputs, or few cells: keep it without"


#: What does not hold yet: it is said, and no error.
NOT_YET = (totals,)
CHECKS = (
    floors, training_is_light, sizes, network,
    people_are_told_by_say, help_is_light, requirements, benchmarks, names_in_documents,
    commands_in_documents, lines_of_the_library, notebook,
)  # fmt: skip


def offences(checks: Iterable[Callable[[], Iterator[str]]]) -> list[str]:
    """All that checks find."""
    return [f"{check.__name__}: {offence}" for check in checks for offence in sorted(check())]


def main() -> int:
    """Say all that is wrong; return the exit code."""
    found, open_still = offences(CHECKS), offences(NOT_YET)
    for offence in open_still:
        print(f"not yet: {offence}")
    print(*found, sep="\n", end="\n" if found else "")
    print(
        f"{len(MODULES)} modules, {len(found)} offences, {len(open_still)} of the house that is being built"
    )
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())

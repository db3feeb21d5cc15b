"""An ONNX file from a stranger: read whole, known by its content, and described; nothing of it is run."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from breeds.backbones.weights import Weights
from breeds.config import MOST_BYTES
from breeds.errors import BreedsError
from breeds.files import UnfitError, open_regular, read_regular
from breeds.started import need

#: Where a hub's folder has its network: as exporters write it, and as hubs for browsers keep it.
NAMES = ("model.onnx", "onnx/model.onnx")
# The standard's own operators; all others would need somebody's code.
_DOMAINS = ("", "ai.onnx")
# They repeat or choose what is computed, and an image network needs none; what they take has no bound.
_CONTROL = ("If", "Loop", "Scan", "SequenceMap")
# Their number within each other is bounded by the reader of the format; this bounds all together.
_MOST_NODES, _LONGEST = 100_000, 60
# External data are read once each; so many files are never needed.
_MOST_FILES = 1000


@dataclass(frozen=True)
class Described:
    """What an ONNX network takes and gives, as its file says.

    Attributes
    ----------
    name
        The input's name.
    dims
        The input's shape, 4 numbers; None where the file leaves one open.
    outputs
        How many axes each output has, by its name; None where the file does not say.
    """

    name: str
    dims: tuple[int | None, ...]
    outputs: dict[str, int | None]


def is_onnx(spec: str) -> bool:
    """Say whether what a user names is meant as an ONNX file, or a folder with one."""
    return spec.lower().endswith(".onnx") or os.path.isdir(spec)


def find_file(spec: str) -> Path:
    """Return the ONNX file that a user means by its path or its folder's.

    Raises
    ------
    BreedsError
        If there is none.
    """
    if not os.path.isdir(spec):
        return Path(spec)
    found = next((path for name in NAMES if os.path.isfile(path := Path(spec, name))), None)
    if found is None:
        raise BreedsError(f"There is no {' and no '.join(NAMES)} in {spec}; export the network into it.")
    return found


def open_onnx(spec: str) -> tuple[Any, Weights]:
    """Read an ONNX network and return it with its weights, which are known by the file's content.

    Raises
    ------
    BreedsError
        If the file is not there, or cannot be read.
    """
    path = find_file(spec)
    # A folder's name says more than its file's.
    name = os.path.basename(os.path.realpath(spec)) if os.path.isdir(spec) else path.name
    model, sha256 = content_of(path)
    return model, Weights(f"file:{name}", sha256, path)


def content_of(path: Path) -> tuple[Any, str]:
    """Read an ONNX file with the data that lie beside it.

    Parameters
    ----------
    path
        The file. Of other files only plain ones in its own folder are read, whatever it names.

    Returns
    -------
    onnx.ModelProto, str
        The network with all its numbers in it, and the SHA-256 of the file, or, with data beside it, of the
        SHA-256 of all files.

    Raises
    ------
    BreedsError
        If it is not there, no ONNX file, damaged, or wants data from elsewhere; or the package onnx, which
        reads it, is not installed.
    """
    need("onnx")
    from onnx import ModelProto

    try:
        data = read_regular(path, MOST_BYTES)
    except FileNotFoundError:
        raise BreedsError(f"No such ONNX file: {path}.") from None
    except (UnfitError, OSError) as error:
        raise BreedsError(f"Cannot read the ONNX file {path}: {error.strerror}.") from None
    try:
        model = ModelProto.FromString(data)
    except Exception:  # protobuf has its own error, which is no kind of ValueError
        raise BreedsError(f"{path} is no ONNX file, or is damaged; export it again.") from None
    if not (model.ir_version and model.graph.node):
        raise BreedsError(f"{path} is no ONNX file, or holds no network; export it again.")
    digest = hashlib.sha256(data).hexdigest()
    beside = _take_in(model, path)
    if beside:
        whole = hashlib.sha256(digest.encode())
        for name, own in sorted(beside.items()):
            whole.update(f" {name} {own}".encode())
        digest = whole.hexdigest()
    return model, digest


def _take_in(model: Any, path: Path) -> dict[str, str]:
    """Put data that lie in files beside the network's into it; return the SHA-256 of each, by name."""
    from onnx import TensorProto

    files: dict[str, bytes] = {}
    total = 0
    for tensor in _tensors(model.graph, path):
        if tensor.data_location != TensorProto.EXTERNAL:
            continue
        told = {entry.key: entry.value for entry in tensor.external_data}
        name = told.get("location", "")
        if name not in files:
            if len(files) == _MOST_FILES:
                raise refused(path, "has its numbers in too many files; export it into one")
            files[name] = _beside(path, name)
        try:
            start = int(told.get("offset", 0))
            length = int(told["length"]) if "length" in told else len(files[name]) - start
        except ValueError:
            start = length = -1
        total += max(length, 0)
        if min(start, length) < 0 or start + length > len(files[name]) or total > MOST_BYTES:
            raise refused(path, f"names more numbers than {_shown(name)} beside it has; export it again")
        tensor.raw_data = files[name][start : start + length]
        tensor.data_location = TensorProto.DEFAULT
        del tensor.external_data[:]
    return {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}


def _beside(path: Path, name: str) -> bytes:
    """Read a file of a network's folder; a path out of it could lead to any file, and so could a link."""
    if os.path.basename(name) != name or name in ("", ".", "..") or "\0" in name or "\\" in name:
        raise refused(
            path, f"has its numbers outside its own folder, in {_shown(name)}; export it into one folder"
        )
    file = path.parent / name
    try:
        if os.path.islink(file):
            raise refused(
                path,
                f"has its numbers in {_shown(name)}, which is a link to any file; copy that there",
            )
        with open_regular(file, MOST_BYTES) as opened:
            if not os.path.samestat(os.fstat(opened.fileno()), os.lstat(file)):  # a link by now
                raise refused(path, f"has its numbers in {_shown(name)}, which was replaced just now")
            return opened.read(MOST_BYTES)
    except OSError as error:
        raise refused(
            path, f"has its numbers in {_shown(name)} beside it, which cannot be read ({error.strerror})"
        ) from None


def _tensors(graph: Any, path: Path) -> Iterator[Any]:
    """Yield every tensor of a graph: its numbers, and those that stand in its operators."""
    sparse = bool(graph.sparse_initializer)
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            sparse |= attribute.HasField("sparse_tensor") or bool(attribute.sparse_tensors)
    if sparse:
        raise refused(path, "has sparse numbers, which Breeds does not read; export it with dense ones")


def describe(model: Any, path: Path) -> Described:
    """Say what a network takes and gives, and refuse one that is plainly no image network.

    Raises
    ------
    BreedsError
        In one sentence, why it cannot be used.
    """
    _check_operators(model, path)
    numbers = {tensor.name for tensor in model.graph.initializer}
    inputs = [entry for entry in model.graph.input if entry.name not in numbers]
    if len(inputs) != 1:
        names = ", ".join(_shown(entry.name) for entry in inputs[:5]) or "none"
        raise refused(
            path, f"has {len(inputs)} inputs ({names}), and an image network has one; export its image part"
        )
    dims = _photo_shape(inputs[0], path)
    outputs = {
        entry.name: len(entry.type.tensor_type.shape.dim)
        if entry.type.tensor_type.HasField("shape")
        else None
        for entry in model.graph.output
    }
    if not outputs or any(not name or len(name) > 200 for name in outputs):
        raise refused(path, "has no output with a name that can be kept; export it again")
    return Described(inputs[0].name, dims, outputs)


def _photo_shape(entry: Any, path: Path) -> tuple[int | None, ...]:
    from onnx import TensorProto

    kind = entry.type.tensor_type
    real = (TensorProto.FLOAT, TensorProto.FLOAT16)
    if not entry.type.HasField("tensor_type") or kind.elem_type not in real:
        known = kind.elem_type in TensorProto.DataType.values()
        what = TensorProto.DataType.Name(kind.elem_type).lower() if known else "something else"
        raise refused(path, f"takes {what} and no floating-point pixels, so it is no image network")
    if not kind.HasField("shape"):
        raise refused(path, f"does not say the shape of its input {_shown(entry.name)}; export it with one")
    dims = tuple(dim.dim_value if dim.HasField("dim_value") else None for dim in kind.shape.dim)
    if len(dims) != 4 or any(dim is not None and dim < 1 for dim in dims):
        raise refused(path, f"takes {shape_text(dims)}, so it is no image network: photos have 4 axes")
    return dims


def _check_operators(model: Any, path: Path) -> None:
    if len(model.graph.node) > _MOST_NODES:
        raise refused(path, f"has more than {_MOST_NODES} operators, as no image network has")
    for node in model.graph.node:
        if node.domain not in _DOMAINS:
            raise refused(
                path, f"has a custom operator, {_shown(node.op_type)} of {_shown(node.domain)}, which would "
                f"need somebody's code; export it with ONNX's own"
            )  # fmt: skip
        if node.op_type in _CONTROL:
            raise refused(
                path, f"has a loop or a branch ({node.op_type}), which has no bound; export it without"
            )
    if model.functions:
        raise refused(path, "has operators of its own (functions); export it with these written out")


def shape_text(dims: tuple[int | None, ...]) -> str:
    """Return a shape as people write one, such as ``(?, 3, 224, 224)``."""
    return f"({', '.join('?' if dim is None else str(dim) for dim in dims)})"


def _shown(name: str) -> str:
    return name if len(name) <= _LONGEST else f"{name[:_LONGEST]}..."


def refused(path: Path, why: str) -> BreedsError:
    """Return the error for a network that cannot be used."""
    return BreedsError(f"The network {path} {why}.")

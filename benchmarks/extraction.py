"""Photos a second: Breeds, the notebook's way, Keras at its best, and the machine's limit."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from table import child, median, report, rounds, show

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
#: Multiply-adds of Xception without its top for one photo of 299×299.
MULTIPLY_ADDS = 8.37e9
#: Rows and columns of the middle flow's 1×1 convolutions, nearly all of the arithmetic.
MIDDLE_FLOW = (361, 728)


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
    from breeds.extract import extract
    from breeds.store import ShardWriter

    stamps: list[float] = []
    add = ShardWriter.add

    def timed(*arguments, **names) -> None:
        stamps.append(time.perf_counter())
        add(*arguments, **names)

    ShardWriter.add = timed  # type: ignore[method-assign]
    chosen = dict(option.split("=") for option in options)
    chosen.setdefault("workers", "2")
    chosen = {name: int(value) if value.isdigit() else value for name, value in chosen.items()}
    with tempfile.TemporaryDirectory() as folder:
        extract(Path(photos), Path(folder, "store.h5"), weights, **chosen)
    quarter = len(stamps) // 4
    report(steady=(len(stamps) - 1 - quarter) / (stamps[-1] - stamps[quarter]))


def run_engine(photos: str, weights: str, precision: str) -> None:
    """Run the engine alone, over photos that are decoded beforehand: no reading, no bookkeeping."""
    from breeds.backbone import XCEPTION, Recipe, find_weights
    from breeds.engines import open_engine
    from breeds.photos import decode, read

    found = find_weights(weights, XCEPTION)
    recipe = Recipe("xception", found.name, found.sha256, 299, "stretch", precision)
    pixels = [decode(read(path), 299) for path in photo_paths(photos)]
    stamps = [time.perf_counter() for _ in open_engine(recipe, lambda: found, "openvino").stream(pixels)]
    quarter = len(stamps) // 4
    report(steady=(len(stamps) - 1 - quarter) / (stamps[-1] - stamps[quarter]))


def run_limit(precision: str) -> None:
    """Multiply matrices of the middle flow's shape through OpenVINO, and convert to photos a second."""
    from breeds.engines.network import import_openvino

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


def run_onnx(photos: str, weights: str) -> None:
    """Run the network through ONNX Runtime, exported by Keras, batch 8."""
    import onnxruntime

    _, model = keras_model(weights)
    with tempfile.TemporaryDirectory() as folder:
        model.export(f"{folder}/network.onnx", format="onnx", verbose=False)
        session = onnxruntime.InferenceSession(f"{folder}/network.onnx", providers=["CPUExecutionProvider"])
    from breeds.photos import decode, read

    name, stamps, paths = session.get_inputs()[0].name, [], photo_paths(photos)
    for start in range(0, len(paths), 8):
        pixels = np.stack([decode(read(p), 299) for p in paths[start : start + 8]])
        session.run(None, {name: pixels.astype("f4") / 127.5 - 1})
        stamps.append(time.perf_counter())
    report(steady=8 * (len(stamps) - 3) / (stamps[-2] - stamps[1]))


def run_thingsvision(photos: str, weights: str) -> None:
    """Extract with THINGSvision and its Keras Xception."""
    from thingsvision import get_extractor
    from thingsvision.utils.data import DataLoader, ImageDataset

    extractor = get_extractor(model_name="Xception", source="keras", device="cpu", pretrained=False)
    extractor.model.load_weights(weights)
    data = ImageDataset(
        root=photos, out_path=tempfile.mkdtemp(), backend=extractor.get_backend(),
        transforms=extractor.get_transformations(resize_dim=299, crop_dim=299),
    )  # fmt: skip
    started = time.perf_counter()
    batches = DataLoader(dataset=data, batch_size=32, backend=extractor.get_backend())
    extractor.extract_features(batches=batches, module_name="avg_pool", flatten_acts=True)
    report(steady=len(data) / (time.perf_counter() - started))


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
    parser.add_argument("--only", help="only the contestants whose name has this in it")
    arguments = parser.parse_args()
    given = (arguments.photos, arguments.weights)

    plan = {
        "notebook (all in memory, batch 4)": ("run_notebook", *given),
        "Keras dataset, batch 32": ("run_keras", *given),
        "ONNX Runtime": ("run_onnx", *given),
        "THINGSvision": ("run_thingsvision", *given),
        "Breeds keras": ("run_breeds", *given, "engine=keras"),
        "Breeds fp32": ("run_breeds", *given),
        "Breeds fp32, engine alone": ("run_engine", *given, "fp32"),
        "Breeds bf16": ("run_breeds", *given, "precision=bf16"),
        "Breeds int8": ("run_breeds", *given, "precision=int8"),
        "Breeds int8, size 256": ("run_breeds", *given, "precision=int8", "size=256"),
        "Breeds int8, size 224": ("run_breeds", *given, "precision=int8", "size=224"),
        "limit fp32 (matrix products)": ("run_limit", "fp32"),
        "limit bf16 (matrix products)": ("run_limit", "bf16"),
        "limit int8 (matrix products)": ("run_limit", "int8"),
    }
    plan = {name: call for name, call in plan.items() if not arguments.only or arguments.only in name}
    for name, call in plan.items():  # what is made once is made before the clock runs
        if name.startswith("Breeds") and "keras" not in name:
            child(__file__, *call)
    contestants = {name: (lambda call=call: child(__file__, *call)) for name, call in plan.items()}
    found = rounds(contestants, arguments.rounds)
    base = found.get("notebook (all in memory, batch 4)", {})
    rows = []
    for name, numbers in found.items():
        row = [name, f"{median(numbers['steady']):.1f}", f"{max(numbers['steady']):.1f}",
               ratio(numbers["steady"], base.get("steady", []))]  # fmt: skip
        if "limit" in name:
            rows.append([*row, "", "", ""])
            continue
        wall = numbers["wall"]
        rows.append([*row, f"{min(wall):.1f}", ratio(base.get("wall", []), wall),
                     f"{median(numbers['peak_mb']):.0f}"])  # fmt: skip
    count = len(photo_paths(arguments.photos))
    print(f"{count} photos, {os.cpu_count()} cores, medians of {arguments.rounds} rounds")
    show(
        [
            "",
            "photos/s, median",
            "fastest",
            "× notebook",
            "start to finish, fastest s",
            "× notebook",
            "peak MB",
        ],
        rows,
    )


if __name__ == "__main__":
    main()

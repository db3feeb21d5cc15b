"""Tables for other tools: what they read is what the store and the model say, and memory stays flat."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from conftest import ROOT, MakeStore, assert_refused, run_script
from pyarrow import parquet

from breeds.cli import predict
from breeds.cli import store as store_command
from breeds.config import FeatureConfig
from breeds.errors import BreedsError
from breeds.export.parquet import export_features
from breeds.features import Store, Table, write_store
from breeds.features.corrections import corrections_path
from breeds.heads.model import Model
from breeds.outputs import ANSWERS_PARQUET, FEATURES_PARQUET, replaceable
from breeds.training import train

EXPORT = ("-m breeds store", "export")


@pytest.fixture
def place(make_store: MakeStore, tmp_path: Path) -> Path:
    """A folder with a store of three classes, and a model trained on it."""
    path = make_store({"a": 12, "=b": 12, "c c": 12}, "features/made.h5", spread=0.5)
    train(Store(path), C=0.01).save(tmp_path / "models/made.safetensors")
    return tmp_path


@pytest.mark.slow
def test_features_are_those_of_the_store_bit_for_bit(place: Path) -> None:
    done = run_script(*EXPORT, "made.parquet", cwd=place)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("wrote made.parquet: 36 photos, ")
    store = Store(place / "features/made.h5")
    table = parquet.read_table(place / "made.parquet")
    assert table.schema.field("features").type == pa.list_(pa.field("element", pa.float32(), False), 2048)
    frame = pd.read_parquet(place / "made.parquet")
    assert list(frame) == ["key", "path", "label", "split", "features"]
    assert np.stack(frame.features).tobytes() == store.features().tobytes()
    for name in ("key", "path", "label"):
        assert frame[name].tolist() == list(getattr(store.table, name))
    assert frame.split.isna().all()
    about = json.loads(parquet.read_metadata(place / "made.parquet").metadata[b"breeds"])
    assert about["root"] == "made up"
    assert FeatureConfig.from_json(json.dumps(about["config"])) == store.config


@pytest.mark.slow
def test_with_a_model_a_row_says_what_it_says_of_the_photo(place: Path) -> None:
    store, model = Store(place / "features/made.h5"), Model.load(place / "models/made.safetensors")
    assert model.unknown is not None
    model.unknown = replace(model.unknown, threshold=float(np.median(model.unknown.excess(store.features()))))
    model.save(place / "models/made.safetensors")
    done = run_script(*EXPORT, "made.parquet", "--model", "models/made.safetensors", cwd=place)
    assert done.returncode == 0, done.stderr
    frame = pd.read_parquet(place / "made.parquet")
    shares = model.probabilities(store.features())
    np.testing.assert_array_equal(frame[["p_=b", "p_a", "p_c c"]], shares)
    assert frame.guess.tolist() == [model.classes[i] for i in shares.argmax(axis=1)]
    np.testing.assert_array_equal(frame.probability, shares.max(axis=1))
    np.testing.assert_array_equal(frame.unknown_score, model.unknown.excess(store.features()))
    about = json.loads(parquet.read_metadata(place / "made.parquet").metadata[b"breeds"])
    assert about["classes"] == model.classes
    strange = frame.unknown_score > about["unknown_threshold"]
    assert 0 < strange.sum() < len(frame)
    assert (frame.breed == frame.guess.where(~strange, "unknown")).all()
    assert {
        key for key, part in zip(frame.key, frame.split, strict=True) if part == "train"
    } == model.seen_keys()
    assert {
        key for key, part in zip(frame.key, frame.split, strict=True) if part == "test"
    } == model.tested_keys()


@pytest.mark.slow
def test_labels_are_as_corrected_unless_they_are_to_be_as_they_came(place: Path) -> None:
    store = Store(place / "features/made.h5")
    rows = [f"{store.table.key[0]},c c", f"{store.table.key[1]},"]
    corrections_path(store.path).write_text("\n".join(["key,label", *rows, ""]))
    sentences = []
    for more, wanted in (((), ["c c", None]), (("--no-corrections",), ["a", "a"])):
        done = run_script(*EXPORT, "made.parquet", *more, cwd=place)
        assert done.returncode == 0, done.stderr
        sentences.append(done.stdout.splitlines()[:-1])
        labels = parquet.read_table(place / "made.parquet")["label"].to_pylist()
        assert labels[:2] == wanted
    assert sentences[0] and not sentences[1]


def test_features_of_stores_beside_each_other_follow_by_key(make_store: MakeStore, tmp_path: Path) -> None:
    """The second has the same photos in another order, among more."""
    first = Store(make_store({"a": 7, "b": 7}, "features/one.h5", width=5))
    order = np.random.default_rng(1).permutation(14)
    config = replace(first.config, size=96)
    keys = [first.table.key[i] for i in order] + ["f" * 64]
    n = len(keys)
    table = Table("made up", "", keys, [f"{i}.jpg" for i in range(n)], [""] * n, [""] * n, [1] * n, [0] * n)
    numbers = np.repeat(np.arange(n, dtype=np.float32)[:, None], 3, axis=1)
    write_store(tmp_path / "features/two.h5", table, config, numbers, "made up")
    both = Store(first.path, tmp_path / "features/two.h5")
    assert export_features(both, tmp_path / "both.parquet") == 14
    features = np.stack(pd.read_parquet(tmp_path / "both.parquet").features)
    np.testing.assert_array_equal(features, both.features())
    assert features[order, 5].tolist() == list(range(14))


def test_odd_names_are_text_and_what_is_no_unicode_is_marked(
    random_config: FeatureConfig, tmp_path: Path
) -> None:
    names = ["caf\udce9.jpg", "new\nline,\x1b[2J.jpg", "=1+1.jpg"]
    keys = [f"{i:064x}" for i in range(3)]
    table = Table("ro\udce9t", "", keys, names, names, [""] * 3, [1] * 3, [0] * 3)
    write_store(tmp_path / "odd.h5", table, random_config, np.ones((3, 4), dtype=np.float32), "made up")
    export_features(Store(tmp_path / "odd.h5"), tmp_path / "odd.parquet")
    read = parquet.read_table(tmp_path / "odd.parquet")
    assert read["path"].to_pylist() == read["label"].to_pylist() == ["caf�.jpg", *names[1:]]
    about = json.loads(parquet.read_metadata(tmp_path / "odd.parquet").metadata[b"breeds"])
    assert os.fsencode(about["root"]) == b"ro\xe9t"


@pytest.mark.slow
def test_only_a_table_of_breeds_is_replaced_and_a_failure_leaves_the_old_one(place: Path) -> None:
    export_features(Store(place / "features/made.h5"), place / "made.parquet")
    mine = parquet.read_table(place / "made.parquet")
    assert replaceable(place / "made.parquet", FEATURES_PARQUET)
    assert not replaceable(place / "made.parquet", ANSWERS_PARQUET)
    parquet.write_table(mine, place / "mine.parquet")  # whatever others make of it is theirs
    assert_refused(
        run_script(*EXPORT, "mine.parquet", cwd=place), "mine.parquet", "is not features of Breeds"
    )
    assert_refused(run_script(*EXPORT, "no/such/made.parquet", "--store", "no.h5", cwd=place), "no.h5")
    assert not (place / "no").exists()
    before = (place / "made.parquet").read_bytes()
    data = bytearray((place / "features/made.h5").read_bytes())
    data[data.index(Store(place / "features/made.h5").features()[5].tobytes())] ^= 1
    (place / "features/made.h5").write_bytes(data)
    with pytest.raises(BreedsError, match=r"made\.h5 is damaged"):
        export_features(Store(place / "features/made.h5"), place / "made.parquet")
    assert (place / "made.parquet").read_bytes() == before
    assert not list(place.glob(".*.tmp"))


def test_a_model_of_another_config_is_refused(
    place: Path, make_store: MakeStore, random_config: FeatureConfig
) -> None:
    make_store({"a": 5, "b": 5}, "features/other.h5", config=replace(random_config, size=96))
    asked = ("--store", "features/other.h5", "--model", "models/made.safetensors")
    assert_refused(run_script(*EXPORT, "x.parquet", *asked, cwd=place), "other.h5")
    assert not (place / "x.parquet").exists()


@pytest.mark.slow
def test_without_pyarrow_it_says_what_to_install(place: Path) -> None:
    """As another program would run it: `breeds` tells pip's command."""
    (place / "hidden").mkdir()
    (place / "hidden/sitecustomize.py").write_text(
        "import sys\n"
        "class Hidden:\n"
        "    def find_spec(name, path=None, target=None):\n"
        "        if name.split('.')[0] == 'pyarrow': raise ModuleNotFoundError(name, name=name)\n"
        "sys.meta_path.insert(0, Hidden)\n"
        "import importlib.util as util\n"
        "found = util.find_spec\n"
        "util.find_spec = lambda name, package=None: None if name == 'pyarrow' else found(name, package)\n"
    )
    (place / "breeds").write_text("from breeds.cli import main; main()")
    env = {**os.environ, "PYTHONPATH": f"{place / 'hidden'}:{ROOT}"}
    for arguments in (
        ("store", "export", "x.parquet"),
        ("predict", "x", "--format", "parquet", "--out", "x.parquet"),
    ):
        done = subprocess.run(
            [sys.executable, "breeds", *arguments], cwd=place, env=env, capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        assert_refused(done, "pyarrow is not installed", "-m pip install 'breeds[parquet]'")
    assert not (place / "x.parquet").exists()


# Exports a store and says how many rows there were and the most memory that was ever held.
_EXPORT = """
import re, sys
from pathlib import Path
from breeds.heads.model import Model
from breeds.features import Store
from breeds.export import parquet as tables
tables.GROUP_BYTES = 2**18
store, model = Store(Path(sys.argv[1])), Model.load(Path(sys.argv[2]))
print(tables.export_features(store, Path(sys.argv[3]), model))
print(re.search(r"VmHWM:\\s*(\\d+) kB", Path("/proc/self/status").read_text())[1])
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
def test_memory_does_not_grow_with_the_rows(make_store: MakeStore, tmp_path: Path) -> None:
    """The features of ten times as many are 18 MB more; keys and names cost 100 bytes each, 0.5 MB."""
    few = make_store({"a": 20, "b": 20}, "few.h5", width=1024)
    train(Store(few), C=0.01).save(tmp_path / "made.safetensors")
    peaks = []
    for count in (250, 2500):
        path = make_store({"a": count, "b": count}, f"{count}.h5", width=1024)
        command = [sys.executable, "-c", _EXPORT, path, tmp_path / "made.safetensors", tmp_path / "x.parquet"]
        env = {**os.environ, "PYTHONPATH": str(ROOT), "ARROW_DEFAULT_MEMORY_POOL": "system"}
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
        rows, peak = map(int, done.stdout.split())
        assert rows == 2 * count
        peaks.append(peak)
        groups = parquet.read_metadata(tmp_path / "x.parquet")
        assert groups.num_rows == rows
        assert max(groups.row_group(i).num_rows for i in range(groups.num_row_groups)) == 64
    assert peaks[1] - peaks[0] < 6000, peaks


@pytest.mark.slow
def test_a_command_loads_scikit_learn_without_pandas_and_pyarrow() -> None:
    """They take half a second and 200 MB of address space, and are of no use there."""
    code = (
        "import sys; from breeds.started import begin; begin()\n"
        "import numpy as np; from breeds.heads.logistic import fit\n"
        "fit(np.eye(4, dtype=np.float32), np.array([0, 1, 0, 1]), 1.0)\n"
        "print(set(sys.modules) & {'pandas', 'pyarrow', 'sklearn'})\n"
        "from sklearn.decomposition import PCA; PCA(1).fit([[1.0, 2.0], [2.0, 1.0]])"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert done.stdout == "{'sklearn'}\n"


# The configs of docs/tables.md.

PAGE = (ROOT / "docs/tables.md").read_text(encoding="utf-8")
RECIPES = {
    part.splitlines()[0]: re.findall(r"```python\n(.*?)```", part, flags=re.DOTALL)
    for part in PAGE.split("\n## ")
}


@pytest.fixture
def written(make_store: MakeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """``photos.parquet`` of a store in which some test photos are told wrong, in the working folder."""
    path = make_store({"beagle": 30, "pug": 30}, noise=1.5, spread=0.07)
    store = Store(path)
    names = [name.replace("beagle/0001.jpg", "beagle/01.jpg") for name in store.table.path]
    store = store.like(table=replace(store.table, path=names))
    model = train(store, C=0.01)
    export_features(store, tmp_path / "photos.parquet", model)
    monkeypatch.chdir(tmp_path)
    return store


def test_the_config_for_pandas(written: Store, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, object] = {}
    exec(*RECIPES["pandas"], names)
    np.testing.assert_array_equal(names["features"], written.features())
    assert list(names["shares"]) == ["p_beagle", "p_pug"]
    assert np.allclose(names["shares"].sum(axis=1), 1)
    assert names["about"]["classes"] == ["beagle", "pug"]
    assert f"of {len(names['tested'])} test photos are right" in capsys.readouterr().out


@pytest.mark.slow
def test_the_config_for_polars(written: Store) -> None:
    names: dict[str, object] = {}
    exec(*RECIPES["polars"], names)
    np.testing.assert_array_equal(names["features"], written.features())
    table = pd.read_parquet("photos.parquet")
    wrong = table[(table.split == "test") & (table.guess != table.label)]
    assert 0 < len(wrong) == names["wrong"]["photos"].sum()


@pytest.mark.slow
def test_the_configs_for_duckdb(written: Store) -> None:
    names: dict[str, object] = {}
    first, second = RECIPES["DuckDB"]
    exec(first, names)
    features = written.features()
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    row = list(written.table.path).index("beagle/01.jpg")
    likeness = np.delete(unit @ unit[row], row)
    nearest = names["nearest"]
    np.testing.assert_allclose(nearest.likeness, np.sort(likeness)[::-1][:5], rtol=1e-5)
    for found in nearest.itertuples():
        other = list(written.table.path).index(found.path)
        assert found.label == written.table.label[other]
        assert found.distance == pytest.approx(np.linalg.norm(features[other] - features[row]), rel=1e-5)
    exec(second, names)
    table = pd.read_parquet("photos.parquet")
    tested = table[table.split == "test"]
    wanted = (tested.guess == tested.label).groupby(tested.label).mean()
    by_class = names["by_class"].set_index("label")
    pd.testing.assert_series_equal(by_class.accuracy.sort_index(), wanted, check_names=False)
    assert by_class.photos.sum() == len(tested)


@pytest.mark.slow
def test_the_config_for_cleanlab_but_for_cleanlab(written: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not installed here: what it is given is right, and what its documentation says that it gives."""
    given: dict[str, object] = {}

    class Datalab:
        def __init__(self, data: dict[str, list[str]], label_name: str) -> None:
            given["labels"] = data[label_name]

        def find_issues(self, **more: np.ndarray) -> None:
            given.update(more)

        def get_issues(self, name: str) -> pd.DataFrame:
            guess = np.array(["beagle", "pug"])[given["pred_probs"].argmax(axis=1)]
            return pd.DataFrame({f"is_{name}_issue": guess != given["labels"], f"predicted_{name}": guess})

    monkeypatch.setitem(sys.modules, "cleanlab", SimpleNamespace(Datalab=Datalab))
    names: dict[str, object] = {}
    (code,) = RECIPES["cleanlab"]
    exec(code.replace("BreedsClassifier()", "BreedsClassifier(C=0.01)"), names)  # without its search
    assert given["labels"] == list(written.table.label)
    np.testing.assert_array_equal(given["features"], written.features())
    assert given["pred_probs"].shape == (60, 2) and np.allclose(given["pred_probs"].sum(axis=1), 1)
    wrong = names["doubtful"][names["issues"].is_label_issue.to_numpy()]
    assert 0 < len(wrong) < 30 and (wrong.label != wrong.suggestion).all()


def test_the_config_for_fiftyone_but_for_fiftyone(written: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not installed here: what it is given is right."""
    fiftyone = MagicMock()
    fiftyone.Sample.side_effect = lambda filepath: {"filepath": filepath}
    fiftyone.Classification.side_effect = dict
    monkeypatch.setitem(sys.modules, "fiftyone", fiftyone)
    monkeypatch.setitem(sys.modules, "fiftyone.brain", fiftyone.brain)
    exec(*RECIPES["FiftyOne"], {})
    (samples,) = fiftyone.Dataset().add_samples.call_args.args
    assert [sample["ground_truth"]["label"] for sample in samples] == list(written.table.label)
    assert samples[0]["filepath"] == os.path.abspath(f"made up/{written.table.path[0]}")
    assert {sample["prediction"]["label"] for sample in samples} == {"beagle", "pug"}
    assert all(0.5 <= sample["prediction"]["confidence"] <= 1 for sample in samples)
    for call in (fiftyone.brain.compute_visualization, fiftyone.brain.compute_similarity):
        np.testing.assert_array_equal(call.call_args.kwargs["embeddings"], written.features())


def test_the_command_for_embedding_atlas_names_a_column_that_is_there(written: Store) -> None:
    (column,) = re.findall(r"^embedding-atlas photos.parquet --vector (\w+)$", PAGE, flags=re.MULTILINE)
    assert pa.types.is_fixed_size_list(parquet.read_schema("photos.parquet").field(column).type)


def test_the_page_has_every_column(written: Store) -> None:
    rows = "\n".join(line.split("|")[1] for line in PAGE.splitlines() if line.startswith("| `"))
    listed = set(re.findall(r"`(\w+)`", rows))
    columns = parquet.read_schema("photos.parquet").names
    assert {"p_CLASS" if name.startswith("p_") else name for name in columns} == listed


COMMAND = r"^(?:python -m |python |)(?:breeds store|predict.py) .*"


@pytest.mark.parametrize("line", re.findall(COMMAND, PAGE, re.MULTILINE))
def test_the_commands_of_the_page_parse(line: str) -> None:
    words = line.split("#")[0].replace("python -m ", "").replace("python", "").split()
    if words[0] == "predict.py":
        predict.parser().parse_args(words[1:])
    else:
        store_command.parser().parse_args(words[2:])

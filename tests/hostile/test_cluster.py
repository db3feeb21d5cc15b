"""Extraction on a Ray cluster of two nodes here: what one machine gives, whatever dies meanwhile."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import brought
import numpy as np
import psutil
import pytest
from conftest import ROOT, assert_refused, run_script
from deadly import deadly, full, place_of
from storage import Storage, stored
from test_sources import files_of, in_shards

from breeds.backbones import ray as on_ray
from breeds.backbones.ray import RayPipeline
from breeds.config import FeatureConfig
from breeds.errors import BreedsError, PhotoError
from breeds.extraction import Summary, extract
from breeds.features import Store, journal_folder, list_shards, verify
from breeds.photos import key_of
from breeds.selection import Selection

# Nodes that die and join have to be waited for, which needs a machine that does nothing else.
pytestmark = [pytest.mark.slow, pytest.mark.thorough, pytest.mark.xdist_group("cluster")]

#: A node that is killed is noticed at once, as its connection is refused, and not after half a minute; one
#: that is slow to answer, because the machine is busy, is not taken for dead.
QUICKLY = {
    "health_check_initial_delay_ms": 500, "health_check_period_ms": 500, "health_check_timeout_ms": 30_000,
    "health_check_failure_threshold": 3,
}  # fmt: skip
SIZE = {"num_cpus": 1, "object_store_memory": 80 * 2**20}


class Nodes:
    """A cluster of two nodes with a core each, and object storage that its processes reach."""

    def __init__(self, storage: Storage) -> None:
        from ray.cluster_utils import Cluster as Raylets

        self.storage = storage
        self.raylets = Raylets(
            initialize_head=True,
            head_node_args={**SIZE, "include_dashboard": False, "_system_config": QUICKLY},
        )
        self.second = self.raylets.add_node(**SIZE)
        self.address: str = self.raylets.address

    def kill_second(self) -> None:
        self.raylets.remove_node(self.second, allow_graceful=False)

    def start_second(self) -> None:
        self.second = self.raylets.add_node(**SIZE)


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    before = set(psutil.Process().children(recursive=True))
    with pytest.MonkeyPatch.context() as patch, stored() as storage:
        for name, value in storage.env.items():
            patch.setenv(name, value)
        patch.setenv("PYTHONPATH", f"{ROOT}:{ROOT / 'tests'}")
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        started = Nodes(storage)
        try:
            yield started
        finally:
            import ray

            ray.shutdown()
            started.raylets.shutdown()
    left = set(psutil.Process().children(recursive=True)) - before
    _, alive = psutil.wait_procs([one for one in left if "/ray/" in " ".join(one.cmdline())], timeout=10)
    assert not alive


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return brought.described(tmp_path_factory.mktemp("network") / "net.onnx", mean=(0.5,) * 3, std=(0.5,) * 3)


def asked(network: Path, **more: Any) -> FeatureConfig:
    return FeatureConfig(backbone=str(network), **more)


@pytest.fixture(scope="module")
def alone(drawn_photos: Path, network: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """The store of the drawn photos that this machine makes without a cluster."""
    store = tmp_path_factory.mktemp("alone") / "photos.h5"
    extract(Selection(drawn_photos), store, asked(network))
    return Store(store)


def on_cluster(
    nodes: Nodes, source: Path | str, store: Path, asked: FeatureConfig, both: bool = False
) -> Summary:
    """Extract; on both nodes, when a process is up on either."""
    with RayPipeline(nodes.address) as cluster:
        while both and len({found for _, found in cluster.run_ahead(place_of, range(8), most=1)}) < 2:
            pass
        return extract(Selection(source), store, asked, cluster=cluster)


def assert_same(store: Path, alone: Store) -> None:
    """The same photos in the same order, and features within the engine's tolerance."""
    made = Store(store)
    assert made.table == alone.table and made.config == alone.config
    assert np.allclose(made.features(), alone.features(), rtol=1e-3, atol=1e-6)
    assert list(verify(store)) == []


def committed(store: Path) -> list[str]:
    """The keys of the store and of its journal, one for each feature in them."""
    import h5py

    found = list(Store(store).table.key) if store.exists() else []
    for shard in list_shards(journal_folder(store)):
        with h5py.File(shard) as file:
            found += [bytes(key).decode() for key in file["key"][:]]
    return found


#: Something that happens to a cluster; False if it cannot yet.
Event = Callable[[RayPipeline], bool]


@pytest.fixture
def happening(monkeypatch: pytest.MonkeyPatch) -> Callable[[list[Event]], None]:
    """Let things happen to a cluster, one after the other, each after a photo has come and when it can."""

    def plan(events: list[Event]) -> None:
        given = RayPipeline.features

        def features(self: RayPipeline, *arguments: Any) -> Iterator[Any]:
            for found in given(self, *arguments):
                yield found
                if events and events[0](self):
                    events.pop(0)

        monkeypatch.setattr(RayPipeline, "features", features)

    return plan


# --- what one machine gives --------------------------------------------------------------------


def test_a_cluster_gives_what_one_machine_gives_and_says_so(
    nodes: Nodes, alone: Store, drawn_photos: Path, network: Path, tmp_path: Path
) -> None:
    shutil.copytree(drawn_photos, tmp_path / "photos")
    breed = min((tmp_path / "photos").iterdir())
    (breed / "bad.jpg").write_bytes(b"no photo")
    shutil.copyfile(breed / "01.jpg", breed / "twin.jpg")
    command = ("photos", "--backbone", network, "--engine", "ray", "--address", nodes.address)
    done = run_script("extract_features.py", *command, cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    lines = done.stdout.splitlines()
    assert "62 photos = 61 features (60 new, 1 reused) + 1 quarantined; 1 duplicates" in lines[0]
    said = re.fullmatch(r"cluster: ([\d.]+) photos/s; photos per node: (.*)", lines[2])
    assert said and float(said[1]) > 0, lines
    assert sum(int(node.rpartition(" ")[2]) for node in said[2].split(", ")) == 61
    assert len(lines) == 5 and "bad.jpg" in done.stderr
    assert not re.search("ray|raylet|gcs", done.stderr.lower().replace(str(tmp_path).lower(), "")), (
        done.stderr
    )
    made = Store(tmp_path / "features/photos.h5")
    by_key = dict(zip(alone.table.key, alone.features(), strict=True))
    assert made.features().tolist() == [by_key[key].tolist() for key in made.table.key]
    assert sorted(set(committed(made.path))) == sorted(by_key) and len(committed(made.path)) == 61
    again = on_cluster(nodes, tmp_path / "photos", made.path, asked(network))
    assert (again.new, again.changed, len(again.quarantined)) == (0, False, 1)


def test_photos_in_object_storage_that_fails_in_passing(
    nodes: Nodes, alone: Store, drawn_photos: Path, network: Path, tmp_path: Path
) -> None:
    in_shards(files_of(drawn_photos), tmp_path / "tars")
    for tar in (tmp_path / "tars").iterdir():
        nodes.storage.put(f"tars/{tar.name}", tar.read_bytes())
    seen: set[str] = set()

    def fault(method: str, path: str) -> str:
        first, _ = path not in seen, seen.add(path)
        return ("500", "cut", "slow")[len(seen) % 3] if first and method == "GET" and "." in path else ""

    nodes.storage.fault = fault
    try:
        summary = on_cluster(nodes, "s3://dogs/tars", tmp_path / "made.h5", asked(network))
    finally:
        nodes.storage.fault = lambda method, path: ""
    made = Store(tmp_path / "made.h5")
    assert summary.photos == summary.features == summary.new == sum(summary.nodes.values()) == 60
    assert dict(zip(made.table.key, made.table.label, strict=True)) == dict(
        zip(alone.table.key, alone.table.label, strict=True)
    )
    order = [list(alone.table.key).index(key) for key in made.table.key]
    assert np.allclose(made.features(), alone.features()[order], rtol=1e-3, atol=1e-6)


def test_storage_that_fails_for_good_ends_the_run_and_loses_nothing(
    nodes: Nodes, drawn_photos: Path, network: Path, tmp_path: Path
) -> None:
    for path, _, data in files_of(drawn_photos)[:24]:
        nodes.storage.put(f"failing/{path}", data)
    reads: list[str] = []

    def fault(method: str, path: str) -> str:  # once for the keys, then a part of the photos
        reads.append(path)
        return "403" if path.endswith(".jpg") and len(reads) > 24 + 10 else ""

    store = tmp_path / "made.h5"
    with RayPipeline(nodes.address) as cluster:
        with pytest.raises(BreedsError, match=r"^Nothing is at s3://nowhere"):
            extract(Selection("s3://nowhere/photos"), store, asked(network), cluster=cluster)
        nodes.storage.fault = fault
        try:
            with pytest.raises(BreedsError, match="is not allowed"):
                extract(Selection("s3://dogs/failing"), store, asked(network), cluster=cluster)
        finally:
            nodes.storage.fault = lambda method, path: ""
        had = len(committed(store))
        summary = extract(Selection("s3://dogs/failing"), store, asked(network), cluster=cluster)
    assert (summary.features, summary.new) == (24, 24 - had) and had < 24


def test_a_listing_that_changes_while_it_runs_sets_aside_what_is_gone(
    nodes: Nodes, drawn_photos: Path, network: Path, tmp_path: Path
) -> None:
    found = files_of(drawn_photos)[:24]
    names = [f"changing/{path}" for path, _, _ in found]
    for name, (_, _, data) in zip(names, found, strict=True):
        nodes.storage.put(name, data)
    changed, other, new = threading.Lock(), found[0][2] + b"and more", found[1][2] + b"new"

    def change(method: str, path: str) -> str:  # when the first photo is asked for, all are listed
        if method == "GET" and path.endswith(".jpg") and changed.acquire(blocking=False):
            nodes.storage.client.delete_object(Bucket="dogs", Key=names[20])
            nodes.storage.put(names[21], other)
            nodes.storage.put("changing/zzz/new.jpg", new)
        return ""

    store = tmp_path / "made.h5"
    nodes.storage.fault = change
    try:
        first = on_cluster(nodes, "s3://dogs/changing", store, asked(network))
    finally:
        nodes.storage.fault = lambda method, path: ""
    gone = {path for path, _ in first.quarantined}
    assert first.photos == first.features + len(gone) == 24
    # The one that is another now may be read before or after, or between its key and its feature.
    assert {names[20][9:]} <= gone <= {names[20][9:], names[21][9:]}
    second = on_cluster(nodes, "s3://dogs/changing", store, asked(network))
    assert (second.photos, second.features, second.quarantined) == (24, 24, [])
    there = [nodes.storage.client.get_object(Bucket="dogs", Key=name)["Body"].read() for name in names[:20]]
    assert {key_of(data) for data in [*there, other, new]} <= set(Store(store).table.key)


def test_int8_is_quantised_once_and_computed_on_the_nodes(
    nodes: Nodes, drawn_photos: Path, network: Path, tmp_path: Path
) -> None:
    here, there = tmp_path / "here.h5", tmp_path / "there.h5"
    extract(Selection(drawn_photos), here, asked(network, precision="int8"))
    on_cluster(nodes, drawn_photos, there, asked(network, precision="int8"))
    assert_same(there, Store(here))


# --- whatever dies -----------------------------------------------------------------------------


def test_processes_killed_one_after_the_other(
    nodes: Nodes, alone: Store, drawn_photos: Path, network: Path, tmp_path: Path, happening: Any
) -> None:
    killed: list[int] = []

    def kill(pipeline: RayPipeline) -> bool:
        up = [
            one.pid
            for one in psutil.process_iter(["cmdline"])
            if "".join(one.info["cmdline"] or []).startswith(("ray::IDLE", "ray::_checked"))
            and one.pid not in killed
        ]
        if not up or pipeline.photos.total() < 4 + 8 * len(killed):
            return False
        killed.append(up[0])
        os.kill(up[0], signal.SIGKILL)
        return True

    happening([kill, kill, kill])
    summary = on_cluster(nodes, drawn_photos, tmp_path / "made.h5", asked(network), both=True)
    assert len(killed) >= 2
    assert summary.photos == summary.features + len(summary.quarantined) == sum(summary.nodes.values()) == 60
    assert_same(tmp_path / "made.h5", alone)
    assert sorted(committed(tmp_path / "made.h5")) == sorted(alone.table.key)


def test_a_node_killed_and_another_that_joins(
    nodes: Nodes, alone: Store, drawn_photos: Path, network: Path, tmp_path: Path, happening: Any
) -> None:
    had: list[int] = []

    def kill(pipeline: RayPipeline) -> bool:
        if len(pipeline.photos) < 2:
            return False
        nodes.kill_second()
        return True

    def join(pipeline: RayPipeline) -> bool:
        if pipeline.photos.total() < 20:
            return False
        had.append(pipeline.photos.total())
        nodes.start_second()
        return True

    happening([kill, join])
    summary = on_cluster(nodes, drawn_photos, tmp_path / "made.h5", asked(network), both=True)
    assert summary.photos == summary.features == sum(summary.nodes.values()) == 60
    assert len(summary.nodes) >= 2 and had and had[0] < 60
    assert_same(tmp_path / "made.h5", alone)
    assert sorted(committed(tmp_path / "made.h5")) == sorted(alone.table.key)


DRIVER = """
import os, signal, sys
import extract_features
from breeds.cli import common
from breeds.cli.extract import main
from breeds.features import journal
journal.SHARD_ROWS = 8
number, left, commit = int(sys.argv.pop(1)), int(sys.argv.pop(1)), journal.commit

def counted(*arguments):
    global left
    commit(*arguments)
    left -= 1
    if left == 0:
        os.kill(os.getpid(), number)

journal.commit = counted
common.run(main)
"""


def test_the_driver_killed_or_stopped_goes_on_where_it_was(
    nodes: Nodes, alone: Store, drawn_photos: Path, network: Path, tmp_path: Path
) -> None:
    store, had = tmp_path / "made.h5", 0
    command = [drawn_photos, "--backbone", network, "--engine", "ray", "--address", nodes.address]
    for number, code, commits in ((signal.SIGKILL, -9, 3), (signal.SIGINT, 130, 2)):
        before = {path: path.read_bytes() for path in list_shards(journal_folder(store))}
        arguments = [str(int(number)), str(commits), *map(str, command), "--store", str(store)]
        stopped = subprocess.run(
            [sys.executable, "-c", DRIVER, *arguments],
            cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
            timeout=600, check=False,
        )  # fmt: skip
        assert stopped.returncode == code, stopped.stderr
        assert "Traceback" not in stopped.stderr and not store.exists()
        assert all(path.read_bytes() == data for path, data in before.items())
        assert had + 8 * commits <= len(committed(store)) < 60
        had = len(committed(store))
    summary = on_cluster(nodes, drawn_photos, store, asked(network))
    assert (summary.features, summary.new) == (60, 60 - had)
    assert_same(store, alone)
    assert sorted(committed(store)) == sorted(alone.table.key)


def test_what_kills_its_process_is_given_up_and_holds_up_nothing(nodes: Nodes) -> None:
    with RayPipeline(nodes.address) as cluster:
        found = list(cluster.run_ahead(deadly, range(30)))
        assert [number for number, _ in found] == list(range(30))
        assert {n: one for n, one in found if n != 7} == {n: 2 * n for n in range(30) if n != 7}
        assert isinstance(found[7][1], PhotoError) and "died twice" in str(found[7][1])


# --- bad input ---------------------------------------------------------------------------------


def test_a_cluster_that_is_not_there_is_one_sentence(
    photos: Path, network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch, pytest.raises(BreedsError, match="package ray is not installed"):
        patch.setitem(sys.modules, "ray", None)
        RayPipeline("local")
    started = time.monotonic()
    for address, words in (("127.0.0.1:1", "No Ray cluster answers"), ("head", "HOST:PORT")):
        command = (photos, "--backbone", network, "--engine", "ray", "--address", address)
        assert_refused(run_script("extract_features.py", *command, cwd=tmp_path), words)
    assert time.monotonic() - started < 60
    assert_refused(run_script("extract_features.py", photos, "--actors", 2, cwd=tmp_path), "--engine ray")


def test_nodes_that_cannot_do_it_are_one_sentence(nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    with RayPipeline(nodes.address) as cluster:
        with pytest.raises(BreedsError, match="No space left on device; nothing is lost"):
            list(cluster.run_ahead(full, range(3)))
        cluster.root = "/no/such/folder"
        with pytest.raises(BreedsError, match="has no folder /no/such/folder"):
            list(cluster.run_ahead(deadly, range(3)))
        cluster.root = ""
        monkeypatch.setattr(on_ray, "VERSIONS", "Breeds 0 and Pillow 0")
        with pytest.raises(BreedsError, match="install the same on all nodes"):
            list(cluster.run_ahead(deadly, range(3)))

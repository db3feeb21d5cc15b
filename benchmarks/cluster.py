"""Photos a second of one process, of a Ray cluster of one node, and of two nodes, on the same cores; and kills."""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from table import child, median, report, rounds, show

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
STORE_BYTES = 300 * 2**20
#: A dead node is noticed in a few seconds, where Ray's own pace is half a minute.
QUICKLY = {"health_check_period_ms": 1000, "health_check_failure_threshold": 3}


@contextmanager
def raylets(nodes: int, cores: int) -> Iterator[Any]:
    """Start a cluster of so many nodes here, with the cores between them."""
    from ray.cluster_utils import Cluster

    os.environ.update(RAY_USAGE_STATS_ENABLED="0", PYTHONPATH=str(ROOT))
    each = {"num_cpus": cores // nodes, "object_store_memory": STORE_BYTES}
    cluster = Cluster(True, head_node_args={**each, "include_dashboard": False, "_system_config": QUICKLY})
    try:
        for _ in range(nodes - 1):
            cluster.add_node(**each)
        yield cluster
    finally:
        cluster.shutdown()


def asked_for(weights: str, backbone: str, size: str, precision: str) -> Any:
    from breeds.config import FeatureConfig

    return FeatureConfig(backbone, weights, size=int(size), precision=precision)


def run(photos: str, nodes: str, cores: str, *what: str) -> None:
    """Extract into a new store, on so many nodes (0: in this process), with a clock at every feature."""
    from breeds.backbones.ray import RayPipeline
    from breeds.extraction import extract
    from breeds.selection import Selection

    stamps: list[float] = []
    from breeds.features import Writer

    add = Writer.add

    def timed(*arguments: Any, **names: Any) -> None:
        stamps.append(time.perf_counter())
        add(*arguments, **names)

    Writer.add = timed  # type: ignore[method-assign]
    asked = asked_for(*what)
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder, "store.h5")
        if nodes == "0":
            summary = extract(Selection(Path(photos)), store, asked, int(cores))
        else:
            with raylets(int(nodes), int(cores)) as cluster, RayPipeline(cluster.address) as joined:
                summary = extract(Selection(Path(photos)), store, asked, int(cores), cluster=joined)
    quarter = len(stamps) // 4
    steady = (len(stamps) - 1 - quarter) / (stamps[-1] - stamps[quarter])
    report(steady=steady, seconds=summary.seconds, photos=summary.photos)


def kill(photos: str, victim: str, times: str, cores: str, *what: str) -> None:
    """Kill actors, or a node that is started again, while photos are extracted; report what came of it."""
    import psutil

    from breeds.backbones.ray import RayPipeline
    from breeds.extraction import extract
    from breeds.selection import Selection

    left, given = int(times), RayPipeline.features
    with raylets(2, int(cores)) as cluster, tempfile.TemporaryDirectory() as folder:
        nodes = [cluster.list_all_nodes()[-1]]

        def features(self: Any, listed: Any, config: Any) -> Iterator[Any]:
            nonlocal left
            every = max(1, total // (int(times) + 1))
            for count, found in enumerate(given(self, listed, config), 1):
                yield found
                if left and count % every == 0:
                    left -= 1
                    if victim == "actor":
                        up = [one for one in psutil.process_iter(["name"]) if "ray::_che" in one.info["name"]]
                        random.choice(up).kill()
                    else:
                        cluster.remove_node(nodes.pop(), allow_graceful=False)
                        nodes.append(
                            cluster.add_node(num_cpus=int(cores) // 2, object_store_memory=STORE_BYTES)
                        )

        RayPipeline.features = features  # type: ignore[method-assign]
        total = sum(1 for path in Path(photos).rglob("*") if path.is_file())
        with RayPipeline(cluster.address) as joined:
            summary = extract(Selection(Path(photos)), Path(folder, "s.h5"), asked_for(*what), cluster=joined)
    report(
        photos=summary.photos, features=summary.features, quarantined=len(summary.quarantined),
        kills=int(times) - left, new=summary.new,
    )  # fmt: skip


def kill_driver(photos: str, times: int, cores: int, what: list[str]) -> dict[str, float]:
    """Kill the command itself at random moments, run it again until it ends, and count what there is."""
    from breeds.features import Store

    weights, backbone, size, precision = what
    options = ["--weights", weights, "--backbone", backbone, "--precision", precision]
    options += ["--size", size] if size != "0" else []
    kills = 0
    with raylets(2, cores) as cluster, tempfile.TemporaryDirectory() as folder:
        store = str(Path(folder, "s.h5"))
        command = [sys.executable, str(ROOT / "extract_features.py"), photos, "--store", store, *options]
        command += ["--engine", "ray", "--address", cluster.address]
        while True:
            running = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            try:
                running.wait(random.uniform(4, 20) if kills < times else None)
                break
            except subprocess.TimeoutExpired:
                running.kill()
                running.wait()
                kills += 1
        table = Store(Path(store)).table
    aside = len(table.rejected)
    return {"photos": len(table) + aside, "features": len(table), "quarantined": aside, "kills": kills}


def main() -> None:
    if len(sys.argv) > 1 and sys.argv[1] in ("run", "kill"):
        globals()[sys.argv[1]](*sys.argv[2:])
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photos", help="a folder of photos")
    parser.add_argument("--weights", default="random", help="random, imagenet or a file")
    parser.add_argument("--backbone", default="xception")
    parser.add_argument("--size", default="0", help="pixels (0: the backbone's own)")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--cores", type=int, default=os.cpu_count() or 2)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--kills", type=int, default=0, help="also kill so many actors, nodes and drivers")
    chosen = parser.parse_args()
    what = [chosen.weights, chosen.backbone, chosen.size, chosen.precision]
    script, cores = str(Path(__file__)), str(chosen.cores)
    names = {"one process": "0", "one node of Ray": "1", "two nodes of Ray": "2"}
    contestants = {
        name: lambda nodes=nodes: child(script, "run", chosen.photos, nodes, cores, *what)
        for name, nodes in names.items()
    }
    found = rounds(contestants, chosen.rounds)
    rows = [
        (name, *(median(of[key]) for key in ("steady", "seconds", "wall", "peak_mb")))
        for name, of in found.items()
    ]
    show(("", "photos/s, steady", "extraction, s", "with the cluster's start, s", "driver's peak, MB"), rows)
    if chosen.kills:
        print()
        killed = {
            victim: child(script, "kill", chosen.photos, victim, str(chosen.kills), cores, *what)
            for victim in ("actor", "node")
        }
        killed["driver"] = kill_driver(chosen.photos, chosen.kills, chosen.cores, what)
        header = ("killed", "times", "photos", "features", "quarantined")
        show(header, [(name, *(of[key] for key in ("kills", *header[2:]))) for name, of in killed.items()])


if __name__ == "__main__":
    main()

"""Review on a real store: planted wrong labels found and mended, seconds, and what to label next."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from table import median, show

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from breeds import metrics  # noqa: E402
from breeds.features import Store  # noqa: E402
from breeds.features.columns import Names  # noqa: E402
from breeds.features.corrections import Correction, Corrections  # noqa: E402
from breeds.heads.model import Model  # noqa: E402
from breeds.review import label_next, queue, train_again  # noqa: E402
from breeds.training import train  # noqa: E402


def planted(store: Store, share: float, seed: int) -> tuple[Store, dict[str, str]]:
    """Return the store with wrong labels planted, and the true ones of these photos, by key."""
    rng, labels, classes = np.random.default_rng(seed), list(store.table.label), store.table.label.names
    wrong = rng.choice(len(labels), round(share * len(labels)), replace=False)
    truth = {store.table.key[row]: labels[row] for row in wrong}
    for row in wrong:
        labels[row] = str(rng.choice([name for name in classes if name != labels[row]]))
    return store.like(table=replace(store.table, label=Names.of(labels))), truth


def score(model: Model, store: Store, keys: list[str]) -> tuple[int, float]:
    """Return how many of these photos a model gets wrong, and its log loss, by the labels of `store`."""
    label = dict(zip(store.table.key, store.table.label, strict=True))
    truth = np.array([model.classes.index(label[key]) for key in keys])
    answers = model.probabilities(store.features_of(keys))
    return int((answers.argmax(axis=1) != truth).sum()), metrics.log_loss(truth, answers)


def found_and_mended(clean: Store, share: float, most: int, seeds: int, folder: Path) -> None:
    """Plant wrong labels, review the first of the queue knowing the truth, train again."""
    rows, seconds = [], []
    for seed in range(seeds):
        store, truth = planted(clean, share, seed)
        # The parts are drawn by labels, so each state has its own; judged is on what none has seen.
        model = train(store)
        path = folder / "model.safetensors"
        model.save(path)
        started = time.perf_counter()
        items = queue(store, model, Corrections(), most)
        seconds.append(time.perf_counter() - started)
        asked = {key for item in items for key in (item.key, item.twin) if key}
        mended = [Correction(key, truth[key]) for key in asked & truth.keys()]
        again = train_again(path, store, Corrections.of(mended))
        best = train(clean)
        # Judged by true labels, on photos that none of the three has seen.
        seen = model.seen_keys() | again.model.seen_keys() | best.seen_keys()
        keys = [key for key in clean.table.key if key not in seen]
        scores = [score(one, clean, keys) for one in (best, model, again.model)]
        rows.append([str(seed), str(len(truth)), str(len(items)), str(len(mended)), str(len(keys)),
                     " / ".join(f"{1 - wrong / len(keys):.2%}" for wrong, _ in scores),
                     " / ".join(f"{loss:.4f}" for _, loss in scores),
                     f"{again.photos}, p = {again.p_value:.2g}"])  # fmt: skip
    show(["seed", "planted", "reviewed", "found", "test photos", "accuracy clean / planted / corrected",
          "log loss clean / planted / corrected", "untouched, McNemar"], rows)  # fmt: skip
    print(f"the queue took {median(seconds):.2f} s (median)\n")


def seconds(store: Store, rounds: int, folder: Path) -> None:
    """Time training again, warm."""
    path = folder / "model.safetensors"
    train(store).save(path)
    found = {"C kept": False, "search": True}
    rows = []
    for name, search in found.items():
        runs = []
        for _ in range(rounds + 1):
            before = time.process_time()
            again = train_again(path, store, Corrections(), search)
            runs.append((again.seconds, time.process_time() - before))
        wall, cpu = ([run[i] for run in runs[1:]] for i in (0, 1))
        rows.append(
            [name, f"{median(wall):.2f}", f"{min(wall):.2f} to {max(wall):.2f}", f"{median(cpu):.2f}"]
        )
    show(["train again", "median s", "from, to", "CPU s"], rows)
    print(f"{len(store.table)} photos, warm, {rounds} rounds\n")


def by_labels(clean: Store, rounds: int) -> None:
    """Label some of the training photos, chosen or at random, and test on the test part."""
    model = train(clean)
    test, classes = model.tested_keys(), clean.table.label.names
    label = dict(zip(clean.table.key, clean.table.label, strict=True))
    pool = sorted(label.keys() - test)
    bare = replace(clean, table=replace(
        clean.table,
        label=Names.of(name if key in test else "" for key, name in label.items()),
        split=Names.of("test" if key in test else "" for key in label),
    ))  # fmt: skip
    budgets = [each * len(classes) for each in (5, 10, 20)]
    found: dict[tuple[str, int], list[tuple[int, float]]] = {}
    for seed in range(rounds):
        order = [pool[i] for i in np.random.default_rng(seed).permutation(len(pool))]
        # Both begin with three labels a class, the first of each in the same random order.
        start = [key for name in classes for key in [k for k in order if label[k] == name][:3]]
        for way in ("random", "label_next"):
            known = list(start)
            for budget in budgets:
                while len(known) < budget:
                    words = Corrections.of([Correction(key, label[key]) for key in known])
                    if way == "random":
                        more = [key for key in order if key not in set(known)][: budget - len(known)]
                    else:
                        now = train(bare.with_corrections(words), C=0.001)
                        most = min(10, budget - len(known))
                        more = [item.key for item in label_next(bare, now, words, most)]
                    known += more
                words = Corrections.of([Correction(key, label[key]) for key in known])
                trained = train(bare.with_corrections(words))
                found.setdefault((way, budget), []).append(score(trained, clean, sorted(test)))
    rows = []
    for (way, budget), scores in sorted(found.items(), key=lambda item: (item[0][1], item[0][0])):
        wrong, loss = np.array(scores).T
        accuracy = 1 - wrong / len(test)
        rows.append([str(budget // len(classes)), way, f"{accuracy.mean():.2%} ± {accuracy.std():.2%}",
                     f"{loss.mean():.4f} ± {loss.std():.4f}"])  # fmt: skip
    show(["labels a class", "chosen by", "accuracy", "log loss"], rows)
    print(f"{len(test)} test photos, {rounds} rounds; with all {len(pool)} labels: "
          f"accuracy {1 - score(model, clean, sorted(test))[0] / len(test):.2%}, "
          f"log loss {score(model, clean, sorted(test))[1]:.4f}")  # fmt: skip


def main() -> None:
    """Print the tables of the store that is named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store", type=Path, help="a store, such as features/dogs10.h5; it is not changed")
    parser.add_argument("--share", type=float, default=0.03, help="of labels planted wrong; default: 0.03")
    parser.add_argument("--most", type=int, default=50, help="items of the queue to review; default: 50")
    parser.add_argument("--seeds", type=int, default=5, help="plantings; default: 5")
    parser.add_argument(
        "--rounds", type=int, default=10, help="of what is timed, and of labelling; default: 10"
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = shutil.copy(arguments.store, folder)
        store = Store(Path(path))
        found_and_mended(store, arguments.share, arguments.most, arguments.seeds, Path(folder))
        seconds(store, arguments.rounds, Path(folder))
        by_labels(store, arguments.rounds)


if __name__ == "__main__":
    main()

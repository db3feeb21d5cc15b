"""The head's tables: search against scikit-learn's own, views, planted label errors."""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

import numpy as np
from table import median, show

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from breeds import metrics  # noqa: E402
from breeds.features import Store  # noqa: E402
from breeds.heads import logistic  # noqa: E402
from breeds.heads.crossval import compare_heads  # noqa: E402
from breeds.heads.logistic import fit_temperature  # noqa: E402
from breeds.heads.model import softmax  # noqa: E402
from breeds.machine import cores  # noqa: E402
from breeds.split import fold_of  # noqa: E402
from breeds.started import begin  # noqa: E402


def load(store: Store) -> tuple[np.ndarray, np.ndarray, list[str], list[str]]:
    """Return features, class numbers, keys and labels of a store."""
    labels = store.table.label
    return store.features(), np.unique(labels, return_inverse=True)[1], store.table.key, labels


def search(store: Store, rounds: int) -> None:
    """Time the search for C and the final fit against LogisticRegressionCV: same grid, folds, tolerance, cores.

    Breeds' search stops early, so it is timed over the whole grid as well. The losses are those of
    held-out photos at the best C, after temperature scaling in Breeds.
    """
    from sklearn.linear_model import LogisticRegression

    features, targets, keys, labels = load(store)
    folds = fold_of(keys, labels, 5, 0)
    stops_early = logistic._lowest
    ways = {
        "LogisticRegressionCV": lambda: scikit_search(features, targets, folds),
        "Breeds, the whole grid": lambda: breeds_search(features, targets, folds, whole_grid),
        "Breeds": lambda: breeds_search(features, targets, folds, stops_early),
    }
    for way in ways.values():
        way()  # warms up
    found = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            found[name].append(timed(way))
    rows = []
    for name, runs in found.items():
        ratios = [run[0] / own[0] for run, own in zip(found["LogisticRegressionCV"], runs, strict=True)]
        cpu = [run[1] / own[1] for run, own in zip(found["LogisticRegressionCV"], runs, strict=True)]
        loss, C, tried, _ = runs[0][2]
        rows.append([name, str(tried), f"{median([run[0] for run in runs]):.2f}", f"{median(ratios):.1f}",
                     f"{median([run[1] for run in runs]):.2f}", f"{median(cpu):.1f}", f"{loss:.4f}", f"{C:.3g}"])  # fmt: skip
    show(["search and fit, 5 folds", "values of C tried", "median s", "times as fast", "CPU s", "times less CPU",
          "held-out log loss", "C"], rows)  # fmt: skip
    _, C, _, answers = found["Breeds"][0][2]
    mean, scale = logistic.standardise(features)
    standard = ((features - mean) / scale).astype(float)
    plain = LogisticRegression(C=C, tol=1e-8, max_iter=5000).fit(standard, targets)
    print(f"largest difference of a probability from scikit-learn's at this C: "
          f"{np.abs(answers - plain.predict_proba(standard)).max():.1e}\n")  # fmt: skip


def timed(way):
    """Return seconds, CPU seconds of this process and its children, and what `way` returned."""
    started, before = time.perf_counter(), os.times()
    found = way()
    return time.perf_counter() - started, sum(os.times()[:4]) - sum(before[:4]), found


def scikit_search(features: np.ndarray, targets: np.ndarray, folds: np.ndarray) -> tuple:
    """Search with LogisticRegressionCV, in its fastest way here: threads, with one BLAS thread each."""
    from joblib import parallel_config
    from sklearn.linear_model import LogisticRegressionCV
    from threadpoolctl import threadpool_limits

    mean, scale = logistic.standardise(features)
    grid = list(logistic.C_GRID)
    splits = [(np.flatnonzero(folds != f), np.flatnonzero(folds == f)) for f in range(5)]
    with threadpool_limits(1), parallel_config("threading"):
        theirs = LogisticRegressionCV(
            Cs=grid, cv=splits, scoring="neg_log_loss", n_jobs=min(5, cores()), max_iter=1000,
            tol=logistic.SEARCH_TOLERANCE, l1_ratios=(0,), use_legacy_attributes=False,
        ).fit((features - mean) / scale, targets)  # fmt: skip
    losses = -np.asarray(theirs.scores_).reshape(5, len(grid), -1).mean(axis=(0, 2))
    return float(losses.min()), float(np.ravel(theirs.C_)[0]), len(grid), None


def breeds_search(features: np.ndarray, targets: np.ndarray, folds: np.ndarray, lowest) -> tuple:
    """Search and fit as training does, walking the grid as `lowest` says."""
    mean, scale = logistic.standardise(features)
    standard = (features - mean) / scale
    logistic._lowest, kept = lowest, logistic._lowest
    ours = logistic.search_C(standard, targets, folds)
    logistic._lowest = kept
    weights, bias = logistic.fit(standard, targets, ours.C, search=ours)
    loss = metrics.log_loss(targets, softmax(ours.out_of_fold / ours.temperature))
    return loss, ours.C, len(ours.log_loss), softmax((standard @ weights + bias).astype(float))


def whole_grid(grid, loss_at) -> float:
    """Try every strength."""
    return min(grid, key=loss_at)


def many(classes: int, each: int) -> None:
    """Time search and fit for many classes of made-up features."""
    rng = np.random.default_rng(0)
    targets = np.repeat(np.arange(classes), each)
    features = (
        0.35 * rng.normal(size=(classes, 2048))[targets] + rng.normal(size=(len(targets), 2048))
    ).astype("f4")
    folds = np.arange(len(targets)) % 5
    started = time.perf_counter()
    mean, scale = logistic.standardise(features)
    found = logistic.search_C((features - mean) / scale, targets, folds)
    searched = time.perf_counter() - started
    logistic.fit((features - mean) / scale, targets, found.C, search=found)
    print(f"{classes} classes × {each}: search {searched:.1f} s, with the fit "
          f"{time.perf_counter() - started:.1f} s; C = {found.C:.3g}\n")  # fmt: skip


def compare(store: Store) -> None:
    """Cross-validate heads of several kinds on the same folds, as ``train_head.py --compare`` does."""
    rows = [
        [row["head"], f"{row['log_loss']:.4f}", f"{row['accuracy']:.2%}",
         "{:.2%} to {:.2%}".format(*row["accuracy_interval"]), f"{row['seconds']:.1f}"]
        for row in compare_heads(store)
    ]  # fmt: skip
    show(["head, 5 folds", "log loss", "accuracy", "95 % interval", "seconds"], rows)
    print()


def calibration(store: Store) -> None:
    """Fit a temperature out of fold, and test it on photos that neither has seen."""
    features, targets, keys, labels = load(store)
    rows = []
    outer = fold_of(keys, labels, 5, 0)
    for C in (3e-4, 1e-3, 1e-2, 3e-2, None):
        before, after = np.empty((2, len(targets), int(targets.max()) + 1))
        for fold in range(5):
            inside = outer != fold
            mean, scale = logistic.standardise(features[inside])
            standard = (features - mean) / scale
            own = [i for i, use in enumerate(inside) if use]
            inner = fold_of([keys[i] for i in own], [labels[i] for i in own], 5, 1)
            grid = logistic.C_GRID if C is None else (C,)
            found = logistic.search_C(standard[inside], targets[inside], inner, grid=grid)
            weights, bias = logistic.fit(standard[inside], targets[inside], found.C, search=found)
            logits = (standard[~inside] @ weights + bias).astype(float)
            before[~inside], after[~inside] = softmax(logits), softmax(logits / found.temperature)
        rows.append(["chosen" if C is None else f"{C:g}"] + [
            f"{measure(targets, answers):.4f}"
            for measure in (metrics.log_loss, metrics.calibration_error, metrics.brier)
            for answers in (before, after)
        ])  # fmt: skip
    header = [
        "C",
        *(f"{name} {when}" for name in ("log loss", "ECE", "Brier") for when in ("before", "after")),
    ]
    show(header, rows)
    print()


def doubts(store: Store) -> None:
    """Plant 3 % wrong labels and see how many of the doubts are these."""
    from breeds.heads.label_issues import _C, DOUBTFUL

    features, truth, keys, _ = load(store)
    mean, scale = logistic.standardise(features)
    classes, found = int(truth.max()) + 1, []
    for seed in range(5):
        rng = np.random.default_rng(seed)
        targets = truth.copy()
        wrong = rng.choice(len(truth), round(0.03 * len(truth)), replace=False)
        targets[wrong] = (targets[wrong] + rng.integers(1, classes, len(wrong))) % classes
        folds = fold_of(keys, [str(target) for target in targets], 5, seed)
        logits = logistic.search_C((features - mean) / scale, targets, folds, grid=(_C,)).out_of_fold
        answers = softmax(logits / fit_temperature(logits, targets))
        doubted = (answers[np.arange(len(targets)), targets] < DOUBTFUL) & (answers.argmax(axis=1) != targets)
        planted = np.isin(np.arange(len(targets)), wrong)
        found.append((planted[doubted].mean(), doubted[planted].mean()))
    precision, recall = np.mean(found, axis=0)
    print(f"3 % wrong labels planted at random, 5 times: precision {precision:.1%}, recall {recall:.1%}\n")


def views(store: Store) -> None:
    """Train with the views beside the store, and average over them in testing."""
    paths = sorted(store.path.parent.glob(f"{store.path.stem}+*.h5"))
    if not paths:
        print(f"no views beside {store.path}: extract with --views flip,crops:2 for this table\n")
        return
    features, targets, keys, labels = load(store)
    others = {path.stem.split("+")[1]: Store(path).features_of(keys) for path in paths}
    outer = fold_of(keys, labels, 5, 0)
    rows = []
    for trained, tested in (
        ([], []), (["flip"], []), (list(others), []), ([], ["flip"]), ([], list(others)), (list(others), list(others)),
    ):  # fmt: skip
        if not all(view in others for view in [*trained, *tested]):
            continue
        answers = np.empty((len(targets), int(targets.max()) + 1))
        for fold in range(5):
            inside = outer != fold
            mean, scale = logistic.standardise(features[inside])
            parts = [features[inside], *(others[view][inside] for view in trained)]
            stacked = (np.vstack(parts) - mean) / scale
            own = [i for i, use in enumerate(inside) if use]
            inner = np.tile(fold_of([keys[i] for i in own], [labels[i] for i in own], 5, 1), len(parts))
            tiled = np.tile(targets[inside], len(parts))
            judged = np.arange(len(tiled)) < len(own)
            found = logistic.search_C(stacked, tiled, inner, judged=judged)
            weights, bias = logistic.fit(stacked, tiled, found.C, search=found)
            answers[~inside] = np.mean(
                [softmax((((part[~inside] - mean) / scale) @ weights + bias).astype(float) / found.temperature)
                 for part in (features, *(others[view] for view in tested))], axis=0
            )  # fmt: skip
        rows.append([", ".join(trained) or "photos only", ", ".join(tested) or "photos only",
                     f"{metrics.accuracy(targets, answers):.2%}", f"{metrics.log_loss(targets, answers):.4f}"])  # fmt: skip
    show(["trained also on", "averaged also over", "accuracy", "log loss"], rows)
    print()


def main() -> None:
    """Print the tables of the store that is named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store", type=Path, help="a store, such as features/dogs10.h5")
    parser.add_argument("--rounds", type=int, default=3, help="of the timed search; default: 3")
    parser.add_argument(
        "--many", default="120x80", help="classes x photos of the large case; default: 120x80"
    )
    arguments = parser.parse_args()
    begin()  # as a command: TensorFlow trains the dense heads in this process
    store = Store(arguments.store)
    search(store, arguments.rounds)
    calibration(store)
    compare(store)
    doubts(store)
    views(store)
    many(*map(int, arguments.many.split("x")))


if __name__ == "__main__":
    main()

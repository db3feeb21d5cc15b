"""None of these, in tables: what is kept of known photos and of views of them, what is refused of others.

Views of held-out photos stand for photos that people take (`distorted.py`). A fifth of the photos is
held out, and another fifth; a row is the mean of both. Only the training photos of each, as they are,
set the threshold. First run: about 8 views x 2/5 of the photos go through the network; with ``--views``
their features are kept for the next.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import distorted
import numpy as np
from table import show

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from breeds import metrics  # noqa: E402
from breeds.config import FeatureConfig  # noqa: E402
from breeds.extraction import extract  # noqa: E402
from breeds.features import Store  # noqa: E402
from breeds.heads import logistic  # noqa: E402
from breeds.heads.model import softmax  # noqa: E402
from breeds.heads.unknown import fit_detector  # noqa: E402
from breeds.selection import Selection  # noqa: E402
from breeds.split import fold_of  # noqa: E402

HELD_OUT = (0, 1)
FOLDS = 5
KEPT = (0.8, 0.9, 0.93, 0.95, 0.97, 0.98, 0.99)
#: These are what the margin was set on; the rest are harder.
MEANT = ("out to 60 %", "in to 60 %", "64 pixels", "darker", "JPEG 10", "two dogs")


@dataclass
class Photos:
    """Features of the known photos, of their views, and of strangers."""

    features: np.ndarray
    targets: np.ndarray
    keys: list[str]
    outer: np.ndarray  # the fold of each photo
    views: dict[str, dict[str, np.ndarray]]  # of view, of key
    strangers: np.ndarray

    def without(self, target: int) -> Photos:
        """Return the same with one class as the strangers."""
        known = self.targets != target
        keys = [key for key, use in zip(self.keys, known, strict=True) if use]
        targets = np.unique(self.targets[known], return_inverse=True)[1]
        return Photos(self.features[known], targets, keys, self.outer[known], self.views,
                      self.features[~known])  # fmt: skip


@dataclass
class Case:
    """One outer fold: photos to fit to, with their inner folds, and photos to judge by."""

    features: np.ndarray
    targets: np.ndarray
    folds: np.ndarray
    plain: np.ndarray
    views: dict[str, np.ndarray]
    strangers: np.ndarray


def cases(photos: Photos) -> Iterator[Case]:
    """Return the outer folds whose held-out photos have views."""
    for fold in HELD_OUT:
        inside, out = np.flatnonzero(photos.outer != fold), np.flatnonzero(photos.outer == fold)
        names = [str(photos.targets[i]) for i in inside]
        inner = fold_of([photos.keys[i] for i in inside], names, FOLDS, 1)
        views = {
            name: np.stack([of_key[photos.keys[i]] for i in out]) for name, of_key in photos.views.items()
        }
        yield Case(photos.features[inside], photos.targets[inside], inner, photos.features[out], views,
                   photos.strangers)  # fmt: skip


def load(store: Path, others: Path, views: Path) -> Photos:
    """Read the three stores."""
    known, made = Store(store), Store(views)
    of: dict[str, dict[str, np.ndarray]] = {name: {} for name in distorted.VIEWS}
    for name, path, row in zip(made.table.label, made.table.path, made.features(), strict=True):
        of[name][Path(path).stem] = row
    keys, labels = list(known.table.key), list(known.table.label)
    targets, outer = np.unique(labels, return_inverse=True)[1], fold_of(keys, labels, FOLDS, 0)
    return Photos(known.features(), targets, keys, outer, of, Store(others).features())


def make_views(store: Path, views: Path, weights: str) -> None:
    """Make views of the held-out photos in a temporary folder, and extract them."""
    known = Store(store)
    keys, labels = list(known.table.key), list(known.table.label)
    outer = fold_of(keys, labels, FOLDS, 0)
    paths = dict(zip(keys, (Path(known.table.root) / path for path in known.table.path), strict=True))
    pairs: dict[str, str] = {}
    for fold in HELD_OUT:
        for label in sorted(set(labels)):
            same = [key for key, f, x in zip(keys, outer, labels, strict=True) if f == fold and x == label]
            pairs |= dict(zip(same, [*same[1:], same[0]], strict=True))
    with tempfile.TemporaryDirectory() as folder:
        distorted.write({key: paths[key] for key in pairs}, pairs, Path(folder) / "views")
        config = known.config
        asked = FeatureConfig(config.backbone, weights, resize=config.resize, size=config.size)
        done = extract(Selection(Path(folder) / "views"), views, asked)
    print(f"{done.features} views of {len(pairs)} photos, {done.seconds:.0f} s\n")


def pooled(views: dict[str, np.ndarray], names: tuple[str, ...] = tuple(distorted.VIEWS)) -> np.ndarray:
    """Return what there is of several views, one after the other."""
    return np.concatenate([views[name] for name in names])


def curve(photos: Photos) -> np.ndarray:
    """Return for every share of `KEPT` what its threshold keeps and refuses, mean of the folds."""
    found = []
    for case in cases(photos):
        for keep in KEPT:
            detector = fit_detector(case.features, case.targets, case.folds, keep)
            kept = {name: ~detector.is_unknown(rows) for name, rows in case.views.items()}
            parts = [kept[name] for name in distorted.VIEWS]
            found.append([
                (~detector.is_unknown(case.plain)).mean(), pooled(kept, MEANT).mean(), pooled(kept).mean(),
                *(part.mean() for part in parts), detector.is_unknown(case.strangers).mean(),
            ])  # fmt: skip
    return np.mean(np.reshape(found, (len(HELD_OUT), len(KEPT), -1)), axis=0)


def separation(photos: Photos) -> str:
    """Return how well the distance tells strangers from photos, and from views of photos."""
    found = []
    for case in cases(photos):
        detector = fit_detector(case.features, case.targets, case.folds, 0.95)
        strangers = detector.excess(case.strangers)
        views = np.concatenate([detector.excess(rows) for rows in case.views.values()])
        found.append([metrics.auroc(strangers, detector.excess(case.plain)), metrics.auroc(strangers, views)])
    return "AUROC against held-out photos {:.4f}, against their views {:.4f}\n".format(
        *np.mean(found, axis=0)
    )


def show_curves(photos: Photos) -> None:
    """Print the trade-off with the strangers, and with each breed left out as the stranger."""
    header = ["--keep", "plain", "six views", "all views", *distorted.VIEWS, "refused"]
    print("kept of held-out photos, of their views; refused of strangers")
    show(header, [[f"{keep:.2f}", *(f"{x:.1%}" for x in row)]
                  for keep, row in zip(KEPT, curve(photos), strict=True)])  # fmt: skip
    print(separation(photos))
    each = np.stack([curve(photos.without(target)) for target in range(int(photos.targets.max()) + 1)])
    print("each class left out in turn as the stranger")
    show(["--keep", "plain", "six views", "all views", "refused", "worst"],
         [[f"{keep:.2f}", *(f"{x:.1%}" for x in (*row[:3], row[-1])), f"{worst:.1%}"] for keep, row, worst in
          zip(KEPT, each.mean(axis=0), each[:, :, -1].min(axis=0), strict=True)])  # fmt: skip
    print()


Score = Callable[[np.ndarray], np.ndarray]


def feature_scores(features, targets, folds, weights, bias, mean, scale):
    """Return other scores in feature space: of the training photos, and as a function.

    Mahalanobis distance (Lee et al., 2018), nearest neighbours (Sun et al., 2022), ViM (Wang et al.,
    2022, arXiv:2203.10807). The training photos' own scores are out of fold, but for ViM.
    """
    from sklearn.covariance import LedoitWolf

    def unit(x):
        return x / np.linalg.norm(x, axis=1, keepdims=True)

    def mahalanobis(x, t, new):
        means = np.stack([x[t == k].mean(axis=0) for k in range(t.max() + 1)])
        precision = np.linalg.inv(
            LedoitWolf(store_precision=False, assume_centered=True).fit(x - means[t]).covariance_
        )
        return np.min([np.einsum("ij,jk,ik->i", new - m, precision, new - m, optimize=True) for m in means],
                      axis=0)  # fmt: skip

    def neighbours(x, t, new):
        return 1 - np.sort(unit(new) @ unit(x).T, axis=1)[:, -5:].mean(axis=1)

    def vim(new):
        logits = (new - mean) / scale @ weights + bias
        residual = np.linalg.norm((new - origin) @ rest, axis=1)
        return alpha * residual - np.log(np.exp(logits - logits.max(axis=1, keepdims=True)).sum(axis=1)) \
            - logits.max(axis=1)  # fmt: skip

    plain = weights / scale[:, None]
    origin = -np.linalg.pinv(plain.T) @ (bias - mean @ plain)
    _, vectors = np.linalg.eigh(np.cov((features - origin).T))
    rest = vectors[:, : -min(512, len(features) // 2)].astype("f4")
    standard = (features - mean) / scale @ weights + bias
    alpha = standard.max(axis=1).mean() / np.linalg.norm((features - origin) @ rest, axis=1).mean()

    def out_of_fold(score):
        own = np.empty(len(targets))
        for fold in range(int(folds.max()) + 1):
            out = folds == fold
            own[out] = score(features[~out], targets[~out], features[out])
        return own, lambda new: score(features, targets, new)

    return {
        "Mahalanobis, Ledoit-Wolf": out_of_fold(mahalanobis),
        "5 nearest neighbours": out_of_fold(neighbours),
        "ViM": (vim(features), vim),
    }


def scores(case: Case) -> dict[str, tuple[np.ndarray, Score]]:
    """Return every score: of the training photos, out of fold where it can be, and as a function."""
    detector = fit_detector(case.features, case.targets, case.folds, 0.95)
    mean, scale = logistic.standardise(case.features)
    standard = (case.features - mean) / scale
    head = logistic.search_C(standard, case.targets, case.folds)
    weights, bias = logistic.fit(standard, case.targets, head.C, search=head)

    def of_logits(score: Score) -> tuple[np.ndarray, Score]:
        return score(head.out_of_fold.astype(float)), lambda x: score(
            ((x - mean) / scale @ weights + bias).astype(float)
        )

    return {
        "maximum probability": of_logits(lambda z: -softmax(z / head.temperature).max(axis=1)),
        "maximum logit": of_logits(lambda z: -z.max(axis=1)),
        "energy": of_logits(lambda z: -np.log(np.exp(z).sum(axis=1))),
        **feature_scores(case.features, case.targets, case.folds, weights, bias, mean, scale),
        "Breeds": (np.array([detector.threshold]), detector.excess),
    }


def show_scores(photos: Photos) -> None:
    """Print how other scores do: with a threshold of the training photos', and with the best there is."""
    rows: dict[str, list[tuple[float, ...]]] = {}
    for case in cases(photos):
        for name, (own, score) in scores(case).items():
            plain, strangers = score(case.plain), score(case.strangers)
            views = np.concatenate([score(rows) for rows in case.views.values()])
            threshold = np.quantile(own, 0.95)
            rows.setdefault(name, []).append((
                metrics.auroc(strangers, plain), metrics.auroc(strangers, views),
                (plain <= threshold).mean(), (views <= threshold).mean(), (strangers > threshold).mean(),
                (strangers > np.quantile(views, 0.93)).mean(),
            ))  # fmt: skip
    show(
        ["score", "AUROC", "AUROC of views", "plain kept", "views kept", "refused", "refused at 93 % of views"],
        [[name, f"{a:.3f}", f"{b:.3f}", *(f"{x:.1%}" for x in rest)] for name, (a, b, *rest) in
         ((name, np.mean(found, axis=0)) for name, found in rows.items())],
    )  # fmt: skip


def main() -> None:
    """Print the tables of the store that is named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store", type=Path, help="a store, such as features/dogs10.h5, its photos in place")
    parser.add_argument("--unknown", type=Path, required=True, metavar="STORE",
                        help="of photos of none of the classes")  # fmt: skip
    parser.add_argument("--weights", default="imagenet", help="that the stores were extracted with")
    parser.add_argument("--views", type=Path, metavar="STORE",
                        help="of the views: read if it is there, kept if not; default: made and forgotten")  # fmt: skip
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        views = arguments.views or Path(folder) / "views.h5"
        if not views.exists():
            make_views(arguments.store, views, arguments.weights)
        photos = load(arguments.store, arguments.unknown, views)
    show_curves(photos)
    show_scores(photos)


if __name__ == "__main__":
    main()

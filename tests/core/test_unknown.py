"""None of these: distances against a plain reference, what is kept and refused, and the margin."""

from __future__ import annotations

import numpy as np
import pytest

from breeds.heads import unknown
from breeds.heads.unknown import RANK, SHRINKAGE, fit_detector
from breeds.metrics import auroc

FOLDS = np.arange(400) // 5 % 5


@pytest.fixture
def drawn() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return 600 photos of five kinds, their kinds, and 100 of a sixth."""
    rng = np.random.default_rng(0)
    centres = np.abs(rng.normal(size=(6, 300)))
    targets = np.arange(600) % 5
    known = np.abs(centres[targets] + 0.5 * rng.normal(size=(600, 300))).astype(np.float32)
    strangers = np.abs(centres[5] + 0.5 * rng.normal(size=(100, 300))).astype(np.float32)
    return known, targets, strangers


def test_it_keeps_its_share_and_refuses_strangers(drawn, monkeypatch: pytest.MonkeyPatch) -> None:
    known, targets, strangers = drawn
    with monkeypatch.context() as without:
        without.setattr(unknown, "MARGIN", 0.0)
        detector = fit_detector(known[:400], targets[:400], FOLDS, keep=0.9)
        assert 0.82 < 1 - detector.is_unknown(known[400:]).mean() < 0.97
    detector = fit_detector(known[:400], targets[:400], FOLDS, keep=0.9)
    assert detector.is_unknown(strangers).mean() > 0.95
    assert auroc(detector.excess(strangers), detector.excess(known[400:])) > 0.97


def test_photos_taken_a_little_otherwise_are_kept(drawn) -> None:
    known, targets, strangers = drawn
    rng = np.random.default_rng(1)
    other = known[400:] + (0.1 * known.std() * rng.normal(size=(200, 300))).astype(np.float32)
    detector = fit_detector(known[:400], targets[:400], FOLDS, keep=0.9)
    assert 1 - detector.is_unknown(other).mean() >= 0.9
    assert detector.is_unknown(strangers).mean() > 0.95


@pytest.mark.parametrize("keep", [0.5, 0.9, 0.99])
def test_more_is_kept_where_more_is_asked_for(drawn, keep: float) -> None:
    known, targets, _ = drawn
    less, more = (fit_detector(known[:400], targets[:400], FOLDS, share) for share in (keep - 0.1, keep))
    assert more.keep == keep and more.threshold > less.threshold
    assert 1 - more.is_unknown(known[400:]).mean() >= keep - 0.03


def test_the_distance_is_that_of_the_shrunk_covariance_written_out() -> None:
    """With fewer photos than directions nothing is left out, so inverting the matrix gives the same."""
    rng = np.random.default_rng(0)
    n, width = RANK - 2, 40
    features = rng.random((n, width)).astype(np.float32)
    targets = np.arange(n) % 2
    detector = fit_detector(features, targets, np.arange(n) // 2 % 2, keep=0.5)
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    means = np.stack([unit[targets == k].mean(axis=0) for k in (0, 1)])
    rest = unit - means[targets]
    round_part = SHRINKAGE * (rest**2).sum() / n / width
    precision = np.linalg.inv((1 - SHRINKAGE) * rest.T @ rest / n + round_part * np.eye(width)) * round_part
    new = rng.random((50, width)).astype(np.float32)
    gap = (new / np.linalg.norm(new, axis=1, keepdims=True))[:, None] - means
    expected = np.einsum("nki,ij,nkj->nk", gap, precision, gap)
    nearest = expected.argmin(axis=1)
    found = detector.excess(new) + detector.typical[nearest]
    np.testing.assert_allclose(found, expected.min(axis=1), rtol=1e-4)


def test_classes_of_several_kinds_do_not_open_the_door(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight kinds in one class lie far from their mean; a round covariance lets every stranger in."""
    rng = np.random.default_rng(0)
    centres = np.abs(rng.normal(size=(40, 300)))
    kind = np.arange(600) % 16
    known = np.abs(centres[kind] + 0.5 * rng.normal(size=(600, 300))).astype(np.float32)
    strangers = np.abs(centres[20 + np.arange(200) % 20] + 0.5 * rng.normal(size=(200, 300)))
    refused = []
    for shrinkage in (SHRINKAGE, 1.0):
        monkeypatch.setattr(unknown, "SHRINKAGE", shrinkage)
        detector = fit_detector(known, kind // 8, np.arange(600) // 16 % 5, keep=0.95)
        refused.append(detector.is_unknown(strangers.astype(np.float32)).mean())
    assert refused[0] > 0.95 > 0.7 > refused[1]


def test_the_order_of_the_photos_does_not_matter(drawn) -> None:
    known, targets, strangers = drawn
    order = np.random.default_rng(2).permutation(400)
    one = fit_detector(known[:400], targets[:400], FOLDS, 0.95)
    two = fit_detector(known[order], targets[order], FOLDS[order], 0.95)
    assert two.threshold == pytest.approx(one.threshold, rel=1e-3)
    np.testing.assert_allclose(two.excess(strangers), one.excess(strangers), rtol=1e-2)


def test_photos_that_are_all_alike_or_empty_give_finite_numbers() -> None:
    features = np.repeat(np.eye(3, 20, dtype=np.float32), 4, axis=0)
    features[-1] = 0
    detector = fit_detector(features, np.repeat([0, 1, 2], 4), np.tile([0, 1], 6), 0.95)
    parts = (detector.means, detector.directions, detector.weights, detector.typical, detector.threshold)
    assert all(np.isfinite(part).all() for part in parts)
    assert np.isfinite(detector.excess(features)).all()

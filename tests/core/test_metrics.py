"""The numbers, against scikit-learn and SciPy, which compute them in their own ways."""

from __future__ import annotations

import math
import tracemalloc

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from breeds import metrics

relaxed = settings(max_examples=60, deadline=None, derandomize=True, database=None)


@st.composite
def answers(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Truth (n,) and probabilities (n, classes), some classes never true, some never answered."""
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    n, classes = draw(st.integers(1, 60)), draw(st.integers(3, 9))
    truth = rng.integers(0, draw(st.integers(1, classes)), n)
    logits = rng.normal(size=(n, classes)) * draw(st.sampled_from([0.1, 1, 3]))
    logits[np.arange(n), truth] += draw(st.sampled_from([0, 1, 5]))
    powers = np.exp(logits)
    return truth, powers / powers.sum(axis=1, keepdims=True)


@relaxed
@given(answers(), st.integers(1, 9))
def test_accuracy_and_top_k(answers: tuple[np.ndarray, np.ndarray], k: int) -> None:
    truth, p = answers
    assert metrics.accuracy(truth, p) == pytest.approx(
        sklearn.metrics.accuracy_score(truth, p.argmax(axis=1))
    )
    labels = range(p.shape[1])
    top_k = sklearn.metrics.top_k_accuracy_score
    expected = top_k(truth, p, k=k, labels=labels) if k < len(labels) else 1.0
    assert metrics.accuracy(truth, p, k) == pytest.approx(expected)


@relaxed
@given(answers())
def test_log_loss(answers: tuple[np.ndarray, np.ndarray]) -> None:
    truth, p = answers
    expected = sklearn.metrics.log_loss(truth, p, labels=range(p.shape[1]))
    assert metrics.log_loss(truth, p) == pytest.approx(expected, rel=1e-9)
    scales = np.linspace(0.5, 20, len(p))[:, None]
    assert metrics.log_loss(truth, p * scales) == pytest.approx(expected, rel=1e-9), (
        "rows need not add up to 1"
    )


def test_log_loss_of_certainty_is_finite_and_kaggles() -> None:
    certain = np.eye(3)
    assert metrics.log_loss(np.array([0, 1, 2]), certain) == pytest.approx(0, abs=1e-14)
    assert metrics.log_loss(np.array([1, 2, 0]), certain) == pytest.approx(-math.log(1e-15))
    assert metrics.log_loss(np.array([0, 0]), certain[:2]) == pytest.approx(-math.log(1e-15) / 2)


@relaxed
@given(answers())
def test_confusion_and_class_scores(answers: tuple[np.ndarray, np.ndarray]) -> None:
    truth, p = answers
    predicted, labels = p.argmax(axis=1), range(p.shape[1])
    matrix = metrics.confusion(truth, predicted, len(labels))
    np.testing.assert_array_equal(matrix, sklearn.metrics.confusion_matrix(truth, predicted, labels=labels))
    expected = sklearn.metrics.precision_recall_fscore_support(
        truth, predicted, labels=labels, zero_division=0
    )
    scores = metrics.class_scores(matrix)
    for name, column in zip(("precision", "recall", "f1", "support"), expected, strict=True):
        assert [score[name] for score in scores] == pytest.approx(column.tolist()), name


def test_rows_of_the_confusion_are_the_truth() -> None:
    assert metrics.confusion(np.array([0, 0, 2]), np.array([1, 1, 2]), 3).tolist() == [
        [0, 2, 0],
        [0, 0, 0],
        [0, 0, 1],
    ]


@pytest.mark.parametrize(
    ("right", "n", "low", "high"),
    [  # Newcombe (1998), Statistics in Medicine 17, table I, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_interval_as_published(right: int, n: int, low: float, high: float) -> None:
    assert metrics.wilson_interval(right, n) == pytest.approx((low, high), abs=5e-5)
    assert metrics.wilson_interval(n - right, n) == pytest.approx((1 - high, 1 - low), abs=5e-5)


@relaxed
@given(st.integers(1, 10**6), st.floats(0, 1))
def test_wilson_interval_as_scipy_has_it(n: int, share: float) -> None:
    right = round(share * n)
    expected = binomtest(right, n).proportion_ci(0.95, method="wilson")
    low, high = metrics.wilson_interval(right, n)
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=1e-9)
    assert 0 <= low <= right / n + 1e-12
    assert right / n - 1e-12 <= high <= 1


@relaxed
@given(answers())
def test_brier_score_and_macro_f1(answers: tuple[np.ndarray, np.ndarray]) -> None:
    truth, p = answers
    squared = ((p - np.eye(p.shape[1])[truth]) ** 2).sum(axis=1)
    assert metrics.brier(truth, p) == pytest.approx(squared.mean())
    f1 = sklearn.metrics.f1_score
    expected = f1(truth, p.argmax(axis=1), labels=np.unique(truth), average="macro", zero_division=0)
    assert metrics.macro_f1(truth, p) == pytest.approx(expected)


@relaxed
@given(answers(), st.integers(1, 20))
def test_calibration_error(answers: tuple[np.ndarray, np.ndarray], bins: int) -> None:
    truth, p = answers
    expected = 0.0
    for bin_ in range(bins):
        inside = [i for i in range(len(p)) if min(int(p[i].max() * bins), bins - 1) == bin_]
        gap = sum((p[i].argmax() == truth[i]) - p[i].max() for i in inside)
        expected += abs(gap) / len(p)
    assert metrics.calibration_error(truth, p, bins) == pytest.approx(expected)
    assert metrics.calibration_error(np.array([1, 0]), np.eye(2)) == 1


@relaxed
@given(st.lists(st.integers(0, 9), min_size=1), st.lists(st.integers(0, 9), min_size=1))
def test_auroc_with_ties(positive: list[int], negative: list[int]) -> None:
    truth = [1] * len(positive) + [0] * len(negative)
    expected = sklearn.metrics.roc_auc_score(truth, positive + negative)
    assert metrics.auroc(np.array(positive, float), np.array(negative, float)) == pytest.approx(expected)


@relaxed
@given(st.integers(0, 300), st.integers(0, 300))
def test_mcnemar_is_the_exact_binomial_test(one: int, two: int) -> None:
    expected = binomtest(one, one + two).pvalue if one + two else 1.0
    assert metrics.mcnemar(one, two) == metrics.mcnemar(two, one) == pytest.approx(expected, abs=1e-12)


def test_bootstrap_interval_agrees_with_theory_and_repeats() -> None:
    rng = np.random.default_rng(0)
    right = (rng.random(500) < 0.8).astype(float)
    interval = metrics.mean_interval(right)
    assert interval == pytest.approx(metrics.wilson_interval(right.sum(), 500), abs=0.01)
    assert metrics.mean_interval(right) == interval


def made_up(n: int, classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Answers of which about two thirds are right."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, classes, n)
    logits = rng.normal(size=(n, classes))
    logits[np.arange(n), truth] += 2
    powers = np.exp(logits)
    return truth, powers / powers.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("n", [1000, 7])
def test_intervals_of_means_are_scipys_percentile_bootstrap(n: int) -> None:
    """With 1,000 photos, the draws take several blocks."""
    truth, p = made_up(n, 5)
    for values in (metrics.log_losses(truth, p), metrics.brier_scores(truth, p)):
        expected = scipy.stats.bootstrap(
            (values,), np.mean, n_resamples=1000, method="percentile", rng=np.random.default_rng(0)
        ).confidence_interval
        assert metrics.mean_interval(values) == pytest.approx((expected.low, expected.high), rel=1e-12)


@pytest.mark.slow
def test_resampled_macro_f1_is_what_scikit_learn_gives_for_each_draw() -> None:
    truth, p = made_up(40, 6)
    predicted = p.argmax(axis=1)
    rng = np.random.default_rng(0)
    f1 = []
    for _ in range(1000):
        rows = rng.integers(0, 40, 40)
        there = np.unique(truth[rows])
        f1.append(
            sklearn.metrics.f1_score(
                truth[rows], predicted[rows], labels=there, average="macro", zero_division=0
            )
        )
    expected = np.quantile(f1, [0.025, 0.975])
    assert metrics.macro_f1_interval(truth, predicted, 6) == pytest.approx(expected)


def test_an_interval_that_resampling_cannot_know_is_left_out() -> None:
    truth = np.arange(12) % 3
    assert metrics.macro_f1_interval(truth, truth, 3) is None, "no mistake to draw more or less often"
    assert metrics.mean_interval(np.array([0.3])) is None, "one photo"


def test_resampling_needs_little_memory_however_many_photos() -> None:
    values = np.random.default_rng(0).random(20_000)
    tracemalloc.start()
    metrics.mean_interval(values)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20e6, "all draws at once would be 160 MB, and as much again for their values"


@relaxed
@given(answers(), st.integers(0, 10**6))
def test_coverage_leaves_out_the_least_confident(answers: tuple[np.ndarray, np.ndarray], seed: int) -> None:
    truth, p = answers
    confidence = np.random.default_rng(seed).permutation(len(truth)).astype(float)
    curve = metrics.coverage_curve(truth, p, confidence)
    assert curve[0] == (len(truth), round(metrics.accuracy(truth, p) * len(truth)))
    assert [answered for answered, _ in curve] == sorted((n for n, _ in curve), reverse=True)
    for answered, right in curve:
        kept = confidence >= np.sort(confidence)[-answered]
        assert right / answered == pytest.approx(metrics.accuracy(truth[kept], p[kept]))

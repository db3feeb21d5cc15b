"""Large libraries start without what they can do without, and miss nothing afterwards."""

from __future__ import annotations

import subprocess
import sys

from conftest import ROOT

CHECK = """
import gc, sys
import breeds.heads.logistic
assert gc.isenabled()
assert "scipy.stats" not in sys.modules and "pandas" not in sys.modules

import numpy as np
import scipy.stats
from sklearn.metrics import label_ranking_average_precision_score
from sklearn._loss.link import MultinomialLogit
from sklearn.utils.fixes import _mode
truth, scores = np.array([[1, 0, 0], [0, 0, 1]]), np.array([[0.75, 0.5, 1], [1, 0.2, 0.1]])
assert abs(label_ranking_average_precision_score(truth, scores) - 0.41666667) < 1e-6
shares = np.array([[0.2, 0.3, 0.5]])
assert np.allclose(np.exp(MultinomialLogit().link(shares)), shares / scipy.stats.gmean(shares, axis=1))
assert _mode(np.array([1, 2, 2])).mode == 2
import pandas
assert pandas.DataFrame({"a": [1]}).shape == (1, 1)
"""


def test_scikit_learn_is_whole_though_it_started_without_scipy_stats_and_pandas() -> None:
    done = subprocess.run(
        [sys.executable, "-c", CHECK], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr

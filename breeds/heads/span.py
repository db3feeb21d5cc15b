"""Fewer numbers for the same problem: photos in an orthonormal basis of their span.

With fewer photos than features, the L2-penalised solution is a combination of the photos (the
representer theorem: Kimeldorf and Wahba, 1971; Schölkopf et al., 2001). So the photos are written
in an orthonormal basis of their span: n numbers instead of 2048, inner products unchanged, and with
them the solution.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_triangular

Floats = NDArray[np.float32]


class Span:
    """Photos in an orthonormal basis of their span, and the way back for weights.

    Parameters
    ----------
    features
        float32 (n, width).
    rank
        With more photos than features, keep this many leading principal directions; None keeps all.
    """

    coordinates: Floats
    is_exact: bool
    out_of: Callable[[NDArray[Any]], NDArray[Any]]

    def __init__(self, features: Floats, rank: int | None = None) -> None:
        n, width = features.shape
        self.is_exact = n < width or rank is None or rank >= width
        if n < width:
            self._span(features.astype(np.float64))
        elif rank is None or rank >= width:
            self.coordinates = features
            self.out_of = lambda weights: weights
        else:
            # Ascending eigenvalues: the last columns are the leading directions.
            directions = np.linalg.eigh(features.T @ features)[1][:, -rank:]
            self.coordinates = np.ascontiguousarray(features @ directions)
            self.out_of = lambda weights: weights @ directions.T

    def _span(self, features: NDArray[np.float64]) -> None:
        """Factor features = L Qᵀ with Q orthonormal, from the Cholesky factor of the inner products."""
        products = features @ features.T
        # Standardised photos add up to nothing: one direction is empty and needs a little weight.
        products[np.diag_indices(len(products))] += 1e-6 * max(np.trace(products) / len(products), 1e-12)
        factor = np.linalg.cholesky(products)
        self.coordinates = factor.astype(np.float32)
        self.out_of = lambda weights: solve_triangular(factor.T, weights.T.astype(np.float64)).T @ features

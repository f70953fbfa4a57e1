"""Rows that are unlike those an index was made of: its centroids, codes and links do not suit them.

An index that is built counts the strays among the rows that are added later, and is made anew when
they are many: a new cluster, another model, data that come in an order.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vecdb.index.base import Distances

Floats = NDArray[np.float32]

_SAMPLE = 256
_QUANTILE = 0.99


class Landmarks:
    """Some points among an index's rows, or centroids of them, which tell a stray.

    Parameters
    ----------
    points
        float32 (n, dim).
    times
        How many times as far a stray is from the nearest of them, squared, as nearly each of them
        is from the next.
    """

    def __init__(self, points: Floats, times: float) -> None:
        self._points = points
        self._half_norms = _half_norms(points)
        self._limit = np.inf
        if len(points) > 1:
            sample = points[:: -(-len(points) // _SAMPLE)]
            apart = np.partition(self._squares(sample), 1, axis=1)[:, 1]
            self._limit = times * float(np.quantile(apart, _QUANTILE))

    def count_strays(self, vectors: Floats) -> int:
        """Return how many of the vectors (n, dim) are strays."""
        if self._limit == np.inf or not len(vectors):
            return 0
        return int(np.count_nonzero(self._squares(vectors).min(axis=1) > self._limit))

    def _squares(self, vectors: Floats) -> Distances:
        """Return the squared distances (n, points)."""
        halves = _half_norms(vectors)[:, None] + self._half_norms - vectors @ self._points.T
        return np.asarray(2 * halves, np.float32)


def _half_norms(vectors: Floats) -> Floats:
    return np.asarray(np.einsum("ij,ij->i", vectors, vectors) / 2, np.float32)

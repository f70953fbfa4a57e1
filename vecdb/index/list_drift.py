"""Whether the rows that are put into lists later are like those the lists were made of."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vecdb.index.drift import usual_distance
from vecdb.types import Matrix

_STRAY = 4.0
"""How many times as far, squared, a stray is from a centroid as the nearest are apart, or as the
first rows were from theirs; others are up to twice as far."""
_NEARLY_ALL = 0.99
_CROWDED = 4
"""How many times its share of the rows, and the mean of all lists, a list may hold: what is beyond
that are strays, too, however near the centroid. Their codes are all alike."""

Numbers = NDArray[np.int64]


class ListDrift:
    """The strays among the rows that were put into lists after the first.

    Parameters
    ----------
    centroids
        float32 (lists, dim).
    """

    def __init__(self, centroids: Matrix) -> None:
        self._centroids = centroids
        self._usual = 0.0
        self._far = np.inf
        self._far_away = 0
        self._first: Numbers | None = None

    def watch(self, vectors: Matrix, assigned: Numbers, length: Numbers) -> None:
        """Take note of vectors that are put into lists `assigned`, which hold so many already."""
        apart = vectors - self._centroids[assigned]
        squares = np.einsum("ij,ij->i", apart, apart)
        if not length.any():
            self._usual = max(self._usual, float(np.quantile(squares, _NEARLY_ALL)))
            return
        if self._first is None:
            self._first, self._far = length, _STRAY * self._reach()
        self._far_away += int(np.count_nonzero(squares > self._far))

    def _reach(self) -> float:
        """Return the squared distance from its centroid within which a row is like the first."""
        reach = usual_distance(self._centroids)
        if not self._usual:  # it was not stored, or each row had a list of its own
            return reach
        return min(reach, max(self._usual, usual_distance(self._centroids, 0.5)))

    def strays(self, length: Numbers) -> int:
        """Return how many there are, where lists hold so many now."""
        if self._first is None:
            return 0
        usual = np.maximum(self._first * (length.sum() / self._first.sum()), length.mean())
        return self._far_away + int(np.maximum(length - _CROWDED * usual, 0).sum())

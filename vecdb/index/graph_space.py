"""The space in which a graph is built: what is near a row, whatever the metric."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from vecdb.index.rows import aligned_empty, padded
from vecdb.index.workers import Workers, in_stretches
from vecdb.kernels.distance import store_rows
from vecdb.types import Matrix, Metric

_STRETCH = 1_024
"""Rows that are placed at a time."""
_ROUNDING = 1e-5
"""Share of the largest squared norm that lifts are larger: rounding makes no distance negative."""


class GraphSpace(NamedTuple):
    """Rows whose distance is the squared Euclidean one of their vectors and both lifts, added up.

    Under cosine that is between the vectors at unit norm, without lifts. Under dot the lift is
    ``M**2 - |x|**2``, for the largest norm M, so that the distance is ``2 M**2 - 2 <x, y>``.
    """

    vectors: Matrix
    """float32 (n, width), padded with zeros."""
    lifts: NDArray[np.float32]
    """(n,)."""
    directions: Matrix
    """float32 (n, width): `vectors`, and under dot those given, at unit norm: among them it is seen
    which of two rows that are near a third hides the other."""

    @classmethod
    def of(cls, vectors: Matrix, metric: Metric, workers: Workers) -> Self:
        """Place vectors (n, dim); they are moved and scaled so that squares cannot overflow."""
        count, dim = vectors.shape
        space: Matrix = aligned_empty((count, padded(dim)), np.float32)
        lifts = np.zeros(count, np.float32)
        directions = space
        if count == 0:
            return cls(space, lifts, directions)
        peaks = np.empty(-(-count // _STRETCH), np.float32)

        def store(first: int, last: int) -> None:
            part = space[first:last]
            store_rows(vectors[first:last], metric is Metric.COSINE, part, 0)
            part[:, dim:] = 0
            peaks[first // _STRETCH] = _peak(part)

        _over_all(workers, count, store)
        if metric is Metric.COSINE:
            return cls(space, lifts, directions)
        largest, sums = peaks.max(), np.empty((len(peaks), dim))
        norms = np.ones(count)

        def scale(first: int, last: int) -> None:
            part = space[first:last]
            part /= largest
            sums[first // _STRETCH] = part[:, :dim].sum(axis=0, dtype=np.float64)
            if metric is Metric.DOT:
                np.einsum("ij,ij->i", part, part, dtype=np.float64, out=norms[first:last])

        _over_all(workers, count, scale)
        mean = (sums.sum(axis=0) / count).astype(np.float32)
        if metric is Metric.DOT:
            lifts[:] = (1 + _ROUNDING) * norms.max() - norms
            directions = aligned_empty(space.shape, np.float32)

        def move(first: int, last: int) -> None:
            part = space[first:last]
            if metric is Metric.DOT:
                lengths = np.sqrt(np.maximum(norms[first:last], 1e-30))
                np.divide(part, lengths[:, None], out=directions[first:last])
            part[:, :dim] -= mean
            peaks[first // _STRETCH] = _peak(part)

        _over_all(workers, count, move)
        largest = peaks.max()

        def scale_again(first: int, last: int) -> None:
            space[first:last] /= largest

        _over_all(workers, count, scale_again)
        lifts /= largest
        lifts /= largest
        return cls(space, lifts, directions)

    def taken(self, rows: NDArray[np.int32]) -> Self:
        """Return some rows."""
        vectors = _taken(self.vectors, rows)
        alike = self.directions is self.vectors
        directions = vectors if alike else _taken(self.directions, rows)
        return type(self)(vectors, self.lifts[rows], directions)


def _over_all(workers: Workers, count: int, work: Callable[[int, int], None]) -> None:
    in_stretches(workers, count, _STRETCH, lambda: work)


def _peak(space: Matrix) -> np.float32:
    """Return the largest coordinate, or what may be divided by."""
    return np.float32(max(float(space.max()), -float(space.min()), 1e-18))


def _taken(space: Matrix, rows: NDArray[np.int32]) -> Matrix:
    taken: Matrix = aligned_empty((len(rows), space.shape[1]), np.float32)
    np.take(space, rows, axis=0, out=taken)
    return taken

"""Rows that are unlike those an index was made of: its centroids, codes and links do not suit them.

An index that is built counts the strays among the rows that are added later, and is made anew when
they are many: a new cluster, another model, data that come in an order. A stray is far from every
row of a sample, or from every centroid, beside how far these are from each other.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vecdb.index.base import Distances

Floats = NDArray[np.float32]

_SAMPLE = 256
_QUANTILE = 0.99


def usual_distance(points: Floats, quantile: float = _QUANTILE) -> float:
    """Return the squared distance within which nearly each point has another; infinity for one.

    Parameters
    ----------
    points
        float32 (n, dim).
    quantile
        The share of the points that have another so near.
    """
    if len(points) < 2:
        return np.inf
    sample = points[:: -(-len(points) // _SAMPLE)]
    nearest_other = np.partition(_squares(sample, points), 1, axis=1)[:, 1]
    return float(np.quantile(nearest_other, quantile))


class Landmarks:
    """Some of an index's rows, which tell a stray.

    Parameters
    ----------
    points
        float32 (n, dim).
    times
        How many times as far a stray is from the nearest of them, squared, as is usual among them.
    """

    def __init__(self, points: Floats, times: float) -> None:
        self._points = points
        self._far = times * usual_distance(points)

    def count_strays(self, vectors: Floats) -> int:
        """Return how many of the vectors (n, dim) are strays."""
        nearest = _squares(vectors, self._points).min(axis=1)
        return int(np.count_nonzero(nearest > self._far))


def _squares(vectors: Floats, points: Floats) -> Distances:
    """Return the squared distances (n, points), to the rounding of their norms."""
    halves = _half_norms(vectors)[:, None] + _half_norms(points) - vectors @ points.T
    return np.asarray(2 * halves, np.float32)


def _half_norms(vectors: Floats) -> Floats:
    return np.asarray(np.einsum("ij,ij->i", vectors, vectors) / 2, np.float32)

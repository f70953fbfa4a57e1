"""Choosing the rows where searches of a coded graph start."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vecdb.types import Matrix

SEEDS = 256
"""At most as many; a multiple of 32. To look at all takes about as long as the hop they spare."""

_SAMPLE = 4_096


def draw_seeds(
    vectors: Matrix, nodes: NDArray[np.int32], entry: int, seed: int
) -> NDArray[np.int64]:
    """Choose rows that lie apart, so that no cluster goes without.

    Each is drawn with a probability that grows with its squared distance to those before (Arthur &
    Vassilvitskii 2007, k-means++).

    Parameters
    ----------
    vectors
        float32 (n, width).
    nodes
        The rows to choose among.
    entry
        The first seed: every node can be reached from it.
    seed
        Decides over the choice.

    Returns
    -------
    ndarray
        int64 (at most SEEDS,), no row twice.
    """
    rng = np.random.default_rng(seed)
    sample = nodes if len(nodes) <= _SAMPLE else rng.choice(nodes, _SAMPLE, replace=False)
    points = vectors[sample].astype(np.float32)
    squares = np.einsum("ij,ij->i", points, points, dtype=np.float64)
    chosen = [entry]
    nearest = np.square(points - vectors[entry]).sum(axis=1, dtype=np.float64)
    while len(chosen) < SEEDS and nearest.max() > 0:
        place = int(rng.choice(len(sample), p=nearest / nearest.sum()))
        chosen.append(int(sample[place]))
        apart = squares + squares[place] - 2.0 * (points @ points[place])
        apart[place] = 0.0
        np.clip(apart, 0.0, nearest, out=nearest)
    return np.array(chosen, np.int64)

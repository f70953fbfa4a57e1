"""Choosing the rows where searches of a coded graph start."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vecdb.types import Matrix

SEEDS = 64
"""At most as many; a multiple of 32. Looking at all takes a tenth of a microsecond."""

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
    chosen = [entry]
    nearest = np.square(points - vectors[entry]).sum(axis=1, dtype=np.float64)
    while len(chosen) < SEEDS and nearest.max() > 0:
        place = int(rng.choice(len(sample), p=nearest / nearest.sum()))
        chosen.append(int(sample[place]))
        np.minimum(nearest, np.square(points - points[place]).sum(axis=1), out=nearest)
    return np.array(chosen, np.int64)

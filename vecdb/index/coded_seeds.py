"""Choosing the rows where searches of a coded graph start."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vecdb.index.graph_bulk import BulkGraph
from vecdb.types import Matrix

SEEDS = 256
"""How many there are, unless there are fewer rows or tight clusters; a multiple of 32. To look at
all takes about as long as the hop they spare."""
MOST_SEEDS = 1_024
"""At most as many where rows lie in tight clusters, between which no links lead."""

_SAMPLE = 4_096
_JUDGED = 1_024
"""Rows of the sample for which it is seen whether a seed is near."""
_FAR, _LOST = 8, 0.002
"""How many times as far, squared, as half of its links a row's seed is when it is no help, and for
which share of the rows that may be. Rows without tight clusters have theirs at most 6 times as far
(99.9 % of them; bench/notes/graph.md)."""


def draw_seeds(vectors: Matrix, graph: BulkGraph, seed: int) -> NDArray[np.int64]:
    """Choose rows that lie apart, so that no cluster goes without.

    Each is drawn with a probability that grows with its squared distance to those before (Arthur &
    Vassilvitskii 2007, k-means++). More than `SEEDS` are as long as there are rows from whose place
    links lead only to others much nearer than any seed: a search finds these by a seed or not.

    Parameters
    ----------
    vectors
        float32 (n, width).
    graph
        Over these rows. Its entry is the first seed: every node can be reached from it.
    seed
        Decides over the choice.

    Returns
    -------
    ndarray
        int64 (at most MOST_SEEDS,), no row twice.
    """
    nodes, entry = graph.order, graph.entry
    rng = np.random.default_rng(seed)
    sample = rng.choice(nodes, min(len(nodes), _SAMPLE), replace=False)
    points = vectors[sample].astype(np.float32)
    squares = np.einsum("ij,ij->i", points, points, dtype=np.float64)
    far = _FAR * _link_squares(vectors, graph.neighbours, sample[:_JUDGED])
    chosen = [entry]
    nearest = np.square(points - vectors[entry]).sum(axis=1, dtype=np.float64)
    while nearest.max() > 0:
        if len(chosen) >= SEEDS:
            lost = np.count_nonzero(nearest[: len(far)] > far)
            if len(chosen) == MOST_SEEDS or lost <= _LOST * len(far):
                break
        place = int(rng.choice(len(sample), p=nearest / nearest.sum()))
        chosen.append(int(sample[place]))
        apart = squares + squares[place] - 2.0 * (points @ points[place])
        apart[place] = 0.0
        np.clip(apart, 0.0, nearest, out=nearest)
    return np.array(chosen, np.int64)


def _link_squares(
    vectors: Matrix, neighbours: NDArray[np.int32], rows: NDArray[np.int32]
) -> NDArray[np.float64]:
    """Return the median squared length of the links of each row; infinite without any."""
    squares = np.full(len(rows), np.inf)
    for place, row in enumerate(rows.tolist()):
        links = neighbours[row][neighbours[row] >= 0]
        if len(links):
            lengths = np.square(vectors[links] - vectors[row]).sum(axis=1, dtype=np.float64)
            squares[place] = np.median(lengths)
    return squares

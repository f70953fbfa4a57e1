"""Choosing the rows where searches of a coded graph start."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vecdb.errors import CorruptFileError
from vecdb.index.graph_bulk import BulkGraph
from vecdb.index.rows import frozen
from vecdb.index.workers import Workers, in_stretches
from vecdb.kernels.code_simd import BLOCK
from vecdb.kernels.graph_cover import cover, typical_squares
from vecdb.kernels.walk import SEED_LISTS
from vecdb.types import Matrix

SEEDS = 256
"""How many there are, unless there are fewer rows or tight clusters; a multiple of 32. To look at
all takes about as long as the hop they spare."""
MOST_SEEDS = 16_384
"""Where rows lie in tight clusters, between which few links lead. A search then looks at those of a
few lists."""
MOST_LOOKED_AT = 2_048
"""In these lists."""

_STRETCH = 1_024
_SAMPLE = 4_096
_JUDGED = 1_024
"""Rows of the sample for which it is seen whether a seed is near."""
_FAR, _LOST = 8, 0.002
"""How many times as far, squared, as half of its links a row's seed is when it is no help, and for
which share of the rows that may be. Rows without tight clusters have theirs at most 6 times as far
(99.9 % of them; bench/notes/graph.md)."""

Seeds = NDArray[np.int32]
"""(lists, room): rows, -1 behind a list's last. The first of each of several lists is its leader,
the one of all leaders that is nearest to those behind it, unless its list was full."""


def draw_seeds(vectors: Matrix, graph: BulkGraph, seed: int, workers: Workers) -> Seeds:
    """Choose rows that lie apart, so that no cluster goes without.

    Each is drawn with a probability that grows with its squared distance to those before (Arthur &
    Vassilvitskii 2007, k-means++). After `SEEDS` there may be rows from whose place links lead only
    to others much nearer than any seed: a search finds these by a seed or not. Where there are,
    short links are followed from each seed, and any row that they do not lead to is one more.

    Parameters
    ----------
    vectors
        float32 (n, width).
    graph
        Over these rows. Its entry is the first seed: every node can be reached from it.
    seed
        Decides over the choice.
    workers
        Who measures links, where that is needed.

    Returns
    -------
    ndarray
        int32 (lists, room): at most `MOST_SEEDS` rows, none twice.
    """
    rng = np.random.default_rng(seed)
    drawn, lost = _drawn_apart(vectors, graph, rng)
    if lost:
        drawn = cover_clusters(vectors, graph, drawn, workers, rng)
    return drawn[None] if len(drawn) <= SEEDS else _listed(vectors, drawn)


def check_seeds(seeds: NDArray[Any] | None, count: int) -> None:
    """Check seeds from a file as rows of `count`.

    Raises
    ------
    CorruptFileError
        If they could not be searched from.
    """
    if seeds is not None and seeds.dtype == np.int32 and seeds.ndim == 2 and seeds.size:
        looked_at = seeds.shape[1] * min(len(seeds), SEED_LISTS)
        in_place = looked_at <= MOST_LOOKED_AT and (seeds[:, 0] >= 0).all()
        if in_place and seeds.min() >= -1 and seeds.max() < count:
            return
    raise CorruptFileError(
        f"array 'seeds' must be lists of row numbers below {count}, of which a search looks at "
        f"up to {MOST_LOOKED_AT}"
    )


def _drawn_apart(
    vectors: Matrix, graph: BulkGraph, rng: np.random.Generator
) -> tuple[NDArray[np.int32], bool]:
    """Return up to `SEEDS` rows, and whether others are lost even so."""
    nodes, entry = graph.order, graph.entry
    sample = rng.choice(nodes, min(len(nodes), _SAMPLE), replace=False)
    points = vectors[sample].astype(np.float32)
    squares = np.einsum("ij,ij->i", points, points, dtype=np.float64)
    far = _FAR * _link_squares(vectors, graph.neighbours, sample[:_JUDGED])
    chosen = [entry]
    nearest = np.square(points - vectors[entry]).sum(axis=1, dtype=np.float64)
    while len(chosen) < SEEDS and nearest.max() > 0:
        place = int(rng.choice(len(sample), p=nearest / nearest.sum()))
        chosen.append(int(sample[place]))
        apart = squares + squares[place] - 2.0 * (points @ points[place])
        apart[place] = 0.0
        np.clip(apart, 0.0, nearest, out=nearest)
    lost = np.count_nonzero(nearest[: len(far)] > far)
    return np.array(chosen, np.int32), bool(lost > _LOST * len(far))


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


def cover_clusters(
    vectors: Matrix, graph: BulkGraph, drawn: NDArray[np.int32], workers: Workers,
    rng: np.random.Generator,
) -> NDArray[np.int32]:  # fmt: skip
    """Return `drawn` and more rows, from which short links lead to all, as far as may be.

    A link is short that is at most `_FAR` times as long, squared, as the shorter ones of both its
    ends. Of more than `MOST_SEEDS` clusters the larger ones are likelier to be among those covered.
    """
    (count, degree), vectors, links = graph.neighbours.shape, frozen(vectors), graph.neighbours
    typical = np.empty(count, np.float32)

    def make_work() -> Callable[[int, int], None]:
        squares = np.empty(degree, np.float32)
        return lambda first, last: typical_squares(vectors, links, first, last, squares, typical)

    in_stretches(workers, count, _STRETCH, make_work)
    chosen = np.empty(MOST_SEEDS, np.int32)
    chosen[: len(drawn)] = drawn
    found = cover(
        vectors, links, typical, float(_FAR), rng.permutation(graph.order), chosen, len(drawn),
        np.zeros(count, np.uint8), np.empty(count, np.int32), np.empty(degree, np.float32),
    )  # fmt: skip
    return chosen[:found]


def _listed(vectors: Matrix, chosen: NDArray[np.int32]) -> Seeds:
    """Put each seed on the list of the nearest leader that has room.

    There are about as many leaders as seeds on a list, and twice as much room as is needed.
    """
    lists = -(-int(np.ceil(len(chosen) ** 0.5)) // BLOCK) * BLOCK
    room = 2 * BLOCK * -(-len(chosen) // (lists * BLOCK))
    points = vectors[chosen].astype(np.float32)
    leaders = points[:lists]
    squares = np.einsum("ij,ij->i", leaders, leaders)
    distances = squares - 2.0 * (points @ leaders.T)  # what is the same for all is left out
    distances[np.arange(lists), np.arange(lists)] = -np.inf
    while True:
        nearest = distances.argmin(axis=1)
        full = np.flatnonzero(np.bincount(nearest, minlength=lists) > room)
        if not len(full):
            break
        for each in full.tolist():
            members = np.flatnonzero(nearest == each)
            further = members[np.argsort(distances[members, each], kind="stable")[room:]]
            distances[further, each] = np.inf
    order = np.argsort(nearest, kind="stable")  # leaders, the first of all, stay the first
    line = nearest[order]
    listed = np.full((lists, room), -1, np.int32)
    listed[line, np.arange(len(chosen)) - np.searchsorted(line, line)] = chosen[order]
    return listed

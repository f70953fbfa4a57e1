"""Building a flat graph with a fixed number of links all at once.

1. Equal rows are found by hashing; the first of them becomes a node, the others its twins.
2. Rows are carved into small overlapping leaves around random leaders, and compared with all rows
   of their leaves (`graph_carve`): each row's list of nearest rows.
3. The lists are pruned to links, the links reversed and pruned again, and each row filled with
   what was pruned by the least (SymphonyQG, Gou et al. 2025, fills rows likewise).
4. Nodes that cannot be reached from the entry are linked from where a search for them arrives.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vecdb.config import CODED_EF_CONSTRUCTION
from vecdb.index.graph_carve import carve, words_of
from vecdb.index.graph_space import GraphSpace
from vecdb.index.query_rows import hashes_of_words
from vecdb.index.rows import aligned_empty, frozen
from vecdb.index.workers import Workers, in_stretches
from vecdb.kernels.graph_bulk import LeafMemory, chain_twins, join_leaves, measure_keys
from vecdb.kernels.graph_bulk_link import (
    count_reverse,
    fill_reverse,
    link_rows,
    prune_lists,
)
from vecdb.kernels.graph_bulk_reach import reach_all
from vecdb.kernels.pool import LARGEST_KEY
from vecdb.kernels.word_codes import word_width
from vecdb.types import Matrix, Metric

Keys = NDArray[np.int64]

_STRETCH = 256
_EF = 64
"""Nodes kept while searching for one that cannot be reached."""
_REVERSE = 64
"""About as many of the rows that link to a row are looked at again when its links are chosen."""


@dataclass(frozen=True, slots=True)
class BulkSettings:
    """How much work goes into a graph. The defaults were measured: bench/notes/graph.md."""

    leaf: int = 512
    """Rows that are compared pair by pair."""
    rounds: int = 4
    """How often the rows are carved."""
    fanouts: tuple[int, ...] = (4, 2)
    """To how many parts a row goes at each level of a carving."""
    listed: int = CODED_EF_CONSTRUCTION.default
    """Nearest rows kept of each row while building; at least the degree is kept."""


class BulkGraph(NamedTuple):
    """A flat graph."""

    neighbours: NDArray[np.int32]
    """(n, degree): the links of each row, -1 after the last. A twin has none."""
    entry: int
    """The row where searches start, the one nearest to the mean of all nodes; -1 without rows."""
    twins: NDArray[np.int32]
    """(n,): the next row with the same vector, -1 after the last."""
    order: NDArray[np.int32]
    """The nodes, those near each other close together: an order in which to work on them."""


def bulk_graph(
    vectors: Matrix, metric: Metric, degree: int, *, workers: Workers | None = None, seed: int = 0,
    settings: BulkSettings | None = None,
) -> BulkGraph:  # fmt: skip
    """Build a graph over vectors.

    Every node has exactly `degree` links, to different nodes and not to itself, and can be reached
    from the entry; where there are no more than `degree` nodes, each links to all others.

    The graph is built for the distances of a `GraphSpace`. Under dot, near a vector are those with
    which it has the largest inner products, and not those at its place: a search is then led over
    long vectors, which are what it looks for (ip-NSW, Morozov & Babenko 2018). Which of them are
    superfluous as links is seen by their directions.

    Parameters
    ----------
    vectors
        float32 (n, dim), finite; no zero vectors under cosine. May be read-only.
    metric
        How the vectors will be compared.
    degree
        Links of a node.
    workers
        Who works; the graph does not depend on how many.
    seed
        Equal seeds and vectors give equal graphs.
    settings
        How much work to put into it.
    """
    settings, workers = settings or BulkSettings(), workers or Workers()
    space = GraphSpace.of(vectors, metric, workers)
    # What is moved and scaled may be rounded to equal rows that were not.
    twins, nodes = _find_twins(space.vectors if metric is Metric.COSINE else vectors, workers)
    neighbours = np.full((len(vectors), degree), -1, np.int32)
    if len(nodes) == 0:
        return BulkGraph(neighbours, -1, twins, nodes)
    if len(nodes) < len(vectors):
        space = space.taken(nodes)
    entry = _nearest_to_mean(space.vectors)
    if len(nodes) <= degree + 1:
        links = np.array([np.delete(nodes, i) for i in range(len(nodes))])
        neighbours[nodes, : len(nodes) - 1] = links
        return BulkGraph(neighbours, int(nodes[entry]), twins, nodes)
    links, order = _Builder(space, degree, entry, workers, seed, settings).build()
    neighbours[nodes] = nodes[links]
    return BulkGraph(neighbours, int(nodes[entry]), twins, nodes[order])


def _find_twins(
    rows: Matrix, workers: Workers
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:  # fmt: skip
    """Return for each row the next one that equals it, and the rows that are the first."""
    words: NDArray[np.uint32] = np.empty(rows.shape, np.uint32)
    hashes = np.empty(len(rows), np.uint64)

    def work(first: int, last: int) -> None:
        part = slice(first, last)
        np.add(rows[part], np.float32(0), out=words[part].view(np.float32))  # -0 becomes 0
        hashes[part] = hashes_of_words(words[part])

    in_stretches(workers, len(rows), _STRETCH, lambda: work)
    order = np.argsort(hashes, kind="stable")
    twins = np.full(len(rows), -1, np.int32)
    chain_twins(words, hashes, order, twins)
    return twins, np.sort(order[order >= 0]).astype(np.int32)


def _nearest_to_mean(space: Matrix) -> int:
    mean = space.mean(axis=0, dtype=np.float64).astype(np.float32)
    distances = [
        np.square(space[first : first + _STRETCH] - mean).sum(axis=1)
        for first in range(0, len(space), _STRETCH)
    ]
    return int(np.argmin(np.concatenate(distances)))


def _leaf_memory(rows: int, width: int) -> LeafMemory:
    codes = aligned_empty((rows + 3, word_width(width)), np.int16)
    codes[:] = 0
    own = tuple(np.empty(rows, np.float32) for _ in range(5))
    block, table = aligned_empty((rows, width), np.float32), np.empty((rows, rows), np.int32)
    return LeafMemory(block, codes, table, own, np.empty(4, np.int64))


class _Builder:
    """The steps of a build over more than `degree` + 1 different rows."""

    def __init__(
        self, space: GraphSpace, degree: int, entry: int, workers: Workers, seed: int,
        settings: BulkSettings,
    ) -> None:  # fmt: skip
        self.space = space.vectors
        self.compared = space.vectors, frozen(space.lifts)
        # Among what rows hide each other, and whether that is another distance than keys hold.
        self.hiding = frozen(space.directions), space.directions is not space.vectors
        self.degree, self.entry = degree, entry
        self.workers, self.seed, self.settings = workers, seed, settings
        count = len(self.space)
        listed = min(max(settings.listed, degree), count - 1)
        self.lists = np.full((count, listed), LARGEST_KEY, np.int64)
        self.far = np.empty((count, 0), np.int64)
        self.kept = np.full((count, degree), LARGEST_KEY, np.int64)
        self.links = np.empty((count, degree), np.int32)
        self.order = np.arange(count, dtype=np.int32)
        self.words = words_of(space.vectors, self.workers)

    def build(self) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Return links, and an order in which neighbours are close together."""
        for turn in range(self.settings.rounds):
            self._compare_leaves(turn)
        self._prune()
        self._link()
        return self.links, self.order

    def _compare_leaves(self, turn: int) -> None:
        # A leaf of more than `degree` rows: every list is then long enough to fill a row.
        leaf = max(self.settings.leaf, 4 * (self.degree + 1))
        leaves, far = carve(
            self.words, leaf=leaf, least=leaf // 4,
            fanouts=self.settings.fanouts, seed=[self.seed, turn], workers=self.workers,
        )  # fmt: skip
        measure_keys(*self.compared, far)
        self.far = np.hstack([self.far, far])
        members = np.concatenate(leaves)
        starts = np.concatenate([[0], np.cumsum([len(leaf) for leaf in leaves])])
        if turn == 0:
            self.order = members[np.sort(np.unique(members, return_index=True)[1])]
        locks = np.zeros(len(self.space), np.int32)
        largest = max(map(len, leaves))

        def make_work() -> Callable[[int, int], None]:
            memory = _leaf_memory(largest, self.space.shape[1])
            return lambda first, last: join_leaves(
                *self.compared, self.words, starts, members, first, last, self.lists, locks, memory
            )

        self._spread(len(leaves), 1, make_work)

    def _spread(
        self, count: int, stretch: int, make_work: Callable[[], Callable[[int, int], Any]]
    ) -> None:
        in_stretches(self.workers, count, stretch, make_work)

    def _prune(self) -> None:
        def make_work() -> Callable[[int, int], None]:
            kept = np.empty(self.degree, np.int64)
            keys = np.empty(self.lists.shape[1] + self.far.shape[1], np.int64)
            return lambda first, last: prune_lists(
                *self.hiding, self.lists, self.far, self.order, first, last, self.kept, kept, keys
            )

        self._spread(len(self.space), _STRETCH, make_work)

    def _link(self) -> None:
        """Choose the links of every row, from what was kept, and repair what cannot be reached."""
        ends = np.zeros(len(self.space) + 1, np.int64)
        count_reverse(self.kept, ends)
        reverse = np.empty(ends[-1], np.int64)
        fill_reverse(self.kept, ends, reverse)

        def make_work() -> Callable[[int, int], None]:
            kept = np.empty(self.degree, np.int64)
            keys = np.empty(self.lists.shape[1] + self.far.shape[1] + _REVERSE, np.int64)
            strain = np.empty(len(keys), np.float32)
            return lambda first, last: link_rows(
                *self.hiding, self.kept, reverse, ends, self.lists, self.far, self.order, first,
                last, self.links, kept, keys, strain,
            )  # fmt: skip

        self._spread(len(self.space), _STRETCH, make_work)
        self._reach()

    def _reach(self) -> None:
        count = len(self.space)
        parents = np.full(count, -1, np.int32)
        reach_all(
            *self.compared, self.links, self.entry, parents, np.empty(count, np.int32),
            np.empty(_EF, np.int64), np.empty(count // 8 + 1, np.uint8),
            np.empty(self.degree, np.int64),
        )  # fmt: skip

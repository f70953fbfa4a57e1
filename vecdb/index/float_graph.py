"""The graph of an HNSW index over float32 vectors (Malkov & Yashunin 2018)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vecdb.index.base import CORRECTIONS, Arrays, Distances, Ids, over_threads
from vecdb.index.calibration import LARGEST_EF, TRUTH, draw_sample
from vecdb.index.flat import scan
from vecdb.index.graph_carve import Workers, in_stretches
from vecdb.index.hnsw_build import link_rows
from vecdb.index.hnsw_state import HnswState, draw_levels, from_arrays
from vecdb.index.recall_table import RecallTable, measure, without_themselves
from vecdb.index.rows import LiveRows, RowTable, frozen, prepared_queries
from vecdb.index.scratch import thread_heap, thread_scratch
from vecdb.kernels.bitset import Bits, pack_mask
from vecdb.kernels.graph import search_graph, search_graph_from_within
from vecdb.kernels.graph_filtered import search_graph_filtered
from vecdb.types import Matrix

_MEASURED = 8
"""Rows that serve as queries between two steps of the work."""
_LONG = 120
"""The ef of a search that is long."""

_COMPARISONS_PER_EF = 12
"""About how many nodes a search compares with, for each of the ef that it keeps."""


def scan_is_cheaper(ef: int, allowed: int, rows: int) -> bool:
    """Tell whether to compare with all allowed rows rather than to walk the graph to find them.

    A walk that is to keep `ef` allowed nodes sees ``rows / allowed`` times as many of all nodes.
    """
    return allowed * allowed <= _COMPARISONS_PER_EF * ef * rows


class FloatGraph:
    """Rows of float32 vectors in layers of links.

    Parameters
    ----------
    state
        The arrays.
    ef_construction
        Nodes kept while searching for a new node's neighbours.
    seed
        Decides the layers of the nodes.
    """

    def __init__(self, state: HnswState, ef_construction: int, seed: int) -> None:
        self.ef_construction = ef_construction
        self.seed = seed
        self._adopt(state)

    def _adopt(self, state: HnswState) -> None:
        """Make `state` the contents."""
        self._state = state
        self._graph = state.graph()

    @property
    def recalls(self) -> RecallTable:
        """What searches find at each ef."""
        return self._state.recalls

    @property
    def m(self) -> int:
        """Links given to a new node on each layer."""
        return self._state.m

    @property
    def table(self) -> RowTable:
        """The vectors."""
        return self._state.table

    @property
    def rows(self) -> LiveRows:
        """The row numbers, their ids, and which were removed."""
        return self._state.table

    def emptied(self) -> FloatGraph:
        """Return a graph without rows, and otherwise as this one."""
        table = self._state.table
        return FloatGraph(
            HnswState.empty(table.dim, table.metric, self.m), self.ef_construction, self.seed
        )

    def add(self, vectors: Matrix, ids: Ids, workers: Workers) -> None:
        """Add checked vectors under checked ids."""
        state = self._state
        first = len(state.table)
        state.table.append(vectors, ids)
        count = len(state.table)
        state.unlinked(first, draw_levels(self.seed, first, len(vectors), state.m))
        new, held = np.arange(first, count), np.empty(0, np.int64)
        due = state.recalls.is_due(count)
        if due:
            held = draw_sample(new, self.seed)
        link_rows(state, np.setdiff1d(new, held), first, self.ef_construction, workers)
        self._adopt(state)
        if due:
            state.recalls = self._measured(held, workers)
        if len(held):
            link_rows(state, np.sort(held), count - len(held), self.ef_construction, workers)
            self._adopt(state)

    def _measured(self, held: Ids, workers: Workers) -> RecallTable:
        """Measure what searches find with rows as queries that are not linked yet, if any are held.

        Otherwise with rows of the lowest layer, each as if it were not there. Such a search has
        lost more than one row: others were linked by way of it.
        """
        state, graph, table = self._state, self._graph, self._state.table
        count, correction = len(table), CORRECTIONS[self._state.table.metric]
        sample = held if len(held) else self._draw_within()
        if len(sample) == 0:
            return RecallTable.none(count)
        allowed = None
        if len(held):
            linked = np.ones(count, np.bool_)  # removed rows are, too, and a walk finds them
            linked[held] = False
            allowed = pack_mask(linked)
        rows = np.empty((len(sample), TRUTH + (len(held) == 0)), np.int64)
        true = np.empty(rows.shape, np.float32)
        found = np.empty((len(sample), TRUTH), np.int64)
        distances = np.empty(found.shape, np.float32)
        queries = frozen(table.vectors[sample, : state.column])

        def compare(first: int, last: int) -> None:
            rows[first:last], true[first:last] = self._scan(
                queries[first:last], rows.shape[1], allowed, 1
            )  # fmt: skip

        in_stretches(workers, len(sample), _MEASURED, lambda: compare)
        if not len(held):
            true = without_themselves(sample, rows, true)
        measured = 0

        def search(ef: int, k: int, asked: int) -> Distances:
            """Return the first `k` of what is found with an ef, whatever k is."""
            nonlocal measured

            def walk(first: int, last: int) -> None:
                part, scratch = slice(first, last), thread_scratch(count, ef, state.m0)
                rest = ef, correction, scratch, found[part], distances[part]
                if len(held):
                    search_graph(graph, state.entry, state.top, queries[part], *rest)
                else:
                    search_graph_from_within(graph, state.entry, state.top, sample[part], *rest)

            if measured != ef:
                in_stretches(workers, asked, _MEASURED, lambda: walk)
                measured = ef
            return distances[:asked, :k]

        efforts = [2**i for i in range(4, LARGEST_EF.bit_length())]
        return measure(count, true, search, efforts, _LONG)

    def _draw_within(self) -> Ids:
        """Draw from the rows in the graph those that serve as queries."""
        state, table = self._state, self._state.table
        count = len(table)
        # Rows with equal vectors are one node: what a search finds of its copies says little.
        alone = (state.twins[:count] < 0) & (self._graph.links[:count, state.column] >= 0)
        low = state.levels[:count] == 0
        return draw_sample(np.flatnonzero(table.alive & alone & low), self.seed, least=1)

    def remove(self, ids: Any) -> None:
        """Remove rows, so that they are not found any more; their nodes still lead to others."""
        self._state.table.remove(ids)

    def search(
        self, queries: Matrix, k: int, ef: int, allowed: Bits | None, count: int, threads: int
    ) -> tuple[Ids, Distances]:
        """Return row numbers and distances (nq, k) of the nearest of `count` allowed rows."""
        prepared = prepared_queries(queries, self._state.table.metric)
        if scan_is_cheaper(ef, count, len(self._state.table)):
            return self._scan(prepared, k, allowed, threads)
        return self._walk(prepared, k, ef, allowed, count, threads)

    def _scan(
        self, queries: Matrix, k: int, allowed: Bits | None, threads: int
    ) -> tuple[Ids, Distances]:
        table = self._state.table
        return scan(
            table.metric, queries, table.vectors, len(table), k, allowed=allowed, threads=threads
        )

    def _walk(
        self, queries: Matrix, k: int, ef: int, allowed: Bits | None, count: int, threads: int
    ) -> tuple[Ids, Distances]:
        """Search the graph; compare the queries that it leaves short with all allowed rows."""
        state, graph, correction = self._state, self._graph, CORRECTIONS[self._state.table.metric]
        rows = np.empty((len(queries), k), np.int64)
        distances = np.empty((len(queries), k), np.float32)
        complete = np.ones(len(queries) if allowed is not None else 0, np.bool_)
        wanted = min(k, count)

        def work(first: int, last: int) -> None:
            part = slice(first, last)
            scratch = thread_scratch(len(state.table), ef, state.m0)
            if allowed is None:
                search_graph(
                    graph, state.entry, state.top, queries[part], ef, correction, scratch,
                    rows[part], distances[part],
                )  # fmt: skip
            else:
                search_graph_filtered(
                    graph, state.entry, state.top, queries[part], ef, frozen(allowed), wanted,
                    count, correction, scratch, thread_heap(len(state.table)),
                    rows[part], distances[part], complete[part],
                )  # fmt: skip

        over_threads(threads, len(queries), work)
        enough = rows[:, wanted - 1] >= 0 if allowed is None else complete
        if not enough.all():
            short = np.flatnonzero(~enough)
            again = self._scan(frozen(queries[short]), k, allowed, threads)
            rows[short], distances[short] = again
        return rows, distances

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return everything as arrays; the large ones are not copied."""
        return self._state.to_arrays(self.ef_construction, self.seed)

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> FloatGraph:
        """Take over what `arrays` returned.

        Raises
        ------
        NewerFormatError, CorruptFileError
            If the arrays cannot be used.
        """
        return cls(*from_arrays(arrays))

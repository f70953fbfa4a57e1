"""The graph of an HNSW index over float32 vectors (Malkov & Yashunin 2018)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vecdb.index.base import CORRECTIONS, Arrays, Distances, Ids, over_parts
from vecdb.index.calibration import LARGEST_EF
from vecdb.index.drift import Landmarks
from vecdb.index.flat import scan
from vecdb.index.hnsw_build import link_rows
from vecdb.index.hnsw_state import HnswState, draw_levels, from_arrays
from vecdb.index.query_rows import LEAST_ROWS, HeldOut, draw_sample, hashes_of, hold_out
from vecdb.index.recall_curve import TRUTH
from vecdb.index.recall_table import RecallTable, measure, without_themselves
from vecdb.index.rows import LiveRows, RowTable, frozen, prepared_queries
from vecdb.index.scratch import thread_heap, thread_scratch
from vecdb.index.workers import Workers, in_stretches
from vecdb.kernels.bitset import Bits, pack_mask
from vecdb.kernels.graph import search_graph, search_graph_from_within
from vecdb.kernels.graph_filtered import search_graph_filtered
from vecdb.types import Matrix

_MEASURED = 8
"""Rows that serve as queries between two steps of the work."""
_LONG = 120
"""The ef of a search that is long."""

_LANDMARKS = 256
"""Rows that tell which later ones are unlike those recall was measured with."""
_STRAY = 2.0
"""How many times as far, squared, a stray is from the nearest landmark as these are apart."""
_STRAY_SHARE = 0.1
"""Of all rows, those unlike the measured: above it, recall is measured anew."""
_LOOKED_AT = 256
"""Rows looked at together: one by one would take long beside an addition."""

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
        self._landmarks: Landmarks | None = None
        self._looked_at = self._strays = 0
        # How many rows there were when many strays were found.
        self._drifted_at = 0
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
        new = np.arange(first, count)
        due = self._is_due(first)
        held = self._held_out(first, workers) if due else HeldOut.none()
        if len(held.queries):
            self._link(np.setdiff1d(new, held.rows), first, workers)
            state.recalls = self._measured_with(held, workers)
            self._link(held.rows, count - len(held.rows), workers)
            return
        self._link(new, first, workers)
        if due:
            state.recalls = self._measured_within(workers)

    def _is_due(self, first: int) -> bool:
        """Tell whether recall should be measured, as rows were added from `first` on.

        It is where many are strays, and at less growth from then on, until there are four times
        as many rows.
        """
        state, count = self._state, len(self._state.table)
        if self._landmarks is None and first >= LEAST_ROWS:
            chosen = np.random.default_rng(self.seed).choice(first, _LANDMARKS, replace=False)
            self._landmarks = Landmarks(self._vectors_of(chosen), _STRAY)
            self._looked_at, self._strays = first, 0
        if self._landmarks is not None and count - self._looked_at >= _LOOKED_AT:
            later = self._vectors_of(np.arange(self._looked_at, count))
            self._strays += self._landmarks.count_strays(later)
            self._looked_at = count
        strange = self._strays > _STRAY_SHARE * count
        if strange:
            self._drifted_at = count
        due = strange or state.recalls.is_due(count, drifting=count < 4 * self._drifted_at)
        if due:
            self._landmarks, self._strays = None, 0
        return due

    def _link(self, new: Ids, linked: int, workers: Workers) -> None:
        link_rows(self._state, new, linked, self.ef_construction, workers)
        self._adopt(self._state)

    def _held_out(self, first: int, workers: Workers) -> HeldOut:
        """Choose rows from `first` on, none with a copy before: the graph has that already."""
        rows = np.arange(len(self._state.table))
        hashes = hashes_of(self._state.table.vectors[: len(rows), : self._state.column], workers)
        return hold_out(rows, hashes, self.seed, among=rows >= first)

    def _measured_with(self, held: HeldOut, workers: Workers) -> RecallTable:
        """Measure what searches find, with rows as queries that are not linked yet."""
        state, graph = self._state, self._graph
        linked = np.ones(len(state.table), np.bool_)  # removed rows are, too, and a walk finds them
        linked[held.rows] = False
        queries = self._vectors_of(held.queries)
        _, true = self._compared(queries, TRUTH, pack_mask(linked), workers)

        def walk(part: slice, ef: int, *rest: Any) -> None:
            search_graph(graph, state.entry, state.top, queries[part], ef, *rest)

        return self._measured(true, walk, workers)

    def _measured_within(self, workers: Workers) -> RecallTable:
        """Measure what searches find, with rows of the lowest layer, each as if it were not there.

        Such a search has lost more than one row: others were linked by way of it.
        """
        state, graph, count = self._state, self._graph, len(self._state.table)
        # Rows with equal vectors are one node: what a search finds of its copies says little.
        alone = (state.twins[:count] < 0) & (graph.links[:count, state.column] >= 0)
        low = state.levels[:count] == 0
        sample = draw_sample(np.flatnonzero(state.table.alive & alone & low), self.seed)
        if len(sample) == 0:
            return RecallTable.none(count)
        rows, true = self._compared(self._vectors_of(sample), TRUTH + 1, None, workers)

        def walk(part: slice, ef: int, *rest: Any) -> None:
            search_graph_from_within(graph, state.entry, state.top, sample[part], ef, *rest)

        return self._measured(without_themselves(sample, rows, true), walk, workers)

    def _vectors_of(self, rows: Ids) -> Matrix:
        return frozen(self._state.table.vectors[rows, : self._state.column])

    def _compared(
        self, queries: Matrix, k: int, allowed: Bits | None, workers: Workers
    ) -> tuple[Ids, Distances]:
        """Compare queries with all allowed rows, in pieces between which work can be given up."""
        rows = np.empty((len(queries), k), np.int64)
        distances = np.empty(rows.shape, np.float32)

        def compare(first: int, last: int) -> None:
            part = slice(first, last)
            rows[part], distances[part] = self._scan(queries[part], k, allowed, 1)

        in_stretches(workers, len(queries), _MEASURED, lambda: compare)
        return rows, distances

    def _measured(
        self, true: Distances, walk: Callable[..., None], workers: Workers
    ) -> RecallTable:
        """Measure what ``walk(part, ef, correction, scratch, rows, distances)`` finds of queries.

        `true` are the distances (queries, `TRUTH`) of the nearest rows.
        """
        state, count = self._state, len(self._state.table)
        correction = CORRECTIONS[state.table.metric]
        found, distances = np.empty(true.shape, np.int64), np.empty(true.shape, np.float32)
        measured = 0

        def search(ef: int, k: int, asked: int) -> Distances:
            """Return the first `k` of what is found with an ef, whatever k is."""
            nonlocal measured

            def work(first: int, last: int) -> None:
                part, scratch = slice(first, last), thread_scratch(count, ef, state.m0)
                walk(part, ef, correction, scratch, found[part], distances[part])

            if measured != ef:
                in_stretches(workers, asked, _MEASURED, lambda: work)
                measured = ef
            return distances[:asked, :k]

        efforts = [2**i for i in range(4, LARGEST_EF.bit_length())]
        return measure(count, true, search, efforts, _LONG)

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
        complete = np.ones(len(queries), np.bool_)
        wanted = min(k, count)

        def work(
            queries: Matrix, rows: Ids, distances: Distances, complete: NDArray[np.bool_]
        ) -> None:
            scratch = thread_scratch(len(state.table), ef, state.m0)
            if allowed is None:
                search_graph(
                    graph, state.entry, state.top, queries, ef, correction, scratch, rows, distances
                )  # fmt: skip
            else:
                search_graph_filtered(
                    graph, state.entry, state.top, queries, ef, allowed, wanted, count, correction,
                    scratch, thread_heap(len(state.table)), rows, distances, complete,
                )  # fmt: skip

        over_parts(threads, work, queries, rows, distances, complete)
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

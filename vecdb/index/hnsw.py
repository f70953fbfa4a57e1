"""HNSW: a hierarchical small-world graph over the vectors (Malkov & Yashunin 2018)."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from vecdb.config import DIM, HNSW_EF, HNSW_EF_CONSTRUCTION, HNSW_M, SEED, THREADS, K
from vecdb.index.base import (
    CORRECTIONS,
    Arrays,
    Distances,
    Ids,
    check_quantization,
    over_threads,
)
from vecdb.index.files import PathLike, load_arrays, save_arrays
from vecdb.index.flat import scan
from vecdb.index.hnsw_build import link_rows
from vecdb.index.hnsw_state import HnswState, draw_levels, from_arrays
from vecdb.index.hnswlib_import import read_hnswlib
from vecdb.index.rows import frozen, prepared_queries
from vecdb.index.scratch import thread_heap, thread_scratch
from vecdb.index.validate import as_matrix, as_metric
from vecdb.kernels.bitset import Bits
from vecdb.kernels.graph import search_graph
from vecdb.kernels.graph_filtered import search_graph_filtered
from vecdb.types import Matrix, MatrixLike, VectorLike

FILE_KIND = "index.hnsw"
"""What its file says that it is."""

_COMPARISONS_PER_EF = 12
"""About how many nodes a search compares with, for each of the ef that it keeps."""


def scan_is_cheaper(ef: int, allowed: int, rows: int) -> bool:
    """Tell whether to compare with all allowed rows rather than to walk the graph to find them.

    A walk that is to keep `ef` allowed nodes sees ``rows / allowed`` times as many of all nodes.
    """
    return allowed * allowed <= _COMPARISONS_PER_EF * ef * rows


class HnswIndex:
    """Approximate search by walking a graph of near neighbours.

    Parameters
    ----------
    dim
        Dimension of the vectors.
    metric
        cosine, dot or l2.
    m
        Links given to a new node on each layer; on the lowest a node may come to have ``2 * m``.
    ef_construction
        Nodes kept while searching for a new node's neighbours: more build a better graph, slower.
    quantization
        How vectors are kept in the rows of the graph; "none" for float32.
    seed
        Decides the layers of the nodes. With one thread, equal seeds and vectors give equal graphs.
    """

    def __init__(
        self, dim: int, metric: str = "cosine", *, m: int | None = None,
        ef_construction: int | None = None, quantization: str = "none", seed: int = 0,
    ) -> None:  # fmt: skip
        self.dim = DIM.check(dim)
        self.metric = as_metric(metric)
        self.m = HNSW_M.check(m)
        self.ef_construction = HNSW_EF_CONSTRUCTION.check(ef_construction)
        self.quantization = check_quantization(quantization)
        self.seed = SEED.check(seed)
        self._adopt(HnswState.empty(self.dim, self.metric, self.m))

    def _adopt(self, state: HnswState) -> None:
        """Make `state` the contents."""
        self._state = state
        self._graph = state.graph()

    def __len__(self) -> int:
        """Return how many vectors can be found."""
        return self._state.table.live_count

    @property
    def row_count(self) -> int:
        """How many rows there are, removed ones included: the length of a filter."""
        return len(self._state.table)

    def build(self, vectors: MatrixLike, *, ids: Any = None, threads: int = 1) -> Ids:
        """Replace the contents; return the ids. See `add`."""
        return self._add_to(
            HnswState.empty(self.dim, self.metric, self.m), vectors, ids, THREADS.check(threads)
        )

    def add(self, vectors: VectorLike | MatrixLike, ids: Any = None, threads: int = 1) -> Ids:
        """Add vectors.

        Parameters
        ----------
        vectors
            float32 (n, dim).
        ids
            Integers from 0 to 2**63 - 1, none of them in use; by default the next row numbers.
            The id of a removed vector can be used again.
        threads
            How many threads insert; with more than one the graph differs from run to run.

        Returns
        -------
        ndarray
            The ids, int64 (n,).

        Raises
        ------
        InvalidArgumentError
            One of its subclasses; the index is unchanged then.
        """
        return self._add_to(self._state, vectors, ids, THREADS.check(threads))

    def _add_to(self, state: HnswState, vectors: Any, ids: Any, threads: int) -> Ids:
        checked = as_matrix(vectors, self.dim, self.metric)
        new_ids = state.table.new_ids(ids, len(checked))
        first = len(state.table)
        state.table.append(checked, new_ids)
        state.unlinked(first, draw_levels(self.seed, first, len(checked), self.m))
        link_rows(state, first, self.ef_construction, threads)
        self._adopt(state)
        return new_ids

    def remove(self, ids: Any) -> None:
        """Remove vectors, so that they are not found any more; their nodes still lead to others.

        Raises
        ------
        InvalidIdError
            If an id is not in the index; nothing is removed then.
        """
        self._state.table.remove(ids)

    def search(
        self, queries: VectorLike | MatrixLike, k: int = 10, ef: int | None = None,
        threads: int = 1, filter: Any = None,
    ) -> tuple[Ids, Distances]:  # fmt: skip
        """Find the nearest vectors of each query.

        Parameters
        ----------
        queries
            float32 (nq, dim) or (dim,).
        k
            How many to return for each query.
        ef
            Nodes kept while searching: more find better ones, slower. At least k are kept.
        threads
            Over how many threads the queries are spread.
        filter
            bool (row_count,): the rows that may be returned; None for all.

        Returns
        -------
        ids, distances
            int64 and float32 (nq, k), best first, padded with -1 and infinity where fewer than k
            vectors can be returned. Where k can be, k are.
        """
        k, threads = K.check(k), THREADS.check(threads)
        ef = max(HNSW_EF.check(ef), k)
        checked = as_matrix(queries, self.dim, self.metric, name="queries")
        prepared = prepared_queries(checked, self.metric)
        table = self._state.table
        allowed, count = table.allowed(filter)
        if scan_is_cheaper(ef, count, len(table)):
            rows, distances = self._scan(prepared, k, allowed, threads)
        else:
            rows, distances = self._walk(prepared, k, ef, allowed, count, threads)
        return table.ids.of_rows(rows), distances

    def _scan(
        self, queries: Matrix, k: int, allowed: Bits | None, threads: int
    ) -> tuple[Ids, Distances]:
        table = self._state.table
        return scan(
            self.metric, queries, table.vectors, len(table), k, allowed=allowed, threads=threads
        )

    def _walk(
        self, queries: Matrix, k: int, ef: int, allowed: Bits | None, count: int, threads: int
    ) -> tuple[Ids, Distances]:
        """Search the graph; compare the queries that it leaves short with all allowed rows."""
        state, graph, correction = self._state, self._graph, CORRECTIONS[self.metric]
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
        """Return everything that the index is, as arrays; the large ones are not copied."""
        return self._state.to_arrays(self.ef_construction, self.seed)

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> Self:
        """Make an index over the arrays of `arrays`, which may be read-only and memory-mapped.

        They are used where they are; the first `add` copies them.

        Raises
        ------
        NewerFormatError, CorruptFileError
            If the arrays cannot be used.
        """
        state, ef_construction, seed = from_arrays(arrays)
        table = state.table
        index = cls(
            table.dim, table.metric, m=state.m, ef_construction=ef_construction, seed=seed
        )  # fmt: skip
        index._adopt(state)
        return index

    def save(self, path: PathLike) -> None:
        """Write the index to a file, durably and all at once; an existing file is replaced."""
        save_arrays(path, self.arrays(), FILE_KIND)

    @classmethod
    def load(cls, path: PathLike) -> Self:
        """Open an index that `save` wrote. Its vectors stay in the file, mapped into memory.

        Raises
        ------
        StoredFileNotFoundError
            If there is no such file.
        CorruptFileError, NewerFormatError
            If it is damaged, of another kind, or of a newer vecdb.
        """
        return cls.from_arrays(load_arrays(path, FILE_KIND))

    @classmethod
    def from_hnswlib(cls, index: Any) -> Self:
        """Take over an `hnswlib.Index`: its vectors, labels as ids, deletions and graph.

        Nothing is rebuilt: a search finds what hnswlib finds at the same ef.

        Raises
        ------
        InvalidParameterError
            If the argument is not an initialised hnswlib index.
        """
        state, ef_construction = read_hnswlib(index)
        table = state.table
        taken = cls(table.dim, table.metric, m=state.m, ef_construction=ef_construction)
        taken._adopt(state)
        return taken

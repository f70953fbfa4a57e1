"""HNSW: a hierarchical small-world graph over the vectors (Malkov & Yashunin 2018)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

from numpy.typing import NDArray

from vecdb.config import (
    CODED_EF_CONSTRUCTION,
    DIM,
    HNSW_EF,
    HNSW_EF_CONSTRUCTION,
    HNSW_M,
    SEED,
    THREADS,
    K,
)
from vecdb.errors import InvalidParameterError
from vecdb.index.base import Arrays, Distances, Ids
from vecdb.index.calibration import LARGEST_EF, check_target
from vecdb.index.coded_graph import CodedGraph
from vecdb.index.compact_graph import CompactGraph
from vecdb.index.files import PathLike, load_arrays, save_arrays
from vecdb.index.float_graph import FloatGraph
from vecdb.index.hnsw_state import HnswState
from vecdb.index.hnswlib_import import read_hnswlib
from vecdb.index.placed_graph import PlacedGraph
from vecdb.index.queries import Queries, query_matrix
from vecdb.index.reranks import RERANKS, one_of
from vecdb.index.validate import as_matrix, as_metric
from vecdb.index.workers import Workers, no_step
from vecdb.types import MatrixLike, VectorLike

FILE_KIND = "index.hnsw"
"""What its file says that it is."""

QUANTIZATIONS = ("none", "sq8", "rabitq")
"""How the rows of a graph are kept."""


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
        By default 200. With a `quantization`, which builds at once, the nearest rows kept of each
        row, of which its links are chosen, by default 128; an `add` row by row keeps half as many.
    quantization
        "none": float32 vectors in layers of links, which `add` extends row by row.
        "rabitq": a flat graph of ``2 * m`` links a node, rounded up to a multiple of 32, whose
        rows carry the neighbours' codes (`vecdb.index.coded_graph`): several times as fast to
        search; distances are right to about 1e-5 of the vectors' squared norms. An `add` builds
        it anew when it has grown by half, or when a tenth was removed, and gives the places of
        removed rows to new ones.
        "sq8": a flat graph of ``2 * m`` links a node, with one byte a coordinate
        (`vecdb.index.compact_graph`): less than 60 % of the memory of "none", and about twice as
        fast to search. It is extended as "rabitq" is.
    rerank
        With "sq8": where the second bytes of the coordinates are kept, by which the best results
        are compared anew. "memory", the default; "mmap", which leaves them in the file of a
        loaded index, of which only what is used becomes resident; or "none", not at all:
        distances are those of one byte a coordinate then.
    seed
        Decides what is drawn. With one thread, equal seeds and vectors give equal graphs.
    """

    def __init__(
        self, dim: int, metric: str = "cosine", *, m: int | None = None,
        ef_construction: int | None = None, quantization: str = "none",
        rerank: str | None = None, seed: int = 0,
    ) -> None:  # fmt: skip
        self.dim = DIM.check(dim)
        self.metric = as_metric(metric)
        self.m = HNSW_M.check(m)
        self.quantization = one_of("quantization", quantization, QUANTIZATIONS)
        self.rerank = _checked_rerank(rerank, quantization)
        default = HNSW_EF_CONSTRUCTION if quantization == "none" else CODED_EF_CONSTRUCTION
        self.ef_construction = default.check(ef_construction)
        self.seed = SEED.check(seed)
        self._graph: FloatGraph | PlacedGraph
        made_with = self.dim, self.metric, self.m, self.ef_construction, self.seed
        if quantization == "rabitq":
            self._graph = CodedGraph(*made_with)
        elif quantization == "sq8":
            self._graph = CompactGraph(*made_with, self.rerank)
        else:
            state = HnswState.empty(self.dim, self.metric, self.m)
            self._graph = FloatGraph(state, self.ef_construction, self.seed)

    def __len__(self) -> int:
        """Return how many vectors can be found."""
        return self._graph.rows.live_count

    @property
    def row_count(self) -> int:
        """How many rows there are, removed ones included: the length of a filter."""
        return len(self._graph.rows)

    def build(
        self, vectors: MatrixLike, *, ids: Any = None, threads: int = 1,
        step: Callable[[], object] = no_step,
    ) -> Ids:  # fmt: skip
        """Replace the contents; return the ids.

        Parameters
        ----------
        vectors, ids, threads
            As for `add`.
        step
            Called many times a second, from every thread. What it raises gives the work up, and
            the index is unchanged then.
        """
        workers = Workers(THREADS.check(threads), step)
        return self._add_to(self._graph.emptied(), vectors, ids, workers)

    def add(self, vectors: VectorLike | MatrixLike, ids: Any = None, threads: int = 1) -> Ids:
        """Add vectors.

        Parameters
        ----------
        vectors
            float32 (n, dim).
        ids
            Integers from 0 to 2**63 - 1, none of them in use; by default the next row numbers,
            or those behind the largest id where that is larger.
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
        return self._add_to(self._graph, vectors, ids, Workers(THREADS.check(threads)))

    def _add_to(
        self, graph: FloatGraph | PlacedGraph, vectors: Any, ids: Any, workers: Workers
    ) -> Ids:  # fmt: skip
        checked = as_matrix(vectors, self.dim, self.metric)
        new_ids = graph.rows.new_ids(ids, len(checked))
        graph.add(checked, new_ids, workers)
        self._graph = graph
        return new_ids

    def remove(self, ids: Any) -> None:
        """Remove vectors, so that they are not found any more; their nodes still lead to others.

        Raises
        ------
        InvalidIdError
            If an id is not in the index; nothing is removed then.
        """
        self._graph.remove(ids)

    def search(
        self, queries: VectorLike | MatrixLike | Queries, k: int = 10, ef: int | None = None,
        threads: int = 1, filter: Any = None, target_recall: float | None = None,
    ) -> tuple[Ids, Distances]:  # fmt: skip
        """Find the nearest vectors of each query.

        Parameters
        ----------
        queries
            float32 (nq, dim) or (dim,), or `Queries` of that dimension and metric.
        k
            How many to return for each query.
        ef
            How far to search: more find better ones, slower. At least k. With quantization="none"
            so many nodes are kept while searching; otherwise about so many are expanded on
            average, more of them for queries whose nearest rows do not stand out. Beside
            `target_recall`, how far to search at least.
        threads
            Over how many threads the queries are spread.
        filter
            bool (row_count,), or a `RowFilter`: the rows that may be returned; None for all.
        target_recall
            The share of the k nearest that is to be found on average, from 0.5 to 0.999. What that
            takes was measured when the graph was built and as it grew, with rows that were not in
            it or as if they were not; where the longest search measured was not enough, that is
            taken, or, with codes that tell too little, all rows are compared. Queries that are less
            like the rows than these are like each other may find less. A graph with
            quantization="none" that grew by small additions finds more than asked for: its links
            were chosen with the rows there.

        Returns
        -------
        ids, distances
            int64 and float32 (nq, k), best first, padded with -1 and infinity where fewer than k
            vectors can be returned. Where k can be, k are.

        Raises
        ------
        InvalidArgumentError
            One of its subclasses.
        """
        target = None if target_recall is None else check_target(target_recall)
        k, threads = K.check(k), THREADS.check(threads)
        ef = k if ef is None and target is not None else max(HNSW_EF.check(ef), k)
        checked = query_matrix(queries, self.dim, self.metric)
        rows = self._graph.rows
        allowed, count = rows.allowed(filter)
        if isinstance(self._graph, PlacedGraph):
            found, distances = self._graph.search(
                checked, k, ef, allowed, count, threads, target
            )  # fmt: skip
        else:
            if target is not None:
                ef = max(ef, self._graph.recalls.effort(target, k) or LARGEST_EF)
            found, distances = self._graph.search(checked, k, ef, allowed, count, threads)
        return rows.ids.of_rows(found), distances

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return everything that the index is, as arrays; the large ones are not copied."""
        return self._graph.arrays()

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> Self:
        """Make an index over the arrays of `arrays`, which may be read-only and memory-mapped.

        Those of float32 rows and of ``quantization="rabitq"`` are used where they are, and the
        first `add` copies them; of "sq8" only what ``rerank="mmap"`` leaves in the file.

        Raises
        ------
        NewerFormatError, CorruptFileError
            If the arrays cannot be used.
        """
        if CompactGraph.made(arrays):
            compact = CompactGraph.from_arrays(arrays)
            return cls._around(compact, quantization="sq8", rerank=compact.rerank)
        if CodedGraph.made(arrays):
            return cls._around(CodedGraph.from_arrays(arrays), quantization="rabitq")
        graph = FloatGraph.from_arrays(arrays)
        table = graph.table
        index = cls(
            table.dim, table.metric, m=graph.m, ef_construction=graph.ef_construction,
            seed=graph.seed,
        )  # fmt: skip
        index._graph = graph
        return index

    @classmethod
    def _around(cls, graph: PlacedGraph, **options: str) -> Self:
        """Make an index of a graph that was taken over."""
        index = cls(
            graph.dim, graph.metric, m=graph.m, ef_construction=graph.ef_construction,
            seed=graph.seed, **options,
        )  # fmt: skip
        index._graph = graph
        return index

    def save(self, path: PathLike) -> None:
        """Write the index to a file, durably and all at once; an existing file is replaced."""
        save_arrays(path, self.arrays(), FILE_KIND)

    @classmethod
    def load(cls, path: PathLike) -> Self:
        """Open an index that `save` wrote; what stays in the file is told by `from_arrays`.

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
        InvalidIdError, InvalidVectorError
            If a label is 2**63 or more, or a vector holds NaN or infinity.
        """
        state, ef_construction = read_hnswlib(index)
        table = state.table
        taken = cls(table.dim, table.metric, m=state.m, ef_construction=ef_construction)
        taken._graph = FloatGraph(state, ef_construction, taken.seed)
        return taken


def _checked_rerank(rerank: str | None, quantization: str) -> str:
    """Return where a graph keeps what its best results are compared by anew.

    Raises
    ------
    InvalidParameterError
        If it cannot be kept there.
    """
    if rerank is None:
        return "memory"
    one_of("rerank", rerank, RERANKS)
    if quantization == "none":
        raise InvalidParameterError("rerank is about codes, which need quantization='sq8'")
    if quantization == "rabitq" and rerank != "memory":
        raise InvalidParameterError(
            f"rerank={rerank!r} with quantization='rabitq': must be 'memory', where all "
            "of its rows stand; quantization='sq8' can do without some"
        )
    return rerank

"""Exact search: the index that needs no building, and the oracle of all others."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from vecdb.config import DIM, THREADS, K
from vecdb.index.base import (
    CORRECTIONS,
    METRIC_NUMBERS,
    Arrays,
    Distances,
    Ids,
    metric_of_number,
    over_parts,
)
from vecdb.index.files import PathLike, load_arrays, save_arrays
from vecdb.index.layout import check_arrays, read_header, rows_in
from vecdb.index.queries import Queries
from vecdb.index.rows import RowTable, frozen, padded, prepared_queries
from vecdb.index.validate import as_matrix, as_metric
from vecdb.kernels.bitset import Bits
from vecdb.kernels.scan import rescore, scan_rows
from vecdb.types import Matrix, MatrixLike, Metric, VectorLike

FILE_KIND = "index.flat"
"""What its file says that it is."""

LAYOUT_VERSION = 1
"""Of the arrays; a newer one is refused."""

_NO_BITS = frozen(np.empty(0, np.uint8))


def scan(
    metric: Metric, queries: Matrix, rows: Matrix, count: int, k: int, *,
    allowed: Bits | None = None, threads: int = 1,
) -> tuple[Ids, Distances]:  # fmt: skip
    """Compare prepared queries with the first `count` rows; return row numbers and distances."""
    out_rows = np.empty((len(queries), k), np.int64)
    out_distances = np.empty((len(queries), k), np.float32)
    bits = _NO_BITS if allowed is None else frozen(allowed)
    queries, rows = frozen(queries), frozen(rows)

    def work(queries: Matrix, found: Ids, distances: Distances) -> None:
        scan_rows(
            METRIC_NUMBERS[metric], queries, rows, count, queries.shape[1], bits,
            allowed is not None, k, CORRECTIONS[metric], found, distances,
        )  # fmt: skip

    over_parts(threads, work, queries, out_rows, out_distances)
    return out_rows, out_distances


def rank_exactly(
    metric: Metric, queries: Queries, vectors: Matrix, rows: Ids, distances: Distances
) -> None:
    """Compute the distances of rows that an index found again, from the vectors themselves.

    Parameters
    ----------
    metric
        cosine, dot or l2.
    queries
        Of that metric.
    vectors
        float32 (n, dim), as given; may be read-only.
    rows, distances
        int64 and float32 (nq, k), -1 behind the last; put in the new order in place.
    """
    rescore(
        METRIC_NUMBERS[metric], queries.vectors, vectors, CORRECTIONS[metric], rows, distances,
    )  # fmt: skip


class FlatIndex:
    """Compares every vector with every query: exact, and the slower the larger.

    Parameters
    ----------
    dim
        Dimension of the vectors.
    metric
        cosine, dot or l2.
    """

    def __init__(self, dim: int, metric: str = "cosine") -> None:
        self.dim = DIM.check(dim)
        self.metric = as_metric(metric)
        self._table = RowTable(self.dim, padded(self.dim), self.metric)

    def __len__(self) -> int:
        """Return how many vectors can be found."""
        return self._table.live_count

    @property
    def row_count(self) -> int:
        """How many rows there are, removed ones included: the length of a filter."""
        return len(self._table)

    def build(self, vectors: MatrixLike, *, ids: Any = None, threads: int = 1) -> Ids:
        """Replace the contents; return the ids. See `add`."""
        THREADS.check(threads)
        checked = as_matrix(vectors, self.dim, self.metric)
        table = RowTable(self.dim, padded(self.dim), self.metric)
        new_ids = table.new_ids(ids, len(checked))
        table.append(checked, new_ids)
        self._table = table
        return new_ids

    def add(self, vectors: VectorLike | MatrixLike, ids: Any = None, threads: int = 1) -> Ids:
        """Add vectors.

        Parameters
        ----------
        vectors
            float32 (n, dim).
        ids
            Integers from 0 to 2**63 - 1, none of them in use; by default the next row numbers,
            or those behind the largest id where that is larger.
        threads
            Accepted for the sake of one signature; copying needs no more than one.

        Returns
        -------
        ndarray
            The ids, int64 (n,).

        Raises
        ------
        InvalidArgumentError
            One of its subclasses; the index is unchanged then.
        """
        THREADS.check(threads)
        checked = as_matrix(vectors, self.dim, self.metric)
        new_ids = self._table.new_ids(ids, len(checked))
        self._table.append(checked, new_ids)
        return new_ids

    def remove(self, ids: Any) -> None:
        """Remove vectors, so that they are not found any more.

        Raises
        ------
        InvalidIdError
            If an id is not in the index; nothing is removed then.
        """
        self._table.remove(ids)

    def search(
        self, queries: VectorLike | MatrixLike, k: int = 10, *, threads: int = 1, filter: Any = None
    ) -> tuple[Ids, Distances]:
        """Find the nearest vectors of each query.

        Parameters
        ----------
        queries
            float32 (nq, dim) or (dim,).
        k
            How many to return for each query.
        threads
            Over how many threads the queries are spread.
        filter
            bool (row_count,), or a `RowFilter`: the rows that may be returned; None for all.

        Returns
        -------
        ids, distances
            int64 and float32 (nq, k), best first, padded with -1 and infinity.
        """
        k, threads = K.check(k), THREADS.check(threads)
        checked = as_matrix(queries, self.dim, self.metric, name="queries")
        table = self._table
        allowed, _ = table.allowed(filter)
        rows, distances = scan(
            self.metric, prepared_queries(checked, self.metric), table.vectors, len(table), k,
            allowed=allowed, threads=threads,
        )  # fmt: skip
        return table.ids.of_rows(rows), distances

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return everything that the index is, as arrays."""
        count = len(self._table)
        header = np.array([LAYOUT_VERSION, self.dim, METRIC_NUMBERS[self.metric]], np.int64)
        return {
            "header": header,
            "rows": self._table.vectors[:count],
            "ids": self._table.ids.array,
            "alive": self._table.alive.view(np.uint8),
        }

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> Self:
        """Make an index over arrays, which may be read-only, without copying the vectors.

        Raises
        ------
        NewerFormatError, CorruptFileError
            If the arrays cannot be used.
        """
        dim, metric_number = read_header(arrays, LAYOUT_VERSION, 3)
        metric = metric_of_number(metric_number)
        count = rows_in(arrays, "rows")
        check_arrays(
            arrays,
            {
                "rows": (np.float32, (count, padded(dim))),
                "ids": (np.int64, (count,)),
                "alive": (np.uint8, (count,)),
            },
        )
        index = cls(dim, metric)
        index._table = RowTable.of(dim, metric, arrays["rows"], arrays["ids"], arrays["alive"])
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

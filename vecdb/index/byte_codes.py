"""Exact search over rows that have no index: their codes of one byte a coordinate are read first.

Used where rows come in faster than a graph over them is worth building; see
`vecdb.kernels.byte_scan`.
"""

from __future__ import annotations

import threading
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vecdb.config import THREADS, K
from vecdb.index.base import CORRECTIONS, METRIC_NUMBERS, Distances, Ids, over_parts
from vecdb.index.queries import Queries
from vecdb.index.row_filter import RowFilter
from vecdb.index.rows import aligned_empty, frozen
from vecdb.kernels.byte_scan import FACTS, encode_bytes, scan_bytes
from vecdb.types import Matrix, Metric

_LINE = 64
_FIRST_ROWS = 1_024

_NO_SCALES = frozen(np.empty(0, np.float32))
_NO_BITS = frozen(np.empty(0, np.uint8))


class _Codes(NamedTuple):
    """The codes of the first rows; see `vecdb.kernels.byte_scan.encode_bytes`."""

    codes: NDArray[np.uint8]
    facts: NDArray[np.float32]
    inverse_norms: NDArray[np.float32]


class ByteCodes:
    """The codes of an array's rows, made when a search first comes to them.

    Rows may be appended to the array between searches; those there were never change.

    Parameters
    ----------
    metric
        cosine, dot or l2.
    """

    def __init__(self, metric: Metric) -> None:
        self._metric = metric
        self._lock = threading.Lock()  # held while codes are made; protects everything below
        self._coded = 0
        self._codes: _Codes | None = None

    @property
    def memory_bytes(self) -> int:
        """How much memory the codes take."""
        codes = self._codes
        return 0 if codes is None else sum(array.nbytes for array in codes)

    def search(
        self, queries: Queries, vectors: Matrix, k: int, filter: RowFilter | None = None,
        *, threads: int = 1,
    ) -> tuple[Ids, Distances]:  # fmt: skip
        """Find the nearest rows by comparing with all of them.

        Parameters
        ----------
        queries
            Of the metric, and of the vectors' dimension.
        vectors
            float32 (n, dim), C-contiguous and checked: the rows there are now.
        k
            How many rows to return for each query.
        filter
            The rows that may be returned; None for all.
        threads
            Over how many threads the queries are spread.

        Returns
        -------
        rows, distances
            int64 and float32 (nq, k): row numbers and distances as of `Index`, best first, padded
            with -1 and infinity.
        """
        k, threads = K.check(k), THREADS.check(threads)
        count, metric = len(vectors), self._metric
        out_rows = np.empty((len(queries), k), np.int64)
        out_distances = np.empty((len(queries), k), np.float32)
        codes, facts, inverse_norms = self._codes_of(vectors)
        scales = inverse_norms if metric is Metric.COSINE else _NO_SCALES
        bits = _NO_BITS if filter is None else filter.bits

        def work(prepared: Matrix, rows: Ids, distances: Distances) -> None:
            scan_bytes(
                METRIC_NUMBERS[metric], prepared, vectors, codes, facts, scales, count, bits,
                filter is not None, CORRECTIONS[metric],
                np.zeros((1, codes.shape[1]), np.int8), np.empty(count, np.float32),
                np.empty(count, np.int64), np.empty((1, max(min(k, count), 1)), np.int64),
                rows, distances,
            )  # fmt: skip

        over_parts(threads, work, queries.prepared, out_rows, out_distances)
        return out_rows, out_distances

    def _codes_of(self, vectors: Matrix) -> _Codes:
        """Return the codes of the vectors, those that are missing made first."""
        count = len(vectors)
        with self._lock:
            if self._codes is None or len(self._codes.codes) < count:
                self._codes = _with_room(self._codes, self._coded, count, vectors.shape[1])
            if self._coded < count:
                encode_bytes(frozen(vectors), self._coded, count, *self._codes)
                self._coded = count
            return self._codes


def _with_room(codes: _Codes | None, used: int, needed: int, dim: int) -> _Codes:
    rows = max(needed, _FIRST_ROWS, 2 * used)
    larger = _Codes(
        aligned_empty((rows, -(-dim // _LINE) * _LINE), np.uint8),
        np.empty((rows, FACTS), np.float32),
        np.empty(rows, np.float32),
    )
    if codes is not None:
        larger.codes[:used] = codes.codes[:used]
        larger.facts[:used] = codes.facts[:used]
        larger.inverse_norms[:used] = codes.inverse_norms[:used]
    return larger

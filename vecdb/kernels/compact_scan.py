"""Comparison with all rows of a compact graph, by all that is kept of them."""

from __future__ import annotations

from typing import Any

import numpy as np

from vecdb.kernels.bitset import has_bit
from vecdb.kernels.compact_rows import ask_for, distance_to
from vecdb.kernels.interpreter import await_interpreter
from vecdb.kernels.jit import direct_kernel
from vecdb.kernels.pool import key_distance, key_row, offer

_BLOCK = 32


@direct_kernel
def scan_compact(
    rows: Any, count: Any, queries: Any, allowed: Any, restricted: Any, scales: Any, pools: Any,
    sizes: Any, block: Any, out_rows: Any, out_distances: Any,
) -> None:  # fmt: skip
    """Compare all allowed rows with every query.

    Parameters
    ----------
    rows : CompactRows
    count : int
        How many rows there are.
    queries : float32 (nq, width)
        Rotated as the rows were.
    allowed : uint8 bitset
        The rows that may be returned, when `restricted` is true; unread otherwise.
    restricted : bool
    scales : float32 (nq, 2)
        What a query's squared distances are multiplied by, and what is added, for the result.
    pools : int64 (nq, k)
    sizes : int64 (nq,)
    block : int64 (32,)
        Working memory.
    out_rows : int64 (nq, k)
        The rows found, nearest first; -1 where there are fewer than k.
    out_distances : float32 (nq, k)
        Their distances; infinity where there are fewer.
    """
    nq, k = out_rows.shape
    sizes[:] = 0
    row = 0
    while row < count:
        filled = 0
        while row < count and filled < _BLOCK:
            if not restricted or has_bit(allowed, row):
                ask_for(rows, row, True)
                block[filled] = row
                filled += 1
            row += 1
        for q in range(nq):
            for i in range(filled):
                distance = distance_to(rows, block[i], queries, q)
                sizes[q] = offer(pools[q], sizes[q], k, distance, block[i])
    for q in range(nq):
        for i in range(k):
            if i < sizes[q]:
                out_rows[q, i] = key_row(pools[q, i])
                out_distances[q, i] = key_distance(pools[q, i]) * scales[q, 0] + scales[q, 1]
            else:
                out_rows[q, i] = -1
                out_distances[q, i] = np.float32(np.inf)
    await_interpreter()

"""Comparison with all rows of a coded graph.

Codes tell which rows cannot be among the nearest; the others are compared with by all that is kept
of them.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from vecdb.kernels.bitset import has_bit
from vecdb.kernels.coded_rows import ask_for, distance_by_code, distance_to, is_beyond, offset_of
from vecdb.kernels.interpreter import await_interpreter
from vecdb.kernels.jit import direct_kernel, inline
from vecdb.kernels.pool import key_distance, key_row, offer
from vecdb.kernels.two_bytes import quantise_query

_BLOCK = 64


@inline
def _next_allowed(row: Any, count: Any, allowed: Any, restricted: Any) -> Any:
    """Return the first allowed row from `row` on, `count` when there is none."""
    while row < count and restricted and not has_bit(allowed, row):
        row += 1
    return row


@direct_kernel
def scan_coded(
    rows: Any, count: Any, queries: Any, allowed: Any, restricted: Any, scales: Any, pools: Any,
    sizes: Any, levels: Any, queried: Any, block: Any, out_rows: Any, out_distances: Any,
) -> None:  # fmt: skip
    """Compare all allowed rows with every query.

    Parameters
    ----------
    rows : CodedRows
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
    levels : int8 (nq, width)
    queried : float64 (nq, 3)
        What `quantise_query` returns of each.
    block : int64 (64,)
        Working memory.
    out_rows : int64 (nq, k)
        The rows found, nearest first; -1 where there are fewer than k.
    out_distances : float32 (nq, k)
        Their distances; infinity where there are fewer.
    """
    nq, k = out_rows.shape
    sizes[:] = 0
    for q in range(nq):
        step, norm, surplus = quantise_query(queries, q, rows.width, levels, q)
        queried[q, 0], queried[q, 1], queried[q, 2] = step, norm, surplus
    row = _next_allowed(0, count, allowed, restricted)
    while row < count:
        filled = 0
        while row < count and filled < _BLOCK:
            ask_for(rows, row, sizes[0] < k)
            block[filled] = row
            filled += 1
            row = _next_allowed(row + 1, count, allowed, restricted)
        for q in range(nq):
            step, norm = np.float32(queried[q, 0]), np.float32(queried[q, 1])
            surplus = np.int64(queried[q, 2])
            for i in range(filled):
                its = block[i]
                if sizes[q] == k:
                    near = distance_by_code(rows, its, queries, q, levels, q, surplus, step, norm)
                    near += offset_of(rows, its)
                    if is_beyond(rows, its, near, step, key_distance(pools[q, k - 1])):
                        continue
                sizes[q] = offer(pools[q], sizes[q], k, distance_to(rows, its, queries, q), its)
    for q in range(nq):
        for i in range(k):
            if i < sizes[q]:
                out_rows[q, i] = key_row(pools[q, i])
                out_distances[q, i] = key_distance(pools[q, i]) * scales[q, 0] + scales[q, 1]
            else:
                out_rows[q, i] = -1
                out_distances[q, i] = np.float32(np.inf)
    await_interpreter()

"""Exact search: every allowed row is compared with every query, in blocks that stay in cache."""

from __future__ import annotations

from typing import Any

import numpy as np

from vecdb.kernels.bitset import has_bit
from vecdb.kernels.distance import (
    COSINE,
    DOT,
    distance,
    distances_four_by_two,
    distances_to_four,
)  # fmt: skip
from vecdb.kernels.interpreter import await_interpreter
from vecdb.kernels.jit import allocating_kernel, direct_kernel, inline
from vecdb.kernels.pool import key_distance, key_row, offer
from vecdb.kernels.simd import prefetch

_BLOCK = 128
_AHEAD = 8
"""Rows that are asked for before their turn, where they are few and far apart."""
_LINE = 64
_SAFE_SQUARE = np.float32(1e-30)


@inline
def unpack_pool(
    pool: Any, size: Any, correction: Any, out_rows: Any, out_distances: Any, q: Any
) -> None:
    """Write a pool's rows and corrected distances to line `q`, padded with -1 and infinity."""
    for i in range(out_rows.shape[1]):
        if i < size:
            out_rows[q, i] = key_row(pool[i])
            out_distances[q, i] = key_distance(pool[i]) + correction
        else:
            out_rows[q, i] = -1
            out_distances[q, i] = np.float32(np.inf)


@inline
def _fill_block(block: Any, row: Any, count: Any, allowed: Any, restricted: Any) -> Any:
    """Put the next allowed rows from `row` on into `block`; return how many, and where to go on."""
    filled = 0
    while row < count and filled < block.shape[0]:
        if not restricted or has_bit(allowed, row):
            block[filled] = row
            filled += 1
        row += 1
    return filled, row


@inline
def offer_block(
    metric: Any, queries: Any, q: Any, rows: Any, dim: Any, scales: Any, block: Any, filled: Any,
    pools: Any, p: Any, size: Any,
) -> Any:  # fmt: skip
    """Offer the rows named by ``block[:filled]`` to pool `p` of query `q`; return its new size.

    `scales`, unless empty, are factors of the rows' cheap distances: inverse norms, for cosine over
    vectors as given.
    """
    scaled = scales.shape[0] > 0
    last = filled - 1
    for i in range(0, filled, 4):
        a = block[i]
        b = block[min(i + 1, last)]
        c = block[min(i + 2, last)]
        d = block[min(i + 3, last)]
        four = distances_to_four(metric, queries, q, rows, a, b, c, d, dim)
        for j in range(min(4, filled - i)):
            row = block[i + j]
            distance = four[j]
            if scaled:
                distance *= scales[row]
            size = offer(pools[p], size, pools.shape[1], distance, row)
    return size


@inline
def _scan_for_four(
    metric: Any, queries: Any, q: Any, rows: Any, dim: Any, block: Any, filled: Any, pools: Any,
    sizes: Any,
) -> None:  # fmt: skip
    """Offer the rows of a block to the pools of queries `q` to `q` + 3."""
    capacity = pools.shape[1]
    last = filled - 1
    for i in range(0, filled, 2):
        a = block[i]
        b = block[min(i + 1, last)]
        eight = distances_four_by_two(metric, queries, q, rows, a, b, dim)
        for j in range(4):
            first, second = eight[2 * j], eight[2 * j + 1]
            sizes[q + j] = offer(pools[q + j], sizes[q + j], capacity, first, a)
            if i < last:
                sizes[q + j] = offer(pools[q + j], sizes[q + j], capacity, second, b)


@allocating_kernel
def scan_rows(
    metric: Any, queries: Any, rows: Any, count: Any, dim: Any, allowed: Any, restricted: Any,
    k: Any, correction: Any, out_rows: Any, out_distances: Any,
) -> None:  # fmt: skip
    """Find the `k` nearest allowed rows of every query by comparing with all of them.

    Parameters
    ----------
    metric : int
        Number of the metric in `vecdb.kernels.distance`.
    queries : float32 (nq, at least dim)
    rows : float32 (at least count, at least dim)
    count, dim : int
        How many rows, and how many floats of each, are compared.
    allowed : uint8 bitset
        The rows that may be returned, when `restricted` is true; unread otherwise.
    k : int
    correction : float32
        What turns a cheap distance into the returned one.
    out_rows : int64 (nq, k)
        The rows found, nearest first; -1 where there are fewer than `k`.
    out_distances : float32 (nq, k)
        Their distances; infinity where there are fewer.
    """
    nq = queries.shape[0]
    pools = np.empty((nq, min(k, max(count, 1))), np.int64)
    sizes = np.zeros(nq, np.int64)
    block = np.empty(_BLOCK, np.int64)
    no_scales = np.empty(0, np.float32)
    row = 0
    while row < count:
        filled, row = _fill_block(block, row, count, allowed, restricted)
        if filled == 0:
            break
        fours = nq // 4 * 4
        for q in range(0, fours, 4):
            _scan_for_four(metric, queries, q, rows, dim, block, filled, pools, sizes)
        for q in range(fours, nq):
            sizes[q] = offer_block(
                metric, queries, q, rows, dim, no_scales, block, filled, pools, q, sizes[q]
            )
    for q in range(nq):
        unpack_pool(pools[q], sizes[q], correction, out_rows, out_distances, q)


@inline
def _squared_norm(vectors: Any, row: Any) -> Any:
    total = np.float64(0.0)
    for i in range(vectors.shape[1]):
        total += np.float64(vectors[row, i]) * np.float64(vectors[row, i])
    return total


@inline
def _exact_distance(metric: Any, queries: Any, q: Any, vectors: Any, row: Any, asked: Any) -> Any:
    """Return the cheap distance of a query to a vector; neither need be of unit norm.

    `asked` is the query's squared norm, read under cosine only.
    """
    dim = vectors.shape[1]
    cheap = distance(metric, queries, q, vectors, row, dim)
    if metric != COSINE:
        return cheap
    square = -distance(DOT, vectors, row, vectors, row, dim)
    if min(square, asked) > _SAFE_SQUARE:
        return cheap / np.float32(np.sqrt(square * asked))
    product = np.float64(0.0)
    for i in range(dim):
        product += np.float64(queries[q, i]) * np.float64(vectors[row, i])
    return np.float32(-product / np.sqrt(_squared_norm(vectors, row) * asked))


@direct_kernel
def rescore(
    metric: Any, queries: Any, vectors: Any, correction: Any, rows: Any, distances: Any
) -> None:
    """Compute the distances of rows again, exactly, and put each line in their order.

    Parameters
    ----------
    metric : int
    queries : float32 (nq, dim)
    vectors : float32 (n, dim)
        Both as given, whatever the metric.
    correction : float32
        What turns a cheap distance into the returned one.
    rows : int64 (nq, k)
        -1 behind the last of a line; changed in place.
    distances : float32 (nq, k)
    """
    lines = vectors.shape[1] * 4 // _LINE
    for q in range(rows.shape[0]):
        asked = _squared_norm(queries, q) if metric == COSINE else 1.0
        for i in range(min(_AHEAD, rows.shape[1])):
            prefetch(vectors, max(rows[q, i], 0), 0, lines)
        for i in range(rows.shape[1]):
            row = rows[q, i]
            if row < 0:
                break
            if i + _AHEAD < rows.shape[1]:
                prefetch(vectors, max(rows[q, i + _AHEAD], 0), 0, lines)
            exact = _exact_distance(metric, queries, q, vectors, row, asked) + correction
            place = i
            while place > 0 and distances[q, place - 1] > exact:
                distances[q, place] = distances[q, place - 1]
                rows[q, place] = rows[q, place - 1]
                place -= 1
            distances[q, place] = exact
            rows[q, place] = row
    await_interpreter()

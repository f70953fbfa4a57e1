"""Exact search over rows with codes of one byte a coordinate beside them.

A row's code says how far it is from a query up to a bound that is certain, by the inequality of
Cauchy and Schwarz: with ``x = x' + r``, where x' is what the code says, and ``q = q' + s``
likewise, ``|<q, x> - <q', x'>| <= |q| |r| + |s| |x'|``. Whatever may be among the k nearest by
these bounds is compared with exactly, so the answer is that of comparing with every row, and a
quarter of the bytes is read.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from vecdb.kernels.bitset import has_bit
from vecdb.kernels.byte_simd import ZERO, dot_bytes
from vecdb.kernels.distance import COSINE, L2
from vecdb.kernels.interpreter import await_interpreter
from vecdb.kernels.jit import direct_kernel, inline, kernel
from vecdb.kernels.pool import key_distance, offer
from vecdb.kernels.scan import offer_block, unpack_pool

STEP, REST, NORM = range(3)
"""What stands in a row's facts: the size of a level, |r| and |x|."""
FACTS = 3

_TOP_LEVEL = 127
_LEAST_INVERTED = np.float32(1e-37)
_EPSILON = np.float32(6e-8)
_TERMS = 64
"""A sum of n products in float32 is wrong by at most about ``(n + _TERMS) * _EPSILON |q| |x|``."""


@inline
def _levels(values: Any, row: Any, dim: Any, shift: Any, out: Any, line: Any) -> Any:
    """Write a row's levels, `shift` added; return their step, |r|, |x| and their sum."""
    most = np.float32(0.0)
    square = np.float64(0.0)
    for i in range(dim):
        most = max(most, abs(values[row, i]))
        square += np.float64(values[row, i]) * np.float64(values[row, i])
    step = most / np.float32(_TOP_LEVEL)
    inverse = np.float32(1.0) / step if step > _LEAST_INVERTED else np.float32(0.0)
    rest = np.float64(0.0)
    total = np.int64(0)
    for i in range(dim):
        level = np.int32(np.floor(values[row, i] * inverse + np.float32(0.5)))
        apart = np.float64(values[row, i]) - np.float64(level) * np.float64(step)
        rest += apart * apart
        total += level
        out[line, i] = level + shift
    return step, np.float32(np.sqrt(rest)), np.float32(np.sqrt(square)), total


@kernel
def encode_bytes(
    vectors: Any, first: Any, last: Any, codes: Any, facts: Any, inverse_norms: Any
) -> None:
    """Encode the rows from `first` to before `last`.

    Parameters
    ----------
    vectors : float32 (at least last, dim)
    first, last : int
    codes : uint8 (at least last, dim rounded up to a multiple of 64)
    facts : float32 (at least last, FACTS)
    inverse_norms : float32 (at least last,)
        0 for a row of zeros, or so nearly that it would be infinite.
    """
    dim = vectors.shape[1]
    for row in range(first, last):
        step, rest, norm, _ = _levels(vectors, row, dim, ZERO, codes, row)
        for i in range(dim, codes.shape[1]):
            codes[row, i] = ZERO
        facts[row, STEP] = step
        facts[row, REST] = rest
        facts[row, NORM] = norm
        inverse_norms[row] = np.float32(1.0) / norm if norm > _LEAST_INVERTED else np.float32(0.0)


@inline
def _bounds(
    metric: Any, product: Any, error: Any, norms: Any, rounded: Any, scales: Any, row: Any
) -> Any:
    """Return the least and the greatest that a row's cheap distance can be."""
    if metric == L2:
        asked, known = norms
        squares = asked * asked + known * known
        middle = squares - np.float32(2.0) * product
        error = np.float32(2.0) * error + rounded * squares
        return middle - error, middle + error
    if metric == COSINE:
        return (-product - error) * scales[row], (-product + error) * scales[row]
    return -product - error, -product + error


@direct_kernel
def scan_bytes(
    metric: Any, queries: Any, vectors: Any, codes: Any, facts: Any, scales: Any, count: Any,
    allowed: Any, restricted: Any, correction: Any, levels: Any, least: Any, near: Any, pools: Any,
    out_rows: Any, out_distances: Any,
) -> None:  # fmt: skip
    """Find the k nearest allowed rows of every query.

    Parameters
    ----------
    metric : int
        Number of the metric in `vecdb.kernels.distance`.
    queries : float32 (nq, dim)
        Of unit norm under cosine.
    vectors : float32 (at least count, dim)
        As given, whatever the metric.
    codes, facts
        What `encode_bytes` wrote of the vectors.
    scales : float32 (at least count,) or (0,)
        The inverse norms that it wrote, under cosine; empty otherwise.
    count : int
        How many rows are compared.
    allowed : uint8 bitset
        The rows that may be returned, when `restricted` is true; unread otherwise.
    correction : float32
        What turns a cheap distance into the returned one.
    levels : int8 (1, width of the codes)
        Working memory, zero behind dim.
    least : float32 (at least count,)
        Working memory.
    near : int64 (at least count,)
        Working memory.
    pools : int64 (1, k or count, whichever is less)
        Working memory.
    out_rows : int64 (nq, k)
        The rows found, nearest first; -1 where there are fewer than k.
    out_distances : float32 (nq, k)
        Their distances; infinity where there are fewer.
    """
    dim, width, capacity = vectors.shape[1], codes.shape[1], pools.shape[1]
    rounded = _EPSILON * np.float32(dim + _TERMS)
    for q in range(queries.shape[0]):
        step, rest, norm, total = _levels(queries, q, dim, 0, levels, 0)
        size = 0
        seen = 0
        for row in range(count):
            if restricted and not has_bit(allowed, row):
                continue
            dot = np.float32(dot_bytes(codes, row, levels, 0, width) - ZERO * total)
            product = dot * step * facts[row, STEP]
            known = facts[row, NORM]
            error = norm * facts[row, REST] + rest * (known + facts[row, REST])
            error = error * (np.float32(1.0) + rounded) + rounded * norm * known
            low, high = _bounds(
                metric, product, error, (norm, known), rounded, scales, row
            )  # fmt: skip
            least[seen] = low
            near[seen] = row
            seen += 1
            size = offer(pools[0], size, capacity, high, row)
        found = seen
        if size == capacity:
            limit = key_distance(pools[0, size - 1])
            found = 0
            for i in range(seen):
                if least[i] <= limit:
                    near[found] = near[i]
                    found += 1
        size = offer_block(
            metric, queries, q, vectors, dim, scales, near, found, pools, 0, 0
        )  # fmt: skip
        unpack_pool(pools[0], size, correction, out_rows, out_distances, q)
    await_interpreter()

"""Which inverted lists are nearest to a query: the centroids are found by codes of their own."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vecdb.kernels.distance import L2, distance, distances_to_four
from vecdb.kernels.heap import heap_push
from vecdb.kernels.ivf_codes import CodeBlocks
from vecdb.kernels.ivf_scan import BLOCK, fill_tables, scan_block
from vecdb.kernels.jit import inline, kernel
from vecdb.kernels.pool import LARGEST_KEY, key_row, offer, pack_key
from vecdb.kernels.rotation import rotate_row
from vecdb.kernels.simd import prefetch

Floats = NDArray[np.float32]

NO_LIMIT = np.float32(2e38)
"""Above every distance, and below that of a place without a code."""


class CodedLists(NamedTuple):
    """Inverted lists of codes as kernels take them."""

    blocks: CodeBlocks
    centroids: Floats
    """(lists, D), rotated."""
    norms: Floats
    """(lists,): squared norms of the centroids."""
    coarse: CodeBlocks
    """Codes of the centroids relative to the mean, of one bit; no blocks when there are few."""
    mean: Floats
    """(1, D), rotated: what the tables of a query are relative to."""
    start: NDArray[np.int64]
    """(lists,): a list's first block."""
    length: NDArray[np.int64]
    """(lists,): how many codes it has."""
    signs: Floats
    """What rotates a query."""
    vectors: Floats
    """(rows, at least dim): for the comparison at the end; (0, 0) when they are not kept."""


class CodeScratch(NamedTuple):
    """Working memory of one thread's search."""

    query: Floats
    """(2, D): the rotated query, and the same relative to the mean."""
    tables: NDArray[np.uint8]
    """(1, 4D), on a cache line."""
    exact: Floats
    """(1, 4D): the tables before rounding."""
    lowers: Floats
    """(1, 32)."""
    sums: NDArray[np.int32]
    """(1, 32)."""
    estimates: Floats
    """(blocks, 32): of the distances of all centroids."""
    histogram: NDArray[np.int64]
    """(bins,): of the estimates."""
    likely: NDArray[np.int64]
    """(lists,): those whose centroids are compared exactly."""
    order: NDArray[np.int64]
    """(lists,): keys of the lists to look at."""
    probed: NDArray[np.uint8]
    """(lists,): 1 for those that are looked at before a heap is needed."""
    pool: NDArray[np.int64]
    """Keys of the best codes, with room for as many as may be compared exactly."""
    best: NDArray[np.int64]
    """(k,): keys of the best rows."""
    waiting: NDArray[np.int64]
    """Slots whose codes are to be read further."""
    waiting_lowers: Floats
    """Their lower bounds."""
    waiting_sums: NDArray[np.int32]
    """Their sums."""


@inline
def _rotate_query(lists: Any, queries: Any, q: Any, work: Any) -> None:
    """Write the rotated query to ``work.query[0]``."""
    for d in range(work.query.shape[1]):
        work.query[0, d] = queries[q, d] if d < queries.shape[1] else np.float32(0)
    rotate_row(work.query, 0, lists.signs)


@inline
def prepare_query(lists: Any, queries: Any, q: Any, work: Any) -> Any:
    """Rotate a query and make its tables; return |q|**2, delta, shift, and the sum over D."""
    dim = work.query.shape[1]
    _rotate_query(lists, queries, q, work)
    squares = np.float32(0)
    total = np.float32(0)
    least = np.float32(0)
    widest = np.float32(0)
    for group in range(dim // 4):
        width = np.float32(0)
        for d in range(4 * group, 4 * group + 4):
            x = work.query[0, d]
            squares += x * x
            x -= lists.mean[0, d]
            work.query[1, d] = x
            total += x
            least += min(x, np.float32(0))
            width += abs(x)
        widest = max(widest, width)
    delta = widest / np.float32(255)
    inverse = np.float32(1) / delta if delta > 0 else np.float32(0)
    fill_tables(work.query, 1, dim, inverse, work.tables, work.exact)
    return squares, delta, least - np.float32(0.5) * total, total


@inline
def _likely_lists(lists: Any, line: Any, work: Any, wanted: Any) -> Any:
    """Write to `work.likely` `wanted` or more lists, those with the nearest centroids by code.

    They are found by a histogram of the estimates: sorting would take longer than estimating.
    """
    count, dim = lists.centroids.shape
    coarse = lists.coarse.codes
    least, greatest = NO_LIMIT, -NO_LIMIT
    for b in range(coarse.shape[0]):
        scan_block(coarse, b, dim, work.tables, line, NO_LIMIT, work.estimates, b, work.sums)
        for j in range(min(BLOCK, count - b * BLOCK)):
            least = min(least, work.estimates[b, j])
            greatest = max(greatest, work.estimates[b, j])
    bins = work.histogram.shape[0]
    scale = np.float32(bins - 1) / max(greatest - least, np.float32(1e-30))
    work.histogram[:] = 0
    for i in range(count):
        work.histogram[np.int64((work.estimates[i // BLOCK, i % BLOCK] - least) * scale)] += 1
    found, last = 0, 0
    while found < wanted:
        found += work.histogram[last]
        last += 1
    size = 0
    for i in range(count):
        if np.int64((work.estimates[i // BLOCK, i % BLOCK] - least) * scale) < last:
            work.likely[size] = i
            size += 1
    return size


@inline
def nearest_lists(lists: Any, delta: Any, shift: Any, work: Any, wanted: Any) -> Any:
    """Write the keys of the `wanted` lists with the nearest centroids to `work.order`, sorted."""
    metric = lists.blocks.metric
    count, dim = lists.centroids.shape
    candidates = count
    likely = wanted + wanted // 4 + 16
    by_codes = 2 * likely < count
    lines = dim // 16
    if by_codes:
        centre = distance(metric, work.query, 0, lists.mean, 0, dim)
        line = (delta, shift, centre)
        candidates = _likely_lists(lists, line, work, likely)
    size = 0
    last = candidates - 1
    for i in range(0, candidates, 4):
        a, b, c, d = i, min(i + 1, last), min(i + 2, last), min(i + 3, last)
        if by_codes:
            a, b, c, d = work.likely[a], work.likely[b], work.likely[c], work.likely[d]
            for j in range(i + 4, min(i + 8, candidates)):
                prefetch(lists.centroids, work.likely[j], 0, lines)
        four = distances_to_four(metric, work.query, 0, lists.centroids, a, b, c, d, dim)
        for j in range(min(4, candidates - i)):
            number = work.likely[i + j] if by_codes else i + j
            size = offer(work.order, size, wanted, four[j], number)
    for i in range(size):
        work.probed[key_row(work.order[i])] = 1
    return size


@inline
def heap_of_lists(lists: Any, work: Any) -> Any:
    """Make a heap in `work.order` of the keys of all lists that were not among the nearest."""
    count, dim = lists.centroids.shape
    size = 0
    for a in range(count):
        if work.probed[a] == 0:
            near = distance(lists.blocks.metric, work.query, 0, lists.centroids, a, dim)
            size = heap_push(work.order, size, pack_key(near, a))
    return size


@kernel
def nearest_landmarks(lists: Any, queries: Any, landmarks: Any, work: Any, out: Any) -> None:
    """Write to `out` (nq,) the number of the landmark, float32 (n, D), nearest to each query."""
    dim = work.query.shape[1]
    last = landmarks.shape[0] - 1
    for q in range(queries.shape[0]):
        _rotate_query(lists, queries, q, work)
        least = np.int64(LARGEST_KEY)
        for a in range(0, last + 1, 4):
            b, c, d = min(a + 1, last), min(a + 2, last), min(a + 3, last)
            four = distances_to_four(L2, work.query, 0, landmarks, a, b, c, d, dim)
            for j in range(min(4, last + 1 - a)):
                least = min(least, pack_key(four[j], a + j))
        out[q] = key_row(least)

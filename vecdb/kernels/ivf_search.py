"""Search in inverted lists of RaBitQ codes.

The first bits of all codes in the nearest lists are bounded from below, 32 at a time; only codes
whose bound is better than the k-th estimate so far are read further; the best of those are
compared exactly at the end, where the vectors are kept.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vecdb.kernels.bitset import has_bit
from vecdb.kernels.distance import L2, distance, distances_to_four
from vecdb.kernels.heap import heap_pop, heap_push
from vecdb.kernels.ivf_codes import CodeBlocks
from vecdb.kernels.ivf_scan import BLOCK, fill_tables, lowest_bit, scan_block
from vecdb.kernels.jit import inline, kernel
from vecdb.kernels.pool import LARGEST_KEY, key_distance, key_row, offer, pack_key
from vecdb.kernels.rabitq import ERROR_OF_FIRST_BIT, plane_sum
from vecdb.kernels.rotation import rotate_row
from vecdb.kernels.scan import unpack_pool
from vecdb.kernels.simd import prefetch

Floats = NDArray[np.float32]

_NO_LIMIT = np.float32(2e38)
_SLACK = np.float32(1.9 * 0.2887 / 2)
"""Of a sum of D / 4 table entries, over delta and the square root of D: its rounding error."""
_COARSE = np.float32(0.04)
"""The share of the distance to a list's centre up to which the tables' rounding does not matter."""
_ENOUGH_WAITING = 16
"""Codes to read further, at which that is done: until then their memory is on its way."""


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
    """Keys of the best codes, as many as are compared exactly."""
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
def _prepare_query(lists: Any, queries: Any, q: Any, work: Any) -> Any:
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
    least, greatest = _NO_LIMIT, -_NO_LIMIT
    for b in range(coarse.shape[0]):
        scan_block(coarse, b, dim, work.tables, line, _NO_LIMIT, work.estimates, b, work.sums)
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
def _nearest_lists(lists: Any, delta: Any, shift: Any, work: Any, wanted: Any) -> Any:
    """Write the keys of the `wanted` lists with the nearest centroids to `work.order`, sorted."""
    metric = lists.blocks.metric
    count, dim = lists.centroids.shape
    candidates = count
    likely = wanted + wanted // 2 + 16
    by_codes = 2 * likely < count
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
        four = distances_to_four(metric, work.query, 0, lists.centroids, a, b, c, d, dim)
        for j in range(min(4, candidates - i)):
            number = work.likely[i + j] if by_codes else i + j
            size = offer(work.order, size, wanted, four[j], number)
    for i in range(size):
        work.probed[key_row(work.order[i])] = 1
    return size


@inline
def _heap_of_lists(lists: Any, work: Any) -> Any:
    """Make a heap in `work.order` of the keys of all lists that were not among the nearest."""
    count, dim = lists.centroids.shape
    size = 0
    for a in range(count):
        if work.probed[a] == 0:
            near = distance(lists.blocks.metric, work.query, 0, lists.centroids, a, dim)
            size = heap_push(work.order, size, pack_key(near, a))
    return size


@inline
def _exact_sum(blocks: Any, slot: Any, exact: Any, groups: Any) -> Any:
    """Return the query's sum over the first bits of a code, from the tables before rounding."""
    b, j = slot // BLOCK, slot % BLOCK
    shift = j // 16 * 4
    total = np.float32(0)
    for group in range(groups):
        nibble = (blocks.codes[b, group * 16 + j % 16] >> shift) & 15
        total += exact[0, group * 16 + nibble]
    return total


@inline
def _allowed_in_block(blocks: Any, b: Any, allowed: Any) -> Any:
    """Return the bits of a block's codes whose rows are allowed, and how many they are."""
    bits = np.int64(0)
    count = 0
    for j in range(BLOCK):
        row = np.int64(blocks.rows[b, j])
        if row >= 0 and has_bit(allowed, row):
            bits |= np.int64(1) << np.int64(j)
            count += 1
    return bits, count


@inline
def _scan_block(
    blocks: Any, b: Any, line: Any, limit: Any, allowed: Any, restricted: Any, work: Any,
    waiting: Any,
) -> Any:  # fmt: skip
    """Collect the codes of a block whose lower bounds are below `limit`.

    Returns
    -------
    tuple of int
        How many wait in `work.waiting`, and how many places were compared: of all 32, if not
        restricted, also where there is no code.
    """
    dim = work.query.shape[1]
    permitted, compared = np.int64(0xFFFFFFFF), BLOCK
    if restricted:
        permitted, compared = _allowed_in_block(blocks, b, allowed)
        if compared == 0:
            return waiting, 0
    bits = permitted & scan_block(
        blocks.codes, b, dim, work.tables, line, limit, work.lowers, 0, work.sums
    )
    while bits != 0:
        j = lowest_bit(bits)
        bits &= bits - 1
        work.waiting[waiting] = b * BLOCK + j
        work.waiting_lowers[waiting] = work.lowers[0, j]
        work.waiting_sums[waiting] = work.sums[0, j]
        waiting += 1
        if blocks.bits > 1:
            row = np.int64(blocks.rows[b, j])
            prefetch(blocks.extra, row, 0, (blocks.extra.shape[1] + 63) // 64)
    return waiting, compared


@inline
def _estimate(
    lists: Any, slot: Any, found: Any, line: Any, total: Any, precise: Any, work: Any
) -> Any:
    """Return the estimate of a code's cheap distance from all of its bits."""
    blocks = lists.blocks
    dim = lists.centroids.shape[1]
    b, at = slot // BLOCK, dim + slot % BLOCK
    if precise:
        # What the first bits add up to: <z, q> with z of +-1/2.
        first = _exact_sum(blocks, slot, work.exact, dim // 4) - np.float32(0.5) * total
    else:
        first = line[0] * np.float32(found) + line[1]
    if blocks.bits == 1:
        return blocks.floats[b, at] + line[2] + blocks.floats[b, at + BLOCK] * first
    planes = blocks.bits - 1
    row = np.int64(blocks.rows[b, slot % BLOCK])
    rest = plane_sum(blocks.extra, row, planes, work.query, 1, dim)
    # u = 2**planes * u_1 + u_rest, and z = u - (2**bits - 1) / 2
    power = np.float32(1 << planes)
    along = power * first + rest - np.float32(0.5) * (power - np.float32(1)) * total
    behind = planes * dim // 32
    add, scale = blocks.extra_floats[row, behind], blocks.extra_floats[row, behind + 1]
    return add + line[2] + scale * along


@inline
def _read_further(
    lists: Any, queries: Any, q: Any, waiting: Any, k: Any, line: Any, total: Any, precise: Any,
    size: Any, limit: Any, work: Any,
) -> Any:  # fmt: skip
    """Offer the codes that wait to the pool; return its size, and the k-th best estimate."""
    kept = lists.vectors.shape[0] > 0
    capacity = work.pool.shape[0]
    for i in range(waiting):
        if not work.waiting_lowers[i] < limit:
            continue
        slot = work.waiting[i]
        if kept and lists.blocks.bits == 1:
            row = lists.blocks.rows[slot // BLOCK, slot % BLOCK]
            near = distance(
                lists.blocks.metric, queries, q, lists.vectors, np.int64(row), queries.shape[1]
            )
        else:
            near = _estimate(lists, slot, work.waiting_sums[i], line, total, precise, work)
        size = offer(work.pool, size, capacity, near, slot)
        if size >= k:
            limit = key_distance(work.pool[k - 1])
    return size, limit


@inline
def _compare_exactly(lists: Any, queries: Any, q: Any, size: Any, work: Any) -> Any:
    """Put the best rows of the pool's slots into `work.best`; return how many."""
    blocks = lists.blocks
    width = queries.shape[1]
    kept = lists.vectors.shape[0] > 0
    for i in range(size):
        slot = key_row(work.pool[i])
        row = np.int64(blocks.rows[slot // BLOCK, slot % BLOCK])
        # Slots become rows in place; the estimates stay above.
        work.pool[i] = pack_key(key_distance(work.pool[i]), row)
        if kept:
            prefetch(lists.vectors, row, 0, (width + 15) // 16)
    found = 0
    capacity = work.best.shape[0]
    last = size - 1
    for i in range(0, size, 4):
        a = key_row(work.pool[i])
        if not kept:
            for j in range(i, min(i + 4, size)):
                near, row = key_distance(work.pool[j]), key_row(work.pool[j])
                found = offer(work.best, found, capacity, near, row)
            continue
        b = key_row(work.pool[min(i + 1, last)])
        c = key_row(work.pool[min(i + 2, last)])
        d = key_row(work.pool[min(i + 3, last)])
        four = distances_to_four(
            blocks.metric, queries, q, lists.vectors, a, b, c, d, width
        )  # fmt: skip
        for j in range(min(4, size - i)):
            row = key_row(work.pool[i + j])
            found = offer(work.best, found, capacity, four[j], row)
    return found


@inline
def _distance_to_centre(lists: Any, key: Any, squares: Any) -> Any:
    """Return the cheap distance of a query to a list's centroid, and the Euclidean one."""
    centre = key_distance(key)
    if lists.blocks.metric == L2:
        return centre, np.sqrt(max(centre, np.float32(0)))
    both = squares + lists.norms[key_row(key)]
    apart = max(both + np.float32(2) * centre, np.float32(0))
    return centre, np.sqrt(apart + np.float32(1e-6) * both)


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


@inline
def _ahead(lists: Any, work: Any, probed: Any, nearest: Any, place: Any) -> Any:
    """Return the block at this place of the list that is next, which is to be fetched; -1 for none.

    The processor sees what comes within a page, and not where the next list is.
    """
    if probed >= nearest:
        return np.int64(-1)
    number = key_row(work.order[probed])
    if place * BLOCK >= lists.length[number]:
        return np.int64(-1)
    return lists.start[number] + place


@kernel
def search_codes(
    lists: Any, queries: Any, probes: Any, sorted_lists: Any, enough: Any, allowed: Any,
    restricted: Any, k: Any, correction: Any, work: Any, out_rows: Any, out_distances: Any,
) -> None:  # fmt: skip
    """Search the lists nearest to each query.

    Parameters
    ----------
    lists : CodedLists
    queries : float32 (nq, at least dim)
    probes : int
        How many lists are looked at, at least. More are while fewer than `enough` codes have been
        compared.
    sorted_lists : int
        How many lists are sorted at once; should more be needed, all are.
    enough : int
    allowed : uint8 bitset
        The rows that may be returned, when `restricted` is true; unread otherwise.
    k : int
    correction : float32
        What turns a cheap distance into the returned one.
    work : CodeScratch
    out_rows : int64 (nq, k)
        The rows found, nearest first; -1 where there are fewer than k.
    out_distances : float32 (nq, k)
        Their distances; infinity where there are fewer.
    """
    count = lists.centroids.shape[0]
    blocks = lists.blocks
    kept = lists.vectors.shape[0] > 0
    lines = blocks.codes.shape[1] // 64
    for q in range(queries.shape[0]):
        squares, delta, shift, total = _prepare_query(lists, queries, q, work)
        slack = _SLACK * delta * np.sqrt(np.float32(work.query.shape[1]))
        work.probed[:] = 0
        nearest = _nearest_lists(lists, delta, shift, work, sorted_lists)
        left = -1
        size, compared, probed = 0, 0, 0
        limit = _NO_LIMIT
        while probed < count and (probed < probes or compared < enough):
            if probed < nearest:
                key = work.order[probed]
            else:
                if left < 0:
                    left = _heap_of_lists(lists, work)
                key, left = heap_pop(work.order, left)
            probed += 1
            number = key_row(key)
            centre, spread = _distance_to_centre(lists, key, squares)
            bounded = (delta, shift + slack + ERROR_OF_FIRST_BIT * spread, centre)
            line = (delta, shift, centre)
            precise = not kept or slack > _COARSE * spread
            first = lists.start[number]
            last = first + (lists.length[number] + BLOCK - 1) // BLOCK
            waiting = 0
            for b in range(first, last):
                ahead = _ahead(lists, work, probed, nearest, b - first)
                if ahead >= 0:
                    prefetch(blocks.codes, ahead, 0, lines)
                waiting, seen = _scan_block(
                    blocks, b, bounded, limit, allowed, restricted, work, waiting
                )
                compared += min(seen, lists.length[number] - (b - first) * BLOCK)
                if waiting >= _ENOUGH_WAITING or b == last - 1:
                    size, limit = _read_further(
                        lists, queries, q, waiting, k, line, total, precise, size, limit, work
                    )
                    waiting = 0
        found = _compare_exactly(lists, queries, q, size, work)
        unpack_pool(work.best, found, correction, out_rows, out_distances, q)

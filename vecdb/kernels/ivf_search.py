"""Search in inverted lists of RaBitQ codes.

The first bits of all codes in the nearest lists are bounded from below, 32 at a time; only codes
whose bound is better than the k-th estimate so far are read further; the best of those are
compared exactly at the end, where the vectors are kept.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from vecdb.kernels.bitset import has_bit
from vecdb.kernels.distance import DOT, L2, distance, distances_to_four
from vecdb.kernels.heap import heap_pop
from vecdb.kernels.interpreter import await_interpreter
from vecdb.kernels.ivf import goes_on
from vecdb.kernels.ivf_coarse import NO_LIMIT, heap_of_lists, nearest_lists, prepare_query
from vecdb.kernels.ivf_scan import BLOCK, scan_block
from vecdb.kernels.jit import direct_kernel, inline
from vecdb.kernels.pool import key_distance, key_row, offer, pack_key
from vecdb.kernels.rabitq import ERROR_OF_FIRST_BIT, plane_sum
from vecdb.kernels.scan import unpack_pool
from vecdb.kernels.simd import lowest_bit, prefetch

_SLACK = np.float32(1.9 * 0.2887 / 2)
"""Of a sum of D / 4 table entries, over delta and the square root of D: its rounding error."""
_COARSE = np.float32(0.04)
"""The share of the distance to a list's centre up to which the tables' rounding does not matter."""
_MORE_AGAIN = 8
"""How many times as many vectors are compared where it is not sure that those were enough."""
_FEW_LATE = 50
"""It is sure where less than one in so many results stood in the worse half of those beyond k."""
_ENOUGH_WAITING = 16
"""Codes to read further, at which that is done: until then their memory is on its way."""


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
def compares_at_once(bits: Any, metric: Any) -> Any:
    """Tell whether vectors that are kept are compared as soon as a code says that they may count.

    Under dot estimates are off by the more, the longer a vector is: the longest would take the
    places of those that are ranked anew at the end.
    """
    return bits == 1 or metric == DOT


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
    """Return the estimate of a code's cheap distance from all of its bits, and its scale.

    The scale, which is never above 0, times `ERROR_OF_FIRST_BIT` and the distance of the query to
    the centroid is the standard deviation of the estimate's error.
    """
    blocks = lists.blocks
    dim = lists.centroids.shape[1]
    b, at = slot // BLOCK, dim + slot % BLOCK
    if precise:
        # What the first bits add up to: <z, q> with z of +-1/2.
        first = _exact_sum(blocks, slot, work.exact, dim // 4) - np.float32(0.5) * total
    else:
        first = line[0] * np.float32(found) + line[1]
    if blocks.bits == 1:
        factor = blocks.floats[b, at + BLOCK]
        return blocks.floats[b, at] + line[2] + factor * first, factor
    planes = blocks.bits - 1
    row = np.int64(blocks.rows[b, slot % BLOCK])
    rest = plane_sum(blocks.extra, row, planes, work.query, 1, dim)
    # u = 2**planes * u_1 + u_rest, and z = u - (2**bits - 1) / 2
    power = np.float32(1 << planes)
    along = power * first + rest - np.float32(0.5) * (power - np.float32(1)) * total
    behind = planes * dim // 32
    add, scale = blocks.extra_floats[row, behind], blocks.extra_floats[row, behind + 1]
    return add + line[2] + scale * along, scale


@inline
def _read_further(
    lists: Any, queries: Any, q: Any, waiting: Any, k: Any, line: Any, total: Any, precise: Any,
    doubt: Any, size: Any, capacity: Any, limit: Any, work: Any,
) -> Any:  # fmt: skip
    """Offer the codes that wait to the pool; return its size, and the k-th best distance in it.

    In it are estimates, or, where vectors are compared at once, distances. `doubt`, times a code's
    scale, is by how much its estimate may be too large.
    """
    bits = lists.blocks.bits
    at_once = lists.vectors.shape[0] > 0 and compares_at_once(bits, lists.blocks.metric)
    for i in range(waiting):
        if not work.waiting_lowers[i] < limit:
            continue
        slot = work.waiting[i]
        near = np.float32(0.0)
        if not at_once or bits > 1:
            near, scale = _estimate(lists, slot, work.waiting_sums[i], line, total, precise, work)
            if at_once and not near + scale * doubt < limit:
                continue
        if at_once:
            row = lists.blocks.rows[slot // BLOCK, slot % BLOCK]
            near = distance(
                lists.blocks.metric, queries, q, lists.vectors, np.int64(row), queries.shape[1]
            )
        size = offer(work.pool, size, capacity, near, slot)
        if size >= k:
            limit = key_distance(work.pool[k - 1])
    return size, limit


@inline
def _compare_exactly(
    lists: Any, queries: Any, q: Any, size: Any, last_half: Any, work: Any
) -> Any:  # fmt: skip
    """Put the best rows of the pool's slots into `work.best`.

    Returns
    -------
    tuple of int
        How many, and how many of those from place `last_half` on were among the best so far.
    """
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
    found, late = 0, 0
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
            if i + j >= last_half and pack_key(four[j], row) < work.best[capacity - 1]:
                late += 1
            found = offer(work.best, found, capacity, four[j], row)
    return found, late


@inline
def _distance_to_centre(lists: Any, key: Any, squares: Any) -> Any:
    """Return the cheap distance of a query to a list's centroid, and the Euclidean one."""
    centre = key_distance(key)
    if lists.blocks.metric == L2:
        return centre, np.sqrt(max(centre, np.float32(0)))
    both = squares + lists.norms[key_row(key)]
    apart = max(both + np.float32(2) * centre, np.float32(0))
    return centre, np.sqrt(apart + np.float32(1e-6) * both)


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


@direct_kernel
def search_codes(
    lists: Any, queries: Any, probes: Any, sorted_lists: Any, enough: Any, share: Any,
    allowed: Any, restricted: Any, k: Any, compared_exactly: Any, deviations: Any,
    correction: Any, work: Any, out_rows: Any, out_distances: Any,
) -> None:  # fmt: skip
    """Search the lists nearest to each query.

    Parameters
    ----------
    lists : CodedLists
    queries : float32 (nq, at least dim)
    probes : int
        How many lists are looked at, at least; more as `vecdb.kernels.ivf.goes_on` says.
    sorted_lists : int
        How many lists are sorted at once; should more be needed, all are.
    enough : int
        How many codes are compared, at least.
    share : float
        Of the rows, those that may be returned.
    allowed : uint8 bitset
        The rows that may be returned, when `restricted` is true; unread otherwise.
    k : int
    compared_exactly : int
        How many of the best codes' vectors are, at least.
    deviations : float32
        How many standard deviations below its estimate a distance is thought possible: the higher,
        the more codes are read further.
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
        squares, delta, shift, total = prepare_query(lists, queries, q, work)
        slack = _SLACK * delta * np.sqrt(np.float32(work.query.shape[1]))
        # Where the last that were compared are no worse than the first, so may those be that were
        # left out: codes tell nothing of rows that lie together far from their centroid.
        capacity, found, unsure = compared_exactly, 0, True
        while unsure:
            work.probed[:] = 0
            nearest = nearest_lists(lists, delta, shift, work, sorted_lists)
            left = -1
            size, compared, listed, probed = 0, 0, 0, 0
            limit = NO_LIMIT
            while probed < count and (probed < probes or goes_on(compared, listed, enough, share)):
                if probed < nearest:
                    key = work.order[probed]
                else:
                    if left < 0:
                        left = heap_of_lists(lists, work)
                    key, left = heap_pop(work.order, left)
                probed += 1
                number = key_row(key)
                centre, spread = _distance_to_centre(lists, key, squares)
                doubt = deviations * ERROR_OF_FIRST_BIT * spread
                bounded = (delta, shift + slack + doubt, centre)
                line = (delta, shift, centre)
                precise = not kept or slack > _COARSE * spread
                listed += lists.length[number]
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
                            lists, queries, q, waiting, k, line, total, precise, doubt, size,
                            capacity, limit, work,
                        )  # fmt: skip
                        waiting = 0
            last_half = k + (capacity - k) // 2
            found, late = _compare_exactly(lists, queries, q, size, last_half, work)
            unsure = late * _FEW_LATE > k and size == capacity and capacity < work.pool.shape[0]
            capacity = min(_MORE_AGAIN * capacity, work.pool.shape[0])
        unpack_pool(work.best, found, correction, out_rows, out_distances, q)
    await_interpreter()

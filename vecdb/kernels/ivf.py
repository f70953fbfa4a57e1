"""Search in inverted lists: vectors grouped by their nearest centroid, each list contiguous."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vecdb.kernels.bitset import has_bit
from vecdb.kernels.distance import distances_to_four
from vecdb.kernels.heap import heap_pop, heap_push
from vecdb.kernels.jit import allocating_kernel, inline
from vecdb.kernels.pool import key_row, pack_key
from vecdb.kernels.scan import offer_block, unpack_pool

_BLOCK = 128


class Lists(NamedTuple):
    """Inverted lists as kernels take them."""

    centroids: NDArray[np.float32]
    """(lists, dim)."""
    vectors: NDArray[np.float32]
    """(slots, dim): the vectors of list l stand from slot ``start[l]`` on."""
    rows: NDArray[np.int32]
    """(slots,): the row number of each vector."""
    start: NDArray[np.int64]
    """(lists,): a list's first slot."""
    length: NDArray[np.int64]
    """(lists,): how many vectors it has."""
    metric: int
    """Number of the metric in `vecdb.kernels.distance`."""


@inline
def goes_on(compared: Any, seen: Any, enough: Any, share: Any) -> Any:
    """Tell whether more lists are to be looked at after those that come first.

    At least `enough` vectors are compared. Where a smaller share of those `seen` may be returned
    than of all, the nearest of these lie elsewhere, and as many times more are.
    """
    if compared < enough:
        return True
    expected = share * seen
    return compared < expected and compared * compared < enough * expected


@inline
def _heap_of_lists(lists: Any, queries: Any, q: Any, heap: Any) -> None:
    """Fill `heap` (lists,) with the keys of all lists, the one with the nearest centroid first."""
    count, dim = lists.centroids.shape
    last = count - 1
    for a in range(0, count, 4):
        b, c, d = min(a + 1, last), min(a + 2, last), min(a + 3, last)
        four = distances_to_four(lists.metric, queries, q, lists.centroids, a, b, c, d, dim)
        for j in range(min(4, count - a)):
            heap_push(heap, a + j, pack_key(four[j], a + j))


@inline
def _fill_from_list(
    lists: Any, slot: Any, end: Any, allowed: Any, restricted: Any, block: Any
) -> Any:
    """Put the next allowed slots of a list into `block`; return how many, and where to go on."""
    filled = 0
    while slot < end and filled < _BLOCK:
        if not restricted or has_bit(allowed, np.int64(lists.rows[slot])):
            block[filled] = slot
            filled += 1
        slot += 1
    return filled, slot


@allocating_kernel
def search_lists(
    lists: Any, queries: Any, probes: Any, enough: Any, share: Any, allowed: Any, restricted: Any,
    k: Any, correction: Any, out_rows: Any, out_distances: Any,
) -> None:  # fmt: skip
    """Compare each query with the vectors of the nearest lists.

    Parameters
    ----------
    lists : Lists
    queries : float32 (nq, dim)
    probes : int
        How many lists are looked at, at least; more as `goes_on` says.
    enough : int
        How many vectors are compared, at least.
    share : float
        Of the rows, those that may be returned.
    allowed : uint8 bitset
        The rows that may be returned, when `restricted` is true; unread otherwise.
    k : int
    correction : float32
        What turns a cheap distance into the returned one.
    out_rows : int64 (nq, k)
        The rows found, nearest first; -1 where there are fewer than k.
    out_distances : float32 (nq, k)
        Their distances; infinity where there are fewer.
    """
    dim = lists.centroids.shape[1]
    no_scales = np.empty(0, np.float32)
    block = np.empty(_BLOCK, np.int64)
    heap = np.empty(lists.centroids.shape[0], np.int64)
    best = np.empty((1, k), np.int64)
    for q in range(queries.shape[0]):
        _heap_of_lists(lists, queries, q, heap)
        waiting = heap.shape[0]
        size = 0
        compared, seen, probed = 0, 0, 0
        while waiting > 0 and (probed < probes or goes_on(compared, seen, enough, share)):
            key, waiting = heap_pop(heap, waiting)
            number = key_row(key)
            probed += 1
            slot = lists.start[number]
            end = slot + lists.length[number]
            seen += lists.length[number]
            while slot < end:
                filled, slot = _fill_from_list(lists, slot, end, allowed, restricted, block)
                size = offer_block(
                    lists.metric, queries, q, lists.vectors, dim, no_scales, block, filled,
                    best, 0, size,
                )  # fmt: skip
                compared += filled
        unpack_pool(best[0], size, correction, out_rows, out_distances, q)
        for i in range(size):
            out_rows[q, i] = lists.rows[out_rows[q, i]]

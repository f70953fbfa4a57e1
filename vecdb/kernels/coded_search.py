"""Search in a graph whose rows carry their neighbours' codes (SymphonyQG, Gou et al. 2025).

The pool of a query holds the nodes met, sorted by the estimates of their distances. A node may be
in it several times, with the estimates from several of its neighbours; it is marked when it is
expanded. Its own distance, then known exactly, decides over the result.

A search waits for memory half of the time. So the queries of a batch go in pairs and take turns:
while one computes, the next row of the other is on its way.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vecdb.kernels.bitset import has_bit
from vecdb.kernels.code_simd import (
    BLOCK,
    PLANES,
    WORD,
    count_below,
    estimate_block,
    l2_to_levels,
    lowest_bit,
    plane_word,
)
from vecdb.kernels.coded_rows import ids_of, tail_of
from vecdb.kernels.jit import inline, kernel
from vecdb.kernels.pool import EXPANDED, LARGEST_KEY, key_distance, key_row, pack_key
from vecdb.kernels.simd import move_up, prefetch

LANES = 2
"""Queries that take turns; more were no faster."""

_TOP_LEVEL = 7
_LINE = 64

_QUERY, _SIZE, _CURSOR, _NODE, _FOUND, _SEEN, _MATCHED = range(7)
_STEP, _HALF, _NORM = range(3)
STATE = 7
SCALARS = 3


class Lanes(NamedTuple):
    """Working memory, a line for each query that is under way.

    No bit of `visited` is set between calls; of the rest nothing is depended on.
    """

    visited: NDArray[np.uint8]
    """(lanes, bytes): at least one bit for each row; the rows that were expanded."""
    expanded: NDArray[np.int32]
    """(lanes, n): those rows, as far as there is room."""
    pool: NDArray[np.int64]
    """(lanes * `pool_stride(ef)`,): keys by estimate."""
    best: NDArray[np.int64]
    """(lanes * `pool_stride(k)`,): the keys of expanded rows by distance."""
    fresh: NDArray[np.int64]
    """(lanes, 32): keys on their way into the pool."""
    estimates: NDArray[np.float32]
    """(lanes, 32)."""
    levels: NDArray[np.int8]
    """(lanes, width): a query's coordinates, quantised."""
    planes: NDArray[np.int64]
    """(lanes, width / 16): their bits, plane by plane within a word."""
    state: NDArray[np.int64]
    """(lanes, STATE)."""
    scalars: NDArray[np.float32]
    """(lanes, SCALARS)."""


def pool_stride(size: int) -> int:
    """Return the room that a pool of `size` keys takes: `count_below` reads eight at once."""
    return -(-size // 8) * 8


@inline
def room_of(size: Any) -> Any:
    """Return `pool_stride(size)`."""
    return (size + 7) // 8 * 8


@inline
def _prepare(queries: Any, q: Any, width: Any, lanes: Any, lane: Any) -> None:
    """Quantise a query to 4 bits a coordinate, and take them apart into bit planes."""
    levels, planes = lanes.levels, lanes.planes
    most = np.float32(0.0)
    for i in range(width):
        most = max(most, abs(queries[q, i]))
    step = most / np.float32(_TOP_LEVEL)
    inverse = np.float32(1.0) / step if step > np.float32(1e-37) else np.float32(0.0)
    total = np.int32(0)
    norm = np.float32(0.0)
    for i in range(width):
        norm += queries[q, i] * queries[q, i]
        level = np.int32(np.floor(queries[q, i] * inverse + np.float32(0.5)))
        total += level
        levels[lane, i] = np.int8(level)
    for word in range(width // WORD):
        for bit in range(PLANES):
            planes[lane, word * PLANES + bit] = plane_word(levels, lane, word, bit)
    lanes.scalars[lane, _STEP] = step
    lanes.scalars[lane, _HALF] = np.float32(0.5) * step * np.float32(total)
    lanes.scalars[lane, _NORM] = norm


@inline
def insert_sorted(keys: Any, first: Any, size: Any, capacity: Any, key: Any) -> None:
    """Insert into the sorted ``keys[first:first + size]``; the last falls out when it is full."""
    place = count_below(keys, first, size, key)
    last = size if size < capacity else capacity - 1
    if last > place:
        move_up(keys, first + place, first + last, 1)
    keys[first + place] = key


@inline
def merge_sorted(
    keys: Any, first: Any, size: Any, capacity: Any, fresh: Any, lane: Any, count: Any
) -> Any:
    """Merge the sorted ``fresh[lane, :count]`` into ``keys[first:first + size]``.

    Returns
    -------
    int
        Where the first of them came to stand.
    """
    end = size
    for i in range(count - 1, -1, -1):
        key = fresh[lane, i]
        place = count_below(keys, first, end, key)
        stop = min(end, capacity - i - 1)
        if stop > place:
            move_up(keys, first + place, first + stop, i + 1)
        if place + i < capacity:
            keys[first + place + i] = key
        end = place
    return end


@inline
def _offer_neighbours(rows: Any, row: Any, lanes: Any, lane: Any, base: Any, ef: Any) -> None:
    """Put a row's neighbours into the lane's pool, as far as their estimates are good enough.

    `base` is the squared distance of the row to the query, its offset left out.
    """
    pool, fresh, visited, estimates = lanes.pool, lanes.fresh, lanes.visited, lanes.estimates
    state, scalars = lanes.state, lanes.scalars
    first = lane * room_of(ef)
    size, cursor = state[lane, _SIZE], state[lane, _CURSOR]
    words = rows.width // WORD
    for block in range(rows.degree // BLOCK):
        ids = ids_of(rows, block)
        byte = 4 * (ids - 2 * BLOCK) - words * 8 * BLOCK
        limit = key_distance(pool[first + ef - 1]) if size == ef else np.float32(np.inf)
        mask = estimate_block(
            rows.bytes, row, byte, lanes.planes, lane, words, scalars[lane, _STEP],
            scalars[lane, _HALF], base, limit, estimates,
        )  # fmt: skip
        count = 0
        while mask != 0:
            j = lowest_bit(mask)
            mask &= mask - 1
            node = np.int64(rows.ids[row, ids + j])
            if (visited[lane, node >> 3] >> (node & 7)) & 1 != 0:
                continue
            key = pack_key(estimates[lane, j], node)
            i = count
            while i > 0 and fresh[lane, i - 1] > key:
                fresh[lane, i] = fresh[lane, i - 1]
                i -= 1
            fresh[lane, i] = key
            count += 1
        if count > 0:
            place = merge_sorted(pool, first, size, ef, fresh, lane, count)
            size = min(size + count, ef)
            cursor = min(cursor, place)
    state[lane, _SIZE] = size
    state[lane, _CURSOR] = cursor


@inline
def is_allowed(allowed: Any, twins: Any, row: Any) -> Any:
    """Tell whether a row or one of its twins may be returned."""
    while row >= 0:
        if has_bit(allowed, row):
            return True
        row = np.int64(twins[row])
    return False


@inline
def _expand(
    rows: Any, queries: Any, lanes: Any, lane: Any, ef: Any, keep: Any, returned: Any, alone: Any
) -> None:
    """Compare with the lane's node, keep it if it may be returned, and look at its neighbours."""
    state, best = lanes.state, lanes.best
    row = state[lane, _NODE]
    lanes.visited[lane, row >> 3] |= np.uint8(1 << (row & 7))
    seen = state[lane, _SEEN]
    if seen < lanes.expanded.shape[1]:
        lanes.expanded[lane, seen] = row
    state[lane, _SEEN] = seen + 1
    tail = tail_of(rows)
    base = l2_to_levels(
        rows.bytes, row, queries, state[lane, _QUERY], rows.width, rows.floats[row, tail]
    )
    if returned:
        state[lane, _MATCHED] += 1
        found = state[lane, _FOUND]
        key = pack_key(base + rows.floats[row, tail + 1], row)
        first = lane * room_of(keep)
        if found < keep or key < best[first + keep - 1]:
            insert_sorted(best, first, found, keep, key)
            state[lane, _FOUND] = min(found + 1, keep)
    first, cursor = lane * room_of(ef), state[lane, _CURSOR]
    if alone and cursor < state[lane, _SIZE]:
        # In half of the cases the best candidate so far is still the best afterwards.
        likely = key_row(lanes.pool[first + cursor])
        prefetch(rows.bytes, likely, 0, rows.bytes.shape[1] // _LINE)
    _offer_neighbours(rows, row, lanes, lane, base, ef)


@inline
def _advance(rows: Any, lanes: Any, lane: Any, ef: Any) -> Any:
    """Make the nearest candidate not expanded yet the lane's node; return whether there is one."""
    state, pool, visited = lanes.state, lanes.pool, lanes.visited
    first = lane * room_of(ef)
    cursor, size = state[lane, _CURSOR], state[lane, _SIZE]
    while cursor < size:
        key = pool[first + cursor]
        pool[first + cursor] = key | EXPANDED
        cursor += 1
        node = key_row(key)
        if key & EXPANDED or (visited[lane, node >> 3] >> (node & 7)) & 1 != 0:
            continue
        prefetch(rows.bytes, node, 0, rows.bytes.shape[1] // _LINE)
        state[lane, _NODE] = node
        state[lane, _CURSOR] = cursor
        return True
    return False


@inline
def _start(
    rows: Any, root: Any, queries: Any, q: Any, lanes: Any, lane: Any, ef: Any, ignored: Any
) -> None:
    """Begin the search of query `q`, in which the row `ignored` is as if it had been expanded."""
    _prepare(queries, q, rows.width, lanes, lane)
    stride = room_of(ef)
    for i in range(lane * stride, (lane + 1) * stride):
        lanes.pool[i] = LARGEST_KEY
    state = lanes.state
    state[lane, _QUERY] = q
    state[lane, _SIZE] = 0
    state[lane, _CURSOR] = 0
    state[lane, _FOUND] = 0
    state[lane, _SEEN] = 0
    state[lane, _MATCHED] = 0
    if ignored >= 0:
        lanes.visited[lane, ignored >> 3] |= np.uint8(1 << (ignored & 7))
        lanes.expanded[lane, 0] = ignored
        state[lane, _SEEN] = 1
    _offer_neighbours(root, 0, lanes, lane, lanes.scalars[lane, _NORM], ef)
    _advance(rows, lanes, lane, ef)


@inline
def _forget(lanes: Any, lane: Any) -> None:
    """Clear the bits of the rows that were expanded."""
    seen = lanes.state[lane, _SEEN]
    if seen > lanes.expanded.shape[1]:
        lanes.visited[lane, :] = 0
        return
    for i in range(seen):
        lanes.visited[lane, np.int64(lanes.expanded[lane, i]) >> 3] = 0


@inline
def _finish(
    twins: Any, allowed: Any, restricted: Any, lanes: Any, lane: Any, scales: Any, out_rows: Any,
    out_distances: Any,
) -> None:  # fmt: skip
    """Write what was found, and leave the lane's memory as the next query needs it."""
    state, best = lanes.state, lanes.best
    q = state[lane, _QUERY]
    k = out_rows.shape[1]
    first = lane * room_of(k)
    written = 0
    for i in range(state[lane, _FOUND]):
        key = best[first + i]
        row = key_row(key)
        while row >= 0 and written < k:
            if not restricted or has_bit(allowed, row):
                out_rows[q, written] = row
                out_distances[q, written] = key_distance(key) * scales[q, 0] + scales[q, 1]
                written += 1
            row = np.int64(twins[row])
    for i in range(written, k):
        out_rows[q, i] = -1
        out_distances[q, i] = np.float32(np.inf)
    for i in range(first, first + room_of(k)):
        best[i] = LARGEST_KEY
    _forget(lanes, lane)


@inline
def search_one(rows: Any, root: Any, queries: Any, ef: Any, keep: Any, lanes: Any) -> Any:
    """Search for ``queries[0]``; return how many of the first `lanes.best` are the rows found."""
    for i in range(room_of(keep)):
        lanes.best[i] = LARGEST_KEY
    _start(rows, root, queries, 0, lanes, 0, ef, -1)
    going = True
    while going:
        _expand(rows, queries, lanes, 0, ef, keep, True, True)
        going = _advance(rows, lanes, 0, ef)
    _forget(lanes, 0)
    return lanes.state[0, _FOUND]


@kernel
def search_coded(
    rows: Any, root: Any, twins: Any, queries: Any, ef: Any, allowed: Any, restricted: Any,
    scales: Any, lanes: Any, out_rows: Any, out_distances: Any, matched: Any, ignored: Any,
) -> None:  # fmt: skip
    """Find the nearest rows of each query.

    Parameters
    ----------
    rows : CodedRows
    root : CodedRows
        One row, at the origin; its neighbours are where searches start.
    twins : int32 (n,)
        The next row with the same vector, -1 after the last.
    queries : float32 (nq, width)
        Rotated as the rows were.
    ef : int
        Nodes kept in the pool, at least k.
    allowed : uint8 bitset
        The rows that may be returned, when `restricted` is true; unread otherwise.
    restricted : bool
    scales : float32 (nq, 2)
        What a query's squared distances are multiplied by, and what is added, for the result.
    lanes : Lanes
    out_rows : int64 (nq, k)
        The rows found, nearest first; -1 where there are fewer than k.
    out_distances : float32 (nq, k)
        Their distances; infinity where there are fewer.
    matched : int64 (nq,)
        Receives how many nodes were expanded that may be returned.
    ignored : int64 (nq,) or (0,)
        The row that each query's search goes on without, one of many; or nothing for all.
    """
    count, k = queries.shape[0], out_rows.shape[1]
    state = lanes.state
    under_way = min(state.shape[0], count)
    lanes.best[:] = LARGEST_KEY
    asked = 0
    for lane in range(under_way):
        without = ignored[asked] if ignored.shape[0] > 0 else -1
        _start(rows, root, queries, asked, lanes, lane, ef, without)
        asked += 1
    active = under_way
    while active > 0:
        for lane in range(under_way):
            if state[lane, _QUERY] < 0:
                continue
            returned = not restricted or is_allowed(allowed, twins, state[lane, _NODE])
            _expand(rows, queries, lanes, lane, ef, k, returned, active == 1)
            if _advance(rows, lanes, lane, ef):
                continue
            matched[state[lane, _QUERY]] = state[lane, _MATCHED]
            _finish(
                twins, allowed, restricted, lanes, lane, scales, out_rows, out_distances
            )  # fmt: skip
            if asked < count:
                without = ignored[asked] if ignored.shape[0] > 0 else -1
                _start(rows, root, queries, asked, lanes, lane, ef, without)
                asked += 1
            else:
                state[lane, _QUERY] = -1
                active -= 1

"""Search in a compact graph: one code for each node, compared when a neighbour is expanded.

The pool of a query holds the nodes met, sorted by what their codes say of their distances, each
once. A query takes two turns for each node that it expands: in the first it asks for the codes of
the node's neighbours, in the second it compares with them, and asks for the links of the nearest
node. Several queries take turns, so that what one asked for arrives while the others compute. The
best of a query are ranked anew at the end, by all that is kept of their rows.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vecdb.kernels.bitset import has_bit
from vecdb.kernels.byte_simd import ZERO, dot_bytes
from vecdb.kernels.coded_search import insert_sorted, is_allowed, merge_sorted, room_of
from vecdb.kernels.compact_rows import base_of, distance_to, neighbour_at, scale_of
from vecdb.kernels.jit import inline, kernel
from vecdb.kernels.pool import EXPANDED, LARGEST_KEY, key_distance, key_row, offer, pack_key
from vecdb.kernels.simd import prefetch

COMPACT_LANES = 4
"""Queries that take turns."""

_TOP_LEVEL = 127
_LINE = 64

_QUERY, _SIZE, _CURSOR, _NODE, _FOUND, _SEEN, _MATCHED, _WAITING, _SUM = range(9)
_STEP, _NORM = range(2)
COMPACT_STATE = 9
COMPACT_SCALARS = 2


class CompactLanes(NamedTuple):
    """Working memory, a line for each query that is under way.

    No bit of `visited` is set between calls; of the rest nothing is depended on.
    """

    visited: NDArray[np.uint8]
    """(lanes, bytes): at least one bit for each row; the rows that were met."""
    seen: NDArray[np.int32]
    """(lanes, n): those rows, as far as there is room."""
    pool: NDArray[np.int64]
    """(at least lanes * `pool_stride(ef)`,): keys by code."""
    best: NDArray[np.int64]
    """(at least lanes * `pool_stride(keep)`,): keys of allowed rows, where not all are."""
    waiting: NDArray[np.int32]
    """(lanes, most): nodes whose codes were asked for; room for the links or the seeds."""
    fresh: NDArray[np.int64]
    """(lanes, most): keys on their way into the pool."""
    levels: NDArray[np.int8]
    """(lanes, at least width): a query's coordinates, quantised."""
    ranked: NDArray[np.int64]
    """(at least `pool_stride(keep)`,): keys by distance."""
    state: NDArray[np.int64]
    """(lanes, COMPACT_STATE)."""
    scalars: NDArray[np.float32]
    """(lanes, COMPACT_SCALARS)."""


@inline
def _prepare(queries: Any, q: Any, width: Any, lanes: Any, lane: Any) -> None:
    """Quantise a query to a byte a coordinate."""
    most = np.float32(0.0)
    norm = np.float32(0.0)
    for i in range(width):
        most = max(most, abs(queries[q, i]))
        norm += queries[q, i] * queries[q, i]
    step = most / np.float32(_TOP_LEVEL)
    inverse = np.float32(1.0) / step if step > np.float32(1e-37) else np.float32(0.0)
    total = np.int32(0)
    for i in range(width):
        level = np.int32(np.floor(queries[q, i] * inverse + np.float32(0.5)))
        total += level
        lanes.levels[lane, i] = np.int8(level)
    lanes.scalars[lane, _STEP] = step
    lanes.scalars[lane, _NORM] = norm
    lanes.state[lane, _SUM] = ZERO * total


@inline
def _ask_for(rows: Any, lanes: Any, lane: Any, count: Any, node: Any) -> Any:
    """Ask for a node's code unless the node was met; return how many are waited for then."""
    bit = np.uint8(1 << (node & 7))
    if lanes.visited[lane, node >> 3] & bit != 0:
        return count
    lanes.visited[lane, node >> 3] |= bit
    seen = lanes.state[lane, _SEEN]
    if seen < lanes.seen.shape[1]:
        lanes.seen[lane, seen] = node
    lanes.state[lane, _SEEN] = seen + 1
    prefetch(rows.bytes, node, 0, rows.width // _LINE + 1)
    lanes.waiting[lane, count] = node
    return count + 1


@inline
def _gather(rows: Any, lanes: Any, lane: Any) -> None:
    """Ask for the codes of the neighbours of the lane's node."""
    node = lanes.state[lane, _NODE]
    count = 0
    for j in range(rows.degree):
        neighbour = neighbour_at(rows, node, j)
        if neighbour < 0:
            break
        count = _ask_for(rows, lanes, lane, count, neighbour)
    lanes.state[lane, _WAITING] = count


@inline
def _compare(
    rows: Any, twins: Any, allowed: Any, restricted: Any, lanes: Any, lane: Any, ef: Any, keep: Any
) -> None:
    """Compare with the nodes that are waited for, and put them into the lane's pools."""
    pool, fresh, state = lanes.pool, lanes.fresh, lanes.state
    first = lane * room_of(ef)
    size = state[lane, _SIZE]
    limit = key_distance(pool[first + ef - 1]) if size == ef else np.float32(np.inf)
    norm, total = lanes.scalars[lane, _NORM], state[lane, _SUM]
    worth = np.float32(-2.0) * lanes.scalars[lane, _STEP]
    count = 0
    for w in range(state[lane, _WAITING]):
        node = np.int64(lanes.waiting[lane, w])
        product = dot_bytes(rows.bytes, node, lanes.levels, lane, rows.width) - total
        distance = norm + base_of(rows, node) + worth * scale_of(rows, node) * np.float32(product)
        if restricted and is_allowed(allowed, twins, node):
            key = pack_key(distance, node)
            start, found = lane * room_of(keep), state[lane, _FOUND]
            if found < keep or key < lanes.best[start + keep - 1]:
                insert_sorted(lanes.best, start, found, keep, key)
                state[lane, _FOUND] = min(found + 1, keep)
        if distance < limit:
            key = pack_key(distance, node)
            i = count
            while i > 0 and fresh[lane, i - 1] > key:
                fresh[lane, i] = fresh[lane, i - 1]
                i -= 1
            fresh[lane, i] = key
            count += 1
    if count > 0:
        place = merge_sorted(pool, first, size, ef, fresh, lane, count)
        state[lane, _SIZE] = min(size + count, ef)
        state[lane, _CURSOR] = min(state[lane, _CURSOR], place)
    state[lane, _WAITING] = 0


@inline
def _advance(
    rows: Any, twins: Any, allowed: Any, restricted: Any, lanes: Any, lane: Any, ef: Any
) -> Any:  # fmt: skip
    """Make the nearest node not expanded yet the lane's node; return whether there is one."""
    state, pool = lanes.state, lanes.pool
    first = lane * room_of(ef)
    cursor, size = state[lane, _CURSOR], state[lane, _SIZE]
    while cursor < size and pool[first + cursor] & EXPANDED:
        cursor += 1
    if cursor == size:
        return False
    pool[first + cursor] |= EXPANDED
    node = key_row(pool[first + cursor])
    state[lane, _NODE] = node
    state[lane, _CURSOR] = cursor + 1
    if not restricted or is_allowed(allowed, twins, node):
        state[lane, _MATCHED] += 1
    behind = rows.width + _LINE
    prefetch(rows.bytes, node, behind, (rows.bytes.shape[1] - behind) // _LINE)
    return True


@inline
def _start(
    rows: Any, seeds: Any, queries: Any, q: Any, lanes: Any, lane: Any, ef: Any, ignored: Any
) -> None:
    """Begin the search of query `q`, in which the row `ignored` is as if it had been met."""
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
        lanes.seen[lane, 0] = ignored
        state[lane, _SEEN] = 1
    count = 0
    for i in range(seeds.shape[0]):
        count = _ask_for(rows, lanes, lane, count, np.int64(seeds[i]))
    state[lane, _WAITING] = count


@inline
def _forget(lanes: Any, lane: Any) -> None:
    """Clear the bits of the rows that were met."""
    seen = lanes.state[lane, _SEEN]
    if seen > lanes.seen.shape[1]:
        lanes.visited[lane, :] = 0
        return
    for i in range(seen):
        lanes.visited[lane, np.int64(lanes.seen[lane, i]) >> 3] = 0


@inline
def _rank(rows: Any, queries: Any, lanes: Any, lane: Any, keys: Any, first: Any, count: Any) -> Any:
    """Rank the rows of ``keys[first:first + count]`` by distance; return how many they are."""
    q = lanes.state[lane, _QUERY]
    refined = rows.residuals.shape[1] > 0
    if refined:
        for i in range(count):
            prefetch(rows.residuals, key_row(keys[first + i]), 0, rows.width // _LINE)
    size = 0
    for i in range(count):
        row = key_row(keys[first + i])
        distance = distance_to(rows, row, queries, q)
        size = offer(lanes.ranked, size, count, distance, row)
    return size


@inline
def _finish(
    rows: Any, twins: Any, queries: Any, allowed: Any, restricted: Any, lanes: Any, lane: Any,
    ef: Any, keep: Any, scales: Any, out_rows: Any, out_distances: Any,
) -> None:  # fmt: skip
    """Write what was found, and leave the lane's memory as the next query needs it."""
    state, ranked = lanes.state, lanes.ranked
    q = state[lane, _QUERY]
    k = out_rows.shape[1]
    if restricted:
        first = lane * room_of(keep)
        count = _rank(rows, queries, lanes, lane, lanes.best, first, state[lane, _FOUND])
        for i in range(first, first + room_of(keep)):
            lanes.best[i] = LARGEST_KEY
    else:
        first = lane * room_of(ef)
        count = min(state[lane, _SIZE], keep)
        count = _rank(rows, queries, lanes, lane, lanes.pool, first, count)
    written = 0
    for i in range(count):
        row = key_row(ranked[i])
        while row >= 0 and written < k:
            if not restricted or has_bit(allowed, row):
                out_rows[q, written] = row
                out_distances[q, written] = key_distance(ranked[i]) * scales[q, 0] + scales[q, 1]
                written += 1
            row = np.int64(twins[row])
    for i in range(written, k):
        out_rows[q, i] = -1
        out_distances[q, i] = np.float32(np.inf)
    _forget(lanes, lane)


@inline
def search_for_row(rows: Any, seeds: Any, queries: Any, ef: Any, lanes: Any) -> Any:
    """Search for ``queries[0]``; return how many of the first of `lanes.pool` are rows met."""
    nothing = lanes.visited[0]
    _start(rows, seeds, queries, 0, lanes, 0, ef, -1)
    going = True
    while going:
        _compare(rows, lanes.seen[0], nothing, False, lanes, 0, ef, 1)
        going = _advance(rows, lanes.seen[0], nothing, False, lanes, 0, ef)
        if going:
            _gather(rows, lanes, 0)
    _forget(lanes, 0)
    return lanes.state[0, _SIZE]


@kernel
def search_compact(
    rows: Any, seeds: Any, twins: Any, queries: Any, ef: Any, keep: Any, allowed: Any,
    restricted: Any, scales: Any, lanes: Any, out_rows: Any, out_distances: Any, matched: Any,
    ignored: Any,
) -> None:  # fmt: skip
    """Find the nearest rows of each query.

    Parameters
    ----------
    rows : CompactRows
    seeds : int64 (s,)
        The rows where searches start.
    twins : int32 (n,)
        The next row with the same vector, -1 after the last.
    queries : float32 (nq, width)
        Rotated as the rows were.
    ef : int
        Nodes kept in the pool.
    keep : int
        How many of the best are ranked anew; at least k, and at most `ef`.
    allowed : uint8 bitset
        The rows that may be returned, when `restricted` is true; unread otherwise.
    restricted : bool
    scales : float32 (nq, 2)
        What a query's squared distances are multiplied by, and what is added, for the result.
    lanes : CompactLanes
    out_rows : int64 (nq, k)
        The rows found, nearest first; -1 where there are fewer than k.
    out_distances : float32 (nq, k)
        Their distances; infinity where there are fewer.
    matched : int64 (nq,)
        Receives how many nodes were expanded that may be returned.
    ignored : int64 (nq,) or (0,)
        The row that each query's search goes on without, one of many; or nothing for all.
    """
    count = queries.shape[0]
    state = lanes.state
    under_way = min(state.shape[0], count)
    lanes.best[:] = LARGEST_KEY
    asked = 0
    for lane in range(under_way):
        without = ignored[asked] if ignored.shape[0] > 0 else -1
        _start(rows, seeds, queries, asked, lanes, lane, ef, without)
        asked += 1
    active = under_way
    while active > 0:
        for lane in range(under_way):
            if state[lane, _QUERY] < 0:
                continue
            if state[lane, _WAITING] == 0:
                _gather(rows, lanes, lane)
                if state[lane, _WAITING] > 0:
                    continue
            _compare(rows, twins, allowed, restricted, lanes, lane, ef, keep)
            if _advance(rows, twins, allowed, restricted, lanes, lane, ef):
                continue
            matched[state[lane, _QUERY]] = state[lane, _MATCHED]
            _finish(
                rows, twins, queries, allowed, restricted, lanes, lane, ef, keep, scales,
                out_rows, out_distances,
            )  # fmt: skip
            if asked < count:
                without = ignored[asked] if ignored.shape[0] > 0 else -1
                _start(rows, seeds, queries, asked, lanes, lane, ef, without)
                asked += 1
            else:
                state[lane, _QUERY] = -1
                active -= 1

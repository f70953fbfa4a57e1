"""Search in a compact graph: one code for each node, compared when a neighbour is expanded.

A node is compared with by its code when it is met, once, and expanded when no candidate
(`vecdb.kernels.frontier`) is nearer; the search ends as one of coded rows does
(`vecdb.kernels.coded_search`). A query takes two turns for each node that it expands: in the first
it asks for the codes of the node's neighbours, in the second it compares with them, and asks for
the links of the nearest node. Several queries take turns, so that what one asked for arrives while
the others compute. The best of a query are ranked anew at the end, by all that is kept of their
rows.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vecdb.kernels import frontier
from vecdb.kernels.compact_rows import (
    ask_for,
    base_of,
    distance_to,
    is_beyond,
    neighbour_at,
    scale_of,
)
from vecdb.kernels.frontier import Frontier
from vecdb.kernels.interpreter import await_interpreter
from vecdb.kernels.jit import direct_kernel, inline
from vecdb.kernels.pool import key_distance, key_row, offer, pack_key
from vecdb.kernels.simd import prefetch
from vecdb.kernels.two_bytes import product_with_code, quantise_query
from vecdb.kernels.walk import (
    FOUND,
    MATCHED,
    NODE,
    QUERY,
    SEED_LISTS,
    SEEN,
    STATE,
    begin_query,
    forget,
    is_allowed,
    is_visited,
    limit_of,
    next_node,
    report,
    visit,
    write_found,
)

COMPACT_LANES = 4
"""Queries that take turns."""

_LINE = 64

_WAITING, _SURPLUS = STATE, STATE + 1
_STEP, _NORM = range(2)
COMPACT_STATE = STATE + 2
COMPACT_SCALARS = 2


class CompactLanes(NamedTuple):
    """Working memory, a line for each query that is under way.

    No bit of `visited` is set between calls; of the rest nothing is depended on.
    """

    visited: NDArray[np.uint8]
    """(lanes, bytes): at least one bit for each row; the rows that were met."""
    seen: NDArray[np.int32]
    """(lanes, n): those rows, as far as there is room."""
    candidates: Frontier
    best: NDArray[np.int64]
    """(lanes, at least keep): the keys of the rows met that may be returned, by code."""
    waiting: NDArray[np.int32]
    """(lanes, most): nodes whose codes were asked for; room for the links or the seeds."""
    levels: NDArray[np.int8]
    """(lanes, at least width): a query's coordinates, quantised."""
    ranked: NDArray[np.int64]
    """(at least keep and `SEED_LISTS`): keys by distance."""
    state: NDArray[np.int64]
    """(lanes, COMPACT_STATE)."""
    scalars: NDArray[np.float32]
    """(lanes, COMPACT_SCALARS)."""


@inline
def _prepare(queries: Any, q: Any, width: Any, lanes: Any, lane: Any) -> None:
    """Quantise a query to a byte a coordinate."""
    step, norm, surplus = quantise_query(queries, q, width, lanes.levels, lane)
    lanes.scalars[lane, _STEP], lanes.scalars[lane, _NORM] = step, norm
    lanes.state[lane, _SURPLUS] = surplus


@inline
def _ask_for(rows: Any, lanes: Any, lane: Any, count: Any, node: Any) -> Any:
    """Ask for a node's code unless the node was met; return how many are waited for then."""
    if is_visited(lanes, lane, node):
        return count
    visit(lanes, lane, node)
    ask_for(rows, node, False)
    lanes.waiting[lane, count] = node
    return count + 1


@inline
def _gather(rows: Any, lanes: Any, lane: Any) -> None:
    """Ask for the codes of the neighbours of the lane's node."""
    node = lanes.state[lane, NODE]
    count = 0
    for j in range(rows.degree):
        neighbour = neighbour_at(rows, node, j)
        if neighbour < 0:
            break
        count = _ask_for(rows, lanes, lane, count, neighbour)
    lanes.state[lane, _WAITING] = count


@inline
def _squared_distance(rows: Any, node: Any, lanes: Any, lane: Any) -> Any:
    """Return the squared distance of the lane's query to a node, by its code."""
    product = product_with_code(rows, node, lanes.levels, lane, lanes.state[lane, _SURPLUS])
    worth = np.float32(-2.0) * lanes.scalars[lane, _STEP]
    shared = worth * (scale_of(rows, node) * product)
    return max(lanes.scalars[lane, _NORM] + base_of(rows, node) + shared, np.float32(0.0))


@inline
def _compare(
    rows: Any, twins: Any, allowed: Any, restricted: Any, lanes: Any, lane: Any, reach: Any,
    k: Any, keep: Any,
) -> None:  # fmt: skip
    """Compare with the nodes that are waited for, and make those that are near candidates."""
    candidates, state = lanes.candidates, lanes.state
    limit = limit_of(lanes, lane, k, reach.stop)
    for first in range(0, state[lane, _WAITING], frontier.MOST_AT_ONCE):
        count = frontier.make_room(candidates, lane, reach.ef)
        nearer = min(limit, candidates.limits[lane])
        for w in range(first, min(first + frontier.MOST_AT_ONCE, state[lane, _WAITING])):
            node = np.int64(lanes.waiting[lane, w])
            distance = _squared_distance(rows, node, lanes, lane)
            if not restricted or is_allowed(allowed, twins, node):
                found = offer(lanes.best[lane], state[lane, FOUND], keep, distance, node)
                state[lane, FOUND] = found
            candidates.opened[lane, count] = pack_key(distance, node)
            count += distance < nearer
        frontier.opened_through(candidates, lane, count)
    state[lane, _WAITING] = 0


@inline
def _advance(
    rows: Any, twins: Any, allowed: Any, restricted: Any, lanes: Any, lane: Any, reach: Any, k: Any
) -> Any:
    """Make the next node the lane's; return whether there is one."""
    node = next_node(lanes, lane, reach, k, False)
    if node < 0:
        return False
    lanes.state[lane, NODE] = node
    if not restricted or is_allowed(allowed, twins, node):
        lanes.state[lane, MATCHED] += 1
    behind = rows.width + _LINE
    prefetch(rows.bytes, node, behind, (rows.bytes.shape[1] - behind) // _LINE)
    return True


@inline
def _start(rows: Any, seeds: Any, queries: Any, q: Any, lanes: Any, lane: Any) -> None:
    """Begin the search of query `q`."""
    begin_query(lanes, lane, q)
    _prepare(queries, q, rows.width, lanes, lane)
    ranked, lists, size = lanes.ranked, seeds.shape[0], 0
    if lists > 1:
        for i in range(lists):
            near = _squared_distance(rows, np.int64(seeds[i, 0]), lanes, lane)
            size = offer(ranked, size, SEED_LISTS, near, i)
    else:
        ranked[0] = pack_key(np.float32(0.0), 0)
        size = 1
    count = 0
    for i in range(size):
        listed = key_row(ranked[i])
        for j in range(seeds.shape[1]):
            if seeds[listed, j] >= 0:
                count = _ask_for(rows, lanes, lane, count, np.int64(seeds[listed, j]))
    lanes.state[lane, _WAITING] = count


@inline
def _rank(
    rows: Any, twins: Any, queries: Any, allowed: Any, restricted: Any, lanes: Any, lane: Any,
    k: Any, keep: Any,
) -> Any:  # fmt: skip
    """Rank the best rows by distance, into `lanes.ranked`; return how many there are.

    Where codes do not tell that what was met besides is farther than the best k, that is compared
    with as well: so it is in a cluster of rows that differ by less than a byte can tell.
    """
    best, seen, count = lanes.best[lane], lanes.seen[lane], lanes.state[lane, FOUND]
    q, met, ranked, size = lanes.state[lane, QUERY], lanes.state[lane, SEEN], lanes.ranked, 0
    if rows.residuals.shape[1] > 0:
        for i in range(count):
            prefetch(rows.residuals, key_row(best[i]), 0, rows.width // _LINE)
    for i in range(count):
        row = key_row(best[i])
        size = offer(ranked, size, count, distance_to(rows, row, queries, q), row)
    if rows.residuals.shape[1] == 0 or count < keep or met > seen.shape[0]:
        return size
    last, limit = key_distance(best[count - 1]), key_distance(ranked[k - 1])
    step = lanes.scalars[lane, _STEP]
    if is_beyond(rows, key_row(best[count - 1]), last, step, limit):
        return size
    size = 0
    for i in range(met):
        row = np.int64(seen[i])
        if restricted and not is_allowed(allowed, twins, row):
            continue
        near = _squared_distance(rows, row, lanes, lane)
        if near <= last or not is_beyond(rows, row, near, step, limit):
            size = offer(ranked, size, keep, distance_to(rows, row, queries, q), row)
    return size


@inline
def search_for_row(rows: Any, seeds: Any, queries: Any, reach: Any, keep: Any, lanes: Any) -> Any:
    """Search for ``queries[0]``; return how many of the first of ``lanes.best[0]`` are found."""
    nothing = lanes.visited[0]
    _start(rows, seeds, queries, 0, lanes, 0)
    going = True
    while going:
        _compare(rows, lanes.seen[0], nothing, False, lanes, 0, reach, keep, keep)
        going = _advance(rows, lanes.seen[0], nothing, False, lanes, 0, reach, keep)
        if going:
            _gather(rows, lanes, 0)
    forget(lanes, 0)
    return lanes.state[0, FOUND]


@direct_kernel
def search_compact(
    rows: Any, seeds: Any, twins: Any, queries: Any, reach: Any, keep: Any, allowed: Any,
    restricted: Any, scales: Any, lanes: Any, out_rows: Any, out_distances: Any, effort: Any,
) -> None:  # fmt: skip
    """Find the nearest rows of each query.

    Parameters
    ----------
    rows : CompactRows
    seeds : int32 (lists, room)
        The rows where searches start, -1 where there are fewer: all of the only list, or those of
        the several lists whose first are the nearest.
    twins : int32 (n,)
        The next row with the same vector, -1 after the last.
    queries : float32 (nq, width)
        Rotated as the rows were.
    reach : Reach
        Its margin is not used: what is met is compared with anyway.
    keep : int
        How many of the best are ranked anew; at least k.
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
    effort : int64 (nq, 2)
        As of `search_coded`.
    """
    count, k = queries.shape[0], out_rows.shape[1]
    state = lanes.state
    under_way = min(state.shape[0], count)
    asked = under_way
    for lane in range(under_way):
        _start(rows, seeds, queries, lane, lanes, lane)
    active = under_way
    while active > 0:
        for lane in range(under_way):
            q = state[lane, QUERY]
            if q < 0:
                continue
            if state[lane, _WAITING] == 0:
                _gather(rows, lanes, lane)
                if state[lane, _WAITING] > 0:
                    continue
            _compare(rows, twins, allowed, restricted, lanes, lane, reach, k, keep)
            if _advance(rows, twins, allowed, restricted, lanes, lane, reach, k):
                continue
            report(lanes, lane, effort)
            found = _rank(rows, twins, queries, allowed, restricted, lanes, lane, k, keep)
            write_found(
                twins, allowed, restricted, lanes.ranked, found, q, scales, out_rows, out_distances,
            )  # fmt: skip
            forget(lanes, lane)
            if asked < count:
                _start(rows, seeds, queries, asked, lanes, lane)
                asked += 1
            else:
                state[lane, QUERY] = -1
                active -= 1
    await_interpreter()

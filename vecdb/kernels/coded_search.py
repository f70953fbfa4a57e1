"""Search in a graph whose rows carry their neighbours' codes (SymphonyQG, Gou et al. 2025).

A node is met when a neighbour's codes say about how far it is; it may be met several times, with
several estimates. It is expanded when no candidate (`vecdb.kernels.frontier`) seems nearer: its own
code then tells its distance much better. A search ends when what is left seems
farther than the k-th best that was found, times a factor: queries whose nearest rows stand out take
few steps, and others as many as they need. What is only a little farther is still compared with,
though not expanded: that costs a third. The best by their own codes are ranked anew at the end, by
all that is kept of their rows.

A search would wait for memory half of the time. So it chooses its next node before it looks at the
neighbours of the one at hand, and the row of that is on its way meanwhile.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vecdb.kernels import frontier
from vecdb.kernels.code_simd import (
    BLOCK,
    PLANES,
    WORD,
    estimate_block,
    plane_word,
)
from vecdb.kernels.coded_rows import (
    ask_for,
    distance_by_code,
    distance_to,
    ids_of,
    is_beyond,
    neighbour_at,
    offset_of,
)
from vecdb.kernels.frontier import Frontier
from vecdb.kernels.interpreter import await_interpreter
from vecdb.kernels.jit import direct_kernel, inline
from vecdb.kernels.pool import key_distance, key_row, offer, pack_key
from vecdb.kernels.simd import lowest_bit, prefetch
from vecdb.kernels.two_bytes import quantise_query
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

_TOP_LEVEL = 7
_LINE = 64

_NARROW = 512
"""Residuals of rows up to this width come with the rows: to wait for them at the end costs as much
as to compare with a row, and more than to fetch them for nothing."""

_SURPLUS = STATE
CODED_STATE = STATE + 1
_STEP, _HALF, _FINE_STEP, _NORM = range(4)
SCALARS = 4


class Lanes(NamedTuple):
    """Working memory, a line for each query that is under way: here, one.

    No bit of `visited` is set between calls; of the rest nothing is depended on.
    """

    visited: NDArray[np.uint8]
    """(lanes, bytes): at least one bit for each row; the rows that were compared with."""
    seen: NDArray[np.int32]
    """(lanes, n): those rows, as far as there is room."""
    candidates: Frontier
    best: NDArray[np.int64]
    """(lanes, at least keep): the keys of compared rows that may be returned, by code."""
    ranked: NDArray[np.int64]
    """(at least keep and `SEED_LISTS`): keys by distance."""
    fresh: NDArray[np.int64]
    """(lanes, 32): keys of neighbours."""
    levels: NDArray[np.int8]
    """(lanes, width): a query's coordinates, quantised to 8 bits."""
    planes: NDArray[np.int64]
    """(lanes, width / 16): the bits of 4-bit ones, plane by plane within a word."""
    state: NDArray[np.int64]
    """(lanes, CODED_STATE)."""
    scalars: NDArray[np.float32]
    """(lanes, SCALARS)."""


@inline
def _prepare(queries: Any, q: Any, width: Any, lanes: Any, lane: Any) -> None:
    """Quantise a query to 4 bits a coordinate, taken apart into bit planes, and then to 8."""
    levels, planes, scalars = lanes.levels, lanes.planes, lanes.scalars
    most = np.float32(0.0)
    for i in range(width):
        most = max(most, abs(queries[q, i]))
    step = most / np.float32(_TOP_LEVEL)
    inverse = np.float32(1.0) / step if step > np.float32(1e-37) else np.float32(0.0)
    total = np.int32(0)
    for i in range(width):
        level = np.int32(np.floor(queries[q, i] * inverse + np.float32(0.5)))
        total += level
        levels[lane, i] = np.int8(level)
    for word in range(width // WORD):
        for bit in range(PLANES):
            planes[lane, word * PLANES + bit] = plane_word(levels, lane, word, bit)
    scalars[lane, _STEP] = step
    scalars[lane, _HALF] = np.float32(0.5) * step * np.float32(total)
    fine, norm, surplus = quantise_query(queries, q, width, levels, lane)
    scalars[lane, _FINE_STEP], scalars[lane, _NORM] = fine, norm
    lanes.state[lane, _SURPLUS] = surplus


@inline
def _offer_neighbours(
    rows: Any, row: Any, lanes: Any, lane: Any, base: Any, ef: Any, limit: Any
) -> None:
    """Make a row's neighbours candidates, as far as they seem nearer than a limit.

    `base` is the squared distance of the row to the query, its offset left out.
    """
    candidates, fresh, scalars = lanes.candidates, lanes.fresh, lanes.scalars
    words = rows.width // WORD
    for block in range(rows.degree // BLOCK):
        ids = ids_of(rows, block)
        byte = 4 * (ids - 2 * BLOCK) - words * 8 * BLOCK
        count = frontier.make_room(candidates, lane, ef)
        mask = estimate_block(
            rows.bytes, row, byte, lanes.planes, lane, words, scalars[lane, _STEP],
            scalars[lane, _HALF], base, min(limit, candidates.limits[lane]), fresh,
        )  # fmt: skip
        while mask != 0:
            key = fresh[lane, lowest_bit(mask)]
            mask &= mask - 1
            candidates.opened[lane, count] = key
            count += 1 - is_visited(lanes, lane, key_row(key))
        frontier.opened_through(candidates, lane, count)


@inline
def _compare(
    rows: Any, queries: Any, row: Any, lanes: Any, lane: Any, keep: Any, returned: Any
) -> Any:
    """Compare with a row's code, keep it if it may be returned, and return its squared distance.

    The row's offset is left out of what is returned.
    """
    state, scalars = lanes.state, lanes.scalars
    base = distance_by_code(
        rows, row, queries, state[lane, QUERY], lanes.levels, lane, state[lane, _SURPLUS],
        scalars[lane, _FINE_STEP], scalars[lane, _NORM],
    )  # fmt: skip
    if returned:
        distance = base + offset_of(rows, row)
        state[lane, FOUND] = offer(lanes.best[lane], state[lane, FOUND], keep, distance, row)
    return base


@inline
def _take(rows: Any, lanes: Any, lane: Any, reach: Any, k: Any) -> Any:
    """Take the next node and ask for its row; return -1 when there is none."""
    row = next_node(lanes, lane, reach, k, True)
    if row >= 0:
        prefetch(rows.bytes, row, 0, rows.bytes.shape[1] // _LINE)
        if rows.width <= _NARROW:
            prefetch(rows.residuals, row, 0, rows.residuals.shape[1] // _LINE)
    return row


@inline
def _compare_rest(
    rows: Any, twins: Any, queries: Any, allowed: Any, restricted: Any, lanes: Any, lane: Any,
    keep: Any, limit: Any,
) -> None:  # fmt: skip
    """Compare with the candidates that seem nearer than a limit, and do not expand them."""
    opened = lanes.candidates.opened[lane]
    count = 0
    for i in range(frontier.open_places(lanes.candidates, lane)):
        if frontier.is_empty(opened[i]):
            continue
        row = key_row(opened[i])
        if key_distance(opened[i]) > limit or is_visited(lanes, lane, row):
            continue
        if restricted and not is_allowed(allowed, twins, row):
            continue
        visit(lanes, lane, row)
        ask_for(rows, row, rows.width <= _NARROW)
        opened[count] = row
        count += 1
    for i in range(count):
        _compare(rows, queries, opened[i], lanes, lane, keep, True)


@inline
def _rank(
    rows: Any, twins: Any, queries: Any, allowed: Any, restricted: Any, lanes: Any, lane: Any,
    k: Any, keep: Any,
) -> Any:  # fmt: skip
    """Rank the best k rows by all that is kept of them, into `lanes.ranked`; return how many.

    Not compared with is what could not be among them, were its code off by all that is likely.
    """
    best, ranked, found = lanes.best[lane], lanes.ranked, lanes.state[lane, FOUND]
    q, step = lanes.state[lane, QUERY], lanes.scalars[lane, _FINE_STEP]
    if rows.residuals.shape[1] == 0:
        for i in range(min(found, k)):
            ranked[i] = best[i]
        return min(found, k)
    if rows.width > _NARROW:
        for i in range(found):
            prefetch(rows.residuals, key_row(best[i]), 0, rows.width // _LINE)
    size = 0
    for i in range(found):
        row, distance = key_row(best[i]), key_distance(best[i])
        if size == k and is_beyond(rows, row, distance, step, key_distance(ranked[k - 1])):
            return size
        size = offer(ranked, size, k, distance_to(rows, row, queries, q), row)
    if found < keep:
        return size
    # The doubt goes beyond those that were kept: whatever was compared with may belong here.
    size = 0
    for i in range(min(lanes.state[lane, SEEN], lanes.seen.shape[1])):
        row = np.int64(lanes.seen[lane, i])
        if not restricted or is_allowed(allowed, twins, row):
            size = offer(ranked, size, k, distance_to(rows, row, queries, q), row)
    return size


@inline
def _find_leaders(rows: Any, root: Any, queries: Any, lanes: Any, lane: Any) -> Any:
    """Write to `lanes.ranked` which rows of the root lead to seeds that are near; return how many.

    The keys are of these rows, by the squared distance of the query to where they stand.
    """
    ranked, state, scalars = lanes.ranked, lanes.state, lanes.scalars
    norm, size = scalars[lane, _NORM], 0
    if root.bytes.shape[0] == 1:
        ranked[0] = pack_key(norm, 0)
        return 1
    for line in range(1, root.bytes.shape[0]):
        leader = neighbour_at(root, 0, line - 1)
        if leader < 0:
            break
        base = distance_by_code(
            rows, leader, queries, state[lane, QUERY], lanes.levels, lane, state[lane, _SURPLUS],
            scalars[lane, _FINE_STEP], norm,
        )  # fmt: skip
        size = offer(ranked, size, SEED_LISTS, base, line)
    return size


@inline
def _start(
    rows: Any, root: Any, queries: Any, q: Any, lanes: Any, lane: Any, reach: Any, k: Any
) -> None:
    """Begin the search of query `q`."""
    begin_query(lanes, lane, q)
    _prepare(queries, q, rows.width, lanes, lane)
    for i in range(_find_leaders(rows, root, queries, lanes, lane)):
        row, base = key_row(lanes.ranked[i]), key_distance(lanes.ranked[i])
        _offer_neighbours(root, row, lanes, lane, base, reach.ef, np.float32(np.inf))
    node = _take(rows, lanes, lane, reach, k)
    if node < 0:  # no distance is finite
        node = np.int64(root.ids[0, ids_of(root, 0)])
        visit(lanes, lane, node)
    lanes.state[lane, NODE] = node


@inline
def _go_on(
    rows: Any, queries: Any, lanes: Any, lane: Any, reach: Any, k: Any, keep: Any, returned: Any
) -> Any:
    """Expand the lane's node and take the next one; return whether there is one."""
    node = lanes.state[lane, NODE]
    following = _take(rows, lanes, lane, reach, k)
    lanes.state[lane, MATCHED] += returned
    base = _compare(rows, queries, node, lanes, lane, keep, returned)
    limit = limit_of(lanes, lane, k, reach.stop * reach.margin)
    _offer_neighbours(rows, node, lanes, lane, base, reach.ef, limit)
    if following < 0:
        following = _take(rows, lanes, lane, reach, k)
    lanes.state[lane, NODE] = following
    return following >= 0


@inline
def search_one(rows: Any, root: Any, queries: Any, reach: Any, k: Any, lanes: Any) -> Any:
    """Search for ``queries[0]``; return how many of the first of ``lanes.best[0]`` are found."""
    _start(rows, root, queries, 0, lanes, 0, reach, k)
    while _go_on(rows, queries, lanes, 0, reach, k, k, True):
        pass
    forget(lanes, 0)
    return lanes.state[0, FOUND]


@direct_kernel
def search_coded(
    rows: Any, root: Any, twins: Any, queries: Any, reach: Any, keep: Any, allowed: Any,
    restricted: Any, scales: Any, lanes: Any, out_rows: Any, out_distances: Any, effort: Any,
) -> None:  # fmt: skip
    """Find the nearest rows of each query.

    Parameters
    ----------
    rows : CodedRows
    root : CodedRows
        Its first row is at the origin. Searches start at the neighbours of that, or, where there
        are more rows, at those of the following rows whose places are the nearest: each stands
        where the neighbour of its number is (counted from 1).
    twins : int32 (n,)
        The next row with the same vector, -1 after the last.
    queries : float32 (nq, width)
        Rotated as the rows were.
    reach : Reach
    keep : int
        How many of the best by code are kept to be ranked anew; at least k.
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
    effort : int64 (nq, 2)
        Receives how many nodes were expanded, and how many of them may be returned.
    """
    k = out_rows.shape[1]
    for q in range(queries.shape[0]):
        _start(rows, root, queries, q, lanes, 0, reach, k)
        going = True
        while going:
            node = lanes.state[0, NODE]
            returned = not restricted or is_allowed(allowed, twins, node)
            going = _go_on(rows, queries, lanes, 0, reach, k, keep, returned)
        if reach.margin > 1:
            limit = limit_of(lanes, 0, k, reach.stop * reach.margin)
            _compare_rest(rows, twins, queries, allowed, restricted, lanes, 0, keep, limit)
        count = _rank(rows, twins, queries, allowed, restricted, lanes, 0, k, keep)
        report(lanes, 0, effort)
        write_found(
            twins, allowed, restricted, lanes.ranked, count, q, scales, out_rows, out_distances,
        )  # fmt: skip
        forget(lanes, 0)
    await_interpreter()

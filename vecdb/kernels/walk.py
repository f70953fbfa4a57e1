"""What searches of flat graphs have in common, however their rows are laid out.

Working memory is a named tuple of arrays with a line for each query under way, a *lane*. It has at
least `visited`, `seen`, `candidates`, `best` and `state`, as in `vecdb.kernels.coded_search.Lanes`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from vecdb.kernels import frontier
from vecdb.kernels.bitset import has_bit
from vecdb.kernels.jit import inline
from vecdb.kernels.pool import key_distance, key_row

QUERY, NODE, FOUND, SEEN, HOPS, MATCHED = range(6)
"""A lane's `state`: the query, the node at hand, how many rows are found and visited, how many
nodes were taken, and how many of them may be returned."""
STATE = 6

SEED_LISTS = 8
"""Of the lists of seeds, where there are several, those of so many near leaders are looked at."""


class Reach(NamedTuple):
    """How far a search goes."""

    ef: int
    """A candidate is not expanded when so many that were are nearer."""
    least: int
    """So many are expanded before `stop` is looked at."""
    stop: float
    """Nor when it seems farther than the k-th best that was found, times this."""
    margin: float
    """What seems nearer than that, times this, is compared with even so."""


_ENDLESS = 1e30


def ended_by_ef(ef: int) -> Reach:
    """Return the reach of a search that ends only when `ef` expanded nodes are nearer."""
    return Reach(ef, 0, _ENDLESS, 1.0)


def is_ended_by_ef(reach: Reach) -> bool:
    """Tell whether a reach is one of `ended_by_ef`."""
    return reach.stop >= _ENDLESS


@inline
def begin_query(lanes: Any, lane: Any, q: Any) -> None:
    """Let a lane begin with a query."""
    frontier.begin(lanes.candidates, lane)
    for i in range(lanes.state.shape[1]):
        lanes.state[lane, i] = 0
    lanes.state[lane, QUERY] = q


@inline
def forget(lanes: Any, lane: Any) -> None:
    """Leave a lane's memory as the next query needs it."""
    frontier.end(lanes.candidates, lane)
    seen = lanes.state[lane, SEEN]
    if seen > lanes.seen.shape[1]:
        lanes.visited[lane, :] = 0
        return
    for i in range(seen):
        lanes.visited[lane, np.int64(lanes.seen[lane, i]) >> 3] = 0


@inline
def is_visited(lanes: Any, lane: Any, row: Any) -> Any:
    """Return 1 if a row was visited, and 0 if not."""
    return (lanes.visited[lane, row >> 3] >> (row & 7)) & 1


@inline
def visit(lanes: Any, lane: Any, row: Any) -> None:
    """Take note of a row that was not visited."""
    lanes.visited[lane, row >> 3] |= np.uint8(1 << (row & 7))
    seen = lanes.state[lane, SEEN]
    if seen < lanes.seen.shape[1]:
        lanes.seen[lane, seen] = row
    lanes.state[lane, SEEN] = seen + 1


@inline
def limit_of(lanes: Any, lane: Any, k: Any, factor: Any) -> Any:
    """Return the distance of the k-th row found, times a factor; infinity when there is none."""
    if lanes.state[lane, FOUND] < k:
        return np.float32(np.inf)
    return key_distance(lanes.best[lane, k - 1]) * np.float32(factor)


@inline
def next_node(lanes: Any, lane: Any, reach: Any, k: Any, expanded_only: Any) -> Any:
    """Take the nearest candidate that is to be expanded; return its row, -1 when there is none.

    Rows are visited here when `expanded_only`, and before they became candidates otherwise.
    """
    candidates = lanes.candidates
    limit = limit_of(lanes, lane, k, reach.stop)
    while True:
        place = frontier.place_of_nearest(candidates, lane)
        if place < 0:
            return np.int64(-1)
        key = candidates.opened[lane, place]
        row = key_row(key)
        if expanded_only and is_visited(lanes, lane, row):
            frontier.drop(candidates, lane, place)
            continue
        if key_distance(key) > limit and lanes.state[lane, HOPS] >= reach.least:
            return np.int64(-1)
        if frontier.is_outranked(candidates, lane, reach.ef, key):
            return np.int64(-1)
        frontier.drop(candidates, lane, place)
        frontier.close(candidates, lane, reach.ef, key)
        if expanded_only:
            visit(lanes, lane, row)
        lanes.state[lane, HOPS] += 1
        return row


@inline
def report(lanes: Any, lane: Any, effort: Any) -> None:
    """Write how much a search took, as `search_coded` documents it."""
    q = lanes.state[lane, QUERY]
    for i in range(2):
        effort[q, i] = lanes.state[lane, HOPS + i]


@inline
def is_allowed(allowed: Any, twins: Any, row: Any) -> Any:
    """Tell whether a row or one of its twins may be returned."""
    while row >= 0:
        if has_bit(allowed, row):
            return True
        row = np.int64(twins[row])
    return False


@inline
def write_found(
    twins: Any, allowed: Any, restricted: Any, keys: Any, count: Any, q: Any, scales: Any,
    out_rows: Any, out_distances: Any,
) -> None:  # fmt: skip
    """Write the allowed ones among the rows of ``keys[:count]`` and their twins as a result."""
    k = out_rows.shape[1]
    written = 0
    for i in range(count):
        row = key_row(keys[i])
        while row >= 0 and written < k:
            if not restricted or has_bit(allowed, row):
                out_rows[q, written] = row
                out_distances[q, written] = key_distance(keys[i]) * scales[q, 0] + scales[q, 1]
                written += 1
            row = np.int64(twins[row])
    for i in range(written, k):
        out_rows[q, i] = -1
        out_distances[q, i] = np.float32(np.inf)

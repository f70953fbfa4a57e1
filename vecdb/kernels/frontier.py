"""The candidates of a walk through a graph: which node comes next, and which come no more.

Keys (`vecdb.kernels.pool`) of nodes that were met and not expanded are *open*, in no order: one is
added by writing it down, and the nearest is found by looking at all, eight at a time, which is
faster than to keep them sorted. Keys of expanded nodes are *closed*. A candidate is outranked when
`ef` closed ones are nearer. When there is no room for more open keys, all that are not among the
`ef` nearest are given up, and nothing that is no nearer enters from then on.

Distances in keys are not negative here, so that keys are not.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vecdb.kernels.code_simd import count_below, lowest_key
from vecdb.kernels.jit import inline
from vecdb.kernels.pool import LARGEST_KEY, key_distance

MOST_AT_ONCE = 64
"""Keys that are written down before room is made again."""

_OPEN, _CLOSED = range(2)
_GROUP = 8
"""Keys that are looked at together: those up to a multiple of it behind the last are the largest
there is."""


class Frontier(NamedTuple):
    """The candidates of several walks, a line for each.

    Between walks there are no closed keys; of the rest nothing is depended on.
    """

    opened: NDArray[np.int64]
    """(lanes, at least `frontier_room(ef)`)."""
    closed: NDArray[np.int64]
    """As `opened`; behind the last, all are the largest key."""
    counts: NDArray[np.int64]
    """(lanes, 2): how many open and closed keys there are."""
    limits: NDArray[np.float32]
    """(lanes,): what is no nearer does not enter."""


def frontier_room(ef: int) -> int:
    """Return the length of a line for walks of `ef`."""
    return -(-_room(ef) // _GROUP) * _GROUP


@inline
def _room(ef: int) -> int:
    """Return how many keys there may be before they are cut: so many that it is seldom done."""
    return 2 * ef + 4 * MOST_AT_ONCE


@inline
def begin(frontier: Any, lane: Any) -> None:
    """Make ready for a walk."""
    for i in range(_GROUP):
        frontier.opened[lane, i] = LARGEST_KEY
    frontier.counts[lane, _OPEN] = 0
    frontier.limits[lane] = np.float32(np.inf)


@inline
def end(frontier: Any, lane: Any) -> None:
    """Leave no closed keys."""
    for i in range(frontier.counts[lane, _CLOSED]):
        frontier.closed[lane, i] = LARGEST_KEY
    frontier.counts[lane, _CLOSED] = 0


@inline
def open_count(frontier: Any, lane: Any) -> Any:
    """Return how many open keys there are."""
    return frontier.counts[lane, _OPEN]


@inline
def make_room(frontier: Any, lane: Any, ef: Any) -> Any:
    """Make room for `MOST_AT_ONCE` more open keys, and return where the first may be written."""
    if frontier.counts[lane, _OPEN] + MOST_AT_ONCE + _GROUP > _room(ef):
        _cut(frontier, lane, ef)
    return frontier.counts[lane, _OPEN]


@inline
def opened_through(frontier: Any, lane: Any, count: Any) -> None:
    """Take note that there are `count` open keys now, the last of which were written by hand."""
    for i in range(count, count + _GROUP):
        frontier.opened[lane, i] = LARGEST_KEY
    frontier.counts[lane, _OPEN] = count


@inline
def place_of_nearest(frontier: Any, lane: Any) -> Any:
    """Return where the nearest open key stands; there must be one."""
    return lowest_key(frontier.opened[lane], frontier.counts[lane, _OPEN])


@inline
def drop(frontier: Any, lane: Any, place: Any) -> None:
    """Give up the open key at a place; the last one moves there."""
    last = frontier.counts[lane, _OPEN] - 1
    frontier.opened[lane, place] = frontier.opened[lane, last]
    frontier.opened[lane, last] = LARGEST_KEY
    frontier.counts[lane, _OPEN] = last


@inline
def is_outranked(frontier: Any, lane: Any, ef: Any, key: Any) -> Any:
    """Tell whether `ef` closed keys are nearer than `key`."""
    count = frontier.counts[lane, _CLOSED]
    return count >= ef and count_below(frontier.closed[lane], count, key) >= ef


@inline
def close(frontier: Any, lane: Any, ef: Any, key: Any) -> None:
    """Add a closed key."""
    if frontier.counts[lane, _CLOSED] + _GROUP > _room(ef):
        _cut(frontier, lane, ef)
    count = frontier.counts[lane, _CLOSED]
    frontier.closed[lane, count] = key
    frontier.counts[lane, _CLOSED] = count + 1


@inline
def _keep_below(keys: Any, count: Any, limit: Any) -> Any:
    """Keep the keys below a limit, and the largest key in place of others; return how many."""
    kept = 0
    for i in range(count):
        key = keys[i]
        keys[kept] = key
        kept += key < limit
    for i in range(kept, count):
        keys[i] = LARGEST_KEY
    return kept


@inline
def _cut(frontier: Any, lane: Any, ef: Any) -> None:
    """Keep about the `ef` nearest of open and closed keys together, and never fewer."""
    opened, closed = frontier.opened[lane], frontier.closed[lane]
    count, behind = frontier.counts[lane, _OPEN], frontier.counts[lane, _CLOSED]
    enough = ef + (ef >> 3)
    low, high = np.int64(0), np.int64(LARGEST_KEY)
    if count + behind <= enough:
        return
    while high - low > 1:
        middle = low + ((high - low) >> 1)
        below = count_below(opened, count, middle) + count_below(closed, behind, middle)
        if below < ef:
            low = middle
        else:
            high = middle
            if below <= enough:
                break
    frontier.counts[lane, _OPEN] = _keep_below(opened, count, high)
    frontier.counts[lane, _CLOSED] = _keep_below(closed, behind, high)
    frontier.limits[lane] = min(frontier.limits[lane], key_distance(high))

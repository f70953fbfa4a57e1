"""The candidates of a walk through a graph: which node comes next, and which come no more.

Keys (`vecdb.kernels.pool`) of nodes that were met and not expanded are *open*, in no order: one is
added by writing it down. They stand in blocks, of each of which the nearest is known; the nearest
of all is found among these, and then in its block, eight at a time: that is faster than to keep
them sorted. What is taken leaves its place empty. Keys of expanded nodes are *closed*. A candidate
is outranked when `ef` closed ones are nearer. When there is no room for more open keys, they move
together, and all that are not among the `ef` nearest are given up; nothing that is no nearer enters
from then on.

Distances in keys are not negative here, so that keys are not.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vecdb.kernels.code_simd import block_minimum, count_below, lowest_key, place_in_block
from vecdb.kernels.jit import inline
from vecdb.kernels.pool import LARGEST_KEY, key_distance

MOST_AT_ONCE = 64
"""Keys that are written down before room is made again."""

_OPEN, _CLOSED = range(2)
_BLOCK = 64
_GROUP = 8
"""Keys that are looked at together."""
_EMPTY = LARGEST_KEY


class Frontier(NamedTuple):
    """The candidates of several walks, a line for each; empty between walks.

    Whatever is no key is the largest that there is.
    """

    opened: NDArray[np.int64]
    """(lanes, at least `frontier_room(ef)`)."""
    nearest: NDArray[np.int64]
    """(lanes, a multiple of 8): of each 64 in `opened`."""
    closed: NDArray[np.int64]
    """As `opened`."""
    counts: NDArray[np.int64]
    """(lanes, 2): up to where there are open and closed keys."""
    limits: NDArray[np.float32]
    """(lanes,): what is no nearer does not enter."""


def frontier_room(ef: int) -> int:
    """Return the length of a line for walks of `ef`."""
    return -(-_room(ef) // _BLOCK) * _BLOCK


def ef_of_room(room: int) -> int:
    """Return the largest ef whose walks a line of this length serves."""
    return (room - 8 * MOST_AT_ONCE) // 4


def make_frontier(ef: int, lanes: int) -> Frontier:
    """Allocate what the candidates of walks of `ef` need."""
    room = frontier_room(ef)
    blocks = -(-room // (_BLOCK * _GROUP)) * _GROUP
    opened, nearest, closed = (
        np.full((lanes, length), _EMPTY, np.int64) for length in (room, blocks, room)
    )
    limits = np.empty(lanes, np.float32)
    return Frontier(opened, nearest, closed, np.zeros((lanes, 2), np.int64), limits)


@inline
def _room(ef: int) -> int:
    """Return how many places there are before keys are cut: so many that it is seldom done."""
    return 4 * ef + 8 * MOST_AT_ONCE


@inline
def begin(frontier: Any, lane: Any) -> None:
    """Make ready for a walk."""
    frontier.limits[lane] = np.float32(np.inf)


@inline
def end(frontier: Any, lane: Any) -> None:
    """Leave no keys."""
    for i in range(frontier.counts[lane, _OPEN]):
        frontier.opened[lane, i] = _EMPTY
    for i in range(frontier.nearest.shape[1]):
        frontier.nearest[lane, i] = _EMPTY
    for i in range(frontier.counts[lane, _CLOSED]):
        frontier.closed[lane, i] = _EMPTY
    frontier.counts[lane, _OPEN] = 0
    frontier.counts[lane, _CLOSED] = 0


@inline
def open_places(frontier: Any, lane: Any) -> Any:
    """Return up to where there are open keys."""
    return frontier.counts[lane, _OPEN]


@inline
def is_empty(key: Any) -> Any:
    """Tell whether there is no key at a place."""
    return key == _EMPTY


@inline
def make_room(frontier: Any, lane: Any, ef: Any) -> Any:
    """Make room for `MOST_AT_ONCE` more open keys, and return where the first may be written."""
    if frontier.counts[lane, _OPEN] + MOST_AT_ONCE + 1 > _room(ef):
        _cut(frontier, lane, ef)
    return frontier.counts[lane, _OPEN]


@inline
def opened_through(frontier: Any, lane: Any, count: Any) -> None:
    """Take note that keys were written by hand up to `count`, and maybe one more there."""
    before = frontier.counts[lane, _OPEN]
    frontier.opened[lane, count] = _EMPTY
    frontier.counts[lane, _OPEN] = count
    if count > before:
        _look_over(frontier, lane, before // _BLOCK, (count - 1) // _BLOCK)


@inline
def _look_over(frontier: Any, lane: Any, first: Any, last: Any) -> None:
    """Find the nearest open keys of the blocks from `first` to `last`."""
    opened = frontier.opened[lane]
    for block in range(first, last + 1):
        frontier.nearest[lane, block] = block_minimum(opened, block * _BLOCK)


@inline
def place_of_nearest(frontier: Any, lane: Any) -> Any:
    """Return where the nearest open key stands, -1 if there is none."""
    nearest = frontier.nearest[lane]
    blocks = (frontier.counts[lane, _OPEN] + _BLOCK - 1) // _BLOCK
    if blocks == 0:
        return np.int64(-1)
    block = lowest_key(nearest, blocks)
    if nearest[block] == _EMPTY:
        return np.int64(-1)
    start = block * _BLOCK
    return start + place_in_block(frontier.opened[lane], start, nearest[block])


@inline
def drop(frontier: Any, lane: Any, place: Any) -> None:
    """Give up the open key at a place."""
    frontier.opened[lane, place] = _EMPTY
    _look_over(frontier, lane, place // _BLOCK, place // _BLOCK)


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
    """Move the keys below a limit together, and give up the others; return how many there are."""
    kept = 0
    for i in range(count):
        key = keys[i]
        keys[kept] = key
        kept += key < limit
    for i in range(kept, count):
        keys[i] = _EMPTY
    return kept


@inline
def _cut(frontier: Any, lane: Any, ef: Any) -> None:
    """Keep about the `ef` nearest of open and closed keys together, and never fewer."""
    opened, closed = frontier.opened[lane], frontier.closed[lane]
    count, behind = frontier.counts[lane, _OPEN], frontier.counts[lane, _CLOSED]
    enough = ef + (ef >> 3)
    low, high = np.int64(0), np.int64(_EMPTY)
    if count_below(opened, count, high) + behind > enough:
        while high - low > 1:
            middle = low + ((high - low) >> 1)
            below = count_below(opened, count, middle) + count_below(closed, behind, middle)
            if below < ef:
                low = middle
            else:
                high = middle
                if below <= enough:
                    break
        frontier.limits[lane] = min(frontier.limits[lane], key_distance(high))
    kept = _keep_below(opened, count, high)
    frontier.counts[lane, _OPEN] = kept
    frontier.counts[lane, _CLOSED] = _keep_below(closed, behind, high)
    _look_over(frontier, lane, 0, (count - 1) // _BLOCK)

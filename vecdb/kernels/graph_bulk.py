"""Candidates for a graph that is built all at once: equal rows, leaders, and leaves.

The rows are carved into small, overlapping leaves around random leaders, as in PiPNN (Rubel et al.
2026), and inside a leaf every pair is compared, by codes of two bytes a coordinate first
(`vecdb.kernels.word_codes`). What a row is compared with goes into a list of its nearest. A list is
a set of keys that depends on nothing but the pairs compared, so the result is the same whatever the
number of threads and the order in which they come.

The distance of two rows is the squared Euclidean one of their vectors and both lifts, added up
(`vecdb.index.graph_space`).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vecdb.kernels.graph_bulk_link import lifted
from vecdb.kernels.jit import inline, kernel
from vecdb.kernels.pool import LARGEST_KEY, key_distance, key_row, pack_key
from vecdb.kernels.simd import l2_one_by_four, move_up, prefetch, try_lock, unlock
from vecdb.kernels.word_codes import (
    REST,
    SQUARE,
    STEP,
    dot_words,
    least_squared,
    squared_of_codes,
)

LEADER_TILE = 4
"""Leaders come in multiples of it."""

_KEYS_OF_LINE = 8
_LOWERED = np.float32(1 - 1e-6)
"""Sums of lifts in float32 are no larger than they are, times this."""


class LeafMemory(NamedTuple):
    """Working memory for leaves of up to so many rows."""

    block: NDArray[np.float32]
    """(leaf size, width): their vectors."""
    codes: NDArray[np.int16]
    """(leaf size + 3, width of the codes): their codes. All 0 at first."""
    table: NDArray[np.int32]
    """(leaf size, leaf size): the products of these."""
    own: tuple[NDArray[np.float32], ...]
    """Five of (leaf size,): steps, rests, squares, lifts, and what distances are at least."""
    some: NDArray[np.int64]
    """(4,): which of them are compared next."""


@kernel
def chain_twins(words: Any, hashes: Any, order: Any, twins: Any) -> None:
    """Hang every row on the first row that equals it.

    Parameters
    ----------
    words : uint32 (n, width)
        The rows as bits.
    hashes : uint64 (n,)
        Their hashes.
    order : int64 (n,)
        The rows sorted by hash, then number; on return, -1 in place of each row that is a twin.
    twins : int32 (n,)
        All -1; receives the next row with the same vector.
    """
    n = len(order)
    start = 0
    while start < n:
        stop = start + 1
        while stop < n and hashes[order[stop]] == hashes[order[start]]:
            stop += 1
        for i in range(start, stop):
            if order[i] < 0:
                continue
            last = order[i]
            for j in range(i + 1, stop):
                if order[j] < 0:
                    continue
                same = 0
                while same < words.shape[1] and words[order[i], same] == words[order[j], same]:
                    same += 1
                if same == words.shape[1]:
                    twins[last] = order[j]
                    last = order[j]
                    order[j] = -1
        start = stop


@kernel
def nearest_leaders(
    words: Any, points: Any, first: Any, last: Any, leaders: Any, chosen: Any, distances: Any
) -> None:
    """Find the leaders nearest to some points, by their codes.

    Parameters
    ----------
    words : Words
    points : int32 (count,)
        Row numbers; those from `first` to before `last` are looked at.
    leaders : Words
        Of the leaders: a multiple of `LEADER_TILE`, at least `chosen.shape[1]`.
    chosen : int32 (count, fanout)
        Receives numbers of leaders, nearest first; of equally near ones the first.
    distances : float32 (count, fanout)
        Receives about their squared distances.
    """
    width, fanout = words.codes.shape[1], chosen.shape[1]
    for i in range(first, last, 2):
        other = min(i + 1, last - 1)
        for j in range(fanout):
            chosen[i, j] = -1
            chosen[other, j] = -1
        for leader in range(0, leaders.codes.shape[0], LEADER_TILE):
            tile = dot_words(leaders.codes, leader, words.codes, points[i], points[other], width)
            for t in range(LEADER_TILE):
                for side in range(1 + other - i):
                    point, led = words.facts[points[i + side]], leaders.facts[leader + t]
                    this = squared_of_codes(
                        tile[2 * t + side], (point[STEP], led[STEP]), (point[SQUARE], led[SQUARE])
                    )
                    place = fanout
                    while place > 0 and (
                        chosen[i + side, place - 1] < 0 or this < distances[i + side, place - 1]
                    ):
                        if place < fanout:
                            chosen[i + side, place] = chosen[i + side, place - 1]
                            distances[i + side, place] = distances[i + side, place - 1]
                        place -= 1
                    if place < fanout:
                        chosen[i + side, place] = leader + t
                        distances[i + side, place] = this


@inline
def _offer_once(keys: Any, key: Any) -> None:
    """Put `key` into a sorted array in place of its last one, unless it is there already."""
    low, length = 0, len(keys)
    while length > 0:
        half = length >> 1
        if keys[low + half] < key:
            low += half + 1
            length -= half + 1
        else:
            length = half
    if low == len(keys) or keys[low] == key:
        return
    if low < len(keys) - 1:
        move_up(keys, low, len(keys) - 1, 1)
    keys[low] = key


@inline
def _worst(keys: Any) -> Any:
    """Return the distance from which on nothing enters a list."""
    return np.float32(np.inf) if keys[-1] == LARGEST_KEY else key_distance(keys[-1])


@inline
def _multiply_all(block: Any, count: Any, table: Any) -> None:
    """Fill `table` with the inner products of the first `count` codes of `block`."""
    width = block.shape[1]
    for i in range(0, count, 4):
        for j in range(i, count, 2):
            other = min(j + 1, count - 1)
            tile = dot_words(block, i, block, j, other, width)
            for t in range(min(4, count - i)):
                table[i + t, j] = tile[2 * t]
                table[j, i + t] = tile[2 * t]
                table[i + t, other] = tile[2 * t + 1]
                table[other, i + t] = tile[2 * t + 1]


@inline
def _knows(keys: Any, row: Any) -> Any:
    """Tell whether a list has a row already."""
    known = False
    for i in range(len(keys)):  # to the end: then it is done several at a time
        known |= key_row(keys[i]) == row
    return known


@inline
def _offer_some(
    block: Any, i: Any, rows: Any, raised: Any, some: Any, count: Any, keys: Any
) -> None:
    """Offer `count` rows of a leaf, at most four and at least one, to the list of its row `i`."""
    last = count - 1
    a, b, c, d = some[0], some[min(1, last)], some[min(2, last)], some[last]
    four = l2_one_by_four(block, i, block, a, b, c, d, block.shape[1])
    for t in range(count):
        j = some[t]
        distance = lifted(four[3 if t == last else t], raised[i], raised[j])
        if distance <= _worst(keys):
            _offer_once(keys, pack_key(distance, rows[j]))


@kernel
def join_leaves(
    vectors: Any, lifts: Any, words: Any, starts: Any, members: Any, first: Any, last: Any,
    lists: Any, locks: Any, memory: Any,
) -> None:  # fmt: skip
    """Compare all pairs inside some leaves and put each row into the lists of the others.

    Only what may be near enough by its code is compared with itself, so the lists are those of
    comparing with all.

    Parameters
    ----------
    vectors : float32 (n, width)
    lifts : float32 (n,)
    words : Words
        Of the vectors.
    starts : int64 (leaves + 1,)
        Where each leaf's rows begin in `members`; leaves `first` to before `last` are joined.
    members : int32
        Row numbers.
    lists : int64 (n, k)
        The keys of the nearest rows known of each row, sorted.
    locks : int32 (n,)
        All 0; shared by the threads.
    memory : LeafMemory
    """
    block, table, some = memory.block, memory.table, memory.some
    steps, rests, squares, raised, least = memory.own
    for leaf in range(first, last):
        rows = members[starts[leaf] : starts[leaf + 1]]
        count = len(rows)
        for i in range(count):
            row, facts = rows[i], words.facts[rows[i]]
            for j in range(vectors.shape[1]):
                block[i, j] = vectors[row, j]
            for j in range(words.codes.shape[1]):
                memory.codes[i, j] = words.codes[row, j]
            steps[i], rests[i], squares[i] = facts[STEP], facts[REST], facts[SQUARE]
            raised[i] = lifts[row]
        _multiply_all(memory.codes, count, table)
        for i in range(count):
            prefetch(lists, rows[min(i + 1, count - 1)], 0, lists.shape[1] // _KEYS_OF_LINE)
            for j in range(count):
                bound = least_squared(
                    table[i, j],
                    (steps[i], steps[j]),
                    (rests[i], rests[j]),
                    (squares[i], squares[j]),
                )
                least[j] = bound + (raised[i] + raised[j]) * _LOWERED
            keys, size = lists[rows[i]], 0
            while not try_lock(locks, rows[i]):
                pass
            worst = _worst(keys)
            for j in range(count):
                if least[j] <= worst and j != i and not _knows(keys, rows[j]):
                    some[size] = j
                    size += 1
                    if size == 4:
                        _offer_some(block, i, rows, raised, some, 4, keys)
                        worst, size = _worst(keys), 0
            if size > 0:
                _offer_some(block, i, rows, raised, some, size, keys)
            unlock(locks, rows[i])


@kernel
def measure_keys(vectors: Any, lifts: Any, keys: Any) -> None:
    """Replace the distances in keys (n, f) of rows by those that the graph is built by."""
    for row in range(keys.shape[0]):
        for j in range(keys.shape[1]):
            if keys[row, j] != LARGEST_KEY:
                node = key_row(keys[row, j])
                far = l2_one_by_four(
                    vectors, row, vectors, node, node, node, node, vectors.shape[1]
                )[0]  # fmt: skip
                keys[row, j] = pack_key(lifted(far, lifts[row], lifts[node]), node)

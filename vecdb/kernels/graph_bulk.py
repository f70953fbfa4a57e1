"""Candidates for a graph that is built all at once: equal rows, leaders, and leaves.

The rows are carved into small, overlapping leaves around random leaders, as in PiPNN (Rubel et al.
2026), and inside a leaf every pair is compared. What a row is compared with goes into a list of
its nearest. A list is a set of keys that depends on nothing but the pairs compared, so the
result is the same whatever the number of threads and the order in which they come.

The distance of two rows is the squared Euclidean one of their vectors and both lifts, added up
(`vecdb.index.graph_space`).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from vecdb.kernels.graph_bulk_link import lifted
from vecdb.kernels.jit import inline, kernel
from vecdb.kernels.pool import LARGEST_KEY, key_distance, key_row, pack_key
from vecdb.kernels.simd import (
    l2_four_by_two,
    l2_one_by_four,
    move_up,
    try_lock,
    unlock,
)

LEADER_TILE = 4
"""Leaders come in multiples of it."""


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
    vectors: Any, points: Any, first: Any, last: Any, leaders: Any, chosen: Any, distances: Any
) -> None:
    """Find the leaders nearest to some points.

    Parameters
    ----------
    vectors : float32 (n, width)
    points : int32 (count,)
        Row numbers; those from `first` to before `last` are looked at.
    leaders : float32 (leaders, width)
        A multiple of `LEADER_TILE`, at least `chosen.shape[1]`.
    chosen : int32 (count, fanout)
        Receives numbers of leaders, nearest first; of equally near ones the first.
    distances : float32 (count, fanout)
        Receives their squared distances.
    """
    width, fanout = vectors.shape[1], chosen.shape[1]
    for i in range(first, last, 2):
        other = min(i + 1, last - 1)
        for j in range(fanout):
            chosen[i, j] = -1
            chosen[other, j] = -1
        for leader in range(0, leaders.shape[0], LEADER_TILE):
            tile = l2_four_by_two(leaders, leader, vectors, points[i], points[other], width)
            for t in range(LEADER_TILE):
                for side in range(1 + other - i):
                    this = tile[2 * t + side]
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
def _compare_all(block: Any, count: Any, table: Any) -> None:
    """Fill `table` with the squared distances of the first `count` rows of `block`."""
    width = block.shape[1]
    for i in range(0, count, 4):
        for j in range(i, count, 2):
            other = min(j + 1, count - 1)
            tile = l2_four_by_two(block, i, block, j, other, width)
            for t in range(min(4, count - i)):
                table[i + t, j] = tile[2 * t]
                table[j, i + t] = tile[2 * t]
                table[i + t, other] = tile[2 * t + 1]
                table[other, i + t] = tile[2 * t + 1]


@kernel
def join_leaves(
    vectors: Any, lifts: Any, starts: Any, members: Any, first: Any, last: Any, lists: Any,
    locks: Any, block: Any, table: Any,
) -> None:  # fmt: skip
    """Compare all pairs inside some leaves and put each row into the lists of the others.

    Parameters
    ----------
    vectors : float32 (n, width)
    lifts : float32 (n,)
    starts : int64 (leaves + 1,)
        Where each leaf's rows begin in `members`; leaves `first` to before `last` are joined.
    members : int32
        Row numbers.
    lists : int64 (n, k)
        The keys of the nearest rows known of each row, sorted.
    locks : int32 (n,)
        All 0; shared by the threads.
    block : float32 (leaf size + 3, width)
        Working memory.
    table : float32 (leaf size, leaf size)
        Working memory.
    """
    for leaf in range(first, last):
        rows = members[starts[leaf] : starts[leaf + 1]]
        count = len(rows)
        for i in range(count):
            for j in range(vectors.shape[1]):
                block[i, j] = vectors[rows[i], j]
        _compare_all(block, count, table)
        for i in range(count):
            row = rows[i]
            keys = lists[row]
            while not try_lock(locks, row):
                pass
            worst = _worst(keys)
            for j in range(count):
                distance = lifted(table[i, j], lifts[row], lifts[rows[j]])
                if distance <= worst and j != i:
                    _offer_once(keys, pack_key(distance, rows[j]))
                    worst = _worst(keys)
            unlock(locks, row)


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


@inline
def _offer_locked(lists: Any, locks: Any, row: Any, distance: Any, other: Any) -> None:
    """Put `other` into the list of `row` if it is near enough."""
    keys = lists[row]
    if distance <= _worst(keys):
        while not try_lock(locks, row):
            pass
        _offer_once(keys, pack_key(distance, other))
        unlock(locks, row)


@kernel
def widen_lists(
    vectors: Any,
    lifts: Any,
    found: Any,
    order: Any,
    first: Any,
    last: Any,
    lists: Any,
    locks: Any,
    far: Any,
) -> None:
    """Let rows and those that a search for them met know each other.

    Parameters
    ----------
    vectors, lifts, lists, locks
        As for `join_leaves`.
    order : int32 (n,)
        The rows from `first` to before `last` of it are worked on.
    found : int64 (last - first, met)
        The rows met, nearest first, -1 after the last.
    far : int64 (n, f)
        Receives the keys of the last of them: the way on which the search came.
    """
    for i in range(first, last):
        row = np.int64(order[i])
        met = found[i - first]
        count = 0
        while count < len(met) and met[count] >= 0:
            count += 1
        for j in range(far.shape[1]):
            far[row, j] = LARGEST_KEY
        for j in range(0, count, 4):
            end = count - 1
            a, b, c = met[j], met[min(j + 1, end)], met[min(j + 2, end)]
            d = met[min(j + 3, end)]
            four = l2_one_by_four(vectors, row, vectors, a, b, c, d, vectors.shape[1])
            for t in range(min(4, count - j)):
                if met[j + t] == row:
                    continue
                distance = lifted(four[t], lifts[row], lifts[met[j + t]])
                _offer_locked(lists, locks, row, distance, met[j + t])
                _offer_locked(lists, locks, met[j + t], distance, row)
                if count - j - t <= far.shape[1]:
                    far[row, count - j - t - 1] = pack_key(distance, met[j + t])

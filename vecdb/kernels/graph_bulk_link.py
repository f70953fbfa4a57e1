"""Links of a graph that is built all at once: prune, reverse, fill, and search for the lost.

Every pass reads one graph and writes another, node by node, so the result does not depend on how
nodes were spread over threads. Distances are squared Euclidean ones and both rows' lifts
(`vecdb.index.graph_space`). Candidates come in their order; which of them hides another is seen by
directions, without lifts. With them, under dot, a long row would hide nearly all others, because it
has a large inner product with each, and searches would expand up to ten times as many nodes.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from vecdb.kernels.bitset import has_bit, set_bit
from vecdb.kernels.jit import inline, kernel
from vecdb.kernels.pool import EXPANDED, LARGEST_KEY, insert_key, key_distance, key_row, pack_key
from vecdb.kernels.simd import l2_one_by_four, prefetch

_AHEAD = 4
"""Candidates: one is compared in less time than its vector takes to come."""
_FLOATS_OF_LINE = 16


@inline
def lifted(squared: Any, one: Any, other: Any) -> Any:
    """Return a squared distance with both lifts added.

    In float64, where these sums are exact: it must be the same to the last bit from both sides of a
    pair, and kernels may reorder sums.
    """
    return np.float32(np.float64(squared) + (np.float64(one) + np.float64(other)))


@inline
def gather_key(keys: Any, size: Any, key: Any) -> Any:
    """Insert `key` into the sorted ``keys[:size]`` unless it is there; return the new size.

    When all of `keys` is in use the last key goes.
    """
    low, length = 0, size
    while length > 0:
        half = length >> 1
        if keys[low + half] < key:
            low += half + 1
            length -= half + 1
        else:
            length = half
    if low == len(keys) or (low < size and keys[low] == key):
        return size
    insert_key(keys, size, len(keys), key)
    return min(size + 1, len(keys))


@inline
def _gather(keys: Any, size: Any, more: Any, row: Any) -> Any:
    """Insert the keys of `more`, but not that of `row` itself; return the new size."""
    for i in range(len(more)):
        if more[i] != LARGEST_KEY and key_row(more[i]) != row:
            size = gather_key(keys, size, more[i])
    return size


@inline
def walk(
    vectors: Any, lifts: Any, links: Any, query: Any, entry: Any, pool: Any, visited: Any,
    batch: Any,
) -> Any:  # fmt: skip
    """Search the graph for the row `query` from `entry`.

    The keys of the ``len(pool)`` nearest nodes are left in `pool`; returned is how many there are.
    """
    width, ef = vectors.shape[1], len(pool)
    for i in range(len(visited)):
        visited[i] = 0
    set_bit(visited, entry)
    start = l2_one_by_four(vectors, query, vectors, entry, entry, entry, entry, width)[0]
    start += lifts[query] + lifts[entry]
    pool[0] = pack_key(start, entry)
    size, cursor = 1, 0
    while cursor < size:
        key = pool[cursor]
        if key & EXPANDED:
            cursor += 1
            continue
        pool[cursor] = key | EXPANDED
        cursor += 1
        node, count = key_row(key), 0
        for j in range(links.shape[1]):
            other = np.int64(links[node, j])
            if other < 0:
                break
            if not has_bit(visited, other):
                set_bit(visited, other)
                prefetch(vectors, other, 0, 4)
                batch[count] = other
                count += 1
        for i in range(0, count, 4):
            last = count - 1
            a, b, c = batch[i], batch[min(i + 1, last)], batch[min(i + 2, last)]
            d = batch[min(i + 3, last)]
            four = l2_one_by_four(vectors, query, vectors, a, b, c, d, width)
            for j in range(min(4, count - i)):
                distance = lifted(four[j], lifts[query], lifts[batch[i + j]])
                key = pack_key(distance, batch[i + j])
                if size < ef or key < pool[ef - 1]:
                    place = insert_key(pool, size, ef, key)
                    size = min(size + 1, ef)
                    cursor = min(cursor, place)
    return size


@inline
def _nearest_rival(directions: Any, row: Any, kept: Any, count: Any, enough: Any) -> Any:
    """Return the least squared distance of `row` to the nodes kept; any below `enough` will do."""
    width, last = directions.shape[1], count - 1
    least = np.float32(np.inf)
    for j in range(0, count, 4):
        a, b, c = kept[j], kept[min(j + 1, last)], kept[min(j + 2, last)]
        d = kept[min(j + 3, last)]
        w, x, y, z = l2_one_by_four(directions, row, directions, a, b, c, d, width)
        least = min(least, min(min(w, x), min(y, z)))
        if least < enough:
            break
    return least


@inline
def _ask_ahead(directions: Any, keys: Any, i: Any, size: Any) -> None:
    """Ask for the direction of a candidate that is soon compared."""
    if i + _AHEAD < size:
        prefetch(directions, key_row(keys[i + _AHEAD]), 0, directions.shape[1] // _FLOATS_OF_LINE)


@inline
def _from_base(directions: Any, lifted: Any, base: Any, key: Any) -> Any:
    """Return the squared distance of a candidate to the base, without lifts."""
    if not lifted:
        return key_distance(key)
    row = key_row(key)
    four = l2_one_by_four(directions, row, directions, base, base, base, base, directions.shape[1])
    return four[0]


@inline
def _prune(
    directions: Any, lifted: Any, base: Any, keys: Any, size: Any, most: Any, kept: Any,
    kept_keys: Any,
) -> Any:  # fmt: skip
    """Keep a candidate if it is nearer to the base than to all kept before; return how many."""
    count = 0
    for i in range(size):
        _ask_ahead(directions, keys, i, size)
        row, to_base = key_row(keys[i]), _from_base(directions, lifted, base, keys[i])
        if _nearest_rival(directions, row, kept, count, to_base) >= to_base:
            kept[count] = row
            kept_keys[count] = keys[i]
            count += 1
            if count == most:
                break
    return count


@kernel
def prune_lists(
    directions: Any, lifted: Any, lists: Any, far: Any, order: Any, first: Any, last: Any,
    kept_keys: Any, kept: Any, keys: Any,
) -> None:  # fmt: skip
    """Keep of each row's list those that are nearer to the row than to others kept.

    Parameters
    ----------
    directions : float32 (n, width)
        Among which rows hide each other.
    lifted : bool
        Whether keys hold other distances than those between directions.
    lists : int64 (n, k)
        Sorted keys, the largest possible one where there are fewer.
    far : int64 (n, f)
        Keys of further candidates, in any order.
    order : int32 (n,)
        The rows from `first` to before `last` of it are worked on.
    kept_keys : int64 (n, most)
        Receives the keys that are kept, and behind them the largest possible one.
    kept : int64 (at least most,)
        Working memory.
    keys : int64 (k + f,)
        Working memory.
    """
    for i in range(first, last):
        row = order[i]
        size = _gather(keys, 0, lists[row], row)
        size = _gather(keys, size, far[row], row)
        most = kept_keys.shape[1]
        count = _prune(directions, lifted, row, keys, size, most, kept, kept_keys[row])
        for j in range(count, kept_keys.shape[1]):
            kept_keys[row, j] = LARGEST_KEY


@kernel
def count_reverse(kept_keys: Any, starts: Any) -> None:
    """Put into `starts`, int64 (n + 1,) of zeros, where each row's reverse links will begin."""
    for row in range(kept_keys.shape[0]):
        for j in range(kept_keys.shape[1]):
            if kept_keys[row, j] == LARGEST_KEY:
                break
            starts[key_row(kept_keys[row, j]) + 1] += 1
    for row in range(kept_keys.shape[0]):
        starts[row + 1] += starts[row]


@kernel
def fill_reverse(kept_keys: Any, starts: Any, reverse: Any) -> None:
    """Write a key for each link into the stretch of the row it leads to.

    On return ``starts[row]`` is where the stretch of a row ends.
    """
    for row in range(kept_keys.shape[0]):
        for j in range(kept_keys.shape[1]):
            key = kept_keys[row, j]
            if key == LARGEST_KEY:
                break
            target = key_row(key)
            reverse[starts[target]] = pack_key(key_distance(key), row)
            starts[target] += 1


@inline
def _prune_and_fill(
    directions: Any, lifted: Any, base: Any, keys: Any, size: Any, links: Any, kept: Any,
    strain: Any,
) -> Any:  # fmt: skip
    """Choose links as `_prune` does, then take back those that failed by the least.

    `strain` of a candidate is how many times nearer it is to a node kept than to the base.
    """
    most, count = len(links), 0
    for i in range(size):
        _ask_ahead(directions, keys, i, size)
        row, to_base = key_row(keys[i]), _from_base(directions, lifted, base, keys[i])
        nearest = np.float32(0.0)
        if count < most:
            nearest = _nearest_rival(directions, row, kept, count, np.float32(0.0))
        if nearest >= to_base and count < most:
            strain[i] = np.float32(-1.0)
            kept[count] = row
            links[count] = row
            count += 1
        else:
            strain[i] = to_base / (nearest + np.float32(1e-30))
    taken = count
    while taken < min(most, size):
        best = -1
        for i in range(size):
            if strain[i] >= 0 and (best < 0 or strain[i] < strain[best]):
                best = i
        strain[best] = np.float32(-1.0)
        links[taken] = key_row(keys[best])
        taken += 1
    return taken


@kernel
def link_rows(
    directions: Any, lifted: Any, kept_keys: Any, reverse: Any, ends: Any, lists: Any, far: Any,
    order: Any, first: Any, last: Any, links: Any, kept: Any, keys: Any, strain: Any,
) -> None:  # fmt: skip
    """Choose the links of each row from those kept, those that lead to it, and its list.

    Parameters
    ----------
    directions, lifted, lists, far, order, first, last, kept
        As for `prune_lists`.
    kept_keys : int64 (n, most)
        What was kept; the largest possible key after the last.
    reverse, ends : int64
        As `fill_reverse` leaves them.
    links : int32 (n, degree)
        Receives the links, -1 after the last. Those that passed the pruning come first.
    keys : int64
        Working memory; its length is how many candidates are looked at.
    strain : float32 (len(keys),)
        Working memory.
    """
    for i in range(first, last):
        row = order[i]
        start = ends[row - 1] if row > 0 else 0
        size = _gather(keys, 0, kept_keys[row], row)
        size = _gather(keys, size, reverse[start : ends[row]], row)
        size = _gather(keys, size, lists[row], row)
        size = _gather(keys, size, far[row], row)
        taken = _prune_and_fill(directions, lifted, row, keys, size, links[row], kept, strain)
        for j in range(taken, links.shape[1]):
            links[row, j] = -1

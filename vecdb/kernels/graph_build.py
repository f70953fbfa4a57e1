"""Insertion into a hierarchical small-world graph (Malkov & Yashunin 2018, algorithms 1, 3, 4).

Several threads may insert at once. A thread looks for all neighbours of a new node first, then
writes the node's own links on every layer, and only then links back to it: whoever finds the node
finds its links complete. Link lists are changed under the lock of their node and read without it;
a reader may see a list half rewritten, which is a mix of nodes that are all in the graph.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vecdb.kernels.bitset import set_bit
from vecdb.kernels.distance import DOT, distance, distances_to_four
from vecdb.kernels.graph import Scratch, descend, search_layer, start_pool
from vecdb.kernels.jit import inline, kernel
from vecdb.kernels.pool import EXPANDED, insert_key, key_distance, key_row, pack_key
from vecdb.kernels.simd import try_lock, unlock


class Insertion(NamedTuple):
    """Working memory of one inserting thread."""

    search: Scratch
    chosen: NDArray[np.int64]
    """(layers, m): the neighbours chosen on each layer."""
    counts: NDArray[np.int64]
    """(layers,): how many were."""
    rivals: NDArray[np.int64]
    """(m0 + 1,): keys of a full node's neighbours and of the node that wants to be one."""
    kept: NDArray[np.int64]
    """(m0,): those of them that stay."""
    scales: NDArray[np.float32]
    """(m0,): as `_scale` returns them for nodes that are kept."""


@inline
def _scale(graph: Any, node: Any) -> Any:
    """Return what distances to a node are multiplied by to tell directions apart.

    Under dot a long vector has a large inner product with each other, and would hide nearly all.
    """
    if graph.metric != DOT:
        return np.float32(1.0)
    to_itself = distance(graph.metric, graph.rows, node, graph.rows, node, graph.column)
    return np.float32(1.0) / np.sqrt(max(-to_itself, np.float32(1e-30)))


@inline
def select_neighbours(
    graph: Any, base: Any, keys: Any, size: Any, most: Any, kept: Any, scales: Any
) -> Any:
    """Algorithm 4: keep a candidate if it is nearer to the base node than to all kept before.

    Under dot that is nearer in direction.

    Parameters
    ----------
    base : int
        The base node.
    keys : int64
        The candidates' keys with their distances to the base node, nearest first.
    size, most : int
        How many candidates there are, and how many may be kept.
    kept : int64 (at least most,)
        Receives the nodes kept.
    scales : float32 (at least most,)
        Working memory.

    Returns
    -------
    int
        How many were kept. All of them when there are fewer than `most`.
    """
    rows = graph.rows
    count = 0
    scale = _scale(graph, base)
    for i in range(size):
        node = key_row(keys[i])
        keep = True
        if size >= most:
            to_base = scale * key_distance(keys[i])
            last = count - 1
            for j in range(0, count, 4):
                p, q, r = min(j + 1, last), min(j + 2, last), min(j + 3, last)
                w, x, y, z = distances_to_four(
                    graph.metric, rows, node, rows, kept[j], kept[p], kept[q], kept[r],
                    graph.column,
                )  # fmt: skip
                nearest = min(min(w * scales[j], x * scales[p]), min(y * scales[q], z * scales[r]))
                if nearest < to_base:
                    keep = False
                    break
        if keep:
            kept[count] = node
            scales[count] = _scale(graph, node)
            count += 1
            if count == most:
                break
    return count


@inline
def _rewrite_full_list(
    graph: Any, links: Any, slot: Any, first: Any, width: Any, owner: Any, node: Any, memory: Any
) -> None:
    """Choose a full node's links again from those it has and `node`."""
    rivals, rows = memory.rivals, graph.rows
    to_node = distance(graph.metric, rows, owner, rows, node, graph.column)
    rivals[0] = pack_key(to_node, node)
    size = 1
    for j in range(0, width, 4):
        last = width - 1
        a, b = np.int64(links[slot, first + j]), np.int64(links[slot, first + min(j + 1, last)])
        c = np.int64(links[slot, first + min(j + 2, last)])
        d = np.int64(links[slot, first + min(j + 3, last)])
        four = distances_to_four(graph.metric, rows, owner, rows, a, b, c, d, graph.column)
        for i in range(min(4, width - j)):
            key = pack_key(four[i], links[slot, first + j + i])
            insert_key(rivals, size, width + 1, key)
            size += 1
    count = select_neighbours(graph, owner, rivals, size, width, memory.kept, memory.scales)
    for j in range(width):
        links[slot, first + j] = memory.kept[j] if j < count else -1


@inline
def _link(graph: Any, level: Any, owner: Any, node: Any, locks: Any, memory: Any) -> None:
    """Give `owner` a link to `node` on a layer, if it is worth one."""
    links, slot, first, width = graph.links, owner, graph.column, graph.m0
    if level > 0:
        links, first, width = graph.upper, 0, graph.upper.shape[1]
        slot = np.int64(graph.upper_start[owner]) + level - 1
    while not try_lock(locks, owner):
        pass
    count = 0
    while count < width and links[slot, first + count] >= 0:
        count += 1
    if count < width:
        links[slot, first + count] = node
    else:
        _rewrite_full_list(graph, links, slot, first, width, owner, node, memory)
    unlock(locks, owner)


@inline
def _find_twin(graph: Any, node: Any, pool: Any, size: Any) -> Any:
    """Return the node among those found that has the same vector as `node`, or -1."""
    rows = graph.rows
    to_itself = distance(graph.metric, rows, node, rows, node, graph.column)
    for i in range(size):
        if key_distance(pool[i]) == to_itself:
            other = key_row(pool[i])
            same = 0
            while same < graph.column and rows[node, same] == rows[other, same]:
                same += 1
            if same == graph.column:
                return other
    return np.int64(-1)


@inline
def _enter_next_layer(size: Any, scratch: Any) -> None:
    """Make the nodes found on one layer the entry points of the layer below."""
    scratch.visited[:] = 0
    for i in range(size):
        key = scratch.pool[i] & ~np.int64(EXPANDED)
        scratch.pool[i] = key
        set_bit(scratch.visited, key_row(key))


@inline
def _insert(
    graph: Any,
    node: Any,
    level: Any,
    entry: Any,
    top: Any,
    m: Any,
    ef: Any,
    locks: Any,
    memory: Any,
) -> None:
    """Algorithm 1: link a node that is on the layers 0 to `level` into the graph.

    A node whose vector is there already becomes a twin of the node that has it.
    """
    rows, scratch = graph.rows, memory.search
    links, column = graph.links, graph.column
    highest = min(level, top)
    start, its_distance = descend(graph, rows, node, entry, top, highest)
    start_pool(start, its_distance, scratch)
    size = 1
    for layer in range(highest, -1, -1):
        size = search_layer(graph, layer, rows, node, ef, size, scratch)
        if layer == 0:
            twin = _find_twin(graph, node, scratch.pool, size)
            if twin >= 0:
                while not try_lock(locks, twin):
                    pass
                graph.twins[node] = graph.twins[twin]
                graph.twins[twin] = node
                unlock(locks, twin)
                return
        memory.counts[layer] = select_neighbours(
            graph, node, scratch.pool, size, m, memory.chosen[layer], memory.scales
        )
        if layer > 0:
            _enter_next_layer(size, scratch)
    for layer in range(highest + 1):
        for j in range(memory.counts[layer]):
            if layer == 0:
                links[node, column + j] = memory.chosen[layer, j]
            else:
                slot = np.int64(graph.upper_start[node]) + layer - 1
                graph.upper[slot, j] = memory.chosen[layer, j]
    for layer in range(highest + 1):
        for j in range(memory.counts[layer]):
            _link(graph, layer, memory.chosen[layer, j], node, locks, memory)


@kernel
def insert_rows(
    graph: Any, levels: Any, new: Any, skipped: Any, entry: Any, top: Any, m: Any, ef: Any,
    locks: Any, memory: Any,
) -> None:  # fmt: skip
    """Link new rows into the graph, except `skipped`.

    Parameters
    ----------
    graph : Graph
        Holds the rows' vectors; all their links are -1.
    levels : uint8 (capacity,)
        The highest layer of each row, at most `top` except for the row that will be the entry.
    new : int64 (n,)
        The rows.
    skipped : int
        A row that is in the graph already, or -1.
    entry, top : int
        The entry point, and its highest layer.
    m : int
        Links given to a new node on each layer.
    ef : int
        Nodes kept while searching for neighbours.
    locks : int32 (capacity,)
        All 0; shared by the inserting threads.
    memory : Insertion
        This thread's working memory.
    """
    for node in new:
        if node != skipped:
            _insert(graph, node, np.int64(levels[node]), entry, top, m, ef, locks, memory)

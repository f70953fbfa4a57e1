"""Search in a hierarchical small-world graph (Malkov & Yashunin 2018, algorithms 2 and 5).

A node of the graph is a row number. Its vector and its links of the lowest layer lie in one row,
so that expanding a node and comparing with it touch one stretch of memory::

    | vector, `column` float32 | links, `m0` int32, -1 after the last | padding to 64 bytes |

The few nodes that are on higher layers have `m` links for each of them in `upper`.

Rows with equal vectors are one node: the first has the links, and the others, its twins, hang on
it as a list. Were each a node, they would link only to each other, and none of them be found.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vecdb.kernels.bitset import Bits, has_bit, set_bit
from vecdb.kernels.distance import distance, distances_to_four
from vecdb.kernels.interpreter import await_interpreter
from vecdb.kernels.jit import direct_kernel, inline, kernel
from vecdb.kernels.pool import EXPANDED, insert_key, key_distance, key_row, pack_key
from vecdb.kernels.simd import prefetch


class Graph(NamedTuple):
    """The arrays of a graph as kernels take them; `frozen` where nothing is written."""

    rows: NDArray[np.float32]
    """(capacity, stride): vector and base links of each node."""
    links: NDArray[np.int32]
    """The same memory as `rows`, as integers."""
    upper: NDArray[np.int32]
    """(slots, m): links on higher layers, -1 after the last."""
    upper_start: NDArray[np.int32]
    """(capacity,): a node's slot on layer 1; layer l is l - 1 slots further. -1 without any."""
    twins: NDArray[np.int32]
    """(capacity,): the next row with the same vector, -1 after the last."""
    column: int
    """Where the links start in a row; the floats before it are compared."""
    m0: int
    """Links that a node can have on the lowest layer."""
    metric: int
    """Number of the metric in `vecdb.kernels.distance`."""


class Scratch(NamedTuple):
    """Working memory of one thread; kernels leave nothing in it that a later call depends on."""

    visited: Bits
    """At least one bit for each node."""
    pool: NDArray[np.int64]
    """At least ef keys."""
    batch: NDArray[np.int64]
    """At least as many entries as a node has links."""


@inline
def collect_unvisited(
    graph: Any, links: Any, slot: Any, first: Any, width: Any, visited: Any, batch: Any
) -> Any:
    """Put the neighbours not seen before into `batch` and mark them; return how many."""
    count = 0
    for j in range(first, first + width):
        node = np.int64(links[slot, j])
        if node < 0:
            break
        if not has_bit(visited, node):
            set_bit(visited, node)
            prefetch(graph.rows, node, 0, 4)
            batch[count] = node
            count += 1
    return count


@inline
def search_layer(
    graph: Any, level: Any, queries: Any, q: Any, ef: Any, size: Any, scratch: Any
) -> Any:
    """Algorithm 2: find the `ef` nearest nodes of a layer.

    The entry points are the `size` keys in the scratch pool, marked as visited; the nodes found
    are left there, sorted.

    Returns
    -------
    int
        How many nodes were found, at most `ef`.
    """
    rows, column, metric = graph.rows, graph.column, graph.metric
    visited, pool, batch = scratch
    links, first, width = graph.links, column, graph.m0
    if level > 0:
        links, first, width = graph.upper, 0, graph.upper.shape[1]
    cursor = 0
    while cursor < size:
        key = pool[cursor]
        if key & EXPANDED:
            cursor += 1
            continue
        pool[cursor] = key | EXPANDED
        cursor += 1
        slot = key_row(key)
        if level > 0:
            slot = np.int64(graph.upper_start[slot]) + level - 1
        count = collect_unvisited(graph, links, slot, first, width, visited, batch)
        for i in range(0, count, 4):
            last = count - 1
            a, b, c = batch[i], batch[min(i + 1, last)], batch[min(i + 2, last)]
            d = batch[min(i + 3, last)]
            four = distances_to_four(metric, queries, q, rows, a, b, c, d, column)
            worst = key_distance(pool[ef - 1]) if size == ef else np.float32(np.inf)
            for j in range(min(4, count - i)):
                if four[j] > worst:
                    continue
                key = pack_key(four[j], batch[i + j])
                if size < ef or key < pool[ef - 1]:
                    place = insert_key(pool, size, ef, key)
                    size = min(size + 1, ef)
                    cursor = min(cursor, place)
    return size


@inline
def descend(graph: Any, queries: Any, q: Any, entry: Any, top: Any, bottom: Any) -> Any:
    """Walk greedily from `entry` on layer `top` down to the nearest node on layer `bottom` + 1.

    Returns
    -------
    tuple of int and float
        The node reached, and its cheap distance.
    """
    rows, column, metric = graph.rows, graph.column, graph.metric
    upper = graph.upper
    best = distance(metric, queries, q, rows, entry, column)
    for level in range(top, bottom, -1):
        moved = True
        while moved:
            moved = False
            slot = np.int64(graph.upper_start[entry]) + level - 1
            for j in range(upper.shape[1]):
                node = np.int64(upper[slot, j])
                if node < 0:
                    break
                this = distance(metric, queries, q, rows, node, column)
                if this < best:
                    best = this
                    entry = node
                    moved = True
    return entry, best


@inline
def start_pool(node: Any, its_distance: Any, scratch: Any) -> None:
    """Make `node` the only entry point of the next `search_layer`."""
    scratch.visited[:] = 0
    set_bit(scratch.visited, node)
    scratch.pool[0] = pack_key(its_distance, node)


@inline
def _unpack_with_twins(
    graph: Any, pool: Any, size: Any, correction: Any, out_rows: Any, out_distances: Any, q: Any
) -> None:
    """Write the nodes of a pool and their twins to line `q`, as `unpack_pool` does."""
    wanted = out_rows.shape[1]
    written = 0
    for i in range(size):
        row = key_row(pool[i])
        while row >= 0 and written < wanted:
            out_rows[q, written] = row
            out_distances[q, written] = key_distance(pool[i]) + correction
            written += 1
            row = np.int64(graph.twins[row])
    for i in range(written, wanted):
        out_rows[q, i] = -1
        out_distances[q, i] = np.float32(np.inf)


@direct_kernel
def search_graph(
    graph: Any, entry: Any, top: Any, queries: Any, ef: Any, correction: Any, scratch: Any,
    out_rows: Any, out_distances: Any,
) -> None:  # fmt: skip
    """Algorithm 5: find the nearest nodes of each query.

    Parameters
    ----------
    graph : Graph
    entry, top : int
        The entry point, and the highest layer, on which it is.
    queries : float32 (nq, column)
    ef : int
        Nodes kept while searching, at least as many as are wanted.
    correction : float32
        What turns a cheap distance into the returned one.
    scratch : Scratch
    out_rows : int64 (nq, k)
        The nodes found, nearest first; -1 where there are fewer than k.
    out_distances : float32 (nq, k)
        Their distances; infinity where there are fewer.
    """
    for q in range(queries.shape[0]):
        node, its_distance = descend(graph, queries, q, entry, top, 0)
        start_pool(node, its_distance, scratch)
        size = search_layer(graph, 0, queries, q, ef, 1, scratch)
        _unpack_with_twins(
            graph, scratch.pool, size, correction, out_rows, out_distances, q
        )  # fmt: skip
    await_interpreter()


@kernel
def search_graph_from_within(
    graph: Any, entry: Any, top: Any, nodes: Any, ef: Any, correction: Any, scratch: Any,
    out_rows: Any, out_distances: Any,
) -> None:  # fmt: skip
    """Find the nearest nodes of `nodes`, int64 (nq,), as if each of them were not in the graph.

    They must be on the lowest layer only. The other parameters are those of `search_graph`.
    """
    for q in range(nodes.shape[0]):
        node, its_distance = descend(graph, graph.rows, nodes[q], entry, top, 0)
        start_pool(node, its_distance, scratch)
        set_bit(scratch.visited, nodes[q])
        size = search_layer(graph, 0, graph.rows, nodes[q], ef, 1, scratch)
        _unpack_with_twins(
            graph, scratch.pool, size, correction, out_rows, out_distances, q
        )  # fmt: skip

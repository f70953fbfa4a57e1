"""Search in a graph of which only some nodes may be returned."""

from __future__ import annotations

from typing import Any

import numpy as np

from vecdb.kernels.bitset import has_bit, set_bit
from vecdb.kernels.distance import distances_to_four
from vecdb.kernels.graph import collect_unvisited, descend
from vecdb.kernels.heap import heap_pop, heap_push
from vecdb.kernels.interpreter import await_interpreter
from vecdb.kernels.jit import direct_kernel, inline
from vecdb.kernels.pool import insert_key, key_distance, key_row, pack_key
from vecdb.kernels.scan import unpack_pool


@inline
def _insert_allowed(
    graph: Any, allowed: Any, distance: Any, node: Any, pool: Any, size: Any, ef: Any
) -> Any:
    """Insert those of a node and its twins that are allowed; return the pool's new size."""
    row = node
    while row >= 0:
        key = pack_key(distance, row)
        if has_bit(allowed, row) and (size < ef or key < pool[ef - 1]):
            insert_key(pool, size, ef, key)
            size = min(size + 1, ef)
        row = np.int64(graph.twins[row])
    return size


@inline
def _search_base(
    graph: Any, queries: Any, q: Any, ef: Any, start: Any, allowed: Any, budget: Any, scratch: Any,
    heap: Any,
) -> Any:  # fmt: skip
    """Walk through all nodes until the `ef` best allowed ones are nearer than what is left.

    Returns
    -------
    tuple of int and bool
        How many allowed nodes are in the scratch pool, and whether the walk came to its end
        before it had compared with more than `budget` nodes.
    """
    rows, column = graph.rows, graph.column
    visited, pool, batch = scratch
    visited[:] = 0
    set_bit(visited, key_row(start))
    waiting = heap_push(heap, 0, start)
    size = _insert_allowed(graph, allowed, key_distance(start), key_row(start), pool, 0, ef)
    compared = 1
    while waiting > 0:
        key, waiting = heap_pop(heap, waiting)
        if size == ef and key > pool[ef - 1]:
            break
        if compared > budget:
            return size, False
        count = collect_unvisited(
            graph, graph.links, key_row(key), column, graph.m0, visited, batch
        )
        compared += count
        last = count - 1
        for i in range(0, count, 4):
            a, b, c = batch[i], batch[min(i + 1, last)], batch[min(i + 2, last)]
            d = batch[min(i + 3, last)]
            four = distances_to_four(graph.metric, queries, q, rows, a, b, c, d, column)
            for j in range(min(4, count - i)):
                node = batch[i + j]
                key = pack_key(four[j], node)
                if size < ef or key < pool[ef - 1]:
                    waiting = heap_push(heap, waiting, key)
                    size = _insert_allowed(graph, allowed, four[j], node, pool, size, ef)
    return size, True


@direct_kernel
def search_graph_filtered(
    graph: Any, entry: Any, top: Any, queries: Any, ef: Any, allowed: Any, wanted: Any, budget: Any,
    correction: Any, scratch: Any, heap: Any, out_rows: Any, out_distances: Any, complete: Any,
) -> None:  # fmt: skip
    """Find the nearest allowed nodes of each query.

    Parameters
    ----------
    graph : Graph
    entry, top : int
        The entry point, and the highest layer, on which it is.
    queries : float32 (nq, column)
    ef : int
        Allowed nodes kept while searching.
    allowed : uint8 bitset
        The nodes that may be returned.
    wanted : int
        How many there must be, at most the number of allowed nodes.
    budget : int
        Comparisons after which the search of a query is given up.
    correction : float32
        What turns a cheap distance into the returned one.
    scratch : Scratch
    heap : int64 (nodes,)
    out_rows : int64 (nq, k)
    out_distances : float32 (nq, k)
    complete : bool (nq,)
        False for the queries that were given up, or found fewer nodes than `wanted`.
    """
    for q in range(queries.shape[0]):
        node, its_distance = descend(graph, queries, q, entry, top, 0)
        start = pack_key(its_distance, np.int64(node))
        size, ended = _search_base(graph, queries, q, ef, start, allowed, budget, scratch, heap)
        complete[q] = ended and size >= wanted
        unpack_pool(scratch.pool, size, correction, out_rows, out_distances, q)
    await_interpreter()

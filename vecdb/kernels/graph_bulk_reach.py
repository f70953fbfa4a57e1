"""Making every node of a graph reachable from its entry."""

from __future__ import annotations

from typing import Any

import numpy as np

from vecdb.kernels.graph_bulk_link import walk
from vecdb.kernels.jit import inline, kernel
from vecdb.kernels.pool import key_row


@inline
def _spread(links: Any, parents: Any, queue: Any, start: Any) -> None:
    """Give every node that can be reached from `start`, and has none, a parent."""
    queue[0] = start
    head, tail = 0, 1
    while head < tail:
        node = queue[head]
        head += 1
        for j in range(links.shape[1]):
            other = links[node, j]
            if other < 0:
                break
            if parents[other] < 0:
                parents[other] = node
                queue[tail] = other
                tail += 1


@inline
def _adopt(links: Any, parents: Any, node: Any, orphan: Any) -> Any:
    """Link `node` to `orphan` in place of its last link that is no one's only way; say if so."""
    for j in range(links.shape[1] - 1, -1, -1):
        other = links[node, j]
        if other < 0 or parents[other] != node:
            links[node, j] = orphan
            parents[orphan] = node
            return True
    return False


@kernel
def reach_all(
    vectors: Any, lifts: Any, links: Any, entry: Any, parents: Any, queue: Any, pool: Any,
    visited: Any, batch: Any,
) -> Any:  # fmt: skip
    """Give every node a way from `entry`, by a link from where a search for it arrives.

    Parameters
    ----------
    vectors : float32 (n, width)
    lifts : float32 (n,)
    links : int32 (n, degree)
        Changed: links that are on no node's way are replaced, the last of a row first. Rows are
        full, or hold -1 only after links to all other rows.
    entry : int
    parents : int32 (n,)
        All -1; receives the node from which each was reached first, the entry its own.
    queue : int32 (n,)
        Working memory.
    pool, visited, batch
        Working memory of a search; see `walk`.

    Returns
    -------
    int
        How many nodes could not be reached before.
    """
    repaired = 0
    parents[entry] = entry
    _spread(links, parents, queue, entry)
    for orphan in range(len(parents)):
        if parents[orphan] >= 0:
            continue
        repaired += 1
        size = walk(vectors, lifts, links, np.int64(orphan), entry, pool, visited, batch)
        done = False
        for i in range(size):
            if _adopt(links, parents, key_row(pool[i]), orphan):
                done = True
                break
        node = 0
        while not done:
            done = parents[node] >= 0 and _adopt(links, parents, node, orphan)
            node += 1
        _spread(links, parents, queue, orphan)
    return repaired

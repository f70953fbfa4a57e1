"""Insertion of single rows into a coded graph.

A new row is searched for, links are chosen among the nodes met (`vecdb.kernels.link_choice`), and
codes of the linked rows are written on both sides.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vecdb.kernels.coded_rows import (
    ask_for,
    clear_links,
    decode_row,
    link_row,
    neighbour_at,
    offset_of,
    rows_equal,
    squared_distance,
)  # fmt: skip
from vecdb.kernels.coded_search import Lanes, search_one
from vecdb.kernels.jit import inline, kernel
from vecdb.kernels.link_choice import make_link_choice
from vecdb.kernels.pool import key_row, offer

choose_links, place_for = make_link_choice(squared_distance, neighbour_at, ask_for)


class Insertion(NamedTuple):
    """Working memory of an inserting thread."""

    lanes: Lanes
    query: NDArray[np.float32]
    """(1, width): the new row's coordinates; as a kernel reads queries."""
    own: NDArray[np.float32]
    other: NDArray[np.float32]
    apart: NDArray[np.float32]
    """(1, width) each."""
    keys: NDArray[np.int64]
    """(candidates,): keys of the nodes met, by distance to the new row."""
    kept: NDArray[np.int64]
    """(degree,)."""


@inline
def _link_back(rows: Any, owner: Any, row: Any, forced: Any, memory: Any) -> None:
    """Let `owner` link to `row` if it is worth a place; it is when `forced`."""
    j = place_for(rows, owner, row, forced)
    if j >= 0:
        decode_row(rows, owner, memory.own, 0)
        decode_row(rows, row, memory.other, 0)
        offset = offset_of(rows, row)
        link_row(rows, owner, memory.own, j, row, memory.other, offset, memory.apart)


@kernel
def insert_rows(
    rows: Any, reading: Any, root: Any, twins: Any, new: Any, reach: Any, memory: Any
) -> None:
    """Link rows that have their coordinates into the graph, one after the other.

    Parameters
    ----------
    rows : CodedRows
        Writeable.
    reading : CodedRows
        The same, read-only.
    root : CodedRows
        Where searches start.
    twins : int32 (n,)
        Writeable; -1 for the new rows.
    new : int64 (count,)
    reach : Reach
        Of the search for neighbours.
    memory : Insertion
    """
    keys = memory.keys
    for i in range(new.shape[0]):
        row = new[i]
        clear_links(rows, row)
        decode_row(rows, row, memory.query, 0)
        found = search_one(reading, root, memory.query, reach, keys.shape[0], memory.lanes)
        best = memory.lanes.best
        size = 0
        equal = np.int64(-1)
        for j in range(found):
            node = key_row(best[0, j])
            if node == row:
                continue
            if equal < 0 and rows_equal(rows, node, row):
                equal = node
            size = offer(keys, size, keys.shape[0], squared_distance(rows, row, node), node)
        if equal >= 0:
            twins[row] = twins[equal]
            twins[equal] = row
            continue
        size = choose_links(rows, row, size, keys, memory.kept)
        decode_row(rows, row, memory.own, 0)
        for j in range(size):
            node = memory.kept[j]
            decode_row(rows, node, memory.other, 0)
            offset = offset_of(rows, node)
            link_row(rows, row, memory.own, j, node, memory.other, offset, memory.apart)
        for j in range(size):
            _link_back(rows, memory.kept[j], row, j == 0, memory)

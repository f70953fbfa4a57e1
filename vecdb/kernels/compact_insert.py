"""Insertion of single rows into a compact graph; see `vecdb.kernels.link_choice`."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vecdb.kernels.compact_rows import (
    ask_for,
    decode_row,
    neighbour_at,
    rows_equal,
    set_neighbour,
    squared_distance,
)  # fmt: skip
from vecdb.kernels.compact_search import CompactLanes, search_for_row
from vecdb.kernels.jit import kernel
from vecdb.kernels.link_choice import make_link_choice
from vecdb.kernels.pool import key_row, offer

choose_links, place_for = make_link_choice(squared_distance, neighbour_at, ask_for)


class CompactInsertion(NamedTuple):
    """Working memory of an inserting thread."""

    lanes: CompactLanes
    query: NDArray[np.float32]
    """(1, width): the new row's coordinates."""
    keys: NDArray[np.int64]
    """(candidates,): keys of the nodes met, by distance to the new row."""
    kept: NDArray[np.int64]
    """(degree,)."""


@kernel
def insert_codes(
    rows: Any, reading: Any, seeds: Any, twins: Any, new: Any, reach: Any, memory: Any
) -> None:  # fmt: skip
    """Link rows that have their codes into the graph, one after the other.

    Parameters
    ----------
    rows : CompactRows
        Writeable.
    reading : CompactRows
        The same, read-only.
    seeds : int32 (lists, room)
        Where searches start, as `vecdb.index.coded_seeds.Seeds`.
    twins : int32 (n,)
        Writeable; -1 for the new rows.
    new : int64 (count,)
    reach : Reach
        Of the search for neighbours.
    memory : CompactInsertion
    """
    keys, kept, best = memory.keys, memory.kept, memory.lanes.best
    for i in range(new.shape[0]):
        row = new[i]
        for j in range(rows.degree):
            set_neighbour(rows, row, j, -1)
        decode_row(rows, row, memory.query, 0)
        found = search_for_row(
            reading, seeds, memory.query, reach, keys.shape[0], memory.lanes
        )  # fmt: skip
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
        size = choose_links(rows, row, size, keys, kept)
        for j in range(size):
            set_neighbour(rows, row, j, kept[j])
        for j in range(size):
            owner = kept[j]
            place = place_for(rows, owner, row, j == 0)
            if place >= 0:
                set_neighbour(rows, owner, place, row)

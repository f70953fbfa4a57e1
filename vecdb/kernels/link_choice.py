"""Which links a row that is inserted gets and is given, whichever way rows are laid out.

The nodes met by a search for the row are pruned by the rule of relative neighbourhoods (Malkov &
Yashunin 2018, algorithm 4), and the list is filled with the nearest of those pruned. Then its
neighbours, pruned or not, take it up: in an unused place, or in that of a link which it makes
superfluous. Rows that only those kept by the rule link to are found too seldom.

`between`, `neighbour` and `ask_for` are the layout's functions: the squared distance of two rows,
the link of a row at a place, -1 for none, and the request for what `between` reads of a row.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from vecdb.kernels.jit import inline
from vecdb.kernels.pool import key_row


def make_link_choice(between: Any, neighbour: Any, ask_for: Any) -> tuple[Any, Any]:
    """Make `choose_links` and `place_for` for a layout of rows.

    Functions that are handed over when kernels run would keep these from being cached.
    """

    @inline
    def choose_links(rows: Any, row: Any, count: Any, keys: Any, kept: Any) -> Any:
        """Choose neighbours for `row` from sorted keys; return how many."""
        size = 0
        for i in range(count):
            node = key_row(keys[i])
            to_row = between(rows, row, node)
            keep = True
            for j in range(size):
                if between(rows, node, kept[j]) < to_row:
                    keep = False
                    break
            if keep and size < rows.degree:
                kept[size] = node
                keys[i] = -1
                size += 1
        for i in range(count):
            if size < rows.degree and keys[i] >= 0:
                kept[size] = key_row(keys[i])
                size += 1
        return size

    @inline
    def place_for(rows: Any, owner: Any, row: Any, forced: Any) -> Any:
        """Return the place among the links of `owner` that `row` should take, -1 for none."""
        for j in range(rows.degree):
            node = neighbour(rows, owner, j)
            if node < 0:
                return j
            ask_for(rows, node, True)
        to_row = between(rows, owner, row)
        farthest, superfluous = -1, -1
        farthest_at, superfluous_at = np.float32(-1.0), np.float32(-1.0)
        hidden = False
        for j in range(rows.degree):
            node = neighbour(rows, owner, j)
            to_node = between(rows, owner, node)
            to_both = between(rows, row, node)
            if to_node > farthest_at:
                farthest, farthest_at = j, to_node
            if to_both < to_node and to_row < to_node and to_node > superfluous_at:
                superfluous, superfluous_at = j, to_node
            if to_both < to_row and to_node < to_row:
                hidden = True
        if superfluous >= 0:
            return superfluous
        if forced or (not hidden and to_row < farthest_at):
            return farthest
        return -1

    return choose_links, place_for

"""What searches of inverted lists find for each number of lists, measured with some of the rows."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vecdb.index.base import Distances
from vecdb.index.ivf_codes import InvertedCodes
from vecdb.index.ivf_lists import InvertedLists, Request
from vecdb.index.query_rows import HeldOut
from vecdb.index.recall_curve import TRUTH
from vecdb.index.recall_table import RecallTable, measure
from vecdb.kernels.bitset import pack_mask

_LONG = 100
"""Lists of a search that is long."""


def measure_lists(
    lists: InvertedLists | InvertedCodes, held: HeldOut, alive: NDArray[np.bool_], threads: int
) -> RecallTable:
    """Measure what searches find.

    Parameters
    ----------
    lists
        Nothing is measured when they do not keep the vectors.
    held
        Rows that serve as queries, and are not found; best are some that the centroids were found
        without, since each of the others is nearer to its centroid than a query would be.
    alive
        bool (rows,): False for removed rows.
    threads
        Over how many threads the searches are spread.
    """
    if not lists.keeps_vectors or len(held.queries) == 0:
        return RecallTable.none(lists.row_count)
    queries = lists.vectors_of(held.queries)
    others = alive.copy()
    others[held.rows] = False
    allowed = pack_mask(others)

    def search(probes: int, k: int, count: int) -> Distances:
        rows = np.full((count, k), -1, np.int64)
        distances = np.full(rows.shape, np.inf, np.float32)
        lists.search(
            Request(queries[:count], k, probes, k, 0.0, allowed, False, threads, rows, distances)
        )
        return distances

    _, true = lists.nearest(queries, TRUTH, allowed, threads)
    efforts = [*(2**i for i in range((len(lists) - 1).bit_length())), len(lists)]
    return measure(lists.row_count, true, search, efforts, _LONG)

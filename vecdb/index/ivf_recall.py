"""What searches of inverted lists find for each number of lists, measured with some of the rows."""

from __future__ import annotations

import numpy as np

from vecdb.index.base import Distances, Ids
from vecdb.index.ivf_codes import InvertedCodes
from vecdb.index.ivf_lists import InvertedLists, Request
from vecdb.index.recall_curve import TRUTH
from vecdb.index.recall_table import RecallTable, measure, without_themselves

_LONG = 100
"""Lists of a search that is long."""


def measure_lists(lists: InvertedLists | InvertedCodes, sample: Ids, threads: int) -> RecallTable:
    """Measure what searches find.

    Parameters
    ----------
    lists
        Nothing is measured when they do not keep the vectors.
    sample
        Rows that serve as queries; best are some that the centroids were found without, since each
        of the others is nearer to its centroid than a query would be.
    threads
        Over how many threads the searches are spread.
    """
    if not lists.keeps_vectors or len(sample) == 0:
        return RecallTable.none(lists.row_count)
    queries = lists.vectors_of(sample)

    def search(probes: int, k: int, count: int) -> Distances:
        rows = np.full((count, k + 1), -1, np.int64)
        distances = np.full(rows.shape, np.inf, np.float32)
        lists.search(
            Request(queries[:count], k + 1, probes, k + 1, None, False, threads, rows, distances)
        )
        return without_themselves(sample[:count], rows, distances)

    true = without_themselves(sample, *lists.nearest(queries, TRUTH + 1, threads))
    efforts = [*(2**i for i in range((len(lists) - 1).bit_length())), len(lists)]
    return measure(lists.row_count, true, search, efforts, _LONG)

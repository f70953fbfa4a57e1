"""Searching an unfinished graph for the rows it is built of, over coded rows."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from vecdb.index.coded_links import NO_RESIDUALS, link_all, read_only, root_of
from vecdb.index.graph_carve import Workers, in_stretches
from vecdb.index.rows import aligned_empty, frozen
from vecdb.index.scratch import make_lanes
from vecdb.kernels.code_simd import BLOCK
from vecdb.kernels.coded_rows import coded_rows, row_bytes, store_coordinates
from vecdb.kernels.coded_search import search_coded
from vecdb.kernels.walk import ended_by_ef
from vecdb.types import Matrix

_STRETCH = 256


class CodedWalk:
    """A graph of coded rows, to be searched while it is not changed.

    Parameters
    ----------
    space
        float32 (n, width), rotated.
    lifts
        float32 (n,): what is added to a row's squared distances.
    links
        int32 (n, degree), -1 after a row's last.
    entry
        Where searches start.
    workers
        Who codes the rows.
    """

    def __init__(
        self, space: Matrix, lifts: NDArray[np.float32], links: NDArray[np.int32], entry: int,
        workers: Workers,
    ) -> None:  # fmt: skip
        count, width = space.shape
        links = np.pad(links, ((0, 0), (0, -links.shape[1] % BLOCK)), constant_values=-1)
        self.space = space
        memory = aligned_empty((count, row_bytes(width, links.shape[1])), np.uint8)
        codes_only = np.empty((count, 0), np.int8)
        coded = coded_rows(memory, codes_only, width, links.shape[1])
        offsets = lifts.copy()  # writeable, as kernels take offsets

        def make_storing() -> Callable[[int, int], None]:
            return lambda first, last: store_coordinates(
                coded, np.arange(first, last), space[first:last], offsets[first:last]
            )

        in_stretches(workers, count, _STRETCH, make_storing)
        link_all(coded, links, workers)
        self.coded = read_only(coded)
        start = root_of(coded, np.array([entry]), BLOCK)
        self.root = coded_rows(frozen(start), NO_RESIDUALS, width, BLOCK)

    def searcher(self, ef: int, met: int) -> Callable[[NDArray[np.int32]], NDArray[np.int64]]:
        """Make a function that searches for rows, with working memory of its own.

        It returns up to `met` of the rows expanded, nearest first, int64 (rows, met), then -1.
        """
        count, width = self.space.shape
        lanes = make_lanes(count, ef, met, width)
        twins, nothing = frozen(np.full(count, -1, np.int32)), frozen(np.empty(0, np.uint8))
        reach = ended_by_ef(ef)

        def search(rows: NDArray[np.int32]) -> NDArray[np.int64]:
            found = np.empty((len(rows), met), np.int64)
            scales = np.tile(np.array([1, 0], np.float32), (len(rows), 1))
            search_coded(
                self.coded, self.root, twins, frozen(self.space[rows]), reach, met, nothing, False,
                scales, lanes, found, np.empty(found.shape, np.float32),
                np.empty((len(rows), 3), np.int64),
            )  # fmt: skip
            return found

        return search

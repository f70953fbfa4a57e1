"""Writing the links of coded rows: what the finished graph and one under construction share."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from vecdb.index.coded_memory import code_memory
from vecdb.index.coded_seeds import Seeds
from vecdb.index.rows import frozen
from vecdb.index.workers import Workers, in_stretches
from vecdb.kernels.coded_rows import CodedRows, coded_rows, link_root, link_rows, row_bytes

_STRETCH = 256
NO_RESIDUALS: NDArray[np.int8] = frozen(np.empty((1, 0), np.int8))
"""Of rows of which no distance is needed: those that only lead to others."""


def link_all(coded: CodedRows, neighbours: NDArray[np.int32], workers: Workers) -> None:
    """Write every row's links and codes.

    Parameters
    ----------
    coded
        With the coordinates of all rows.
    neighbours
        int32 (n, degree), -1 after a row's last.
    workers
        Who writes.
    """

    def make_work() -> Callable[[int, int], None]:
        own, other, apart = np.empty((3, 1, coded.width), np.float32)
        return lambda first, last: link_rows(coded, neighbours, first, last, (own, other, apart))

    in_stretches(workers, len(neighbours), _STRETCH, make_work)


def root_of(coded: CodedRows, seeds: Seeds, degree: int) -> NDArray[np.uint8]:
    """Return the rows (uint8) that lead to the seeds, as `Seeds` lists them.

    The first, at the origin, leads to those of the only list or to the leaders of several; then
    each of the others, where its leader is, to those of a list. None leads to over `degree`.
    """
    several = len(seeds) > 1
    memory = code_memory(len(seeds) + several, row_bytes(coded.width, degree))
    root = coded_rows(memory, NO_RESIDUALS, coded.width, degree)
    own, other, apart = np.empty((3, 1, coded.width), np.float32)
    first = np.ascontiguousarray(seeds[:, 0]) if several else seeds[0]
    link_root(root, 0, -1, coded, first, (own, other, apart))
    for line in range(1, len(memory)):
        listed = seeds[line - 1]
        link_root(root, line, int(listed[0]), coded, listed, (own, other, apart))
    return memory


def read_only(coded: CodedRows) -> CodedRows:
    """Return the rows as searching kernels take them."""
    return coded_rows(frozen(coded.bytes), frozen(coded.residuals), coded.width, coded.degree)

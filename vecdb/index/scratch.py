"""Working memory that each thread keeps from one search to the next."""

from __future__ import annotations

import threading

import numpy as np
from numpy.typing import NDArray

from vecdb.index.coded_seeds import MOST_LOOKED_AT
from vecdb.index.rows import aligned_empty
from vecdb.kernels.code_simd import BLOCK, PLANES, WORD
from vecdb.kernels.coded_search import CODED_STATE, SCALARS, Lanes
from vecdb.kernels.compact_search import COMPACT_LANES, COMPACT_SCALARS, COMPACT_STATE, CompactLanes
from vecdb.kernels.frontier import ef_of_room, frontier_room, make_frontier
from vecdb.kernels.graph import Scratch
from vecdb.kernels.ivf_coarse import CodeScratch
from vecdb.kernels.ivf_scan import BLOCK as LIST_BLOCK
from vecdb.kernels.walk import SEED_LISTS

_BINS = 256
"""Of a histogram of the distances of centroids."""


class _Memory(threading.local):
    """One thread's memory; it serves every index that the thread searches."""

    def __init__(self) -> None:
        self.scratch = make_scratch(0, 0, 0)
        self.heap: NDArray[np.int64] = np.empty(0, np.int64)
        self.asked = 0, 0, 0, 0
        self.lanes = make_lanes(*self.asked)
        self.compact = make_compact_lanes(0, 0, 0, 0, 0, COMPACT_LANES)
        self.code_sizes = 0, 0, 0, 0
        self.codes = make_code_scratch(*self.code_sizes)


def make_scratch(rows: int, ef: int, links: int) -> Scratch:
    """Allocate what a search over `rows` nodes with `links` each needs."""
    return Scratch(
        np.zeros(rows // 8 + 1, np.uint8), np.empty(ef + 1, np.int64), np.empty(links, np.int64)
    )


def make_lanes(rows: int, ef: int, keep: int, width: int) -> Lanes:
    """Allocate what a search over `rows` coded rows needs."""
    return Lanes(
        np.zeros((1, rows // 8 + 1), np.uint8),
        np.empty((1, 4 * ef + 64), np.int32),
        make_frontier(ef, 1),
        np.empty((1, keep), np.int64),
        np.empty(max(keep, SEED_LISTS), np.int64),
        np.empty((1, BLOCK), np.int64),
        np.empty((1, width), np.int8),
        np.empty((1, width // WORD * PLANES), np.int64),
        np.zeros((1, CODED_STATE), np.int64),
        np.zeros((1, SCALARS), np.float32),
    )


def make_compact_lanes(
    rows: int, ef: int, keep: int, width: int, degree: int, lanes: int
) -> CompactLanes:  # fmt: skip
    """Allocate what a search over `rows` compact rows needs."""
    most = max(degree, MOST_LOOKED_AT)
    return CompactLanes(
        np.zeros((lanes, rows // 8 + 1), np.uint8),
        np.empty((lanes, 16 * ef + 4 * most), np.int32),
        make_frontier(ef, lanes),
        np.empty((lanes, keep), np.int64),
        np.empty((lanes, most), np.int32),
        np.empty((lanes, width), np.int8),
        np.empty(max(keep, SEED_LISTS), np.int64),
        np.zeros((lanes, COMPACT_STATE), np.int64),
        np.zeros((lanes, COMPACT_SCALARS), np.float32),
    )


def make_code_scratch(width: int, lists: int, compared: int, k: int) -> CodeScratch:
    """Allocate what a search of lists of codes needs; up to `compared` are compared exactly."""
    return CodeScratch(
        aligned_empty((2, width), np.float32),
        aligned_empty((1, 4 * width), np.uint8),
        aligned_empty((1, 4 * width), np.float32),
        aligned_empty((1, LIST_BLOCK), np.float32),
        aligned_empty((1, LIST_BLOCK), np.int32),
        aligned_empty((-(-lists // LIST_BLOCK), LIST_BLOCK), np.float32),
        np.empty(_BINS, np.int64),
        np.empty(lists, np.int64),
        np.empty(lists, np.int64),
        np.empty(lists, np.uint8),
        np.empty(compared, np.int64),
        np.empty(k, np.int64),
        np.empty(2 * LIST_BLOCK, np.int64),
        np.empty(2 * LIST_BLOCK, np.float32),
        np.empty(2 * LIST_BLOCK, np.int32),
    )


_memory = _Memory()


def thread_scratch(rows: int, ef: int, links: int) -> Scratch:
    """Return this thread's scratch, enlarged if it is too small."""
    scratch = _memory.scratch
    if (
        len(scratch.visited) <= rows // 8
        or len(scratch.pool) <= ef
        or len(scratch.batch) < links
    ):  # fmt: skip
        scratch = make_scratch(
            max(rows, 8 * len(scratch.visited) - 8),
            max(ef, len(scratch.pool) - 1),
            max(links, len(scratch.batch)),
        )
        _memory.scratch = scratch
    return scratch


def thread_heap(entries: int) -> NDArray[np.int64]:
    """Return this thread's heap, enlarged if it is too small."""
    if len(_memory.heap) < entries:
        _memory.heap = np.empty(entries, np.int64)
    return _memory.heap


def thread_lanes(rows: int, ef: int, keep: int, width: int) -> Lanes:
    """Return this thread's lanes, made anew if they are too small."""
    sizes = rows, ef, keep, width
    if _memory.asked != sizes:  # most searches ask for what the last one did
        if _is_too_small(_memory.lanes, *sizes):
            _memory.lanes = make_lanes(*_enlarged(_memory.lanes, *sizes))
        _memory.asked = sizes
    return _memory.lanes


def thread_compact_lanes(rows: int, ef: int, keep: int, width: int, degree: int) -> CompactLanes:
    """Return this thread's compact lanes, made anew if they are too small."""
    lanes = _memory.compact
    most = lanes.waiting.shape[1]
    if most < degree or _is_too_small(lanes, rows, ef, keep, width):
        sizes = _enlarged(lanes, rows, ef, keep, width)
        lanes = make_compact_lanes(*sizes, max(degree, most), COMPACT_LANES)
        _memory.compact = lanes
    return lanes


def _is_too_small(lanes: Lanes | CompactLanes, rows: int, ef: int, keep: int, width: int) -> bool:
    return bool(
        lanes.visited.shape[1] <= rows // 8
        or lanes.candidates.opened.shape[1] < frontier_room(ef)
        or lanes.best.shape[1] < keep
        or lanes.levels.shape[1] < width
    )


def _enlarged(
    lanes: Lanes | CompactLanes, rows: int, ef: int, keep: int, width: int
) -> tuple[int, int, int, int]:
    """Return the sizes asked for, or those that there are where these are larger."""
    return (
        max(rows, 8 * lanes.visited.shape[1] - 8),
        max(ef, ef_of_room(lanes.candidates.opened.shape[1])),
        max(keep, lanes.best.shape[1]),
        max(width, lanes.levels.shape[1]),
    )


def thread_code_scratch(width: int, lists: int, compared: int, k: int) -> CodeScratch:
    """Return this thread's scratch, made anew for other sizes: how long an array is, counts."""
    sizes = width, lists, compared, k
    if _memory.code_sizes != sizes:
        _memory.codes, _memory.code_sizes = make_code_scratch(*sizes), sizes
    return _memory.codes

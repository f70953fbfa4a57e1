"""Linking new rows into the graph of an HNSW index, on one or several threads."""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from vecdb.index.hnsw_state import HnswState
from vecdb.index.ids import Ids
from vecdb.index.scratch import make_scratch
from vecdb.index.workers import Workers
from vecdb.kernels.graph_build import Insertion, insert_rows
from vecdb.kernels.jit import COMPILED

_STRETCH = 64
"""Rows that a thread takes at a time."""

_ALONE = 1_000
"""Rows that one thread links before others join: where there are hardly any nodes to link to,
rows inserted at the same time see nothing of each other and may be left with no way to them."""


def link_rows(state: HnswState, new: Ids, linked: int, ef: int, workers: Workers) -> None:
    """Insert new rows, which have their vectors and empty lists, into a graph of `linked` others.

    With one thread the graph depends only on the rows. Without the JIT one thread is used, since
    the locks of the graph work only in compiled code.
    """
    skipped = _raise_entry(state, new, linked, ef)
    graph, levels = state.graph(writeable=True), state.levels
    locks = np.zeros(len(state.table), np.int32)
    memories = [_memory(state, ef) for _ in range(workers.threads if COMPILED else 1)]

    def insert(memory: Insertion, start: int, stop: int) -> None:
        insert_rows(
            graph, levels, new[start:stop], skipped, state.entry, state.top, state.m, ef, locks,
            memory,
        )  # fmt: skip

    last = len(new)
    shared = min(last, max(0, _ALONE - linked))
    insert(memories[0], 0, shared)
    starts = itertools.count(shared, _STRETCH)

    def work(memory: Insertion) -> None:
        for start in starts:
            if start >= last:
                return
            workers.step()
            insert(memory, start, min(start + _STRETCH, last))

    if len(memories) == 1 or last - shared <= _STRETCH:
        work(memories[0])
        return
    with ThreadPoolExecutor(len(memories)) as pool:
        for part in [pool.submit(work, memory) for memory in memories]:
            part.result()


def _raise_entry(state: HnswState, rows: Ids, linked: int, ef: int) -> int:
    """Insert the first row that is on a higher layer than all others; return it, or -1.

    No other insertion then changes the entry point, so threads need not agree on one.
    """
    at = int(np.argmax(state.levels[rows]))
    highest = int(rows[at])
    level = int(state.levels[highest])
    if linked > 0 and level <= state.top:
        return -1
    if linked > 0:
        insert_rows(
            state.graph(writeable=True), state.levels, rows[at : at + 1], -1, state.entry,
            state.top, state.m, ef, np.zeros(len(state.table), np.int32), _memory(state, ef),
        )  # fmt: skip
    if linked == 0 or state.graph().links[highest, state.column] >= 0:
        state.entry, state.top = highest, level
    return highest  # without a link it is a twin of another node, and cannot be entered by


def _memory(state: HnswState, ef: int) -> Insertion:
    """Allocate one thread's working memory."""
    return Insertion(
        make_scratch(len(state.table), ef, state.m0),
        np.empty((state.top + 1, state.m), np.int64),
        np.zeros(state.top + 1, np.int64),
        np.empty(state.m0 + 1, np.int64),
        np.empty(state.m0, np.int64),
        np.empty(state.m0, np.float32),
    )

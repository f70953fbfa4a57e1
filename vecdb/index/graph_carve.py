"""Carving rows into small, overlapping leaves of rows that are near each other."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from vecdb.index.rows import aligned_empty
from vecdb.index.workers import Workers, in_stretches
from vecdb.kernels.graph_bulk import LEADER_TILE, nearest_leaders
from vecdb.kernels.pool import pack_keys
from vecdb.kernels.word_codes import FACTS, Words, encode_words, top_level, word_width
from vecdb.types import Matrix

Rows = NDArray[np.int32]
Keys = NDArray[np.int64]

_MOST_LEADERS = 256
_STRETCH = 2048
_STALLED = 0.9
"""A set with a part larger than this share of it is cut up by number instead: its rows are too
much alike for leaders to part them."""


def words_of(vectors: Matrix, workers: Workers) -> Words:
    """Return the codes of vectors, float32 (n, width)."""
    count, width = len(vectors), word_width(vectors.shape[1])
    words = Words(aligned_empty((count, width), np.int16), np.empty((count, FACTS), np.float32))

    def work(first: int, last: int) -> None:
        encode_words(vectors, first, last, top_level(width), words)

    in_stretches(workers, count, _STRETCH, lambda: work)
    return words


def _assign(
    words: Words, points: Rows, fanout: int, leaf: int, seed: Sequence[int], workers: Workers
) -> tuple[Rows, Rows, NDArray[np.float32]]:
    """Return the leaders, and for each point the numbers and distances of its nearest."""
    wanted = min(_MOST_LEADERS, 2 * len(points) // leaf)
    count = max(2 * LEADER_TILE, wanted // LEADER_TILE * LEADER_TILE)
    rng = np.random.default_rng(seed)
    rows = points[np.sort(rng.choice(len(points), count, replace=False))]
    leaders = Words(words.codes[rows], words.facts[rows])
    chosen = np.empty((len(points), fanout), np.int32)
    distances = np.empty((len(points), fanout), np.float32)

    def work(first: int, last: int) -> None:
        nearest_leaders(words, points, first, last, leaders, chosen, distances)

    in_stretches(workers, len(points), _STRETCH, lambda: work)
    return rows, chosen, distances


def _chunks(points: Rows, leaf: int) -> list[Rows]:
    """Cut points up by number, into leaves of at most `leaf` and at least half of that."""
    return np.array_split(points, -(-len(points) // leaf))


def _grouped(parts: Iterable[Rows], least: int) -> list[Rows]:
    """Join parts that are too small with the next ones."""
    whole: list[Rows] = []
    waiting: Rows = np.empty(0, np.int32)
    for part in parts:
        waiting = np.union1d(waiting, part) if len(waiting) else part
        if len(waiting) >= least:
            whole.append(waiting)
            waiting = waiting[:0]
    if len(waiting):
        whole[-1:] = [np.union1d(whole[-1], waiting) if whole else waiting]
    return whole


def _split(
    words: Words, points: Rows, fanout: int, leaf: int, least: int, seed: Sequence[int],
    workers: Workers,
) -> tuple[list[Rows], Keys]:  # fmt: skip
    """Split a set that is too large for a leaf; return also the keys of each row's leaders."""
    leaders, chosen, distances = _assign(words, points, fanout, leaf, seed, workers)
    order = np.argsort(chosen, axis=None, kind="stable")
    edges = np.cumsum(np.bincount(chosen.ravel(), minlength=len(leaders)))[:-1]
    members = points[order // fanout]
    parts = _grouped((part for part in np.split(members, edges) if len(part)), least)
    if max(map(len, parts)) > _STALLED * len(points):
        parts = _chunks(points, leaf)
    return parts, pack_keys(distances, leaders[chosen])


def carve(
    words: Words, *, leaf: int, least: int, fanouts: Sequence[int], seed: Sequence[int],
    workers: Workers,
) -> tuple[list[Rows], Keys]:  # fmt: skip
    """Carve all rows into leaves.

    Parameters
    ----------
    words
        The rows' codes, compared by Euclidean distance.
    leaf
        A set of more rows than this is split, at least 16.
    least
        A leaf has at least as many rows, if there are as many; at most half of `leaf`.
    fanouts
        To how many of the parts a row goes when the set of all rows is split, when its parts are,
        and so on; to one when there are no more numbers. At most 8 each.
    seed
        Numbers that decide which rows lead.
    workers
        The result does not depend on it.

    Returns
    -------
    leaves : list of ndarray
        Row numbers, int32, ascending, at most ``leaf + least`` in a leaf. Each row is in a leaf.
    far : ndarray
        int64 (n, first fanout), the keys of each row's leaders when the set of all rows was split,
        with about their squared distances.
    """
    leaves: list[Rows] = []
    far = np.empty((len(words.codes), 0), np.int64)
    large = [np.arange(len(words.codes), dtype=np.int32)]
    level = 0
    while large:
        leaves += [points for points in large if len(points) <= leaf + least]
        large = [points for points in large if len(points) > leaf + least]
        fanout = fanouts[level] if level < len(fanouts) else 1
        parts = _split_all(words, large, fanout, leaf, least, [*seed, level], workers)
        if level == 0 and parts:
            far = parts[0][1]
        large = [part for several, _ in parts for part in several]
        level += 1
    return leaves, far


def _split_all(
    words: Words, large: list[Rows], fanout: int, leaf: int, least: int, seed: Sequence[int],
    workers: Workers,
) -> list[tuple[list[Rows], Keys]]:  # fmt: skip
    """Split every set: a few one by one, each on all threads, and many each on one."""
    parts: list[tuple[list[Rows], Keys]] = [([], np.empty(0, np.int64))] * len(large)
    few = len(large) < 4 * workers.threads
    inner = workers if few else workers.alone()

    def work(first: int, last: int) -> None:
        for i in range(first, last):
            parts[i] = _split(words, large[i], fanout, leaf, least, [*seed, i], inner)

    in_stretches(workers.alone() if few else workers, len(large), 1, lambda: work)
    return parts

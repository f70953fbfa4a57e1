"""Which rows of an index serve as queries when it is measured what searches find.

They are what queries are: like the rows, and not among them. A row of which the index had a copy
would be found at once, so all rows that equal a query are held out with it, and what is drawn is
the value, not the row. Where nearly all rows have copies, new queries may well have none.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vecdb.index.base import Ids
from vecdb.index.rows import frozen
from vecdb.index.workers import Workers, in_stretches
from vecdb.types import Matrix

Hashes = NDArray[np.uint64]

LEAST_ROWS = 2_000
"""Smaller indexes are not measured: a comparison with all rows takes about 50 us."""
_ROWS_PER_SAMPLE = 25
"""With it and `_LARGEST_SAMPLE` measuring takes a few hundredths of the time of building."""
_LARGEST_SAMPLE = 400
LARGEST_CODED_SAMPLE = 1_000
"""Of a graph of codes, whose searches are short: the luck of a sample is most of what a recall at
k = 1 is off by."""
_LEAST_SAMPLE = LEAST_ROWS // _ROWS_PER_SAMPLE
"""Of values, where rows have many copies: up to a quarter of all values."""
_MOST_COPIES = 0.01
"""Of all rows, those equal to one another that may be held out for one query."""
_STRETCH = 1_024
_MINUS_ZERO = np.uint32(1 << 31)
"""As a float32 it equals 0."""


class HeldOut(NamedTuple):
    """Rows that an index is measured without."""

    queries: Ids
    """In random order, one of each value."""
    rows: Ids
    """They and all that equal them, ascending."""

    @classmethod
    def none(cls) -> HeldOut:
        """Return no rows: there are too few to measure anything."""
        return cls(np.empty(0, np.int64), np.empty(0, np.int64))


def draw_sample(rows: Ids, seed: int, most: int = _LARGEST_SAMPLE) -> Ids:
    """Choose some of the rows in random order: one of 25, at least one and at most `most`."""
    size = min(max(len(rows) // _ROWS_PER_SAMPLE, 1), most, len(rows))
    return np.random.default_rng(seed).choice(rows, size, replace=False).astype(np.int64)


def hold_out(
    rows: Ids, hashes: Hashes, seed: int, *, among: NDArray[np.bool_] | None = None,
    most: int = _LARGEST_SAMPLE,
) -> HeldOut:  # fmt: skip
    """Choose rows to measure with; none when there are few.

    Parameters
    ----------
    rows
        int64 (n,), ascending: the rows that a query could be equal to.
    hashes
        (n,): equal for equal rows, see `hashes_of`.
    seed
        Decides over the choice.
    among
        bool (n,): those that may be held out; all by default.
    most
        How many queries there are at most.
    """
    if (len(rows) if among is None else np.count_nonzero(among)) < LEAST_ROWS:
        return HeldOut.none()
    _, first, value, copies = np.unique(
        hashes, return_index=True, return_inverse=True, return_counts=True
    )
    drawable = copies <= max(1, int(_MOST_COPIES * len(rows)))
    if among is not None:
        drawable &= np.bincount(value, among) == copies
    firsts = np.sort(first[drawable])
    least = min(_LEAST_SAMPLE, len(firsts) // 4)
    size = min(max(len(firsts) // _ROWS_PER_SAMPLE, least), most)
    chosen = np.random.default_rng(seed).choice(firsts, size, replace=False)
    held = np.zeros(len(copies), np.bool_)
    held[value[chosen]] = True
    return HeldOut(rows[chosen], rows[held[value]])


def hashes_of(vectors: Matrix, workers: Workers) -> Hashes:
    """Return a number for each vector (n, dim), the same for equal ones."""
    hashes = np.empty(len(vectors), np.uint64)

    def work(first: int, last: int) -> None:
        words = vectors[first:last].view(np.uint32)
        hashes[first:last] = hashes_of_words(np.where(words == _MINUS_ZERO, np.uint32(0), words))

    in_stretches(workers, len(vectors), _STRETCH, lambda: work)
    return hashes


def hashes_of_words(words: NDArray[np.uint32]) -> Hashes:
    """Return a number for each row of words (n, width), the same for equal ones."""
    return np.asarray(words.astype(np.uint64) @ _factors(words.shape[1]), np.uint64)


@lru_cache(8)
def _factors(width: int) -> Hashes:
    return frozen(np.random.default_rng(0).integers(1 << 63, size=width, dtype=np.uint64))

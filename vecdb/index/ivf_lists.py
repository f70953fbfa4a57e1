"""The inverted lists of an IVF index: made, extended, and kept contiguous."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vecdb.index.base import CORRECTIONS, METRIC_NUMBERS, Arrays, Distances, Ids, over_parts
from vecdb.index.layout import Expected, check_arrays, rows_in
from vecdb.index.list_drift import ListDrift, Numbers
from vecdb.index.query_rows import Hashes, hashes_of
from vecdb.index.rows import aligned_empty, frozen, reserve
from vecdb.index.workers import Workers
from vecdb.kernels import ivf
from vecdb.kernels.bitset import Bits
from vecdb.kernels.kmeans import assign, kmeans
from vecdb.types import Matrix, Metric

_ROWS_PER_LIST_SAMPLED = 50
_ITERATIONS = 8

_NO_BITS = frozen(np.empty(0, np.uint8))


@dataclass(frozen=True)
class Request:
    """A search of inverted lists, and where its results go."""

    queries: Matrix
    """Prepared, float32 (nq, padded dim)."""
    k: int
    probes: int
    """How many lists are looked at, at least."""
    enough: int
    """How many vectors must have been compared, at least, if there are as many."""
    share: float
    """Of the rows, those that may be returned; 0 where it does not matter that fewer are near."""
    allowed: Bits | None
    """The rows that may be returned; None for all."""
    few: bool
    """Whether so few are allowed that they are best all compared."""
    threads: int
    rows: Ids
    distances: Distances


def default_list_count(rows: int) -> int:
    """Return how many lists to make of that many rows when the caller does not say."""
    return max(1, int(4 * rows**0.5))


def sample_rows(vectors: Matrix, count: int, rng: np.random.Generator, held_out: Ids) -> Matrix:
    """Return as many of the vectors as `count` centroids are found from, in their order.

    Rows that are `held_out` are not among them, unless there are too few others.
    """
    candidates = np.delete(np.arange(len(vectors)), held_out)
    if len(candidates) < count:
        candidates = np.arange(len(vectors))
    sampled = min(len(candidates), count * _ROWS_PER_LIST_SAMPLED)
    chosen = np.sort(rng.choice(candidates, sampled, replace=False))
    return frozen(vectors if sampled == len(vectors) else vectors[chosen])


def slots_for(assigned: Numbers, added: Numbers, free: Numbers) -> Numbers:
    """Return the slot of each vector: those of a list stand in order, from its free slot on.

    Parameters
    ----------
    assigned
        The list of each vector.
    added
        How many there are of each list.
    free
        Each list's first free slot.
    """
    order = np.argsort(assigned, kind="stable")
    behind = np.repeat(np.cumsum(added) - added, added)
    slots = np.empty(len(assigned), np.int64)
    slots[order] = np.repeat(free, added) + np.arange(len(assigned)) - behind
    return slots


class Gaps(NamedTuple):
    """How lists stay contiguous when slots are given up."""

    sources: Numbers
    """The slots whose contents move."""
    targets: Numbers
    """Where to."""
    length: Numbers
    """Of each list, afterwards."""
    behind: Numbers
    """The slots that are behind their list then."""


def close_gaps(slots: Numbers, lists: Numbers, start: Numbers, length: Numbers) -> Gaps:
    """Let the last slots of lists take the places of those that are given up.

    Parameters
    ----------
    slots, lists
        What is given up, and the list of each.
    start, length
        Each list's first slot, and how many it has.
    """
    given_up = np.bincount(lists, minlength=len(start))
    left = length - given_up
    behind_lists = np.repeat(np.arange(len(start)), given_up)
    behind = slots_for(behind_lists, given_up, start + left)
    sources = behind[~np.isin(behind, slots)]
    inside = slots - start[lists] < left[lists]
    targets = slots[inside][np.argsort(lists[inside], kind="stable")]
    return Gaps(sources, targets, left, behind)


@dataclass
class InvertedLists:
    """Vectors grouped by list; see `vecdb.kernels.ivf.Lists` for the arrays.

    List l owns the slots from ``start[l]`` to ``start[l] + capacity[l]``. One that is full moves to
    the end, into room for half as much again.
    """

    metric: Metric
    centroids: Matrix
    vectors: Matrix
    rows: NDArray[np.int32]
    start: Numbers
    length: Numbers
    capacity: Numbers
    end: int
    keeps_vectors: ClassVar = True

    def __post_init__(self) -> None:
        self._drift = ListDrift(self.centroids)

    @classmethod
    def train(
        cls, metric: Metric, vectors: Matrix, count: int, seed: int, held_out: Ids
    ) -> InvertedLists:
        """Find `count` centroids for prepared vectors but some; the lists are still empty."""
        rng = np.random.default_rng(seed)
        sample = sample_rows(vectors, count, rng, held_out)
        centroids = kmeans(
            sample, count, iterations=_ITERATIONS, spherical=metric is Metric.COSINE, rng=rng
        )
        zeros = np.zeros(count, np.int64)
        return cls(
            metric,
            centroids,
            np.empty((0, vectors.shape[1]), np.float32),
            np.empty(0, np.int32),
            zeros,
            zeros.copy(),
            zeros.copy(),
            0,
        )

    @classmethod
    def of(cls, metric: Metric, width: int, arrays: Arrays) -> InvertedLists:
        """Take over the arrays of `to_arrays`, vectors of `width` floats.

        Raises
        ------
        CorruptFileError
            If they do not belong together.
        """
        count, slots = rows_in(arrays, "centroids"), rows_in(arrays, "vectors")
        expected: Expected = {
            "centroids": (np.float32, (count, width)),
            "vectors": (np.float32, (slots, width)),
            "rows": (np.int32, (slots,)),
            "start": (np.int64, (count,)),
            "length": (np.int64, (count,)),
            "capacity": (np.int64, (count,)),
        }
        check_arrays(arrays, expected)
        return cls(
            metric, arrays["centroids"], arrays["vectors"], arrays["rows"], arrays["start"],
            arrays["length"], arrays["capacity"], slots,
        )  # fmt: skip

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return the lists as arrays, closed up: what is in room to spare is nobody's business.

        The large ones are copied only if there is any.
        """
        vectors, rows, start = self.vectors[: self.end], self.rows[: self.end], self.start
        if self.row_count < self.end:
            start = np.cumsum(self.length) - self.length
            slots = np.repeat(self.start - start, self.length) + np.arange(self.row_count)
            vectors, rows = vectors[slots], rows[slots]
        return {
            "centroids": self.centroids,
            "vectors": vectors,
            "rows": rows,
            "start": start,
            "length": self.length,
            "capacity": self.length,
        }

    def __len__(self) -> int:
        """Return how many lists there are."""
        return len(self.centroids)

    @property
    def row_count(self) -> int:
        """How many rows are in the lists."""
        return int(self.length.sum())

    @property
    def strays(self) -> int:
        """How many rows came later that the lists do not suit."""
        return self._drift.strays(self.length)

    def extend(self, vectors: Matrix, rows: Ids) -> None:
        """Put prepared vectors, under the numbers `rows`, into the lists of their centroids."""
        assigned = assign(vectors, self.centroids)
        self._drift.watch(vectors, assigned, self.length)
        added = np.bincount(assigned, minlength=len(self))
        self._make_room(added)
        slots = slots_for(assigned, added, self.start + self.length)
        self.vectors[slots] = vectors
        self.rows[slots] = rows
        self.length = self.length + added

    def _make_room(self, added: Numbers) -> None:
        """Move the lists that cannot take what is to be added to the end.

        Afterwards the arrays can be written to, where they lay in a file, too.
        """
        needed = self.length + added
        moving = np.flatnonzero(needed > self.capacity)
        fresh = self.end == 0
        room = needed[moving] if fresh else needed[moving] * 3 // 2
        starts = self.end + np.cumsum(room) - room
        last = self.end + int(room.sum())
        self.vectors = reserve(self.vectors, self.end, last)
        self.rows = reserve(self.rows, self.end, last)
        self.start, self.capacity = self.start.copy(), self.capacity.copy()
        for number, start in zip(moving.tolist(), starts.tolist(), strict=True):
            source = slice(self.start[number], self.start[number] + self.length[number])
            target = slice(start, start + self.length[number])
            self.vectors[target] = self.vectors[source]
            self.rows[target] = self.rows[source]
        self.start[moving] = starts
        self.capacity[moving] = room
        self.end = last

    def _find(self, rows: Ids) -> tuple[Numbers, Numbers]:
        """Return the slots and the lists of some rows."""
        lists = np.repeat(np.arange(len(self)), self.length)
        slots = slots_for(lists, self.length, self.start)
        order = np.argsort(self.rows[slots])[rows]
        return slots[order], lists[order]

    def vectors_of(self, rows: Ids) -> Matrix:
        """Return a copy of the vectors of some rows."""
        vectors = aligned_empty((len(rows), self.vectors.shape[1]), np.float32)
        np.take(self.vectors, self._find(rows)[0], axis=0, out=vectors)
        return frozen(vectors)

    def take_out(self, rows: Ids) -> None:
        """Give up the slots of some rows."""
        sources, targets, self.length, _ = close_gaps(*self._find(rows), self.start, self.length)
        for name in ("vectors", "rows"):
            if not getattr(self, name).flags.writeable:
                setattr(self, name, getattr(self, name).copy())
        self.vectors[targets], self.rows[targets] = self.vectors[sources], self.rows[sources]

    def hashes(self, workers: Workers) -> Hashes:
        """Return a number for each row, the same for equal vectors."""
        slots = slots_for(np.repeat(np.arange(len(self)), self.length), self.length, self.start)
        hashes = np.empty(len(slots), np.uint64)
        hashes[self.rows[slots]] = hashes_of(self.vectors[: self.end], workers)[slots]
        return hashes

    def nearest(
        self, queries: Matrix, k: int, allowed: Bits, threads: int
    ) -> tuple[Ids, Distances]:
        """Compare prepared queries with all allowed rows."""
        rows = np.full((len(queries), k), -1, np.int64)
        distances = np.full(rows.shape, np.inf, np.float32)
        self.search(
            Request(queries, k, len(self), k, 0.0, allowed, False, threads, rows, distances)
        )
        return rows, distances

    def retrained(self, count: int, seed: int, held_out: Ids) -> InvertedLists:
        """Return the same rows in `count` new lists, found without those that are held out."""
        vectors = self.vectors_of(np.arange(int(self.length.sum())))
        new = InvertedLists.train(self.metric, vectors, count, seed, held_out)
        new.extend(vectors, np.arange(len(vectors)))
        return new

    def search(self, request: Request) -> None:
        """Answer a request."""
        lists = self._arguments()
        allowed = _NO_BITS if request.allowed is None else frozen(request.allowed)

        def work(queries: Matrix, rows: Ids, distances: Distances) -> None:
            ivf.search_lists(
                lists, queries, request.probes, request.enough, request.share, allowed,
                request.allowed is not None, request.k, CORRECTIONS[self.metric], rows, distances,
            )  # fmt: skip

        over_parts(request.threads, work, request.queries, request.rows, request.distances)

    def _arguments(self) -> ivf.Lists:
        """Return the arrays as kernels take them."""
        return ivf.Lists(
            frozen(self.centroids),
            frozen(self.vectors),
            frozen(self.rows),
            frozen(self.start),
            frozen(self.length),
            METRIC_NUMBERS[self.metric],
        )

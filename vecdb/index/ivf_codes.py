"""The inverted lists of an IVF index over RaBitQ codes: made, extended, searched."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vecdb.index.base import (
    CORRECTIONS,
    METRIC_NUMBERS,
    Arrays,
    Distances,
    Ids,
    over_parts,
    over_threads,
)
from vecdb.index.flat import scan
from vecdb.index.ivf_lists import Request, close_gaps, sample_rows, slots_for
from vecdb.index.layout import Expected, check_arrays, rows_in
from vecdb.index.list_drift import ListDrift, Numbers
from vecdb.index.query_rows import Hashes, hashes_of
from vecdb.index.rows import aligned_copy, aligned_empty, frozen, padded, reserve
from vecdb.index.scratch import thread_code_scratch
from vecdb.index.workers import Workers
from vecdb.kernels import ivf_coarse, ivf_codes, ivf_search
from vecdb.kernels.bitset import Bits
from vecdb.kernels.ivf_scan import BLOCK, FAR, TAIL
from vecdb.kernels.kmeans import assign, kmeans
from vecdb.kernels.rabitq import COSINES_SQUARED, STEPS, extra_bytes
from vecdb.kernels.rotation import draw_signs, rotate, rotated_dim
from vecdb.kernels.scan import scan_rows
from vecdb.types import Matrix, Metric

_ITERATIONS = 8
_CHUNK = 8192
_NO_BITS = frozen(np.empty(0, np.uint8))
_MOST_SORTED = 256
"""Lists that are sorted by inserting them one by one; more are popped from a heap."""
_MORE_COMPARED = {2: 10, 3: 3}
"""Vectors compared exactly beyond k, in halves of k, by bits: where it is not half of k."""
_MOST_COMPARED = 4096
"""The same, however little their codes tell."""
_ENOUGH_TO_SORT = 32
"""Queries of a call, from which on they are answered in an order that suits the cache."""

Rotated = Callable[[int, int], Matrix]
"""Returns the rotated vectors of rows `first` to `last`."""


class InvertedCodes:
    """Codes grouped by list, in blocks of 32; see `vecdb.kernels.ivf_scan`.

    List l owns the blocks from ``start[l]`` to ``start[l] + capacity[l]``. What is read only of a
    few vectors stands by row: the further bits of codes, and the vectors themselves.

    Parameters
    ----------
    metric
    dim
        Dimension of the vectors.
    bits
        Of a code, for each dimension.
    keeps_vectors
        Whether the vectors are kept, for an exact comparison at the end of a search.
    seed
        Decides the rotation.
    """

    def __init__(self, metric: Metric, dim: int, bits: int, keeps_vectors: bool, seed: int) -> None:
        self.metric = metric
        self.bits = bits
        self.signs = draw_signs(dim, seed)
        self.width = rotated_dim(dim)
        kept = padded(dim) if keeps_vectors else 0
        self.keeps_vectors = keeps_vectors
        self.row_count = 0
        self.end = 0
        self.blocks: NDArray[np.uint8] = aligned_empty((0, 4 * self.width + TAIL), np.uint8)
        self.rows: NDArray[np.int32] = np.empty((0, BLOCK), np.int32)
        self.extra: NDArray[np.uint8] = aligned_empty((0, extra_bytes(self.width, bits)), np.uint8)
        self.vectors: Matrix = np.empty((0, kept), np.float32)
        self._set_centroids(np.zeros((0, self.width), np.float32), np.zeros(self.width, np.float32))
        self.start: Numbers = np.zeros(0, np.int64)
        self.length: Numbers = np.zeros(0, np.int64)
        self.capacity: Numbers = np.zeros(0, np.int64)

    def _set_centroids(self, centroids: Matrix, mean: NDArray[np.float32]) -> None:
        self.centroids, self.mean = centroids, mean
        self._norms = np.einsum("ij,ij->i", centroids, centroids)
        self._coarse = self._coarse_codes()
        every = max(1, int(len(centroids) ** 0.5))
        self._landmarks = np.ascontiguousarray(centroids[every // 2 :: every])
        self._read: ivf_coarse.CodedLists | None = None
        self._drift = ListDrift(centroids)

    def _coarse_codes(self) -> ivf_codes.CodeBlocks:
        """Return codes of the centroids, as of vectors in one list around the mean."""
        count = len(self.centroids)
        codes = aligned_empty((-(-count // BLOCK), 4 * self.width + TAIL), np.uint8)
        codes[:] = self._empty_block()
        nothing = np.empty((0, 0), np.uint8)
        rows = np.empty((len(codes), BLOCK), np.int32)
        blocks = _code_blocks(codes, rows, nothing, 1, self.metric)
        numbers = np.arange(count)
        ivf_codes.encode(
            frozen(self.centroids), numbers, np.zeros(count, np.int64), numbers,
            frozen(self.mean[None]), frozen(self.mean), STEPS[0], blocks,
        )  # fmt: skip
        return _code_blocks(frozen(codes), frozen(rows), frozen(nothing), 1, self.metric)

    def __len__(self) -> int:
        """Return how many lists there are."""
        return len(self.centroids)

    def train(self, vectors: Matrix, count: int, seed: int, held_out: Ids) -> None:
        """Find `count` centroids for prepared vectors but some; the lists are empty then."""
        rng = np.random.default_rng(seed)
        sample = sample_rows(vectors, count, rng, held_out)
        self._train_on(rotate(sample, self.signs), count, rng)

    def _train_on(self, sample: Matrix, count: int, rng: np.random.Generator) -> None:
        centroids = kmeans(
            sample, count, iterations=_ITERATIONS, spherical=self.metric is Metric.COSINE, rng=rng
        )
        centroids = _neighbours_together(centroids, rng)
        self._set_centroids(centroids, sample.mean(0, dtype=np.float64).astype(np.float32))
        self.start, self.length, self.capacity = (np.zeros(count, np.int64) for _ in range(3))
        self.end = self.row_count = 0

    def extend(self, vectors: Matrix, rows: Ids, threads: int = 1) -> None:
        """Put prepared vectors, under the numbers `rows`, into the lists of their centroids."""
        self._read = None
        if self.keeps_vectors:
            self.vectors = reserve(self.vectors, self.row_count, int(rows.max()) + 1)
            self.vectors[rows] = vectors
        self._extend(lambda a, b: rotate(vectors[a:b], self.signs), rows, threads)

    def _extend(self, rotated: Rotated, rows: Ids, threads: int) -> None:
        count = len(rows)
        starts = range(0, count, _CHUNK)
        parts = []
        for a in starts:
            chunk = rotated(a, min(a + _CHUNK, count))
            parts.append(assign(chunk, self.centroids))
            self._drift.watch(chunk, parts[-1], self.length)
        assigned = np.concatenate(parts)
        added = np.bincount(assigned, minlength=len(self))
        self._make_room(added)
        slots = slots_for(assigned, added, self.start * BLOCK + self.length)
        last = max(self.row_count, int(rows.max()) + 1)
        self.extra = reserve(self.extra, self.row_count, last)
        for a in starts:
            part = slice(a, min(a + _CHUNK, count))
            self._encode(rotated(a, part.stop), rows[part], assigned[part], slots[part], threads)
        self.length = self.length + added
        self.row_count = last

    @property
    def strays(self) -> int:
        """How many rows came later that the lists do not suit."""
        return self._drift.strays(self.length)

    def take_out(self, rows: Ids) -> None:
        """Give up the places that some rows have in the lists."""
        self._read = None
        self._make_room(np.zeros(len(self), np.int64))
        filled = np.flatnonzero(self.rows.ravel() >= 0)
        slot_of = np.empty(self.row_count, np.int64)
        slot_of[self.rows.ravel()[filled]] = filled
        slots = slot_of[rows]
        lists = np.repeat(np.arange(len(self)), self.capacity)[slots // BLOCK]
        gaps = close_gaps(slots, lists, self.start * BLOCK, self.length)
        ivf_codes.move_codes(gaps.sources, gaps.targets, self._blocks(writing=True))
        block, place = gaps.behind // BLOCK, gaps.behind % BLOCK
        self.rows[block, place] = -1
        self.blocks.view(np.float32)[block, self.width + place] = FAR
        self.length = gaps.length

    def _encode(
        self, rotated: Matrix, rows: Ids, assigned: Numbers, slots: Numbers, threads: int
    ) -> None:
        """Write codes, list by list: two threads never write to one block."""
        order = np.argsort(assigned, kind="stable")
        in_order = assigned[order]
        blocks = self._blocks(writing=True)
        edges = np.flatnonzero(np.diff(in_order, prepend=-1, append=len(self)))

        def work(first_list: int, last_list: int) -> None:
            part = order[edges[first_list] : edges[last_list]]
            ivf_codes.encode(
                frozen(rotated[part]), rows[part], assigned[part], slots[part],
                frozen(self.centroids), frozen(self.mean), STEPS[self.bits - 1], blocks,
            )  # fmt: skip

        over_threads(threads, len(edges) - 1, work)

    def _make_room(self, added: Numbers) -> None:
        """See to it that every list can take what is to be added."""
        needed = -(-(self.length + added) // BLOCK)
        if (needed <= self.capacity).all() and self.blocks.flags.writeable:
            return
        fresh = self.end == 0
        # Room to spare for every list, since all are moved: so that this stays rare.
        spared = needed if fresh else needed + needed // 4 + 1
        capacity = np.maximum(self.capacity, spared)
        used = -(-self.length // BLOCK)
        start = np.cumsum(capacity) - capacity
        end = int(capacity.sum())
        blocks = aligned_empty((end, self.blocks.shape[1]), np.uint8)
        blocks[:] = self._empty_block()
        within = np.arange(int(used.sum())) - np.repeat(np.cumsum(used) - used, used)
        rows = np.full((end, BLOCK), -1, np.int32)
        source, target = np.repeat(self.start, used) + within, np.repeat(start, used) + within
        blocks[target], rows[target] = self.blocks[source], self.rows[source]
        self.rows = rows
        self.blocks, self.start, self.capacity, self.end = blocks, start, capacity, end

    def _empty_block(self) -> NDArray[np.uint8]:
        block = np.zeros(self.blocks.shape[1] // 4, np.float32)
        block[self.width : self.width + BLOCK] = FAR
        return block.view(np.uint8)

    def _blocks(self, *, writing: bool = False) -> ivf_codes.CodeBlocks:
        codes, rows, extra = self.blocks, self.rows, self.extra
        if not writing:
            codes, rows, extra = frozen(codes), frozen(rows), frozen(extra)
        return _code_blocks(codes, rows, extra, self.bits, self.metric)

    def retrained(self, count: int, seed: int, threads: int, held_out: Ids) -> InvertedCodes:
        """Return the same rows in `count` new lists, found without those that are held out.

        Where the vectors are not kept, the codes say where they were: to within their error, by
        which the new codes are worse.
        """
        new = object.__new__(InvertedCodes)
        new.__dict__.update(self.__dict__)
        new.blocks = aligned_empty((0, self.blocks.shape[1]), np.uint8)
        new.rows = np.empty((0, BLOCK), np.int32)
        new.extra = aligned_empty((0, self.extra.shape[1]), np.uint8)
        if self.keeps_vectors:
            new.vectors = self.vectors[: self.row_count]
            new.train(new.vectors, count, seed, held_out)
            kept = new.vectors
            new._extend(lambda a, b: rotate(kept[a:b], new.signs), np.arange(len(kept)), threads)
            return new
        decoded = self._decoded()
        rng = np.random.default_rng(seed)
        new._train_on(sample_rows(decoded, count, rng, held_out), count, rng)
        new._extend(lambda a, b: decoded[a:b], np.arange(len(decoded)), threads)
        return new

    def _decoded(self) -> Matrix:
        """Return what the codes say of all rotated vectors, in row order."""
        lists = np.repeat(np.arange(len(self)), self.length)
        slots = slots_for(lists, self.length, self.start * BLOCK)
        out = np.empty((self.row_count, self.width), np.float32)
        blocks = self._blocks()
        ivf_codes.decode(
            slots, lists, frozen(self.centroids), np.float32(COSINES_SQUARED[self.bits - 1]),
            blocks, out,
        )  # fmt: skip
        rows = self.rows[slots // BLOCK, slots % BLOCK]
        decoded = np.empty_like(out)
        decoded[rows] = out
        return decoded

    def vectors_of(self, rows: Ids) -> Matrix:
        """Return a copy of the vectors of some rows, where they are kept."""
        return frozen(self.vectors[rows])

    def hashes(self, workers: Workers) -> Hashes:
        """Return a number for each row, the same for equal vectors, where they are kept."""
        return hashes_of(self.vectors[: self.row_count], workers)

    def nearest(
        self, queries: Matrix, k: int, allowed: Bits, threads: int
    ) -> tuple[Ids, Distances]:
        """Compare prepared queries with all allowed vectors, where they are kept."""
        return scan(
            self.metric, queries, self.vectors, self.row_count, k, allowed=allowed, threads=threads
        )

    def search(self, request: Request) -> None:
        """Answer a request."""
        restricted = request.allowed is not None
        allowed = _NO_BITS if request.allowed is None else frozen(request.allowed)
        if restricted and self.keeps_vectors and request.few:
            self._scan(request, allowed)
            return
        lists = self._as_read()
        wanted = min(len(self), request.probes)
        if restricted:
            wanted = min(len(self), wanted * self.row_count // max(request.enough, 1) + 1)
        wanted = min(wanted, _MOST_SORTED)
        # Who looks at more lists wants fewer neighbours missed: also of those in the lists.
        deviations = np.float32(min(2.5, 1 + 4 * request.probes / len(self)))
        queries, rows, distances = request.queries, request.rows, request.distances
        order = None
        if len(queries) >= _ENOUGH_TO_SORT:
            # Queries that are near each other look at the same lists, which are in the cache then.
            nearest = np.empty(len(queries), np.int64)
            ivf_coarse.nearest_landmarks(
                lists, queries, frozen(self._landmarks), self._scratch(request.k), nearest
            )
            order = np.argsort(nearest)
            queries = frozen(queries[order])
            rows, distances = np.empty_like(rows), np.empty_like(distances)

        def work(queries: Matrix, rows: Ids, distances: Distances) -> None:
            ivf_search.search_codes(
                lists, queries, request.probes, wanted, request.enough, request.share, allowed,
                restricted, request.k, self._compared(request.k), deviations,
                CORRECTIONS[self.metric], self._scratch(request.k), rows, distances,
            )  # fmt: skip

        over_parts(request.threads, work, queries, rows, distances)
        if order is not None:
            request.rows[order], request.distances[order] = rows, distances

    def _scan(self, request: Request, allowed: Bits) -> None:
        """Compare with all allowed vectors: they are few."""
        kept = frozen(self.vectors[: self.row_count])

        def work(queries: Matrix, rows: Ids, distances: Distances) -> None:
            scan_rows(
                METRIC_NUMBERS[self.metric], queries, kept, len(kept), kept.shape[1], allowed,
                True, request.k, CORRECTIONS[self.metric], rows, distances,
            )  # fmt: skip

        over_parts(request.threads, work, request.queries, request.rows, request.distances)

    def _compared(self, k: int) -> int:
        """Return how many vectors are compared exactly at the end of a search, at least."""
        # `vecdb.kernels.ivf_search.compares_at_once`; without vectors nothing is compared anew.
        at_once = not self.keeps_vectors or self.bits == 1 or self.metric is Metric.DOT
        return k if at_once else k + k * _MORE_COMPARED.get(self.bits, 1) // 2 + 4

    def _scratch(self, k: int) -> ivf_coarse.CodeScratch:
        """Return what this thread's search works in."""
        compared = self._compared(k)
        room = compared if compared == k else max(compared, _MOST_COMPARED)
        return thread_code_scratch(self.width, len(self), room, k)

    def _as_read(self) -> ivf_coarse.CodedLists:
        """Return everything as searches read it; made again after a change."""
        if self._read is None:
            self._read = ivf_coarse.CodedLists(
                self._blocks(), frozen(self.centroids), frozen(self._norms), self._coarse,
                frozen(self.mean[None]), frozen(self.start), frozen(self.length), self.signs,
                frozen(self.vectors),
            )  # fmt: skip
        return self._read

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return the lists as arrays, without copies of the large ones."""
        arrays: dict[str, NDArray[Any]] = {
            "centroids": self.centroids,
            "mean": self.mean,
            "blocks": self.blocks[: self.end],
            "rows": self.rows[: self.end],
            "start": self.start,
            "length": self.length,
            "capacity": self.capacity,
        }
        if self.bits > 1:
            arrays["extra"] = self.extra[: self.row_count]
        if self.keeps_vectors:
            arrays["vectors"] = self.vectors[: self.row_count]
        return arrays

    def take_over(self, arrays: Arrays, rows: int) -> None:
        """Become the lists of the arrays of `to_arrays`, of `rows` rows.

        Raises
        ------
        CorruptFileError
            If they do not belong together.
        """
        count, blocks = rows_in(arrays, "centroids"), rows_in(arrays, "blocks")
        expected: Expected = {
            "centroids": (np.float32, (count, self.width)),
            "mean": (np.float32, (self.width,)),
            "blocks": (np.uint8, (blocks, self.blocks.shape[1])),
            "rows": (np.int32, (blocks, BLOCK)),
            "start": (np.int64, (count,)),
            "length": (np.int64, (count,)),
            "capacity": (np.int64, (count,)),
        }
        if self.bits > 1:
            expected = {**expected, "extra": (np.uint8, (rows, self.extra.shape[1]))}
        if self.keeps_vectors:
            expected = {**expected, "vectors": (np.float32, (rows, self.vectors.shape[1]))}
        check_arrays(arrays, expected)
        self._set_centroids(arrays["centroids"], arrays["mean"])
        # The codes are read all the time: from memory of their own, in large pages.
        self.blocks, self.rows = aligned_copy(arrays["blocks"]), aligned_copy(arrays["rows"])
        self.start, self.length, self.capacity = (
            arrays[name] for name in ("start", "length", "capacity")
        )
        self.extra = aligned_copy(arrays.get("extra", np.empty((rows, 0), np.uint8)))
        self.vectors = arrays.get("vectors", self.vectors)
        self.end, self.row_count = blocks, rows


def _neighbours_together(centroids: Matrix, rng: np.random.Generator) -> Matrix:
    """Return centroids in an order in which those that are near each other are not far apart."""
    groups = kmeans(
        centroids, max(1, int(len(centroids) ** 0.5)), iterations=4, spherical=False, rng=rng
    )
    return centroids[np.argsort(assign(centroids, groups), kind="stable")]


def _code_blocks(
    codes: NDArray[np.uint8], rows: NDArray[np.int32], extra: NDArray[np.uint8], bits: int,
    metric: Metric,
) -> ivf_codes.CodeBlocks:  # fmt: skip
    """Return codes and their further bits as kernels take them."""
    return ivf_codes.CodeBlocks(
        codes, codes.view(np.float32), rows, extra, extra.view(np.float32), bits,
        METRIC_NUMBERS[metric],
    )  # fmt: skip

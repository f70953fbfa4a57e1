"""A flat graph over rows in a rotated space: what holds whichever way the rows are laid out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from vecdb.index.base import METRIC_NUMBERS, Arrays, Distances, Ids
from vecdb.index.calibration import Calibration, calibrate
from vecdb.index.coded_seeds import Seeds, draw_seeds
from vecdb.index.coded_space import CodedSpace, Floats, Moments
from vecdb.index.drift import Landmarks
from vecdb.index.graph_bulk import BulkSettings, bulk_graph
from vecdb.index.layout import check_arrays
from vecdb.index.query_rows import LARGEST_CODED_SAMPLE, HeldOut, hashes_of, hold_out
from vecdb.index.recall_curve import TRUTH
from vecdb.index.rows import LiveRows, frozen, reserve
from vecdb.index.workers import Workers, in_stretches
from vecdb.kernels.bitset import Bits, pack_mask
from vecdb.kernels.rotation import draw_signs, rotated_dim
from vecdb.kernels.walk import Reach, is_ended_by_ef
from vecdb.types import Matrix, Metric

_STRETCH = 1_024
"""Rows that are rotated at a time."""
_DEAD_SHARE = 0.1
"""Above it, an addition builds the graph anew without the removed rows."""
_INSERTED_SHARE = 0.5
"""How many rows may be inserted one by one, for each that the graph was built of."""
_STRAY_SHARE = 0.15
"""How many of them may be unlike those that it was built of."""
_LEAST_LINKED = 128
_LANDMARKS = 256
_STRAY = 2.0
"""How many times as far, squared, a stray is from the nearest landmark as they are apart."""
_CALIBRATED = 32
"""Queries that are searched for at a time to calibrate."""
_SCANNED_PER_HOP = 20
"""Rows that a scan compares with in the time of one hop."""
_FEW = 0.25
"""Of the allowed rows that a search should expand were they spread evenly: fewer are too few."""
NO_BITS: Bits = frozen(np.empty(0, np.uint8))


def scan_is_cheaper(allowed: int, hops: Any) -> Any:
    """Tell whether to compare with all allowed rows rather than to expand so many nodes."""
    return allowed <= _SCANNED_PER_HOP * hops


class PlacedGraph(ABC):
    """Rows with links, compared in a space where every metric is Euclidean.

    Parameters
    ----------
    dim, metric, m, ef_construction, seed
        As for `HnswIndex`.
    degree
        Links of a row.
    """

    def __init__(
        self, dim: int, metric: Metric, m: int, ef_construction: int, seed: int, degree: int
    ) -> None:
        self.dim = dim
        self.metric = metric
        self.m = m
        self.ef_construction = ef_construction
        self.seed = seed
        self.degree = degree
        self.rows = LiveRows()
        self._space: CodedSpace | None = None
        self._twins: NDArray[np.int32] = np.empty(0, np.int32)
        self._inserted = 0
        # Of the rows inserted since the graph was built or opened; found by the landmarks.
        self._strays = 0
        self._landmarks: Landmarks | None = None
        # Removed rows that no row leads to any more.
        self._free: Ids = np.empty(0, np.int64)
        self._calibration = Calibration.none(dim)

    @abstractmethod
    def emptied(self) -> Self:
        """Return a graph without rows, and otherwise as this one."""

    @abstractmethod
    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return everything as arrays; the large ones are not copied."""

    @abstractmethod
    def _reserve(self, used: int, needed: int) -> None:
        """Make room for `needed` rows, of which the first `used` are kept."""

    @abstractmethod
    def _store(self, places: Ids, coordinates: Floats, offsets: Floats) -> None:
        """Write what `CodedSpace.place_vectors` made of vectors into rows."""

    @abstractmethod
    def _decode(self, places: Ids, out: Floats) -> None:
        """Write the coordinates of rows to `out`, and in a column more their offsets."""

    @abstractmethod
    def _link(self, neighbours: NDArray[np.int32], workers: Workers) -> None:
        """Give each row its neighbours, int32 (n, degree), -1 after a row's last."""

    @abstractmethod
    def _start_from(self, seeds: Seeds) -> None:
        """Let searches start from these rows, as `Seeds` lists them."""

    @abstractmethod
    def _insert(self, places: Ids) -> None:
        """Link some rows more."""

    @abstractmethod
    def _walk(
        self, queries: Floats, scales: Floats, reach: Reach, allowed: Bits | None,
        out: tuple[Ids, Distances], threads: int,
    ) -> NDArray[np.int64]:  # fmt: skip
        """Search the graph.

        Returned is how many nodes each query expanded, and how many of them are allowed, (nq, 2).
        """

    @abstractmethod
    def _scan(
        self, queries: Floats, scales: Floats, allowed: Bits | None, out: tuple[Ids, Distances],
        threads: int,
    ) -> None:  # fmt: skip
        """Compare with all allowed rows."""

    @property
    def _kept_while_inserting(self) -> int:
        """How many nodes a search for a new row's links keeps."""
        return max(self.ef_construction // 2, 2 * self.degree)

    def add(self, vectors: Matrix, ids: Ids, workers: Workers) -> None:
        """Add checked vectors under checked ids.

        A few rows are inserted one by one. Many are not, nor are many that are unlike those it was
        built of: the graph is then built anew, and takes the places of removed rows back.
        """
        count, live = len(self.rows), self.rows.live_count
        before = self._space
        if before is None or live == 0:
            before = CodedSpace.of(vectors, self.metric, self.seed)
        space = before.stretched_for(vectors)
        grown = self._inserted + len(ids)
        anew = live < _LEAST_LINKED or space is not before or grown > _INSERTED_SHARE * live
        anew |= count - live - len(self._free) > _DEAD_SHARE * count
        if anew and live:
            space = self._suited(space, vectors, workers)
        free = np.flatnonzero(~self.rows.alive) if anew else self._free
        places = self.rows.places_for(ids, free)
        fresh = places < 0
        last = count + int(np.count_nonzero(fresh))
        places[fresh] = np.arange(count, last)
        self._space = space
        self._reserve(count, last)
        if space is not before:
            self._place_again(count, before, space, workers)

        landmarks, strays = None if anew else self._known_landmarks(), [self._strays]

        def store(first: int, last: int) -> None:
            coordinates, offsets = space.place_vectors(vectors[first:last])
            self._store(places[first:last], coordinates, offsets)
            if landmarks is not None:
                strays.append(landmarks.count_strays(coordinates))

        in_stretches(workers, len(vectors), _STRETCH, lambda: store)
        self._twins = reserve(self._twins, count, last)
        self._twins[count:last] = -1
        self.rows.reuse(places[~fresh], ids[~fresh])
        self.rows.append_ids(ids[fresh])
        if anew or sum(strays) > _STRAY_SHARE * live:
            self._rebuild(space, workers)
        else:
            self._insert(places)
            self._inserted, self._strays = grown, sum(strays)
            self._free = np.setdiff1d(free, places)

    def _known_landmarks(self) -> Landmarks:
        """Return some of the rows, those there are when first asked after a building."""
        if self._landmarks is None:
            live = np.flatnonzero(self.rows.alive)
            rng = np.random.default_rng(self.seed)
            chosen = np.sort(rng.choice(live, min(_LANDMARKS, len(live)), replace=False))
            decoded = np.empty((len(chosen), rotated_dim(self.dim)), np.float32)
            self._decode(chosen, decoded)
            self._landmarks = Landmarks(decoded, _STRAY)
        return self._landmarks

    def _suited(self, space: CodedSpace, vectors: Matrix, workers: Workers) -> CodedSpace:
        """Return a space for the live rows and some vectors more: this one, if it suits them."""
        moments, live = Moments(space), np.flatnonzero(self.rows.alive)
        for start in range(0, len(live), _STRETCH):
            workers.step()
            rows = live[start : start + _STRETCH]
            decoded = np.empty((len(rows), space.width), np.float32)
            self._decode(rows, decoded)
            moments.include(decoded)
        for start in range(0, len(vectors), _STRETCH):
            workers.step()
            moments.include(space.place_vectors(vectors[start : start + _STRETCH])[0])
        return moments.suited()

    def _place_again(
        self, count: int, before: CodedSpace, space: CodedSpace, workers: Workers
    ) -> None:
        """Write the first `count` rows for another space."""
        for start in range(0, count, _STRETCH):
            workers.step()
            rows = np.arange(start, min(start + _STRETCH, count))
            decoded = np.empty((len(rows), space.width + 1), np.float32)
            self._decode(rows, decoded)
            coordinates = np.ascontiguousarray(decoded[:, :-1])
            self._store(rows, *space.place_again(coordinates, decoded[:, -1], before))

    def _rebuild(self, space: CodedSpace, workers: Workers) -> None:
        """Link all rows that were not removed."""
        live = np.flatnonzero(self.rows.alive)
        held = self._held_out(live, workers)
        built = self.rows.alive.copy()
        built[held.rows] = False
        rows = np.flatnonzero(built)
        decoded = np.empty((len(rows), space.width), np.float32)
        # Inner products depend on where the origin is.
        metric = Metric.DOT if self.metric is Metric.DOT else Metric.L2

        def decode(first: int, last: int) -> None:
            self._decode(rows[first:last], decoded[first:last])
            if metric is Metric.DOT:
                space.move_back(decoded[first:last])

        in_stretches(workers, len(rows), _STRETCH, lambda: decode)
        graph = bulk_graph(
            decoded, metric, self.degree, workers=workers, seed=self.seed,
            settings=BulkSettings(listed=self.ef_construction),
        )  # fmt: skip
        neighbours = np.full((len(self.rows), self.degree), -1, np.int32)
        self._twins = np.full(len(self.rows), -1, np.int32)
        neighbours[rows] = _renumbered(graph.neighbours, rows)
        self._twins[rows] = _renumbered(graph.twins, rows)
        self._link(neighbours, workers)
        seeds = draw_seeds(decoded, graph, self.seed, workers)
        self._start_from(_renumbered(seeds, rows))
        self._calibration = self._calibrated(space, held.queries, pack_mask(built), workers)
        self._insert(held.rows)
        self._inserted, self._strays, self._landmarks = 0, 0, None
        self._free = np.flatnonzero(~self.rows.alive)

    def _held_out(self, live: Ids, workers: Workers) -> HeldOut:
        """Choose rows that the graph is built without, to be calibrated with."""
        hashes = np.empty(len(live), np.uint64)

        def work(first: int, last: int) -> None:
            decoded = np.empty((last - first, rotated_dim(self.dim)), np.float32)
            self._decode(live[first:last], decoded)
            hashes[first:last] = hashes_of(decoded, workers.alone())

        in_stretches(workers, len(live), _STRETCH, lambda: work)
        return hold_out(live, hashes, self.seed, most=LARGEST_CODED_SAMPLE)

    def _calibrated(
        self, space: CodedSpace, sample: Ids, built: Bits, workers: Workers
    ) -> Calibration:  # fmt: skip
        """Measure what searches of the new graph find and cost, with rows that are not in it."""
        if len(sample) == 0:
            return Calibration.none(self.dim)
        decoded = np.empty((len(sample), space.width), np.float32)
        self._decode(sample, decoded)
        queries = space.query_again(decoded)
        scales = np.tile(np.array([1, 0], np.float32), (len(sample), 1))

        def spread(reach: Reach | None, k: int, count: int) -> tuple[Distances, NDArray[np.int64]]:
            """Search, or compare with all rows, in pieces between which work can be given up."""
            found, distances = np.empty((count, k), np.int64), np.empty((count, k), np.float32)
            effort = np.zeros((count, 2), np.int64)

            def work(first: int, last: int) -> None:
                part = slice(first, last)
                out = found[part], distances[part]
                if reach is None:
                    self._scan(queries[part], scales[part], built, out, 1)
                else:
                    effort[part] = self._walk(queries[part], scales[part], reach, None, out, 1)

            in_stretches(workers, count, _CALIBRATED, lambda: work)
            return distances, effort[:, 0]

        return calibrate(self.dim, spread(None, TRUTH, len(sample))[0], spread)

    def remove(self, ids: Any) -> None:
        """Remove rows, so that they are not found any more; their nodes still lead to others."""
        self.rows.remove(ids)

    def search(
        self, queries: Matrix, k: int, ef: int, allowed: Bits | None, count: int, threads: int,
        target: float | None = None,
    ) -> tuple[Ids, Distances]:  # fmt: skip
        """Return row numbers and distances (nq, k) of the nearest of `count` allowed rows.

        With a `target` of recall `ef` is the least.
        """
        found = np.empty((len(queries), k), np.int64)
        distances = np.empty((len(queries), k), np.float32)
        if self._space is None or count == 0:
            found[:], distances[:] = -1, np.inf
            return found, distances
        placed, scales = self._space.place_queries(queries)
        reach, hops = self._calibration.plan(k, ef, target, count / len(self.rows))
        if scan_is_cheaper(count, hops):
            self._scan(placed, scales, allowed, (found, distances), threads)
            return found, distances
        effort = self._walk(placed, scales, reach, allowed, (found, distances), threads)
        if count == len(self.rows) and -1 not in found[:, min(k, count) - 1].tolist():
            return found, distances  # as nearly always
        short = self._came_short(effort, found, reach, count)
        asked = np.flatnonzero(short)
        while len(asked):
            needed = self._needed(effort[short], reach, k, count)
            reach = reach._replace(ef=2 * reach.ef, least=2 * reach.least)
            scanned = np.full(len(asked), reach.ef > 2 * len(self.rows))
            scanned |= scan_is_cheaper(count, np.maximum(needed, reach.ef))
            if scanned.any():
                rows = asked[scanned]
                part = found[rows], distances[rows]
                self._scan(placed[rows], scales[rows], allowed, part, threads)
                found[rows], distances[rows] = part
            asked = asked[~scanned]
            if len(asked):
                part = found[asked], distances[asked]
                again = placed[asked], scales[asked]
                effort = self._walk(*again, reach, allowed, part, threads)
                short = self._came_short(effort, part[0], reach, count)
                found[asked], distances[asked] = part
                asked = asked[short]
        return found, distances

    def _came_short(
        self, effort: NDArray[np.int64], found: Ids, reach: Reach, count: int
    ) -> NDArray[np.bool_]:
        """Tell which searches among `count` allowed rows should have gone further."""
        k = found.shape[1]
        short: NDArray[np.bool_] = found[:, min(k, count) - 1] < 0
        if count < len(self.rows):
            short |= effort[:, 1] < self._enough(effort[:, 0], reach, k, count)
        return short

    def _enough(
        self, hops: NDArray[np.int64], reach: Reach, k: int, count: int
    ) -> NDArray[np.float64]:
        """Return how many allowed nodes should be among those expanded, where not all are allowed.

        What a search did not come to may be nearer than what it found.
        """
        if is_ended_by_ef(reach):
            return np.full(len(hops), float(min(k + k // 2, count)))
        return hops.astype(np.float64) * (_FEW * count / len(self.rows))

    def _needed(
        self, effort: NDArray[np.int64], reach: Reach, k: int, count: int
    ) -> NDArray[np.float64]:
        """Return how many nodes searches would have to expand to come to enough allowed ones.

        They are taken to go on as they began.
        """
        hops, allowed = effort.T
        share: NDArray[np.float64] = hops / np.maximum(allowed, 0.5)
        needed: NDArray[np.float64] = share * self._enough(hops, reach, k, count)
        return needed

    def _header(self, version: int, *more: int) -> NDArray[np.int64]:
        """Return the numbers of the array ``header``."""
        numbers = [
            version, self.dim, METRIC_NUMBERS[self.metric], self.m, self.ef_construction,
            self.seed, self._inserted, self.rows.ids.given, *more,
        ]  # fmt: skip
        return np.array(numbers, np.int64)

    def _common_arrays(self) -> dict[str, NDArray[Any]]:
        """Return as arrays what every layout has, without the header."""
        space = self._space
        return {
            "centre": np.zeros(self.dim, np.float32) if space is None else space.centre,
            "norm": np.array([1.0 if space is None else space.norm], np.float64),
            "twins": self._twins[: len(self.rows)],
            "calibration": self._calibration.table,
            "ids": self.rows.ids.array,
            "alive": self.rows.alive.view(np.uint8),
        }

    def _take_over(self, arrays: Arrays, count: int, inserted: int, given: int) -> None:
        """Take over what `_common_arrays` returned for `count` rows.

        Raises
        ------
        CorruptFileError
            If the arrays cannot be used.
        """
        check_arrays(
            arrays,
            {
                "centre": (np.float32, (self.dim,)),
                "norm": (np.float64, (1,)),
                "twins": (np.int32, (count,)),
                "ids": (np.int64, (count,)),
                "alive": (np.uint8, (count,)),
            },
        )
        self.rows = LiveRows(arrays["ids"], arrays["alive"], given)
        signs = draw_signs(self.dim, self.seed)
        self._space = CodedSpace(self.metric, arrays["centre"], float(arrays["norm"][0]), signs)
        self._twins, self._inserted = arrays["twins"], inserted
        self._calibration = Calibration.from_arrays(self.dim, arrays)


def _renumbered(nodes: NDArray[np.int32], live: NDArray[np.int64]) -> NDArray[np.int32]:
    """Turn places among the live rows into row numbers."""
    return np.where(nodes < 0, -1, live[nodes]).astype(np.int32)

"""A flat graph over coded rows: `HnswIndex(quantization="rabitq")`."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vecdb.index.base import METRIC_NUMBERS, Arrays, Distances, Ids, metric_of_number, over_threads
from vecdb.index.calibration import TRUTH, Calibration, calibrate, draw_sample
from vecdb.index.coded_links import link_all, read_only, root_of
from vecdb.index.coded_memory import reserve_rows
from vecdb.index.coded_seeds import SEEDS, draw_seeds
from vecdb.index.coded_space import CodedSpace, Floats
from vecdb.index.graph_bulk import BulkSettings, bulk_graph
from vecdb.index.graph_carve import Workers, in_stretches
from vecdb.index.layout import check_arrays, read_header, rows_in
from vecdb.index.rows import LiveRows, frozen, reserve
from vecdb.index.scratch import make_lanes, thread_lanes
from vecdb.kernels.bitset import Bits
from vecdb.kernels.code_simd import BLOCK
from vecdb.kernels.coded_insert import Insertion, insert_rows
from vecdb.kernels.coded_rows import (
    CodedRows,
    coded_rows,
    decode_rows,
    row_bytes,
    store_coordinates,
)  # fmt: skip
from vecdb.kernels.coded_scan import scan_coded
from vecdb.kernels.coded_search import search_coded
from vecdb.kernels.rotation import draw_signs, rotated_dim
from vecdb.types import Matrix, Metric

LAYOUT_VERSION = 1
"""Of the arrays; a newer one is refused."""

_STRETCH = 1_024
"""Rows that are rotated at a time."""
_DEAD_SHARE = 0.1
"""Above it, an addition builds the graph anew without the removed rows."""
_INSERTED_SHARE = 0.5
"""How many rows may be inserted one by one, for each that the graph was built of."""
_LEAST_LINKED = 128
_CALIBRATED = 32
"""Rows that are searched for at a time to calibrate."""
_SPREAD = 2
"""Added to k where a filter leaves it to chance how many rows are nearer than the k-th allowed."""
_HOPS_PER_EF = 0.8
_SCANNED_PER_HOP = 8
"""Rows that a scan compares with in the time of one hop."""
_NO_BITS: Bits = frozen(np.empty(0, np.uint8))
_NO_ROWS: Ids = frozen(np.empty(0, np.int64))


def scan_is_cheaper(allowed: int, ef: int) -> bool:
    """Tell whether to compare with all allowed rows rather than to expand about `ef` nodes."""
    return allowed <= _SCANNED_PER_HOP * _HOPS_PER_EF * ef


class CodedGraph:
    """Rows of 16-bit coordinates with links and the codes of the rows they lead to.

    Parameters
    ----------
    dim, metric, m, ef_construction, seed
        As for `HnswIndex`.
    rows
        Row numbers, ids, and which were removed.
    """

    def __init__(
        self, dim: int, metric: Metric, m: int, ef_construction: int, seed: int, rows: LiveRows
    ) -> None:
        self.dim = dim
        self.metric = metric
        self.m = m
        self.ef_construction = ef_construction
        self.seed = seed
        self.rows = rows
        self.degree = -(-2 * m // BLOCK) * BLOCK
        self._space: CodedSpace | None = None
        self._memory: NDArray[np.uint8] = np.empty((0, 64), np.uint8)
        self._coded: CodedRows | None = None
        self._twins: NDArray[np.int32] = np.empty(0, np.int32)
        self._root = np.zeros((1, 64), np.uint8)
        self._inserted = 0
        self._calibration = Calibration.none()

    @classmethod
    def empty(cls, dim: int, metric: Metric, m: int, ef_construction: int, seed: int) -> CodedGraph:
        """Make a graph without rows."""
        return cls(dim, metric, m, ef_construction, seed, LiveRows())

    def emptied(self) -> CodedGraph:
        """Return a graph without rows, and otherwise as this one."""
        return CodedGraph.empty(self.dim, self.metric, self.m, self.ef_construction, self.seed)

    def add(self, vectors: Matrix, ids: Ids, workers: Workers) -> None:
        """Add checked vectors under checked ids.

        A few rows are inserted one by one. Many are not: the graph is then built anew, and takes
        the places of removed rows back.
        """
        space = self._space or CodedSpace.of(vectors, self.metric, self.seed)
        count, dead = len(self.rows), len(self.rows) - self.rows.live_count
        reused = dead > _DEAD_SHARE * count
        places = np.full(len(ids), -1, np.int64)
        if reused:
            places = self.rows.removed_rows(ids)
        fresh = places < 0
        last = count + int(np.count_nonzero(fresh))
        places[fresh] = np.arange(count, last)
        stride = row_bytes(space.width, self.degree)
        memory = reserve_rows(self._memory, count, last, stride)
        coded = coded_rows(memory, space.width, self.degree)
        for start in range(0, len(vectors), _STRETCH):
            workers.step()
            part = slice(start, start + _STRETCH)
            store_coordinates(coded, places[part], *space.place_vectors(vectors[part]))
        self._space, self._memory = space, memory
        self._coded = read_only(coded)
        self._twins = reserve(self._twins, count, last)
        self._twins[count:last] = -1
        self.rows.reuse(places[~fresh], ids[~fresh])
        self.rows.append_ids(ids[fresh])
        grown = self._inserted + len(ids)
        if reused or grown > _INSERTED_SHARE * (count - dead) or count < _LEAST_LINKED:
            self._rebuild(coded, workers)
        else:
            self._insert(coded, places)
            self._inserted = grown

    def _rebuild(self, coded: CodedRows, workers: Workers) -> None:
        """Link all rows that were not removed."""
        live = np.flatnonzero(self.rows.alive)
        decoded = np.empty((len(live), coded.width + (self.metric is Metric.DOT)), np.float32)
        decode_rows(coded, live, decoded)
        if self.metric is Metric.DOT:
            offsets = decoded[:, -1]
            np.sqrt(offsets - offsets.min(), out=offsets)
        graph = bulk_graph(
            decoded, Metric.L2, self.degree, workers=workers, seed=self.seed,
            settings=BulkSettings(ef=self.ef_construction),
        )  # fmt: skip
        neighbours = np.full((len(self.rows), self.degree), -1, np.int32)
        twins = np.full(len(self.rows), -1, np.int32)
        neighbours[live] = _renumbered(graph.neighbours, live)
        twins[live] = _renumbered(graph.twins, live)
        link_all(coded, neighbours, workers)
        self._twins = twins
        chosen = draw_seeds(decoded, graph.order, graph.entry, self.seed)
        self._root = root_of(coded, live[chosen], SEEDS)
        self._inserted = 0
        self._calibrate(coded, live, workers)

    def _calibrate(self, coded: CodedRows, live: Ids, workers: Workers) -> None:
        """Measure what recall the new graph gives at which ef."""
        self._calibration = Calibration.none()
        sample = draw_sample(live, self._twins, self.seed)
        if self._space is None or len(sample) == 0:
            return
        decoded = np.empty((len(sample), coded.width + 1), np.float32)
        decode_rows(coded, sample, decoded)
        queries = self._space.query_again(decoded[:, :-1], decoded[:, -1])
        scales = np.tile(np.array([1, 0], np.float32), (len(sample), 1))
        allowed, ignored = self.rows.allowed(None)[0], frozen(sample)

        def spread(k: int, ef: int | None) -> tuple[Ids, Distances]:
            """Compare with all rows, or search, in pieces between which work can be given up."""
            found = np.empty((len(sample), k), np.int64)
            distances = np.empty((len(sample), k), np.float32)

            def work(first: int, last: int) -> None:
                part = slice(first, last)
                out = found[part], distances[part]
                if ef is None:
                    self._scan(queries[part], scales[part], allowed, out, 1)
                else:
                    self._walk(queries[part], scales[part], ef, allowed, out, 1, ignored[part])

            in_stretches(workers, len(sample), _CALIBRATED, lambda: work)
            return found, distances

        exact = spread(TRUTH, None)
        self._calibration = calibrate(
            sample, self._twins, exact, lambda ef, k: spread(k, ef)[1]
        )  # fmt: skip

    def _insert(self, coded: CodedRows, places: NDArray[np.int64]) -> None:
        """Link some rows more."""
        ef = max(self.ef_construction, 2 * self.degree)
        lanes = make_lanes(len(self.rows), ef, ef, coded.width, 1)
        query, own, other, apart = np.empty((4, 1, coded.width), np.float32)
        keys, kept = np.empty(ef, np.int64), np.empty(self.degree, np.int64)
        memory = Insertion(lanes, query, own, other, apart, keys, kept)
        self._twins = reserve(self._twins, len(self.rows), len(self.rows))
        insert_rows(
            coded, read_only(coded), self._root_rows(), self._twins, places, ef, memory
        )  # fmt: skip

    def _root_rows(self) -> CodedRows:
        return coded_rows(frozen(self._root), rotated_dim(self.dim), SEEDS)

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
        found = np.full((len(queries), k), -1, np.int64)
        distances = np.full((len(queries), k), np.inf, np.float32)
        if self._space is None or count == 0:
            return found, distances
        placed, scales = self._space.place_queries(queries)
        # The nearest nodes that hold ef allowed ones, if those lie evenly among all.
        wide = ef if allowed is None else -(-ef * len(self.rows) // count)
        if target is not None:
            # The k nearest allowed rows are about so many nearest of all; few of them vary more.
            share = count / len(self.rows)
            wide = max(wide, self._calibration.ef(target, (k + _SPREAD * (1 - share)) / share))
        if scan_is_cheaper(count, wide):
            self._scan(frozen(placed), scales, allowed, (found, distances), threads)
            return found, distances
        # Where few of the nodes met are allowed, those found may not be the nearest of them.
        enough = min(k if allowed is None else k + k // 2, count)
        out = found, distances
        matched = self._walk(frozen(placed), scales, wide, allowed, out, threads)
        asked = np.flatnonzero(matched < enough)
        while len(asked):
            part = found[asked], distances[asked]
            queries_again, scales_again = frozen(placed[asked]), scales[asked]
            last = wide > len(self.rows)  # all that can be met has been
            wide *= 2
            if last or scan_is_cheaper(count, wide):
                self._scan(queries_again, scales_again, allowed, part, threads)
                matched = np.full(len(asked), enough)
            else:
                matched = self._walk(queries_again, scales_again, wide, allowed, part, threads)
            found[asked], distances[asked] = part
            asked = asked[matched < enough]
        return found, distances

    def _walk(
        self, queries: Floats, scales: Floats, ef: int, allowed: Bits | None,
        out: tuple[Ids, Distances], threads: int, ignored: Ids = _NO_ROWS,
    ) -> NDArray[np.int64]:  # fmt: skip
        """Search the graph; return how many allowed nodes each query met.

        `ignored` are rows, one for each query or none, that its search goes on without.
        """
        coded, root, twins = self._coded, self._root_rows(), frozen(self._twins)
        bits = _NO_BITS if allowed is None else frozen(allowed)
        found, distances = out
        matched = np.empty(len(queries), np.int64)

        def work(first: int, last: int) -> None:
            part = slice(first, last)
            lanes = thread_lanes(len(self.rows), ef, found.shape[1], queries.shape[1])
            search_coded(
                coded, root, twins, queries[part], ef, bits, allowed is not None,
                scales[part], lanes, found[part], distances[part], matched[part], ignored[part],
            )  # fmt: skip

        over_threads(threads, len(queries), work)
        return matched

    def _scan(
        self, queries: Floats, scales: Floats, allowed: Bits | None, out: tuple[Ids, Distances],
        threads: int,
    ) -> None:  # fmt: skip
        """Compare with all allowed rows."""
        bits = _NO_BITS if allowed is None else frozen(allowed)
        found, distances = out

        def work(first: int, last: int) -> None:
            part = slice(first, last)
            pools = np.empty((last - first, found.shape[1]), np.int64)
            scan_coded(
                self._coded, len(self.rows), queries[part], bits, allowed is not None,
                scales[part], pools, np.empty(last - first, np.int64), np.empty(64, np.int64),
                found[part], distances[part],
            )  # fmt: skip

        over_threads(threads, len(queries), work)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return everything as arrays; the large ones are not copied."""
        count = len(self.rows)
        space = self._space
        header = [
            LAYOUT_VERSION, self.dim, METRIC_NUMBERS[self.metric], self.m, self.ef_construction,
            self.seed, self._inserted, self.rows.ids.given,
        ]  # fmt: skip
        return {
            "header": np.array(header, np.int64),
            "centre": np.zeros(self.dim, np.float32) if space is None else space.centre,
            "norm": np.array([1.0 if space is None else space.norm], np.float64),
            "rows": self._memory[:count],
            "root": self._root,
            "twins": self._twins[:count],
            "calibration": self._calibration.table,
            "ids": self.rows.ids.array,
            "alive": self.rows.alive.view(np.uint8),
        }

    @staticmethod
    def made(arrays: Arrays) -> bool:
        """Tell whether arrays come from a coded graph."""
        return "centre" in arrays

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> CodedGraph:
        """Take over what `arrays` returned.

        Raises
        ------
        NewerFormatError, CorruptFileError
            If the arrays cannot be used.
        """
        numbers = read_header(arrays, LAYOUT_VERSION, 8)
        dim, metric_number, m, ef_construction, seed, inserted, given = numbers
        count = rows_in(arrays, "rows")
        graph = cls(dim, metric_of_number(metric_number), m, ef_construction, seed, LiveRows())
        if count == 0:
            return graph
        signs = draw_signs(dim, seed)
        check_arrays(
            arrays,
            {
                "centre": (np.float32, (dim,)),
                "norm": (np.float64, (1,)),
                "rows": (np.uint8, (count, row_bytes(signs.shape[1], graph.degree))),
                "root": (np.uint8, (1, row_bytes(signs.shape[1], SEEDS))),
                "twins": (np.int32, (count,)),
                "ids": (np.int64, (count,)),
                "alive": (np.uint8, (count,)),
            },
        )
        graph.rows = LiveRows(arrays["ids"], arrays["alive"], given)
        graph._space = CodedSpace(graph.metric, arrays["centre"], float(arrays["norm"][0]), signs)
        graph._memory = arrays["rows"]
        graph._coded = read_only(coded_rows(graph._memory, signs.shape[1], graph.degree))
        graph._root, graph._twins, graph._inserted = arrays["root"], arrays["twins"], inserted
        graph._calibration = Calibration.from_arrays(arrays)
        return graph


def _renumbered(nodes: NDArray[np.int32], live: NDArray[np.int64]) -> NDArray[np.int32]:
    """Turn places among the live rows into row numbers."""
    return np.where(nodes < 0, -1, live[nodes]).astype(np.int32)

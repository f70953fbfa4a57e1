"""A flat graph over rows of one code each: `HnswIndex(quantization="sq8")`."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from vecdb.errors import CorruptFileError
from vecdb.index.base import Arrays, Distances, Ids, metric_of_number, over_parts
from vecdb.index.coded_memory import code_memory, reserve_rows
from vecdb.index.coded_seeds import Seeds, check_seeds
from vecdb.index.coded_space import Floats
from vecdb.index.layout import check_arrays, read_header, rows_in
from vecdb.index.placed_graph import NO_BITS, PlacedGraph
from vecdb.index.reranks import RERANKS
from vecdb.index.rows import aligned_copy, aligned_empty, frozen, reserve
from vecdb.index.scratch import make_compact_lanes, thread_compact_lanes
from vecdb.index.workers import Workers
from vecdb.kernels.bitset import Bits
from vecdb.kernels.compact_insert import CompactInsertion, insert_codes
from vecdb.kernels.compact_rows import (
    CompactRows,
    compact_bytes,
    compact_rows,
    decode_codes,
    store_codes,
    write_links,
)  # fmt: skip
from vecdb.kernels.compact_scan import scan_compact
from vecdb.kernels.compact_search import search_compact
from vecdb.kernels.rotation import rotated_dim
from vecdb.kernels.walk import Reach, ended_by_ef
from vecdb.types import Metric

LAYOUT_VERSION = 4
"""Of the arrays; any other is refused."""

_BLOCK = 32
_RANKED_AT_LEAST = 8
"""Ranked anew beyond k: half of k, and not fewer than these."""


class CompactGraph(PlacedGraph):
    """Rows of one byte a coordinate with links, and the second bytes of the coordinates apart.

    Parameters
    ----------
    dim, metric, m, ef_construction, seed, rerank
        As for `HnswIndex`.
    """

    def __init__(
        self, dim: int, metric: Metric, m: int, ef_construction: int, seed: int, rerank: str
    ) -> None:
        super().__init__(dim, metric, m, ef_construction, seed, 2 * m)
        self.rerank = rerank
        self._memory: NDArray[np.uint8] = np.empty((0, 64), np.uint8)
        width = 0 if rerank == "none" else rotated_dim(dim)
        self._residuals: NDArray[np.int8] = aligned_empty((0, width), np.int8)
        self._seeds: Seeds = np.empty((0, 0), np.int32)
        self._compact = self._reading()

    def emptied(self) -> Self:
        """Return a graph without rows, and otherwise as this one."""
        return type(self)(
            self.dim, self.metric, self.m, self.ef_construction, self.seed, self.rerank
        )  # fmt: skip

    def _writable(self) -> CompactRows:
        return compact_rows(self._memory, self._residuals, rotated_dim(self.dim), self.degree)

    def _reading(self) -> CompactRows:
        memory, residuals = frozen(self._memory), frozen(self._residuals)
        return compact_rows(memory, residuals, rotated_dim(self.dim), self.degree)

    def _reserve(self, used: int, needed: int) -> None:
        stride = compact_bytes(rotated_dim(self.dim), self.degree)
        self._memory = reserve_rows(self._memory, used, needed, stride)
        self._residuals = reserve(self._residuals, used, needed)
        self._compact = self._reading()

    def _store(self, places: Ids, coordinates: Floats, offsets: Floats) -> None:
        products = self.metric is Metric.DOT
        store_codes(self._writable(), places, coordinates, offsets, products)

    def _decode(self, places: Ids, out: Floats) -> None:
        decode_codes(self._writable(), places, out)

    def _link(self, neighbours: NDArray[np.int32], workers: Workers) -> None:
        workers.step()
        write_links(self._writable(), neighbours)

    def _start_from(self, seeds: Seeds) -> None:
        self._seeds = seeds

    def _insert(self, places: Ids) -> None:
        rows = self._writable()
        ef = self._kept_while_inserting
        lanes = make_compact_lanes(len(self.rows), ef, ef, rows.width, self.degree, 1)
        query = np.empty((1, rows.width), np.float32)
        keys, kept = np.empty(ef, np.int64), np.empty(self.degree, np.int64)
        memory = CompactInsertion(lanes, query, keys, kept)
        reach = ended_by_ef(ef)
        insert_codes(
            rows, self._compact, frozen(self._seeds), self._twins, places, reach, memory
        )  # fmt: skip

    def _walk(
        self, queries: Floats, scales: Floats, reach: Reach, allowed: Bits | None,
        out: tuple[Ids, Distances], threads: int,
    ) -> NDArray[np.int64]:  # fmt: skip
        rows, seeds, twins = self._compact, self._seeds, self._twins
        bits = NO_BITS if allowed is None else allowed
        k = out[0].shape[1]
        keep = k + max(k // 2, _RANKED_AT_LEAST)
        effort = np.empty((len(queries), 2), np.int64)

        def work(
            queries: Floats, scales: Floats, found: Ids, distances: Distances, effort: Ids
        ) -> None:
            lanes = thread_compact_lanes(len(self.rows), reach.ef, keep, rows.width, self.degree)
            search_compact(
                rows, seeds, twins, queries, reach, keep, bits, allowed is not None, scales,
                lanes, found, distances, effort,
            )  # fmt: skip

        over_parts(threads, work, queries, scales, *out, effort)
        return effort

    def _scan(
        self, queries: Floats, scales: Floats, allowed: Bits | None, out: tuple[Ids, Distances],
        threads: int,
    ) -> None:  # fmt: skip
        rows = self._compact
        bits = NO_BITS if allowed is None else allowed

        def work(queries: Floats, scales: Floats, found: Ids, distances: Distances) -> None:
            scan_compact(
                rows, len(self.rows), queries, bits, allowed is not None, scales,
                np.empty(found.shape, np.int64), np.empty(len(queries), np.int64),
                np.empty(_BLOCK, np.int64), found, distances,
            )  # fmt: skip

        over_parts(threads, work, queries, scales, *out)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return everything as arrays; the large ones are not copied."""
        arrays: dict[str, NDArray[Any]] = {
            "header": self._header(LAYOUT_VERSION, RERANKS.index(self.rerank)),
            "rows": self._memory[: len(self.rows)],
            "seeds": self._seeds,
            **self._common_arrays(),
        }
        if self.rerank != "none":
            arrays["residuals"] = self._residuals[: len(self.rows)]
        return arrays

    @staticmethod
    def made(arrays: Arrays) -> bool:
        """Tell whether arrays come from a compact graph."""
        return "seeds" in arrays

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> CompactGraph:
        """Take over what `arrays` returned.

        Rows are copied, so that they stand in memory; residuals too, but for rerank="mmap".

        Raises
        ------
        NewerFormatError, CorruptFileError
            If the arrays cannot be used.
        """
        numbers = read_header(arrays, LAYOUT_VERSION, 9, oldest=LAYOUT_VERSION)
        dim, metric_number, m, ef_construction, seed, inserted, given, rerank = numbers
        if not 0 <= rerank < len(RERANKS):
            raise CorruptFileError(f"rerank number {rerank} is not below {len(RERANKS)}")
        count = rows_in(arrays, "rows")
        metric = metric_of_number(metric_number)
        graph = cls(dim, metric, m, ef_construction, seed, RERANKS[rerank])
        if count == 0:
            return graph
        width = rotated_dim(dim)
        stride = compact_bytes(width, graph.degree)
        check_arrays(arrays, {"rows": (np.uint8, (count, stride))})
        check_seeds(arrays.get("seeds"), count)
        graph._take_over(arrays, count, inserted, given)
        graph._memory = code_memory(count, stride)
        graph._memory[:] = arrays["rows"]
        graph._seeds = arrays["seeds"]
        if graph.rerank == "none":
            graph._residuals = np.empty((count, 0), np.int8)
        else:
            check_arrays(arrays, {"residuals": (np.int8, (count, width))})
            residuals = arrays["residuals"]
            graph._residuals = residuals if graph.rerank == "mmap" else aligned_copy(residuals)
        graph._compact = graph._reading()
        return graph

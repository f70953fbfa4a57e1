"""A flat graph over coded rows: `HnswIndex(quantization="rabitq")`."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from vecdb.index.base import Arrays, Distances, Ids, metric_of_number, over_parts
from vecdb.index.coded_links import NO_RESIDUALS, link_all, read_only, root_of
from vecdb.index.coded_memory import reserve_rows
from vecdb.index.coded_seeds import MOST_LOOKED_AT, SEEDS, Seeds
from vecdb.index.coded_space import Floats
from vecdb.index.layout import check_arrays, read_header, rows_in
from vecdb.index.placed_graph import NO_BITS, PlacedGraph
from vecdb.index.rows import aligned_empty, frozen
from vecdb.index.scratch import make_lanes, thread_lanes
from vecdb.index.workers import Workers
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
from vecdb.kernels.rotation import rotated_dim
from vecdb.kernels.walk import Reach, ended_by_ef
from vecdb.types import Metric

LAYOUT_VERSION = 5
"""Of the arrays; any other is refused, and a collection then builds the graph again."""

_RANKED_AT_LEAST = 8
"""Kept by code beyond k, to be ranked anew: an eighth of k, and not fewer than these."""


def coded_row_bytes(dim: int, m: int) -> int:
    """Return how many bytes the file of a graph has for each row, about."""
    width = rotated_dim(dim)
    beside = 4 + 8 + 1  # twin, id, whether it lives
    return row_bytes(width, _degree_of(m)) + width + beside


def _degree_of(m: int) -> int:
    return -(-2 * m // BLOCK) * BLOCK


class CodedGraph(PlacedGraph):
    """Rows of two bytes a coordinate with links and the codes of the rows they lead to.

    Parameters
    ----------
    dim, metric, m, ef_construction, seed
        As for `HnswIndex`.
    """

    def __init__(self, dim: int, metric: Metric, m: int, ef_construction: int, seed: int) -> None:
        super().__init__(dim, metric, m, ef_construction, seed, _degree_of(m))
        self._memory: NDArray[np.uint8] = np.empty((0, 64), np.uint8)
        self._residuals: NDArray[np.int8] = aligned_empty((0, rotated_dim(dim)), np.int8)
        self._coded: CodedRows | None = None
        self._root = self._root_rows(np.zeros((1, 64), np.uint8), SEEDS)

    def emptied(self) -> Self:
        """Return a graph without rows, and otherwise as this one."""
        return type(self)(self.dim, self.metric, self.m, self.ef_construction, self.seed)

    def _writable(self) -> CodedRows:
        return coded_rows(self._memory, self._residuals, rotated_dim(self.dim), self.degree)

    def _reserve(self, used: int, needed: int) -> None:
        stride = row_bytes(rotated_dim(self.dim), self.degree)
        self._memory = reserve_rows(self._memory, used, needed, stride)
        residuals = reserve_rows(
            self._residuals.view(np.uint8), used, needed, rotated_dim(self.dim)
        )
        self._residuals = residuals.view(np.int8)
        self._coded = read_only(self._writable())

    def _store(self, places: Ids, coordinates: Floats, offsets: Floats) -> None:
        store_coordinates(self._writable(), places, coordinates, offsets)

    def _decode(self, places: Ids, out: Floats) -> None:
        decode_rows(self._writable(), places, out)

    def _link(self, neighbours: NDArray[np.int32], workers: Workers) -> None:
        link_all(self._writable(), neighbours, workers)

    def _start_from(self, seeds: Seeds) -> None:
        lists, room = seeds.shape
        degree = -(-max(room, lists if lists > 1 else SEEDS) // BLOCK) * BLOCK
        self._root = self._root_rows(root_of(self._writable(), seeds, degree), degree)

    def _insert(self, places: Ids) -> None:
        coded = self._writable()
        ef = self._kept_while_inserting
        lanes = make_lanes(len(self.rows), ef, ef, coded.width)
        query, own, other, apart = np.empty((4, 1, coded.width), np.float32)
        keys, kept = np.empty(ef, np.int64), np.empty(self.degree, np.int64)
        memory = Insertion(lanes, query, own, other, apart, keys, kept)
        reach = ended_by_ef(ef)
        insert_rows(coded, read_only(coded), self._root, self._twins, places, reach, memory)

    def _root_rows(self, memory: NDArray[np.uint8], degree: int) -> CodedRows:
        return coded_rows(frozen(memory), NO_RESIDUALS, rotated_dim(self.dim), degree)

    def _walk(
        self, queries: Floats, scales: Floats, reach: Reach, allowed: Bits | None,
        out: tuple[Ids, Distances], threads: int,
    ) -> NDArray[np.int64]:  # fmt: skip
        coded, root, twins = self._coded, self._root, self._twins
        bits = NO_BITS if allowed is None else allowed
        k = out[0].shape[1]
        keep = k + max(k // 8, _RANKED_AT_LEAST)
        effort = np.empty((len(queries), 2), np.int64)

        def work(
            queries: Floats, scales: Floats, found: Ids, distances: Distances, effort: Ids
        ) -> None:
            lanes = thread_lanes(len(self.rows), reach.ef, keep, queries.shape[1])
            search_coded(
                coded, root, twins, queries, reach, keep, bits, allowed is not None, scales,
                lanes, found, distances, effort,
            )  # fmt: skip

        over_parts(threads, work, queries, scales, *out, effort)
        return effort

    def _scan(
        self, queries: Floats, scales: Floats, allowed: Bits | None, out: tuple[Ids, Distances],
        threads: int,
    ) -> None:  # fmt: skip
        bits = NO_BITS if allowed is None else allowed

        def work(queries: Floats, scales: Floats, found: Ids, distances: Distances) -> None:
            count, width = queries.shape
            scan_coded(
                self._coded, len(self.rows), queries, bits, allowed is not None, scales,
                np.empty(found.shape, np.int64), np.empty(count, np.int64),
                np.empty((count, width), np.int8), np.empty((count, 3)), np.empty(64, np.int64),
                found, distances,
            )  # fmt: skip

        over_parts(threads, work, queries, scales, *out)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return everything as arrays; the large ones are not copied."""
        return {
            "header": self._header(LAYOUT_VERSION),
            "rows": self._memory[: len(self.rows)],
            "residuals": self._residuals[: len(self.rows)],
            "root": self._root.bytes,
            **self._common_arrays(),
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
        numbers = read_header(arrays, LAYOUT_VERSION, 8, oldest=LAYOUT_VERSION)
        dim, metric_number, m, ef_construction, seed, inserted, given = numbers
        count, width = rows_in(arrays, "rows"), rotated_dim(dim)
        graph = cls(dim, metric_of_number(metric_number), m, ef_construction, seed)
        if count == 0:
            return graph
        root_rows, root_degree = _root_shape(arrays, width)
        check_arrays(
            arrays,
            {
                "rows": (np.uint8, (count, row_bytes(width, graph.degree))),
                "residuals": (np.int8, (count, width)),
                "root": (np.uint8, (root_rows, row_bytes(width, root_degree))),
            },
        )
        graph._take_over(arrays, count, inserted, given)
        graph._memory, graph._residuals = arrays["rows"], arrays["residuals"]
        graph._root = graph._root_rows(arrays["root"], root_degree)
        graph._coded = read_only(graph._writable())
        return graph


def _root_shape(arrays: Arrays, width: int) -> tuple[int, int]:
    """Return how many rows the array ``root`` has, and how many neighbours each has room for.

    It is (1, `SEEDS`) where the array is none of a root.
    """
    root = arrays.get("root")
    rows, length = root.shape if root is not None and root.ndim == 2 else (0, 0)
    degrees = range(BLOCK, MOST_LOOKED_AT + 1, BLOCK)
    degree = next((each for each in degrees if row_bytes(width, each) == length), 0)
    return (rows, degree) if 0 < rows <= degree + 1 else (1, SEEDS)

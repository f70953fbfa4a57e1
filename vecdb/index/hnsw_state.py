"""The arrays that an HNSW index consists of."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vecdb.errors import CorruptFileError
from vecdb.index.base import METRIC_NUMBERS, Arrays, metric_of_number
from vecdb.index.layout import check_arrays, read_header, rows_in
from vecdb.index.recall_table import RecallTable
from vecdb.index.rows import RowTable, frozen, padded, reserve
from vecdb.kernels.graph import Graph
from vecdb.types import Metric

LAYOUT_VERSION = 1
"""Of the arrays; a newer one is refused."""

_LEVEL_LIMIT = 30
_CACHE_LINE_FLOATS = 16


def row_stride(dim: int, m0: int) -> int:
    """Return the length of a row in floats: vector, links, and padding to a cache line."""
    return -(-(padded(dim) + m0) // _CACHE_LINE_FLOATS) * _CACHE_LINE_FLOATS


def draw_levels(seed: int, first: int, count: int, m: int) -> NDArray[np.uint8]:
    """Draw the highest layers of the rows from `first` on: level l with probability ~ m**-l.

    The draw is a hash of seed and row number (splitmix64), so that it does not depend on how rows
    were batched.
    """
    z = np.arange(first, first + count, dtype=np.uint64) + np.uint64(1)
    z = z * np.uint64(0x9E3779B97F4A7C15) + np.uint64(seed)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    uniform = ((z >> np.uint64(11)).astype(np.float64) + 1) / (1 << 53)
    levels: NDArray[np.uint8] = np.minimum(-np.log(uniform) / np.log(m), _LEVEL_LIMIT).astype("B")
    return levels


@dataclass
class HnswState:
    """Rows and links; the first `slots` lines of `upper` are in use."""

    table: RowTable
    m: int
    m0: int
    upper: NDArray[np.int32]
    upper_start: NDArray[np.int32]
    levels: NDArray[np.uint8]
    twins: NDArray[np.int32]
    slots: int = 0
    entry: int = -1
    top: int = 0
    recalls: RecallTable = field(default_factory=RecallTable.none)

    @classmethod
    def empty(cls, dim: int, metric: Metric, m: int) -> HnswState:
        """Make the state of an index without rows."""
        m0 = 2 * m
        return cls(
            RowTable(dim, row_stride(dim, m0), metric), m, m0,
            np.empty((0, m), np.int32), np.empty(0, np.int32), np.empty(0, np.uint8),
            np.empty(0, np.int32),
        )  # fmt: skip

    @property
    def column(self) -> int:
        """Where the links start in a row."""
        return padded(self.table.dim)

    def graph(self, *, writeable: bool = False) -> Graph:
        """Return the arrays as kernels take them."""
        vectors = self.table.vectors
        given: tuple[NDArray[Any], ...] = (
            vectors,
            vectors.view(np.int32),
            self.upper,
            self.upper_start,
            self.twins,
        )
        rows, links, upper, upper_start, twins = given if writeable else map(frozen, given)
        metric = METRIC_NUMBERS[self.table.metric]
        return Graph(rows, links, upper, upper_start, twins, self.column, self.m0, metric)

    def unlinked(self, first: int, levels: NDArray[np.uint8]) -> None:
        """Give the rows from `first` on, already in the table, their levels and empty lists."""
        last = first + len(levels)
        self.table.vectors[first:last, self.column :].view(np.int32)[:] = -1
        self.levels = reserve(self.levels, first, last)
        self.levels[first:last] = levels
        self.twins = reserve(self.twins, first, last)
        self.twins[first:last] = -1
        ends = self.slots + np.cumsum(levels, dtype=np.int64)
        self.upper_start = reserve(self.upper_start, first, last)
        self.upper_start[first:last] = np.where(levels > 0, ends - levels, -1)
        needed = int(ends[-1])
        self.upper = reserve(self.upper, self.slots, needed)
        self.upper[self.slots : needed] = -1
        self.slots = needed

    def to_arrays(self, ef_construction: int, seed: int) -> dict[str, NDArray[Any]]:
        """Return everything as arrays, without copies of the large ones."""
        table, count = self.table, len(self.table)
        header = [
            LAYOUT_VERSION, table.dim, METRIC_NUMBERS[table.metric], self.m, self.m0,
            ef_construction, seed, self.entry, self.top,
        ]  # fmt: skip
        return {
            "header": np.array(header, np.int64),
            "rows": table.vectors[:count],
            "upper": self.upper[: self.slots],
            "upper_start": self.upper_start[:count],
            "levels": self.levels[:count],
            "twins": self.twins[:count],
            "ids": table.ids.array,
            "alive": table.alive.view(np.uint8),
            **self.recalls.to_arrays(),
        }


def from_arrays(arrays: Arrays) -> tuple[HnswState, int, int]:
    """Take over the arrays of `HnswState.to_arrays`; return the state, ef_construction and seed.

    Raises
    ------
    NewerFormatError
        If the arrays were laid out by a newer vecdb.
    CorruptFileError
        If they do not belong together.
    """
    numbers = read_header(arrays, LAYOUT_VERSION, 9)
    dim, metric_number, m, m0, ef_construction, seed, entry, top = numbers
    metric = metric_of_number(metric_number)
    count, slots = rows_in(arrays, "rows"), rows_in(arrays, "upper")
    check_arrays(
        arrays,
        {
            "rows": (np.float32, (count, row_stride(dim, m0))),
            "upper": (np.int32, (slots, m)),
            "upper_start": (np.int32, (count,)),
            "levels": (np.uint8, (count,)),
            "twins": (np.int32, (count,)),
            "ids": (np.int64, (count,)),
            "alive": (np.uint8, (count,)),
        },
    )
    levels = arrays["levels"]
    if count and not (0 <= entry < count and int(levels[entry]) == top):
        raise CorruptFileError(f"entry point {entry} on layer {top} is not a row of that layer")
    table = RowTable.of(dim, metric, arrays["rows"], arrays["ids"], arrays["alive"])
    state = HnswState(
        table, m, m0, arrays["upper"], arrays["upper_start"], levels, arrays["twins"],
        slots, entry, top, RecallTable.from_arrays(arrays),
    )  # fmt: skip
    return state, ef_construction, seed

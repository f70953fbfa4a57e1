"""The rows under an index: aligned vectors, their ids, and which of them were removed."""

from __future__ import annotations

from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import DTypeLike, NDArray

from vecdb.index.ids import Ids, IdTable, refuse_known, refuse_unknown
from vecdb.index.row_filter import RowFilter
from vecdb.index.validate import as_ids
from vecdb.kernels.bitset import Bits, count_bits, pack_mask
from vecdb.kernels.distance import store_rows
from vecdb.kernels.simd import LANES
from vecdb.types import Matrix, Metric

_ALIGNMENT = 64

Array = TypeVar("Array", bound=NDArray[Any])


def padded(dim: int) -> int:
    """Return how many floats a vector takes in a row, so that no loop has a tail."""
    return -(-dim // LANES) * LANES


def aligned_empty(shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
    """Allocate an array that starts on a cache line."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    memory = np.empty(size + _ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % _ALIGNMENT
    return memory[start : start + size].view(dtype).reshape(shape)


def aligned_copy(array: Array) -> Array:
    """Return a copy that starts on a cache line."""
    copy = aligned_empty(array.shape, array.dtype)
    copy[:] = array
    return cast("Array", copy)


def reserve(array: Array, used: int, needed: int) -> Array:
    """Return an array with the first `used` entries of `array` and room for `needed`.

    It is `array` itself when that is writeable and large enough, otherwise a copy with room to
    spare, so that appending one by one costs a constant time each.
    """
    if needed <= len(array) and array.flags.writeable:
        return array
    capacity = needed if used == 0 else max(needed, used * 3 // 2)
    grown = aligned_empty((capacity, *array.shape[1:]), array.dtype)
    grown[:used] = array[:used]
    return cast("Array", grown)


def frozen(array: Array) -> Array:
    """Return a read-only view, the one kind of array that reading kernels are compiled for."""
    view = array.view()
    view.flags.writeable = False
    return view


def prepared_queries(vectors: Matrix, metric: Metric) -> Matrix:
    """Return queries as kernels compare them: padded, and of unit norm under cosine."""
    width = padded(vectors.shape[1])
    if metric is not Metric.COSINE and width == vectors.shape[1]:
        return frozen(vectors)
    rows = np.empty((vectors.shape[0], width), np.float32)
    store_rows(vectors, metric is Metric.COSINE, rows, 0)
    return frozen(rows)


class LiveRows:
    """Row numbers with an id each, of which some were removed."""

    def __init__(self, ids: Ids | None = None, alive: Any = (), given: int | None = None) -> None:
        self.ids = IdTable(ids, given)
        self._alive: NDArray[np.bool_] = np.array(alive, np.bool_)
        self.live_count = int(self._alive.sum())
        self._live_bits: Bits | None = None

    def __len__(self) -> int:
        """Return how many rows there are, removed ones included."""
        return self.ids.count

    @property
    def alive(self) -> NDArray[np.bool_]:
        """For each row whether it can be found; False once it was removed."""
        return self._alive[: self.ids.count]

    def new_ids(self, ids: Any, count: int) -> Ids:
        """Return the ids for the next `count` rows: those given, or the next row numbers.

        Raises
        ------
        LengthMismatchError, InvalidIdError, DuplicateIdError
        """
        wanted = self.ids.next_ids(count) if ids is None else as_ids(ids, count)
        refuse_known(wanted, self.ids.rows_of(wanted, self.alive))
        return wanted

    def append_ids(self, ids: Ids) -> None:
        """Add rows under checked ids."""
        first, last = len(self), len(self) + len(ids)
        self._alive = reserve(self._alive, first, last)
        self._alive[first:last] = True
        self.ids.append(ids)
        self.live_count += len(ids)
        self._live_bits = None

    def places_for(self, ids: Ids, free: Ids) -> Ids:
        """Return removed rows for as many of the ids as there are, each its own old one if it can.

        Parameters
        ----------
        ids
            Checked.
        free
            The removed rows that may be taken, ascending.

        Returns
        -------
        ndarray
            int64 (n,): a row for each id, -1 where none is left.
        """
        order = np.argsort(ids, kind="stable")
        places = np.full(len(ids), -1, np.int64)
        old = self.ids.array[free]
        at = np.minimum(np.searchsorted(ids[order], old), len(ids) - 1)
        same = ids[order][at] == old
        places[order[at[same]]] = free[same]
        others = np.setdiff1d(free, places)
        without = np.flatnonzero(places < 0)[: len(others)]
        places[without] = others[: len(without)]
        return places

    def reuse(self, rows: Ids, ids: Ids) -> None:
        """Bring removed rows back under checked ids."""
        self._alive = reserve(self._alive, len(self), len(self))
        self._alive[rows] = True
        self.ids.reuse(rows, ids)
        self.live_count += len(rows)
        self._live_bits = None

    def remove(self, ids: Any) -> Ids:
        """Mark the rows of ids as removed; return the rows.

        Raises
        ------
        EmptyBatchError, InvalidIdError, DuplicateIdError
            Nothing is removed then.
        """
        wanted = as_ids(ids)
        rows = self.ids.rows_of(wanted, self.alive)
        refuse_unknown(wanted, rows)
        self._alive[rows] = False
        self.live_count -= len(rows)
        self._live_bits = None
        return rows

    def allowed(self, filter: Any) -> tuple[Bits | None, int]:
        """Return the set of rows that may be returned, None for all, and how many they are.

        Raises
        ------
        InvalidParameterError
            If the filter is neither a `RowFilter` of as many rows nor a bool array with one entry
            for each row.
        """
        if filter is not None:
            given = RowFilter.of(filter, len(self))
            if self.live_count == len(self):
                return given.bits, given.count
            bits = given.bits & self._alive_bits()
            return bits, count_bits(bits)
        if self.live_count == len(self):
            return None, len(self)
        return self._alive_bits(), self.live_count

    def _alive_bits(self) -> Bits:
        if self._live_bits is None:
            self._live_bits = pack_mask(self.alive)
        return self._live_bits


class RowTable(LiveRows):
    """Live rows of `stride` float32 each, the first `dim` of which are the row's vector.

    Vectors that came from a file are read-only, and are copied before the first append.
    """

    def __init__(self, dim: int, stride: int, metric: Metric) -> None:
        super().__init__()
        self.dim = dim
        self.stride = stride
        self.metric = metric
        self.vectors: Matrix = np.empty((0, stride), np.float32)

    @classmethod
    def of(cls, dim: int, metric: Metric, vectors: Matrix, ids: Ids, alive: Any) -> RowTable:
        """Take over existing arrays without copying the vectors."""
        table = cls(dim, vectors.shape[1], metric)
        LiveRows.__init__(table, ids, alive)
        table.vectors = vectors
        return table

    def append(self, vectors: Matrix, ids: Ids) -> None:
        """Store checked vectors under checked ids; the rest of each row is left unset."""
        first, last = len(self), len(self) + len(ids)
        self.vectors = reserve(self.vectors, first, last)
        store_rows(vectors, self.metric is Metric.COSINE, self.vectors, first)
        self.append_ids(ids)

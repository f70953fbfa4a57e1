"""The growing segment: the points written since the last seal, in memory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vecdb.collection.batch import Batch
from vecdb.index import ByteCodes, Queries, RowFilter
from vecdb.storage import IdBatch, ListedRows, RowSource, Step
from vecdb.types import Matrix, Metric, PointId

_FIRST_CAPACITY = 1_024
_GROWTH = 16
_RESERVED_BYTES = 1 << 28

ROW_BYTES = 200
"""About what a row takes beside its vector, text and payload: its id, and where that is found."""


@dataclass(frozen=True, slots=True, eq=False)
class GrowingRows:
    """The first `count` rows of a growing segment; what is appended later is not seen.

    The lists and `codes` are shared with the segment, which only ever appends to them. `newest` is
    too: a frozen segment is looked up through it, when no more is appended. Texts are in UTF-8;
    `memory_bytes` is about what all rows take.
    """

    count: int
    ids: list[PointId]
    newest: dict[PointId, int]
    vectors: Matrix
    codes: ByteCodes
    texts: list[bytes | None]
    payloads: list[bytes | None]
    memory_bytes: int

    @property
    def is_indexed(self) -> bool:
        """Whether a graph index is searched: never here."""
        return False

    def search(
        self, queries: Queries, k: int, allowed: RowFilter | None, ef: int | None, threads: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Compare `queries` with every row; see `vecdb.index.ByteCodes`."""
        return self.codes.search(queries, self.vectors[: self.count], k, allowed, threads=threads)

    def rows_of(self, ids: IdBatch) -> NDArray[np.int64]:
        """Return the newest row of each id, -1 where there is none."""
        find = self.newest.get
        return np.fromiter((find(i, -1) for i in ids.ids), np.int64, len(ids.ids))

    def id_at(self, row: int) -> PointId:
        """Return the id of a row."""
        return self.ids[row]

    def ids_at(self, rows: NDArray[np.int64]) -> list[PointId]:
        """Return the ids of rows."""
        return [self.ids[row] for row in rows.tolist()]

    def texts_at(self, rows: NDArray[np.int64]) -> list[str | None]:
        """Return the texts of rows."""
        return [self.text_at(row) for row in rows.tolist()]

    def payloads_at(self, rows: NDArray[np.int64]) -> list[bytes | None]:
        """Return the payloads of rows as JSON."""
        return [self.payloads[row] for row in rows.tolist()]

    def text_at(self, row: int) -> str | None:
        """Return the text of a row."""
        encoded = self.texts[row]
        return None if encoded is None else encoded.decode()

    def payload_at(self, row: int) -> bytes | None:
        """Return the payload of a row as JSON."""
        return self.payloads[row]

    def source(self, rows: NDArray[np.int64], step: Step) -> RowSource:
        """Return rows in the form in which they are written to a file."""
        return ListedRows(self.ids, self.vectors, self.texts, self.payloads, rows, step)


class GrowingSegment:
    """Rows in the order of their writing. One thread changes it; snapshots of it are read freely.

    An array that has no room left is replaced by a larger one, so views taken before keep what
    they saw. A larger one is made much larger: memory that was never written costs addresses only,
    and copying rows is what appending would otherwise spend most of its time on.
    """

    def __init__(self, dim: int, metric: Metric) -> None:
        self._ids: list[PointId] = []
        self._newest: dict[PointId, int] = {}
        self._texts: list[bytes | None] = []
        self._payloads: list[bytes | None] = []
        self._memory_bytes = 0
        self._vectors = np.empty((_FIRST_CAPACITY, dim), np.float32)
        self._codes = ByteCodes(metric)

    def __len__(self) -> int:
        return len(self._ids)

    @property
    def memory_bytes(self) -> int:
        """About how much memory the rows take."""
        return self._memory_bytes + self._codes.memory_bytes

    def append(self, batch: Batch) -> None:
        """Add the points of `batch`; an id written before is from now on found at its new row."""
        first = len(self._ids)
        count = first + len(batch.ids)
        if count > len(self._vectors):
            capacity = _capacity(count, len(self._vectors), batch.vectors.shape[1])
            self._vectors = _grown(self._vectors, first, capacity)
        self._vectors[first:count] = batch.vectors
        texts: list[bytes | None] = [None] * len(batch.ids)
        if batch.has_texts:
            texts = [None if text is None else text.encode() for text in batch.texts]
        self._texts.extend(texts)
        self._payloads.extend(batch.payloads)
        self._ids.extend(batch.ids)
        self._memory_bytes += batch.vectors.nbytes + ROW_BYTES * len(batch.ids)
        if batch.has_texts or batch.has_payloads:
            self._memory_bytes += sum(map(len, filter(None, texts + batch.payloads)))
        self._newest.update(zip(batch.ids, range(first, count), strict=True))

    def rows_of(self, ids: IdBatch) -> NDArray[np.int64]:
        """Return the newest row of each id, -1 where there is none."""
        if self._newest.keys().isdisjoint(ids.ids):  # new ids, mostly
            return np.full(len(ids.ids), -1)
        return self.view().rows_of(ids)

    def view(self) -> GrowingRows:
        """Return the rows there are now."""
        return GrowingRows(
            len(self._ids), self._ids, self._newest, self._vectors, self._codes, self._texts,
            self._payloads, self.memory_bytes,
        )  # fmt: skip


def _capacity(needed: int, present: int, dim: int) -> int:
    """Return for how many rows to make room: many more, until that would be a lot of memory."""
    cheap = min(_GROWTH * present, _RESERVED_BYTES // (4 * dim))
    return max(needed, 2 * present, cheap)


def _grown(array: NDArray[np.float32], used: int, capacity: int) -> NDArray[np.float32]:
    larger = np.empty((capacity, *array.shape[1:]), array.dtype)
    larger[:used] = array[:used]
    return larger

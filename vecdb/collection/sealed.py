"""A sealed segment as a collection searches it: the stored rows and, once built, their index."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vecdb.config import COLLECTION_EF, COLLECTION_RECALL
from vecdb.index import ByteCodes, HnswIndex, Queries, RowFilter, rank_exactly
from vecdb.storage import FileRows, IdBatch, RowSource, SegmentFile, Step
from vecdb.types import Matrix, Metric, PointId


class SealedRows:
    """The rows of an immutable segment file, memory-mapped.

    Without an index every row is compared, so that answers are exact while one is being built.
    """

    def __init__(self, metric: Metric, file: SegmentFile, index: HnswIndex | None = None) -> None:
        self._metric = metric
        self.file = file
        self.index = index
        self.count = len(file)
        self.vectors: Matrix = file.vectors
        self._codes = ByteCodes(metric)

    @property
    def is_indexed(self) -> bool:
        """Whether a graph index is searched, and not every row."""
        return self.index is not None

    @property
    def memory_bytes(self) -> int:
        """How much memory the rows take: none, since they are mapped.

        Codes of theirs are not counted: sealing would not give them back, and a graph does.
        """
        return 0

    def search(
        self, queries: Queries, k: int, allowed: RowFilter | None, ef: int | None, threads: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return row numbers and distances of the nearest rows, as `HnswIndex.search` does."""
        if self.index is not None:
            calibrated = self.index.quantization != "none"
            wanted = COLLECTION_RECALL if calibrated and ef is None else None
            rows, distances = self.index.search(
                queries, k, ef=max(k, COLLECTION_EF.check(ef)), target_recall=wanted,
                threads=threads, filter=allowed,
            )  # fmt: skip
            if calibrated:
                rank_exactly(self._metric, queries, self.vectors, rows, distances)
            return rows, distances
        return self._codes.search(queries, self.vectors, k, allowed, threads=threads)

    def rows_of(self, ids: IdBatch) -> NDArray[np.int64]:
        """Return the row of each id, -1 where there is none."""
        return self.file.rows_of(ids)

    def id_at(self, row: int) -> PointId:
        """Return the id of a row."""
        return self.file.id_at(row)

    def ids_at(self, rows: NDArray[np.int64]) -> list[PointId]:
        """Return the ids of rows."""
        return self.file.ids_at(rows)

    def texts_at(self, rows: NDArray[np.int64]) -> list[str | None]:
        """Return the texts of rows."""
        return self.file.texts_at(rows)

    def payloads_at(self, rows: NDArray[np.int64]) -> list[bytes | None]:
        """Return the payloads of rows as JSON."""
        return self.file.payloads_at(rows)

    def text_at(self, row: int) -> str | None:
        """Return the text of a row."""
        return self.file.text_at(row)

    def payload_at(self, row: int) -> bytes | None:
        """Return the payload of a row as JSON."""
        return self.file.payload_at(row)

    def source(self, rows: NDArray[np.int64], step: Step) -> RowSource:
        """Return rows in the form in which they are written to a file."""
        return FileRows(self.file, rows)

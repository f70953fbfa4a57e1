"""A sealed segment as a collection searches it: the stored rows and, once built, their index."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vecdb.config import COLLECTION_EF, COLLECTION_RECALL
from vecdb.index import ByteCodes, HnswIndex, Queries, RowFilter, rank_exactly
from vecdb.storage import FileRows, RowSource, SegmentFile, Step
from vecdb.types import Matrix, Metric


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
        # What is kept of a row is the file's to tell.
        self.rows_of = file.rows_of
        self.id_at, self.ids_at = file.id_at, file.ids_at
        self.text_at, self.texts_at = file.text_at, file.texts_at
        self.payload_at, self.payloads_at = file.payload_at, file.payloads_at

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

    def source(self, rows: NDArray[np.int64], step: Step) -> RowSource:
        """Return rows in the form in which they are written to a file."""
        return FileRows(self.file, rows)

"""Loading many points at once: whole segments go to disk, and one commit makes them all visible."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, ExitStack
from types import TracebackType
from typing import Self

import numpy as np

from vecdb.collection.batch import Batch, listed, listed_ids
from vecdb.collection.budget import Budget, Taker, Usage
from vecdb.collection.draft import Draft
from vecdb.collection.growing import ROW_BYTES, GrowingSegment
from vecdb.collection.sealing import Sealing
from vecdb.collection.settings import CollectionSettings
from vecdb.collection.stored import StoredSegment
from vecdb.collection.versions import Versions
from vecdb.config import BATCH_ROWS
from vecdb.errors import ClosedError, LengthMismatchError, MemoryLimitError
from vecdb.interrupts import whole
from vecdb.types import MatrixLike, Payload, PointId

_BUFFERED_BYTES = 128 << 20

Check = Callable[
    [
        Iterable[PointId],
        Sequence[str | None] | None,
        MatrixLike | None,
        Sequence[Payload | None] | None,
    ],
    Batch,
]
"""Checks what `Collection.upsert` takes: ids, texts, vectors, payloads."""


class BulkLoad:
    """A load in hand; made by `Collection.bulk`, and used in one ``with`` block by one thread.

    Nothing of it is seen before the block ends, and nothing stays when the block raises. It does
    not go through the log: points are gathered in memory up to the size of a segment, or a part of
    what `max_memory_bytes` allows, and then written as a file that no manifest names yet. When the
    block ends, one manifest names all of them. Points that have the same ids, of the collection or
    of the load itself, are replaced, as `Collection.upsert` does it.

    Attributes
    ----------
    count
        How many points were added so far.
    """

    def __init__(
        self, settings: CollectionSettings, versions: Versions, sealing: Sealing, budget: Budget,
        taker: Taker, check: Check, commit: Callable[[Draft, Sequence[StoredSegment]], None],
        saying_why: Callable[[], AbstractContextManager[None]],
    ) -> None:  # fmt: skip
        self._settings = settings
        self._versions = versions
        self._sealing = sealing
        self._budget = budget
        self._taker = taker
        self._check = check
        self._commit = commit
        self._saying_why = saying_why
        self._most = budget.gathered(_BUFFERED_BYTES)
        self._written: list[StoredSegment] = []
        self._rows = GrowingSegment(settings.dim, settings.metric)
        self._draft: Draft | None = None
        self._drafting = ExitStack()
        self._open = False
        self._process = 0  # that of the `with` block
        self.count = 0

    def add(
        self,
        ids: Iterable[PointId],
        texts: Sequence[str | None] | None = None,
        vectors: MatrixLike | None = None,
        payloads: Sequence[Payload | None] | None = None,
    ) -> None:
        """Add points; arguments and what they raise are those of `Collection.upsert`.

        There may be any number of them. Texts without vectors are embedded, as far as they fit;
        chunks of earlier texts are left alone.

        Raises
        ------
        ClosedError
            Outside of the ``with`` block.
        """
        if not self._open:
            raise ClosedError("a bulk load takes points inside its `with` block only")
        given = listed_ids(ids)
        count, step = len(given), BATCH_ROWS.greatest
        text_list = None if texts is None else listed(texts, count, "texts")
        payload_list = None if payloads is None else listed(payloads, count, "payloads")
        if count > step and vectors is not None:
            vectors = _sliceable(vectors, count)
        for first in range(0, max(count, 1), step):
            part = slice(first, first + step)
            self._add(
                self._check(
                    given[part],
                    None if text_list is None else text_list[part],
                    vectors if count <= step or vectors is None else vectors[part],
                    None if payload_list is None else payload_list[part],
                )
            )

    @whole
    def _add(self, batch: Batch) -> None:
        count, taken = len(batch.ids), _memory_of(batch)
        step = count if taken <= self._most else max(1, count * self._most // taken)
        for first in range(0, count, step):
            self._gather(batch.rows(first, first + step))
            full = len(self._rows) >= self._settings.segment_rows
            if full or self._rows.memory_bytes >= self._most:
                self._write()

    def _gather(self, batch: Batch) -> None:
        wanted = _memory_of(batch)
        try:
            self._append(batch, wanted)
        except MemoryLimitError:
            if not len(self._rows):
                raise
            self._write()  # which gives back what this load takes
            self._append(batch, wanted)
        self.count += len(batch.ids)

    def _append(self, batch: Batch, wanted: int) -> None:
        rows, gathered = len(batch.ids), self._rows.memory_bytes  # which is no file yet
        with self._budget.growth(Usage(gathered + wanted, wanted), self._taker, rows):
            self._rows.append(batch)
            if self._draft is not None:
                self._draft.memory_bytes = self._rows.memory_bytes
                self._draft.loaded_rows += rows

    @whole
    def _write(self) -> None:
        """Write what was gathered to a file; of points with one id, the last."""
        if self._draft is None or not len(self._rows):
            return
        view = self._rows.view()
        newest = np.fromiter(view.newest.values(), np.int64, len(view.newest))
        rows = np.sort(newest)
        growth = Usage(disk_bytes=view.memory_bytes)
        with self._saying_why(), self._budget.growth(growth, self._taker):
            self._written.append(self._sealing.write_loaded(self._draft, view, rows))
        self._let_go()

    def _let_go(self) -> None:
        """Gather from nothing; the points before are in a file, or given up."""
        self._rows = GrowingSegment(self._settings.dim, self._settings.metric)
        if self._draft is not None:
            self._draft.memory_bytes = 0

    def __enter__(self) -> Self:
        if self._draft is not None:
            raise ClosedError("this bulk load had its `with` block: begin another with `bulk()`")
        self._begin()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._open = False
        self._end(complete=kind is None)

    @whole
    def _begin(self) -> None:
        self._process = os.getpid()
        self._draft = self._drafting.enter_context(self._versions.draft())
        self._open = True

    @whole
    def _end(self, *, complete: bool) -> None:
        with self._drafting:
            self._drafting.callback(self._let_go)
            if complete and self._draft is not None:
                if os.getpid() == self._process:  # a forked child is refused by the commit
                    self._write()
                self._commit(self._draft, self._written)


def _memory_of(batch: Batch) -> int:
    """Return what a growing segment will take to hold a batch."""
    texts = sum(len(text.encode()) for text in batch.texts if text is not None)
    payloads = sum(map(len, filter(None, batch.payloads)))
    return batch.vectors.nbytes + ROW_BYTES * len(batch.ids) + texts + payloads


def _sliceable(vectors: MatrixLike, count: int) -> MatrixLike:
    """Return vectors that can be cut between rows, of which there are `count`."""
    if not isinstance(vectors, np.ndarray):
        return listed(vectors, count, "vectors")
    if vectors.shape[:1] != (count,):
        raise LengthMismatchError(
            f"vectors has the shape {vectors.shape} and ids has {count}: must be as many"
        )
    return vectors

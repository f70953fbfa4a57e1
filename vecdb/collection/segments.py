"""The segments of a collection in memory: which there are, and which of their rows live.

Every change makes a new `Snapshot`; masks of live rows are replaced, never changed, so a reader
keeps what it saw. An id lives in at most one row of all segments.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from vecdb.collection.batch import Batch
from vecdb.collection.growing import GrowingRows, GrowingSegment
from vecdb.collection.snapshot import Mask, MatchedRows, Part, Rows, Snapshot, record_at
from vecdb.storage import IdBatch, RowSource, Step
from vecdb.types import Metric, PointId, Quarantine, Record


class KeyedRows(Rows, Protocol):
    """The rows of a segment, found by id."""

    def rows_of(self, ids: IdBatch) -> NDArray[np.int64]:
        """Return the row of each id, -1 where there is none."""

    def source(self, rows: NDArray[np.int64], step: Step) -> RowSource:
        """Return rows in the form in which they are written to a file."""


@dataclass(slots=True, eq=False)
class Segment:
    """A segment that takes no more rows, and which of them live.

    `rows` is replaced when an index has been built for it, or lost; the rows are the same ones.
    """

    rows: KeyedRows
    alive: Mask
    matched: MatchedRows = field(default_factory=MatchedRows)

    @property
    def live(self) -> int:
        """How many rows live."""
        return int(np.count_nonzero(self.alive))

    @property
    def total(self) -> int:
        """How many rows there are, dead ones included."""
        return self.rows.count

    def bury(self, ids: IdBatch) -> int:
        """Mark the rows of `ids` dead; return how many of them lived."""
        rows = self.rows.rows_of(ids)
        rows = rows[rows >= 0]
        dying = rows[self.alive[rows]]
        if len(dying):
            alive = self.alive.copy()
            alive[dying] = False
            self.alive = alive
        return len(dying)


class Segments:
    """All segments of a collection, oldest first, the growing one last.

    Writers call `upsert` and `delete`, one at a time and in the order of the log; who has the turn
    alone calls `freeze`. Threads that seal, merge, index or scrub, and bulk loads, call `replace`,
    `reindex`, `adopt` and `quarantine`, under the lock of `Versions`. Anyone reads `snapshot`
    without a lock.
    """

    def __init__(
        self,
        dim: int,
        metric: Metric,
        closed: Sequence[Segment],
        sequence: int,
        damaged: Sequence[Quarantine] = (),
    ) -> None:
        self._dim = dim
        self._metric = metric
        self._lock = threading.Lock()  # protects everything below, and each segment's `alive`
        self._closed = list(closed)
        self._damaged = tuple(damaged)
        self._growing = GrowingSegment(dim, metric)
        self._growing_alive = np.empty(0, np.bool_)
        self._growing_matched = MatchedRows()
        self.snapshot = self._snapshot(sequence)

    @property
    def closed(self) -> tuple[Segment, ...]:
        """The segments that take no more rows, oldest first."""
        with self._lock:
            return tuple(self._closed)

    @property
    def memory_bytes(self) -> int:
        """About what the points take that are in no file yet."""
        return sum(part.rows.memory_bytes for part in self.snapshot.parts)

    @property
    def unindexed_rows(self) -> int:
        """How many rows live to which no graph leads."""
        return sum(part.live for part in self.snapshot.parts if not part.rows.is_indexed)

    @property
    def growing_rows(self) -> int:
        """How many rows the growing segment has, dead ones included."""
        return len(self._growing)

    @property
    def growing_dead(self) -> int:
        """How many of them are dead."""
        alive = self._growing_alive
        return len(alive) - int(np.count_nonzero(alive))

    def upsert(self, batch: Batch, sequence: int, deleted: Sequence[PointId] = ()) -> None:
        """Write points, in place of those of the same ids and of those `deleted`."""
        with self._lock:
            self._bury([*batch.ids, *deleted] if deleted else batch.ids)
            self._growing.append(batch)
            self._growing_alive = np.concatenate(
                [self._growing_alive, np.ones(len(batch.ids), np.bool_)]
            )
            self.snapshot = self._snapshot(sequence)

    def delete(self, ids: Sequence[PointId], sequence: int) -> int:
        """Delete points; return how many of them there were."""
        with self._lock:
            buried = self._bury(ids)
            self.snapshot = self._snapshot(sequence)
            return buried

    def get(self, ids: Sequence[PointId]) -> list[Record]:
        """Return the points of `ids` that there are, in that order.

        Raises
        ------
        QuarantinedError
            If one is not found and may be among those that are damaged. One that is found is
            right: an id lives in at most one row of all segments.
        """
        with self._lock:
            snapshot = self.snapshot
            batch = IdBatch(ids)
            rows_by_part = [s.rows.rows_of(batch).tolist() for s in self._closed]
            rows_by_part.append(self._growing.rows_of(batch).tolist())
        records: list[Record] = []
        for position in range(len(ids)):
            for part, rows in zip(snapshot.parts, rows_by_part, strict=True):
                row = rows[position]
                if row >= 0 and part.alive[row]:
                    records.append(record_at(part.rows, row))
                    break
            else:
                snapshot.check_whole()
        return records

    def present(self, ids: Sequence[PointId]) -> list[PointId]:
        """Return those of `ids` under which there are points, in that order."""
        batch = IdBatch(ids)
        there = np.zeros(len(ids), np.bool_)
        with self._lock:
            for segment in self._closed:
                _mark(there, segment.rows.rows_of(batch), segment.alive)
            _mark(there, self._growing.rows_of(batch), self._growing_alive)
        return [ids[position] for position in np.flatnonzero(there).tolist()]

    def freeze(self) -> Segment | None:
        """Close the growing segment and start another; None when it has no rows."""
        with self._lock:
            if not len(self._growing):
                return None
            segment = Segment(self._growing.view(), self._growing_alive, self._growing_matched)
            following = GrowingSegment(self._dim, self._metric)  # before any change: it may fail
            self._closed.append(segment)
            self._growing = following
            self._growing_alive = np.empty(0, np.bool_)
            self._growing_matched = MatchedRows()
            self.snapshot = self._snapshot(self.snapshot.sequence)
            return segment

    def alive_at(self, segment: Segment) -> Mask:
        """Return which rows of `segment` live now; the array never changes."""
        with self._lock:
            return segment.alive

    def alive_of(self, old: Sequence[Segment], kept: Sequence[Mask]) -> Mask:
        """Return which of the rows that were copied from segments live now; see `replace`."""
        with self._lock:
            return _joined(old, kept)

    def replace(
        self,
        old: Sequence[Segment],
        rows: KeyedRows | None,
        kept: Sequence[Mask],
    ) -> Segment | None:
        """Put one segment in the place of several, or none when `rows` is None.

        Parameters
        ----------
        old
            The segments whose rows the new one has, in their order.
        rows
            The new segment's.
        kept
            For each old segment, which of its rows the new one was given: what died since is
            dead in the new one too.

        Returns
        -------
        Segment or None
            The new segment.
        """
        with self._lock:
            first = min(self._closed.index(segment) for segment in old)
            self._closed = [s for s in self._closed if s not in old]
            segment = None
            if rows is not None:
                segment = Segment(rows, _joined(old, kept))
                self._closed.insert(first, segment)
            self.snapshot = self._snapshot(self.snapshot.sequence)
            return segment

    def adopt(self, loaded: Sequence[Segment], buried: Mapping[Segment, Mask]) -> None:
        """Add segments, and in the same moment give others new masks of live rows.

        The caller sees to it that no write comes in between and that no id lives twice.
        """
        with self._lock:
            for segment, alive in buried.items():
                segment.alive = alive
            self._closed.extend(loaded)
            self.snapshot = self._snapshot(self.snapshot.sequence)

    def reindex(self, segment: Segment, rows: KeyedRows) -> None:
        """Let a segment be searched through `rows`, which are the same rows with an index."""
        with self._lock:
            segment.rows = rows
            self.snapshot = self._snapshot(self.snapshot.sequence)

    def quarantine(self, segment: Segment, reason: Quarantine) -> None:
        """Serve a segment no more, and no answer that would need it."""
        with self._lock:
            self._closed = [s for s in self._closed if s is not segment]
            self._damaged = (*self._damaged, reason)
            self.snapshot = self._snapshot(self.snapshot.sequence)

    def _bury(self, point_ids: Sequence[PointId]) -> int:
        ids = IdBatch(point_ids)
        buried = sum(segment.bury(ids) for segment in self._closed)
        rows = self._growing.rows_of(ids)
        rows = rows[rows >= 0]
        dying = rows[self._growing_alive[rows]]
        if len(dying):
            self._growing_alive = self._growing_alive.copy()
            self._growing_alive[dying] = False
        return buried + len(dying)

    def _snapshot(self, sequence: int) -> Snapshot:
        parts = [Part(s.rows, s.alive, s.live, s.matched) for s in self._closed]
        growing: GrowingRows = self._growing.view()
        alive = self._growing_alive
        parts.append(Part(growing, alive, int(np.count_nonzero(alive)), self._growing_matched))
        return Snapshot(self._metric, tuple(parts), sequence, self._damaged)


def _joined(old: Sequence[Segment], kept: Sequence[Mask]) -> Mask:
    return np.concatenate([s.alive[k] for s, k in zip(old, kept, strict=True)])


def _mark(there: NDArray[np.bool_], rows: NDArray[np.int64], alive: Mask) -> None:
    """Mark the positions whose row lives; -1 is none."""
    found = np.flatnonzero(rows >= 0)
    there[found] |= alive[rows[found]]

"""From memory to segments on disk: the growing segment when it is full, and bulk loads."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vecdb.collection.draft import Draft
from vecdb.collection.growing import GrowingRows
from vecdb.collection.progress import Progress, Task
from vecdb.collection.sealed import SealedRows
from vecdb.collection.segments import Segment, Segments
from vecdb.collection.settings import CollectionSettings
from vecdb.collection.snapshot import Mask
from vecdb.collection.stored import StoredSegment
from vecdb.collection.turns import Turns
from vecdb.collection.versions import Versions
from vecdb.storage import SegmentFile, Step, Store, Wal
from vecdb.types import WorkKind


class Sealing:
    """Writes what is in memory into segments, and lets the log go that held it.

    Parameters
    ----------
    store, versions, segments, wal, settings, progress
        Those of the collection.
    turns
        No write is applied while it is held.
    """

    def __init__(
        self, store: Store, versions: Versions, segments: Segments, wal: Wal, turns: Turns,
        settings: CollectionSettings, progress: Progress,
    ) -> None:  # fmt: skip
        self._store = store
        self._versions = versions
        self._segments = segments
        self._wal = wal
        self._turns = turns
        self._settings = settings
        self._progress = progress
        self._sealing = threading.Lock()  # one seal at a time; protects _frozen
        self._loading = threading.Lock()  # held while a file of a bulk load is written
        self._frozen: deque[tuple[Segment | None, int]] = deque()  # with the last write before each

    @property
    def is_unfinished(self) -> bool:
        """Whether a seal failed after it had taken the growing segment."""
        return bool(self._frozen)

    def wait(self) -> None:
        """Wait until nothing is being written."""
        with self._sealing, self._loading:
            pass

    def seal(self, *, gently: bool = False) -> None:
        """Write what has been written so far into a sealed segment, and let go of the log.

        Parameters
        ----------
        gently
            Rest between pieces.

        Raises
        ------
        DiskFullError, StorageIOError
            Nothing is lost: the points stay in memory and in the WAL.
        """
        with self._sealing:
            self._versions.check_running()
            with self._turns:
                self._freeze()
            self._write_all_frozen(gently)

    def _freeze(self) -> None:
        """Let no more points into the growing segment; the caller holds the turn."""
        segment = self._segments.freeze()
        sequence = self._segments.snapshot.sequence
        applied = self._frozen[-1][1] if self._frozen else self._versions.stored.applied_sequence
        # Without new points there may be new deletes: they go into tombstones.
        if segment is not None or sequence > applied:
            self._frozen.append((segment, sequence))
            self._wal.rotate()

    def _write_all_frozen(self, gently: bool) -> None:
        step = self._versions.step(gently=gently)
        while self._frozen:
            segment, sequence = self._frozen[0]
            rows = 0 if segment is None else segment.rows.count
            with self._progress.task(WorkKind.SEAL, rows) as task:
                self._write_frozen(segment, sequence, step, task)
            self._versions.holds.discard({})

    def _write_frozen(self, segment: Segment | None, sequence: int, step: Step, task: Task) -> None:
        versions = self._versions
        old = [] if segment is None else [segment]
        kept = [self._segments.alive_at(segment) for segment in old]
        with versions.draft() as draft:
            file, data = versions.write_data(draft, old, kept, step)
            task.advance(task.rows)
            with versions.lock:
                versions.check_running()
                # The WAL up to `sequence` will be gone, so the deaths it recorded must stand in
                # tombstones. Later ones may too: whatever is seen here is durable in the WAL
                # already.
                current = {
                    stored.number: draft.buried(stored, self._segments.alive_at(other))
                    for other, stored in versions.on_disk.items()
                }
                stored = [current[s.number] for s in versions.stored.segments]
                if data is not None:
                    stored.append(data)
                with versions.publishing(draft, versions.stored.with_segments(stored, sequence)):
                    versions.on_disk = {o: current[s.number] for o, s in versions.on_disk.items()}
                    rows = None if file is None else SealedRows(self._settings.metric, file)
                    sealed = self._segments.replace(old, rows, kept) if old else None
                    if sealed is not None and data is not None:
                        versions.on_disk[sealed] = data
                    self._frozen.popleft()  # written once more, its points would be there twice

    # Bulk loads

    def write_loaded(
        self, draft: Draft, rows: GrowingRows, chosen: NDArray[np.int64]
    ) -> StoredSegment:
        """Write rows into a segment that nothing names before `adopt`."""
        with self._loading:
            self._versions.check_running()
            step = self._versions.step(gently=False)
            return draft.write_rows([rows.source(chosen, step)], step)

    def adopt(self, draft: Draft, loaded: Sequence[StoredSegment]) -> None:
        """Make loaded segments part of the collection, all at once, the last one's ids winning.

        Earlier writes are sealed first, so that none of them is replayed over the load. Writers
        wait meanwhile, readers do not.

        Raises
        ------
        DiskFullError, StorageIOError
            The collection is as it was.
        """
        if not loaded:
            return
        self.seal()  # most of what is in memory, while writers still go on
        with self._sealing, self._turns:
            self._freeze()
            self._write_all_frozen(gently=False)
            with self._versions.lock:
                self._versions.check_running()
                self._adopt(draft, loaded)

    def _adopt(self, draft: Draft, loaded: Sequence[StoredSegment]) -> None:
        versions = self._versions
        before = dict(versions.on_disk)
        added: dict[Segment, StoredSegment] = {}
        masks: dict[Segment, Mask] = {}
        for stored in loaded:
            file = SegmentFile.open(self._store, stored.data, verify=False)
            for segment in (*before, *added):
                if isinstance(segment.rows, SealedRows):
                    dead = segment.rows.file.rows_shared_with(file)
                    if segment not in masks:
                        masks[segment] = self._segments.alive_at(segment).copy()
                    masks[segment][dead] = False
            rows = SealedRows(self._settings.metric, file)
            added[Segment(rows, np.ones(len(file), np.bool_))] = stored
        everything = {**before, **added}
        current = {
            stored.number: draft.buried(stored, masks.get(segment, segment.alive))
            for segment, stored in everything.items()
        }
        kept = [current[s.number] for s in versions.stored.segments]
        new = [current[s.number] for s in added.values()]
        with versions.publishing(draft, versions.stored.with_segments([*kept, *new])):
            versions.on_disk = {o: current[s.number] for o, s in everything.items()}
            self._segments.adopt(list(added), masks)

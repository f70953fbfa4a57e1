"""The life of segments: growing, sealed, indexed, merged, dropped.

Sealing writes the growing segment to disk and lets the WAL go (`Sealing`); improving builds graph
indexes and merges small or half-dead segments (`Improving`). Each runs in at most one thread at a
time, beside readers and the writer, and in the background it rests between pieces, so that they get
at the interpreter.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from vecdb.collection import policy
from vecdb.collection.holds import HeldFiles
from vecdb.collection.improving import Improving
from vecdb.collection.progress import Progress
from vecdb.collection.sealing import Sealing
from vecdb.collection.segments import Segments
from vecdb.collection.settings import CollectionSettings
from vecdb.collection.stored import StoredCollection
from vecdb.collection.turns import Turns
from vecdb.collection.versions import Versions
from vecdb.storage import Store, Wal


class Maintenance:
    """Keeps the segments of one collection few, indexed and on disk.

    Parameters
    ----------
    store, versions, segments, wal, settings
        Those of the collection.
    turns
        No write is applied while it is held.
    index_threads
        How many threads build a graph.
    is_full
        Returns whether hardly any of the disk is left.
    """

    def __init__(
        self, store: Store, versions: Versions, segments: Segments, wal: Wal, turns: Turns,
        settings: CollectionSettings, index_threads: int, is_full: Callable[[], bool],
    ) -> None:  # fmt: skip
        self._store = store
        self._segments = segments
        self._wal = wal
        self._turns = turns
        self._settings = settings
        self.versions = versions
        self.progress = Progress()
        self.sealing = Sealing(store, versions, segments, wal, turns, settings, self.progress)
        self._improving = Improving(
            store, versions, segments, settings, self.progress, index_threads, is_full
        )
        self._last_write = time.monotonic()
        self._last_search = -math.inf

    @property
    def stored(self) -> StoredCollection:
        """What the newest manifest names."""
        return self.versions.stored

    def note_search(self) -> None:
        """Remember that somebody searches: points in memory slow that down."""
        self._last_search = time.monotonic()

    def note_write(self) -> None:
        """Remember that a write came in: merging small segments waits for a pause."""
        self._last_write = time.monotonic()

    def _idle(self, seconds: float) -> bool:
        return time.monotonic() - self._last_write > seconds

    def seal_is_due(self) -> bool:
        """Return whether the growing segment is full, or has been left alone for a while."""
        rows = self._segments.growing_rows
        settings = self._settings
        if self.sealing.is_unfinished or rows >= settings.segment_rows:
            return True
        if self._wal.size_bytes >= settings.wal_bytes:
            return self._segments.snapshot.sequence > self.stored.applied_sequence
        if rows >= policy.INDEXED_ROWS and self._idle(policy.IDLE_SECONDS):
            return True
        searched = time.monotonic() - self._last_search < policy.SEARCHED_SECONDS
        slow = 4 * settings.dim * rows >= policy.COMPARED_BYTES
        if searched and slow and not self._improving.to_index():
            return True
        return self._segments.growing_dead > 0 and self._idle(policy.FORGET_SECONDS)

    def seal(self, *, gently: bool = False) -> None:
        """Write what has been written so far into a segment; see `Sealing.seal`."""
        self.sealing.seal(gently=gently)

    def improve(self, *, eager: bool = False) -> bool:
        """Take the most useful step towards few, indexed segments; see `Improving.improve`."""
        return self._improving.improve(eager=eager)

    def merge(self) -> bool:
        """Merge what is worth it, gently; return whether anything was."""
        return self._improving.merge(eager=self._idle(policy.IDLE_SECONDS))

    def index(self) -> bool:
        """Build one graph that is missing, gently; return whether one was."""
        return self._improving.index()

    def finish(self) -> None:
        """Seal, merge and index until nothing is left to do.

        Raises
        ------
        DiskFullError, StorageIOError
            As `seal` and `improve`.
        """
        self.seal()
        while self.improve(eager=True):
            pass

    def stop(self) -> None:
        """Give up what runs, and wait until it has."""
        self.versions.stop()
        self.sealing.wait()
        self._improving.wait()
        self.versions.close()

    @contextmanager
    def hold(self) -> Iterator[HeldFiles]:
        """Keep the files of this moment, after every write that was acknowledged, to copy them.

        Raises
        ------
        StoppedError
            If the collection is closing.
        DiskFullError, ReadOnlyError
            If the end of the log, as a crash left it, cannot be made durable.
        """
        holds = self.versions.holds
        with holds.hold():
            # Both at once: a bulk load comes into both, and not through the log.
            with self._turns, self.versions.lock:
                self._wal.settle()
                stored, snapshot = self.stored, self._segments.snapshot
            log = self._wal.extents(stored.applied_sequence, snapshot.sequence)
            yield HeldFiles(self._store, stored, log, snapshot, holds.check)

"""Which segments and files a collection consists of: the newest manifest, and what it names.

A step that changes that writes new files first (`Draft`), under numbers that were never used, then
publishes a manifest that names them, and then lets go of those that it names no more. What a step
has written and not published is deleted when it ends; what a crash leaves, when the collection is
opened again.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np

from vecdb.caller import caller_check
from vecdb.collection.draft import Draft
from vecdb.collection.holds import Holds, StoppedError
from vecdb.collection.recovery import quarantine_of
from vecdb.collection.sealed import SealedRows
from vecdb.collection.segments import Segment, Segments
from vecdb.collection.settings import CollectionSettings
from vecdb.collection.snapshot import Mask, Snapshot, described
from vecdb.collection.stored import StoredCollection, StoredSegment
from vecdb.errors import CorruptFileError, ReadOnlyError, ResourceExhaustedError, VecdbError
from vecdb.storage import ManifestLog, SegmentFile, Step, Store, Wal
from vecdb.types import SegmentInfo

_REST_SECONDS = 0.000_2

_log = logging.getLogger(__name__)


class Versions:
    """The versions of one collection, of which the newest counts.

    Attributes
    ----------
    lock
        Held by whoever publishes; protects `stored` and `on_disk`.
    stored
        What the newest manifest names.
    on_disk
        The segments in memory that are files now, quarantined ones included.
    holds
        Who copies files, so that none is deleted meanwhile.
    """

    def __init__(
        self, store: Store, manifests: ManifestLog, wal: Wal, segments: Segments,
        stored: StoredCollection, on_disk: dict[Segment, StoredSegment],
        settings: CollectionSettings,
    ) -> None:  # fmt: skip
        self._store = store
        self._manifests = manifests
        self._wal = wal
        self._segments = segments
        self._settings = settings
        self._stop = threading.Event()
        self._closed = False  # protected by the lock
        self._reserved = stored.next_number - 1
        self._drafts: tuple[Draft, ...] = ()  # protected by the lock, and replaced
        self._torn = False  # whether memory and disk may differ
        self.lock = threading.Lock()
        self.stored = stored
        self.on_disk = on_disk
        self.holds = Holds(self._delete)

    # Whether work may go on

    @property
    def is_stopped(self) -> bool:
        """Whether the collection is closing."""
        return self._stop.is_set()

    def stop(self) -> None:
        """Let every step end at its next piece; wait until nobody copies or deletes files."""
        self._stop.set()
        self.holds.stop()
        with self.lock:
            pass

    def close(self) -> None:
        """Delete nothing any more: another process may own the files in a moment.

        Every step but a bulk load's has ended by now, and what it wrote and nothing names is gone.
        """
        with self.lock:
            self._closed = True

    def check_whole(self) -> None:
        """Refuse to change anything while a part is damaged: it may yet be restored as it was.

        What is written would make points of that part dead, and it cannot be told which. Likewise
        after a step that failed between disk and memory.

        Raises
        ------
        ReadOnlyError
        """
        if self._torn:
            raise ReadOnlyError(
                "nothing is written since a step failed when its files were about to be named: "
                "open the database again"
            )
        damaged = self._segments.snapshot.damaged
        if damaged:
            raise ReadOnlyError(
                f"nothing is written while {described(damaged)}: restore the files from a backup, "
                "or stop and accept the loss with `vecdb check --repair`"
            )

    def check_running(self) -> None:
        """Refuse to change anything when the collection is closing, or damaged.

        Raises
        ------
        StoppedError, ReadOnlyError
        """
        if self._stop.is_set():
            raise StoppedError("the collection is closing")
        self.check_whole()

    def step(self, *, gently: bool) -> Step:
        """Return what is called between two pieces of work; `gently`, it rests there."""
        check = caller_check()

        def step() -> None:
            check()
            self.check_running()
            if gently:
                time.sleep(_REST_SECONDS)

        return step

    # What there is

    @property
    def bytes(self) -> int:
        """The size of all files, those that no manifest names yet, or any more, included."""
        unnamed = sum(sum(draft.sizes.values()) for draft in self._drafts)
        named = self.stored.bytes  # in this order: what is named meanwhile is not missed
        return unnamed + named + self.holds.bytes

    @property
    def loading_bytes(self) -> int:
        """About what points take in memory that bulk loads have gathered."""
        return sum(draft.memory_bytes for draft in self._drafts)

    @property
    def loaded_rows(self) -> int:
        """How many rows bulk loads have brought that no manifest names yet."""
        return sum(draft.loaded_rows for draft in self._drafts)

    def sealed(self) -> list[Segment]:
        """Return the segments that are files now, without those that are quarantined."""
        return [segment for segment in self._segments.closed if segment in self.on_disk]

    def sealed_files(self) -> list[tuple[Segment, StoredSegment]]:
        """Return `sealed` with the files of each; the caller does not hold the lock."""
        with self.lock:
            return [(segment, self.on_disk[segment]) for segment in self.sealed()]

    def segment_infos(self, snapshot: Snapshot) -> tuple[SegmentInfo, ...]:
        """Return what there is to say of each segment that takes no more rows, oldest first."""
        # A segment is known by its `matched`: other rows of it come with an index. The files are
        # looked at without the lock, under which they are written.
        sizes = {
            segment.matched: sum(ref.size for ref in stored.files)
            for segment, stored in self.on_disk.copy().items()
        }
        return tuple(
            SegmentInfo(
                part.rows.count, part.live, sizes.get(part.matched, 0), part.rows.is_indexed
            )
            for part in snapshot.closed
        )

    # Writing files

    @contextmanager
    def draft(self) -> Iterator[Draft]:
        """Let a step write files; those that are not published when the block ends are deleted.

        The caller does not hold the lock.
        """
        draft, process = Draft(self._store, self._settings.dim, self._reserve_number), os.getpid()
        with self.lock:
            self._drafts = (*self._drafts, draft)
        try:
            yield draft
        finally:
            if os.getpid() == process:  # else the files and the lock are a parent's
                self._forget(draft)

    def _forget(self, draft: Draft) -> None:
        """Delete the files of a draft that no manifest names."""
        with self.lock:
            self._drafts = tuple(other for other in self._drafts if other is not draft)
            if not self._closed:
                for name in sorted(draft.sizes.keys() - self.stored.files):
                    self._store.delete(name)

    def _reserve_number(self) -> int:
        with self.lock:
            self._reserved += 1
            return self._reserved

    def write_data(
        self, draft: Draft, segments: Sequence[Segment], kept: Sequence[Mask], step: Step
    ) -> tuple[SegmentFile | None, StoredSegment | None]:
        """Write the rows of segments that are kept as a new one; None when there are none."""
        sources = [
            segment.rows.source(np.flatnonzero(mask), step)
            for segment, mask in zip(segments, kept, strict=True)
        ]
        if not any(len(source) for source in sources):
            return None, None
        written = draft.write_rows(sources, step)
        self._verify(segments)
        return SegmentFile.open(self._store, written.data, verify=False), written

    def _verify(self, segments: Sequence[Segment]) -> None:
        """Look whether what was just copied had been damaged since it was opened.

        A copy would have right checksums and wrong contents, and its source would be gone.
        """
        for segment in segments:
            if isinstance(segment.rows, SealedRows):
                try:
                    segment.rows.file.verify()
                except CorruptFileError as error:
                    self.quarantine(segment, error)
                    raise

    # Publishing; the caller holds the lock

    @contextmanager
    def publishing(self, draft: Draft, stored: StoredCollection) -> Iterator[None]:
        """Make `stored` the newest version, let the block bring memory to it, drop old files.

        Raises
        ------
        DiskFullError
            If there is no room; the version before is still the newest.
        StorageIOError
            If the disk failed; which version is the newest shows at the next opening.
        """
        before = self.stored.sizes
        dropped = {name: before[name] for name in before.keys() - stored.files}
        named, torn = True, True
        try:
            self._manifests.publish(stored.to_body())
            self.stored = stored
            yield
            torn = False
        except ResourceExhaustedError:
            if self.stored is not stored:
                named = torn = False
            raise
        finally:
            if named:  # or nobody knows
                draft.let_go(stored.files)
            self._torn |= torn
        self._manifests.prune(keep=1)
        self.holds.discard(dropped)

    def publish_segment(self, draft: Draft, segment: Segment, stored: StoredSegment) -> None:
        """Publish other files for a segment, with the same rows."""
        kept = self.stored.segments
        renewed = [stored if s.number == stored.number else s for s in kept]
        with self.publishing(draft, self.stored.with_segments(renewed)):
            self.on_disk[segment] = stored

    def _delete(self, names: set[str]) -> None:
        for name in sorted(names - self.stored.files):
            self._store.delete(name)
        self._wal.drop_through(self.stored.applied_sequence)

    # What was found damaged, put right

    def quarantine(self, segment: Segment, error: VecdbError) -> None:
        """Serve a segment no more, because its files have been damaged since they were opened."""
        with self.lock:
            stored = self.on_disk.get(segment)
            if stored is None or segment not in self._segments.closed:
                return  # merged meanwhile, from bytes that were verified, or here before
            _log.error("segment %d is no longer served: %s", stored.number, error)
            self._segments.quarantine(segment, quarantine_of(self._store, stored, error))

    def lose_index(self, segment: Segment) -> None:
        """Search a segment exactly from now on; its index is built again in the background."""
        with self.lock:
            if segment in self.on_disk and isinstance(segment.rows, SealedRows):
                rows = SealedRows(self._settings.metric, segment.rows.file)
                self._segments.reindex(segment, rows)

    def renew_tombstones(self, segment: Segment) -> None:
        """Write again, from memory, which rows of a segment are dead.

        Raises
        ------
        DiskFullError, StorageIOError
        """
        with self.draft() as draft, self.lock:
            self.check_running()
            stored = self.on_disk.get(segment)
            if stored is not None:
                unwritten = replace(stored, tombstones=None, dead=0)
                alive = self._segments.alive_at(segment)
                self.publish_segment(draft, segment, draft.buried(unwritten, alive))

    def heal_manifest(self) -> list[str]:
        """Write the manifest's file or its copy again if one is damaged; return their names."""
        with self.lock:
            self.check_running()
            return self._manifests.heal()

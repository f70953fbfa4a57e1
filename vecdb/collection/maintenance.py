"""The life of segments: growing, sealed, indexed, merged, dropped.

Sealing writes the growing segment to disk and lets the WAL go; improving builds graph indexes and
merges small or half-dead segments. Each runs in at most one thread at a time, beside readers and
the writer, and in the background it rests between pieces, so that they get at the interpreter. A
step that does not finish leaves files that no manifest names; they are deleted when the collection
is opened again.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from vecdb.collection.growing import GrowingRows
from vecdb.collection.holds import HeldFiles, Holds, StoppedError
from vecdb.collection.policy import (
    COMPARED_BYTES,
    FORGET_SECONDS,
    IDLE_SECONDS,
    INDEXED_ROWS,
    SEARCHED_SECONDS,
    to_merge,
)
from vecdb.collection.progress import Progress, Task
from vecdb.collection.recovery import INDEX_KIND, open_index, quarantine_of
from vecdb.collection.sealed import SealedRows
from vecdb.collection.segments import Segment, Segments
from vecdb.collection.settings import CollectionSettings
from vecdb.collection.snapshot import Mask, described
from vecdb.collection.stored import StoredCollection, StoredSegment
from vecdb.errors import CorruptFileError, ReadOnlyError, VecdbError
from vecdb.index import HnswIndex
from vecdb.storage import (
    FileRef,
    ManifestLog,
    SegmentFile,
    Step,
    Store,
    Wal,
    write_rows,
    write_sections,
    write_tombstones,
)
from vecdb.types import SegmentInfo, WorkKind

_ROWS_PER_STEP = 20
"""Rows for each piece of work of which an index is built, counted on graphs of several sizes."""
_REST_SECONDS = 0.000_2

_log = logging.getLogger(__name__)


class Maintenance:
    """Keeps the segments of one collection few, indexed and on disk."""

    def __init__(
        self, store: Store, manifests: ManifestLog, wal: Wal, turn: threading.Lock,
        segments: Segments, stored: StoredCollection, on_disk: dict[Segment, StoredSegment],
        settings: CollectionSettings, index_threads: int,
    ) -> None:  # fmt: skip
        self._store = store
        self._manifests = manifests
        self._wal = wal
        self._turn = turn  # no write is applied while it is held
        self._segments = segments
        self._stored = stored
        self._on_disk = on_disk
        self._settings = settings
        self._threads = index_threads
        self._sealing = threading.Lock()  # one seal at a time; protects _frozen
        self._loading = threading.Lock()  # held while files of a bulk load come and go
        self._merging = threading.Lock()  # one merge at a time
        self._indexing = threading.Lock()  # one index at a time; taken after _merging
        self._publishing = threading.Lock()  # protects _stored, _on_disk and the manifest log
        self._frozen: deque[tuple[Segment | None, int]] = deque()  # with the last write before each
        self._in_hand: set[Segment] = set()  # being indexed or merged; protected by _publishing
        self._stop = threading.Event()
        self._holds = Holds(self._delete)
        self.progress = Progress()
        self._last_write = time.monotonic()
        self._last_search = -math.inf
        self._reserved = stored.next_number - 1

    @property
    def stored(self) -> StoredCollection:
        """What the newest manifest names."""
        return self._stored

    def segment_infos(self) -> tuple[SegmentInfo, ...]:
        """Return what there is to say of each segment that takes no more rows, oldest first."""
        on_disk = self._on_disk  # without the lock, under which files are written
        infos = []
        for segment in self._segments.closed:
            stored = on_disk.get(segment)
            size = 0 if stored is None else sum(ref.size for ref in stored.files)
            rows = segment.rows
            infos.append(SegmentInfo(rows.count, segment.live, size, rows.is_indexed))
        return tuple(infos)

    def check_whole(self) -> None:
        """Refuse to change anything while a part is damaged: it may yet be restored as it was.

        What is written would make points of that part dead, and it cannot be told which.

        Raises
        ------
        ReadOnlyError
        """
        damaged = self._segments.snapshot.damaged
        if damaged:
            raise ReadOnlyError(
                f"nothing is written while {described(damaged)}: restore the files from a backup, "
                "or stop and accept the loss with `vecdb check --repair`"
            )

    def quarantine(self, segment: Segment, error: VecdbError) -> None:
        """Serve a segment no more, because its files have been damaged since they were opened."""
        with self._publishing:
            stored = self._on_disk.get(segment)
            if stored is None or segment not in self._segments.closed:
                return  # merged meanwhile, from bytes that were verified, or here before
            _log.error("segment %d is no longer served: %s", stored.number, error)
            self._segments.quarantine(segment, quarantine_of(self._store, stored, error))

    # What a scrub finds, put right

    @property
    def is_stopped(self) -> bool:
        """Whether the collection is closing."""
        return self._stop.is_set()

    @property
    def on_disk(self) -> list[tuple[Segment, StoredSegment]]:
        """The segments that are files now, without those that are quarantined."""
        with self._publishing:
            return [(segment, self._on_disk[segment]) for segment in self._sealed()]

    def lose_index(self, segment: Segment) -> None:
        """Search a segment exactly from now on; `improve` builds its index again."""
        with self._publishing:
            if segment in self._on_disk and isinstance(segment.rows, SealedRows):
                rows = SealedRows(self._settings.metric, segment.rows.file)
                self._segments.reindex(segment, rows)

    def renew_tombstones(self, segment: Segment) -> None:
        """Write again, from memory, which rows of a segment are dead.

        Raises
        ------
        DiskFullError, StorageIOError
        """
        with self._publishing:
            self._check_running()
            stored = self._on_disk.get(segment)
            if stored is not None:
                unwritten = replace(stored, tombstones=None, dead=0)
                renewed = self._with_tombstones(unwritten, segment)
                self._replace_stored(segment, renewed)

    def heal_manifest(self) -> list[str]:
        """Write the manifest's file or its copy again if one is damaged; return their names."""
        with self._publishing:
            self._check_running()
            return self._manifests.heal()

    def _replace_stored(self, segment: Segment, stored: StoredSegment) -> None:
        dropped = self._publish(
            self._stored.with_segments(
                [stored if s.number == stored.number else s for s in self._stored.segments]
            )
        )
        self._on_disk[segment] = stored
        self._discard(dropped)

    def note_search(self) -> None:
        """Remember that somebody searches: points in memory slow that down."""
        self._last_search = time.monotonic()

    def note_write(self) -> None:
        """Remember that a write came in: merging small segments waits for a pause."""
        self._last_write = time.monotonic()

    def stop(self) -> None:
        """Give up what runs, and wait until it has."""
        self._stop.set()
        self._holds.stop()
        with self._sealing, self._loading, self._merging, self._indexing:
            pass

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
        with self._holds.hold():
            # Both at once: a bulk load comes into both, and not through the log.
            with self._turn, self._publishing:
                self._wal.settle()
                stored, snapshot = self._stored, self._segments.snapshot
            log = self._wal.extents(stored.applied_sequence, snapshot.sequence)
            yield HeldFiles(self._store, stored, log, snapshot, self._holds.check)

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

    # Sealing

    def seal_is_due(self) -> bool:
        """Return whether the growing segment is full, or has been left alone for a while."""
        rows = self._segments.growing_rows
        settings = self._settings
        if self._frozen or rows >= settings.segment_rows:
            return True
        if self._wal.size_bytes >= settings.wal_bytes:
            return self._segments.snapshot.sequence > self._stored.applied_sequence
        if rows >= INDEXED_ROWS and self._idle():
            return True
        searched = time.monotonic() - self._last_search < SEARCHED_SECONDS
        if searched and 4 * settings.dim * rows >= COMPARED_BYTES and not self._to_index():
            return True
        return self._segments.growing_dead > 0 and self._idle(FORGET_SECONDS)

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
            self._check_running()
            with self._turn:
                self._freeze()
            self._write_all_frozen(gently)

    def _freeze(self) -> None:
        """Let no more points into the growing segment; the caller holds the turn."""
        segment = self._segments.freeze()
        sequence = self._segments.snapshot.sequence
        # Without new points there may be new deletes: they go into tombstones.
        if segment is not None or sequence > self._stored.applied_sequence:
            self._frozen.append((segment, sequence))
            self._wal.rotate()

    def _write_all_frozen(self, gently: bool) -> None:
        while self._frozen:
            segment, sequence = self._frozen[0]
            rows = 0 if segment is None else segment.rows.count
            with self.progress.task(WorkKind.SEAL, rows) as task:
                self._write_frozen(segment, sequence, self._step(gently), task)
            self._holds.discard(set())

    def _write_frozen(self, segment: Segment | None, sequence: int, step: Step, task: Task) -> None:
        old = [] if segment is None else [segment]
        kept = [self._segments.alive_at(segment) for segment in old]
        number = self._reserve_number()
        file, data = self._write_data(number, old, kept, step)
        task.advance(task.rows)
        with self._publishing:
            self._check_running()
            # The WAL up to `sequence` will be gone, so the deaths it recorded must stand in
            # tombstones. Later ones may too: whatever is seen here is durable in the WAL already.
            current = {s.number: self._with_tombstones(s, o) for o, s in self._on_disk.items()}
            stored = [current[s.number] for s in self._stored.segments]
            if data is not None:
                stored.append(StoredSegment(number, data))
            dropped = self._publish(self._stored.with_segments(stored, sequence))
            self._on_disk = {o: current[s.number] for o, s in self._on_disk.items()}
            rows = None if file is None else SealedRows(self._settings.metric, file)
            sealed = self._segments.replace(old, rows, kept) if old else None
            if sealed is not None:
                self._on_disk[sealed] = stored[-1]
            # Before anything else can fail: written a second time, its points would be there twice.
            self._frozen.popleft()
            self._discard(dropped)

    def _with_tombstones(self, stored: StoredSegment, segment: Segment) -> StoredSegment:
        """Write down which rows of a segment are dead, if that has changed."""
        return self._buried(stored, self._segments.alive_at(segment))

    def _buried(self, stored: StoredSegment, alive: Mask) -> StoredSegment:
        dead = len(alive) - int(np.count_nonzero(alive))
        if dead == stored.dead:  # rows only ever die, so as many are the same ones
            return stored
        name = f"segments/{stored.number:010d}.{dead}.dead"
        return replace(stored, tombstones=write_tombstones(self._store, name, ~alive), dead=dead)

    # Loading

    def write_loaded(self, rows: GrowingRows, chosen: NDArray[np.int64]) -> StoredSegment:
        """Write rows into a segment that nothing names before `adopt`."""
        with self._loading:
            self._check_running()
            number = self._reserve_number()
            name = f"segments/{number:010d}.data"
            step = self._step(gently=False)
            source = rows.source(chosen, step)
            data = write_rows(self._store, name, [source], self._settings.dim, step=step)
            return StoredSegment(number, data)

    def discard_loaded(self, loaded: Sequence[StoredSegment]) -> None:
        """Delete segments that were not adopted."""
        with self._loading:
            if self._stop.is_set():
                return  # somebody else may own the directory soon; opening it deletes them, too
            for segment in loaded:
                if segment.data.name not in self._stored.files:
                    self._store.delete(segment.data.name)

    def adopt(self, loaded: Sequence[StoredSegment]) -> None:
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
        with self._sealing, self._turn:
            self._freeze()
            self._write_all_frozen(gently=False)
            with self._publishing:
                self._check_running()
                self._adopt(loaded)

    def _adopt(self, loaded: Sequence[StoredSegment]) -> None:
        before = dict(self._on_disk)
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
            stored.number: self._buried(stored, masks.get(segment, segment.alive))
            for segment, stored in everything.items()
        }
        kept = [current[s.number] for s in self._stored.segments]
        new = [current[s.number] for s in added.values()]
        dropped = self._publish(self._stored.with_segments([*kept, *new]))
        self._on_disk = {o: current[s.number] for o, s in everything.items()}
        self._segments.adopt(list(added), masks)
        self._discard(dropped)

    # Improving

    def improve(self, *, eager: bool = False) -> bool:
        """Take the most useful step towards few, indexed segments; return whether there was one.

        What runs in the background is waited for first.

        Parameters
        ----------
        eager
            Merge even a few small segments, as when no writes come in.

        Raises
        ------
        DiskFullError, StorageIOError
            Nothing is lost: the segments stay as they were.
        """
        with self._merging, self._indexing:
            return self._merge_next(eager, gently=False) or self._index_next(gently=False)

    def merge(self) -> bool:
        """Merge what is worth it, gently; return whether anything was."""
        with self._merging:
            return self._merge_next(self._idle(), gently=True)

    def index(self) -> bool:
        """Build one graph that is missing, gently; return whether one was."""
        with self._indexing:
            return self._index_next(gently=True)

    def _merge_next(self, eager: bool, *, gently: bool) -> bool:
        self._check_running()
        with self._publishing:
            free = [s for s in self._sealed() if s not in self._in_hand]
            chosen = to_merge(free, self._settings.segment_rows, eager=eager)
            self._in_hand.update(chosen)
        try:
            if chosen:
                rows = sum(segment.live for segment in chosen)
                passes = 2 if rows >= INDEXED_ROWS else 1  # copied, and linked
                with self.progress.task(WorkKind.MERGE, rows, passes) as task:
                    self._merge(chosen, gently, task)
        finally:
            with self._publishing:
                self._in_hand.difference_update(chosen)
        return bool(chosen)

    def _index_next(self, *, gently: bool) -> bool:
        self._check_running()
        with self._publishing:
            chosen = [s for s in self._to_index() if s not in self._in_hand][:1]
            self._in_hand.update(chosen)
        try:
            for segment in chosen:
                with self.progress.task(WorkKind.INDEX, segment.rows.count) as task:
                    self._build_index(segment, gently, task)
        finally:
            with self._publishing:
                self._in_hand.difference_update(chosen)
        return bool(chosen)

    def _sealed(self) -> list[Segment]:
        return [segment for segment in self._segments.closed if segment in self._on_disk]

    def _to_index(self) -> list[Segment]:
        return [s for s in self._sealed() if not s.rows.is_indexed and s.rows.count >= INDEXED_ROWS]

    def _merge(self, segments: list[Segment], gently: bool, task: Task) -> None:
        kept = [self._segments.alive_at(segment) for segment in segments]
        number = self._reserve_number()
        file, data = self._write_data(number, segments, kept, self._step(gently))
        task.advance(task.rows)
        index = None
        rows = None
        if file is not None:
            rows = SealedRows(self._settings.metric, file)
            if rows.count >= INDEXED_ROWS:
                index = self._write_index(number, file, gently, task)
                rows.index = open_index(self._store, index)
        with self._publishing:
            self._check_running()
            numbers = {self._on_disk[segment].number for segment in segments}
            left = [s for s in self._stored.segments if s.number not in numbers]
            merged = None
            if data is not None:
                # Rows that died while they were being copied: a seal may have let the WAL that
                # says so go, with tombstones for the old segments only.
                alive = self._segments.alive_of(segments, kept)
                merged = self._buried(StoredSegment(number, data, index), alive)
                place = next(i for i, s in enumerate(self._stored.segments) if s.number in numbers)
                left.insert(place, merged)
            dropped = self._publish(self._stored.with_segments(left))
            segment = self._segments.replace(segments, rows, kept)
            for old in segments:
                del self._on_disk[old]
            if segment is not None and merged is not None:
                self._on_disk[segment] = merged
            self._discard(dropped)

    def _build_index(self, segment: Segment, gently: bool, task: Task) -> None:
        rows = segment.rows
        if not isinstance(rows, SealedRows):
            return
        stored = self._on_disk[segment]
        index = self._write_index(stored.number, rows.file, gently, task)
        with self._publishing:
            self._check_running()
            self._replace_stored(segment, replace(self._on_disk[segment], index=index))
            indexed = SealedRows(self._settings.metric, rows.file, open_index(self._store, index))
            self._segments.reindex(segment, indexed)

    def _write_index(self, number: int, file: SegmentFile, gently: bool, task: Task) -> FileRef:
        settings = self._settings
        threads = max(1, self._threads // 2) if gently else self._threads
        index = HnswIndex(
            settings.dim, settings.metric, m=settings.m, ef_construction=settings.ef_construction,
            quantization="rabitq",
        )  # fmt: skip
        step, shown, left = self._step(gently), threading.Lock(), len(file)

        def build_step() -> None:
            nonlocal left
            step()
            with shown:
                rows = min(left, _ROWS_PER_STEP)
                left -= rows
                task.advance(rows)

        index.build(file.vectors, threads=threads, step=build_step)
        task.advance(left)
        return write_sections(
            self._store, f"segments/{number:010d}.index", index.arrays(), kind=INDEX_KIND,
            overwrite=True,
        )  # fmt: skip

    # Both

    def _write_data(
        self, number: int, segments: Sequence[Segment], kept: Sequence[Mask], step: Step
    ) -> tuple[SegmentFile | None, FileRef | None]:
        """Write the rows of segments that are kept into one file; None when there are none."""
        sources = [
            segment.rows.source(np.flatnonzero(mask), step)
            for segment, mask in zip(segments, kept, strict=True)
        ]
        if not any(len(source) for source in sources):
            return None, None
        name = f"segments/{number:010d}.data"
        ref = write_rows(self._store, name, sources, self._settings.dim, step=step)
        self._verify(segments)
        return SegmentFile.open(self._store, ref, verify=False), ref

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

    def _reserve_number(self) -> int:
        with self._publishing:
            self._reserved += 1
            return self._reserved

    def _publish(self, stored: StoredCollection) -> set[str]:
        """Make `stored` the collection's contents; return the files that it names no more."""
        dropped = self._stored.files - stored.files
        self._manifests.publish(stored.to_body())
        self._stored = stored
        return dropped

    def _discard(self, names: set[str]) -> None:
        """Delete files that the newest manifest does not name, once no manifest does."""
        self._manifests.prune(keep=1)
        self._holds.discard(names)

    def _delete(self, names: set[str]) -> None:
        for name in sorted(names - self._stored.files):
            self._store.delete(name)
        self._wal.drop_through(self._stored.applied_sequence)

    def _idle(self, seconds: float = IDLE_SECONDS) -> bool:
        return time.monotonic() - self._last_write > seconds

    def _step(self, gently: bool) -> Step:
        """Return what is called between two pieces of work."""

        def step() -> None:
            self._check_running()
            if gently:
                time.sleep(_REST_SECONDS)

        return step

    def _check_running(self) -> None:
        if self._stop.is_set():
            raise StoppedError("the collection is closing")
        self.check_whole()

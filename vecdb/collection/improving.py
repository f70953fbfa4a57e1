"""Towards few, indexed segments: graphs are built, and small or half-dead segments merged."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from vecdb.collection import policy
from vecdb.collection.draft import Draft
from vecdb.collection.progress import Progress, Task
from vecdb.collection.recovery import INDEX_KIND, open_index
from vecdb.collection.sealed import SealedRows
from vecdb.collection.segments import Segment, Segments
from vecdb.collection.settings import CollectionSettings
from vecdb.collection.snapshot import Mask
from vecdb.collection.stored import StoredSegment
from vecdb.collection.versions import Versions
from vecdb.index import HnswIndex
from vecdb.storage import FileRef, SegmentFile, Store, write_sections
from vecdb.types import WorkKind

_ROWS_PER_STEP = 5
"""Rows for each piece of work of which an index is built, calibration included: 4.7 to 5 were
counted on graphs of 5,000 to 20,000 rows and 32 to 384 dimensions."""

_WRITTEN_SHARE = 0.05
"""The part of the rows that is shown as gone over when the index has been written, too."""


class Improving:
    """Merges segments, one merge at a time, and builds their graphs, one at a time.

    Parameters
    ----------
    store, versions, segments, settings, progress
        Those of the collection.
    threads
        How many build a graph, half as many when they are to go gently.
    is_full
        Returns whether hardly any of the disk is left.
    """

    def __init__(
        self, store: Store, versions: Versions, segments: Segments, settings: CollectionSettings,
        progress: Progress, threads: int, is_full: Callable[[], bool],
    ) -> None:  # fmt: skip
        self._store = store
        self._versions = versions
        self._segments = segments
        self._settings = settings
        self._progress = progress
        self._threads = threads
        self._is_full = is_full
        self._merging = threading.Lock()
        self._indexing = threading.Lock()  # taken after _merging
        self._in_hand: set[Segment] = set()  # protected by the versions' lock

    def wait(self) -> None:
        """Wait until nothing is being merged or indexed."""
        with self._merging, self._indexing:
            pass

    def improve(self, *, eager: bool) -> bool:
        """Take the most useful step; return whether there was one.

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

    def merge(self, *, eager: bool) -> bool:
        """Merge what is worth it, gently; return whether anything was."""
        with self._merging:
            return self._merge_next(eager, gently=True)

    def index(self) -> bool:
        """Build one graph that is missing, gently; return whether one was."""
        with self._indexing:
            return self._index_next(gently=True)

    def to_index(self) -> list[Segment]:
        """Return the segments on disk that are large enough for a graph and have none."""
        return [
            segment
            for segment in self._versions.sealed()
            if not segment.rows.is_indexed and segment.rows.count >= policy.INDEXED_ROWS
        ]

    @contextmanager
    def _taken(self, choose: Callable[[], list[Segment]]) -> Iterator[list[Segment]]:
        """Choose segments, and let nobody else choose them for as long as the block runs."""
        with self._versions.lock:
            chosen = choose()
            self._in_hand.update(chosen)
        try:
            yield chosen
        finally:
            with self._versions.lock:
                self._in_hand.difference_update(chosen)

    def _merge_next(self, eager: bool, *, gently: bool) -> bool:
        self._versions.check_running()
        most, full = self._settings.segment_rows, self._is_full()

        def choose() -> list[Segment]:
            free = [s for s in self._versions.sealed() if s not in self._in_hand]
            return policy.to_merge(free, most, eager=eager, full=full)

        with self._taken(choose) as chosen:
            if chosen:
                rows = sum(segment.live for segment in chosen)
                passes = 2 if rows >= policy.INDEXED_ROWS else 1  # copied, and linked
                with self._progress.task(WorkKind.MERGE, rows, passes) as task:
                    self._merge(chosen, gently, task)
            return bool(chosen)

    def _index_next(self, *, gently: bool) -> bool:
        self._versions.check_running()

        def choose() -> list[Segment]:
            return [s for s in self.to_index() if s not in self._in_hand][:1]

        with self._taken(choose) as chosen:
            for segment in chosen:
                with self._progress.task(WorkKind.INDEX, segment.rows.count) as task:
                    self._build_index(segment, gently, task)
            return bool(chosen)

    def _merge(self, segments: Sequence[Segment], gently: bool, task: Task) -> None:
        with self._versions.draft() as draft:
            kept = [self._segments.alive_at(segment) for segment in segments]
            step = self._versions.step(gently=gently)
            file, data = self._versions.write_data(draft, segments, kept, step)
            task.advance(task.rows)
            rows = None
            if file is not None and data is not None:
                rows = SealedRows(self._settings.metric, file)
                if rows.count >= policy.INDEXED_ROWS:
                    index = self._write_index(draft, data.number, file, gently, task)
                    data = replace(data, index=index)
                    rows.index = open_index(self._store, index)
            with self._versions.lock:
                self._versions.check_running()
                self._publish_merged(draft, segments, kept, data, rows)

    def _publish_merged(
        self, draft: Draft, segments: Sequence[Segment], kept: Sequence[Mask],
        merged: StoredSegment | None, rows: SealedRows | None,
    ) -> None:  # fmt: skip
        versions = self._versions
        numbers = {versions.on_disk[segment].number for segment in segments}
        before = versions.stored.segments
        left = [s for s in before if s.number not in numbers]
        if merged is not None:
            # Rows that died while they were being copied: a seal may have let the WAL that says
            # so go, with tombstones for the old segments only.
            merged = draft.buried(merged, self._segments.alive_of(segments, kept))
            place = next(i for i, s in enumerate(before) if s.number in numbers)
            left.insert(place, merged)
        with versions.publishing(draft, versions.stored.with_segments(left)):
            segment = self._segments.replace(segments, rows, kept)
            for old in segments:
                del versions.on_disk[old]
            if segment is not None and merged is not None:
                versions.on_disk[segment] = merged

    def _build_index(self, segment: Segment, gently: bool, task: Task) -> None:
        rows = segment.rows
        if not isinstance(rows, SealedRows):
            return
        versions = self._versions
        with versions.draft() as draft:
            number = versions.on_disk[segment].number
            index = self._write_index(draft, number, rows.file, gently, task)
            indexed = SealedRows(self._settings.metric, rows.file, open_index(self._store, index))
            with versions.lock:
                versions.check_running()
                stored = replace(versions.on_disk[segment], index=index)
                versions.publish_segment(draft, segment, stored)
                self._segments.reindex(segment, indexed)

    def _write_index(
        self, draft: Draft, number: int, file: SegmentFile, gently: bool, task: Task
    ) -> FileRef:
        settings = self._settings
        threads = max(1, self._threads // 2) if gently else self._threads
        index = HnswIndex(
            settings.dim, settings.metric, m=settings.m, ef_construction=settings.ef_construction,
            quantization="rabitq",
        )  # fmt: skip
        step, shown, left = self._versions.step(gently=gently), threading.Lock(), len(file)
        to_write = math.ceil(_WRITTEN_SHARE * left)

        def build_step() -> None:
            nonlocal left
            step()
            with shown:
                rows = min(left - to_write, _ROWS_PER_STEP)
                left -= rows
                task.advance(rows)

        index.build(file.vectors, threads=threads, step=build_step)
        name = f"segments/{number:010d}.index"
        written = draft.add(
            write_sections(self._store, name, index.arrays(), kind=INDEX_KIND, overwrite=True)
        )
        task.advance(left)
        return written

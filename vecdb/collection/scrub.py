"""Reading files at rest again: damage is found while there is still something to mend it with.

A running database holds the truth about more than its files do: which rows are dead, and what the
log says since the last seal. So a damaged index is built again, tombstones and manifests are
written again, a damaged log is sealed away; only a segment's data has no second place, and is
quarantined. What is read comes through the operating system's cache: a page that is still in it is
compared there, and not on the platter.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from vecdb.collection.holds import StoppedError
from vecdb.collection.maintenance import Maintenance
from vecdb.collection.segments import Segment
from vecdb.collection.stored import StoredSegment
from vecdb.errors import (
    CorruptFileError,
    ReadOnlyError,
    StorageIOError,
    StoredFileNotFoundError,
)
from vecdb.storage import FileRef, Store, Wal, digest_of

_UNREADABLE = (CorruptFileError, StoredFileNotFoundError, StorageIOError)

_log = logging.getLogger(__name__)


class Throttle:
    """Lets so many bytes a second pass, and stops waiting when it is told to stop.

    Parameters
    ----------
    bytes_per_second
        How many, on average since the last pause.
    stop
        Set when whoever waits must give up.
    """

    def __init__(self, bytes_per_second: int, stop: threading.Event) -> None:
        self._rate = bytes_per_second
        self._stop = stop
        self._due = time.monotonic()

    def passed(self, count: int) -> None:
        """Wait until `count` more bytes are due.

        Raises
        ------
        StoppedError
        """
        now = time.monotonic()
        self._due = max(self._due, now) + count / self._rate
        if self._stop.wait(max(0.0, self._due - now)):
            raise StoppedError("the scrub was stopped")


@dataclass(slots=True)
class ScrubReport:
    """What a scrub of one collection found.

    Attributes
    ----------
    files, bytes
        How many were read.
    damage
        What was wrong, and what was done about it.
    """

    files: int = 0
    bytes: int = 0
    damage: list[str] = field(default_factory=list)


class Scrub:
    """One reading of all files of a collection.

    Parameters
    ----------
    store, maintenance, wal
        Those of the collection.
    throttle
        How fast it may go.
    """

    def __init__(
        self, store: Store, maintenance: Maintenance, wal: Wal, throttle: Throttle
    ) -> None:
        self._store = store
        self._maintenance = maintenance
        self._versions = maintenance.versions
        self._wal = wal
        self._throttle = throttle
        self._report = ScrubReport()

    def run(self) -> ScrubReport:
        """Read everything, and put right what can be.

        Raises
        ------
        StoppedError
            If the collection or the scrub was stopped.
        DiskFullError, StorageIOError
            If putting something right failed.
        """
        self._mend("", self._heal_manifest)
        for segment, stored in self._versions.sealed_files():
            self._segment(segment, stored)
        self._log_files()
        return self._report

    def _heal_manifest(self) -> None:
        for name in self._versions.heal_manifest():
            self._tell(f"{self._store.location(f'manifest/{name}')}: written again from its copy")

    def _segment(self, segment: Segment, stored: StoredSegment) -> None:
        reason = self._wrong(segment, stored.data)
        if reason is not None:
            self._versions.quarantine(segment, CorruptFileError(reason))
            self._tell(f"{reason}: segment {stored.number} is no longer served")
            return
        reason = None if stored.tombstones is None else self._wrong(segment, stored.tombstones)
        if reason is not None:
            self._mend(
                f"{reason}: written again from memory",
                lambda: self._versions.renew_tombstones(segment),
            )
        reason = None if stored.index is None else self._wrong(segment, stored.index)
        if reason is not None:
            self._versions.lose_index(segment)
            self._tell(f"{reason}: searched exactly until it is built again")

    def _mend(self, message: str, step: Callable[[], None]) -> None:
        try:
            step()
        except ReadOnlyError as error:  # another part is quarantined
            if message:
                self._tell(f"{message}: not yet, for {error}")
            return
        if message:
            self._tell(message)

    def _wrong(self, segment: Segment, ref: FileRef) -> str | None:
        """Return what is wrong with a file that still belongs to a segment."""
        where = self._store.location(ref.name)
        reason = None

        def passed(count: int) -> None:
            self._report.bytes += count
            self._throttle.passed(count)

        try:
            size = self._store.size(ref.name)
            digest = digest_of(self._store, ref.name, size, passed)
            self._report.files += 1
            if size != ref.size or digest != ref.sha256:
                reason = f"{where} is damaged: it is not the file that its manifest names"
        except _UNREADABLE as error:
            reason = str(error)
        if self._versions.is_stopped:
            raise StoppedError("the collection is closing")
        if reason is not None and not self._is_named(segment, ref):
            return None  # replaced or dropped while it was read
        return reason

    def _is_named(self, segment: Segment, ref: FileRef) -> bool:
        return any(s is segment and ref in e.files for s, e in self._versions.sealed_files())

    def _log_files(self) -> None:
        """Read the log; what it holds is in memory too, so a damaged one can be let go."""
        applied = self._versions.stored.applied_sequence
        try:
            for record in self._wal.replay(applied):
                self._report.bytes += len(record.body)
                self._throttle.passed(len(record.body))
        except _UNREADABLE as error:
            if self._versions.stored.applied_sequence != applied or self._versions.is_stopped:
                return  # sealed meanwhile, and its files are gone
            self._mend(f"{error}: what it held is sealed into segments", self._maintenance.seal)

    def _tell(self, message: str) -> None:
        _log.error("scrub: %s", message)
        self._report.damage.append(message)

"""The write-ahead log: what was acknowledged is in it before anyone is told so."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Self

from vecdb.errors import (
    ClosedError,
    CorruptFileError,
    DiskFullError,
    InvalidArgumentError,
    MessageTooLargeError,
    ReadOnlyError,
    ResourceExhaustedError,
    StorageIOError,
)
from vecdb.storage.base import AppendFile, Buffer, Store
from vecdb.storage.wal_file import (
    HEADER_BYTES,
    KIND_MARK,
    RECORD_BYTES_LIMIT,
    TornTail,
    WalFile,
    WalRecord,
    WalScan,
    cut_tail,
    encode_header,
    encode_record,
    end_name,
    file_name,
    first_seq_of,
    last_operation_of,
    new_tag,
    scan_last,
)

__all__ = ["FILE_BYTES", "TornTail", "Wal", "WalRecord", "wal_end", "wal_files"]

FILE_BYTES = 64 << 20
"""A file that has reached this length is followed by a new one."""


def wal_files(store: Store) -> list[int]:
    """Return the first sequence numbers of a store's log files, ascending."""
    return sorted(seq for name in store.list() if (seq := first_seq_of(name)) is not None)


def wal_end(store: Store) -> int | None:
    """Return the last operation of a log that was closed and not written to since, else None."""
    ends = [seq for name in store.list() if (seq := last_operation_of(name)) is not None]
    return max(ends, default=None)


class Wal:
    """A log of numbered records over several files, each named by its first record.

    Sequence numbers start at 1 and never skip or repeat. Every file but the last ends where the
    next one begins; whatever it holds beyond is ignored. The log ends at the last valid record of
    its last file. `write` and `rotate` may be called from one thread at a time, `sync` from any
    number: whoever comes first syncs for all that were written before.

    A record that was read back may never have been synced: its process may have died in between,
    or its sync may have failed, after which the kernel may show bytes that it will not write
    again. So `open` copies the records that nothing vouches for into a new file and makes that
    durable, before anyone can see them. A store that is not durable promises nothing of the kind:
    there they stay where they are, and no record vouches for what such a store wrote.

    A log that is closed leaves an empty file whose name is the number of its last operation, and
    takes it away before it is written to again. With it, a log that was cut short is told from one
    that ended there, and damage to a log whose operations are all in segments is no loss.
    """

    def __init__(self, store: Store, file_bytes: int) -> None:
        self._store = store
        self._file_bytes = file_bytes
        self._files: dict[int, int] = {}  # first sequence number: length in bytes
        self._active: AppendFile | None = None
        self._unopened: str | None = None  # the file to go on with, until something is written
        self._tag = b""
        self._written = 0
        self._synced = 0
        self._opened = 0
        self._proven = 0  # the last record that was durable for certain when this was opened
        self._kept: tuple[WalFile, WalScan] | None = None
        self._failed = False
        self._closed = False
        self._end: int | None = None  # the last operation, as the file of the last close says
        self._last_operation = 0
        self._obsolete: list[str] = []
        self.torn_tail: TornTail | None = None
        self._syncing = threading.Lock()  # one sync at a time; protects _active, _synced

    @classmethod
    def open(cls, store: Store, *, after_seq: int = 0, file_bytes: int = FILE_BYTES) -> Self:
        """Open the log of a store, and repair what a crash left of its end.

        Parameters
        ----------
        store
            A store with nothing else in it.
        after_seq
            The last sequence number that is known from elsewhere (the manifest); the next record
            gets a higher one even if the log is empty.
        file_bytes
            The length after which a new file is begun.

        Raises
        ------
        CorruptFileError
            If the last file is damaged other than by a crash.
        NewerFormatError
            If it was written by a newer vecdb.

        Notes
        -----
        `torn_tail` afterwards tells what was cut off: writes that were not acknowledged. A full
        disk does not keep the log from being opened; the first `write` then reports it.
        """
        wal = cls(store, file_bytes)
        try:
            wal._open(after_seq)
        except BaseException:
            wal.release()
            raise
        return wal

    def _open(self, after_seq: int) -> None:
        firsts = wal_files(self._store)
        self._files = {first: self._store.size(file_name(first)) for first in firsts}
        self._written = self._synced = self._opened = self._last_operation = after_seq
        self._proven = after_seq
        self._end = wal_end(self._store)
        needed = self._end is None or self._end > after_seq
        try:
            if firsts:
                self._recover(WalFile(self._store, file_name(firsts[-1])), after_seq)
            if not needed:
                for _ in self.replay(after_seq):
                    pass
        except CorruptFileError:
            if needed:
                raise
            self._start_over(after_seq)
        if self._end is not None and self._written < self._end:
            raise CorruptFileError(
                f"{self._store.location()} is damaged: the write-ahead log ends with record "
                f"{self._written}, and was closed after record {self._end}: it has been cut short; "
                "run `vecdb check`, or restore a backup"
            )

    def _start_over(self, after_seq: int) -> None:
        """Begin an empty log: the segments have everything that the damaged one held."""
        active, self._active, self._kept, self._unopened = self._active, None, None, None
        if active is not None:
            active.close()
        self._written = self._synced = self._opened = self._last_operation = after_seq
        self._proven = after_seq
        self._obsolete = [file_name(first) for first in sorted(self._files)]
        self._files = {}
        with suppress(DiskFullError):  # tried again at the first write
            self._begin_file()

    def _recover(self, last: WalFile, after_seq: int) -> None:
        scan = scan_last(last)
        self.torn_tail = scan.torn
        if scan.last_seq < after_seq:  # only weaker durability loses what a segment was made of
            return
        self._written = self._synced = self._opened = scan.last_seq
        self._last_operation = scan.last_operation
        self._proven = scan.proven_seq
        if scan.torn is not None or (scan.unproven and self._store.durable):
            self._kept = (last, scan)
            try:
                self._begin_file()
            except DiskFullError:
                return  # tried again at the first write
            self._let_go()
        else:
            self._unopened, self._tag = last.name, last.tag

    def _let_go(self) -> None:
        """Close a file that was just begun, until it is written to: there may be many logs."""
        active, self._active = self._active, None
        if active is not None:
            self._unopened = file_name(max(self._files))
            active.close()

    def replay(self, after_seq: int = 0) -> Iterator[WalRecord]:
        """Yield the records after number `after_seq`, in order.

        Raises
        ------
        CorruptFileError
            If a record is damaged or missing.
        """
        firsts = sorted(self._files)
        if not firsts:
            return
        last_seq = self._written
        expected = after_seq + 1
        for first, following in zip(firsts, [*firsts[1:], last_seq + 1], strict=True):
            if following <= expected:
                continue
            if first > expected:
                raise CorruptFileError(
                    f"{self._store.location()} is damaged: records {expected} to {first - 1} of "
                    "the write-ahead log are missing; restore them from a backup"
                )
            yield from self._replay_file(first, expected, following)
            expected = max(expected, following)

    def _replay_file(self, first: int, expected: int, following: int) -> Iterator[WalRecord]:
        file = WalFile(self._store, file_name(first))
        seq, end = first - 1, HEADER_BYTES
        for span in file.spans():
            if span.seq >= following:
                break
            seq, end = span.seq, span.end
            if seq >= expected and span.kind != KIND_MARK:
                yield file.record(span)
        if seq + 1 < following:
            raise file.damage(end, seq + 1, f"the log goes on until record {following - 1}")

    def append(self, records: Sequence[tuple[int, bytes]]) -> int:
        """`write`, then `sync`: the records are durable when this returns."""
        seq = self.write(records)
        self.sync(seq)
        return seq

    def write(self, records: Sequence[tuple[int, bytes]]) -> int:
        """Add records, as (kind from 1 to 255, body), with one write; return the last one's number.

        They are not durable before a `sync` of that number has returned. On an error none of them
        was added.

        Raises
        ------
        MessageTooLargeError
            If a body is longer than a record can be.
        DiskFullError
            If there is no room; the log takes further records once there is.
        ReadOnlyError
            If a write or a sync failed earlier.
        """
        for kind, body in records:
            if not KIND_MARK < kind < 256:
                raise InvalidArgumentError(f"record kind {kind}: must be from 1 to 255")
            if len(body) > RECORD_BYTES_LIMIT:
                raise MessageTooLargeError(
                    f"a batch takes {len(body)} bytes in the log; at most "
                    f"{RECORD_BYTES_LIMIT} are possible: split it"
                )
        self._check_usable()
        self._reopen()
        if self._unopened is not None:
            self._active, self._unopened = self._store.append(self._unopened), None
        full = self._active is not None and self._active.length >= self._file_bytes
        if self._active is None or (full and self._written >= max(self._files)):
            self._begin_file()
        last = self._write(records)
        self._last_operation = last
        return last

    def _reopen(self) -> None:
        """Take away what says that the log has ended, before it goes on."""
        if self._end is None:
            return
        try:
            self._store.delete(end_name(self._end))
        except StorageIOError:
            self._failed = True
            raise
        self._end = None

    def _write(self, records: Sequence[tuple[int, bytes]]) -> int:
        if self._active is None:
            raise ClosedError("the write-ahead log has no file open")
        buffers: list[Buffer] = []
        seq = self._written
        # Without durable syncs, only what was proven at the start is vouched for.
        synced = self._synced if self._store.durable else self._proven
        for kind, body in records:
            seq += 1
            buffers.append(encode_record(self._tag, seq, kind, synced, body))
            buffers.append(body)
        try:
            self._active.write(buffers)
        except StorageIOError:
            self._failed = True
            raise
        self._files[max(self._files)] = self._active.length
        self._written = seq
        return seq

    def sync(self, seq: int | None = None) -> None:
        """Return once record `seq`, or all that were written so far, are durable.

        Raises
        ------
        StorageIOError
            If that failed: these records are lost or not, and the log takes no more.
        """
        wanted = self._written if seq is None else seq
        if self._synced >= wanted:
            return
        with self._syncing:
            if self._synced >= wanted:
                return
            if self._active is None:
                raise ClosedError("the write-ahead log was closed before this write was durable")
            written = self._written  # read before the sync: it covers at least these
            try:
                self._active.sync()
            except StorageIOError:
                self._failed = True
                raise
            self._synced = written

    def rotate(self) -> None:
        """End the file being written, so that `drop_through` can delete it one day."""
        self._check_usable()
        if self._files and self._written >= max(self._files):
            self._begin_file()

    def _begin_file(self) -> None:
        """Make everything written durable and go on in a new file."""
        self.sync()
        first_seq, kept = self._written + 1, self._kept
        if kept is not None:
            first_seq = kept[1].proven_seq + 1
        name, tag = file_name(first_seq), new_tag()
        try:
            # A log whose last file holds nothing proven gets that file replaced.
            with self._store.create(name, overwrite=True) as writer:
                writer.write(encode_header(first_seq, tag))
                for span in kept[1].unproven if kept is not None else []:
                    body = kept[0].body(span) if kept is not None else b""
                    # The file of a durable store appears as a whole, so what is in it now
                    # vouches for itself.
                    synced = span.seq if self._store.durable else self._proven
                    writer.write(encode_record(tag, span.seq, span.kind, synced, body))
                    writer.write(body)
            active = self._store.append(name)
        except StorageIOError:
            self._failed = True
            raise
        with self._syncing:
            previous, self._active, self._unopened = self._active, active, None
        self._tag = tag
        self._files[first_seq] = active.length
        self._kept = None
        if previous is not None:
            previous.close()
        if kept is not None and kept[0].name != name:
            # Neither what the new file repeats nor the torn tail would be read again.
            cut_tail(self._store, kept[0].name, kept[1].proven_end)
            self._files[kept[0].first_seq] = kept[1].proven_end
        for old in self._obsolete:
            if old != name:
                self._store.delete(old)
        self._obsolete = []

    def drop_through(self, seq: int) -> None:
        """Delete the files whose records all have numbers up to `seq`, but never the last file."""
        firsts = sorted(self._files)
        for first, following in itertools.pairwise(firsts):
            if following - 1 > seq:
                return
            # Oldest first and each durable: what is left after a crash has no gap.
            self._store.delete(file_name(first))
            del self._files[first]

    def settle(self) -> None:
        """Make the end of the log, as a crash left it, durable now, if `open` could not.

        Files are afterwards only appended to, and deleted by `drop_through`.

        Raises
        ------
        DiskFullError
            If there is still no room.
        ReadOnlyError
            If a write failed earlier.
        """
        if self._kept is not None:
            self._check_usable()
            self._begin_file()

    def extents(self, after_seq: int, through_seq: int) -> list[tuple[str, int]]:
        """Return which files, and how many bytes of each, hold the records after one to another.

        Both numbers are of records that were written; `drop_through` must not run meanwhile. A log
        of just these files, cut to these lengths, is one that ends with record `through_seq`.

        Raises
        ------
        CorruptFileError
            If a record of the last of these files is damaged.
        """
        found: list[tuple[str, int]] = []
        if through_seq <= after_seq:
            return found
        firsts = sorted(self._files)
        for first, following in zip(firsts, [*firsts[1:], None], strict=True):
            if first > through_seq:
                break
            if following is None or following > through_seq + 1:
                found.append((file_name(first), self._end_of(first, through_seq)))
            elif following > after_seq + 1:
                found.append((file_name(first), self._files[first]))
        return found

    def _end_of(self, first: int, seq: int) -> int:
        """Return where record `seq` ends in the file that begins with record `first`."""
        file = WalFile(self._store, file_name(first))
        end, last = HEADER_BYTES, first - 1
        for span in file.spans():
            end, last = span.end, span.seq
            if last == seq:
                return end
        raise file.damage(end, last + 1, f"record {seq} was written")

    @property
    def last_seq(self) -> int:
        """The number of the last record written."""
        return self._written

    @property
    def size_bytes(self) -> int:
        """The length of all files together."""
        return sum(list(self._files.values()))  # at once: a writer may be adding a file

    def close(self) -> None:
        """Make everything durable and let go of the files; a second call does nothing.

        A last record vouches for all others, so that damage to any of them is told from a crash.
        """
        if self._closed:
            return
        try:
            if self._active is not None and not self._failed and self._written > self._opened:
                self.sync()
                with suppress(ResourceExhaustedError):
                    self._write([(KIND_MARK, b"")])
                    self.sync()
            there = self._active is not None or self._unopened is not None
            if there and not self._failed and self._end is None:
                with suppress(ResourceExhaustedError):
                    self._store.put(end_name(self._last_operation), b"", overwrite=True)
        finally:
            self.release()

    def release(self) -> None:
        """Let go of the files as they are, as when the collection could not be opened."""
        self._closed = True
        with self._syncing:
            active, self._active = self._active, None
        if active is not None:
            active.close()

    def _check_usable(self) -> None:
        if self._closed:
            raise ClosedError("the write-ahead log was closed before this write")
        if self._failed:
            raise ReadOnlyError(
                f"the write-ahead log in {self._store.location()} takes no writes since a write to "
                "the disk failed; mend the disk and open the data directory again"
            )

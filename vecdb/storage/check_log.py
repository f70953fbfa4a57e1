"""The log of one collection: what of it can be read, and cutting it where it cannot.

A log is a prefix: after a record that is damaged, later ones cannot be applied without it. To go
on without them is a loss of acknowledged writes, so it is done only when it is asked for by name.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from vecdb.errors import (
    CorruptFileError,
    StorageIOError,
    StoredFileNotFoundError,
    VecdbError,
)
from vecdb.storage.base import Store
from vecdb.storage.manifest import ManifestLog
from vecdb.storage.operations import Upsert, decode_operation
from vecdb.storage.quarantine import free_name, give_up, keep_ids
from vecdb.storage.wal import wal_end, wal_files
from vecdb.storage.wal_file import (
    HEADER_BYTES,
    KIND_MARK,
    RecordSpan,
    TornTail,
    WalFile,
    cut_tail,
    end_name,
    file_name,
    scan_last,
)
from vecdb.types import PointId

WAL = "wal"

_UNREADABLE = (CorruptFileError, StoredFileNotFoundError, StorageIOError)


@dataclass(frozen=True, slots=True)
class LogDamage:
    """The first record of a log that should be there and is not.

    Attributes
    ----------
    seq
        Its number.
    file
        The file that it should be in, relative to the collection; None when no file is wrong,
        and the log only ends too early.
    end
        The offset in that file up to which it can be read; None when nothing of it can.
    reason
        What is wrong.
    """

    seq: int
    file: str | None
    end: int | None
    reason: str


@dataclass(frozen=True, slots=True)
class LogState:
    """What reading a log found.

    Attributes
    ----------
    files
        Its files, relative to the collection.
    damage
        The first damage; what comes after it is of no use without it.
    torn
        What a crash left at its end.
    needed
        Whether any operation of it is not in a segment, so that damage is a loss.
    """

    files: list[str]
    damage: LogDamage | None
    torn: TornTail | None
    needed: bool


def read_log(store: Store, applied: int) -> LogState:
    """Read every record of the log in a collection's store.

    Parameters
    ----------
    applied
        Operations up to this number are in segments.

    Raises
    ------
    NewerFormatError
        If it was written by a newer vecdb.
    """
    wal = store.within(WAL)
    firsts = wal_files(wal)
    end = wal_end(wal)
    expected, reached, torn = applied + 1, applied, None
    damage: LogDamage | None = None
    for first, following in zip(firsts, [*firsts[1:], None][: len(firsts)], strict=True):
        file = f"{WAL}/{file_name(first)}"
        if first > expected:
            missing = f"records {expected} to {first - 1} of {wal.location()} are missing"
            damage = damage or LogDamage(expected, file, None, missing)
        reached, torn, found = _read_file(wal, first, following, applied)
        damage = damage or found
        expected = max(expected, following or 0)
    if damage is None and end is not None and end > max(applied, reached):
        reason = (
            f"{wal.location()} ends with record {reached} and was closed after record {end}: it "
            "has been cut short"
        )
        damage = LogDamage(max(reached, applied) + 1, None, None, reason)
    files = [f"{WAL}/{file_name(first)}" for first in firsts]
    return LogState(files, damage, torn, needed=end is None or end > applied)


def _read_file(
    store: Store, first: int, following: int | None, applied: int
) -> tuple[int, TornTail | None, LogDamage | None]:
    """Read one file; return its last valid record's number, its torn end and its damage."""
    last, end = first - 1, None
    torn = None
    file = f"{WAL}/{file_name(first)}"
    try:
        wal = WalFile(store, file_name(first))
        end = HEADER_BYTES
        for span in wal.spans():
            if following is not None and span.seq >= following:
                break
            if span.kind != KIND_MARK and span.seq > applied:
                record = wal.record(span)
                decode_operation(record.kind, record.body, record.where)
            last, end = span.seq, span.end
        if following is None:
            torn = scan_last(wal).torn
        elif last + 1 < following:
            raise wal.damage(end, last + 1, f"the log goes on until record {following - 1}")
    except _UNREADABLE as error:
        return last, None, LogDamage(last + 1, file, end, str(error))
    return last, torn, None


def cut_log(store: Store, manifests: ManifestLog, state: LogState, damage: LogDamage) -> str:
    """Give up the log from `damage` on, its files set aside; return what was lost, in words.

    What was lost stands in the manifest before anything of the log is moved or cut.
    """
    first = state.files.index(damage.file) if damage.file is not None else len(state.files)
    later = state.files[first + 1 :]
    kept: list[str] = []
    if damage.file is not None and damage.end is None:
        later = state.files[first:]
    elif damage.file is not None:
        kept.append(free_name(store, damage.file))
        store.put(kept[0], store.read(damage.file))
    moves = [(name, free_name(store, name)) for name in later]
    ids, readable, writes, last = _lost(store, state.files[first:], damage)
    if ids:
        kept.append(keep_ids(store, f"log-{damage.seq}.ids", ids))
    end = wal_end(store.within(WAL))
    last = max(last, end or 0, damage.seq)
    files = [*kept, *(target for _, target in moves)]
    lost = last - damage.seq + 1
    give_up(
        manifests,
        [
            {
                "part": f"log from record {damage.seq}",
                "files": files,
                "reason": damage.reason,
                "points": lost,
            }
        ],
    )
    if end is not None:
        store.delete(f"{WAL}/{end_name(end)}")
    for name, target in reversed(moves):  # what is left has no gap
        store.move(name, target)
    if damage.file is not None and damage.end is not None:
        cut_tail(store, damage.file, damage.end)
    told = f"; {writes} writes of {readable} points in it can be read" if writes else ""
    listed = f", their ids are in {store.location(kept[-1])}" if ids else ""
    return (
        f"the log is cut before record {damage.seq} ({damage.reason}): records {damage.seq} to "
        f"{last}, {lost} in all, are given up{told}{listed}; its files are in "
        f"{store.location('quarantine')}"
    )


def _lost(
    store: Store, files: Sequence[str], damage: LogDamage
) -> tuple[list[PointId], int, int, int]:
    """Return the ids in records after the damage that can be read, and how many of each."""
    ids: dict[PointId, None] = {}
    points = writes = 0
    last = 0
    for file in files:
        with suppress(VecdbError):
            wal = WalFile(store.within(WAL), file.rpartition("/")[2])
            last = max(last, wal.first_seq - 1)
            for span in _records(wal, damage.seq):
                if span.kind == KIND_MARK:
                    continue
                last = max(last, span.seq)
                record = wal.record(span)
                with suppress(CorruptFileError):
                    operation = decode_operation(record.kind, record.body, record.where)
                    ids.update(dict.fromkeys(operation.ids))
                    if isinstance(operation, Upsert):
                        ids.update(dict.fromkeys(operation.deleted))
                        points += len(operation.ids)
                    writes += 1
    return list(ids), points, writes, last


def _records(wal: WalFile, seq: int) -> Iterator[RecordSpan]:
    """Yield the valid records from `seq` on, wherever they are."""
    return (span for span in wal.records_after(HEADER_BYTES - 1) if span.seq >= seq)

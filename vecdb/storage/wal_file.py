"""One file of the write-ahead log: its header, its records, and telling a torn end from damage.

The layout is that of ``FORMAT.md``, "Write-ahead log". Every record says which sequence number
was durable when it was written (`synced`). That decides what an invalid record means: when a
later record vouches for it, it was acknowledged and is damaged; when none does, a crash cut the
last writes short, and nobody was promised them.
"""

from __future__ import annotations

import secrets
import struct
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vecdb.errors import CorruptFileError
from vecdb.storage.base import Store
from vecdb.storage.crc import crc32c
from vecdb.storage.prologue import PROLOGUE_BYTES, check_prologue, prologue

MAGIC = b"VECDBWAL"
VERSION = 1
RECORD_BYTES_LIMIT = 1 << 30
KIND_MARK = 0
"""A record without a body whose `synced` vouches for all before it; written at a clean close."""

TAG_BYTES = 4
_POSITION = struct.Struct("<Q4s")  # first sequence number, tag
_CRC = struct.Struct("<I")
HEADER_BYTES = PROLOGUE_BYTES + _POSITION.size + _CRC.size
_RECORD = struct.Struct("<4sIB3xQQ")  # tag, body length, kind, sequence number, synced
RECORD_HEADER_BYTES = _CRC.size + _RECORD.size
_SUFFIX = ".wal"
_END_SUFFIX = ".end"
_NAME_DIGITS = 20


@dataclass(frozen=True, slots=True)
class WalRecord:
    """A record that was read: its sequence number, kind and body, and where it lies."""

    seq: int
    kind: int
    body: bytes
    where: str


@dataclass(frozen=True, slots=True)
class RecordSpan:
    """Where a valid record lies in its file."""

    seq: int
    kind: int
    synced: int
    start: int
    end: int

    @property
    def body_start(self) -> int:
        """The offset of the body."""
        return self.start + RECORD_HEADER_BYTES


@dataclass(frozen=True, slots=True)
class TornTail:
    """Unacknowledged bytes that a crash left at the end of the log."""

    where: str
    offset: int
    length: int


def file_name(first_seq: int) -> str:
    """Return the name of the log file whose first record is to be `first_seq`."""
    return f"{first_seq:0{_NAME_DIGITS}d}{_SUFFIX}"


def first_seq_of(name: str) -> int | None:
    """Return the sequence number in a log file's name, or None for any other file's."""
    digits = name.removesuffix(_SUFFIX)
    if len(digits) != _NAME_DIGITS or not digits.isascii() or not digits.isdigit():
        return None
    first_seq = int(digits)
    return first_seq if name == file_name(first_seq) else None


def end_name(last_operation: int) -> str:
    """Return the name of the empty file that says which operation a closed log ends with."""
    return f"{last_operation:0{_NAME_DIGITS}d}{_END_SUFFIX}"


def last_operation_of(name: str) -> int | None:
    """Return the sequence number in the name of an end file, or None for any other file's."""
    digits = name.removesuffix(_END_SUFFIX)
    if len(digits) != _NAME_DIGITS or not digits.isascii() or not digits.isdigit():
        return None
    return int(digits) if name == end_name(int(digits)) else None


def new_tag() -> bytes:
    """Return the random mark of one file, by which its records are known from all other bytes."""
    return secrets.token_bytes(TAG_BYTES)


def encode_header(first_seq: int, tag: bytes) -> bytes:
    """Return the first bytes of a log file."""
    header = prologue(MAGIC, VERSION) + _POSITION.pack(first_seq, tag)
    return header + _CRC.pack(crc32c(header))


def encode_record(tag: bytes, seq: int, kind: int, synced: int, body: bytes) -> bytes:
    """Return the header of a record; its body follows it in the file."""
    packed = _RECORD.pack(tag, len(body), kind, seq, synced)
    return _CRC.pack(crc32c(body, crc32c(packed))) + packed


class WalFile:
    """One log file as it lies on the disk, mapped to be read.

    Raises
    ------
    CorruptFileError
        If the header is damaged, or names another first record than the file's name does.
    NewerFormatError
        If it was written by a newer vecdb.
    """

    def __init__(self, store: Store, name: str) -> None:
        self.name = name
        self.where = store.location(name)
        self._data: NDArray[np.uint8] = store.map(name)
        store.fault_in(name, self._data)
        header = self._data[:HEADER_BYTES].tobytes()
        check_prologue(header, MAGIC, VERSION, where=self.where, what="a write-ahead log file")
        if len(header) < HEADER_BYTES:
            raise CorruptFileError(f"{self.where} is damaged: its header is cut off")
        (crc,) = _CRC.unpack_from(header, HEADER_BYTES - _CRC.size)
        if crc != crc32c(header[: -_CRC.size]):
            raise CorruptFileError(
                f"{self.where} is damaged at offset {PROLOGUE_BYTES}: wrong checksum of its header"
            )
        position: tuple[int, bytes] = _POSITION.unpack_from(header, PROLOGUE_BYTES)
        self.first_seq, self.tag = position
        if self.first_seq != first_seq_of(name):
            raise CorruptFileError(
                f"{self.where} is damaged or renamed: its header says that it begins with record "
                f"{self.first_seq}"
            )

    @property
    def length(self) -> int:
        """The length of the file in bytes."""
        return int(self._data.size)

    def spans(self) -> Iterator[RecordSpan]:
        """Yield the valid records from the first on, up to the first that is not valid."""
        offset, seq = HEADER_BYTES, self.first_seq
        while (span := self._span_at(offset)) is not None and span.seq == seq:
            yield span
            offset, seq = span.end, seq + 1

    def body(self, span: RecordSpan) -> bytes:
        """Return a copy of a record's body."""
        return self._data[span.body_start : span.end].tobytes()

    def record(self, span: RecordSpan) -> WalRecord:
        """Return a record with its body."""
        where = f"{self.where}, record {span.seq} at offset {span.start}"
        return WalRecord(span.seq, span.kind, self.body(span), where)

    def vouched_after(self, offset: int, seq: int) -> RecordSpan | None:
        """Return a valid record beyond `offset` that says record `seq` was durable, if any."""
        found = self.records_after(offset)
        return next((span for span in found if span.seq > seq and span.synced >= seq), None)

    def records_after(self, offset: int) -> Iterator[RecordSpan]:
        """Yield the valid records that begin beyond `offset`, whatever lies between them."""
        rest = self._data[offset:].tobytes()
        found = rest.find(self.tag, 1 + _CRC.size)
        while found >= 0:
            span = self._span_at(offset + found - _CRC.size)
            if span is not None:
                yield span
            found = rest.find(self.tag, found + 1)

    def damage(self, offset: int, seq: int, evidence: str) -> CorruptFileError:
        """Return the error for record `seq`, which should be at `offset` and is not valid."""
        return CorruptFileError(
            f"{self.where} is damaged at offset {offset}: record {seq} is not valid although "
            f"{evidence}; run `vecdb check` to see what is still readable and "
            "`vecdb check --repair` for what can be repaired, or restore a backup"
        )

    def _span_at(self, offset: int) -> RecordSpan | None:
        """Return the record at `offset` if it is whole and its checksum agrees."""
        body_start = offset + RECORD_HEADER_BYTES
        if body_start > self._data.size:
            return None
        header = self._data[offset:body_start].tobytes()
        tag, length, kind, seq, synced = _RECORD.unpack_from(header, _CRC.size)
        end = body_start + length
        if tag != self.tag or length > RECORD_BYTES_LIMIT or end > self._data.size:
            return None
        crc = crc32c(self._data[body_start:end], crc32c(header[_CRC.size :]))
        if (crc,) != _CRC.unpack_from(header):
            return None
        return RecordSpan(seq, kind, synced, offset, end)


@dataclass(frozen=True, slots=True)
class WalScan:
    """What the last file of a log holds.

    Attributes
    ----------
    last_seq
        The last valid record's number; one less than the file's first when there is none.
    last_operation
        The last valid record that is not a mark; one less than the file's first likewise.
    proven_seq
        The last record that another one vouches for. Those after it may so far be only in the
        operating system's memory: written, but without the sync that was to follow.
    unproven
        The valid records after it.
    proven_end, valid_end
        The offsets at which the proven and the valid records end.
    torn
        What follows the valid records, if anything does.
    """

    last_seq: int
    last_operation: int
    proven_seq: int
    unproven: list[RecordSpan]
    proven_end: int
    valid_end: int
    torn: TornTail | None


def scan_last(file: WalFile) -> WalScan:
    """Read the last file of a log to its end.

    Raises
    ------
    CorruptFileError
        If an invalid record is followed by one that says it was durable.
    """
    spans = list(file.spans())
    last_seq = spans[-1].seq if spans else file.first_seq - 1
    proven_seq = max((span.synced for span in spans), default=file.first_seq - 1)
    proven_seq = min(max(proven_seq, file.first_seq - 1), last_seq)
    proven = proven_seq - file.first_seq + 1
    operations = [span.seq for span in spans if span.kind != KIND_MARK]
    valid_end = spans[-1].end if spans else HEADER_BYTES
    torn = None
    if valid_end < file.length:
        witness = file.vouched_after(valid_end, last_seq + 1)
        if witness is not None:
            raise file.damage(
                valid_end, last_seq + 1, f"record {witness.seq} at offset {witness.start} is"
            )
        torn = TornTail(file.where, valid_end, file.length - valid_end)
    return WalScan(
        last_seq=last_seq,
        last_operation=operations[-1] if operations else file.first_seq - 1,
        proven_seq=proven_seq,
        unproven=spans[proven:],
        proven_end=spans[proven - 1].end if proven else HEADER_BYTES,
        valid_end=valid_end,
        torn=torn,
    )


def cut_tail(store: Store, name: str, length: int) -> None:
    """Cut a log file to `length` bytes, durably."""
    ending = store.append(name)
    try:
        ending.truncate(length)
        ending.sync()
    finally:
        ending.close()

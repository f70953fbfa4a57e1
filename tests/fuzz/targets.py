"""What is fuzzed: every decoder of stored bytes, alone, each a function of bytes.

A target may raise what `ALLOWED` names and nothing else; what it accepts must encode to the same
bytes again, where the format has one form only, and everything in it must be readable. The
``signed`` targets put right checksums and digests around what they are given, so that the fuzzer
gets behind them: checksums find damage, and not malice.
"""

from __future__ import annotations

import json
import struct
import tracemalloc
from collections.abc import Callable, Sequence
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

from tests.storage.faulty import ROOT, SimulatedDisk
from vecdb.collection.settings import CollectionSettings
from vecdb.collection.stored import StoredCollection
from vecdb.errors import (
    CorruptFileError,
    InvalidFilterError,
    InvalidPayloadError,
    NewerFormatError,
)
from vecdb.index import HnswIndex
from vecdb.payload import decode_payload, decode_payloads, encode_payload, parse_filter
from vecdb.storage import (
    FileRef,
    PosixStore,
    SegmentFile,
    Wal,
    decode_operation,
    encode_operation,
    open_sections,
    read_tombstones,
)
from vecdb.storage.backup import CollectionBackup
from vecdb.storage.check_log import read_log
from vecdb.storage.crc import crc32c
from vecdb.storage.manifest import decode_manifest, encode_manifest
from vecdb.storage.prologue import prologue
from vecdb.storage.quarantine import lost_ids
from vecdb.storage.sections import MAGIC, VERSION
from vecdb.storage.wal_file import WalFile, encode_header, encode_record, file_name, scan_last

ALLOWED = (CorruptFileError, NewerFormatError, InvalidPayloadError, InvalidFilterError)
Target = Callable[[bytes], None]

SPARE_BYTES = 4 << 20
"""What a decoder may allocate whatever it is given."""
BYTES_PER_BYTE = 64
"""What it may allocate for each byte of its input: Python objects for a bit, at worst."""
_LOG = file_name(1)
_TAG = b"\x01\x02\x03\x04"


class InMemory(PosixStore):
    """A store whose one file is what is fuzzed."""

    def __init__(self, name: str, data: bytes) -> None:
        self.disk = SimulatedDisk()
        super().__init__(ROOT, calls=self.disk)
        self.put(name, b"")
        self.disk.corrupt(ROOT / name, lambda _: data)


def wal(data: bytes) -> None:
    """Read a log file, then open it as the last of a log, and go on with it."""
    store = InMemory("wal/" + _LOG, data)
    for applied in (0, 2):
        read_log(store, applied)
    inner = store.within("wal")
    file = WalFile(inner, _LOG)
    found = [file.record(span) for span in file.spans()]
    assert [record.seq for record in found] == list(range(1, len(found) + 1))
    assert sum(len(record.body) for record in found) <= len(data)
    scan_last(file)
    log = Wal.open(inner)
    assert [(r.seq, r.body) for r in log.replay()] == [(r.seq, r.body) for r in found if r.kind]
    log.append([(1, b"more")])
    log.close()


def signed_wal(data: bytes) -> None:
    """Read a log of records with right checksums, made from pieces of the input."""
    file = bytearray(encode_header(1, _TAG))
    offset = seq = 0
    while offset + 4 <= len(data):
        kind, step, synced, length = data[offset : offset + 4]
        body = data[offset + 4 : offset + 4 + length]
        offset += 4 + length
        seq = max(0, seq + (step if step < 3 else 1))
        file += encode_record(_TAG, seq, kind % 4, synced, body) + body
    wal(bytes(file) + data[offset:])


def operation(data: bytes) -> None:
    """Decode the body of a record; what is accepted has one form."""
    kind = 1 + data[0] % 4 if data else 1
    decoded = decode_operation(kind, data[1:], "here")
    assert encode_operation(decoded) == (kind, data[1:])


def sections(data: bytes) -> None:
    """Open a sections file and read every array."""
    opened = open_sections(InMemory("x", data), "x", kind=None)
    assert sum(array.nbytes for array in opened.values()) <= len(data)


def signed_sections(data: bytes) -> None:
    """Open the same with right checksums around a table that is the input."""
    sections(sign_sections(data))


def sign_sections(data: bytes) -> bytes:
    """Return a sections file: the length of a table, the table, and what comes before it."""
    if len(data) < 2:
        return b""
    (length,) = struct.unpack_from("<H", data)
    table, body = data[2 : 2 + length], data[2 + length :]
    file = prologue(MAGIC, VERSION) + bytes(48) + body
    file += bytes(-len(file) % 64)
    offset = len(file)
    trailer = struct.pack("<QQII", offset + len(table) + 32, offset, len(table), crc32c(table))
    return file + table + trailer + struct.pack("<I4s", crc32c(trailer), b"END\n")


def segment(data: bytes) -> None:
    """Open a segment and read everything in it."""
    store = InMemory("x", data)
    ref = FileRef("x", len(data), "0" * 64)
    lost_ids(store, ref, None)
    opened = SegmentFile.open(store, ref)
    rows = np.arange(len(opened))
    ids = opened.ids_at(rows)
    assert ids == [opened.id_at(row) for row in range(len(opened))]
    opened.rows_of([1, "a", *ids[:5]] if len(set(ids[:5]) | {1, "a"}) == len(ids[:5]) + 2 else [1])
    assert opened.texts_at(rows) == [opened.text_at(row) for row in range(len(opened))]
    opened.payloads_at(rows)
    np.asarray(opened.vectors).tobytes()


def signed_segment(data: bytes) -> None:
    """Open a segment whose section lengths, dtypes and contents come from the input."""
    segment(_signed_arrays(data, "segment", _SEGMENT_SECTIONS, {"rows": data[0] if data else 0}))


def tombstones(data: bytes) -> None:
    """Read tombstones of a segment of 20 rows."""
    dead = read_tombstones(InMemory("x", data), FileRef("x", len(data), "0" * 64), 20)
    assert dead.shape == (20,)


def hnsw(data: bytes) -> None:
    """Open an index, and search it when it is accepted."""
    index = HnswIndex.from_arrays(open_sections(InMemory("x", data), "x", kind=None))
    if index.row_count:
        ids, _ = index.search(np.ones((1, index.dim), np.float32), k=3)
        assert ids.shape == (1, 3)
        assert ((ids >= -1) & (ids < index.row_count)).all()


def manifest(data: bytes) -> None:
    """Decode a manifest; what is accepted has one digest."""
    decode_manifest(7, data, where="here")


def signed_manifest(data: bytes) -> None:
    """Decode what stands in manifests: of a catalog, a collection and a backup."""
    try:
        body = json.loads(data)
        encoded = encode_manifest(7, body)
    except (ValueError, RecursionError):
        return
    found = decode_manifest(7, encoded, where="here").body
    assert found == body
    stored = StoredCollection.from_body(found, "here")
    assert StoredCollection.from_body(stored.to_body(), "here") == stored


def settings(data: bytes) -> None:
    """Read a collection's settings."""
    try:
        body = json.loads(data)
    except (ValueError, RecursionError):
        return
    if isinstance(body, dict):
        found = CollectionSettings.from_json(body, "here")
        assert CollectionSettings.from_json(found.to_json(), "here") == found


def backup(data: bytes) -> None:
    """Read what a backup says of a collection."""
    try:
        body = json.loads(data)
    except (ValueError, RecursionError):
        return
    try:
        found = CollectionBackup.from_json(body)
    except (ValueError, TypeError, KeyError):  # its caller makes one error of these
        return
    assert all(".." not in ref.name and not ref.name.startswith("/") for ref in found.files)


def payload(data: bytes) -> None:
    """Decode payloads, one by one and together."""
    parts: Sequence[bytes | None] = [part or None for part in data.split(b"\x00")]
    together: object
    try:
        together = decode_payloads(parts)
    except InvalidPayloadError:
        together = None
    alone = [None if part is None else decode_payload(part) for part in parts]
    assert repr(together) == repr(alone)
    for part in alone:
        if part is not None:
            try:
                encoded = encode_payload(part)
            except InvalidPayloadError:  # deeper or larger than what can be written
                continue
            assert repr(decode_payload(encoded)) == repr(part)


def filters(data: bytes) -> None:
    """Parse a filter, and judge a payload by it."""
    try:
        conditions = json.loads(data)
    except (ValueError, RecursionError):
        return
    if isinstance(conditions, dict):
        predicate = parse_filter(conditions)
        for judged in (None, {}, {"a": 1, "b": {"c": [1, "x", None]}}, conditions):
            assert predicate.matches(judged) in (True, False)


_SEGMENT_SECTIONS = [
    "vectors", "id_values", "int_keys", "int_rows", "str_keys", "str_rows", "id_present",
    "id_offsets", "id_bytes", "text_present", "text_offsets", "text_bytes", "payload_present",
    "payload_offsets", "payload_bytes",
]  # fmt: skip
_DTYPES = ["<f4", "<u8", "<u4", "|u1", "<i8"]


def _signed_arrays(data: bytes, kind: str, names: Sequence[str], meta: dict[str, int]) -> bytes:
    """Return a sections file with sections whose dtypes and contents come from the input."""
    taken: list[tuple[str, NDArray[np.uint8], str, list[int]]] = []
    offset = 1
    for name in names:
        if offset + 3 > len(data):
            break
        dtype, count, columns = data[offset : offset + 3]
        offset += 3
        code = _DTYPES[dtype % len(_DTYPES)]
        shape = [count % 16, columns % 4] if dtype >= 128 else [count % 64]
        length = int(np.prod(shape)) * np.dtype(code).itemsize
        raw = np.frombuffer(data[offset : offset + length].ljust(length, b"\0"), np.uint8)
        offset += length
        if dtype % 16 != 15:  # left out
            taken.append((name, raw, code, shape))
    file = bytearray(prologue(MAGIC, VERSION) + bytes(48))
    table = []
    for name, raw, code, shape in taken:
        file += bytes(-len(file) % 64)
        table.append(
            {"name": name, "dtype": code, "shape": shape, "offset": len(file),
             "length": raw.nbytes, "crc32c": crc32c(raw)}
        )  # fmt: skip
        file += raw.tobytes()
    described = json.dumps({"kind": kind, "meta": meta, "sections": table}).encode()
    file += bytes(-len(file) % 64)
    end = len(file)
    trailer = struct.pack(
        "<QQII", end + len(described) + 32, end, len(described), crc32c(described)
    )
    return bytes(file) + described + trailer + struct.pack("<I4s", crc32c(trailer), b"END\n")


TARGETS: dict[str, Target] = {
    target.__name__: target
    for target in (
        wal, signed_wal, operation, sections, signed_sections, segment, signed_segment, tombstones,
        hnsw, manifest, signed_manifest, settings, backup, payload, filters,
    )
}  # fmt: skip


def run(target: Target, data: bytes) -> None:
    """Run a target, and check that it allocates in proportion to what it is given.

    Raises
    ------
    AssertionError, Exception
        A finding.
    """
    if not tracemalloc.is_tracing():
        tracemalloc.start()
    tracemalloc.reset_peak()
    before, _ = tracemalloc.get_traced_memory()
    with suppress(*ALLOWED):
        target(data)
    _, peak = tracemalloc.get_traced_memory()
    limit = SPARE_BYTES + BYTES_PER_BYTE * len(data)
    assert peak - before <= limit, f"{peak - before} bytes for an input of {len(data)}"

"""What the bodies of write-ahead log records say: points written, points deleted, or both.

The layouts are those of ``FORMAT.md``, "Operations". One record holds one batch, so a batch is
there as a whole or not at all.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vecdb.errors import CorruptFileError, LengthMismatchError, NewerFormatError
from vecdb.storage.ids import IdBatch
from vecdb.types import Matrix, PointId

KIND_UPSERT = 1
KIND_DELETE = 2
KIND_REPLACE = 3

_HEADER = struct.Struct("<IIII")  # rows, dim, flags, zero
_TEXTS = 1
_PAYLOADS = 2
_ABSENT = 0xFFFFFFFF


@dataclass(frozen=True, slots=True, eq=False)
class Upsert:
    """Points to write, in parallel; the payloads as the UTF-8 of JSON objects.

    Those `deleted` go in the same step; one that is in `ids` too is written.
    """

    ids: Sequence[PointId]
    vectors: Matrix
    texts: Sequence[str | None] | None = None
    payloads: Sequence[bytes | None] | None = None
    deleted: Sequence[PointId] = ()


@dataclass(frozen=True, slots=True)
class Delete:
    """Points to delete."""

    ids: Sequence[PointId]


Operation = Upsert | Delete


def encode_operation(operation: Operation) -> tuple[int, bytes]:
    """Return the kind and body of the record, as `Wal.append` takes them.

    Raises
    ------
    LengthMismatchError
        If the columns of an upsert differ in length.
    InvalidIdError
        If an id is neither an int in [0, 2**64) nor a str.
    """
    if isinstance(operation, Delete):
        return KIND_DELETE, b"".join(_encode_delete(operation.ids))
    keys, is_str, strings = _encode_ids(operation.ids)
    rows = len(operation.ids)
    vectors = np.ascontiguousarray(operation.vectors, np.dtype("<f4"))
    if vectors.ndim != 2 or len(vectors) != rows:
        raise LengthMismatchError(f"{rows} ids with vectors of shape {vectors.shape}")
    flags = 0
    lengths: list[bytes] = []
    blobs: list[bytes] = []
    texts = operation.texts
    encoded = None if texts is None else [None if t is None else t.encode() for t in texts]
    for flag, column in ((_TEXTS, encoded), (_PAYLOADS, operation.payloads)):
        if column is None:
            continue
        if len(column) != rows:
            raise LengthMismatchError(f"{rows} ids with {len(column)} texts or payloads")
        flags |= flag
        each = [_ABSENT if item is None else len(item) for item in column]
        lengths.append(np.array(each, "<u4").tobytes())
        blobs.extend(item for item in column if item is not None)
    header = _HEADER.pack(rows, vectors.shape[1], flags, 0)
    raw = vectors.reshape(-1).view(np.uint8).data
    deleted = _encode_delete(operation.deleted) if operation.deleted else []
    kind = KIND_REPLACE if deleted else KIND_UPSERT
    return kind, b"".join([header, keys, raw, *lengths, is_str, strings, *blobs, *deleted])


def decode_operation(kind: int, body: bytes, where: str) -> Operation:
    """Return the operation that a record holds.

    The vectors are a read-only view of `body`.

    Raises
    ------
    NewerFormatError
        If the kind is unknown.
    CorruptFileError
        If the body is not of the kind's layout, to the last byte.
    """
    if kind not in {KIND_UPSERT, KIND_DELETE, KIND_REPLACE}:
        raise NewerFormatError(
            f"{where} holds an operation of kind {kind}, which this vecdb does not know: open it "
            "with the version that wrote it, or a later one"
        )
    reader = _Reader(body, where)
    if kind == KIND_DELETE:
        deleted = _decode_delete(reader)
        reader.finish()
        return Delete(deleted)
    upsert = _decode_upsert(reader)
    if kind == KIND_REPLACE:
        upsert = replace(upsert, deleted=_decode_delete(reader))
        if not upsert.deleted:
            raise reader.damage("it should delete points and names none")
    reader.finish()
    return upsert


def _decode_upsert(reader: _Reader) -> Upsert:
    rows, dim, flags, zero = _HEADER.unpack(reader.take(_HEADER.size))
    if zero or flags & ~(_TEXTS | _PAYLOADS):
        raise reader.damage("its header has bits that mean nothing")
    keys = reader.array("<u8", rows)
    vectors = reader.array("<f4", rows * dim).reshape(rows, dim)
    text_lengths = reader.array("<u4", rows) if flags & _TEXTS else None
    payload_lengths = reader.array("<u4", rows) if flags & _PAYLOADS else None
    ids = _decode_ids(reader, keys)
    texts = None
    if text_lengths is not None:
        items = [reader.item(length) for length in text_lengths.tolist()]
        texts = [None if item is None else reader.text(item) for item in items]
    payloads = None
    if payload_lengths is not None:
        payloads = [reader.item(length) for length in payload_lengths.tolist()]
    return Upsert(ids, vectors, texts, payloads)


def _encode_delete(ids: Sequence[PointId]) -> list[bytes]:
    return [_HEADER.pack(len(ids), 0, 0, 0), *_encode_ids(ids)]


def _decode_delete(reader: _Reader) -> list[PointId]:
    rows, *zeros = _HEADER.unpack(reader.take(_HEADER.size))
    if any(zeros):
        raise reader.damage("its header has bits that mean nothing")
    return _decode_ids(reader, reader.array("<u8", rows))


def _encode_ids(ids: Sequence[PointId]) -> tuple[bytes, bytes, bytes]:
    """Return the keys (an int, or the length of a str), the bits that tell which, the strs."""
    batch = IdBatch(ids)
    if not batch.strings:
        return batch.int_keys.astype("<u8").tobytes(), bytes((len(ids) + 7) // 8), b""
    keys = np.zeros(len(ids), "<u8")
    keys[batch.int_rows] = batch.int_keys
    keys[batch.str_rows] = [len(string) for string in batch.strings]
    bits = np.packbits(batch.is_str(), bitorder="little")
    return keys.tobytes(), bits.tobytes(), b"".join(batch.strings)


def _decode_ids(reader: _Reader, keys: NDArray[np.uint64]) -> list[PointId]:
    bits = reader.array("u1", (len(keys) + 7) // 8)
    is_str = np.unpackbits(bits, bitorder="little")
    if is_str[len(keys) :].any():
        raise reader.damage("its id bits go on after the last row")
    ids: list[PointId] = keys.tolist()
    for row in np.flatnonzero(is_str[: len(keys)]).tolist():
        ids[row] = reader.text(reader.take(int(keys[row])))
    return ids


class _Reader:
    """Takes a body apart from front to back, never beyond its end."""

    def __init__(self, body: bytes, where: str) -> None:
        self._body = body
        self._where = where
        self._offset = 0

    def take(self, length: int) -> bytes:
        end = self._offset + length
        if end > len(self._body):
            raise self.damage(f"{length} more bytes are needed at offset {self._offset}")
        taken = self._body[self._offset : end]
        self._offset = end
        return taken

    def array(self, dtype: str, count: int) -> NDArray[Any]:
        found = np.dtype(dtype)
        end = self._offset + count * found.itemsize
        if end > len(self._body):  # checked before anything of that size is made
            raise self.damage(f"{count} values of {dtype} are needed at offset {self._offset}")
        array = np.frombuffer(self._body, found, count, self._offset)
        self._offset = end
        return array

    def item(self, length: int) -> bytes | None:
        return None if length == _ABSENT else self.take(length)

    def text(self, encoded: bytes) -> str:
        try:
            return encoded.decode()
        except UnicodeDecodeError as error:
            raise self.damage(f"a text or id is not UTF-8: {error}") from error

    def finish(self) -> None:
        if self._offset != len(self._body):
            raise self.damage(f"{len(self._body) - self._offset} bytes follow its end")

    def damage(self, reason: str) -> CorruptFileError:
        return CorruptFileError(f"{self._where}: its body is not an operation: {reason}")

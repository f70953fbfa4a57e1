"""Sections files: named typed arrays in one immutable file, mapped into memory when opened.

Segments, tombstones and indexes are all such files, told apart by their `kind`. The layout is
that of ``FORMAT.md``, "Sections file": prologue, sections at multiples of 64 bytes, a table of
them as JSON, and a trailer that finds the table. The table comes last so that a file is written
in one pass, whatever its size.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from vecdb.errors import CorruptFileError, InvalidArgumentError
from vecdb.storage.base import Buffer, Store, Writer
from vecdb.storage.crc import crc32c
from vecdb.storage.fileref import FileRef
from vecdb.storage.prologue import PROLOGUE_BYTES, check_prologue, prologue

MAGIC = b"VECDBSEC"
VERSION = 1
ALIGNMENT = 64
TABLE_BYTES_LIMIT = 16 << 20

_END_MAGIC = b"END\n"
_TRAILER = struct.Struct("<QQII")  # file length, table offset, table length, table CRC-32C
_TRAILER_END = struct.Struct("<I4s")  # CRC-32C of the above, end magic
TRAILER_BYTES = _TRAILER.size + _TRAILER_END.size
_PIECE_BYTES = 1 << 20
_HUGE_PAGE = 2 << 20
"""What Linux keeps of a file in one piece, if it was written so; see `_DigestingWriter`."""

_DTYPES = {
    np.dtype(code).str: np.dtype(code)
    for code in ["b1", "u1", "i1", "<u2", "<i2", "<f2", "<u4", "<i4", "<f4", "<u8", "<i8", "<f8"]
}


@dataclass(frozen=True, slots=True)
class _Section:
    """One row of the table."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    offset: int
    length: int
    crc: int


@dataclass(frozen=True, slots=True)
class Pieces:
    """An array that is written piece by piece, and never has to be in memory as a whole.

    Attributes
    ----------
    dtype, shape
        Of the whole.
    pieces
        Arrays that make it up, one behind the other.
    """

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    pieces: Iterable[NDArray[Any]]


class Sections(Mapping[str, NDArray[Any]]):
    """An open sections file: a mapping from section names to read-only arrays over its bytes.

    The bytes stay mapped as long as any of the arrays lives.

    Attributes
    ----------
    kind
        What the file is, as given to `write_sections`.
    meta
        The JSON object given to `write_sections`.
    """

    def __init__(
        self,
        data: NDArray[np.uint8],
        table: list[_Section],
        *,
        kind: str,
        meta: dict[str, Any],
        where: str,
    ) -> None:
        self._data = data
        self._table = {section.name: section for section in table}
        self._where = where
        self.kind = kind
        self.meta = meta

    def __getitem__(self, name: str) -> NDArray[Any]:
        section = self._table[name]
        raw = self._data[section.offset : section.offset + section.length]
        return raw.view(section.dtype).reshape(section.shape)

    def __iter__(self) -> Iterator[str]:
        return iter(self._table)

    def __len__(self) -> int:
        return len(self._table)

    @property
    def file_bytes(self) -> int:
        """The length of the file."""
        return int(self._data.size)

    def verify(self) -> None:
        """Read every byte of the file and compare the checksums.

        Raises
        ------
        CorruptFileError
            If a section, or the padding between two, is not what was written.
        """
        end = PROLOGUE_BYTES
        for section in self._table.values():
            self._verify_padding(end, section.offset)
            self.verify_section(section.name)
            end = section.offset + section.length
        table_offset = _TRAILER.unpack_from(self._data[-TRAILER_BYTES:].tobytes())[1]
        self._verify_padding(end, table_offset)

    def verify_section(self, name: str) -> None:
        """Read one section and compare its checksum; see `verify`."""
        section = self._table[name]
        end = section.offset + section.length
        crc = 0
        for start in range(section.offset, end, _PIECE_BYTES):
            # A copy waits for the disk without the GIL; the checksum would wait with it.
            crc = crc32c(self._data[start : min(end, start + _PIECE_BYTES)].copy(), crc)
        if crc != section.crc:
            raise CorruptFileError(
                f"{self._where} is damaged: section {section.name!r}, from offset "
                f"{section.offset} to {end}, has the wrong checksum"
            )

    def _verify_padding(self, start: int, end: int) -> None:
        if self._data[start:end].any():
            raise CorruptFileError(
                f"{self._where} is damaged: the padding from offset {start} to {end} is not zero"
            )


def write_sections(
    store: Store,
    name: str,
    sections: Mapping[str, NDArray[Any] | Pieces],
    *,
    kind: str,
    meta: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> FileRef:
    """Write arrays as one file, durably and all at once.

    Parameters
    ----------
    sections
        Arrays of bool, of integers or of floats, or their pieces; copied only where they are not
        C-contiguous or not little-endian.
    kind
        What the file is; `open_sections` asks for it by this name.
    meta
        A JSON object to keep with the arrays: finite numbers only.

    Returns
    -------
    FileRef
        The file's name, length and SHA-256.
    """
    with store.create(name, overwrite=overwrite) as writer:
        file = _DigestingWriter(writer)
        file.write(prologue(MAGIC, VERSION))
        table = []
        for section_name, given in sections.items():
            file.write(bytes(-file.length % ALIGNMENT))
            table.append(_write_section(file, section_name, given))
        file.write(bytes(-file.length % ALIGNMENT))
        described = json.dumps(
            {"kind": kind, "meta": dict(meta or {}), "sections": table},
            allow_nan=False,
            separators=(",", ":"),
        ).encode()
        if len(described) > TABLE_BYTES_LIMIT:
            raise InvalidArgumentError(
                f"the table and meta of {name} take {len(described)} bytes; "
                f"at most {TABLE_BYTES_LIMIT} are possible"
            )
        table_offset = file.length
        length = table_offset + len(described) + TRAILER_BYTES
        trailer = _TRAILER.pack(length, table_offset, len(described), crc32c(described))
        file.write(described)
        file.write(trailer + _TRAILER_END.pack(crc32c(trailer), _END_MAGIC))
    return FileRef(name, file.length, file.sha256.hexdigest())


def _write_section(
    file: _DigestingWriter, name: str, given: NDArray[Any] | Pieces
) -> dict[str, Any]:
    """Write one section and return its row of the table."""
    if isinstance(given, Pieces):
        pieces, dtype, shape = given.pieces, given.dtype.newbyteorder("<"), given.shape
    else:
        whole = _storable(name, given)
        pieces, dtype, shape = [whole], whole.dtype, whole.shape
    offset, crc = file.length, 0
    for piece in pieces:
        crc = file.write_array(_storable(name, piece.astype(dtype, copy=False)), crc)
    length = math.prod(shape) * dtype.itemsize
    if file.length - offset != length:
        raise InvalidArgumentError(
            f"the pieces of section {name!r} have {file.length - offset} bytes: must be {length}"
        )
    return {
        "name": name,
        "dtype": dtype.str,
        "shape": list(shape),
        "offset": offset,
        "length": length,
        "crc32c": crc,
    }


def _storable(name: str, given: NDArray[Any]) -> NDArray[Any]:
    array = np.ascontiguousarray(given, given.dtype.newbyteorder("<"))
    if array.dtype.str not in _DTYPES:
        raise InvalidArgumentError(
            f"section {name!r} has dtype {given.dtype}; it must be one of {', '.join(_DTYPES)}"
        )
    return array.reshape(given.shape)  # ascontiguousarray makes a scalar one-dimensional


class _DigestingWriter:
    """Counts and digests what goes to the file.

    Long arrays are written in pieces that end where huge pages do: a file system that can then
    keeps them in such pages, and what is searched at random through a mapping misses the TLB
    less. What is read back from disk later the kernel puts into large pages by itself.
    """

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self.sha256 = hashlib.sha256()
        self.length = 0

    def write(self, data: Buffer) -> None:
        self._writer.write(data)
        self.sha256.update(cast("bytes", data))
        self.length += len(data)

    def write_array(self, array: NDArray[Any], crc: int) -> int:
        """Write an array bit by bit, so that each is still in cache when it is digested."""
        flat = array.reshape(-1).view(np.uint8)
        start = 0
        while start < flat.size:
            piece = flat[start : start + _HUGE_PAGE - self.length % _HUGE_PAGE]
            for first in range(0, piece.size, _PIECE_BYTES):  # holds the GIL
                crc = crc32c(piece[first : first + _PIECE_BYTES], crc)
            self.write(piece)
            start += piece.size
        return crc


def open_sections(store: Store, name: str, *, kind: str | None, verify: bool = True) -> Sections:
    """Map a sections file.

    Parameters
    ----------
    kind
        The kind it must be of; None for any.
    verify
        Also read every section and compare its checksum, at memory or disk speed; without it,
        only the table is checked, in constant time.

    Raises
    ------
    CorruptFileError
        If the file is damaged, or of another kind.
    NewerFormatError
        If it was written by a newer vecdb.
    StoredFileNotFoundError
        If it is not there.
    """
    where = store.location(name)
    data = store.map(name)
    if verify:
        store.fault_in(name, data)
    check_prologue(
        data[:PROLOGUE_BYTES].tobytes(), MAGIC, VERSION, where=where, what="a sections file"
    )
    table_offset, described = _read_table(data, where)
    sections, found_kind, meta = _parse_table(described, table_offset, where)
    if kind is not None and found_kind != kind:
        raise CorruptFileError(f"{where} holds {found_kind!r}, not {kind!r}")
    opened = Sections(data, sections, kind=found_kind, meta=meta, where=where)
    if verify:
        opened.verify()
    return opened


def sound_trailer(trailer: bytes) -> bool:
    """Return whether the last bytes of a file are a trailer with the right checksum."""
    crc, magic = _TRAILER_END.unpack_from(trailer, _TRAILER.size)
    return bool(magic == _END_MAGIC and crc == crc32c(trailer[: _TRAILER.size]))


def damaged_regions(data: NDArray[np.uint8]) -> Iterator[tuple[int, int, int | None]]:
    """Yield what is wrong behind a sound prologue and trailer: start, end and right CRC-32C.

    The CRC is None for padding, which must be zero. Without a readable table only the table is
    told; nothing is when the trailer does not fit the file.
    """
    end = data.size - TRAILER_BYTES
    _, offset, table_length, table_crc = _TRAILER.unpack_from(data[end:].tobytes())
    if not PROLOGUE_BYTES <= offset <= end or offset + table_length != end:
        return
    described = data[offset:end].tobytes()
    if crc32c(described) != table_crc:
        yield offset, end, table_crc
        return
    try:
        table, _, _ = _parse_table(described, offset, "")
    except CorruptFileError:
        return
    start = PROLOGUE_BYTES
    for section in table:
        if data[start : section.offset].any():
            yield start, section.offset, None
        start = section.offset + section.length
        if crc32c(data[section.offset : start]) != section.crc:
            yield section.offset, start, section.crc
    if data[start:offset].any():
        yield start, offset, None


def _read_table(data: NDArray[np.uint8], where: str) -> tuple[int, bytes]:
    """Return the table's offset and bytes, once all checksums on the way to it agree."""
    if data.size < PROLOGUE_BYTES + TRAILER_BYTES:
        raise CorruptFileError(f"{where} is damaged: it is cut off after {data.size} bytes")
    end = data.size - TRAILER_BYTES
    trailer = data[end:].tobytes()
    length, offset, table_length, table_crc = _TRAILER.unpack_from(trailer)
    crc, magic = _TRAILER_END.unpack_from(trailer, _TRAILER.size)
    if magic != _END_MAGIC or crc != crc32c(trailer[: _TRAILER.size]):
        raise CorruptFileError(
            f"{where} is damaged: its last {TRAILER_BYTES} bytes, from offset {end}, are not the "
            "trailer that ends a complete file"
        )
    if length != data.size or offset < PROLOGUE_BYTES or offset + table_length != end:
        raise CorruptFileError(
            f"{where} is damaged: it has {data.size} bytes, and its trailer does not fit that"
        )
    if table_length > TABLE_BYTES_LIMIT:
        raise CorruptFileError(f"{where} is damaged: its table has {table_length} bytes")
    described = data[offset:end].tobytes()
    if crc32c(described) != table_crc:
        raise CorruptFileError(
            f"{where} is damaged: its table, at offset {offset}, has the wrong checksum"
        )
    return offset, described


def _parse_table(
    described: bytes, table_offset: int, where: str
) -> tuple[list[_Section], str, dict[str, Any]]:
    try:
        table = json.loads(described)
        kind, meta, rows = table["kind"], table["meta"], table["sections"]
        if not isinstance(kind, str) or not isinstance(meta, dict):
            raise TypeError("kind is not a string or meta not an object")
        sections = []
        end = PROLOGUE_BYTES
        for row in rows:
            section = _parse_row(row)
            if section.offset % ALIGNMENT or not end <= section.offset < end + ALIGNMENT:
                raise ValueError(f"section {section.name!r} has offset {section.offset}")
            end = section.offset + section.length
            sections.append(section)
        if not end <= table_offset < end + ALIGNMENT:
            raise ValueError(f"the sections end at {end}, the table begins at {table_offset}")
        if len({section.name for section in sections}) != len(sections):
            raise ValueError("two sections have one name")
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise CorruptFileError(
            f"{where} is damaged: its table, at offset {table_offset}, is not a table: {error!r}"
        ) from error
    return sections, kind, meta


def _parse_row(row: dict[str, Any]) -> _Section:
    name, shape = row["name"], tuple(row["shape"])
    numbers = [*shape, row["offset"], row["length"], row["crc32c"]]
    if not isinstance(name, str) or any(type(n) is not int or n < 0 for n in numbers):
        raise TypeError(f"a section's name or numbers are of the wrong type: {row!r}")
    dtype = _DTYPES[row["dtype"]]
    # Python's integers do not overflow, so a product that lies cannot match a true length.
    if math.prod(shape) * dtype.itemsize != row["length"] or len(shape) > 8:
        raise ValueError(f"section {name!r} of shape {shape} has {row['length']} bytes")
    return _Section(name, dtype, shape, row["offset"], row["length"], row["crc32c"])

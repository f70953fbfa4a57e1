"""The 16 bytes that open every binary file, the same in all versions of all formats.

They are checked in this order, each with its own error: the magic (is it such a file at all),
the checksum (are the version's bits as they were written), the version (can we read it).
"""

from __future__ import annotations

import struct

from vecdb.errors import CorruptFileError, NewerFormatError
from vecdb.storage.crc import crc32c

PROLOGUE_BYTES = 16

_LAYOUT = struct.Struct("<8sI")
_CHECKSUM = struct.Struct("<I")


def prologue(magic: bytes, version: int) -> bytes:
    """Return the opening bytes of a file of the format `magic` (8 bytes) and `version`."""
    packed = _LAYOUT.pack(magic, version)
    return packed + _CHECKSUM.pack(crc32c(packed))


def check_prologue(data: bytes, magic: bytes, newest: int, *, where: str, what: str) -> int:
    """Return the version of the file that opens with `data`.

    Raises
    ------
    CorruptFileError
        If these are not the opening bytes of a file of the format `magic`.
    NewerFormatError
        If the version is over `newest`.
    """
    if len(data) < PROLOGUE_BYTES:
        raise CorruptFileError(
            f"{where} is damaged at offset 0: {len(data)} bytes are too few for {what}"
        )
    found, version = _LAYOUT.unpack_from(data)
    if found != magic:
        raise CorruptFileError(
            f"{where} is damaged at offset 0, or is not {what}: it opens with {found!r} "
            f"instead of {magic!r}"
        )
    (checksum,) = _CHECKSUM.unpack_from(data, _LAYOUT.size)
    if checksum != crc32c(data[: _LAYOUT.size]):
        raise CorruptFileError(f"{where} is damaged at offset 8: wrong checksum of the version")
    if version > newest:
        raise NewerFormatError(
            f"{where} is {what} of format {version}; this vecdb reads formats up to {newest}: "
            "open it with the version that wrote it, or a later one"
        )
    if version < 1:
        raise CorruptFileError(f"{where} is damaged at offset 8: format {version} never existed")
    return int(version)

"""CRC-32C, the checksum of every record and section (RFC 3720, appendix B.4)."""

from __future__ import annotations

from typing import cast

import google_crc32c
import numpy as np

from vecdb.storage.base import Buffer

_CHUNK_BYTES = 1 << 20  # the C function keeps the GIL: a tenth of a millisecond at a time


def crc32c(data: Buffer, start: int = 0) -> int:
    """Return the CRC-32C of `data`, continuing from the checksum `start`, without copying it."""
    view = memoryview(cast("bytes", data)).cast("B")  # every Buffer will do
    # google_crc32c takes bytes and arrays, but no memoryview and no bytearray.
    array = np.frombuffer(view, np.uint8)
    value = start
    for offset in range(0, array.size, _CHUNK_BYTES):
        value = google_crc32c.extend(value, array[offset : offset + _CHUNK_BYTES])
    return value

"""Putting one flipped bit right: found through a checksum, and proven by the file's SHA-256.

A CRC is linear: flipping a bit changes it by a difference that depends only on how many bits follow
(for a section, in a register that is stepped once for each of them). So the wrong checksum of a
section tells the distance of a single flipped bit from its end: a discrete logarithm, found with
baby steps and giant steps (Shanks 1971) in about the square root of the number of bits. Whether it
was one flipped bit at all is decided by the digest that the manifest has of the whole file.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from vecdb.errors import VecdbError
from vecdb.storage.base import Store
from vecdb.storage.crc import crc32c
from vecdb.storage.fileref import FileRef
from vecdb.storage.prologue import PROLOGUE_BYTES, prologue
from vecdb.storage.sections import MAGIC, TRAILER_BYTES, VERSION, damaged_regions, sound_trailer

_POLYNOMIAL = 0x82F63B78  # CRC-32C, reflected
_PERIOD = (1 << 31) - 1
"""A flip this many bits further away makes the same difference."""
_PIECE_BYTES = 16 << 20


def mend_bit(store: Store, ref: FileRef) -> int | None:
    """Put a sections file right that differs from what its manifest names in one bit.

    The file is replaced at once, by one that has the digest of the manifest.

    Returns
    -------
    int or None
        The offset of the byte that the bit was in; None when it was not one flipped bit.

    Raises
    ------
    DiskFullError, StorageIOError
        If the file could not be written again.
    """
    try:
        data = store.map(ref.name)
        store.fault_in(ref.name, data)
    except VecdbError:
        return None
    if len(data) != ref.size:
        return None
    for bit in _candidates(data):
        if _digest(_flipped(data, bit)) == ref.sha256:
            with store.create(ref.name, overwrite=True) as writer:
                for piece in _flipped(data, bit):
                    writer.write(piece)
            return bit // 8
    return None


def _flipped(data: NDArray[np.uint8], bit: int) -> Iterator[NDArray[np.uint8]]:
    """Yield a file with one bit flipped, in pieces."""
    for start in range(0, len(data), _PIECE_BYTES):
        piece = data[start : start + _PIECE_BYTES]
        if start <= bit // 8 < start + len(piece):
            piece = piece.copy()
            piece[bit // 8 - start] ^= 1 << bit % 8
        yield piece


def _digest(pieces: Iterator[NDArray[np.uint8]]) -> str:
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece.data)
    return digest.hexdigest()


def _candidates(data: NDArray[np.uint8]) -> Iterator[int]:
    """Yield the bits that may have been flipped, as numbers from the beginning of the file."""
    expected = np.frombuffer(prologue(MAGIC, VERSION), np.uint8)
    wrong = data[:PROLOGUE_BYTES] ^ expected[: len(data)]
    if wrong.any():
        yield from _only_bit(wrong, 0)
        return
    trailer_start = len(data) - TRAILER_BYTES
    if trailer_start < PROLOGUE_BYTES:
        return
    trailer = data[trailer_start:].tobytes()
    if not sound_trailer(trailer):
        for bit in range(8 * TRAILER_BYTES):
            flipped = bytearray(trailer)
            flipped[bit // 8] ^= 1 << bit % 8
            if sound_trailer(bytes(flipped)):
                yield 8 * trailer_start + bit
        return
    for start, end, crc in damaged_regions(data):
        region = data[start:end]
        if crc is None:
            yield from _only_bit(region, start)
        else:
            for bit in flipped_bits(crc ^ crc32c(region), 8 * (end - start)):
                yield 8 * start + bit


def _only_bit(wrong: NDArray[np.uint8], start: int) -> Iterator[int]:
    """Yield the one bit that is set in `wrong`, if there is just one."""
    bits = np.flatnonzero(np.unpackbits(wrong, bitorder="little"))
    if len(bits) == 1:
        yield 8 * start + int(bits[0])


def flipped_bits(difference: int, bits: int) -> Iterator[int]:
    """Yield the bits, of so many, whose flip makes that difference to the CRC-32C of them all."""
    if not difference or not bits:
        return
    stride = math.isqrt(min(bits, _PERIOD) - 1) + 1
    baby: dict[int, int] = {}
    register = _POLYNOMIAL  # what flipping the last bit makes
    for following in range(stride):
        baby.setdefault(register, following)
        register = _step(register)
    back = [_stepped_back(1 << column, stride) for column in range(32)]
    for giant in range(stride + 1):
        following = baby.get(difference, -1)
        if following >= 0:
            for distance in range(giant * stride + following, bits, _PERIOD):
                yield bits - 1 - distance
            return
        difference = _times(back, difference)


def _step(register: int) -> int:
    return register >> 1 ^ (_POLYNOMIAL if register & 1 else 0)


def _stepped_back(register: int, count: int) -> int:
    for _ in range(count):
        odd = register >> 31
        register = ((register ^ (_POLYNOMIAL if odd else 0)) << 1 | odd) & 0xFFFFFFFF
    return register


def _times(columns: list[int], register: int) -> int:
    """Return a matrix over GF(2), as its columns, times a vector."""
    product = 0
    while register:
        lowest = register & -register
        product ^= columns[lowest.bit_length() - 1]
        register ^= lowest
    return product

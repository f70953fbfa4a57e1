"""Memory for large rows that are read at random."""

from __future__ import annotations

import mmap

import numpy as np
from numpy.typing import NDArray

_HUGE_PAGE = 2 << 20


def code_memory(rows: int, stride: int) -> NDArray[np.uint8]:
    """Allocate (rows, stride) bytes of zeros, on huge pages where the system has them.

    Rows are read at random, each once: with pages of 4 kB most of them would miss the TLB.
    """
    size = rows * stride
    if size < _HUGE_PAGE:
        memory = np.zeros(size + 64, np.uint8)
        start = -memory.ctypes.data % 64
        return memory[start : start + size].reshape(rows, stride)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        # Private: shared memory is on small pages.
        area = mmap.mmap(-1, size + _HUGE_PAGE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        area.madvise(mmap.MADV_HUGEPAGE)
    else:
        area = mmap.mmap(-1, size + _HUGE_PAGE)
    memory = np.frombuffer(area, np.uint8)
    start = -memory.ctypes.data % _HUGE_PAGE
    return memory[start : start + size].reshape(rows, stride)


def reserve_rows(
    memory: NDArray[np.uint8], used: int, needed: int, stride: int
) -> NDArray[np.uint8]:
    """Return the first `used` rows of `memory` with room for `needed`, as `rows.reserve` does."""
    if used and needed <= len(memory) and memory.flags.writeable:
        return memory
    grown = code_memory(needed if used == 0 else max(needed, used * 3 // 2), stride)
    if used:
        grown[:used] = memory[:used]
    return grown

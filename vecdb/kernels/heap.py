"""A binary min-heap of 64-bit keys in an array, for candidates without a bound."""

from __future__ import annotations

from typing import Any

from vecdb.kernels.jit import inline


@inline
def heap_push(heap: Any, size: Any, key: Any) -> Any:
    """Add `key` to ``heap[:size]``; return the new size."""
    i = size
    while i > 0:
        parent = (i - 1) >> 1
        if heap[parent] <= key:
            break
        heap[i] = heap[parent]
        i = parent
    heap[i] = key
    return size + 1


@inline
def heap_pop(heap: Any, size: Any) -> Any:
    """Take the least key from ``heap[:size]``; return it, and the new size."""
    least = heap[0]
    size -= 1
    key = heap[size]
    i = 0
    child = 1
    while child < size:
        if child + 1 < size and heap[child + 1] < heap[child]:
            child += 1
        if heap[child] >= key:
            break
        heap[i] = heap[child]
        i = child
        child = 2 * i + 1
    heap[i] = key
    return least, size

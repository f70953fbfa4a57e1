"""How much a data directory may take of the disk and of memory.

Only growth is held against it: upserts, bulk loads, new collections. Reads, deletes, sealing,
indexing and merging go on, since they are what gives space back; they may take a directory over
its limit for a while.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol
from weakref import WeakKeyDictionary, WeakSet

from vecdb.config import MAX_DISK_BYTES, MAX_MEMORY_BYTES, MIN_FREE_BYTES
from vecdb.errors import DiskLimitError, MemoryLimitError

_TIGHT = 0.5
_FULL = 0.9
_LOOK_SECONDS = 0.25
"""How long it may take until what a collection takes is looked at that did not ask for growth."""
_LOADS = 4
"""How many bulk loads at once may gather as many points in memory as they like to."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What is taken, or is about to be.

    Attributes
    ----------
    disk_bytes
        The files of segments, indexes and logs, and about what the graphs will take that are to be
        built for points that are there.
    memory_bytes
        Points that are in no segment file yet, those of bulk loads included. Files are mapped into
        memory and not counted: the operating system drops their pages when it needs the room.
    """

    disk_bytes: int = 0
    memory_bytes: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(self.disk_bytes + other.disk_bytes, self.memory_bytes + other.memory_bytes)

    def __sub__(self, other: Usage) -> Usage:
        return Usage(self.disk_bytes - other.disk_bytes, self.memory_bytes - other.memory_bytes)


@dataclass(frozen=True, slots=True)
class SpaceLimits:
    """The limits of a data directory, in bytes; None for none.

    Attributes
    ----------
    max_disk_bytes
        Over this, growth is refused.
    max_memory_bytes
        Likewise; from half of it on, what is in memory is written to segments early.
    min_free_bytes
        Growth is refused as well when less would be left free on the file system. What merging
        and deleting need on a full disk comes out of it.
    """

    max_disk_bytes: int | None = None
    max_memory_bytes: int | None = None
    min_free_bytes: int = MIN_FREE_BYTES.default

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises
        ------
        InvalidParameterError
        """
        if self.max_disk_bytes is not None:
            MAX_DISK_BYTES.check(self.max_disk_bytes)
        if self.max_memory_bytes is not None:
            MAX_MEMORY_BYTES.check(self.max_memory_bytes)
        MIN_FREE_BYTES.check(self.min_free_bytes)


class Taker(Protocol):
    """A collection, as far as limits go."""

    @property
    def usage(self) -> Usage:
        """What it takes now."""

    def graph_bytes(self, rows: int) -> int:
        """Return about how much more graphs will take when so many rows come."""


class Budget:
    """Admits growth, or refuses it at once.

    What all take together is remembered, so that one write does not cost a look at every
    collection: who grows is looked at again when the next growth is admitted, all others a few
    times a second, and everybody before anything is refused.

    Parameters
    ----------
    limits
        What may be taken.
    free_bytes
        Returns what is free on the file system.
    takers
        Returns those that take it.
    """

    def __init__(
        self,
        limits: SpaceLimits,
        free_bytes: Callable[[], int],
        takers: Callable[[], Sequence[Taker]],
    ) -> None:
        self._limits = limits
        self._free_bytes = free_bytes
        self._takers = takers
        self._is_limited = (limits.max_disk_bytes, limits.max_memory_bytes) != (None, None)
        self._lock = threading.Lock()  # protects everything below
        self._pending = Usage()  # admitted, and perhaps not in `usage` yet
        self._seen: WeakKeyDictionary[Taker, Usage] = WeakKeyDictionary()
        self._total = Usage()  # of what was seen
        self._grown: WeakSet[Taker] = WeakSet()  # since they were seen
        self._looked = -math.inf  # when everybody was

    @contextmanager
    def growth(self, wanted: Usage, taker: Taker | None = None, rows: int = 0) -> Iterator[None]:
        """Admit what is written in this block.

        Parameters
        ----------
        wanted
            How much that is, about.
        taker
            Who will take it; None for one that is not there yet.
        rows
            How many points it is, of which graphs will be built.

        Raises
        ------
        DiskLimitError, MemoryLimitError
            Before the block is entered.
        """
        if taker is not None and self._limits.max_disk_bytes is not None:
            wanted += Usage(disk_bytes=taker.graph_bytes(rows))
        with self._lock:
            self._refuse_over(wanted, exactly=taker is None)
            self._pending += wanted
        try:
            yield
        finally:
            with self._lock:
                self._pending -= wanted
                if taker is not None and self._is_limited:
                    self._grown.add(taker)

    def check(self) -> None:
        """Refuse growth of any size, before work is done for it.

        Raises
        ------
        DiskLimitError, MemoryLimitError
        """
        with self._lock:
            self._refuse_over(Usage(), exactly=False)

    def is_tight(self, own: int) -> bool:
        """Return whether a collection should write to disk what it has in memory, `own` bytes.

        That is so when much of what is allowed is taken, and it takes at least an average share.
        """
        most = self._limits.max_memory_bytes
        if most is None or not own:
            return False
        with self._lock:
            self._look()
            used, takers = self._total.memory_bytes, len(self._seen)
        return used >= _TIGHT * most and own * takers >= used

    def is_filled_by(self, log_bytes: int) -> bool:
        """Return whether a log of that size is as large as what is left of the disk."""
        left = self._free_bytes() - self._limits.min_free_bytes
        most = self._limits.max_disk_bytes
        if most is not None:
            with self._lock:
                self._look()
                left = min(left, most - self._total.disk_bytes)
        return log_bytes >= left

    def is_full(self) -> bool:
        """Return whether hardly any of `max_disk_bytes` is left."""
        most = self._limits.max_disk_bytes
        if most is None:
            return False
        with self._lock:
            self._look()
            return self._total.disk_bytes >= _FULL * most

    def gathered(self, most: int) -> int:
        """Return how many bytes a bulk load gathers before it writes them: `most`, or fewer."""
        limit = self._limits.max_memory_bytes
        return most if limit is None else min(most, limit // _LOADS)

    def _refuse_over(self, wanted: Usage, *, exactly: bool) -> None:
        limits, taken = self._limits, self._pending
        if self._is_limited:
            self._look(exactly=exactly)
            if self._is_over(self._total + taken + wanted):
                self._look(exactly=True)
            taken += self._total
        most = limits.max_disk_bytes
        if most is not None and taken.disk_bytes + wanted.disk_bytes > most:
            raise DiskLimitError(
                f"the data directory, with the graphs still to be built, takes "
                f"{taken.disk_bytes:,} bytes of the {most:,} that it may (max_disk_bytes), and "
                f"this would add {wanted.disk_bytes:,}: delete points and `flush`, or raise the "
                "limit"
            )
        most = limits.max_memory_bytes
        if most is not None and taken.memory_bytes + wanted.memory_bytes > most:
            raise MemoryLimitError(
                f"points that wait to be written to segments take {taken.memory_bytes:,} bytes of "
                f"the {most:,} that they may (max_memory_bytes), and this would add "
                f"{wanted.memory_bytes:,}: try again in a moment with smaller batches, or raise "
                "the limit"
            )
        free = self._free_bytes()
        if free - self._pending.disk_bytes - wanted.disk_bytes < limits.min_free_bytes:
            raise DiskLimitError(
                f"{free:,} bytes are free on the file system of the data directory, of which "
                f"{limits.min_free_bytes:,} are kept for deletes and merging (min_free_bytes): "
                "free some space, or delete points and `flush`"
            )

    def _is_over(self, taken: Usage) -> bool:
        disk, memory = self._limits.max_disk_bytes, self._limits.max_memory_bytes
        return (disk is not None and taken.disk_bytes > disk) or (
            memory is not None and taken.memory_bytes > memory
        )

    def _look(self, *, exactly: bool = False) -> None:
        """Look at who has grown, or at everybody when that was long ago; the lock is held."""
        now = time.monotonic()
        if exactly or now - self._looked > _LOOK_SECONDS:
            self._looked = now
            self._seen = WeakKeyDictionary({taker: taker.usage for taker in self._takers()})
            self._total = sum(self._seen.values(), Usage())
        else:
            for taker in self._grown:
                usage = taker.usage
                self._total += usage - self._seen.get(taker, Usage())
                self._seen[taker] = usage
        self._grown.clear()


def unlimited() -> Budget:
    """Return a budget that refuses nothing."""
    return Budget(SpaceLimits(min_free_bytes=0), lambda: 1 << 62, list)

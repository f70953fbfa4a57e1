"""Logs on a simulated disk, for the tests of the write-ahead log."""

from __future__ import annotations

from tests.storage.faulty import ROOT, SimulatedDisk
from vecdb.storage import PosixStore, Wal

BODIES = [b"first", b"", b"third" * 3, b"4", b"fifth"]


def simulated() -> tuple[SimulatedDisk, PosixStore]:
    disk = SimulatedDisk()
    return disk, PosixStore(ROOT, calls=disk)


def bodies(wal: Wal, after_seq: int = 0) -> list[bytes]:
    return [record.body for record in wal.replay(after_seq)]


def closed_log() -> tuple[SimulatedDisk, PosixStore]:
    """Return a log of three operations in two files, closed."""
    disk, store = simulated()
    wal = Wal.open(store)
    wal.append([(1, b"one"), (1, b"two")])
    wal.rotate()
    wal.append([(1, b"three")])
    wal.close()
    return disk, store

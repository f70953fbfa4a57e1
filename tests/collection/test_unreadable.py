"""A disk that cannot read some file: an error that names it, and never a process that dies."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.housekeeping import NoHousekeeping
from tests.storage.faulty import ROOT, SimulatedDisk
from vecdb.database import Database
from vecdb.errors import QuarantinedError, StorageIOError
from vecdb.storage import PosixStore, Severity, check_directory

VECTORS = np.random.default_rng(2).standard_normal((60, 4)).astype(np.float32)


def opened(disk: SimulatedDisk) -> Database:
    return Database("simulated", store=PosixStore(ROOT, calls=disk), scrub_seconds=0)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> SimulatedDisk:
    monkeypatch.setattr("vecdb.database.Housekeeping", NoHousekeeping)
    monkeypatch.setattr("vecdb.collection.policy.INDEXED_ROWS", 20)
    disk = SimulatedDisk()
    with opened(disk) as db:
        for name in ("hit", "other"):
            points = db.create_collection(name, dim=4)
            points.upsert(range(50), vectors=VECTORS[:50])
            points.flush()
            points.delete(ids=[1])
            points.maintenance.seal()
            points.upsert(range(50, 60), vectors=VECTORS[50:])
    return disk


def names(disk: SimulatedDisk) -> list[str]:
    found = PosixStore(ROOT, calls=disk).list()
    return [n for n in found if not n.endswith(".end") and not n.startswith("c000002")]


def test_whatever_file_cannot_be_read_the_rest_is_served(disk: SimulatedDisk) -> None:
    for name in names(disk):
        disk = disk.after_kill()
        disk.unreadable = {ROOT / name}
        report = check_directory(PosixStore(ROOT, calls=disk))
        assert any(name in f.file or name in f.message for f in report.findings), name
        for _ in range(2):
            with opened(disk) as db:
                assert_served(db, name)


def assert_served(db: Database, name: str) -> None:
    """Whatever does not need the file `name` of the collection "hit" is right."""
    assert db.collection("other").count() == 59
    if name.startswith("c000001/wal"):
        with pytest.raises(StorageIOError, match=name):
            db.collection("hit")
    elif name.startswith("c000001/segments") and not name.endswith(".index"):
        hit = db.collection("hit")
        with pytest.raises(QuarantinedError, match=name):
            hit.count()
        assert [r.id for r in hit.get([55])] == [55]
    else:
        assert db.collection("hit").count() == 59


def test_a_segment_that_cannot_be_read_is_set_aside_without_reading_it(
    disk: SimulatedDisk,
) -> None:
    disk = disk.after_kill()
    disk.unreadable = {ROOT / "c000001/segments/0000000001.data"}
    report = check_directory(PosixStore(ROOT, calls=disk), repair=True)
    assert [f.severity for f in report.findings] == [Severity.LOST]
    with opened(disk) as db:
        assert db.collection("hit").count() == 10


MAPPED = """
import os, sys
from pathlib import Path
from vecdb.errors import StorageIOError
from vecdb.storage import PosixStore
store = PosixStore(Path(sys.argv[1]))
mapped = store.map("x")
os.truncate(Path(sys.argv[1]) / "x", 10)
try:
    store.fault_in("x", mapped)
except StorageIOError as error:
    print("told:", error)
"""


@pytest.mark.skipif(
    sys.platform != "linux" or tuple(map(int, os.uname().release.split(".")[:2])) < (5, 14),
    reason="needs MADV_POPULATE_READ",
)
def test_a_page_that_cannot_be_read_is_an_error_and_no_signal(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(bytes(1 << 20))
    done = subprocess.run(
        [sys.executable, "-c", MAPPED, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("told: cannot read")

"""A database as a whole: what opening, closing, making and dropping leave when they fail."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import vecdb
from tests.housekeeping import NoHousekeeping
from tests.storage.faulty import ROOT, Faults, SimulatedDisk
from vecdb.collection import Collection
from vecdb.collection.scrub import Throttle
from vecdb.database import Database
from vecdb.errors import (
    ClosedError,
    CollectionNotFoundError,
    DirectoryLockedError,
    DiskFullError,
    FailedPreconditionError,
    InvalidParameterError,
    StoredFileNotFoundError,
    VecdbError,
)
from vecdb.storage import DirectoryLock, ManifestLog, PosixStore, Wal

VECTORS = np.ones((1, 2), np.float32)


@pytest.fixture(autouse=True)
def _repeatable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vecdb.database.Housekeeping", NoHousekeeping)


def opened(disk: SimulatedDisk) -> Database:
    return Database("simulated", store=PosixStore(ROOT, calls=disk))


def folders(disk: SimulatedDisk) -> list[str]:
    """Return the folders in which there are files."""
    return sorted({name.split("/")[0] for name in PosixStore(ROOT, calls=disk).list()})


def created(faults: Callable[[int], Faults]) -> tuple[SimulatedDisk, Database, bool, bool]:
    """Create a second collection under faults.

    Returns the disk, the database, whether the collection was created, and whether the fault came
    too late to matter.
    """
    disk = SimulatedDisk()
    db = opened(disk)
    db.create_collection("old", dim=2).upsert([1], vectors=VECTORS)
    disk.faults = faults(disk.calls)
    done = False
    with suppress(VecdbError):
        db.create_collection("new", dim=2)
        done = True
    over = disk.calls <= max(disk.faults.full_from or 0, disk.faults.error_at or 0)
    disk.faults = Faults()
    return disk, db, done, over


def test_a_creation_for_which_there_is_no_room_leaves_nothing() -> None:
    call, over = 0, False
    while not over:
        disk, db, done, over = created(lambda start, call=call: Faults(full_from=start + call))
        if not done:
            assert db.list_collections() == ["old"]
            assert folders(disk) == ["c000001", "catalog"]
            with opened(disk.after_kill()) as other:
                assert other.list_collections() == ["old"]
            db.create_collection("new", dim=2)
        db.collection("new").upsert([2], vectors=VECTORS)
        db.close()
        with opened(disk) as db:
            assert [db.collection(name).count() for name in ("old", "new")] == [1, 1]
        call += 1
    assert call > 10


def test_a_creation_that_the_disk_fails_is_there_or_not_when_opened_again() -> None:
    call, over = 0, False
    while not over:
        disk, db, done, over = created(lambda start, call=call: Faults(error_at=start + call))
        assert db.list_collections() == (["new", "old"] if done else ["old"])
        db.close()
        with opened(disk) as db:
            names = db.list_collections()
            assert names == ["new", "old"] or (names == ["old"] and not done)
            assert sum(db.collection(name).count() for name in names) == 1
            assert len(folders(disk)) == 1 + len(names)
        call += 1
    assert call > 10


def test_a_collection_for_which_there_is_no_room_keeps_no_other_from_being_opened(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    disk = SimulatedDisk()
    with opened(disk) as db:
        for name in ("a", "b"):
            db.create_collection(name, dim=2).upsert([1], vectors=VECTORS)

    def no_room(store: PosixStore, **rest: int) -> Wal:
        if "c000001" in store.location():
            raise DiskFullError("no room")
        return Wal.open(store, **rest)

    with monkeypatch.context() as patch:
        patch.setattr("vecdb.collection.recovery.Wal", SimpleNamespace(open=no_room))
        db = opened(disk)
        assert db.list_collections() == ["a", "b"]
        assert db.collection("b").count() == 1
        for _ in range(2):
            with pytest.raises(DiskFullError):
                db.collection("a")
        with pytest.raises(DiskFullError, match="'a' cannot be backed up"):
            db.backup_to(PosixStore(Path("/backups"), calls=disk))
    assert db.collection("a").count() == 1
    db.close()


def test_a_close_that_fails_closes_everything_else_before_others_may_open(tmp_path: Path) -> None:
    db = Database(tmp_path)
    handles = [db.create_collection(name, dim=2) for name in "abc"]
    for handle in handles:
        handle.upsert([1], vectors=VECTORS)
    for folder in ("c000001", "c000002"):
        shutil.rmtree(tmp_path / folder / "wal")
    with pytest.raises(StoredFileNotFoundError, match="c000001") as raised:
        db.close()
    (note,) = raised.value.__notes__
    assert "c000002" in note
    for handle in handles:
        with pytest.raises(ClosedError):
            handle.upsert([2], vectors=VECTORS)
    db.close()  # does nothing more
    with Database(tmp_path) as db:
        assert db.collection("c").count() == 1


USES: dict[str, Callable[[Collection], object]] = {
    "upsert": lambda points: points.upsert([1], vectors=VECTORS),
    "delete": lambda points: points.delete(ids=[1]),
    "delete by filter": lambda points: points.delete(filter={}),
    "bulk": lambda points: points.bulk(),
    "flush": lambda points: points.flush(),
    "search": lambda points: points.search(vector=VECTORS[0]),
    "search_batch": lambda points: points.search_batch(vectors=VECTORS),
    "get": lambda points: points.get([1]),
    "count": lambda points: points.count(),
    "info": lambda points: points.info(),
    "ask": lambda points: points.ask("what?"),
    "scrub": lambda points: points.scrub(Throttle(1 << 40, threading.Event())),
}


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_a_handle_that_is_kept_answers_no_more(
    tmp_path: Path, use: Callable[[Collection], object]
) -> None:
    """Its files are gone, or may by now belong to another process."""
    with Database(tmp_path) as db:
        dropped = db.create_collection("points", dim=2)
        db.drop_collection("points")
        with pytest.raises(CollectionNotFoundError, match="'points' was dropped"):
            use(dropped)
        closed = db.create_collection("points", dim=2)
        closed.upsert([1], vectors=VECTORS)
    with pytest.raises(ClosedError, match="the database was closed") as raised:
        use(closed)
    assert raised.type is ClosedError


def test_a_drop_that_the_disk_fails_leaves_no_handle_whose_writes_are_lost() -> None:
    call, over = 0, False
    while not over:
        disk = SimulatedDisk()
        db = opened(disk)
        points = db.create_collection("points", dim=2)
        disk.faults = Faults(error_at=disk.calls + call)
        written = False
        with suppress(VecdbError):
            db.drop_collection("points")
        with suppress(VecdbError):
            points.upsert([1], vectors=VECTORS)
            written = True
        over = disk.calls <= (disk.faults.error_at or 0)
        disk.faults = Faults()
        db.close()
        with opened(disk) as db:
            names = db.list_collections()
            assert not written or db.collection("points").count() == 1
            assert len(folders(disk)) == 1 + len(names)
        call += 1
    assert call > 10


def test_of_the_catalog_only_the_newest_is_kept(tmp_path: Path) -> None:
    with Database(tmp_path) as db:
        for _ in range(3):
            db.create_collection("points", dim=2)
            db.drop_collection("points")
    assert len(list((tmp_path / "catalog").iterdir())) == 2
    log = ManifestLog.open(PosixStore(tmp_path).within("catalog"))  # as earlier versions left it
    assert log.latest is not None
    log.publish(log.latest.body)
    for file in (tmp_path / "catalog").glob("*6.*"):
        file.write_bytes(b"damaged")
    with Database(tmp_path):
        names = sorted(file.name for file in (tmp_path / "catalog").iterdir())
        assert names == ["0000000007.copy", "0000000007.json"]


def test_a_restored_collection_gets_a_folder_that_no_other_had(tmp_path: Path) -> None:
    data, backups = tmp_path / "data", tmp_path / "backups"
    with Database(data) as db:
        db.create_collection("kept", dim=2)
        for _ in range(3):
            db.create_collection("dropped", dim=2)
            db.drop_collection("dropped")
        db.backup(backups)
    vecdb.restore(backups, data, replace=True)
    assert sorted(folder.name for folder in data.glob("c0*")) == ["c000005"]
    with Database(data) as db:
        db.create_collection("next", dim=2)
    assert sorted(folder.name for folder in data.glob("c0*")) == ["c000005", "c000006"]


def test_the_lock_is_given_back_when_the_collections_are_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    db = Database(tmp_path)
    points = db.create_collection("c", dim=2)
    close, tried = points.close, []

    def try_to_open() -> None:
        with pytest.raises(DirectoryLockedError):
            DirectoryLock.acquire(tmp_path)
        tried.append(True)
        close()

    monkeypatch.setattr(points, "close", try_to_open)
    db.close()
    assert tried
    DirectoryLock.acquire(tmp_path).release()


def test_a_dropped_collection_leaves_no_files(tmp_path: Path) -> None:
    with Database(tmp_path) as db:
        db.create_collection("c", dim=2).upsert([1], vectors=VECTORS)
        assert (tmp_path / "c000001").exists()
        db.drop_collection("c")
        assert not (tmp_path / "c000001").exists()


def test_what_a_restore_was_building_is_not_opened(tmp_path: Path) -> None:
    PosixStore(tmp_path).put("RESTORING", b"c000001\n")
    with pytest.raises(FailedPreconditionError, match="restore"):
        Database(tmp_path)


def test_a_ping_says_whether_the_database_is_open(tmp_path: Path) -> None:
    with Database(tmp_path) as db:
        db.ping()
    with pytest.raises(ClosedError):
        db.ping()


@pytest.mark.parametrize("url", ["http://user:secret@host:1", "GRPC://host", "grpc+tls://host"])
def test_a_url_of_another_kind_is_no_directory(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidParameterError, match="grpc://host:port") as caught:
        vecdb.connect(url)
    assert "secret" not in str(caught.value)
    assert not list(tmp_path.iterdir())

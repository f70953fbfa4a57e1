"""Backups: what is copied, what is kept, and what comes back."""

from __future__ import annotations

import hashlib
import os
import threading
from pathlib import Path
from typing import Any

import pytest

import vecdb
from tests.backed_up import DIM, VECTORS, everything, flip, made_of_everything, put
from tests.housekeeping import NoHousekeeping
from vecdb.backup import list_backups
from vecdb.collection import Collection
from vecdb.database import Database
from vecdb.errors import (
    AlreadyExistsError,
    ClosedError,
    CorruptFileError,
    DirectoryLockedError,
    DiskFullError,
    InvalidArgumentError,
    InvalidParameterError,
    NotFoundError,
    VecdbError,
)
from vecdb.storage import PosixStore, check_directory
from vecdb.storage.backup import BackupDirectory


@pytest.fixture(autouse=True)
def _no_housekeeping(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vecdb.database.Housekeeping", NoHousekeeping)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def backups(tmp_path: Path) -> Path:
    return tmp_path / "backups"


@pytest.fixture
def db(data: Path) -> Any:
    with Database(data, durability="os") as database:
        yield database


@pytest.fixture
def points(db: Database) -> Collection:
    return made_of_everything(db)


def test_what_was_backed_up_comes_back(
    db: Database, points: Collection, backups: Path, tmp_path: Path
) -> None:
    expected = everything(points)
    texts = db.create_collection("empty", dim=3, metric="l2")
    info = db.backup(backups)
    assert (info.number, info.points) == (1, {"points": 3_598, "empty": 0})
    assert info.new_files == info.files > 0
    put(points, 5_000, 5_100)  # later than the backup
    assert vecdb.restore(backups, tmp_path / "restored") == info
    assert check_directory(PosixStore(tmp_path / "restored")).ok
    with Database(tmp_path / "restored") as again:
        assert again.list_collections() == ["empty", "points"]
        assert everything(again.collection("points")) == expected
        assert again.collection("empty").settings == texts.settings
        assert again.collection("points").info().indexed == 2_999
        put(again.collection("points"), 5_500, 5_600)
        again.create_collection("new", dim=2)
    with Database(tmp_path / "restored") as again:
        assert again.collection("points").count() == 3_698


def test_only_new_files_are_copied(db: Database, points: Collection, backups: Path) -> None:
    first = db.backup(backups)
    files = set((backups / "files").iterdir())
    assert len(files) == first.new_files == 4  # data, index, data, log
    second = db.backup(backups)
    assert (second.number, second.new_files, second.new_bytes) == (2, 0, 0)
    assert (second.files, second.bytes) == (first.files, first.bytes)
    assert set((backups / "files").iterdir()) == files

    put(points, 4_000, 4_001)
    third = db.backup(backups)
    assert third.new_files == 1  # the log
    points.maintenance.seal()
    fourth = db.backup(backups)
    assert fourth.new_files == 3  # a segment, and tombstones of the two others
    added = third.new_files + fourth.new_files
    assert len(list((backups / "files").iterdir())) == first.new_files + added
    assert [info.damage for info in list_backups(backups, verify=True)] == [None] * 4


def test_what_an_interrupted_backup_copied_is_not_copied_again(
    db: Database, points: Collection, backups: Path
) -> None:
    class StopError(Exception):
        """Somebody pressed a key."""

    copied: list[int] = []

    def step(size: int) -> None:
        copied.append(size)
        if len(copied) == 2:
            raise StopError

    with pytest.raises(StopError):
        db.backup_to(PosixStore(backups), step=step)
    assert db.list_backups(backups) == []
    info = db.backup(backups)
    assert (info.files, info.new_files) == (4, 3)
    assert [one.damage for one in list_backups(backups, verify=True)] == [None]


def test_a_closed_and_reopened_database_has_nothing_new(data: Path, backups: Path) -> None:
    with Database(data) as db:
        put(db.create_collection("points", dim=DIM), 0, 100)
        assert db.backup(backups).new_files == 1
    for _ in range(2):
        with Database(data) as again:
            assert again.backup(backups).new_files == 0


def test_old_backups_go_with_the_files_that_only_they_had(
    db: Database, points: Collection, backups: Path, tmp_path: Path
) -> None:
    for n in range(4):
        put(points, 4_000 + n, 4_001 + n)
        db.backup(backups)
    expected = everything(points)
    points.flush()
    kept = db.backup(backups, keep=2)
    assert [info.number for info in db.list_backups(backups)] == [4, 5]
    needed = {f"{digest}" for number in (4, 5) for digest in _read(backups, number).files}
    assert {file.name for file in (backups / "files").iterdir()} == needed
    vecdb.restore(backups, tmp_path / "r4", number=4)
    vecdb.restore(backups, tmp_path / "r5")
    for restored in ("r4", "r5"):
        with Database(tmp_path / restored) as again:
            assert everything(again.collection("points")) == expected
    assert db.backup(backups, keep=1).number == kept.number + 1
    with pytest.raises(NotFoundError, match="no backup 4"):
        vecdb.restore(backups, tmp_path / "r6", number=4)
    with pytest.raises(InvalidParameterError, match="keep=0"):
        db.backup(backups, keep=0)


def _read(backups: Path, number: int | None = None) -> Any:
    return BackupDirectory(PosixStore(backups)).read(number)


def test_nothing_is_deleted_under_a_backup(db: Database, points: Collection, backups: Path) -> None:
    """Everything is sealed, merged and dropped while the first file is copied."""
    expected = everything(points)
    copied: list[int] = []

    def step(size: int) -> None:
        if not copied:
            put(points, 4_000, 4_500)
            points.delete(ids=range(1_000))
            points.flush()
            points.flush()
        copied.append(size)

    db.backup_to(PosixStore(backups), step=step)
    files = {file.name for file in (Path(db._store.location()) / "c000001/segments").iterdir()}
    assert files == {name.removeprefix("segments/") for name in points.maintenance.stored.files}
    vecdb.restore(backups, backups.parent / "restored")
    with Database(backups.parent / "restored") as again:
        assert everything(again.collection("points")) == expected


def test_what_is_kept_for_a_backup_counts_as_disk_space(points: Collection) -> None:
    def on_disk() -> int:
        store = points.maintenance._store
        return sum(store.size(name) for name in store.list("segments"))

    with points.maintenance.hold():
        points.delete(ids=range(0, points.count(), 2))
        points.flush()
        info = points.info()
        assert info.disk_bytes - info.log_bytes == on_disk()
        assert points.maintenance.versions.holds.bytes > 0
    info = points.info()
    assert info.disk_bytes - info.log_bytes == on_disk()
    assert points.maintenance.versions.holds.bytes == 0


def test_a_backup_beside_writers_is_one_moment(db: Database, backups: Path, tmp_path: Path) -> None:
    """Every batch acknowledged before it is there, none in part, and no gap in one writer's."""
    points = db.create_collection("c", dim=DIM)
    acknowledged = [0]
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set() and acknowledged[0] < len(VECTORS):
            put(points, acknowledged[0], acknowledged[0] + 10)
            acknowledged[0] += 10

    def improve() -> None:
        while not stop.is_set():
            points.flush()

    threads = [threading.Thread(target=write), threading.Thread(target=improve)]
    for thread in threads:
        thread.start()
    try:
        before = []
        for _ in range(4):
            before.append(acknowledged[0])
            db.backup(backups)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    for number, least in enumerate(before, 1):
        vecdb.restore(backups, tmp_path / f"r{number}", number=number)
        with Database(tmp_path / f"r{number}") as again:
            records = everything(again.collection("c"))
        assert [record[0] for record in records] == list(range(len(records)))
        assert len(records) >= least
        assert len(records) % 10 == 0


def test_a_bulk_load_is_in_a_backup_whole_or_not_at_all(
    db: Database, points: Collection, backups: Path, tmp_path: Path
) -> None:
    """The load comes when the backup is about to look at the collection."""

    class Turn:
        """The turns of the collection's writers; a load gets in before whoever comes first."""

        def __init__(self, turns: Any) -> None:
            self.turns = turns
            self.armed = True

        def __enter__(self) -> None:
            if self.armed:
                self.armed = False
                with points.bulk() as load:
                    load.add(range(5_000, 5_500), vectors=VECTORS[5_000:5_500])
            self.turns.__enter__()

        def __exit__(self, *exception: object) -> None:
            self.turns.__exit__(*exception)

    points.maintenance._turns = Turn(points.maintenance._turns)  # type: ignore[assignment]
    info = db.backup(backups)
    assert info.points == {"points": 4_098}
    vecdb.restore(backups, tmp_path / "r")
    with Database(tmp_path / "r") as again:
        assert everything(again.collection("points")) == everything(points)


def test_a_collection_dropped_meanwhile_is_left_out(
    db: Database, points: Collection, backups: Path
) -> None:
    db.create_collection("a-first", dim=2)
    put(points, 3_600, 3_700)
    dropper = threading.Thread(target=lambda: db.drop_collection("points"))

    def step(size: int) -> None:
        if not dropper.ident:
            dropper.start()
            while "points" in db._collections:
                pass

    info = db.backup_to(PosixStore(backups), step=step)
    dropper.join()
    assert info.points == {"a-first": 0}


def test_closing_ends_a_backup(db: Database, points: Collection, backups: Path) -> None:
    db.backup(backups)
    put(points, 4_000, 4_100)
    closer = threading.Thread(target=db.close)

    def step(size: int) -> None:
        if not closer.ident:
            closer.start()
            while not points.maintenance.versions.holds._stopped:
                pass

    with pytest.raises(ClosedError):
        db.backup_to(PosixStore(backups), step=step)
    closer.join()
    assert [info.number for info in list_backups(backups, verify=True)] == [1]
    with pytest.raises(ClosedError):
        db.backup(backups)


def test_a_collection_that_takes_no_writes_is_backed_up(
    db: Database, points: Collection, backups: Path, tmp_path: Path
) -> None:
    expected = everything(points)
    points.stop_writing(VecdbError("the disk failed"))
    db.backup(backups)
    vecdb.restore(backups, tmp_path / "r")
    with Database(tmp_path / "r") as again:
        assert everything(again.collection("points")) == expected


def test_a_damaged_index_is_left_out_and_damaged_data_refused(
    db: Database, points: Collection, data: Path, backups: Path, tmp_path: Path
) -> None:
    (index,) = data.glob("c000001/segments/*.index")
    flip(index, 1_000)
    info = db.backup(backups)
    assert info.files == 3
    vecdb.restore(backups, tmp_path / "r")
    with Database(tmp_path / "r") as again:
        assert again.collection("points").count() == 3_598
        assert again.collection("points").info().indexed == 0
        again.collection("points").flush()
        assert again.collection("points").info().indexed == 2_999
    flip(max(data.glob("c000001/segments/*.data")), 1_000)
    with pytest.raises(CorruptFileError, match="segments"):
        db.backup(tmp_path / "other")  # not the first directory: that has the sound file already
    assert db.list_backups(tmp_path / "other") == []
    db.close()
    with Database(data) as again, pytest.raises(CorruptFileError, match="all collections or none"):
        again.backup(backups)


def test_where_a_backup_may_not_go(db: Database, data: Path, backups: Path) -> None:
    for inside in (data, data / "backups", data / ".." / "data" / "x"):
        with pytest.raises(InvalidArgumentError, match="outside"):
            db.backup(inside)
    held = PosixStore(backups).lock()
    with pytest.raises(DirectoryLockedError):
        db.backup(backups)
    held.release()
    assert db.backup(backups).number == 1


# Restore


def test_a_restore_refuses_what_it_would_destroy(
    db: Database, points: Collection, data: Path, backups: Path, tmp_path: Path
) -> None:
    db.backup(backups)
    with pytest.raises(DirectoryLockedError):
        vecdb.restore(backups, data, replace=True)
    full = tmp_path / "full"
    full.mkdir()
    (full / "thesis.txt").write_text("mine")
    with pytest.raises(AlreadyExistsError, match=r"thesis\.txt.*--replace"):
        vecdb.restore(backups, full)
    assert [file.name for file in full.iterdir() if file.name != "LOCK"] == ["thesis.txt"]
    put(points, 4_000, 4_100)
    db.close()
    vecdb.restore(backups, data, replace=True)
    with Database(data) as again:
        assert again.collection("points").count() == 3_598
    vecdb.restore(backups, full, replace=True)
    assert (full / "thesis.txt").read_text() == "mine"


def test_a_restore_over_a_damaged_catalog(
    db: Database, points: Collection, data: Path, backups: Path
) -> None:
    db.backup(backups)
    db.close()
    for file in (data / "catalog").iterdir():
        flip(file, 200)
    with pytest.raises(CorruptFileError):
        Database(data)
    vecdb.restore(backups, data, replace=True)
    with Database(data) as again:
        assert again.collection("points").count() == 3_598
        again.create_collection("another", dim=2)
    assert check_directory(PosixStore(data)).ok


def test_where_there_is_no_backup(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no backups"):
        vecdb.restore(tmp_path / "nowhere", tmp_path / "data")
    assert list(tmp_path.iterdir()) == []
    assert list_backups(tmp_path / "nowhere") == []


def test_a_restore_without_room_changes_nothing(
    db: Database, points: Collection, backups: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    db.backup(backups)
    monkeypatch.setattr(PosixStore, "free_bytes", lambda _: 1_000)
    with pytest.raises(DiskFullError, match="1000"):
        vecdb.restore(backups, tmp_path / "r")
    assert [file.name for file in (tmp_path / "r").iterdir()] == ["LOCK"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_restore_from_a_folder_that_cannot_be_written_to(
    db: Database, points: Collection, backups: Path, tmp_path: Path
) -> None:
    db.backup(backups)
    (backups / "LOCK").chmod(0o444)
    vecdb.restore(backups, tmp_path / "r")


def test_a_restore_locks_the_backups(
    db: Database, points: Collection, backups: Path, tmp_path: Path
) -> None:
    db.backup(backups)
    held = PosixStore(backups).lock()
    with pytest.raises(DirectoryLockedError):
        vecdb.restore(backups, tmp_path / "r")
    held.release()
    vecdb.restore(backups, tmp_path / "r")


def test_tombstones_that_are_held_are_not_replaced(db: Database) -> None:
    points = db.create_collection("c", dim=DIM)
    put(points, 0, 4)
    points.maintenance.seal()
    points.delete(ids=[0])
    points.maintenance.seal()
    with points.maintenance.hold() as held:
        ref = held.stored.segments[0].tombstones
        assert ref is not None
        points.delete(ids=[1])
        points.maintenance.seal()
        assert hashlib.sha256(held.store.read(ref.name)).hexdigest() == ref.sha256

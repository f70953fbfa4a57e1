"""Power loss, death, an I/O error, a full disk at every storage call of a backup, a restore."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from tests.housekeeping import NoHousekeeping
from tests.storage.faulty import ROOT, Faults, PowerLossError, SimulatedDisk, outcomes
from vecdb.database import Database
from vecdb.errors import AlreadyExistsError, FailedPreconditionError, NotFoundError, VecdbError
from vecdb.restoring import restore_store
from vecdb.storage import PosixStore, check_directory
from vecdb.storage.backup import BackupDirectory
from vecdb.storage.store import Durability

BACKUPS = Path("/backups")
TARGET = Path("/restored/data")
VECTORS = np.random.default_rng(0).random((100, 4), np.float32)

Contents = dict[str, set[int]]
Sweep = Callable[[Callable[[int], bool]], None]
FIRST: Contents = {"points": set(range(60)) - {3, 4}, "few": {1}}
SECOND: Contents = {"points": set(range(80)) - {3, 4, 10, 65}, "few": {1}}
OTHER: Contents = {"other": {90}}


@pytest.fixture(autouse=True)
def _repeatable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vecdb.database.Housekeeping", NoHousekeeping)


def opened(disk: SimulatedDisk, root: Path = ROOT) -> Database:
    return Database("simulated", store=PosixStore(root, calls=disk))


def backups(disk: SimulatedDisk, durability: Durability = "disk") -> PosixStore:
    return PosixStore(BACKUPS, durability, calls=disk)


def upsert(database: Database, ids: range) -> None:
    database.collection("points").upsert(ids, vectors=VECTORS[ids.start : ids.stop])


def first_state(disk: SimulatedDisk) -> Database:
    """A database of two segments, tombstones and a log."""
    database = opened(disk)
    points = database.create_collection("points", dim=4)
    upsert(database, range(30))
    points.delete(ids=[3])
    points.flush()
    upsert(database, range(30, 60))
    points.delete(ids=[4])
    database.create_collection("few", dim=4).upsert([1], vectors=VECTORS[:1])
    return database


def second_state(database: Database) -> None:
    database.collection("points").maintenance.seal()
    upsert(database, range(60, 80))
    database.collection("points").delete(ids=[10, 65])


def contents(database: Database) -> Contents:
    """Return which points there are, having compared what can be compared."""
    found: Contents = {}
    for name in database.list_collections():
        points = database.collection(name)
        records = points.get(list(range(100)))
        ids = {int(record.id) for record in records}
        assert points.count() == len(ids)
        if name == "points":
            for record in records:
                assert record.vector.tolist() == VECTORS[int(record.id)].tolist()
            hits = points.search(vector=VECTORS[0], k=100)
            assert {hit.id for hit in hits} == ids
        found[name] = ids
    return found


def held_by(disk: SimulatedDisk, root: Path) -> Contents:
    with opened(disk, root) as database:
        return contents(database)


def restored(disk: SimulatedDisk, number: int, target: Path) -> Contents:
    restore_store(backups(disk), PosixStore(target, calls=disk), number=number)
    assert check_directory(PosixStore(target, calls=disk)).ok
    return held_by(disk, target)


def survivors(disk: SimulatedDisk, seed: int) -> Iterator[SimulatedDisk]:
    for keep in outcomes(seed)[:3]:
        yield disk.after_power_loss(keep)
    yield disk.after_kill()


# Backup


def check_backups(disk: SimulatedDisk, *, told: bool) -> None:
    numbers = BackupDirectory(backups(disk)).numbers()
    assert numbers in ([1, 2], [1]) if not told else numbers == [1, 2]
    assert restored(disk, 1, Path("/r1")) == FIRST
    if 2 in numbers:
        assert restored(disk, 2, Path("/r2")) == SECOND
    assert held_by(disk, ROOT) == SECOND


def run_backup(
    faults: Callable[[int], Faults],
    kind: type[SimulatedDisk] = SimulatedDisk,
    durability: Durability = "disk",
) -> tuple[SimulatedDisk, Database, bool, bool]:
    """Take a first backup, change things, and take a second one under faults.

    Returns the disk, the database, whether the second backup was done, and whether the fault came
    too late to matter.
    """
    disk = kind()
    database = first_state(disk)
    database.backup_to(backups(disk))
    second_state(database)
    start = disk.calls
    disk.faults = faults(start)
    told = False
    with suppress(PowerLossError, VecdbError):
        database.backup_to(backups(disk, durability))
        told = True
    over = disk.calls <= max(disk.faults.stop_at or 0, disk.faults.error_at or 0)
    return disk, database, told, over


@pytest.fixture(params=[4, pytest.param(1, marks=pytest.mark.slow)], ids=["some", "all"])
def every(request: pytest.FixtureRequest) -> Sweep:
    """Returns what calls a function with 0, 1, 2, ..., until it says that this was past the end."""

    def sweep(run: Callable[[int], bool]) -> None:
        number = 0
        while not run(number):
            number += request.param
        assert number > 20, "the sweep is too short to mean anything"

    return sweep


def test_a_backup_that_power_loss_or_death_stops_leaves_the_others(every: Sweep) -> None:
    def run(call: int) -> bool:
        disk, _, told, over = run_backup(lambda start: Faults(stop_at=start + call))
        for survivor in survivors(disk, call):
            check_backups(survivor, told=told)
        return over

    every(run)


def test_what_a_killed_backup_left_is_durable_before_the_next_one_counts_on_it(
    every: Sweep,
) -> None:
    """The files are there already, but whether their names are on the disk nobody knows."""

    def run(call: int) -> bool:
        disk = SimulatedDisk()
        with first_state(disk) as database:
            for name in FIRST:  # no log, which the next process would write and copy anew
                database.collection(name).maintenance.seal()
        database = opened(disk)
        disk.faults = Faults(stop_at=disk.calls + call)
        with suppress(PowerLossError):
            database.backup_to(backups(disk))
        over = disk.calls <= (disk.faults.stop_at or 0)
        killed = disk.after_kill()
        with opened(killed) as database:
            again = database.backup_to(backups(killed))
        survivor = killed.after_power_loss(lambda: False)
        assert restored(survivor, again.number, Path("/r")) == FIRST
        return over

    every(run)


def test_a_backup_that_an_error_stops_leaves_the_others_and_the_database_at_work(
    every: Sweep,
) -> None:
    def run(call: int) -> bool:
        disk, database, told, over = run_backup(lambda start: Faults(error_at=start + call))
        disk.faults = Faults()
        database.collection("points").upsert([99], vectors=VECTORS[99:])  # still takes writes
        again = database.backup_to(backups(disk))
        assert again.number == (3 if told or 2 in _numbers(disk, again.number) else 2)
        database.close()
        for survivor in survivors(disk, call):
            assert restored(survivor, 1, Path("/r1")) == FIRST
            expected = {**SECOND, "points": SECOND["points"] | {99}}
            assert restored(survivor, again.number, Path("/r3")) == expected
        return over

    every(run)


def _numbers(disk: SimulatedDisk, before: int) -> list[int]:
    return [n for n in BackupDirectory(backups(disk)).numbers() if n < before]


@pytest.mark.parametrize("call", range(0, 45, 3))
def test_a_full_disk_stops_a_backup_and_nothing_else(call: int) -> None:
    disk, database, told, _ = run_backup(lambda start: Faults(full_from=start + call))
    disk.faults = Faults()
    assert contents(database) == SECOND
    again = database.backup_to(backups(disk))
    assert again.number == 2 + told
    assert restored(disk.after_power_loss(lambda: False), again.number, Path("/r")) == SECOND


# Restore


def run_restore(
    faults: Callable[[int], Faults], *, replace: bool
) -> tuple[SimulatedDisk, bool, bool]:
    disk = SimulatedDisk()
    with first_state(disk) as database:
        database.backup_to(backups(disk))
    if replace:
        with opened(disk, TARGET) as database:
            database.create_collection("other", dim=4).upsert([90], vectors=VECTORS[90:91])
    disk.faults = faults(disk.calls)
    told = False
    with suppress(PowerLossError, VecdbError):
        restore_store(backups(disk), PosixStore(TARGET, calls=disk), replace=replace)
        told = True
    over = disk.calls <= max(disk.faults.stop_at or 0, disk.faults.error_at or 0)
    return disk, told, over


def check_restored(disk: SimulatedDisk, *, told: bool, replace: bool) -> None:
    """Look at what a restore left: what was there before, or all of the backup."""
    try:
        found = held_by(disk, TARGET)
    except FailedPreconditionError:  # interrupted, and says so
        assert not replace
        found = {}
    if told:
        assert found == FIRST
    else:
        assert found in (FIRST, OTHER if replace else {})
    if found != FIRST:  # and it can be done again
        again = replace or any(PosixStore(TARGET, calls=disk).list("catalog"))
        restore_store(backups(disk), PosixStore(TARGET, calls=disk), replace=again)
        assert held_by(disk, TARGET) == FIRST
    assert check_directory(PosixStore(TARGET, calls=disk)).ok
    folders = {name.split("/")[0] for name in PosixStore(TARGET, calls=disk).list()}
    assert len(folders) == 3, "something is left over"  # the catalog and two collections


@pytest.mark.parametrize("replace", [False, True])
def test_power_loss_or_death_during_a_restore(every: Sweep, replace: bool) -> None:
    def run(call: int) -> bool:
        disk, told, over = run_restore(lambda start: Faults(stop_at=start + call), replace=replace)
        for survivor in survivors(disk, call):
            check_restored(survivor, told=told, replace=replace)
        return over

    every(run)


@pytest.mark.parametrize("replace", [False, True])
def test_an_error_during_a_restore(every: Sweep, replace: bool) -> None:
    def run(call: int) -> bool:
        disk, told, over = run_restore(lambda start: Faults(error_at=start + call), replace=replace)
        for survivor in survivors(disk, call):
            check_restored(survivor, told=told, replace=replace)
        return over

    every(run)


@pytest.mark.parametrize("replace", [False, True])
@pytest.mark.parametrize("call", range(0, 60, 6))
def test_a_full_disk_during_a_restore(call: int, replace: bool) -> None:
    disk, told, _ = run_restore(lambda start: Faults(full_from=start + call), replace=replace)
    after = disk.after_kill()
    check_restored(after, told=told, replace=replace)


def test_a_restore_again_needs_no_replace_when_the_first_was_interrupted() -> None:
    disk, told, _ = run_restore(lambda start: Faults(stop_at=start + 60), replace=False)
    assert not told
    disk = disk.after_power_loss(lambda: True)
    with pytest.raises(FailedPreconditionError, match="interrupted"):
        opened(disk, TARGET)
    report = check_directory(PosixStore(TARGET, calls=disk))
    assert not report.ok
    assert "cut short: run it again" in str(report)
    assert restored(disk, 1, TARGET) == FIRST
    with pytest.raises(AlreadyExistsError, match="--replace"):
        restored(disk, 1, TARGET)


# Negative controls: the sweep finds a backup that keeps no promise.


class TornNames(SimulatedDisk):
    """A disk on which giving a file its name copies it, as a move between file systems does."""

    def link(self, source: Path, target: Path) -> None:
        content = self.read(source, 0, -1)
        self.write(self.create(target), [memoryview(content)])


@pytest.mark.parametrize(
    ("kind", "durability"),
    [(SimulatedDisk, "os"), (TornNames, "disk")],
    ids=["no fsync", "no atomic names"],
)
def test_the_sweep_finds_a_broken_promise(
    kind: type[SimulatedDisk], durability: Durability
) -> None:
    def is_broken(call: int) -> bool:
        disk, _, told, _ = run_backup(lambda start: Faults(stop_at=start + call), kind, durability)
        rng = random.Random(call)
        for keep in (lambda: False, lambda: rng.random() < 0.5):
            try:
                check_backups(disk.after_power_loss(keep), told=told)
            except (AssertionError, VecdbError, NotFoundError):
                return True
        return False

    assert any(is_broken(call) for call in range(60))

"""Power loss, death and an I/O error at every storage call of a database's life."""

from __future__ import annotations

import random
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np
import pytest

from tests.storage.faulty import ROOT, Faults, PowerLossError, SimulatedDisk
from vecdb.database import Database
from vecdb.errors import VecdbError
from vecdb.storage import PosixStore

VECTORS = np.random.default_rng(0).random((80, 4), np.float32)


@dataclass
class Told:
    """What the caller was told: the points there are, and those of a call that never returned."""

    created: bool = False
    live: set[int] = field(default_factory=set)
    unknown: set[int] = field(default_factory=set)


def open_database(disk: SimulatedDisk) -> Database:
    return Database("simulated", store=PosixStore(ROOT, calls=disk))


def live(disk: SimulatedDisk, told: Told) -> None:
    database = open_database(disk)
    try:
        script(database, told)
    finally:
        # Whoever meets an error may try again, as housekeeping does.
        for name in database.list_collections():
            with suppress(PowerLossError, VecdbError):
                database.collection(name).flush()
        with suppress(PowerLossError, VecdbError):
            database.close()


def script(database: Database, told: Told) -> None:
    points = database.create_collection("points", dim=4)
    told.created = True

    def upsert(first: int, last: int) -> None:
        told.unknown = set(range(first, last))
        points.upsert(list(range(first, last)), vectors=VECTORS[first:last])
        told.live |= told.unknown
        told.unknown = set()

    def delete(*ids: int) -> None:
        told.unknown = set(ids)
        points.delete(ids=list(ids))
        told.live -= told.unknown
        told.unknown = set()

    upsert(0, 50)
    delete(3, 4)
    upsert(50, 60)
    points.flush()
    upsert(60, 70)
    delete(0, 65)
    points.flush()
    upsert(70, 80)
    points.flush()


def stopped(faults: Faults) -> tuple[SimulatedDisk, Told]:
    disk, told = SimulatedDisk(faults), Told()
    with suppress(PowerLossError, VecdbError):
        live(disk, told)
    return disk, told


def check(disk: SimulatedDisk, told: Told) -> None:
    database = open_database(disk)
    if "points" not in database.list_collections():
        assert not told.created
        database.close()
        return
    points = database.collection("points")
    found = {int(record.id) for record in points.get(list(range(80)))}
    assert found >= told.live - told.unknown
    assert found <= told.live | told.unknown
    assert told.unknown & found in (told.unknown, set()), "part of a batch"
    assert points.count() == len(found)
    if found:
        hits = points.search(vector=VECTORS[min(found)], k=80)
        assert {hit.id for hit in hits} == found
    database.close()


# The housekeeping threads go on for a moment after the machine has stopped.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("fault", ["stop_at", "error_at"])
def test_nothing_acknowledged_is_lost_wherever_it_stops(
    fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    calls = stopped(Faults())[0].calls
    for call in range(calls):
        disk, told = stopped(Faults(**{fault: call}))
        rng = random.Random(call)
        check(disk.after_power_loss(lambda: False), told)
        check(disk.after_power_loss(lambda rng=rng: rng.random() < 0.5), told)
        check(disk.after_kill(), told)


class Writer(threading.Thread):
    """One of several who write at once: five batches, of which the third goes again."""

    def __init__(self, database: Database, number: int) -> None:
        super().__init__()
        self._database = database
        self._ids = range(20 * number, 20 * number + 20)
        self.told = Told()

    def run(self) -> None:
        points, told = self._database.collection("points"), self.told
        with suppress(PowerLossError, VecdbError):
            for first in range(self._ids.start, self._ids.stop, 4):
                told.unknown = set(range(first, first + 4))
                points.upsert(list(told.unknown), vectors=VECTORS[list(told.unknown)])
                told.live |= told.unknown
            told.unknown = set(self._ids[8:12])
            points.delete(ids=list(told.unknown))
            told.live -= told.unknown
            told.unknown = set()


class SlowDisk(SimulatedDisk):
    """Takes its time for a sync, which is of what had been written when it began."""

    def sync_data(self, descriptor: int) -> None:
        super().sync_data(descriptor)
        time.sleep(0.001)


def written_at_once(faults: Faults) -> tuple[SimulatedDisk, list[Told]]:
    disk = SlowDisk(faults)
    writers: list[Writer] = []
    with suppress(PowerLossError, VecdbError):
        database = open_database(disk)
        try:
            database.create_collection("points", dim=4)
            writers = [Writer(database, number) for number in range(4)]
            for writer in writers:
                writer.start()
            for writer in writers:
                writer.join()
        finally:
            with suppress(PowerLossError, VecdbError):
                database.close()
    return disk, [writer.told for writer in writers]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("fault", ["stop_at", "error_at"])
def test_writers_that_share_a_sync_lose_nothing_either(
    fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    calls = written_at_once(Faults())[0].calls
    assert calls > 40
    for call in range(calls):
        disk, told = written_at_once(Faults(**{fault: call}))
        rng = random.Random(call)
        for after in (
            disk.after_power_loss(lambda: False),
            disk.after_power_loss(lambda rng=rng: rng.random() < 0.5),
            disk.after_kill(),
        ):
            check_each(after, told)


def check_each(disk: SimulatedDisk, writers: list[Told]) -> None:
    """Compare what is there with what each writer was told."""
    database = open_database(disk)
    if "points" in database.list_collections():
        found = {int(r.id) for r in database.collection("points").get(list(range(80)))}
        for told in writers:
            assert found >= told.live - told.unknown
            assert told.unknown & found in (told.unknown, set()), "part of a batch"
        assert found <= set().union(*(told.live | told.unknown for told in writers))
    else:
        assert not writers
    database.close()

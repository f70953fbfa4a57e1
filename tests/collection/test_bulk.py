"""Bulk loads: all of it or nothing, in place of what has the same ids, whatever goes on beside."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.housekeeping import NoHousekeeping
from tests.storage.faulty import ROOT, Faults, PowerLossError, SimulatedDisk
from vecdb.database import Database
from vecdb.errors import (
    ClosedError,
    DiskLimitError,
    DuplicateIdError,
    EmptyBatchError,
    InvalidIdError,
    InvalidVectorError,
    LengthMismatchError,
    MemoryLimitError,
    VecdbError,
)
from vecdb.storage import PosixStore, check_directory

DIM = 8


def vectors(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, DIM)).astype(np.float32)


def payloads(count: int, version: int) -> list[dict[str, int]]:
    return [{"v": version}] * count


def versions(points: Any, ids: Any) -> dict[Any, int]:
    return {record.id: record.payload["v"] for record in points.get(ids)}


@pytest.fixture
def small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vecdb.collection.bulk._BUFFERED_BYTES", 4_000)


@pytest.mark.usefixtures("small_segments")
def test_a_load_is_as_good_as_an_upsert(tmp_path: Path) -> None:
    base = vectors(3_000)
    ids = [f"s{i}" if i % 3 else i for i in range(3_000)]
    texts = [None if i % 5 else f"text é {i}" for i in range(3_000)]
    with Database(tmp_path / "data") as db:
        points = db.create_collection("c", dim=DIM)
        with points.bulk() as load:
            for first in range(0, 3_000, 500):
                part = slice(first, first + 500)
                load.add(ids[part], texts[part], base[part], payloads(500, 1))
            assert points.count() == 0  # nothing is seen before the end
            assert load.count == 3_000
        assert points.count() == 3_000
        same = db.create_collection("same", dim=DIM)
        same.upsert(ids, texts, base, payloads(3_000, 1))
    with Database(tmp_path / "data") as db:
        points, same = db.collection("c"), db.collection("same")
        for record, other in zip(points.get(ids), same.get(ids), strict=True):
            assert (record.id, record.text, record.payload) == (other.id, other.text, other.payload)
            np.testing.assert_array_equal(record.vector, other.vector)
        queries = vectors(10, seed=1)
        for mine, theirs in zip(
            points.search_batch(vectors=queries, k=20, ef=500),
            same.search_batch(vectors=queries, k=20, ef=500),
            strict=True,
        ):
            assert [hit.id for hit in mine] == [hit.id for hit in theirs]
        points.flush()
        assert points.count() == 3_000
    assert check_directory(PosixStore(tmp_path / "data")).ok


@pytest.mark.usefixtures("small_segments")
def test_points_of_the_same_id_are_replaced(tmp_path: Path) -> None:
    with Database(tmp_path / "data") as db:
        points = db.create_collection("c", dim=DIM)
        points.upsert(range(100), vectors=vectors(100), payloads=payloads(100, 0))
        points.flush()
        points.upsert(["a", *range(50, 150)], vectors=vectors(101), payloads=payloads(101, 1))
        points.delete(ids=[0, 60])
        with points.bulk() as load:
            load.add(range(40, 120), vectors=vectors(80), payloads=payloads(80, 2))
            load.add(["a", 110, *range(119, 220)], None, vectors(103), payloads(103, 3))
        expected: dict[Any, int] = dict.fromkeys(range(1, 40), 0)
        expected |= dict.fromkeys(range(40, 119), 2) | dict.fromkeys(range(119, 220), 3)
        expected |= {"a": 3, 110: 3}
        assert versions(points, ["a", *range(250)]) == expected
        assert points.count() == len(expected)
        points.upsert([111], vectors=vectors(1), payloads=payloads(1, 4))
        points.delete(ids=[112])
        expected[111] = 4
        del expected[112]
    with Database(tmp_path / "data") as db:
        points = db.collection("c")
        assert versions(points, ["a", *range(250)]) == expected
        points.flush()
        assert versions(points, ["a", *range(250)]) == expected
        found = {hit.id for hit in points.search(vector=vectors(1)[0], k=1_000)}
        assert found == set(expected)


@pytest.mark.usefixtures("small_segments")
def test_a_load_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def load_and_then(load: Any, bad: dict[str, Any]) -> None:
        with load:
            load.add(range(2_000), vectors=vectors(2_000))
            assert files()
            load.add(**bad)

    def files() -> list[str]:
        return sorted(str(f) for f in tmp_path.rglob("*.data"))

    with Database(tmp_path / "data") as db:
        points = db.create_collection("c", dim=DIM)
        points.upsert([1], vectors=vectors(1), payloads=payloads(1, 0))
        for bad, error in (
            ({"ids": [5], "vectors": [[np.nan] * DIM]}, InvalidVectorError),
            ({"ids": [5, 6], "vectors": vectors(1)}, LengthMismatchError),
            ({"ids": [5, 5], "vectors": vectors(2)}, DuplicateIdError),
            ({"ids": [5]}, EmptyBatchError),
            ({"ids": [], "vectors": vectors(0)}, EmptyBatchError),
            ({"ids": [-5], "vectors": vectors(1)}, InvalidIdError),
            ({"ids": "abc", "vectors": vectors(3)}, InvalidIdError),
        ):
            load = points.bulk()
            with pytest.raises(error):
                load_and_then(load, bad)
            assert points.count() == 1
            assert not files()
        with pytest.raises(ClosedError, match="with"):
            load.add([1], vectors=vectors(1))
        with points.bulk():
            pass
        assert versions(points, [1]) == {1: 0}


def test_a_load_has_one_block(tmp_path: Path) -> None:
    with Database(tmp_path / "data") as db:
        points = db.create_collection("c", dim=DIM)
        load = points.bulk()
        with load:
            load.add([1, 2], vectors=vectors(2))
        points.delete(ids=[2])
        with pytest.raises(ClosedError, match="another"), load:
            load.add([3], vectors=vectors(1))
        raised = points.bulk()
        with suppress(KeyError), raised:
            raised.add([4], vectors=vectors(1))
            raise KeyError
        with pytest.raises(ClosedError, match="another"), raised:
            pass
        assert points.count() == 1
    with Database(tmp_path / "data") as db:
        assert [record.id for record in db.collection("c").get([1, 2, 3, 4])] == [1]


def test_limits_hold_for_loads(tmp_path: Path) -> None:
    with Database(tmp_path / "data", max_disk_bytes=1 << 20) as db:
        points = db.create_collection("c", dim=256)
        rows = np.ones((2_000, 256), np.float32)
        with points.bulk() as load, pytest.raises(DiskLimitError):
            load.add(range(2_000), vectors=rows)
        assert points.count() == 0


def test_limits_hold_for_all_of_a_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vecdb.collection.bulk._BUFFERED_BYTES", 200_000)
    with Database(tmp_path / "data", max_disk_bytes=1 << 20) as db:
        points = db.create_collection("c", dim=256)
        rows = np.ones((200, 256), np.float32)
        with suppress(DiskLimitError), points.bulk() as load:
            for first in range(0, 4_000, 200):
                load.add(range(first, first + 200), vectors=rows)
        assert 800 <= load.count <= 1_200
        assert points.info().disk_bytes < 1_000
        with points.bulk() as load:
            load.add(range(200), vectors=rows)
            assert points.info().disk_bytes > rows.nbytes
            told = points.info().disk_bytes
        assert points.info().disk_bytes == told
        assert points.count() == 200


def test_a_load_larger_than_the_memory_it_may_take(tmp_path: Path) -> None:
    most = 1 << 20
    rows = np.random.default_rng(0).standard_normal((5_000, 256)).astype(np.float32)
    with Database(tmp_path / "data", durability="os", max_memory_bytes=most) as db:
        points = db.create_collection("c", dim=256)
        with points.bulk() as load:
            for first in range(0, 2_000, 100):
                load.add(range(first, first + 100), vectors=rows[first : first + 100])
                assert points.info().memory_bytes < most
            load.add(range(2_000, 5_000), vectors=rows[2_000:])
            assert load.count == 5_000
        assert points.count() == 5_000
        assert points.info().memory_bytes == 0


def test_what_loads_have_gathered_counts_as_memory(tmp_path: Path) -> None:
    most = 1 << 20
    with Database(tmp_path / "data", durability="os", max_memory_bytes=most) as db:
        points = db.create_collection("c", dim=DIM)
        with ExitStack() as loading:
            loads = [loading.enter_context(points.bulk()) for _ in range(4)]
            for load in loads:
                load.add(range(20), vectors=vectors(20), texts=["x" * 10_000] * 20)
                assert points.info().memory_bytes < most
            assert points.info().memory_bytes > most / 2
            with pytest.raises(MemoryLimitError):
                points.upsert([1], vectors=vectors(1), payloads=[{"t": "x" * (most // 2)}])
        assert points.info().memory_bytes == 0
        with suppress(KeyError), points.bulk() as load:
            load.add(range(20), vectors=vectors(20), payloads=[{"t": "x" * 5_000}] * 20)
            assert points.info().memory_bytes > 20 * 5_000
            raise KeyError
        assert points.info().memory_bytes == 0
        assert points.count() == 20


@pytest.mark.usefixtures("small_segments")
def test_loads_beside_writers_and_merges(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each thread owns some ids, so that what must be there afterwards is known."""
    monkeypatch.setattr("vecdb.collection.policy.INDEXED_ROWS", 8)
    done = threading.Event()
    failures: list[BaseException] = []
    expected: dict[int, int] = {}

    def guarded(work: Any) -> None:
        try:
            work()
        except BaseException as error:
            failures.append(error)

    with Database(tmp_path / "data", durability="os") as db:
        points = db.create_collection("c", dim=DIM)

        def write() -> None:
            for version in range(150):
                points.upsert(range(20), vectors=vectors(20), payloads=payloads(20, version))
                points.delete(ids=[version % 20])

        def load() -> None:
            for version in range(12):
                with points.bulk() as loading:
                    for first in (100, 130):
                        ids = range(first, first + 40)
                        loading.add(ids, None, vectors(40), payloads(40, version))

        def merge() -> None:
            while not done.is_set():
                points.maintenance.improve(eager=True)
                hits = points.search(vector=np.ones(DIM, np.float32), k=200)
                assert len({hit.id for hit in hits}) == len(hits)
                loaded = {hit.payload["v"] for hit in hits if hit.id >= 100}
                assert len(loaded) <= 1  # one load from start to end

        merger = threading.Thread(target=guarded, args=(merge,))
        workers = [threading.Thread(target=guarded, args=(work,)) for work in (write, load)]
        for thread in (merger, *workers):
            thread.start()
        for thread in workers:
            thread.join()
        done.set()
        merger.join()
        assert not failures
        expected = dict.fromkeys(range(20), 149) | dict.fromkeys(range(100, 170), 11)
        del expected[149 % 20]
        assert versions(points, range(200)) == expected
        assert points.count() == len(expected)
    with Database(tmp_path / "data", durability="os") as db:
        assert versions(db.collection("c"), range(200)) == expected


def test_a_load_whose_database_is_closed_says_so(tmp_path: Path) -> None:
    db = Database(tmp_path / "data")
    points = db.create_collection("c", dim=DIM)
    load = points.bulk()
    load.__enter__()
    load.add(range(10), vectors=vectors(10))
    db.close()
    with pytest.raises(ClosedError) as raised:
        load.__exit__(None, None, None)
    assert raised.type is ClosedError
    with Database(tmp_path / "data") as db:
        assert db.collection("c").count() == 0


class Life:
    """A scripted life with a load in it; `told` is what each id's version must or may be."""

    def __init__(self) -> None:
        self.created = False
        self.told: dict[int, set[int | None]] = {}

    def live(self, disk: SimulatedDisk) -> None:
        database = Database("simulated", store=PosixStore(ROOT, calls=disk))
        try:
            self._script(database.create_collection("points", dim=DIM))
        finally:
            with suppress(PowerLossError, VecdbError):
                database.close()

    def _script(self, points: Any) -> None:
        self.created = True

        def write(first: int, last: int, version: int) -> None:
            with self._change(range(first, last), version):
                points.upsert(
                    range(first, last), None, vectors(last - first), payloads(last - first, version)
                )

        write(0, 20, 0)
        points.flush()
        write(15, 25, 1)
        with self._change(range(10, 60), 2), points.bulk() as load:
            for first in (10, 35):
                load.add(range(first, first + 25), None, vectors(25), payloads(25, 2))
        write(12, 14, 3)
        with self._change([59, 0], None):
            points.delete(ids=[59, 0])
        points.flush()

    @contextmanager
    def _change(self, ids: Any, version: int | None) -> Iterator[None]:
        for i in ids:
            self.told[i] = self.told.get(i, {None}) | {version}
        yield
        for i in ids:
            self.told[i] = {version}

    def check(self, disk: SimulatedDisk) -> None:
        database = Database("simulated", store=PosixStore(ROOT, calls=disk))
        if "points" in database.list_collections():
            points = database.collection("points")
            found = versions(points, range(80))
            assert all(found.get(i) in allowed for i, allowed in self.told.items())
            assert points.count() == len(found)
            loaded = sum(version == 2 for version in found.values())
            assert loaded in {0, 47, 48, 49, 50}, "part of a load"
            open_ends = [i for i, allowed in self.told.items() if 2 in allowed and len(allowed) > 1]
            assert len({found.get(i) == 2 for i in open_ends}) <= 1, "part of a load"
        else:
            assert not self.created
        database.close()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.usefixtures("small_segments")
@pytest.mark.parametrize("stride", [7, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("fault", ["stop_at", "error_at", "full_from"])
def test_a_load_is_there_or_not_wherever_it_stops(
    fault: str, stride: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    monkeypatch.setattr("vecdb.database.Housekeeping", NoHousekeeping)
    disk = SimulatedDisk(Faults())
    Life().live(disk)
    for call in range(0, disk.calls, stride):
        disk, life = SimulatedDisk(Faults(**{fault: call})), Life()
        with suppress(PowerLossError, VecdbError):
            life.live(disk)
        rng = random.Random(call)
        life.check(disk.after_power_loss(lambda: False))
        life.check(disk.after_power_loss(lambda rng=rng: rng.random() < 0.5))
        life.check(disk.after_kill())


def test_a_write_between_the_seal_before_a_load_and_its_manifest_is_replaced_for_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vecdb.database.Housekeeping", NoHousekeeping)
    written, loaded = vectors(1), vectors(1, seed=1)
    with Database(tmp_path / "data", durability="os") as db:
        points = db.create_collection("c", dim=DIM)
        sealing = points.maintenance.sealing
        seal = sealing.seal

        def seal_and_write(**options: bool) -> None:
            seal(**options)
            points.upsert([1], vectors=written)

        with points.bulk() as load:
            load.add([1], vectors=loaded)
            monkeypatch.setattr(sealing, "seal", seal_and_write)
        assert points.count() == 1
    with Database(tmp_path / "data", durability="os") as db:
        points = db.collection("c")
        assert points.count() == 1
        np.testing.assert_array_equal(points.get([1])[0].vector, loaded[0])

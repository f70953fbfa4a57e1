"""Deleted points give their space back, and what they said is in no file any more."""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack, suppress
from pathlib import Path

import numpy as np
import pytest

from tests.housekeeping import NoHousekeeping
from vecdb.collection import Collection
from vecdb.collection.budget import Budget, SpaceLimits, Usage
from vecdb.collection.versions import Versions
from vecdb.database import Database
from vecdb.errors import (
    ClosedError,
    DiskFullError,
    DiskLimitError,
    MemoryLimitError,
    ReadOnlyError,
)
from vecdb.storage import PosixStore, check_directory

SECRET = "the deleted text of"


def fill(points: object, count: int, dim: int) -> None:
    rng = np.random.default_rng(0)
    for first in range(0, count, 2_000):
        ids = range(first, min(count, first + 2_000))
        points.upsert(  # type: ignore[attr-defined]
            ids,
            vectors=rng.standard_normal((len(ids), dim)).astype(np.float32),
            texts=[f"the {'kept' if i % 10 == 0 else 'deleted'} text of {i} " * 4 for i in ids],
            payloads=[
                {"note": f"the {'kept' if i % 10 == 0 else 'deleted'} text of {i}"} for i in ids
            ],
        )


def size(directory: Path) -> int:
    return sum(file.stat().st_size for file in directory.rglob("*") if file.is_file())


def files_with(directory: Path, words: str) -> list[str]:
    found = []
    for file in directory.rglob("*"):
        with suppress(FileNotFoundError):  # deleted in the background, since it was listed
            if file.is_file() and words.encode() in file.read_bytes():
                found.append(file.name)
    return found


@pytest.mark.parametrize(
    ("count", "dim"), [(20_000, 16), pytest.param(200_000, 384, marks=pytest.mark.slow)]
)
def test_nine_in_ten_deleted(tmp_path: Path, count: int, dim: int) -> None:
    with Database(tmp_path / "data") as db:
        points = db.create_collection("c", dim=dim)
        fill(points, count, dim)
        points.flush()
        before = size(tmp_path)
        assert files_with(tmp_path, SECRET)
        doomed = [i for i in range(count) if i % 10]
        for first in range(0, len(doomed), 50_000):
            points.delete(ids=doomed[first : first + 50_000])
        started = time.monotonic()
        points.flush()
        took = time.monotonic() - started
        print(f"{size(tmp_path) / before:.3f} of its former size after {took:.1f} s")
        assert size(tmp_path) < 0.15 * before
        assert not files_with(tmp_path, SECRET)
        assert points.count() == count // 10
        assert points.get([10, 11])[0].text == "the kept text of 10 " * 4
    assert not files_with(tmp_path, SECRET)
    with Database(tmp_path / "data") as db:
        assert db.collection("c").count() == count // 10


def test_a_text_deleted_before_it_was_sealed_leaves_the_log(tmp_path: Path) -> None:
    with Database(tmp_path / "data") as db:
        points = db.create_collection("c", dim=8)
        fill(points, 100, 8)
        points.delete(ids=[i for i in range(100) if i % 10])
        assert files_with(tmp_path, SECRET)
        points.flush()
        assert not files_with(tmp_path, SECRET)


def test_a_log_read_back_is_let_go_of_when_it_is_sealed(tmp_path: Path) -> None:
    with Database(tmp_path / "data") as db:
        points = db.create_collection("c", dim=8)
        fill(points, 100, 8)
        points.delete(ids=[i for i in range(100) if i % 10])
    with Database(tmp_path / "data") as db:
        db.collection("c").flush()
        assert not files_with(tmp_path, SECRET)
        assert db.collection("c").count() == 10


def test_deletes_alone_leave_the_log_too(tmp_path: Path) -> None:
    with Database(tmp_path / "data") as db:
        points = db.create_collection("c", dim=8)
        points.upsert(["first secret name", "b"], vectors=np.eye(2, 8, dtype=np.float32))
        points.flush()
        points.delete(ids=["first secret name"])
        assert any(name.endswith(".wal") for name in files_with(tmp_path, "first secret name"))
        points.flush()
        assert not files_with(tmp_path, "first secret name")
        assert points.count() == 1
    with Database(tmp_path / "data") as db:
        assert db.collection("c").count() == 1


def test_points_deleted_soon_after_they_came_leave_in_the_background(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vecdb.collection.policy.FORGET_SECONDS", 0.0)
    with Database(tmp_path / "data") as db:
        points = db.create_collection("c", dim=8)
        fill(points, 100, 8)
        assert not points.maintenance.seal_is_due()
        points.delete(ids=[i for i in range(100) if i % 10])
        deadline = time.monotonic() + 60
        while files_with(tmp_path, SECRET) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not files_with(tmp_path, SECRET)


def test_replaced_points_leave_the_log_when_it_is_what_fills_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vecdb.database.Housekeeping", NoHousekeeping)
    vectors = np.ones((10, 4), np.float32)
    most = 2 << 20
    with Database(tmp_path / "data", durability="os", max_disk_bytes=most) as db:
        points = db.create_collection("c", dim=4)
        written = 0
        with suppress(DiskLimitError):
            while True:
                points.upsert(range(10), vectors=vectors, payloads=[{"t": "x" * 10_000}] * 10)
                written += 1
                if points.info().log_bytes < 0.4 * most:
                    assert not points.seal_if_due()
        assert written > 10
        assert points.seal_if_due()
        assert points.info().log_bytes < 1_000
        assert points.info().disk_bytes < 200_000
        points.upsert(range(10, 20), vectors=vectors, payloads=[{"t": "x" * 100_000}] * 10)
        assert not points.seal_if_due()  # all of it lives: nothing would be given back


@pytest.mark.parametrize("way", ["upserts", "load"])
def test_graphs_still_to_be_built_count_against_the_disk_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    monkeypatch.setattr("vecdb.database.Housekeeping", NoHousekeeping)
    rows = np.random.default_rng(0).standard_normal((500, 64)).astype(np.float32)
    most = 4 << 20
    with Database(tmp_path / "data", durability="os", max_disk_bytes=most) as db:
        points = db.create_collection("c", dim=64)
        count = 0
        with ExitStack() as loading:
            add = loading.enter_context(points.bulk()).add if way == "load" else points.upsert
            with suppress(DiskLimitError):
                while True:
                    add(range(count, count + 500), vectors=rows)
                    count += 500
            assert count >= 2_000
            assert points.info().disk_bytes < most / 2
        points.flush()
        assert points.info().indexed == count
        assert 0.6 * most < points.info().disk_bytes < 1.1 * most

        monkeypatch.setattr("vecdb.collection.budget._FULL", 0.5)
        before = points.info().disk_bytes
        points.delete(ids=range(count // 20))
        points.flush()
        assert points.info().disk_bytes < 0.96 * before


def test_what_a_batch_does_not_have_takes_no_room_in_the_log(tmp_path: Path) -> None:
    vectors = np.ones((100, 4), np.float32)
    with Database(tmp_path / "data") as db:
        lengths = []
        for name, texts, payloads in (
            ("bare", None, None),
            ("texts", [None] * 99 + ["t"], None),
            ("payloads", None, [None] * 99 + [{}]),
        ):
            points = db.create_collection(name, dim=4)
            points.upsert(range(100), vectors=vectors, texts=texts, payloads=payloads)
            lengths.append(points.info().log_bytes)
            record = points.get([98, 99])[1]
            assert (record.text, record.payload) == (
                None if texts is None else "t",
                None if payloads is None else {},
            )
    bare, with_texts, with_payloads = lengths
    assert with_texts == bare + 4 * 100 + 1
    assert with_payloads == bare + 4 * 100 + 2


def segment_files(directory: Path) -> set[str]:
    return {f"segments/{file.name}" for file in directory.glob("*/segments/*")}


def no_room(*_: object, **__: object) -> None:
    raise DiskFullError("no room is left")


@pytest.mark.parametrize(
    "full_at",
    [
        "vecdb.collection.improving.write_sections",
        "vecdb.collection.draft.write_tombstones",
        "vecdb.storage.ManifestLog.publish",
    ],
)
def test_a_step_that_finds_the_disk_full_leaves_nothing_on_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, full_at: str
) -> None:
    monkeypatch.setattr("vecdb.database.Housekeeping", NoHousekeeping)
    with Database(tmp_path / "data", durability="os") as db:
        points = db.create_collection("c", dim=8)
        for _ in range(2):
            fill(points, 2_000, 8)
            points.maintenance.seal()
        fill(points, 500, 8)
        versions = points.maintenance.versions
        for _ in range(2):
            with monkeypatch.context() as full, suppress(DiskFullError):
                full.setattr(full_at, no_room)
                points.flush()
                pytest.fail("nothing was written there")
            assert segment_files(tmp_path / "data") == versions.stored.files
            assert versions.bytes == versions.stored.bytes
            assert len(points.maintenance.sealing._frozen) <= 1
        points.flush()
        assert segment_files(tmp_path / "data") == versions.stored.files
        assert points.count() == 2_000
    assert check_directory(PosixStore(tmp_path / "data")).ok


@pytest.mark.parametrize("step", ["seal", "merge", "load"])
def test_a_step_that_fails_between_disk_and_memory_is_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    monkeypatch.setattr("vecdb.database.Housekeeping", NoHousekeeping)

    def load(points: Collection) -> None:
        with points.bulk() as loading:
            loading.add(range(5), vectors=np.ones((5, 8), np.float32))

    def no_memory(*_: object) -> None:
        raise MemoryError

    with Database(tmp_path / "data", durability="os") as db:
        points = db.create_collection("c", dim=8)
        for _ in range(2):
            fill(points, 100, 8)
            if step != "seal":
                points.maintenance.seal()
        with monkeypatch.context() as failing:
            name = "adopt" if step == "load" else "replace"
            failing.setattr(f"vecdb.collection.segments.Segments.{name}", no_memory)
            with pytest.raises(MemoryError):
                load(points) if step == "load" else points.flush()
        assert points.count() == 100
        with pytest.raises(ReadOnlyError):
            points.upsert([7_000], vectors=np.ones((1, 8), np.float32))
        with pytest.raises(ReadOnlyError):
            points.flush()
    assert check_directory(PosixStore(tmp_path / "data")).ok
    with Database(tmp_path / "data", durability="os") as db:
        points = db.collection("c")
        assert points.count() == 100
        points.flush()
        assert points.count() == 100


def test_what_a_close_interrupts_leaves_no_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vecdb.database.Housekeeping", NoHousekeeping)
    written = threading.Event()

    def wait_for_the_close(versions: Versions, _: object) -> None:
        written.set()
        assert versions._stop.wait(60)
        versions.check_running()

    def flush() -> None:
        with suppress(ClosedError):
            points.flush()

    with Database(tmp_path / "data", durability="os") as db:
        points = db.create_collection("c", dim=8)
        for _ in range(2):
            fill(points, 100, 8)
            points.maintenance.seal()
        versions = points.maintenance.versions
        monkeypatch.setattr(Versions, "_verify", wait_for_the_close)
        merging = threading.Thread(target=flush)
        merging.start()
        assert written.wait(60)
        assert segment_files(tmp_path / "data") > versions.stored.files
    assert segment_files(tmp_path / "data") == versions.stored.files
    merging.join()


def test_growth_that_is_under_way_counts() -> None:
    most = 2 << 20
    budget = Budget(SpaceLimits(most, most, 0), lambda: 1 << 40, list)
    with budget.growth(Usage(most, most)):
        with pytest.raises(DiskLimitError), budget.growth(Usage(1)):
            pass
        with pytest.raises(MemoryLimitError), budget.growth(Usage(0, 1)):
            pass
    budget = Budget(SpaceLimits(min_free_bytes=100), lambda: 300, list)
    for _ in range(2):  # what was refused or has ended counts no more
        with budget.growth(Usage(200)), pytest.raises(DiskLimitError), budget.growth(Usage(1)):
            pass

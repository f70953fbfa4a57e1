"""A scrub of a running database: damage is found, put right where it can be, and told."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.housekeeping import NoHousekeeping
from vecdb.collection import Collection
from vecdb.collection.holds import StoppedError
from vecdb.collection.scrub import ScrubReport, Throttle
from vecdb.database import Database
from vecdb.errors import CollectionNotFoundError, InvalidParameterError, QuarantinedError
from vecdb.storage import PosixStore, check_directory
from vecdb.types import Matrix

DIM = 4
VECTORS = np.random.default_rng(5).standard_normal((200, DIM)).astype(np.float32)


@pytest.fixture
def db(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Database]:
    """A database whose collection has two segments, one indexed, tombstones and a log."""
    monkeypatch.setattr("vecdb.database.Housekeeping", NoHousekeeping)
    monkeypatch.setattr("vecdb.collection.policy.INDEXED_ROWS", 50)
    with Database(tmp_path, durability="os", scrub_seconds=0) as db:
        points = db.create_collection("points", dim=DIM)
        points.upsert(range(100), vectors=VECTORS[:100])
        points.flush()
        points.upsert(range(100, 130), vectors=VECTORS[100:130])
        points.delete(ids=[3, 4])
        points.maintenance.seal()
        points.upsert([130], vectors=VECTORS[130:131])
        points.delete(ids=[5, 101])
        yield db


def unlimited() -> Throttle:
    return Throttle(1 << 40, threading.Event())


def scrub(db: Database) -> ScrubReport:
    return db.collection("points").scrub(unlimited())


def flip(root: Path, pattern: str, offset: int) -> Path:
    """Change a file in place, as a disk does."""
    file = max(root.glob(f"c000001/{pattern}"))
    with file.open("r+b") as f:
        f.seek(offset)
        byte = f.read(1)
        f.seek(offset)
        f.write(bytes([byte[0] ^ 1]))
    return file


def assert_right(points: Collection, vectors: Matrix = VECTORS) -> None:
    alive = [i for i in range(131) if i not in (3, 4, 5, 101)]
    assert points.count() == len(alive)
    normed = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    for query in vectors[:3]:
        best = sorted(alive, key=lambda i: -float(normed[i] @ query))[:10]
        assert [hit.id for hit in points.search(vector=query, k=10, ef=200)] == best


def test_a_sound_collection_is_read_and_left_alone(db: Database, tmp_path: Path) -> None:
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    report = scrub(db)
    assert report.damage == []
    assert report.files == 4  # two segments, tombstones, an index
    assert report.bytes > sum(f.stat().st_size for f in tmp_path.glob("c000001/segments/*"))
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


def test_a_damaged_index_is_built_again(db: Database, tmp_path: Path) -> None:
    file = flip(tmp_path, "segments/*.index", 300)
    (told,) = scrub(db).damage
    assert file.name in told
    points = db.collection("points")
    assert points.info().indexed == 0
    assert_right(points)
    while points.maintenance.improve():
        pass
    assert points.info().indexed > 0
    assert scrub(db).damage == []
    assert_right(points)


@pytest.mark.parametrize("died_since", [False, True])
def test_damaged_tombstones_are_written_again(
    db: Database, tmp_path: Path, died_since: bool
) -> None:
    points = db.collection("points")
    if not died_since:
        points.maintenance.seal()
    file = flip(tmp_path, "segments/*.dead", 70)
    assert any(file.name in told for told in scrub(db).damage)
    assert scrub(db).damage == []
    assert_right(points)
    db.close()
    assert check_directory(PosixStore(tmp_path)).findings == []
    with Database(tmp_path, durability="os") as again:
        assert_right(again.collection("points"))


def test_damaged_data_is_quarantined(
    db: Database, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = flip(tmp_path, "segments/0000000001.data", 80)
    with caplog.at_level(logging.ERROR):
        (told,) = scrub(db).damage
    assert file.name in told
    assert "segment 1 is no longer served" in caplog.text
    points = db.collection("points")
    assert [q.part for q in points.info().quarantined] == ["segment 1"]
    with pytest.raises(QuarantinedError, match=file.name):
        points.search(vector=VECTORS[0])
    assert [r.id for r in points.get([100, 130])] == [100, 130]
    assert scrub(db).damage == []  # told once
    flip(tmp_path, "segments/0000000001.data", 80)
    db.close()
    with Database(tmp_path, durability="os") as again:
        assert_right(again.collection("points"))


@pytest.mark.parametrize("only_deletes", [False, True])
def test_a_damaged_log_is_sealed_away(db: Database, tmp_path: Path, only_deletes: bool) -> None:
    points = db.collection("points")
    if only_deletes:
        points.maintenance.seal()
        points.upsert([5, 101], vectors=VECTORS[:2])
        points.maintenance.seal()
        points.delete(ids=[5, 101])
    file = flip(tmp_path, "wal/*.wal", 75)
    (told,) = scrub(db).damage
    assert file.name in told
    assert "sealed into segments" in told
    assert scrub(db).damage == []
    assert_right(points)
    db.close()
    assert check_directory(PosixStore(tmp_path)).findings == []
    with Database(tmp_path, durability="os") as again:
        assert_right(again.collection("points"))


@pytest.mark.parametrize("suffix", ["json", "copy"])
def test_a_damaged_manifest_is_written_again(db: Database, tmp_path: Path, suffix: str) -> None:
    flip(tmp_path, f"manifest/*.{suffix}", 100)
    (told,) = scrub(db).damage
    assert "written again from its copy" in told
    assert check_and_reopen(db, tmp_path)


def check_and_reopen(db: Database, root: Path) -> bool:
    db.close()
    return not check_directory(PosixStore(root)).findings


def test_while_a_segment_is_quarantined_the_rest_is_read_and_not_changed(
    db: Database, tmp_path: Path
) -> None:
    flip(tmp_path, "segments/0000000001.data", 80)
    flip(tmp_path, "manifest/*.copy", 80)
    assert len(scrub(db).damage) == 2
    flip(tmp_path, "segments/0000000002.data", 80)
    flip(tmp_path, "wal/*.wal", 75)
    before = max(tmp_path.glob("c000001/wal/*.wal")).read_bytes()
    first, second = scrub(db).damage
    assert "segment 2 is no longer served" in first
    assert "not yet" in second
    assert max(tmp_path.glob("c000001/wal/*.wal")).read_bytes() == before


def test_what_was_dropped_meanwhile_is_no_damage(
    db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    points = db.collection("points")
    read = PosixStore.read

    def merged_first(store: PosixStore, name: str, *rest: int) -> bytes:
        if name.startswith("segments/"):
            monkeypatch.setattr(PosixStore, "read", read)
            points.maintenance.finish()
        return read(store, name, *rest)

    monkeypatch.setattr(PosixStore, "read", merged_first)
    assert scrub(db).damage == []
    assert_right(points)


def test_a_closing_collection_is_not_read_further(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    points = db.collection("points")
    read = PosixStore.read

    def dropped_first(store: PosixStore, name: str, *rest: int) -> bytes:
        piece = read(store, name, *rest)
        if name.endswith(".data"):
            monkeypatch.setattr(PosixStore, "read", read)
            db.drop_collection("points")
        return piece

    monkeypatch.setattr(PosixStore, "read", dropped_first)
    with pytest.raises(CollectionNotFoundError, match="'points' was dropped"):
        points.scrub(unlimited())


def test_the_throttle_waits_as_long_as_it_says() -> None:
    asked: list[float] = []

    class Stop(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            asked.append(timeout or 0.0)
            return False

    throttle = Throttle(1_000, Stop())
    for _ in range(5):
        throttle.passed(500)
    assert asked[0] == pytest.approx(0.5, abs=0.2)
    assert asked[-1] == pytest.approx(2.5, abs=0.5)  # this clock does not really wait
    stop = threading.Event()
    stop.set()
    with pytest.raises(StoppedError):
        Throttle(1, stop).passed(1 << 40)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_running_database_scrubs_itself(tmp_path: Path) -> None:
    with Database(tmp_path, durability="os", scrub_seconds=1) as db:
        points = db.create_collection("points", dim=DIM)
        points.upsert(range(100), vectors=VECTORS[:100])
        points.maintenance.seal()
        flip(tmp_path, "segments/*.data", 80)
        until(lambda: bool(points.info().quarantined))
    assert not db._scrubber._thread.is_alive()


@pytest.mark.parametrize("options", [{"scrub_seconds": -1}, {"scrub_bytes_per_second": 0}])
def test_bad_settings_are_refused(tmp_path: Path, options: dict[str, int]) -> None:
    with pytest.raises(InvalidParameterError):
        Database(tmp_path / "new", **options)
    assert not (tmp_path / "new").exists()

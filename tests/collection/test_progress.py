"""What a collection tells of its background work while it runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.housekeeping import NoHousekeeping
from vecdb.collection.footprint import Footprint
from vecdb.collection.versions import Versions
from vecdb.database import Database
from vecdb.types import Work, WorkKind

VECTORS = np.random.default_rng(4).standard_normal((12_000, 8)).astype(np.float32)


def test_what_is_told_of_segments_is_of_one_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vecdb.database.Housekeeping", NoHousekeeping)
    with Database(tmp_path, durability="os") as db:
        points = db.create_collection("points", dim=8)
        points.upsert(range(100), vectors=VECTORS[:100])
        memory_bytes = Footprint.memory_bytes.fget

        def memory_bytes_and_more(self: Footprint) -> int:
            taken: int = memory_bytes(self)
            points.maintenance.seal()
            points.delete(ids=range(10))
            return taken

        with monkeypatch.context() as sealing:
            sealing.setattr(Footprint, "memory_bytes", property(memory_bytes_and_more))
            info = points.info()
        rows = sum(segment.live_rows for segment in info.closed_segments)
        assert (info.count, rows + info.growing_rows) == (100, 100)  # as before the seal
        info = points.info()
        assert (info.closed_segments[0].live_rows, info.growing_rows) == (90, 0)
        assert info.closed_segments[0].disk_bytes == info.disk_bytes - info.log_bytes


def test_work_is_shown_while_it_runs_and_not_longer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vecdb.database.Housekeeping", NoHousekeeping)
    seen: list[Work] = []
    check = Versions.check_running

    def look(self: Versions) -> None:
        seen.extend(points.info().work)
        check(self)

    with Database(tmp_path, durability="os") as db:
        points = db.create_collection("points", dim=8)
        points.upsert(range(10_000), vectors=VECTORS[:10_000])
        monkeypatch.setattr(Versions, "check_running", look)
        assert points.info().growing_rows == 10_000
        points.maintenance.seal()
        assert {(work.kind, work.rows) for work in seen} == {(WorkKind.SEAL, 10_000)}
        assert points.info().growing_rows == 0
        seen.clear()

        while points.maintenance.improve():
            pass
        assert {(work.kind, work.rows) for work in seen} == {(WorkKind.INDEX, 10_000)}
        done = np.array([work.done for work in seen])
        assert len(np.unique(done)) > 2
        assert 0.4 < done[len(done) // 2] < 0.6
        assert 0.7 < done[-2] < 1.0  # the last look is before the files are named
        seen.clear()

        points.upsert(range(10_000, 12_000), vectors=VECTORS[10_000:])
        points.delete(ids=range(5_000))
        points.flush()
        merges = [work for work in seen if work.kind is WorkKind.MERGE]
        assert len({work.done for work in merges}) > 2
        assert [work.done for work in merges] == sorted(work.done for work in merges)
        assert merges[-1].done == 1.0
        assert points.info().work == ()

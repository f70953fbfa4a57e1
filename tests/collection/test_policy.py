"""When the growing segment is sealed, and which segments are merged."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from vecdb.collection import policy
from vecdb.database import Database


def test_points_in_memory_are_sealed_early_only_while_somebody_searches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vecdb.housekeeping._seal", lambda _: False)
    monkeypatch.setattr("vecdb.collection.policy.COMPARED_BYTES", 100 * 4 * 8)
    monkeypatch.setattr("vecdb.collection.policy.SEARCHED_SECONDS", 1e6)
    with Database(tmp_path / "data", durability="os") as db:
        points = db.create_collection("c", dim=8)
        vectors = np.random.default_rng(0).random((100, 8), np.float32)
        points.upsert(range(99), vectors=vectors[:99])
        points.search(vector=vectors[0])
        assert not points.maintenance.seal_is_due()
        points.upsert([99], vectors=vectors[99:])
        assert points.maintenance.seal_is_due()
        monkeypatch.setattr("vecdb.collection.policy.SEARCHED_SECONDS", 0.0)
        assert not points.maintenance.seal_is_due()


def test_what_searches_keep_of_a_sealed_segment_leaves_the_memory_limit_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sealing could not give it back: one tiny segment after the other would be sealed for it."""
    monkeypatch.setattr("vecdb.housekeeping._seal", lambda _: False)
    with Database(tmp_path / "data", durability="os", max_memory_bytes=1 << 20) as db:
        points = db.create_collection("c", dim=512)
        vectors = np.random.default_rng(0).random((400, 512), np.float32)
        points.upsert(range(400), vectors=vectors)
        points.maintenance.seal()
        assert points.search(vector=vectors[7], k=1)[0].id == 7
        assert points.footprint.memory_bytes == 0
        points.upsert([400], vectors=vectors[:1])
        assert not points.seal_if_due()


@dataclass(frozen=True)
class Sized:
    live: int
    total: int


def sizes_merged(live: list[int], *, eager: bool, dead: int = 0, full: bool = False) -> list[int]:
    segments = [Sized(rows, rows + dead) for rows in live]
    return [s.live for s in policy.to_merge(segments, 1_000, eager=eager, full=full)]


def test_without_writes_an_older_segment_of_four_times_the_size_is_merged() -> None:
    assert sizes_merged([80, 20], eager=True) == [80, 20]
    assert sizes_merged([81, 20], eager=True) == []
    assert sizes_merged([400, 80, 20], eager=True) == [400, 80, 20]
    assert sizes_merged([80, 20], eager=False) == []


def test_while_writes_come_in_only_runs_of_several_are_merged() -> None:
    assert sizes_merged([10, 10, 10], eager=False) == []
    assert sizes_merged([10, 10, 10, 10], eager=False) == [10, 10, 10, 10]
    assert sizes_merged([100, 10, 10, 10, 10], eager=False) == [10, 10, 10, 10]


def test_a_merged_segment_has_at_most_four_times_the_rows_of_a_sealed_one() -> None:
    assert sizes_merged([3_000, 1_000], eager=True) == [3_000, 1_000]
    assert sizes_merged([3_001, 1_000], eager=True) == []


def test_a_segment_with_many_dead_rows_is_rewritten_alone() -> None:
    assert sizes_merged([1_000, 100], eager=False, dead=30) == [100]


def test_on_a_full_disk_a_segment_with_few_dead_rows_is_rewritten() -> None:
    assert sizes_merged([1_000], eager=True, dead=30) == []
    assert sizes_merged([1_000], eager=True, dead=30, full=True) == [1_000]
    assert sizes_merged([1_000], eager=True, dead=10, full=True) == []

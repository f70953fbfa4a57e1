"""When the growing segment is sealed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

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

"""Writes while segments are sealed, merged and indexed in other threads; readers beside them."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vecdb.database import Database
from vecdb.errors import ClosedError

DIM = 8


def churn(points: Any, model: dict[int, int], rng: np.random.Generator, steps: int) -> None:
    """Upsert and delete at random; `model` maps each id to the version that it should have."""
    for step in range(steps):
        ids = rng.choice(300, size=int(rng.integers(1, 20)), replace=False).tolist()
        if rng.random() < 0.6:
            vectors = rng.standard_normal((len(ids), DIM)).astype(np.float32)
            points.upsert(ids, vectors=vectors, payloads=[{"step": step}] * len(ids))
            model.update(dict.fromkeys(ids, step))
        else:
            points.delete(ids=ids)
            for i in ids:
                model.pop(i, None)


def state(points: Any) -> dict[int, int]:
    """What the collection holds: id to version."""
    return {r.id: r.payload["step"] for r in points.get(range(300))}


@pytest.mark.parametrize("seed", range(3))
def test_nothing_is_lost_or_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr("vecdb.collection.policy.INDEXED_ROWS", 8)
    model: dict[int, int] = {}
    done = threading.Event()
    failures: list[BaseException] = []

    def repeat(step: Any) -> None:
        try:
            while not done.is_set():
                step()
        except BaseException as error:
            failures.append(error)

    def read() -> None:
        hits = points.search(vector=np.ones(DIM, np.float32), k=50)
        assert len({hit.id for hit in hits}) == len(hits)
        assert len(points.get([hit.id for hit in hits] or [0])) <= 50

    with Database(tmp_path / "data", durability="os") as db:
        points = db.create_collection("c", dim=DIM)
        steps = [points.maintenance.seal, lambda: points.maintenance.improve(eager=True), read]
        threads = [threading.Thread(target=repeat, args=(step,)) for step in steps]
        for thread in threads:
            thread.start()
        churn(points, model, np.random.default_rng(seed), 300)
        done.set()
        for thread in threads:
            thread.join()
        assert not failures
        assert state(points) == model
        assert points.count() == len(model)
    for _ in range(2):
        with Database(tmp_path / "data", durability="os") as db:
            points = db.collection("c")
            assert state(points) == model
            assert points.count() == len(model)


def test_concurrent_writers_are_all_applied(tmp_path: Path) -> None:
    with Database(tmp_path / "data", durability="os") as db:
        points = db.create_collection("c", dim=DIM)

        def write(writer: int) -> None:
            rng = np.random.default_rng(writer)
            for n in range(50):
                first = (writer * 50 + n) * 4
                vectors = rng.standard_normal((4, DIM)).astype(np.float32)
                points.upsert(range(first, first + 4), vectors=vectors)
                assert len(points.get(range(first, first + 4))) == 4  # read your writes

        threads = [threading.Thread(target=write, args=(writer,)) for writer in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert points.count() == 6 * 50 * 4
    with Database(tmp_path / "data", durability="os") as db:
        assert db.collection("c").count() == 6 * 50 * 4


def test_a_reader_sees_one_version(tmp_path: Path) -> None:
    """Every batch writes one version to all points, so no search may return two."""
    with Database(tmp_path / "data", durability="os") as db:
        points = db.create_collection("c", dim=DIM)
        base = np.random.default_rng(0).standard_normal((40, DIM)).astype(np.float32)
        points.upsert(range(40), vectors=base, payloads=[{"v": 0}] * 40)
        done = threading.Event()

        def write() -> None:
            for version in range(1, 150):
                points.upsert(range(40), vectors=base, payloads=[{"v": version}] * 40)
                if version % 25 == 0:
                    points.maintenance.seal()
            done.set()

        writer = threading.Thread(target=write)
        writer.start()
        while not done.is_set():
            hits = points.search(vector=base[0], k=40)
            assert len(hits) == 40
            assert len({hit.payload["v"] for hit in hits if hit.payload}) == 1
            time.sleep(0.0005)  # or searches as short as these keep the interpreter for themselves
        writer.join()


def test_a_closed_database_says_so(tmp_path: Path) -> None:
    db = Database(tmp_path / "data")
    points = db.create_collection("c", dim=DIM)
    db.close()
    db.close()
    with pytest.raises(ClosedError):
        points.upsert([1], vectors=np.ones((1, DIM), np.float32))
    with pytest.raises(ClosedError):
        db.collection("c")

"""A collection against a plain dict with exact search: random lives of writes, crashes, backups."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.housekeeping import NoHousekeeping
from vecdb.collection.settings import CollectionSettings
from vecdb.database import Database
from vecdb.errors import DuplicateIdError, InvalidVectorError
from vecdb.restoring import restore_store
from vecdb.storage import PosixStore, check_directory
from vecdb.types import Metric

DIM = 4
IDS = st.one_of(st.integers(0, 40), st.integers(0, 40).map(str))
VALUES = st.integers(-4, 4).map(float)
VECTORS = st.lists(VALUES, min_size=DIM, max_size=DIM)
POINTS = st.lists(
    st.tuples(IDS, VECTORS, st.one_of(st.none(), st.integers(0, 5))),
    min_size=1,
    max_size=30,
    unique_by=lambda point: (type(point[0]), point[0]),
)


@pytest.fixture(autouse=True)
def _repeatable_and_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vecdb.database.Housekeeping", NoHousekeeping)
    monkeypatch.setattr("vecdb.collection.policy.INDEXED_ROWS", 8)


class CollectionMachine(RuleBasedStateMachine):
    """Does the same to a collection and to a dict, and compares them after every step."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp(prefix="vecdb-machine-"))
        self.lives = 0
        self.model: dict[Any, tuple[list[float], int | None]] = {}
        self.backups: dict[int, dict[Any, tuple[list[float], int | None]]] = {}

    @initialize(metric=st.sampled_from([Metric.L2, Metric.DOT]))
    def create(self, metric: Metric) -> None:
        self.metric = metric
        self.db = Database(self.root / "0", durability="os")
        self.points = self.db.create_collection("c", dim=DIM, metric=metric)

    @rule(points=POINTS)
    def upsert(self, points: list[Any]) -> None:
        payloads = [None if n is None else {"n": n} for _, _, n in points]
        texts = [f"text of {i}" for i, _, _ in points]
        self.points.upsert(
            [i for i, _, _ in points],
            texts=texts,
            vectors=[v for _, v, _ in points],
            payloads=payloads,
        )
        self.model.update({i: (v, n) for i, v, n in points})

    @rule(points=POINTS, bad=st.sampled_from(["nan", "duplicate"]))
    def upsert_with_a_fault(self, points: list[Any], bad: str) -> None:
        ids = [i for i, _, _ in points]
        vectors = [v for _, v, _ in points]
        if bad == "nan":
            vectors[-1] = [float("nan")] * DIM
        else:
            ids.append(ids[0])
            vectors.append(vectors[0])
        with pytest.raises((InvalidVectorError, DuplicateIdError)):
            self.points.upsert(ids, vectors=vectors)

    @rule(ids=st.lists(IDS, min_size=1, max_size=10, unique_by=lambda i: (type(i), i)))
    def delete(self, ids: list[Any]) -> None:
        there = [i for i in ids if i in self.model]
        assert self.points.delete(ids=ids) == len(there)
        for i in there:
            del self.model[i]

    @rule(n=st.integers(0, 5))
    def delete_by_filter(self, n: int) -> None:
        matching = [i for i, (_, m) in self.model.items() if m == n]
        assert self.points.delete(filter={"n": n}) == len(matching)
        for i in matching:
            del self.model[i]

    @rule()
    def seal(self) -> None:
        self.points.maintenance.seal()

    @rule(eager=st.booleans())
    def improve(self, eager: bool) -> None:
        self.points.maintenance.improve(eager=eager)

    @rule()
    def reopen(self) -> None:
        self.db.close()
        self._open()

    @rule()
    def crash(self) -> None:
        """Go on from what another process would find if this one were killed now."""
        following = self.root / str(self.lives + 1)
        shutil.copytree(self.root / str(self.lives), following)
        self.db.close()
        self.lives += 1
        self._open()

    @rule(keep=st.one_of(st.none(), st.integers(1, 3)))
    def backup(self, keep: int | None) -> None:
        taken = self.db.backup_to(self._backups(), keep=keep)
        assert taken.points == {"c": len(self.model)}
        assert taken.number not in self.backups
        self.backups[taken.number] = dict(self.model)
        if keep is not None:
            self.backups = {n: self.backups[n] for n in sorted(self.backups)[-keep:]}
        found = self.db.list_backups(self.root / "backups")
        assert [info.number for info in found] == sorted(self.backups)
        assert {info.damage for info in found} == {None}

    @precondition(lambda self: self.backups)
    @rule(data=st.data(), replace=st.booleans())
    def restore(self, data: st.DataObject, replace: bool) -> None:
        """Go on from a backup, in a new directory or in the place of what there is."""
        number = data.draw(st.sampled_from(sorted(self.backups)), label="number")
        self.db.close()
        self.lives += not replace
        target = PosixStore(self.root / str(self.lives), "os")
        restore_store(self._backups(), target, number=number, replace=replace)
        assert check_directory(target).ok
        self.model = dict(self.backups[number])
        self._open()

    def _backups(self) -> PosixStore:
        return PosixStore(self.root / "backups", "os")

    def _open(self) -> None:
        self.db = Database(self.root / str(self.lives), durability="os")
        self.points = self.db.collection("c")

    @rule(query=VECTORS, k=st.integers(1, 50), n=st.one_of(st.none(), st.integers(0, 5)))
    def search(self, query: list[float], k: int, n: int | None) -> None:
        model = {i: v for i, (v, m) in self.model.items() if n is None or m == n}
        hits = self.points.search(vector=query, k=k, filter=None if n is None else {"n": n})
        assert len(hits) == min(k, len(model))
        base = np.array(list(model.values()), np.float32).reshape(-1, DIM)
        asked = np.array(query, np.float32)
        scores = np.linalg.norm(base - asked, axis=1) if self.metric is Metric.L2 else base @ asked
        best = np.sort(scores) if self.metric is Metric.L2 else -np.sort(-scores)
        assert [hit.score for hit in hits] == pytest.approx(best[:k].tolist(), abs=1e-4)
        true_scores = dict(zip(model, scores.tolist(), strict=True))
        for hit in hits:
            assert hit.score == pytest.approx(true_scores[hit.id], abs=1e-4)

    @precondition(lambda self: hasattr(self, "points"))
    @invariant()
    def holds_what_the_dict_holds(self) -> None:
        assert self.points.count() == len(self.model)
        if not self.model:
            return
        records = self.points.get(list(self.model))
        assert [(type(r.id), r.id) for r in records] == [(type(i), i) for i in self.model]
        for record in records:
            vector, n = self.model[record.id]
            assert record.vector.tolist() == vector
            assert record.payload == (None if n is None else {"n": n})
            assert record.text in {f"text of {record.id}", None}

    def teardown(self) -> None:
        if hasattr(self, "db"):
            self.db.close()
        shutil.rmtree(self.root, ignore_errors=True)


TestCollection = CollectionMachine.TestCase
TestCollection.settings = settings(
    max_examples=13,
    stateful_step_count=50,  # at most; some 500 in all
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)


class LongMachine(CollectionMachine):
    """The same, for longer."""


TestCollectionForLong = pytest.mark.slow(LongMachine.TestCase)
TestCollectionForLong.settings = settings(
    max_examples=260,
    stateful_step_count=50,  # at most; over 10,000 in all
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)


def test_settings_survive_json() -> None:
    given = CollectionSettings(7, Metric.DOT, m=8)
    assert CollectionSettings.from_json(given.to_json(), "here") == given

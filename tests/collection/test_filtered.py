"""What is remembered of a filter serves that filter, and no other."""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vecdb.collection import Collection
from vecdb.collection.snapshot import Condition
from vecdb.database import Database
from vecdb.payload import parse_filter


class Color(str, Enum):  # noqa: UP042 (whose str is "Color.RED")
    RED = "red"


@pytest.fixture
def points(tmp_path: Path) -> Iterator[Collection]:
    with Database(tmp_path / "data", durability="os") as db:
        points = db.create_collection("c", dim=2)
        payloads = [{"o": {"red": 1}}, {"i": 2**53 + 1}, {"x": 1}, {"x": True}, {"x": [1.0, "a"]}]
        points.upsert(range(5), vectors=np.ones((5, 2), np.float32), payloads=payloads)
        yield points


def test_numbers_and_words_of_other_types_leave_plain_ones_their_answers(
    points: Collection,
) -> None:
    def found(conditions: Any) -> list[Any]:
        return [hit.id for hit in points.search(vector=[1, 1], filter=conditions)]

    assert found({"o": {Color.RED: 1}}) == found({"o": {"red": 1}}) == [0]
    assert found({"i": np.float64(2**53)}) == found({"i": 2.0**53}) == []
    assert found({"i": {"$gt": np.float64(2**53)}}) == found({"i": {"$gt": 2.0**53}}) == [1]
    assert found({"x": 1}) == found({"x": 1.0}) == [2, 4]
    assert found({"x": True}) == found({"x": {"$in": [True]}}) == [3]
    assert found({"x": {"$in": [1]}}) == [2, 4]
    assert points.delete(filter={"o": {"red": 1}}) == 1


def test_a_filter_that_is_changed_while_it_is_read_is_remembered_as_it_was_read(
    points: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    conditions = {"x": 1}

    def parse_and_change(given: Any) -> Any:
        predicate = parse_filter(given)
        conditions["x"] = 7
        return predicate

    with monkeypatch.context() as changing:
        changing.setattr("vecdb.collection.snapshot.parse_filter", parse_and_change)
        assert points.count(conditions) == 2
    assert points.count({"x": 7}) == 0


def test_conditions_that_differ_are_told_apart() -> None:
    written: list[dict[str, Any]] = [
        {"x": 1}, {"x": 1.0}, {"x": True}, {"x": "1"}, {"x": None}, {"x": [1]}, {"x": {"y": 1}},
        {"x": {"$in": [1]}}, {"x": {"$gt": 1}}, {"x": {"$gte": 1}}, {"x.y": 1}, {"$not": {"x": 1}},
        {"$and": [{"x": 1}, {"y": 1}]}, {"$or": [{"x": 1}, {"y": 1}]}, {"x": {"$exists": True}},
        {"x": 10**400}, {"x": 10**400 + 1}, {},
    ]  # fmt: skip
    assert len({Condition.of(conditions).key for conditions in written}) == len(written)

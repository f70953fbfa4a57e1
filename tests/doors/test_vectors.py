"""What every user of vectors relies on, through both doors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from vecdb import Metric, Record
from vecdb.errors import CollectionExistsError, CollectionNotFoundError

DIM = 16
RNG = np.random.default_rng(7)


def vectors(count: int, dim: int = DIM) -> np.ndarray:
    return RNG.standard_normal((count, dim)).astype(np.float32)


def exact(metric: str, query: np.ndarray, base: np.ndarray) -> np.ndarray:
    """Scores of all of `base`, in the sense of `Metric`."""
    if metric == "l2":
        return np.linalg.norm(base - query, axis=1)
    scores = base @ query
    if metric == "cosine":
        scores = scores / np.linalg.norm(base, axis=1) / np.linalg.norm(query)
    return scores


@pytest.mark.parametrize("metric", list(Metric))
def test_search_equals_exact_search(db: Any, name: str, metric: Metric) -> None:
    base = vectors(500)
    points = db.create_collection(name, dim=DIM, metric=metric)
    points.upsert(range(500), vectors=base)
    query = vectors(1)[0]
    scores = exact(metric, query, base)
    order = np.argsort(scores if metric is Metric.L2 else -scores)[:10]
    hits = points.search(vector=query, k=10)
    assert [hit.id for hit in hits] == order.tolist()
    assert [hit.score for hit in hits] == pytest.approx(scores[order].tolist(), abs=1e-5)


def test_what_is_written_comes_back(db: Any, name: str) -> None:
    points = db.create_collection(name, dim=DIM)
    base = vectors(3)
    payloads = [{"a": 1, "b": [1, 2.5, None, {"c": "é"}]}, None, {"big": 2**60}]
    result = points.upsert(
        [0, "zero", 2**64 - 1], vectors=base, texts=["one", None, "three"], payloads=payloads
    )
    assert result.ids == [0, "zero", 2**64 - 1]
    records = points.get([2**64 - 1, "missing", "zero", 0, "0"])
    assert [r.id for r in records] == [2**64 - 1, "zero", 0]
    assert [r.text for r in records] == ["three", None, "one"]
    assert [r.payload for r in records] == [payloads[2], None, payloads[0]]
    np.testing.assert_array_equal(np.stack([r.vector for r in records]), base[[2, 1, 0]])
    assert isinstance(records[0], Record)


def test_an_upsert_replaces(db: Any, name: str) -> None:
    points = db.create_collection(name, dim=DIM, metric="l2")
    old, new = vectors(2)
    points.upsert(["a"], vectors=[old], payloads=[{"v": 1}])
    points.upsert(["a"], vectors=[new], payloads=[{"v": 2}])
    assert points.count() == 1
    assert points.get(["a"])[0].payload == {"v": 2}
    hits = points.search(vector=old, k=10)
    assert [hit.payload for hit in hits] == [{"v": 2}]


def test_int_and_str_ids_differ(db: Any, name: str) -> None:
    points = db.create_collection(name, dim=DIM)
    points.upsert([1, "1"], vectors=vectors(2))
    assert points.count() == 2
    assert points.delete(ids=["1"]) == 1
    assert [r.id for r in points.get([1, "1"])] == [1]


def test_ids_come_back_as_plain_int_and_str(db: Any, name: str) -> None:
    points = db.create_collection(name, dim=2)
    result = points.upsert([np.str_("x"), np.uint8(1)], vectors=[[1, 0], [0, 1]])
    hits = points.search(vector=[1, 0])
    records = points.get([np.str_("x"), np.int64(1)])
    for ids in (result.ids, [hit.id for hit in hits], [record.id for record in records]):
        assert [type(each) for each in ids] == [str, int]


def test_deleted_points_are_gone(db: Any, name: str) -> None:
    points = db.create_collection(name, dim=DIM)
    points.upsert(range(100), vectors=vectors(100), payloads=[{"n": i} for i in range(100)])
    assert points.delete(ids=[1, 2, 3, 1000]) == 3
    assert points.delete(filter={"n": {"$gte": 50}}) == 50
    assert points.delete(filter={"n": {"$gte": 50}}) == 0
    assert points.count() == 47
    found = {hit.id for hit in points.search(vector=vectors(1)[0], k=100)}
    assert found == {0, *range(4, 50)}


def test_filters_give_k_of_what_matches(db: Any, name: str) -> None:
    points = db.create_collection(name, dim=DIM)
    payloads = [
        {"lang": "en" if i % 3 else "de", "at": {"year": 2000 + i % 30}} for i in range(600)
    ]
    points.upsert(range(600), vectors=vectors(600), payloads=payloads)
    condition = {"lang": "de", "$or": [{"at.year": {"$gte": 2025}}, {"at.year": 2000}]}
    expected = {
        i
        for i, p in enumerate(payloads)
        if p["lang"] == "de" and (p["at"]["year"] >= 2025 or p["at"]["year"] == 2000)
    }
    assert points.count(condition) == len(expected)
    hits = points.search(vector=vectors(1)[0], k=len(expected) + 5, filter=condition)
    assert {hit.id for hit in hits} == expected


def test_sealed_and_growing_segments_are_searched_together(db: Any, name: str) -> None:
    base = vectors(5_000)
    points = db.create_collection(name, dim=DIM)
    points.upsert(range(3_000), vectors=base[:3_000], payloads=[{"i": i} for i in range(3_000)])
    points.flush()
    assert points.info().indexed == 3_000
    points.upsert(range(3_000, 5_000), vectors=base[3_000:])
    points.delete(ids=range(0, 3_000, 2))
    points.upsert([1], vectors=[base[4_999]], payloads=[{"i": -1}])
    live = np.array([i for i in range(5_000) if i >= 3_000 or i % 2])
    current = base.copy()
    current[1] = base[4_999]
    found = total = 0
    for query in vectors(20):
        order = live[np.argsort(-exact("cosine", query, current[live]))[:10]]
        hits = points.search(vector=query, k=10, ef=400)
        found += len({hit.id for hit in hits} & set(order.tolist()))
        total += 10
    assert found / total >= 0.99
    assert points.count({"i": {"$gte": 0}}) == 1_499
    assert points.count() == 3_500


def test_a_batch_of_queries_is_each_query(db: Any, name: str) -> None:
    points = db.create_collection(name, dim=DIM)
    points.upsert(range(200), vectors=vectors(200))
    queries = vectors(7)
    batch = points.search_batch(vectors=queries, k=3)
    assert [[h.id for h in hits] for hits in batch] == [
        [h.id for h in points.search(vector=query, k=3)] for query in queries
    ]


def test_collections_come_and_go(db: Any, name: str) -> None:
    db.create_collection(name, dim=3)
    assert name in db.list_collections()
    with pytest.raises(CollectionExistsError, match=name):
        db.create_collection(name, dim=3)
    info = db.collection(name).info()
    assert (info.name, info.dim, info.metric, info.count) == (name, 3, Metric.COSINE, 0)
    db.drop_collection(name)
    assert name not in db.list_collections()
    with pytest.raises(CollectionNotFoundError, match=name):
        db.collection(name)
    with pytest.raises(CollectionNotFoundError, match=name):
        db.drop_collection(name)
    db.create_collection(name, dim=4)
    assert db.collection(name).info().dim == 4


def test_an_empty_collection_answers(db: Any, name: str) -> None:
    points = db.create_collection(name, dim=3)
    assert points.search(vector=[1.0, 2.0, 3.0]) == []
    assert points.count() == 0
    assert points.get(["a"]) == []
    assert points.delete(ids=["a"]) == 0
    points.flush()


@pytest.mark.parametrize("metric", list(Metric))
def test_both_doors_give_the_same_answers(both: tuple[Any, Any], name: str, metric: Metric) -> None:
    base, queries = vectors(3_000), vectors(20)
    answers = []
    for door in both:
        points = door.create_collection(name, dim=DIM, metric=metric)
        points.upsert(range(2_500), vectors=base[:2_500])
        points.upsert([f"s{i}" for i in range(500)], vectors=base[2_500:])
        answers.append(points.search_batch(vectors=queries, k=10))
    embedded, server = answers
    for mine, theirs in zip(embedded, server, strict=True):
        assert [hit.id for hit in mine] == [hit.id for hit in theirs]
        assert [h.score for h in mine] == pytest.approx([h.score for h in theirs], abs=1e-5)

"""Every call through both clients, against the fake engine."""

from __future__ import annotations

import inspect

import numpy as np
import pytest

from tests.server.fake_engine import ENCODER
from vecdb import errors
from vecdb.types import FinishReason, Hit, LoadedModel, Metric, UpsertResult
from vecdb_client import AsyncClient, AsyncCollection, Client, Collection

BIG = 2**64 - 1


def test_vectors_come_back_as_they_went_in(client):
    vecs = client.create_collection("vecs", dim=3, metric="l2")
    vectors = np.array([[1, 2, 3], [0.1, 1e-30, -1e30]], np.float32)
    payloads = [{"n": 2**63 + 1, "x": 0.1, "s": "é\0", "l": [1, None, True]}, None]
    result = vecs.upsert([BIG, "1"], vectors=vectors, payloads=payloads)
    assert result == UpsertResult([BIG, "1"], [])
    records = vecs.get(["1", BIG, 17])
    assert [record.id for record in records] == ["1", BIG]
    assert np.array_equal(records[0].vector, vectors[1])
    assert records[0].vector.dtype == np.float32
    assert records[1].payload == payloads[0]
    assert records[0].payload is None
    assert records[0].text is None
    assert vecs.get([17]) == []


def test_texts_and_search(client):
    docs = client.create_collection("docs", encoder="letters")
    docs.upsert([1, 2], texts=["aaa", "bbb"], payloads=[{"y": 1}, {"y": 2}])
    hits = docs.search("ab b", k=5)
    assert [(hit.id, hit.text, hit.payload) for hit in hits] == [
        (2, "bbb", {"y": 2}),
        (1, "aaa", {"y": 1}),
    ]
    assert hits == docs.search_batch(["ab b", "x"], k=5)[0]
    assert docs.search("a", filter={"y": {"$gt": 1}}) == [Hit(2, 0.0, "bbb", {"y": 2})]
    assert docs.search_batch(vectors=np.eye(26, dtype=np.float32)[:2], k=1)[1][0].id == 2
    assert docs.search(vector=[1.0] + 25 * [0.0], k=1)[0].id == 1
    assert docs.upsert(["z"], texts=["z"], long_text="chunk").truncated == ["z"]


def test_count_delete_flush_info(client):
    vecs = client.create_collection("v", dim=2)
    vecs.upsert(range(4), vectors=np.ones((4, 2)), payloads=[{"n": n} for n in range(4)])
    assert vecs.count() == 4
    assert vecs.count({"n": {"$lt": 2}}) == 2
    assert vecs.delete([0, 99]) == 1
    assert vecs.delete(filter={"n": 1}) == 1
    vecs.flush()
    info = vecs.info()
    assert (info.name, info.dim, info.metric, info.encoder) == ("v", 2, Metric.COSINE, None)
    assert (info.count, info.segments, info.indexed, info.disk_bytes) == (2, 1, 2, 123)


def test_collections(client):
    assert client.create_collection("b", encoder="letters").info().encoder == ENCODER
    client.create_collection("a", dim=2)
    assert client.list_collections() == ["a", "b"]
    assert client.collection("a").name == "a"
    client.drop_collection("a")
    assert client.list_collections() == ["b"]
    with pytest.raises(errors.CollectionNotFoundError, match="'a'"):
        client.collection("a")
    with pytest.raises(errors.CollectionExistsError):
        client.create_collection("b", dim=2)


def test_points_with_and_without_text(client, engine):
    client.create_collection("v", dim=2).upsert([1, 2], texts=["t", None], vectors=np.ones((2, 2)))
    assert [record.text for record in engine.collection("v").get([1, 2])] == ["t", None]


def test_server_info_and_ping(client):
    assert client.ping() is None
    info = client.server_info()
    assert info.version == "1.2.3"
    assert info.encoders == [LoadedModel("letters", "CPU")]
    assert info.decoder == LoadedModel("words", "CUDA")


def test_ask_streams_and_ends(client):
    docs = client.create_collection("docs", encoder="letters")
    answer = docs.ask("q", max_tokens=2)
    assert list(answer) == ["q0 é", "q1 é"]
    assert answer.text == "q0 éq1 é"
    assert answer.citations[0].id == "a"
    assert answer.sources[0].payload == {"n": 1}
    assert answer.finish_reason is FinishReason.STOP
    assert (answer.end.prompt_tokens, answer.end.completion_tokens) == (12, 2)


async def test_the_async_client_does_the_same(start):
    async with AsyncClient(f"grpc://{start()}") as client:
        docs = await client.create_collection("docs", encoder="letters")
        await docs.upsert([1, "2"], texts=["aaa", "bbb"])
        assert [hit.id for hit in await docs.search("b")] == ["2", 1]
        assert (await docs.search_batch(["b"]))[0][0].id == "2"
        assert [record.text for record in await docs.get(["2"])] == ["bbb"]
        assert await docs.delete([1]) == 1
        assert await docs.count() == 1
        await docs.flush()
        assert (await docs.info()).count == 1
        assert await client.list_collections() == ["docs"]
        assert (await client.collection("docs")).name == "docs"
        answer = await docs.ask("q", max_tokens=2)
        with pytest.raises(errors.FailedPreconditionError, match="finish"):
            _ = answer.citations
        assert [piece async for piece in answer] == ["q0 é", "q1 é"]
        assert answer.text == "q0 éq1 é"
        assert answer.citations[0].id == "a"
        assert (await (await docs.ask("q", max_tokens=3)).finish()).completion_tokens == 3
        with pytest.raises(errors.CollectionNotFoundError):
            await (await client.collection("docs")).delete(
                ["x"], filter=None
            ) or await client.collection("nope")
        await client.drop_collection("docs")
        with pytest.raises(errors.CollectionNotFoundError):
            await (await docs.ask("q")).finish()
    with pytest.raises(errors.ClosedError):
        await client.ping()


def test_both_clients_have_the_same_methods():
    for blocking, asynchronous in ((Client, AsyncClient), (Collection, AsyncCollection)):
        names = {name for name in vars(blocking) if not name.startswith("_")}
        assert names == {name for name in vars(asynchronous) if not name.startswith("_")}
        for name in names - {"close"}:
            ours, theirs = getattr(blocking, name), getattr(asynchronous, name)
            assert inspect.signature(ours) == inspect.signature(theirs)
            assert "timeout" in inspect.signature(ours).parameters
            assert ours.__doc__


def test_the_client_takes_what_the_engine_takes():
    from vecdb.collection import Collection as EmbeddedCollection
    from vecdb.database import Database

    for remote, embedded in ((Client, Database), (Collection, EmbeddedCollection)):
        for name in {name for name in vars(remote) if not name.startswith("_")}:
            if name == "close":
                continue
            theirs = inspect.signature(getattr(embedded, name)).parameters
            ours = inspect.signature(getattr(remote, name)).parameters
            # The engine's methods begin with self, the functions behind ours with the collection.
            given = [p for p in theirs.values() if p.name != "self"]
            sent = [p for p in ours.values() if p.name not in ("timeout", "collection")]
            assert [(p.name, p.kind, p.default) for p in sent] == [
                (p.name, p.kind, p.default) for p in given
            ], name


def test_a_database_and_a_client_have_the_same_methods():
    from vecdb.database import Database

    there, here = ({n for n in vars(door) if not n.startswith("_")} for door in (Client, Database))
    assert here - there == {"backup_to", "models"}  # what the server and the commands use
    assert there <= here


BAD = [
    (errors.InvalidVectorError, lambda v: v.upsert([1], vectors=[["a", "b"]])),
    (errors.InvalidVectorError, lambda v: v.upsert([1], vectors=[[1.0, float("nan")]])),
    (errors.InvalidVectorError, lambda v: v.upsert([1], vectors=[[1.0, 1e300]])),
    (errors.InvalidVectorError, lambda v: v.upsert([1, 2], vectors=[[1.0], [1.0, 2.0]])),
    (errors.InvalidVectorError, lambda v: v.upsert([1], vectors=np.ones((1, 2, 3)))),
    (errors.InvalidArgumentError, lambda v: v.search(vector=np.ones((2, 2)))),
    (errors.DimensionMismatchError, lambda v: v.upsert([1], vectors=np.ones((1, 3)))),
    (errors.DimensionMismatchError, lambda v: v.search(vector=[1.0])),
    (errors.EmptyBatchError, lambda v: v.upsert([], vectors=np.empty((0, 2)))),
    (errors.DuplicateIdError, lambda v: v.upsert([1, 1], vectors=np.ones((2, 2)))),
    (errors.InvalidIdError, lambda v: v.get([-1])),
    (errors.InvalidIdError, lambda v: v.get([2**64])),
    (errors.InvalidIdError, lambda v: v.get([True])),
    (errors.InvalidIdError, lambda v: v.get([1.0])),
    (errors.InvalidIdError, lambda v: v.get("abc")),
    (errors.InvalidIdError, lambda v: v.upsert([""], vectors=np.ones((1, 2)))),
    (errors.InvalidIdError, lambda v: v.get(["\ud800"])),
    (errors.InvalidParameterError, lambda v: v.search(vector=[1, 2], k=0)),
    (errors.InvalidParameterError, lambda v: v.search(vector=[1, 2], k=-1)),
    (errors.InvalidParameterError, lambda v: v.search(vector=[1, 2], k=2**80)),
    (errors.InvalidParameterError, lambda v: v.search(vector=[1, 2], k="ten")),
    (errors.InvalidArgumentError, lambda v: v.search()),
    (errors.InvalidArgumentError, lambda v: v.search("a", vector=[1, 2])),
    (errors.InvalidParameterError, lambda v: v.delete()),
    (errors.InvalidParameterError, lambda v: v.upsert([1], texts=["a"], long_text="?")),
    (errors.InvalidParameterError, lambda v: v.ask("q", max_tokens=2**70)),
    (errors.InvalidPayloadError, lambda v: v.upsert([1], None, [[1, 2]], [[1]])),
    (errors.InvalidPayloadError, lambda v: v.upsert([1], None, [[1, 2]], [{1: 2}])),
    (errors.InvalidPayloadError, lambda v: v.upsert([1], None, [[1, 2]], [{"x": {1}}])),
    (errors.InvalidFilterError, lambda v: v.count(["x"])),
    (errors.InvalidFilterError, lambda v: v.count({"x": {"$what": 1}})),
    (errors.InvalidFilterError, lambda v: v.count({"x": float("nan")})),
    (errors.InvalidTextError, lambda v: v.upsert([1], texts=["\ud800"])),
    (errors.InvalidTextError, lambda v: v.upsert([1], texts=[5])),
    (errors.LengthMismatchError, lambda v: v.upsert([1], texts="a")),
    (errors.LengthMismatchError, lambda v: v.upsert([1], None, [[1, 2]], {"a": 1})),
    (errors.InvalidTextError, lambda v: v.search_batch("a")),
    (errors.InvalidTextError, lambda v: v.search(5)),
]


@pytest.mark.parametrize(("kind", "call"), BAD)
def test_bad_input_has_its_own_class(client, kind, call):
    vecs = client.create_collection("v", dim=2)
    with pytest.raises(kind) as caught:
        call(vecs)
    assert type(caught.value) is kind
    assert vecs.count() == 0


@pytest.mark.parametrize("name", [5, "\ud800"])
def test_a_name_that_cannot_be_sent(client, name):
    with pytest.raises(errors.InvalidNameError):
        client.collection(name)


def test_bad_settings_of_a_collection(client):
    with pytest.raises(errors.InvalidParameterError, match=r"hamming.*cosine, dot, l2"):
        client.create_collection("a", dim=2, metric="hamming")
    with pytest.raises(errors.InvalidParameterError, match="dim=0"):
        client.create_collection("a", dim=0)

"""What a server promises besides its answers: limits, deadlines, rights, health."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

from vecdb import errors
from vecdb.caller import check_caller
from vecdb.types import FinishReason
from vecdb_client import AsyncClient, Client
from vecdb_proto.status import WIRE_KEY
from vecdb_proto.v1 import vecdb_pb2 as pb
from vecdb_proto.v1.vecdb_pb2_grpc import VecdbServiceStub
from vecdb_server import ClassLimit, Limits, Server, ServerConfig
from vecdb_server import server as server_module
from vecdb_server.admission import CallClass, Gate, gates

SERVING = health_pb2.HealthCheckResponse.SERVING


def wait_until(condition, seconds=10.0):
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, "it did not happen"
        time.sleep(0.01)


class Blocker:
    """Holds the engine's calls of one kind until it is opened."""

    def __init__(self, engine, kind):
        self.entered = 0
        self.open = threading.Event()
        self._kind = kind
        engine.before = self

    def __call__(self, kind):
        if kind == self._kind:
            self.entered += 1
            self.open.wait(20)


class Waiting:
    """Stands for the context of a call whose caller waits."""

    def is_active(self):
        return True

    def time_remaining(self):
        return 60.0


@pytest.fixture
def vecs(client):
    vecs = client.create_collection("v", dim=2)
    vecs.upsert([1], vectors=[[1.0, 0.0]])
    return vecs


class TestDeadlines:
    def test_a_call_gives_up_at_its_timeout(self, engine, vecs):
        blocker = Blocker(engine, "search")
        with pytest.raises(errors.DeadlineExceededError, match="timeout="):
            vecs.search(vector=[1, 0], timeout=0.2)
        blocker.open.set()
        assert vecs.search(vector=[1, 0])[0].id == 1

    def test_the_clients_timeout_is_the_default(self, engine, start):
        with Client(f"grpc://{start()}", timeout=0.2) as client:
            vecs = client.create_collection("v", dim=2)
            blocker = Blocker(engine, "search")
            with pytest.raises(TimeoutError):
                vecs.search(vector=[1, 0])
            blocker.open.set()

    def test_work_whose_caller_has_gone_is_skipped(self, engine, start):
        limits = Limits(search=ClassLimit(1, 8))
        with Client(f"grpc://{start(limits=limits)}") as client:
            vecs = client.create_collection("v", dim=2)
            blocker = Blocker(engine, "search")
            first = threading.Thread(target=lambda: vecs.search(vector=[1, 0]))
            first.start()
            wait_until(lambda: blocker.entered == 1)
            for _ in range(3):
                with pytest.raises(errors.DeadlineExceededError):
                    vecs.search(vector=[1, 0], timeout=0.1)
            blocker.open.set()
            first.join()
            vecs.search(vector=[1, 0])
        assert blocker.entered == 2

    async def test_a_cancelled_task_gives_up_its_place(self, engine, start):
        limits = Limits(search=ClassLimit(1, 1))
        async with AsyncClient(f"grpc://{start(limits=limits)}") as client:
            vecs = await client.create_collection("v", dim=2)
            blocker = Blocker(engine, "search")
            first = asyncio.create_task(vecs.search(vector=[1, 0]))
            await asyncio.to_thread(wait_until, lambda: blocker.entered == 1)
            second = asyncio.create_task(vecs.search(vector=[1, 0]))
            await asyncio.sleep(0.1)
            second.cancel()
            with pytest.raises(asyncio.CancelledError):
                await second
            await asyncio.sleep(0.6)  # longer than a waiting call takes to look for its caller
            third = asyncio.create_task(vecs.search(vector=[1, 0]))
            await asyncio.sleep(0.1)
            assert not third.done()
            blocker.open.set()
            await asyncio.gather(first, third)
        assert blocker.entered == 2


class TestLimits:
    def test_over_the_limit_is_refused_at_once_and_other_classes_go_on(self, engine, start):
        limits = Limits(search=ClassLimit(1, 0))
        with Client(f"grpc://{start(limits=limits)}") as client:
            vecs = client.create_collection("v", dim=2)
            blocker = Blocker(engine, "search")
            first = threading.Thread(target=lambda: vecs.search(vector=[1, 0]))
            first.start()
            wait_until(lambda: blocker.entered == 1)
            with pytest.raises(errors.OverloadedError, match="1 search calls are running and 0"):
                vecs.search(vector=[1, 0])
            vecs.upsert([5], vectors=[[1.0, 0.0]])
            blocker.open.set()
            first.join()
            assert vecs.search(vector=[1, 0])[0].id == 5

    def test_a_request_over_the_message_limit_is_not_sent(self, start):
        with Client(f"grpc://{start()}", message_bytes=1 << 16) as client:
            vecs = client.create_collection("v", dim=1000)
            with pytest.raises(errors.MessageTooLargeError, match="split the batch"):
                vecs.upsert(range(20), vectors=np.ones((20, 1000)))
            assert vecs.count() == 0

    def test_a_server_with_a_smaller_limit_says_so(self, start):
        with Client(f"grpc://{start(message_bytes=1 << 16)}") as client:
            vecs = client.create_collection("v", dim=1000)
            with pytest.raises(errors.MessageTooLargeError, match="message_bytes"):
                vecs.upsert(range(20), vectors=np.ones((20, 1000)))
            for n in range(20):
                vecs.upsert([n], vectors=np.ones((1, 1000)))
            with pytest.raises(errors.MessageTooLargeError, match="ask for less"):
                vecs.get(range(20))

    def test_an_answer_over_the_clients_limit(self, start):
        address = start()
        with Client(f"grpc://{address}") as big:
            big.create_collection("v", dim=1000).upsert(range(20), vectors=np.ones((20, 1000)))
        with (
            Client(f"grpc://{address}", message_bytes=1 << 16) as small,
            pytest.raises(errors.MessageTooLargeError),
        ):
            small.collection("v").get(range(20))

    def test_each_class_has_its_own(self):
        own = {kind: ClassLimit(n, n) for n, kind in enumerate(CallClass, start=1)}
        made = gates(Limits(**{kind.value: limit for kind, limit in own.items()}))
        assert {kind: gate._limit for kind, gate in made.items()} == own

    def test_who_came_first_has_the_first_turn(self):
        gate = Gate(CallClass.SEARCH, ClassLimit(1, 4))
        gate.enter(Waiting())
        order = []

        def call(number):
            gate.enter(Waiting())
            order.append(number)
            gate.leave()

        threads = []
        for n in range(4):
            threads.append(threading.Thread(target=call, args=(n,)))
            threads[-1].start()
            wait_until(lambda n=n: len(gate._queue) == n + 1)
        gate.leave()
        for thread in threads:
            thread.join()
        assert order == [0, 1, 2, 3]
        assert not gate.is_busy()


class TestAsk:
    def test_cancelling_stops_the_generation(self, engine, client):
        docs = client.create_collection("docs", encoder="letters")
        engine.seconds_per_piece = 0.02
        answer = docs.ask("q", max_tokens=10_000)
        assert next(iter(answer)) == "q0 é"
        answer.cancel()
        assert engine.answers_over.wait(5)
        assert engine.pieces < 100
        assert answer.finish_reason is FinishReason.CANCELLED
        assert answer.text == "q0 é"

    def test_another_thread_may_cancel_while_one_iterates(self, engine, client):
        docs = client.create_collection("docs", encoder="letters")
        engine.seconds_per_piece = 0.02
        answer = docs.ask("q", max_tokens=10_000)
        with ThreadPoolExecutor(1) as threads:
            pieces = threads.submit(list, answer)
            wait_until(lambda: engine.pieces > 3)
            answer.cancel()
            assert "".join(pieces.result(5)) == answer.text
        assert answer.finish_reason is FinishReason.CANCELLED

    def test_a_dropped_answer_stops_the_generation(self, engine, client):
        docs = client.create_collection("docs", encoder="letters")
        engine.seconds_per_piece = 0.02
        answer = docs.ask("q", max_tokens=10_000)
        next(iter(answer))
        del answer
        assert engine.answers_over.wait(5)

    def test_a_client_that_is_closed_stops_the_generation(self, engine, start):
        engine.seconds_per_piece = 0.02
        client = Client(f"grpc://{start()}")
        answer = client.create_collection("docs", encoder="letters").ask("q", max_tokens=10_000)
        next(iter(answer))
        client.close()
        assert engine.answers_over.wait(5)
        with pytest.raises(errors.ClosedError):
            _ = answer.text
        with pytest.raises(errors.ClosedError):
            client.ping()

    def test_the_deadline_stops_the_generation(self, engine, client):
        docs = client.create_collection("docs", encoder="letters")
        engine.seconds_per_piece = 0.02
        with pytest.raises(errors.DeadlineExceededError):
            _ = docs.ask("q", max_tokens=10_000, timeout=0.3).text
        assert engine.answers_over.wait(5)
        assert engine.pieces < 100

    def test_the_deadline_frees_the_place_of_an_answer_that_says_nothing(self, engine, client):
        docs = client.create_collection("docs", encoder="letters")
        engine.silent = True
        with pytest.raises(errors.DeadlineExceededError):
            _ = docs.ask("q", timeout=0.3).text
        assert engine.answers_over.wait(5)
        engine.silent = False
        assert docs.ask("q", max_tokens=1, timeout=5).text == "q0 é"

    async def test_the_async_answer_can_be_cancelled(self, engine, start):
        engine.seconds_per_piece = 0.02
        async with AsyncClient(f"grpc://{start()}") as client:
            docs = await client.create_collection("docs", encoder="letters")
            answer = await docs.ask("q", max_tokens=10_000)
            async for _ in answer:
                break
            answer.cancel()
            assert await asyncio.to_thread(engine.answers_over.wait, 5)
            assert (await answer.finish()).finish_reason is FinishReason.CANCELLED

    async def test_another_task_may_cancel_while_one_iterates(self, engine, start):
        engine.seconds_per_piece = 0.02
        async with AsyncClient(f"grpc://{start()}") as client:
            docs = await client.create_collection("docs", encoder="letters")
            answer = await docs.ask("q", max_tokens=10_000)
            reader = asyncio.create_task(answer.finish())
            await asyncio.to_thread(wait_until, lambda: engine.pieces > 3)
            answer.cancel()
            assert (await reader).finish_reason is FinishReason.CANCELLED

    def test_errors_before_and_within_the_stream(self, engine, client):
        docs = client.create_collection("docs", encoder="letters")

        def fail(_):
            raise errors.DecoderError("the model is out of words")

        engine.before = fail
        with pytest.raises(errors.DecoderError, match="out of words"):
            _ = docs.ask("q").text


class TestDefects:
    def test_an_unknown_exception_is_logged_and_not_shown(self, engine, client, vecs, caplog):
        def fail(kind):
            raise RuntimeError(f"secret in {kind}")

        engine.before = fail
        with pytest.raises(errors.InternalError) as caught:
            vecs.search(vector=[1, 0])
        assert "secret" not in str(caught.value)
        record = next(r for r in caplog.records if r.levelno == logging.ERROR)
        assert record.defect in str(caught.value)
        assert "secret in search" in caplog.text

    def test_the_status_is_readable_without_vecdb(self, client, start):
        with grpc.insecure_channel(start()) as channel:
            stub = VecdbServiceStub(channel)
            with pytest.raises(grpc.RpcError) as caught:
                stub.Count(pb.CountRequest(collection="nope"))
            assert caught.value.code() is grpc.StatusCode.NOT_FOUND
            assert (WIRE_KEY, "COLLECTION_NOT_FOUND") in caught.value.trailing_metadata()
            with pytest.raises(grpc.RpcError) as caught:
                stub.Search(pb.SearchRequest(collection="nope", filter_json="{"))
            assert caught.value.code() is grpc.StatusCode.NOT_FOUND


class TestHealthAndReflection:
    def test_health(self, start):
        with grpc.insecure_channel(start(api_keys=("k",))) as channel:
            health = health_pb2_grpc.HealthStub(channel)
            for service in ("", "vecdb.v1.VecdbService"):
                request = health_pb2.HealthCheckRequest(service=service)
                assert health.Check(request).status == SERVING

    def test_reflection(self, start):
        with grpc.insecure_channel(start()) as channel:
            database = ProtoReflectionDescriptorDatabase(channel)
            assert "vecdb.v1.VecdbService" in database.get_services()
            service = DescriptorPool(database).FindServiceByName("vecdb.v1.VecdbService")
            assert set(service.methods_by_name) >= {"Search", "Ask", "Upsert"}


def test_a_backup_ends_when_nobody_waits_for_it(engine, start, tmp_path):
    address = start(backup_dir=tmp_path)
    with Client(f"grpc://{address}") as client:
        with pytest.raises(errors.DeadlineExceededError):
            client.backup("nightly", timeout=0.3)
        assert engine.backup_over.wait(5)
        assert engine.pieces > 1


def test_a_backup_does_not_keep_a_server_from_stopping(engine, tmp_path):
    config = ServerConfig(data=Path("unused"), listen="127.0.0.1:0", backup_dir=tmp_path)
    server = Server(engine, config)
    server.start()
    with Client(f"grpc://{server.address}") as client:
        caller = threading.Thread(target=lambda: refused(lambda: client.backup("nightly")))
        caller.start()
        wait_until(lambda: engine.pieces)
        server.stop(0.2)
        assert engine.backup_over.is_set()
        caller.join(5)
        assert not caller.is_alive()


def test_a_call_that_does_not_end_does_not_keep_a_server_from_stopping(engine, monkeypatch):
    monkeypatch.setattr(server_module, "_UNWIND_SECONDS", 0.1)
    server = Server(engine, ServerConfig(data=Path("unused"), listen="127.0.0.1:0"))
    server.start()
    with Client(f"grpc://{server.address}") as client:
        vecs = client.create_collection("v", dim=2)
        blocker = Blocker(engine, "flush")
        caller = threading.Thread(target=lambda: refused(vecs.flush))
        caller.start()
        wait_until(lambda: blocker.entered)
        assert not server.stop(0.1)
        blocker.open.set()
        caller.join(5)


def test_an_upsert_whose_caller_has_gone_is_given_up(engine, client):
    vecs = client.create_collection("v", dim=2)
    given_up = threading.Event()

    def embed_for_ever(kind):
        try:
            while kind == "upsert":
                time.sleep(0.005)
                check_caller()
        except errors.DeadlineExceededError:
            given_up.set()
            raise

    engine.before = embed_for_ever
    with pytest.raises(errors.DeadlineExceededError):
        vecs.upsert([1], vectors=[[1.0, 0.0]], timeout=0.2)
    assert given_up.wait(5)
    assert vecs.count() == 0


def refused(call):
    with pytest.raises((errors.UnavailableError, errors.CancelledError)):
        call()

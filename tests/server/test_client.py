"""What a client takes care of by itself: its timeouts, its event loop, and its end."""

from __future__ import annotations

import asyncio
import math
import threading

import pytest

from vecdb import errors
from vecdb_client import AsyncClient, Client


@pytest.mark.parametrize("seconds", [math.inf, 1e18, 10**40, 3])
def test_a_timeout_may_be_as_long_as_you_like(start, seconds):
    address = start()
    with Client(f"grpc://{address}", timeout=seconds, long_timeout=seconds) as client:
        client.create_collection("v", dim=2)
        assert client.list_collections() == ["v"]
        assert client.list_collections(timeout=seconds) == ["v"]


@pytest.mark.parametrize("seconds", [0, -1, math.nan, "5", True])
def test_a_timeout_that_is_none(client, seconds):
    with pytest.raises(errors.InvalidParameterError, match=r"timeout=.*above 0"):
        client.ping(timeout=seconds)
    with pytest.raises(errors.InvalidParameterError, match=r"long_timeout=.*above 0"):
        Client("grpc://h", long_timeout=seconds)


def test_an_async_client_belongs_to_one_event_loop(start):
    client = AsyncClient(f"grpc://{start()}")
    assert asyncio.run(client.list_collections()) == []
    with pytest.raises(errors.FailedPreconditionError, match="another event loop"):
        asyncio.run(client.list_collections())
    asyncio.run(client.close())
    with pytest.raises(errors.ClosedError):
        asyncio.run(client.list_collections())


@pytest.fixture
def held(engine):
    """Every flush waits until the test is over; set once one has begun."""
    begun, over = threading.Event(), threading.Event()

    def before(call):
        if call == "flush":
            begun.set()
            over.wait(20)

    engine.before = before
    engine.silent = True
    yield begun
    over.set()


async def finish_an_answer(collection):
    await (await collection.ask("q")).finish()


async def flush(collection):
    await collection.flush()


@pytest.mark.parametrize("call", [flush, finish_an_answer])
async def test_closing_an_async_client_is_an_error_of_what_is_under_way(engine, start, held, call):
    client = AsyncClient(f"grpc://{start()}")
    collection = await client.create_collection("v", dim=2)

    async def close():
        while not held.is_set() and not engine.pieces:
            await asyncio.sleep(0.005)
        await client.close()

    async def both():
        async with asyncio.TaskGroup() as group:
            group.create_task(call(collection))
            group.create_task(close())

    with pytest.raises(ExceptionGroup) as raised:
        await both()
    assert [type(error) for error in raised.value.exceptions] == [errors.ClosedError]


async def test_a_task_cancelled_as_its_client_is_closed_stays_cancelled(start, held):
    client = AsyncClient(f"grpc://{start()}")
    collection = await client.create_collection("v", dim=2)
    task = asyncio.create_task(collection.flush())
    while not held.is_set():
        await asyncio.sleep(0.005)
    task.cancel()
    await client.close()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_closing_a_client_is_an_error_of_what_is_under_way(start, held):
    client = Client(f"grpc://{start()}")
    collection = client.create_collection("v", dim=2)

    def close():
        held.wait(20)
        client.close()

    closing = threading.Thread(target=close)
    closing.start()
    with pytest.raises(errors.ClosedError, match="Flush was broken off"):
        collection.flush()
    closing.join()


def test_closing_a_client_as_a_call_begins(client, monkeypatch):
    sender = client._connection._sender("Ping")

    def closed_meanwhile(rpc):
        client.close()
        return sender

    monkeypatch.setattr(client._connection, "_sender", closed_meanwhile)
    with pytest.raises(errors.ClosedError, match="Ping was called while"):
        client.ping()

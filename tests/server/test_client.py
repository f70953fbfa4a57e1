"""What a client takes care of by itself: its timeouts, and its event loop."""

from __future__ import annotations

import asyncio
import math

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

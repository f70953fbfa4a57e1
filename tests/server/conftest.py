from __future__ import annotations

from pathlib import Path

import pytest

from tests.server.fake_engine import FakeDatabase
from vecdb_client import Client
from vecdb_server import Server, ServerConfig


@pytest.fixture
def engine():
    return FakeDatabase()


@pytest.fixture
def start(engine):
    """Start a server around the fake engine; returns its address."""
    servers = []

    def start(**settings):
        settings = {"data": Path("unused"), "listen": "127.0.0.1:0", **settings}
        server = Server(engine, ServerConfig(**settings))
        server.start()
        servers.append(server)
        return server.address

    yield start
    for server in servers:
        server.stop(0)


@pytest.fixture
def client(start):
    with Client(f"grpc://{start()}") as client:
        yield client

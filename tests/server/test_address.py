"""Where a server listens and how a client finds it: ports, URLs, absences."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest

from vecdb import errors
from vecdb_client import Client
from vecdb_server import Server, ServerConfig


class TestAddress:
    def test_a_port_that_is_taken(self, engine, start):
        address = start()
        with pytest.raises(errors.FailedPreconditionError, match=address):
            Server(engine, ServerConfig(Path("x"), listen=address))

    def test_nobody_there(self):
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            port = unused.getsockname()[1]
        with Client(f"grpc://127.0.0.1:{port}", timeout=5) as client:
            with pytest.raises(errors.UnavailableError, match="cannot be reached"):
                client.list_collections()
            with pytest.raises(errors.UnavailableError):
                client.drop_collection("x")

    def test_a_read_waits_out_a_short_absence(self, engine, start):
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            port = unused.getsockname()[1]
        timer = threading.Timer(2.0, start, kwargs={"listen": f"127.0.0.1:{port}"})
        timer.start()
        with Client(f"grpc://127.0.0.1:{port}") as client:
            assert client.list_collections() == []
        timer.join()

    def test_a_new_client_does_not_wait_because_an_older_one_found_nobody(self, start):
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{unused.getsockname()[1]}"
        with Client(f"grpc://{address}") as older, Client(f"grpc://{address}") as newer:
            with pytest.raises(errors.UnavailableError, match=address):
                older.drop_collection("x")
            start(listen=address)
            with pytest.raises(errors.CollectionNotFoundError):  # asked once: not a repeated call
                newer.drop_collection("x")

    def test_ipv6(self, start):
        try:
            with socket.socket(socket.AF_INET6) as probe:
                probe.bind(("::1", 0))
        except OSError:
            pytest.skip("no IPv6 on this machine")
        address = start(listen="[::1]:0")
        with Client(f"grpc://{address}") as client:
            assert client.list_collections() == []

    @pytest.mark.parametrize(
        "url", ["http://x", "x:1", "grpc://", "grpc://h/path", "grpc://u@h", "grpc://h:99999", ""]
    )
    def test_bad_urls(self, url):
        with pytest.raises(errors.InvalidParameterError, match="grpc://host:port"):
            Client(url)

    def test_bad_settings(self):
        for settings in ({"timeout": 0}, {"api_key": "é"}, {"tls_ca": "x"}, {"message_bytes": 1}):
            with pytest.raises(errors.InvalidParameterError):
                Client("grpc://h", **settings)
        with pytest.raises(errors.InvalidParameterError, match="together"):
            Client("grpcs://h", tls_cert="x")
        with pytest.raises(errors.InvalidParameterError, match="cannot be read"):
            Client("grpcs://h", tls_ca="/nonexistent/ca.pem")

"""A server as a process of its own: signals, draining, exit."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from vecdb import errors
from vecdb_client import Client

SCRIPT = Path(__file__).with_name("serve_fake.py")


class Process:
    """A running server and what it says."""

    def __init__(self, grace_seconds):
        self.process = subprocess.Popen(
            [sys.executable, str(SCRIPT), str(grace_seconds)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.address = self.line()

    def line(self):
        return self.process.stdout.readline().strip()

    def send(self, number):
        self.process.send_signal(number)

    def wait(self):
        """Return the exit status, and the rest of stdout and stderr."""
        out, err = self.process.communicate(timeout=20)
        return self.process.returncode, out, err


@pytest.fixture
def process():
    started = []

    def start(grace_seconds=10.0):
        started.append(Process(grace_seconds))
        return started[-1]

    yield start
    for each in started:
        each.process.kill()
        each.process.communicate()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains_and_exits_with_0(process, number):
    server = process()
    with Client(f"grpc://{server.address}") as client:
        vecs = client.collection("v")
        vecs.upsert([1], vectors=[[1.0, 0.0]])
        hits = []
        search = threading.Thread(target=lambda: hits.extend(vecs.search(vector=[1.0, 0.0])))
        search.start()
        assert server.line() == "searching"
        server.send(number)
        search.join()
        assert [hit.id for hit in hits] == [1]
        status, out, err = server.wait()
        assert status == 0
        assert out == "closed after 0 pieces\n"
        assert "message=draining" in err
        assert f"signal={number.name}" in err
        with pytest.raises(errors.UnavailableError):
            client.drop_collection("v")


def test_health_says_not_serving_while_it_drains(process):
    server = process()
    with (
        Client(f"grpc://{server.address}") as client,
        grpc.insecure_channel(server.address) as channel,
    ):
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        states = health_pb2.HealthCheckResponse
        assert next(watch).status == states.SERVING
        vecs = client.collection("v")
        search = threading.Thread(target=lambda: vecs.search(vector=[1.0, 0.0]))
        search.start()
        assert server.line() == "searching"
        server.send(signal.SIGTERM)
        assert next(watch).status == states.NOT_SERVING
        search.join()
        assert server.wait()[0] == 0


def test_what_outlasts_the_grace_period_is_cancelled(process):
    server = process(grace_seconds=0.5)
    with Client(f"grpc://{server.address}") as client:
        answer = client.collection("docs").ask("q", max_tokens=100_000)
        next(iter(answer))
        started = time.monotonic()
        server.send(signal.SIGTERM)
        with pytest.raises((errors.CancelledError, errors.UnavailableError)):
            _ = answer.text
        status, out, _ = server.wait()
    assert status == 0
    assert out.startswith("closed after")
    assert time.monotonic() - started < 10


def test_a_second_signal_ends_it_at_once(process):
    server = process(grace_seconds=60)
    with Client(f"grpc://{server.address}") as client:
        answer = client.collection("docs").ask("q", max_tokens=100_000)
        next(iter(answer))
        server.send(signal.SIGTERM)
        while "draining" not in server.process.stderr.readline():
            pass
        server.send(signal.SIGTERM)
        assert server.wait()[0] == -signal.SIGTERM


def test_a_call_finds_the_server_that_was_killed_and_started_again(process, start):
    server = process()
    with Client(f"grpc://{server.address}") as client:
        client.ping()
        server.send(signal.SIGKILL)
        server.wait()
        again = threading.Timer(2.0, start, kwargs={"listen": server.address})
        again.start()
        assert client.list_collections() == []
        again.join()


def test_a_call_that_does_not_end_does_not_keep_the_process_from_exiting(tmp_path):
    script = """
import sys, threading, time
from pathlib import Path
from vecdb_server import ServerConfig, serve

module = sys.modules["vecdb_server.run"]

def run(*_):
    threading.Thread(target=time.sleep, args=(60,)).start()
    print("drained")
    return False

module.run = run
serve(ServerConfig(Path(sys.argv[1]), listen="127.0.0.1:0"))
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "data")],
        capture_output=True,
        text=True,
        timeout=40,
    )
    assert (done.returncode, done.stdout) == (0, "drained\n")
    assert "a cancelled call still runs" in done.stderr

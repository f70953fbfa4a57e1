"""The two doors: a database in this process, and one behind a server in its own process."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import vecdb

_numbers = itertools.count()


def start_server(data: Path, *options: str) -> tuple[subprocess.Popen[str], str]:
    """Start `vecdb serve` on a free port; return the process and its URL."""
    process = subprocess.Popen(
        [sys.executable, "-m", "vecdb.cli", "serve", "--data", str(data), "--listen",
         "127.0.0.1:0", *options],
        stdout=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line.startswith("listening on "):
        process.kill()
        process.wait()
        process.stdout.close()
        raise AssertionError(f"the server did not start: {line!r}")
    return process, line.removeprefix("listening on ").strip()


def stop_server(process: subprocess.Popen[str]) -> int:
    """Ask a server to stop; return its exit status."""
    process.terminate()
    try:
        return process.wait(timeout=60)
    finally:
        if process.stdout is not None:
            process.stdout.close()


@pytest.fixture(scope="session", params=["embedded", "server"])
def db(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """An open database, through either door."""
    data = tmp_path_factory.mktemp(f"data-{request.param}")
    if request.param == "embedded":
        with vecdb.connect(str(data)) as database:
            yield database
        return
    process, url = start_server(data)
    try:
        with vecdb.connect(url, timeout=120.0) as client:
            yield client
    finally:
        assert stop_server(process) == 0


@pytest.fixture
def name() -> str:
    """A collection name that no other test uses."""
    return f"c{next(_numbers)}"


@pytest.fixture(scope="session")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, Any]]:
    """An embedded database and a client, to compare what they answer."""
    process, url = start_server(tmp_path_factory.mktemp("data-both-server"))
    try:
        with (
            vecdb.connect(str(tmp_path_factory.mktemp("data-both-embedded"))) as embedded,
            vecdb.connect(url, timeout=120.0) as client,
        ):
            yield embedded, client
    finally:
        assert stop_server(process) == 0

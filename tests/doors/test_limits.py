"""Disk and memory have limits: growth is refused in words, and everything else goes on."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecdb
from tests.doors.conftest import start_server, stop_server
from vecdb.errors import (
    DiskFullError,
    DiskLimitError,
    InvalidParameterError,
    MemoryLimitError,
    ResourceExhaustedError,
)
from vecdb.sizes import parse_size
from vecdb.storage import PosixStore, check_directory

DIM = 64
ROWS = 1_000
BATCH_BYTES = ROWS * DIM * 4
MiB = 1 << 20

Open = Callable[..., Any]


@contextmanager
def embedded(data: Path, **limits: int) -> Iterator[Any]:
    with vecdb.connect(str(data), **limits) as db:
        yield db


@contextmanager
def served(data: Path, **limits: int) -> Iterator[Any]:
    names = {"max_disk_bytes": "--max-disk", "max_memory_bytes": "--max-memory",
             "min_free_bytes": "--min-free"}  # fmt: skip
    options = [word for name, value in limits.items() for word in (names[name], str(value))]
    process, url = start_server(data, *options)
    try:
        with vecdb.connect(url, timeout=120.0) as client:
            yield client
    finally:
        assert stop_server(process) == 0


@pytest.fixture(params=[embedded, served])
def door(request: pytest.FixtureRequest) -> Open:
    """Opens a data directory with limits, through either door."""
    opened: Open = request.param
    return opened


def batch(number: int) -> dict[str, Any]:
    vectors = np.random.default_rng(number).standard_normal((ROWS, DIM)).astype(np.float32)
    return {"ids": range(number * ROWS, (number + 1) * ROWS), "vectors": vectors}


def fill_until_refused(points: Any, refusal: type[ResourceExhaustedError], most: int) -> int:
    """Write batches until one is refused; return how many were written."""
    for number in range(most):
        try:
            points.upsert(**batch(number))
        except refusal:
            return number
    raise AssertionError(f"{most} batches were taken")


def test_a_full_disk_budget_refuses_growth_and_nothing_else(door: Open, tmp_path: Path) -> None:
    data = tmp_path / "data"
    with door(data, max_disk_bytes=4 * MiB) as db:
        points = db.create_collection("c", dim=DIM)
        written = fill_until_refused(points, DiskLimitError, 100)
        assert 2 < written < 16
        before = points.count()
        assert before == written * ROWS  # nothing of the refused batch
        with pytest.raises(DiskLimitError, match="max_disk_bytes"):
            points.upsert(**batch(written))
        vector = batch(0)["vectors"][7]
        assert points.search(vector=vector, k=1)[0].id == 7
        assert len(points.get(range(10))) == 10
        assert points.delete(ids=range(before - ROWS // 2)) == before - ROWS // 2
        points.flush()  # seals, merges and gives back
        assert points.count() == ROWS // 2
        assert points.info().disk_bytes < 2 * MiB
        points.upsert(**batch(200))
        assert points.count() == ROWS // 2 + ROWS
    assert check_directory(PosixStore(data)).ok


def test_a_full_disk_budget_refuses_new_collections(door: Open, tmp_path: Path) -> None:
    with door(tmp_path / "data", max_disk_bytes=MiB) as db:
        points = db.create_collection("c", dim=DIM)
        fill_until_refused(points, DiskLimitError, 100)
        points.upsert(["last"], vectors=np.ones((1, DIM), np.float32))  # what still fits
        for number in range(3_000):
            try:
                ids, payloads = [f"filler {number}"], [{"text": "x" * 1_000}]
                points.upsert(ids, vectors=np.ones((1, DIM), np.float32), payloads=payloads)
            except DiskLimitError:
                break
        with pytest.raises(DiskLimitError):
            db.create_collection("d", dim=DIM)
        assert db.list_collections() == ["c"]
        db.drop_collection("c")
        db.create_collection("d", dim=DIM)


def test_a_full_memory_budget_refuses_until_a_segment_is_written(
    door: Open, tmp_path: Path
) -> None:
    with door(tmp_path / "data", max_memory_bytes=2 * MiB) as db:
        points = db.create_collection("c", dim=DIM)
        refused = 0
        for number in range(40):
            deadline = time.monotonic() + 60
            while True:
                try:
                    points.upsert(**batch(number))
                    break
                except MemoryLimitError:
                    refused += 1
                    points.search(vector=np.ones(DIM, np.float32), k=1)
                    points.delete(ids=["nobody"])
                    assert time.monotonic() < deadline
                    time.sleep(0.02)
            assert points.info().memory_bytes <= 2 * MiB
        assert refused
        assert points.count() == 40 * ROWS


def test_a_batch_over_the_memory_limit_says_so(door: Open, tmp_path: Path) -> None:
    with door(tmp_path / "data", max_memory_bytes=MiB) as db:
        points = db.create_collection("c", dim=DIM)
        rows = 2 * MiB // (4 * DIM)
        with pytest.raises(MemoryLimitError, match="smaller batches"):
            points.upsert(range(rows), vectors=np.ones((rows, DIM), np.float32))
        assert points.count() == 0


def test_the_file_systems_reserve_is_kept(door: Open, tmp_path: Path) -> None:
    data = tmp_path / "data"
    with door(data) as db:
        db.create_collection("c", dim=DIM).upsert(**batch(0))
    with door(data, min_free_bytes=1 << 59) as db:
        points = db.collection("c")
        with pytest.raises(DiskFullError, match="min_free_bytes"):
            points.upsert(**batch(1))
        with pytest.raises(DiskLimitError, match="min_free_bytes"):
            db.create_collection("d", dim=DIM)
        assert points.delete(ids=range(10)) == 10
        points.flush()
        assert points.count() == ROWS - 10
        assert len(points.search(vector=np.ones(DIM, np.float32), k=5)) == 5


def test_limits_out_of_range_are_refused(tmp_path: Path) -> None:
    for limits in ({"max_disk_bytes": 5}, {"max_memory_bytes": -1}, {"min_free_bytes": "1GB"}):
        with pytest.raises(InvalidParameterError, match=next(iter(limits))):
            vecdb.connect(str(tmp_path / "data"), **limits)
    assert not (tmp_path / "data").exists()


def test_sizes_as_people_write_them() -> None:
    sizes = {"4096": 4_096, "20GB": 20 * 10**9, "1.5 GiB": 3 << 29, "2m": 2 * 10**6, "7b": 7}
    assert {text: parse_size(text) for text in sizes} == sizes
    for text in ("", "GB", "-1", "1 XB", "1 iB", "1e9", "\u0661GB"):
        with pytest.raises(InvalidParameterError, match="512MiB"):
            parse_size(text)


def test_the_command_explains_a_bad_size(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "vecdb.cli", "serve", "--data", str(tmp_path), "--max-disk", "lots"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2
    assert "--max-disk" in done.stderr
    assert "512MiB" in done.stderr

"""Real processes killed while they take and restore backups: what was there before still is."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import vecdb
from vecdb.backup import list_backups
from vecdb.errors import AlreadyExistsError, FailedPreconditionError
from vecdb.storage import PosixStore, check_directory

ROWS = 20_000
VECTORS = np.random.default_rng(6).standard_normal((ROWS, 64)).astype(np.float32)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A database of two collections, and one backup of its first rows."""
    with vecdb.connect(str(tmp_path / "data"), durability="os") as db:
        for name in ("one", "two"):
            points = db.create_collection(name, dim=64)
            points.upsert(range(100), vectors=VECTORS[:100])
        db.backup(tmp_path / "backups")
        for name in ("one", "two"):
            points = db.collection(name)
            points.upsert(range(ROWS), vectors=VECTORS)
            points.maintenance.seal()
            points.upsert(range(1_000), vectors=VECTORS[:1_000])
    return tmp_path / "data"


def killed(arguments: list[str], moments: Iterator[float]) -> bool:
    """Run a command and kill it after a while; return whether it was done before that."""
    process = subprocess.Popen(
        [sys.executable, "-m", "vecdb.cli", *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        return process.wait(timeout=next(moments)) == 0
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return False


def moments(first: float, times: int) -> Iterator[float]:
    """Later and later, until the command has the time to end."""
    for number in range(times):
        yield first + 0.05 + 0.6 * number / times
    while True:
        yield 120.0


def started(first: str) -> float:
    """Return how many seconds a command takes before it does anything."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-m", "vecdb.cli", first, "--help"], check=True)
    return time.perf_counter() - began


def counts(data: Path) -> dict[str, int]:
    with vecdb.connect(str(data), durability="os") as db:
        return {name: db.collection(name).count() for name in db.list_collections()}


@pytest.mark.parametrize("times", [3, pytest.param(20, marks=pytest.mark.slow)])
def test_backups_and_restores_killed_at_moments(data: Path, tmp_path: Path, times: int) -> None:
    backups = tmp_path / "backups"
    when = moments(started("backup"), times)
    while not killed(["backup", str(backups), "--db", str(data)], when):
        found = list_backups(backups, verify=True)
        assert [info.damage for info in found] == [None] * len(found)
        assert len(found) in (1, 2)
        vecdb.restore(backups, tmp_path / "first", number=1)
        assert counts(tmp_path / "first") == {"one": 100, "two": 100}
        shutil.rmtree(tmp_path / "first")
        if len(found) == 2:  # done, and killed before it could say so
            break
    assert counts(data) == {"one": ROWS, "two": ROWS}

    when = moments(started("restore"), times)
    target = tmp_path / "restored"
    while not killed(["restore", str(backups), str(target)], when):
        try:
            assert counts(target) in ({}, {"one": ROWS, "two": ROWS})
        except FailedPreconditionError:  # cut short, and says so
            continue
        try:
            vecdb.restore(backups, target, number=1)
        except AlreadyExistsError:
            break  # done, and killed before it could say so
        assert counts(target) == {"one": 100, "two": 100}
        shutil.rmtree(target)
    when = moments(started("restore"), times)
    before = counts(target)
    assert before == {"one": ROWS, "two": ROWS}
    while not killed(["restore", str(backups), str(target), "--replace", "--number", "1"], when):
        after = counts(target)
        assert after in (before, {"one": 100, "two": 100})
        if after != before:
            break
    assert counts(target) == {"one": 100, "two": 100}
    assert check_directory(PosixStore(target)).ok

"""Backups and restores in real processes whose n-th system call fails, or kills them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import vecdb
from tests.collection.test_strace import STRACE, may_inject
from vecdb.backup import list_backups
from vecdb.database import Database
from vecdb.storage import PosixStore, check_directory

pytestmark = pytest.mark.skipif(
    not may_inject(), reason="needs strace, and a machine that lets it trace"
)


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database, changed since its one backup, and another in whose place it is restored."""
    root = tmp_path_factory.mktemp("origin")
    with Database(root / "data") as db:
        points = db.create_collection("points", dim=2)
        points.upsert(range(10), vectors=[[1.0, float(i)] for i in range(10)])
        db.backup(root / "backups")
        points.maintenance.seal()
        points.delete(ids=[0])
        points.upsert([20], vectors=[[2.0, 3.0]])
    with Database(root / "other") as db:
        db.create_collection("other", dim=2)
    return root


NOTHING: dict[str, set[int]] = {"other": set()}
FIRST = {"points": set(range(10))}
SECOND = {"points": {*range(1, 10), 20}}


def contents(data: Path) -> dict[str, set[int]]:
    with Database(data) as db:
        return {
            name: {int(record.id) for record in db.collection(name).get(list(range(30)))}
            for name in db.list_collections()
        }


def run(injection: str, *arguments: str) -> bool:
    """Run a command under an injection; return whether it said that it was done."""
    assert STRACE is not None
    call = injection.partition(":")[0]
    done = subprocess.run(
        [STRACE, "-f", "-o", "/dev/null", "-e", f"trace={call}", "-e",
         f"inject={injection}", sys.executable, "-m", "vecdb.cli", *arguments],
        capture_output=True, check=False, timeout=300,
    )  # fmt: skip
    return done.returncode == 0


def attack(origin: Path, root: Path, injection: str) -> None:
    for name in ("data", "backups", "other"):
        shutil.copytree(origin / name, root / name)
    told = run(injection, "backup", str(root / "backups"), "--db", str(root / "data"))
    found = list_backups(root / "backups", verify=True)
    assert [one.damage for one in found] == [None] * len(found)
    assert len(found) == 2 if told else len(found) in (1, 2)
    assert contents(root / "data") == SECOND
    for one, expected in zip(found, (FIRST, SECOND), strict=False):
        vecdb.restore(root / "backups", root / f"r{one.number}", number=one.number)
        assert contents(root / f"r{one.number}") == expected

    command = ["restore", str(root / "backups"), str(root / "other"), "--replace", "--number", "1"]
    told = run(injection, *command)
    after = contents(root / "other")
    assert after == FIRST if told else after in (FIRST, NOTHING)
    assert check_directory(PosixStore(root / "other")).ok


@pytest.mark.parametrize(
    "injection",
    ["fsync:error=EIO:when=6", "fsync:signal=KILL:when=9", "/^link:signal=KILL:when=3"],
)
def test_nothing_is_lost_and_no_success_is_made_up(
    origin: Path, tmp_path: Path, injection: str
) -> None:
    attack(origin, tmp_path, injection)


@pytest.mark.slow
@pytest.mark.parametrize("call", ["fsync", "writev", "/^link", "/^mkdir", "/^unlink"])
@pytest.mark.parametrize("fault", ["error=EIO", "error=ENOSPC", "signal=KILL"])
@pytest.mark.timeout(1_800)
def test_a_fault_anywhere(origin: Path, tmp_path: Path, call: str, fault: str) -> None:
    for when in (1, 2, 4, 8, 16):
        (tmp_path / str(when)).mkdir()
        attack(origin, tmp_path / str(when), f"{call}:{fault}:when={when}")

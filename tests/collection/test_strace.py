"""Real processes whose system calls fail, or never return, at the n-th time: `strace -e inject`.

What the simulated disk does to `SystemCalls`, the kernel's interface does here to the whole
program. An ingesting process tells every acknowledged write on its standard output; strace lets
the n-th call of one kind fail, or kills the process at it; then another process opens what is left.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import IO

import numpy as np
import pytest

from vecdb.database import Database

STRACE = shutil.which("strace")
DIM, BATCH, BATCHES = 4, 8, 25

INGEST = f"""
import sys
import numpy as np
from vecdb.database import Database
from vecdb.errors import VecdbError

early = sys.argv[2] == "early"
db = Database(sys.argv[1], scrub_seconds=0)
points = db.create_collection("points", dim={DIM})
vectors = np.arange({BATCHES} * {BATCH} * {DIM}, dtype=np.float32).reshape(-1, {DIM}) + 1

def tell(what, call):
    try:
        if early:
            print("+" + what, flush=True)
        call()
        print("+" + what, flush=True)
    except VecdbError as error:
        print("!" + what + " " + type(error).__name__, flush=True)

print("ready", flush=True)
sys.stdin.readline()
for n in range({BATCHES}):
    ids = list(range(n * {BATCH}, (n + 1) * {BATCH}))
    print("?u" + str(n), flush=True)
    tell("u" + str(n), lambda: points.upsert(ids, vectors=vectors[ids]))
    if n % 4 == 2:
        print("?d" + str(n), flush=True)
        tell("d" + str(n), lambda: points.delete(ids=[ids[0] - {BATCH}, ids[1]]))
    if n % 5 == 4:
        tell("seal", lambda: points.maintenance.seal())
    if n % 10 == 9:
        tell("merge", lambda: points.maintenance.improve(eager=True))
tell("close", db.close)
"""


def may_inject() -> bool:
    """Return whether strace is there and this machine lets it trace."""
    if STRACE is None:
        return False
    command = [STRACE, "-qq", "-e", "trace=none", "-e", "inject=fsync:error=EIO", "true"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


pytestmark = pytest.mark.skipif(
    not may_inject(), reason="needs strace, and a machine that lets it trace"
)


def line(stream: IO[str] | None) -> str:
    assert stream is not None
    return stream.readline().strip()


def ingest(root: Path, injection: str, *, early: bool = False) -> list[str]:
    """Run the ingest under an injection; return what it told."""
    assert STRACE is not None
    call = injection.partition(":")[0]
    process = subprocess.Popen(
        [sys.executable, "-c", INGEST, str(root), "early" if early else "-"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    with process:
        assert line(process.stdout) == "ready"
        with subprocess.Popen(
            [STRACE, "-f", "-o", "/dev/null", "-p", str(process.pid), "-e", f"trace={call}",
             "-e", f"inject={injection}"],
            stderr=subprocess.PIPE, text=True,
        ) as tracer:  # fmt: skip
            assert "attached" in line(tracer.stderr)
            told, _ = process.communicate("go\n", timeout=120)
            tracer.communicate(timeout=60)
    return told.split("\n")[:-1]


def expected(told: list[str]) -> tuple[set[int], set[int]]:
    """Return the ids that must be there, and those of which nothing can be said."""
    there: set[int] = set()
    unknown: set[int] = set()
    for word in told:
        sign, what = word[0], word[1:].split()[0]
        if what[0] not in "ud" or not what[1:].isdigit():
            continue
        first = int(what[1:]) * BATCH
        ids = set(range(first, first + BATCH)) if what[0] == "u" else {first - BATCH, first + 1}
        if sign == "?":
            unknown |= ids
        elif sign == "+":
            unknown -= ids
            there = there | ids if what[0] == "u" else there - ids
    return there - unknown, unknown


def assert_kept(root: Path, told: list[str]) -> None:
    """Open what is left, and compare it with what was acknowledged."""
    must, may = expected(told)
    everything = np.arange(BATCHES * BATCH * DIM, dtype=np.float32).reshape(-1, DIM) + 1
    for _ in range(2):
        with Database(root, scrub_seconds=0) as db:
            points = db.collection("points")
            assert points.info().quarantined == ()
            found = {int(r.id): r.vector for r in points.get(list(range(BATCHES * BATCH)))}
            assert must <= found.keys() <= must | may
            assert all((vector == everything[i]).all() for i, vector in found.items())
            for n in range(BATCHES):  # a batch is there whole, or but for what was deleted
                batch = set(range(n * BATCH, (n + 1) * BATCH))
                gone = batch - found.keys()
                assert gone == batch or gone <= {n * BATCH, n * BATCH + 1}
            assert points.count() == len(found)
            if found:
                hits = points.search(vector=everything[0], k=BATCHES * BATCH)
                assert {hit.id for hit in hits} == set(found)


CALLS = ["writev", "fdatasync", "fsync", "openat", "/^link", "/^unlink", "ftruncate"]  # or linkat


@pytest.mark.parametrize(
    "injection",
    [
        "fdatasync:error=EIO:when=7",
        "fdatasync:signal=KILL:when=11",
        "writev:error=ENOSPC:when=9+",
        "writev:signal=KILL:when=14",
        "fsync:error=EIO:when=12",
        "/^link:signal=KILL:when=4",
    ],
)
def test_acknowledged_writes_survive(tmp_path: Path, injection: str) -> None:
    told = ingest(tmp_path / "data", injection)
    assert any(word.startswith("+u") for word in told)
    assert "+close" not in told or any(word.startswith("!") for word in told)
    assert_kept(tmp_path / "data", told)


@pytest.mark.slow
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("fault", ["error=EIO", "error=ENOSPC", "signal=KILL"])
@pytest.mark.timeout(1_800)
def test_acknowledged_writes_survive_a_fault_anywhere(
    tmp_path: Path, call: str, fault: str
) -> None:
    for when in [1, 2, 4, 8, 15, 30]:
        root = tmp_path / str(when)
        told = ingest(root, f"{call}:{fault}:when={when}")
        try:
            assert_kept(root, told)
        except BaseException as error:
            error.add_note(f"{call}:{fault}:when={when} told {told}")
            raise
        shutil.rmtree(root)


def test_a_write_that_is_acknowledged_too_early_is_found(tmp_path: Path) -> None:
    told = ingest(tmp_path / "data", "writev:signal=KILL:when=5", early=True)
    with pytest.raises(AssertionError):
        assert_kept(tmp_path / "data", told)

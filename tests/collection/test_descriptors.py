"""More collections than a process may have files open, unless it asks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PRELUDE = """
import resource, sys
import numpy as np
import vecdb

def allow(soft, hard):
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

V = np.ones((1, 2), np.float32)
"""


def run(script: str, data: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", PRELUDE + script, str(data)],
        capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_many_collections_are_written_and_opened_again(tmp_path: Path) -> None:
    written = """
allow(64, 256)
with vecdb.connect(sys.argv[1]) as database:
    for number in range(80):
        database.create_collection(f"c{number}", dim=2).upsert([1], vectors=V)
    print(resource.getrlimit(resource.RLIMIT_NOFILE))
"""
    assert run(written, tmp_path / "data") == "(256, 256)"
    opened = """
allow(64, 64)  # an open log that nothing is written to takes none of them
with vecdb.connect(sys.argv[1]) as database:
    print(sum(database.collection(name).count() for name in database.list_collections()))
    database.collection("c7").upsert([2], vectors=V)
    database.collection("c7").flush()
with vecdb.connect(sys.argv[1]) as database:
    print([record.id for record in database.collection("c7").get([1, 2])])
"""
    assert run(opened, tmp_path / "data").splitlines() == ["80", "[1, 2]"]

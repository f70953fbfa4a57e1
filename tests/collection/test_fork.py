"""What a forked child can do with its parent's database: nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

CHILD = """
import os, sys, threading
import numpy as np
import vecdb
from vecdb.errors import FailedPreconditionError

V = np.ones((1, 2), np.float32)
database = vecdb.connect(sys.argv[1])
points = database.create_collection("points", dim=2)
points.upsert([0], vectors=V)


def refused(call):
    try:
        call()
    except FailedPreconditionError as error:
        assert f"process {os.getppid()}," in str(error), error
    else:
        raise AssertionError("it was not refused")


def use_all_of_it():
    refused(lambda: points.upsert([1], vectors=V))
    refused(lambda: points.delete(ids=[0]))
    refused(lambda: points.delete(filter={"a": 1}))
    refused(lambda: points.get([0]))
    refused(lambda: points.search(vector=V[0]))
    refused(lambda: points.count())
    refused(points.info)
    refused(points.flush)
    refused(points.bulk)
    refused(lambda: database.collection("points"))
    refused(lambda: database.create_collection("other", dim=2))
    refused(lambda: database.drop_collection("points"))
    refused(lambda: database.backup(sys.argv[1] + "-backups"))
    refused(database.list_collections)
    refused(lambda: load.__exit__(None, None, None))
    load.__exit__(ValueError, ValueError(), None)
    database.close()
    with vecdb.connect(sys.argv[1] + "-own") as own:
        own.create_collection("points", dim=2).upsert([1], vectors=V)


with points.bulk() as load:
    load.add([5], vectors=V)
    # Whatever may be held at a fork; the parent lets go of it.
    held = [database._changing, points._segments._lock, points._maintenance.sealing._loading]
    for lock in held:
        lock.acquire()
    child = os.fork()
    if not child:
        use_all_of_it()
        print("refused", flush=True)
        os._exit(0)
    for lock in held:
        lock.release()
    assert os.waitpid(child, 0)[1] == 0
points.upsert([2], vectors=V)
database.close()
with vecdb.connect(sys.argv[1]) as database:
    print([record.id for record in database.collection("points").get(range(6))])
"""


def test_a_forked_child_is_refused_everything_and_the_parent_goes_on(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(tmp_path / "data")],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["refused", "[0, 2, 5]"]

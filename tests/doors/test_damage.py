"""A damaged directory through both doors: the same errors, and the rest is served."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import vecdb
from tests.doors.conftest import start_server, stop_server
from vecdb.errors import QuarantinedError, ReadOnlyError

VECTORS = np.random.default_rng(1).standard_normal((50, 4)).astype(np.float32)


@pytest.mark.parametrize("door", ["embedded", "server"])
def test_a_server_starts_and_serves_what_is_sound(tmp_path: Path, door: str) -> None:
    with vecdb.connect(str(tmp_path)) as db:
        for name in ("a", "b"):
            points = db.create_collection(name, dim=4)
            points.upsert(range(50), vectors=VECTORS)
            points.flush()
            points.upsert([99], vectors=VECTORS[:1])
    (file,) = tmp_path.glob("c000001/segments/*.data")
    content = bytearray(file.read_bytes())
    content[100] ^= 1
    file.write_bytes(content)
    process, url = start_server(tmp_path) if door == "server" else (None, str(tmp_path))
    try:
        with vecdb.connect(url) as db:
            assert db.list_collections() == ["a", "b"]
            assert len(db.collection("b").search(vector=VECTORS[0], k=51)) == 51
            damaged = db.collection("a")
            (told,) = damaged.info().quarantined
            assert (told.part, told.points, told.accepted) == ("segment 1", 50, False)
            assert file.name in told.reason
            assert [r.id for r in damaged.get([99])] == [99]
            with pytest.raises(QuarantinedError, match=file.name):
                damaged.search(vector=VECTORS[0])
            with pytest.raises(QuarantinedError, match=file.name):
                damaged.get([0, 99])
            with pytest.raises(ReadOnlyError, match=file.name):
                damaged.upsert([0], vectors=VECTORS[:1])
    finally:
        if process is not None:
            assert stop_server(process) == 0

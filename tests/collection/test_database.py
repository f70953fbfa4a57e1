"""A database as a whole: opening, closing, making and dropping collections, when things go wrong."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from vecdb.database import Database
from vecdb.errors import ClosedError, StoredFileNotFoundError

VECTORS = np.ones((1, 2), np.float32)


def test_a_close_that_fails_closes_everything_else_before_others_may_open(tmp_path: Path) -> None:
    db = Database(tmp_path)
    handles = [db.create_collection(name, dim=2) for name in "abc"]
    for handle in handles:
        handle.upsert([1], vectors=VECTORS)
    for folder in ("c000001", "c000002"):
        shutil.rmtree(tmp_path / folder / "wal")
    with pytest.raises(StoredFileNotFoundError, match="c000001") as raised:
        db.close()
    (note,) = raised.value.__notes__
    assert "c000002" in note
    for handle in handles:
        with pytest.raises(ClosedError):
            handle.upsert([2], vectors=VECTORS)
    db.close()  # does nothing more
    with Database(tmp_path) as db:
        assert db.collection("c").count() == 1

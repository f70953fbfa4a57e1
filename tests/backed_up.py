"""Points that tests of backups write, and damage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from vecdb.collection import Collection
from vecdb.database import Database

DIM = 8
VECTORS = np.random.default_rng(1).standard_normal((6_000, DIM)).astype(np.float32)


def put(points: Collection, first: int, last: int) -> None:
    points.upsert(
        range(first, last),
        vectors=VECTORS[first:last],
        texts=[f"text {i}" for i in range(first, last)],
        payloads=[{"n": i} for i in range(first, last)],
    )


def made_of_everything(db: Database) -> Collection:
    """Make an indexed segment, one without an index, tombstones, and a log."""
    points = db.create_collection("points", dim=DIM)
    put(points, 0, 3_000)
    points.flush()
    put(points, 3_000, 3_500)
    points.maintenance.seal()
    points.delete(ids=[5, 3_100])
    put(points, 3_500, 3_600)
    return points


def everything(points: Collection) -> list[Any]:
    records = points.get(list(range(len(VECTORS))))
    return [(r.id, r.vector.tolist(), r.text, r.payload) for r in records]


def flip(file: Path, offset: int) -> None:
    content = bytearray(file.read_bytes())
    content[offset] ^= 0x10
    file.write_bytes(content)

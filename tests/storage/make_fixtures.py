"""Writes tests/storage/fixtures: a small data directory in format 1 of everything, and a backup.

Run as ``python -m tests.storage.make_fixtures DIR`` and compare: the fixtures are written once per
format version and then never again, or they would not show that old files are readable.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np

from vecdb.database import Database
from vecdb.storage import (
    Delete,
    ManifestLog,
    PosixStore,
    Upsert,
    Wal,
    encode_operation,
    write_segment,
    write_tombstones,
)

SEGMENT_IDS = [7, "seven", 2**64 - 1]
SEGMENT_VECTORS = np.array([[1, 0], [0, 1], [0.5, -2]], np.float32)
SEGMENT_TEXTS = ["sieben", None, ""]
SEGMENT_PAYLOADS = [b'{"n":7}', b"{}", None]
DEAD = np.array([False, True, False])
SETTINGS = {
    "dim": 2,
    "metric": "cosine",
    "encoder": None,
    "m": 16,
    "ef_construction": 200,
    "segment_rows": 100_000,
    "wal_bytes": 256 << 20,
}
OPERATIONS = [
    Upsert([8, "acht"], np.array([[3, 4], [5, 6]], np.float32), ["ä", None], [None, b'{"n":8}']),
    Delete([7]),
]


def make(root: Path) -> None:
    """Write the data directory `root`: one collection, one segment, two operations in the log."""
    store = PosixStore(root)
    settings = {"docs": {"dir": "c000001", "settings": SETTINGS}}
    ManifestLog.open(store.within("catalog")).publish({"collections": settings, "next_dir": 2})
    docs = store.within("c000001")
    data = write_segment(
        docs, "segments/0000000001.data",
        SEGMENT_IDS, SEGMENT_VECTORS, SEGMENT_TEXTS, SEGMENT_PAYLOADS,
    )  # fmt: skip
    tombstones = write_tombstones(docs, "segments/0000000001.1.dead", DEAD)
    segment = {
        "id": 1, "data": data.to_json(), "index": None,
        "tombstones": tombstones.to_json(), "dead": 1,
    }  # fmt: skip
    ManifestLog.open(docs.within("manifest")).publish(
        {"next_segment": 2, "applied_seq": 4, "segments": [segment]}
    )
    wal = Wal.open(docs.within("wal"), after_seq=4)
    for operation in OPERATIONS:
        wal.append([encode_operation(operation)])
    wal.close()


def make_backup(data: Path, root: Path) -> None:
    """Write the directory of backups `root`: one backup of a copy of the data directory `data`."""
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / "data"
        shutil.copytree(data, copy)
        with Database(copy) as database:
            database.backup(root)


if __name__ == "__main__":
    make(Path(sys.argv[1]) / "format1")
    make_backup(Path(sys.argv[1]) / "format1", Path(sys.argv[1]) / "backup1")

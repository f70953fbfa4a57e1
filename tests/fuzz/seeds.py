"""Valid inputs of every target, small: a fuzzer starts from them and leaves them bit by bit."""

from __future__ import annotations

import json

import numpy as np

from tests.fuzz.targets import InMemory
from vecdb.collection.settings import CollectionSettings
from vecdb.index import HnswIndex
from vecdb.storage import (
    Delete,
    PosixStore,
    Upsert,
    Wal,
    encode_operation,
    write_sections,
    write_segment,
    write_tombstones,
)
from vecdb.storage.manifest import encode_manifest
from vecdb.storage.wal_file import file_name
from vecdb.types import Metric

REF = {"name": "segments/0000000001.data", "size": 3, "sha256": "0" * 64}
VECTORS = np.arange(6, dtype=np.float32).reshape(3, 2)
OPERATIONS = [
    Upsert([7, "é"], VECTORS[:2], ["hi", None], [None, b'{"n":1}']),
    Upsert([1, 2, 3], VECTORS),
    Delete([7, "x"]),
    Upsert([3], VECTORS[:1], deleted=[1, "é"]),
]
BODY = {
    "next_segment": 2,
    "applied_seq": 4,
    "segments": [{"id": 1, "data": REF, "index": None, "tombstones": None, "dead": 0}],
    "quarantined": [
        {"part": "segment 1", "files": ["quarantine/1.data"], "reason": "why", "points": None}
    ],
}


def seeds(target: str) -> list[bytes]:
    """Return valid inputs of the target of that name."""
    made = {
        "wal": _logs,
        "signed_wal": lambda: [bytes([2, 1, 0, 8]) + bytes(8), bytes([0, 1, 1, 0]) * 3],
        "operation": lambda: [
            bytes([kind - 1]) + body for kind, body in map(encode_operation, OPERATIONS)
        ],
        "sections": lambda: [_file("sections"), _file("segment")],
        "signed_sections": lambda: [_signed(_file("sections")), _signed(_file("segment"))],
        "segment": lambda: [_file("segment"), _file("ints")],
        "signed_segment": lambda: [_described_segment()],
        "tombstones": lambda: [_file("tombstones")],
        "hnsw": lambda: [_file("hnsw")],
        "manifest": lambda: [encode_manifest(7, BODY)],
        "signed_manifest": lambda: [json.dumps(BODY).encode()],
        "settings": lambda: [json.dumps(CollectionSettings(3, Metric.L2).to_json()).encode()],
        "backup": lambda: [json.dumps(_backup()).encode()],
        "payload": lambda: [b'{"a":[1,2.5,null,true,{"b":"\xc3\xa9"}]}\x00\x00{"c":1e5}'],
        "filters": lambda: [
            b'{"a":{"$gte":1,"$lt":2},"b.c":"x","$or":[{"a":{"$in":[1,"x"]}},{"$not":{"b":1}}]}'
        ],
    }
    return made[target]()


def _logs() -> list[bytes]:
    store = InMemory("other", b"")
    logs = []
    for closed in (True, False):
        wal = Wal.open(store.within(f"wal{closed}"))
        for operation in OPERATIONS:
            wal.append([encode_operation(operation)])
        if closed:
            wal.close()
        logs.append(store.read(f"wal{closed}/{file_name(1)}"))
    return logs


def _file(kind: str) -> bytes:
    store: PosixStore = InMemory("other", b"")
    if kind == "sections":
        arrays = {"x": np.arange(3, dtype="<u2"), "y": np.zeros((2, 0, 3), "<f8")}
        write_sections(store, "x", arrays, kind="example", meta={"a": 1})
    elif kind == "segment":
        write_segment(
            store, "x", [7, "seven", 2**64 - 1], VECTORS, ["a", None, ""], [b"{}", None, b'{"n":1}']
        )
    elif kind == "ints":
        write_segment(store, "x", [3, 1, 2], VECTORS)
    elif kind == "tombstones":
        write_tombstones(store, "x", np.arange(20) % 3 == 0)
    else:
        index = HnswIndex(2, "l2", m=2, ef_construction=8)
        index.add(np.random.default_rng(0).random((12, 2), np.float32))
        write_sections(store, "x", index.arrays(), kind="hnsw")
    return store.read("x")


def _described_segment() -> bytes:
    """Return a segment of two rows as `signed_segment` takes it: dtype, shape, bytes of each."""
    floats, longs, words, none = 130, 1, 2, bytes([15, 0, 0])
    keys = np.array([3, 5], "<u8").tobytes()
    rows = np.array([0, 1], "<u4").tobytes()
    described = [bytes([2]), bytes([floats, 2, 2]) + bytes(16), bytes([longs, 2, 0]) + keys]
    described += [bytes([longs, 2, 0]) + keys, bytes([words, 2, 0]) + rows]
    return b"".join([*described, bytes([longs, 0, 0]), bytes([words, 0, 0]), none * 9])


def _signed(file: bytes) -> bytes:
    """Return the input of which `sign_sections` makes this file."""
    offset = int.from_bytes(file[-24:-16], "little")
    table = file[offset:-32]
    return len(table).to_bytes(2, "little") + table + file[64:offset]


def _backup() -> dict[str, object]:
    log = {"name": f"wal/{file_name(5)}", "size": 1, "sha256": "0" * 64}
    return {"settings": {}, "manifest": BODY, "log": [log], "sequence": 9, "points": 3}

"""A server killed at a random moment of an ingest: what it acknowledged is there afterwards."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pytest

import vecdb
from tests.doors.conftest import start_server, stop_server
from vecdb.errors import DirectoryLockedError, VecdbError

ENCODER = "all-MiniLM-L6-v2"
BATCH = 8


def text_of(number: int) -> str:
    return f"Document {number} tells of subject {number * 37 % 101} and of place {number % 13}."


def ingest_until_killed(url: str, first: int, acknowledged: dict[int, str]) -> None:
    """Write batches, and remember those that the server said it has."""
    with vecdb.connect(url, timeout=60.0) as client:
        docs = client.collection("docs")
        while True:
            ids = range(first, first + BATCH)
            texts = [text_of(i) for i in ids]
            try:
                docs.upsert(ids, texts=texts, payloads=[{"n": i} for i in ids])
            except VecdbError:
                return
            acknowledged.update(zip(ids, texts, strict=True))
            first += BATCH


def check_everything(url: str, acknowledged: dict[int, str]) -> int:
    """Compare every acknowledged point, and search with exact search; return the next free id."""
    with vecdb.connect(url, timeout=120.0) as client:
        docs = client.collection("docs")
        ids = list(acknowledged)
        records = docs.get(ids) if ids else []
        assert [r.id for r in records] == ids
        assert [r.text for r in records] == list(acknowledged.values())
        assert [r.payload for r in records] == [{"n": i} for i in ids]
        count = docs.count()
        assert count >= len(ids)
        assert count % BATCH == 0, "a batch was applied in part"
        if not count:
            return 0
        # A batch that was not acknowledged may be there whole; it follows the acknowledged ones.
        everything = docs.get(range(count))
        assert len(everything) == count
        base = np.stack([r.vector for r in everything])
        for query in base[:: max(1, count // 5)]:
            scores = np.sort(-(base @ query))[:10]
            hits = docs.search(vector=query, k=10)
            assert [-hit.score for hit in hits] == pytest.approx(scores.tolist(), abs=1e-5)
        return count


def kill_and_check(data: Path, kills: int) -> None:
    rng = np.random.default_rng(5)
    acknowledged: dict[int, str] = {}
    process, url = start_server(data)
    with vecdb.connect(url, timeout=120.0) as client:
        client.create_collection("docs", encoder=ENCODER)
    following = 0
    for _ in range(kills):
        writer = threading.Thread(target=ingest_until_killed, args=(url, following, acknowledged))
        writer.start()
        time.sleep(float(rng.uniform(0.05, 1.5)))
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
        writer.join()
        process, url = start_server(data)
        following = check_everything(url, acknowledged)
    assert acknowledged
    assert stop_server(process) == 0


def test_killed_during_an_ingest(tmp_path: Path) -> None:
    kill_and_check(tmp_path / "data", kills=3)


@pytest.mark.slow
def test_killed_at_twenty_moments_of_an_ingest(tmp_path: Path) -> None:
    kill_and_check(tmp_path / "data", kills=20)


def test_a_directory_has_one_owner(tmp_path: Path) -> None:
    process, _ = start_server(tmp_path / "data")
    try:
        with pytest.raises(DirectoryLockedError, match=str(process.pid)):
            vecdb.connect(str(tmp_path / "data"))
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
    vecdb.connect(str(tmp_path / "data")).close()  # a killed owner does not keep it locked

"""Damaged and foreign files: a clear error or a rebuilt index, and never a wrong answer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vecdb.database import Database
from vecdb.errors import (
    CorruptFileError,
    DataLossError,
    EncoderMismatchError,
    NotFoundError,
)
from vecdb.models import Models
from vecdb.types import EncoderInfo, Matrix

DIM = 8
ROWS = 2_500


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A directory with two collections: one sealed and indexed, one small."""
    with Database(tmp_path / "data", durability="os") as db:
        large = db.create_collection("large", dim=DIM)
        large.upsert(range(ROWS), vectors=vectors())
        large.flush()
        assert large.info().indexed == ROWS
        db.create_collection("small", dim=DIM).upsert([1], vectors=vectors()[:1])
    return tmp_path / "data"


def vectors() -> Matrix:
    return np.random.default_rng(3).standard_normal((ROWS, DIM)).astype(np.float32)


def flip(file: Path, offset: int) -> None:
    content = bytearray(file.read_bytes())
    content[offset] ^= 0x10
    file.chmod(0o644)
    file.write_bytes(content)


def file_of(data: Path, pattern: str) -> Path:
    (found,) = data.glob(f"c000001/{pattern}")
    return found


@pytest.mark.parametrize("share", [0.01, 0.3, 0.7, 0.99])
def test_a_damaged_segment_stops_its_collection_only(data: Path, share: float) -> None:
    file = file_of(data, "segments/*.data")
    flip(file, int(share * file.stat().st_size))
    with Database(data, durability="os") as db:
        assert db.list_collections() == ["large", "small"]
        with pytest.raises(CorruptFileError, match=r"segments/.*\.data"):
            db.collection("large")
        assert db.collection("small").count() == 1
        db.drop_collection("large")
        assert db.list_collections() == ["small"]


@pytest.mark.parametrize("share", [0.01, 0.5, 0.99])
def test_a_damaged_index_is_built_again(data: Path, share: float) -> None:
    file = file_of(data, "segments/*.index")
    flip(file, int(share * file.stat().st_size))
    with Database(data, durability="os") as db:
        points = db.collection("large")
        base = vectors()
        normed = base / np.linalg.norm(base, axis=1, keepdims=True)
        for query in base[:5]:
            best = np.argsort(-(normed @ query))[:10].tolist()
            assert [hit.id for hit in points.search(vector=query, k=10)] == best
        points.flush()
        assert points.info().indexed == ROWS
    with Database(data, durability="os") as db:
        assert db.collection("large").info().indexed == ROWS


def test_a_missing_segment_is_named(data: Path) -> None:
    file = file_of(data, "segments/*.data")
    file.unlink()
    with Database(data, durability="os") as db, pytest.raises(NotFoundError, match=file.name):
        db.collection("large")


def test_a_damaged_catalog_is_refused(data: Path) -> None:
    newest = max((data / "catalog").glob("*.json"))
    flip(newest, newest.stat().st_size // 2)
    Database(data).close()  # its copy is there, and it is written again from that
    flip(newest, newest.stat().st_size // 2)
    flip(newest.with_suffix(".copy"), 70)
    with pytest.raises(DataLossError, match="catalog"):
        Database(data)


class StandInEncoder:
    """Is another model than the one a collection was made with."""

    def __init__(self, info: EncoderInfo) -> None:
        self.info = info


def test_another_model_of_the_same_name_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    made_with = EncoderInfo("m", "a" * 64, "b" * 64, "mean", "", True, 384, 256)
    now = EncoderInfo("m", "c" * 64, "b" * 64, "mean", "", True, 384, 256)
    monkeypatch.setattr("vecdb.models.load_encoder", lambda *_, **__: StandInEncoder(now))
    models = Models()
    with pytest.raises(EncoderMismatchError, match="c" * 64):
        models.encoder_of(made_with)
    assert models.encoder_of(now).info == now

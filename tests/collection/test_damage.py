"""Damaged and foreign files: a clear error or a rebuilt index, and never a wrong answer."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from tests.housekeeping import NoHousekeeping
from vecdb.cli import main
from vecdb.collection import Collection
from vecdb.collection.recovery import INDEX_KIND
from vecdb.collection.settings import CollectionSettings
from vecdb.database import Database
from vecdb.errors import (
    CorruptFileError,
    DataLossError,
    EncoderMismatchError,
    QuarantinedError,
    ReadOnlyError,
)
from vecdb.index import HnswIndex
from vecdb.models import Models
from vecdb.storage import ManifestLog, PosixStore, write_sections
from vecdb.types import EncoderInfo, Matrix, Metric

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
def test_a_damaged_segment_is_quarantined_and_no_answer_lacks_its_points(
    data: Path, share: float
) -> None:
    file = file_of(data, "segments/*.data")
    flip(file, int(share * file.stat().st_size))
    with Database(data, durability="os") as db:
        assert db.list_collections() == ["large", "small"]
        assert db.collection("small").count() == 1
        assert db.collection("small").info().quarantined == ()
        large = db.collection("large")
        for ask in (
            lambda: large.search(vector=vectors()[0]),
            lambda: large.count(),
            lambda: large.count({"a": 1}),
            lambda: large.get([5]),
        ):
            with pytest.raises(QuarantinedError, match=r"segment 1 .*segments/.*\.data"):
                ask()
        for write in (
            lambda: large.upsert([1], vectors=vectors()[:1]),
            lambda: large.delete(ids=[1]),
            lambda: large.delete(filter={"a": 1}),
            large.flush,
        ):
            with pytest.raises(ReadOnlyError, match="vecdb check --repair"):
                write()
        (told,) = large.info().quarantined
        assert (told.part, told.accepted) == ("segment 1", False)
        assert told.files == (f"segments/{file.name}",)
        assert told.points in (ROWS, None)
        assert large.info().count == 0
    flip(file, int(share * file.stat().st_size))  # restored: as if nothing had been
    with Database(data, durability="os") as db:
        assert db.collection("large").count() == ROWS
        db.collection("large").upsert([ROWS], vectors=vectors()[:1])
        assert db.collection("large").info().quarantined == ()


def test_points_of_undamaged_segments_and_of_the_log_can_be_read(data: Path) -> None:
    with Database(data, durability="os") as db:
        large = db.collection("large")
        large.upsert([3, 9_000], vectors=vectors()[:2])
        large.delete(ids=[4])
        large.maintenance.seal()
        large.upsert([9_001], vectors=vectors()[2:3])
    flip(data / "c000001/segments/0000000001.data", 1_000)
    for _ in range(2):
        with Database(data, durability="os") as db:
            large = db.collection("large")
            found = large.get([9_001, 3, 9_000])
            assert [(r.id, r.vector.tolist()) for r in found] == [
                (9_001, vectors()[2].tolist()),
                (3, vectors()[0].tolist()),
                (9_000, vectors()[1].tolist()),
            ]
            with pytest.raises(QuarantinedError):
                large.get([3, 4])  # 4 was deleted, but in the damaged segment
            assert large.info().count == 3
    flip(data / "c000001/segments/0000000001.data", 1_000)
    with Database(data, durability="os") as db:
        assert db.collection("large").count() == ROWS + 1
        assert db.collection("large").get([4]) == []


def test_damaged_tombstones_bring_no_deleted_point_back(data: Path) -> None:
    with Database(data, durability="os") as db:
        large = db.collection("large")
        large.delete(ids=range(100))
        large.upsert([9_000], vectors=vectors()[:1])
        large.maintenance.seal()
    file = file_of(data, "segments/*.dead")
    flip(file, 80)
    with Database(data, durability="os") as db:
        with pytest.raises(QuarantinedError, match=file.name):
            db.collection("large").search(vector=vectors()[0])
        assert db.collection("large").info().quarantined[0].points == ROWS - 100
        db.drop_collection("large")
        assert db.list_collections() == ["small"]


def test_a_merge_does_not_launder_damage(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vecdb.housekeeping._merge", lambda _: False)
    with Database(data, durability="os") as db:
        large = db.collection("large")
        large.delete(ids=range(ROWS // 2))
        flip(file_of(data, "segments/*.data"), 3_000)  # the mapped bytes change under the engine
        with pytest.raises(CorruptFileError):
            large.maintenance.finish()
        with pytest.raises(QuarantinedError):
            large.search(vector=vectors()[0])
    with Database(data, durability="os") as db, pytest.raises(QuarantinedError):
        db.collection("large").count()
    flip(file_of(data, "segments/*.data"), 3_000)
    with Database(data, durability="os") as db:
        assert db.collection("large").count() == ROWS - ROWS // 2


@pytest.mark.parametrize("gone", ["", "manifest"])
def test_a_collection_whose_files_have_vanished_is_not_an_empty_one(data: Path, gone: str) -> None:
    shutil.rmtree(data / "c000001" / gone)
    told = CliRunner().invoke(main, ["check", str(data)])
    assert told.exit_code == 1
    assert f"{data}/c000001, collection 'large', has no manifest" in told.output
    with Database(data, durability="os") as db:
        assert db.list_collections() == ["large", "small"]
        with pytest.raises(CorruptFileError, match="c000001 has no manifest"):
            db.collection("large")
        assert db.collection("small").count() == 1
        db.drop_collection("large")
        assert db.create_collection("large", dim=DIM).count() == 0
    assert CliRunner().invoke(main, ["check", str(data)]).exit_code == 0


@pytest.mark.parametrize("part", ["settings", "manifest", "wal"])
def test_what_a_collection_cannot_do_without_is_an_error_of_its_own(data: Path, part: str) -> None:
    if part == "settings":
        log = ManifestLog.open(PosixStore(data).within("catalog"))
        assert log.latest is not None
        body = log.latest.body
        body["collections"]["large"]["settings"]["dim"] = "many"
        log.publish(body)
    elif part == "manifest":
        for file in (data / "c000001/manifest").iterdir():
            flip(file, 120)
    else:
        with Database(data, durability="os") as db:
            db.collection("large").upsert([1], vectors=vectors()[:1])
        flip(max((data / "c000001/wal").glob("*.wal")), 90)
    for _ in range(2):
        with Database(data, durability="os") as db:
            assert db.list_collections() == ["large", "small"]
            with pytest.raises(CorruptFileError, match=part):
                db.collection("large")
            assert db.collection("small").count() == 1


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="nothing tells what is open")
@pytest.mark.parametrize("fails", ["opening the log", "replaying it"])
def test_what_cannot_be_opened_is_let_go_of(
    data: Path, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    def replay(*_: object) -> None:
        raise CorruptFileError("a record is damaged")

    with Database(data, durability="os") as db:
        db.collection("large").upsert([1], vectors=vectors()[:1])
        db.collection("large").upsert([2], vectors=vectors()[:1])
    if fails == "replaying it":
        monkeypatch.setattr("vecdb.collection.recovery.replay", replay)
    else:
        log = max((data / "c000001/wal").glob("*.wal"))
        os.truncate(log, log.stat().st_size - 100)
    settings = CollectionSettings(DIM, Metric.L2)
    ends = list(data.glob("*/wal/*.end"))
    for _ in range(3):
        with pytest.raises(CorruptFileError):
            Collection("large", settings, PosixStore(data / "c000001"), Models())
    open_files = [os.path.realpath(fd) for fd in Path("/proc/self/fd").iterdir()]
    assert not [name for name in open_files if name.startswith(str(data)) and name.endswith(".wal")]
    assert list(data.glob("*/wal/*.end")) == ends  # it did not end, it was not read


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


def test_an_accepted_loss_is_told_and_the_rest_is_served_again(data: Path) -> None:
    with Database(data, durability="os") as db:
        large = db.collection("large")
        large.upsert([9_000, "b"], vectors=vectors()[:2])
        large.maintenance.seal()
        large.upsert([9_001], vectors=vectors()[2:3])
    assert CliRunner().invoke(main, ["check", str(data)]).exit_code == 0
    flip(data / "c000001/segments/0000000001.data", 1_000)
    mended = CliRunner().invoke(main, ["check", "--repair", str(data)])
    assert mended.exit_code == 0
    assert "repaired:" in mended.output
    assert "one bit at offset 1000 had flipped; put right, nothing lost" in mended.output
    flip(data / "c000001/segments/0000000001.data", 1_000)
    flip(data / "c000001/segments/0000000001.data", 2_000)
    assert CliRunner().invoke(main, ["check", str(data)]).exit_code == 1
    told = CliRunner().invoke(main, ["check", "--repair", str(data)])
    assert told.exit_code == 3
    assert f"lost: segment 1 with {ROWS} points is given up" in told.output
    again = CliRunner().invoke(main, ["check", "--repair", "--cut-wal", str(data)])
    assert again.exit_code == 0
    assert "given up by an earlier repair" in again.output
    assert CliRunner().invoke(main, ["check", "--cut-wal", str(data)]).exit_code == 2
    for number in range(2):
        with Database(data, durability="os") as db:
            large = db.collection("large")
            hits = large.search(vector=vectors()[0], k=10)
            assert {hit.id for hit in hits} == {9_000, "b", 9_001}
            assert large.count() == 3
            assert large.get([1]) == []
            (lost,) = large.info().quarantined
            assert (lost.part, lost.points, lost.accepted) == ("segment 1", ROWS, True)
            assert all((data / "c000001" / name).exists() for name in lost.files)
            large.upsert([9_001], vectors=vectors()[number : number + 1])
            large.flush()


def test_a_missing_segment_is_named(data: Path) -> None:
    file = file_of(data, "segments/*.data")
    file.unlink()
    with Database(data, durability="os") as db:
        with pytest.raises(QuarantinedError, match=file.name):
            db.collection("large").count()
        assert db.collection("large").info().quarantined[0].points is None


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


def rewritten(log: ManifestLog, change: Callable[[dict[str, Any]], None]) -> None:
    assert log.latest is not None
    body = log.latest.body
    change(body)
    log.publish(body)


@pytest.mark.parametrize("wrong", ["dead", "dim"])
def test_a_segment_that_is_not_what_is_said_of_it_is_quarantined(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: str
) -> None:
    monkeypatch.setattr("vecdb.database.Housekeeping", NoHousekeeping)
    with Database(tmp_path / "data", durability="os") as db:
        points = db.create_collection("c", dim=DIM)
        points.upsert(range(4), vectors=vectors()[:4])
        points.maintenance.seal()
        points.delete(ids=[0])
        points.maintenance.seal()
    store = PosixStore(tmp_path / "data")
    if wrong == "dead":
        log = ManifestLog.open(store.within("c000001/manifest"))
        rewritten(log, lambda body: body["segments"][0].update(dead=2))
    else:
        log = ManifestLog.open(store.within("catalog"))
        rewritten(log, lambda body: body["collections"]["c"]["settings"].update(dim=DIM + 1))
    with Database(tmp_path / "data", durability="os") as db:
        (told,) = db.collection("c").info().quarantined
    assert ("2" if wrong == "dead" else "dimension 8") in told.reason


def test_an_index_of_another_number_of_rows_is_not_used(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vecdb.database.Housekeeping", NoHousekeeping)
    index = HnswIndex(DIM, Metric.COSINE, quantization="rabitq")
    index.build(vectors()[:10])
    store = PosixStore(data / "c000001")
    name = f"segments/{file_of(data, 'segments/*.index').name}"
    ref = write_sections(store, name, index.arrays(), kind=INDEX_KIND, overwrite=True)
    log = ManifestLog.open(store.within("manifest"))
    rewritten(log, lambda body: body["segments"][0].update(index=ref.to_json()))
    with Database(data, durability="os") as db:
        points = db.collection("large")
        assert points.info().indexed == 0
        assert points.search(vector=vectors()[-1], k=1)[0].id == ROWS - 1


def test_two_collections_in_one_folder_are_a_damaged_catalog(data: Path) -> None:
    log = ManifestLog.open(PosixStore(data).within("catalog"))
    rewritten(log, lambda b: b["collections"]["small"].update(dir=b["collections"]["large"]["dir"]))
    with pytest.raises(CorruptFileError, match="does not list collections"):
        Database(data)

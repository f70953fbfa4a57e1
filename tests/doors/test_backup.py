"""Backups and what a collection says of itself, through both doors and from the command line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import vecdb
from tests.doors.conftest import start_server, stop_server
from vecdb import errors
from vecdb.cli import main
from vecdb.cli_admin import info_lines
from vecdb.storage import PosixStore
from vecdb.types import CollectionInfo, Metric, Quarantine, SegmentInfo, Work, WorkKind
from vecdb_client import AsyncClient

VECTORS = np.random.default_rng(2).standard_normal((3_000, 8)).astype(np.float32)


@dataclass
class Door:
    """A database, and what its backups' directory is called there and here."""

    db: Any
    target: str
    root: Path
    server: bool

    def name(self, name: str) -> str:
        return name if self.server else str(self.root / name)


@pytest.fixture(params=["embedded", "server"])
def door(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Door]:
    data, root = tmp_path / "data", tmp_path / "backups"
    if request.param == "embedded":
        with vecdb.connect(str(data)) as database:
            yield Door(database, str(data), root, server=False)
        return
    process, url = start_server(data, "--backup-dir", str(root))
    try:
        with vecdb.connect(url, timeout=120.0) as client:
            yield Door(client, url, root, server=True)
    finally:
        assert stop_server(process) == 0


def fill(db: Any) -> Any:
    points = db.create_collection("points", dim=8)
    points.upsert(range(2_500), vectors=VECTORS[:2_500])
    points.flush()
    points.upsert(range(2_500, 2_600), vectors=VECTORS[2_500:2_600])
    points.delete(ids=[0, 1])
    return points


def test_a_backup_and_what_comes_back(door: Door, tmp_path: Path) -> None:
    points = fill(door.db)
    expected = points.search(vector=VECTORS[5], k=20)
    assert door.db.list_backups(door.name("nightly")) == []
    first = door.db.backup(door.name("nightly"))
    assert (first.number, first.points, first.damage) == (1, {"points": 2_598}, None)
    assert (first.files, first.new_files) == (3, 3)  # data, index, log
    assert (
        first.bytes
        == first.new_bytes
        == sum(file.stat().st_size for file in (door.root / "nightly/files").iterdir())
    )
    points.delete(ids=range(100))
    second = door.db.backup(door.name("nightly"))
    third = door.db.backup(door.name("nightly"), keep=2)
    assert (second.new_files, third.new_files) == (1, 0)
    assert door.db.list_backups(door.name("nightly")) == [second, third]
    vecdb.restore(door.root / "nightly", tmp_path / "restored", number=2)
    with vecdb.connect(str(tmp_path / "restored")) as again:
        assert again.collection("points").count() == 2_500
    door.db.backup(door.name("other"))
    assert [one.number for one in door.db.list_backups(door.name("other"))] == [1]
    assert first.taken is not None
    assert expected[0].id == 5


def test_texts_come_back_with_their_encoder(door: Door, tmp_path: Path) -> None:
    docs = door.db.create_collection("docs", encoder="all-MiniLM-L6-v2")
    docs.upsert(["pep8", "pep20"], texts=["A line has 79 characters.", "Explicit is better."])
    door.db.backup(door.name("nightly"))
    vecdb.restore(door.root / "nightly", tmp_path / "restored")
    with vecdb.connect(str(tmp_path / "restored")) as again:
        assert again.collection("docs").info().encoder == docs.info().encoder
        assert again.collection("docs").search("How long is a line?", k=1)[0].id == "pep8"


def test_what_cannot_be_backed_up_to(door: Door) -> None:
    fill(door.db)
    with pytest.raises(errors.InvalidParameterError, match="keep=0"):
        door.db.backup(door.name("a"), keep=0)
    held = PosixStore(door.root / "a").lock()
    try:
        with pytest.raises(errors.DirectoryLockedError):
            door.db.backup(door.name("a"))
    finally:
        held.release()
    (door.root / "file").write_text("not a directory")
    with pytest.raises(errors.VecdbError, match="file"):
        door.db.backup(door.name("file"))
    assert door.db.collection("points").count() == 2_598


NOT_NAMES = ["", ".", "..", "../up", "a/b", "/tmp/x", "-a", "a b", "a\0b", "x" * 101, "é", "a\n"]


@pytest.mark.parametrize("door", ["server"], indirect=True)
def test_a_caller_of_a_server_reaches_no_other_directory(door: Door, tmp_path: Path) -> None:
    fill(door.db)
    door.root.mkdir()
    (door.root / "link").symlink_to(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    for name in [*NOT_NAMES, "link"]:
        with pytest.raises(errors.InvalidNameError):
            door.db.backup(name)
        with pytest.raises(errors.InvalidNameError):
            door.db.list_backups(name)
    with pytest.raises(errors.InvalidNameError, match="NoneType"):
        door.db.backup(None)
    there = {file for file in tmp_path.rglob("*") if "data" not in file.parts}
    assert there <= set(before)


def test_a_server_takes_backups_only_where_its_operator_said(tmp_path: Path) -> None:
    process, url = start_server(tmp_path / "data")
    try:
        with vecdb.connect(url) as client:
            for call in (client.backup, client.list_backups):
                with pytest.raises(errors.FailedPreconditionError, match="--backup-dir"):
                    call("nightly")
    finally:
        assert stop_server(process) == 0
    result = run("serve", "--data", "data", "--backup-dir", "data/backups")
    assert (result.exit_code, "data directory" in result.output) == (1, True)


async def test_the_async_client_takes_backups(tmp_path: Path) -> None:
    process, url = start_server(tmp_path / "data", "--backup-dir", str(tmp_path / "backups"))
    try:
        async with AsyncClient(url) as client:
            await client.create_collection("points", dim=8)
            taken = await client.backup("nightly", keep=1)
            assert await client.list_backups("nightly") == [taken]
            assert (await client.collection("points")).name == "points"
    finally:
        assert stop_server(process) == 0


# What a collection says of itself


def test_info_tells_segments_and_sizes(door: Door) -> None:
    points = fill(door.db)
    info = points.info()
    assert (info.count, info.segments, info.indexed) == (2_598, 2, 2_498)
    (segment,) = info.closed_segments
    assert (segment.rows, segment.live_rows, segment.indexed) == (2_500, 2_498, True)
    assert info.growing_rows == 100
    assert info.log_bytes > 100 * 8 * 4
    assert info.disk_bytes == info.log_bytes + segment.disk_bytes
    assert info.work == ()
    files = list(Path(door.root.parent, "data").rglob("c000001/[sw]*/*"))
    assert sum(file.stat().st_size for file in files) == info.disk_bytes


def test_both_doors_say_the_same() -> None:
    from vecdb_proto import admin_codec

    info = CollectionInfo(
        "c", 3, Metric.L2, None, 7, 2, 5, 1_000,
        quarantined=(Quarantine("segment 3", ("a",), "broken", None),),
        closed_segments=(SegmentInfo(5, 4, 900, True), SegmentInfo(3, 3, 0, False)),
        growing_rows=3, log_bytes=100,
        work=(Work(WorkKind.SEAL, 3, 0.0), Work(WorkKind.MERGE, 8, 0.25)),
    )  # fmt: skip
    assert admin_codec.info_value(admin_codec.info_message(info)) == info
    lines = "\n".join(info_lines(info))
    for words in ("4 of 5 rows live", "merge of 8 rows, 25% done", "DAMAGED, not served", "broken"):
        assert words in lines


# From the command line


def run(*arguments: str) -> Any:
    return CliRunner().invoke(main, list(arguments))


def test_the_commands(tmp_path: Path) -> None:
    data, backups = str(tmp_path / "data"), str(tmp_path / "backups/mine")
    with vecdb.connect(data) as db:
        fill(db)
        refused = run("backup", backups, "--db", data)
        assert refused.exit_code == 1
        assert "in use by" in refused.output
    shown = run("info", "--db", data)
    assert shown.exit_code == 0, shown.output
    assert "points: 2598 points of 8 dimensions, cosine" in shown.output
    assert "2498 of 2500 rows live" in shown.output
    (as_json,) = run("info", "points", "--json", "--db", data).output.splitlines()
    assert json.loads(as_json)["closed_segments"][0]["live_rows"] == 2_498
    assert run("info", "nothing", "--db", data).exit_code == 1

    assert "1  20" in run("backup", backups, "--db", data).output
    assert "(0 new, 0 B); points: points 2598" in run("backup", backups, "--db", data).output
    listed = run("backups", backups, "--verify")
    assert (listed.exit_code, len(listed.output.splitlines())) == (0, 2)
    restored = str(tmp_path / "restored")
    done = run("restore", backups, restored, "--number", "1")
    assert done.exit_code == 0, done.output
    assert "restored to" in done.output
    again = run("restore", backups, restored)
    assert again.exit_code == 1
    assert "--replace" in again.output
    assert run("restore", backups, restored, "--replace").exit_code == 0
    with vecdb.connect(restored) as db:
        assert db.collection("points").count() == 2_598
    file = next((tmp_path / "backups/mine/files").iterdir())
    file.write_bytes(b"")
    listed = run("backups", backups, "--verify")
    assert (listed.exit_code, listed.output.count("DAMAGED")) == (1, 2)
    damaged = run("restore", backups, str(tmp_path / "r2"))
    assert damaged.exit_code == 1
    assert file.name in damaged.output
    assert "no such directory" in run("backups", str(tmp_path / "nowhere")).output
    assert run("backups", backups, "--db", data).exit_code == 2


def test_the_commands_with_a_server(tmp_path: Path) -> None:
    process, url = start_server(tmp_path / "data", "--backup-dir", str(tmp_path / "backups"))
    try:
        with vecdb.connect(url) as client:
            fill(client)
        done = run("backup", "nightly", "--keep", "2", "--db", url)
        assert done.exit_code == 0, done.output
        assert "points: points 2598" in done.output
        assert run("backups", "nightly", "--db", url).output == done.output
        assert run("backups", "nightly", "--db", url, "--verify").exit_code == 2
        assert "2498 of 2500 rows live" in run("info", "--db", url).output
        assert run("backup", "../up", "--db", url).exit_code == 1
        busy = run(
            "restore", str(tmp_path / "backups/nightly"), str(tmp_path / "data"), "--replace"
        )
        assert busy.exit_code == 1
        assert str(process.pid) in busy.output
    finally:
        assert stop_server(process) == 0

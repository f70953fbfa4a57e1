"""Damaged backups, and what a hostile one cannot do."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import vecdb
from tests.backed_up import DIM, everything, flip, made_of_everything, put
from tests.housekeeping import NoHousekeeping
from vecdb.backup import list_backups
from vecdb.collection import Collection
from vecdb.database import Database
from vecdb.errors import (
    CorruptFileError,
    NewerFormatError,
)
from vecdb.storage import PosixStore, check_directory
from vecdb.storage.manifest import _digest, encode_manifest, manifest_name


@pytest.fixture(autouse=True)
def _no_housekeeping(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vecdb.database.Housekeeping", NoHousekeeping)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def backups(tmp_path: Path) -> Path:
    return tmp_path / "backups"


def newest(backups: Path) -> Path:
    """The newest manifest, whose copy would hide any change of it."""
    file = max((backups / "backups").glob("*.json"))
    file.with_suffix(".copy").unlink(missing_ok=True)
    return file


def rewrite(backups: Path, change: Callable[[Any], Any]) -> None:
    """Change the newest backup's manifest, with right checksums, as somebody with malice would."""
    body = json.loads(newest(backups).read_bytes().split(b"\n", 1)[1])
    change(body)
    number = int(newest(backups).stem)
    text = json.dumps(body).encode() + b"\n"  # with the Infinity that encode_manifest refuses
    opening = encode_manifest(number, {}).split(b" ")[:3]
    first_line = b" ".join([*opening, b"%010d" % number, _digest(number, text)])
    newest(backups).write_bytes(first_line + b"\n" + text)


@pytest.fixture
def db(data: Path) -> Any:
    with Database(data, durability="os") as database:
        yield database


@pytest.fixture
def points(db: Database) -> Collection:
    return made_of_everything(db)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with one backup of a small collection: a segment, tombstones, and a log."""
    root = tmp_path_factory.mktemp("template")
    with Database(root / "data", durability="os") as db:
        points = db.create_collection("points", dim=DIM)
        put(points, 0, 60)
        points.maintenance.seal()
        points.delete(ids=[3])
        put(points, 60, 70)
        points.maintenance.seal()
        put(points, 70, 80)
        db.backup(root / "backups")
    return root / "backups"


@pytest.fixture
def backed_up(template: Path, backups: Path) -> Path:
    shutil.copytree(template, backups)
    return backups


def refused(backups: Path, tmp_path: Path, message: str | None = None) -> None:
    """Nothing comes of a restore, into an empty directory or over another database."""
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(CorruptFileError, match=message):
        vecdb.restore(backups, tmp_path / "r")
    made = set(tmp_path.rglob("*")) - set(before)
    assert made <= {tmp_path / "r", tmp_path / "r" / "LOCK"}
    with Database(tmp_path / "other", durability="os") as other:
        put(other.create_collection("other", dim=DIM), 0, 10)
    with pytest.raises(CorruptFileError, match=message):
        vecdb.restore(backups, tmp_path / "other", replace=True)
    assert check_directory(PosixStore(tmp_path / "other")).findings == []
    with Database(tmp_path / "other", durability="os") as other:
        assert other.list_collections() == ["other"]
        assert other.collection("other").count() == 10


def test_every_file_of_a_backup_is_compared(backed_up: Path, tmp_path: Path) -> None:
    for number, file in enumerate(sorted((backed_up / "files").iterdir())):
        content = file.read_bytes()
        for change in ("flip", "cut", "longer", "gone"):
            if change == "flip":
                flip(file, len(content) // 2)
            elif change == "cut":
                file.write_bytes(content[:-1])
            elif change == "longer":
                file.write_bytes(content + b"x")
            else:
                file.unlink()
            (info,) = list_backups(backed_up, verify=True)
            assert file.name in str(info.damage)
            with pytest.raises(CorruptFileError, match=file.name):
                vecdb.restore(backed_up, tmp_path / f"r{number}{change}")
            file.write_bytes(content)
    flip(newest(backed_up), 300)
    (info,) = list_backups(backed_up)
    assert "digest" in str(info.damage)
    refused(backed_up, tmp_path, "digest")


@pytest.mark.parametrize("cases", [40, pytest.param(300, marks=pytest.mark.slow)])
def test_one_flipped_bit_or_a_cut_anywhere(
    db: Database, backups: Path, tmp_path: Path, cases: int
) -> None:
    """The restore is refused, or right: nothing in between, and nothing is left of it."""
    points = db.create_collection("points", dim=DIM)
    put(points, 0, 60)
    points.maintenance.seal()
    points.delete(ids=[3])
    put(points, 60, 80)
    db.backup(backups)
    expected = everything(points)
    rng = random.Random(cases)
    refusals = 0
    files = sorted(file for file in backups.rglob("*") if file.name != "LOCK" and file.is_file())
    for _ in range(cases):
        file = rng.choice(files)
        content = file.read_bytes()
        at = rng.randrange(len(content))
        changed = bytearray(content)
        changed[at] ^= 1 << rng.randrange(8)
        file.write_bytes(changed if rng.random() < 0.7 else content[:at])
        try:
            vecdb.restore(backups, tmp_path / "r")
        except (CorruptFileError, NewerFormatError):
            refusals += 1
            assert [left.name for left in (tmp_path / "r").glob("*")] in ([], ["LOCK"])
        else:
            with Database(tmp_path / "r", durability="os") as again:
                assert everything(again.collection("points")) == expected
        shutil.rmtree(tmp_path / "r", ignore_errors=True)
        file.write_bytes(content)
    assert cases / 4 < refusals < cases  # a manifest has a copy


def test_a_file_cut_short_is_copied_again(
    db: Database, points: Collection, backups: Path, tmp_path: Path
) -> None:
    db.backup(backups)
    file = max((backups / "files").iterdir(), key=lambda f: f.stat().st_size)
    file.write_bytes(file.read_bytes()[:-5])
    assert db.backup(backups).new_files == 1
    assert [info.damage for info in list_backups(backups, verify=True)] == [None, None]


def test_a_damaged_backup_hides_no_other(
    db: Database, points: Collection, backups: Path, tmp_path: Path
) -> None:
    db.backup(backups)
    put(points, 4_000, 4_001)
    db.backup(backups)
    flip(newest(backups), 300)
    with pytest.raises(CorruptFileError, match="digest"):
        vecdb.restore(backups, tmp_path / "r")  # never an older one unasked
    vecdb.restore(backups, tmp_path / "r", number=1)
    files = set((backups / "files").iterdir())
    assert db.backup(backups, keep=1).number == 3
    assert [(i.number, i.damage is None) for i in db.list_backups(backups)] == [(3, True)]
    assert set((backups / "files").iterdir()) <= files
    vecdb.restore(backups, tmp_path / "r3")


HOSTILE_NAMES = [
    "../../escaped", "segments/../../../escaped", "/tmp/escaped", "segments/\0", "segments/",
    "segments/..", "segments/a/b", "catalog/0000000009.json", "manifest/0000000009.json", "LOCK",
    "segments/x.vecdb-tmp", "", "wal/00000000000000000001.wal/x", "segments\\..\\x", "segments/é",
    "segments/" + "x" * 300, "RESTORING",
]  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE_NAMES)
@pytest.mark.parametrize("where", ["segment", "log"])
def test_a_name_that_points_elsewhere(
    backed_up: Path, tmp_path: Path, name: str, where: str
) -> None:
    def change(body: Any) -> None:
        entry = body["collections"]["points"]
        ref = entry["log"][0] if where == "log" else entry["manifest"]["segments"][0]["data"]
        ref["name"] = name

    rewrite(backed_up, change)
    refused(backed_up, tmp_path, "does not describe a backup")
    assert list_backups(backed_up)[0].damage


def _set(path: str, value: Any) -> Callable[[Any], None]:
    def change(body: Any) -> None:
        *folders, last = path.split("/")
        at = body
        for folder in folders:
            at = at[int(folder)] if isinstance(at, list) else at[folder]
        at[int(last) if isinstance(at, list) else last] = value

    return change


POINTS = "collections/points"
GIVEN_UP = {"part": "segment 1", "files": [], "reason": "damaged", "points": 1}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("collections", []),
        ("collections", {"../up": {}}),
        ("collections/..", None),
        ("taken", "yesterday"),
        ("taken", None),
        ("backup", "1"),
        ("backup", 0),
        ("new_files", -1),
        (f"{POINTS}/points", 7),
        (f"{POINTS}/sequence", 1 << 80),
        (f"{POINTS}/sequence", 2),
        (f"{POINTS}/settings", {}),
        (f"{POINTS}/settings/dim", 1 << 60),
        (f"{POINTS}/settings/dim", 3),
        (f"{POINTS}/manifest", 3),
        (f"{POINTS}/manifest", {}),
        (f"{POINTS}/manifest/next_segment", float("1e999")),
        (f"{POINTS}/manifest/next_segment", 0),
        (f"{POINTS}/manifest/next_segment", 1),
        (f"{POINTS}/manifest/next_segment", "2"),
        (f"{POINTS}/manifest/applied_seq", 99),
        (f"{POINTS}/manifest/segments/0/id", -1),
        (f"{POINTS}/manifest/segments/0/dead", 0),
        (f"{POINTS}/manifest/segments/0/dead", 2),
        (f"{POINTS}/manifest/quarantined", [{**GIVEN_UP, "files": ["../../etc"]}]),
        (f"{POINTS}/manifest/quarantined", [{**GIVEN_UP, "points": -1}]),
        (f"{POINTS}/manifest/segments/0/data", None),
        (f"{POINTS}/manifest/segments/0/data/size", 1 << 62),
        (f"{POINTS}/manifest/segments/0/data/sha256", "../" * 21 + "x"),
        (f"{POINTS}/manifest/segments/0/data/sha256", "a" * 64),
        (f"{POINTS}/log", []),
        (f"{POINTS}/log/0/size", 0),
    ],
)
def test_a_manifest_that_describes_no_database(
    backed_up: Path, tmp_path: Path, path: str, value: Any
) -> None:
    rewrite(backed_up, _set(path, value))
    refused(backed_up, tmp_path)


def test_a_name_of_a_collection_that_cannot_be_one(backed_up: Path, tmp_path: Path) -> None:
    for name in ("../up", "", "a/b", "\0", "x" * 300):

        def change(body: Any, name: str = name) -> None:
            body["collections"] = {name: next(iter(body["collections"].values()))}

        rewrite(backed_up, change)
        refused(backed_up, tmp_path, "collection name")
        shutil.rmtree(tmp_path / "other")


def test_links_are_not_followed(backed_up: Path, tmp_path: Path) -> None:
    """Even to the right bytes: what a link points to may be other bytes a moment later."""
    file = max((backed_up / "files").iterdir(), key=lambda f: f.stat().st_size)
    outside = tmp_path / "outside"
    shutil.move(file, outside)
    file.symlink_to(outside)
    refused(backed_up, tmp_path, "symbolic link")
    file.unlink()
    shutil.move(outside, file)
    for folder in ("files", "backups"):
        shutil.move(backed_up / folder, outside)
        (backed_up / folder).symlink_to(outside)
        shutil.rmtree(tmp_path / "other", ignore_errors=True)
        refused(backed_up, tmp_path, "symbolic link")
        with (
            Database(tmp_path / "mine", durability="os") as mine,
            pytest.raises(CorruptFileError, match="symbolic link"),
        ):
            mine.backup(backed_up, keep=1)
        (backed_up / folder).unlink()
        shutil.move(outside, backed_up / folder)
    vecdb.restore(backed_up, tmp_path / "fine")


@pytest.mark.timeout(30)
def test_what_is_not_a_file_is_not_read(backed_up: Path, tmp_path: Path) -> None:
    file = min((backed_up / "files").iterdir())
    file.unlink()
    os.mkfifo(file)
    refused(backed_up, tmp_path, "not a file")


@pytest.mark.timeout(30)
def test_a_manifest_that_is_not_a_file_is_not_read(backed_up: Path, tmp_path: Path) -> None:
    file = newest(backed_up)
    file.unlink()
    os.mkfifo(file)
    refused(backed_up, tmp_path, "not a file")


def test_a_newer_backup_is_refused_by_name(backed_up: Path, tmp_path: Path) -> None:
    rewrite(backed_up, _set("backup", 2))
    with pytest.raises(NewerFormatError, match="format 2"):
        vecdb.restore(backed_up, tmp_path / "r")
    assert not (tmp_path / "r").exists()
    assert "format 2" in str(list_backups(backed_up)[0].damage)
    assert newest(backed_up).name == manifest_name(1)


def test_a_backup_stands_where_an_older_one_is_damaged_and_cannot_be_pruned(
    db: Database, points: Collection, backups: Path, tmp_path: Path
) -> None:
    db.backup(backups)
    put(points, 4_000, 4_001)
    db.backup(backups)
    flip(newest(backups), 300)
    files = set((backups / "files").iterdir())
    assert db.backup(backups, keep=2).number == 3
    assert files <= set((backups / "files").iterdir())
    vecdb.restore(backups, tmp_path / "r")
    with Database(tmp_path / "r") as again:
        assert again.collection("points").count() == points.count()

"""FORMAT.md is true: its examples decode and encode again, and format 1 stays readable."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import vecdb
from tests.housekeeping import NoHousekeeping
from tests.storage import make_fixtures as made
from vecdb import storage
from vecdb.database import Database
from vecdb.errors import NewerFormatError
from vecdb.storage import (
    Delete,
    FileRef,
    ManifestLog,
    PosixStore,
    Sections,
    SegmentFile,
    Upsert,
    Wal,
    check_directory,
    decode_operation,
    encode_operation,
    open_sections,
    read_tombstones,
    wal_file,
    write_sections,
)
from vecdb.storage.backup import BACKUP_VERSION, BackupDirectory
from vecdb.storage.manifest import decode_manifest, encode_manifest

PAGE = Path(storage.__file__).with_name("FORMAT.md").read_text()
FIXTURE = Path(__file__).with_name("fixtures") / "format1"
BACKUP_FIXTURE = FIXTURE.with_name("backup1")


def example(name: str) -> bytes:
    block = re.search(rf"```hex {name}\n(.*?)```", PAGE, re.DOTALL)
    assert block is not None
    data = b""
    for line in block[1].splitlines():
        offset, rest = line.split(":", 1)
        assert int(offset, 16) == len(data)
        data += bytes.fromhex(rest.split(";")[0])
    return data


def test_the_example_of_a_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = PosixStore(tmp_path)
    store.put("00000000000000000001.wal", example("wal"))
    wal = Wal.open(store)
    [record] = wal.replay()
    assert decode_operation(record.kind, record.body, record.where) == Delete([7])
    assert wal.last_seq == 2

    monkeypatch.setattr("vecdb.storage.wal.new_tag", lambda: bytes([1, 2, 3, 4]))
    again = PosixStore(tmp_path / "again")
    wal = Wal.open(again)
    wal.append([encode_operation(Delete([7]))])
    wal.close()
    assert again.read("00000000000000000001.wal") == example("wal")


def test_the_example_of_an_upsert() -> None:
    upsert = decode_operation(1, example("upsert"), "here")
    assert isinstance(upsert, Upsert)
    assert upsert.ids == [7, "é"]
    assert upsert.vectors.tolist() == [[1, 2], [3, 4]]
    assert upsert.texts == ["hi", None]
    assert upsert.payloads is None
    assert encode_operation(upsert) == (1, example("upsert"))


def test_the_example_of_a_sections_file(tmp_path: Path) -> None:
    store = PosixStore(tmp_path)
    store.put("x", example("sections"))
    sections = open_sections(store, "x", kind="example")
    assert {k: v.tolist() for k, v in sections.items()} == {"x": [1, 2, 3]}
    write_sections(store, "y", {"x": np.array([1, 2, 3], np.uint16)}, kind="example")
    assert store.read("y") == example("sections")


def test_the_example_of_a_manifest() -> None:
    block = re.search(r"```text manifest\n(.*?)```", PAGE, re.DOTALL)
    assert block is not None
    assert decode_manifest(1, block[1].encode(), where="here").body == {"a": 1}
    assert encode_manifest(1, {"a": 1}) == block[1].encode()


def test_the_example_of_a_backup(tmp_path: Path) -> None:
    block = re.search(r"```text backup\n(.*?)```", PAGE, re.DOTALL)
    assert block is not None
    store = PosixStore(tmp_path)
    store.put("backups/0000000001.json", block[1].encode())
    backup = BackupDirectory(store).read()
    docs = backup.collections["docs"]
    assert (docs.sequence, docs.points, docs.files) == (1, 0, list(docs.log))
    assert (backup.taken.isoformat(), backup.new_bytes) == ("2026-11-23T22:35:48+00:00", 121)
    body = json.loads(block[1].split("\n", 1)[1])
    assert body["collections"] == {"docs": docs.to_json()}
    assert encode_manifest(1, body) == block[1].encode()


@pytest.mark.parametrize(
    ("words", "true"),
    [
        (rf"`VECDBWAL` \| write-ahead log file \| {wal_file.VERSION} ", True),
        (rf"`VECDBSEC` \| sections file \| {storage.sections.VERSION} ", True),
        (r"at most 2\^30", wal_file.RECORD_BYTES_LIMIT == 2**30),
        (r"16 MiB of table", storage.sections.TABLE_BYTES_LIMIT == 16 << 20),
        (r"64 MiB per manifest", storage.manifest.MANIFEST_BYTES_LIMIT == 64 << 20),
        (rf'"backup": {BACKUP_VERSION},', True),
        (r"once it has 64 MiB", storage.wal.FILE_BYTES == 64 << 20),
    ],
)
def test_the_page_states_the_versions_and_limits_of_the_code(words: str, true: bool) -> None:
    assert true
    assert re.search(words, PAGE)


@pytest.fixture
def fixture(tmp_path: Path) -> PosixStore:
    shutil.copytree(FIXTURE, tmp_path / "data")
    return PosixStore(tmp_path / "data")


def test_the_fixture_of_format_1_reads(fixture: PosixStore) -> None:
    catalog = ManifestLog.open(fixture.within("catalog")).latest
    assert catalog is not None
    assert catalog.body["collections"]["docs"]["settings"] == made.SETTINGS
    docs = fixture.within(catalog.body["collections"]["docs"]["dir"])
    manifest = ManifestLog.open(docs.within("manifest")).latest
    assert manifest is not None
    [entry] = manifest.body["segments"]
    segment = SegmentFile.open(docs, FileRef.from_json(entry["data"]))
    rows = np.arange(3)
    assert segment.ids_at(rows) == made.SEGMENT_IDS
    assert np.array_equal(segment.vectors, made.SEGMENT_VECTORS)
    assert segment.texts_at(rows) == made.SEGMENT_TEXTS
    assert segment.payloads_at(rows) == made.SEGMENT_PAYLOADS
    assert segment.rows_of(made.SEGMENT_IDS).tolist() == [0, 1, 2]
    dead = read_tombstones(docs, FileRef.from_json(entry["tombstones"]), len(segment))
    assert np.array_equal(dead, made.DEAD)
    wal = Wal.open(docs.within("wal"), after_seq=manifest.body["applied_seq"])
    records = list(wal.replay(manifest.body["applied_seq"]))
    assert [(r.kind, r.body) for r in records] == list(map(encode_operation, made.OPERATIONS))
    wal.close()


def test_the_fixture_is_sound_and_its_generator_still_makes_it(
    fixture: PosixStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = check_directory(fixture)
    assert report.ok
    assert not report.findings
    log = "c000001/wal/00000000000000000005.wal"
    monkeypatch.setattr("vecdb.storage.wal.new_tag", lambda: fixture.read(log)[24:28])
    made.make(tmp_path / "made")
    again = PosixStore(tmp_path / "made")
    # The first vecdb of this format wrote neither copies of manifests nor ends of logs.
    assert [n for n in again.list() if not n.endswith((".copy", ".end"))] == fixture.list()
    for name in fixture.list():
        assert again.read(name) == fixture.read(name), name


def test_the_fixture_of_a_backup_restores_and_is_still_made_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vecdb.database.Housekeeping", NoHousekeeping)
    shutil.copytree(BACKUP_FIXTURE, tmp_path / "backups")
    vecdb.restore(tmp_path / "backups", tmp_path / "data")
    assert not check_directory(PosixStore(tmp_path / "data")).findings
    with Database(tmp_path / "data") as database:
        records = database.collection("docs").get([7, "seven", 2**64 - 1, 8, "acht"])
        assert [(r.id, r.text) for r in records] == [(2**64 - 1, ""), (8, "ä"), ("acht", None)]
    made.make_backup(FIXTURE, tmp_path / "made")
    old, new = PosixStore(BACKUP_FIXTURE), PosixStore(tmp_path / "made")
    assert new.list() == old.list()
    for name in new.list("files"):
        assert new.read(name) == old.read(name)
    backups = (BackupDirectory(store).read() for store in (old, new))
    assert next(backups).collections == next(backups).collections


def _newer_binary(data: bytes) -> bytes:
    return storage.prologue.prologue(data[:8], 2) + data[16:]


def _open_any(store: PosixStore) -> Sections:
    return open_sections(store, store.list()[-1], kind=None)


def _newer_manifest(data: bytes) -> bytes:
    opening = b"vecdb-manifest 2"
    rest = data.split(b" ", 3)[3]
    return b"%s %08x %s" % (opening, storage.crc.crc32c(opening), rest)


@pytest.mark.parametrize(
    ("name", "newer", "read"),
    [
        ("catalog/0000000001.json", _newer_manifest, ManifestLog.open),
        ("c000001/segments/0000000001.data", _newer_binary, _open_any),
        ("c000001/wal/00000000000000000005.wal", _newer_binary, Wal.open),
    ],
)
def test_a_newer_format_is_refused_by_name(
    fixture: PosixStore,
    name: str,
    newer: Callable[[bytes], bytes],
    read: Callable[[PosixStore], object],
) -> None:
    fixture.put(name, newer(fixture.read(name)), overwrite=True)
    with pytest.raises(NewerFormatError, match="of format 2; this vecdb reads formats up to 1"):
        read(fixture.within(name.rpartition("/")[0]))
    assert not check_directory(fixture).ok

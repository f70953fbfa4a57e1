"""`vecdb check` finds every kind of damage, explains it, and repairs only what is safe."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.storage.faulty import ROOT, SimulatedDisk
from tests.storage.make_fixtures import make
from vecdb.database import Database
from vecdb.errors import DirectoryLockedError, StorageAccessError, StorageIOError
from vecdb.storage import HeldLock, ManifestLog, PosixStore, Severity, Wal, check_directory
from vecdb.storage.system_calls import SystemCalls

CATALOG = "catalog/0000000001"
MANIFEST = "c000001/manifest/0000000001"
DATA = "c000001/segments/0000000001.data"
DEAD = "c000001/segments/0000000001.1.dead"
LOG = "c000001/wal/00000000000000000005.wal"


@pytest.fixture
def store(tmp_path: Path) -> PosixStore:
    make(tmp_path / "data")
    return PosixStore(tmp_path / "data")


def test_a_sound_directory_has_nothing_to_tell(store: PosixStore) -> None:
    report = check_directory(store)
    assert report.ok
    assert report.files == 7
    assert report.bytes == sum(store.size(name) for name in store.list())
    assert "everything that was written can be read" in str(report)


def flip(data: bytes) -> bytes:
    """Flip a bit in the middle."""
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 4]) + data[middle + 1 :]


@pytest.mark.parametrize("change", [flip, lambda data: data[:-1], lambda _: b""])
@pytest.mark.parametrize("name", [CATALOG, MANIFEST, DATA, DEAD])
def test_a_damaged_file_is_named(
    store: PosixStore, name: str, change: Callable[[bytes], bytes]
) -> None:
    names = [name] if store.exists(name) else [f"{name}.json", f"{name}.copy"]
    for each in names:
        store.put(each, change(store.read(each)), overwrite=True)
    report = check_directory(store)
    assert not report.ok
    assert set(names) <= {f.file for f in report.findings if f.severity is Severity.DAMAGE}
    assert store.location(names[0]) in str(report)
    assert "restore what is named above from a backup" in str(report)


@pytest.mark.parametrize("change", [flip, lambda data: data[:-1], lambda _: b""])
@pytest.mark.parametrize("suffix", [".json", ".copy"])
@pytest.mark.parametrize("name", [CATALOG, MANIFEST])
def test_one_damaged_file_of_a_manifests_two_is_mended(
    store: PosixStore, name: str, suffix: str, change: Callable[[bytes], bytes]
) -> None:
    whole = store.read(name + suffix)
    store.put(name + suffix, change(whole), overwrite=True)
    report = check_directory(store)
    assert report.ok
    assert "the other file of the two is sound" in str(report)
    assert [f.file for f in report.findings] == [name + suffix]
    report = check_directory(store, repair=True)
    assert f"{name}{suffix} is written again from its copy; nothing lost" in str(report)
    assert store.read(name + suffix) == whole
    assert not check_directory(store).findings


@pytest.mark.parametrize("name", [CATALOG, MANIFEST])
def test_a_manifest_of_which_nothing_is_left_is_not_repaired(store: PosixStore, name: str) -> None:
    for suffix in (".json", ".copy"):
        store.put(name + suffix, b"", overwrite=True)
    before = {file: store.read(file) for file in store.list()}
    report = check_directory(store, repair=True, cut_wal=True)
    assert not report.ok
    assert not report.lost
    assert {file: store.read(file) for file in store.list()} == before


@pytest.mark.parametrize("name", [CATALOG, MANIFEST])
@pytest.mark.parametrize("suffixes", [[".json"], [".json", ".copy"]])
def test_damage_to_a_manifest_that_a_newer_one_replaced_is_no_loss(
    store: PosixStore, name: str, suffixes: list[str]
) -> None:
    log = ManifestLog.open(store.within(name.rpartition("/")[0]))
    assert log.latest is not None
    log.publish(log.latest.body)
    for suffix in suffixes:
        store.put(name + suffix, flip(store.read(name + suffix)), overwrite=True)
    report = check_directory(store)
    assert report.ok
    assert [f.file for f in report.findings] == [name + suffix for suffix in suffixes]
    assert "a newer one counts" in str(report)
    report = check_directory(store, repair=True)
    assert {f.severity for f in report.findings} == {Severity.REPAIRED}
    assert not store.exists(name + ".json")
    assert not store.exists(name + ".copy")
    assert not check_directory(store).findings


@pytest.mark.parametrize("name", [DATA, DEAD])
def test_a_missing_file_is_named(store: PosixStore, name: str) -> None:
    store.delete(name)
    report = check_directory(store)
    assert not report.ok
    assert store.location(name) in str(report)


def test_another_file_under_the_name_is_found_by_its_digest(
    store: PosixStore,
) -> None:
    other = store.read(DEAD).replace(b"\x02", b"\x01", 1)
    store.put(DEAD, other, overwrite=True)
    assert not check_directory(store).ok
    assert store.size(DEAD) == len(other)


def test_a_damaged_index_is_no_loss(store: PosixStore) -> None:
    make_index = {"name": "segments/1.index", "size": 1, "sha256": "0" * 64}
    log = ManifestLog.open(store.within("c000001/manifest"))
    assert log.latest is not None
    body = log.latest.body
    body["segments"][0]["index"] = make_index
    log.publish(body)
    report = check_directory(store)
    assert report.ok
    assert "will be built again" in str(report)


def test_a_torn_log_is_told_and_with_repair_cut(store: PosixStore) -> None:
    whole = store.read(LOG)
    store.put(LOG, whole + b"half a record", overwrite=True)
    report = check_directory(store)
    assert report.ok
    assert f"from offset {len(whole)} on, in 13 bytes" in str(report)
    report = check_directory(store, repair=True)
    assert [f.severity for f in report.findings] == [Severity.REPAIRED]
    assert store.read(LOG) == whole
    assert not check_directory(store).findings


def test_damage_in_the_middle_of_a_log_is_not_cut(store: PosixStore) -> None:
    damaged = flip(store.read(LOG))
    store.put(LOG, damaged, overwrite=True)
    report = check_directory(store, repair=True)
    assert not report.ok
    assert "is damaged at offset" in str(report)
    assert store.read(LOG) == damaged


def test_missing_records_are_damage(store: PosixStore) -> None:
    wal = Wal.open(store.within("c000001/wal"), after_seq=4)
    wal.rotate()
    wal.append([(2, bytes(16))])
    wal.close()
    store.delete(LOG)
    report = check_directory(store)
    assert not report.ok
    assert "records 5 to" in str(report)


def test_what_belongs_to_nothing_is_told_and_what_becomes_of_it(store: PosixStore) -> None:
    swept = ["c000001/segments/9.data", "c000007"]
    foreign = ["c000001/notes.txt", "c000001/photos/1.jpeg", "notes.txt"]
    unfinished = [f"{folder}.x.vecdb-tmp" for folder in ("", "c000001/wal/", "catalog/")]
    for name in ("c000001/segments/9.data", "c000007/wal/x", *foreign):
        store.put(name, b"")
    for name in unfinished:
        Path(store.location(name)).write_bytes(b"half")
    report = check_directory(store)
    assert report.ok
    told = {f.file: f.message for f in report.findings}
    assert sorted(told) == sorted(swept + foreign + unfinished)
    assert all("deleted" in told[name] for name in swept + unfinished)
    assert all("is none of vecdb's files" in told[name] for name in foreign)
    with Database(Path(store.location())):
        pass
    assert sorted(f.file for f in check_directory(store).findings) == foreign


def test_what_only_an_older_manifest_names_is_not_called_deleted(store: PosixStore) -> None:
    log = ManifestLog.open(store.within("c000001/manifest"))
    assert log.latest is not None
    log.publish({**log.latest.body, "segments": []})
    assert not check_directory(store).findings
    for suffix in (".json", ".copy"):
        store.put(MANIFEST + suffix, b"", overwrite=True)
    messages = {f.file: f.message for f in check_directory(store).findings}
    assert "is left alone" in messages[DATA]
    messages = {f.file: f.message for f in check_directory(store, repair=True).findings}
    assert "deleted at the next opening" in messages[DATA]


def test_segments_without_a_manifest_are_damage(store: PosixStore) -> None:
    for suffix in (".json", ".copy"):
        store.delete(MANIFEST + suffix)
    damaged = {f.file for f in check_directory(store).findings if f.severity is Severity.DAMAGE}
    assert damaged == {"c000001/manifest", DATA, DEAD, LOG}


def test_an_open_directory_is_not_checked(store: PosixStore) -> None:
    held = store.lock()
    with pytest.raises(DirectoryLockedError):
        check_directory(store)
    held.release()
    assert check_directory(store).ok


class ReadOnlyCalls(SystemCalls):
    """A file system on which nothing can be made or opened for writing, not even by root."""

    def create(self, path: Path) -> int:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    def lock(self, directory: Path, *, read_only: bool = False) -> HeldLock:
        if not read_only:
            raise StorageAccessError("read-only file system")
        return super().lock(directory, read_only=True)


def test_what_cannot_be_written_to_is_checked_all_the_same(store: PosixStore) -> None:
    mounted = PosixStore(Path(store.location()), calls=ReadOnlyCalls())
    report = check_directory(mounted)
    assert [f.severity for f in report.findings] == [Severity.NOTE]
    assert "could not be locked" in str(report)
    store.lock().release()  # now there is a lock file
    assert not check_directory(mounted).findings
    held = store.lock()
    with pytest.raises(DirectoryLockedError):
        check_directory(mounted)
    held.release()
    with pytest.raises(StorageAccessError):
        check_directory(mounted, repair=True)


@pytest.mark.parametrize("flags", [0, os.ST_RDONLY])
def test_directories_that_cannot_be_synced_may_be_read_only(
    store: PosixStore, monkeypatch: pytest.MonkeyPatch, flags: int
) -> None:
    def refuse(_: int) -> None:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    monkeypatch.setattr("os.fsync", refuse)
    monkeypatch.setattr("os.fstatvfs", lambda _: SimpleNamespace(f_flag=flags))
    if flags:
        assert check_directory(store).ok
    else:
        with pytest.raises(StorageIOError):
            check_directory(store)


@pytest.mark.parametrize("files", [[], ["notes.txt", "photos/1.jpeg"]])
def test_a_directory_without_a_database_is_told(files: list[str]) -> None:
    store = PosixStore(ROOT, calls=SimulatedDisk())
    for name in files:
        store.put(name, b"")
    report = check_directory(store)
    assert report.ok
    assert "holds no database" in str(report)


def test_collections_without_a_catalog_are_damage_and_are_checked(store: PosixStore) -> None:
    store.delete(CATALOG + ".copy")
    store.delete(CATALOG + ".json")
    store.put(DATA, b"", overwrite=True)
    report = check_directory(store)
    assert {f.file for f in report.findings} == {"catalog", DATA}

"""PosixStore on a real directory and on a simulated one."""

from __future__ import annotations

import errno
import itertools
import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.storage.faulty import ROOT, Faults, PowerLossError, SimulatedDisk
from vecdb.errors import (
    AlreadyExistsError,
    DiskFullError,
    InvalidNameError,
    InvalidParameterError,
    ResourceExhaustedError,
    StorageAccessError,
    StorageIOError,
    StoredFileNotFoundError,
)
from vecdb.storage import PosixStore
from vecdb.storage.system_calls import SystemCalls


@pytest.fixture
def store(tmp_path: Path) -> PosixStore:
    return PosixStore(tmp_path / "new" / "root")


def names_in(store: PosixStore, folder: str = "") -> list[str]:
    return [path.name for path in Path(store.location(folder)).iterdir()]


def test_put_creates_folders_and_never_takes_a_name_that_exists(store: PosixStore) -> None:
    store.put("a/b/c", b"first")
    with pytest.raises(AlreadyExistsError, match="a/b/c exists already"):
        store.put("a/b/c", b"second")
    assert store.read("a/b/c") == b"first"
    store.put("a/b/c", b"second", overwrite=True)
    assert store.read("a/b/c") == b"second"
    assert store.list() == ["a/b/c"]
    assert names_in(store, "a/b") == ["c"]


def test_a_name_taken_between_the_look_and_the_link_is_refused() -> None:
    disk = SimulatedDisk()
    first, second = PosixStore(ROOT, calls=disk), PosixStore(ROOT, calls=disk)
    writing = first.create("x")
    writing.__enter__().write(b"first")
    second.put("x", b"second")
    with pytest.raises(AlreadyExistsError):
        writing.__exit__(None, None, None)
    assert first.read("x") == b"second"
    assert first.discard_unfinished() == 0


def test_create_shows_nothing_before_its_end_and_nothing_after_a_failure(
    store: PosixStore,
) -> None:
    with store.create("x") as writer:
        writer.write(b"ab")
        assert not store.exists("x")
        assert store.list() == []
        writer.write(np.arange(2, dtype=np.uint16))
    assert store.read("x") == b"ab\0\0\1\0"
    with suppress(KeyError), store.create("y") as writer:
        writer.write(b"half")
        raise KeyError
    assert names_in(store) == ["x"]


def test_what_a_dead_writer_left_is_hidden_and_discarded(store: PosixStore) -> None:
    store.put("a/x", b"")
    left = Path(store.location("a")) / ".y.0123.vecdb-tmp"
    left.write_bytes(b"half")
    assert store.list() == ["a/x"]
    assert store.unfinished() == ["a/.y.0123.vecdb-tmp"]
    assert store.discard_unfinished() == 1
    assert not left.exists()


def test_read_map_and_size(store: PosixStore) -> None:
    store.put("x", b"0123456789")
    store.put("empty", b"")
    assert store.read("x", 3, 4) == b"3456"
    assert store.read("x", 8, 100) == b"89"
    assert store.read("x", 100, 1) == b""
    assert store.size("x") == 10
    mapped = store.map("x")
    assert mapped.tobytes() == b"0123456789"
    assert not mapped.flags.writeable
    assert store.map("empty").size == 0
    for look in (store.read, store.map, store.size, store.append):
        with pytest.raises(StoredFileNotFoundError, match="missing"):
            look("missing")


def test_append_write_truncate_sync(store: PosixStore) -> None:
    store.put("x", b"head")
    file = store.append("x")
    file.write([b"1", b"", memoryview(b"23")])
    file.sync()
    assert file.length == 7
    file.truncate(5)
    file.write([b"!"])
    file.close()
    file.close()
    assert store.read("x") == b"head1!"
    with pytest.raises(StorageIOError, match="closed"):
        file.write([b"late"])


def test_many_buffers_go_out_whole(store: PosixStore) -> None:
    store.put("x", b"")
    file = store.append("x")
    pieces = [bytes([i % 251]) * (i % 7) for i in range(3_000)]
    file.write(pieces)
    file.close()
    assert store.read("x") == b"".join(pieces)


def test_list_delete_and_delete_tree(store: PosixStore) -> None:
    for name in ("a/1", "a/b/2", "ab/3", "4"):
        store.put(name, b"")
    assert store.list() == ["4", "a/1", "a/b/2", "ab/3"]
    assert store.list("a") == ["a/1", "a/b/2"]
    assert store.list("nothing") == []
    assert store.within("a").list() == ["1", "b/2"]
    assert store.within("a").within("b").read("2") == b""
    store.delete("a/1")
    store.delete("a/1")
    store.delete_tree("a")
    store.delete_tree("a")
    assert store.list() == ["4", "ab/3"]
    store.put("a/b/2", b"again")
    assert store.read("a/b/2") == b"again"


BAD_NAMES = ["", "/a", "a/", "a//b", ".", "..", "a/../b", "a\0b", "x" * 201, "x.vecdb-tmp", "LOCK"]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_name_that_leads_elsewhere_is_refused(store: PosixStore, name: str) -> None:
    for call in (store.read, store.size, store.map, store.delete, store.append, store.exists):
        with pytest.raises(InvalidNameError):
            call(name)
    with pytest.raises(InvalidNameError):
        store.put(name, b"")
    if name:
        with pytest.raises(InvalidNameError):
            store.within(name)


@settings(deadline=None)
@given(st.text(max_size=30))
def test_no_name_leads_out_of_the_root(name: str) -> None:
    store = PosixStore(ROOT, calls=SimulatedDisk())
    try:
        store.put(name, b"")
    except InvalidNameError:
        return
    assert store.list() == [name]


@pytest.mark.parametrize(
    ("number", "error"),
    [
        (errno.ENOSPC, DiskFullError),
        (errno.EDQUOT, DiskFullError),
        (errno.EACCES, StorageAccessError),
        (errno.EROFS, StorageAccessError),
        (errno.EMFILE, ResourceExhaustedError),
        (errno.EIO, StorageIOError),
    ],
)
def test_errors_of_the_system_say_what_they_mean(number: int, error: type[Exception]) -> None:
    disk = SimulatedDisk()
    store = PosixStore(ROOT, calls=disk)
    store.put("x", b"")
    disk.faults = Faults(error_at=disk.calls, error=number)
    with pytest.raises(error, match=f"cannot create {ROOT / 'y'}") as raised:
        store.put("y", b"")
    assert raised.type is error


def test_where_it_may_not_look_a_store_says_so(tmp_path: Path) -> None:
    class Forbidden(SystemCalls):
        def is_file(self, path: Path) -> bool:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

        is_directory = is_link = is_file

    store = PosixStore(tmp_path, calls=Forbidden())
    for call in (
        lambda: store.exists("a/x"),
        lambda: store.is_link("a/x"),
        lambda: store.put("a/x", b""),
        lambda: store.move("a/x", "a/y"),
        lambda: store.list("a"),
        lambda: store.delete_tree("a"),
        store.discard_unfinished,
        store.free_bytes,
    ):
        with pytest.raises(StorageAccessError, match="cannot look at"):
            call()


def test_a_file_that_the_system_refuses_when_it_is_closed_is_not_there() -> None:
    class OverQuota(SimulatedDisk):
        def close(self, descriptor: int) -> None:
            super().close(descriptor)
            raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    store = PosixStore(ROOT, calls=OverQuota())
    with pytest.raises(DiskFullError, match="cannot close"):
        store.put("x", b"")
    with pytest.raises(KeyError), store.create("x"):
        raise KeyError  # is told, and not what closing says
    assert store.list() == []
    assert store.discard_unfinished() == 0


def test_a_full_disk_leaves_an_appended_file_as_it_was() -> None:
    disk = SimulatedDisk()
    store = PosixStore(ROOT, calls=disk)
    store.put("x", b"head")
    file = store.append("x")
    disk.faults = Faults(full_from=-1)
    with pytest.raises(DiskFullError, match="free some space"):
        file.write([b"too much of it"])
    assert store.read("x") == b"head"
    disk.faults = Faults()
    file.write([b"!"])
    assert store.read("x") == b"head!"


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
def test_after_a_failed_sync_a_file_takes_nothing_more(number: int) -> None:
    disk = SimulatedDisk()
    store = PosixStore(ROOT, calls=disk)
    store.put("x", b"")
    file = store.append("x")
    file.write([b"lost?"])
    disk.faults = Faults(error_at=disk.calls, error=number)
    with pytest.raises(StorageIOError):
        file.sync()
    calls = disk.calls
    for attempt in (file.sync, lambda: file.write([b"more"])):
        with pytest.raises(StorageIOError, match="takes no writes"):
            attempt()
    assert disk.calls == calls


def test_a_file_system_without_hard_links_will_do() -> None:
    class Linkless(SimulatedDisk):
        def link(self, source: Path, target: Path) -> None:
            raise OSError(errno.EPERM, "no links here")

    store = PosixStore(ROOT, calls=Linkless())
    store.put("x", b"1")
    with pytest.raises(AlreadyExistsError):
        store.put("x", b"2")
    assert store.read("x") == b"1"
    writing = store.create("y")
    writing.__enter__().write(b"3")
    store.put("y", b"4")
    with pytest.raises(AlreadyExistsError):
        writing.__exit__(None, None, None)
    assert store.read("y") == b"4"
    assert store.discard_unfinished() == 0


def test_durability_os_never_syncs() -> None:
    disk = SimulatedDisk()
    store = PosixStore(ROOT, "os", disk)
    assert not store.durable
    assert not store.within("b").durable
    store.within("b").put("y", b"")
    store.put("a/x", b"")
    file = store.append("a/x")
    file.write([b"1"])
    file.sync()
    store.delete("a/x")
    assert not [call for call in disk.log if call.startswith("sync")]


def test_every_new_directory_is_durable_before_a_file_in_it_is_told_of() -> None:
    disk = SimulatedDisk()
    PosixStore(ROOT / "deep", calls=disk).put("a/b/x", b"1")
    store = PosixStore(ROOT / "deep", calls=disk.after_power_loss(lambda: False))
    assert store.read("a/b/x") == b"1"


def test_free_bytes_of_a_directory_that_is_not_there_yet(store: PosixStore) -> None:
    assert store.free_bytes() > 0


def test_the_real_calls_refuse_to_create_over_a_file(tmp_path: Path) -> None:
    calls = SystemCalls()
    calls.close(calls.create(tmp_path / "x"))
    with pytest.raises(FileExistsError):
        calls.create(tmp_path / "x")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_parent_is_no_obstacle(tmp_path: Path) -> None:
    parent = tmp_path / "parent"
    root = parent / "root"
    root.mkdir(parents=True)
    parent.chmod(stat.S_IXUSR)
    try:
        PosixStore(root).put("x", b"1")
    finally:
        parent.chmod(stat.S_IRWXU)


def test_links_are_told_from_files_wherever_they_stand_in_a_name(tmp_path: Path) -> None:
    store = PosixStore(tmp_path / "store")
    store.put("folder/file", b"x")
    (tmp_path / "store/link").symlink_to(tmp_path / "store/folder")
    (tmp_path / "store/folder/link").symlink_to(tmp_path / "nowhere")
    found = ["folder", "folder/file", "link", "link/file", "folder/link", "nowhere", "no/where"]
    assert [store.is_link(name) for name in found] == [False, False, True, True, True, False, False]
    (tmp_path / "to-store").symlink_to(tmp_path / "store")
    assert not PosixStore(tmp_path / "to-store").is_link("folder/file")  # its owner's business
    assert store.within("link").is_link("file") is False  # seen from there


@pytest.mark.parametrize("durability", ["DISK", "fsync", "", None, True])
def test_only_one_word_turns_syncing_off(durability: Any, tmp_path: Path) -> None:
    with pytest.raises(InvalidParameterError, match="must be 'disk' or 'os'"):
        PosixStore(tmp_path, durability)


@pytest.mark.parametrize("deleted", ["file", "folder"])
def test_what_was_deleted_does_not_come_back_after_power_loss(deleted: str) -> None:
    disk = SimulatedDisk()
    store = PosixStore(ROOT, calls=disk)
    store.put("a", b"a")
    if deleted == "file":
        store.put("b", b"b")
        store.delete("b")
    else:
        store.put("folder/b", b"b")
        store.delete_tree("folder")
    assert PosixStore(ROOT, calls=disk.after_power_loss(lambda: False)).list() == ["a"]


def test_a_move_ended_anywhere_leaves_one_name_at_least() -> None:
    def moved(faults: Faults) -> SimulatedDisk:
        disk = SimulatedDisk()
        store = PosixStore(ROOT, calls=disk)
        store.put("a/x", b"x")
        store.put("b/y", b"y")
        faults.stop_at = None if faults.stop_at is None else disk.calls + faults.stop_at
        disk.faults = faults
        with suppress(PowerLossError):
            store.move("a/x", "b/x")
        return disk

    for stop_at in (*range(6), None):
        for kept in ((True, False), (False, True), (False, False)):
            choices = itertools.cycle(kept)
            disk = moved(Faults(stop_at=stop_at))
            after = PosixStore(ROOT, calls=disk.after_power_loss(lambda c=choices: next(c)))
            names = set(after.list()) - {"b/y"}
            assert names in ({"a/x"}, {"a/x", "b/x"}, {"b/x"})
            assert all(after.read(name) == b"x" for name in names)
    assert names == {"b/x"}


def test_what_is_listed_survives_power_loss() -> None:
    for stop_at in range(14):
        disk = SimulatedDisk(Faults(stop_at=stop_at))
        with suppress(PowerLossError):
            PosixStore(ROOT, calls=disk).put("folder/x", b"x")
        disk = disk.after_kill()
        names = PosixStore(ROOT, calls=disk).list()
        after = disk.after_power_loss(lambda: False)
        assert PosixStore(ROOT, calls=after).list() == names
    assert names == ["folder/x"]

"""One owner per directory, whatever happens to it."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from vecdb.errors import (
    DirectoryLockedError,
    DiskFullError,
    StorageAccessError,
    StorageIOError,
)
from vecdb.storage import DirectoryLock, PosixStore

OWNER = """
import sys, time
from pathlib import Path
from vecdb.storage.lock import DirectoryLock
held = DirectoryLock.acquire(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture
def owner(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", OWNER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_second_process_is_refused_and_told_by_whom(
    tmp_path: Path, owner: subprocess.Popen[str]
) -> None:
    with pytest.raises(DirectoryLockedError) as refused:
        DirectoryLock.acquire(tmp_path)
    message = str(refused.value)
    assert f"process {owner.pid} on host {socket.gethostname()}" in message
    assert str(tmp_path) in message


@pytest.mark.parametrize(
    ("argv", "command"),
    [
        (["/usr/bin/vecdb", "serve", "--api-key", "SECRET"], "/usr/bin/vecdb serve"),
        (["load.py", "SECRET"], "load.py"),
        ([], ""),
    ],
)
def test_the_lock_names_the_command_without_its_arguments(
    tmp_path: Path, argv: list[str], command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", argv)
    held = DirectoryLock.acquire(tmp_path)
    written = (tmp_path / "LOCK").read_text()
    with pytest.raises(DirectoryLockedError) as refused:
        DirectoryLock.acquire(tmp_path)
    held.release()
    assert "SECRET" not in written + str(refused.value)
    assert json.loads(written)["command"] == command


def test_kill_frees_the_lock_at_once(tmp_path: Path, owner: subprocess.Popen[str]) -> None:
    os.kill(owner.pid, signal.SIGKILL)
    owner.wait()
    DirectoryLock.acquire(tmp_path).release()


def test_the_same_process_is_refused_too(tmp_path: Path) -> None:
    held = PosixStore(tmp_path).lock()
    with pytest.raises(DirectoryLockedError, match=f"this process {os.getpid()}"):
        PosixStore(tmp_path).lock()
    held.release()
    held.release()
    PosixStore(tmp_path).lock().release()


def test_a_left_over_file_means_nothing(tmp_path: Path) -> None:
    (tmp_path / "LOCK").write_text('{"pid": 1, "host": "elsewhere"}')
    DirectoryLock.acquire(tmp_path).release()


def test_a_forked_child_neither_holds_nor_frees_the_lock(tmp_path: Path) -> None:
    script = f"""
import os, time
from pathlib import Path
from vecdb.storage.lock import DirectoryLock
directory = Path({str(tmp_path)!r})
held = DirectoryLock.acquire(directory)
child = os.fork()
if child == 0:
    held.release()
    time.sleep(60)
try:
    DirectoryLock.acquire(directory)
except Exception as error:
    print(type(error).__name__, flush=True)
held.release()
DirectoryLock.acquire(directory)
print("free though the child lives", flush=True)
os.kill(child, 9)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.split("\n")[:2] == ["DirectoryLockedError", "free though the child lives"]


def test_a_directory_that_cannot_be_locked_says_so(tmp_path: Path) -> None:
    (tmp_path / "LOCK").mkdir()
    with pytest.raises(StorageAccessError, match="lock file"):
        DirectoryLock.acquire(tmp_path)


def failing(number: int) -> Callable[..., int]:
    def fail(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    return fail


def test_on_a_full_disk_the_lock_holds_without_its_owners_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", failing(errno.ENOSPC))
        held = DirectoryLock.acquire(tmp_path)
    with pytest.raises(DirectoryLockedError, match="has not written its name"):
        DirectoryLock.acquire(tmp_path)
    held.release()
    with monkeypatch.context() as patched:
        patched.setattr(os, "open", failing(errno.ENOSPC))
        with pytest.raises(DiskFullError, match="lock file"):
            DirectoryLock.acquire(tmp_path)
    DirectoryLock.acquire(tmp_path).release()


@pytest.mark.parametrize("call", ["ftruncate", "pwrite"])
def test_a_lock_that_cannot_be_written_is_given_up(
    tmp_path: Path, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(os, call, failing(errno.EIO))
        with pytest.raises(StorageIOError, match=r"cannot write .*LOCK"):
            DirectoryLock.acquire(tmp_path)
    DirectoryLock.acquire(tmp_path).release()


def test_a_lock_whose_file_cannot_be_emptied_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = DirectoryLock.acquire(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(os, "ftruncate", failing(errno.EIO))
        held.release()
    DirectoryLock.acquire(tmp_path).release()


def test_nothing_is_changed_by_name_where_another_directory_was_put_in_place(
    tmp_path: Path,
) -> None:
    path = tmp_path / "data"
    store = PosixStore(path)
    held = store.lock()
    within = store.within("c")
    within.put("kept", b"")
    path.rename(tmp_path / "moved")
    changes = [
        lambda: within.put("new", b"mine"),
        lambda: within.append("kept"),
        lambda: within.move("kept", "other"),
        lambda: within.delete("kept"),
        lambda: store.delete_tree("c"),
        store.discard_unfinished,
    ]
    for change in changes:
        with pytest.raises(StorageIOError, match="cannot be found any more"):
            change()
    assert not path.exists()
    shutil.copytree(tmp_path / "moved", path)
    for change in changes:
        with pytest.raises(StorageIOError, match="not the directory that was opened"):
            change()
    assert sorted(file.name for file in path.rglob("*") if file.is_file()) == ["LOCK", "kept"]
    held.release()


def test_a_file_that_takes_long_to_write_does_not_appear_in_another_directory(
    tmp_path: Path,
) -> None:
    path = tmp_path / "data"
    store = PosixStore(path)
    held = store.lock()

    def write() -> None:
        with store.create("new") as writer:
            writer.write(b"mine")
            path.rename(tmp_path / "moved")
            path.mkdir()

    with pytest.raises(StorageIOError, match="cannot be found any more"):
        write()
    assert not list(path.iterdir())
    held.release()


def test_a_release_frees_the_lock_though_a_copy_of_its_descriptor_is_open(tmp_path: Path) -> None:
    """A child that was forked a moment ago has one, and has not closed it yet."""
    held = DirectoryLock.acquire(tmp_path)
    assert held._descriptor is not None
    copy = os.dup(held._descriptor)
    try:
        held.release()
        DirectoryLock.acquire(tmp_path).release()
    finally:
        os.close(copy)


def test_a_forked_child_may_not_change_what_its_parent_owns(tmp_path: Path) -> None:
    script = f"""
import os
from pathlib import Path
from vecdb.errors import StorageIOError
from vecdb.storage.lock import DirectoryLock
held = DirectoryLock.acquire(Path({str(tmp_path)!r}))
child = os.fork()
if child == 0:
    try:
        held.check()
    except StorageIOError as error:
        os._exit(7 if "forked" in str(error) else 8)
    os._exit(0)
held.check()
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "7\n"

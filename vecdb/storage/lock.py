"""One owner per data directory: an advisory lock that dies with the process that holds it."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import sys
import time
import weakref
from contextlib import suppress
from pathlib import Path

from vecdb.errors import (
    DirectoryLockedError,
    DiskFullError,
    StorageAccessError,
    StorageIOError,
)
from vecdb.storage.os_errors import reported

LOCK_NAME = "LOCK"

_OWNER_BYTES = 4_096
_STALE_READS = 5
_STALE_PAUSE_SECONDS = 0.02


class DirectoryLock:
    """The exclusive ownership of a directory, from `acquire` to `release` or the process's end.

    It is a ``flock`` on the file ``LOCK``, into which the owner writes who it is. The kernel gives
    the lock back when the process ends, however it ends; so a left-over file means nothing, and
    the file is never deleted: between two processes that see different files of that name the
    lock would hold nothing. ``flock`` is per open file, so a second `acquire` in the same process
    is refused as well. A forked child does not share the ownership.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path = path
        self._descriptor: int | None = descriptor
        self._inherited = False
        status = os.fstat(descriptor)
        self._file = (status.st_dev, status.st_ino)
        _held.add(self)

    @classmethod
    def acquire(cls, directory: Path, *, read_only: bool = False) -> DirectoryLock:
        """Become the owner of an existing `directory`.

        Parameters
        ----------
        read_only
            Only by the lock file that is there, and without writing a name into it.

        Raises
        ------
        StoredFileNotFoundError
            If there is no lock file, and with `read_only` none may be made.
        DirectoryLockedError
            If it has an owner, named by process id, host, start and command.
        StorageAccessError
            If the lock file cannot be opened for writing.
        DiskFullError
            If there is none yet, and no room for it.
        StorageIOError
            If it cannot be written to.
        """
        path = directory / LOCK_NAME
        flags = os.O_RDONLY if read_only else os.O_RDWR | os.O_CREAT
        try:
            with reported("open the lock file", path):
                descriptor = os.open(path, flags | os.O_CLOEXEC, 0o666)
        except StorageIOError as error:  # a folder of that name, say: no data is lost
            raise StorageAccessError(str(error)) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = _read_owner(descriptor)
            os.close(descriptor)
            raise DirectoryLockedError(
                f"{directory} is in use by {_describe(owner)}; one process at a time can have it "
                "open: close it there, or connect to that process's server"
            ) from None
        except OSError as error:
            os.close(descriptor)
            raise StorageAccessError(f"cannot lock {path}: {error}") from error
        held = cls(path, descriptor)
        if read_only:
            return held
        try:
            # Without its name the lock holds as well, and a full disk can be opened.
            with suppress(DiskFullError), reported("write", path):
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, _this_process(), 0)
        except BaseException:
            held.release()
            raise
        return held

    def check(self) -> None:
        """See `HeldLock.check`; after `release` there is nothing to check.

        A directory may be moved away under its owner, and a copy put in its place that somebody
        else owns: what is written by name would then destroy the other's files.
        """
        if self._inherited:
            raise StorageIOError(
                f"{self._path.parent} belongs to the process from which this one was forked"
            )
        if self._descriptor is None:
            return
        try:
            status = self._path.stat()
        except OSError as error:
            raise StorageIOError(
                f"{self._path} cannot be found any more ({error.strerror}): {self._advice()}"
            ) from error
        if (status.st_dev, status.st_ino) != self._file:
            raise StorageIOError(
                f"{self._path.parent} is not the directory that was opened: {self._advice()}"
            )

    def _advice(self) -> str:
        return (
            "it was moved, replaced or emptied meanwhile, and nothing more is written to it; close "
            "the database and open it where it is now"
        )

    def release(self) -> None:
        """Give the ownership up; a second call does nothing."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            with suppress(OSError):  # the name in it does not count once the lock is gone
                os.ftruncate(descriptor, 0)
            # Closing alone would leave the lock to a child that was forked a moment ago.
            fcntl.flock(descriptor, fcntl.LOCK_UN)
            os.close(descriptor)

    def forget(self) -> None:
        """In a forked child: drop the inherited descriptor and leave the parent its lock."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            self._inherited = True
            os.close(descriptor)


_held: weakref.WeakSet[DirectoryLock] = weakref.WeakSet()


def _forget_in_child() -> None:
    for lock in list(_held):
        lock.forget()


os.register_at_fork(after_in_child=_forget_in_child)


def _this_process() -> bytes:
    owner = {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "command": _command()[:1_000],
    }
    return json.dumps(owner).encode()[:_OWNER_BYTES] + b"\n"


def _command() -> str:
    """Name the program, and of `vecdb` what it does: further arguments may hold keys."""
    program = "".join(sys.argv[:1])
    return " ".join(sys.argv[:2]) if Path(program).name == "vecdb" else program


def _read_owner(descriptor: int) -> dict[str, object]:
    """Read who holds the lock; waits briefly for a new owner to have written its own name."""
    owner: dict[str, object] = {}
    for _ in range(_STALE_READS):
        try:
            read = json.loads(os.pread(descriptor, _OWNER_BYTES, 0))
        except ValueError:
            read = None
        owner = read if isinstance(read, dict) else {}
        if owner and _seems_alive(owner):
            break
        time.sleep(_STALE_PAUSE_SECONDS)
    return owner


def _seems_alive(owner: dict[str, object]) -> bool:
    pid = owner.get("pid")
    if owner.get("host") != socket.gethostname() or not isinstance(pid, int) or pid <= 0:
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def _describe(owner: dict[str, object]) -> str:
    if not owner:
        return "another process, which has not written its name"
    here = owner.get("pid") == os.getpid() and owner.get("host") == socket.gethostname()
    who = "this process" if here else "process"
    return (
        f"{who} {owner.get('pid')} on host {owner.get('host')} "
        f"(since {owner.get('started')}: {owner.get('command')})"
    )

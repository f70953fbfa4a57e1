"""What is asked of the operating system, one method per call.

This is the only file that syncs, renames or opens data for writing. A test can put a disk there
that loses power, fills up or fails.
"""

from __future__ import annotations

import errno
import mmap
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vecdb.storage.base import HeldLock
from vecdb.storage.lock import DirectoryLock

if sys.platform == "darwin":
    import fcntl

_MADV_POPULATE_READ = 22  # Linux 5.14; not in the mmap module


class SystemCalls:
    """The calls that `PosixStore` makes, each raising OSError; tests put a simulated disk here."""

    def create(self, path: Path) -> int:
        """Make a file that must not exist, and open it for writing."""
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)

    def open_append(self, path: Path) -> int:
        """Open a file so that every write goes to its end."""
        return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)

    def write(self, descriptor: int, buffers: Sequence[memoryview]) -> int:
        """Write what the kernel will take at once, and return how many bytes that was."""
        return os.writev(descriptor, buffers)

    def truncate(self, descriptor: int, length: int) -> None:
        """Set the length of an open file."""
        os.ftruncate(descriptor, length)

    def sync(self, descriptor: int) -> None:
        """Make the contents and the length of a file durable."""
        if sys.platform == "darwin":
            fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)  # fsync leaves it in the drive's cache
        else:
            os.fsync(descriptor)

    def sync_data(self, descriptor: int) -> None:
        """As `sync`, but without times and permissions."""
        if sys.platform == "darwin":
            fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
        else:
            os.fdatasync(descriptor)

    def close(self, descriptor: int) -> None:
        """Close an open file."""
        os.close(descriptor)

    def sync_directory(self, path: Path) -> None:
        """Make the names in a directory durable."""
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        except OSError as error:  # some file systems that are only read have no such call
            read_only = os.fstatvfs(descriptor).f_flag & os.ST_RDONLY
            if error.errno != errno.EINVAL or not read_only:
                raise
        finally:
            os.close(descriptor)

    def make_directory(self, path: Path) -> None:
        """Make one directory."""
        path.mkdir()

    def link(self, source: Path, target: Path) -> None:
        """Give a file a second name, unless that is taken."""
        target.hardlink_to(source)

    def replace(self, source: Path, target: Path) -> None:
        """Rename a file, over any that has that name."""
        source.replace(target)

    def unlink(self, path: Path) -> None:
        """Take a name away."""
        path.unlink()

    def remove_directory(self, path: Path) -> None:
        """Remove an empty directory."""
        path.rmdir()

    def read(self, path: Path, offset: int, length: int) -> bytes:
        """Read from a file; a negative length means to its end."""
        with path.open("rb", buffering=0) as file:
            file.seek(offset)
            return file.read(length) if length >= 0 else file.readall()

    def map(self, path: Path) -> NDArray[np.uint8]:
        """Map a file into memory."""
        with path.open("rb", buffering=0) as file:
            if file.seek(0, os.SEEK_END) == 0:  # mmap refuses an empty file
                return np.frombuffer(b"", np.uint8)
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return np.frombuffer(mapped, np.uint8)

    def fault_in(self, path: Path, mapped: NDArray[np.uint8]) -> None:
        """Read every page of what `map` returned, failing with OSError where one cannot be."""
        base = getattr(mapped.base, "obj", None)
        if not isinstance(base, mmap.mmap) or sys.platform != "linux":
            return
        try:
            base.madvise(_MADV_POPULATE_READ)
        except OSError as error:
            if error.errno == errno.EFAULT:  # what would have been SIGBUS
                raise OSError(errno.EIO, os.strerror(errno.EIO), str(path)) from error
            # EINVAL: a kernel before 5.14. Others: no memory now to have all of it at once.

    def size(self, path: Path) -> int:
        """Return the length of a file."""
        return path.stat().st_size

    def is_file(self, path: Path) -> bool:
        """Return whether this is a file."""
        return path.is_file()

    def is_directory(self, path: Path) -> bool:
        """Return whether this is a directory."""
        return path.is_dir()

    def is_link(self, path: Path) -> bool:
        """Return whether this is a symbolic link."""
        return path.is_symlink()

    def entries(self, path: Path) -> list[tuple[str, bool]]:
        """Return (name, is a directory) of everything in a directory."""
        with os.scandir(path) as found:
            return [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in found]

    def free_bytes(self, path: Path) -> int:
        """Return what an unprivileged process can still write."""
        status = os.statvfs(path)
        return status.f_bavail * status.f_frsize

    def lock(self, directory: Path, *, read_only: bool = False) -> HeldLock:
        """Take ownership of a directory."""
        return DirectoryLock.acquire(directory, read_only=read_only)

"""What a store of files must offer: the protocols behind which a disk or an object store stands.

A store holds files that appear whole or not at all (`put`, `create`), are never changed in place,
and are replaced or renamed at once, and files that grow at their end and are cut there (`append`).
It lists and deletes them, reads and maps any part of them, tells how much room is left, and has one
owner at a time (`lock`). What a call finished is durable, where the store is `durable` at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Buffer = bytes | bytearray | memoryview | NDArray[Any]
"""Bytes to be written: anything C-contiguous with the buffer interface."""


class Writer(Protocol):
    """Takes the bytes of a file that nobody can see yet."""

    def write(self, data: Buffer) -> None:
        """Add `data` to the end of the file."""


class AppendFile(Protocol):
    """A file being appended to.

    `write` and `truncate` have one caller at a time; `sync` may run beside them. After a failed
    `sync` the file takes nothing more: which of its bytes the kernel dropped cannot be known.
    """

    @property
    def length(self) -> int:
        """How many bytes the file holds."""

    def write(self, buffers: Sequence[Buffer]) -> None:
        """Append `buffers`, one after the other; on failure the file is cut back to `length`.

        Raises
        ------
        DiskFullError
            If there is no room; the file is as it was and takes further writes.
        StorageIOError
            If the disk failed now or earlier; the file takes nothing more.
        """

    def sync(self) -> None:
        """Make everything durable that was written before this call.

        Raises
        ------
        StorageIOError
            If that failed, now or earlier. It is never tried again.
        """

    def truncate(self, length: int) -> None:
        """Cut the file to `length` bytes; durable after the next `sync`."""

    def close(self) -> None:
        """Let go of the file, without making anything durable."""


class HeldLock(Protocol):
    """The sole ownership of a store."""

    def check(self) -> None:
        """Refuse to change anything when the store is no longer the one that is owned.

        Raises
        ------
        StorageIOError
            If another has been put in its place, or this process was forked from the owner.
        """

    def release(self) -> None:
        """Give the ownership up; a second call does nothing."""


class Store(Protocol):
    """Named files. A name is relative and ``/``-separated, without ``.``, ``..`` or NUL.

    Every method may raise `InvalidNameError` for a name that cannot be one, `StorageAccessError`
    when the operating system refuses access, and `StorageIOError` when the disk fails. After a
    `StorageIOError` of a writing method it is unknown whether the change is there; the caller
    must stop writing and never repeat it.
    """

    @property
    def durable(self) -> bool:
        """Whether what a call finished survives power loss."""

    def put(self, name: str, data: Buffer, *, overwrite: bool = False) -> None:
        """Create a file of `data`, durably and all at once.

        Raises
        ------
        AlreadyExistsError
            If there is a file `name` already and `overwrite` is false.
        DiskFullError
            If there is no room; nothing was changed.
        """

    def create(self, name: str, *, overwrite: bool = False) -> AbstractContextManager[Writer]:
        """As `put`, for bytes written piece by piece.

        The file appears when the ``with`` block ends, and never if the block raises.
        """

    def append(self, name: str) -> AppendFile:
        """Open an existing file to append to it; `put` makes the first, possibly empty, state."""

    def read(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        """Return up to `length` bytes from `offset` on: fewer where the file ends earlier.

        Raises
        ------
        StoredFileNotFoundError
            If there is no such file; so do `append`, `map` and `size`.
        """

    def map(self, name: str) -> NDArray[np.uint8]:
        """Return a whole file as a read-only array, memory-mapped where the store can."""

    def fault_in(self, name: str, mapped: NDArray[np.uint8]) -> None:
        """Read what was mapped, so that a disk that fails does so here and not at some access.

        A page that cannot be read when it is looked at kills the process, and would again at
        every start. What can only be seen by looking stays unseen where the system has no way.

        Raises
        ------
        StorageIOError
            If a part cannot be read.
        """

    def size(self, name: str) -> int:
        """Return the length of a file in bytes."""

    def exists(self, name: str) -> bool:
        """Return whether there is a file of that name."""

    def is_link(self, name: str) -> bool:
        """Return whether `name`, or a folder above it in the store, is a symbolic link."""

    def list(self, folder: str = "") -> list[str]:
        """Return the names of all files in `folder` and below, sorted; none if it is not there.

        What is listed is durable: a file that an earlier process published without living to
        make its name durable is made so first.
        """

    def move(self, name: str, target: str) -> None:
        """Give a file another name, durably, without reading it; it always has one of the two.

        Raises
        ------
        AlreadyExistsError
            If there is a file `target` already.
        StoredFileNotFoundError
            If there is no file `name`.
        """

    def delete(self, name: str) -> None:
        """Delete a file, durably; one that is not there is no error."""

    def delete_tree(self, folder: str) -> None:
        """Delete `folder` and everything below it, durably."""

    def unfinished(self) -> Sequence[str]:
        """Return the names of what writers that died have left; `list` leaves these out."""

    def discard_unfinished(self) -> int:
        """Delete what is `unfinished`, and return how many files that were.

        Only the owner of the lock may call this, before it starts to write.
        """

    def free_bytes(self) -> int:
        """Return how many bytes can still be written."""

    def lock(self) -> HeldLock:
        """Take sole ownership.

        Raises
        ------
        DirectoryLockedError
            If another process, or this one, has it; the message names the owner.
        """

    def lock_for_reading(self) -> HeldLock | None:
        """Take sole ownership as `lock` does, but where nothing can be written, do without writing.

        Returns
        -------
        HeldLock or None
            None where there is nothing to lock by: then nobody may write here meanwhile.

        Raises
        ------
        DirectoryLockedError
            As `lock`.
        """

    def within(self, folder: str) -> Store:
        """Return this store seen from `folder`."""

    def location(self, name: str = "") -> str:
        """Return where a file lies, in words for an error message."""

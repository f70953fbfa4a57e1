"""The POSIX store: the promises of `Store`, built out of calls of the operating system.

A file is published so: write it under a temporary name, fsync it, link it to its name, fsync the
directory, having made every directory above durable before.
"""

from __future__ import annotations

import errno
import secrets
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from os import PathLike, fsencode, fspath
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from vecdb.errors import (
    AlreadyExistsError,
    InvalidNameError,
    InvalidParameterError,
    StorageAccessError,
    StoredFileNotFoundError,
    shown,
)
from vecdb.storage.base import AppendFile, Buffer, HeldLock, Writer
from vecdb.storage.lock import LOCK_NAME
from vecdb.storage.os_errors import reported
from vecdb.storage.posix_file import PosixAppendFile, PosixWriter
from vecdb.storage.system_calls import SystemCalls

Durability = Literal["disk", "os"]
"""``disk``: what a call finished survives power loss. ``os``: it survives the process, and
power loss only as far as the operating system happens to have written it."""

_TEMPORARY_SUFFIX = ".vecdb-tmp"
_NAME_PART_BYTES = 200  # leaves room for the temporary marks within a file name's 255
_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}


class PosixStore:
    """A `Store` that is a directory; the directory is made at the first write or lock.

    Parameters
    ----------
    root
        The directory.
    durability
        ``disk``, or ``os`` to never sync: faster, and power loss may then take acknowledged
        writes or leave damaged files.
    calls
        The operating system; tests pass another.

    Raises
    ------
    InvalidParameterError
        If `durability` is neither.
    """

    def __init__(
        self, root: Path, durability: Durability = "disk", calls: SystemCalls | None = None
    ) -> None:
        if durability not in get_args(Durability):  # nothing else may turn syncing off
            raise InvalidParameterError(f"durability={shown(durability)}: must be 'disk' or 'os'")
        self._root = root.absolute()
        self._top = self._root
        self._calls = calls or SystemCalls()
        self._durable = durability == "disk"
        # Directories whose own name and whose entries, as they were when first met, are durable.
        # A process that was killed may have left names that no fsync has reached yet.
        self._settled: set[Path] = set()
        self._settling = threading.Lock()  # protects _settled
        self._locks: list[HeldLock] = []  # the newest one, when `lock` was called

    @classmethod
    def at(cls, path: str | PathLike[str], durability: Durability = "disk") -> PosixStore:
        """Return the store at a path that a caller names; nothing is made yet.

        Raises
        ------
        InvalidParameterError
            If it can be no path.
        StorageAccessError
            If it, or what it lies in, is a file.
        """
        text = fspath(path) if isinstance(path, str | PathLike) else None
        if not isinstance(text, str) or not text or "\0" in text or not _is_encodable(text):
            raise InvalidParameterError(f"path={shown(path)}: must be the path of a directory")
        store = cls(Path(text), durability)
        for place in (store._root, *store._root.parents):
            if store._is_file(place):
                raise StorageAccessError(
                    f"{place} is a file: a directory is needed, or a name for a new one"
                )
            if store._is_directory(place):
                break
        return store

    @property
    def durable(self) -> bool:
        """See `Store.durable`."""
        return self._durable

    def put(self, name: str, data: Buffer, *, overwrite: bool = False) -> None:
        """See `Store.put`."""
        with self.create(name, overwrite=overwrite) as writer:
            writer.write(data)

    @contextmanager
    def create(self, name: str, *, overwrite: bool = False) -> Iterator[Writer]:
        """See `Store.create`."""
        path = self._path(name)
        self._check_owned()
        if not overwrite and self._is_file(path):
            raise AlreadyExistsError(f"{path} exists already")
        self._settle(path.parent, make=True)
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}{_TEMPORARY_SUFFIX}")
        with reported("create", path):
            descriptor = self._calls.create(temporary)
        published = False
        try:
            try:
                yield PosixWriter(self._calls, descriptor, path)
                if self._durable:
                    with reported("sync", path):
                        self._calls.sync(descriptor)
            except BaseException:
                with suppress(OSError):
                    self._calls.close(descriptor)
                raise
            with reported("close", path):
                self._calls.close(descriptor)
            self._publish(temporary, path, overwrite=overwrite)
            published = True
        finally:
            if not published:
                with suppress(OSError):
                    self._calls.unlink(temporary)

    def _publish(self, temporary: Path, path: Path, *, overwrite: bool) -> None:
        self._check_owned()  # again, since to write the file may have taken long
        with reported("create", path):
            if overwrite:
                self._calls.replace(temporary, path)
            else:
                self._link(temporary, path)
        self._sync_directory(path.parent)

    def _link(self, temporary: Path, path: Path, *, remove: bool = True) -> None:
        """Give a file its name without taking one that exists; `remove` its old one."""
        try:
            self._calls.link(temporary, path)
        except FileExistsError:
            raise AlreadyExistsError(f"{path} exists already") from None
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            # No hard links here. The directory has one owner, so nobody creates the name between
            # the look and the rename.
            if self._is_file(path):
                raise AlreadyExistsError(f"{path} exists already") from None
            self._calls.replace(temporary, path)
            return
        if not remove:
            return
        with suppress(OSError):  # a second name that stays is swept up at the next start
            self._calls.unlink(temporary)

    def append(self, name: str) -> AppendFile:
        """See `Store.append`."""
        path = self._path(name)
        self._check_owned()
        with reported("open", path):
            length = self._calls.size(path)
            descriptor = self._calls.open_append(path)
        return PosixAppendFile(self._calls, descriptor, path, length, durable=self._durable)

    def read(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        """See `Store.read`."""
        path = self._path(name)
        with reported("read", path):
            return self._calls.read(path, offset, -1 if length is None else length)

    def map(self, name: str) -> NDArray[np.uint8]:
        """See `Store.map`."""
        path = self._path(name)
        with reported("map", path):
            return self._calls.map(path)

    def fault_in(self, name: str, mapped: NDArray[np.uint8]) -> None:
        """See `Store.fault_in`."""
        path = self._path(name)
        with reported("read", path):
            self._calls.fault_in(path, mapped)

    def size(self, name: str) -> int:
        """See `Store.size`."""
        path = self._path(name)
        with reported("look at", path):
            return self._calls.size(path)

    def exists(self, name: str) -> bool:
        """See `Store.exists`."""
        return self._is_file(self._path(name))

    def is_link(self, name: str) -> bool:
        """See `Store.is_link`."""
        path = self._path(name)
        above = path.relative_to(self._root).parents
        with reported("look at", path):
            return any(self._calls.is_link(self._root / part) for part in above[:-1]) or (
                self._calls.is_link(path)
            )

    def list(self, folder: str = "") -> list[str]:
        """See `Store.list`."""
        root = self._path(folder) if folder else self._root
        if not self._is_directory(root):
            return []
        names: list[str] = []
        pending = [root]
        while pending:
            directory = pending.pop()
            self._settle(directory, make=False)
            for name, is_directory in self._entries(directory):
                if is_directory:
                    pending.append(directory / name)
                elif not name.endswith(_TEMPORARY_SUFFIX):
                    names.append((directory / name).relative_to(self._root).as_posix())
        return sorted(names)

    def move(self, name: str, target: str) -> None:
        """See `Store.move`."""
        source, path = self._path(name), self._path(target)
        self._check_owned()
        if self._is_file(path):
            raise AlreadyExistsError(f"{path} exists already")
        self._settle(path.parent, make=True)
        with reported("move", source):
            self._link(source, path, remove=False)
        self._sync_directory(path.parent)
        self.delete(name)

    def delete(self, name: str) -> None:
        """See `Store.delete`."""
        path = self._path(name)
        self._check_owned()
        with reported("delete", path):
            try:
                self._calls.unlink(path)
            except FileNotFoundError:
                return
        self._sync_directory(path.parent)

    def delete_tree(self, folder: str) -> None:
        """See `Store.delete_tree`."""
        root = self._path(folder)
        self._check_owned()
        if not self._is_directory(root):
            return
        with self._settling:
            self._settled = {p for p in self._settled if p != root and root not in p.parents}
        with reported("delete", root):
            self._remove_directory(root)
        self._sync_directory(root.parent)

    def _remove_directory(self, directory: Path) -> None:
        for name, is_directory in self._entries(directory):
            if is_directory:
                self._remove_directory(directory / name)
            else:
                self._calls.unlink(directory / name)
        self._calls.remove_directory(directory)

    def unfinished(self) -> Sequence[str]:
        """See `Store.unfinished`."""
        if not self._is_directory(self._root):
            return []
        found: list[str] = []
        pending = [self._root]
        while pending:
            directory = pending.pop()
            for name, is_directory in self._entries(directory):
                if is_directory:
                    pending.append(directory / name)
                elif name.endswith(_TEMPORARY_SUFFIX):
                    found.append((directory / name).relative_to(self._root).as_posix())
        return sorted(found)

    def discard_unfinished(self) -> int:
        """See `Store.discard_unfinished`."""
        self._check_owned()
        found = self.unfinished()
        for name in found:
            path = self._root / name
            with reported("delete", path):
                self._calls.unlink(path)
        return len(found)

    def free_bytes(self) -> int:
        """See `Store.free_bytes`."""
        path = self._root
        while not self._is_directory(path):
            path = path.parent
        with reported("look at", path):
            return self._calls.free_bytes(path)

    def lock(self) -> HeldLock:
        """See `Store.lock`."""
        self._settle(self._root, make=True)
        held = self._calls.lock(self._root)
        self._locks[:] = [held]
        return held

    def lock_for_reading(self) -> HeldLock | None:
        """See `Store.lock_for_reading`."""
        try:
            return self.lock()
        except StorageAccessError:
            pass
        try:
            return self._calls.lock(self._root, read_only=True)
        except (StorageAccessError, StoredFileNotFoundError):
            return None

    def within(self, folder: str) -> PosixStore:
        """See `Store.within`."""
        inner = PosixStore(self._path(folder), calls=self._calls)
        inner._top = self._top
        inner._durable = self._durable
        inner._settled = self._settled
        inner._settling = self._settling
        inner._locks = self._locks
        return inner

    def location(self, name: str = "") -> str:
        """See `Store.location`."""
        return str(self._root / name)

    def _check_owned(self) -> None:
        """Look whether what was locked is still there; no change is made by name without it."""
        for held in self._locks:
            held.check()

    def _path(self, name: str) -> Path:
        parts = name.split("/")
        for part in parts:
            if (
                part in {"", ".", ".."}
                or "\0" in part
                or len(part.encode(errors="surrogatepass")) > _NAME_PART_BYTES
                or part.endswith(_TEMPORARY_SUFFIX)
            ):
                raise InvalidNameError(
                    f"file name {name[:_NAME_PART_BYTES]!r}: must be relative, without '.', '..' "
                    f"or NUL, each part at most {_NAME_PART_BYTES} bytes"
                )
        if name == LOCK_NAME and self._root == self._top:
            raise InvalidNameError(f"file name {name!r} belongs to the directory lock")
        return self._root.joinpath(*parts)

    def _is_file(self, path: Path) -> bool:
        with reported("look at", path):
            return self._calls.is_file(path)

    def _is_directory(self, path: Path) -> bool:
        with reported("look at", path):
            return self._calls.is_directory(path)

    def _entries(self, directory: Path) -> Sequence[tuple[str, bool]]:
        with reported("list", directory):
            found = self._calls.entries(directory)
        if directory == self._top:
            found = [entry for entry in found if entry[0] != LOCK_NAME]
        return found

    def _settle(self, directory: Path, *, make: bool) -> None:
        """Make `directory`, the names above it and the names in it durable, once."""
        with self._settling:
            chain = [directory]
            while chain[-1] not in self._settled and chain[-1] != self._top:
                chain.append(chain[-1].parent)
            if make and chain[-1] == self._top:
                self._make_above(self._top)
            for path in reversed(chain):
                if path not in self._settled:
                    self._settle_one(path, make=make)

    def _make_above(self, path: Path) -> None:
        """Make the missing directories above `path`, durably."""
        if self._is_directory(path.parent):
            return
        self._make_above(path.parent)
        self._make(path.parent)
        self._sync_directory(path.parent.parent)

    def _settle_one(self, path: Path, *, make: bool) -> None:
        if make:
            self._make(path)
        try:
            self._sync_directory(path.parent)
        except StorageAccessError:
            if path != self._top:  # above it, there may be directories that we cannot read
                raise
        self._sync_directory(path)
        self._settled.add(path)

    def _make(self, path: Path) -> None:
        with reported("create", path), suppress(FileExistsError):
            self._calls.make_directory(path)

    def _sync_directory(self, path: Path) -> None:
        if not self._durable:
            return
        with reported("sync", path, syncing=True):
            self._calls.sync_directory(path)


def _is_encodable(path: str) -> bool:
    """Return whether the operating system has a form for it: none for some lone surrogates."""
    try:
        fsencode(path)
    except UnicodeEncodeError:
        return False
    return True

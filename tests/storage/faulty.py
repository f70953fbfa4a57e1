"""A simulated disk under `PosixStore`: it loses power, tears and reorders, fails, and fills up.

What a process sees (`seen`) and what the platter holds (`kept`) are two states. A sync carries
the pending changes of one file or one directory over; at a power loss each pending change (a
write in pieces of 512 bytes) may or may not have made it, in any order. A file's sync that fails
drops the pending changes and leaves what is seen as it was, as Linux does; a directory's leaves
the names pending, since file systems journal those and stop altogether when that fails. Every
call that changes something has a number, so that a test can stop the world at each in turn.
"""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vecdb.errors import DirectoryLockedError
from vecdb.storage import HeldLock
from vecdb.storage.system_calls import SystemCalls

ROOT = Path("/data")
_SECTOR = 512


class PowerLossError(BaseException):
    """The machine stopped: nothing more of the process runs."""


@dataclass(eq=False)
class _File:
    seen: bytearray = field(default_factory=bytearray)
    kept: bytes = b""
    pending: list[tuple[int, bytes] | int] = field(default_factory=list)  # write, or new length

    def surviving(self, keep: Callable[[], bool]) -> bytes:
        """Return what a power loss leaves."""
        content = bytearray(self.kept)
        for change in self.pending:
            if isinstance(change, int):
                if keep():
                    del content[change:]
                continue
            offset, data = change
            for start in range(0, len(data), _SECTOR):
                if keep():
                    piece = data[start : start + _SECTOR]
                    end = offset + start + len(piece)
                    content.extend(bytes(max(0, end - len(content))))
                    content[offset + start : end] = piece
        return bytes(content)


@dataclass(eq=False)
class _Directory:
    seen: dict[str, _File | _Directory] = field(default_factory=dict)
    kept: dict[str, _File | _Directory] = field(default_factory=dict)
    # A change of names is atomic: names to take away, names to set.
    pending: list[tuple[list[str], dict[str, _File | _Directory]]] = field(default_factory=list)

    def change(self, *, remove: Sequence[str] = (), add: dict[str, _File | _Directory]) -> None:
        self._apply(self.seen, list(remove), add)
        self.pending.append((list(remove), add))

    def sync(self) -> None:
        for remove, add in self.pending:
            self._apply(self.kept, remove, add)
        self.pending.clear()

    @staticmethod
    def _apply(
        names: dict[str, _File | _Directory], remove: list[str], add: dict[str, _File | _Directory]
    ) -> None:
        for name in remove:
            names.pop(name, None)
        names.update(add)

    def surviving(self, keep: Callable[[], bool]) -> _Directory:
        names = dict(self.kept)
        for remove, add in self.pending:
            if keep():
                self._apply(names, remove, add)
        after = _Directory()
        for name, node in names.items():
            if isinstance(node, _Directory):
                after.seen[name] = node.surviving(keep)
            else:
                content = node.surviving(keep)
                after.seen[name] = _File(bytearray(content), content)
        after.kept = dict(after.seen)
        return after


@dataclass
class Faults:
    """When to fail, by the numbers of changing calls; None for never.

    Attributes
    ----------
    stop_at
        Power loss or death before this call, and no call after it.
    error_at, error
        This one call fails, with this errno.
    full_from, full_to
        Writes and new files in this range find the disk full, after half of what they bring.
    """

    stop_at: int | None = None
    error_at: int | None = None
    error: int = errno.EIO
    full_from: int | None = None
    full_to: int | None = None


class SimulatedDisk(SystemCalls):
    """See the module; `calls` counts the calls that change something."""

    def __init__(self, faults: Faults | None = None, root: _Directory | None = None) -> None:
        self.faults = faults or Faults()
        self.calls = 0
        self.log: list[str] = []
        self.unreadable: set[Path] = set()
        self._root = root or _Directory()
        self._open: dict[int, _File] = {}
        self._locked: set[Path] = set()
        self._next_descriptor = 3

    def after_power_loss(self, keep: Callable[[], bool]) -> SimulatedDisk:
        """Return the disk of the machine that comes up again; `keep` decides over each change."""
        return SimulatedDisk(root=self._root.surviving(keep))

    def after_kill(self) -> SimulatedDisk:
        """Return the disk as the next process on the same machine finds it."""
        return SimulatedDisk(root=self._root)

    # Faults

    def _change(self, what: str, path: object) -> None:
        self.log.append(f"{what} {path}")
        number, faults = self.calls, self.faults
        self.calls += 1
        if faults.stop_at is not None and number >= faults.stop_at:
            raise PowerLossError(f"before call {number}: {what} {path}")
        if number == faults.error_at:
            raise OSError(faults.error, os.strerror(faults.error), str(path))

    def _is_full(self) -> bool:
        first, last = self.faults.full_from, self.faults.full_to
        return first is not None and first < self.calls <= (last or self.calls)

    # Calls that change something

    def create(self, path: Path) -> int:
        self._change("create", path)
        if self._is_full():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        directory = self._directory(path.parent)
        if path.name in directory.seen:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
        file = _File()
        directory.change(add={path.name: file})
        return self._descriptor(file)

    def open_append(self, path: Path) -> int:
        return self._descriptor(self._file(path))

    def write(self, descriptor: int, buffers: Sequence[memoryview]) -> int:
        file = self._open[descriptor]
        data = b"".join(buffers)
        try:
            self._change("write", descriptor)
        except PowerLossError:  # the kernel may have got anything of what was being written
            self._put(file, data)
            raise
        if self._is_full():
            if len(data) < 2:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            data = data[: len(data) // 2]
        self._put(file, data)
        return len(data)

    @staticmethod
    def _put(file: _File, data: bytes) -> None:
        file.pending.append((len(file.seen), data))
        file.seen.extend(data)

    def truncate(self, descriptor: int, length: int) -> None:
        self._change("truncate", descriptor)
        file = self._open[descriptor]
        del file.seen[length:]
        file.pending.append(length)

    def sync(self, descriptor: int) -> None:
        file = self._open[descriptor]
        try:
            self._change("sync", descriptor)
        except OSError:
            file.pending.clear()  # and what is seen stays: the kernel calls those pages clean
            raise
        content = bytearray(file.kept)
        for change in file.pending:
            if isinstance(change, int):
                del content[change:]
            else:
                offset, data = change
                content.extend(bytes(max(0, offset + len(data) - len(content))))
                content[offset : offset + len(data)] = data
        file.kept = bytes(content)
        file.pending.clear()

    def sync_data(self, descriptor: int) -> None:
        self.sync(descriptor)

    def close(self, descriptor: int) -> None:
        del self._open[descriptor]

    def sync_directory(self, path: Path) -> None:
        self._change("sync directory", path)
        self._directory(path).sync()

    def make_directory(self, path: Path) -> None:
        self._change("make directory", path)
        parent = self._directory(path.parent)
        if path.name in parent.seen:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
        parent.change(add={path.name: _Directory()})

    def link(self, source: Path, target: Path) -> None:
        self._change("link", target)
        directory = self._directory(target.parent)
        if target.name in directory.seen:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
        directory.change(add={target.name: self._file(source)})

    def replace(self, source: Path, target: Path) -> None:
        self._change("replace", target)
        file = self._file(source)
        self._directory(target.parent).change(remove=[source.name], add={target.name: file})

    def unlink(self, path: Path) -> None:
        self._change("unlink", path)
        self._file(path)
        self._directory(path.parent).change(remove=[path.name], add={})

    def remove_directory(self, path: Path) -> None:
        self._change("remove directory", path)
        if self._directory(path).seen:
            raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), str(path))
        self._directory(path.parent).change(remove=[path.name], add={})

    # Calls that only look

    def read(self, path: Path, offset: int, length: int) -> bytes:
        if path in self.unreadable:
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        end = None if length < 0 else offset + length
        return bytes(self._file(path).seen[offset:end])

    def map(self, path: Path) -> NDArray[np.uint8]:
        return np.frombuffer(bytes(self._file(path).seen), np.uint8)

    def fault_in(self, path: Path, mapped: NDArray[np.uint8]) -> None:
        del mapped
        if path in self.unreadable:
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))

    def size(self, path: Path) -> int:
        return len(self._file(path).seen)

    def is_file(self, path: Path) -> bool:
        return isinstance(self._find(path), _File)

    def is_directory(self, path: Path) -> bool:
        return isinstance(self._find(path), _Directory)

    def is_link(self, path: Path) -> bool:
        return False

    def entries(self, path: Path) -> list[tuple[str, bool]]:
        names = self._directory(path).seen
        return [(name, isinstance(node, _Directory)) for name, node in names.items()]

    def free_bytes(self, path: Path) -> int:
        return 0 if self._is_full() else 1 << 40

    def lock(self, directory: Path, *, read_only: bool = False) -> HeldLock:
        if directory in self._locked:
            raise DirectoryLockedError(f"{directory} is in use")
        self._locked.add(directory)
        return _SimulatedLock(self._locked, directory)

    def corrupt(self, path: Path, change: Callable[[bytes], bytes]) -> None:
        """Change a file behind everybody's back."""
        file = self._file(path)
        file.seen = bytearray(change(bytes(file.seen)))
        file.kept = bytes(file.seen)

    def _descriptor(self, file: _File) -> int:
        self._next_descriptor += 1
        self._open[self._next_descriptor] = file
        return self._next_descriptor

    def _find(self, path: Path) -> _File | _Directory | None:
        node: _File | _Directory | None = self._root
        for part in path.parts[1:]:
            node = node.seen.get(part) if isinstance(node, _Directory) else None
        return node

    def _file(self, path: Path) -> _File:
        node = self._find(path)
        if not isinstance(node, _File):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
        return node

    def _directory(self, path: Path) -> _Directory:
        node = self._find(path)
        if not isinstance(node, _Directory):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
        return node


class _SimulatedLock:
    def __init__(self, locked: set[Path], directory: Path) -> None:
        self._locked = locked
        self._directory = directory

    def check(self) -> None: ...

    def release(self) -> None:
        self._locked.discard(self._directory)


def outcomes(seed: int) -> list[Callable[[], bool]]:
    """Return ways in which a power loss can go: nothing kept, everything, and at random."""
    rng = random.Random(seed)
    return [lambda: False, lambda: True, lambda: rng.random() < 0.5, lambda: rng.random() < 0.9]

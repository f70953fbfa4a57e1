"""Open files of the POSIX store."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

from vecdb.errors import ResourceExhaustedError, StorageIOError, VecdbError
from vecdb.storage.base import Buffer
from vecdb.storage.os_errors import reported
from vecdb.storage.system_calls import SystemCalls

_BUFFERS_PER_CALL = 512  # IOV_MAX is 1024 on Linux and macOS


class PosixWriter:
    """See `vecdb.storage.base.Writer`."""

    def __init__(self, calls: SystemCalls, descriptor: int, path: Path) -> None:
        self._calls = calls
        self._descriptor = descriptor
        self._path = path

    def write(self, data: Buffer) -> None:
        """See `Writer.write`."""
        with reported("write", self._path):
            _write_all(self._calls, self._descriptor, [data])


class PosixAppendFile:
    """See `vecdb.storage.base.AppendFile`."""

    def __init__(
        self, calls: SystemCalls, descriptor: int, path: Path, length: int, *, durable: bool
    ) -> None:
        self._calls = calls
        self._descriptor: int | None = descriptor
        self._path = path
        self._length = length
        self._durable = durable
        self._failed = False

    @property
    def length(self) -> int:
        """See `AppendFile.length`."""
        return self._length

    def write(self, buffers: Sequence[Buffer]) -> None:
        """See `AppendFile.write`."""
        descriptor = self._usable()
        try:
            with reported("write", self._path):
                written = _write_all(self._calls, descriptor, buffers)
        except VecdbError as error:
            self._cut_back(descriptor)
            self._failed = self._failed or not isinstance(error, ResourceExhaustedError)
            raise
        self._length += written

    def _cut_back(self, descriptor: int) -> None:
        """After a partial write, leave no half record behind for later ones to follow."""
        try:
            self._calls.truncate(descriptor, self._length)
        except OSError:
            self._failed = True

    def sync(self) -> None:
        """See `AppendFile.sync`."""
        descriptor = self._usable()
        if not self._durable:
            return
        try:
            with reported("sync", self._path, syncing=True):
                self._calls.sync_data(descriptor)
        except VecdbError:
            self._failed = True
            raise

    def truncate(self, length: int) -> None:
        """See `AppendFile.truncate`."""
        with reported("truncate", self._path):
            self._calls.truncate(self._usable(), length)
        self._length = length

    def close(self) -> None:
        """See `AppendFile.close`."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            with reported("close", self._path):
                self._calls.close(descriptor)

    def _usable(self) -> int:
        if self._descriptor is None:
            raise StorageIOError(f"{self._path} was closed before this write")
        if self._failed:
            raise StorageIOError(f"{self._path} takes no writes since one failed; see that error")
        return self._descriptor


def _write_all(calls: SystemCalls, descriptor: int, buffers: Sequence[Buffer]) -> int:
    """Write every byte of `buffers`, however many calls that takes; return how many there were."""
    views = [memoryview(cast("bytes", buffer)) for buffer in buffers]  # every Buffer will do
    pending = [view.cast("B") for view in views if view.nbytes]
    total = sum(view.nbytes for view in pending)
    first = 0
    while first < len(pending):
        written = calls.write(descriptor, pending[first : first + _BUFFERS_PER_CALL])
        while first < len(pending) and written >= pending[first].nbytes:
            written -= pending[first].nbytes
            first += 1
        if written:
            pending[first] = pending[first][written:]
    return total

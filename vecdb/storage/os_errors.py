"""What an error of the operating system means for stored data."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vecdb.errors import (
    DiskFullError,
    ResourceExhaustedError,
    StorageAccessError,
    StorageIOError,
    StoredFileNotFoundError,
)

_FULL = {errno.ENOSPC, errno.EDQUOT}
_DENIED = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG}
_SCARCE = {errno.EMFILE, errno.ENFILE, errno.ENOMEM}


@contextmanager
def reported(action: str, path: Path, *, syncing: bool = False) -> Iterator[None]:
    """Turn an OSError into the vecdb error that says what it means for stored data."""
    try:
        yield
    except OSError as error:
        reason = f"cannot {action} {path}: {error.strerror or error}"
        if isinstance(error, FileNotFoundError):
            raise StoredFileNotFoundError(reason) from error
        if error.errno in _DENIED:
            raise StorageAccessError(reason) from error
        if error.errno in _FULL and not syncing:  # a sync that failed is not to be tried again
            raise DiskFullError(f"{reason}; free some space and try again") from error
        if error.errno in _SCARCE and not syncing:
            files = error.errno == errno.EMFILE
            advice = "; allow this process more open files (`ulimit -n`)" if files else ""
            raise ResourceExhaustedError(reason + advice) from error
        raise StorageIOError(reason) from error

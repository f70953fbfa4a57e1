"""The directory of model files on this machine, found by the SHA-256 of what they hold.

::

    <root>/<sha256 of the weights>/model.safetensors          a fetched file
    <root>/<sha256 of the weights>/encoder-<version>.onnx     a file derived from it
    <root>/<sha256 of the weights>/encoder-<version>.onnx.sha256

A file appears under its name only whole and verified (written beside it, then renamed), so any
number of processes may fetch the same model at once; what one that was killed has left is deleted
by the next that writes there. Every use verifies the digest again: 60 ms
for 90 MB buy that a damaged disk never turns into wrong vectors.
"""

from __future__ import annotations

import atexit
import errno
import fcntl
import functools
import hashlib
import logging
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from vecdb.errors import DiskFullError, ModelDigestError, StorageAccessError, StorageIOError

_log = logging.getLogger(__name__)

_FULL = {errno.ENOSPC, errno.EDQUOT}
_DENIED = {
    errno.EACCES, errno.EPERM, errno.EROFS,
    errno.ENOENT, errno.ENOTDIR, errno.EEXIST, errno.ELOOP, errno.ENAMETOOLONG,
}  # fmt: skip
"""Nothing can be written there; the second line, because something else is in the way."""

_PARTIAL = ".partial-"

_private_root_lock = threading.Lock()  # two threads make one folder


def default_root() -> Path:
    """Return the cache directory of this user, ``<user cache>/vecdb/models``."""
    from vecdb.registry.extras import needs_extra

    with needs_extra():
        import platformdirs
    return Path(platformdirs.user_cache_dir("vecdb")) / "models"


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's contents, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class ModelCache:
    """Model files by digest, below `root` (None: this user's cache directory)."""

    def __init__(self, root: Path | str | None = None) -> None:
        self.root = Path(root) if root is not None else default_root()

    def path(self, sha256: str, name: str) -> Path:
        """Return where the file of that digest and name lies once it is there."""
        return self.root / sha256 / name

    def holds(self, sha256: str, name: str, size: int) -> bool:
        """Tell whether the file lies there with its right size; the digest is not read."""
        path = self.path(sha256, name)
        with _reported("read", path):
            return path.exists() and path.stat().st_size == size

    def find(self, sha256: str, name: str) -> Path | None:
        """Return the verified file, or None when it is not in the cache.

        Raises
        ------
        ModelDigestError
            If a file lies there with other contents.
        StorageAccessError, StorageIOError
            If it cannot be read.
        """
        path = self.path(sha256, name)
        with _reported("read", path):
            if not path.exists():
                return None
            found = sha256_of(path)
        if found != sha256:
            raise ModelDigestError(
                f"{path}: SHA-256 is {found}, but must be {sha256}; "
                "delete the file and it will be fetched again"
            )
        return path

    def put(self, sha256: str, name: str, size: int, chunks: Iterable[bytes], source: str) -> Path:
        """Store what `source` delivers as `chunks`, if and only if it has the digest.

        Raises
        ------
        ModelDigestError
            If the contents are not those of the digest, or longer than `size` bytes.
        DiskFullError
            If the disk has no room for them.
        StorageAccessError, StorageIOError
            If the directory cannot be written.
        """
        digest = hashlib.sha256()
        total = 0

        def write(path: Path) -> None:
            nonlocal total
            with path.open("wb") as file:
                for chunk in chunks:
                    total += len(chunk)
                    if total > size:
                        raise ModelDigestError(f"{source}: {name} must have {size} bytes, has more")
                    digest.update(chunk)
                    file.write(chunk)
            if digest.hexdigest() != sha256:
                raise ModelDigestError(
                    f"{source}: {name} ({total} bytes) has SHA-256 {digest.hexdigest()}, "
                    f"but must have {sha256} ({size} bytes)"
                )

        return self._publish(self.path(sha256, name), write)

    def derive(self, sha256: str, name: str, build: Callable[[Path], None]) -> Path:
        """Return the file `name` made from the weights of digest `sha256`, building it if needed.

        `name` must contain the version of whatever builds it. A derived file that is damaged
        is built again. Where the cache cannot be written, it is built for this process only.

        Parameters
        ----------
        build
            Writes the file to the path it is given.

        Raises
        ------
        DiskFullError
            If the disk has no room for it.
        StorageAccessError, StorageIOError
            If it can be written nowhere.
        """
        try:
            return self._derive(sha256, name, build)
        except StorageAccessError as error:
            with _private_root_lock, _reported("write", Path(tempfile.gettempdir())):
                private = ModelCache(_private_root())
            _log.warning("%s: %s is made in %s until this process ends", error, name, private.root)
            return private._derive(sha256, name, build)

    def _derive(self, sha256: str, name: str, build: Callable[[Path], None]) -> Path:
        path = self.path(sha256, name)
        recorded = path.with_name(f"{name}.sha256")
        with _reported("read", path):
            there = path.exists() and recorded.exists()
            if there and recorded.read_text().strip() == sha256_of(path):
                return path

        built = ""

        def build_and_digest(temporary: Path) -> None:
            nonlocal built
            build(temporary)
            built = sha256_of(temporary)

        self._publish(path, build_and_digest)
        self._publish(recorded, lambda temporary: _write_text(temporary, f"{built}\n"))
        return path

    def _publish(self, path: Path, write: Callable[[Path], None]) -> Path:
        """Let `write` fill a temporary file, make it durable and rename it to `path`."""
        with _reported("write", path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with _partial_folder(path.parent) as folder:
                temporary = folder / path.name
                write(temporary)
                with temporary.open("rb+") as file:
                    os.fsync(file.fileno())
                temporary.replace(path)
        return path


def _write_text(path: Path, text: str) -> None:
    path.write_text(text)


@contextmanager
def _partial_folder(parent: Path) -> Iterator[Path]:
    """Make a folder to write a file in, after deleting those that killed processes have left.

    Whoever writes in one has it locked, and a lock ends with its process, however that ends.
    """
    for left in parent.glob(f"{_PARTIAL}*"):
        with suppress(OSError):  # somebody writes in it, or has deleted it
            lock = _lock(left)
            shutil.rmtree(left, ignore_errors=True)
            os.close(lock)
    with ExitStack() as at_end:
        while True:
            folder = Path(tempfile.mkdtemp(prefix=_PARTIAL, dir=parent))
            try:
                at_end.callback(os.close, _lock(folder))
            except (BlockingIOError, FileNotFoundError):
                continue  # taken for one that was left, before it was locked
            except OSError:  # a file system without locks: nothing is ever deleted there
                pass
            break
        at_end.callback(shutil.rmtree, folder, ignore_errors=True)
        yield folder


def _lock(folder: Path) -> int:
    """Return a descriptor that holds the folder locked; raises OSError where it cannot be."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        folder.stat()  # it may have been deleted before it was locked; no name is used twice
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


@contextmanager
def _reported(action: str, path: Path) -> Iterator[None]:
    """Turn an OSError into the vecdb error that says what it means for the cache."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise DiskFullError(f"no room for {path}: {error.strerror}") from error
        reason = f"cannot {action} {path}: {error.strerror or error}"
        if error.errno in _DENIED:
            raise StorageAccessError(reason) from error
        raise StorageIOError(reason) from error


@functools.cache
def _private_root() -> Path:
    """Return a folder that only this user can read, and that goes when this process ends."""
    root = Path(tempfile.mkdtemp(prefix="vecdb-models-"))
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    return root

"""The directory of model files on this machine, found by the SHA-256 of what they hold.

::

    <root>/<sha256 of the weights>/model.safetensors          a fetched file
    <root>/<sha256 of the weights>/encoder-<version>.onnx     a file derived from it
    <root>/<sha256 of the weights>/encoder-<version>.onnx.sha256

A file appears under its name only whole and verified (written beside it, then renamed), so any
number of processes may fetch the same model at once. Every use verifies the digest again: 60 ms
for 90 MB buy that a damaged disk never turns into wrong vectors.
"""

from __future__ import annotations

import errno
import hashlib
import os
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

from vecdb.errors import DiskFullError, ModelDigestError


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

    def find(self, sha256: str, name: str) -> Path | None:
        """Return the verified file, or None when it is not in the cache.

        Raises
        ------
        ModelDigestError
            If a file lies there with other contents.
        """
        path = self.path(sha256, name)
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
        is built again.

        Parameters
        ----------
        build
            Writes the file to the path it is given.
        """
        path = self.path(sha256, name)
        recorded = path.with_name(f"{name}.sha256")
        if path.exists() and recorded.exists() and recorded.read_text().strip() == sha256_of(path):
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
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".partial-", dir=path.parent) as folder:
                temporary = Path(folder) / path.name
                write(temporary)
                with temporary.open("rb+") as file:
                    os.fsync(file.fileno())
                temporary.replace(path)
        except OSError as error:
            if error.errno in {errno.ENOSPC, errno.EDQUOT}:
                raise DiskFullError(f"no room for {path}: {error.strerror}") from error
            raise
        return path


def _write_text(path: Path, text: str) -> None:
    path.write_text(text)

"""How one file names another: by name, length and SHA-256."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from vecdb.storage.base import Store

_PIECE_BYTES = 1 << 20
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class FileRef:
    """An immutable file as a manifest names it, its name relative to the manifest's store."""

    name: str
    size: int
    sha256: str

    def to_json(self) -> dict[str, object]:
        """Return the form that stands in a manifest: ``{"name", "size", "sha256"}``."""
        return {"name": self.name, "size": self.size, "sha256": self.sha256}

    @classmethod
    def from_json(cls, value: object) -> FileRef:
        """Return the reference that `to_json` gave `value` for.

        Raises
        ------
        ValueError
            If `value` is not of that form.
        """
        if not isinstance(value, dict) or value.keys() != {"name", "size", "sha256"}:
            raise ValueError(f"not a file reference: {value!r}")
        name, size, sha256 = value["name"], value["size"], value["sha256"]
        if not isinstance(name, str) or not isinstance(sha256, str) or type(size) is not int:
            raise ValueError(f"not a file reference: {value!r}")
        if size < 0 or not _SHA256.fullmatch(sha256):
            raise ValueError(f"not a file reference: {value!r}")
        return cls(name, size, sha256)


def digest_of(
    store: Store, name: str, length: int, step: Callable[[int], None] = lambda _: None
) -> str:
    """Return the SHA-256 of the first `length` bytes of a file.

    Parameters
    ----------
    step
        Called with the number of bytes just read; what it raises ends the reading.

    Raises
    ------
    StoredFileNotFoundError, StorageIOError
    """
    digest = hashlib.sha256()
    for offset in range(0, length, _PIECE_BYTES):
        piece = store.read(name, offset, min(_PIECE_BYTES, length - offset))
        digest.update(piece)
        step(len(piece))
    return digest.hexdigest()


def file_refs(body: object) -> Iterator[FileRef]:
    """Yield every file reference inside a manifest's body, at whatever depth it stands.

    An object with the keys of one and further objects in it is none: names that users gave.
    """
    pending = [body]
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            held = [each for each in value.values() if isinstance(each, dict | list)]
            if value.keys() == {"name", "size", "sha256"} and not held:
                yield FileRef.from_json(value)
            else:
                pending.extend(held)
        elif isinstance(value, list):
            pending.extend(value)

"""How one file names another: by name, length and SHA-256."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

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

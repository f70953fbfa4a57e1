"""What is called how in a data directory, where several modules must agree on it."""

from __future__ import annotations

import re

CATALOG = "catalog"
MANIFEST = "manifest"
SEGMENTS = "segments"
RESTORING = "RESTORING"
"""Is in a data directory while a restore builds folders there; names them, one a line."""

SEGMENT_FILE = re.compile(r"segments/[0-9a-z][0-9a-z.]{0,99}", re.ASCII)
"""A file that a collection's manifest names."""
QUARANTINED_FILE = re.compile(r"quarantine/[0-9a-z][0-9a-z.-]{0,99}", re.ASCII)
"""A file that a repair has set aside."""
_FOLDER = re.compile(r"c([0-9]{6,})")


def collection_folder(number: int) -> str:
    """Return what the folder of a collection is called."""
    return f"c{number:06d}"


def folder_number(name: str) -> int | None:
    """Return the number of a collection's folder; None when it is not called like one."""
    found = _FOLDER.fullmatch(name)
    return None if found is None else int(found[1])


def top_folder(name: str) -> str:
    """Return the folder of a data directory that a file lies in; its own name where in none."""
    return name.split("/", 1)[0]

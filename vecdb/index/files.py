"""An index as one file: its arrays, in the sections format of `vecdb.storage`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from vecdb.index.base import Arrays
from vecdb.storage.sections import open_sections, write_sections
from vecdb.storage.store import PosixStore

PathLike = str | os.PathLike[str]


def save_arrays(path: PathLike, arrays: Arrays, kind: str) -> None:
    """Write arrays to a file, durably and all at once; an existing file is replaced."""
    target = Path(path)
    write_sections(PosixStore(target.parent), target.name, arrays, kind=kind, overwrite=True)


def load_arrays(path: PathLike, kind: str) -> dict[str, NDArray[Any]]:
    """Map the arrays of a file that `save_arrays` wrote, and check them.

    Raises
    ------
    StoredFileNotFoundError
        If there is no such file.
    CorruptFileError, NewerFormatError
        If it is damaged, of another kind, or of a newer vecdb.
    """
    target = Path(path)
    return dict(open_sections(PosixStore(target.parent), target.name, kind=kind))

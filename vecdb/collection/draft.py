"""The files of a version in the making, before a manifest names them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

import numpy as np

from vecdb.collection.snapshot import Mask
from vecdb.collection.stored import StoredSegment
from vecdb.storage import FileRef, RowSource, Step, Store, write_rows, write_tombstones


class Draft:
    """Files that one step has written and that no manifest names; made by `Versions.draft`.

    Parameters
    ----------
    store
        Where they lie.
    dim
        Of the vectors.
    reserve_number
        Returns a number for a segment that no other has or had.

    Attributes
    ----------
    sizes
        The bytes of each file, by name; replaced, never changed, so anybody may look.
    memory_bytes
        About what points take that are gathered for the next file.
    loaded_rows
        How many rows a bulk load has brought so far.
    """

    def __init__(self, store: Store, dim: int, reserve_number: Callable[[], int]) -> None:
        self._store = store
        self._dim = dim
        self._reserve_number = reserve_number
        self.sizes: dict[str, int] = {}
        self.memory_bytes = 0
        self.loaded_rows = 0

    def add(self, ref: FileRef) -> FileRef:
        """Own a file that was just written."""
        self.sizes = {**self.sizes, ref.name: ref.size}
        return ref

    def let_go(self, names: Collection[str]) -> None:
        """Own these files no more: they are named, or may be."""
        self.sizes = {name: size for name, size in self.sizes.items() if name not in names}

    def write_rows(self, sources: Sequence[RowSource], step: Step) -> StoredSegment:
        """Write rows as the data of a new segment."""
        number = self._reserve_number()
        name = f"segments/{number:010d}.data"
        return StoredSegment(
            number, self.add(write_rows(self._store, name, sources, self._dim, step=step))
        )

    def buried(self, stored: StoredSegment, alive: Mask) -> StoredSegment:
        """Write down which rows of a segment are dead, if that has changed."""
        dead = len(alive) - int(np.count_nonzero(alive))
        if dead == stored.dead:  # rows only ever die, so as many are the same ones
            return stored
        name = f"segments/{stored.number:010d}.{dead}.dead"
        tombstones = self.add(write_tombstones(self._store, name, ~alive))
        return replace(stored, tombstones=tombstones, dead=dead)

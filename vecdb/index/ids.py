"""Which id stands at which row."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vecdb.errors import DuplicateIdError, InvalidIdError

Ids = NDArray[np.int64]

_LARGEST_ID = np.iinfo(np.int64).max


class IdTable:
    """The ids of rows 0 to n - 1, and the way back from an id to its live row.

    While ids equal row numbers nothing is stored but them. Otherwise the rows known when the table
    was last sorted are found by binary search, and those added since in a dict.
    """

    def __init__(self, ids: Ids | None = None, given: int | None = None) -> None:
        self._ids: Ids = np.empty(0, np.int64) if ids is None else ids
        self.count = len(self._ids)
        """How many rows there are, removed ones included."""
        self.given = self.count if given is None else given
        """How many ids were ever given: the default ids go on there, or behind the largest."""
        self._largest = int(self._ids.max(initial=-1))
        self._plain = bool((self._ids == np.arange(self.count)).all())
        self._sorted_ids: Ids | None = None
        self._sorted_rows: Ids = np.empty(0, np.int64)
        self._recent: dict[int, int] = {}

    @property
    def array(self) -> Ids:
        """The id of every row, removed ones included."""
        return self._ids[: self.count]

    def of_rows(self, rows: Ids) -> Ids:
        """Return the ids of rows, -1 where the row is -1."""
        if self._plain:
            return rows
        ids = self._ids[rows]
        ids[rows < 0] = -1
        return ids

    def next_ids(self, count: int) -> Ids:
        """Return what the next rows are called when the caller does not say.

        Raises
        ------
        InvalidIdError
            If no id is left behind the largest.
        """
        first = max(self.given, self._largest + 1)
        if count > _LARGEST_ID - first:
            raise InvalidIdError(f"{count} ids do not fit behind id {first - 1}: give ids")
        return np.arange(first, first + count, dtype=np.int64)

    def rows_of(self, ids: Ids, alive: NDArray[np.bool_]) -> Ids:
        """Return the live row of each id, -1 for an unknown or removed one.

        Parameters
        ----------
        ids
            int64 (n,).
        alive
            bool (rows,): False for removed rows.
        """
        plain = self._plain
        rows = np.where(ids < self.count, ids, -1) if plain else self._look_up(ids, alive)
        known = rows >= 0
        rows[known] = np.where(alive[rows[known]], rows[known], -1)
        return rows

    def append(self, ids: Ids) -> None:
        """Give the next rows their ids; the caller has checked that none is in use."""
        first, last = self.count, self.count + len(ids)
        if last > len(self._ids) or not self._ids.flags.writeable:
            grown = np.empty(max(last, len(self._ids) * 3 // 2), np.int64)
            grown[:first] = self._ids[:first]
            self._ids = grown
        self._ids[first:last] = ids
        self.count = last
        self.given += len(ids)
        self._largest = max(self._largest, int(ids.max(initial=-1)))
        if self._plain and not bool((ids == np.arange(first, last)).all()):
            self._plain = False
        if self._sorted_ids is not None:
            self._recent.update(zip(ids.tolist(), range(first, last), strict=True))

    def reuse(self, rows: Ids, ids: Ids) -> None:
        """Give removed rows new ids; the caller has checked that none is in use."""
        if not self._ids.flags.writeable:
            self._ids = self._ids.copy()
        self._ids[rows] = ids
        self.given += len(ids)
        self._largest = max(self._largest, int(ids.max(initial=-1)))
        self._plain = self._plain and bool((ids == rows).all())
        self._sorted_ids = None

    def _look_up(self, ids: Ids, alive: NDArray[np.bool_]) -> Ids:
        if self._sorted_ids is None or len(self._recent) > 1024 + self.count // 4:
            live = np.flatnonzero(alive[: self.count])
            order = np.argsort(self._ids[live], kind="stable")
            self._sorted_rows = live[order]
            self._sorted_ids = self._ids[self._sorted_rows]
            self._recent = {}
        places = np.searchsorted(self._sorted_ids, ids)
        rows = np.full(len(ids), -1, np.int64)
        inside = places < len(self._sorted_ids)
        found = np.zeros(len(ids), np.bool_)
        found[inside] = self._sorted_ids[places[inside]] == ids[inside]
        rows[found] = self._sorted_rows[places[found]]
        if self._recent:
            newer = np.fromiter((self._recent.get(i, -1) for i in ids.tolist()), np.int64, len(ids))
            rows = np.where(newer >= 0, newer, rows)
        return rows


def refuse_known(ids: Ids, rows: Ids) -> None:
    """Raise DuplicateIdError if any of the ids to be added has a live row."""
    known = np.flatnonzero(rows >= 0)
    if known.size:
        raise DuplicateIdError(
            f"id {ids[known[0]]} is in the index already: remove it first, or give other ids"
        )


def refuse_unknown(ids: Ids, rows: Ids) -> None:
    """Raise InvalidIdError if any of the ids to be removed has no live row."""
    unknown = np.flatnonzero(rows < 0)
    if unknown.size:
        raise InvalidIdError(f"id {ids[unknown[0]]} is not in the index: it cannot be removed")

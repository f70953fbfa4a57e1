"""What searches find at each effort, `ef` or `nprobe`, measured with rows of the index as queries.

A row that serves as a query is not in the index yet, or is looked for as if it were not, so that
what is measured holds for queries that are like the rows, and not among them.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from vecdb.errors import CorruptFileError
from vecdb.index.base import Arrays, Distances, Ids
from vecdb.index.query_rows import LEAST_ROWS
from vecdb.index.recall_curve import (
    ENOUGH,
    HALVINGS,
    KS,
    TRUTH,
    RecallCurve,
    between_ks,
    leaps,
    recall_less_error,
)

Search = Callable[[int, int, int], Distances]
"""Takes an effort, k, and how many of the first queries; returns their distances (queries, k)."""

_GROWTH = 2
"""By which an index is measured anew."""
_GROWTH_WHILE_DRIFTING = 1.25
"""The same, where rows came that were unlike the others: there may be more of them."""
_LONG_SAMPLE = 200
"""Queries that are asked with a great effort."""
_ASKED_FOR = 0.8
"""Where recalls up to this are found, it need not be known exactly."""
_WITHIN = 1e-4
"""Distances that differ by less than this part of how far apart near rows are count as equal: they
are computed in another order by a search than by a comparison with all rows."""


class RecallTable:
    """How far to search for a recall.

    Parameters
    ----------
    table
        float32 (4, n): efforts, ascending; the recalls with each, less a standard error, for k of
        1, 10 and 100. Without any columns nothing was measured.
    rows
        How many rows the index had then.
    """

    def __init__(self, table: NDArray[np.float32], rows: int) -> None:
        self._table = table
        self._rows = rows
        log_efforts = np.log(table[0]).tolist()
        self._curves = [RecallCurve(recalls, log_efforts) for recalls in table[1:] if table.size]

    @classmethod
    def none(cls, rows: int = 0) -> RecallTable:
        """Make the table of an index of which nothing was measured, or could be with its rows."""
        return cls(np.empty((1 + len(KS), 0), np.float32), rows)

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> RecallTable:
        """Take over what `to_arrays` returned; nothing was measured where it is not there.

        Raises
        ------
        CorruptFileError
            If it cannot be a table.
        """
        if "calibration" not in arrays:
            return cls.none()
        table, rows = arrays["calibration"], arrays.get("calibrated_rows")
        if (
            table.dtype != np.float32
            or table.ndim != 2
            or len(table) != 1 + len(KS)
            or not np.isfinite(table).all()
            or (table[0] < 1).any()
            or (table[0, 1:] <= table[0, :-1]).any()
            or (table[1:] < 0).any()
            or (table[1:] > 1).any()
        ):
            raise CorruptFileError("array 'calibration' holds no ascending efforts with recalls")
        if rows is None or rows.dtype != np.int64 or rows.shape != (1,) or rows[0] < 0:
            raise CorruptFileError("array 'calibrated_rows' is missing or not a number of rows")
        return cls(table, int(rows[0]))

    def to_arrays(self) -> dict[str, NDArray[np.float32] | NDArray[np.int64]]:
        """Return what `from_arrays` takes."""
        return {"calibration": self._table, "calibrated_rows": np.array([self._rows], np.int64)}

    def is_due(self, rows: int, *, drifting: bool = False) -> bool:
        """Tell whether an index that has `rows` rows now should be measured."""
        growth = _GROWTH_WHILE_DRIFTING if drifting else _GROWTH
        return rows >= max(LEAST_ROWS, growth * self._rows)

    def effort(self, target: float, k: float) -> int | None:
        """Return the effort that finds a share `target` of the nearest `k`; None if unmeasured.

        The greatest that was measured is the answer where none reaches the target.
        """
        if not self._curves:
            return None
        logs = [curve.effort(target) for curve in self._curves]
        # Beyond the largest k that was measured, in proportion.
        return math.ceil(math.exp(between_ks(logs, k)) * max(1.0, k / KS[-1]) - 1e-6)


def measure(
    rows: int, true: Distances, search: Search, efforts: Iterable[int], long: int
) -> RecallTable:
    """Measure what searches find at ascending efforts, until they find everything.

    Where recall jumps from one to the next, an effort between the two is measured, too.

    Parameters
    ----------
    rows
        How many there are.
    true
        The distances (queries, `TRUTH`) of the nearest other rows, ascending.
    search
        Searches the index.
    efforts
        Ascending.
    long
        The greatest effort that all queries are asked with.
    """
    quarter = TRUTH // 4  # a few rows that are far ahead of all others are not what is usual
    apart = 2 * (true[:, -quarter, None] - true[:, quarter, None])
    limits = true + np.maximum(np.float32(1e-6) * np.abs(true), np.float32(_WITHIN) * apart)

    def found(effort: int, asked: Iterable[int]) -> dict[int, NDArray[np.bool_]]:
        """Return which of the nearest each query finds, for those of `KS` that are asked for."""
        count = min(_LONG_SAMPLE, len(true)) if effort > long else len(true)
        ks = {which: KS[which] for which in asked}
        return {
            which: search(effort, k, count) <= limits[:count, k - 1 : k] for which, k in ks.items()
        }

    columns: list[list[float]] = []
    recalls, raw = [0.0] * len(KS), [0.0] * len(KS)
    for effort in efforts:
        short = [which for which in range(len(KS)) if raw[which] < ENOUGH]
        for which, hits in found(effort, short).items():
            recalls[which], raw[which] = recall_less_error(hits), float(hits.mean())
        columns.append([effort, *recalls])
        if min(raw) >= ENOUGH:
            break
    for _ in range(HALVINGS):
        for below, above in list(itertools.pairwise(columns)):
            between = round((below[0] * above[0]) ** 0.5)
            jumps = [
                which for which in range(len(KS)) if _jumps(below[1 + which], above[1 + which])
            ]
            if jumps and below[0] < between < above[0]:
                column = [float(between), *below[1:]]
                for which, hits in found(between, jumps).items():
                    column[1 + which] = min(recall_less_error(hits), above[1 + which])
                columns.append(column)
        columns.sort()
    return RecallTable(np.array(columns, np.float32).T.copy(), rows)


def _jumps(below: float, above: float) -> bool:
    """Tell whether what an effort between two finds is worth knowing."""
    return above > _ASKED_FOR and leaps(below, above)


def without_themselves(sample: Ids, rows: Ids, distances: Distances) -> Distances:
    """Return the distances (queries, k) of k + 1 results without those of the queries themselves.

    Of a query that did not find itself the last is left out.
    """
    itself = rows == sample[:, None]
    itself[~itself.any(axis=1), -1] = True
    kept: Distances = distances[~itself].reshape(len(rows), -1)
    return kept

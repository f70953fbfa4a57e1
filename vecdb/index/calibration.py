"""What recall a graph's searches reach at each ef, measured when it is built: `target_recall`.

Some of the rows serve as queries. Each is left out of its own search, neither returned nor
expanded, and out of the truth, which is a comparison with all other rows. Rows equal to it are
left out with it: they would be found at any ef.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vecdb.errors import CorruptFileError, InvalidParameterError
from vecdb.index.base import Arrays, Distances, Ids

Floats = NDArray[np.float32]

LEAST_ROWS = 2_000
"""Smaller graphs are not calibrated: a comparison with all rows takes about 50 us."""
LARGEST_EF = 1_024
"""What a graph that is not calibrated is searched with."""
TRUTH = 128
"""Nearest rows that are found exactly for each sampled row, itself and its equals included."""

_KS = (1, 10, 100)
_LOG_KS = [math.log(k) for k in _KS]
_EFS = (10, 16, 25, 40, 64, 100, 160, 250, 400, 640, LARGEST_EF)
_LEAST_TARGET, _GREATEST_TARGET = 0.5, 0.999
_ROWS_PER_SAMPLE = 50
"""With it and `_LARGEST_SAMPLE` calibrating takes a few hundredths of the time of building."""
_LARGEST_SAMPLE = 400
_MOST_TWINS = TRUTH - _KS[-1] - 1
_ENOUGH = 0.9995
"""No larger ef is tried when recall is this high for each k."""
_MARGIN = 0.1
"""Share of the misses a target allows that is kept for the error of the sample."""
_LEAST_MISSES = 1e-4


def check_target(target: Any) -> float:
    """Return a target of recall.

    Raises
    ------
    InvalidParameterError
        If it is not a number of the range.
    """
    right = isinstance(target, Real) and not isinstance(target, bool)
    if not right or not _LEAST_TARGET <= float(target) <= _GREATEST_TARGET:
        raise InvalidParameterError(
            f"target_recall={target!r}: must be a number from {_LEAST_TARGET} to {_GREATEST_TARGET}"
        )
    return float(target)


class Calibration:
    """The recall of a graph's searches, by k and ef.

    Parameters
    ----------
    table
        float32 (4, efs): the efs, ascending, and the recall at each for k of 1, 10 and 100.
        Without any columns the graph is not calibrated.
    """

    def __init__(self, table: Floats) -> None:
        self.table = table
        self._last = math.nan, [0.0] * len(_KS)
        """The target that was asked for last, and its log of ef for each of `_KS`."""

    @classmethod
    def none(cls) -> Calibration:
        """Make the calibration of a graph that has none."""
        return cls(np.empty((1 + len(_KS), 0), np.float32))

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> Calibration:
        """Take over the array ``calibration``.

        Raises
        ------
        CorruptFileError
            If it is missing or cannot be one.
        """
        table = arrays.get("calibration")
        if table is None or table.dtype != np.float32 or table.ndim != 2:
            raise CorruptFileError("array 'calibration' is missing or not a table of float32")
        efs, recalls = table[0] if len(table) else table, table[1:]
        if (
            len(recalls) != len(_KS)
            or not (np.isfinite(efs) & (efs >= 1)).all()
            or (efs[1:] <= efs[:-1]).any()
            or not ((recalls >= 0) & (recalls <= 1)).all()
        ):
            raise CorruptFileError("array 'calibration' holds no recalls by k and ascending ef")
        return cls(table)

    def ef(self, target: float, k: float) -> int:
        """Return the ef at which the nearest `k` are found with a recall of `target`.

        It is interpolated, grows with k in proportion beyond 100, is the largest that was tried
        when that does not reach the target, and at least k.
        """
        if self.table.shape[1] == 0:
            return max(LARGEST_EF, math.ceil(k))
        asked, needed = self._last
        if asked != target:
            needed = self._needed(target)
            self._last = target, needed
        most = _KS[-1]
        between = math.exp(_interpolated(math.log(min(k, most)), needed))
        return math.ceil(max(between * max(1.0, k / most), k) - 1e-6)

    def _needed(self, target: float) -> list[float]:
        """Return the log of the ef that a target takes, for each of `_KS`."""
        efs, recalls = self.table[0].astype(np.float64), self.table[1:].astype(np.float64)
        # Misses fall about as a power of ef.
        allowed = (1 - target) * (1 - _MARGIN)
        misses = np.maximum(1 - np.maximum.accumulate(recalls, axis=1), _LEAST_MISSES)
        return [float(np.interp(-np.log(allowed), -np.log(m), np.log(efs))) for m in misses]


def _interpolated(log_k: float, needed: Sequence[float]) -> float:
    """Return the number between two of those for `_KS`, where the logarithm of k stands."""
    if log_k <= _LOG_KS[0]:
        return needed[0]
    above = bisect_left(_LOG_KS, log_k)
    low, high = _LOG_KS[above - 1], _LOG_KS[above]
    share = (log_k - low) / (high - low)
    return needed[above - 1] + share * (needed[above] - needed[above - 1])


def draw_sample(live: Ids, twins: NDArray[np.int32], seed: int) -> Ids:
    """Choose the rows of a graph that serve as queries; none when it is too small.

    Parameters
    ----------
    live
        int64: the rows that were not removed.
    twins
        int32 (n,): the next row with the same vector, -1 after the last.
    seed
        Decides over the choice.
    """
    following = twins[live].astype(np.int64)
    first = np.ones(len(twins), np.bool_)
    first[following[following >= 0]] = False
    nodes = live[first[live]]
    left = nodes
    for _ in range(_MOST_TWINS + 1):
        left = twins[left].astype(np.int64)
        left = left[left >= 0]
    if len(left):  # some have more equals than there is room for in the truth
        nodes = nodes[_twins_of(nodes, twins, _MOST_TWINS + 1)[:, -1] < 0]
    if len(nodes) < LEAST_ROWS:
        return np.empty(0, np.int64)
    size = min(max(len(nodes) // _ROWS_PER_SAMPLE, 1), _LARGEST_SAMPLE)
    chosen = np.random.default_rng(seed).choice(nodes, size, replace=False)
    return np.sort(chosen).astype(np.int64)


def calibrate(
    sample: Ids, twins: NDArray[np.int32], exact: tuple[Ids, Distances],
    search: Callable[[int, int], Distances],
) -> Calibration:  # fmt: skip
    """Measure the recall of searches for rows that are left out of them.

    Parameters
    ----------
    sample
        What `draw_sample` returned.
    twins
        As there.
    exact
        Rows and distances (sample, `TRUTH`) of the nearest rows, themselves included.
    search
        Takes ef and k, and returns the distances (sample, k) of what a search finds.
    """
    rows, distances = exact
    own = rows == sample[:, None]
    for twin in _twins_of(sample, twins, _MOST_TWINS).T:
        own |= (rows == twin[:, None]) & (twin >= 0)[:, None]
    true = np.sort(np.where(own, np.float32(np.inf), distances), axis=1)
    true += np.float32(1e-6) * np.where(np.isfinite(true), np.abs(true), 0)
    columns: list[list[float]] = []
    for ef in _EFS:
        found = search(ef, _KS[-1])
        recalls = [float(np.mean(found[:, :k] <= true[:, k - 1 : k])) for k in _KS]
        columns.append([float(ef), *recalls])
        if min(recalls) >= _ENOUGH:
            break
    return Calibration(np.array(columns, np.float32).T.copy())


def _twins_of(rows: Ids, twins: NDArray[np.int32], most: int) -> Ids:
    """Return the first `most` twins of each row, int64 (rows, most), then -1."""
    chains = np.full((len(rows), most), -1, np.int64)
    at = rows
    for i in range(most):
        at = np.where(at >= 0, twins[at], -1).astype(np.int64)
        if (at < 0).all():
            break
        chains[:, i] = at
    return chains

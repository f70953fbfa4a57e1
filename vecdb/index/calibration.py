"""What a graph's searches find and cost at each reach, measured when it is built.

Some of the rows are left out when the graph is built, serve as queries, and are linked into it
afterwards (`vecdb.index.query_rows`). `target_recall` is looked up here, and so is how far a search
goes that is to expand `ef` nodes on average.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from itertools import pairwise
from numbers import Real
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vecdb.errors import CorruptFileError, InvalidParameterError, shown
from vecdb.index.base import Arrays, Distances
from vecdb.index.recall_curve import (
    ENOUGH,
    HALVINGS,
    KS,
    RecallCurve,
    between_ks,
    interpolated,
    leaps,
    recall_less_error,
)
from vecdb.kernels.walk import Reach, ended_by_ef

Floats = NDArray[np.float32]
Search = Callable[[Reach, int, int], tuple[Distances, NDArray[np.int64]]]
"""Takes a reach, k, and how many of the first queries; returns their distances (queries, k) and how
many nodes each expanded."""

LARGEST_EF = 1_024
"""What a graph that is not calibrated is searched with to reach a target, but for larger k."""
_MOST_HOPS = 4_096
"""Nodes expanded beyond which nothing is measured: comparing with all rows is soon faster."""
_FOUND = 1 + len(KS)
"""The row of a table where recalls begin."""
_STEPS = (
    *(-0.6, -0.4, -0.3, -0.2, -0.15, -0.1, -0.05, 0.0, 0.05, 0.1, 0.15, 0.2),
    *(0.3, 0.4, 0.5, 0.65, 0.8, 1.0, 1.3, 1.7, 2.2, 3.0),
    *(5.0, 8.0, 13.0, 20.0, 30.0, 50.0, 80.0, 130.0, 200.0, 500.0, 1_000.0, 3_000.0, 10_000.0),
)
"""How much farther than the k-th best a search goes, in parts of how far apart near rows are: far,
where these lie closer than codes can tell."""
_LEAST_TARGET, _GREATEST_TARGET = 0.5, 0.999
_LONG_SAMPLE = 100
"""Queries whose long searches are measured."""
_LONG = 120
"""Expanded nodes of a search that is long."""
_LEAST_KNOWN = 0.1
"""Growth of the logarithm of the hops that says how it goes on: less is the luck of a query."""
_MOST_LOG_HOPS = math.log(2**31)
"""There are no more rows."""
_SHORT = 0.02
"""By how much the longest search may miss a target and still be the answer."""
_ROOM, _ROOM_PER_HOP = 64, 4.5
"""No search expands more nodes than this, and this for each that is expected: as good as none is
ended by that, neither when a graph is calibrated nor later."""
_WIDER_BY, _WIDER_DIM = 0.05, 768
"""How much farther than the limit candidates are compared with, at most, and up to which
dimension; with more, codes tell distances better."""
_IDLE = 0.03
"""Growth of the logarithm of the hops up to which a stop does not end searches."""
_LEAST_HOPS = 16
"""A walk that is on its way may have to go through nodes that seem no better than those behind."""

_SPREAD = 2
"""Added to k where a filter leaves it to chance how many rows are nearer than the k-th allowed."""
_BY_CHANCE, _CHANCE_POWER = 0.5, -0.3
"""Share of the misses a target allows that is kept for that, too, at k = 1, and how it falls with
k: of many, some lie farther and others nearer."""
_PLANS = 64
"""Answers that are remembered: most searches are asked for as the last ones were."""


class Plan(NamedTuple):
    """How to search."""

    reach: Reach
    hops: float
    """About how many nodes that will expand."""


def check_target(target: Any) -> float:
    """Return a target of recall.

    Raises
    ------
    InvalidParameterError
        If it is not a number of the range.
    """
    # Whether a float is a real number is asked of an abstract class, which takes a while.
    right = type(target) is float or (isinstance(target, Real) and not isinstance(target, bool))
    if not right or not _LEAST_TARGET <= float(target) <= _GREATEST_TARGET:
        raise InvalidParameterError(
            f"target_recall={shown(target)}: must be a number from {_LEAST_TARGET} to "
            f"{_GREATEST_TARGET}"
        )
    return float(target)


class Calibration:
    """What searches cost and find.

    Parameters
    ----------
    dim
        Of the vectors.
    table
        float32 (7, n): values of `Reach.stop`, ascending; the nodes expanded on average with each,
        for k of 1, 10 and 100; and the recalls, less a standard error. Without any columns nothing
        is calibrated.
    """

    def __init__(self, dim: int, table: Floats) -> None:
        self.dim = dim
        self.table = table
        self._curves = [_Curve(table, which) for which in range(len(KS) if table.size else 0)]
        self.plan = lru_cache(_PLANS)(self._plan_for)

    @classmethod
    def none(cls, dim: int) -> Calibration:
        """Make the calibration of a graph that has none."""
        return cls(dim, np.empty((_FOUND + len(KS), 0), np.float32))

    @classmethod
    def from_arrays(cls, dim: int, arrays: Arrays) -> Calibration:
        """Take over the array ``calibration``.

        Raises
        ------
        CorruptFileError
            If it is missing or cannot be one.
        """
        table = arrays.get("calibration")
        if table is None or table.dtype != np.float32 or table.ndim != 2:
            raise CorruptFileError("array 'calibration' is missing or not a table of float32")
        if (
            len(table) != _FOUND + len(KS)
            or not np.isfinite(table).all()
            or (table < 0).any()
            or (table[0, 1:] <= table[0, :-1]).any()
            or (table[_FOUND:] > 1).any()
        ):
            raise CorruptFileError(
                "array 'calibration' holds no ascending stops with what is expanded and found"
            )
        return cls(dim, table)

    def for_target(self, target: float, k: float) -> Plan:
        """Return how to find the nearest `k` with a recall of `target`.

        Where no search that was measured reaches the target, the longest is the answer; where none
        comes near it, that is so long that to compare with all rows is cheaper.
        """
        if not self._curves:
            ef = max(LARGEST_EF, math.ceil(k))
            return Plan(ended_by_ef(ef), ef)
        if between_ks([curve.recalls.greatest for curve in self._curves], k) < target - _SHORT:
            return Plan(ended_by_ef(max(LARGEST_EF, math.ceil(k))), math.exp(_MOST_LOG_HOPS))
        stops = [curve.recalls.effort(target) for curve in self._curves]
        if k < KS[-1] and k not in KS:
            # Where a search for one k ends by its least number of nodes, the stop says nothing.
            stops = list(map(max, stops, [curve.idle_stop for curve in self._curves]))
        return self._plan(between_ks(stops, k), k)

    def for_ef(self, ef: float, k: float) -> Plan:
        """Return how to find the nearest `k` with about `ef` nodes expanded, and at least k."""
        ef = max(ef, k)
        if not self._curves:
            return Plan(ended_by_ef(math.ceil(ef)), ef)
        # Beyond 100, what is expanded grows with k in proportion.
        hops = ef * min(1.0, KS[-1] / k)
        return self._plan(between_ks([curve.stop_for_hops(hops) for curve in self._curves], k), k)

    def _plan_for(self, k: int, ef: int, target: float | None, share: float) -> Plan:
        """Return how to search for `k` rows where only a share of all is allowed.

        With a `target` of recall `ef` is the least. The k nearest allowed rows are about as many
        nearest of all as lie evenly among them; few of them vary more.
        """
        nearest = k / share if target is None else (k + _SPREAD * (1 - share)) / share
        plan = self.for_ef(ef / share, nearest)
        if target is not None:
            chance = _BY_CHANCE * k**_CHANCE_POWER
            misses = (1 - target) * (1 - chance * (1 - share))
            enough = self.for_target(1 - misses, nearest)
            plan = enough if enough.hops > plan.hops or ef <= k else plan
        # It is left to chance how soon k allowed ones are found: the more so, the fewer are.
        least = max(plan.reach.least, int(plan.hops * (1 - share)))
        return plan._replace(reach=plan.reach._replace(least=least))

    def _plan(self, stop: float, k: float) -> Plan:
        hops = math.exp(between_ks([curve.log_hops(stop) for curve in self._curves], k))
        hops *= max(1.0, k / KS[-1])
        return Plan(_reach(self.dim, stop, hops, k), hops)


class _Curve:
    """What was measured for one k; where neither hops nor finds grew, nothing was left to find."""

    def __init__(self, table: Floats, which: int) -> None:
        hops = np.maximum.accumulate(table[1 + which].astype(np.float64))
        finds = np.maximum.accumulate(table[_FOUND + which])
        grown = np.flatnonzero((np.diff(hops, prepend=0) > 0) | (np.diff(finds, prepend=0) > 0))
        end = int(grown[-1]) + 1 if len(grown) else 1
        # Lists: a search looks up a few numbers, which takes an array several times as long.
        self._stops: list[float] = table[0, :end].tolist()
        self._log_hops: list[float] = np.log(np.maximum(hops[:end], 1)).tolist()
        self.recalls = RecallCurve(table[_FOUND + which, :end], self._stops)
        self.idle_stop = interpolated(self._log_hops[0] + _IDLE, self._log_hops, self._stops)
        """Up to here searches are ended by how many nodes they expand at least."""
        known = self._log_hops[-1] - self._log_hops[0]
        # By how much the stop grows, beyond what was measured, for each e-fold of the hops.
        self._slope = 1.0
        if known > _LEAST_KNOWN:
            self._slope = (self._stops[-1] - self._stops[0]) / known

    def stop_for_hops(self, hops: float) -> float:
        """Return the stop at which so many nodes are expanded."""
        wanted = math.log(hops)
        beyond = wanted - self._log_hops[-1]
        if beyond > 0:
            return self._stops[-1] + beyond * self._slope
        return interpolated(wanted, self._log_hops, self._stops)

    def log_hops(self, stop: float) -> float:
        """Return the logarithm of how many nodes are expanded at a stop."""
        beyond = stop - self._stops[-1]
        if beyond > 0:
            return min(self._log_hops[-1] + beyond / self._slope, _MOST_LOG_HOPS)
        return interpolated(stop, self._stops, self._log_hops)


def _reach(dim: int, stop: float, hops: float, k: float) -> Reach:
    """Return the reach of searches for `k` that expand about `hops` nodes."""
    # The more are wanted, the more it saves to compare with some that are not expanded.
    wider = min(max(math.log10(k) - 1, 0.0), 1.0) * min(1.0, _WIDER_DIM / dim)
    ef = math.ceil(max(_ROOM + _ROOM_PER_HOP * hops, k))
    return Reach(ef, _LEAST_HOPS, stop, 1 + _WIDER_BY * wider)


def calibrate(dim: int, true: Distances, search: Search) -> Calibration:
    """Measure what searches find and cost.

    Parameters
    ----------
    dim
        Of the vectors.
    true
        The distances (queries, `TRUTH`) of the nearest rows of each query, ascending.
    search
        Searches the graph.
    """
    near, middle, far = (np.maximum(true[:, k - 1], 0) for k in KS)
    apart = float(np.median((far - near) / np.maximum(middle, 1e-30)))
    apart = min(max(apart, 3e-6), 2.0)
    limits = true + np.float32(1e-7) * np.abs(true)

    def measure(column: list[float], which: int, hops: float) -> float:
        """Fill in what searches at a column's stop expand, about `hops`; return what they find."""
        k = KS[which]
        count = len(true) if hops <= _LONG else min(_LONG_SAMPLE, len(true))
        reach = _reach(dim, column[0], min(hops, _MOST_HOPS), k)
        distances, expanded = search(reach, k, count)
        hits = distances <= limits[:count, k - 1 : k]
        column[1 + which], column[_FOUND + which] = float(expanded.mean()), recall_less_error(hits)
        return float(hits.mean())

    columns = [[1 + max(step * apart, -0.9), *[0.0] * (2 * len(KS))] for step in _STEPS]
    last = 0
    for which, k in enumerate(KS):
        hops = float(k)
        for number, column in enumerate(columns):
            found = measure(column, which, hops)
            hops = column[1 + which]
            last = max(last, number)
            if found >= ENOUGH or hops >= _MOST_HOPS:
                for later in columns[number + 1 :]:
                    later[1 + which], later[_FOUND + which] = hops, column[_FOUND + which]
                break
    columns = columns[: last + 1]
    for _ in range(HALVINGS):
        for low, high in list(pairwise(columns)):
            leaping = [w for w in range(len(KS)) if leaps(low[_FOUND + w], high[_FOUND + w])]
            between = [(one + other) / 2 for one, other in zip(low, high, strict=True)]
            if leaping and len({np.float32(column[0]) for column in (low, between, high)}) == 3:
                for which in leaping:
                    measure(between, which, high[1 + which])
                columns.append(between)
        columns.sort()
    return Calibration(dim, np.array(columns, np.float32).T.copy())

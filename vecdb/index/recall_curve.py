"""Recalls that were measured at some efforts, and which effort finds how much."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

TRUTH = 100
"""Nearest rows that are found exactly for each query."""
KS = (1, 10, TRUTH)
"""For which searches are measured."""
_LOG_KS = [math.log(k) for k in KS]
ENOUGH = 0.9995
"""Recall beyond which nothing is measured."""
HALVINGS = 3
"""How often the distance between two efforts is halved where recall leaps."""
_LEAP = 0.02
"""From an effort to the next, recall may grow by this, or by half of what was missed."""
_LEAST_MISSES = 1e-4


class RecallCurve:
    """Which effort finds how much.

    Parameters
    ----------
    recalls
        float32 (n,): what was found at each effort, whether ascending or not.
    efforts
        Ascending.
    """

    def __init__(self, recalls: Floats, efforts: Sequence[float]) -> None:
        # Lists: a search looks up one number, which takes an array several times as long.
        self._log_finds: list[float] = []
        self._efforts: list[float] = []
        finds = ascending(recalls)
        log_finds = -np.log(np.maximum(1 - finds, _LEAST_MISSES))
        for number, (log_found, effort) in enumerate(zip(log_finds, efforts, strict=True)):
            if number and leaps(finds[number - 1], finds[number]):
                # Nobody knows where between the two it leaps.
                self._log_finds.append(self._log_finds[-1])
                self._efforts.append(effort)
            self._log_finds.append(float(log_found))
            self._efforts.append(effort)
        self.greatest = float(finds[-1])

    def effort(self, recall: float) -> float:
        """Return the effort that finds so much; the last where none does."""
        return interpolated(-math.log(1 - recall), self._log_finds, self._efforts)


def leaps(recall: float, next_recall: float) -> bool:
    """Return whether recall grows too much between two efforts to say what is found between."""
    return next_recall - recall > max(_LEAP, 1 - next_recall)


def ascending(values: Floats) -> NDArray[np.float64]:
    """Return the ascending numbers nearest to `values` by squares: pooled adjacent violators."""
    pools: list[tuple[float, int]] = []
    for value in values.tolist():
        total, count = value, 1
        while pools and pools[-1][0] * count >= total * pools[-1][1]:
            before, more = pools.pop()
            total, count = total + before, count + more
        pools.append((total, count))
    return np.repeat([total / count for total, count in pools], [count for _, count in pools])


def recall_less_error(hits: NDArray[np.bool_]) -> float:
    """Return the recall of hits (queries, k), less one standard error of the sample.

    It is no more than a sample of that size can show: that half a query was missed goes unnoticed.
    """
    recalls = hits.mean(axis=1)
    shown = min(float(recalls.mean() - recalls.std() / len(recalls) ** 0.5), 1 - 0.5 / len(recalls))
    return max(0.0, shown)


def between_ks(values: list[float], k: float) -> float:
    """Return the number between two of those for `KS`, where the logarithm of k stands."""
    return interpolated(math.log(k), _LOG_KS, values)


def interpolated(x: float, xs: list[float], values: list[float]) -> float:
    """Return the number that stands where `x` does among `xs`, which ascend."""
    above = bisect_left(xs, x)
    if above == 0:
        return values[0]
    if above == len(xs):
        return values[-1]
    share = (x - xs[above - 1]) / (xs[above] - xs[above - 1])
    return values[above - 1] + share * (values[above] - values[above - 1])

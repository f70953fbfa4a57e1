"""What a curve of recalls says between the efforts that were measured."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vecdb.index.recall_curve import RecallCurve, ascending, leaps


def _curve(*recalls: float) -> RecallCurve:
    return RecallCurve(np.array(recalls, np.float32), list(range(len(recalls))))


def test_an_effort_lies_between_two_by_what_they_miss() -> None:
    curve = _curve(0.8, 0.88, 0.92)
    assert curve.effort(0.8) == pytest.approx(0, abs=1e-6)
    assert curve.effort(1 - (0.2 * 0.12) ** 0.5) == pytest.approx(0.5, abs=1e-5)
    assert curve.effort(0.5) == 0
    assert curve.effort(0.99) == 2, "the last, where none finds enough"
    assert curve.greatest == pytest.approx(0.92)


def test_where_recall_leaps_only_the_effort_behind_it_is_sure() -> None:
    curve = _curve(0.5, 0.6, 0.98, 0.985)
    assert curve.effort(0.6) == pytest.approx(1, abs=1e-5)
    assert [curve.effort(recall) for recall in (0.61, 0.8, 0.97)] == [2, 2, 2]
    assert 2 < curve.effort(0.982) < 3


def test_what_a_few_queries_more_find_is_no_leap() -> None:
    assert not leaps(0.98, 0.9999)
    assert not leaps(0.8, 0.89)
    assert leaps(0.8, 0.92)


@given(st.lists(st.floats(0, 1, width=32), min_size=1, max_size=8))
def test_recalls_that_fall_and_rise_become_the_nearest_that_ascend(values: list[float]) -> None:
    """By the max-min formula of isotonic regression."""
    made = ascending(np.array(values, np.float32))
    count = len(values)
    for at in range(count):
        means = [
            [float(np.mean(values[first : last + 1])) for last in range(at, count)]
            for first in range(at + 1)
        ]
        assert made[at] == pytest.approx(max(map(min, means)), abs=1e-6)

"""The candidates of a walk, against a plain list."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from vecdb.kernels import frontier
from vecdb.kernels.jit import kernel
from vecdb.kernels.pool import LARGEST_KEY

OFFERED = frontier.MOST_AT_ONCE
CLOSED, OUTRANKED, NOTHING = range(3)


@kernel
def _walk(candidates, ef, keys, counts, taken, outcomes):  # type: ignore[no-untyped-def]
    """Offer `counts[i]` keys in step i, then take the nearest one."""
    frontier.begin(candidates, 0)
    first = 0
    for step in range(counts.shape[0]):
        place = frontier.make_room(candidates, 0, ef)
        for i in range(first, first + counts[step]):
            candidates.opened[0, place] = keys[i]
            place += frontier.key_distance(keys[i]) < candidates.limits[0]
        frontier.opened_through(candidates, 0, place)
        first += counts[step]
        outcomes[step] = NOTHING
        taken[step] = -1
        place = frontier.place_of_nearest(candidates, 0)
        if place >= 0:
            key = candidates.opened[0, place]
            taken[step] = key
            outcomes[step] = OUTRANKED
            if not frontier.is_outranked(candidates, 0, ef, key):
                outcomes[step] = CLOSED
                frontier.drop(candidates, 0, place)
                frontier.close(candidates, 0, ef, key)
    frontier.end(candidates, 0)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 60),
    st.integers(1, 120),
    st.sampled_from(["spread", "falling", "rising"]),
)
def test_the_nearest_come_first_and_the_outranked_never(
    seed: int, ef: int, steps: int, order: str
) -> None:
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, OFFERED + 1, steps)
    distances = rng.random(counts.sum()).astype(np.float32)
    if order != "spread":  # the worst case for room: each offer nearer, or farther, than the last
        distances = np.sort(distances)[:: -1 if order == "falling" else 1].copy()
    keys = distances.view(np.uint32).astype(np.int64) << 32 | np.arange(len(distances)) << 1
    candidates = frontier.make_frontier(ef, 1)
    taken, outcomes = np.empty(steps, np.int64), np.empty(steps, np.int64)
    _walk(candidates, ef, keys, counts, taken, outcomes)
    for kept in candidates[:3]:
        assert (kept == LARGEST_KEY).all()
    opened: list[int] = []
    closed: list[int] = []
    ends = np.cumsum(counts)
    for step in range(steps):
        opened += keys[ends[step] - counts[step] : ends[step]].tolist()
        best = min(opened, default=-1)
        ranked = sum(key < best for key in closed)
        if outcomes[step] == CLOSED:
            assert taken[step] == best
            assert ranked < ef
            opened.remove(best)
            closed.append(best)
        else:  # what was given up would have been outranked, now and later
            assert best < 0 or ranked >= ef or sum(key < best for key in opened + closed) >= ef

"""When segments are sealed, indexed and merged."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

INDEXED_ROWS = 2_000
"""Below this many rows comparing with all of them, by their codes, is as fast as a graph."""

COMPARED_BYTES = 18 << 20
"""Vectors with which a search compares, by codes of a quarter of the size; as many again may be in
a sealed segment that waits for its graph. With less there would be more segments sooner, each of
which costs a search as much as thousands of rows. Once the growing segment is larger it is sealed,
unless earlier ones still wait for their graph, or nobody searches: an ingest alone is faster with
few large segments."""

SEARCHED_SECONDS = 10.0
"""How long after a search somebody is taken to be searching."""

IDLE_SECONDS = 2.0
"""How long no write has come when even small segments are worth the work."""

FORGET_SECONDS = 20.0
"""How long after the last write points deleted from the growing segment leave the log, too."""

_DEAD_SHARE = 0.2
_DEAD_SHARE_FULL = 0.02
"""How many of a segment's rows must be dead for it to be rewritten, usually and on a full disk."""

_MERGE_FAN_IN = 4
_OLDER_SHARE = 2
_OLDER_SHARE_IDLE = 4
"""How many times as large as the newer ones an older segment may be to be merged with them."""
_MERGED_SEGMENTS = 4


class Countable(Protocol):
    """A segment, as far as choosing one goes."""

    @property
    def live(self) -> int:
        """How many rows live."""

    @property
    def total(self) -> int:
        """How many rows there are, dead ones included."""


S = TypeVar("S", bound=Countable)


def rows_to_index(rows: int) -> int:
    """Return how many of the rows without a graph will have one: few are never given any."""
    return rows if rows >= INDEXED_ROWS else 0


def to_merge(
    candidates: Sequence[S], segment_rows: int, *, eager: bool, full: bool = False
) -> list[S]:
    """Choose segments to be rewritten as one, newest run first, or one with many dead rows.

    The run grows while the next older segment is no larger than twice what is in it (four times
    when no writes come in), so a row is rewritten a number of times logarithmic in the size of the
    collection. While writes come in, only runs of several segments are worth the work.

    Parameters
    ----------
    candidates
        Oldest first.
    segment_rows
        How many rows a sealed segment has at most; a merged one may have a few times as many.
    eager
        No writes come in.
    full
        The disk is: what dead rows take is worth the work sooner.
    """
    most = _MERGED_SEGMENTS * segment_rows
    share = _OLDER_SHARE_IDLE if eager else _OLDER_SHARE
    run: list[S] = []
    rows = 0
    for segment in reversed(candidates):
        live = segment.live
        if run and (live > share * rows or rows + live > most):
            break
        run.insert(0, segment)
        rows += live
    if len(run) >= (2 if eager else _MERGE_FAN_IN):
        return run
    dead_share = _DEAD_SHARE_FULL if full else _DEAD_SHARE
    for segment in candidates:
        if segment.live < (1 - dead_share) * segment.total:
            return [segment]
    return []

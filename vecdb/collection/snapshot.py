"""What a reader sees: segments and which of their rows live, unchanging while it looks.

A search asks every segment for its k nearest rows and merges them. A filter becomes a mask over
the rows of a segment before the index is asked, so k results come back whenever k points match.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from vecdb.errors import QuarantinedError
from vecdb.index import Queries, RowFilter
from vecdb.payload import Predicate, decode_payload, decode_payloads, parse_filter
from vecdb.types import (
    Filter,
    Hit,
    HitColumns,
    Matrix,
    Metric,
    PointId,
    Quarantine,
    Record,
)

Mask = NDArray[np.bool_]

Answer = TypeVar("Answer")

_CACHED = 16


class Rows(Protocol):
    """The rows of one segment."""

    @property
    def count(self) -> int:
        """How many rows there are, dead ones included."""

    @property
    def vectors(self) -> Matrix:
        """The vectors as they were written, float32 (count or more, dim)."""

    @property
    def memory_bytes(self) -> int:
        """About how much memory the rows take that is not a mapped file."""

    @property
    def is_indexed(self) -> bool:
        """Whether a graph index is searched, and not every row."""

    def search(
        self, queries: Queries, k: int, allowed: RowFilter | None, ef: int | None, threads: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return row numbers and distances (nq, k), best first, padded with -1 and infinity."""

    def id_at(self, row: int) -> PointId:
        """Return the id of a row."""

    def ids_at(self, rows: NDArray[np.int64]) -> list[PointId]:
        """Return the ids of rows."""

    def text_at(self, row: int) -> str | None:
        """Return the text of a row."""

    def texts_at(self, rows: NDArray[np.int64]) -> list[str | None]:
        """Return the texts of rows."""

    def payload_at(self, row: int) -> bytes | None:
        """Return the payload of a row as JSON."""

    def payloads_at(self, rows: NDArray[np.int64]) -> list[bytes | None]:
        """Return the payloads of rows as JSON."""


@dataclass(frozen=True, slots=True, eq=False)
class Condition:
    """A filter: the predicate, and what it is remembered by.

    The key is written from the predicate, which nobody can change, and not from what the caller
    gave. It tells conditions apart where Python's equality does not: 1, 1.0 and true.
    """

    predicate: Predicate
    key: str

    @classmethod
    def of(cls, conditions: Filter) -> Condition:
        """Parse a filter.

        Raises
        ------
        InvalidFilterError
        """
        predicate = parse_filter(conditions)
        return cls(predicate, repr(predicate))

    def holds(self, payload: bytes | None) -> bool:
        """Return whether a payload, as JSON, matches."""
        return self.predicate.matches(None if payload is None else decode_payload(payload))


class MatchedRows:
    """Which rows of a segment match a filter; remembers the last few answers.

    Rows never change once written, so an answer holds for as long as the segment does; rows
    appended since are judged when the filter is asked again.
    """

    def __init__(self) -> None:
        self._masks: OrderedDict[str, Mask] = OrderedDict()
        self._filters: OrderedDict[str, tuple[Mask, RowFilter]] = OrderedDict()
        self._lock = Lock()  # protects both; what they hold is never changed

    def mask(self, rows: Rows, condition: Condition) -> Mask:
        """Return which of `rows` match, bool (rows.count,)."""
        with self._lock:
            known = self._masks.pop(condition.key, None)
        first = 0 if known is None else len(known)
        if first < rows.count:
            judged = np.fromiter(
                map(condition.holds, rows.payloads_at(np.arange(first, rows.count))),
                np.bool_,
                rows.count - first,
            )
            known = judged if known is None else np.concatenate([known, judged])
        if known is None:
            return np.empty(0, np.bool_)
        with self._lock:
            _remember(self._masks, condition.key, known)
        return known[: rows.count]

    def allowed(self, rows: Rows, alive: Mask, condition: Condition | None) -> RowFilter:
        """Return which of `rows` live and match; made anew when others live."""
        key = "" if condition is None else condition.key
        with self._lock:
            known = self._filters.get(key)
            if known is not None and known[0] is alive:
                self._filters.move_to_end(key)
                return known[1]
        allowed = RowFilter(alive if condition is None else alive & self.mask(rows, condition))
        with self._lock:
            _remember(self._filters, key, (alive, allowed))
        return allowed


def _remember(answers: OrderedDict[str, Answer], key: str, answer: Answer) -> None:
    """Keep the newest answer, and let go of the one that was not asked for the longest."""
    answers[key] = answer
    answers.move_to_end(key)
    if len(answers) > _CACHED:
        answers.popitem(last=False)


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """One segment of a snapshot.

    Attributes
    ----------
    rows
        Its rows.
    alive
        bool (rows.count,): which of them are neither deleted nor replaced.
    live
        How many that are.
    matched
        Which rows match a filter.
    """

    rows: Rows
    alive: Mask
    live: int
    matched: MatchedRows

    def allowed(self, condition: Condition | None) -> RowFilter | None:
        """Return which rows may be found, or None for all of them."""
        if condition is None and self.live == self.rows.count:
            return None
        return self.matched.allowed(self.rows, self.alive, condition)

    def matching(self, condition: Condition) -> RowFilter:
        """Return which rows live and match."""
        return self.matched.allowed(self.rows, self.alive, condition)


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """A collection at one moment, after every write of sequence number up to `sequence`.

    The parts are in the order of their writing; the last one is the growing segment.
    """

    metric: Metric
    parts: tuple[Part, ...]
    sequence: int
    damaged: tuple[Quarantine, ...] = ()
    """What is not there although it was written: no answer that would need it is given."""

    def check_whole(self) -> None:
        """Refuse to answer over all points when some of them cannot be read.

        Raises
        ------
        QuarantinedError
        """
        if self.damaged:
            raise QuarantinedError(
                f"{described(self.damaged)}, so this answer would lack points: restore the files "
                "from a backup, or stop and accept the loss with `vecdb check --repair`; until "
                "then `get` returns the points that can be read"
            )

    @property
    def closed(self) -> tuple[Part, ...]:
        """The segments that take no more rows."""
        return self.parts[:-1]

    @property
    def growing(self) -> Part:
        """The segment that is written to."""
        return self.parts[-1]

    @property
    def live(self) -> int:
        """How many points can be found."""
        return sum(part.live for part in self.parts)

    def search(
        self, queries: Matrix, k: int, condition: Condition | None, ef: int | None, threads: int
    ) -> list[HitColumns]:
        """Return the nearest live points of each query that match, best first."""
        self.check_whole()
        asked = Queries(queries, self.metric)
        found = [
            (part, *part.rows.search(asked, k, part.allowed(condition), ef, threads))
            for part in self.parts
            if part.live
        ]
        if not found:
            return [HitColumns([], [], [], []) for _ in queries]
        if len(found) == 1:
            return [self._of_one_part(*found[0], query) for query in range(len(queries))]
        return [self._merged(found, query, k) for query in range(len(queries))]

    def _of_one_part(
        self, part: Part, rows: NDArray[np.int64], distances: NDArray[np.float32], query: int
    ) -> HitColumns:
        there = rows[query]
        if there[-1] < 0:  # fewer than k
            there = there[there >= 0]
        at = part.rows
        return HitColumns(
            at.ids_at(there),
            scores_of(self.metric, distances[query, : len(there)].tolist()),
            at.texts_at(there),
            at.payloads_at(there),
        )

    def _merged(
        self,
        found: list[tuple[Part, NDArray[np.int64], NDArray[np.float32]]],
        query: int,
        k: int,
    ) -> HitColumns:
        rows = np.concatenate([rows[query] for _, rows, _ in found])
        distances = np.concatenate([distances[query] for _, _, distances in found])
        order = np.argsort(distances, kind="stable")[:k]
        order = order[rows[order] >= 0]
        nearest = [
            (found[n // k][0].rows, row)
            for n, row in zip(order.tolist(), rows[order].tolist(), strict=True)
        ]
        return HitColumns(
            [at.id_at(row) for at, row in nearest],
            scores_of(self.metric, distances[order].tolist()),
            [at.text_at(row) for at, row in nearest],
            [at.payload_at(row) for at, row in nearest],
        )

    def count(self, condition: Condition | None) -> int:
        """Return how many live points match."""
        self.check_whole()
        if condition is None:
            return self.live
        return sum(part.matching(condition).count for part in self.parts if part.live)

    def matching_ids(self, condition: Condition) -> list[PointId]:
        """Return the ids of the live points that match."""
        self.check_whole()
        return list(self._matching_ids(condition))

    def _matching_ids(self, condition: Condition) -> Iterator[PointId]:
        for part in self.parts:
            yield from part.rows.ids_at(part.matching(condition).rows())


def described(damaged: Sequence[Quarantine]) -> str:
    """Return what is damaged, in words."""
    return "; ".join(f"{q.part} is damaged and not served ({q.reason})" for q in damaged)


def record_at(rows: Rows, row: int) -> Record:
    """Return a row as `get` does."""
    payload = rows.payload_at(row)
    return Record(
        rows.id_at(row),
        rows.vectors[row].copy(),
        rows.text_at(row),
        None if payload is None else decode_payload(payload),
    )


def hits_of(columns: HitColumns) -> list[Hit]:
    """Return the hits that columns hold."""
    payloads = decode_payloads(columns.payloads)
    return list(map(Hit, columns.ids, columns.scores, columns.texts, payloads))


def scores_of(metric: Metric, distances: list[float]) -> list[float]:
    """Return hits' scores for their index distances: see `vecdb.types.Metric`."""
    if metric is Metric.L2:
        return [max(distance, 0.0) ** 0.5 for distance in distances]
    return [1.0 - distance for distance in distances]

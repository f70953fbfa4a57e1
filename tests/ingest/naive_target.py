"""A collection in a dict, with the failures that an ingest has to survive."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vecdb.errors import InvalidTextError, UnavailableError
from vecdb.payload import parse_filter
from vecdb.types import Filter, Payload, PointId, Record, UpsertResult


class DictTarget:
    def __init__(self) -> None:
        self.points: dict[PointId, tuple[str, Payload]] = {}
        self.calls_left = 10**9
        self.batches: list[int] = []
        self.forbidden = "\x7f"

    def _call(self) -> None:
        if self.calls_left == 0:
            raise UnavailableError("the server is gone")
        self.calls_left -= 1

    def upsert(
        self, ids: Sequence[PointId], *, texts: Sequence[str], payloads: Sequence[Payload]
    ) -> UpsertResult:
        self._call()
        assert len(set(ids)) == len(ids) == len(texts) == len(payloads) > 0
        if any(self.forbidden in text for text in texts):
            raise InvalidTextError("forbidden text")
        self.points.update({i: (t, dict(p)) for i, t, p in zip(ids, texts, payloads, strict=True)})
        self.batches.append(len(ids))
        return UpsertResult(list(ids))

    def get(self, ids: Sequence[PointId]) -> list[Record]:
        self._call()
        vector = np.zeros(1, np.float32)
        return [Record(i, vector, *self.points[i]) for i in ids if i in self.points]

    def delete(self, ids: Sequence[PointId] | None = None, filter: Filter | None = None) -> int:
        self._call()
        if ids is None:
            matching = parse_filter(filter or {})
            ids = [i for i, (_, payload) in self.points.items() if matching.matches(payload)]
        return sum(self.points.pop(i, None) is not None for i in ids)

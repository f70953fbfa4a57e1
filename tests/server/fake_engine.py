"""An engine in a dict, with exact search, and with switches that make its calls slow or fail."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import numpy as np

from vecdb.answer import Answer
from vecdb.caller import check_caller
from vecdb.config import DIM, K
from vecdb.errors import (
    CollectionExistsError,
    CollectionNotFoundError,
    DimensionMismatchError,
    DuplicateIdError,
    EmptyBatchError,
    InvalidIdError,
    InvalidParameterError,
    InvalidVectorError,
)
from vecdb.payload import encode_payload, parse_filter
from vecdb.rag.pipeline import AnswerEvents
from vecdb.types import (
    AnswerEnd,
    Citation,
    CollectionInfo,
    EncoderInfo,
    FinishReason,
    HitColumns,
    LoadedModel,
    Metric,
    Record,
    ServerInfo,
    Source,
    UpsertResult,
)

ENCODER = EncoderInfo("letters", "w" * 64, "t" * 64, "mean", "", True, 26, 256)


class FakeCollection:
    def __init__(self, database, name, dim, metric, encoder):
        self._database = database
        self.name = name
        self._dim = dim
        self._metric = Metric(metric)
        self._encoder = encoder
        self._points = {}

    def info(self):
        n = len(self._points)
        encoder = ENCODER if self._encoder else None
        return CollectionInfo(self.name, self._dim, self._metric, encoder, n, 1, n, 123)

    def upsert(self, ids, texts=None, vectors=None, payloads=None, long_text="truncate"):
        self._database.before("upsert")
        ids = check_ids(ids)
        if texts is not None and vectors is None:
            vectors = np.stack([embed(text) for text in texts])
        if not np.isfinite(vectors).all():
            raise InvalidVectorError("vectors hold NaN or infinity: must be finite")
        if vectors.shape != (len(ids), self._dim):
            raise DimensionMismatchError(f"shape {vectors.shape}: need dimension {self._dim}")
        for i, point_id in enumerate(ids):
            text = None if texts is None else texts[i]
            payload = None if payloads is None else payloads[i]
            self._points[point_id] = Record(point_id, vectors[i].copy(), text, payload)
        return UpsertResult(ids, ids[:1] if long_text == "chunk" else [])

    def search_columns(self, queries=None, *, vectors=None, k=10, filter=None, ef=None):
        self._database.before("search")
        k = K.check(k)
        if (queries is None) == (vectors is None):
            raise InvalidParameterError("give queries or vectors, and not both")
        if queries is not None:
            vectors = np.stack([embed(text) for text in queries])
        if vectors.shape[1] != self._dim:
            raise DimensionMismatchError(f"dimension {vectors.shape[1]}: need {self._dim}")
        records = self._matching(filter)
        results = []
        for query in vectors:
            best = sorted(records, key=lambda r: -float(query @ r.vector))[:k]
            results.append(
                HitColumns(
                    [r.id for r in best],
                    [float(query @ r.vector) for r in best],
                    [r.text for r in best],
                    [None if r.payload is None else encode_payload(r.payload) for r in best],
                )
            )
        return results

    def get(self, ids):
        return [self._points[point_id] for point_id in ids if point_id in self._points]

    def delete(self, ids=None, filter=None):
        if (ids is None) == (filter is None):
            raise InvalidParameterError("give ids or a filter, and not both")
        doomed = [r.id for r in self._matching(filter)] if ids is None else ids
        return sum(self._points.pop(point_id, None) is not None for point_id in doomed)

    def count(self, filter=None):
        return len(self._matching(filter))

    def flush(self):
        self._database.before("flush")

    def ask(self, question, *, k=5, filter=None, max_tokens=4, temperature=0.0, seed=None):
        self._database.before("ask")
        if self._database.silent:
            self._database.pieces += 1
            return Answer(SilentStream(self._database))
        over = self._database.answers_over
        return Answer(AnswerEvents(self._events(question, max_tokens), over.set))

    def _events(self, question, max_tokens) -> Iterator[str | AnswerEnd]:
        try:
            for n in range(max_tokens):
                self._database.pieces += 1
                time.sleep(self._database.seconds_per_piece)
                yield f"{question}{n} é"
            citation = Citation(1, "a", 0, 3, 1, 2, 0.5)
            source = Source(1, 7, 0.25, "text", {"n": 1})
            yield AnswerEnd([citation], [source], FinishReason.STOP, 12, max_tokens)
        finally:
            self._database.answers_over.set()

    def _matching(self, filter):
        if filter is None:
            return list(self._points.values())
        predicate = parse_filter(filter)
        return [r for r in self._points.values() if predicate.matches(r.payload)]


class SilentStream:
    """An answer of which nothing comes until it is closed."""

    def __init__(self, database):
        self._database = database
        self._closed = threading.Event()

    def __iter__(self):
        return self

    def __next__(self):
        self._closed.wait(20)
        return AnswerEnd([], [], FinishReason.CANCELLED, 0, 0)

    def close(self):
        self._closed.set()
        self._database.answers_over.set()


def check_ids(ids):
    if not ids:
        raise EmptyBatchError("ids are empty: give at least one")
    if "" in ids:
        raise InvalidIdError("id '': must not be empty")
    if len(set(ids)) != len(ids):
        raise DuplicateIdError("an id stands twice: give it once")
    return ids


class FakeDatabase:
    def __init__(self):
        self._collections = {}
        self.before: Callable[[str], None] = lambda _: None
        self.seconds_per_piece = 0.0
        self.silent = False  # whether answers say nothing
        self.pieces = 0
        self.answers_over = threading.Event()
        self.backup_over = threading.Event()

    def create_collection(self, name, *, dim=None, metric="cosine", encoder=None):
        self.before("create")
        if name in self._collections:
            raise CollectionExistsError(f"collection {name!r} exists already")
        dim = ENCODER.dim if encoder else DIM.check(dim)
        self._collections[name] = FakeCollection(self, name, dim, metric, encoder)
        return self._collections[name]

    def collection(self, name):
        if name not in self._collections:
            raise CollectionNotFoundError(f"there is no collection {name!r}")
        return self._collections[name]

    def list_collections(self):
        return sorted(self._collections)

    def drop_collection(self, name):
        self.collection(name)
        del self._collections[name]

    def backup_to(self, store, *, keep=None):
        try:
            while True:  # for as long as anybody wants it
                self.pieces += 1
                check_caller()
                time.sleep(0.005)
        finally:
            self.backup_over.set()

    def server_info(self):
        return ServerInfo("1.2.3", [LoadedModel("letters", "CPU")], LoadedModel("words", "CUDA"))


def embed(text):
    counts = np.zeros(26, np.float32)
    for letter in text.lower():
        if "a" <= letter <= "z":
            counts[ord(letter) - ord("a")] += 1
    return counts / max(float(np.linalg.norm(counts)), 1.0)

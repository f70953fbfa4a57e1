"""What is not of the documented form is refused by name, embedded as behind a server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.words import DIM, WordEncoder
from vecdb import errors
from vecdb.database import Database

ONE = np.ones((1, DIM), np.float32)


@pytest.fixture
def docs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setattr("vecdb.models.load_encoder", lambda *_, **__: WordEncoder())
    with Database(tmp_path / "data", durability="os") as db:
        yield db.create_collection("docs", encoder="words")


def add(docs: Any, *given: Any, **named: Any) -> None:
    with docs.bulk() as load:
        load.add(*given, **named)


MANY = range(65_537)

BAD_CALLS: list[tuple[type[errors.VecdbError], str, Callable[[Any], Any]]] = [
    (
        errors.InvalidParameterError,
        "long_text=3",
        lambda c: c.upsert([1], vectors=ONE, long_text=3),
    ),
    (errors.InvalidParameterError, "100", lambda c: c.ask("Who?", k=101)),
    (errors.InvalidTextError, "queries is a int", lambda c: c.search_batch(queries=5)),
    (errors.InvalidTextError, "queries is a str", lambda c: c.search_batch(queries="a")),
    (errors.EmptyBatchError, "queries", lambda c: c.search_batch(queries=np.array([], str))),
    (errors.InvalidIdError, "ids=5", lambda c: add(c, 5, vectors=ONE)),
    (errors.LengthMismatchError, "payloads is a int", lambda c: add(c, [1], None, ONE, 5)),
    (errors.LengthMismatchError, "texts is a str", lambda c: add(c, [1], "a", ONE)),
    (errors.InvalidVectorError, "dtype", lambda c: add(c, [1], vectors=(row for row in ONE))),
    (errors.LengthMismatchError, "vectors is a int", lambda c: add(c, MANY, vectors=5)),
    (errors.LengthMismatchError, r"shape \(1, 4\)", lambda c: add(c, MANY, vectors=ONE)),
]


@pytest.mark.parametrize(("error", "message", "call"), BAD_CALLS)
def test_bad_calls(
    docs: Any, error: type[errors.VecdbError], message: str, call: Callable[[Any], Any]
) -> None:
    with pytest.raises(error, match=message):
        call(docs)
    assert docs.count() == 0


def test_any_iterable_will_do(docs: Any) -> None:
    add(docs, (i for i in range(2)), (t for t in "ab"), list(np.ones((2, DIM))), iter([None, {}]))
    add(docs, [2], vectors=np.ones(DIM))
    add(docs, np.array([3, 4]), np.array(["c", "d"]))
    assert docs.count() == 5
    assert [len(hits) for hits in docs.search_batch(queries=np.array(["a", "b"]))] == [5, 5]

"""Texts written as chunks: each under an id of its own, and none left of an earlier text."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.words import DIM, WordEncoder
from vecdb.database import Database
from vecdb.errors import DuplicateIdError, InvalidIdError


@pytest.fixture
def docs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setattr("vecdb.models.load_encoder", lambda *_, **__: WordEncoder())
    with Database(tmp_path / "data", durability="os") as db:
        yield db.create_collection("docs", encoder="words")


def words(count: int) -> str:
    return " ".join(f"w{i}" for i in range(count))


def test_no_two_texts_share_a_chunks_id(docs: Any) -> None:
    with pytest.raises(DuplicateIdError, match="'1#0'"):
        docs.upsert([1, "1"], texts=["one", "two"], long_text="chunk")
    assert docs.count() == 0
    assert docs.upsert(["1", "1#0"], texts=["one", "two"], long_text="chunk").ids == [
        "1#0", "1#0#0",
    ]  # fmt: skip
    assert docs.count() == 2


@pytest.mark.parametrize(("size", "text"), [(1_023, "one"), (1_022, words(11))])
def test_an_id_without_room_for_its_chunks_is_refused(docs: Any, size: int, text: str) -> None:
    with pytest.raises(InvalidIdError, match=r"xxx.*needs"):
        docs.upsert(["short", "x" * size], texts=["a", text], long_text="chunk")
    assert docs.count() == 0
    result = docs.upsert(["short", "x" * (size - 1)], texts=["a", text], long_text="chunk")
    assert [record.id for record in docs.get(result.ids)] == result.ids


@pytest.mark.parametrize("flushed", [False, True])
def test_no_chunk_of_an_earlier_text_is_left(docs: Any, flushed: bool) -> None:
    docs.upsert(["d", "e", 7], texts=[words(700), words(3), words(19)], long_text="chunk")
    docs.upsert(["d#x", "d#3#0"], vectors=np.ones((2, DIM), np.float32))
    if flushed:
        docs.flush()
    docs.delete(ids=["d#0", "7#0", *(f"d#{i}" for i in range(200, 460))])
    result = docs.upsert(["d", 7], texts=["a b", "c"], long_text="chunk")
    assert result.ids == ["d#0", "d#1", "7#0"]
    assert docs.count() == 3 + 3 + 2
    assert len(docs.get(["d#0", "d#1", "7#0", "e#0", "e#1", "e#2", "d#x", "d#3#0"])) == 8


@pytest.mark.parametrize("flushed", [False, True])
def test_a_point_that_is_no_chunk_is_never_taken_for_one(docs: Any, flushed: bool) -> None:
    payloads = [
        None, {"chunk": 3}, {"chunk": {"of": "b", "number": 3}}, {"chunk": {"of": [], "number": 4}},
        {"chunk": {"of": 8, "number": 0}},
    ]  # fmt: skip
    ids = ["a#1", "a#2", "a#3", "a#4", "8#0"]
    docs.upsert(ids, vectors=np.ones((5, DIM), np.float32), payloads=payloads)
    docs.upsert([7], texts=[words(19)], long_text="chunk")
    if flushed:
        docs.flush()
    docs.upsert(["a", "7", "8"], texts=["short", "other", "one"], long_text="truncate")
    docs.upsert(["a"], texts=["short"], long_text="chunk")
    assert [record.id for record in docs.get(ids)] == ids
    assert docs.count(filter={"chunk.of": 7}) > 1


@pytest.mark.parametrize("then", ["truncate", "error", "chunk"])
def test_a_text_takes_the_place_of_the_earlier_one_however_either_is_written(
    docs: Any, then: str
) -> None:
    docs.upsert(["whole", 5], texts=["one", "two"])
    docs.upsert(["cut", 6], texts=[words(19), words(700)], long_text="chunk")
    result = docs.upsert(["whole", 5, "cut", 6], texts=["a", "b", "c", "d"], long_text=then)
    assert docs.count() == 4
    assert len(docs.get(result.ids)) == 4


def test_chunks_are_deleted_by_what_they_are_chunks_of(docs: Any) -> None:
    docs.upsert(["cut", "cut2"], texts=[words(19), words(19)], long_text="chunk")
    before = docs.count()
    assert docs.delete(["cut"]) == 0
    assert docs.delete(filter={"chunk.of": "cut"}) == before // 2 == docs.count()

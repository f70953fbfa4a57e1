"""Texts written as chunks: each under an id of its own, and none left of an earlier text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vecdb.database import Database
from vecdb.encode import Encoded
from vecdb.errors import DuplicateIdError, InvalidIdError
from vecdb.types import EncoderInfo

DIM = 4


class WordEncoder:
    """Takes one word at a time."""

    info = EncoderInfo("words", "a" * 64, "b" * 64, "mean", "", True, DIM, 3)
    dim = DIM
    max_tokens = 3

    def encode(self, texts: Sequence[str]) -> Encoded:
        return Encoded(
            np.ones((len(texts), DIM), np.float32), np.array([" " in text for text in texts])
        )

    def split(self, text: str) -> list[tuple[int, int]]:
        spans, start = [], 0
        for word in text.split(" "):
            spans.append((start, start + len(word)))
            start += len(word) + 1
        return spans

    def close(self) -> None:
        """There is nothing to let go of."""


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

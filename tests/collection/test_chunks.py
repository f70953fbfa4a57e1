"""Texts written as chunks: each under an id of its own, and none left of an earlier text."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.words import DIM, WordEncoder
from vecdb.collection.commit import CommitQueue, Write
from vecdb.database import Database
from vecdb.encode import Encoded
from vecdb.errors import DuplicateIdError, InvalidIdError, InvalidPayloadError


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


def test_a_field_that_chunks_would_replace_is_refused(docs: Any) -> None:
    payloads = [{"a": 1}, {"chunk": None}]
    with pytest.raises(InvalidPayloadError, match="payload of id 'e' has a field 'chunk'"):
        docs.upsert(["d", "e"], texts=["one", "two"], payloads=payloads, long_text="chunk")
    assert docs.count() == 0
    docs.upsert(["d", "e"], texts=["one", "two"], payloads=payloads)
    assert docs.get(["e"])[0].payload == {"chunk": None}


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


def ids_of(docs: Any) -> list[str]:
    return sorted(hit.id for hit in docs.search("w", k=1_000))


def test_what_is_written_while_a_text_is_embedded_is_replaced_too(
    docs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode = WordEncoder.encode
    late = iter([words(9), words(7)])

    def slow(self: WordEncoder, texts: Sequence[str]) -> Encoded:
        monkeypatch.undo()
        docs.upsert(["d"], texts=[next(late)], long_text="chunk")
        return encode(self, texts)

    for how, left in (("truncate", ["d"]), ("chunk", ["d#0"])):
        docs.upsert(["d"], texts=[words(3)], long_text="chunk")
        monkeypatch.setattr(WordEncoder, "encode", slow)
        docs.upsert(["d"], texts=["short"], long_text=how)
        assert ids_of(docs) == left


def test_texts_written_at_once_leave_one_of_them_whole(docs: Any) -> None:
    shapes = {
        1: ["d#0"], 5: [f"d#{n}" for n in range(5)], 3: [f"d#{n}" for n in range(3)], 0: ["d"],
    }  # fmt: skip
    for _ in range(40):
        together = threading.Barrier(len(shapes))

        def write(count: int, together: threading.Barrier = together) -> None:
            together.wait()
            how = "chunk" if count else "truncate"
            docs.upsert(["d"], texts=[words(count) or "x"], long_text=how)

        threads = [threading.Thread(target=write, args=(count,)) for count in shapes]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert ids_of(docs) in shapes.values()


def test_a_point_written_where_a_chunk_was_is_not_deleted_for_it(
    docs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    docs.upsert(["d"], texts=[words(4)], long_text="chunk")
    run = CommitQueue.run

    def late(self: CommitQueue, write: Write) -> int:
        monkeypatch.undo()
        docs.upsert(["d#2"], vectors=np.ones((1, DIM), np.float32))
        return run(self, write)

    monkeypatch.setattr(CommitQueue, "run", late)
    docs.upsert(["d"], texts=["short"], long_text="chunk")
    assert ids_of(docs) == ["d#0", "d#2"]


def test_a_crash_leaves_the_earlier_text_or_the_later_one(docs: Any, tmp_path: Path) -> None:
    docs.upsert(["d", "e"], texts=[words(4), "one"], long_text="chunk")
    (log,) = (tmp_path / "data").glob("c*/wal/*.wal")
    before = log.stat().st_size
    docs.upsert(["d", "e"], texts=[words(2), "two"], long_text="truncate")
    after = log.stat().st_size
    for length in (before, before + 1, *range(before + 32, after, 7), after - 1, after):
        shutil.copytree(tmp_path / "data", tmp_path / "crashed")
        with (tmp_path / "crashed" / log.relative_to(tmp_path / "data")).open("r+b") as file:
            file.truncate(length)
        with Database(tmp_path / "crashed", durability="os") as db:
            left = ids_of(db.collection("docs"))
        shutil.rmtree(tmp_path / "crashed")
        whole = ["d", "e"] if length == after else ["d#0", "d#1", "d#2", "d#3", "e#0"]
        assert left == whole

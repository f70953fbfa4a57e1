"""Bad input: each has its own exception, the same through both doors, and changes nothing."""

# ruff: noqa: E501 - the table of bad calls reads best with one call a line

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import vecdb
from vecdb import errors
from vecdb.cli import main

NAN, INF = float("nan"), float("inf")
HUGE: Any = 10**5_000  # more digits than Python makes text of
GOOD = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]

BAD_CALLS: list[tuple[str, type[errors.VecdbError], str, Callable[[Any], Any]]] = [
    ("wrong dimension", errors.DimensionMismatchError, "3", lambda c: c.upsert([1], vectors=[[1.0] * 4])),
    ("wrong dtype", errors.InvalidVectorError, ".", lambda c: c.upsert([1], vectors=np.array([["a", "b", "c"]]))),
    ("complex", errors.InvalidVectorError, "complex", lambda c: c.upsert([1], vectors=np.ones((1, 3), complex))),
    ("NaN", errors.InvalidVectorError, "nan|NaN", lambda c: c.upsert([1], vectors=[[1.0, NAN, 0.0]])),
    ("infinity", errors.InvalidVectorError, "inf", lambda c: c.upsert([1], vectors=[[1.0, INF, 0.0]])),
    ("zero under cosine", errors.InvalidVectorError, "zero", lambda c: c.upsert([1], vectors=[[0.0] * 3])),
    ("NaN in the second row", errors.InvalidVectorError, "1", lambda c: c.upsert([1, 2], vectors=[GOOD[0], [NAN] * 3])),
    ("empty batch", errors.EmptyBatchError, ".", lambda c: c.upsert([], vectors=np.empty((0, 3)))),
    ("nothing given", errors.EmptyBatchError, "vectors", lambda c: c.upsert([1])),
    ("more ids", errors.LengthMismatchError, "2", lambda c: c.upsert([1, 2, 3], vectors=GOOD)),
    ("fewer payloads", errors.LengthMismatchError, "payloads", lambda c: c.upsert([1, 2], vectors=GOOD, payloads=[{}])),
    ("fewer texts", errors.LengthMismatchError, "texts", lambda c: c.upsert([1, 2], vectors=GOOD, texts=["a"])),
    ("duplicate ids", errors.DuplicateIdError, "7", lambda c: c.upsert([7, 7], vectors=GOOD)),
    ("duplicate str ids", errors.DuplicateIdError, "x", lambda c: c.upsert(["x", "x"], vectors=GOOD)),
    ("negative id", errors.InvalidIdError, "-1", lambda c: c.upsert([-1], vectors=GOOD[:1])),
    ("id too large", errors.InvalidIdError, str(2**64), lambda c: c.upsert([2**64], vectors=GOOD[:1])),
    ("float id", errors.InvalidIdError, "1.5", lambda c: c.upsert([1.5], vectors=GOOD[:1])),
    ("bool id", errors.InvalidIdError, "True", lambda c: c.upsert([True], vectors=GOOD[:1])),
    ("id of 5,000 digits", errors.InvalidIdError, "must be", lambda c: c.upsert([HUGE], vectors=GOOD[:1])),
    ("unknown id of 5,000 digits", errors.InvalidIdError, "must be", lambda c: c.get([HUGE])),
    ("ids of 5,000 digits", errors.InvalidIdError, "ids=", lambda c: c.get(HUGE)),
    ("one id in an array", errors.InvalidIdError, "single", lambda c: c.upsert(np.array(5), vectors=GOOD[:1])),
    ("one unknown id in an array", errors.InvalidIdError, "single", lambda c: c.get(np.array(5))),
    ("one text in an array", errors.LengthMismatchError, "texts", lambda c: c.upsert([1], vectors=GOOD[:1], texts=np.array("a"))),
    ("one payload in an array", errors.LengthMismatchError, "payloads", lambda c: c.upsert([1], vectors=GOOD[:1], payloads=np.array({}))),
    ("one query in an array", errors.InvalidTextError, "queries", lambda c: c.search_batch(np.array("a"))),
    ("empty id", errors.InvalidIdError, ".", lambda c: c.upsert([""], vectors=GOOD[:1])),
    ("long id", errors.InvalidIdError, "1024", lambda c: c.upsert(["x" * 1025], vectors=GOOD[:1])),
    ("payload not an object", errors.InvalidPayloadError, "list", lambda c: c.upsert([1], vectors=GOOD[:1], payloads=[[1]])),
    ("payload with NaN", errors.InvalidPayloadError, ".", lambda c: c.upsert([1], vectors=GOOD[:1], payloads=[{"a": NAN}])),
    ("payload with a set", errors.InvalidPayloadError, ".", lambda c: c.upsert([1], vectors=GOOD[:1], payloads=[{"a": {1}}])),
    ("payload with int keys", errors.InvalidPayloadError, ".", lambda c: c.upsert([1], vectors=GOOD[:1], payloads=[{1: 1}])),
    ("empty text", errors.InvalidTextError, "empty", lambda c: c.upsert([1], vectors=GOOD[:1], texts=[" "])),
    ("text of 10 MB", errors.InvalidTextError, "10485760", lambda c: c.upsert([1], vectors=GOOD[:1], texts=["x" * (10 << 20)])),
    ("text without encoder", errors.InvalidArgumentError, "encoder", lambda c: c.upsert([1], texts=["a"])),
    ("query without encoder", errors.InvalidArgumentError, "encoder", lambda c: c.search("a")),
    ("k = 0", errors.InvalidParameterError, "k=0", lambda c: c.search(vector=GOOD[0], k=0)),
    ("k negative", errors.InvalidParameterError, "k=-3", lambda c: c.search(vector=GOOD[0], k=-3)),
    ("k huge", errors.InvalidParameterError, "10000", lambda c: c.search(vector=GOOD[0], k=10**9)),
    ("k of 5,000 digits", errors.InvalidParameterError, "k=", lambda c: c.search(vector=GOOD[0], k=HUGE)),
    ("ef = 0", errors.InvalidParameterError, "ef=0", lambda c: c.search(vector=GOOD[0], ef=0)),
    ("query of wrong dimension", errors.DimensionMismatchError, "3", lambda c: c.search(vector=[1.0])),
    ("query with NaN", errors.InvalidVectorError, ".", lambda c: c.search(vector=[NAN, 1.0, 1.0])),
    ("no queries", errors.EmptyBatchError, ".", lambda c: c.search_batch(vectors=np.empty((0, 3)))),
    ("no query", errors.InvalidArgumentError, "^search takes either", lambda c: c.search()),
    ("query and vector", errors.InvalidArgumentError, "^search takes either", lambda c: c.search("a", vector=GOOD[0])),
    ("unknown operator", errors.InvalidFilterError, r"\$foo", lambda c: c.search(vector=GOOD[0], filter={"a": {"$foo": 1}})),
    ("filter not a mapping", errors.InvalidFilterError, ".", lambda c: c.count([1])),
    ("deep filter", errors.InvalidFilterError, ".", lambda c: c.count(_deep(1_000))),
    ("filter of 5,000 digits", errors.InvalidFilterError, "is an int of over 4,300 digits", lambda c: c.count({"a": HUGE})),
    ("filter key of 5,000 digits", errors.InvalidFilterError, "key", lambda c: c.count({"a": {"$gt": 1, HUGE: 1}})),
    ("filter key not Unicode", errors.InvalidFilterError, "surrogate", lambda c: c.count({"\ud800": 1})),
    ("operator not Unicode", errors.InvalidFilterError, ".", lambda c: c.count({"a": {"$\ud800": 1}})),
    ("delete without anything", errors.InvalidArgumentError, "filter", lambda c: c.delete()),
    ("get nothing", errors.EmptyBatchError, ".", lambda c: c.get([])),
]  # fmt: skip


def _deep(levels: int) -> dict[str, Any]:
    condition: dict[str, Any] = {"a": 1}
    for _ in range(levels):
        condition = {"$not": condition}
    return condition


@pytest.mark.parametrize(
    ("kind", "message", "call"), [c[1:] for c in BAD_CALLS], ids=[c[0] for c in BAD_CALLS]
)
def test_bad_calls(
    db: Any, name: str, kind: type[errors.VecdbError], message: str, call: Callable[[Any], Any]
) -> None:
    points = db.create_collection(name, dim=3)
    points.upsert([100, 101], vectors=GOOD, payloads=[{"a": 1}, {"a": 2}])
    with pytest.raises(kind, match=message) as caught:
        call(points)
    assert type(caught.value) is kind
    assert str(caught.value).encode("utf-8")  # or it could not be printed
    assert points.count() == 2
    db.drop_collection(name)


@pytest.mark.parametrize(
    "bad",
    ["", "a/b", "..", ".", "a\0b", "x" * 10_000, " a", "a b", "-a", "a\n", "\ud800", HUGE],
    ids=range(12),
)
def test_bad_collection_names(db: Any, bad: Any) -> None:
    with pytest.raises(errors.InvalidNameError):
        db.create_collection(bad, dim=3)
    with pytest.raises((errors.InvalidNameError, errors.CollectionNotFoundError)):
        db.collection(bad)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (errors.InvalidParameterError, {"dim": 0}),
        (errors.InvalidParameterError, {"dim": -1}),
        (errors.InvalidParameterError, {"dim": 10**9}),
        (errors.InvalidParameterError, {"dim": 3, "metric": "hamming"}),
        (errors.InvalidArgumentError, {}),
        (errors.ModelNotFoundError, {"encoder": "no-such-model"}),
    ],
)
def test_bad_settings(
    db: Any, name: str, kind: type[errors.VecdbError], options: dict[str, Any]
) -> None:
    with pytest.raises(kind) as caught:
        db.create_collection(name, **options)
    assert type(caught.value) is kind
    assert name not in db.list_collections()


def test_a_number_that_no_float_holds_is_refused(db: Any, name: str) -> None:
    points = db.create_collection(name, dim=3)
    with pytest.raises(errors.InvalidArgumentError):
        points.ask("what?", temperature=HUGE)


def test_an_unknown_collection_is_named(db: Any) -> None:
    with pytest.raises(errors.CollectionNotFoundError, match="nowhere"):
        db.collection("nowhere")


def test_a_large_k_gives_all_there_is(db: Any, name: str) -> None:
    points = db.create_collection(name, dim=3)
    points.upsert([1, 2], vectors=GOOD)
    assert len(points.search(vector=GOOD[0], k=10_000)) == 2


def test_a_server_opens_no_model_that_a_caller_names_by_path(
    both: tuple[Any, Any], tmp_path: Path
) -> None:
    """A folder that would be an encoder in this process is not even looked at for a caller."""
    for name in ["config.json", "model.safetensors", "tokenizer.json"]:
        (tmp_path / name).write_text("{}")
    embedded, client = both
    with pytest.raises(errors.CorruptFileError, match=r"model\.safetensors"):
        embedded.create_collection("path", encoder=str(tmp_path))
    with pytest.raises(errors.ModelNotFoundError, match=tmp_path.name):
        client.create_collection("path", encoder=str(tmp_path))


@pytest.mark.parametrize(
    ("condition", "words"),
    [
        ("[]", "a JSON list"),
        ('[["a", 1]]', "a JSON list"),
        ("null", "NoneType"),
        ("{", "not JSON"),
        ('{"a": NaN}', "NaN"),
    ],
)
@pytest.mark.parametrize("command", ["search", "ask"])
def test_a_filter_on_the_command_line_is_an_object(
    tmp_path: Path, command: str, condition: str, words: str
) -> None:
    arguments = [command, "vecs", "words", "--filter", condition, "--db", str(tmp_path)]
    told = CliRunner().invoke(main, arguments)
    assert told.exit_code == 1
    assert "--filter" in told.output
    assert words in told.output
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("kind", "path"),
    [
        (errors.InvalidParameterError, ""),
        (errors.InvalidParameterError, "a\0b"),
        (errors.InvalidParameterError, "\ud800"),
        (errors.InvalidParameterError, b"data"),
        (errors.InvalidParameterError, None),
        (errors.StorageAccessError, "file"),
        (errors.StorageAccessError, "file/below"),
        (errors.StorageAccessError, "x" * 5_000),
    ],
)
def test_a_path_that_can_be_no_directory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[errors.VecdbError], path: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("a file")
    with vecdb.connect("data") as db:
        for use in (vecdb.connect, db.backup, db.list_backups, lambda p: vecdb.restore(p, "new")):
            with pytest.raises(kind) as caught:
                use(path)
            assert type(caught.value) is kind
    assert sorted(found.name for found in tmp_path.iterdir()) == ["data", "file"]

"""Operations: every batch comes back as it was, and no bytes do harm."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vecdb.errors import (
    CorruptFileError,
    InvalidIdError,
    LengthMismatchError,
    NewerFormatError,
)
from vecdb.storage import Delete, Upsert, decode_operation, encode_operation
from vecdb.types import PointId

IDS = st.integers(0, 2**64 - 1) | st.text(min_size=1, max_size=8)
VECTORS = np.array([[1, 2], [3, -0.0], [np.inf, 1e-40]], np.float32)
UPSERT = Upsert([7, "é", 2**64 - 1], VECTORS, ["hi", None, ""], [None, b"{}", b'{"a":1}'])


@st.composite
def upserts(draw: st.DrawFn) -> Upsert:
    ids = draw(st.lists(IDS, max_size=12))
    rows = len(ids)
    dim = draw(st.integers(1, 5))
    numbers = st.integers(0, 2**32 - 1)
    bits = draw(st.lists(numbers, min_size=rows * dim, max_size=rows * dim))
    vectors = np.array(bits, np.uint32).view(np.float32).reshape(rows, dim)
    texts = st.lists(st.none() | st.text(max_size=9), min_size=rows, max_size=rows)
    payloads = st.lists(st.none() | st.binary(max_size=9), min_size=rows, max_size=rows)
    return Upsert(ids, vectors, draw(st.none() | texts), draw(st.none() | payloads))


@settings(deadline=None)
@given(upserts())
def test_an_upsert_comes_back(upsert: Upsert) -> None:
    found = decode_operation(*encode_operation(upsert), "here")
    assert isinstance(found, Upsert)
    assert found.ids == upsert.ids
    assert found.vectors.shape == upsert.vectors.shape
    assert found.vectors.tobytes() == upsert.vectors.tobytes()
    assert (found.texts, found.payloads) == (upsert.texts, upsert.payloads)


@settings(deadline=None)
@given(st.lists(IDS, max_size=20))
def test_a_delete_comes_back(ids: list[PointId]) -> None:
    assert decode_operation(*encode_operation(Delete(ids)), "here") == Delete(ids)


@settings(deadline=None)
@given(upserts(), st.lists(IDS, min_size=1, max_size=9))
def test_a_replacement_comes_back(upsert: Upsert, deleted: list[PointId]) -> None:
    replacement = replace(upsert, deleted=deleted)
    kind, body = encode_operation(replacement)
    assert kind == 3
    assert body.startswith(encode_operation(upsert)[1])
    found = decode_operation(kind, body, "here")
    assert isinstance(found, Upsert)
    assert (found.ids, found.deleted) == (upsert.ids, deleted)
    assert encode_operation(found) == (kind, body)


def test_a_replacement_that_deletes_nothing_is_damage() -> None:
    body = encode_operation(UPSERT)[1] + encode_operation(Delete([]))[1]
    with pytest.raises(CorruptFileError, match="names none"):
        decode_operation(3, body, "here")


@pytest.mark.parametrize(
    "operation", [UPSERT, Delete([1, "zwei", 3]), replace(UPSERT, deleted=["x", 5])]
)
def test_every_truncation_and_extension_is_damage(operation: Upsert | Delete) -> None:
    kind, body = encode_operation(operation)
    for length in range(len(body)):
        with pytest.raises(CorruptFileError, match="log 1, record 5: its body"):
            decode_operation(kind, body[:length], "log 1, record 5")
    with pytest.raises(CorruptFileError, match="1 bytes follow its end"):
        decode_operation(kind, body + b"\0", "here")


@settings(max_examples=300, deadline=None)
@given(st.sampled_from([1, 2, 3]), st.binary(max_size=200))
def test_any_bytes_are_read_without_harm(kind: int, body: bytes) -> None:
    try:
        found = decode_operation(kind, body, "here")
    except CorruptFileError:
        return
    if isinstance(found, Delete):
        assert encode_operation(found) == (kind, body)


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1), st.integers(0, 3))
def test_counts_are_not_believed(rows: int, dim: int, flags: int) -> None:
    body = np.array([rows, dim, flags, 0], "<u4").tobytes() + bytes(40)
    try:
        decode_operation(1, body, "here")
    except CorruptFileError:
        return
    assert rows <= 5


def test_an_unknown_kind_is_of_a_newer_vecdb() -> None:
    with pytest.raises(NewerFormatError, match="kind 9"):
        decode_operation(9, b"", "here")


@pytest.mark.parametrize("bad", [-1, 2**64, True, 1.0, None, b"x", "\ud800"])
def test_ids_that_are_none_are_refused(bad: PointId) -> None:
    with pytest.raises(InvalidIdError):
        encode_operation(Delete([bad]))


@pytest.mark.parametrize(
    "upsert",
    [
        Upsert([1], VECTORS),
        Upsert([1, 2, 3], VECTORS[0]),
        Upsert([1, 2, 3], VECTORS, ["a"]),
        Upsert([1, 2, 3], VECTORS, None, [b"{}"]),
    ],
)
def test_columns_of_different_length_are_refused(upsert: Upsert) -> None:
    with pytest.raises(LengthMismatchError):
        encode_operation(upsert)

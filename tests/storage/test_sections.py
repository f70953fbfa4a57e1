"""Sections files: what went in comes out, and nothing else ever does."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tests.storage.faulty import ROOT, SimulatedDisk
from vecdb.errors import (
    AlreadyExistsError,
    CorruptFileError,
    InvalidArgumentError,
    NewerFormatError,
    StoredFileNotFoundError,
)
from vecdb.storage import PosixStore, open_sections, write_sections
from vecdb.storage.crc import crc32c
from vecdb.storage.prologue import prologue
from vecdb.storage.sections import MAGIC

ARRAYS = {
    "vectors": np.arange(6, dtype=np.float32).reshape(2, 3),
    "none": np.zeros((0, 4), np.int64),
    "one": np.array(7, np.uint16),
    "flags": np.array([True, False]),
}
META = {"rows": 2, "name": "ü", "nested": [1.5, None]}
DTYPES = ["?", "u1", "i1", "<u2", "<i2", "<f2", "<u4", "<i4", "<f4", "<u8", "<i8", "<f8"]


def simulated() -> PosixStore:
    return PosixStore(ROOT, calls=SimulatedDisk())


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(
        st.text(max_size=10),
        st.sampled_from(DTYPES).flatmap(
            lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0))
        ),
        max_size=5,
    ),
    st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5), max_size=3),
)
def test_what_went_in_comes_out(arrays: dict[str, Any], meta: dict[str, Any]) -> None:
    store = simulated()
    ref = write_sections(store, "x", arrays, kind="test", meta=meta)
    data = store.read("x")
    assert (ref.name, ref.size, ref.sha256) == ("x", len(data), hashlib.sha256(data).hexdigest())
    opened = open_sections(store, "x", kind="test")
    assert opened.meta == meta
    assert list(opened) == list(arrays)
    for name, array in arrays.items():
        found = opened[name]
        assert found.dtype == array.dtype
        assert found.shape == array.shape
        assert found.tobytes() == array.tobytes()
        assert not found.flags.writeable


def test_arrays_are_mapped_aligned_and_outlive_everything(tmp_path: Path) -> None:
    store = PosixStore(tmp_path)
    write_sections(store, "x", ARRAYS, kind="test", meta=META)
    opened = open_sections(store, "x", kind="test")
    for array in opened.values():
        assert array.size == 0 or array.ctypes.data % 64 == 0
    vectors = opened["vectors"]
    store.delete("x")
    del opened
    assert vectors.tolist() == ARRAYS["vectors"].tolist()


def test_any_layout_in_memory_is_stored_in_order() -> None:
    store = simulated()
    given_arrays = {
        "big": np.arange(4, dtype=">i4"),
        "strided": np.arange(10, dtype=np.int64)[::3],
        "fortran": np.asfortranarray(ARRAYS["vectors"]),
    }
    write_sections(store, "x", given_arrays, kind="test")
    opened = open_sections(store, "x", kind="test")
    for name, array in given_arrays.items():
        assert np.array_equal(opened[name], array)


@pytest.mark.parametrize(
    "array", [np.array(["text"]), np.array([1 + 2j]), np.array([{}], object), np.zeros(1, "V4")]
)
def test_other_dtypes_are_refused(array: np.ndarray[Any, Any]) -> None:
    store = simulated()
    with pytest.raises(InvalidArgumentError, match="must be one of"):
        write_sections(store, "x", {"a": array}, kind="test")
    assert store.list() == []


def test_long_arrays_are_written_in_pieces_that_end_where_huge_pages_do() -> None:
    ends: list[int] = []

    class Listening(SimulatedDisk):
        def write(self, descriptor: int, buffers: Sequence[memoryview]) -> int:
            written = super().write(descriptor, buffers)
            ends.append(written + (ends[-1] if ends else 0))
            return written

    store = PosixStore(ROOT, calls=Listening())
    arrays = {"first": np.arange(5, dtype=np.uint8), "long": np.arange(11 << 18, dtype=np.int32)}
    size = write_sections(store, "x", arrays, kind="test").size
    assert ends[-1] == size
    assert {*range(2 << 20, size, 2 << 20)} <= set(ends)
    opened = open_sections(store, "x", kind="test")
    np.testing.assert_array_equal(opened["long"], arrays["long"])


def test_names_are_taken_once_unless_told_otherwise() -> None:
    store = simulated()
    write_sections(store, "x", {}, kind="test")
    with pytest.raises(AlreadyExistsError):
        write_sections(store, "x", ARRAYS, kind="test")
    write_sections(store, "x", ARRAYS, kind="test", overwrite=True)
    assert open_sections(store, "x", kind="test").keys() == ARRAYS.keys()


def test_another_kind_and_a_missing_file() -> None:
    store = simulated()
    write_sections(store, "x", {}, kind="tombstones")
    with pytest.raises(CorruptFileError, match="holds 'tombstones', not 'segment'"):
        open_sections(store, "x", kind="segment")
    assert open_sections(store, "x", kind=None).kind == "tombstones"
    with pytest.raises(StoredFileNotFoundError):
        open_sections(store, "y", kind="segment")


def written() -> bytes:
    store = simulated()
    write_sections(store, "x", ARRAYS, kind="test", meta=META)
    return store.read("x")


def reopen(data: bytes, *, verify: bool = True) -> None:
    store = simulated()
    store.put("x", data)
    open_sections(store, "x", kind="test", verify=verify)


def test_every_truncation_and_every_extension_is_damage() -> None:
    data = written()
    for length in range(len(data)):
        with pytest.raises(CorruptFileError, match="/data/x"):
            reopen(data[:length])
    for extra in (b"\0", data):
        with pytest.raises(CorruptFileError):
            reopen(data + extra)


def test_every_flipped_bit_is_damage_and_never_a_newer_format() -> None:
    data = written()
    for bit in range(8 * len(data)):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(CorruptFileError, match="damaged"):
            reopen(bytes(damaged))


def test_without_verifying_only_the_table_is_read() -> None:
    data = bytearray(written())
    data[64] ^= 1
    reopen(bytes(data), verify=False)
    with pytest.raises(CorruptFileError, match="section 'vectors', from offset 64 to 88"):
        reopen(bytes(data))


def test_a_newer_version_is_no_damage() -> None:
    with pytest.raises(NewerFormatError, match="of format 9; this vecdb reads formats up to 1"):
        reopen(prologue(MAGIC, 9) + b"anything at all")
    with pytest.raises(CorruptFileError, match="format 0 never existed"):
        reopen(prologue(MAGIC, 0) + bytes(100))


def forged(change: Callable[[dict[str, Any]], object]) -> bytes:
    """Return a file with another table and right checksums all over."""
    data = written()
    end = len(data) - 32
    _, offset, length, _ = struct.unpack_from("<QQII", data, end)
    table = json.loads(data[offset : offset + length])
    replaced = change(table)
    described = replaced if isinstance(replaced, bytes) else json.dumps(table).encode()
    trailer = struct.pack(
        "<QQII", offset + len(described) + 32, offset, len(described), crc32c(described)
    )
    return data[:offset] + described + trailer + struct.pack("<I4s", crc32c(trailer), b"END\n")


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t["sections"][0].update(offset=1 << 40),
        lambda t: t["sections"][0].update(offset=-64),
        lambda t: t["sections"][0].update(offset=65),
        lambda t: t["sections"][0].update(offset=True),
        lambda t: t["sections"][0].update(offset=64.0),
        lambda t: t["sections"][0].update(length=1 << 62, shape=[1 << 60]),
        lambda t: t["sections"][0].update(shape=[1 << 32, 1 << 32, 6]),
        lambda t: t["sections"][0].update(shape=[-1, -6]),
        lambda t: t["sections"][0].update(shape=[1] * 9 + [6]),
        lambda t: t["sections"][0].update(shape=6),
        lambda t: t["sections"][0].update(dtype="O"),
        lambda t: t["sections"][0].update(dtype=["f4"]),
        lambda t: t["sections"][0].update(name=3),
        lambda t: t["sections"][0].update(name="none"),
        lambda t: t["sections"][0].pop("crc32c"),
        lambda t: t["sections"].reverse(),
        lambda t: t["sections"].pop(),
        lambda t: t.update(kind=7),
        lambda t: t.update(meta=[]),
        lambda t: t.update(sections={"a": 1}),
        lambda t: t.pop("sections"),
        lambda _: b"[" * 100_000,
        lambda _: b"null",
        lambda _: b"",
        lambda _: b"\xff\xfe",
    ],
)
def test_a_table_that_lies_is_damage(change: Callable[[dict[str, Any]], object]) -> None:
    with pytest.raises(CorruptFileError, match=r"is not a table|holds"):
        reopen(forged(change))


def test_the_forger_can_write_a_sound_file() -> None:
    reopen(forged(lambda _: None))


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=400))
def test_any_bytes_are_read_without_harm(data: bytes) -> None:
    for prefix in (b"", prologue(MAGIC, 1)):
        with pytest.raises(CorruptFileError):
            reopen(prefix + data)

"""Segment files against a plain dict, and their tombstones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.storage.faulty import ROOT, SimulatedDisk
from vecdb.errors import AlreadyExistsError, CorruptFileError, LengthMismatchError
from vecdb.storage import (
    FileRef,
    IdBatch,
    PosixStore,
    SegmentFile,
    read_tombstones,
    write_sections,
    write_segment,
    write_tombstones,
)
from vecdb.types import PointId

IDS = st.integers(0, 50) | st.integers(2**64 - 50, 2**64 - 1) | st.text(max_size=3)


def simulated() -> PosixStore:
    return PosixStore(ROOT, calls=SimulatedDisk())


def check_against_dict(
    ids: list[PointId],
    texts: list[str | None] | None,
    payloads: list[bytes | None] | None,
    asked: list[PointId],
) -> None:
    store = simulated()
    vectors = np.arange(len(ids) * 3, dtype=np.float32).reshape(len(ids), 3)
    segment = SegmentFile.open(store, write_segment(store, "s", ids, vectors, texts, payloads))
    assert len(segment) == len(ids)
    assert np.array_equal(segment.vectors, vectors)
    # (type, id): the int 1, True and "1" would be one key of a dict of ids alone.
    expected = {(type(point_id), point_id): row for row, point_id in enumerate(ids)}
    wanted = [expected.get((type(point_id), point_id), -1) for point_id in asked + ids]
    assert segment.rows_of(asked + ids).tolist() == wanted
    assert segment.rows_of(IdBatch(asked + ids)).tolist() == wanted
    rows = np.arange(len(ids))[::-1]
    assert segment.ids_at(rows) == ids[::-1]
    assert segment.texts_at(rows) == (texts or [None] * len(ids))[::-1]
    assert segment.payloads_at(rows) == (payloads or [None] * len(ids))[::-1]
    for row, point_id in enumerate(ids):
        assert segment.id_at(row) == point_id
        assert segment.text_at(row) == (texts[row] if texts else None)
        assert segment.payload_at(row) == (payloads[row] if payloads else None)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_against_a_dict(data: st.DataObject) -> None:
    ids = data.draw(st.lists(IDS, unique_by=lambda i: (type(i), i), max_size=20))
    rows = len(ids)
    texts = st.none() | st.lists(st.none() | st.text(max_size=5), min_size=rows, max_size=rows)
    blobs = st.none() | st.lists(st.none() | st.binary(max_size=5), min_size=rows, max_size=rows)
    asked = data.draw(st.lists(IDS, max_size=10))
    check_against_dict(ids, data.draw(texts), data.draw(blobs), asked)


def test_strs_with_one_hash_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vecdb.storage.ids.hash_id", len)
    check_against_dict(["aa", "b", "cc", 2, "dd", "e"], None, None, ["ee", "f", "ggg", 1, "dd"])


def test_the_hash_of_a_str_never_changes() -> None:
    assert IdBatch(["vecdb"]).str_keys.tolist() == [0x5EC85EA634EBC28B]


def test_a_segment_is_mapped_and_read_only(tmp_path: Path) -> None:
    store = PosixStore(tmp_path)
    ref = write_segment(store, "s", [1, 2], np.eye(2, dtype=np.float32))
    segment = SegmentFile.open(store, ref)
    assert not segment.vectors.flags.writeable
    assert not segment.vectors.flags.owndata
    with pytest.raises(AlreadyExistsError):
        write_segment(store, "s", [1], np.eye(1, dtype=np.float32))


def test_columns_of_different_length_are_refused() -> None:
    eye = np.eye(2, dtype=np.float32)
    for arguments in (([1], eye), ([1, 2], eye, ["a"]), ([1, 2], eye, None, [b"{}"])):
        with pytest.raises(LengthMismatchError):
            write_segment(simulated(), "s", *arguments)  # type: ignore[arg-type]


def test_every_truncation_and_flipped_byte_is_damage() -> None:
    store = simulated()
    vectors = np.array([[1], [2]], np.float32)
    ref = write_segment(store, "s", [1, "a"], vectors, ["t", None], [b"{}", None])
    data = store.read("s")
    for at in range(len(data)):
        for damaged in (data[:at], data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1 :]):
            store.put("s", damaged, overwrite=True)
            with pytest.raises(CorruptFileError, match="/data/s"):
                SegmentFile.open(store, ref)


def segment_sections() -> dict[str, np.ndarray]:
    return {
        "vectors": np.zeros((2, 1), np.float32),
        "id_values": np.array([5, 0], np.uint64),
        "int_keys": np.array([5], np.uint64),
        "int_rows": np.array([0], np.uint32),
        "str_keys": np.array([9], np.uint64),
        "str_rows": np.array([1], np.uint32),
        "id_present": np.array([2], np.uint8),
        "id_offsets": np.array([0, 0, 1], np.uint64),
        "id_bytes": np.frombuffer(b"a", np.uint8),
    }


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("vectors", np.zeros((2, 1), np.float64)),
        ("vectors", np.zeros(2, np.float32)),
        ("id_values", np.zeros(3, np.uint64)),
        ("int_keys", np.zeros(0, np.uint64)),
        ("int_rows", np.array([2], np.uint32)),
        ("str_rows", np.array([0], np.uint32)),
        ("str_rows", np.array([1], np.uint64)),
        ("id_offsets", np.array([0, 5, 1], np.uint64)),
        ("id_offsets", np.array([0, 0, 2], np.uint64)),
        ("id_offsets", np.array([0, 1], np.uint64)),
        ("id_present", np.zeros(2, np.uint8)),
        ("id_offsets", None),
        ("vectors", None),
    ],
)
def test_sections_that_do_not_fit_are_damage(name: str, array: np.ndarray | None) -> None:
    store = simulated()
    sections = segment_sections()
    good = write_sections(store, "good", sections, kind="segment")
    assert SegmentFile.open(store, good).ids_at(np.arange(2)) == [5, "a"]
    if array is None:
        del sections[name]
    else:
        sections[name] = array
    with pytest.raises(CorruptFileError):
        SegmentFile.open(store, write_sections(store, "bad", sections, kind="segment"))


def test_text_that_is_no_text_is_damage() -> None:
    store = simulated()
    sections = {**segment_sections(), "id_bytes": np.array([0xFF], np.uint8)}
    segment = SegmentFile.open(store, write_sections(store, "s", sections, kind="segment"))
    with pytest.raises(CorruptFileError, match="row 1 is not UTF-8"):
        segment.id_at(1)
    sections |= {f"text_{name}": sections[f"id_{name}"] for name in ("present", "offsets", "bytes")}
    segment = SegmentFile.open(store, write_sections(store, "t", sections, kind="segment"))
    with pytest.raises(CorruptFileError, match="row 1 is not UTF-8"):
        segment.texts_at(np.arange(2))


def test_a_file_of_another_length_than_the_manifest_says_is_damage() -> None:
    store = simulated()
    ref = write_segment(store, "s", [1], np.eye(1, dtype=np.float32))
    other = FileRef(ref.name, ref.size + 1, ref.sha256)
    with pytest.raises(CorruptFileError, match="its manifest says"):
        SegmentFile.open(store, other)


@settings(deadline=None)
@given(st.lists(st.booleans(), max_size=40))
def test_tombstones_come_back(dead: list[bool]) -> None:
    store = simulated()
    ref = write_tombstones(store, "t", np.array(dead, np.bool_))
    found = read_tombstones(store, ref, len(dead))
    assert found.dtype == np.bool_
    assert found.tolist() == dead
    found[:] = True  # the caller's own


def test_tombstones_of_another_segment_are_refused() -> None:
    store = simulated()
    ref = write_tombstones(store, "t", np.array([True] * 9))
    for rows in (8, 10, 16, 0):
        with pytest.raises(CorruptFileError, match="of another segment"):
            read_tombstones(store, ref, rows)

"""The write-ahead log after damage and power loss: torn ends, lost records, flipped bits."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.storage.faulty import ROOT, SimulatedDisk
from tests.storage.logs import BODIES, bodies, closed_log, simulated
from vecdb.errors import CorruptFileError
from vecdb.storage import PosixStore, Wal
from vecdb.storage.wal_file import HEADER_BYTES, RECORD_HEADER_BYTES, encode_record, file_name


def test_a_missing_file_is_damage() -> None:
    _, store = simulated()
    wal = Wal.open(store)
    for body in BODIES:
        wal.append([(1, body)])
        wal.rotate()
    wal.close()
    store.delete(file_name(3))
    with pytest.raises(CorruptFileError, match=r"record 3 is not valid although|missing"):
        bodies(Wal.open(store))
    assert bodies(Wal.open(store, after_seq=3), 3) == BODIES[3:]
    store.delete(file_name(1))
    with pytest.raises(CorruptFileError, match="records 1 to 1 of the write-ahead log are missing"):
        bodies(Wal.open(store))


def written(*, closed: bool) -> bytes:
    """Return a log file whose first four records are vouched for, and with `closed`, all."""
    _, store = simulated()
    wal = Wal.open(store)
    for body in BODIES:
        wal.append([(1, body)])
    if closed:
        wal.close()
    return store.read(file_name(1))


def reopened(data: bytes, following: bytes | None = None) -> tuple[Wal, PosixStore]:
    _, store = simulated()
    store.put(file_name(1), data)
    if following is not None:
        store.put(file_name(len(BODIES) + 1), following)
    return Wal.open(store), store


@pytest.mark.parametrize("closed", [False, True])
def test_a_log_cut_off_anywhere_is_a_prefix(closed: bool) -> None:
    data = written(closed=closed)
    for length in range(len(data)):
        if length < HEADER_BYTES:
            with pytest.raises(CorruptFileError, match=r"00000000000000000001\.wal is damaged"):
                reopened(data[:length])
            continue
        wal, store = reopened(data[:length])
        found = bodies(wal)
        assert found == BODIES[: len(found)]
        assert length == len(data) or wal.torn_tail is None or wal.torn_tail.offset <= length
        wal.append([(1, b"next")])
        wal.close()
        assert bodies(Wal.open(store)) == [*found, b"next"]


@pytest.mark.parametrize("closed", [False, True])
def test_one_flipped_bit_never_gives_a_wrong_record(closed: bool) -> None:
    data = written(closed=closed)
    last = len(data) - RECORD_HEADER_BYTES - (0 if closed else len(BODIES[-1]))
    for bit in range(8 * len(data)):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        try:
            found = bodies(reopened(bytes(damaged))[0])
        except CorruptFileError as error:
            assert "damaged" in str(error)  # noqa: PT017
            assert bit // 8 < last, "a last record that none vouches for is a torn tail"
        else:
            # Only the last record may be lost: without a mark, a crash looks the same.
            assert bit // 8 >= last
            assert found == (BODIES if closed else BODIES[:-1])


def test_damage_names_file_and_offset_and_what_to_do() -> None:
    data = bytearray(written(closed=False))
    offset = HEADER_BYTES + RECORD_HEADER_BYTES + len(BODIES[0])
    data[offset + 20] ^= 1
    with pytest.raises(CorruptFileError) as raised:
        reopened(bytes(data))
    message = str(raised.value)
    assert f"{ROOT / file_name(1)} is damaged at offset {offset}: record 2" in message
    assert "vecdb check --repair" in message


def test_every_record_of_a_file_that_has_a_successor_must_be_there() -> None:
    _, store = simulated()
    wal = Wal.open(store)
    for body in BODIES:
        wal.append([(1, body)])
    wal.rotate()
    first, second = store.read(file_name(1)), store.read(file_name(len(BODIES) + 1))
    for length in range(HEADER_BYTES, len(first)):
        wal, _ = reopened(first[:length], second)
        with pytest.raises(CorruptFileError, match="is damaged at offset"):
            bodies(wal)


@pytest.mark.parametrize(
    "tail",
    [b"\0", b"\0" * 5_000, b"\xff" * 100, b"\0" * 40 + b"text" * 50],
    ids=["zero", "zeros", "ones", "text"],
)
def test_bytes_that_are_no_records_are_cut_off(tail: bytes) -> None:
    data = written(closed=True)
    wal, store = reopened(data + tail)
    assert bodies(wal) == BODIES
    assert wal.torn_tail is not None
    assert (wal.torn_tail.offset, wal.torn_tail.length) == (len(data), len(tail))
    assert store.size(file_name(1)) < len(data)


def test_a_lost_write_before_one_that_survived_is_no_damage() -> None:
    """Both were written, neither was synced, and the disk wrote the second one only."""
    data = written(closed=False)
    tag = data[24:28]
    lost = encode_record(tag, 6, 1, 5, b"lost") + b"lost"
    kept = encode_record(tag, 7, 1, 5, b"kept") + b"kept"
    wal, _ = reopened(data + bytes(len(lost)) + kept)
    assert bodies(wal) == BODIES
    vouching = encode_record(tag, 7, 1, 6, b"kept") + b"kept"
    with pytest.raises(CorruptFileError, match="record 6"):
        reopened(data + bytes(len(lost)) + vouching)


def test_records_of_another_log_are_no_records_of_this_one() -> None:
    """A log stored as somebody's vector or text does not turn a torn tail into damage."""
    data = written(closed=True)
    foreign = encode_record(b"tag?", 99, 1, 98, b"x") + b"x"
    wal, _ = reopened(data + b"\0" + foreign)
    assert bodies(wal) == BODIES


def test_a_length_beyond_the_limit_is_not_believed() -> None:
    data = bytearray(written(closed=True))
    data[HEADER_BYTES + 8 : HEADER_BYTES + 12] = b"\xff\xff\xff\xff"
    with pytest.raises(CorruptFileError, match="record 1"):
        reopened(bytes(data))


@pytest.mark.parametrize("change", [lambda d: d[:20], lambda d: b"VECDBSEC" + d[8:]])
def test_a_damaged_header_is_damage(change: Callable[[bytes], bytes]) -> None:
    with pytest.raises(CorruptFileError):
        reopened(change(written(closed=True)))


def test_a_renamed_file_is_refused() -> None:
    _, store = simulated()
    store.put(file_name(7), written(closed=True))
    with pytest.raises(CorruptFileError, match="begins with record 1"):
        Wal.open(store)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300), st.integers(0, 400))
def test_any_bytes_after_a_header_are_read_without_harm(noise: bytes, at: int) -> None:
    data = written(closed=True)
    at = min(at, len(data))
    try:
        found = bodies(reopened(data[:at] + noise + data[at + len(noise) :])[0])
    except CorruptFileError:
        return
    assert found == BODIES[: len(found)]


def test_a_closed_log_that_was_cut_short_anywhere_is_damage() -> None:
    disk, store = closed_log()
    name = file_name(3)
    whole = store.read(name)
    mark = len(whole) - RECORD_HEADER_BYTES
    for length in range(len(whole)):
        disk.corrupt(ROOT / name, lambda _, length=length: whole[:length])
        if length < mark:
            with pytest.raises(CorruptFileError):
                Wal.open(store)
        else:
            assert bodies(Wal.open(store)) == [b"one", b"two", b"three"]
        disk.corrupt(ROOT / name, lambda _: whole)
    store.delete(name)
    with pytest.raises(CorruptFileError, match="closed after record 3: it has been cut short"):
        Wal.open(store)
    store.delete(file_name(1))
    with pytest.raises(CorruptFileError, match="cut short"):
        Wal.open(store)


@pytest.mark.parametrize("name", [file_name(1), file_name(3)])
def test_damage_to_a_log_whose_operations_are_in_segments_is_no_loss(name: str) -> None:
    length = closed_log()[1].size(name)
    for offset in range(length):
        for change in (lambda d, o=offset: d[:o], lambda d, o=offset: _flipped(d, o)):
            disk, store = closed_log()
            disk.corrupt(ROOT / name, change)
            for _ in range(2):
                wal = Wal.open(store, after_seq=3)
                assert bodies(wal, 3) == []
            assert wal.append([(1, b"more")]) > 3
            assert bodies(Wal.open(store, after_seq=3), 3) == [b"more"]


def _flipped(data: bytes, offset: int) -> bytes:
    return data[:offset] + bytes([data[offset] ^ 8]) + data[offset + 1 :]


def _no_lost_write_is_damage(disk: SimulatedDisk, times: int) -> None:
    """Lose power: at most that the log was cut short may be said of it."""
    for seed in range(times):
        rng = random.Random(seed)
        after = disk.after_power_loss(lambda rng=rng: rng.random() < 0.8)
        try:
            Wal.open(PosixStore(ROOT, "os", after))
        except CorruptFileError as error:
            assert "although record" not in str(error)  # noqa: PT017


@pytest.mark.parametrize("durability", ["os", "disk"])
def test_power_loss_after_a_kill_is_no_damage_where_nothing_is_synced(
    durability: Literal["os", "disk"],
) -> None:
    disk = SimulatedDisk()
    wal = Wal.open(PosixStore(ROOT, durability, disk))
    wal.append([(1, b"a" * 600)])
    disk = disk.after_kill()
    wal = Wal.open(PosixStore(ROOT, "os", disk))
    for body in (b"b" * 600, b"c" * 600):
        wal.append([(1, body)])
    _no_lost_write_is_damage(disk, 200)


def test_a_torn_tail_goes_where_nothing_is_synced_and_power_loss_after_it_is_no_damage() -> None:
    disk = SimulatedDisk()
    wal = Wal.open(PosixStore(ROOT, "os", disk))
    for body in (b"a" * 600, b"b" * 600, b"torn"):
        wal.append([(1, body)])
    disk.corrupt(ROOT / file_name(1), lambda data: data[:-1])
    wal = Wal.open(PosixStore(ROOT, "os", disk))
    assert wal.torn_tail is not None
    wal.append([(1, b"c" * 600)])
    assert bodies(Wal.open(PosixStore(ROOT, "os", disk))) == [b"a" * 600, b"b" * 600, b"c" * 600]
    _no_lost_write_is_damage(disk, 100)


def test_a_record_that_is_missing_between_others_is_damage() -> None:
    data = written(closed=True)
    start = HEADER_BYTES
    for number, body in enumerate(BODIES[:-1], start=1):
        end = start + RECORD_HEADER_BYTES + len(body)
        with pytest.raises(CorruptFileError, match=f"record {number} is not valid although"):
            reopened(data[:start] + data[end:])
        start = end

"""The write-ahead log: order, files, group sync, torn ends and damage."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.storage.faulty import ROOT, Faults, SimulatedDisk
from vecdb.errors import (
    ClosedError,
    CorruptFileError,
    InvalidArgumentError,
    MessageTooLargeError,
    ReadOnlyError,
    StorageIOError,
)
from vecdb.storage import PosixStore, Wal
from vecdb.storage.wal import wal_end
from vecdb.storage.wal_file import (
    HEADER_BYTES,
    RECORD_HEADER_BYTES,
    encode_record,
    end_name,
    file_name,
)

BODIES = [b"first", b"", b"third" * 3, b"4", b"fifth"]


def simulated() -> tuple[SimulatedDisk, PosixStore]:
    disk = SimulatedDisk()
    return disk, PosixStore(ROOT, calls=disk)


def bodies(wal: Wal, after_seq: int = 0) -> list[bytes]:
    return [record.body for record in wal.replay(after_seq)]


def test_records_come_back_in_order_with_their_numbers() -> None:
    _, store = simulated()
    wal = Wal.open(store)
    assert wal.append([(1, b"a"), (2, b"b")]) == 2
    assert wal.append([(255, b"")]) == 3
    assert wal.last_seq == 3
    wal.close()
    wal.close()
    found = [(r.seq, r.kind, r.body) for r in Wal.open(store).replay()]
    assert found == [(1, 1, b"a"), (2, 2, b"b"), (3, 255, b"")]
    assert [r.seq for r in Wal.open(store).replay(2)] == [3]
    with pytest.raises(ClosedError):
        wal.append([(1, b"late")])


def test_one_append_is_one_write_and_one_sync() -> None:
    disk, store = simulated()
    wal = Wal.open(store)
    wal.append([(1, b"opens the file")])
    disk.log.clear()
    wal.append([(1, body) for body in BODIES])
    assert [call.split()[0] for call in disk.log] == ["write", "sync"]


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.lists(st.binary(max_size=60), min_size=1, max_size=4),
            st.sampled_from(["rotate", "reopen", "kill", "drop"]),
        ),
        max_size=30,
    )
)
def test_whatever_happens_the_log_is_a_list(steps: list[list[bytes] | str]) -> None:
    disk, store = simulated()
    wal = Wal.open(store, file_bytes=200)
    expected: dict[int, bytes] = {}
    dropped = 0
    for step in steps:
        if step == "rotate":
            wal.rotate()
        elif step in ("reopen", "kill"):
            if step == "reopen":
                wal.close()
            disk = disk.after_kill()
            store = PosixStore(ROOT, calls=disk)
            wal = Wal.open(store, after_seq=dropped, file_bytes=200)
        elif step == "drop":
            dropped = wal.last_seq
            wal.drop_through(dropped)
            expected.clear()
        else:
            first = wal.last_seq + 1
            wal.append([(1, bytes(body)) for body in step])
            expected.update(enumerate(map(bytes, step), first))
        assert {r.seq: r.body for r in wal.replay(dropped)} == expected
        assert wal.size_bytes == sum(store.size(name) for name in store.list())


def test_files_are_dropped_oldest_first_and_never_the_last() -> None:
    _, store = simulated()
    wal = Wal.open(store)
    for body in BODIES[:3]:
        wal.append([(1, body)])
        wal.rotate()
    assert store.list() == [file_name(n) for n in (1, 2, 3, 4)]
    wal.rotate()  # an empty file needs no successor
    wal.drop_through(2)
    assert store.list() == [file_name(n) for n in (3, 4)]
    wal.drop_through(100)
    assert store.list() == [file_name(4)]
    assert wal.append([(1, b"x")]) == 4


def test_concurrent_writers_share_a_sync() -> None:
    disk, store = simulated()
    wal = Wal.open(store)
    wal.append([(1, b"opens the file")])
    entered, release = threading.Event(), threading.Event()
    slow = disk.sync_data

    def sync_data(descriptor: int) -> None:
        entered.set()
        assert release.wait(60)
        slow(descriptor)

    disk.sync_data = sync_data  # type: ignore[method-assign]
    disk.log.clear()
    threads = [threading.Thread(target=wal.sync, args=(wal.write([(1, b"leads")]),))]
    threads[0].start()
    assert entered.wait(60)
    for body in BODIES:  # these arrive while the first sync runs, and share the second one
        seq = wal.write([(1, body)])
        threads.append(threading.Thread(target=wal.sync, args=(seq,)))
        threads[-1].start()
    release.set()
    for thread in threads:
        thread.join()
    assert wal.last_seq == 2 + len(BODIES)
    assert sum(call.startswith("sync") for call in disk.log) == 2
    after = PosixStore(ROOT, calls=disk.after_power_loss(lambda: False))
    assert bodies(Wal.open(after)) == [b"opens the file", b"leads", *BODIES]


def test_a_record_that_cannot_be_is_refused_before_anything_is_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    disk, store = simulated()
    wal = Wal.open(store)
    calls = disk.calls
    monkeypatch.setattr("vecdb.storage.wal.RECORD_BYTES_LIMIT", 10)
    with pytest.raises(MessageTooLargeError, match="11 bytes"):
        wal.append([(1, b"fine"), (1, b"x" * 11)])
    for kind in (0, 256, -1):
        with pytest.raises(InvalidArgumentError, match="kind"):
            wal.append([(kind, b"")])
    assert disk.calls == calls


def test_numbers_go_on_above_what_the_manifest_knows() -> None:
    _, store = simulated()
    assert Wal.open(store, after_seq=41).append([(1, b"a")]) == 42
    assert Wal.open(store, after_seq=41).last_seq == 42
    wal = Wal.open(store, after_seq=50)  # with weaker durability, segments can be ahead
    assert wal.append([(1, b"b")]) == 51
    assert bodies(wal, 50) == bodies(Wal.open(store, after_seq=50), 50) == [b"b"]


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


def test_on_a_real_directory(tmp_path: Path) -> None:
    store = PosixStore(tmp_path).within("wal")
    wal = Wal.open(store, file_bytes=10_000)
    written_bodies = [bytes([i]) * 1_000 for i in range(40)]
    for body in written_bodies:
        wal.append([(1, body)])
    assert bodies(Wal.open(store, file_bytes=10_000)) == written_bodies
    assert len(store.list()) > 3


def closed_log() -> tuple[SimulatedDisk, PosixStore]:
    """Return a log of three operations in two files, closed."""
    disk, store = simulated()
    wal = Wal.open(store)
    wal.append([(1, b"one"), (1, b"two")])
    wal.rotate()
    wal.append([(1, b"three")])
    wal.close()
    return disk, store


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


def test_what_says_that_a_log_has_ended_goes_before_it_is_written_to() -> None:
    disk, store = closed_log()
    assert store.exists(end_name(3))
    assert bodies(Wal.open(store)) == [b"one", b"two", b"three"]
    assert store.exists(end_name(3))  # reading changes nothing
    wal = Wal.open(store)
    wal.append([(1, b"four")])
    assert not store.exists(end_name(3))
    for keep in (True, False):
        after = PosixStore(ROOT, calls=disk.after_power_loss(lambda keep=keep: keep))
        assert bodies(Wal.open(after)) == [b"one", b"two", b"three", b"four"]
    wal.close()
    assert wal_end(store) == wal.last_seq - 1  # the mark is no operation


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
    for seed in range(200):
        rng = random.Random(seed)
        after = disk.after_power_loss(lambda rng=rng: rng.random() < 0.8)
        try:
            Wal.open(PosixStore(ROOT, "os", after))
        except CorruptFileError as error:
            assert "although record" not in str(error)  # noqa: PT017


def test_what_a_store_without_syncs_wrote_is_made_durable_by_one_that_has_them() -> None:
    disk = SimulatedDisk()
    with_syncs = Wal.open(PosixStore(ROOT, calls=disk))
    with_syncs.append([(1, b"one")])
    with_syncs.release()
    wal = Wal.open(PosixStore(ROOT, "os", disk))
    wal.append([(1, b"two")])
    wal.append([(1, b"three")])
    wal.release()
    calls = disk.calls
    assert bodies(Wal.open(PosixStore(ROOT, "os", disk))) == [b"one", b"two", b"three"]
    assert disk.calls == calls  # a store that promises nothing copies nothing
    Wal.open(PosixStore(ROOT, calls=disk)).release()
    after = PosixStore(ROOT, calls=disk.after_power_loss(lambda: False))
    assert bodies(Wal.open(after)) == [b"one", b"two", b"three"]


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
    for seed in range(100):
        rng = random.Random(seed)
        after = disk.after_power_loss(lambda rng=rng: rng.random() < 0.8)
        try:
            Wal.open(PosixStore(ROOT, "os", after))
        except CorruptFileError as error:
            assert "although record" not in str(error)  # noqa: PT017


def test_a_new_file_is_begun_when_the_one_before_is_durable() -> None:
    disk, store = simulated()
    wal = Wal.open(store, file_bytes=1)
    wal.write([(1, b"a")])
    wal.write([(1, b"b")])
    wal.sync()
    after = PosixStore(ROOT, calls=disk.after_power_loss(lambda: False))
    assert bodies(Wal.open(after)) == [b"a", b"b"]


def test_after_any_call_that_failed_the_log_takes_no_more() -> None:
    def reopened_log() -> tuple[SimulatedDisk, Wal]:
        disk, store = simulated()
        wal = Wal.open(store)
        wal.append([(1, b"before")])
        wal.close()
        return disk, Wal.open(store)

    def script(wal: Wal) -> None:
        wal.append([(1, b"a")])
        wal.rotate()
        wal.append([(1, b"b")])

    disk, wal = reopened_log()
    first = disk.calls
    script(wal)
    failed = 0
    for call in range(first, disk.calls):
        failing, wal = reopened_log()
        failing.faults = Faults(error_at=call)
        try:
            script(wal)
        except StorageIOError:
            failed += 1
            with pytest.raises(ReadOnlyError):
                wal.write([(1, b"later")])
    assert failed > 5


def test_only_files_with_records_that_are_asked_for_are_named() -> None:
    _, store = simulated()
    wal = Wal.open(store)
    wal.append([(1, b"one"), (1, b"two")])
    wal.rotate()
    wal.append([(1, b"three")])
    wal.append([(1, b"four")])

    def named(after_seq: int, through_seq: int) -> list[str]:
        return [name for name, _ in wal.extents(after_seq, through_seq)]

    assert named(0, 2) == named(1, 2) == [file_name(1)]
    assert named(2, 3) == named(3, 4) == [file_name(3)]
    assert named(1, 3) == [file_name(1), file_name(3)]
    assert named(2, 2) == []
    whole = store.size(file_name(3))
    assert wal.extents(2, 4) == [(file_name(3), whole)]
    assert wal.extents(2, 3) == [(file_name(3), whole - RECORD_HEADER_BYTES - len(b"four"))]


def test_of_a_log_that_is_begun_anew_no_file_stays() -> None:
    disk, store = closed_log()
    disk.corrupt(ROOT / file_name(3), lambda data: data[:20])
    Wal.open(store, after_seq=3)
    assert [name for name in store.list() if name.endswith(".wal")] == [file_name(4)]


def test_the_longest_record_that_is_taken_is_read_back(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("wal", "wal_file"):
        monkeypatch.setattr(f"vecdb.storage.{module}.RECORD_BYTES_LIMIT", 10)
    _, store = simulated()
    Wal.open(store).append([(1, b"x" * 10)])
    assert bodies(Wal.open(store)) == [b"x" * 10]


def test_a_record_that_is_missing_between_others_is_damage() -> None:
    data = written(closed=True)
    start = HEADER_BYTES
    for number, body in enumerate(BODIES[:-1], start=1):
        end = start + RECORD_HEADER_BYTES + len(body)
        with pytest.raises(CorruptFileError, match=f"record {number} is not valid although"):
            reopened(data[:start] + data[end:])
        start = end

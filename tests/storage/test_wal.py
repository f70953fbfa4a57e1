"""The write-ahead log: order, files, group sync, what a failure leaves."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.storage.faulty import ROOT, Faults, SimulatedDisk
from tests.storage.logs import BODIES, bodies, closed_log, simulated
from vecdb.errors import (
    ClosedError,
    InvalidArgumentError,
    MessageTooLargeError,
    ReadOnlyError,
    StorageIOError,
)
from vecdb.storage import PosixStore, Wal
from vecdb.storage.wal import wal_end
from vecdb.storage.wal_file import RECORD_HEADER_BYTES, end_name, file_name


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


def test_on_a_real_directory(tmp_path: Path) -> None:
    store = PosixStore(tmp_path).within("wal")
    wal = Wal.open(store, file_bytes=10_000)
    written_bodies = [bytes([i]) * 1_000 for i in range(40)]
    for body in written_bodies:
        wal.append([(1, body)])
    assert bodies(Wal.open(store, file_bytes=10_000)) == written_bodies
    assert len(store.list()) > 3


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

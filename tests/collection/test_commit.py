"""Who shares a sync with whom."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Any

import pytest

from vecdb.collection.commit import CommitQueue, Write
from vecdb.collection.turns import Turns
from vecdb.errors import ClosedError, ReadOnlyError, StorageIOError


class CountingLog:
    """Stands for the log: remembers for how many records each sync was."""

    def __init__(self) -> None:
        self.synced: list[int] = []
        self._written = 0

    def write(self, records: Sequence[tuple[int, bytes]]) -> int:
        self._written += len(records)
        return self._written

    def sync(self, seq: int) -> None:
        self.synced.append(seq - sum(self.synced))


def write() -> Write:
    return Write(lambda: (1, b"record"), lambda sequence: sequence)


def test_a_leader_waits_for_those_who_were_there_a_moment_ago(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("vecdb.collection.commit._LONGEST_WAIT", 60.0)
    log: Any = CountingLog()
    queue = CommitQueue(log, Turns())
    queue._companions, queue._sync_seconds = 3, 1e6
    writers = [threading.Thread(target=queue.run, args=(write(),)) for _ in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(timeout=60)
    assert log.synced == [3]
    assert queue._companions == 3


def test_a_writer_alone_waits_for_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vecdb.collection.commit._LONGEST_WAIT", 1e6)
    log: Any = CountingLog()
    queue = CommitQueue(log, Turns())
    queue._sync_seconds = 1e6
    assert queue.run(write()) == 1
    queue._sync_seconds = 1e6
    assert queue.run(write()) == 2
    assert log.synced == [1, 1]


def test_those_who_stay_away_are_not_waited_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    log: Any = CountingLog()
    queue = CommitQueue(log, Turns())
    queue._companions, queue._sync_seconds = 3, 0.001
    assert queue.run(write()) == 1  # after a tenth of a millisecond
    assert queue._companions == 1


class Gate:
    """Stops a thread at a place until it is opened, and tells when it has come there."""

    def __init__(self) -> None:
        self._reached = threading.Event()
        self._opened = threading.Event()

    def stop(self) -> None:
        self._reached.set()
        assert self._opened.wait(60)

    def wait_until_reached(self) -> None:
        assert self._reached.wait(60)

    def open(self) -> None:
        self._opened.set()


class Writer(threading.Thread):
    """Runs one write, and keeps what it raised."""

    def __init__(self, queue: CommitQueue, write: Write) -> None:
        super().__init__()
        self._queue, self._write = queue, write
        self.error: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            self._queue.run(self._write)
        except BaseException as error:
            self.error = error


class SteppingLog(CountingLog):
    """Tells when its `number`-th sync has been made."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self._number = number
        self.reached = threading.Event()

    def sync(self, seq: int) -> None:
        super().sync(seq)
        if len(self.synced) == self._number:
            self.reached.set()


def test_the_log_takes_the_next_group_while_one_is_applied_and_order_is_kept() -> None:
    log: Any = SteppingLog(2)
    queue, gate, applied = CommitQueue(log, Turns()), Gate(), []

    def slow(sequence: int) -> int:
        gate.stop()
        applied.append(sequence)
        return sequence

    def fast(sequence: int) -> int:
        applied.append(sequence)
        return sequence

    first = Writer(queue, Write(lambda: (1, b"first"), slow))
    gate.wait_until_reached()
    second = Writer(queue, Write(lambda: (1, b"second"), fast))
    assert log.reached.wait(60)
    second.join(0.05)
    assert not applied
    assert second.is_alive()
    gate.open()
    first.join(60)
    second.join(60)
    assert applied == [1, 2]


def test_a_write_that_must_be_alone_waits_until_earlier_ones_are_applied() -> None:
    log: Any = CountingLog()
    queue, gate, seen = CommitQueue(log, Turns()), Gate(), []

    def slow(sequence: int) -> int:
        gate.stop()
        seen.append("applied")
        return sequence

    def look() -> tuple[int, bytes]:
        seen.append("looked")
        return 1, b"second"

    first = Writer(queue, Write(lambda: (1, b"first"), slow))
    gate.wait_until_reached()
    second = Writer(queue, Write(look, lambda sequence: sequence, alone=True))
    second.join(0.05)
    gate.open()
    first.join(60)
    second.join(60)
    assert seen == ["applied", "looked"]


def test_what_follows_a_write_that_was_not_applied_is_not_applied_either() -> None:
    log: Any = SteppingLog(2)
    queue, gate, applied = CommitQueue(log, Turns()), Gate(), []

    def interrupted(sequence: int) -> int:
        gate.stop()
        raise KeyboardInterrupt

    first = Writer(queue, Write(lambda: (1, b"first"), interrupted))
    gate.wait_until_reached()

    def apply(sequence: int) -> int:
        applied.append(sequence)
        return sequence

    second = Writer(queue, Write(lambda: (1, b"second"), apply))
    assert log.reached.wait(60)
    gate.open()
    first.join(60)
    second.join(60)
    assert isinstance(first.error, KeyboardInterrupt)
    assert isinstance(second.error, StorageIOError)
    assert not applied
    with pytest.raises(ReadOnlyError):
        queue.run(write())


class InterruptingLog(CountingLog):
    """Interrupts its first sync, once that has been let go on."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = Gate()

    def sync(self, seq: int) -> None:
        if not self.synced:
            self.synced.append(0)
            self.gate.stop()
            raise KeyboardInterrupt
        super().sync(seq)


def wait_until_logged(queue: CommitQueue, count: int) -> None:
    while len(queue._logged) < count:
        time.sleep(0.001)


@pytest.mark.parametrize("error", [MemoryError, KeyboardInterrupt, StorageIOError])
def test_what_goes_wrong_before_the_log_is_touched_stops_nothing(
    error: type[BaseException],
) -> None:
    log: Any = CountingLog()
    queue = CommitQueue(log, Turns())

    def encode() -> tuple[int, bytes]:
        raise error

    with pytest.raises(error):
        queue.run(Write(encode, lambda sequence: sequence, alone=True))
    assert queue.refusal is None
    assert queue.run(write()) == 1


def test_writes_are_put_into_the_log_while_earlier_ones_are_synced() -> None:
    log: Any = CountingLog()
    gate, plain_sync = Gate(), log.sync

    def sync(seq: int) -> None:
        if not log.synced:
            gate.stop()
        plain_sync(seq)

    log.sync = sync
    queue = CommitQueue(log, Turns())
    first = Writer(queue, write())
    gate.wait_until_reached()
    rest = [Writer(queue, write()) for _ in range(3)]
    wait_until_logged(queue, 3)
    gate.open()
    for writer in (first, *rest):
        writer.join(60)
    assert log.synced == [1, 3]


def test_a_leader_that_is_interrupted_leaves_nobody_waiting() -> None:
    log: Any = InterruptingLog()
    queue = CommitQueue(log, Turns())
    first = Writer(queue, write())
    log.gate.wait_until_reached()
    second = Writer(queue, write())
    wait_until_logged(queue, 1)
    log.gate.open()
    first.join(60)
    second.join(60)
    assert isinstance(first.error, KeyboardInterrupt)
    assert not second.is_alive()
    with pytest.raises(ReadOnlyError):
        queue.run(write())


def test_a_writer_interrupted_beside_the_log_leaves_nobody_waiting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log: Any = CountingLog()
    queue = CommitQueue(log, Turns())

    def interrupt() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(queue._arrived, "notify", interrupt)
    with pytest.raises(KeyboardInterrupt):
        queue.run(write())  # it is in the log, and would have led
    assert not queue._leading
    assert not queue._logged
    queue._leading = True
    with pytest.raises(ReadOnlyError):
        queue.run(write())
    queue._refusal = None
    with pytest.raises(KeyboardInterrupt):
        queue.run(write())  # it would have waited
    assert not queue._logged


def test_turns_are_had_in_the_order_in_which_they_were_asked_for() -> None:
    turns = Turns()
    order: list[str] = []

    def alone(name: str) -> None:
        with turns:
            order.append(name)

    def group(name: str) -> None:
        with turns.shared():
            order.append(name)

    asked = [(alone, "first"), (group, "second"), (alone, "third"), (group, "fourth")]
    threads = [threading.Thread(target=ask, args=(name,)) for ask, name in asked]
    with turns.shared():
        with turns.shared():  # groups do not wait for each other
            pass
        for waiting, thread in enumerate(threads):
            thread.start()
            while len(turns._line) <= waiting:
                time.sleep(0.001)
        assert not order
    for thread in threads:
        thread.join(60)
    assert order == [name for _, name in asked]


def test_one_who_gives_up_waiting_for_the_turn_leaves_the_line() -> None:
    turns = Turns()
    with turns:
        changed, turns._changed = turns._changed, _Interrupted()  # type: ignore[assignment]
        with pytest.raises(KeyboardInterrupt), turns.shared():
            pass
        turns._changed = changed
    with turns, pytest.raises(RuntimeError, match="let go"):
        raise RuntimeError("let go")
    with turns.shared():
        pass


class _Interrupted:
    """A condition whose waiters are interrupted."""

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...

    def wait_for(self, _: object) -> None:
        raise KeyboardInterrupt

    def notify_all(self) -> None: ...


def test_a_close_waits_for_the_write_that_runs() -> None:
    log: Any = CountingLog()
    queue = CommitQueue(log, Turns())
    begun, go_on = threading.Event(), threading.Event()

    def apply(sequence: int) -> int:
        begun.set()
        assert go_on.wait(60)
        return sequence

    writer = threading.Thread(target=queue.run, args=(Write(lambda: (1, b"x"), apply),))
    writer.start()
    assert begun.wait(60)
    closer = threading.Thread(target=queue.close, args=(ClosedError("closed"),))
    closer.start()
    closer.join(0.1)
    assert closer.is_alive()
    go_on.set()
    closer.join(60)
    writer.join(60)
    with pytest.raises(ClosedError):
        queue.run(write())

"""Who shares a sync with whom."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import pytest

from vecdb.collection.commit import CommitQueue, Write


class CountingLog:
    """Stands for the log: remembers how many records each append brought."""

    def __init__(self) -> None:
        self.appends: list[int] = []
        self._last = 0

    def append(self, records: Sequence[tuple[int, bytes]]) -> int:
        self.appends.append(len(records))
        self._last += len(records)
        return self._last


def write() -> Write:
    return Write(lambda: (1, b"record"), lambda sequence: sequence)


def test_a_leader_waits_for_those_who_were_there_a_moment_ago(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("vecdb.collection.commit._LONGEST_WAIT", 60.0)
    log: Any = CountingLog()
    queue = CommitQueue(log, threading.Lock())
    queue._companions, queue._commit_seconds = 3, 1e6
    writers = [threading.Thread(target=queue.run, args=(write(),)) for _ in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(timeout=60)
    assert log.appends == [3]
    assert queue._companions == 3


def test_a_writer_alone_waits_for_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vecdb.collection.commit._LONGEST_WAIT", 1e6)
    log: Any = CountingLog()
    queue = CommitQueue(log, threading.Lock())
    queue._commit_seconds = 1e6
    assert queue.run(write()) == 1
    queue._commit_seconds = 1e6
    assert queue.run(write()) == 2
    assert log.appends == [1, 1]


def test_those_who_stay_away_are_not_waited_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    log: Any = CountingLog()
    queue = CommitQueue(log, threading.Lock())
    queue._companions, queue._commit_seconds = 3, 0.001
    assert queue.run(write()) == 1  # after a tenth of a millisecond
    assert queue._companions == 1

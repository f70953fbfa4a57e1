"""Group commit: writers that come together share one write to the WAL and one sync.

The first writer to arrive becomes the leader: it takes everything that waits and makes it durable
in one step. Then another leads, while the first applies its group, in the order of the log, and
wakes those who were in it: the disk need not wait for memory, nor memory for the disk. Nobody sees
a write before it is durable, and nobody is told of one before it can be seen.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from vecdb.collection.turns import Turns
from vecdb.errors import ClosedError, ReadOnlyError, StorageIOError, VecdbError
from vecdb.storage import Wal

_WAIT_SHARE = 0.1
_LONGEST_WAIT = 0.005

Encoded = tuple[int, bytes]
"""A WAL record: its kind and its body."""


@dataclass(slots=True, eq=False)
class Write:
    """One write that waits for its turn.

    Attributes
    ----------
    encode
        Returns the WAL record, or None when there turns out to be nothing to write. It runs when
        every earlier write has been applied, if `alone`.
    apply
        Takes the record's sequence number, makes the write visible, and returns the result.
    alone
        Whether what is written depends on what is there: then no other write shares its turn.
    taken
        Whether it is in a group.
    """

    encode: Callable[[], Encoded | None]
    apply: Callable[[int], int]
    alone: bool = False
    taken: bool = False
    done: bool = False
    result: int = 0
    error: VecdbError | None = None


class CommitQueue:
    """Runs the writes of one collection, one group after another.

    Parameters
    ----------
    wal
        Where they are made durable.
    turns
        Held while a group is written and applied; who has it alone sees no half of a group.
    """

    def __init__(self, wal: Wal, turns: Turns) -> None:
        self._wal = wal
        self._turns = turns
        self._waiting: deque[Write] = deque()
        # Protects _waiting, _leading, _durable, _applied, _broken, _refusal, and each write's
        # taken and done.
        lock = threading.Lock()
        self._state = threading.Condition(lock)
        self._arrived = threading.Condition(lock)  # told of each write that joins _waiting
        self._leading = False
        self._companions = 1  # how many writers there were a moment ago; the leader's
        self._commit_seconds = 0.0  # how long their commit took; the leader's
        self._durable = 0  # how many groups are in the log
        self._applied = 0  # how many of them are applied, in the same order
        self._broken = False  # whether the next of them will never be
        self._refusal: VecdbError | None = None

    def run(self, write: Write) -> int:
        """Make `write` durable and visible; return what its `apply` returned.

        Raises
        ------
        DiskFullError
            If there is no room; nothing of the write is kept.
        StorageIOError
            If the disk failed. Whether the write is kept is unknown until the collection is
            opened again; until then it takes no writes.
        ReadOnlyError
            If the disk failed earlier.
        """
        with self._state:
            self._waiting.append(write)
            self._arrived.notify()
        while self._leads(write):
            self._run_group()
        if write.error is not None:
            raise write.error
        return write.result

    def _leads(self, write: Write) -> bool:
        """Wait until `write` is done, or its writer is the one to lead; return whether it is."""
        with self._state:
            while not write.done and (write.taken or self._leading):
                self._state.wait()
            if write.done:
                return False
            self._leading = True
            return True

    def close(self) -> None:
        """Refuse every write from now on; one that runs is waited for."""
        with self._state:
            self._refusal = ClosedError("the database was closed: connect again to write")
        with self._turns:
            pass

    @property
    def refusal(self) -> VecdbError | None:
        """Why writes are refused, if they are."""
        return self._refusal

    def refuse_if_stopped(self) -> None:
        """Raise when no writes are taken.

        Raises
        ------
        ReadOnlyError, ClosedError
        """
        refusal = self._refusal
        if refusal is not None:
            raise type(refusal)(str(refusal))

    def stop(self, error: VecdbError) -> None:
        """Refuse every write from now on, because the disk failed."""
        with self._state:
            if self._refusal is not None:
                return
            self._refusal = ReadOnlyError(
                f"no writes are taken since one failed ({error}): mend the disk and open the "
                "database again"
            )

    def _gather(self) -> None:
        """Give writers that were here a moment ago a moment to come back.

        Those whose writes were just committed together are preparing their next ones. Without a
        wait the one that missed that commit would have the next to itself, and they the one after:
        half as many to a sync as there could be.
        """
        wait = min(_LONGEST_WAIT, _WAIT_SHARE * self._commit_seconds)
        with self._state:
            self._arrived.wait_for(lambda: len(self._waiting) >= self._companions, wait)

    def _run_group(self) -> None:
        """Make a group durable, leave the lead to a writer that waits, and apply the group."""
        leading = True
        try:
            self._gather()
            with self._turn_of_next():
                group = self._take_group()
                try:
                    records = self._commit(group)
                    number = self._leave_lead(durable=bool(records))
                    leading = False
                    if records:
                        self._apply(number, records)
                except StorageIOError as error:
                    self.stop(error)
                    _fail(group, error)
                except VecdbError as error:
                    _fail(group, error)
                except BaseException as error:
                    # Part of the group may be durable and not applied: only opening again tells.
                    interrupted = StorageIOError(f"the writer was interrupted by {error!r}")
                    self.stop(interrupted)
                    _fail(group, interrupted)
                    raise
                finally:
                    self._finish(group)
        finally:
            if leading:
                self._leave_lead(durable=False)

    def _turn_of_next(self) -> AbstractContextManager[None]:
        with self._state:
            return self._turns if self._waiting[0].alone else self._turns.shared()

    def _take_group(self) -> list[Write]:
        with self._state:
            group = [self._waiting.popleft()]
            while not group[0].alone and self._waiting and not self._waiting[0].alone:
                group.append(self._waiting.popleft())
            for write in group:
                write.taken = True
            return group

    def _leave_lead(self, *, durable: bool) -> int:
        """Let another lead; return the number of the group that is `durable` now, if one is."""
        with self._state:
            self._leading = False
            self._durable += durable
            if self._waiting:
                self._state.notify_all()
            return self._durable

    def _finish(self, group: Sequence[Write]) -> None:
        with self._state:
            for write in group:
                write.done = True
            self._state.notify_all()

    def _commit(self, group: Sequence[Write]) -> list[tuple[Write, int]]:
        """Write a group to the log; return its writes that are there, and their numbers."""
        started = time.monotonic()
        try:
            self.refuse_if_stopped()
            records = [(write, record) for write in group if (record := write.encode()) is not None]
            if not records:
                return []
            last = self._wal.append([record for _, record in records])
            first = last - len(records) + 1
            return [(write, first + i) for i, (write, _) in enumerate(records)]
        finally:
            self._commit_seconds = time.monotonic() - started
            with self._state:
                self._companions = len(group) + len(self._waiting)

    def _apply(self, number: int, records: Sequence[tuple[Write, int]]) -> None:
        """Apply what is durable, after the groups that were so before."""
        try:
            with self._state:
                self._state.wait_for(lambda: self._broken or self._applied == number - 1)
                if self._broken:
                    raise StorageIOError("the write before this one was interrupted")
            for write, sequence in records:
                write.result = write.apply(sequence)
        except BaseException:
            self._broken = True
            raise
        with self._state:
            self._applied = number


def _fail(group: Sequence[Write], error: VecdbError) -> None:
    for write in group:
        write.error = error

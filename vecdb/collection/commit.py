"""Group commit: writers that come together share one write to the WAL and one sync.

The first writer to arrive becomes the leader: it takes everything that waits, makes it durable in
one step, applies it in order, and wakes the others. Nobody sees a write before it is durable, and
nobody is told of one before it can be seen.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

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
    """

    encode: Callable[[], Encoded | None]
    apply: Callable[[int], int]
    alone: bool = False
    done: bool = False
    result: int = 0
    error: VecdbError | None = None


class CommitQueue:
    """Runs the writes of one collection, one group after another.

    Parameters
    ----------
    wal
        Where they are made durable.
    turn
        Held while a group is written and applied; whoever else holds it sees no half of a group.
    """

    def __init__(self, wal: Wal, turn: threading.Lock) -> None:
        self._wal = wal
        self._turn = turn
        self._waiting: deque[Write] = deque()
        lock = threading.Lock()  # protects _waiting, _leading, _refusal and each done
        self._state = threading.Condition(lock)
        self._arrived = threading.Condition(lock)  # told of each write that joins _waiting
        self._leading = False
        self._companions = 1  # how many writers there were a moment ago; the leader's
        self._commit_seconds = 0.0  # how long their commit took; the leader's
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
            while not write.done and self._leading:
                self._state.wait()
            if not write.done:
                self._leading = True
        if not write.done:
            self._lead(write)
        if write.error is not None:
            raise write.error
        return write.result

    def close(self) -> None:
        """Refuse every write from now on; one that runs is waited for."""
        with self._state:
            self._refusal = ClosedError("the database was closed: connect again to write")
        with self._turn:
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

    def _lead(self, own: Write) -> None:
        """Run groups until `own` is done, then leave the lead to a writer that waits."""
        try:
            while not own.done:
                self._run_group()
        finally:
            with self._state:
                self._leading = False
                self._state.notify_all()

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
        self._gather()
        started = time.monotonic()
        with self._turn:
            with self._state:
                group = self._take_group()
                refusal = self._refusal
            try:
                if refusal is not None:
                    raise type(refusal)(str(refusal))
                self._commit(group)
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
                self._commit_seconds = time.monotonic() - started
                with self._state:
                    self._companions = len(group) + len(self._waiting)
                    for write in group:
                        write.done = True
                    self._state.notify_all()

    def _take_group(self) -> list[Write]:
        group = [self._waiting.popleft()]
        while not group[0].alone and self._waiting and not self._waiting[0].alone:
            group.append(self._waiting.popleft())
        return group

    def _commit(self, group: Sequence[Write]) -> None:
        records = [(write, record) for write in group if (record := write.encode()) is not None]
        if not records:
            return
        last = self._wal.append([record for _, record in records])
        for sequence, (write, _) in enumerate(records, last - len(records) + 1):
            write.result = write.apply(sequence)


def _fail(group: Sequence[Write], error: VecdbError) -> None:
    for write in group:
        write.error = error

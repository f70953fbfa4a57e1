"""Group commit: writers that come together share one sync of the WAL.

Each writer puts its own record into the log, while the disk may be busy with earlier ones. The
first whose record is there becomes the leader: it makes everything that is in the log durable with
one sync. Then another leads, while the first applies its group, in the order of the log, and wakes
those who were in it: the disk need not wait for memory, nor memory for the disk. Nobody sees a
write before it is durable, and nobody is told of one before it can be seen.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from vecdb.collection.turns import Turns
from vecdb.errors import ReadOnlyError, StorageIOError, VecdbError
from vecdb.storage import Wal

_WAIT_SHARE = 0.1
_LONGEST_WAIT = 0.005
_SHORTEST_WAIT = 0.000_2
"""A wait for less is not worth it: to sleep and to be woken takes about as long."""

Encoded = tuple[int, bytes]
"""A WAL record: its kind and its body."""


def _taken_lock() -> threading.Lock:
    lock = threading.Lock()
    lock.acquire()
    return lock


@dataclass(slots=True, eq=False)
class Write:
    """One write on its way into the log and then into memory.

    Attributes
    ----------
    encode
        Returns the WAL record, or None when there turns out to be nothing to write. It runs when
        every earlier write has been applied, if `alone`.
    apply
        Takes the record's sequence number, makes the write visible, and returns the result.
    alone
        Whether what is written depends on what is there: then no other write is under way.
    sequence
        The number of its record.
    leads
        Whether it is for its writer to make durable what is in the log.
    """

    encode: Callable[[], Encoded | None]
    apply: Callable[[int], int]
    alone: bool = False
    sequence: int = 0
    leads: bool = False
    done: bool = False
    result: int = 0
    error: VecdbError | None = None
    _woken: threading.Lock = field(default_factory=_taken_lock)

    def wait(self) -> None:
        """Wait until it leads or is done."""
        self._woken.acquire()

    def lead(self) -> None:
        """Wake its writer to lead."""
        self.leads = True
        self._woken.release()

    def finish(self) -> None:
        """Wake its writer to return."""
        if not self.done:
            self.done = True
            if not self.leads:  # who leads does not wait
                self._woken.release()


class CommitQueue:
    """Runs the writes of one collection, one group after another.

    Parameters
    ----------
    wal
        Where they are made durable.
    turns
        Shared by every write until it is applied; who has it alone sees none half done.
    """

    def __init__(self, wal: Wal, turns: Turns) -> None:
        self._wal = wal
        self._turns = turns
        self._writing = threading.Lock()  # held while a record is added to the log
        # Protects everything below.
        lock = threading.Lock()
        self._arrived = threading.Condition(lock)  # told of each write that joins _logged
        self._state = threading.Condition(lock)  # told when a group was applied
        self._logged: deque[Write] = deque()  # in the log and in no group, in its order
        self._leading = False
        self._companions = 1  # how many writers there were a moment ago; the leader's
        self._sync_seconds = 0.0  # how long their sync took; the leader's
        self._durable = 0  # how many groups are durable
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
        with self._turns if write.alone else self._turns.shared():
            if not self._log(write):
                return write.result
            if not write.leads:
                write.wait()
            if not write.done:
                self._run_group()
        if write.error is not None:
            raise write.error
        return write.result

    def close(self, refusal: VecdbError) -> None:
        """Refuse every write from now on, for that reason; one that runs is waited for."""
        with self._state:
            self._refusal = refusal
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

    def _log(self, write: Write) -> bool:
        """Put a write into the log; return whether there was anything to write.

        Afterwards it leads, or whoever does will come to it.
        """
        begun = False
        try:
            with self._writing:
                self.refuse_if_stopped()
                record = write.encode()
                if record is None:
                    return False
                begun = True
                write.sequence = self._wal.write([record])
                with self._state:
                    self._logged.append(write)
                    if not self._leading:
                        self._leading = write.leads = True
                    self._arrived.notify()
                return True
        except StorageIOError as error:
            if begun:
                self.stop(error)
            raise
        except VecdbError:
            raise
        except BaseException as error:
            if begun:  # it may be in the log and will not be applied: only opening again tells
                self._abandon(write, _interrupted_by(error))
            raise

    def _gather(self) -> None:
        """Give writers that were here a moment ago a moment to come back.

        Those whose writes were just committed together are preparing their next ones. Without a
        wait the one that missed that commit would have the next to itself, and they the one after:
        half as many to a sync as there could be. Where a sync is fast that is the better way: some
        prepare and apply while the disk is busy with the others.
        """
        wait = min(_LONGEST_WAIT, _WAIT_SHARE * self._sync_seconds)
        if wait >= _SHORTEST_WAIT:
            with self._state:
                self._arrived.wait_for(lambda: len(self._logged) >= self._companions, wait)

    def _run_group(self) -> None:
        """Make a group durable, leave the lead to a writer that waits, and apply the group."""
        group: Sequence[Write] = ()
        leading = True
        try:
            self._gather()
            group = self._take_group()
            self._sync(group)
            number = self._leave_lead(durable=True)
            leading = False
            self._apply(number, group)
        except BaseException as error:
            # Part of the group may be durable and not applied: only opening again tells.
            failure = error if isinstance(error, VecdbError) else _interrupted_by(error)
            self.stop(failure)
            group = group or self._take_group()
            if leading:
                self._leave_lead(durable=False)
            _finish(group, failure)
            if failure is not error:
                raise

    def _abandon(self, write: Write, error: StorageIOError) -> None:
        """Stop, because a writer was interrupted; if it leads, those who wait for it fail."""
        self.stop(error)
        group = []
        if write.leads:
            group = self._take_group()
            self._leave_lead(durable=False)
        else:
            with self._state, suppress(ValueError):
                self._logged.remove(write)  # or it might be told to lead
        _finish(group, error)

    def _take_group(self) -> list[Write]:
        with self._state:
            group = list(self._logged)
            self._logged.clear()
            return group

    def _leave_lead(self, *, durable: bool) -> int:
        """Let another lead; return the number of the group that is `durable` now, if one is."""
        with self._state:
            self._durable += durable
            self._leading = bool(self._logged)
            if self._logged:
                self._logged[0].lead()
            return self._durable

    def _sync(self, group: Sequence[Write]) -> None:
        started = time.monotonic()
        self._wal.sync(group[-1].sequence)
        self._sync_seconds = time.monotonic() - started
        with self._state:
            self._companions = len(group) + len(self._logged)

    def _apply(self, number: int, group: Sequence[Write]) -> None:
        """Apply what is durable, after the groups that were so before."""
        try:
            with self._state:
                self._state.wait_for(lambda: self._broken or self._applied == number - 1)
                if self._broken:
                    raise StorageIOError("the write before this one was interrupted")
            for write in group:
                write.result = write.apply(write.sequence)
                write.finish()
        except BaseException:
            with self._state:
                self._broken = True
                self._state.notify_all()
            raise
        with self._state:
            self._applied = number
            self._state.notify_all()


def _interrupted_by(error: BaseException) -> StorageIOError:
    return StorageIOError(f"the writer was interrupted by {error!r}")


def _finish(group: Sequence[Write], error: VecdbError) -> None:
    """Let those of a group that are not done fail."""
    for write in group:
        if not write.done:
            write.error = error
            write.finish()

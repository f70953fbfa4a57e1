"""Who may work now, who waits, and who is turned away."""

from __future__ import annotations

import threading
from collections import deque
from enum import StrEnum
from typing import Protocol

from vecdb.errors import CancelledError, DeadlineExceededError, OverloadedError
from vecdb_server.config import ClassLimit, Limits

_LOOK_AGAIN = 0.25
"""Seconds after which a waiting call looks whether its caller is still there."""


class CallClass(StrEnum):
    """What kind of work a call is; each has limits of its own."""

    SEARCH = "search"
    WRITE = "write"
    ADMIN = "admin"
    GENERATE = "generate"


class Caller(Protocol):
    """What is asked of a call's context."""

    def is_active(self) -> bool:
        """Return whether anybody still waits for the answer."""

    def time_remaining(self) -> float:
        """Return the seconds until the deadline; a huge number without one."""


class Gate:
    """Lets some calls of one class run at a time, lets some more wait, and refuses the rest."""

    def __init__(self, name: CallClass, limit: ClassLimit) -> None:
        self._name = name
        self._limit = limit
        self._running = 0
        self._queue: deque[threading.Event] = deque()
        self._lock = threading.Lock()  # protects the two fields above

    def enter(self, caller: Caller) -> None:
        """Wait for a turn; after it, `leave` must be called.

        Raises
        ------
        OverloadedError
            At once, when as many wait as may.
        DeadlineExceededError, CancelledError
            When the deadline passed or the caller went away before the turn came.
        """
        with self._lock:
            if self._running < self._limit.running:
                self._running += 1
                return
            if len(self._queue) >= self._limit.waiting:
                raise OverloadedError(
                    f"{self._running} {self._name} calls are running and {len(self._queue)} are "
                    "waiting: try again later"
                )
            turn = threading.Event()
            self._queue.append(turn)
        try:
            while not turn.wait(_LOOK_AGAIN):
                refuse_if_gone(caller)
            refuse_if_gone(caller)
        except BaseException:
            self._give_up(turn)
            raise

    def leave(self) -> None:
        """Hand the turn to the call that has waited longest."""
        with self._lock:
            if self._queue:
                self._queue.popleft().set()
            else:
                self._running -= 1

    def is_busy(self) -> bool:
        """Return whether a call works or waits."""
        with self._lock:
            return self._running > 0

    def _give_up(self, turn: threading.Event) -> None:
        with self._lock:
            if not turn.is_set():
                self._queue.remove(turn)
                return
        self.leave()


def gates(limits: Limits) -> dict[CallClass, Gate]:
    """Return the gate of each class."""
    return {
        CallClass.SEARCH: Gate(CallClass.SEARCH, limits.search),
        CallClass.WRITE: Gate(CallClass.WRITE, limits.write),
        CallClass.ADMIN: Gate(CallClass.ADMIN, limits.admin),
        CallClass.GENERATE: Gate(CallClass.GENERATE, limits.generate),
    }


def refuse_if_gone(caller: Caller) -> None:
    """Raise when nobody waits for the answer any more.

    Raises
    ------
    DeadlineExceededError, CancelledError
    """
    if caller.time_remaining() <= 0:
        raise DeadlineExceededError("the deadline passed before the work was done")
    if not caller.is_active():
        raise CancelledError("the caller went away before the work was done")

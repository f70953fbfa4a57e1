"""Who may work now, who waits, and who is turned away."""

from __future__ import annotations

import threading
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
        self._room = threading.BoundedSemaphore(limit.running + limit.waiting)
        self._turns = threading.BoundedSemaphore(limit.running)

    def enter(self, caller: Caller) -> None:
        """Wait for a turn; after it, `leave` must be called.

        Raises
        ------
        OverloadedError
            At once, when as many wait as may.
        DeadlineExceededError, CancelledError
            When the deadline passed or the caller went away before the turn came.
        """
        if not self._room.acquire(blocking=False):
            raise OverloadedError(
                f"{self._limit.running} {self._name} calls are running and {self._limit.waiting} "
                "are waiting: try again later"
            )
        try:
            self._wait(caller)
        except BaseException:
            self._room.release()
            raise

    def leave(self) -> None:
        """Give the turn to the next."""
        self._turns.release()
        self._room.release()

    def _wait(self, caller: Caller) -> None:
        refuse_if_gone(caller)
        if self._turns.acquire(blocking=False):
            return
        while not self._turns.acquire(timeout=_LOOK_AGAIN):
            refuse_if_gone(caller)
        try:
            refuse_if_gone(caller)
        except BaseException:
            self._turns.release()
            raise


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
        raise DeadlineExceededError("the deadline passed before the work began")
    if not caller.is_active():
        raise CancelledError("the caller went away before the work began")

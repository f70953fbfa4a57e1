"""Whether anybody still waits for the work that a thread does.

A server sets the check around a call, and `vecdb.interrupts` around what the main thread waits for;
work that takes long asks it now and then, and is given up by what it raises. Where nobody set one
the caller cannot go away.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar


def _nobody_can_go() -> None:
    """Go on."""


_CHECK: ContextVar[Callable[[], None]] = ContextVar("vecdb_caller_check", default=_nobody_can_go)


@contextmanager
def checking_caller(check: Callable[[], None]) -> Iterator[None]:
    """Let `check_caller` call `check` in this thread; it raises once the caller has gone."""
    token = _CHECK.set(check)
    try:
        yield
    finally:
        _CHECK.reset(token)


def caller_check() -> Callable[[], None]:
    """Return the check of this thread, for others that do a part of its work."""
    return _CHECK.get()


def check_caller() -> None:
    """Raise what the check raises, once nobody waits for this thread's work."""
    caller_check()()

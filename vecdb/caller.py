"""Whether anybody still waits for the work that a thread does.

A server sets the check around a call; work that takes long asks it now and then, and is given up
by what it raises. Where nobody set one, as in the embedded engine, the caller cannot go away.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_CHECK: ContextVar[Callable[[], None] | None] = ContextVar("vecdb_caller_check", default=None)


@contextmanager
def checking_caller(check: Callable[[], None]) -> Iterator[None]:
    """Let `check_caller` call `check` in this thread; it raises once the caller has gone."""
    token = _CHECK.set(check)
    try:
        yield
    finally:
        _CHECK.reset(token)


def check_caller() -> None:
    """Raise what the server's check raises, once nobody waits for this thread's work."""
    check = _CHECK.get()
    if check is not None:
        check()

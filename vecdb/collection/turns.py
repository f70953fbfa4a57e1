"""Whose turn it is to change a collection: groups of writes on their way, or somebody alone."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Turns:
    """A lock that groups of writes share, and that anybody else holds alone, as a ``with`` block.

    Who holds it alone sees every write that reached the log applied, and no half of a group. It is
    had in the order in which it was asked for: neither do steady writers keep out one who wants it
    alone, nor do those who want it alone, one after the other, keep out a writer.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()  # protects everything below
        self._groups = 0
        self._alone = False
        self._line: deque[object] = deque()  # those who wait, the first to come first

    def __enter__(self) -> None:
        with self._changed:
            self._wait_in_line(lambda: not self._alone and not self._groups)
            self._alone = True

    def __exit__(self, *exception: object) -> None:
        with self._changed:
            self._alone = False
            self._changed.notify_all()

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Hold it for a group of writes, beside others."""
        with self._changed:
            self._wait_in_line(lambda: not self._alone)
            self._groups += 1
        try:
            yield
        finally:
            with self._changed:
                self._groups -= 1
                if not self._groups:
                    self._changed.notify_all()

    def _wait_in_line(self, free: Callable[[], bool]) -> None:
        if not self._line and free():
            return
        place = object()
        self._line.append(place)
        try:
            self._changed.wait_for(lambda: self._line[0] is place and free())
        finally:  # also when the wait is interrupted: the next in line must not wait for this one
            self._line.remove(place)
            self._changed.notify_all()

"""Whose turn it is to change a collection: groups of writes on their way, or somebody alone."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Turns:
    """A lock that groups of writes share, and that anybody else holds alone, as a ``with`` block.

    Who holds it alone sees every write that reached the log applied, and no half of a group. One
    who waits to is let in before any further group, or steady writers would keep it out forever.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()  # protects everything below
        self._groups = 0
        self._alone = False
        self._wanted = 0  # how many wait to have it alone

    def __enter__(self) -> None:
        with self._changed:
            self._wanted += 1
            try:
                self._changed.wait_for(lambda: not self._alone and not self._groups)
                self._alone = True
            finally:
                self._wanted -= 1

    def __exit__(self, *exception: object) -> None:
        with self._changed:
            self._alone = False
            self._changed.notify_all()

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Hold it for a group of writes, beside others."""
        with self._changed:
            self._changed.wait_for(lambda: not self._alone and not self._wanted)
            self._groups += 1
        try:
            yield
        finally:
            with self._changed:
                self._groups -= 1
                if not self._groups:
                    self._changed.notify_all()

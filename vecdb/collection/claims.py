"""Which ids somebody writes texts under, so that two texts of one id follow one another."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from vecdb.types import PointId


class Claims:
    """Claims on ids; one who wants an id that others claim waits for those who came before.

    Whoever writes a text looks for what earlier ones left and deletes it. Two at once would not
    see each other's points, and both would stay.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()  # protects the line
        self._line: dict[object, frozenset[str]] = {}  # who has or waits for what, in order

    @contextmanager
    def on(self, ids: Iterable[PointId]) -> Iterator[None]:
        """Claim ids inside a ``with`` block; 1 and "1", whose chunks share ids, are one."""
        place, wanted = object(), frozenset(map(str, ids))
        with self._changed:
            self._line[place] = wanted
        try:
            with self._changed:
                self._changed.wait_for(lambda: self._is_free(place, wanted))
            yield
        finally:
            with self._changed:
                del self._line[place]
                self._changed.notify_all()

    def _is_free(self, place: object, wanted: frozenset[str]) -> bool:
        for other, claimed in self._line.items():
            if other is place:
                return True
            if not wanted.isdisjoint(claimed):
                return False
        raise AssertionError("this claim left the line")

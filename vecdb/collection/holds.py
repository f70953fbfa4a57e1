"""Keeping a collection's files from being deleted while somebody copies them."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from vecdb.collection.snapshot import Snapshot
from vecdb.collection.stored import StoredCollection
from vecdb.errors import ClosedError, VecdbError
from vecdb.storage import Store

_log = logging.getLogger(__name__)


class StoppedError(ClosedError):
    """The collection is closing; the step in hand was given up."""


@dataclass(frozen=True, slots=True)
class HeldFiles:
    """The files of a collection at one moment, none of which is deleted or changed meanwhile.

    Attributes
    ----------
    store
        Where they lie.
    stored
        The segments and tombstones.
    log
        The names of the log's files that hold later writes, and how many bytes of each count.
    snapshot
        What a reader saw at that moment.
    check
        Raises `StoppedError` when the collection is closing, and the files must be let go of.
    """

    store: Store
    stored: StoredCollection
    log: list[tuple[str, int]]
    snapshot: Snapshot
    check: Callable[[], None]


class Holds:
    """Defers the deletion of files for as long as anybody holds them.

    Parameters
    ----------
    delete
        Deletes files by name, and whatever else is waiting to go; called when nobody holds
        anything, one call at a time.
    """

    def __init__(self, delete: Callable[[set[str]], None]) -> None:
        self._delete = delete
        self._doomed: dict[str, int] = {}  # with their sizes; replaced, so anybody may look
        self._holders = 0
        self._stopped = False
        self._state = threading.Condition()  # protects the fields above; held by `_delete`

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Let nothing be deleted in this block.

        Raises
        ------
        StoppedError
            If the collection is closing.
        """
        with self._state:
            self.check()
            self._holders += 1
        try:
            yield
        finally:
            with self._state:
                self._holders -= 1
                if not self._stopped:  # else another process may own the files in a moment
                    self._delete_if_free()
                self._state.notify_all()

    def check(self) -> None:
        """Raise when whoever holds files must let go of them.

        Raises
        ------
        StoppedError
        """
        if self._stopped:
            raise StoppedError("the collection is closing")

    @property
    def bytes(self) -> int:
        """The size of the files that are kept only because somebody holds them."""
        return sum(self._doomed.values())

    def discard(self, files: Mapping[str, int]) -> None:
        """Delete files, given with their sizes, at once or when nobody holds them any more."""
        with self._state:
            self._doomed = {**self._doomed, **files}
            if not self._holders:
                self._delete_doomed()

    def stop(self) -> None:
        """Let nobody hold anything any more, and wait until nobody does."""
        with self._state:
            self._stopped = True
            self._state.wait_for(lambda: not self._holders)

    def _delete_if_free(self) -> None:
        try:
            if not self._holders:
                self._delete_doomed()
        except VecdbError as error:
            # Whoever held them is done, and opening the collection deletes them as well.
            _log.warning("files that were kept for a copy are not deleted yet: %s", error)

    def _delete_doomed(self) -> None:
        self._delete(set(self._doomed))
        self._doomed = {}

"""Threads for all collections of a database: one seals, one indexes, one merges, one scrubs."""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress

from vecdb.collection import Collection
from vecdb.collection.holds import StoppedError
from vecdb.collection.scrub import Throttle
from vecdb.errors import (
    ClosedError,
    CollectionNotFoundError,
    ResourceExhaustedError,
    VecdbError,
)

_POLL_SECONDS = 0.25
_RETRY_SECONDS = 10.0
_NICENESS = 5

_log = logging.getLogger(__name__)


class Housekeeping:
    """Looks at every collection a few times a second and does what is due.

    Parameters
    ----------
    collections
        Returns the collections there are.
    """

    def __init__(self, collections: Callable[[], Sequence[Collection]]) -> None:
        self._collections = collections
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(step,), name=name, daemon=True)
            for name, step in [
                ("vecdb-seal", _seal),
                ("vecdb-index", _index),
                ("vecdb-merge", _merge),
            ]
        ]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Begin nothing more; what runs is stopped by closing its collection."""
        self._stop.set()

    def _run(self, step: Callable[[Collection], bool]) -> None:
        _give_way()
        wait = 0.0
        while not self._stop.wait(wait):
            wait = _POLL_SECONDS
            for collection in self._collections():
                if self._stop.is_set():
                    return
                if collection.is_read_only:
                    continue
                try:
                    if step(collection):
                        wait = 0.0
                except StoppedError:
                    continue  # dropped or closed meanwhile
                except ResourceExhaustedError as error:
                    _log.warning("collection %r: %s; trying again", collection.name, error)
                    wait = _RETRY_SECONDS
                except VecdbError as error:
                    # The disk failed: the collection has refused writes since, and still answers.
                    _log.error("collection %r: background work stopped: %s", collection.name, error)
                    collection.stop_writing(error)
                    wait = _RETRY_SECONDS
                except Exception:  # a defect, or no memory: the others are to be looked after still
                    _log.exception("collection %r: background work failed", collection.name)
                    wait = _RETRY_SECONDS


def _give_way() -> None:
    """Let readers and writers have the processor first; where threads have priorities, that is."""
    if sys.platform == "linux":
        with suppress(OSError):
            thread = threading.get_native_id()
            niceness = os.getpriority(os.PRIO_PROCESS, thread) + _NICENESS
            os.setpriority(os.PRIO_PROCESS, thread, min(niceness, 19))


class Scrubber:
    """Reads the files of every collection again from time to time; see `vecdb.collection.scrub`.

    Parameters
    ----------
    collections
        Returns the collections there are.
    seconds
        From the opening to the first scrub, and from one to the next; 0 for none.
    bytes_per_second
        How fast it reads.
    """

    def __init__(
        self,
        collections: Callable[[], Sequence[Collection]],
        seconds: int,
        bytes_per_second: int,
    ) -> None:
        self._collections = collections
        self._seconds = seconds
        self._rate = bytes_per_second
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="vecdb-scrub", daemon=True)
        if seconds:
            self._thread.start()

    def stop(self) -> None:
        """Stop at the next pause, and wait for that."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        _give_way()
        while not self._stop.wait(self._seconds):
            throttle = Throttle(self._rate, self._stop)
            for collection in self._collections():
                try:
                    report = collection.scrub(throttle)
                except (ClosedError, CollectionNotFoundError):
                    continue  # stopped, or dropped meanwhile
                except VecdbError as error:
                    _log.error("collection %r: scrub: %s", collection.name, error)
                    continue
                except Exception:
                    _log.exception("collection %r: scrub failed", collection.name)
                    continue
                _log.info(
                    "collection %r: %d files, %d bytes read again, %d damaged",
                    collection.name, report.files, report.bytes, len(report.damage),
                )  # fmt: skip


def _seal(collection: Collection) -> bool:
    return collection.seal_if_due()


def _index(collection: Collection) -> bool:
    return collection.maintenance.index()


def _merge(collection: Collection) -> bool:
    return collection.maintenance.merge()

"""What runs in the background of a collection, and how far it is."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from vecdb.types import Work, WorkKind


class Task:
    """One piece of background work.

    Parameters
    ----------
    kind
        What it does.
    rows
        How many rows it works on.
    passes
        How often it goes over them.
    """

    def __init__(self, kind: WorkKind, rows: int, passes: int) -> None:
        self._kind = kind
        self.rows = rows
        self._total = rows * passes
        self._done = 0

    def advance(self, rows: int) -> None:
        """Note that `rows` more have been gone over."""
        self._done += rows

    @property
    def state(self) -> Work:
        """What it is and how far."""
        fraction = self._done / self._total if self._total else 1.0
        return Work(self._kind, self.rows, min(fraction, 1.0))


class Progress:
    """The tasks that run now; each belongs to one thread, and anybody may look."""

    def __init__(self) -> None:
        self._tasks: list[Task] = []
        self._lock = threading.Lock()  # protects _tasks

    @contextmanager
    def task(self, kind: WorkKind, rows: int, passes: int = 1) -> Iterator[Task]:
        """Show a task for as long as the block runs."""
        task = Task(kind, rows, passes)
        with self._lock:
            self._tasks.append(task)
        try:
            yield task
        finally:
            with self._lock:
                self._tasks.remove(task)

    @property
    def work(self) -> tuple[Work, ...]:
        """What runs now, the oldest first."""
        with self._lock:
            return tuple(task.state for task in self._tasks)

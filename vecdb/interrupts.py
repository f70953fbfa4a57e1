"""Work that Ctrl-C does not cut in two.

Python raises KeyboardInterrupt, and whatever else the handler of a signal raises, in the main
thread and between any two of its steps: also after a lock was taken and before the ``try`` that
gives it back, so code that it strikes cannot be made safe. No signal strikes another thread.
Therefore the main thread lets a helper do what must be done as a whole, and waits for it, which
takes about 15 us more. Every other thread does it itself.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from typing import Any, Generic, ParamSpec, TypeVar

from vecdb.caller import checking_caller

T = TypeVar("T")
P = ParamSpec("P")


class GivenUpError(BaseException):
    """Whoever asked for this work was interrupted; it was given up at a place that allows it."""


def whole(function: Callable[P, T]) -> Callable[P, T]:
    """Make a function one that is done as a whole; an interrupt is raised when it has returned."""

    @wraps(function)
    def done_as_a_whole(*args: P.args, **kwargs: P.kwargs) -> T:
        if not _can_be_interrupted():
            return function(*args, **kwargs)
        return _let_helper(lambda: function(*args, **kwargs), patient=True)

    return done_as_a_whole


def unless_interrupted(work: Callable[[], T]) -> T:
    """Do what may take long; an interrupt is raised at once, and the work given up soon after.

    The work gives up where it asks `vecdb.caller.check_caller`.
    """
    return _let_helper(work, patient=False) if _can_be_interrupted() else work()


def _can_be_interrupted() -> bool:
    main = threading.get_ident() == threading.main_thread().ident
    return main and not sys.is_finalizing()  # other threads stand still by then


def _let_helper(work: Callable[[], T], *, patient: bool) -> T:
    errand = _Errand(work)
    try:
        # An interrupt before it is called leaves a helper that waits for ever, which does no harm.
        helper = _idle.pop() if _idle else _Helper()
    except RuntimeError:  # no thread is started any more when the interpreter is about to end
        return work()
    helper.errand = errand
    return errand.wait(helper.call, patient=patient)


class _Errand(Generic[T]):
    """Work on its way through a helper, which finishes it whether or not anybody waits."""

    def __init__(self, work: Callable[[], T]) -> None:
        self._work = work
        self._finished = threading.Lock()
        self._finished.acquire()
        self._done = False
        self._results: list[T] = []
        self._error: BaseException | None = None
        self._interrupted = False

    def run(self) -> None:
        """Do it; the caller then tells that it is `done`."""
        try:
            self._results.append(self._work())
        except BaseException as error:  # it belongs to the one who waits
            self._error = error

    def done(self) -> None:
        """Wake the one who waits."""
        self._done = True
        self._finished.release()

    def give_up_if_interrupted(self) -> None:
        """Raise once the one who waits was interrupted."""
        if self._interrupted:
            raise GivenUpError

    def wait(self, call: Callable[[], None], *, patient: bool) -> T:
        """Call the helper and return the result; `patient`, let an interrupt wait for it, too."""
        interrupt: BaseException | None = None
        called = False
        while not self._done:
            try:
                if not called:
                    call()
                    called = True
                self._finished.acquire()
            except BaseException as error:
                self._interrupted = True
                if not patient:
                    raise
                interrupt = error
        raised = self._error if interrupt is None else interrupt
        self._error = interrupt = None
        if raised is None:
            return self._results[0]
        try:
            raise raised
        finally:
            raised = None  # its traceback has this frame


class _Helper(threading.Thread):
    """Does one errand after another; lives as long as the process."""

    def __init__(self) -> None:
        super().__init__(name="vecdb-main-helper", daemon=True)
        self._called = threading.Lock()
        self._called.acquire()
        self.errand: _Errand[Any] | None = None
        self.start()

    def call(self) -> None:
        """Let it do its errand; to call it again, for fear that it has not heard, is no error."""
        with suppress(RuntimeError):  # called, and not awake yet
            self._called.release()

    def run(self) -> None:
        """Wait for errands."""
        while True:
            self._called.acquire()
            errand, self.errand = self.errand, None
            if errand is not None:
                with checking_caller(errand.give_up_if_interrupted):
                    errand.run()
                _idle.append(self)  # before the main thread looks for one again
                errand.done()
            del errand


_idle: list[_Helper] = []  # taken from by the main thread only

os.register_at_fork(after_in_child=_idle.clear)  # threads are not inherited

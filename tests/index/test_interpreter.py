"""Coming back from a kernel while other threads use the interpreter."""

import threading
from collections.abc import Callable

import pytest

from vecdb.kernels.interpreter import IS_TOLD, await_interpreter, is_held
from vecdb.kernels.jit import COMPILED, kernel


@kernel
def _sees_it_held(looks):  # type: ignore[no-untyped-def]
    look = 0
    while look < looks and not is_held():
        look += 1
    return look < looks


@kernel
def _await_it():  # type: ignore[no-untyped-def]
    await_interpreter()
    return True


def _beside_a_busy_thread(call: Callable[[], bool]) -> bool:
    """Return what a call returns while this thread does not let the interpreter go by itself."""
    returned: list[bool] = []
    thread = threading.Thread(target=lambda: returned.append(call()), daemon=True)
    thread.start()
    for _ in range(200_000_000):
        if returned:
            return returned[0]
    raise AssertionError("the kernel did not come back")


@pytest.mark.skipif(not (COMPILED and IS_TOLD), reason="this interpreter does not tell")
def test_a_kernel_sees_whether_a_thread_has_the_interpreter() -> None:
    assert not _sees_it_held(1_000)  # its own thread has let it go
    assert _beside_a_busy_thread(lambda: _sees_it_held(1_000_000_000))


def test_a_busy_interpreter_is_awaited_for_a_while_only() -> None:
    assert _await_it()
    assert _beside_a_busy_thread(_await_it)

"""Coming back from a kernel to an interpreter that other threads use, too.

A kernel runs without the interpreter's lock, and its thread takes that again when it returns. Where
another thread has it, CPython puts the thread to sleep; to be woken takes several times as long as
the few us for which a thread that searches has the lock. So kernels of searches look, before they
return, for a while whether anybody has it, as adaptive mutexes do.

CPython 3.11 tells who has the lock. Later ones tell a thread only of itself: nothing is done there.
"""

from __future__ import annotations

import ctypes
import platform
import sys
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils

from vecdb.kernels.emit import I32, I64, or_python
from vecdb.kernels.jit import inline

_CURRENT_THREAD = "_PyThreadState_UncheckedGet"
"""Returns the thread that has the lock, null for none; may be called without it."""

IS_TOLD: bool = (
    sys.implementation.name == "cpython"
    and sys.version_info < (3, 12)
    and hasattr(ctypes.pythonapi, _CURRENT_THREAD)
)
"""Whether this interpreter tells who has the lock."""

_LOOKS = 1_000
"""How often to look: 10 to 50 us, with the pauses."""
_QUIET = 16
"""How often in a row nobody must be seen with it: a lock that is being given back is worse to meet
than one that is held, and one that is given back for a moment is soon taken again."""
_PAUSES = {
    "x86_64": ("llvm.x86.sse2.pause", ()),
    "AMD64": ("llvm.x86.sse2.pause", ()),
    "aarch64": ("llvm.aarch64.hint", (1,)),
    "arm64": ("llvm.aarch64.hint", (1,)),
}


def _type_is_held(_: Any) -> Any:
    def codegen(_: Any, builder: Any, __: Any, ___: Any) -> Any:
        if not IS_TOLD:
            return ir.Constant(ir.IntType(1), 0)
        kind = ir.FunctionType(ir.IntType(8).as_pointer(), ())
        function = cgutils.get_or_insert_function(builder.module, kind, _CURRENT_THREAD)
        thread = builder.ptrtoint(builder.call(function, ()), I64)
        return builder.icmp_unsigned("!=", thread, I64(0))

    return types.boolean(), codegen


def _is_held_in_python() -> bool:
    return False


is_held = or_python(_type_is_held, _is_held_in_python)
"""Tell whether any thread has the interpreter's lock."""


def _type_pause(_: Any) -> Any:
    def codegen(context: Any, builder: Any, __: Any, ___: Any) -> Any:
        name, arguments = _PAUSES.get(platform.machine(), ("", ()))
        if name:
            kind = ir.FunctionType(ir.VoidType(), [I32] * len(arguments))
            function = cgutils.get_or_insert_function(builder.module, kind, name)
            builder.call(function, [I32(value) for value in arguments])
        return context.get_dummy_value()

    return types.void(), codegen


def _pause_in_python() -> None:
    pass


_pause = or_python(_type_pause, _pause_in_python)


@inline
def await_interpreter() -> None:
    """Return when no thread has the interpreter's lock, or after a while."""
    if not is_held():
        return
    free = 0
    for _ in range(_LOOKS):
        _pause()
        free = 0 if is_held() else free + 1
        if free == _QUIET:
            return

"""How kernels are compiled, and where the machine code is kept between processes.

Every kernel is declared with `kernel` or a relative of it. It releases the GIL, unless it is a
short one, reorders float sums, checks neither bounds nor overflow, and is cached on disk. numba's
own cache looks only at the file a function stands in, so a change in a kernel that it calls would
go unnoticed; here the cache folder's name holds a hash of every kernel source and of the versions
involved, and a changed kernel finds an empty folder. ``NUMBA_CACHE_DIR`` moves that folder,
``NUMBA_DISABLE_JIT=1`` runs the same functions as Python.
"""

from __future__ import annotations

import functools
import hashlib
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import llvmlite.binding
import numba
import numpy as np

F = TypeVar("F", bound=Callable[..., Any])

CHECK_TYPES = "VECDB_CHECK_KERNEL_TYPES"
"""The environment variable with which each call of a `direct_kernel` is checked; tests set it."""

_numba: Any = numba.config

COMPILED: bool = not _numba.DISABLE_JIT
"""False when ``NUMBA_DISABLE_JIT`` turned the compiler off."""

_decorating = threading.Lock()


def user_cache_folder() -> Path:
    """Return the folder where this user's programs keep what can be made again."""
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA")
        return Path(base) if base else Path.home() / "AppData" / "Local"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches"
    base = os.environ.get("XDG_CACHE_HOME")
    return Path(base) if base else Path.home() / ".cache"


def _fingerprint() -> str:
    """Hash whatever decides the machine code: sources, compiler, Python and processor."""
    digest = hashlib.sha256()
    for source in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(source.name.encode() + b"\0" + source.read_bytes() + b"\0")
    parts = (
        numba.__version__,
        llvmlite.__version__,
        np.__version__,
        sys.version,
        llvmlite.binding.get_host_cpu_name(),
        llvmlite.binding.get_host_cpu_features().flatten(),
    )
    digest.update("\0".join(parts).encode())
    return digest.hexdigest()[:20]


def _cache_folder() -> str | None:
    """Return the folder for this version of the kernels; None when none can be written."""
    above = Path(_numba.CACHE_DIR) if _numba.CACHE_DIR else user_cache_folder()
    folder = above / "vecdb" / "kernels" / _fingerprint()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):
        return None
    return str(folder) if os.access(folder, os.W_OK) else None


CACHE_FOLDER: str | None = _cache_folder() if COMPILED else None
"""Where compiled kernels are kept; None when they are compiled anew in each process."""


def _compiler(
    *, allocates: bool, inlined: bool = False, holds: bool = False
) -> Callable[[F], Any]:  # fmt: skip
    # Without numba's memory management nothing counts references: an array taken out of a tuple
    # would cost an atomic increment and decrement each time, as much as all else in a short loop.
    compiler: Callable[[F], Any] = numba.njit(  # type: ignore[call-overload]
        nogil=not holds, fastmath=True, error_model="numpy", _nrt=allocates, forceinline=inlined
    )
    return compiler


def _cached(function: F, *, allocates: bool, holds: bool = False) -> F:
    if not COMPILED:
        return function
    dispatcher = _compiler(allocates=allocates, holds=holds)(function)
    if CACHE_FOLDER is not None:
        # numba reads the folder when caching is switched on. It is put back at once, so that
        # the caller's own numba functions keep the folder that they would have had.
        with _decorating:
            before = _numba.CACHE_DIR
            _numba.CACHE_DIR = CACHE_FOLDER
            try:
                dispatcher.enable_caching()
            finally:
                _numba.CACHE_DIR = before
    return cast("F", dispatcher)


def kernel(function: F) -> F:
    """Compile `function` on its first call, or take it from the cache; it makes no arrays."""
    return _cached(function, allocates=False)


def direct_kernel(function: F) -> F:
    """Compile a kernel whose arguments, all positional, have the same types at every call.

    numba looks at the types of all arguments at each call: for the thirty arrays of a search in a
    graph that takes 7 us, as long as half of the search. Here it looks at those of the first call,
    and later ones go to the machine code directly. Read-only arrays count as others.
    """
    return _direct(function, kernel(function))


def short_kernel(function: F) -> F:
    """Compile a `direct_kernel` that keeps the GIL, which may take longer to get than it runs."""
    return _direct(function, _cached(function, allocates=False, holds=True))


def _direct(function: F, compiled: Any) -> F:
    if not COMPILED:
        return function
    checked = bool(os.environ.get(CHECK_TYPES))
    types: tuple[Any, ...] = ()
    code: Callable[..., Any] | None = None

    @functools.wraps(compiled)
    def call(*arguments: Any) -> Any:
        nonlocal types, code
        if code is None or checked:
            given = tuple(_writable(numba.typeof(each)) for each in arguments)
            if code is None:
                types, code = given, compiled.compile(given)
            elif given != types:
                raise TypeError(f"{function.__name__} is given {given}: must be {types}")
        return code(*arguments)

    return cast("F", call)


def _writable(kind: Any) -> Any:
    """Return a type of numba's with every array in it one that may be written to."""
    if isinstance(kind, numba.types.Array):
        return kind.copy(readonly=False)
    if isinstance(kind, numba.types.NamedTuple | numba.types.NamedUniTuple):
        parts = [_writable(part) for part in kind]
        return numba.types.BaseTuple.from_types(parts, kind.instance_class)
    return kind


def allocating_kernel(function: F) -> F:
    """Compile a kernel that makes arrays of its own."""
    return _cached(function, allocates=True)


def inline(function: F) -> F:
    """Compile `function` into each kernel that calls it; it is never called from Python.

    LLVM alone would leave the larger ones calls, and a call hands over the whole of its tuples of
    arrays, a hundred words, on the stack.
    """
    if not COMPILED:
        return function
    return cast("F", _compiler(allocates=False, inlined=True)(function))

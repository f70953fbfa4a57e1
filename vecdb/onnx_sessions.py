"""The one module that imports onnxruntime: how encoder and decoder open a graph, and on what."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Literal, TypeAlias, TypeVar

from vecdb.errors import DeviceUnavailableError
from vecdb.registry.extras import needs_extra

with needs_extra():
    import onnxruntime as ort
    from onnxruntime.capi import onnxruntime_pybind11_state as state

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"

ERRORS = (
    state.EPFail,
    state.Fail,
    state.InvalidArgument,
    state.InvalidGraph,
    state.InvalidProtobuf,
    state.NoSuchFile,
    state.NotImplemented,
    state.RuntimeException,
)
"""What onnxruntime raises; the classes have no common base below Exception."""

Session: TypeAlias = ort.InferenceSession
OrtValue = ort.OrtValue

_LOG_ERRORS_ONLY = 3

T = TypeVar("T")


def cuda_available() -> bool:
    """Tell whether the installed onnxruntime can execute on a CUDA device."""
    return CUDA in ort.get_available_providers()


def require_cuda() -> None:
    """Refuse to go on without CUDA.

    Raises
    ------
    DeviceUnavailableError
        If the installed onnxruntime has no CUDA provider.
    """
    if not cuda_available():
        raise DeviceUnavailableError(
            f'device="cuda": onnxruntime {ort.__version__} has no CUDA provider here, it has '
            f'{ort.get_available_providers()}; pip install "vecdb[gpu]" in place of "vecdb[cpu]", '
            'or use device="cpu"'
        )


def default_threads() -> int:
    """Return the number of CPUs that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def on_device(device: str, open_on: Callable[[Literal["cpu", "cuda"]], T]) -> T:
    """Return what `open_on` opens on the device asked for: auto takes CUDA where it works.

    Raises
    ------
    DeviceUnavailableError
        If `device` is "cuda" and `open_on` raises it.
    """
    if device == "cuda" or (device == "auto" and cuda_available()):
        try:
            return open_on("cuda")
        except DeviceUnavailableError:
            if device == "cuda":
                raise
    return open_on("cpu")


def session_options(threads: int) -> ort.SessionOptions:
    """Return options of a session whose runs use `threads` CPU threads each."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = _LOG_ERRORS_ONLY
    return options


def open_session(
    graph: Path, options: ort.SessionOptions, device: Literal["cpu", "cuda"]
) -> Session:
    """Return a session that runs an ONNX file.

    Raises
    ------
    DeviceUnavailableError
        If `device` is "cuda" and the session would not run there; the message says why.
    ERRORS
        One of them, if onnxruntime refuses the graph on the CPU.
    """
    if device == "cpu":
        return ort.InferenceSession(str(graph), options, providers=[CPU])
    require_cuda()
    ort.preload_dlls()  # the CUDA libraries that the extra installs beside onnxruntime
    # Without TF32 a model computes the same, to rounding, as on the CPU.
    providers = [(CUDA, {"use_tf32": "0"}), CPU]
    try:
        session = ort.InferenceSession(str(graph), options, providers=providers)
    except ERRORS as error:
        raise DeviceUnavailableError(f'device="cuda" does not work: {error}') from error
    if session.get_providers()[0] != CUDA:
        raise DeviceUnavailableError(
            'device="cuda": onnxruntime fell back to the CPU; the CUDA libraries or the driver '
            'cannot be loaded. Repair them, or use device="cpu"'
        )
    return session

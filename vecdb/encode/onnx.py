"""An encoder's graph in onnxruntime, on the device asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vecdb.encode.base import Output
from vecdb.errors import DeviceUnavailableError, InternalError, InvalidParameterError
from vecdb.registry.extras import needs_extra

with needs_extra():
    import onnxruntime
    from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"

_ERRORS = (
    ort_errors.Fail,
    ort_errors.RuntimeException,
    ort_errors.InvalidArgument,
    ort_errors.EPFail,
    ort_errors.InvalidGraph,
    ort_errors.InvalidProtobuf,
    ort_errors.NotImplemented,
)
"""What onnxruntime raises; the classes have no common base below Exception."""


class EncoderSession:
    """Runs the graph of `vecdb.encode.bert_graph`.

    Parameters
    ----------
    graph
        The ONNX file.
    device
        ``auto`` takes CUDA if it works here, ``cuda`` insists on it, ``cpu`` does without.

    Raises
    ------
    DeviceUnavailableError
        If `device` is ``cuda`` and CUDA does not work here; the message says why.
    InvalidParameterError
        If `device` is none of the three.
    """

    def __init__(self, graph: Path, *, device: str = "auto") -> None:
        if device not in {"auto", "cpu", "cuda"}:
            raise InvalidParameterError(f"device={device!r}: must be 'auto', 'cpu' or 'cuda'")
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        # One thread a run, and as many runs at once as there are processors: that needs no
        # barrier behind each operator, so a busy machine slows it down in proportion, not to a
        # crawl (measured: bench/notes/encoder.md).
        options.intra_op_num_threads = 1
        # Every batch has its own shape: patterns kept per shape would only grow.
        options.enable_mem_pattern = False
        self._session = _open(graph, options, device)
        self.provider: str = self._session.get_providers()[0]
        self.dim: int = self._session.get_outputs()[0].shape[1]

    def run(
        self, ids: NDArray[np.int64], lengths: NDArray[np.int32], output: Output
    ) -> NDArray[np.float32]:
        """Return one output of the graph for a padded batch; any threads may call at once.

        Parameters
        ----------
        ids
            (batch, width) token ids; what lies behind a text's length is ignored.
        lengths
            (batch,) tokens of each text, 1 to width.
        output
            ``sentence`` for (batch, dim), ``tokens`` for (batch, width, dim); the one not asked
            for is not copied out.

        Raises
        ------
        InternalError
            If onnxruntime fails.
        """
        try:
            [result] = self._session.run([output], {"input_ids": ids, "lengths": lengths})
        except _ERRORS as error:
            raise InternalError(f"the encoder failed on a batch of {ids.shape}: {error}") from error
        return np.asarray(result, dtype=np.float32)


def _open(
    graph: Path, options: onnxruntime.SessionOptions, device: str
) -> onnxruntime.InferenceSession:
    """Return a session on CUDA if `device` allows and the machine has it, else on the CPU."""
    reason = ""
    if device != "cpu":
        if CUDA in onnxruntime.get_available_providers():
            # The CUDA libraries come as packages of their own, which must be loaded by path.
            if hasattr(onnxruntime, "preload_dlls"):
                onnxruntime.preload_dlls()
            # Without TF32 a text gets the same vector, to rounding, as on the CPU.
            providers = [(CUDA, {"use_tf32": "0"}), CPU]
            try:
                session = onnxruntime.InferenceSession(graph, options, providers=providers)
            except _ERRORS as error:
                reason = str(error)
            else:
                if session.get_providers()[0] == CUDA:
                    return session
                reason = "onnxruntime could not start CUDA and fell back to the CPU"
        else:
            reason = (
                f"onnxruntime {onnxruntime.__version__} here was built without CUDA; "
                'pip install "vecdb[gpu]" in place of "vecdb[cpu]"'
            )
        if device == "cuda":
            raise DeviceUnavailableError(f"device='cuda' is not available: {reason}")
    return onnxruntime.InferenceSession(graph, options, providers=[CPU])

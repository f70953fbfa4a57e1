"""An encoder's graph in onnxruntime, on the device asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vecdb.encode.base import Output
from vecdb.errors import InternalError, InvalidParameterError, shown
from vecdb.onnx_sessions import ERRORS, Session, on_device, open_session, session_options


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
    InternalError
        If onnxruntime refuses the graph.
    """

    def __init__(self, graph: Path, *, device: str = "auto") -> None:
        if device not in {"auto", "cpu", "cuda"}:
            raise InvalidParameterError(f"device={shown(device)}: must be 'auto', 'cpu' or 'cuda'")
        # One thread a run, and as many runs at once as there are processors: that needs no
        # barrier behind each operator, so a busy machine slows it down in proportion, not to a
        # crawl (measured: bench/notes/encoder.md).
        options = session_options(1)
        # Every batch has its own shape: patterns kept per shape would only grow.
        options.enable_mem_pattern = False
        try:
            self._session: Session = on_device(
                device, lambda where: open_session(graph, options, where)
            )
        except ERRORS as error:
            raise InternalError(f"onnxruntime cannot load {graph}: {error}") from error
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
        except ERRORS as error:
            raise InternalError(f"the encoder failed on a batch of {ids.shape}: {error}") from error
        return np.asarray(result, dtype=np.float32)

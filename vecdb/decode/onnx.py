"""The decoder that runs an ONNX graph in this process.

A step writes its keys and values into the cache it was given: past and present are bound to the
same memory, so nothing is copied from token to token. The cache of a generation is allocated at
once, for prompt and answer; on the CPU its pages are touched only as tokens arrive.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from vecdb.decode.base import GenerationParams
from vecdb.decode.generation import Generation
from vecdb.errors import (
    ClosedError,
    DecoderError,
    InvalidParameterError,
    ResourceExhaustedError,
)
from vecdb.onnx_sessions import (
    CUDA,
    ERRORS,
    OrtValue,
    Session,
    default_threads,
    open_session,
    session_options,
)

_CAPACITY_STEP = 64


class OnnxDecoder:
    """A decoder over a graph of `vecdb.decode.llama_graph`.

    Any number of threads may generate at once: they share the session, each has its own cache.

    Parameters
    ----------
    path
        The ONNX file.
    device
        "cpu" or "cuda".
    threads
        CPU threads of one step; None takes the CPUs that this process may use.
    look_ahead
        Let a step also take a guess of the tokens after the next one (`vecdb.decode.look_ahead`):
        fewer steps, of which some take longer.

    Raises
    ------
    DeviceUnavailableError
        If `device` is "cuda" and the session would not run there.
    DecoderError
        If onnxruntime refuses the graph.
    """

    def __init__(
        self,
        path: Path,
        *,
        device: Literal["cpu", "cuda"] = "cpu",
        threads: int | None = None,
        look_ahead: bool = False,
    ) -> None:
        self.look_ahead = look_ahead
        options = session_options(threads or default_threads())
        try:
            session = open_session(path, options, device)
        except ERRORS as error:
            raise DecoderError(f"onnxruntime cannot load {path}: {error}") from error
        self._session: Session | None = session
        self._provider: str = session.get_providers()[0]
        metadata = session.get_modelmeta().custom_metadata_map
        self._context_tokens = int(metadata["context_tokens"])
        self._vocabulary = int(session.get_outputs()[0].shape[2])
        past = [value for value in session.get_inputs() if value.name.startswith("past_")]
        self._cache_names = [value.name for value in past]
        self._cache_heads, self._head_size = int(past[0].shape[1]), int(past[0].shape[3])
        half = past[0].type == "tensor(float16)"
        self._cache_dtype = np.dtype(np.float16 if half else np.float32)

    @property
    def context_tokens(self) -> int:
        """How many tokens prompt and continuation may have together."""
        return self._context_tokens

    @property
    def vocabulary(self) -> int:
        """How many tokens there are."""
        return self._vocabulary

    @property
    def provider(self) -> str:
        """The execution provider that runs the graph."""
        return self._provider

    def generate(self, token_ids: Sequence[int], params: GenerationParams) -> Generation:
        """Continue `token_ids`; the model works while the result is iterated.

        Raises
        ------
        InvalidParameterError
            If there are no tokens, too many for the context, or one that is not in the vocabulary.
        ClosedError
            If the decoder was closed.
        """
        prompt = self._checked(token_ids)
        if len(prompt) >= self._context_tokens:
            raise InvalidParameterError(
                f"a prompt of {len(prompt)} tokens leaves no room in a context of "
                f"{self._context_tokens} tokens; it may have {self._context_tokens - 1}"
            )
        return Generation(self, prompt, params)

    def close(self) -> None:
        """Free the model; generations that are under way end with `ClosedError`."""
        self._session = None

    def session(self) -> Session:
        """Return the session.

        Raises
        ------
        ClosedError
            If the decoder was closed.
        """
        session = self._session
        if session is None:
            raise ClosedError("the decoder was closed")
        return session

    def steps(self, tokens: int) -> Steps:
        """Return an empty sequence with memory for `tokens` tokens.

        Raises
        ------
        ClosedError
            If the decoder was closed.
        ResourceExhaustedError
            If there is no memory for its keys and values.
        """
        return Steps(self.session(), self, tokens)

    def new_cache(self, capacity: int) -> list[tuple[str, OrtValue]]:
        """Return fresh memory for the keys and values of `capacity` tokens, by input name."""
        shape = (1, self._cache_heads, capacity, self._head_size)
        kind = self._cache_dtype
        # onnxruntime's own memory: numpy's is not aligned to cache lines, which slows attention.
        make = OrtValue.ortvalue_from_shape_and_type
        device = "cuda" if self._provider == CUDA else "cpu"
        try:
            return [(name, make(shape, kind, device, 0)) for name in self._cache_names]
        except (MemoryError, *ERRORS) as error:
            size = len(self._cache_names) * math.prod(shape) * kind.itemsize
            raise ResourceExhaustedError(
                f"no memory for the keys and values of {capacity} tokens ({size >> 20} MiB)"
            ) from error

    def _checked(self, token_ids: Sequence[int]) -> NDArray[np.int64]:
        tokens = np.asarray(token_ids, dtype=np.int64)
        if tokens.ndim != 1 or tokens.size == 0:
            raise InvalidParameterError("token_ids must be a non-empty sequence of token ids")
        outside = tokens[(tokens < 0) | (tokens >= self._vocabulary)]
        if outside.size:
            raise InvalidParameterError(
                f"token id {outside[0]} is not in the vocabulary of {self._vocabulary}"
            )
        return tokens


class Steps:
    """Runs the graph over one growing sequence; not thread-safe."""

    def __init__(self, session: Session, decoder: OnnxDecoder, tokens: int) -> None:
        capacity = -(-tokens // _CAPACITY_STEP) * _CAPACITY_STEP
        self._session = session
        self._vocabulary = decoder.vocabulary
        # A binding copies to the device when it is made, so there the inputs are bound every time.
        self._on_device = decoder.provider == CUDA
        self._binding = session.io_binding()
        # Holds the memory that the binding points into.
        self._cache = decoder.new_cache(capacity)
        for name, value in self._cache:
            self._binding.bind_ortvalue_input(name, value)
            self._binding.bind_ortvalue_output(name.replace("past_key_values", "present"), value)
        self._length = 0
        self._arrays: dict[tuple[int, int], _StepArrays] = {}
        self._bound: _StepArrays | None = None

    def run(self, tokens: NDArray[np.int64], rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Append `tokens` to the sequence; return the logits (R, vocabulary) at `rows` of them.

        The result is overwritten by a later call.
        """
        length = self._length + len(tokens)
        size = len(tokens), len(rows)
        arrays = self._arrays.get(size)
        if arrays is None:
            arrays = self._arrays[size] = _StepArrays(*size, self._vocabulary)
        arrays.write(tokens, rows, length)
        if self._on_device or arrays is not self._bound:
            for name, value in arrays.values.items():
                self._binding.bind_ortvalue_input(name, value)
            self._binding.bind_ortvalue_output("logits", arrays.output)
            self._bound = arrays
        try:
            self._session.run_with_iobinding(self._binding)
        except ERRORS as error:
            raise DecoderError(f"onnxruntime failed at token {length}: {error}") from error
        self._length = length
        rows_logits: NDArray[np.float32] = arrays.logits[0]
        return rows_logits

    def forget(self, tokens: int) -> None:
        """Take that many of the last tokens out of the sequence."""
        self._length -= tokens


class _StepArrays:
    """What a step reads and writes besides the cache.

    Kept from token to token: fresh memory for the logits of every token, page faults and all, took
    a fifteenth of a step.
    """

    def __init__(self, tokens: int, rows: int, vocabulary: int) -> None:
        self.inputs: dict[str, NDArray[np.integer[Any]]] = {
            "input_ids": np.empty((1, tokens), dtype=np.int64),
            "logit_rows": np.empty(rows, dtype=np.int64),
            "seqlens_k": np.empty(1, dtype=np.int32),
            "total_sequence_length": np.empty((), dtype=np.int32),
        }
        self.logits = np.empty((1, rows, vocabulary), dtype=np.float32)
        # These share the arrays' memory.
        from_numpy = OrtValue.ortvalue_from_numpy
        self.values = {name: from_numpy(array) for name, array in self.inputs.items()}
        self.output = from_numpy(self.logits)

    def write(self, tokens: NDArray[np.int64], rows: NDArray[np.int64], length: int) -> None:
        """Set the inputs of a step after which the sequence has `length` tokens."""
        self.inputs["input_ids"][0] = tokens
        self.inputs["logit_rows"][:] = rows
        self.inputs["seqlens_k"][0] = length - 1
        self.inputs["total_sequence_length"][()] = length

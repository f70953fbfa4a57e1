"""The encoder: tokenizer, batcher and session put together."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from vecdb.caller import check_caller
from vecdb.config import ENCODER_QUEUE_TOKENS, THREADS
from vecdb.encode.base import Encoded, Output
from vecdb.encode.batcher import Batcher, Rows
from vecdb.encode.onnx import EncoderSession
from vecdb.encode.tokenizer import TextTokenizer, check_text, check_texts
from vecdb.onnx_sessions import CPU, default_threads
from vecdb.types import EncoderInfo, Matrix

_WINDOW_TEXTS = 256
"""Texts of one call that are queued at a time: enough to find neighbours in length."""
_WINDOWS_AHEAD = 2
"""One is computed while the next is tokenized."""
_LOOK_AGAIN = 0.25
"""Seconds after which a waiting call looks whether its caller is still there."""
_CPU_BATCH_TOKENS = 512
"""Measured: the activations of more tokens leave the caches (bench/notes/encoder.md)."""
_CUDA_BATCH_TOKENS = 32_768

T = TypeVar("T")


class TransformerEncoder:
    """An `Encoder` that runs a BERT-like model in this process.

    Parameters
    ----------
    threads
        Batches computed at once on the CPU, on a thread each; None is one per processor that
        this process may use.
    batch_tokens, queue_tokens
        See `Batcher`; None is what suits the device, and the default.
    """

    def __init__(
        self,
        info: EncoderInfo,
        tokenizer: TextTokenizer,
        session: EncoderSession,
        *,
        threads: int | None = None,
        batch_tokens: int | None = None,
        queue_tokens: int | None = None,
    ) -> None:
        self._info = info
        self._tokenizer = tokenizer
        self._provider = session.provider
        self._batcher = Batcher(
            session.run,
            workers=_workers(session, threads),
            batch_tokens=batch_tokens or _best_batch_tokens(session),
            queue_tokens=ENCODER_QUEUE_TOKENS.check(queue_tokens),
        )

    @property
    def info(self) -> EncoderInfo:
        """Everything that decides which vector a text gets."""
        return self._info

    @property
    def dim(self) -> int:
        """The dimension of the vectors."""
        return self._info.dim

    @property
    def max_tokens(self) -> int:
        """The longest text that is encoded whole, in tokens, [CLS] and [SEP] included."""
        return self._info.max_tokens

    @property
    def provider(self) -> str:
        """The onnxruntime execution provider that really computes."""
        return self._provider

    def encode(self, texts: Sequence[str]) -> Encoded:
        """Return one vector per text; see `Encoder.encode`."""
        checked = check_texts(texts)
        truncated = np.empty(len(checked), np.bool_)
        parts = list(self._computed(checked, truncated, "sentence", np.stack))
        return Encoded(np.concatenate(parts), truncated)

    def token_vectors(self, texts: Sequence[str]) -> list[Matrix]:
        """Return, for each text, float32 (tokens, dim); see `Encoder.token_vectors`."""
        checked = check_texts(texts)
        truncated = np.empty(len(checked), np.bool_)
        rows: Callable[[Rows], Rows] = list
        return [row for part in self._computed(checked, truncated, "tokens", rows) for row in part]

    def submit(self, texts: Sequence[str]) -> Future[Encoded]:
        """Start encoding and return a future; cancelling it drops what is not computed yet.

        For callers who may go away. Raises as `encode` does; all texts are queued at once, so a
        large batch is better given to `encode`.
        """
        sequences, truncated = self._tokenizer.tokenize(check_texts(texts))
        return self._batcher.submit(
            sequences, lambda rows: Encoded(np.stack(rows), truncated), output="sentence"
        )

    def split(self, text: str) -> list[tuple[int, int]]:
        """Return spans of characters that each fit the limit; see `Encoder.split`."""
        check_caller()
        return self._tokenizer.split(check_text(text))

    def count_tokens(self, text: str) -> int:
        """Return how many tokens the text has, [CLS] and [SEP] included."""
        return self._tokenizer.count(check_text(text))

    def close(self) -> None:
        """Refuse further work and fail what is waiting."""
        self._batcher.close()

    def _computed(
        self,
        texts: list[str],
        truncated: NDArray[np.bool_],
        output: Output,
        finish: Callable[[Rows], T],
    ) -> Iterator[T]:
        """Yield the results of the texts window by window, and fill in `truncated`.

        What is still queued is dropped when the caller goes away.
        """
        under_way: deque[Future[T]] = deque()
        try:
            for start in range(0, len(texts), _WINDOW_TEXTS):
                window = texts[start : start + _WINDOW_TEXTS]
                sequences, truncated[start : start + len(window)] = self._tokenizer.tokenize(window)
                check_caller()
                if len(under_way) == _WINDOWS_AHEAD:
                    yield _awaited(under_way[0])
                    under_way.popleft()
                under_way.append(
                    self._batcher.submit(sequences, finish, output=output, admitted=start > 0)
                )
            while under_way:
                yield _awaited(under_way[0])
                under_way.popleft()
        finally:
            for future in under_way:
                future.cancel()


def _awaited(future: Future[T]) -> T:
    """Return the future's result, unless the caller goes away before it is there."""
    while True:
        try:
            return future.result(_LOOK_AGAIN)
        except TimeoutError:
            if future.done():
                return future.result()
            check_caller()


def _best_batch_tokens(session: EncoderSession) -> int:
    return _CPU_BATCH_TOKENS if session.provider == CPU else _CUDA_BATCH_TOKENS


def _workers(session: EncoderSession, threads: int | None) -> int:
    if session.provider != CPU:
        return 1
    return default_threads() if threads is None else THREADS.check(threads)

"""One generation: prompt in, tokens out, until an end, a limit or a caller stops it."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from vecdb.decode.base import GenerationParams
from vecdb.decode.look_ahead import Recall
from vecdb.decode.sampling import Sampler

_PREFILL_TOKENS = 256
"""A long prompt goes in by parts: it can be cancelled between them, and scores need less memory."""


class Steps(Protocol):
    """A growing sequence of tokens."""

    def run(self, tokens: NDArray[np.int64], rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Append `tokens`; return the logits (R, vocabulary) at `rows` of them until next time."""

    def forget(self, tokens: int) -> None:
        """Take that many of the last tokens out again."""


class SteppingDecoder(Protocol):
    """What makes such sequences."""

    @property
    def context_tokens(self) -> int:
        """How long a sequence may be."""

    @property
    def look_ahead(self) -> bool:
        """Whether tokens are guessed, and several run at once."""

    def session(self) -> object:
        """Raise `ClosedError` once the decoder was closed."""

    def steps(self, tokens: int) -> Steps:
        """Return an empty sequence with memory for `tokens` tokens."""


class Generation:
    """The tokens of one generation, made as they are asked for.

    Any thread may close it, also while another waits for a token; the work then stops at the next
    token or part of the prompt.
    """

    def __init__(
        self, decoder: SteppingDecoder, prompt: NDArray[np.int64], params: GenerationParams
    ) -> None:
        decoder.session()  # a closed decoder is refused here, not at the first token
        room = decoder.context_tokens - len(prompt)
        self._decoder = decoder
        self._prompt = prompt
        self._most = min(params.max_tokens, room)
        self._stop = frozenset(params.stop_token_ids)
        self._sampler = Sampler(params, prompt.tolist())
        self._closed = threading.Event()
        self._running = threading.Lock()  # held by the thread that advances or closes `_tokens`
        self._tokens = self._generate()

    def __iter__(self) -> Iterator[int]:
        return self

    def __next__(self) -> int:
        with self._running:
            if self._closed.is_set():
                self._tokens.close()
                raise StopIteration
            return next(self._tokens)

    def close(self) -> None:
        """Stop the work and free the cache."""
        self._closed.set()
        if self._running.acquire(blocking=False):
            try:
                self._tokens.close()
            finally:
                self._running.release()

    def _generate(self) -> Generator[int]:
        # The cache lives as long as this frame does.
        steps = self._decoder.steps(len(self._prompt) + self._most)
        rows = self._prefill(steps)
        recall = Recall(self._prompt.tolist()) if self._decoder.look_ahead else None
        draft: list[int] = []  # guesses that are in the cache; the logits after each are in `rows`
        for count in range(1, self._most + 1):
            if rows is None:
                return
            token = self._sampler.choose(rows[0])
            if token in self._stop:
                return
            yield token
            if count == self._most:  # nobody would read the logits after the last one
                return
            self._decoder.session()  # raises once the decoder was closed
            if recall is not None:
                recall.add(token)
            if draft and draft[0] == token:
                draft, rows = draft[1:], rows[1:]
                continue
            steps.forget(len(draft))
            # A guess is worth its place only if a token follows it.
            draft = recall.draft(self._most - count - 1) if recall is not None else []
            rows = steps.run(np.array([token, *draft]), np.arange(len(draft) + 1))

    def _prefill(self, steps: Steps) -> NDArray[np.float32] | None:
        """Return the logits (1, vocabulary) after the prompt, None when it was closed meanwhile."""
        logits = None
        for start in range(0, len(self._prompt), _PREFILL_TOKENS):
            if self._closed.is_set():
                return None
            part = self._prompt[start : start + _PREFILL_TOKENS]
            logits = steps.run(part, np.array([len(part) - 1]))
        return logits

"""Batches for the encoder, made of the texts of all callers who are waiting.

A batch is measured in tokens, padding included, never in texts, and holds texts of about one
length, so that little of the work is padding. It is made when a worker is free, from what is
there: nobody waits for a batch to fill. When little is there, the workers share it.

Whose turn it is follows virtual time: the tokens that each request would have had computed by now
if all that wait shared the workers evenly. A request begins at the time of its arrival and moves on
by its own tokens as they are computed; the one whose next batch would end first leads. So a
question waits for about one batch, however much of a bulk load is left and however long that has
been under way; and the bulk load, which keeps its share, cannot be put off for ever. (Demers,
Keshav & Shenker, "Analysis and simulation of a fair queueing algorithm", 1989.)
"""

from __future__ import annotations

import atexit
import threading
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from vecdb.encode.base import Output
from vecdb.encode.tokenizer import TokenIds
from vecdb.errors import ClosedError, OverloadedError

Rows = list[NDArray[np.float32]]
"""What the model gave for each text of a request: (dim,), or (tokens, dim)."""

Run = Callable[[NDArray[np.int64], NDArray[np.int32], Output], NDArray[np.float32]]
"""Computes a padded batch: ids (batch, width), lengths (batch,), the output wanted."""

T = TypeVar("T")

_LEAST_SHARE_TOKENS = 128
"""What is not worth dividing between workers: smaller matrices run at a lower speed."""


@dataclass(eq=False)
class _Request(Generic[T]):
    """The texts of one call. Those not yet computed are in `waiting`, shortest first."""

    sequences: Sequence[TokenIds]
    output: Output
    finish: Callable[[Rows], T]
    future: Future[T]
    begun: float
    """The virtual time up to which it had its share."""
    waiting: list[int] = field(init=False)
    lengths: list[int] = field(init=False)
    rows: Rows = field(init=False)
    missing: int = field(init=False)
    failed: bool = False
    tokens: int = field(init=False)  # of those in `waiting`

    def __post_init__(self) -> None:
        self.waiting = sorted(
            range(len(self.sequences)), key=lambda index: len(self.sequences[index])
        )
        self.lengths = [len(self.sequences[index]) for index in self.waiting]
        self.rows = [np.empty(0, np.float32)] * len(self.sequences)
        self.missing = len(self.sequences)
        self.tokens = sum(self.lengths)

    def due(self, batch_tokens: int) -> float:
        """Return the virtual time at which its next batch would end."""
        return self.begun + min(self.tokens, batch_tokens)

    def take(self, position: int) -> int:
        """Remove a waiting text and return its index."""
        length = self.lengths.pop(position)
        self.tokens -= length
        self.begun += length
        return self.waiting.pop(position)


@dataclass
class _Batch:
    """Texts to be computed together: whose they are, and their index there."""

    output: Output
    width: int
    members: list[tuple[_Request[Any], int]] = field(default_factory=list)

    def padded(self) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        ids = np.zeros((len(self.members), self.width), np.int64)
        lengths = np.empty(len(self.members), np.int32)
        for row, (request, index) in enumerate(self.members):
            sequence = request.sequences[index]
            ids[row, : len(sequence)] = sequence
            lengths[row] = len(sequence)
        return ids, lengths


class Batcher:
    """Computes requests batch by batch, on threads of its own.

    Parameters
    ----------
    run
        The model; called by all workers at once.
    workers
        Threads, and so batches that are computed at the same time.
    batch_tokens
        Tokens of a batch, padding included; a single longer text is a batch of its own.
    queue_tokens
        Tokens that may wait; with more, new requests are refused.
    """

    def __init__(self, run: Run, *, workers: int, batch_tokens: int, queue_tokens: int) -> None:
        self._run = run
        self._workers = workers
        self._batch_tokens = batch_tokens
        self._queue_tokens = queue_tokens
        # Protects everything below; the model runs without it.
        self._changed = threading.Condition()
        self._requests: list[_Request[Any]] = []
        self._queued = 0
        self._clock = 0.0  # the virtual time
        self._threads: list[threading.Thread] = []
        self._computing = 0  # workers that have a batch
        self._closed = False

    def submit(
        self,
        sequences: Sequence[TokenIds],
        finish: Callable[[Rows], T],
        *,
        output: Output = "sentence",
        admitted: bool = False,
    ) -> Future[T]:
        """Queue the texts of one call, and return a future of ``finish(rows)``.

        Cancelling the future takes what is still waiting out of the queue.

        Parameters
        ----------
        admitted
            The call was let in before; these are further texts of it and are not refused.

        Raises
        ------
        OverloadedError
            If the queue is full.
        ClosedError
            If the batcher was closed.
        """
        tokens = sum(map(len, sequences))
        future: Future[T] = Future()
        with self._changed:
            if self._closed:
                raise ClosedError("the encoder was closed")
            self._drop_cancelled()
            # An empty queue takes a request of any size: nobody else is put off by it.
            if self._queued and not admitted and self._queued + tokens > self._queue_tokens:
                raise OverloadedError(
                    f"{self._queued} tokens are waiting for the encoder; {tokens} more would "
                    f"exceed its limit of {self._queue_tokens}: try again later"
                )
            self._requests.append(_Request(sequences, output, finish, future, self._clock))
            self._queued += tokens
            if not self._threads:
                self._start()
            self._changed.notify()
        return future

    def close(self) -> None:
        """Fail what is waiting with ClosedError; batches under way are finished first."""
        with self._changed:
            self._closed = True
            abandoned, self._requests, self._queued = self._requests, [], 0
            self._changed.notify_all()
        self._fail(abandoned, ClosedError("the encoder was closed"))
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join()
        atexit.unregister(self.close)

    def _start(self) -> None:
        for number in range(self._workers):
            name = f"vecdb-encoder-{number}"
            self._threads.append(threading.Thread(target=self._work, name=name, daemon=True))
            self._threads[-1].start()
        # A daemon that is inside onnxruntime while the interpreter ends would crash it.
        atexit.register(self.close)

    def _work(self) -> None:
        while (batch := self._next_batch()) is not None:
            try:
                self._deliver(batch, self._run(*batch.padded(), batch.output))
            except BaseException as error:  # it belongs to the callers, who are waiting for it
                self._abandon(batch, error)
            with self._changed:
                self._computing -= 1

    def _deliver(self, batch: _Batch, result: NDArray[np.float32]) -> None:
        """Hand each member its row, and each caller who has all of them the result."""
        complete = []
        with self._changed:
            for row, (request, index) in enumerate(batch.members):
                length = len(request.sequences[index])
                whole = batch.output == "sentence"
                request.rows[index] = result[row] if whole else result[row, :length].copy()
                request.missing -= 1
                if request.missing == 0:
                    complete.append(request)
        for request in complete:
            finished = request.finish(request.rows)
            if request.future.set_running_or_notify_cancel():
                request.future.set_result(finished)

    def _next_batch(self) -> _Batch | None:
        """Wait for work and return a batch of it, or None once closed."""
        with self._changed:
            while True:
                if self._closed:
                    return None
                self._drop_cancelled()
                if self._requests:
                    break
                self._changed.wait()
            batch = self._fill()
            computed = sum(len(request.sequences[index]) for request, index in batch.members)
            self._queued -= computed
            self._clock += computed / len(self._requests)
            self._requests = [request for request in self._requests if request.waiting]
            self._computing += 1
            if self._requests:
                self._changed.notify()  # there is work for another worker
            return batch

    def _fill(self) -> _Batch:
        """Take a batch out of the queue: the leader's longest text, and what is about as long.

        Texts that differ by more than a quarter (and 8 tokens) wait for a batch of their own
        length: padding costs as much as tokens.
        """
        self._requests.sort(key=lambda request: request.due(self._batch_tokens))
        share = -(-self._queued // (self._workers - self._computing))
        budget = min(self._batch_tokens, max(share, _LEAST_SHARE_TOKENS))
        leader = self._requests[0]
        longest = leader.lengths[-1]
        batch = _Batch(leader.output, longest)
        spread = longest // 4 + 8
        for request in self._requests:
            if request.output != batch.output:
                continue
            # Only other callers' texts can be longer: they may share the leader's batch.
            low = bisect_left(request.lengths, longest - spread)
            high = bisect_right(request.lengths, longest + spread)
            for position in range(high - 1, low - 1, -1):
                rows = len(batch.members) + 1
                if rows > 1 and batch.width * rows > budget:
                    return batch
                width = max(batch.width, request.lengths[position])
                if rows == 1 or width * rows <= budget:
                    batch.width = width
                    batch.members.append((request, request.take(position)))
        return batch

    def _drop_cancelled(self) -> None:
        """Forget the requests whose callers have gone."""
        gone = [request for request in self._requests if request.future.cancelled()]
        if gone:
            self._queued -= sum(request.tokens for request in gone)
            self._requests = [request for request in self._requests if request not in gone]

    def _abandon(self, batch: _Batch, error: BaseException) -> None:
        """Fail every request of a batch that could not be computed."""
        failed = {id(request): request for request, _ in batch.members}
        with self._changed:
            self._queued -= sum(
                request.tokens for request in self._requests if id(request) in failed
            )
            self._requests = [each for each in self._requests if id(each) not in failed]
        self._fail(failed.values(), error)

    def _fail(self, requests: Iterable[_Request[Any]], error: BaseException) -> None:
        """Give the callers the error, each once: batches of one request may fail together."""
        for request in requests:
            with self._changed:
                told = request.failed or request.future.done()
                request.failed = True
            if not told and request.future.set_running_or_notify_cancel():
                request.future.set_exception(error)

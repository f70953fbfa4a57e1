"""Batches from many callers: what shares one, whose turn it is, overload and departure."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vecdb.encode.batcher import Batcher, Rows
from vecdb.errors import ClosedError, OverloadedError


class Model:
    """Gives each text the sum of its ids, records the batches, and can be held still."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.go = threading.Event()
        self.go.set()
        self.step = threading.Event()  # whether a batch closes the gate behind itself
        self.busy = threading.Semaphore(0)
        self.error: BaseException | None = None

    def __call__(self, ids: np.ndarray, lengths: np.ndarray, output: str) -> np.ndarray:
        assert ids.shape == (len(lengths), lengths.max())
        self.batches.append(lengths.tolist())
        self.busy.release()
        assert self.go.wait(10)
        if self.step.is_set():
            self.go.clear()
        if self.error is not None:
            raise self.error
        inside = np.arange(ids.shape[1]) < lengths[:, None]
        masked = np.where(inside, ids, 0).astype(np.float32)
        return masked.sum(1, keepdims=True) if output == "sentence" else masked[:, :, None]


def text(length: int, value: int = 1) -> np.ndarray:
    return np.full(length, value, np.int64)


@pytest.fixture
def model() -> Model:
    return Model()


@pytest.fixture
def make(model: Model) -> Iterator[Callable[..., Batcher]]:
    made: list[Batcher] = []

    def build(*, workers: int = 1, batch_tokens: int = 100, queue_tokens: int = 1000) -> Batcher:
        batcher = Batcher(
            model, workers=workers, batch_tokens=batch_tokens, queue_tokens=queue_tokens
        )
        made.append(batcher)
        return batcher

    yield build
    model.go.set()
    for batcher in made:
        batcher.close()


def hold(batcher: Batcher, model: Model) -> Future[Rows]:
    """Keep the only worker busy with a batch of one text, so that what follows has to queue."""
    model.go.clear()
    future = batcher.submit([text(1)], list)
    assert model.busy.acquire(timeout=10)
    return future


def test_a_lone_text_is_computed_at_once(make: Callable[..., Batcher], model: Model) -> None:
    rows = make().submit([text(5, 2)], list).result(10)
    assert rows[0].tolist() == [10.0]
    assert model.batches == [[5]]


def test_waiting_callers_share_a_batch(make: Callable[..., Batcher], model: Model) -> None:
    batcher = make()
    hold(batcher, model)
    futures = [batcher.submit([text(10 + n, n)], list) for n in range(5)]
    model.go.set()
    assert [f.result(10)[0].tolist() for f in futures] == [[(10 + n) * n] for n in range(5)]
    assert [sorted(batch) for batch in model.batches] == [[1], [10, 11, 12, 13, 14]]


def test_a_batch_is_bounded_by_padded_tokens_and_alike_in_length(
    make: Callable[..., Batcher], model: Model
) -> None:
    batcher = make(batch_tokens=128)
    hold(batcher, model)
    future = batcher.submit([text(n) for n in (60, 3, 64, 5, 62, 4)], list)
    model.go.set()
    assert [row.tolist() for row in future.result(10)] == [[60], [3], [64], [5], [62], [4]]
    assert model.batches == [[1], [64, 62], [60], [5, 4, 3]]


def test_a_text_over_the_budget_is_a_batch_of_its_own(
    make: Callable[..., Batcher], model: Model
) -> None:
    make(batch_tokens=16).submit([text(200), text(200)], list).result(10)
    assert model.batches == [[200], [200]]


def test_a_question_goes_before_the_rest_of_a_bulk_load(
    make: Callable[..., Batcher], model: Model
) -> None:
    batcher = make(batch_tokens=128)
    hold(batcher, model)
    bulk = batcher.submit([text(64) for _ in range(10)], list)
    question = batcher.submit([text(6)], list)
    model.go.set()
    question.result(10)
    bulk.result(10)
    assert model.batches[1] == [6]


def test_a_question_goes_before_a_bulk_load_however_long_that_is_under_way(
    make: Callable[..., Batcher], model: Model
) -> None:
    batcher = make(batch_tokens=128, queue_tokens=10_000)
    hold(batcher, model)
    bulk = batcher.submit([text(128) for _ in range(20)], list)
    other = batcher.submit([text(128) for _ in range(20)], list)
    model.step.set()
    for _ in range(25):  # the clock has passed all that the bulk load has left
        model.go.set()
        assert model.busy.acquire(timeout=10)
    before = len(model.batches)
    question = batcher.submit([text(6)], list)
    model.step.clear()
    model.go.set()
    question.result(10)
    assert model.batches[before] == [6]
    bulk.result(10)
    other.result(10)


def test_two_bulk_loads_take_turns(make: Callable[..., Batcher], model: Model) -> None:
    batcher = make(batch_tokens=64)
    hold(batcher, model)
    first = batcher.submit([text(64) for _ in range(8)], list)
    second = batcher.submit([text(32) for _ in range(16)], list, admitted=True)
    model.go.set()
    first.result(10)
    second.result(10)
    for part in (model.batches[1:5], model.batches[5:9]):
        assert sorted(part) == [[32, 32], [32, 32], [64], [64]]


def test_a_bulk_load_is_not_put_off_for_ever(make: Callable[..., Batcher], model: Model) -> None:
    batcher = make(batch_tokens=128)
    hold(batcher, model)
    bulk = batcher.submit([text(100)], list)
    # Each question arrives when the one before is computed, and there is always one.
    waiting = batcher.submit([text(10)], list)
    model.go.set()
    for _ in range(200):
        waiting.result(10)
        if bulk.done():
            break
        waiting = batcher.submit([text(10)], list)
    assert bulk.done()
    assert sum(batch == [10] for batch in model.batches) <= 20


def test_outputs_are_not_mixed(make: Callable[..., Batcher], model: Model) -> None:
    batcher = make()
    hold(batcher, model)
    sentence = batcher.submit([text(3, 1)], list)
    tokens = batcher.submit([text(3, 2), text(2, 5)], list, output="tokens")
    model.go.set()
    assert sentence.result(10)[0].tolist() == [3]
    assert [row[:, 0].tolist() for row in tokens.result(10)] == [[2, 2, 2], [5, 5]]


def test_overload_is_refused_at_once(make: Callable[..., Batcher], model: Model) -> None:
    batcher = make(queue_tokens=100)
    hold(batcher, model)
    big = batcher.submit([text(90), text(90)], list)  # an empty queue takes any size
    with pytest.raises(OverloadedError, match="180 tokens are waiting"):
        batcher.submit([text(1)], list)
    more = batcher.submit([text(1)], list, admitted=True)
    model.go.set()
    big.result(10)
    more.result(10)
    batcher.submit([text(90)], list).result(10)


def test_a_caller_who_left_is_skipped(make: Callable[..., Batcher], model: Model) -> None:
    batcher = make(queue_tokens=100)
    hold(batcher, model)
    gone = batcher.submit([text(50), text(50)], list)
    assert gone.cancel()
    stays = batcher.submit([text(70)], list)  # there is room again
    model.go.set()
    stays.result(10)
    assert model.batches == [[1], [70]]
    with pytest.raises(CancelledError):
        gone.result(10)


def test_leaving_while_being_computed(make: Callable[..., Batcher], model: Model) -> None:
    batcher = make()
    under_way = hold(batcher, model)
    assert under_way.cancel()
    model.go.set()
    assert batcher.submit([text(2)], list).result(10)[0].tolist() == [2]


def test_an_error_reaches_every_caller_of_the_batch_and_no_other(
    make: Callable[..., Batcher], model: Model
) -> None:
    batcher = make(batch_tokens=128)
    hold(batcher, model)
    model.go.set()
    model.error = RuntimeError("broken")
    long = batcher.submit([text(100), text(100), text(100)], list)
    with pytest.raises(RuntimeError, match="broken"):
        long.result(10)
    model.error = None
    assert batcher.submit([text(4)], list).result(10)[0].tolist() == [4]
    assert model.batches.count([100]) == 1, "the failed request's other texts are not computed"


def test_workers_share_what_little_there_is(make: Callable[..., Batcher], model: Model) -> None:
    batcher = make(workers=2, batch_tokens=1024)
    model.go.clear()
    future = batcher.submit([text(64) for _ in range(8)], list)
    for _ in range(2):
        assert model.busy.acquire(timeout=10)
    assert model.batches == [[64] * 4, [64] * 4]
    model.go.set()
    future.result(10)


def test_close_fails_what_waits_and_refuses_more(
    make: Callable[..., Batcher], model: Model
) -> None:
    batcher = make()
    under_way = hold(batcher, model)
    waiting = batcher.submit([text(2)], list)
    closing = threading.Thread(target=batcher.close)
    closing.start()
    with pytest.raises(ClosedError):
        waiting.result(10)
    model.go.set()
    closing.join(10)
    assert under_way.result(10)[0].tolist() == [1]
    with pytest.raises(ClosedError):
        batcher.submit([text(1)], list)
    batcher.close()


@settings(max_examples=30, deadline=None)
@given(
    calls=st.lists(st.lists(st.integers(1, 300), min_size=1, max_size=30), min_size=1, max_size=8),
    workers=st.integers(1, 3),
    batch_tokens=st.integers(1, 600),
)
def test_every_caller_gets_its_own_rows(
    calls: list[list[int]], workers: int, batch_tokens: int
) -> None:
    model = Model()
    batcher = Batcher(model, workers=workers, batch_tokens=batch_tokens, queue_tokens=1)
    futures = [
        batcher.submit([text(n, index + 1) for n in lengths], list, admitted=True)
        for index, lengths in enumerate(calls)
    ]
    for index, (lengths, future) in enumerate(zip(calls, futures, strict=True)):
        expected = [[n * (index + 1)] for n in lengths]
        assert [row.tolist() for row in future.result(10)] == expected
    batcher.close()
    assert sorted(n for batch in model.batches for n in batch) == sorted(itertools.chain(*calls))
    for batch in model.batches:
        assert len(batch) == 1 or len(batch) * max(batch) <= batch_tokens


def test_batches_of_one_request_may_fail_at_once(
    make: Callable[..., Batcher], model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    both_look = threading.Barrier(2)

    class Looked(Future[Rows]):
        """Is not done when both workers look."""

        def done(self) -> bool:
            found = super().done()
            with suppress(threading.BrokenBarrierError):
                both_look.wait(0.5)
            return found

    monkeypatch.setattr("vecdb.encode.batcher.Future", Looked)
    batcher = make(workers=2)
    model.error = RuntimeError("broken")
    model.go.clear()
    future = batcher.submit([text(80), text(80)], list)
    for _ in range(2):
        assert model.busy.acquire(timeout=10)
    model.go.set()
    with pytest.raises(RuntimeError, match="broken"):
        future.result(10)
    model.error = None
    batcher.close()  # joins the workers: one that had died would have failed the test

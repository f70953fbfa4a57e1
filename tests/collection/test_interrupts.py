"""What an interrupt at any point of the main thread leaves behind."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import FrameType
from typing import Any, Self

import numpy as np
import pytest

from vecdb import connect
from vecdb.caller import check_caller, checking_caller
from vecdb.collection import Collection
from vecdb.collection.maintenance import Maintenance
from vecdb.errors import CancelledError
from vecdb.interrupts import GivenUpError, unless_interrupted, whole
from vecdb.storage import PosixStore

VECTORS = np.eye(2, dtype=np.float32)


class Interrupt:
    """Raises KeyboardInterrupt where the main thread looks for signals for the `number`-th time.

    It does so when a function begins. In the file that shields the others from that, every line
    counts, so as to be on the safe side.
    """

    def __init__(self, number: int) -> None:
        self._left = number
        self.happened = False

    def __enter__(self) -> Self:
        sys.settrace(self._trace)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)

    def _trace(self, frame: FrameType, event: str, _: Any) -> Any:
        ours = "vecdb/interrupts.py" in frame.f_code.co_filename
        if frame.f_code is Interrupt.__exit__.__code__ or self.happened:
            return None
        if event == "call" or (ours and event == "line"):
            self._left -= 1
            if self._left < 0:
                self.happened = True
                raise KeyboardInterrupt
        return self._trace if ours else None


def interrupted_everywhere(action: Callable[[int], object]) -> Iterator[tuple[int, bool]]:
    """Interrupt an action at every point; yield its number, and whether it was finished."""
    for number in range(10_000):
        finished = False
        with Interrupt(number) as interrupt:
            try:
                action(number)
                finished = True
            except KeyboardInterrupt:
                pass
        yield number, finished
        if not interrupt.happened:
            return
    raise AssertionError("it was never let through")


def write_elsewhere(collection: Collection, point: str) -> None:
    writer = threading.Thread(
        target=collection.upsert, args=([point],), kwargs={"vectors": VECTORS[:1]}, daemon=True
    )
    writer.start()
    writer.join(30)
    assert not writer.is_alive()


def test_a_write_interrupted_anywhere_is_whole_and_stops_nobody(tmp_path: Path) -> None:
    acknowledged: list[str] = []
    with connect(tmp_path, durability="os") as database:
        points = database.create_collection("points", dim=2)

        def write(number: int) -> None:
            points.upsert([f"{number}a", f"{number}b"], vectors=VECTORS)

        for number, finished in interrupted_everywhere(write):
            assert len(points.get([f"{number}a", f"{number}b"])) in {2 * finished, 2}
            acknowledged += [f"{number}a", f"{number}b"] * finished
            write_elsewhere(points, f"{number}c")
            acknowledged.append(f"{number}c")
            if number % 2:
                points.delete([f"{number}c"])
                acknowledged.pop()
        tried = number + 1
    assert tried > 20
    with connect(tmp_path, durability="os") as database:
        points = database.collection("points")
        assert len(points.get(acknowledged)) == len(acknowledged)
        for number in range(tried):
            assert len(points.get([f"{number}a", f"{number}b"])) in {0, 2}


def flush(points: Collection) -> None:
    points.flush()


def load(points: Collection) -> None:
    with points.bulk() as load:
        load.add(["loaded", "other"], vectors=VECTORS)


def delete(points: Collection) -> None:
    points.delete(filter={"n": 1})


@pytest.mark.parametrize("action", [flush, load, delete])
def test_an_interrupt_anywhere_leaves_the_collection_as_good_as_it_was(
    tmp_path: Path, action: Callable[[Collection], None]
) -> None:
    with connect(tmp_path, durability="os") as database:
        points = database.create_collection("points", dim=2)
        points.upsert(["a", "b"], vectors=VECTORS, payloads=[{"n": 1}, {"n": 2}])

        for number, _ in interrupted_everywhere(lambda _: action(points)):
            write_elsewhere(points, f"{number}c")
            points.upsert(["a"], vectors=VECTORS[:1], payloads=[{"n": 1}])
            assert len(points.get(["loaded", "other"])) in {0, 2}
    with connect(tmp_path, durability="os") as database:
        points = database.collection("points")
        assert points.count() == number + 3 + 2 * (action is load)
        assert len(points.search(vector=VECTORS[0], k=1000)) == points.count()


def test_a_database_changed_or_backed_up_under_interrupts_can_be_closed(tmp_path: Path) -> None:
    database = connect(tmp_path / "data", durability="os")
    backups = PosixStore(tmp_path / "backups", durability="os")

    def change(number: int) -> None:
        name = f"made{number}"
        database.create_collection(name, dim=2).upsert(["a"], vectors=VECTORS[:1])
        database.backup_to(backups, keep=1)
        database.drop_collection(name)

    for _ in interrupted_everywhere(change):
        for name in database.list_collections():
            assert database.collection(name).count() <= 1
    for _ in interrupted_everywhere(lambda _: database.close()):
        pass
    connect(tmp_path / "data", durability="os").close()


def interrupt_main(begun: threading.Event) -> None:
    assert begun.wait(30)
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)


def test_long_work_is_given_up_when_the_one_who_waits_was_interrupted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    begun, given_up = threading.Event(), threading.Event()

    def long_work(_: Maintenance) -> None:
        begun.set()
        try:
            while True:
                check_caller()
        except GivenUpError:
            given_up.set()
            raise

    monkeypatch.setattr(Maintenance, "finish", long_work)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs ignore it
    try:
        with connect(tmp_path, durability="os") as database:
            points = database.create_collection("points", dim=2)
            interrupting = threading.Thread(target=interrupt_main, args=(begun,))
            interrupting.start()
            with pytest.raises(KeyboardInterrupt):
                points.flush()
            interrupting.join()
    finally:
        signal.signal(signal.SIGINT, before)
    assert given_up.wait(30)


def test_an_error_of_whole_work_is_raised_to_the_caller_and_kept_by_nobody() -> None:
    @whole
    def fail(text: str) -> None:
        assert threading.current_thread() is not threading.main_thread()
        raise ValueError(text)

    for _ in range(2):
        with pytest.raises(ValueError, match="as it was"):
            fail("as it was")
    with pytest.raises(ValueError, match="here, too"):
        unless_interrupted(lambda: fail("here, too"))


def test_a_flush_whose_caller_has_gone_is_given_up_and_done_by_the_next(tmp_path: Path) -> None:
    """As in a server, whose calls run in threads and may lose their callers."""
    calls = 0

    def gone_at_the_second_look() -> None:
        nonlocal calls
        calls += 1
        if calls > 1:
            raise CancelledError("the caller went away")

    with connect(tmp_path, durability="os") as database:
        points = database.create_collection("points", dim=2)
        points.upsert(["a", "b"], vectors=VECTORS)

        def flush_for_somebody() -> None:
            with checking_caller(gone_at_the_second_look):
                points.flush()

        with ThreadPoolExecutor(1) as pool, pytest.raises(CancelledError):
            pool.submit(flush_for_somebody).result()
        assert points.count() == 2
        points.flush()
        assert [segment.rows for segment in points.info().closed_segments] == [2]

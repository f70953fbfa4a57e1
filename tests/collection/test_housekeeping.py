"""Background threads outlive what goes wrong in one collection."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import pytest

from vecdb.housekeeping import Housekeeping, Scrubber


class Failing:
    """Stands for a collection whose background work fails the first times it is tried."""

    name = "failing"
    is_read_only = False

    def __init__(self, times: int) -> None:
        self._times = times
        self._tried: dict[str, int] = {}
        self.went_on = {work: threading.Event() for work in ("seal", "index", "merge", "scrub")}
        self.maintenance = SimpleNamespace(
            index=lambda: self._work("index"), merge=lambda: self._work("merge")
        )

    def seal_if_due(self) -> bool:
        return self._work("seal")

    def scrub(self, throttle: object) -> SimpleNamespace:
        del throttle
        self._work("scrub")
        return SimpleNamespace(files=0, bytes=0, damage=[])

    def _work(self, work: str) -> bool:
        self._tried[work] = self._tried.get(work, 0) + 1
        if self._tried[work] <= self._times:
            raise MemoryError(f"no memory to {work}")
        self.went_on[work].set()
        return False


@pytest.mark.parametrize("work", ["seal", "index", "merge"])
def test_a_defect_is_told_of_and_tried_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, work: str
) -> None:
    monkeypatch.setattr("vecdb.housekeeping._RETRY_SECONDS", 0.01)
    failing, sound = Failing(2), Failing(0)
    collections: Any = [failing, sound]
    housekeeping = Housekeeping(lambda: collections)
    try:
        assert failing.went_on[work].wait(60)
        assert sound.went_on[work].wait(60)
    finally:
        housekeeping.stop()
    assert f"MemoryError: no memory to {work}" in caplog.text
    assert "Traceback" in caplog.text


def test_a_scrub_that_fails_is_not_the_last(caplog: pytest.LogCaptureFixture) -> None:
    failing, sound = Failing(1), Failing(0)
    collections: Any = [failing, sound]
    scrubber = Scrubber(lambda: collections, 1, 1 << 20)  # seconds
    try:
        assert sound.went_on["scrub"].wait(60)
        assert failing.went_on["scrub"].wait(60)
    finally:
        scrubber.stop()
    assert "MemoryError: no memory to scrub" in caplog.text

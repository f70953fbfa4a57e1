"""What all collections take together is known without a look at all of them for each write."""

from __future__ import annotations

import gc
import weakref

import pytest

from vecdb.collection.budget import Budget, SpaceLimits, Usage
from vecdb.errors import DiskLimitError, MemoryLimitError

FREE = 1 << 40
ONE = Usage(100_000, 100_000)


class Stand:
    """Stands in for a collection, and counts how often it is asked."""

    def __init__(self, taken: Usage) -> None:
        self.taken = taken
        self.looks = 0

    @property
    def usage(self) -> Usage:
        self.looks += 1
        return self.taken

    def graph_bytes(self, rows: int) -> int:
        return 1_000 * rows


def budget_of(takers: list[Stand], *, disk: int | None = None, memory: int | None = None) -> Budget:
    return Budget(SpaceLimits(disk, memory, 0), lambda: FREE, lambda: takers)


@pytest.fixture(autouse=True)
def _seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vecdb.collection.budget._LOOK_SECONDS", 1e9)


@pytest.mark.parametrize("kind", ["disk", "memory"])
def test_a_write_looks_at_the_collection_that_it_is_to(kind: str) -> None:
    takers = [Stand(ONE) for _ in range(50)]
    budget = budget_of(takers, **{kind: 10_000_000})
    for _ in range(40):
        with budget.growth(ONE, takers[7]):
            takers[7].taken += ONE
        budget.is_tight(takers[3].taken.memory_bytes)
    assert {taker.looks for taker in takers if taker is not takers[7]} == {1}
    assert takers[7].looks <= 41
    refusal = DiskLimitError if kind == "disk" else MemoryLimitError
    with pytest.raises(refusal, match="9,000,000 bytes of the 10,000,000"):
        budget.growth(Usage(1_000_001, 1_000_001), takers[3]).__enter__()


def test_nothing_is_refused_for_what_was_given_back_meanwhile() -> None:
    takers = [Stand(Usage(disk_bytes=1_000_000)) for _ in range(2)]
    budget = budget_of(takers, disk=2_000_000)
    with pytest.raises(DiskLimitError):
        budget.growth(Usage(disk_bytes=1_000), takers[0]).__enter__()
    takers[1].taken = Usage(disk_bytes=500_000)
    with budget.growth(Usage(disk_bytes=400_000), takers[0]), pytest.raises(DiskLimitError):
        budget.growth(Usage(disk_bytes=200_000), takers[0]).__enter__()


def test_graphs_still_to_be_built_are_asked_for_with_the_rows() -> None:
    takers = [Stand(Usage())]
    budget = budget_of(takers, disk=2_000_000)
    with budget.growth(Usage(), takers[0], 1_999), pytest.raises(DiskLimitError, match=" 2,000"):
        budget.growth(Usage(disk_bytes=0), takers[0], 2).__enter__()


def test_what_is_not_there_yet_is_held_against_what_all_take_now() -> None:
    takers = [Stand(Usage(disk_bytes=1_000_000))]
    budget = budget_of(takers, disk=2_000_000)
    budget.check()
    takers.append(Stand(Usage(disk_bytes=1_000_000)))
    with pytest.raises(DiskLimitError):
        budget.growth(Usage(disk_bytes=1)).__enter__()


@pytest.mark.parametrize("disk", [None, 1 << 30])
def test_a_collection_that_was_dropped_is_let_go_of(disk: int | None) -> None:
    takers = [Stand(ONE)]
    budget = budget_of(takers, disk=disk)
    with budget.growth(ONE, takers[0]):
        pass
    dropped = weakref.ref(takers.pop())
    gc.collect()
    assert dropped() is None

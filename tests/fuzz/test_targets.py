"""The targets of the fuzzer, under hypothesis: their seeds, mutated, and bytes from nowhere."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.seeds import seeds
from tests.fuzz.targets import TARGETS, run


@pytest.fixture(autouse=True)
def _untraced_afterwards() -> Iterator[None]:
    yield
    tracemalloc.stop()


def mutated(target: str) -> st.SearchStrategy[bytes]:
    """Return seeds with a few bytes replaced, inserted or cut out, or cut off at an end."""
    piece = st.tuples(st.floats(0, 1), st.integers(0, 8), st.binary(max_size=8))

    def apply(seed: bytes, changes: list[tuple[float, int, bytes]]) -> bytes:
        for place, cut, put in changes:
            start = int(place * len(seed))
            seed = seed[:start] + put + seed[start + cut :]
        return seed

    return st.builds(apply, st.sampled_from(seeds(target)), st.lists(piece, max_size=4))


@pytest.mark.parametrize("target", TARGETS)
def test_seeds_are_accepted(target: str) -> None:
    for seed in seeds(target):
        TARGETS[target](seed)


@pytest.mark.parametrize("target", TARGETS)
def test_what_is_not_valid_is_refused_in_words(target: str) -> None:
    @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.one_of(mutated(target), mutated(target), st.binary(max_size=300)))
    def fuzz(data: bytes) -> None:
        run(TARGETS[target], data)

    fuzz()


def test_a_finding_is_a_failure() -> None:
    def greedy(data: bytes) -> None:
        bytearray(64 << 20)

    with pytest.raises(AssertionError, match="bytes for an input of 1"):
        run(greedy, b"x")

    def broken(data: bytes) -> None:
        raise IndexError

    with pytest.raises(IndexError):
        run(broken, b"x")

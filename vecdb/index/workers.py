"""Who does the work of a build, and in what pieces."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from vecdb.kernels.jit import COMPILED


def no_step() -> None:
    """Go on."""


@dataclass(frozen=True, slots=True)
class Workers:
    """On how many threads to work, and what each calls between two pieces of work.

    What `step` raises ends the work.
    """

    threads: int = 1
    step: Callable[[], object] = no_step

    def alone(self) -> Workers:
        """Return one thread of these."""
        return Workers(1, self.step)


def in_stretches(
    workers: Workers, count: int, stretch: int, make_work: Callable[[], Callable[[int, int], Any]]
) -> None:
    """Call ``work(first, last)`` for stretches of `count` items, taken by threads as they come.

    `make_work` is called once for each thread, to give each its own working memory.
    """
    starts = itertools.count(0, stretch)

    def run() -> None:
        work = make_work()
        for start in starts:
            if start >= count:
                return
            workers.step()
            work(start, min(start + stretch, count))

    wanted = min(workers.threads if COMPILED else 1, -(-count // stretch))
    if wanted <= 1:
        run()
        return
    with ThreadPoolExecutor(wanted) as pool:
        for part in [pool.submit(run) for _ in range(wanted)]:
            part.result()

"""The comparison of several calling threads with one."""

import numpy as np

from bench.ann_engines import BuildOptions, VecdbFlat
from bench.callers import measure
from tests.index.samples import clustered


class Tiring(VecdbFlat):
    """Gives other answers from its seventh call on."""

    calls = 0

    def search(self, queries, k, value, threads=1):  # type: ignore[no-untyped-def]
        self.calls += 1
        rows = super().search(queries, k, value, threads)
        return rows if self.calls <= 6 else rows[:, ::-1]


def test_all_queries_are_answered_and_answers_compared() -> None:
    vectors = clustered(200, 8)
    for engine, differing in ((VecdbFlat(), 0), (Tiring(), 2 * 2 * 21)):
        engine.build(vectors, BuildOptions("l2", 1, 4, 10))
        found = measure(engine, vectors[:21], k=3, value=0, batch=4, threads=3, passes=2)
        assert found["answers_that_differ"] == differing
        assert found["qps_1"] > 0
        once = measure(engine, vectors[:21], k=3, value=0, batch=4, threads=3, passes=1)
        # Of several passes it is the median of ratios, which depends on the machine.
        assert np.isclose(once["ratio"], once["qps_3"] / once["qps_1"])

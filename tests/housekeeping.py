"""A database whose segments stay as the test leaves them."""

from __future__ import annotations


class NoHousekeeping:
    """Leaves sealing, indexing and merging to the test, so that a run can be repeated."""

    def __init__(self, collections: object) -> None:
        del collections

    def stop(self) -> None:
        """There is nothing to stop."""

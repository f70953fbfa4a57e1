"""Deleting what was written for files that a folder has no longer."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import Protocol

from vecdb.types import Filter

_NAMES_AT_ONCE = 1_000
_AFTER_SLASH = chr(ord("/") + 1)


class Deletes(Protocol):
    """What pruning needs of a collection, embedded or behind a server."""

    def delete(self, *, filter: Filter) -> int:
        """Delete the points that match."""


def prune(target: Deletes, folders: Iterable[str], names: Iterable[str]) -> int:
    """Delete the chunks of documents below `folders` that are not among `names`; return how many.

    Only points that an ingest wrote are looked at.
    """
    deleted = 0
    there = sorted(names)
    for folder in sorted(set(folders)):
        first, end = f"{folder}/", f"{folder}{_AFTER_SLASH}"
        kept = [name for name in there if first <= name < end]
        blocks = [kept[n : n + _NAMES_AT_ONCE] for n in range(0, len(kept), _NAMES_AT_ONCE)] or [[]]
        bounds = [first, *(block[0] for block in blocks[1:]), end]
        for (low, high), block in zip(pairwise(bounds), blocks, strict=True):
            deleted += target.delete(
                filter={
                    "path": {"$gte": low, "$lt": high, "$nin": block},
                    "sha256": {"$exists": True},
                    "split": {"$exists": True},
                }
            )
    return deleted

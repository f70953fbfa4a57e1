"""Collections: where the WAL, segments, indexes, filters and models meet."""

from vecdb.collection.collection import Collection
from vecdb.collection.settings import CollectionSettings

__all__ = ["Collection", "CollectionSettings"]

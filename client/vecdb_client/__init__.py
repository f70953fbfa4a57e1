"""The client of a vecdb server, with the methods of the embedded engine.

>>> from vecdb_client import Client
>>> with Client("grpc://127.0.0.1:7654") as db:  # doctest: +SKIP
...     docs = db.collection("docs")
...     docs.search("a question", k=10)

Errors are the classes of `vecdb.errors`, results those of `vecdb.types`. When the server cannot be
reached, reads, upsert and flush are tried again, five times in all within a few seconds; create,
drop, delete, backup and ask are not, because a second execution would answer differently.
"""

from vecdb_client._async_client import AsyncAnswer, AsyncClient, AsyncCollection
from vecdb_client._client import Client, Collection

__all__ = ["AsyncAnswer", "AsyncClient", "AsyncCollection", "Client", "Collection"]

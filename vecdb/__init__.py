"""A vector database engine with a language model on each side of it.

>>> import vecdb
>>> db = vecdb.connect("data/")                      # embedded
>>> db = vecdb.connect("grpc://127.0.0.1:7654")      # a server; both have the same methods
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from vecdb import errors, types
from vecdb.answer import Answer
from vecdb.types import (
    BackupInfo,
    Citation,
    CollectionInfo,
    FinishReason,
    Hit,
    LongText,
    Metric,
    Record,
    Source,
    UpsertResult,
)

if TYPE_CHECKING:
    from vecdb.database import Database
    from vecdb_client import Client

__all__ = [
    "Answer",
    "BackupInfo",
    "Citation",
    "CollectionInfo",
    "FinishReason",
    "Hit",
    "LongText",
    "Metric",
    "Record",
    "Source",
    "UpsertResult",
    "connect",
    "errors",
    "restore",
    "types",
]


def connect(target: str, **options: Any) -> Database | Client:
    """Open a data directory in this process, or reach a server.

    Parameters
    ----------
    target
        A directory, or ``grpc://host:port``, or ``grpcs://host:port`` for TLS.
    options
        Those of `vecdb.database.Database` for a directory, those of `vecdb_client.Client` for a
        server. Which ones there are is told by a TypeError.

    Returns
    -------
    Database or Client
        Both have the same methods; bulk loads (`Collection.bulk`) are of the former only.

    Raises
    ------
    InvalidParameterError
        If it is a URL of another kind, which would be taken for a directory's name.
    """
    if str(target).startswith(("grpc://", "grpcs://")):
        from vecdb_client import Client

        return Client(str(target), **options)
    if isinstance(target, str) and "://" in target:
        raise errors.InvalidParameterError(
            f"{errors.shown(target.partition('://')[0])}://...: a server is reached at "
            "grpc://host:port, or grpcs://host:port for TLS"
        )
    from vecdb.database import Database

    return Database(target, **options)


def restore(
    backups: str | Path, data: str | Path, *, number: int | None = None, replace: bool = False
) -> BackupInfo:
    """Make a data directory of a backup, whole or not at all.

    Parameters
    ----------
    backups
        The directory that `Database.backup` wrote to.
    data
        The data directory, which no process may have open.
    number
        Which backup; None for the newest.
    replace
        Put it in the place of what is in the directory; without it that must be empty.

    Raises
    ------
    NotFoundError
        If there is no such backup.
    CorruptFileError, NewerFormatError, AlreadyExistsError, DirectoryLockedError, DiskFullError
        The data directory is then as it was.
    """
    from vecdb.restoring import restore_backup

    return restore_backup(backups, data, number=number, replace=replace)
